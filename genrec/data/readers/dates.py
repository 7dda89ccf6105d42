"""Parse a text column as dates in any of the formats that shops and public datasets use.

The format of each cell is recognized separately; ``date_order`` then determines the order of day
and month. This module deals with text only, not with numbers and their units.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers.date_order import NAMES, ORDERS, Family, Reading, days, full_year
from genrec.errors import DataError, SettingsError
from genrec.text import quantity
from genrec.types import BoolArray, FloatArray, IntArray

_DAY = 86_400.0
_NO_DATE = "time is a date that does not exist"
_UTC = "in UTC unless a time zone is given"
_ISO = f"times read as ISO dates, {_UTC}"
_ENOUGH = 3  # different dates that show an order
_TOLERATED = 20  # dates for each one that contradicts them
_CENTURY = "; two-digit years are read as 1969 to 2068"
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar januari janvier janv gennaio gen enero ene janeiro",
            "feb february februar februari février févr fév fevrier febbraio febrero fevereiro fev",
            "mar march märz mär maerz mrz mars maart mrt marzo março marco",
            "apr april avril avr aprile abril abr",
            "may mai mei maj maggio mag mayo maio",
            "jun june juni juin giugno giu junio junho",
            "jul july juli juillet juil luglio lug julio julho",
            "aug august augustus augusti août aout agosto ago",
            "sep sept september septembre settembre set septiembre setembro",
            "oct october oktober okt octobre ottobre ott octubre outubro out",
            "nov november novembre noviembre novembro",
            "dec december dezember dez décembre déc decembre dicembre dic diciembre dezembro",
        ),
        start=1,
    )
    for name in names.split()
}
_HOURS = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_AFTERNOON = ["p", "下午", "午後", "오후"]
_MORNING = ["a", "上午", "午前", "오전"]

# Regular expressions for RE2. The numbers n1, n2 and n3 are day, month and year in any order.
_D, _M, _Y = r"(?P<d>\d{1,2})(?:st|nd|rd|th|\.)?", r"(?P<b>\p{L}{3,12})\.?", r"(?P<y>\d{4}|\d{2})"
_CLOCK = (
    r"(?P<half>上午|下午|午前|午後|오전|오후)?\s*(?P<H>\d{1,2})(?:[:.h时時点點]\s?(?P<M>\d{2})"
    r"(?:[:.分](?P<S>\d{2})秒?(?:[.,:](?P<f>\d{1,9}))?)?分?)?(?:\s*(?P<p>[ap])\.?m\.?)?"
)
_COMPACT = r"(?P<H>\d{1,2}):?(?P<M>\d{2})(?::?(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?(?:\s*(?P<p>[ap])\.?m\.?)?"
_ZONE = (
    r"(?:\s*(?P<z>z|(?:utc|gmt|ut)?\s?[+-]\d{1,2}(?::?\d{2})?|utc|gmt|ut|[ecmp][sd]t)"
    r"(?:\s*[(\[].*[)\]])?)?"
)
_TAIL = rf"(?:(?:[t_:]|,?\s+(?:at\s+|um\s+|-\s+)?){_CLOCK}{_ZONE})?$"
_WEEKDAY = r"^(?:\p{L}{2,10}\.?,?\s+)?"
_FORMS = (
    r"^(?P<n1>\d{1,4})(?P<s1>[-/.])\s?(?P<n2>\d{1,2})(?P<s2>[-/.])\s?(?P<n3>\d{4}|\d{1,2})\.?"
    + _TAIL,
    rf"^(?P<y>\d{{4}})(?P<m>\d{{2}})(?P<d>\d{{2}})[-t_ ]\s*{_COMPACT}{_ZONE}$",
    r"^(?P<y>\d{4}|\d{2})\s*[年년]\s*(?P<m>\d{1,2})\s*[月월]\s*(?P<d>\d{1,2})\s*[日号號일]?"
    rf"(?:\s*(?:星期|周|週)[一二三四五六日天])?(?:\s*{_CLOCK}{_ZONE})?$",
    rf"{_WEEKDAY}{_M}\s+{_D}\s+{_CLOCK}{_ZONE}\s+(?P<y>\d{{4}})$",
    rf"{_WEEKDAY}{_D}(?:[-/ ]|\s+(?:of|de)\s)?\s*{_M}(?:[-/ ,]|\s+de\s)?\s*{_Y}{_TAIL}",
    rf"{_WEEKDAY}{_M}[- ]\s*{_D}[-,]?\s*(?P<y>\d{{4}}){_TAIL}",
    rf"^{_M}-(?P<d>\d{{1,2}})-(?P<y>\d{{2}}){_TAIL}",
    rf"^(?P<y>\d{{4}})[-/ .]{_M}[-/ .](?P<d>\d{{1,2}}){_TAIL}",
    r"^(?P<y>\d{4})(?:[-/.]|\s*[年년]\s*)(?P<m>\d{1,2})\s*[月월]?$",
    r"^(?:(?P<m>\d{1,2})[-/.])(?P<y>\d{4})$",
    rf"^{_M}(?:[-/ ,]\s?(?P<y>\d{{4}}))$",
    rf"^{_M}(?:-|\s?')(?P<y>\d{{2}})$",
    r"^(?P<n1>\d{1,2})(?P<s1> )(?P<n2>\d{1,2})(?P<s2>,) (?P<n3>\d{4})" + _TAIL,
)
_DIRECTIVES = {
    "d": r"(?P<d>\d{1,2})", "e": r"\s?(?P<d>\d{1,2})", "m": r"(?P<m>\d{1,2})",
    "y": r"(?P<y>\d{2})", "Y": r"(?P<y>\d{4})", "b": _M, "B": _M, "a": r"\p{L}+\.?",
    "A": r"\p{L}+\.?", "H": r"(?P<H>\d{1,2})", "I": r"(?P<H>\d{1,2})", "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})", "f": r"(?P<f>\d{1,9})", "p": r"(?P<p>[ap])\.?m\.?",
    "z": r"(?P<z>z|[+-]\d{2}:?\d{2})", "Z": r"(?P<z>[a-z]{1,3})", "%": "%",
}  # fmt: skip
_SHORTHAND = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}


@dataclass(frozen=True, slots=True)
class Dates:
    """The dates of a column.

    Attributes:
        seconds: the (E,) dates in seconds since 1970; NaN for cells without a readable date.
        problems: the reasons why some dates cannot be used, each with an (E,) mask of the affected
            cells.
        notes: remarks on the format of the dates.
        short: True if most years were written with two digits.
    """

    seconds: FloatArray
    problems: list[tuple[BoolArray, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    short: bool = False


def check_date_format(given: str) -> None:
    """Check that a date format can be used.

    Args:
        given: a word from ``ORDERS``, or a format as in Python's ``strptime``.

    Raises:
        SettingsError: the format has an unknown part, or lacks the day, the month or the year.
    """
    if given not in ORDERS:
        _pattern(given)


def parse_iso(text: str) -> float:
    """Convert an ISO date to seconds since 1970, or return NaN if the text is not a date."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()


