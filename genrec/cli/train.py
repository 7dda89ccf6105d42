"""Commands that train, tune and measure. Heavy imports stand inside."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import (
    LOADING,
    SEARCHING,
    SETTINGS,
    UNTRAINED,
    AsJson,
    Chosen,
    Data,
    Model,
    mapping,
    with_options,
    with_settings,
)
from genrec.config import Settings
from genrec.errors import SettingsError

if TYPE_CHECKING:
    pass


def _training_options() -> dict[str, tuple[Any, Any]]:
    """An option for each setting of a training run, and those of the prompt."""
    from genrec.training.config import Training, describe_settings

    help_of = describe_settings()
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
    from genrec.reports import console, terminal
    from genrec.runs import Run
    from genrec.training.config import read, resolve

    assert settings is not None
    first = runs.is_first_process()
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
    resolve(values)
    dataset, new = Dataset.load(data), None
    if interactions is not None:
        from genrec.data.readers.rejects import Rejects
        from genrec.data.updates import apply_updates

        rejects = Rejects(interactions.name)
        dataset, new = apply_updates(dataset, interactions, items, rejects=rejects)
        for why, count in rejects.counts().items() if first else ():
            console.print_line(f"rejected {count:,}: {why}")
        values.setdefault("eval_users", 0)
    with terminal.training(quiet=json or not first) as (log, watch):
        from genrec.training import trainer

        run = trainer.train(
            dataset,
            out,
            model,
            resume=resume,
            since=since,
            new=new,
            log=log,
            watch=watch,
            **loading,
            **values,
        )
    if not first:
        return
    if new is not None and not (out / "data").exists():
        dataset.save(out / "data", [rejects])
        console.print_line(f"{int(new.sum()):,} new events; all of the data -> {out / 'data'}")
    if json:
        console.print_json({"schema_version": 1, "out": str(out), **asdict(run)})
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
    from genrec.reports import console

    assert settings is not None
    values = {n: v for n, v in settings.items() if n not in LOADING}
    if behaviors is not None:
        values["behaviors"] = tuple(b.strip() for b in behaviors.split(",") if b.strip())
    dataset = Dataset.load(data)
    with console.working("Writing examples ...") as log:
        from genrec.training import examples
        from genrec.training.pairs import write_pairs

        if form == "pointwise":
            values |= {"negatives": negatives, "like_threshold": like_threshold}
            values["pairs_per_user"] = pairs_per_user
            many = write_pairs(dataset, out, model, log=log, **values)
        else:
            many = examples.write_examples(dataset, out, model, form=form, log=log, **values)
    console.print_line(f"{many:,} examples -> {out}")


def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `train` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write a run as a plain model, its adapter merged, for other servers."""
    from genrec import runs
    from genrec.reports import console

    found = runs.Run.read(runs.find_run(run))
    with console.working(f"Merging {run} ...") as log:
        from genrec.models.language_model import LanguageModel

        LanguageModel.of_run(run, device="cpu", dtype="float32", log=log).save(out)
    console.print_line(f"{found.base_model} with the adapter of {run} -> {out}")
    if not found.training.get("vocab_weight"):
        console.print_line(
            "It was trained with vocab_weight 0: it knows which title of the catalog comes next, "
            "not how to write one freely. Constrain it to the catalog's titles, or train with "
            "--vocab-weight above 0."
        )
