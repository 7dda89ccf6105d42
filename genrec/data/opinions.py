"""Tell whether an event expresses a positive or a negative opinion.

An event's polarity is the probability that its text is positive, in the column ``sentiment`` that
``genrec sentiment`` writes. Events with the behaviors ``like`` and ``dislike`` need no text.
"""

from __future__ import annotations

from typing import Any

from genrec.data.events import Interaction

COLUMN = "sentiment"  # the column of the events with the probability of being positive
LIKE, DISLIKE = "like", "dislike"
SURE = 0.7  # the polarity from which on an event counts as positive; 1 - SURE for negative
POSITIVE, NEGATIVE = "positive", "negative"


def polarity_of(
    event: Interaction, liked_from: float | None = None, disliked_to: float | None = None
) -> float | None:
    """Return the polarity of an event from 0 to 1; None if it is not known.

    Args:
        event: the event.
        liked_from: the lowest value, such as a rating of 4, that counts as positive; None to ignore
            values.
        disliked_to: the highest value that counts as negative.

    >>> polarity_of(Interaction("a", "rate", value=4), liked_from=4, disliked_to=2)
    1.0
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


def opinion_of(event: Interaction) -> str:
    """Return ``positive`` or ``negative``; empty for an event without a clear polarity."""
    polarity = polarity_of(event)
    if polarity is None or 1 - SURE < polarity < SURE:
        return ""
    return POSITIVE if polarity >= SURE else NEGATIVE
