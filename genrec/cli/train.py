"""Commands that train, tune and measure. Heavy imports stand inside."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import (
    ASKING,
    LOADING,
    SEARCHING,
    SETTINGS,
    UNTRAINED,
    AsJson,
    Chosen,
    Data,
    Given,
    Model,
    RunFolder,
    exact,
    loaded,
    mapping,
    with_options,
    with_settings,
)
from genrec.config import Settings
from genrec.errors import RequestError, SettingsError

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset


def _training_options() -> dict[str, tuple[Any, Any]]:
    """An option for each setting of a training run, and those of the prompt."""
    from genrec.training.config import Training, described

    help_of = described()
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}
    options: dict[str, tuple[Any, Any]] = {}
    for f in fields(Training):
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
    shown = [n for n in SETTINGS if n not in {*SEARCHING, *UNTRAINED}]
    return options | {n: (SETTINGS[n], defaults[n]) for n in shown if n != "seed"} | LOADING


_PROMPT = (
    "template", "language", "prompts", "values", "case", "max_title_tokens", "max_events",
    "max_prompt_tokens", "target_behavior",
)  # fmt: skip


@with_options(_training_options())
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

    from genrec import runs
    from genrec.data.dataset import Dataset
    from genrec.reports import terminal
    from genrec.runs import Run
    from genrec.training.config import read, resolved

    assert settings is not None
    first = runs.first_process()
    loading = {n: settings.pop(n) for n in LOADING}
    values = dict(settings.only)
    if "behaviors" in values:
        values["behaviors"] = [b.strip() for b in values["behaviors"].split(",") if b.strip()]
    if "behavior_weights" in values:
        pairs = mapping(values["behavior_weights"], "BEHAVIOR=NUMBER, such as buy=2")
        values["behavior_weights"] = {n: _number(v, n) for n, v in pairs.items()}
    written = {} if config is None else read(config)
    if resume and config is None and (out / "training.yaml").is_file():
        written = read(out / "training.yaml")
    if since is not None and not resume:
        earlier = Run.read(since)
        prompt_of = {n: v for n, v in earlier.settings.items() if n in _PROMPT}
        model = earlier.base_model if model == "smollm2-135m" else model
        written = {**prompt_of, "behaviors": earlier.training["behaviors"], **written}
    if (interactions or items) and since is None:
        msg = "--interactions or --items without --from RUN. Expected the run to train further."
        raise SettingsError(msg)
    values = {**written, **values}
    resolved(values)
    dataset, new = Dataset.load(data), None
    if interactions is not None:
        from genrec.data.readers.arrow import Rejects
        from genrec.data.updates import joined

        rejects = Rejects(interactions.name)
        dataset, new = joined(dataset, interactions, items, rejects=rejects)
        for why, count in rejects.counts().items() if first else ():
            terminal.print_line(f"rejected {count:,}: {why}")
        values.setdefault("eval_users", 0)
    with terminal.training(quiet=json or not first) as (say, watch):
        from genrec.training import trainer

        run = trainer.train(
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
    if not first:
        return
    if new is not None and not (out / "data").exists():
        dataset.save(out / "data", [rejects])
        terminal.print_line(f"{int(new.sum()):,} new events; all of the data -> {out / 'data'}")
    if json:
        terminal.print_json({"schema_version": 1, "out": str(out), **asdict(run)})
        return
    terminal.print_run(run, out)


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        msg = f"{name}={text!r}. Expected a number."
        raise SettingsError(msg) from None


@with_settings(*SEARCHING, *UNTRAINED, "quantize")
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
    from genrec.data.dataset import Dataset
    from genrec.reports import terminal

    assert settings is not None
    values = {n: v for n, v in settings.items() if n not in LOADING}
    if behaviors is not None:
        values["behaviors"] = tuple(b.strip() for b in behaviors.split(",") if b.strip())
    dataset = Dataset.load(data)
    with terminal.working("Writing examples ...") as say:
        from genrec.training import examples, pointwise

        if form == "pointwise":
            values |= {"negatives": negatives, "like_threshold": like_threshold}
            values["pairs_per_user"] = pairs_per_user
            many = pointwise.write_pairs(dataset, out, model, say=say, **values)
        else:
            many = examples.write_examples(dataset, out, model, form=form, say=say, **values)
    terminal.print_line(f"{many:,} examples -> {out}")


def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `train` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write a run as a plain model, its adapter merged, for other servers."""
    from genrec import runs
    from genrec.reports import terminal

    found = runs.Run.read(runs.located(run))
    with terminal.working(f"Merging {run} ...") as say:
        from genrec.models.language_model import LanguageModel

        LanguageModel.of_run(run, device="cpu", dtype="float32", say=say).save(out)
    terminal.print_line(f"{found.base_model} with the adapter of {run} -> {out}")
    if not found.training.get("vocab_weight"):
        terminal.print_line(
            "It was trained with vocab_weight 0: it knows which title of the catalog comes next, "
            "not how to write one freely. Constrain it to the catalog's titles, or train with "
            "--vocab-weight above 0."
        )


