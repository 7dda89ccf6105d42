"""Collect rejected rows with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from genrec.errors import DataError

BadRow = tuple[int, str, str]  # data row number, reason, text


@dataclass
class Rejects:
    """Rows that were not kept: source, row number from 1 (header not counted), reason, cells.

    ``parts`` are the first row numbers of further sources, where several files make one table.
    """

    source: str
    strict: bool = False
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)
    parts: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str, cells: Sequence[object]) -> None:
        """Records one row.

        Raises:
            DataError: rejects are strict.
        """
        source = self.source
        first = max((start for start, _ in self.parts if start <= number), default=None)
        if first is not None:
            source, number = dict(self.parts)[first], number - first + 1
        if self.strict:
            msg = (
                f"{source}, data row {number}: {reason}. Expected every row to be usable; "
                "mend the row (`genrec prepare` without --strict sets such rows aside)."
            )
            raise DataError(msg)
        self.rows.append((source, number, reason, " | ".join(str(c) for c in cells)))

    def counts(self, *, sources: bool = False) -> dict[str, int]:
        """How many rows were rejected for each kind of reason (what follows a quote is dropped).

        Args:
            sources: begin each reason with its file.
        """
        kinds = Counter(
            (f"{source}: " if sources else "") + reason.split(" '")[0].split(' "')[0]
            for source, _, reason, _ in self.rows
        )
        return dict(kinds.most_common())

    def first_reason(self) -> str:
        """`` (first rejected row: ...)`` for use in a message, empty when nothing was rejected."""
        if not self.rows:
            return ""
        source, number, reason, _ = self.rows[0]
        return f" (first rejected: {source}, data row {number}: {reason})"
