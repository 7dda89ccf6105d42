"""Parse numbers as spreadsheets and shops write them, and restore ids that became decimals.

The meaning of commas and points in a column is inferred from all of its cells. This module deals
with the notation of numbers only, not with what they stand for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers import arrow
from genrec.types import BoolArray, FloatArray, IntArray

_SAMPLE = 10_000  # the number of cells that show a file's decimal sign
_MOST_COLUMNS = 200  # the number of columns that show a file's decimal sign
_FIRST = 20  # the number of cells that can show quickly that a column holds no numbers
_MOST = 0.9  # the share of non-empty cells that must be numbers, or else the column is text
_EMPTY = pa.array(["", "nan", "null", "none", "n/a", "na", "-"], pa.large_string())
_CURRENCIES = (
    "AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HRK HUF IDR ILS INR ISK JPY "
    "KRW MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN RMB RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD "
    "VND ZAR eur euro Euro R$ US$ A$ AU$ C$ CA$ HK$ NT$ NZ$ S$ MX$ SFr. Fr. Fr kr. kr zł zl Kč Ft "
    "lei лв руб. руб Rs. Rs Rp RM TL 元 円 원"
)

_LETTERS = re.compile(r"[\W\d]+")
_SIGNS = {_LETTERS.sub("", c) for c in _CURRENCIES.split()} | {""}

# Regular expressions for RE2.
_SIGN = "|".join(re.escape(c) for c in sorted(_CURRENCIES.split(), key=len, reverse=True))
_NUMBER = (
    rf"^(?P<open>\(?)(?P<minus>[-+]?)\s*(?P<before>(?:{_SIGN}|\p{{Sc}})?)\s*(?P<second>[-+]?)"
    r"(?P<digits>[.,]?\d(?:[\d .,']*\d)?)(?P<power>(?:[eE][-+]?\d+)?)(?:[.,]-{0,2})?"
    rf"\s*(?P<after>(?:{_SIGN}|\p{{Sc}})?)\s*(?P<last>-?)(?P<percent>%?)(?P<close>\)?)$"
)
_GROUPS = r"[1-9]\d{0,2}(?:[ ']\d{3})+"
_POINT = rf"^(?:\d+|[1-9]\d{{0,2}}(?:,\d{{3}})+|[1-9]\d?(?:,\d\d)+,\d{{3}}|{_GROUPS})?(?:\.\d+)?$"
_COMMA = rf"^(?:\d+|[1-9]\d{{0,2}}(?:\.\d{{3}})+|{_GROUPS})?(?:,\d+)?$"
_EITHER = r"^-?[1-9]\d{0,2}[.,]\d{3}$"
_WHOLE_FLOAT = r"^-?[0-9]+\.0$"


def read_numbers(column: pa.ChunkedArray, usual: str = "") -> tuple[FloatArray, str | None]:
    """Parse a column of numbers with currency signs, thousands separators or decimal commas.

    If fewer than 90% of the non-empty cells are numbers in one notation, only plain numbers such as
    ``-1.5`` are read. A percentage is read as a fraction.

    Args:
        column: the cells. ``1.234`` is read as a decimal number and ``1,234`` as 1234, unless other
            cells show that the comma is a decimal separator.
        usual: the decimal separator of the file, which is used if the cells are ambiguous; empty if
            it is unknown.

    Returns:
        The (E,) numbers, with NaN for cells without a number; and a remark on how they were read,
        or None if all are plain numbers.
    """
    column = ascii_digits(column)
    plain = arrow.to_floats(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return plain, None
    text = arrow.to_text(column).combine_chunks()
    filled = ~np.asarray(pc.is_in(pc.utf8_lower(text), _EMPTY), dtype=np.bool_)
    ambiguous = _ambiguous_points(text) if np.isfinite(plain[filled]).all() else None
    if np.isfinite(plain[filled]).all() and not (ambiguous and usual == ","):
        return plain, ambiguous
    encoded = text.dictionary_encode()
    code = np.asarray(encoded.indices, dtype=np.int64)
    rows = np.bincount(code[filled], minlength=len(encoded.dictionary))
    numbers, remark = _read_spelled(encoded.dictionary, rows, usual)
    if np.isfinite(numbers[code[filled]]).mean() < _MOST:
        return plain, None
    if np.array_equal(numbers[code], plain, equal_nan=True):
        return plain, None
    return numbers[code], remark


def ascii_digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace the digits of other scripts, such as Arabic and Thai ones, with ASCII digits."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    if not pc.any(pc.match_substring_regex(column, r"[^\x00-\x7f]")).as_py():
        return column
    encoded = column.combine_chunks().dictionary_encode()
    plain = [
        None if v is None else "".join(_ascii_digit(c) for c in v)
        for v in encoded.dictionary.to_pylist()
    ]
    return pa.chunked_array([pa.array(plain, column.type).take(encoded.indices)])


def _ascii_digit(character: str) -> str:
    """Return a decimal digit of any script as an ASCII digit, and other characters unchanged."""
    digit = unicodedata.decimal(character, -1)
    separator = {"\u066b": ".", "\u066c": ","}.get(character, character)
    return separator if digit < 0 else str(digit)


def may_be_numbers(column: pa.ChunkedArray) -> bool:
    """Check a text column's first cells to see whether all of its cells may be numbers."""
    for value in column.slice(0, _FIRST).to_pylist():
        cell = str(value or "").strip()
        found = re.search(r"\d(?:[\d\s.,'\u2019]*\d)?", cell)
        if cell and found is None:
            return False
        before, after = (cell[: found.start()], cell[found.end() :]) if found else ("", "")
        power = re.sub(r"^[eE][-+]?\d+", "", after)
        if any(_LETTERS.sub("", part) not in _SIGNS for part in (before, power)):
            return False
    return True


