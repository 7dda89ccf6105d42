"""Define the command ``fit``, which imports heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, command
from genrec.cli.train import TRAINED
from genrec.config import MODEL, Settings
from genrec.models.packaged import DEFAULT_MODEL

_WHAT = "What to fit"


@command("minutes", "run", "model", "no_model", "seed", "threads", "target_behavior", "json")
def fit(
    data: Data,
    settings: Annotated[Given, FieldsOf(Settings, only=[*TRAINED, "seed"])],
    minutes: Annotated[
        float,
        typer.Option(
            min=0.01,
            help="Time limit in minutes. A step that cannot end in time is not begun.",
            rich_help_panel=_WHAT,
        ),
    ] = 30.0,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run folder for an adapter. It is trained with the time that is left if the model does "
            "not improve the lists without one.",
            show_default="no adapter is trained",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Language model, as for `genrec recommend`.",
            rich_help_panel=MODEL,
        ),
    ] = DEFAULT_MODEL,
    no_model: Annotated[
        bool,
        typer.Option(
            "--no-model",
            help="Only choose the parts of the prior, and load no model.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of CPU threads to use.",
            show_default="chosen by PyTorch",
            rich_help_panel=MODEL,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Find the parts that make the best lists for a dataset: the recipe from data to recommendations.

    The steps are further sources for the collaborative prior, a learned ranking of its best items, a
    sequence network that the ranking uses, the role of the language model, and an adapter for it. Each
    part is measured on validation users that it was not fitted to, and is kept only if it improves
    their lists beyond chance. The test part is never used for this.

    The verdict is written to fitted.json in the dataset folder, and other commands use it as long as
    --ranker, --network and --prior-sources are auto. A second run continues where the first one was
    interrupted.
    """
    from genrec.data.dataset import Dataset
    from genrec.files import check_output
    from genrec.reports import console, fit_summary

    Settings.of(settings.only)  # report invalid settings before loading the data
    dataset = Dataset.load(data)
    check_output(data / "fitted.json", advice="Copy the folder to a place that can be written.")
    with console.working(f"Fitting {dataset.info.name} ...", quiet=json) as log:
        from genrec.fitting.recipe import fit as fit_dataset

        report = fit_dataset(
            dataset,
            model=None if no_model else model,
            minutes=minutes,
            run=run,
            threads=threads,
            log=log,
            **settings.only,
        )
    if json:
        console.print_json(report.to_dict())
    else:
        fit_summary.print_fit(report, data)
