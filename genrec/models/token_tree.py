"""TokenTree: many continuations of one or more prompts, read as a tree. Knows token ids only.

``CachedTree`` is the fast implementation, ``PlainTree`` the slow one for every other model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from genrec.models.logits import Outputs
from genrec.types import IntArray

ROOT = -1  # the handle of the end of the prompt
WITHIN = -3  # this and lower values stand for runs of the same call; see ``below``


def below(run: int) -> int:
    """Return the parent value that places a run below an earlier run of the same ``grow`` call.

    Args:
        run: index of the earlier run in that call.
    """
    return WITHIN - run


class TokenTree(ABC):
    """Continuations of B prompts.

    Each node is one token, named by an integer handle; ``ROOT`` is the end of the prompt.

    Attributes:
        root: outputs after each of the B prompts.
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
        """Append runs of tokens below nodes, in one pass.

        Args:
            user: the index of each run's prompt.
            parents: the node below which each run is placed: ROOT, a handle from an earlier call,
                or ``below(i)`` for run i of this call.
            runs: the token ids of each run, at least one.
            every: whether to return the outputs after every token of every run, in order, instead
                of only the last token of each run.

        Returns:
            The int64 handle of each run's last token, and the outputs: one row per run, or one row
            per token with ``every``.
        """

    def keep(self, users: IntArray) -> None:
        """Announce that only these prompts will be grown again, so that others may be dropped.

        Args:
            users: int64 indices of the prompts.
        """
        del users

    @abstractmethod
    def mark(self) -> int:
        """Return a mark of the tree's current size, which ``back`` takes."""

    @abstractmethod
    def back(self, mark: int) -> None:
        """Remove all nodes that were grown since a mark."""

    @property
    def logits(self) -> torch.Tensor:
        """Return the (V,) float32 logits after the first prompt."""
        return self.root.logits(slice(0, 1))[0]

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """Grow the first prompt and return all logits; see ``grow``.

        Returns:
            Each run's handle, and float32 logits: (runs, V), or (tokens, V) with ``every``.
        """
        handles, outputs = self.grow([0] * len(runs), parents, runs, every=every)
        return handles.tolist(), outputs.logits()
