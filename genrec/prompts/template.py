"""Render Jinja2 templates as prompts.

A prompt is a list of segments, not a string. A segment is either text from the template, or a title
together with its catalog row and event. The text that precedes each title (the lead, such as a
space) and the text that ends it (the terminator, such as a line break) belong to the title.
Therefore, the titles in a history have exactly the same form as the title that the model writes.
This module deals with texts and catalog rows, not with tokens.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes

from genrec.data.behaviors import Verb, read_text, read_verbs, templates_folder
from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.data.knowledge import Knowledge
from genrec.data.opinions import opinion_of
from genrec.data.titles import TitleForm
from genrec.errors import PromptError
from genrec.prompts.context_words import FILE, ContextWords, insert_lines
from genrec.prompts.event_blocks import separate_events
from genrec.prompts.item_attributes import ItemAttributes, insert_attributes
from genrec.prompts.segments import (
    TARGET_ROW,
    EventText,
    Prompt,
    Segment,
    SegmentEnvironment,
    TitleObject,
    flatten,
)
from genrec.prompts.template_header import parse_answers, parse_header
from genrec.text import one_line

MAX_TEXT = 200  # maximum number of characters that a prompt shows of an event's text


class Template:
    """A prompt template, together with the verbs for the users' behaviors.

    A comment at the top of the source may contain a header of ``key: value`` lines. All keys are
    optional:

    - ``for`` and ``language``: the purpose of the template, and its language.
    - ``form``: ``plain`` (the default) or ``chat``. A ``chat`` template renders a user's message,
      which is put into the model's chat template, and the model answers with the title.
    - ``lead``, ``terminator``: the text that precedes every title and the text that ends it, in
      double quotes.
    - ``targets``: ``every`` (the default) if the text before each title in a history is exactly the
      prompt that would be used to predict that title; otherwise ``last``.
    - ``events``: ``separable`` if each event in the history is written on lines of its own, so that
      ``attention="by_event"`` can read it separately; ``joined`` if it is not, or if the events
      must be read together. If the key is missing, the rendered prompt decides.
    - ``answers``: the words for yes and no as the model writes them, such as ``" yes", " no"``.
      Only templates that ask about one item have them.

    Templates named ``explain``, which write a sentence about an item, also have these keys:

    - ``opening``: the beginning of the sentence.
    - ``link``: the text after the first title in the sentence, in which {item} stands for the item.
    - ``unlisted``: the text used instead of ``link`` if the item is not recommended.
    - ``words``: plain words that the model may write between words of the item's title.
    - ``passing``: additional words that the model may use in a freely written sentence.
    - ``empty``: words that mean nothing on their own. In scripts without spaces, these are
      characters that cannot begin or end a word.
    - ``most``: maximum number of words in the sentence.
    - ``plain``: the sentence used if the model's own sentence is rejected. In it, {verb} and
      {title} stand for the event.
    - ``silent``: the sentence used if no event supports the item.
    - ``earlier``: the sentence used if only events that are not shown support the item.
    - ``none``: the sentence used if the history is empty.

    Attributes:
        name: the template's name, such as ``next_item``.
        source: the Jinja2 source text.
        header: the header's values, keyed by name.
        lead: text that precedes every title.
        terminator: text that ends every title.
        verbs: the verb that expresses each behavior, keyed by the behavior's name.
        takes_demonstrations: whether the template shows other users' histories as examples.
        shows_context: whether the template itself prints the context of the next event.
        shows_query: whether the template itself prints what the user asks for.
        shows_past_context: whether it also prints the context of the events in the history.
        shows_profile: whether it prints a line that stands for events that are too old to be shown.
        shows_attributes: whether it prints the attributes of items itself.
        words: the words for the context and the note.
        attributes: writes the attributes of items in histories; None to show none.
    """

    attributes: ItemAttributes | None = None

    def __init__(
        self,
        name: str,
        source: str,
        verbs: Mapping[str, Verb],
        words: ContextWords | None = None,
    ) -> None:
        """Compile a template from its source.

        The source may use these variables:

        - ``events``: the events in the user's history. Each event has a ``verb``, a ``title`` (None
          if the event has only text), a ``text``, a ``value``, a ``context``, the ``attributes`` of its
          item and an ``opinion``, which is ``positive``, ``negative`` or empty. All but the first two may
          be empty.
        - ``demonstrations``: other users' histories, each of which is a list of such events.
        - ``next_verb``, ``next_base``: the verb of the next event in its past and base forms.
        - ``context``, ``note``: the context of the next event and the note on it, in the words of
          ``context.json``; may be empty. In the prompt of a template that does not use ``context``,
          they are inserted; see ``genrec.prompts.context_words``.
        - ``query``: what the user asks for, in the same words; may be empty. In the prompt of a template that
          does not use it, it stands on a line before that of the target.
        - ``profile``: a line that stands for the events that are too old to be shown, such as
          "Earlier interests: tea, mugs"; empty if all events are shown.
        - ``opening``: the value of this key in the header.
        - ``item``, ``details``: the title and attributes of the item that the template is about.
        - ``target``: the title that the model is to write, which must come last.

        Args:
            name: the template's name, such as ``next_item``.
            source: the Jinja2 source text.
            verbs: the verb for each behavior, keyed by the behavior's name. A behavior without a
                verb is expressed by its name.
            words: the words for the context and the note; None for the English ones.

        Raises:
            PromptError: the source is not a valid template.
        """
        self.name = name
        self.verbs = dict(verbs)
        self.words = words or ContextWords.read([templates_folder() / "en" / FILE])
        self.source = source
        self.header = parse_header(name, source)
        self.lead = self.header.get("lead", " ")
        self.terminator = self.header.get("terminator", "\n")
        environment = SegmentEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False
        )
        try:
            self._template = environment.from_string(source)
            parsed = environment.parse(source)
            names = {n.name for n in parsed.find_all(nodes.Name)}
            parts = {n.attr for n in parsed.find_all(nodes.Getattr)}
        except TemplateError as error:
            msg = f"Template {name!r} is not valid Jinja2: {error}. Fix the template."
            raise PromptError(msg) from error
        self.takes_demonstrations = "demonstrations" in names
        self.shows_context = "context" in names
        self.shows_query = "query" in names
        self.shows_past_context = self.shows_context and "context" in parts
        self.shows_profile = "profile" in names
        self.shows_attributes = "attributes" in parts

    @classmethod
    def load(cls, name: str, language: str = "en", *, own: str | Path | None = None) -> Template:
        """Load a template by name from the user's own folder or from the shipped templates.

        Args:
            name: the template's name, such as ``next_item``.
            language: name of the language folder, such as ``en``.
            own: the user's own folder, which may contain files such as ``en/NAME.jinja`` and
                ``en/verbs.json``. Its templates and verbs take precedence over the shipped ones.
                None to use only the shipped ones.

        Raises:
            PromptError: the folder, the language or the template does not exist. The message lists
                the available languages or templates.
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
        words = ContextWords.read([root / language / FILE for root in reversed(roots)])
        return cls(name, read_text(files[name]), verbs, words)

    def with_attributes(self, knowledge: Knowledge) -> Template:
        """Return this template, showing what is known about the items of histories after their titles.

        Args:
            knowledge: the names of the attributes to show; without names, none are shown.
        """
        new = copy.copy(self)
        new.attributes = ItemAttributes(knowledge, self.words) if knowledge.names else None
        return new

    def write_attributes(self, catalog: Catalog, row: int) -> str:
        """Write the attributes of an item that are to be shown after its title; may be empty."""
        return "" if self.attributes is None else self.attributes.write(catalog[row])

    @property
    def hash(self) -> str:
        """Return a SHA-256 hash in hexadecimal that identifies the template's source and verbs.

        The words for the context count if the template itself prints it. The names of attributes and
        their words count if they are shown.
        """
        verbs = {b: [v.past, v.base, v.value] for b, v in self.verbs.items()}
        shown = [self.words.spelled()] if self.shows_context else []
        if self.attributes is not None:
            shown.append(self.attributes.spelled())
        data = json.dumps([self.source, verbs, *shown], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def answers(self) -> tuple[str, str] | None:
        """Return the words for yes and no as the model writes them.

        The result is None if the template asks for a title rather than for yes or no.
        """
        given = self.header.get("answers")
        return None if given is None else parse_answers(self.name, given)

    def form(self, case: str = "as_is", max_title_tokens: int = 48) -> TitleForm:
        """Build the format in which this template writes titles.

        Args:
            case: ``lower`` to write titles in lower case, or ``as_is`` to leave them unchanged.
            max_title_tokens: maximum number of tokens in a title; longer titles are cut.
        """
        return TitleForm(case, max_title_tokens, self.lead, self.terminator)

    def verb(self, behavior: str) -> Verb:
        """Return the verb that expresses a behavior; by default, this is the behavior's name."""
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
        """Render a user's history as a prompt that asks the model for the next title.

        Args:
            catalog: the items to which the history refers.
            history: the user's events, oldest first; may be empty. It also has the context of the
                next event, and the line that stands for events before them.
            behavior: the behavior of the next event, such as ``buy``.
            form: the format in which titles are written; None for this template's own format.
            demonstrations: complete histories of other users, which some templates show as
                examples.
            scale: the highest possible value of an event, such as the highest rating; None to hide
                values.
            dropped: number of older events that the caller has left out, to be stored for display.
            item: catalog row of the item that an ``explain`` or ``would_like`` template is about;
                None for other templates.

        Raises:
            PromptError: the template cannot be rendered, modifies a title or does not end with the
                target.
            RequestError: an item in a history is not in the catalog.
        """
        form = form or self.form()

        def events(of: History, numbered: bool) -> list[dict[str, Any]]:
            shown = []
            for index, event in enumerate(of.interactions):
                title, known = None, ""
                if event.item_id is not None:
                    row = catalog.row(event.item_id)
                    text = form.render(catalog[row].title)
                    title = TitleObject(text, row, index if numbered else None)
                    known = self.write_attributes(catalog, row) if self.shows_attributes else ""
                verb, number = self.verb(event.behavior), index if numbered else None
                text = one_line(event.text or "")[:MAX_TEXT]
                value = "" if scale is None else verb.format_value(event.value, scale)
                shown.append(
                    {
                        "verb": EventText(verb.past, number),
                        "title": title,
                        "text": EventText(text, number, free=True),
                        "value": EventText(value, number),
                        "context": EventText(self.words.write_context(event.context), number),
                        "opinion": EventText(opinion_of(event), number),
                        "attributes": EventText(known, number),
                    }
                )
            return shown

        context: dict[str, Any] = {
            "events": events(history, numbered=True),
            "demonstrations": [events(d, numbered=False) for d in demonstrations],
            "next_verb": self.verb(behavior).past,
            "next_base": self.verb(behavior).base,
            "target": TitleObject("", TARGET_ROW),
            "opening": self.header.get("opening", ""),
            "context": self.words.write_context(history.context),
            "note": self.words.write_note(history.note),
            "query": self.words.write_query(history.query),
            "profile": history.earlier,
        }
        if item is not None:
            context["item"] = TitleObject(form.render(catalog[item].title), item)
            attributes = catalog[item].known.items()
            details = (f"{k.replace('_', ' ')}: {v}" for k, v in attributes)
            context["details"] = one_line(", ".join(details))[:MAX_TEXT]
        try:
            parts = self._template.root_render_func(self._template.new_context(context))
            printed = flatten(parts)
            if self.attributes is not None and not self.shows_attributes:
                printed = self._with_attributes(printed, catalog, context.get("item"))
            if not self.shows_context and (lines := self.words.lines(history)):
                printed = insert_lines(printed, lines, context.get("item"))
            if not self.shows_query and (line := context["query"]):
                printed = insert_lines(printed, f"{line}\n", context.get("item"))
            segments = self._build_segments(printed)
        except TemplateError as error:
            msg = f"Template {self.name!r} could not be rendered: {error}. Fix the template."
            raise PromptError(msg) from error
        chat, shown = self.header.get("form") == "chat", len(history)
        said = history.earlier if self.shows_profile else ""
        prompt = Prompt(segments, self.lead, self.terminator, shown, dropped, chat, profile=said)
        return self._separate(prompt, printed)

    def _with_attributes(
        self, printed: Sequence[Any], catalog: Catalog, item: TitleObject | None
    ) -> list[Any]:
        """Insert the attributes of the items of histories, but not those of ``item`` and the target."""
        words = [
            self.write_attributes(catalog, part.row)
            if isinstance(part, TitleObject) and part is not item and part.row != TARGET_ROW
            else ""
            for part in printed
        ]
        return insert_attributes(printed, self.terminator, words)

    def _separate(self, prompt: Prompt, printed: Sequence[Any]) -> Prompt:
        """Add the places at which a prompt can be cut into its events.

        Args:
            prompt: the prompt.
            printed: the strings, titles and other values that the template has printed, in order.

        Raises:
            PromptError: the header says that the events are separable, but they are not.
        """
        declared = self.header.get("events")
        cuts = None if declared == "joined" else separate_events(prompt, printed)
        if cuts is None and declared == "separable":
            msg = (
                f"Template {self.name!r} has 'events: separable', but its events are not on lines "
                "of their own, in the order of the history. Fix the template, or remove this line."
            )
            raise PromptError(msg)
        return prompt if cuts is None else replace(prompt, cuts=cuts[0], free=cuts[1])

    def _build_segments(self, parts: list[Any]) -> tuple[Segment, ...]:
        """Convert the output of a template to segments.

        Adjacent pieces of text are joined. The lead and the terminator around each title are
        removed, because they belong to the title.

        Args:
            parts: the strings, titles and other values that the template has printed, in order.

        Raises:
            PromptError: a lead or terminator is missing, or the template does not end with the
                target.
        """
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
            if part.row == TARGET_ROW:
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
