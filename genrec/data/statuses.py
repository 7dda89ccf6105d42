"""Find the columns that say whether an order was returned, refunded or cancelled.

Shops record this in many ways: with a status, a flag, a date, a returned quantity or the sign of an
amount. The words they use are listed in ``status_words.json``. A column is used only if both its
name and its cells match. This module finds rows but does not change them.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.column_cells import is_text
from genrec.data.column_names import fold, known_words, names_of
from genrec.data.readers import arrow
from genrec.errors import DataError
from genrec.text import one_line
from genrec.types import BoolArray

RETURN = "return"
CANCELLED = "cancelled"
PARTIAL = "partial"  # a part of the order was returned or cancelled
_MOST_VALUES = 60  # a column with more values is no status
_LONGEST = 40  # characters of a status
_MOST_WORDS = 5
_SAMPLE = 1000
_MOST_RETURNED = 0.5  # above this, a flag such as "returned" means something else, as in loans
_MOST_MINORITY = 0.4  # above this, the sign of an amount does not show what the usual case is
_CONSTANT = 0.95  # the share of rows that follow their item; such a status describes the item
_EMPTY_DATES = r"^[0\-/.: ]*$"
_DATE = r"\d{1,4}[-/.年]\s?\d{1,2}|^\d{8,}$|\d{1,2}:\d{2}|[A-Za-z]{3}\.? \d{1,2}"
_UNSPACED = r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # scripts without spaces


@dataclass(frozen=True, slots=True)
class Evidence:
    """The rows that are returned or cancelled according to a column.

    Attributes:
        column: the name of the column.
        returned: (R,) mask of the rows that are returns.
        cancelled: (R,) mask of the rows that are cancelled.
        how: what identifies the returned rows, as a phrase for a remark, such as ``'Refunded' in
            'Status'``.
        kept: (R,) the remaining quantities of rows that were returned in part, with NaN for all
            other rows; None if the column does not hold quantities.
    """

    column: str
    returned: BoolArray
    cancelled: BoolArray
    how: str
    kept: np.typing.NDArray[np.float64] | None = None


def classify(value: str, *, strict: bool = False, weak: bool = False) -> str:
    """Classify a status as ``return``, ``cancelled`` or ``partial``; return "" for any other.

    Args:
        value: the status, in any of the known languages.
        strict: True if all other words must be neutral, such as ``order``.
        weak: True if words such as ``failed`` mean that an order was cancelled.

    >>> [classify(s) for s in ("Credit Memo", "order_cancelled", "not returned", "Partially refunded")]
    ['return', 'cancelled', '', 'partial']
    """
    words = _split(value)
    if not words or len(words) > _MOST_WORDS or _match(words, "not"):
        return ""
    returned, cancelled = _match(words, "return"), _match(words, "cancelled")
    failed = _match(words, "weak")
    known = returned | cancelled
    if not known and not (weak and failed):
        return ""
    if _match(words, "partial"):
        return PARTIAL
    if returned and (cancelled or failed):  # such as "refund rejected", but not "refunded, void"
        return CANCELLED if cancelled and words.count("refunded") else ""
    if strict and not set(words) <= known | _words("neutral"):
        return ""
    return RETURN if returned else CANCELLED


@cache
def is_return(behavior: str) -> bool:
    """Check whether a behavior means that the user gave an item back.

    >>> [is_return(b) for b in ("return", "Refunded", "buy")]
    [True, True, False]
    """
    listed = behavior.casefold() in known_words("returns")
    return listed or classify(behavior, strict=True) == RETURN


def find_evidence(
    table: pa.Table,
    taken: Collection[str],
    *,
    unit: str | None = None,
    value: str | None = None,
    status: str | None = None,
    notes: list[str],
) -> list[Evidence]:
    """Find the rows of a table that are returned or cancelled.

    Args:
        table: the events.
        taken: the columns that are known to hold something else.
        unit: the name of the basket column.
        value: the name of the quantity column.
        status: the only column to check, as chosen by the user; None to check all columns.
        notes: the list to which remarks on columns that were not used are added.

    Raises:
        DataError: the column that the user chose holds no status.
    """
    if status is not None:
        evidence = _read_status(table, status, unit, given=True)
        for read in (_read_flag, _read_date):
            evidence = evidence or read(table, status, unit, given=True)
        if evidence is None:
            cells = [c for c in arrow.to_strings(table[status]) if c]
            shown = ", ".join(repr(one_line(c)) for c in list(dict.fromkeys(cells))[:5])
            msg = (
                f"No cell of the column {status!r} says that an order was cancelled or returned. Found "
                f"{shown or 'only empty cells'}. Choose another column with --status, or leave it out."
            )
            raise DataError(msg)
        return [evidence]
    found: list[Evidence] = []
    for name in arrow.column_names(table):
        if name in taken or pa.types.is_nested(table[name].type):
            continue
        for evidence in (
            _read_status(table, name, unit) if _is_status(name) else None,
            _read_flag(table, name, unit),
            _read_date(table, name, unit),
            _read_quantities(table, name, value),
            _read_signs(table, name),
        ):
            if evidence is not None:
                found.append(evidence)
                break
    used = {e.column for e in found}
    seen = np.any([e.returned | e.cancelled for e in found], axis=0) if found else None
    for name in arrow.column_names(table):
        if name not in taken and name not in used and not pa.types.is_nested(table[name].type):
            notes += _note_unused(table, name, seen)
    return found


def _is_status(name: str) -> bool:
    """Check whether a column may hold the status of orders, judging by its name."""
    folded = fold(name)
    named = set(_split(name)) & _words("status_names")
    if not named and not any(part in folded for part in _folded("status_parts")):
        return False
    other = any(part in folded for part in _folded("not_of_orders"))
    return not other or any(part in folded for part in _folded("of_orders"))


def _read_status(
    table: pa.Table, name: str, unit: str | None, *, given: bool = False
) -> Evidence | None:
    """Read a column of statuses such as ``Refunded`` and ``Cancelled``."""
    if not is_text(table[name]):
        return None
    values, code = arrow.encode(table[name])
    if len(values) > _MOST_VALUES or any(len(v) > _LONGEST for v in values):
        return None
    folded = {fold(v) for v in values}
    if not given and folded & _folded("other_values"):
        return None
    of_orders = any(part in fold(name) for part in _folded("of_orders"))
    weak = given or of_orders or bool(folded & _folded("order_values"))
    kinds = np.array([classify(v, weak=weak) for v in values])
    if not {RETURN, CANCELLED} & set(kinds.tolist()):
        return None
    if not given and "item_id" in table.column_names and _describes(table["item_id"], code):
        return None
    code = _fill_orders(table, unit, code, values)
    examples = [v for v, kind in zip(values, kinds.tolist(), strict=True) if kind == RETURN]
    shown = " or ".join(repr(one_line(v)) for v in examples[:3])
    return Evidence(
        name, kinds[code] == RETURN, kinds[code] == CANCELLED, f"{shown} in {name!r}"
    )  # fmt: skip


def _fill_orders(
    table: pa.Table, unit: str | None, code: np.typing.NDArray[np.int64], values: Sequence[str]
) -> np.typing.NDArray[np.int64]:
    """Give lines without a status the status of the first line of their order."""
    if unit is None or unit not in table.column_names or "" not in values:
        return code
    names, order = arrow.encode(table[unit])
    empty = code == values.index("")
    _, first = np.unique(order, return_index=True)
    source = first[order]
    usable = empty & ~empty[source]
    usable &= order != (names.index("") if "" in names else -1)
    return np.where(usable, code[source], code)


def _read_flag(
    table: pa.Table, name: str, unit: str | None, *, given: bool = False
) -> Evidence | None:
    """Read a column of truth values, such as ``is_returned``."""
    kind = _kind_of_name(name, "flag_words")
    if not kind:
        return None
    cells = pc.utf8_lower(arrow.to_text(table[name]))
    distinct = {c for c in pc.unique(cells).to_pylist() if c}
    yes = {c for c in distinct if fold(c) in _folded("yes") or c in _words("yes")}
    rest = {c for c in distinct - yes if fold(c) in _folded("no") or c in _words("no")}
    if not yes or distinct - yes - rest:
        return None
    mask = np.asarray(pc.is_in(cells, pa.array(sorted(yes), cells.type)), dtype=bool)
    return _of_kind(name, kind, mask, f"{name!r}", given=given)


def _read_date(
    table: pa.Table, name: str, unit: str | None, *, given: bool = False
) -> Evidence | None:
    """Read a column with the dates of cancellations or refunds.

    The date of a return is not enough, since a library records one for every loan.
    """
    kind = _kind_of_name(name, "date_words", dates=True)
    refund = _match(_split(name), "refund")
    if not kind or (kind == RETURN and not refund):
        return None
    text = arrow.to_text(table[name])
    filled = ~np.asarray(pc.match_substring_regex(text, _EMPTY_DATES), dtype=bool)
    words = np.asarray(pc.match_substring_regex(text, _DATE), dtype=bool)
    if not filled.any() or not words[filled].all():
        return None
    if unit is not None and unit in table.column_names and _only_on_first_lines(table, unit):
        order = arrow.encode(table[unit])[1]
        _, first = np.unique(order, return_index=True)
        filled = filled | filled[first[order]]
    return _of_kind(name, kind, filled, f"a date in {name!r}", given=given)


def _of_kind(
    name: str, kind: str, mask: BoolArray, how: str, *, given: bool = False
) -> Evidence | None:
    """Build the evidence from a column whose marked rows are all returned or all cancelled."""
    if kind == RETURN and mask.mean() > _MOST_RETURNED and not given:
        return None
    none = np.zeros(len(mask), dtype=bool)
    return Evidence(
        name, mask if kind == RETURN else none, mask if kind == CANCELLED else none, how
    )


def _read_quantities(table: pa.Table, name: str, value: str | None) -> Evidence | None:
    """Read a column of returned or cancelled quantities, and compare it with the ordered ones."""
    kind = _kind_of_name(name, "quantity_words")
    named = {*names_of("value"), *_folded("quantity_words")}
    if not kind or not any(w in named for w in _split(name)):
        return None
    back, filled = _numbers(table, name)
    if back is None or value is None or value not in table.column_names:
        return None
    had = arrow.to_floats(table[value])
    count = np.where(filled, np.nan_to_num(back), 0.0)
    with np.errstate(invalid="ignore"):
        whole = (count > 0) & (count >= np.abs(had))
        part = (count > 0) & ~whole & (had > 0)
    if not whole.any() and not part.any():
        return None
    none = np.zeros(len(whole), dtype=bool)
    left = np.where(part, had - count, np.nan)
    returned, cancelled = (whole, none) if kind == RETURN else (none, whole)
    return Evidence(name, returned, cancelled, f"the whole quantity in {name!r}", left)


def _read_signs(table: pa.Table, name: str) -> Evidence | None:
    """Find returns in a column of amounts by their sign, which differs from that of most rows."""
    if fold(name) not in _folded("amounts"):
        return None
    amounts, _ = _numbers(table, name)
    if amounts is None:
        return None
    with np.errstate(invalid="ignore"):
        negative, positive = amounts < 0, amounts > 0
    few = negative if negative.sum() <= positive.sum() else positive
    if not few.any() or few.sum() > _MOST_MINORITY * (negative | positive).sum():
        return None
    sign = "a negative" if few is negative else "a positive"
    how = f"{sign} amount in {name!r}"
    return Evidence(name, few, np.zeros(len(few), dtype=bool), how)


def _numbers(table: pa.Table, name: str) -> tuple[np.typing.NDArray[np.float64] | None, BoolArray]:
    """Return a column's numbers (None if a cell is not a number) and a mask of its filled cells."""
    filled = np.asarray(pc.not_equal(arrow.to_text(table[name]), ""), dtype=bool)
    numbers = arrow.to_floats(table[name])
    if not filled.any() or not np.isfinite(numbers[filled]).all():
        return None, filled
    return numbers, filled


