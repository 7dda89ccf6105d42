"""Whether a sentence on an item says only what catalog and history say. Knows texts, no models.

The vocabulary is closed: outside the names of items a sentence may hold the words of the item's
title and attributes and the plain words that it is given. So a claim that the catalog does not make
cannot be put in other words. What it cannot see is true words joined to something wrong, so the
shipped templates have no words that join them but "and": an item has to do with each word of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from genrec.data.catalog import Item
from genrec.text import main_script, one_line, script, scripts

# Accents and vowel signs that stand beside their letter, and what joins letters; \w has none of them.
MARKS = "".join(
    c for c in map(chr, range(0x300, 0xFE30)) if unicodedata.category(c) in {"Mn", "Mc"}
)
MARKS += "\u200c\u200d"
_LETTER = rf"[^\W\d_][{MARKS}]*"
LETTERS = re.compile(rf"(?:{_LETTER})+(?:['’-](?:{_LETTER})+)*")
_CHARACTER = re.compile(rf".[{MARKS}]*", re.DOTALL)  # a letter and its marks
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OPEN, _CLOSE = '"“„«‹「『', '"”“»›」』'
_JOINED = re.compile(r"(?:[\s,，、;]|\band\b|\bor\b|&|和|与|及|或)*", re.IGNORECASE)
SPACELESS = {"han", "kana", "thai"}
_LONGEST_PIECE = 4  # characters of a word in a script that is written without spaces
_NAMED = "\ue000"  # in place of a name that was found, in what is left of a sentence


@dataclass(frozen=True)
class Facts:
    """What may be said.

    Attributes:
        item: which the sentence is about.
        events: behavior and title of each event of the history that has an item.
        verbs: behavior -> the ways in which it is said.
        plain: texts whose words may be said of any item.
        opening: with which a sentence begins; a verb in it is no event.
    """

    item: Item
    events: tuple[tuple[str, str], ...]
    verbs: Mapping[str, tuple[str, ...]]
    plain: tuple[str, ...]
    opening: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What may be named, the longest first."""
        titles = {one_line(self.item.title), *(title for _, title in self.events)}
        return tuple(sorted(titles, key=len, reverse=True))

    @cached_property
    def said(self) -> tuple[str, ...]:
        """What the catalog says of the item."""
        values = (f"{k.replace('_', ' ')} {v}" for k, v in self.item.known.items())
        return (one_line(self.item.title), *(one_line(v) for v in values))

    @cached_property
    def words(self) -> frozenset[str]:
        """The words that may be used, and of scripts without spaces their pieces."""
        return frozenset().union(*(pieces(text.lower()) for text in (*self.said, *self.plain)))

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Words that follow each other in what the catalog says of the item."""
        texts = [LETTERS.findall(text.lower()) for text in self.said]
        return frozenset(pair for words in texts for pair in pairwise(words))

    @cached_property
    def numbers(self) -> Mapping[str, frozenset[float]]:
        """Numbers by the words that they belong to: an attribute's name; "" for all of them."""
        found: dict[str, set[float]] = {"": set(_numbers(self.item.title))}
        for name, value in self.item.known.items():
            of = set(_numbers(str(value)))
            found[""] |= of
            for word in LETTERS.findall(name.replace("_", " ").lower()):
                found.setdefault(word, set()).update(of)
        return {word: frozenset(values) for word, values in found.items() if values}

    @cached_property
    def script(self) -> str:
        """In which sentences are to be written."""
        return main_script(list(self.plain))


def problems(text: str, facts: Facts) -> tuple[str, ...]:
    """What is wrong with a sentence; empty where nothing is found.

    Args:
        text: the sentence.
        facts: what may be said.
    """
    found: list[str] = []
    rest, names, before = _unnamed(text, facts, found)
    _check_events(names, before, facts, found)
    rest = _without_verbs(rest, facts)
    _check_numbers(rest, facts, found)
    _check_words(rest, facts, found)
    letters = scripts(rest.replace(_NAMED, ""))
    if letters and not letters[facts.script]:
        found.append(f"is not written in {facts.script} script")
    return tuple(found)


def names(text: str, facts: Facts) -> list[str]:
    """The names of the item and of events that stand in a sentence, in its order."""
    return _unnamed(text, facts, [])[1]


def _unnamed(text: str, facts: Facts, found: list[str]) -> tuple[str, list[str], list[str]]:
    """A sentence without names, the names, and what stands before each."""
    rest, names, before, start, place = "", [], [], 0, 0
    while place < len(text):
        if text[place] not in _OPEN:
            place += 1
            continue
        after = text[place + 1 :]
        name = next((n for n in facts.names if _begins(after, n)), None)
        if name is None:
            end = min((i for c in _CLOSE if (i := after.find(c)) >= 0), default=len(after))
            found.append(f"names {after[:end]!r}, which is neither the item nor in the history")
            stop = place + end + 2
        else:
            stop = place + len(name) + 2
            names.append(name)
            before.append(text[start:place])
        rest += text[start:place] + _NAMED
        start = place = stop
    return rest + text[start:], names, before


