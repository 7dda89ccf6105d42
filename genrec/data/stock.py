"""Read a file that lists the items in stock, and reload it when it changes.

The file has a column ``item_id`` and may have a column ``quantity``. An item is in stock if the file
lists it with a total quantity above 0, or lists it at all if there is no such column.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.data.time_units import format_time
from genrec.errors import DataError, RequestError
from genrec.files import describe_error
from genrec.text import quantity
from genrec.types import IntArray

_RECENT = 2.0  # a file may change again within this many seconds without a new time stamp
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Stock:
    """The items in stock.

    Attributes:
        rows: the catalog rows of the items in stock, in no particular order.
        notes: remarks for the user on unknown items, or on a new version of the file that is
            unusable.
    """

    rows: IntArray
    notes: tuple[str, ...] = ()


class StockFile:
    """A stock file that is reloaded when it changes.

    If the file becomes unusable, its last usable contents stay in effect, and this is reported in a
    note. Objects may be shared between threads.
    """

    def __init__(self, path: str | Path) -> None:
        """Store the path. The file is read when it is first needed."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._signature: tuple[int, ...] | None = None
        self._digest = b""
        self._problem = ""
        self._stock: dict[str, float] | None = None  # total quantity by item id
        self._read_at = 0.0
        self._rows: tuple[Catalog, Stock] | None = None

    def read(self, catalog: Catalog) -> Stock:
        """Return the items in stock according to the latest usable contents of the file.

        Raises:
            DataError: the file cannot be used, and there are no earlier contents.
        """
        with self._lock:
            self._refresh(catalog)
            assert self._stock is not None
            if self._rows is None or self._rows[0] is not catalog:
                self._rows = (catalog, self._find(catalog, self._stock))
            stock = self._rows[1]
            if not self._problem:
                return stock
            note = (
                f"The stock file {self.path} cannot be used now: {self._problem} The stock that was "
                f"read at {format_time(round(self._read_at))} is used instead."
            )
            return Stock(stock.rows, (*stock.notes, note))

    def _refresh(self, catalog: Catalog) -> None:
        """Read the file if it has changed since the last time."""
        try:
            before = time.time()
            state = self.path.stat()
            signature = (state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino)
            if signature == self._signature:
                return
            digest = hashlib.sha256(self.path.read_bytes()).digest()
            if digest != self._digest:
                self._digest = digest
                self._stock, self._rows = self._parse(catalog), None
                self._read_at, self._problem = before, ""
            self._signature = signature if before - state.st_mtime > _RECENT else None
        except OSError as error:
            self._signature, self._digest = None, b""
            self._fail(f"{describe_error(error)}.", error)
        except DataError as error:
            self._fail(str(error), error)

    def _fail(self, problem: str, error: Exception) -> None:
        """Record why the file cannot be used, or raise a DataError if it was never usable."""
        if self._stock is None:
            self._digest = b""
            msg = f"The stock file {os.fspath(self.path)} cannot be used: {problem}"
            raise DataError(msg) from error
        self._problem = problem

    def _parse(self, catalog: Catalog) -> dict[str, float]:
        """Read the total quantity of each item.

        Raises:
            DataError: the file has no usable rows, or a row is not usable.
        """
        rejects = Rejects(self.path.name, strict=True)
        table = files.read(self.path, rejects=rejects, scalar=("item_id", "quantity"))
        if "item_id" not in table.column_names:
            found = ", ".join(arrow.column_names(table))
            msg = (
                f"It has the columns {found}. Expected a column item_id and, optionally, a column "
                "quantity."
            )
            raise DataError(msg)
        ids = arrow.to_strings(table["item_id"])
        amounts = np.ones(len(ids))
        if "quantity" in table.column_names:
            amounts = arrow.to_floats(table["quantity"])
        total: dict[str, float] = {}
        for item, amount in zip(ids, amounts.tolist(), strict=True):
            if not item:
                msg = "A row has no item_id. Expected one in every row."
                raise DataError(msg)
            if not np.isfinite(amount):
                msg = f"The quantity of the item {item!r} is not a number. Expected a number in every row."
                raise DataError(msg)
            total[item] = total.get(item, 0.0) + amount
        if all(_row(catalog, item) is None for item in total):
            msg = (
                f"None of its {quantity(len(total), 'item')} is in the catalog. Expected item ids from the "
                "items file."
            )
            raise DataError(msg)
        return total

    def _find(self, catalog: Catalog, total: dict[str, float]) -> Stock:
        """Find the catalog rows of the items in stock, and add a note on unknown items."""
        found = {item: _row(catalog, item) for item in total}
        unknown = [item for item, row in found.items() if row is None]
        rows = [row for item, row in found.items() if row is not None and total[item] > 0]
        notes: tuple[str, ...] = ()
        if unknown:
            named = ", ".join(map(repr, unknown[:_SHOWN]))
            such = f", such as {named}" if len(unknown) > _SHOWN else f": {named}"
            they = "It was" if len(unknown) == 1 else "They were"
            notes = (
                f"The stock file {self.path} lists {quantity(len(unknown), 'item')} that the catalog "
                f"does not have{such}. {they} skipped.",
            )
        return Stock(np.array(rows, dtype=np.int64), notes)


def _row(catalog: Catalog, item: str) -> int | None:
    """Return the catalog row of an item, or None if the catalog does not have it."""
    try:
        return catalog.row(item)
    except RequestError:
        return None