def read_dates(cells: pa.Array, date_format: str | None, where: str, *, rivals: int = 0) -> Dates:
    """Parse strings as dates; a date without a time zone is taken to be in UTC.

    Args:
        cells: the (E,) strings.
        date_format: a word from ``ORDERS``, a format as in Python's ``strptime``, or None to detect
            the format. Even if the format has no time of day, a date may be followed by one.
        where: the names of the file and its column, for use in messages.
        rivals: the number of other cells in the column that can be interpreted as times, such as
            numbers.

    Raises:
        DataError: the order of day and month is ambiguous for most of the readable cells.
        SettingsError: the format cannot be used.
    """
    form = date_format if date_format not in ORDERS else None
    plain = _plain_iso(cells) if form is None else None
    if plain is not None:
        return Dates(plain, notes=[_ISO])
    encoded = pc.replace_substring_regex(cells, "[\u00a0\u2009\u202f]", " ").dictionary_encode()
    column = _Column(encoded.dictionary, np.asarray(encoded.indices, dtype=np.int64), where)
    if form is not None:
        column.match(_pattern(form))
        reason = f"time does not fit the date format {form!r}"
        rest = ~column.read & ~np.asarray(pc.equal(column.texts, ""), dtype=np.bool_)
        note = f"times read with the date format {form!r}, {_UTC}"
        return Dates(column.seconds[column.code], [(rest[column.code], reason)], [note])
    for pattern in _FORMS:
        column.match(pattern)
    column.match_iso()
    return column.decide(ORDERS.get(date_format or ""), where, rivals)


def _plain_iso(cells: pa.Array) -> FloatArray | None:
    """Convert ISO dates with a fast parser, or return None if it cannot read all of the strings."""
    for zone in (None, "UTC"):
        try:
            moments = cells.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
        return np.asarray(moments.cast(pa.int64()), dtype=np.float64) / 1e6
    return None


