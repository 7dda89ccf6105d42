"""Write what is known about an item, such as its brand and color, after its title in a history.

In a history, the attributes of an item stand on the line after its title, in parentheses. They follow
the text that ends the title, as ratings do, since they are known only once the item is chosen. So a title in
a history has the same token ids as the title that the model writes, and training sees the same text as
inference. A template may print them where it likes (``event.attributes``); in the prompt of any other
template, they are inserted. This module deals with texts, not with tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genrec.data.catalog import Item
from genrec.data.knowledge import Knowledge
from genrec.prompts.context_words import ContextWords
from genrec.prompts.segments import EventText, TitleObject
from genrec.text import one_line

MOST_VALUE, MOST_ATTRIBUTES = 60, 200  # maximum number of characters of a value and of a line
_BREAK = "\n"


@dataclass(frozen=True, eq=False)
class ItemAttributes:
    """Writes the chosen attributes of items in the words of a language.

    Attributes:
        knowledge: the names of the attributes, which are columns of the catalog or relations of triples.
        words: the words of the language.
    """

    knowledge: Knowledge
    words: ContextWords

    def write(self, item: Item) -> str:
        """Write the attributes of an item on one line; empty if none of them is known.

        Names and values are cut to 60 characters, and attributes that exceed 200 characters together are
        left out, from the last one on.
        """
        values = [
            (one_line(name), one_line(value)[:MOST_VALUE].strip())
            for name, value in self.knowledge.of(item).items()
        ]
        values = [(name, value) for name, value in values if value]
        while len(text := self.words.write_attributes(dict(values))) > MOST_ATTRIBUTES and values:
            values.pop()
        return text

    def spelled(self) -> list[Any]:
        """Return the names and the words as values that JSON can represent, for a hash."""
        words = self.words
        return [
            [*self.knowledge.names], words.value, words.separator, words.attributes, dict(words.names),
        ]  # fmt: skip


def insert_attributes(printed: Sequence[Any], terminator: str, words: Sequence[str]) -> list[Any]:
    """Insert the attributes of items after their titles in a history.

    They stand on a line of their own if titles end with a line break, and otherwise behind a space.

    Args:
        printed: the strings, titles and other values that a template has printed, in order.
        terminator: the text that ends a title.
        words: for each element of ``printed``, the attributes to insert after it; empty for none.
    """
    parts: list[Any] = []
    waiting: EventText | None = None
    for part, text in zip(printed, words, strict=True):
        after = part
        if waiting is not None and isinstance(part, str) and part.startswith(terminator):
            lead, end = ("", _BREAK) if terminator.endswith(_BREAK) else (" ", "")
            parts += [f"{terminator}{lead}", waiting]
            after = f"{end}{part[len(terminator) :]}"
        waiting = None
        parts.append(after)
        if text and isinstance(part, TitleObject):
            waiting = EventText(text, part.event)
    return parts