def decimal_sign(columns: Sequence[pa.ChunkedArray]) -> str:
    """Return the decimal separator that all columns use, or an empty string if it is not clear.

    Args:
        columns: columns of a file; those that do not hold numbers are ignored.
    """
    signs = set()
    compared = 0
    for column in columns:
        if compared == _MOST_COLUMNS:
            break
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            texts = pc.unique(arrow.to_text(column.slice(0, _SAMPLE)))
            if not pc.any(pc.match_substring_regex(texts, r"\d[.,]|[.,]\d")).as_py():
                continue  # digits alone have no decimal sign
            compared += 1
            texts = texts.filter(pc.invert(pc.is_in(pc.utf8_lower(texts), _EMPTY)))
            _, with_point, with_comma = _match_numbers(texts)
            if len(texts) and np.mean(with_point | with_comma) >= _MOST:
                signs |= {"."} if (with_point & ~with_comma).any() else set()
                signs |= {","} if (with_comma & ~with_point).any() else set()
    return signs.pop() if len(signs) == 1 else ""


def restore_ids(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, bool]:
    """Convert ids such as ``17841.0`` to ``17841``.

    Pandas writes integers in this way if some cells of the column are missing.

    Args:
        column: the ids, as text or as numbers. Text is changed only if every non-empty cell is a
            whole number and some end in ``.0``; leading zeros are kept.

    Returns:
        The column, and True if it was changed.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        values = arrow.to_floats(column)
        finite = values[~np.isnan(values)]
        if not len(finite) or not np.all((finite == np.floor(finite)) & (np.abs(finite) < 2**63)):
            return column, False
        whole = np.where(np.isnan(values), 0.0, values).astype(np.int64)
        ids = pa.array(whole, mask=np.isnan(values)).cast(pa.large_string())
        return pa.chunked_array([ids]), True
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column, False
    text = arrow.to_text(column)
    text = pc.if_else(pc.equal(text, "nan"), "", text)  # what pandas writes for a missing value
    floats = pc.match_substring_regex(text, _WHOLE_FLOAT)
    other = pc.match_substring_regex(text, "^(-?[0-9]+)?$")
    if not pc.any(floats).as_py() or not pc.all(pc.or_(floats, other)).as_py():
        return column, False
    return pc.replace_substring_regex(text, r"\.0$", ""), True


def other_spelling(given: object) -> str | None:
    """Return a whole-number id with ``.0`` added or removed, or None for any other id.

    >>> other_spelling("17841.0"), other_spelling("17841"), other_spelling("85123A")
    ('17841', '17841.0', None)
    """
    if not isinstance(given, str):
        return None
    if re.fullmatch(_WHOLE_FLOAT, given):
        return given.removesuffix(".0")
    return f"{given}.0" if re.fullmatch("-?[0-9]+", given) else None


def _match_numbers(texts: pa.Array) -> tuple[dict[str, pa.Array], BoolArray, BoolArray]:
    """Split D strings into the parts of numbers, such as sign and digits.

    Returns:
        The parts by name, and two (D,) masks: strings that are numbers if the decimal separator is
        a point, and strings that are numbers if it is a comma.
    """
    clean = pc.replace_substring_regex(texts, "[\u00a0\u2009\u202f]", " ")
    clean = pc.replace_substring_regex(clean, "[\u2212\u2013\u2014]", "-")
    found = pc.extract_regex(pc.replace_substring(clean, "\u2019", "'"), _NUMBER)
    cells = {f.name: pc.fill_null(found.field(f.name), "") for f in found.type}
    is_number = np.asarray(found.is_valid(), dtype=np.bool_)
    with_point, with_comma = (_matches(cells["digits"], p) & is_number for p in (_POINT, _COMMA))
    return cells, with_point, with_comma


def _read_spelled(texts: pa.Array, rows: IntArray, usual: str) -> tuple[FloatArray, str]:
    """Parse D distinct strings as numbers.

    Args:
        texts: the strings.
        rows: the number of rows with each string, as a (D,) array.
        usual: the decimal separator to use if the strings are ambiguous.

    Returns:
        The (D,) numbers, with NaN for strings that are not numbers, and a remark on how they were
        read.
    """
    cells, with_point, with_comma = _match_numbers(texts)
    for_point = int(rows[with_point & ~with_comma].sum())
    for_comma = int(rows[with_comma & ~with_point].sum())
    comma = for_comma > for_point or (usual == "," and not for_point + for_comma)
    numbers = _values(cells, with_comma if comma else with_point, "," if comma else ".")
    read = pa.array(np.isfinite(numbers))
    remark = _remark({n: c.filter(read) for n, c in cells.items()}, comma)
    either = np.isfinite(numbers) & _matches(cells["digits"], _EITHER)
    if either.any() and not for_point + for_comma:
        place = int(np.argmax(either))
        remark += f"; {texts[place].as_py()!r} is taken as {numbers[place]:g}"
    return numbers, remark


def _values(cells: dict[str, pa.Array], good: BoolArray, decimal: str) -> FloatArray:
    """Convert D numbers, given as text parts such as sign and digits; invalid ones become NaN."""
    minus = np.stack([_matches(cells[n], "^-$") for n in ("minus", "second", "last")])
    opened, closed = (_matches(cells[n], ".") for n in ("open", "close"))
    good = good & (opened == closed) & (minus.sum(axis=0) + opened <= 1)
    digits = pc.replace_substring_regex(cells["digits"], f"[^0-9{decimal}]", "")
    digits = pc.replace_substring(digits, ",", ".")
    digits = pc.binary_join_element_wise(digits, cells["power"], pa.scalar("", digits.type))
    digits = digits.filter(pa.array(good))
    values = np.full(len(good), np.nan)
    values[good] = np.asarray(digits.cast(pa.float64()))
    values = np.where(minus.any(axis=0) | opened, -values, values)
    return np.where(_matches(cells["percent"], "%"), values / 100, values)


def _remark(cells: dict[str, pa.Array], comma: bool) -> str:
    """Describe how a column's numbers are written, given the parts of the valid numbers as text."""
    signs = [s for n in ("before", "after") for s in pc.unique(cells[n]).to_pylist() if s]
    currencies = ", ".join(dict.fromkeys(signs))
    grouped = r"\d[. ']\d" if comma else r"\d[, ']\d"
    parts = [
        (comma and _matches(cells["digits"], ",").any(), "a decimal comma"),
        (_matches(cells["digits"], grouped).any(), "thousands separators"),
        (bool(signs), f"currency signs ({currencies})"),
        (_matches(cells["open"], ".").any(), "parentheses for negative numbers"),
        (_matches(cells["percent"], ".").any(), "percentages as fractions"),
    ]
    said = ", ".join(text for present, text in parts if present)
    different = "; the amounts are not converted" if len(set(signs)) > 1 else ""
    return f"numbers read with {said or 'minus signs'}{different}"


def _ambiguous_points(text: pa.Array) -> str | None:
    """Return a remark on numbers such as ``1.234``, in which the point may separate thousands."""
    pointed = text.filter(pc.match_substring(text, "."))
    if not len(pointed) or not pc.all(pc.match_substring_regex(pointed, _EITHER)).as_py():
        return None
    first = pointed[0].as_py()
    return f"numbers read with a decimal point; {first!r} is taken as {float(first):g}"


def _matches(texts: pa.Array, pattern: str) -> BoolArray:
    """Return a (D,) mask of the strings that match a pattern."""
    return np.asarray(pc.match_substring_regex(texts, pattern), dtype=np.bool_)