def _pattern(date_format: str) -> str:
    """Convert a strptime format to a regular expression."""
    full = re.sub("%([FTRD])", lambda m: _SHORTHAND[m[1]], date_format)
    pattern = ""
    for directive, space, other in re.findall(r"%(.?)|(\s+)|(.)", full, flags=re.DOTALL):
        if not (space or other) and directive not in _DIRECTIVES:
            msg = (
                f"The date format {date_format!r} has the unknown part '%{directive}'. Expected a "
                f"strptime format with the parts %{', %'.join(_DIRECTIVES)}, or one of the words "
                f"{', '.join(ORDERS)}."
            )
            raise SettingsError(msg)
        pattern += r"\s+" if space else re.escape(other) if other else _DIRECTIVES[directive]
    groups = re.findall(r"\(\?P<(\w+)>", pattern)
    parts = sorted("m" if g == "b" else g for g in groups if g in "bdmy")
    if parts not in (["d", "m", "y"], ["m", "y"]) or len(set(groups)) < len(groups):
        msg = (
            f"The date format {date_format!r} does not name day, month and year once each. Expected "
            f"a strptime format such as '%d/%m/%Y %H:%M', or one of the words {', '.join(ORDERS)}."
        )
        raise SettingsError(msg)
    return f"^{pattern}" + ("$" if set(groups) & set("HMSfpz") else _TAIL)


