"""Find the items that a query points at, such as "the second one" or "something like X"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.conversation.bounds import Found, time_condition
from genrec.conversation.catalog_words import CatalogWords
from genrec.conversation.numerals import read_number
from genrec.conversation.query import (
    CHEAPER,
    DEARER,
    LIKE,
    NEWER,
    NOT,
    OLDER,
    THIS,
    Question,
    Reference,
    condition,
)
from genrec.conversation.questions import Asker

Match = Callable[[str], tuple[Sequence[int], Sequence[str]]]
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "6th": 6, "7th": 7, "8th": 8,
    "9th": 9, "10th": 10, "last": -1,
}  # fmt: skip
_THING = r"(?:one|item|product|option|film|movie|book|result|suggestion)"
_MANY = r"(?:the\s+)(?P<end>first|last)\s+(?P<many>two|three|four|five|\d)\b(?:\s+ones)?"
_PLACE = (
    rf"(?:{_MANY}|the\s+(?P<ordinal>{'|'.join(_ORDINALS)})(?:\s+{_THING}\b|(?=\s*(?:$|[,.!?;]|but\b|and\b|is\b)))"
    rf"|(?:(?:{_THING}|number|no\.)\s*#?\s*|#)(?P<number>\d+)\b)"
)
_THAT = r"(?:that|this)(?:\s+one)?(?=\s*(?:$|[,.!?;]|but\b|and\b|in\b|please\b))|(?:that|this)\s+one\b|\bit\b(?=\s*(?:$|[,.!?;]|but\b))"
_THESE = r"(?:these|those|them|any of (?:these|those))\b(?:\s+ones\b)?"
_POINT = rf"(?P<place>{_PLACE})|(?P<that>{_THAT})|(?P<these>{_THESE})"
_ZH_POINT = (
    r"(?P<place>第(?P<number>\d+|[一二三四五六七八九十]+)(?:个|款|件|本|部|种|样)|(?P<ordinal>最后)一(?:个|款|件|本|部|种|样))"
    r"|(?P<that>[这那](?:一)?(?:个|款|件|本|部|种|样))|(?P<these>[这那]些)"
)
_NOT = r"(?:(?:but|just|please|anything|everything|something)\s+)*(?:not|no|except(?:\s+for)?|other than|without|don'?t (?:want|like|show)|different from|instead of|drop|remove)\s+"
_LIKE = r"(?:(?:something|anything|things?|items?|ones?|more|another one|one|films?|movies?|books?|much|just|a lot)\s+)*(?:like|similar to|the same as|in the style of|along the lines of|comparable to)\s+"
_COMPARED = {
    CHEAPER: r"(?:cheaper|less expensive|less costly|lower[- ]priced|more affordable)",
    DEARER: r"(?:more expensive|pricier|dearer|more costly|higher[- ]priced)",
    NEWER: r"(?:newer|more recent|more modern)",
    OLDER: r"(?:\bolder)",
}
_ZH_COMPARED = {
    CHEAPER: r"(?:(?:更|再)?便宜(?:一)?(?:点|些)(?:儿|的)?|更便宜(?:的)?)",
    DEARER: r"(?:(?:更|再)?贵(?:一)?(?:点|些)(?:儿|的)?|更贵(?:的)?)",
    NEWER: r"(?:(?:更|再)?新(?:一)?(?:点|些)(?:儿|的)?|更新的)",
    OLDER: r"(?:(?:更|再)?旧(?:一)?(?:点|些)(?:儿|的)?|(?:更|再)?老(?:一)?(?:点|些)的|更早的)",
}
_ZH_THAN = {CHEAPER: "便宜", DEARER: "贵", NEWER: "新", OLDER: "(?:旧|老|早)"}
_STOP = r"(?=$|[,;.!?。，；！？]|\s+(?:but|only|except|without|under|over|below|above|from|in (?!the)|and (?:not|under|cheaper|in)|or (?!the)|please)\b)"
_MORE = re.compile(
    r"(?:(?:please )?(?:show me|give me|any|let me see|are there|do you have)\s+)?(?:some\s+|any\s+)?"
    r"(?:more|others?|other (?:ones|options|ideas)|something else|anything else|what else)(?:,? please)?\s*[.!?]*$|"
    r"(?:还有(?:吗|别的吗|其他的吗)|换一批|换别的|再来一些|别的)[。？！?]*$",
    re.IGNORECASE,
)
_MOST_WORDS = 12  # of a title that a query names


@dataclass(frozen=True, slots=True)
class Pointed:
    """A part of a query that points at items.

    Attributes:
        start: where the part begins.
        end: where it ends.
        reference: the reference; None if only a question is left.
        found: the condition or question that follows from it; None if there is none.
        keeps: words of the part that still say what is wanted.
    """

    start: int
    end: int
    reference: Reference | None
    found: Found | None = None
    keeps: str = ""


class ReferenceFinder:
    """Finds references in one query.

    Attributes:
        shown: the ids of the items in the list shown before, best first.
        focus: the id of the item that was spoken of last; None if there is none.
    """

    def __init__(
        self,
        words: CatalogWords,
        asker: Asker,
        match: Match,
        shown: Sequence[str],
        focus: str | None,
    ) -> None:
        self._words, self._ask, self._match = words, asker, match
        self.shown, self.focus = tuple(shown), focus

    def find(self, text: str) -> list[Pointed]:
        """Find the parts of a query that point at items; earlier kinds take precedence."""
        if self.shown and (match := _MORE.match(text)):  # others than those of the list
            return [Pointed(0, len(text), Reference(NOT, match[0].strip(), self.shown))]
        named = self._titles(text)
        liked = [p for p in named if p.reference is not None and p.reference.kind == LIKE]
        items = [i for p in liked if p.reference is not None for i in p.reference.item_ids]
        if items:  # "something like X, but cheaper" is cheaper than X
            self.focus = items[0]
        found: list[Pointed] = []
        for one in [*self._compared(text), *self._pointing(text), *named]:
            if all(one.end <= f.start or one.start >= f.end for f in found):
                found.append(one)
        return sorted(found, key=lambda f: f.start)

    # "cheaper", "cheaper than the second one"

    def _compared(self, text: str) -> list[Pointed]:
        found: list[Pointed] = []
        for kind, pattern in _COMPARED.items():
            than = rf"(?:\s+than\s+(?:{_POINT}|(?P<title>[^,;.!?]+?){_STOP}))?"
            lead = r"(?:\b(?:something|anything|a|an|but|show me|ones?|much|even|bit|little)\s+)*"
            whole = rf"{lead}\b{pattern}(?:\s+(?:one|ones))?{than}"
            for match in re.finditer(whole, text, re.IGNORECASE):
                if match.groupdict().get("title") and read_number(match["title"].strip(" £$€")):
                    continue  # "cheaper than 5" is a bound
                if re.match(r"\s*(?:than\s*)?[£$€]?\d", text[match.end() :]):
                    continue
                found.append(self._comparison(kind, match))
        for kind, word in _ZH_THAN.items():
            whole = (
                rf"比(?:{_ZH_POINT}|(?P<title>[^，。；,;]+?))(?:更|还)?{word}(?:一?[点些])?(?:的)?"
            )
            found += [self._comparison(kind, m) for m in re.finditer(whole, text)]
        for kind, pattern in _ZH_COMPARED.items():
            found += [self._comparison(kind, m) for m in re.finditer(pattern, text)]
        return found

    def _comparison(self, kind: str, match: re.Match[str]) -> Pointed:
        said = match[0].strip()
        start, end = match.start() + len(match[0]) - len(match[0].lstrip()), match.end()
        title = match.groupdict().get("title")
        items: tuple[str, ...]
        place: int | None = None
        if title and title.strip():
            rows, near = self._match(title.strip())
            if not rows:
                question = self._ask.which_item(said, near)
                return Pointed(start, end, Reference(kind, said), Found(start, end, None, question))
            items = (self._words.catalog[rows[0]].item_id,)
        else:
            resolved = self._resolve(match, said)
            if isinstance(resolved, Question):
                return Pointed(start, end, Reference(kind, said), Found(start, end, None, resolved))
            items, place = resolved
        return Pointed(
            start,
            end,
            Reference(kind, said, items, place),
            self._limit(kind, items, said, start, end),
        )

    def _limit(self, kind: str, items: tuple[str, ...], said: str, start: int, end: int) -> Found:
        """Turn "cheaper" and the like into a condition."""
        catalog, priced = self._words.catalog, kind in {CHEAPER, DEARER}
        less = kind in {CHEAPER, OLDER}
        time, what = self._words.time, "price" if priced else "year"
        if (self._words.price if priced else time) is None:
            return Found(start, end, None, self._ask.no_column(said, what))
        values = []
        for row in catalog.rows(items):
            if priced:
                assert self._words.price is not None
                value = float(self._words.numbers[self._words.price][row])
            else:
                assert time is not None
                value = self._year(row)
            if np.isfinite(value):
                values.append(value)
        if not values:
            title = catalog[catalog.row(items[0])].title
            return Found(start, end, None, self._ask.missing_value(said, title, what))
        limit = min(values) if less else max(values)
        operator = "<" if less else ">"
        if priced:
            assert self._words.price is not None
            return Found(start, end, condition(self._words.price, operator, [limit], said))
        assert time is not None
        return Found(start, end, time_condition(time, operator, [int(limit)], said))

    def _year(self, row: int) -> float:
        time = self._words.time
        assert time is not None
        if not time.dated:
            return float(self._words.numbers[time.name][row])
        text = str(self._words.catalog.column(time.name)[row].as_py() or "")[:4]
        return float(text) if text.isdigit() else float("nan")

    # "the second one", "not that one", "these"

    def _pointing(self, text: str) -> list[Pointed]:
        found: list[Pointed] = []
        patterns = [
            (NOT, rf"\b{_NOT}(?:like\s+)?(?:{_POINT})"),
            (LIKE, rf"\b{_LIKE}(?:{_POINT})"),
            (THIS, rf"(?:\b|(?=#))(?:{_PLACE})"),
            (THIS, rf"(?:\b(?:i'?ll take|i like|i want|tell me (?:more )?about|what about|show me)\s+)(?:{_POINT})"),
            (NOT, rf"(?:不要|不想要|除了|不是|别要|去掉)(?:{_ZH_POINT})"),
            (LIKE, rf"(?:类似|像|跟|和|与)(?:于)?(?:{_ZH_POINT})(?:一样|类似|差不多|相似)?(?:的)?"),
            (THIS, rf"(?:{_ZH_POINT})"),
        ]  # fmt: skip
        for kind, pattern in patterns:
            for match in re.finditer(pattern, text, re.IGNORECASE):
                found.append(self._pointed(kind, match))
        return found

    def _pointed(self, kind: str, match: re.Match[str]) -> Pointed:
        said = match[0].strip()
        resolved = self._resolve(match, said)
        if isinstance(resolved, Question):
            question = Found(match.start(), match.end(), None, resolved)
            return Pointed(match.start(), match.end(), Reference(kind, said), question)
        items, place = resolved
        return Pointed(match.start(), match.end(), Reference(kind, said, items, place))

    def _resolve(
        self, match: re.Match[str], said: str
    ) -> tuple[tuple[str, ...], int | None] | Question:
        """Find the items that a match points at, or ask which ones are meant."""
        groups = {
            name: match.groupdict().get(name)
            for name in ("ordinal", "number", "that", "these", "place", "end", "many")
        }
        if not self.shown and self.focus is None:
            return self._ask.no_list(said)
        if groups["these"]:
            return self.shown or ((self.focus,) if self.focus else ()), None
        if groups["many"] and self.shown:
            several = int(read_number(groups["many"]) or 1)
            first = (groups["end"] or "").lower() == "first"
            return (self.shown[:several] if first else self.shown[-several:]), None
        place: int | None = None
        if groups["ordinal"]:
            place = _ORDINALS.get(groups["ordinal"].lower(), -1)
        elif groups["number"]:
            number = read_number(groups["number"])
            place = None if number is None else int(number)
        if place is None:
            return (self.focus if self.focus is not None else self.shown[0],), None
        if not self.shown:
            return self._ask.no_list(said)
        if place == -1:
            return (self.shown[-1],), -1
        if not 1 <= place <= len(self.shown):
            return self._ask.no_place(said, len(self.shown))
        return (self.shown[place - 1],), place

    # "something like X", "not X", X in quotes

    def _titles(self, text: str) -> list[Pointed]:
        found: list[Pointed] = []
        titled = rf"(?:the (?:film|movie|book|item|product) )?(?P<quote>[\"“'‘「《])?(?P<title>[^\"”'’」》]+?|[^\"”」》]+?)(?(quote)[\"”'’」》]|{_STOP})"
        for match in re.finditer(r"[\"“「《](?P<title>[^\"”」》]+)[\"”」》]", text):
            rows = self._words.catalog.rows_of_title(match["title"])[0]
            if rows and not re.search(
                rf"\b{_NOT}$|(?:不要|除了|不想要)$", text[: match.start()], re.I
            ):
                items = (self._words.catalog[rows[0]].item_id,)
                found.append(Pointed(*match.span(), Reference(LIKE, match[0], items)))
        for kind, lead in ((LIKE, _LIKE), (NOT, _NOT)):
            for match in re.finditer(rf"\b{lead}{titled}", text, re.IGNORECASE):
                one = self._named(kind, match, text)
                if one is not None:
                    found.append(one)
        chinese = [
            (LIKE, r"(?:类似(?:于)?|像|跟|和|与)[《「“\"]?(?P<title>[^，。；,;》」”\"]+?)[》」”\"]?(?:一样|类似|差不多|相似|那样|这样)(?:的)?"),
            (LIKE, r"类似(?:于)?[《「“\"](?P<title>[^》」”\"]+)[》」”\"](?:的)?"),
            (LIKE, r"类似(?:于)?(?P<title>[^，。；,;《「“\"]+?)的"),
            (NOT, r"(?:不要|除了|不想要)[《「“\"](?P<title>[^》」”\"]+)[》」”\"]"),
        ]  # fmt: skip
        for kind, pattern in chinese:
            for match in re.finditer(pattern, text):
                one = self._named(kind, match, text)
                if one is not None:
                    found.append(one)
        return found

    def _named(self, kind: str, match: re.Match[str], text: str) -> Pointed | None:
        """Find the item with a title in a query; the longest beginning that is a title counts."""
        said, title = match[0].strip(), match["title"].strip()
        quoted = bool(match.groupdict().get("quote"))
        rows: Sequence[int] = self._words.catalog.rows_of_title(title)[0] if title else ()
        near: Sequence[str] = ()
        if title and not rows and (kind == LIKE or quoted or len(title.split()) > 1):
            rows, near = self._match(title)
        end = match.end()
        if not rows and kind == LIKE:
            words = title.split()[:_MOST_WORDS]
            for n in range(len(words) - 1, 0, -1):
                part = " ".join(words[:n])
                rows = self._words.catalog.rows_of_title(part)[0]
                if rows:
                    end = text.index(part, match.start("title")) + len(part)
                    break
        if rows:
            items = (self._words.catalog[rows[0]].item_id,)
            return Pointed(match.start(), end, Reference(kind, text[match.start() : end], items))
        if kind == LIKE and quoted:
            question = Found(match.start(), end, None, self._ask.which_item(said, near))
            return Pointed(match.start(), end, Reference(kind, said), question, title)
        return None
