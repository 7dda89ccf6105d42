"""Prompts: Jinja2 templates rendered to segments. Knows texts and rows, nothing of tokens.

A prompt is segments, not a string: template text, and titles that know their catalog row and the
event that they stand in. The lead (the space before a title) and the terminator (the line break
after it) belong to the title, so that a title in the history and a title to be written are the
same unit.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from genrec.catalog import Catalog
from genrec.errors import PromptError
from genrec.interactions import History
from genrec.text import mostly_upper, one_line

LEAD = " "
TERMINATOR = "\n"
CASES = ("as_is", "lower")
MAX_TEXT = 200  # characters of an event's text that a prompt shows


@dataclass(frozen=True, slots=True)
class TitleForm:
    """How a run writes titles: ``case`` is ``as_is`` or ``lower``; longer ones are cut.

    Attributes:
        case: people always see the title as given; the model sees this form.
        max_title_tokens: a title is cut after so many tokens of the model's tokenizer.
    """

    case: str = "as_is"
    max_title_tokens: int = 48

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.case not in CASES:
            msg = f"case={self.case!r} is not known. Expected one of {', '.join(CASES)}."
            raise PromptError(msg)
        if self.max_title_tokens < 1:
            msg = f"max_title_tokens={self.max_title_tokens}. Expected 1 or more."
            raise PromptError(msg)

    @classmethod
    def of(cls, catalog: Catalog) -> TitleForm:
        """The form that suits a catalog: lower case where its titles are mostly capitals."""
        return cls(case="lower" if mostly_upper(catalog.titles) else "as_is")

    def render(self, title: str) -> str:
        """The title as the model sees it: on one line, without control characters, in this case."""
        line = one_line(title)
        return line.lower() if self.case == "lower" else line


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
    """

    segments: tuple[Segment, ...]
    lead: str = LEAD
    terminator: str = TERMINATOR
    events: int = 0
    dropped: int = 0

    @property
    def text(self) -> str:
        """The prompt as one string, for people."""
        return "".join(
            s.text if s.row is None else f"{self.lead}{s.text}{self.terminator}"
            for s in self.segments
        )


class _Title:
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


_TARGET_ROW = -1


def _flatten(parts: Iterable[Any]) -> list[Any]:
    flat: list[Any] = []
    for part in parts:
        flat.extend(part if isinstance(part, list) else [part])
    return flat


class _SegmentEnvironment(SandboxedEnvironment, NativeEnvironment):
    """Renders to the list of printed values instead of a string."""

    concat = staticmethod(_flatten)  # type: ignore[assignment]