class _Column:
    """The D distinct strings of a column, and the dates recognized in them so far.

    Attributes:
        texts: the (D,) distinct strings.
        code: the (E,) index of each row's string.
        rows: the (D,) number of rows with each string.
        read: a (D,) mask of the strings that have been recognized as dates.
        seconds: the (D,) dates that can be parsed in only one way, in seconds since 1970.
        iso: a (D,) mask of the strings that are ISO dates.
        short: a (D,) mask of the strings with two-digit years.
        where: the names of the file and its column, for use in messages.
        swapped: True if dates that begin with the year have the day before the month.
        families: the dates whose order has yet to be determined, with their indices in ``texts``.
    """

    def __init__(self, texts: pa.Array, code: IntArray, where: str) -> None:
        self.texts, self.code, self.where = texts, code, where
        self.swapped = False
        self.rows = np.bincount(code, minlength=len(texts))
        self.read, self.iso, self.short = np.zeros((3, len(texts)), dtype=np.bool_)
        self.seconds = np.full(len(texts), np.nan)
        self.families: list[tuple[IntArray, Family]] = []

    def match(self, pattern: str) -> None:
        """Parse the remaining strings that match a pattern."""
        places = np.flatnonzero(~self.read)
        found = pc.extract_regex(self.texts.take(pa.array(places)), f"(?i){pattern}")
        matched = found.is_valid()
        places, found = places[np.asarray(matched)], found.filter(matched)
        if not len(places):
            return
        cells = {f.name: found.field(f.name) for f in found.type}
        clock = _seconds_of_day(cells)
        if "n1" in cells:
            self._match_numbers(places, cells, clock)
            return
        short = _length(cells["y"]) == 2
        month = _numbers(cells["m"]) if "m" in cells else _months(cells["b"])
        day = _numbers(cells["d"]) if "d" in cells else np.ones(len(places), dtype=np.int64)
        date = days(full_year(_numbers(cells["y"]), short), month, day)
        self._keep(places, date * _DAY + clock)
        self.short[places] = short
        self.iso[places] = pattern == _FORMS[1]

    def _match_numbers(
        self, places: IntArray, cells: dict[str, pa.Array], clock: FloatArray
    ) -> None:
        """Parse dates that consist of three numbers; potentially ambiguous ones become families."""
        numbers = np.stack([_numbers(cells[n]) for n in ("n1", "n2", "n3")])
        first, last = _length(cells["n1"]), _length(cells["n3"])
        separator = cells["s2"]
        same = np.asarray(pc.or_(pc.equal(cells["s1"], separator), pc.equal(separator, ",")))
        iso = same & (first == 4) & (last <= 2)
        self.swapped = self._swaps(places[iso], numbers[:, iso])
        year, month, day = numbers[[0, 2, 1] if self.swapped else [0, 1, 2]][:, iso]
        self._keep(places[iso], days(year, month, day) * _DAY + clock[iso])
        self.iso[places[iso]] = True
        for between in separator.unique().to_pylist():
            for short in (False, True):
                here = same & (first <= 2) & np.isfinite(clock) & ((last <= 2) == short)
                here &= np.asarray(pc.equal(separator, between))
                if here.any():
                    at = places[here]
                    self.families.append(
                        (at, self._family(at, numbers[:, here], clock[here], between, short))
                    )

    def _swaps(self, places: IntArray, numbers: IntArray) -> bool:
        """Check whether dates that begin with the year have the day before the month.

        Raises:
            DataError: some dates can only be read in one way, and some only in the other.
        """
        masks = numbers[2] > 12, numbers[1] > 12
        usual, other = (int(self.rows[places][mask].sum()) for mask in masks)
        enough = min(int(mask.sum()) for mask in masks if mask.any()) >= _ENOUGH if other else False
        if enough and min(usual, other) * _TOLERATED > max(usual, other):
            some = [self.texts[int(places[np.argmax(mask)])].as_py() for mask in masks]
            msg = (
                f"{self.where}: the dates contradict each other: {quantity(usual, 'row')} such as "
                f"{some[0]!r} with the month before the day, and {quantity(other, 'row')} such as "
                f"{some[1]!r} with the day before the month. Set --date-format '%Y-%m-%d' or "
                "'%Y-%d-%m' to reject the rows that have another order."
            )
            raise DataError(msg)
        return enough and other > usual

    def _family(
        self, places: IntArray, numbers: IntArray, clock: FloatArray, between: str, short: bool
    ) -> Family:
        """Build the family of all dates that share a form, and mark them as recognized."""
        self.read[places] = True
        number = np.full(len(self.texts), -1)
        number[places] = np.arange(len(places))
        sequence = number[self.code]
        texts = self.texts.take(pa.array(places))
        return Family(
            texts, self.rows[places], sequence[sequence >= 0], numbers, clock, between, short
        )

    def match_iso(self) -> None:
        """Read remaining strings that are ISO dates in a rare format, such as ``2019-W09-5``."""
        likely = np.asarray(pc.match_substring_regex(self.texts, r"^\d{4}"), dtype=np.bool_)
        places = np.flatnonzero(~self.read & likely)
        texts = self.texts.take(pa.array(places)).to_pylist()
        self._keep(places, np.array([parse_iso(t) for t in texts], dtype=np.float64))
        self.iso[places] = True

    def _keep(self, places: IntArray, seconds: FloatArray) -> None:
        self.seconds[places] = seconds
        self.read[places] = np.isfinite(seconds)

    def decide(self, order: str | None, where: str, rivals: int) -> Dates:
        """Determine the order of each family, unless it is given, and return all dates.

        Args:
            order: the given order, such as ``dmy``, or None to infer it.
            where: the names of the file and its column, for use in messages.
            rivals: the number of other cells in the column that can be interpreted as times.

        Raises:
            DataError: the order of most dates is ambiguous.
        """
        seconds = self.seconds.copy()
        found = Dates(seconds, notes=self._certain_notes())
        dated = rivals + int(self.rows[self.read].sum())
        for places, family in self.families:
            if order is None:
                reading = self._decide_family(family, dated, where)
            else:
                reading = family.read(order, "as the date format says")
            if reading is None:
                reason = "time is a date whose day and month cannot be told apart"
                found.problems.append((self._rows_of(places), reason))
                continue
            seconds[places] = reading.seconds
            bad = np.isnan(reading.seconds)
            exists = np.any([np.isfinite(s) for s in family.readings.values()], axis=0)
            reason = f"time is a date that does not have {NAMES[reading.order]}, unlike the others"
            found.problems.append((self._rows_of(places[bad & exists]), reason))
            found.problems.append((self._rows_of(places[bad & ~exists]), _NO_DATE))
            if not bad.all():
                found.notes.append(self._order_note(family, reading))
        few = int(self.rows[self.short].sum())
        few += sum(int(family.rows.sum()) for _, family in self.families if family.short)
        short = 2 * few > int(self.rows[np.isfinite(seconds)].sum())
        return Dates(seconds[self.code], found.problems, found.notes, short)

    def _rows_of(self, places: IntArray) -> BoolArray:
        """Return an (E,) mask of the rows with the given strings."""
        mask = np.zeros(len(self.texts), dtype=np.bool_)
        mask[places] = True
        return mask[self.code]

    def _decide_family(self, family: Family, dated: int, where: str) -> Reading | None:
        """Determine a family's order and parse its dates.

        The result is None if the order is ambiguous and most of the column's dates are in other
        families.
        """
        most = 2 * int(family.rows.sum()) >= dated
        try:
            reading = family.decide(where)
        except DataError:
            if most:
                raise
            return None
        if reading is None and most:
            raise DataError(family.choices(where))
        return reading

    def _certain_notes(self) -> list[str]:
        """Return a remark on the format of the dates that can be parsed in only one way."""
        certain = np.isfinite(self.seconds)
        if not certain.any():
            return []
        if self.swapped and self.iso.any():
            place = int(np.argmax(np.where(certain & self.iso, self.rows, -1)))
            example = _example(self.texts[place], self.seconds[place])
            return [f"times read as dates with year, day and month, such as {example}, {_UTC}"]
        if self.iso[certain].all():
            return [_ISO]
        place = int(np.argmax(np.where(certain & ~self.iso, self.rows, -1)))
        years = _CENTURY if self.short[certain].any() else ""
        example = _example(self.texts[place], self.seconds[place])
        return [f"times read as dates such as {example}, {_UTC}{years}"]

    def _order_note(self, family: Family, reading: Reading) -> str:
        """Return a remark on the order of a family's dates, with the most telling date."""
        telling = np.where(np.isnan(reading.seconds), -1, family.numbers[:2].max(axis=0))
        place = int(np.argmax(telling))
        years = _CENTURY if family.short else ""
        example = _example(family.texts[place], reading.seconds[place])
        return (
            f"times read as dates with {NAMES[reading.order]}, such as {example}, {_UTC}{years} "
            f"({reading.reason})"
        )


