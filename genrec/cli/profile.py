"""Define the command ``profile``, which imports heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.loading import load_request
from genrec.cli.options import (
    AsJson,
    Data,
    FieldsOf,
    Given,
    HistoryOptions,
    ModelOptions,
    command,
    in_panel,
)
from genrec.config import PRIOR, PROMPT, WHAT, QueryOptions, Settings

if TYPE_CHECKING:
    from genrec.taste.edits import ProfileEdits


@command(
    "user", "history", "no_model", "profile_edits", "sentiment", "model", "run", "language", "json"
)
def profile(
    data: Data,
    asked: HistoryOptions,
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=["profile_edits"])],
    which: ModelOptions,
    settings: Annotated[
        Given,
        FieldsOf(
            Settings,
            only=[
                *in_panel(Settings, PROMPT),
                *in_panel(Settings, PRIOR),
                "node_temperature",
                "encoder",
                "match_threshold",
                "target_behavior",
                "seed",
            ],
        ),
    ],
    no_model: Annotated[
        bool,
        typer.Option(
            "--no-model",
            help="Count only, and measure the interests with the prior. No language model is loaded.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    sentiment: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Classifier written by `genrec sentiment --save`, which reads the reviews of the history. "
            "Events that `genrec sentiment` has marked need none.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Describe a user's taste: interests with their events, recent shifts, opinions and what comes next.

    The paragraph is checked: every number is counted again from the history.
    """
    from genrec.data.dataset import Dataset
    from genrec.pipeline.keywords import edits_of
    from genrec.pipeline.preflight import Wanted
    from genrec.pipeline.profiles import profile_dataset
    from genrec.reports import console, profiles

    edits: ProfileEdits = edits_of(query)
    classifier = None
    if sentiment is not None:
        from genrec.sentiment import Sentiment

        classifier = Sentiment.load(sentiment)
    if no_model:
        Settings.of(settings)  # report invalid settings before loading the data
        dataset = Dataset.load(data)
        history = asked.history or ""
        with console.working("Counting ...", quiet=json) as log:
            made, _ = profile_dataset(
                dataset,
                history if asked.user is None else dataset.interactions.history(asked.user),
                edits,
                classifier=classifier,
                log=log,
                **settings,
            )
        catalog = dataset.catalog
    else:
        wanted = Wanted(query, keep_own=True)
        recommender, given = load_request(
            data, asked, which, settings, wanted, quiet=json, weights=False
        )
        with console.working("Measuring ...", quiet=json) as recommender.log:
            made = recommender.profile(given, edits=edits, classifier=classifier)
        catalog = recommender.catalog
    if json:
        console.print_json(made.to_dict(catalog))
    else:
        profiles.print_profile(made, str(settings["language"]))
