"""Define the weights that a prior gives to items, and the simplest priors.

Any object with a method ``weights(history)`` can be used as a prior. The search fuses its weights
with the model's probabilities. The simplest priors are popularity and its opposite, novelty. This
module deals with catalog rows, not with tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genrec.data.events import History, count_splits
from genrec.data.interactions import Interactions
from genrec.errors import RequestError
from genrec.types import FloatArray, IntArray

LEAST_WEIGHT = 1e-30  # minimum weight as a fraction of the largest one; lower ones are raised to it
CANCELLATION = 1e-6  # the difference of two sums is inexact if it is a smaller fraction of the sums


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The finite, positive weights that a prior gives to items.

    Only the ratios of the weights matter. Items are identified by their catalog rows.

    Attributes:
        values: (N,) weights of the first N rows, or (S,) weights of the rows in ``rows``.
        rows: (S,) the rows to which ``values`` belong; None if these are the first N rows.
        rest: the weight of every other row. It has no effect if there is a ``base``.
        base: weights of all rows, to which ``values`` are added; None if there is no base. If many
            histories have the same base, it is prepared for the search only once.
        sources: the names of the sources that contributed to the weights, for display.
    """

    values: FloatArray
    rows: IntArray | None = None
    rest: float = 1.0
    base: Weights | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Convert lists to arrays, and raise a RequestError if the weights are invalid."""
        try:
            values = np.asarray(self.values, dtype=np.float64)
            rows = None if self.rows is None else np.asarray(self.rows, dtype=np.int64)
            flat = values.ndim == 1 and (rows is None or rows.ndim == 1)
        except (TypeError, ValueError, OverflowError):
            flat = False
        if not flat:
            msg = (
                f"The prior weights are {self.values!r:.80}, for the rows {self.rows!r:.80}. Expected "
                "a list of numbers above 0, and a list of rows or None."
            )
            raise RequestError(msg)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "rows", rows)
        every = np.append(self.values, self.rest)
        if not (np.isfinite(every).all() and (every > 0).all()):
            bad = every[~(np.isfinite(every) & (every > 0))][0]
            msg = f"A prior weight is {bad}. Expected finite numbers above 0; smooth the prior."
            raise RequestError(msg)
        if self.rows is not None:
            ascending = bool((self.rows[1:] > self.rows[:-1]).all())  # quicker than np.unique
            distinct = len(self.rows) if ascending else len(np.unique(self.rows))
            if len(self.rows) != len(self.values) or distinct < len(self.rows):
                msg = (
                    f"There are {len(self.values)} prior weights for {len(self.rows)} rows, of which "
                    f"{distinct} are distinct. Expected exactly one weight for each row, and no "
                    "repeated rows."
                )
                raise RequestError(msg)
        if self.base is not None and (self.rows is None or self.base.rows is not None):
            msg = (
                "The prior weights have a base but list no rows, or the base itself lists rows. Expected "
                "weights with the rows that they override, and a base with a weight for every row, "
                "which lists no rows."
            )
            raise RequestError(msg)

    def to_dense(self, n: int) -> FloatArray:
        """Return a new (n,) array with the weights of the first n rows.

        >>> Weights([2.0, 3.0], rows=[0, 2], rest=0.5).to_dense(4).tolist()
        [2.0, 0.5, 3.0, 0.5]
        """
        if self.base is not None:
            values = self.base.to_dense(n)
            assert self.rows is not None
            values[self.rows] += self.values
            return values
        values = np.full(n, self.rest, dtype=np.float64)
        if self.rows is None:
            values[: len(self.values)] = self.values[:n]
        else:
            values[self.rows] = self.values
        return values


class ItemPrior(Protocol):
    """The interface of a prior, which gives a weight to each item for a user's history."""

    def weights(self, history: History) -> Weights:
        """Return the weights of all items for a history.

        Args:
            history: the user's events, which may be empty.
        """
        ...


class Popularity:
    """A prior that weights each item by its popularity, or by its novelty.

    Popularity is the item's number of events plus one. Novelty is the reciprocal of popularity,
    which favors rare items.
    """

    def __init__(
        self,
        interactions: Interactions,
        n_items: int,
        *,
        novelty: bool = False,
        before: str = "validation",
    ) -> None:
        """Count the events of each item.

        Args:
            interactions: the events, which are split into train, validation and test parts.
            n_items: the number of items in the catalog.
            novelty: whether to weight items by novelty, so that rare items get higher weights.
            before: ``validation`` to count events of the train part only, ``test`` to count those
                of the train and validation parts, ``end`` to count all events.
        """
        columns = interactions.columns
        rows = columns.row[(columns.split < count_splits(before)) & (columns.row >= 0)]
        counts = (np.bincount(rows, minlength=n_items) + 1).astype(np.float64)
        name = "novelty" if novelty else "popularity"
        self._weights = Weights(1.0 / counts if novelty else counts, sources=(name,))

    def weights(self, history: History) -> Weights:
        """Return the same weights for every history."""
        del history
        return self._weights