@with_settings(*(n for n in SEARCHING if n != "prior_sources"), "decoder", "normalization")
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
            help="JSON file for what was found. (default: tuned.json in the run's folder with "
            "--run, else in DIR; `recommend`, `rank`, `score` and `evaluate` read it)",
            show_default=False,
        ),
    ] = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Fit how much the collaborative prior counts beside a model, on validation users, never on test.

    With --run the prior is kept in the run's folder, too, for those who load it without the data; it
    holds the user ids whose events it counted.
    """
    from dataclasses import asdict

    from genrec import runs
    from genrec.data.dataset import TUNED, Dataset
    from genrec.evaluation import tuning
    from genrec.priors.collaborative import CollaborativePrior
    from genrec.reports import terminal

    assert settings is not None
    if out is None and run is not None and runs.located(run) != run:
        msg = f"--run {run} is in the package, which is not written to. Expected --out F.json, too."
        raise SettingsError(msg)
    if out is not None and not out.parent.is_dir():
        msg = f"--out {out}: there is no folder {out.parent}. Expected a file in one that is there."
        raise SettingsError(msg)
    dataset = Dataset.load(data)
    with terminal.working(f"Loading {run or model} ...", quiet=json) as say:
        recommender = loaded(dataset, model, run, settings, say)
    with terminal.progress("Scoring", users, quiet=json) as bar:
        found = tuning.tune(
            recommender, users=users, protocol=protocol, seed=settings["seed"], progress=bar
        )
    place = out or (data if run is None else run) / TUNED
    found.save(place)
    if run is not None and out is None:
        prior = recommender.with_settings(prior="collaborative").prior
        assert isinstance(prior, CollaborativePrior)
        prior.save(run / runs.PRIOR)
    if json:
        terminal.print_json({"schema_version": 1, "out": str(place), **asdict(found)})
        return
    terminal.print_table(
        ["held out", *found.ndcg],
        [
            [name, *(f"{values[k]:.4f}" if k in values else "-" for k in found.ndcg)]
            for name, values in (("nats", found.nats), ("ndcg@10", found.ndcg))
        ],
    )
    terminal.print_line(
        f"fusion {found.fusion}, prior_weight {found.weights[found.fusion]:g}, node_temperature "
        f"{found.temperatures[found.fusion]:g}, from {found.users} users -> {place}"
    )


@with_settings()
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
            "userknn, ease, content, mf, bpr, sasrec, textseq, prior (alone); none for none. "
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
    explanations: Annotated[
        bool,
        typer.Option(
            "--explanations",
            help="Measure instead whether the sentences of first recommendations name what the "
            "model rests on: 100 users unless --users says otherwise.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for per-user values, with --explanations a JSONL file; a run that was "
            "killed goes on from there."
        ),
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Write a report: F.html or F.md; may be repeated.")
    ] = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Measure the model and baselines on held-out events, with intervals and differences.

    With --explanations: whether the score of the first recommendation falls, under another prompt
    template, without the events that its sentence names.
    """
    from genrec.baselines import base
    from genrec.data import protocols
    from genrec.data.dataset import Dataset
    from genrec.evaluation import evaluator as evaluating
    from genrec.reports import evaluation_report as reports
    from genrec.reports import terminal

    assert settings is not None
    Settings.of({n: v for n, v in settings.items() if n not in ASKING})
    if explanations:
        given = {"--against": against, "--report": report, "--no-model": no_model}
        if wrong := [name for name, value in given.items() if value]:
            msg = (
                f"--explanations with {wrong[0]}. Expected one of them: sentences are a model's, and "
                "are not compared with baselines or written into reports."
            )
            raise SettingsError(msg)
        asked = {"users": users, "protocol": protocol, "split": split, "fit_on": fit_on, "out": out}
        _evaluate_explanations(data, model, run, settings, asked, json=json)
        return
    for path in report or []:
        reports.check(path)
    usual = [n for n in ("popular", "markov") if n in base.NAMES]
    names = usual if against is None else [n.strip() for n in against.split(",") if n.strip()]
    systems: list[Any] = [n for n in names if n != "none"]
    dataset = Dataset.load(data)
    if settings["target_behavior"] is not None:
        dataset = protocols.for_behavior(dataset, settings["target_behavior"])
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.under(dataset, protocol)
    total = len(protocols.sample(protocols.cases(dataset, protocol, split), users))
    if run is not None and not no_model and (remark := _may_know(run, dataset, protocol, split)):
        terminal.note(remark)
    if not no_model:
        with terminal.working(f"Loading {run or model} ...", quiet=json) as say:
            systems.insert(0, loaded(dataset, model, run, settings, say))
    with terminal.progress("Evaluating", total, quiet=json) as bar:
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
        terminal.print_json(found.to_dict())
        return
    table = reports.overall(found)
    terminal.print_table(table.header, table.rows)
    if found.by_slice:
        terminal.print_line("")
        table = reports.sliced(found, reports.main_metric(found))
        terminal.print_line(f"{reports.main_metric(found)} by slice", "bold")
        terminal.print_table(table.header, table.rows)
    terminal.print_line("")
    for remark in reports.remarks(found):
        terminal.print_line(remark)


