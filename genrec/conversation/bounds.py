"""Find bounds on prices, other numbers and times in a query, in English and Chinese.

This module deals with one query and the columns of a catalog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genrec.conversation.catalog_words import CatalogWords, TimeColumn, is_han
from genrec.conversation.numerals import CHINESE, NUMBER, read_number
from genrec.conversation.query import Condition, Question, condition, write_column
from genrec.conversation.questions import Asker

ABOUT = 0.2  # "about 20" means 20 give or take this share

_CURRENCIES = {
    "£": "gbp", "gbp": "gbp", "pound": "gbp", "pounds": "gbp", "quid": "gbp", "$": "usd", "usd": "usd",
    "dollar": "usd", "dollars": "usd", "bucks": "usd", "€": "eur", "eur": "eur", "euro": "eur",
    "euros": "eur", "¥": "cny", "rmb": "cny", "cny": "cny", "yuan": "cny", "元": "cny", "块": "cny",
    "块钱": "cny", "人民币": "cny", "英镑": "gbp", "美元": "usd", "欧元": "eur", "美金": "usd", "圆": "cny",
}  # fmt: skip
_CODES = {"gbp", "usd", "eur", "cny"}
_MEASURES = (
    "cm|mm|m|km|kg|g|lbs?|oz|ml|l|lit(?:er|re)s?|inch(?:es)?|feet|pages?|min(?:ute)?s?|hours?|hrs?|gb|tb|"
    "watts?|w|calories|kcal|stars?|points?|pieces?|miles|volts?|degrees|percent|%"
)
_AGES = r"(?:years?|yrs?|months?|weeks?|days?|people|persons|guests|players)\b"
_MONEY = r"[£$€¥]|\b(?:gbp|usd|eur|rmb|cny)\b"
_MONEY_AFTER = (
    r"[£$€]|\b(?:gbp|usd|eur|rmb|cny|pounds?|quid|dollars?|bucks|euros?|yuan)\b|元|英镑|美元|欧元"
)
_AMOUNT = (
    rf"(?P<c{{0}}>{_MONEY})?\s*(?P<n{{0}}>{NUMBER})(?P<k{{0}}>k\b)?\s?(?P<a{{0}}>{_MONEY_AFTER})?"
)
_ONE, _OTHER = _AMOUNT.replace("{0}", "1"), _AMOUNT.replace("{0}", "2")
_UNIT = rf"(?:\s*-?(?P<unit>(?:{_MEASURES})\b|{_AGES}))?"

_LESS = r"(?:under|below|(?:priced |costing )?less than|cheaper than|lower than|fewer than|<)"
_MOST = (
    r"(?:no more than|not more than|at (?:the )?most|up to|max(?:imum)?(?: (?:price|cost))?(?: (?:of|is))?:?|within|<=|≤|no higher than|"
    r"no(?:t)? over|(?:(?:with )?(?:a|my) )?budget(?: of| is|:)?)"
)
_MORE = r"(?:over|above|(?:priced |costing )?more than|greater than|higher than|>)"
_LEAST = (
    r"(?:at least|min(?:imum)?(?: (?:price|cost))?(?: (?:of|is))?:?|no less than|not less than|>=|≥|starting (?:at|from)|upwards? of|"
    r"no(?:t)? (?:under|below))"
)
_NEAR = r"(?:about|around|roughly|approx(?:imately|\.)?|circa|~|close to|near)"
_DOWN = r"(?:or|and) (?:less|under|below|cheaper|fewer)|max(?:imum)?\b|tops\b"
_UP = r"(?:or|and) (?:more|up|over|above|higher)|\+"

_ENGLISH = [
    ("between", rf"(?:between|from)\s+{_ONE}\s*(?:and|to|-|–)\s*{_OTHER}{_UNIT}"),
    ("between", rf"(?<![\w.-]){_ONE}\s*(?:to|-|–)\s*{_OTHER}{_UNIT}"),
    ("<=", rf"(?:\bfor )?(?:\b|(?=[<≤])){_MOST}\s*{_ONE}{_UNIT}"),
    (">=", rf"(?:\b|(?=[>≥])){_LEAST}\s*{_ONE}{_UNIT}"),
    ("<", rf"(?:\bfor )?(?:\b|(?=<(?!=))){_LESS}\s*{_ONE}{_UNIT}"),
    (">", rf"(?:\b|(?=>(?!=))){_MORE}\s*{_ONE}{_UNIT}"),
    ("<=", rf"(?<![\w.]){_ONE}{_UNIT}\s*(?:{_DOWN})"),
    (">=", rf"(?<![\w.]){_ONE}{_UNIT}\s*(?:{_UP})"),
    ("about", rf"(?:\bfor )?(?:\b|(?=~)){_NEAR}\s*{_ONE}{_UNIT}"),
]
_ZH_ONE = (
    rf"(?P<c1>[£$€¥])?\s*(?P<n1>{CHINESE})\s*(?P<a1>元|块钱|块|人民币|英镑|美元|欧元|美金|圆)?"
)
_ZH_OTHER = (
    rf"(?P<c2>[£$€¥])?\s*(?P<n2>{CHINESE})\s*(?P<a2>元|块钱|块|人民币|英镑|美元|欧元|美金|圆)"
)
_PRICED = r"(?:价格|价钱|售价|单价)?(?:在|是|要)?"
_CHINESE = [
    ("between", rf"{_PRICED}{_ZH_ONE}\s*(?:到|至|和|-|~|—)\s*{_ZH_OTHER}(?:之间)?"),
    ("<=", rf"{_PRICED}(?:不超过|不高于|不要超过|最多|最高|预算(?:是|在)?)\s*{_ZH_ONE}(?:以内|以下|之内)?"),
    ("<", rf"{_PRICED}(?:低于|少于|小于|便宜于|不到)\s*{_ZH_ONE}"),
    (">=", rf"{_PRICED}(?:不低于|不少于|至少|最少|最低)\s*{_ZH_ONE}(?:以上)?"),
    (">", rf"{_PRICED}(?:高于|超过|多于|大于)\s*{_ZH_ONE}"),
    ("<=", rf"{_PRICED}{_ZH_ONE}\s*(?:钱)?(?:以下|以内|之内|之下|内)"),
    (">=", rf"{_PRICED}{_ZH_ONE}\s*(?:钱)?(?:以上|之上|起)"),
    ("about", rf"{_PRICED}(?:大约|大概|约|差不多)?\s*{_ZH_ONE}\s*(?:钱)?(?:左右|上下)"),
    ("about", rf"{_PRICED}(?:大约|大概|约|差不多)\s*{_ZH_ONE}"),
]  # fmt: skip
_BARE = re.compile(rf"(?:\bfor\s+)?(?P<c1>[£$€¥])\s*(?P<n1>{NUMBER})", re.IGNORECASE)
_ABOUT_AGE = re.compile(
    r"(?:kids?|child(?:ren)?|toddlers?|bab(?:y|ies)|people|aged?|ages)\s*$", re.I
)

_YEAR = r"(?P<y1>1[5-9]\d\d|20\d\d)(?!\d|\s*(?:pounds|dollars|euros|元|块))"
_YEARS = r"(?P<y2>1[5-9]\d\d|20\d\d)(?!\d)"
_FROM_TIME = (
    r"(?:(?:released|published|made|out|from|is|are|be|anything|something|films?|movies?|books?) )?"
)
_WORDED = {
    "twenties": 1920, "thirties": 1930, "forties": 1940, "fifties": 1950, "sixties": 1960,
    "seventies": 1970, "eighties": 1980, "nineties": 1990, "noughties": 2000,
}  # fmt: skip
_DECADE = re.compile(
    r"(?:\b(?:from|in|of|during)\s+)?(?:\bthe\s+)?(?:\b(?P<part>early|mid|late)[\s-]+)?"
    rf"(?:(?<![\w£$€])'?(?P<d>(?:1[5-9]|20)?\d0)'?s\b|\b(?P<w>{'|'.join(_WORDED)})\b)",
    re.IGNORECASE,
)
_ZH_DECADE = re.compile(r"(?:上(?:个)?世纪)?(?P<d>(?:1[5-9]|20)?\d0|[二三四五六七八九]十)年代")
_NO_YEAR = r"\b(?!\s*(?:the year )?\d)"
_TIMES = [
    ("between", rf"(?:between|from)\s+{_YEAR}\s*(?:and|to|-|–|until|till)\s*{_YEARS}"),
    ("between", rf"(?<![\w£$€.-]){_YEAR}\s*(?:to|-|–)\s*{_YEARS}"),
    (">=", rf"\b(?:in|from) or (?:after|later than)\s+{_YEAR}"),
    ("<=", rf"\b(?:in|from) or (?:before|earlier than)\s+{_YEAR}"),
    (">=", rf"\b(?:from|since|in)\s+{_YEAR}\s*(?:on(?:wards?)?\b|and later|or later|or newer)"),
    ("<=", rf"\b(?:from|in)\s+{_YEAR}\s*(?:and|or) (?:earlier|older|before){_NO_YEAR}"),
    (">=", rf"(?<![\w£$€.]){_YEAR}\s*(?:or|and) (?:later|newer|after|onwards?){_NO_YEAR}"),
    ("<=", rf"(?<![\w£$€.]){_YEAR}\s*(?:or|and) (?:earlier|older|before){_NO_YEAR}"),
    ("<=", rf"\b(?:no later than|at the latest)\s+{_YEAR}"),
    (">=", rf"\b(?:no earlier than|at the earliest)\s+{_YEAR}"),
    (">", rf"\b(?:after|later than|newer than|more recent than|past)\s+(?:the year )?{_YEAR}"),
    (">=", rf"\b(?:since|starting (?:in|from))\s+{_YEAR}"),
    ("<", rf"\b(?:before|prior to|pre|earlier than|older than)[\s-]+(?:the year )?{_YEAR}"),
    ("<=", rf"\b(?:until|till)\s+{_YEAR}"),
    ("==", rf"\b(?:released in|published in|made in|came out in|from|in)\s+(?:the year )?{_YEAR}"),
    ("==", rf"\b(?:the )?year(?: of)?(?: is|:| =|=)?\s*{_YEAR}"),
]
_ZH_YEAR, _ZH_YEARS = r"(?P<y1>1[5-9]\d\d|20\d\d)年?", r"(?P<y2>1[5-9]\d\d|20\d\d)年"
_ZH_TIMES = [
    ("between", rf"{_ZH_YEAR}\s*(?:到|至|和|-|~|—)\s*{_ZH_YEARS}(?:之间)?"),
    (">=", rf"(?:自|从)?{_ZH_YEAR}(?:以来|起|开始|及以后|或以后)"),
    (">", rf"(?:在)?{_ZH_YEAR}(?:以后|之后|后)"),
    ("<", rf"(?:在)?{_ZH_YEAR}(?:以前|之前|前)"),
    ("==", r"(?:在)?(?P<y1>1[5-9]\d\d|20\d\d)年(?:的|出版|上映|发行|发布)"),
]
_CLOSING = re.compile(
    r"(?:for|and|but|with|without|in|or|please|that|which|from|by|to|if|not|no|as|at|on|each|per|if|total|would|is|"
    r"max|tops|made|thanks|only|i|we|my)\b",
    re.IGNORECASE,
)
_STOCK = re.compile(
    r"\b(?:(?:that (?:is|are)|which (?:is|are)|currently)\s+)?(?:in stock|available(?! (?:in|from|until|till|as|for|by|on)\b)"
    r"(?: (?:right )?now| today| immediately)?)\b|现货|有货|有库存",
    re.IGNORECASE,
)
_LATEST = re.compile(
    r"\b(?:the )?(?:newest|latest|most recent|new releases?|recently released)\b|最新|新出",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"\b(?:not (?:too|very|so|that) expensive|not expensive|(?:quite |very |fairly )?(?:cheap|inexpensive|affordable)|"
    r"low[- ]priced|on a budget)\b|(?<!更)(?<!再)便宜(?!一?[点些])的?|不(?:要)?太?贵的?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a query that was understood as a condition, or that has to be asked about.

    Attributes:
        start: where the part begins.
        end: where it ends.
        condition: the condition; None if there is only a question.
        question: the question; None if the part is clear.
    """

    start: int
    end: int
    condition: Condition | None = None
    question: Question | None = None


