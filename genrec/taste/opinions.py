"""Find out which events of a history express a positive or a negative opinion.

An event's polarity is the probability that its text is positive, in the column ``sentiment`` that
``genrec sentiment`` writes, or as a classifier estimates it. Events with the behaviors ``like`` and
``dislike`` need no text; see ``genrec.data.opinions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from genrec.data.events import Interaction
from genrec.data.opinions import SURE, polarity_of
from genrec.text import visible
from genrec.types import FloatArray

SEARCH = "search"  # the text of such events is a query, not an opinion


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
