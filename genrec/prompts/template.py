"""Prompts: Jinja2 templates rendered to segments. Knows texts and rows, nothing of tokens.

A prompt is segments, not a string: template text, and titles that know their catalog row and the
event that they stand in. The lead (what stands before a title, a space say) and the terminator
(what ends it, a line break say) belong to the title, so that a title in the history and a title to
be written are the same unit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes

from genrec.data.behaviors import Verb, read_text, read_verbs, templates_folder
from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.data.titles import TitleForm
from genrec.errors import PromptError
from genrec.prompts.segments import Prompt, Segment, SegmentEnvironment, TitleObject, flatten
from genrec.text import one_line

MAX_TEXT = 200  # characters of an event's text that a prompt shows


_TARGET_ROW = -1


class Template:
    """One prompt template, with its verb table.

    Attributes:
        name: such as ``next_item``.
        header: what the comment at the top says: ``for``, ``language``, ``form`` (``plain``, or
            ``chat``: a user's message in the model's chat template, the title being the answer),
            and optionally ``lead``, ``terminator`` (both in double quotes) and ``targets``:
            ``every`` where each title of a history is preceded by what inference would write
            before it, else ``last``. ``explain`` templates also have ``opening`` (how the sentence
            begins), ``link`` (how it goes on after the first title, with {item}), ``unlisted`` (the
            same where the item is not recommended), ``words`` (plain
            words that may be written between those of the item's title), ``empty`` (words of titles
            that say nothing alone, and in scripts without spaces characters that no word begins or
            ends with), ``passing`` (further ones that may stand in a freely written sentence), ``most`` (how many words), ``plain`` (the
            sentence where the model's own is not used, with {verb} and {title}), ``silent`` (where
            no event speaks for the item), ``earlier`` (where only older events than those shown do) and ``none`` (for an empty history). Templates that ask
            about one item have ``answers``: yes and no as the model writes them, such as
            ``" yes", " no"``.
        verbs: behavior -> how it is said.
        takes_demonstrations: whether it shows other users' histories.
    """

    def __init__(self, name: str, source: str, verbs: Mapping[str, Verb]) -> None:
        """Compiles a template.

        Args:
            name: its name, such as ``next_item``.
            source: Jinja2 text. It may use events (each with ``verb``, ``title``, which is None
                for an event of text only, ``text`` and ``value``, empty where there is none),
                demonstrations (lists of events), next_verb, next_base, opening, item (the title
                to be explained or asked about) and details (its attributes), and target, which
                comes last.
            verbs: behavior -> how it is said; one that it lacks is said by its own name.

        Raises:
            PromptError: the source is not a valid template.
        """
        self.name = name
        self.verbs = dict(verbs)
        self.source = source
        self.header = _header(name, source)
        self.lead = self.header.get("lead", " ")
        self.terminator = self.header.get("terminator", "\n")
        environment = SegmentEnvironment(
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
    def load(cls, name: str, language: str = "en", *, own: str | Path | None = None) -> Template:
        """A template by name: from the user's own folder, if it is there, else a shipped one.

        Args:
            name: such as ``next_item``.
            language: such as ``en``; the folder in which it lies.
            own: a folder laid out as the shipped one, ``en/NAME.jinja`` and ``en/verbs.json``;
                what it holds goes before what is shipped, verb by verb.

        Raises:
            PromptError: there is no such language or template; the message lists what there is.
        """
        roots = [templates_folder()] if own is None else [Path(own), templates_folder()]
        if own is not None and not Path(own).is_dir():
            msg = f"No folder {str(own)!r} of prompts. Expected one with {language}/{name}.jinja."
            raise PromptError(msg)
        languages = sorted({p.name for r in roots for p in r.iterdir() if p.is_dir()})
        if language not in languages:
            msg = f"No prompts for language {language!r}. Expected one of: {', '.join(languages)}."
            raise PromptError(msg)
        files = {p.stem: p for r in reversed(roots) for p in (r / language).glob("*.jinja")}
        if name not in files:
            known = ", ".join(sorted(files))
            msg = f"No template {name!r} for {language!r}. Expected one of: {known}."
            raise PromptError(msg)
        verbs: dict[str, Verb] = {}
        for root in reversed(roots):
            verbs |= read_verbs(root / language / "verbs.json")
        return cls(name, read_text(files[name]), verbs)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over the source and the verbs as written: a changed prompt changes it."""
        verbs = {b: [v.past, v.base, v.value] for b, v in self.verbs.items()}
        data = json.dumps([self.source, verbs], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def answers(self) -> tuple[str, str] | None:
        """Yes and no as the model writes them; None where the template asks for a title."""
        given = self.header.get("answers")
        return None if given is None else _answers(self.name, given)

    def form(self, case: str = "as_is", max_title_tokens: int = 48) -> TitleForm:
        """The title form of this template."""
        return TitleForm(case, max_title_tokens, self.lead, self.terminator)

    def verb(self, behavior: str) -> Verb:
        """How a behavior is said; one that the table lacks, by its own name."""
        name = one_line(behavior)
        return self.verbs.get(behavior, Verb(name, name))

    def render(
        self,
        catalog: Catalog,
        history: History,
        behavior: str,
        *,
        form: TitleForm | None = None,
        demonstrations: Sequence[History] = (),
        scale: float | None = None,
        dropped: int = 0,
        item: int | None = None,
    ) -> Prompt:
        """Renders a history to the prompt for its next title.

        Args:
            catalog: gives the rows and titles of the history's items.
            history: the events, oldest first; may be empty.
            behavior: what the next event will be, such as ``buy``.
            form: how titles are written; this template's own where None.
            demonstrations: whole histories of other users, for templates that take them.
            scale: the highest value that an event can have, to show values; None shows none.
            dropped: how many older events the caller has cut, kept in the prompt for display.
            item: the catalog row that an ``explain`` or ``would_like`` template asks about.

        Raises:
            PromptError: the template fails, changes a title, or does not end with the target.
            RequestError: an item of a history is not in the catalog.
        """
        form = form or self.form()

        def events(of: History, numbered: bool) -> list[dict[str, Any]]:
            shown = []
            for index, event in enumerate(of.interactions):
                title = None
                if event.item_id is not None:
                    row = catalog.row(event.item_id)
                    text = form.render(catalog[row].title)
                    title = TitleObject(text, row, index if numbered else None)
                verb = self.verb(event.behavior)
                shown.append(
                    {
                        "verb": verb.past,
                        "title": title,
                        "text": one_line(event.text or "")[:MAX_TEXT],
                        "value": "" if scale is None else verb.format_value(event.value, scale),
                    }
                )
            return shown

        context = {
            "events": events(history, numbered=True),
            "demonstrations": [events(d, numbered=False) for d in demonstrations],
            "next_verb": self.verb(behavior).past,
            "next_base": self.verb(behavior).base,
            "target": TitleObject("", _TARGET_ROW),
            "opening": self.header.get("opening", ""),
        }
        if item is not None:
            context["item"] = TitleObject(form.render(catalog[item].title), item)
            attributes = catalog[item].known.items()
            said = (f"{k.replace('_', ' ')}: {v}" for k, v in attributes)
            context["details"] = one_line(", ".join(said))[:MAX_TEXT]
        try:
            parts = self._template.root_render_func(self._template.new_context(context))
            segments = self._segments(flatten(parts))
        except TemplateError as error:
            msg = f"Template {self.name!r} failed: {error}. Mend the template."
            raise PromptError(msg) from error
        chat = self.header.get("form") == "chat"
        return Prompt(segments, self.lead, self.terminator, len(history), dropped, chat)

    def _segments(self, parts: list[Any]) -> tuple[Segment, ...]:
        """Joins text, moves leads and terminators into the titles, and checks both."""
        pieces: list[Segment] = []
        text = ""
        after_title = False
        for index, part in enumerate(parts):
            if not isinstance(part, TitleObject):
                text += str(part)
                continue
            if after_title and not text.startswith(self.terminator):
                self._fail(f"the text after a title begins with {text[:10]!r}")
            text = text[len(self.terminator) :] if after_title else text
            if not text.endswith(self.lead):
                self._fail(f"the text before a title ends with {text[-10:]!r}")
            text = text[: len(text) - len(self.lead)]
            if text:
                pieces.append(Segment(text))
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

    def _fail(self, problem: str) -> None:
        msg = (
            f"Template {self.name!r} cannot be used: {problem}. Expected each title between "
            f"{self.lead!r} and {self.terminator!r} (lead and terminator in the header), and "
            "{{ target }} at the end. Mend the template."
        )
        raise PromptError(msg)


_QUOTED = (
    "lead", "terminator", "opening", "link", "unlisted", "words", "empty", "passing", "plain", "none",
    "silent", "earlier",
)  # fmt: skip
_KEYS = ("for", "language", "form", "targets", "most", "answers", *_QUOTED)


def _header(name: str, source: str) -> dict[str, str]:
    """The ``key: value`` lines of the comment at the top; none is needed."""
    found = re.match(r"\{#-?\n(.*?)-?#\}", source, re.DOTALL)
    header: dict[str, str] = {}
    for line in found[1].splitlines() if found else []:
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not colon or key not in _KEYS:
            msg = (
                f"The header of template {name!r} has the line {line.strip()!r}. Expected "
                f"'key: value' with one of: {', '.join(_KEYS)}."
            )
            raise PromptError(msg)
        header[key] = _quoted(name, key, value) if key in _QUOTED else value
    if not header.get("terminator", "\n"):
        msg = f"Template {name!r} has an empty terminator. Expected what ends a title."
        raise PromptError(msg)
    if header.get("form", "plain") not in {"plain", "chat"}:
        msg = f"Template {name!r} has form: {header['form']}. Expected plain or chat."
        raise PromptError(msg)
    if header.get("targets", "every") not in {"every", "last"}:
        msg = f"Template {name!r} has targets: {header['targets']}. Expected every or last."
        raise PromptError(msg)
    if "answers" in header:
        _answers(name, header["answers"])
    return header


def _answers(name: str, value: str) -> tuple[str, str]:
    try:
        found = json.loads(f"[{value}]")
    except ValueError:
        found = None
    match found:
        case [str(yes), str(no)] if yes and no:
            return yes, no
    msg = (
        f"Template {name!r} has answers: {value}. Expected two texts in quotes, yes first, such as "
        '" yes", " no".'
    )
    raise PromptError(msg)


def _quoted(name: str, key: str, value: str) -> str:
    try:
        text = json.loads(value)
    except ValueError:
        text = None
    if not isinstance(text, str):
        msg = f'Template {name!r} has {key}: {value}. Expected text in quotes, such as "\\n".'
        raise PromptError(msg)
    return text
