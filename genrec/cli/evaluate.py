"""Commands that measure: evaluate and tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import (
    ASKING,
    SEARCHING,
    AsJson,
    Chosen,
    Data,
    Given,
    Model,
    RunFolder,
    load_recommender,
    use_float32,
    with_settings,
)
from genrec.config import Settings
from genrec.errors import RequestError, SettingsError

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset


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
    from genrec.reports import console

    assert settings is not None
    if out is None and run is not None and runs.find_run(run) != run:
        msg = f"--run {run} is in the package, which is not written to. Expected --out F.json, too."
        raise SettingsError(msg)
    if out is not None and not out.parent.is_dir():
        msg = f"--out {out}: there is no folder {out.parent}. Expected a file in one that is there."
        raise SettingsError(msg)
    dataset = Dataset.load(data)
    with console.working(f"Loading {run or model} ...", quiet=json) as log:
        recommender = load_recommender(dataset, model, run, settings, log)
    with console.progress("Scoring", users, quiet=json) as bar:
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
        console.print_json({"schema_version": 1, "out": str(place), **asdict(found)})
        return
    console.print_table(
        ["held out", *found.ndcg],
        [
            [name, *(f"{values[k]:.4f}" if k in values else "-" for k in found.ndcg)]
            for name, values in (("nats", found.nats), ("ndcg@10", found.ndcg))
        ],
    )
    console.print_line(
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
    from genrec.baselines import registry
    from genrec.data import protocols
    from genrec.data.dataset import Dataset
    from genrec.evaluation import evaluator as evaluating
    from genrec.reports import console
    from genrec.reports import evaluation_report as reports

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
    usual = [n for n in ("popular", "markov") if n in registry.NAMES]
    names = usual if against is None else [n.strip() for n in against.split(",") if n.strip()]
    systems: list[Any] = [n for n in names if n != "none"]
    dataset = Dataset.load(data)
    if settings["target_behavior"] is not None:
        dataset = protocols.with_target_behavior(dataset, settings["target_behavior"])
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    total = len(protocols.sample(protocols.cases(dataset, protocol, split), users))
    if run is not None and not no_model and (remark := _may_know(run, dataset, protocol, split)):
        console.note(remark)
    if not no_model:
        with console.working(f"Loading {run or model} ...", quiet=json) as log:
            systems.insert(0, load_recommender(dataset, model, run, settings, log))
    with console.progress("Evaluating", total, quiet=json) as bar:
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
        console.print_json(found.to_dict())
        return
    table = reports.overall(found)
    console.print_table(table.header, table.rows)
    if found.by_slice:
        console.print_line("")
        table = reports.sliced(found, reports.main_metric(found))
        console.print_line(f"{reports.main_metric(found)} by slice", "bold")
        console.print_table(table.header, table.rows)
    console.print_line("")
    for remark in reports.remarks(found):
        console.print_line(remark)


def _may_know(run: Path, dataset: Dataset, protocol: str, split: str) -> str:
    """A remark where a run may have learned from what it is asked for; empty where it has not."""
    from genrec import runs
    from genrec.data import protocols

    found = runs.Run.read(runs.find_run(run))
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
    from genrec.reports import console, terminal

    dataset = Dataset.load(data)
    if settings["target_behavior"] is not None:
        dataset = protocols.with_target_behavior(dataset, settings["target_behavior"])
    if run is not None:
        _shares_items(run, dataset)
    protocol = asked["protocol"] or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    users = USERS if asked["users"] is None else asked["users"]
    total = len(protocols.sample(protocols.cases(dataset, protocol, asked["split"]), users))
    if run is not None and (remark := _may_know(run, dataset, protocol, asked["split"])):
        console.note(remark)
    asked |= {"protocol": protocol, "users": users}
    encoder = {"auto": "minilm", "none": "ngrams"}.get(settings["encoder"], settings["encoder"])
    with console.working(f"Loading {run or model} ...", quiet=json) as log:
        recommender = load_recommender(dataset, model, run, use_float32(settings), log)
    with console.progress("Explaining", total, quiet=json) as bar:
        found = faithfulness(
            dataset,
            recommender,
            encoder=encoder,
            seed=settings["seed"],
            progress=bar,
            **asked,
        )
    if json:
        console.print_json(found.to_dict())
    else:
        terminal.print_faithfulness(found)


def _shares_items(run: Path, dataset: Any) -> None:
    """Refuses a run that was trained on none of a dataset's titles."""
    from genrec import runs
    from genrec.data.catalog import Catalog

    folder = runs.find_run(run)
    runs.Run.read(folder)
    trained = Catalog.read(folder / runs.CATALOG)
    if not set(trained.titles) & set(dataset.catalog.titles):
        msg = (
            f"{run} was trained on {len(trained):,} items, and {dataset.info.name} has none of their "
            "titles. Expected a run on this data or on a part of it."
        )
        raise RequestError(msg)
