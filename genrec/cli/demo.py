"""Define the command ``demo``, which runs the demo in the module ``walkthrough``."""

from __future__ import annotations

from typing import Annotated

import typer

from genrec.cli.options import AsJson, FieldsOf, Given, ModelOptions, command
from genrec.cli.serve import PORT
from genrec.config import MODEL, Settings
from genrec.models.packaged import DEFAULT_MODEL


@command()
def demo(
    which: Annotated[Given, FieldsOf(ModelOptions, only=["model", "device", "dtype", "threads"])],
    settings: Annotated[Given, FieldsOf(Settings, only=["prior"])],
    language: Annotated[
        str,
        typer.Option(
            metavar="en|zh",
            help="Language of the demo. en: data from a British gift shop. zh: a small made-up "
            "Chinese dataset.",
        ),
    ] = "en",
    users: Annotated[
        int, typer.Option(metavar="N", help="Evaluate on a fixed random sample of N users.")
    ] = 30,
    run: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="Run folder to show in addition to the model without fine-tuning. auto: the run "
            "shipped with genrec, if it fits the model and language. none: no run.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Serve the bundled shop over HTTP instead; see `genrec serve`."
        ),
    ] = False,
    port: Annotated[int, typer.Option(help="With --serve: port to listen on.")] = PORT,
    json: AsJson = False,
) -> None:
    """Show genrec at work on bundled data. The demo takes a few minutes.

    It shows the data, a prompt and recommendations, and measures the hit rate on some users. With
    --serve, it answers requests until it is stopped, and forgets what came in.
    """
    from genrec.cli import walkthrough

    if serve:
        walkthrough.serve(which, settings, run=run, language=language, port=port)
        return
    walkthrough.run(
        which.pop("model") or DEFAULT_MODEL,
        users,
        run=run,
        language=language,
        json=json,
        **which,
        **settings,
    )
