"""The parts of an explanation: evidence, rejected sentences and lists searched again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sentence that the model wrote and the check rejected.

    Attributes:
        text: the sentence.
        why: the reasons for the rejection.
    """

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Without:
    """The explained item's rank when the list is searched again without one event.

    Attributes:
        event: index of the event in the prompt, from 0 for the oldest.
        item_id: the event's item; None if the event is text only.
        title: title of the event's item, or the event's text.
        rank: rank of the explained item in the new list; None if it is no longer in it.
    """

    event: int
    item_id: str | None
    title: str
    rank: int | None


@dataclass(frozen=True, slots=True)
class Older:
    """The joint evidence of the events that only the prior sees, since the prompt omits them.

    Attributes:
        events: number of these events.
        nats: drop of the item's score without them; negative if it rises.
    """

    events: int
    nats: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explanation of why an item is recommended.

    Attributes:
        text: one or two sentences.
        source: ``generated`` if the model wrote the text, ``template`` if it is the template's.
        rejected: sentences that the model wrote and the check rejected.
        evidence: evidence of each event in the prompt, oldest first.
        without: the item's rank when one of the strongest events is left out.
        demonstrations: drop of the item's score in nats without the few-shot demonstrations; None
            if the prompt has none.
        older: evidence of the events that only the prior sees; None if there are no such events or
            no prior.
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
    """The contribution of one event of the history to an item's score.

    Attributes:
        item_id: the event's item; None if the event is text only.
        title: title of the event's item as in the catalog, or the event's text.
        behavior: the event's behavior.
        nats: drop of the item's score without the event; negative if it rises.
        nats_model: the model's part of the drop.
        nats_prior: the prior's part of the drop; 0 without a prior.
    """

    item_id: str | None
    title: str
    behavior: str
    nats: float
    nats_model: float
    nats_prior: float
