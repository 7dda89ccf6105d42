"""Mark the reviews and comments of a dataset as positive or negative."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from genrec.data.dataset import Dataset
from genrec.data.info import count_behaviors
from genrec.data.interactions import Interactions
from genrec.errors import DataError, SettingsError
from genrec.sentiment.classifier import Sentiment
from genrec.text import quantity
from genrec.types import Log

COLUMN = "sentiment"  # the column of the events with the probability of being positive
LIKE, DISLIKE = "like", "dislike"
SEARCH = "search"  # the text of such events is a query, not an opinion


@dataclass(frozen=True, eq=False)
class Marked:
    """A dataset whose reviews have been marked.

    Attributes:
        dataset: the dataset. Its events have the column ``COLUMN``.
        reviews: the number of events with a text that was read.
        positive: the number of those that are positive, which have a probability of at least
            ``sure``.
        negative: the number of those that are negative, with a probability of at most 1 - ``sure``.
    """

    dataset: Dataset
    reviews: int
    positive: int
    negative: int


def mark_sentiment(
    dataset: Dataset,
    sentiment: Sentiment,
    *,
    behaviors: Collection[str] | None = None,
    sure: float = 0.7,
    rename: bool = False,
    log: Log = lambda message: None,
) -> Marked:
    """Estimate for each review in a dataset whether it is positive.

    Args:
        dataset: a dataset whose events have texts.
        sentiment: the classifier.
        behaviors: the behaviors whose texts are reviews or comments; None for all but searches and,
            with ``rename``, the target behavior.
        sure: the probability from which on a review counts as positive, and from which on as
            negative, at least 0.5. Reviews between are neither.
        rename: whether positive and negative reviews get the behaviors ``like`` and ``dislike``. Prompts
            then say so, and the prior learns from the data whether they speak for an item.
        log: a function that is called with a line of text before slow steps.

    Raises:
        DataError: the dataset has no texts, or none with these behaviors, or it has a column named
            ``sentiment`` that is something else.
        SettingsError: ``sure`` is not from 0.5 to 1, a behavior is unknown, or the target behavior
            would be renamed.
    """
    events = dataset.interactions
    table, target = events.table, dataset.info.target_behavior
    if not 0.5 <= sure <= 1:
        msg = f"sure={sure!r} is not a probability from 0.5 to 1. Expected a number such as 0.7."
        raise SettingsError(msg)
    if behaviors is None:
        other = {SEARCH, target} if rename else {SEARCH}
        behaviors = [b for b in events.behaviors if b not in other]
    for behavior in behaviors:
        if behavior not in events.behaviors:
            raise SettingsError(str(events.unknown_behavior(behavior)))
    if rename and target in behaviors and target not in (LIKE, DISLIKE):
        msg = (
            f"{target!r} is the behavior to predict, so its events cannot be renamed. Expected other "
            "behaviors, for example --behaviors review."
        )
        raise SettingsError(msg)
    if table.text is None:
        msg = (
            "The events have no texts. Expected a column with reviews or comments; map it with "
            "`genrec prepare --column text=NAME`."
        )
        raise DataError(msg)
    codes = [events.behaviors.index(b) for b in behaviors]
    texts = table.text.to_pylist()
    of_kind = np.isin(table.columns.behavior, codes) & (table.columns.row >= 0)
    places = [n for n in np.flatnonzero(of_kind).tolist() if texts[n]]
    if not places:
        msg = (
            f"No event with an item and one of the behaviors {', '.join(behaviors)} has a text. Expected "
            f"reviews or comments of items; the data has the behaviors {', '.join(events.behaviors)}."
        )
        raise DataError(msg)
    found = np.full(len(events), np.nan)
    found[places] = sentiment.probabilities([texts[n] for n in places], log=log).round(3)
    attributes = table.attributes
    column = pa.array(found, from_pandas=True)
    if attributes is None:
        attributes = pa.table({COLUMN: column})
    elif COLUMN in attributes.column_names:
        at = attributes.column_names.index(COLUMN)
        if not pa.types.is_floating(attributes.schema.field(COLUMN).type):
            msg = f"The events have a column {COLUMN!r} already, which would be lost. Rename it first."
            raise DataError(msg)
        attributes = attributes.set_column(at, COLUMN, column)
    else:
        attributes = attributes.append_column(COLUMN, column)
    positive, negative = found >= sure, found <= 1 - sure
    made = replace(table, attributes=attributes)
    if rename:
        names = list(events.behaviors)
        code = table.columns.behavior.copy()
        for name, where in ((LIKE, positive), (DISLIKE, negative)):
            if where.any():
                names += [] if name in names else [name]
                code[where] = names.index(name)
        kept = np.unique(code)
        columns = replace(table.columns, behavior=np.searchsorted(kept, code).astype(code.dtype))
        made = replace(made, behaviors=[names[n] for n in kept.tolist()], columns=columns)
    read = int((~np.isnan(found)).sum())
    note = (
        f"{quantity(read, 'review')} marked by {sentiment.by}: {int(positive.sum()):,} positive and "
        f"{int(negative.sum()):,} negative (probability {sure:g})"
    )
    interactions = Interactions(dataset.catalog, made)
    info = replace(
        dataset.info,
        behaviors=count_behaviors(interactions),
        notes=[*dataset.info.notes, note],
    )
    marked = replace(dataset, interactions=interactions, info=info, folder=None, cache_folder=None)
    return Marked(marked, read, int(positive.sum()), int(negative.sum()))
