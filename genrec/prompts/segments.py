"""A prompt as a list of segments, in which titles stay objects."""

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
        text: as written; for a title without its lead and terminator.
        row: the catalog row of a title, None for text.
        event: the place of a title's event in the history, None for text and demonstrations.
    """

    text: str
    row: int | None = None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, which ends right before the title to be written.

    Attributes:
        segments: the pieces in order.
        lead: what the model has to write before the title's first word.
        terminator: what ends every title.
        events: how many events of the history are in it.
        dropped: how many older events were left out for want of room.
        chat: whether it is a message to be put into the model's chat template.
    """

    segments: tuple[Segment, ...]
    lead: str
    terminator: str
    events: int = 0
    dropped: int = 0
    chat: bool = False

    @property
    def text(self) -> str:
        """The prompt as one string, for people."""
        return "".join(
            s.text if s.row is None else f"{self.lead}{s.text}{self.terminator}"
            for s in self.segments
        )


class TitleObject:
    """A title inside a template: may only be printed as it is, so that its row is never lost."""

    __slots__ = ("event", "row", "text")

    def __init__(self, text: str, row: int, event: int | None = None) -> None:
        self.text, self.row, self.event = text, row, event

    def __str__(self) -> str:
        msg = (
            "A template changed or joined a title. Expected a title or target to be printed as it "
            "is, as in {{ event.title }}; remove the filter or operator."
        )
        raise PromptError(msg)

    __format__ = None  # type: ignore[assignment]


def flatten(parts: Iterable[Any]) -> list[Any]:
    """Flatten what a native environment yields to one list."""
    flat: list[Any] = []
    for part in parts:
        flat.extend(part if isinstance(part, list) else [part])
    return flat


class SegmentEnvironment(SandboxedEnvironment, NativeEnvironment):
    """Renders to the list of printed values instead of a string."""

    concat = staticmethod(flatten)  # type: ignore[assignment]
