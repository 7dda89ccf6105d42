"""Define prompts as sequences of text and title segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from genrec.errors import PromptError

TARGET_ROW = -1  # stands for the catalog row of the title that the model is to write


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt: either text or the title of an item.

    Attributes:
        text: the text of the segment. For a title, it excludes the lead and terminator.
        row: the catalog row of the item with this title; None if the segment is text.
        event: index of the title's event in the user's history; None if the segment is text, or if
            the title belongs to another user's history or to no event.
    """

    text: str
    row: int | None = None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, which ends right before the title that the model is to write.

    Attributes:
        segments: the pieces of the prompt in order.
        lead: text that precedes every title.
        terminator: text that ends every title.
        events: number of events from the user's history in the prompt.
        dropped: number of older events that were left out because they did not fit.
        chat: whether the prompt is a user's message to be put into the model's chat template.
        cuts: where each shown event begins, and where the last one ends, as an index in
            ``segments`` and the number of characters of that segment before the cut. None if the
            events cannot be separated, and empty if there are none.
        free: for the text before the first event, and for each event, whether it contains text
            that a user wrote, such as a search or a review. Empty if ``cuts`` is None or empty.
        profile: the line that stands for events that are not shown; empty if there is none.
    """

    segments: tuple[Segment, ...]
    lead: str
    terminator: str
    events: int = 0
    dropped: int = 0
    chat: bool = False
    cuts: tuple[tuple[int, int], ...] | None = None
    free: tuple[bool, ...] = ()
    profile: str = ""

    @property
    def text(self) -> str:
        """Return the prompt as one string for display."""
        return "".join(
            s.text if s.row is None else f"{self.lead}{s.text}{self.terminator}"
            for s in self.segments
        )


class TitleObject:
    """A title that is passed to a template, which can print it but not modify it.

    Since a template cannot convert it to a string, the catalog row of every printed title is known.
    """

    __slots__ = ("event", "row", "text")

    def __init__(self, text: str, row: int, event: int | None = None) -> None:
        """Store a title.

        Args:
            text: the title as written in prompts.
            row: the catalog row of the item.
            event: index of the title's event in the user's history; None if there is no such event.
        """
        self.text, self.row, self.event = text, row, event

    def __str__(self) -> str:
        """Raise a PromptError, because a template must not convert a title to a string."""
        msg = (
            "The template modifies a title or joins it with other text. Expected titles and "
            "targets to be printed unchanged, as in {{ event.title }}; remove the filter or "
            "operator."
        )
        raise PromptError(msg)

    __format__ = None  # type: ignore[assignment]


class EventText(str):
    """A text that belongs to an event, as passed to a template.

    A template may do anything with it. If it is printed unchanged, it shows where the event is.

    Attributes:
        event: index of the event in the user's history; None in a demonstration.
        free: whether the user wrote the text, as in a search or a review.
    """

    __slots__ = ("event", "free")

    event: int | None
    free: bool

    def __new__(cls, text: str, event: int | None, *, free: bool = False) -> Self:
        """Create the text with its event."""
        new = super().__new__(cls, text)
        new.event, new.free = event, free
        return new


def flatten(parts: Iterable[Any]) -> list[Any]:
    """Join the values and lists that a Jinja2 template yields into one flat list."""
    flat: list[Any] = []
    for part in parts:
        flat.extend(part if isinstance(part, list) else [part])
    return flat


class SegmentEnvironment(SandboxedEnvironment, NativeEnvironment):
    """A sandboxed Jinja2 environment that renders a template as a list of values, not a string."""

    concat = staticmethod(flatten)  # type: ignore[assignment]
