"""Values that explanations are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sentence that did not pass.

    Attributes:
        text: as it was written.
        why: what is wrong with it.
    """

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Without:
    """The list searched again without one event.

    Attributes:
        event: its place among the events that the prompt shows, from 0.
        item_id: its item; None for an event of text only.
        title: of its item, or its text.
        rank: of the explained item in the new list; None where it has left it.
    """

    event: int
    item_id: str | None
    title: str
    rank: int | None


@dataclass(frozen=True, slots=True)
class Older:
    """What the events that the prompt does not show do for an item, together, by the prior.

    Attributes:
        events: how many they are.
        nats: how far the item's score falls without them; below 0 where it rises.
    """

    events: int
    nats: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item is recommended.

    Attributes:
        text: one or two sentences.
        source: ``generated`` by the model and checked, or ``template``: the plain sentence.
        rejected: what the model wrote and the check did not pass.
        evidence: what each event of the prompt does for the item's score, in the prompt's order.
        without: where the item stands when one of the strongest events is left out.
        demonstrations: how far the score falls without the demonstrations of a few-shot prompt, in
            nats; None where there are none.
        older: what the events before those of the prompt do; None where there are none, or no prior,
            since the model does not read them.
    """

    text: str
    source: str
    rejected: tuple[Rejected, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    without: tuple[Without, ...] = ()
    demonstrations: float | None = None
    older: Older | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one event of the history does for one item.

    Attributes:
        item_id: of the event; None for an event of text only.
        title: as given in the catalog, or the event's text.
        behavior: of the event.
        nats: how far the item's score falls without the event; below 0 where it rises.
        nats_model: the part of it that is the model's.
        nats_prior: the part that is the prior's; 0 without one.
    """

    item_id: str | None
    title: str
    behavior: str
    nats: float
    nats_model: float
    nats_prior: float
