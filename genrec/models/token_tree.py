"""Declare the interface of token trees, which hold continuations of one or more prompts.

``CachedTree`` is the fast implementation; ``PlainTree`` is slow but works with every model. Token
trees deal with token ids only, not with text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from genrec.models.logits import Outputs
from genrec.types import IntArray

ROOT = -1  # the handle of the end of the prompt
WITHIN = -3  # this and lower values refer to runs of the same call; see ``below``


def below(run: int) -> int:
    """Return the parent value that places a run below an earlier run of the same ``grow`` call.

    Args:
        run: index of the earlier run in that call.
    """
    return WITHIN - run


class TokenTree(ABC):
    """A tree of token continuations for each of B prompts.

    Each node is one token, identified by an integer handle; ``ROOT`` is the end of the prompt.

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
        """Append runs of tokens below existing nodes in one pass.

        Args:
            user: index of each run's prompt.
            parents: the node below which each run is placed: ROOT, a handle from an earlier call,
                or ``below(i)`` for run i of this call.
            runs: token ids of each run, at least one.
            every: whether to return the outputs after every token of every run, in order, instead
                of only after the last token of each run.

        Returns:
            The int64 handle of each run's last token, and the outputs, with one row per run, or one
            row per token if ``every`` is set.
        """

    def keep(self, users: IntArray) -> None:
        """Declare that only these prompts will be grown again, so that others may be dropped.

        Args:
            users: int64 indices of the prompts.
        """
        del users

    @abstractmethod
    def mark(self) -> int:
        """Return a marker for the tree's current size, to be passed to ``back``."""

    @abstractmethod
    def back(self, mark: int) -> None:
        """Remove all nodes that were added since a marker was set."""

    @property
    def logits(self) -> torch.Tensor:
        """Return the (V,) float32 logits after the first prompt."""
        return self.root.logits(slice(0, 1))[0]

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """Grow the first prompt and return all logits; see ``grow``.

        Returns:
            The handle of each run, and float32 logits of shape (runs, V), or (tokens, V) if
            ``every`` is set.
        """
        handles, outputs = self.grow([0] * len(runs), parents, runs, every=every)
        return handles.tolist(), outputs.logits()
