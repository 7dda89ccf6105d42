"""Represent a prompt as a list of segments, in which titles stay objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from genrec.errors import PromptError


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        text: the text as written, for a title without its lead and terminator.
        row: the catalog row of a title; None for text.
        event: position of the title's event in the history; None for text and demonstrations.
    """

    text: str
    row: int | None = None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, which ends right before the title to be written.

    Attributes:
        segments: the pieces in order.
        lead: text that comes before every title.
        terminator: text that ends every title.
        events: number of events of the history in the prompt.
        dropped: number of older events that were left out for lack of room.
        chat: whether the prompt is a message for the model's chat template.
    """

    segments: tuple[Segment, ...]
    lead: str
    terminator: str
    events: int = 0
    dropped: int = 0
    chat: bool = False

    @property
    def text(self) -> str:
        """Return the prompt as one string, for people."""
        return "".join(
            s.text if s.row is None else f"{self.lead}{s.text}{self.terminator}"
            for s in self.segments
        )


class TitleObject:
    """A title inside a template, which may only be printed unchanged, so its row is never lost."""

    __slots__ = ("event", "row", "text")

    def __init__(self, text: str, row: int, event: int | None = None) -> None:
        """Keep a title's text, its catalog row and the position of its event."""
        self.text, self.row, self.event = text, row, event

    def __str__(self) -> str:
        """Refuse to become a string."""
        msg = (
            "A template changes a title or joins it with other text. Expected titles and targets "
            "to be printed unchanged, as in {{ event.title }}; remove the filter or operator."
        )
        raise PromptError(msg)

    __format__ = None  # type: ignore[assignment]


def flatten(parts: Iterable[Any]) -> list[Any]:
    """Flatten the parts that a native environment yields into one list."""
    flat: list[Any] = []
    for part in parts:
        flat.extend(part if isinstance(part, list) else [part])
    return flat


class SegmentEnvironment(SandboxedEnvironment, NativeEnvironment):
    """A sandboxed Jinja2 environment that renders to a list of printed values, not a string."""

    concat = staticmethod(flatten)  # type: ignore[assignment]
