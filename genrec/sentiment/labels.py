"""Read texts with labels that say whether they are positive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.dataset import Dataset
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, SettingsError
from genrec.text import visible

POSITIVE = ("1", "true", "yes", "positive", "pos", "like", "liked")
NEGATIVE = ("0", "false", "no", "negative", "neg", "dislike", "disliked")
SHOWN = 3  # rejected rows that are named in a message


def read_labels(path: str | Path) -> tuple[list[str], list[bool], Rejects]:
    """Read texts and labels from a CSV, JSONL or Parquet file with the columns text and label.

    Rows with an empty text or an unknown label are left out.

    Returns:
        The texts, whether each of them is positive, and the rejected rows with their reasons.

    Raises:
        DataError: the file cannot be read, a column is missing, or no row is usable.
    """
    source = Path(path).name
    rejects = Rejects(source)
    table = files.read(path, rejects=rejects, scalar=("text", "label"))
    arrow.require_columns(table, ("text", "label"), source)
    texts, labels = list[str](), list[bool]()
    columns = arrow.to_strings(table["text"]), arrow.to_strings(table["label"])
    for number, text, word in zip(arrow.row_numbers(table), *columns, strict=True):
        said = word.strip().lower().removesuffix(".0")
        if not visible(text):
            rejects.add(number, "the text is empty", [text, word])
        elif said not in POSITIVE + NEGATIVE:
            rejects.add(number, f"the label {word!r} is unknown", [text, word])
        else:
            texts.append(text)
            labels.append(said in POSITIVE)
    if not texts:
        msg = (
            f"{source} has no usable row. Expected a text and one of the labels {', '.join(POSITIVE)}, "
            f"{', '.join(NEGATIVE)}. {describe(rejects)}"
        )
        raise DataError(msg)
    return texts, labels, rejects


def describe(rejects: Rejects) -> str:
    """Describe the rejected rows in one sentence; empty if there are none."""
    if not rejects.rows:
        return ""
    shown = "; ".join(f"row {number}: {reason}" for _, number, reason, _ in rejects.rows[:SHOWN])
    return f"{len(rejects.rows):,} rows were left out ({shown})."


def own_labels(dataset: Dataset, threshold: float) -> tuple[list[str], list[bool]]:
    """Use the reviews of a dataset that have a rating as labeled texts.

    Only events of the train part are used.

    Args:
        dataset: a dataset whose events have texts and values.
        threshold: the lowest value that counts as positive.

    Raises:
        SettingsError: no event of the train part has both a text and a value.
    """
    table = dataset.interactions.table
    c = table.columns
    texts: list[Any] = [] if table.text is None else table.text.to_pylist()
    known = np.isfinite(c.value) & (c.split == 0) & (c.row >= 0)
    places = [n for n in np.flatnonzero(known).tolist() if texts and texts[n]]
    if not places:
        msg = (
            "No event of the train part has both a text and a value. Expected reviews with ratings for "
            "--like-threshold; or give labels with --labels FILE."
        )
        raise SettingsError(msg)
    return [texts[n] for n in places], (c.value[places] >= threshold).tolist()