def _begins(text: str, name: str) -> bool:
    """Whether a text begins with a name and what closes it."""
    size = len(name)
    return text[:size].lower() == name.lower() and text[size : size + 1] in tuple(_CLOSE)


def _check_events(names: list[str], before: list[str], facts: Facts, found: list[str]) -> None:
    """A verb right before a name must be an event; so must one before names that are listed."""
    done = {(b, t.lower()) for b, t in facts.events}
    behaviors: tuple[str, ...] = ()
    for name, text in zip(names, before, strict=True):
        if not (behaviors and _JOINED.fullmatch(text)):
            own = text.strip() == facts.opening.strip()
            behaviors = () if own else _behaviors(text, facts)
        if behaviors and not any((b, name.lower()) in done for b in behaviors):
            found.append(f"says that {name!r} was {behaviors[0]!r}, which is no event")


def _behaviors(text: str, facts: Facts) -> tuple[str, ...]:
    """The behaviors that the verb at the end of a text may be; the longest verb counts."""
    ending = text.rstrip(" :：").lower()
    best: dict[str, int] = {}
    for behavior, forms in facts.verbs.items():
        for form in map(str.lower, forms):
            whole = script(form[:1]) in SPACELESS or not re.search(r"\w$", ending[: -len(form)])
            if form and ending.endswith(form) and whole:
                best[behavior] = max(best.get(behavior, 0), len(form))
    longest = max(best.values(), default=0)
    return tuple(b for b, size in best.items() if size == longest)


def _without_verbs(rest: str, facts: Facts) -> str:
    """What is left of a sentence without the verbs before names, which are checked already."""
    forms = sorted({f for forms in facts.verbs.values() for f in forms if f}, key=len, reverse=True)
    for form in forms:
        edge = "" if script(form[:1]) in SPACELESS else r"\b"
        pattern = rf"{edge}{re.escape(form)}(?=\s*[:：]?\s*{_NAMED})"
        rest = re.sub(pattern, " ", rest, flags=re.IGNORECASE)
    return rest


def _check_numbers(rest: str, facts: Facts, found: list[str]) -> None:
    """Each number must be one of the item's; after an attribute's name one of that attribute's."""
    near: frozenset[float] | None = None
    for piece in re.finditer(rf"{NUMBER.pattern}|{LETTERS.pattern}", rest):
        text = piece[0].lower()
        if text[0].isdigit():
            known = near if near is not None else facts.numbers.get("", frozenset())
            if not known.intersection(_numbers(text)):
                found.append(f"has the number {text}, which is not the item's")
        elif text and text in facts.numbers:
            near = facts.numbers[text] if near is None else near & facts.numbers[text] or near


def foreign(text: str, facts: Facts) -> bool:
    """Whether a text without names that is still being written has a whole word that cannot pass."""
    words = [m for m in LETTERS.finditer(text.lower()) if m.end() < len(text)]
    return any(script(m[0][0]) not in SPACELESS and not _forms(m[0]) & facts.words for m in words)


def _forms(word: str) -> set[str]:
    """A word in singular and plural, near enough."""
    return {word, f"{word}s", word.removesuffix("s")}


def _check_words(rest: str, facts: Facts, found: list[str]) -> None:
    for word in LETTERS.findall(rest.lower()):
        if script(word[0]) in SPACELESS:
            bad = _uncovered(word, facts.words)
        else:
            bad = "" if _forms(word) & facts.words else word
        if bad:
            found.append(f"has the word {bad!r}, which catalog and template do not have")


def _uncovered(text: str, words: frozenset[str]) -> str:
    """The first characters of a text that no known piece covers; empty where all are covered."""
    letters = _CHARACTER.findall(text)
    reached = {0}
    for end in range(1, len(letters) + 1):
        if any(
            end - n in reached and "".join(letters[end - n : end]) in words
            for n in range(1, min(end, _LONGEST_PIECE) + 1)
        ):
            reached.add(end)
    return "" if len(letters) in reached else "".join(letters[max(reached) :])


def _numbers(text: str) -> list[float]:
    return [float(n.replace(",", "")) for n in NUMBER.findall(text) if n.count(".") < 2]


def pieces(text: str) -> set[str]:
    """The words of a text; of scripts without spaces, runs of two to four characters.

    >>> sorted(pieces("Red mug")), sorted(pieces("红杯子 的"))
    (['Red', 'mug'], ['杯子', '的', '红杯', '红杯子'])
    """
    words: set[str] = set()
    for word in LETTERS.findall(text):
        letters = _CHARACTER.findall(word)
        if script(word[0]) in SPACELESS and len(letters) > 1:
            words |= {
                "".join(letters[i : i + n])
                for n in range(2, _LONGEST_PIECE + 1)
                for i in range(len(letters) - n + 1)
            }
        else:
            words.add(word)
    return words
