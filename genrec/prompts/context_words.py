"""Word the context, the note, the query and the attributes of items of a prompt in a language.

A template may print them where it likes (``context``, ``note``, ``query`` and ``event.context``). In a prompt
of any other template, they stand on lines of their own before the line of the target, or before the
line of the item that the template asks about. The words are in ``context.json`` beside the
templates. This module deals with texts, not with tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec.data.behaviors import read_text
from genrec.data.events import History
from genrec.errors import PromptError
from genrec.prompts.segments import TARGET_ROW, TitleObject
from genrec.text import one_line

FILE = "context.json"
_BREAK = "\n"


@dataclass(frozen=True, slots=True)
class ContextWords:
    """The words of one language for the context.

    Attributes:
        value: a pattern for one value, with the placeholders {name} and {value}.
        separator: the text between two values.
        context: a pattern for all values together, with the placeholder {context}.
        note: a pattern for the note, with the placeholder {note}.
        query: a pattern for what is asked for, with the placeholder {query}.
        attributes: a pattern for the attributes of an item, with the placeholder {attributes}.
        names: the words for the columns; a column without any is written with spaces for
            underscores.
        values: the words for the values, by column.
    """

    value: str = "{name}: {value}"
    separator: str = ", "
    context: str = "[{context}]"
    note: str = 'Note: "{note}"'
    query: str = 'The customer asks for: "{query}"'
    attributes: str = "({attributes})"
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> ContextWords:
        """Read the words from JSON files, of which later ones take precedence.

        Raises:
            PromptError: a file does not have these fields.
        """
        found: dict[str, Any] = {}
        for path in paths:
            if not path.is_file():
                continue
            try:
                given = json.loads(read_text(path))
                cls(**given)._check()
                found |= given
            except (ValueError, TypeError, AttributeError) as error:
                msg = (
                    f"{path} does not have the words for a context: {error}. Expected JSON with the "
                    "fields value, separator, context, note, query, attributes, names and values, as in the shipped "
                    f"{FILE}."
                )
                raise PromptError(msg) from error
        return cls(**found)

    def _check(self) -> None:
        """Raise a ValueError if a pattern lacks its placeholder."""
        for pattern in ("value", "context", "note", "query", "attributes"):
            if f"{{{pattern}}}" not in getattr(self, pattern):
                msg = f"{pattern!r} lacks {{{pattern}}}"
                raise ValueError(msg)
        _ = dict(self.names), {name: dict(words) for name, words in self.values.items()}

    def write_context(self, context: Mapping[str, str]) -> str:
        """Write a context on one line; an empty context gives an empty text."""
        if not context:
            return ""
        words = {c: self.values.get(c, {}).get(given, given) for c, given in context.items()}
        return _fill(self.context, context=self._write_values(words))

    def write_attributes(self, attributes: Mapping[str, str]) -> str:
        """Write the attributes of an item on one line; no attributes give an empty text."""
        if not attributes:
            return ""
        return _fill(self.attributes, attributes=self._write_values(attributes))

    def _write_values(self, values: Mapping[str, str]) -> str:
        """Write values with their names, one after the other."""
        written = []
        for column, value in values.items():
            name = self.names.get(column, column.replace("_", " "))
            written.append(_fill(self.value, name=one_line(name), value=one_line(value)))
        return self.separator.join(written)

    def write_note(self, note: str) -> str:
        """Write a note on one line; an empty note gives an empty text."""
        return _fill(self.note, note=one_line(note)) if note else ""

    def write_query(self, query: str) -> str:
        """Write a query on one line; an empty query gives an empty text."""
        return _fill(self.query, query=one_line(query)) if query else ""

    def lines(self, history: History) -> str:
        """Write the note and the context of a history's next event, each on a line of its own."""
        written = (self.write_note(history.note), self.write_context(history.context))
        return "".join(f"{text}{_BREAK}" for text in written if text)

    def spelled(self) -> list[Any]:
        """Return the words for the context as values that JSON can represent, for a hash."""
        values = {name: dict(words) for name, words in self.values.items()}
        return [self.value, self.separator, self.context, self.note, dict(self.names), values]


def _fill(pattern: str, **texts: str) -> str:
    """Replace the placeholders of a pattern. A text that looks like a placeholder stays as it is."""
    parts = [pattern]
    for name, text in texts.items():
        split: list[str] = []
        for place, part in enumerate(parts):
            pieces = part.split(f"{{{name}}}") if place % 2 == 0 else [part]
            for number, piece in enumerate(pieces):
                split += [piece] if not number else [text, piece]
        parts = split
    return "".join(parts)


def insert_lines(printed: Sequence[Any], lines: str, item: TitleObject | None) -> list[Any]:
    """Insert lines before the line of the target or of the item that a template asks about.

    Args:
        printed: the strings, titles and other values that a template has printed, in order.
        lines: the lines, each with a line break at its end.
        item: the item; None if the template does not ask about one.

    Returns:
        The values with the lines.
    """
    parts = list(printed)
    places = [
        place
        for place, part in enumerate(parts)
        if isinstance(part, TitleObject) and (part is item or part.row == TARGET_ROW)
    ]
    for place in range((places or [len(parts)])[0] - 1, -1, -1):
        part = parts[place]
        if isinstance(part, str) and _BREAK in part:
            end = part.rfind(_BREAK) + 1
            return [*parts[:place], part[:end], lines, part[end:], *parts[place + 1 :]]
    return [lines, *parts]