def _example(text: pa.Scalar, seconds: float) -> str:
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=float(seconds))
    return f"{text.as_py()!r} for {moment.isoformat(' ').removesuffix(' 00:00:00')}"


def _numbers(texts: pa.Array) -> IntArray:
    """Convert digits to integers; an empty string becomes 0."""
    return np.asarray(pc.if_else(pc.equal(texts, ""), "0", texts).cast(pa.int64()))


def _length(texts: pa.Array) -> IntArray:
    return np.asarray(pc.utf8_length(texts), dtype=np.int64)


def _months(names: pa.Array) -> IntArray:
    """Return the month number for each name, or 0 for unknown names."""
    known = pa.array(list(_MONTHS), names.type)
    numbers = np.array([*_MONTHS.values(), 0])
    place = pc.index_in(pc.utf8_lower(names), known).fill_null(len(known))
    return np.asarray(numbers[np.asarray(place)], dtype=np.int64)


def _seconds_of_day(cells: dict[str, pa.Array]) -> FloatArray:
    """Convert times of day to seconds after midnight UTC, with NaN for times that do not exist."""
    size = len(next(iter(cells.values())))
    hour, minute, second = (
        _numbers(cells[n]) if n in cells else np.zeros(size, dtype=np.int64) for n in "HMS"
    )
    good = (hour < 24) & (minute < 60) & (second < 60)
    for name in ("p", "half"):
        if name in cells:
            half = pc.utf8_lower(cells[name])
            morning, afternoon = (
                np.asarray(pc.is_in(half, pa.array(words, half.type)), dtype=np.bool_)
                for words in (_MORNING, _AFTERNOON)
            )
            good &= ~morning | (hour <= 12)
            hour = np.where(morning & (hour == 12), 0, hour)
            hour = np.where(afternoon & (hour < 12), hour + 12, hour)
    seconds = hour * 3600.0 + minute * 60.0 + second
    if "f" in cells:
        seconds += _numbers(cells["f"]) / 10.0 ** _length(cells["f"])
    if "z" in cells:
        zones = cells["z"].dictionary_encode()
        offsets = np.array([_offset(z) for z in zones.dictionary.to_pylist()], dtype=np.float64)
        seconds -= offsets[np.asarray(zones.indices)]
    return np.where(good, seconds, np.nan)


def _offset(zone: str) -> float:
    """Return a time zone's offset from UTC in seconds, or NaN if the time zone is unknown."""
    name = re.sub(r"^(UTC|GMT|UT|Z)\s?", "", zone.upper())
    if name in _HOURS:
        return _HOURS[name] * 3600.0
    found = re.fullmatch(r"([+-])(\d{1,2}):?(\d{2})?", name)
    if found is None:
        return float("nan") if name else 0.0
    seconds = int(found[2]) * 3600.0 + int(found[3] or 0) * 60.0
    return seconds if found[1] == "+" else -seconds
