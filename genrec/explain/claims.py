"""Check that a sentence claims only what the catalog and the history support.

The vocabulary is closed. Apart from the titles of items, a sentence may use only words from the
item's title and attributes and a few plain words. It therefore cannot make a claim with words that
the catalog does not contain. However, the check cannot detect a false statement that combines true
words. The shipped templates therefore join words only with "and": since each word is true of the
item by itself, so is the combination. This module deals with text only, not with models.
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

# Combining accents, vowel signs and letter joiners, which \w does not match.
MARKS = "".join(
    c for c in map(chr, range(0x300, 0xFE30)) if unicodedata.category(c) in {"Mn", "Mc"}
)
MARKS += "\u200c\u200d"
_LETTER = rf"[^\W\d_][{MARKS}]*"
LETTERS = re.compile(rf"(?:{_LETTER})+(?:['’-](?:{_LETTER})+)*")
_CHARACTER = re.compile(rf".[{MARKS}]*", re.DOTALL)  # a letter with its marks
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OPEN, _CLOSE = '"“„«‹「『', '"”“»›」』'
_JOINED = re.compile(r"(?:[\s,，、;]|\band\b|\bor\b|&|和|与|及|或)*", re.IGNORECASE)
SPACELESS = {"han", "kana", "thai"}
_LONGEST_PIECE = 4  # the maximum length of a word in a script that is written without spaces
_NAMED = "\ue000"  # this character replaces each name while the rest of a sentence is checked


@dataclass(frozen=True)
class Facts:
    """The facts that a sentence may state about an item and a history.

    Attributes:
        item: the item that the sentence is about.
        events: the behavior and the title of each event in the history, except events without
            items.
        verbs: the forms of the verb for each behavior, such as "bought" for ``buy``.
        plain: strings whose words may be used for any item.
        opening: the fixed beginning of the sentence. A verb in it is not treated as a claim about
            an event.
    """

    item: Item
    events: tuple[tuple[str, str], ...]
    verbs: Mapping[str, tuple[str, ...]]
    plain: tuple[str, ...]
    opening: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the titles that the sentence may name, longest first."""
        titles = {one_line(self.item.title), *(title for _, title in self.events)}
        return tuple(sorted(titles, key=len, reverse=True))

    @cached_property
    def said(self) -> tuple[str, ...]:
        """Return the item's title and, for each attribute, a string with its name and value."""
        values = (f"{k.replace('_', ' ')} {v}" for k, v in self.item.known.items())
        return (one_line(self.item.title), *(one_line(v) for v in values))

    @cached_property
    def words(self) -> frozenset[str]:
        """Return the words that the sentence may use; see ``pieces`` for scripts without spaces."""
        return frozenset().union(*(pieces(text.lower()) for text in (*self.said, *self.plain)))

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Return the pairs of adjacent words in the item's title and attributes."""
        texts = [LETTERS.findall(text.lower()) for text in self.said]
        return frozenset(pair for words in texts for pair in pairwise(words))

    @cached_property
    def numbers(self) -> Mapping[str, frozenset[float]]:
        """Return the numbers in the item's attributes, keyed by each word of the attribute's name.

        The key "" maps to all numbers of the item, including those in its title.
        """
        by_word: dict[str, set[float]] = {"": set(_parse_numbers(self.item.title))}
        for name, value in self.item.known.items():
            numbers = set(_parse_numbers(str(value)))
            by_word[""] |= numbers
            for word in LETTERS.findall(name.replace("_", " ").lower()):
                by_word.setdefault(word, set()).update(numbers)
        return {word: frozenset(values) for word, values in by_word.items() if values}

    @cached_property
    def script(self) -> str:
        """Return the writing system in which the sentence must be written, such as ``latin``."""
        return main_script(list(self.plain))


def find_problems(text: str, facts: Facts) -> tuple[str, ...]:
    """Check a sentence, and return the reasons to reject it.

    Args:
        text: the sentence.
        facts: the facts that it may state.

    Returns:
        The reasons, or an empty tuple if the sentence is accepted.
    """
    problems: list[str] = []
    rest, names, before = _split_names(text, facts, problems)
    _check_events(names, before, facts, problems)
    rest = _remove_verbs(rest, facts)
    _check_numbers(rest, facts, problems)
    _check_words(rest, facts, problems)
    letters = scripts(rest.replace(_NAMED, ""))
    if letters and not letters[facts.script]:
        problems.append(f"is not written in {facts.script} script")
    return tuple(problems)


def find_names(text: str, facts: Facts) -> list[str]:
    """Return the titles that a sentence names, in order of appearance.

    Only titles of the item and of events in the history are found.
    """
    return _split_names(text, facts, [])[1]


def _split_names(text: str, facts: Facts, problems: list[str]) -> tuple[str, list[str], list[str]]:
    """Replace each quoted name in a sentence with a placeholder.

    A problem is added to the list for each name that belongs neither to the item nor to an event.

    Args:
        text: the sentence.
        facts: the facts, which include the names that are allowed.
        problems: the list to which this function appends the problems that it finds.

    Returns:
        The sentence with placeholders, the allowed names in it, and the text before each of them.
    """
    rest, names, before, start, place = "", [], [], 0, 0
    while place < len(text):
        if text[place] not in _OPEN:
            place += 1
            continue
        after = text[place + 1 :]
        name = next((n for n in facts.names if _starts_with_name(after, n)), None)
        if name is None:
            end = min((i for c in _CLOSE if (i := after.find(c)) >= 0), default=len(after))
            problems.append(f"names {after[:end]!r}, which is neither the item nor in the history")
            stop = place + end + 2
        else:
            stop = place + len(name) + 2
            names.append(name)
            before.append(text[start:place])
        rest += text[start:place] + _NAMED
        start = place = stop
    return rest + text[start:], names, before


