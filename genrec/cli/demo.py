"""The command demo. What it shows is in ``walkthrough``, which is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from genrec.cli.options import AsJson, FieldsOf, Given, ModelOptions, command
from genrec.config import MODEL, Settings


@command()
def demo(
    which: Annotated[Given, FieldsOf(ModelOptions, only=["model", "device", "dtype", "threads"])],
    settings: Annotated[Given, FieldsOf(Settings, only=["prior"])],
    language: Annotated[
        str,
        typer.Option(
            metavar="en|zh", help="en: a British gift shop. zh: a small made-up Chinese dataset."
        ),
    ] = "en",
    users: Annotated[
        int, typer.Option(metavar="N", help="Evaluate on a fixed random sample of N users.")
    ] = 30,
    run: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="Run folder to show next to the untrained model. auto: the one shipped with genrec, "
            "if it fits model and language. none: no run.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    json: AsJson = False,
) -> None:
    """Show everything on embedded data, in a few minutes: data, prompt, recommendations, a hit rate."""
    from genrec.cli import walkthrough

    walkthrough.run(
        which.pop("model"), users, run=run, language=language, json=json, **which, **settings
    )
