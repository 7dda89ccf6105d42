"""Count items by the context of their events (the source ``context`` of the collaborative prior).

For one column, such as ``country``, the distribution over items given a value is

    p(item | value) = (n(item, value) + m * p(item)) / (n(value) + m)

where n are numbers of events and p(item) is the item's overall share. Few events with a value hence
leave the overall share nearly unchanged. The strength m is that under which the counts of all values
of the column are most likely (empirical Bayes; MacKay and Peto 1995, A hierarchical Dirichlet
language model, https://doi.org/10.1017/S1351324900000218), so a column that says nothing about the
items has a large m and no effect. If the context has several columns, they are taken as independent
given the item: the ratios p(item | value) / p(item) are multiplied, and the products are scaled so
that they sum to 1.

This module deals with catalog rows and texts, not with users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.baselines.sparse import sparse_from_arrays, sparse_to_arrays
from genrec.types import FloatArray, IntArray

_STRENGTHS = (1e-1, 1e7)  # the range of m
_KEPT = 256  # number of contexts whose distributions are kept
PREFIX = "context"


@dataclass(frozen=True, eq=False)
class ColumnCounts:
    """The counts of one column of the context.

    Attributes:
        name: the name of the column.
        values: the V values that were counted.
        items: (V, N) sparse matrix with the number of events with each value and item.
    """

    name: str
    values: tuple[str, ...]
    items: Any

    def more(self, given: Sequence[str], row: IntArray) -> ColumnCounts:
        """Return counts that also include additional events.

        Args:
            given: the value of each event; empty for an event without a value.
            row: the catalog row of each event's item.
        """
        from scipy import sparse

        place = {value: code for code, value in enumerate(self.values)}
        codes = np.array(
            [place.setdefault(v, len(place)) if v else -1 for v in given], dtype=np.int64
        )
        known, shape = codes >= 0, (len(place), self.items.shape[1])
        added = sparse.csr_array((np.ones(known.sum()), (codes[known], row[known])), shape=shape)
        old = self.items.copy()
        old.resize(shape)
        return ColumnCounts(self.name, tuple(place), (old + added).tocsr())

    @cached_property
    def strength(self) -> float:
        """The strength m of the column; see the module's docstring."""
        return _fit_strength(self.items)

    def sized(self, items: int) -> ColumnCounts:
        """Return the same counts for a larger number of items."""
        larger = self.items.copy()
        larger.resize((len(self.values), items))
        return replace(self, items=larger)


@dataclass(frozen=True, eq=False)
class ContextCounts:
    """The counts of all declared columns of the context.

    Attributes:
        columns: the counts by column; empty if no columns are declared.
    """

    columns: tuple[ColumnCounts, ...] = ()
    _kept: dict[object, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def none(cls, names: Sequence[str], items: int) -> ContextCounts:
        """Create counts of given columns, with no events counted yet."""
        from scipy import sparse

        return cls(tuple(ColumnCounts(name, (), sparse.csr_array((0, items))) for name in names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def more(self, given: Mapping[str, Sequence[str]], row: IntArray) -> ContextCounts:
        """Return counts that also include additional events.

        Args:
            given: for each column, the value of each event; empty for an event without a value. The
                events have no values in columns that are missing.
            row: the catalog row of each event's item.
        """
        nothing = [""] * len(row)
        return ContextCounts(tuple(c.more(given.get(c.name, nothing), row) for c in self.columns))

    def sized(self, items: int) -> ContextCounts:
        """Return the same counts for a larger number of items."""
        return ContextCounts(tuple(column.sized(items) for column in self.columns))

    def share(self, context: Mapping[str, str], base: FloatArray) -> FloatArray | None:
        """Compute the distribution over N items given a context; see the module's docstring.

        Args:
            context: the values by column. Values that were not counted have no effect.
            base: (N,) the overall share of each item. They sum to 1, and none is 0.

        Returns:
            (N,) shares that sum to 1; None if no value of the context was counted.
        """
        known = {
            c.name: c.values.index(context[c.name])
            for c in self.columns
            if context.get(c.name) in c.values
        }
        if not known:
            return None
        key = tuple(known.items())
        found = self._kept.get(key)
        if found is None:
            found = base.copy()
            for column in self.columns:
                if column.name in known:
                    found *= self._lift(column, known[column.name], base)
            found /= found.sum()
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = found
        return np.asarray(found)

    def _lift(self, column: ColumnCounts, code: int, base: FloatArray) -> FloatArray:
        """Compute p(item | value) / p(item) for each of the N items."""
        counts = column.items[[code]]
        total = float(counts.sum()) + column.strength
        lift = np.full(len(base), column.strength / total)
        lift[counts.indices] += counts.data / (total * base[counts.indices])
        return lift

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the counts as named arrays, none if there are no columns."""
        if not self.columns:
            return {}
        texts = json.dumps([(column.name, column.values) for column in self.columns])
        arrays = {f"{PREFIX}.names": np.frombuffer(texts.encode(), dtype=np.uint8)}
        for number, column in enumerate(self.columns):
            arrays |= sparse_to_arrays(f"{PREFIX}.{number}", column.items)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], items: int) -> ContextCounts:
        """Rebuild the counts from the result of ``to_arrays``; other arrays are ignored."""
        if f"{PREFIX}.names" not in arrays:
            return cls()
        texts = json.loads(bytes(arrays[f"{PREFIX}.names"]))
        return cls(
            tuple(
                ColumnCounts(
                    name, tuple(values), sparse_from_arrays(f"{PREFIX}.{number}", arrays, items)
                )
                for number, (name, values) in enumerate(texts)
            )
        )


def _fit_strength(counts: Any) -> float:
    """Find the strength under which the counts of a column's values are most likely.

    The counts of each value are compared with the shares in the events of all other values. A value
    of more than half of the events is left out, since the others say too little about its items.

    Args:
        counts: (V, N) sparse matrix of counts.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import gammaln

    totals = np.asarray(counts.sum(axis=1)).ravel()
    of_item = np.asarray(counts.sum(axis=0)).ravel()
    compared = (totals > 0) & (2 * totals <= totals.sum())
    if not compared.any():
        return _STRENGTHS[1]
    value = np.repeat(np.arange(len(totals)), np.diff(counts.indptr))
    used = compared[value]
    value, item, seen = value[used], counts.indices[used], counts.data[used]
    mean = (of_item[item] - seen + 1.0) / (totals.sum() - totals[value] + len(of_item))
    totals = totals[compared]

    def loss(log_strength: float) -> float:
        m = np.exp(log_strength)
        rows = len(totals) * gammaln(m) - gammaln(m + totals).sum()
        return -float(rows + (gammaln(m * mean + seen) - gammaln(m * mean)).sum())

    low, high = np.log(_STRENGTHS)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