def _note_unused(table: pa.Table, name: str, seen: BoolArray | None) -> list[str]:
    """Return a remark on a column that mentions returns or cancellations but was not used."""
    if not is_text(table[name]) and not _kind_of_name(name, "money_words"):
        return []
    if _kind_of_name(name, "money_words") and set(_split(name)) & _words("money_words"):
        amounts, _ = _numbers(table, name)
        if amounts is None:
            return []
        mask, words = np.nan_to_num(amounts) > 0, "more than 0"
        advice = "If these are no purchases, set their status in a column of its own"
    else:
        first = arrow.encode(table[name].slice(0, _SAMPLE))[0]
        values, code = arrow.encode(table[name]) if len(first) <= _MOST_VALUES else (first, None)
        if code is None or len(values) > _MOST_VALUES:
            return []
        words_in_cells = _split(" ".join(values))
        if not _match(words_in_cells, "return") and not _match(words_in_cells, "cancelled"):
            return []
        odd = [bool(v) and bool(classify(v, strict=True)) for v in values]
        if not any(odd) or sum(map(bool, values)) < 2:
            return []
        mask = np.array(odd)[code]
        words = " or ".join(repr(one_line(v)) for v, o in zip(values, odd, strict=True) if o)
        advice = f"--status {shlex.quote(name)} leaves out cancelled orders and marks returns"
    open_rows = mask if seen is None else mask & ~seen
    if not open_rows.any() or 10 * open_rows.sum() < mask.sum():
        return []
    return [
        f"the column {name!r} is {words} in {open_rows.mean():.0%} of the rows, which count like all "
        f"others. {advice}"
    ]


