"""Define the parts of an explanation, such as its evidence and its rejected sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """The result of repeating the search without one event of the history.

    Attributes:
        event: the index of the event in the prompt. Event 0 is the oldest.
        item_id: the id of the event's item; None if the event consists only of text.
        title: the title of the event's item, or the text of the event.
        rank: the rank of the explained item in the new list; None if the list does not contain it.
    """

    event: int
    item_id: str | None
    title: str
    rank: int | None


@dataclass(frozen=True, slots=True)
class Older:
    """The joint evidence from older events that are used by the prior but not shown in the prompt.

    Attributes:
        events: the number of these events.
        nats: the drop in the item's score when all of them are left out, in nats; negative if the
            score rises.
    """

    events: int
    nats: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explanation of why an item is recommended.

    Attributes:
        text: the explanation in one or two sentences.
        source: ``generated`` if the model wrote the text, ``template`` if it comes from the
            template.
        rejected: the sentences that the model wrote but the check rejected.
        evidence: the evidence from each event in the prompt, oldest first.
        without: the results of repeating the search without each of the strongest events.
        demonstrations: the drop in the item's score, in nats, when the few-shot demonstrations are
            left out; None if the prompt has no demonstrations.
        older: the evidence from events that the prompt does not show; None if there are no such
            events or there is no prior.
        context: the drop in the item's score, in nats, when the context of the request, such as its
            season, is left out; None if it has no context.
    """

    text: str
    source: str
    rejected: tuple[Rejected, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    without: tuple[Without, ...] = ()
    demonstrations: float | None = None
    older: Older | None = None
    context: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The contribution of one event of the history to the score of an item.

    Attributes:
        item_id: the id of the event's item; None if the event consists only of text.
        title: the title of the event's item as given in the catalog, or the text of the event.
        behavior: the behavior of the event, such as ``buy``.
        nats: the drop in the item's score when the event is left out, in nats; negative if the score
            rises.
        nats_model: the part of the drop that is due to the model.
        nats_prior: the part of the drop that is due to the prior; 0 if there is no prior.
        event: the index of the event in the prompt, which distinguishes events with the same item.
            Event 0 is the oldest.
        shared: the attributes that the event's item has in common with the explained one, by name, of
            those that prompts show (the setting ``item_attributes``).
    """

    item_id: str | None
    title: str
    behavior: str
    nats: float
    nats_model: float
    nats_prior: float
    event: int
    shared: Mapping[str, str] = field(default_factory=dict)
