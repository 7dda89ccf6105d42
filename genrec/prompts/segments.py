"""Represent a prompt as a list of text and title segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from genrec.errors import PromptError


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt, either text or a title.

    Attributes:
        text: the text of the segment. For a title, it excludes the lead and terminator.
        row: the catalog row of a title; None for text.
        event: index of the title's event in the history; None for text and demonstrations.
    """

    text: str
    row: int | None = None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, which ends right before the title to be written.

    Attributes:
        segments: the pieces in order.
        lead: text before every title.
        terminator: text after every title.
        events: number of events from the history in the prompt.
        dropped: number of older events that were left out because they did not fit.
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
        """Return the prompt as one string for display."""
        return "".join(
            s.text if s.row is None else f"{self.lead}{s.text}{self.terminator}"
            for s in self.segments
        )


class TitleObject:
    """A title in a template. It may only be printed unchanged, so that its row is never lost."""

    __slots__ = ("event", "row", "text")

    def __init__(self, text: str, row: int, event: int | None = None) -> None:
        """Store a title's text, its catalog row and the index of its event."""
        self.text, self.row, self.event = text, row, event

    def __str__(self) -> str:
        """Raise an error, since titles must not be converted to strings."""
        msg = (
            "The template modifies a title or joins it with other text. Expected titles and "
            "targets to be printed unchanged, as in {{ event.title }}; remove the filter or "
            "operator."
        )
        raise PromptError(msg)

    __format__ = None  # type: ignore[assignment]


def flatten(parts: Iterable[Any]) -> list[Any]:
    """Flatten the parts that a Jinja2 native environment yields into one list."""
    flat: list[Any] = []
    for part in parts:
        flat.extend(part if isinstance(part, list) else [part])
    return flat


class SegmentEnvironment(SandboxedEnvironment, NativeEnvironment):
    """A sandboxed Jinja2 environment that renders to a list of values instead of a string."""

    concat = staticmethod(flatten)  # type: ignore[assignment]