def _describes(item: pa.ChunkedArray, code: np.typing.NDArray[np.int64]) -> bool:
    """Check whether the values of a column are nearly always determined by the item."""
    if pa.types.is_nested(item.type) or not len(code):
        return False
    items = arrow.encode(item)[1]
    repeated = np.bincount(items)[items] > 1
    if repeated.sum() < 2 or len(np.unique(code)) < 2:
        return False
    width = int(code.max()) + 1
    pairs, count = np.unique(items[repeated] * width + code[repeated], return_counts=True)
    most = np.zeros(int(items.max()) + 1, dtype=np.int64)
    np.maximum.at(most, pairs // width, count)
    usual = np.bincount(code[repeated]).max()
    agree = most.sum() / repeated.sum()
    by_chance = usual / repeated.sum()
    return bool(agree >= _CONSTANT and agree - by_chance >= 0.9 * (1 - by_chance))


def _only_on_first_lines(table: pa.Table, unit: str) -> bool:
    """Check whether any column is filled only on the first line of each order."""
    names, order = arrow.encode(table[unit])
    _, place = np.unique(order, return_index=True)
    first = np.zeros(table.num_rows, dtype=bool)
    first[place] = True
    if first.all() or "" in names:
        return False
    for name in arrow.column_names(table):
        if name == unit or pa.types.is_nested(table[name].type):
            continue
        filled = np.asarray(pc.not_equal(arrow.to_text(table[name]), ""), dtype=bool)
        if filled[first].mean() > 0.5 and not filled[~first].any():
            return True
    return False


@lru_cache(maxsize=1 << 16)
def _kind_of_name(name: str, others: str, *, dates: bool = False) -> str:
    """Classify a name such as ``is_returned``; return "" if it contains unexpected words."""
    words = _split(name)
    returned, cancelled = _match(words, "return"), _match(words, "cancelled")
    if bool(returned) == bool(cancelled):
        return ""
    rest = "".join(w for w in words if w not in returned | cancelled)
    for word in sorted(_words(others), key=len, reverse=True):
        if not word.isascii() or word in words:
            rest = rest.replace(word, "")
    for word in returned | cancelled:
        rest = rest.replace(word, "")
    return "" if rest else RETURN if returned else CANCELLED


def _split(text: str) -> list[str]:
    """Split text into lower-case words without accents; ``isReturned`` becomes two words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    plain = unicodedata.normalize("NFD", spaced.casefold())
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    whole = unicodedata.normalize("NFC", bare)
    return [w for w in re.split(r"[^\w\u0900-\u097f\u0e00-\u0e7f]+|_+", whole) if w]


def _match(words: Sequence[str], key: str) -> set[str]:
    """Return the words that occur in a list, either as an entry or as part of a matching phrase.

    In scripts that do not separate words, a word also matches if it contains an entry of the list.
    """
    listed = _words(key)
    found = {w for w in words if w in listed}
    joined = f" {' '.join(words)} "
    phrases, unspaced = _phrases(key)
    for phrase in phrases if len(words) > 1 else ():
        if f" {phrase} " in joined:
            found |= set(phrase.split())
    for phrase in () if joined.isascii() else unspaced:
        found |= {w for w in words if phrase in w}
    return found


@cache
def _phrases(key: str) -> tuple[list[str], list[str]]:
    """Return the phrases of several words in a list, and its entries in scripts without spaces."""
    listed = sorted(_words(key))
    phrases = [p for p in listed if " " in p]
    return phrases, [p for p in listed if " " not in p and re.search(_UNSPACED, p)]


@cache
def _words(key: str) -> frozenset[str]:
    """Return one of the lists of words, in lower case and without accents."""
    return frozenset(" ".join(_split(w)) for w in _read()[key])


@cache
def _folded(key: str) -> frozenset[str]:
    """Return one of the lists of words, folded with ``column_names.fold``."""
    return frozenset(fold(w) for w in _read()[key])


@cache
def _read() -> dict[str, list[str]]:
    """Read the table of words."""
    path = Path(__file__).with_name("status_words.json")
    table: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return table
