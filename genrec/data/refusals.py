"""Take a user's refusals out of a history: events that say what the user does not want.

A model reads every event as something that the user did with an item, and so do counts. A refusal
would speak for the very item that it refuses. So it is left out of the history, and its item out of
the lists.
"""

from __future__ import annotations

from collections.abc import Collection

from genrec.data.events import History

REFUSALS = ("dislike", "not_interested")
APPROVALS = ("like",)  # they ask for more of the same, and say nothing about having the item


def take_refusals(history: History, own: Collection[str] = ()) -> tuple[History, tuple[str, ...]]:
    """Split a history into its other events and the items that the user refuses.

    Args:
        history: the history, oldest event first.
        own: behaviors of the dataset, which keep the meaning that they have there.

    Returns:
        The history without refusals, and the ids of the items whose latest event is a refusal.
    """
    meant = {behavior for behavior in REFUSALS if behavior not in own}
    if not any(event.behavior in meant for event in history.interactions):
        return history, ()
    latest = {e.item_id: e.behavior for e in history.interactions if e.item_id is not None}
    kept = tuple(e for e in history.interactions if e.behavior not in meant)
    return history.with_events(kept), tuple(i for i, b in latest.items() if b in meant)
