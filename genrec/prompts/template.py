"""Render Jinja2 templates as prompts. Deals with texts and catalog rows, not with tokens.

A prompt is a list of segments, not a string. A segment is either template text or a title with its
catalog row and event. The lead before a title (such as a space) and the terminator after it (such
as a line break) belong to the title. So titles in the history have exactly the same form as the
title that the model must write.
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

MAX_TEXT = 200  # maximum number of characters of an event's text in a prompt

_TARGET_ROW = -1  # stands for the catalog row of the title to be written


class Template:
    """A prompt template with its verb table.

    The comment at the top of the source is the header, which consists of ``key: value`` lines. All
    keys are optional:

    - ``for`` and ``language``: the purpose of the template, and its language.
    - ``form``: ``plain`` (the default) or ``chat``. A ``chat`` template renders a user's message
      for the model's chat template, and the model answers with the title.
    - ``lead``, ``terminator``: text before and after every title, in double quotes.
    - ``targets``: ``every`` (the default) if the text before each title in a history is exactly the
      prompt that inference would use for that title; otherwise ``last``.
    - ``answers``: the words for yes and no as the model writes them, such as ``" yes", " no"``, for
      templates that ask about one item.

    Templates that explain an item (``explain``) also have these keys:

    - ``opening``: the beginning of the sentence.
    - ``link``: the text after the first title, which contains {item}.
    - ``unlisted``: the link for an item that is not recommended.
    - ``words``: plain words that may be written between words of the item's title.
    - ``passing``: additional words that may occur in a freely written sentence.
    - ``empty``: words that mean nothing on their own. In scripts without spaces, these are
      characters that cannot begin or end a word.
    - ``most``: maximum number of words.
    - ``plain``: the sentence used if the model's own sentence is rejected. It contains {verb} and
      {title}.
    - ``silent``: the sentence used if no event supports the item.
    - ``earlier``: the sentence used if only events that are not shown support the item.
    - ``none``: the sentence used for an empty history.

    Attributes:
        name: the template's name, such as ``next_item``.
        source: the Jinja2 source text.
        header: the header's values by key.
        lead: text before every title.
        terminator: text after every title.
        verbs: behavior -> verb that expresses it.
        takes_demonstrations: whether the template shows other users' histories.
    """

    def __init__(self, name: str, source: str, verbs: Mapping[str, Verb]) -> None:
        """Compile a template.

        The source may use these variables:

        - ``events``: the history. Each event has a ``verb``, a ``title`` (None if the event is
          text only), a ``text`` and a ``value``; the last two may be empty.
        - ``demonstrations``: other users' histories, each a list of such events.
        - ``next_verb``, ``next_base``: the verb of the next event in its past and base forms.
        - ``opening``: the header's value of that name.
        - ``item``, ``details``: the title and attributes of the item that the template is about.
        - ``target``: the title to be written, which must come last.

        Args:
            name: the template's name, such as ``next_item``.
            source: the Jinja2 source text.
            verbs: behavior -> verb that expresses it. Other behaviors are expressed by their names.

        Raises:
            PromptError: the source is not a valid template.
        """
        self.name = name
        self.verbs = dict(verbs)
        self.source = source
        self.header = _parse_header(name, source)
        self.lead = self.header.get("lead", " ")
        self.terminator = self.header.get("terminator", "\n")
        environment = SegmentEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False
        )
        try:
            self._template = environment.from_string(source)
            names = {n.name for n in environment.parse(source).find_all(nodes.Name)}
        except TemplateError as error:
            msg = f"Template {name!r} is not valid Jinja2: {error}. Fix the template."
            raise PromptError(msg) from error
        self.takes_demonstrations = "demonstrations" in names

    @classmethod
    def load(cls, name: str, language: str = "en", *, own: str | Path | None = None) -> Template:
        """Load a template by name from the user's own folder or from the shipped templates.

        Args:
            name: the template's name, such as ``next_item``.
            language: name of the language folder, such as ``en``.
            own: a folder with the same layout as the shipped one, with ``en/NAME.jinja`` and
                ``en/verbs.json``. Its templates and verbs take precedence over the
                shipped ones.

        Raises:
            PromptError: the language or template does not exist. The message lists the available
                ones.
        """
        roots = [templates_folder()] if own is None else [Path(own), templates_folder()]
        if own is not None and not Path(own).is_dir():
            msg = (
                f"There is no prompt folder {str(own)!r}. Expected a folder that contains your own "
                f"templates, for example {language}/{name}.jinja."
            )
            raise PromptError(msg)
        languages = sorted({p.name for r in roots for p in r.iterdir() if p.is_dir()})
        if language not in languages:
            msg = (
                f"There are no prompts for language {language!r}. Expected one of: "
                f"{', '.join(languages)}."
            )
            raise PromptError(msg)
        files = {p.stem: p for r in reversed(roots) for p in (r / language).glob("*.jinja")}
        if name not in files:
            known = ", ".join(sorted(files))
            msg = (
                f"There is no template {name!r} for language {language!r}. Expected one of: "
                f"{known}."
            )
            raise PromptError(msg)
        verbs: dict[str, Verb] = {}
        for root in reversed(roots):
            verbs |= read_verbs(root / language / "verbs.json")
        return cls(name, read_text(files[name]), verbs)

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the source and the verbs, which identifies the template."""
        verbs = {b: [v.past, v.base, v.value] for b, v in self.verbs.items()}
        data = json.dumps([self.source, verbs], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def answers(self) -> tuple[str, str] | None:
        """Return yes and no as the model writes them; None if the template asks for a title."""
        given = self.header.get("answers")
        return None if given is None else _parse_answers(self.name, given)

    def form(self, case: str = "as_is", max_title_tokens: int = 48) -> TitleForm:
        """Build the title format of this template.

        Args:
            case: letter case, ``as_is`` or ``lower``.
            max_title_tokens: maximum number of tokens in a title; longer titles are cut.
        """
        return TitleForm(case, max_title_tokens, self.lead, self.terminator)

    def verb(self, behavior: str) -> Verb:
        """Return the verb for a behavior, or the behavior's name if the table has no verb for it."""
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
        """Render a history as the prompt for its next title.

        Args:
            catalog: the items to which the history refers.
            history: the events, oldest first; may be empty.
            behavior: the behavior of the next event, such as ``buy``.
            form: the format of titles; None for this template's own format.
            demonstrations: complete histories of other users, for templates that show them.
            scale: the highest possible value of an event; None hides values.
            dropped: number of older events that the caller left out, stored for display.
            item: catalog row of the item that an ``explain`` or ``would_like`` template is about.

        Raises:
            PromptError: rendering fails, or the template modifies a title or does not end with the
                target.
            RequestError: an item in a history is not in the catalog.
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
            details = (f"{k.replace('_', ' ')}: {v}" for k, v in attributes)
            context["details"] = one_line(", ".join(details))[:MAX_TEXT]
        try:
            parts = self._template.root_render_func(self._template.new_context(context))
            segments = self._build_segments(flatten(parts))
        except TemplateError as error:
            msg = f"Template {self.name!r} could not be rendered: {error}. Fix the template."
            raise PromptError(msg) from error
        chat = self.header.get("form") == "chat"
        return Prompt(segments, self.lead, self.terminator, len(history), dropped, chat)

    def _build_segments(self, parts: list[Any]) -> tuple[Segment, ...]:
        """Join adjacent text, and check and remove the lead and terminator around each title."""
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
        """Raise a PromptError that describes a problem with the template's text."""
        msg = (
            f"Template {self.name!r} cannot be used: {problem}. Expected each title between "
            f"{self.lead!r} and {self.terminator!r} (lead and terminator in the header), and "
            "{{ target }} at the end. Fix the template."
        )
        raise PromptError(msg)


_QUOTED = (
    "lead", "terminator", "opening", "link", "unlisted", "words", "empty", "passing", "plain", "none",
    "silent", "earlier",
)  # fmt: skip
_KEYS = ("for", "language", "form", "targets", "most", "answers", *_QUOTED)


def _parse_header(name: str, source: str) -> dict[str, str]:
    """Parse the ``key: value`` lines of the comment at the top, if there is one."""
    comment = re.match(r"\{#-?\n(.*?)-?#\}", source, re.DOTALL)
    header: dict[str, str] = {}
    for line in comment[1].splitlines() if comment else []:
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not colon or key not in _KEYS:
            msg = (
                f"The header of template {name!r} has the line {line.strip()!r}. Expected "
                f"'key: value' with one of these keys: {', '.join(_KEYS)}."
            )
            raise PromptError(msg)
        header[key] = _parse_quoted(name, key, value) if key in _QUOTED else value
    if not header.get("terminator", "\n"):
        msg = f"Template {name!r} has an empty terminator. Expected text that ends every title."
        raise PromptError(msg)
    if header.get("form", "plain") not in {"plain", "chat"}:
        msg = f"Template {name!r} has 'form: {header['form']}'. Expected plain or chat."
        raise PromptError(msg)
    if header.get("targets", "every") not in {"every", "last"}:
        msg = f"Template {name!r} has 'targets: {header['targets']}'. Expected every or last."
        raise PromptError(msg)
    if "answers" in header:
        _parse_answers(name, header["answers"])
    return header


def _parse_answers(name: str, value: str) -> tuple[str, str]:
    """Parse yes and no from a header value such as ``" yes", " no"``."""
    try:
        answers = json.loads(f"[{value}]")
    except ValueError:
        answers = None
    match answers:
        case [str(yes), str(no)] if yes and no:
            return yes, no
    msg = (
        f"Template {name!r} has 'answers: {value}'. Expected two quoted strings, with the one for "
        'yes first, such as " yes", " no".'
    )
    raise PromptError(msg)


def _parse_quoted(name: str, key: str, value: str) -> str:
    """Parse a header value that is in double quotes."""
    try:
        text = json.loads(value)
    except ValueError:
        text = None
    if not isinstance(text, str):
        msg = (
            f"Template {name!r} has '{key}: {value}'. Expected text in double quotes, such as "
            '"\\n".'
        )
        raise PromptError(msg)
    return text
