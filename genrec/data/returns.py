"""Give returned items the behavior ``return``, and leave out cancelled orders.

Neither counts as a purchase. The module ``statuses`` finds both in columns such as the status of an
order; this module also recognizes returns by their quantities, invoice numbers and behaviors.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.column_names import known_words
from genrec.data.column_uses import STATUS
from genrec.data.columns import Recognized
from genrec.data.readers import arrow
from genrec.data.readers.rejects import Rejects
from genrec.data.statuses import CANCELLED, RETURN, Evidence, classify, find_evidence
from genrec.errors import DataError
from genrec.text import one_line, quantity
from genrec.types import BoolArray

IGNORED = "none"  # the name of a status column that means that no column is one
_CANCELLED_INVOICE = r"^[Cc]\d+$"
_ROLES = (
    "user_id", "item_id", "title", "behavior", "timestamp", "position", "value", "rating", "split",
    "text",
)  # fmt: skip


def mark_returns(
    table: pa.Table,
    read: Recognized,
    notes: list[str],
    rejects: Rejects,
    status: str | None = None,
) -> tuple[pa.Table, dict[str, str]]:
    """Give returned items the behavior ``return``, and reject the rows of cancelled orders.

    A row is a return if its quantity is negative, if its behavior is a word for a return, if its
    invoice number begins with a C while most invoice numbers are plain digits, or if a column such
    as the status of the order says so. Negative quantities become positive. If only part of a
    quantity was returned, the rest is kept as a purchase.

    Args:
        table: the events, with numbers as values.
        read: the events table with its recognized columns.
        notes: the list of remarks.
        rejects: the object that records rejected rows, here those of cancelled orders.
        status: the name of the column in the table that holds the status of orders; ``none`` to
            ignore statuses; None to look for such columns.

    Returns:
        The table, and the use of each column that was taken into account.

    Raises:
        DataError: the status column is missing or holds no status, or all orders are cancelled.
    """
    if not table.num_rows:
        return table, {}
    evidence = _find(table, read, notes, status)
    marks = _Marks(table.num_rows)
    behavior = None
    if "behavior" in table.column_names:
        behavior = arrow.to_text(table["behavior"])
        _read_behaviors(behavior, marks, ignored=status == IGNORED)
    if read.counted and "value" in table.column_names:
        value = arrow.to_floats(table["value"])
        negative = value < 0
        marks.add(negative, "with a negative quantity")
        table = _with_values(table, np.abs(value)) if negative.any() else table
    marks.add(_has_cancelled_invoice(table, read.unit), "with an invoice number that begins with C")
    for one in evidence:
        if (one.returned & ~marks.returned).any():  # columns that say the same again are not listed
            marks.add(one.returned, f"with {one.how}")
        marks.cancel(one.cancelled, _reasons(table, one))
        table = _keep_rest(table, one, notes)
    table = _mark(table, behavior, marks, read.behavior, notes)
    if marks.cancelled.any():
        if marks.cancelled.all():
            msg = (
                f"Every row of {rejects.source} belongs to a cancelled order, such as "
                f"{next(iter(marks.reasons.values()))}. Expected some orders that were not cancelled. "
                "Add --status none to count all rows, whatever their status."
            )
            raise DataError(msg)
        places = np.flatnonzero(marks.cancelled).tolist()
        reasons = [f"cancelled order {marks.reasons[n]}" for n in places]
        table = arrow.reject(table, marks.cancelled, reasons, rejects, asked=True)
        notes.append(
            f"{quantity(len(places), 'row')} of cancelled orders are neither purchases nor returns, "
            "and were rejected; --status none keeps them"
        )
    return table, {e.column: STATUS for e in evidence}


class _Marks:
    """Records which rows are returned or cancelled, and why."""

    def __init__(self, rows: int) -> None:
        """Create a record without any marked rows."""
        self.returned: BoolArray = np.zeros(rows, dtype=bool)
        self.cancelled: BoolArray = np.zeros(rows, dtype=bool)
        self.parts: list[tuple[BoolArray, str]] = []
        self.reasons: dict[int, str] = {}

    def add(self, mask: BoolArray, how: str) -> None:
        """Mark rows as returns, with a phrase that says how they were recognized."""
        if mask.any():
            self.returned |= mask
            self.parts.append((mask, how))

    def cancel(self, mask: BoolArray, reasons: Sequence[str]) -> None:
        """Mark rows as cancelled, with the reason for each of them."""
        for place, reason in zip(np.flatnonzero(mask).tolist(), reasons, strict=True):
            self.reasons.setdefault(place, reason)
        self.cancelled |= mask


def _find(
    table: pa.Table, read: Recognized, notes: list[str], status: str | None
) -> list[Evidence]:
    """Find the columns that say whether an order was returned or cancelled."""
    if status == IGNORED:
        return []
    taken: Collection[str] = {*_ROLES, *([read.unit] if read.unit else [])}
    return find_evidence(
        table, taken, unit=read.unit, value="value" if read.counted else None, status=status,
        notes=notes,
    )  # fmt: skip


def _read_behaviors(behavior: pa.ChunkedArray, marks: _Marks, *, ignored: bool) -> None:
    """Mark the rows whose behavior is a word for a return or a cancellation."""
    values, code = arrow.encode(behavior)
    listed = known_words("returns")
    kinds = np.array([
        RETURN if v.casefold() in listed else classify(v, strict=True) for v in values
    ])  # fmt: skip
    renamed = np.array([v != RETURN for v in values])
    marks.add(((kinds == RETURN) & renamed)[code], "with a word for a return")
    if not ignored:
        mask = (kinds == CANCELLED)[code]
        shown = [f"{one_line(values[c])!r}" for c in code[mask].tolist()]
        marks.cancel(mask, shown)


def _reasons(table: pa.Table, evidence: Evidence) -> list[str]:
    """Return the reason for each row of a cancelled order, such as ``'Void' in 'Status'``."""
    cells = arrow.to_text(table[evidence.column]).filter(pa.array(evidence.cancelled))
    return [f"{one_line(c)!r} in {evidence.column!r}" for c in cells.to_pylist()]


def _keep_rest(table: pa.Table, evidence: Evidence, notes: list[str]) -> pa.Table:
    """Reduce quantities that were returned or cancelled in part."""
    if evidence.kept is None:
        return table
    part = np.isfinite(evidence.kept)
    if not part.any():
        return table
    value = arrow.to_floats(table["value"])
    count = quantity(int(part.sum()), "row")
    notes.append(f"the value of {count} was reduced by a smaller one in {evidence.column!r}")
    return _with_values(table, np.where(part, evidence.kept, value))


def _with_values(table: pa.Table, value: np.typing.NDArray[np.float64]) -> pa.Table:
    """Return the table with the given values in its value column."""
    numbers = pa.chunked_array([pa.array(value, from_pandas=True)])
    return table.set_column(table.column_names.index("value"), "value", numbers)


def _mark(
    table: pa.Table,
    behavior: pa.ChunkedArray | None,
    marks: _Marks,
    usual: str,
    notes: list[str],
) -> pa.Table:
    """Set the behavior of returned rows to ``return``, and add a remark on how many there are."""
    returned = marks.returned & ~marks.cancelled
    if not returned.any():
        return table
    counts = [(int((mask & returned).sum()), how) for mask, how in marks.parts]
    counts = [(n, how) for n, how in counts if n]
    why = ", ".join(f"{n:,} {how}" for n, how in counts)
    both = np.sum([mask & returned for mask, _ in marks.parts], axis=0) > 1
    if both.any():
        several = "both" if len(counts) == 2 else "more than one of these"
        why += f", {int(both.sum()):,} with {several}"
    count = quantity(int(returned.sum()), "row")
    notes.append(f"marked {count} as {RETURN!r} rather than as a purchase: {why}")
    others = pa.array([usual]).cast(pa.large_string())[0] if behavior is None else behavior
    marked = pc.if_else(pa.array(returned), pa.scalar(RETURN, pa.large_string()), others)
    if behavior is None:
        return table.append_column("behavior", marked)
    return table.set_column(table.column_names.index("behavior"), "behavior", marked)


def _has_cancelled_invoice(table: pa.Table, unit: str | None) -> BoolArray:
    """Return an (R,) mask of rows with an invoice number such as ``C5363``.

    No row is marked unless plain numbers, such as ``5363``, are more common.
    """
    none = np.zeros(table.num_rows, dtype=bool)
    if unit is None or unit not in table.column_names or arrow.is_list(table[unit].type):
        return none
    names = arrow.to_text(table[unit])
    cancelled = np.asarray(pc.match_substring_regex(names, _CANCELLED_INVOICE), dtype=bool)
    plain = np.asarray(pc.match_substring_regex(names, r"^\d+$"), dtype=bool)
    return cancelled if plain.sum() > cancelled.sum() else none