def _starts_with_name(text: str, name: str) -> bool:
    """Return True if a text starts with a name and a closing quotation mark."""
    size = len(name)
    return text[:size].lower() == name.lower() and text[size : size + 1] in tuple(_CLOSE)


def _check_events(names: list[str], before: list[str], facts: Facts, problems: list[str]) -> None:
    """Check that the verb before each name, or list of names, matches an event in the history.

    Args:
        names: the names in the sentence.
        before: the text before each name.
        facts: the facts, which include the events.
        problems: the list to which this function appends the problems that it finds.
    """
    done = {(b, t.lower()) for b, t in facts.events}
    behaviors: tuple[str, ...] = ()
    for name, text in zip(names, before, strict=True):
        if not (behaviors and _JOINED.fullmatch(text)):
            own = text.strip() == facts.opening.strip()
            behaviors = () if own else _behaviors(text, facts)
        if behaviors and not any((b, name.lower()) in done for b in behaviors):
            problems.append(
                f"claims a {behaviors[0]!r} event for {name!r}, which is not in the history"
            )


def _behaviors(text: str, facts: Facts) -> tuple[str, ...]:
    """Return the behaviors that the verb at the end of a text may refer to.

    If several verbs match the end of the text, the longest one is used.
    """
    ending = text.rstrip(" :：").lower()
    best: dict[str, int] = {}
    for behavior, forms in facts.verbs.items():
        for form in map(str.lower, forms):
            whole = script(form[:1]) in SPACELESS or not re.search(r"\w$", ending[: -len(form)])
            if form and ending.endswith(form) and whole:
                best[behavior] = max(best.get(behavior, 0), len(form))
    longest = max(best.values(), default=0)
    return tuple(b for b, size in best.items() if size == longest)


def _remove_verbs(rest: str, facts: Facts) -> str:
    """Remove the verbs before names, because ``_check_events`` has already checked them."""
    forms = sorted({f for forms in facts.verbs.values() for f in forms if f}, key=len, reverse=True)
    for form in forms:
        edge = "" if script(form[:1]) in SPACELESS else r"\b"
        pattern = rf"{edge}{re.escape(form)}(?=\s*[:：]?\s*{_NAMED})"
        rest = re.sub(pattern, " ", rest, flags=re.IGNORECASE)
    return rest


def _check_numbers(rest: str, facts: Facts, problems: list[str]) -> None:
    """Check that each number in a sentence belongs to the item.

    If the name of an attribute comes before the number, the number must belong to that attribute.
    """
    near: frozenset[float] | None = None
    for piece in re.finditer(rf"{NUMBER.pattern}|{LETTERS.pattern}", rest):
        text = piece[0].lower()
        if text[0].isdigit():
            known = near if near is not None else facts.numbers.get("", frozenset())
            if not known.intersection(_parse_numbers(text)):
                problems.append(f"has the number {text}, which does not belong to the item")
        elif text and text in facts.numbers:
            near = facts.numbers[text] if near is None else near & facts.numbers[text] or near


def has_foreign_word(text: str, facts: Facts) -> bool:
    """Return True if an unfinished text already contains a complete word that is not allowed.

    The text must not contain names of items.
    """
    words = [m for m in LETTERS.finditer(text.lower()) if m.end() < len(text)]
    return any(script(m[0][0]) not in SPACELESS and not _forms(m[0]) & facts.words for m in words)


def _forms(word: str) -> set[str]:
    """Return the approximate singular and plural forms of an English word."""
    return {word, f"{word}s", word.removesuffix("s")}


def _check_words(rest: str, facts: Facts, problems: list[str]) -> None:
    """Check that each word of a sentence appears in the item's data or in the template."""
    for word in LETTERS.findall(rest.lower()):
        if script(word[0]) in SPACELESS:
            bad = _uncovered(word, facts.words)
        else:
            bad = "" if _forms(word) & facts.words else word
        if bad:
            problems.append(
                f"has the word {bad!r}, which is in neither the item's data nor the template"
            )


def _uncovered(text: str, words: frozenset[str]) -> str:
    """Return the end of a text that cannot be split into known words, or "" if there is none."""
    letters = _CHARACTER.findall(text)
    reached = {0}
    for end in range(1, len(letters) + 1):
        if any(
            end - n in reached and "".join(letters[end - n : end]) in words
            for n in range(1, min(end, _LONGEST_PIECE) + 1)
        ):
            reached.add(end)
    return "" if len(letters) in reached else "".join(letters[max(reached) :])


def _parse_numbers(text: str) -> list[float]:
    """Return the numbers in a text, treating commas as thousands separators."""
    return [float(n.replace(",", "")) for n in NUMBER.findall(text) if n.count(".") < 2]


def pieces(text: str) -> set[str]:
    """Split a text into words.

    In scripts without spaces, all sequences of two to four characters are returned instead.

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
