"""Find out which events of a history express a positive or a negative opinion.

An event's polarity is the probability that its text is positive, in the column ``sentiment`` that
``genrec sentiment`` writes, or as a classifier estimates it. Events with the behaviors ``like`` and
``dislike`` need no text. With thresholds, ratings count as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from genrec.data.events import Interaction
from genrec.text import visible
from genrec.types import FloatArray

COLUMN = "sentiment"  # the column of the events with the probability of being positive
LIKE, DISLIKE = "like", "dislike"
SEARCH = "search"  # the text of such events is a query, not an opinion
SURE = 0.7  # the probability from which on a text counts as positive or negative


class Classifier(Protocol):
    """Estimates the probability that texts are positive, as ``genrec.sentiment.Sentiment`` does."""

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Return the probability that each of the texts is positive."""
        ...


@dataclass(frozen=True, slots=True)
class Opinions:
    """The opinions that a history expresses.

    Attributes:
        read: the number of events with a known polarity.
        positive: the indices of the positive events, oldest first.
        negative: the indices of the negative events, oldest first.
        mean: the mean polarity, from 0 for negative to 1 for positive; None if nothing was read.
    """

    read: int = 0
    positive: tuple[int, ...] = ()
    negative: tuple[int, ...] = ()
    mean: float | None = None


def polarity_of(
    event: Interaction, liked_from: float | None = None, disliked_to: float | None = None
) -> float | None:
    """Return the polarity of an event from 0 to 1; None if it is not known.

    Args:
        event: the event.
        liked_from: the lowest value, such as a rating of 4, that counts as positive; None to ignore
            values.
        disliked_to: the highest value that counts as negative.
    """
    if event.behavior in (LIKE, DISLIKE):
        return 1.0 if event.behavior == LIKE else 0.0
    given: Any = event.attributes.get(COLUMN)
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 1:
        return float(given)
    if event.value is not None:
        if liked_from is not None and event.value >= liked_from:
            return 1.0
        if disliked_to is not None and event.value <= disliked_to:
            return 0.0
    return None


def find_opinions(
    events: Sequence[Interaction], classifier: Classifier | None = None, *, sure: float = SURE
) -> Opinions:
    """Collect the opinions of a history.

    Args:
        events: the history, oldest first.
        classifier: reads the texts whose polarity is not known yet; None to leave them out.
        sure: the polarity from which on an event is positive, and negative from 1 - ``sure`` on.
    """
    known = {n: p for n, e in enumerate(events) if (p := polarity_of(e)) is not None}
    texts = {
        n: e.text
        for n, e in enumerate(events)
        if n not in known and e.text and visible(e.text) and e.behavior != SEARCH and e.item_id
    }
    if classifier is not None and texts:
        found = classifier.probabilities(list(texts.values())).tolist()
        known |= dict(zip(texts, found, strict=True))
    if not known:
        return Opinions()
    return Opinions(
        len(known),
        tuple(n for n in sorted(known) if known[n] >= sure),
        tuple(n for n in sorted(known) if known[n] <= 1 - sure),
        sum(known.values()) / len(known),
    )