class BoundFinder:
    """Finds bounds in queries to one catalog."""

    def __init__(self, words: CatalogWords, asker: Asker, year: int) -> None:
        """Store what all queries share.

        Args:
            words: the words of the catalog.
            asker: writes the questions.
            year: the current year, to which "this year" refers.
        """
        self._words, self._ask, self._year = words, asker, year

    def find(self, text: str) -> list[Found]:
        """Find all bounds of a query, which do not overlap, in order of their places."""
        found: list[Found] = []
        for one in self._candidates(text):
            if all(one.end <= f.start or one.start >= f.end for f in found):
                found.append(one)
        return sorted(found, key=lambda f: f.start)

    def _candidates(self, text: str) -> Iterator[Found]:
        yield from self._times(text)
        for patterns in (_ENGLISH, _CHINESE):
            for operator, pattern in patterns:
                for match in re.finditer(pattern, text, re.IGNORECASE):
                    one = self._number(operator, match, text, chinese=patterns is _CHINESE)
                    if one is not None:
                        yield one
        for match in _BARE.finditer(text):
            yield self._bare(match)
        yield from self._availability(text)
        for match in _VAGUE.finditer(text):
            if self._words.price is not None:
                yield Found(match.start(), match.end(), None, self._ask.how_much(match[0]))

    # Numbers

    def _number(
        self, operator: str, match: re.Match[str], text: str, *, chinese: bool
    ) -> Found | None:
        groups = match.groupdict()
        values = []
        for place in ("1", "2") if operator == "between" else ("1",):
            value = read_number(groups[f"n{place}"])
            if value is None:
                return None
            values.append(value * 1000 if groups.get(f"k{place}") else value)
        money = {
            _CURRENCIES[groups[name].lower()]
            for name in ("c1", "a1", "c2", "a2")
            if groups.get(name)
        }
        said, unit = match[0].strip(), groups.get("unit")
        before = text[: match.start()].rstrip()
        column = self._column(before, text[match.end() :], unit, money)
        if column is False:
            return None
        named = column is not None and column != self._words.price
        sure = bool(money) or named or unit is not None or operator not in {"between", "about"}
        if not sure and not self._sounds_like_price(match[0], before):
            return None  # "2 to 4" or "around 8" may be a time, a place or a number of things
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        if column is None:
            rated = re.search(r"\brat(?:ed|ings?)\b", before[-12:], re.IGNORECASE) is not None
            what = unit or ("rating" if rated else "价格" if chinese else "price")
            return Found(start, match.end(), None, self._ask.no_column(said, what))
        return self._bound(column, operator, values, said, start, match.end(), money)

    def _sounds_like_price(self, said: str, before: str) -> bool:
        """Check whether the words around a number show that it is a price."""
        if re.search(r"价|预算|budget", said) or re.search(
            r"(?:price|priced|costs?|costing)\s*(?:is|of|at|:)?$", before, re.IGNORECASE
        ):
            return True
        worded = said.lower().startswith(("between", "about", "around", "roughly"))
        return worded and self._words.price is not None and not before.endswith("at")

    def _bound(
        self,
        column: str,
        operator: str,
        values: list[float],
        said: str,
        start: int,
        end: int,
        money: set[str],
    ) -> Found:
        own = _CODES & set(re.split(r"[^a-z]+", column.lower()))
        if money and own and not money & own:
            return Found(start, end, None, self._ask.currency(said, *sorted(own)))
        if operator == "between" and values[0] > values[1]:
            values.reverse()
        if operator == "about":
            low, high = values[0] * (1 - ABOUT), values[0] * (1 + ABOUT)
            operator, values = "between", [round(low, 6), round(high, 6)]
        return Found(start, end, condition(column, operator, values, said))

    def _column(
        self, before: str, after: str, unit: str | None, money: set[str]
    ) -> str | Literal[False] | None:
        """Return the column of a bound, None if the catalog lacks it, False if it is none at all."""
        if money:
            return self._words.price
        if re.search(r"\b(?:rated|ratings?)(?: is| of| are|:)?$", before, re.IGNORECASE):
            return self._words.rating
        last = re.findall(r"[^\W\d_]+", before)[-2:]
        for words in (" ".join(last), *last[-1:]):
            if (named := self._words.number(words)) is not None:
                return named
        if unit is None:
            if _ABOUT_AGE.search(before):
                return False
            following = re.match(r"\s*([^\W\d_]+)", after)
            if following and (named := self._words.number(following[1])) is not None:
                return named
            if following and not is_han(following[1]) and not _CLOSING.match(following[1]):
                return False  # "at most three mugs" is a count
            return self._words.price
        if (named := self._words.number(unit)) is not None:
            return named
        return False if re.fullmatch(_AGES, unit, re.IGNORECASE) else None

    def _bare(self, match: re.Match[str]) -> Found:
        """A price without "under" or "about" may be meant in several ways."""
        said = match[0].strip()
        if self._words.price is None:
            return Found(match.start(), match.end(), None, self._ask.no_column(said, "price"))
        amount = f"{match['c1']}{match['n1']}"
        return Found(match.start(), match.end(), None, self._ask.which_bound(said, amount))

    # Times

    def _times(self, text: str) -> Iterator[Found]:
        for patterns in (_TIMES, _ZH_TIMES):
            for operator, pattern in patterns:
                for match in re.finditer(pattern, text, re.IGNORECASE):
                    years = [
                        int(match[name]) for name in ("y1", "y2") if name in match.re.groupindex
                    ]
                    if operator == "between":
                        years.sort()
                    yield self._time(operator, years, match)
        for match in _DECADE.finditer(text):
            worded = match["w"]
            first = _WORDED[worded.lower()] if worded else _decade(int(match["d"]))
            if worded and not match[0].lower().startswith(("from", "in", "of", "during", "the")):
                continue  # "a dress for a woman in her thirties" is no time
            low, high = {"early": (0, 4), "mid": (3, 6), "late": (5, 9)}.get(
                (match["part"] or "").lower(), (0, 9)
            )
            yield self._time("between", [first + low, first + high], match)
        for match in _ZH_DECADE.finditer(text):
            number = read_number(match["d"])
            first = _decade(int(number or 0))
            yield self._time("between", [first, first + 9], match)
        for match in re.finditer(r"\b(?:from )?this year\b|今年", text, re.IGNORECASE):
            yield self._time("==", [self._year], match)
        for match in re.finditer(r"\b(?:from )?last year\b|去年", text, re.IGNORECASE):
            yield self._time("==", [self._year - 1], match)

    def _time(self, operator: str, years: list[int], match: re.Match[str]) -> Found:
        said, column = match[0].strip(), self._words.time
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        if column is None:
            return Found(start, match.end(), None, self._ask.no_column(said, "year"))
        return Found(start, match.end(), time_condition(column, operator, years, said))

    # Availability

    def _availability(self, text: str) -> Iterator[Found]:
        for match in _STOCK.finditer(text):
            if self._words.stock is None:
                if match[0].lower() == "available":
                    continue  # a word of any query
                question = self._ask.no_column(match[0], "stock")
                yield Found(match.start(), match.end(), None, question)
                continue
            name, counted = self._words.stock
            if counted:
                made = condition(name, ">", [0.0], match[0])
            else:
                made = condition(name, "is", [True], match[0])
            yield Found(match.start(), match.end(), made)
        for match in _LATEST.finditer(text):
            if self._words.time is not None:
                question = self._ask.since_when(match[0], self._latest_years())
                yield Found(match.start(), match.end(), None, question)

    def _latest_years(self) -> list[int]:
        column = self._words.time
        assert column is not None
        if column.dated:
            dates = self._words.catalog.column(column.name).cast("string").drop_null().to_pylist()
            found = {int(d[:4]) for d in dates if d[:4].isdigit()}
        else:
            values = self._words.numbers[column.name]
            found = {int(v) for v in np.unique(values[np.isfinite(values)])}
        return sorted(found)[-3:]


def time_condition(column: TimeColumn, operator: str, years: list[int], said: str) -> Condition:
    """Build a condition on the years in a column; dates are compared as ISO texts."""
    if not column.dated:
        return condition(column.name, operator, [float(y) for y in years], said)
    name, first, last = write_column(column.name), years[0], years[-1]
    where = {
        ">": f'{name} >= "{last + 1}"',
        ">=": f'{name} >= "{first}"',
        "<": f'{name} < "{first}"',
        "<=": f'{name} < "{last + 1}"',
    }.get(operator, f'"{first}" <= {name} < "{last + 1}"')
    return Condition(column.name, operator, tuple(float(y) for y in years), said, where)


def _decade(number: int) -> int:
    """Return the first year of a decade such as 90, 1990 or 10.

    >>> _decade(90), _decade(10), _decade(1980)
    (1990, 2010, 1980)
    """
    if number >= 100:
        return number
    return (2000 if number < 30 else 1900) + number
