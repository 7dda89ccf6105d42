"""Define the parts of an explanation: evidence, rejected sentences and repeated searches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sentence that the model wrote but the check rejected.

    Attributes:
        text: the sentence.
        why: the reasons for the rejection.
    """

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Without:
    """The explained item's rank when the search is repeated without one event.

    Attributes:
        event: index of the event in the prompt. Event 0 is the oldest.
        item_id: id of the event's item; None if the event is text only.
        title: title of the event's item, or the event's text.
        rank: rank of the explained item in the new list; None if it is no longer listed.
    """

    event: int
    item_id: str | None
    title: str
    rank: int | None


@dataclass(frozen=True, slots=True)
class Older:
    """The joint evidence of the older events, which the prompt omits and only the prior sees.

    Attributes:
        events: number of these events.
        nats: drop in the item's score when these events are left out; negative if the score rises.
    """

    events: int
    nats: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explanation of why an item is recommended.

    Attributes:
        text: one or two sentences.
        source: ``generated`` if the model wrote the text, ``template`` if it comes from the
            template.
        rejected: sentences that the model wrote but the check rejected.
        evidence: evidence from each event in the prompt, oldest first.
        without: the item's rank when each of the strongest events is left out in turn.
        demonstrations: drop in the item's score, in nats, when the few-shot demonstrations are left
            out; None if the prompt has no demonstrations.
        older: evidence from the events that only the prior sees; None if there are no such events
            or there is no prior.
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
        item_id: id of the event's item; None if the event is text only.
        title: title of the event's item as in the catalog, or the event's text.
        behavior: the event's behavior.
        nats: drop in the item's score when the event is left out; negative if the score rises.
        nats_model: the model's part of the drop.
        nats_prior: the prior's part of the drop; 0 if there is no prior.
    """

    item_id: str | None
    title: str
    behavior: str
    nats: float
    nats_model: float
    nats_prior: float