def folder() -> Path:
    """The folder of the shipped templates: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    for place in (package / "templates", package.parent / "prompts"):
        if (place / "en").is_dir():
            return place
    msg = f"The prompt templates are missing beside {package}. Install genrec again."
    raise PromptError(msg)


class Template:
    """One prompt template, with its verb table."""

    def __init__(self, name: str, source: str, verbs: Mapping[str, str]) -> None:
        """Compiles a template.

        Args:
            name: its name, such as ``next_item``.
            source: Jinja2 text. It may use events (each with ``verb``, ``title``, which is None
                for an event of text only, and ``text``, empty where there is none),
                demonstrations (lists of events), next_verb and target, which comes last.
            verbs: behavior -> how it is said; a behavior that it lacks is said by its own name.

        Raises:
            PromptError: the source is not a valid template.
        """
        self.name = name
        self.verbs = dict(verbs)
        self.source = source
        environment = _SegmentEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False
        )
        try:
            self._template = environment.from_string(source)
            names = {n.name for n in environment.parse(source).find_all(nodes.Name)}
        except TemplateError as error:
            msg = f"Template {name!r} is not valid Jinja2: {error}. Mend the template."
            raise PromptError(msg) from error
        self.takes_demonstrations = "demonstrations" in names

    @classmethod
    def load(cls, name: str, language: str = "en") -> Template:
        """A shipped template by name.

        Raises:
            PromptError: there is no such language or template; the message lists what there is.
        """
        return _load(name, language)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over the source and the verbs: a changed prompt changes it."""
        data = json.dumps([self.source, self.verbs], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()

    def verb(self, behavior: str) -> str:
        """How a behavior is said."""
        return self.verbs.get(behavior, one_line(behavior))

    def render(
        self,
        catalog: Catalog,
        history: History,
        behavior: str,
        *,
        form: TitleForm | None = None,
        demonstrations: Sequence[History] = (),
        dropped: int = 0,
    ) -> Prompt:
        """Renders a history to the prompt for its next title.

        Args:
            catalog: gives the rows and titles of the history's items.
            history: the events, oldest first; may be empty.
            behavior: what the next event will be, such as ``buy``.
            form: how titles are written.
            demonstrations: whole histories of other users, for templates that take them.
            dropped: how many older events the caller has cut, kept in the prompt for display.

        Raises:
            PromptError: the template fails, changes a title, or does not end with the target.
            RequestError: an item of a history is not in the catalog.
        """
        form = form or TitleForm()

        def events(of: History, numbered: bool) -> list[dict[str, Any]]:
            shown = []
            for index, event in enumerate(of.interactions):
                title = None
                if event.item_id is not None:
                    row = catalog.row(event.item_id)
                    text = form.render(catalog[row].title)
                    title = _Title(text, row, index if numbered else None)
                said = one_line(event.text or "")[:MAX_TEXT]
                shown.append({"verb": self.verb(event.behavior), "title": title, "text": said})
            return shown

        context = {
            "events": events(history, numbered=True),
            "demonstrations": [events(d, numbered=False) for d in demonstrations],
            "next_verb": self.verb(behavior),
            "target": _Title("", _TARGET_ROW),
        }
        try:
            parts = self._template.root_render_func(self._template.new_context(context))
            segments = self._segments(_flatten(parts))
        except TemplateError as error:
            msg = f"Template {self.name!r} failed: {error}. Mend the template."
            raise PromptError(msg) from error
        return Prompt(segments=segments, events=len(history), dropped=dropped)

    def _segments(self, parts: list[Any]) -> tuple[Segment, ...]:
        """Joins text, moves leads and terminators into the titles, and checks both."""
        pieces: list[Segment] = []
        text = ""
        after_title = False
        for index, part in enumerate(parts):
            if not isinstance(part, _Title):
                text += str(part)
                continue
            text = self._strip_terminator(text) if after_title else text
            if not text.endswith(LEAD):
                self._fail(f"the text before a title ends with {text[-10:]!r}, not with a space")
            if text[: -len(LEAD)]:
                pieces.append(Segment(text[: -len(LEAD)]))
            text = ""
            if part.row == _TARGET_ROW:
                rest = "".join(str(p) for p in parts[index + 1 :])
                if rest.strip():
                    self._fail(f"{rest.strip()[:20]!r} follows the target")
                return tuple(pieces)
            pieces.append(Segment(part.text, part.row, part.event))
            after_title = True
        self._fail("it does not print {{ target }}")
        raise AssertionError  # unreachable: _fail raises

    def _strip_terminator(self, text: str) -> str:
        if not text.startswith(TERMINATOR):
            self._fail(f"the text after a title begins with {text[:10]!r}, not with a line break")
        return text[len(TERMINATOR) :]

    def _fail(self, problem: str) -> None:
        msg = (
            f"Template {self.name!r} cannot be used: {problem}. Expected each title between a "
            "space and a line break, and {{ target }} at the end. Mend the template."
        )
        raise PromptError(msg)


@functools.cache
def _load(name: str, language: str) -> Template:
    root = folder()
    languages = sorted(p.name for p in root.iterdir() if p.is_dir())
    if language not in languages:
        msg = f"No prompts for language {language!r}. Expected one of: {', '.join(languages)}."
        raise PromptError(msg)
    names = sorted(p.stem for p in (root / language).glob("*.jinja"))
    if name not in names:
        msg = f"No template {name!r} for {language!r}. Expected one of: {', '.join(names)}."
        raise PromptError(msg)
    source = (root / language / f"{name}.jinja").read_text(encoding="utf-8")
    verbs = json.loads((root / language / "verbs.json").read_text(encoding="utf-8"))
    return Template(name, source, verbs)
