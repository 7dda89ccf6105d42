"""Record rejected rows with their reasons."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.errors import DataError
from genrec.text import quantity

if TYPE_CHECKING:
    import pyarrow as pa

BadRow = tuple[int, str, str]  # data row number, reason, text


@dataclass
class Rejects:
    """A record of rejected rows and of the reasons for rejecting them.

    Attributes:
        source: the name of the file, for use in messages.
        strict: True to raise an error at the first bad row.
        rows: the source, the row number (starting at 1, not counting the header), the reason and
            the cells of each rejected row.
        parts: the first row number and the name of each additional file, if several files were
            stacked into one table.
        given: the table as it was read. If it is set, the cells of rejected rows are taken from it,
            so that they look as they do in the file.
    """

    source: str
    strict: bool = False
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)
    parts: list[tuple[int, str]] = field(default_factory=list)
    given: pa.Table | None = field(default=None, repr=False, compare=False)

    def add(self, number: int, reason: str, cells: Sequence[object]) -> None:
        """Record a rejected row.

        Args:
            number: the number of the row in its file, starting at 1.
            reason: the reason why the row is rejected.
            cells: the values of the row.

        Raises:
            DataError: this object is strict, so that any rejected row is an error.
        """
        self.add_rows([number], [reason], [" | ".join(str(c) for c in cells)])

    def add_rows(
        self,
        numbers: Sequence[int],
        reasons: Sequence[str],
        texts: Sequence[str],
        *,
        asked: bool = False,
    ) -> None:
        """Record several rejected rows.

        Args:
            numbers: the numbers of the rows in their file, starting at 1.
            reasons: the reason for each row.
            texts: the cells of each row, as one text.
            asked: True if the user asked to leave the rows out, which is not an error even if
                ``strict`` is set.

        Raises:
            DataError: this object is strict, so that any rejected row is an error.
        """
        places = self._places(numbers)
        if self.strict and places and not asked:
            source, number = places[0]
            msg = (
                f"{source}, data row {number}: {reasons[0]}. Expected every row to be usable. Fix "
                "the row. To set such rows aside instead, leave out --strict, or pass "
                'rejects=Rejects("NAME") in Python.'
            )
            raise DataError(msg)
        self.rows += [(*p, r, t) for p, r, t in zip(places, reasons, texts, strict=True)]

    def _places(self, numbers: Sequence[int]) -> list[tuple[str, int]]:
        """Return the file that each row comes from and the row's number in that file."""
        starts = sorted({1: self.source, **dict(self.parts)}.items())
        firsts = [first for first, _ in starts]
        found = [starts[max(0, bisect_right(firsts, number) - 1)] for number in numbers]
        return [(source, n - first + 1) for (first, source), n in zip(found, numbers, strict=True)]

    def examples(self, most: int = 3) -> dict[str, list[tuple[str, int, str]]]:
        """For each reason, return the file, the row number and the cells of the first rows.

        Args:
            most: the number of rows for each reason.
        """
        found: dict[str, list[tuple[str, int, str]]] = {}
        for source, number, reason, cells in self.rows:
            rows = found.setdefault(f"{source}: {_kind(reason)}", [])
            if len(rows) < most:
                rows.append((source, number, cells))
        return found

    def counts(self, *, sources: bool = False) -> dict[str, int]:
        """Count the rejected rows by reason, most frequent first.

        Reasons that differ only in quoted values are counted together.

        Args:
            sources: True to put the name of the file before each reason.
        """
        kinds = Counter(
            (f"{source}: " if sources else "") + _kind(reason) for source, _, reason, _ in self.rows
        )
        return dict(kinds.most_common())

    def first_reason(self) -> str:
        """Describe the first rejected row for a message, or return "" if no row was rejected."""
        if not self.rows:
            return ""
        source, number, reason, _ = self.rows[0]
        return f" (first rejected: {source}, data row {number}: {reason})"

    def most_frequent(self) -> str:
        """Describe the most frequent reason and its first row, or return "" if nothing was rejected."""
        if not self.rows:
            return ""
        kind, count = next(iter(self.counts().items()))
        source, number, reason, _ = next(r for r in self.rows if _kind(r[2]) == kind)
        return f"{kind} ({quantity(count, 'row')}; first in {source}, data row {number}: {reason})"


def write_rejected(path: str | Path, rejects: list[Rejects]) -> None:
    """Write the rejected rows to a CSV file.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "row", "reason", "cells"])
            writer.writerows(row for r in rejects for row in r.rows)
    except OSError as error:
        msg = f"The rejected rows cannot be written to {path}: {error}. Choose another folder."
        raise DataError(msg) from error


def _kind(reason: str) -> str:
    """Return the part of a reason before the first quoted value, which identifies its kind."""
    return reason.split(" '")[0].split(' "')[0].removesuffix(":")