def _may_know(run: Path, dataset: Dataset, protocol: str, split: str) -> str:
    """A remark where a run may have learned from what it is asked for; empty where it has not."""
    from genrec import runs
    from genrec.data import protocols

    found = runs.Run.read(runs.located(run))
    if found.data_fingerprint != protocols.fingerprint(dataset):
        under = found.training.get("protocol") or "that of the data then"
        return (
            f"{run} was trained on other events or another split (protocol {under}; here {protocol}): "
            "it may have learned from what it is asked for here. Give the same data and --protocol."
        )
    if split == "validation" and found.training.get("fit") == "both":
        return f"{run} has learned from validation, too: evaluate it on test."
    return ""


def _evaluate_explanations(
    data: Path, model: str, run: Path | None, settings: Given, asked: dict[str, Any], *, json: bool
) -> None:
    """``evaluate --explanations``; ``asked`` as arguments of ``faithfulness``."""
    from genrec.data import protocols
    from genrec.data.dataset import Dataset
    from genrec.evaluation.faithfulness import USERS, faithfulness
    from genrec.reports import terminal

    dataset = Dataset.load(data)
    if settings["target_behavior"] is not None:
        dataset = protocols.for_behavior(dataset, settings["target_behavior"])
    if run is not None:
        _shares_items(run, dataset)
    protocol = asked["protocol"] or protocols.default_protocol(dataset)
    dataset = protocols.under(dataset, protocol)
    users = USERS if asked["users"] is None else asked["users"]
    total = len(protocols.sample(protocols.cases(dataset, protocol, asked["split"]), users))
    if run is not None and (remark := _may_know(run, dataset, protocol, asked["split"])):
        terminal.note(remark)
    asked |= {"protocol": protocol, "users": users}
    encoder = {"auto": "minilm", "none": "ngrams"}.get(settings["encoder"], settings["encoder"])
    with terminal.working(f"Loading {run or model} ...", quiet=json) as say:
        recommender = loaded(dataset, model, run, exact(settings), say)
    with terminal.progress("Explaining", total, quiet=json) as bar:
        found = faithfulness(
            dataset,
            recommender,
            encoder=encoder,
            seed=settings["seed"],
            progress=bar,
            **asked,
        )
    if json:
        terminal.print_json(found.to_dict())
    else:
        terminal.print_faithfulness(found)


def _shares_items(run: Path, dataset: Any) -> None:
    """Refuses a run that was trained on none of a dataset's titles."""
    from genrec import runs
    from genrec.data.catalog import Catalog

    folder = runs.located(run)
    runs.Run.read(folder)
    trained = Catalog.read(folder / runs.CATALOG)
    if not set(trained.titles) & set(dataset.catalog.titles):
        msg = (
            f"{run} was trained on {len(trained):,} items, and {dataset.info.name} has none of their "
            "titles. Expected a run on this data or on a part of it."
        )
        raise RequestError(msg)
