"""TokenTree: many continuations of one or more prompts. Knows token ids only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from genrec.models.logits import Outputs
from genrec.types import IntArray

ROOT = -1  # the handle of the prompt's end
WITHIN = -3  # and below: the end of a run of the same call; see ``below``


def below(run: int) -> int:
    """In place of a handle: the end of an earlier run of the same call, by its index."""
    return WITHIN - run


class TokenTree(ABC):
    """Continuations of B prompts; nodes are named by handles, ROOT is the prompt's end.

    Attributes:
        root: after each of the B prompts.
    """

    root: Outputs

    @abstractmethod
    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Appends runs of tokens below nodes, in one pass.

        Args:
            user: the prompt of each run.
            parents: the node below which each run hangs; ROOT, a handle from an earlier call, or
                ``below`` an earlier run of this one.
            runs: one or more token ids each.
            every: outputs after every token of every run, in order, in place of each run's last.

        Returns:
            The handle of each run's last token, and len(runs) outputs, with every as many as
            there are tokens.
        """

    def keep(self, users: IntArray) -> None:
        """Only these prompts will be grown from now on, so that the others may be forgotten."""
        del users

    @abstractmethod
    def mark(self) -> int:
        """How far the tree has grown, for ``back``."""

    @abstractmethod
    def back(self, mark: int) -> None:
        """Forgets all nodes that were grown since a mark."""

    @property
    def logits(self) -> torch.Tensor:
        """(V,) float32, after the first prompt."""
        return self.root.logits(slice(0, 1))[0]

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """``grow`` for the first prompt, with all logits: (runs, V), or with every (tokens, V)."""
        handles, outputs = self.grow([0] * len(runs), parents, runs, every=every)
        return handles.tolist(), outputs.logits()
