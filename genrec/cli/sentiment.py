"""Define the command ``sentiment``, which imports heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, command
from genrec.config import OUTPUT
from genrec.errors import SettingsError
from genrec.files import check_output


@command()
def sentiment(
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Dataset folder to write, in which each review has a column `sentiment` with the "
            "probability that it is positive.",
            rich_help_panel=OUTPUT,
            show_default="none is written",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Learn from this CSV, JSONL or Parquet file with the columns text and label "
            "(1 or 0, positive or negative).",
        ),
    ] = None,
    like_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Learn from the dataset's own reviews with ratings; a rating of at least this is positive.",
        ),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Use a classifier that an earlier call saved with --save."
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="words|encoder|states|answers",
            help="What is learned from: words and pairs of words, the vectors of a text encoder, or the "
            "language model's hidden states or answers. Without labels, the model is asked.",
        ),
    ] = "words",
    source: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Encoder or model to use.", show_default="minilm or smollm2-135m"
        ),
    ] = "",
    behaviors: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Behaviors whose texts are reviews, separated by commas.",
            show_default="all but search",
        ),
    ] = None,
    sure: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="Probability from which on a review counts as positive or negative, 0.5 to 1.",
        ),
    ] = 0.7,
    rename: Annotated[
        bool,
        typer.Option(
            "--rename", help="Give positive and negative reviews the behaviors like and dislike."
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save the classifier, a .safetensors file.",
            rich_help_panel=OUTPUT,
            show_default="not saved",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Estimate which reviews are positive, and write the dataset with the result."""
    from genrec.data.dataset import Dataset, check_destination
    from genrec.reports import console
    from genrec.sentiment.classifier import Sentiment
    from genrec.sentiment.labels import describe, own_labels, read_labels
    from genrec.sentiment.reviews import mark_sentiment

    sources = {"--labels": labels, "--like-threshold": like_threshold, "--classifier": classifier}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        msg = f"{' and '.join(given)} were given. Expected at most one of {', '.join(sources)}."
        raise SettingsError(msg)
    if save is not None:
        check_output(save)
    if out is not None:
        check_destination(out)
    dataset, note = Dataset.load(data), ""
    with console.working("Reading reviews ...", quiet=json) as log:
        if classifier is not None:
            found = Sentiment.load(classifier)
        elif labels is None and like_threshold is None:
            found = Sentiment.untrained(source or "smollm2-135m")
        else:
            if labels is not None:
                texts, known, rejects = read_labels(labels)
                note = describe(rejects)
            else:
                assert like_threshold is not None
                texts, known = own_labels(dataset, like_threshold)
            found = Sentiment.fit(texts, known, by, source, log=log)
        named = (
            None if behaviors is None else [b.strip() for b in behaviors.split(",") if b.strip()]
        )
        marked = mark_sentiment(dataset, found, behaviors=named, sure=sure, rename=rename, log=log)
    if save is not None:
        found.save(save)
    if out is not None:
        marked.dataset.save(out)
    if json:
        console.print_json(
            {
                "schema_version": 1,
                "by": found.by,
                "source": found.source,
                "labels": found.texts,
                "reviews": marked.reviews,
                "positive": marked.positive,
                "negative": marked.negative,
                "out": None if out is None else str(out),
            }
        )
        return
    learned = (
        f"learned from {found.texts:,} labels" if found.texts else "without labels, not calibrated"
    )
    console.print_line(f"{marked.reviews:,} reviews read by {found.by} ({learned}).")
    between = marked.reviews - marked.positive - marked.negative
    console.print_line(
        f"{marked.positive:,} are positive, {marked.negative:,} negative, and {between:,} are neither."
    )
    if note:
        console.print_line(note)
    if out is None:
        console.print_line("Nothing was written. Use --out DIR to write a dataset with the result.")
    else:
        console.print_line(f"-> {out}")
