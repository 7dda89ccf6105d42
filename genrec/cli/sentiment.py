"""Define the command ``sentiment``, which imports heavy modules when called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import AsJson, Data, command
from genrec.config import OUTPUT, option
from genrec.errors import SettingsError
from genrec.files import check_output

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.sentiment.classifier import Sentiment
    from genrec.types import Log

_LEARN, _MARK = "What to learn from", "Which reviews"


@dataclass(frozen=True, slots=True)
class LearningOptions:
    """Options that say what the classifier learns from."""

    labels: Path | None = option(
        None,
        _LEARN,
        "Learn from this CSV, JSONL or Parquet file with the columns text and label (1 or 0, positive or "
        "negative).",
        metavar="FILE",
    )
    like_threshold: float | None = option(
        None,
        _LEARN,
        "Learn from the dataset's own reviews with ratings; a rating of at least this is positive.",
        metavar="NUMBER",
    )
    classifier: Path | None = option(
        None, _LEARN, "Use a classifier that an earlier call saved with --save.", metavar="FILE"
    )
    by: str | None = option(
        None,
        _LEARN,
        "What is learned from: words and pairs of words, the vectors of a text encoder, or the language "
        "model's hidden states or answers. Without labels, the model is asked.",
        metavar="words|encoder|states|answers",
        unset="words",
    )
    source: str | None = option(
        None, _LEARN, "Encoder or model to use.", metavar="NAME", unset="minilm or smollm2-135m"
    )

    def __post_init__(self) -> None:
        """Check that there is at most one source of labels, and one for what needs labels.

        Raises:
            SettingsError: more than one is given, or ``by`` needs labels.
        """
        sources = {
            "--labels": self.labels,
            "--like-threshold": self.like_threshold,
            "--classifier": self.classifier,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) > 1:
            msg = f"{' and '.join(given)} were given. Expected at most one of {', '.join(sources)}."
            raise SettingsError(msg)
        if self.by not in {None, "answers"} and not given:
            msg = f"--by {self.by} needs labels. Expected --labels FILE or --like-threshold NUMBER."
            raise SettingsError(msg)


@dataclass(frozen=True, slots=True)
class MarkingOptions:
    """Options that say which events are reviews, and what becomes of them."""

    behaviors: str | None = option(
        None,
        _MARK,
        "Behaviors whose texts are reviews, separated by commas.",
        metavar="NAMES",
        unset="all but search",
    )
    sure: float = option(
        0.7,
        _MARK,
        "Probability from which on a review counts as positive or negative, 0.5 to 1.",
        metavar="NUMBER",
    )
    rename: bool = option(
        False, _MARK, "Give positive and negative reviews the behaviors like and dislike."
    )


@command()
def sentiment(
    data: Data,
    learning: LearningOptions,
    marking: MarkingOptions,
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
    from genrec.sentiment.classifier import check_way
    from genrec.sentiment.reviews import mark_sentiment

    check_way(learning.by or "words")
    if save is not None:
        check_output(save)
    if out is not None:
        check_destination(out)
    dataset = Dataset.load(data)
    with console.working("Reading reviews ...", quiet=json) as log:
        found, note = _classifier(learning, dataset, log)
        names = (marking.behaviors or "").split(",")
        marked = mark_sentiment(
            dataset,
            found,
            behaviors=[name.strip() for name in names if name.strip()] or None,
            sure=marking.sure,
            rename=marking.rename,
            log=log,
        )
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


def _classifier(learning: LearningOptions, dataset: Dataset, log: Log) -> tuple[Sentiment, str]:
    """Load or fit the classifier, and describe the labels that were left out."""
    from genrec.sentiment.classifier import Sentiment
    from genrec.sentiment.labels import describe, own_labels, read_labels

    source, note = learning.source or "", ""
    if learning.classifier is not None:
        return Sentiment.load(learning.classifier), note
    if learning.labels is not None:
        texts, known, rejects = read_labels(learning.labels)
        note = describe(rejects)
    elif learning.like_threshold is not None:
        texts, known = own_labels(dataset, learning.like_threshold)
    else:
        return Sentiment.untrained(source or "smollm2-135m"), note
    return Sentiment.fit(texts, known, learning.by or "words", source, log=log), note
