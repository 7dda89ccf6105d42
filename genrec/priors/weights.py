"""What is likely without the model: a weight for every item, fused with the model's in search.

Knows rows and positions, nothing of tokens. Where weights come from is the caller's business;
popularity and its opposite, novelty, are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genrec.data.events import SPLITS, History
from genrec.data.interactions import Interactions
from genrec.errors import RequestError
from genrec.types import FloatArray, IntArray

LEAST_WEIGHT = 1e-30  # of a weight, against the greatest
POOR_WEIGHT = (
    1e-6  # sums smaller than this part of what is before them are not taken as differences
)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Finite weights above 0 by catalog row; only their ratios count.

    Attributes:
        values: (N,) of rows 0 to N - 1, or (S,) those of ``rows``.
        rows: (S,) the rows that have weights of their own; None for the first N.
        rest: the weight of every other row.
        base: weights of all rows, to which those of ``rows`` are added; then ``rest`` says nothing.
            One base for many histories is brought into the order of a trie once.
        spoke: what they were counted from, for people.
    """

    values: FloatArray
    rows: IntArray | None = None
    rest: float = 1.0
    base: Weights | None = None
    spoke: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the values; lists become arrays."""
        try:
            values = np.asarray(self.values, dtype=np.float64)
            rows = None if self.rows is None else np.asarray(self.rows, dtype=np.int64)
            one = values.ndim == 1 and (rows is None or rows.ndim == 1)
        except (TypeError, ValueError, OverflowError):
            one = False
        if not one:
            msg = (
                f"Prior weights {self.values!r:.80} for rows {self.rows!r:.80}. Expected a list of "
                "numbers above 0, and a list of rows or None."
            )
            raise RequestError(msg)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "rows", rows)
        every = np.append(self.values, self.rest)
        if not (np.isfinite(every).all() and (every > 0).all()):
            bad = every[~(np.isfinite(every) & (every > 0))][0]
            msg = f"A prior weight of {bad}. Expected finite numbers above 0; smooth the prior."
            raise RequestError(msg)
        if self.rows is not None and (
            len(self.rows) != len(self.values) or len(np.unique(self.rows)) < len(self.rows)
        ):
            msg = (
                f"{len(self.values)} prior weights for {len(self.rows)} rows. Expected one for "
                "each row, each row once."
            )
            raise RequestError(msg)
        if self.base is not None and (self.rows is None or self.base.rows is not None):
            msg = (
                "Prior weights with a base, where one of the two is of the wrong kind. Expected "
                "weights for some rows, and a base for all."
            )
            raise RequestError(msg)


class ItemPrior(Protocol):
    """Where weights come from."""

    def weights(self, history: History) -> Weights:
        """The weights for a history."""
        ...


class Popularity:
    """How often each item occurs in the training events, plus one; or one over that."""

    def __init__(
        self,
        interactions: Interactions,
        n_items: int,
        *,
        novelty: bool = False,
        before: str = "validation",
    ) -> None:
        """Counts the events before a split: ``validation`` for train only."""
        columns = interactions.columns
        rows = columns.row[(columns.split < SPLITS.index(before)) & (columns.row >= 0)]
        counts = (np.bincount(rows, minlength=n_items) + 1).astype(np.float64)
        name = "novelty" if novelty else "popularity"
        self._weights = Weights(1.0 / counts if novelty else counts, spoke=(name,))

    def weights(self, history: History) -> Weights:
        """The same for every history."""
        del history
        return self._weights
