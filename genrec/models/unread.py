"""Hold the end of prompts that a model has not read yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.types import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Unread:
    """The last tokens of B prompts, which the model has not read yet.

    Attributes:
        ids: (B, R) int64 token ids, padded on the right.
        known: (B,) int64 number of tokens of each prompt that come before them, in the buffers.
        rest: (B,) int64 number of tokens to read.
        causal: whether the tokens before them fill the buffers without gaps, so that the model
            needs no mask.
    """

    ids: IntArray
    known: IntArray
    rest: IntArray
    causal: bool

    @property
    def position(self) -> IntArray:
        """Return the (B, R) position of each token in its prompt."""
        return self.known[:, None] + np.arange(self.ids.shape[1])

    def seen(self, filled: BoolArray, slots: int) -> BoolArray:
        """Return the (B, R, slots) mask of the slots to which each token attends.

        Args:
            filled: (B, P) mask of the slots of the prompts that hold a token or will hold one of
                these, which come last.
            slots: the number of slots in use, at least P.
        """
        first, column = filled.shape[1] - self.ids.shape[1], np.arange(self.ids.shape[1])
        seen = np.zeros((len(filled), len(column), slots), dtype=bool)
        last = first + column[:, None]
        seen[:, :, : filled.shape[1]] = filled[:, None] & (np.arange(filled.shape[1]) <= last)
        seen[:, column, first + column] = True  # padding must attend to something
        return seen

    def tokens(
        self, filled: BoolArray, slots: int
    ) -> tuple[IntArray, IntArray, IntArray, IntArray, BoolArray]:
        """Return the N tokens without padding, and the mask of the slots to which each attends.

        The arguments are those of ``seen``.

        Returns:
            The prompts, slots, token ids and positions of the tokens (N,), and the (N, slots) mask.
        """
        rows = np.repeat(np.arange(len(self.rest)), self.rest)
        columns = np.arange(len(rows)) - (np.cumsum(self.rest) - self.rest)[rows]
        places = filled.shape[1] - self.ids.shape[1] + columns
        seen = self.seen(filled, slots)[rows, columns]
        return rows, places, self.ids[rows, columns], self.position[rows, columns], seen
