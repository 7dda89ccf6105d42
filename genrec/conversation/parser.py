"""Turn what somebody says into texts, conditions, references and questions.

Nothing is guessed silently: a condition is shown with the words that say so, and what is unclear is
asked back. Only regular expressions and the columns of the catalog are used.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Sequence

from genrec.conversation.about import is_about_oneself
from genrec.conversation.bounds import BoundFinder, Found
from genrec.conversation.catalog_words import CatalogWords, NamedValue, fits_cue, is_han, stem
from genrec.conversation.contradictions import find_contradictions
from genrec.conversation.numerals import CHINESE, ENGLISH, read_number
from genrec.conversation.query import (
    Condition,
    Query,
    Question,
    Reference,
    check_query,
    condition,
    negated,
)
from genrec.conversation.questions import Asker
from genrec.conversation.references import Match, ReferenceFinder
from genrec.data.catalog import Catalog
from genrec.matching.matcher import TextMatcher
from genrec.text import normalized

MOST_COUNT = 1000  # items that a query can ask for

_QUOTES = str.maketrans({"’": "'", "‘": "'", "–": "-", "—": "-"})
_NEGATION = re.compile(
    r"\b(?:(?:but|and|just|definitely|absolutely|please|though)\s+)?(?:"
    r"i (?:do not|don'?t|really don'?t) (?:want|like|need|care for)(?: any(?:thing)?(?: (?:with|in|made of))?)?|"
    r"(?:do not|don'?t|doesn'?t|shouldn'?t|should not|must not|mustn'?t)(?: (?:want|like|need|be|have|contain|include|show(?: me)?|recommend|give me))?(?: any(?:thing)?(?: (?:with|in|made of))?)?|"
    r"(?:is|are)(?: not|n'?t)|not(?: (?:in|made (?:of|from|by)|from|by|with|any(?:thing)?|a|an|too))?|"
    r"nothing(?: (?:in|with|made (?:of|from|by)|from|by|too))?|no|without(?: any)?|except(?: for)?|excluding|"
    r"exclude|avoid(?:ing)?|other than|(?:any|every|all)(?:thing)?(?: \w+)? (?:but|except(?: for)?)|neither|apart from|instead of|rather than|never|"
    r"hates?|i hate|dislikes?|minus|free (?:of|from)|skip|leave out)\b\s*",
    re.IGNORECASE,
)  # fmt: skip
_FINE = re.compile(
    r"(?P<what>\b[\w'-]+(?: \w+)?)\s+(?:is|are|would be|'s) (?:also |totally |perfectly )?"
    r"(?:fine|ok(?:ay)?|acceptable|no problem|allowed|all right|alright)\b|(?P<zh>[^，。；,;\s]+?)(?:也)?(?:可以|没关系|没问题|也行)",
    re.IGNORECASE,
)
_NON = re.compile(r"\bnon[- ]?(?P<what>[a-z]+)\b", re.IGNORECASE)
_FREE = re.compile(
    r"\b(?!(?:feel|for|is|are|and|or|a|the|get|be|with|of|not)\b)(?P<what>[a-z]+)[- ]free\b(?! of| from)",
    re.IGNORECASE,
)
_ZH_NEGATION = re.compile(
    r"(?:但是?|而且|也|并且)?(?:不要|不想要|不含有?|不带|不是|不喜欢|不用|别要|别给我|别|除了|除去|排除|没有|非|不能有|不需要)(?:任何|有)?"
)
_ENDS = re.compile(
    r"[,;.!?。，；！？、]|\s-\s|\b(?:but|however|please|though|just|only|instead)\b", re.I
)
_PREPOSITION = re.compile(r"\b(?:for|with|under|over|in|from|by|that|which|who|to|as|like)\b", re.I)
_JOINED = re.compile(r"\s*(?:,|/|\b(?:or|nor|and)\b|或者?|和|以及|与|、)\s*", re.IGNORECASE)
_VERB = re.compile(
    r"\s*(?:i|we|it|want|need|like|prefer|would|show|give|make|should|must|find)\b", re.IGNORECASE
)
_ZH_EDGE = re.compile(r"^(?:但是?|而且|并且|还有|和|以及|要|的|，|,|\s)+")
_ZH_REST = re.compile(r"(?:的)?(?:东西|商品|产品|那种|材质|款)?(?:的)?$")
_NOT_BEFORE = re.compile(
    r"\b(?:not|nothing|no|none|never|isn'?t|aren'?t|without|except|but not|excluding|exclude|avoid|don'?t want|other than)"
    r"(?: (?:anything|any|ones|in|from|by|be))?\s*$|(?:不要|不是|别|除了|排除|非)\s*$",
    re.IGNORECASE,
)  # fmt: skip
_COUNT_NOUN = r"(?!\s*[-–]?\s*(?:pack|piece|set|tier|seater|way|wick|years?|yrs?|months?|weeks?|days?|cm|mm|m\b|kg|g\b|ml|l\b|inch|litres?|pounds|dollars|euros|bucks|or (?:less|more)|stars?|people|persons|hours?|min|%|to\b|-|and\b|[.:]\d|\d|st\b|nd\b|rd\b|th\b|k\b|元|块|年|月|分))"
_COUNT = re.compile(
    r"(?:\b(?:show|give|find|get|recommend|suggest|list|name|pick|choose|bring)(?:\s+(?:me|us))?"
    r"(?:\s+(?:the|just|only|exactly|up to|at most|some|your))?(?:\s+(?:top|best|first))?\s+|"
    r"\b(?:i(?:'d| would)? (?:want|need|like)|i'm looking for|looking for|just|only|exactly|top|best|want|need|no more than|not more than|at most|up to)\s+(?:to see\s+|to buy\s+)?|"
    rf"^\s*(?:the )?(?:top |best )?)(?P<n>\d{{1,4}}|{ENGLISH}|a couple(?: of)?|a dozen)\b{_COUNT_NOUN}",
    re.IGNORECASE,
)  # fmt: skip
_COUNT_OF = re.compile(
    rf"(?<![\w£$€.])(?P<n>\d{{1,4}}|{ENGLISH})\s+(?:ideas?|suggestions?|options?|results?|recommendations?|items?|products?|choices?)\b",
    re.IGNORECASE,
)  # fmt: skip
_ZH_COUNT = re.compile(
    rf"(?:(?:推荐|给我|来|找|要|想要|显示|列出|看看|只要|买|想买|需要|我要)(?:我|出|到)?|^)(?P<n>{CHINESE})\s*(?:个|款|件|本|部|种|样|双|条|瓶|张|套|支)"
)
_ASKED = re.compile(
    r"^(?:(?:hi|hello|hey|please|ok(?:ay)?|so|well|then|and|but|now|also|actually|thanks|thank you|no(?=$|[,.!])|nope|yes|yeah)\b[\s,!.]*)*"
    r"(?:(?:can|could|would|will) you (?:please )?(?:show|give|find|recommend|suggest|get)(?: me| us)?|"
    r"(?:show|give|find|get|recommend|suggest|list|bring)(?: me| us)?|"
    r"(?:i(?:'m| am)|we(?:'re| are)) (?:looking|searching|shopping|hunting) for|"
    r"(?:i|we)(?:'d| would)? (?:want|need|like)(?: to (?:buy|see|get|find|watch|read|have))?|looking for|"
    r"do you have|have you got|is there|are there|what about|how about)?\b[\s,]*",
    re.IGNORECASE,
)  # fmt: skip
_ZH_ASKED = re.compile(
    r"^(?:你好|您好|请问?|麻烦|那|嗯|好的?)*(?:我|帮我|给我)*(?:想要|想买|要买|想找|要找|需要|想看|推荐|找|来|要|买|有没有|有)?(?:一?些|一?点)?"
)
_EDGE = re.compile(
    r"^(?:[\s,;:.!?。，；、-]|(?:and|but|or|please|that is|that are|which is|which are|is|are|with a|priced|at a price|costing|for a price|和|但是?|而且|的)(?![\w']))+|"
    r"(?:[\s,;:.!?。，；、-]|\b(?:and|but|or|please|that is|that are|which is|which are|that costs?|that|which|who|costing|priced|is|are|in|from|for|with|by|at|of|the|a|an|as|released|published|made|price|thanks)$)+$",
    re.IGNORECASE,
)  # fmt: skip
_EXPLICIT = re.compile(
    r"\b(?P<column>[a-z][a-z_ ]{1,30}?)\s*(?::|=|\bis\b|\bmust be\b|\bshould be\b)\s*(?P<value>[^,;.!?]+?)(?=$|[,;.!?]|\s+(?:and|but|under|over)\b)",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"\b(?:(?P<by>(?:made |written |directed |published )?by|of the brand)|(?P<in>in(?: the color| the colour)?)|(?P<from>from)|made (?:of|from|out of)|only)\s+(?:the\s+)?$",
    re.IGNORECASE,
)
_OR = re.compile(r"^\s*(?:,|/|or|and|或者?|和|、)?\s*(?:or|and)?\s*$", re.IGNORECASE)


def parse_query(
    text: str,
    catalog: Catalog,
    *,
    words: CatalogWords | None = None,
    matcher: TextMatcher | None = None,
    shown: Sequence[str] = (),
    focus: str | None = None,
    year: int | None = None,
) -> Query:
    """Understand a query to a catalog.

    Args:
        text: what somebody says, in English or Chinese. The words of a query in another language
            are used as they are.
        catalog: the items. Conditions refer to its columns and their values.
        words: ``CatalogWords(catalog)``, if it is known already.
        matcher: finds items by their titles in spite of typing errors; None to accept only exact
            titles.
        shown: the ids of the items in the list shown before, best first, to which "the second one" and
            "cheaper" refer.
        focus: the id of the item that was spoken of last, to which "that one" refers; None for the
            first item of the list.
        year: the current year; None to ask the clock.

    Returns:
        The query with the fields ``text``, ``wanted``, ``unwanted``, ``conditions``, ``references``,
        ``count``, ``questions``, ``language``, ``accepted`` and ``about``, and the properties ``where``, ``liked`` and
        ``denied``; see ``Query``, ``Condition``, ``Reference`` and ``Question``. A part that has
        to be asked about is no condition.

    Raises:
        RequestError: the query is not a text, is empty, or has more than 2,000 characters.
    """
    whole = check_query(text)
    words = CatalogWords(catalog) if words is None else words
    reader = _Reader(whole, words, matcher, shown, focus, year or datetime.date.today().year)
    return reader.read()


class _Reader:
    """Reads one query. Parts that have been understood are blanked out in ``rest``."""

    def __init__(
        self,
        whole: str,
        words: CatalogWords,
        matcher: TextMatcher | None,
        shown: Sequence[str],
        focus: str | None,
        year: int,
    ) -> None:
        self.whole, self.words = whole, words
        self.text = unicodedata.normalize("NFKC", whole).translate(_QUOTES)
        self.rest = self.text
        self.chinese = is_han(self.text)
        self.ask = Asker(chinese=self.chinese)
        self.matcher, self.shown, self.focus, self.year = matcher, shown, focus, year
        self.conditions: list[tuple[int, Condition]] = []
        self.questions: list[tuple[int, Question]] = []
        self.references: list[tuple[int, Reference]] = []
        self.unwanted: list[tuple[int, str]] = []
        self.count: int | None = None
        self.accepted: list[str] = []

    def read(self) -> Query:
        self._read_references()
        self._read_bounds()
        self._read_count()
        self._read_accepted()
        said = self.conditions or self.references or self.count or self.accepted
        about = not said and not self.questions and is_about_oneself(self.text)
        self._read_negations()
        if not about:  # what people are like is no condition
            self._read_explicit()
            self._read_values(self.rest)
        in_order = [c for _, c in sorted(self.conditions, key=lambda one: one[0])]
        kept, clashes = find_contradictions(in_order, self.ask)
        questions = [q for _, q in sorted(self.questions, key=lambda one: one[0])]
        return Query(
            text=self.whole,
            wanted=self._wanted(),
            unwanted=tuple(
                dict.fromkeys(t for _, t in sorted(self.unwanted, key=lambda one: one[0]))
            ),
            conditions=tuple(kept),
            references=tuple(r for _, r in sorted(self.references, key=lambda one: one[0])),
            count=self.count,
            questions=(*questions, *clashes),
            language="zh" if self.chinese else "en",
            accepted=tuple(self.accepted),
            about=about,
        )

    def _blank(self, start: int, end: int) -> None:
        self.rest = self.rest[:start] + "\0" * (end - start) + self.rest[end:]

    # References

    def _match(self) -> Match:
        def match(title: str) -> tuple[Sequence[int], Sequence[str]]:
            if self.matcher is None:
                return self.words.catalog.rows_of_title(title)[0], ()
            found = self.matcher.match(title, semantic=False)
            return found.rows, () if found.rows else self.matcher.suggest(title)

        return match

    def _read_references(self) -> None:
        finder = ReferenceFinder(self.words, self.ask, self._match(), self.shown, self.focus)
        for one in finder.find(self.text):
            if one.reference is not None:
                self.references.append((one.start, one.reference))
            if one.found is not None:
                self._take(one.found)
            if not one.keeps:
                self._blank(one.start, one.end)

    # Bounds on numbers and times

    def _take(self, found: Found) -> None:
        if found.condition is not None:
            self.conditions.append((found.start, found.condition))
        if found.question is not None:
            self.questions.append((found.start, found.question))

    def _read_bounds(self) -> None:
        for one in BoundFinder(self.words, self.ask, self.year).find(self.rest):
            start, made = one.start, one.condition
            before = _NOT_BEFORE.search(self.rest[:start])
            if made is not None and before is not None:
                start = before.start()
                made = negated(made, self.text[start : one.end].strip())
                one = Found(start, one.end, made)
            self._take(one)
            self._blank(start, one.end)

    # Counts

    def _read_count(self) -> None:
        for pattern in (_COUNT_OF, _COUNT, _ZH_COUNT):
            match = pattern.search(self.rest)
            if match is None:
                continue
            said = match["n"].lower()
            number = 2.0 if "couple" in said else 12.0 if "dozen" in said else read_number(said)
            if number is None or not 1 <= number <= MOST_COUNT or number != int(number):
                continue
            self.count = int(number)
            whole = pattern is _COUNT_OF
            end = match.end() if pattern is _ZH_COUNT or whole else match.end("n")
            limit = re.match(
                r"(?:no more than|not more than|at most|up to)\b", match[0], re.IGNORECASE
            )
            self._blank(match.start() if limit else match.start("n"), end)
            return

    # What is fine, and what is not wanted

    def _read_accepted(self) -> None:
        for match in _FINE.finditer(self.rest):
            self.accepted.append((match["what"] or match["zh"]).strip())
            self._blank(*match.span())

    def _read_negations(self) -> None:
        for free in _FREE.finditer(self.rest):
            self._refuse(free["what"], free.start(), free.start("what"), "")
            self._blank(*free.span())
        for non in _NON.finditer(self.rest):
            if self.words.find((stem(non["what"].lower()),)):
                self._refuse(non["what"], non.start(), non.start("what"), "non-")
                self._blank(*non.span())
        for pattern in (_NEGATION, _ZH_NEGATION):
            place = 0
            while (match := pattern.search(self.rest, place)) is not None:
                end = self._end_of(match.end(), chinese=pattern is _ZH_NEGATION)
                phrase = self.rest[match.end() : end]
                if not phrase.strip():
                    place = match.end()
                    continue
                for part in _split(phrase):
                    said = match[0].strip()
                    self._refuse(part, match.start(), match.end() + phrase.index(part), said)
                self._blank(match.start(), end)
                place = end

    def _end_of(self, start: int, *, chinese: bool) -> int:
        """Find where the words after a negation end."""
        rest = self.rest
        end = len(rest)
        for pattern in (_ENDS, re.compile("\0"), _NEGATION, _ZH_NEGATION):
            match = pattern.search(rest, start)
            if match is not None and match.start() < end:
                end = match.start()
        stop = re.search(r"的|(?:和|以及)?(?=要|想)", rest[start + 1 : end]) if chinese else None
        if stop is not None:
            after = rest[start + 1 + stop.end() : end].strip()
            if after or stop[0] != "的":
                end = start + 1 + stop.start()
        preposition = _PREPOSITION.search(rest, start + 1, end)
        if preposition is not None and rest[start : preposition.start()].strip():
            end = preposition.start()
        joined = re.search(r"\band\b", rest[start:end], re.IGNORECASE)
        if joined is not None:
            after = rest[start + joined.end() : end]
            if len(after.split()) > 2 or _VERB.match(after):
                end = start + joined.start()
        return end

    def _refuse(self, part: str, place: int, start: int, said: str) -> None:
        phrase = _EDGE.sub("", part.replace("\0", " ")).strip()
        phrase = re.sub(
            r"^(?:(?:any|anything|a|an|the|too|so|very|is|made|of|from|in|by|with)\s+)+",
            "",
            phrase,
            flags=re.I,
        )
        if is_han(phrase):
            phrase = _ZH_REST.sub("", phrase) or phrase
        if not phrase:
            return
        self.unwanted.append((place, phrase))
        self._read_values(part, positive=False, offset=start, negation=said)

    # Values of columns

    def _read_explicit(self) -> None:
        """Read ``brand: Acme``. The column is known, so an unknown value is asked about."""
        for match in _EXPLICIT.finditer(self.rest):
            wanted = tuple(stem(w) for w in normalized(match["column"]).split())
            columns = self.words.column_words
            name = next(
                (columns[wanted[i:]] for i in range(len(wanted)) if wanted[i:] in columns), None
            )
            if name is None or name not in self.words.texts:
                continue
            key = tuple(stem(w) for w in normalized(match["value"]).split())
            values = self.words.texts[name]
            if any(v.column == name for v in self.words.find(key)):
                continue  # found again with the other values
            if any(
                len(key) > n and any(v.column == name for v in self.words.find(key[:n]))
                for n in range(1, len(key))
            ):
                continue
            near = [value for value, _ in values.most_common(3)]
            said = match[0].strip()
            self.questions.append(
                (match.start(), self.ask.no_value(said, name, match["value"].strip(), near))
            )

    def _read_values(
        self, text: str, *, positive: bool = True, offset: int = 0, negation: str = ""
    ) -> None:
        """Find the values of columns that a text names, and turn them into conditions."""
        found: dict[str, list[tuple[int, NamedValue, str]]] = {}
        for start, end, values in [*self._worded(text), *self._chinese_values(text)]:
            said = text[start:end]
            chosen = self._choose(values, text, start, end)
            if isinstance(chosen, Question):
                self.questions.append((offset + start, chosen))
            elif chosen is not None and not self.words.too_many(chosen):
                found.setdefault(chosen.column, []).append((offset + start, chosen, said))
        for column, several in found.items():
            place, said = several[0][0], " or ".join(s for _, _, s in several)
            if self.chinese and len(several) > 1:
                said = "、".join(s for _, _, s in several)
            if not several[0][1].values:
                made = condition(column, "is", [True], said)
            else:
                values_of = list(dict.fromkeys(v for _, one, _ in several for v in one.values))
                made = condition(column, "in", values_of, said)
            if not positive:
                between = "" if self.chinese else " "
                made = negated(made, f"{negation}{between}{said}".strip())
            self.conditions.append((place, made))

    def _worded(self, text: str) -> list[tuple[int, int, list[NamedValue]]]:
        """Find values by their words; the longest match counts."""
        tokens = [
            (m.start(), m.end(), stem(normalized(m[0])))
            for m in re.finditer(r"[^\W_]+(?:'[^\W_]+)?", text)
        ]
        split: list[tuple[int, int, str]] = []
        for start, end, word in tokens:
            split += [(start, end, stem(part)) for part in word.split()]
        found, place = [], 0
        while place < len(split):
            for n in range(min(self.words.longest, len(split) - place), 0, -1):
                part = split[place : place + n]
                values = self.words.find(tuple(word for _, _, word in part))
                if values and "\0" not in text[part[0][0] : part[-1][1]]:
                    found.append((part[0][0], part[-1][1], values))
                    place += n - 1
                    break
            place += 1
        return found

    def _chinese_values(self, text: str) -> list[tuple[int, int, list[NamedValue]]]:
        found: list[tuple[int, int, list[NamedValue]]] = []
        if not is_han(text):
            return found
        plain = text.casefold()
        for name, value in self.words.chinese:
            start = plain.find(name)
            if start < 0 or not value.bare:
                continue
            span = (start, start + len(name))
            same = [f for f in found if f[:2] == span]
            if same:
                same[0][2].append(value)
            elif all(span[1] <= f[0] or span[0] >= f[1] for f in found):
                found.append((*span, [value]))
        return found

    def _choose(
        self, values: list[NamedValue], text: str, start: int, end: int
    ) -> NamedValue | Question | None:
        """Choose the column that a value belongs to, or ask."""
        before, after = text[:start].replace("\0", " "), text[end:].replace("\0", " ")
        said = text[start:end]
        named = [v for v in values if self._named(v.column, before, after)]
        if named:
            return named[0]
        cue = _CUE.search(before)
        word = "" if cue is None else next((k for k, v in cue.groupdict().items() if v), "only")
        fitting = [v for v in values if word and fits_cue(v.column, word)]
        if word and word != "only" and fitting:
            return (
                fitting[0]
                if len({v.column for v in fitting}) == 1
                else self.ask.which_column(said, [v.column for v in fitting])
            )
        bare = [v for v in values if v.bare]
        if not bare:
            return None
        if len({v.column for v in bare}) > 1:
            return self.ask.which_column(said, list(dict.fromkeys(v.column for v in bare)))
        return bare[0]

    def _named(self, column: str, before: str, after: str) -> bool:
        """Check whether the name of a column stands beside a value."""
        last = [stem(w) for w in normalized(before).split()][-4:]
        while last and last[-1] in {"is", "of", "the", "be", "must", "should"}:
            last.pop()
        first = [stem(w) for w in normalized(after).split()][:3]
        for key, name in self.words.column_words.items():
            if name == column and key:
                if tuple(last[-len(key) :]) == key or tuple(first[: len(key)]) == key:
                    return True
                if is_han(column) and (before.rstrip(" ：:是为").endswith(column)):
                    return True
        return False

    # The rest

    def _wanted(self) -> str:
        text = re.sub(r"\0+", " \0 ", self.rest)
        parts = [_EDGE.sub("", part).strip() for part in text.split("\0")]
        joined = " ".join(part for part in parts if part)
        joined = re.sub(r"\s+", " ", re.sub(r"\s*([,;])(?:\s*[,;])+", r"\1", joined)).strip()
        pattern = _ZH_ASKED if self.chinese else _ASKED
        shorter = _EDGE.sub("", pattern.sub("", joined, count=1)).strip()
        return _ZH_EDGE.sub("", shorter) if self.chinese else shorter


def _split(phrase: str) -> list[str]:
    """Split the words after a negation into the things that are not wanted."""
    return [part for part in _JOINED.split(phrase) if part and part.strip("\0 ")]
