"""Declare the interface of token trees, which score many continuations of the same prompts.

A token tree holds the continuations that a model has processed so far. ``CachedTree`` is the fast
implementation. ``PlainTree`` is slow but works with every model. Token trees deal with token ids
only, not with text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from genrec.models.logits import Outputs
from genrec.types import IntArray

ROOT = -1  # the handle of the root, which stands for the end of the prompt
WITHIN = -3  # as a parent, this or a lower value refers to a run in the same call; see ``below``


def below(run: int) -> int:
    """Return the parent that tells ``TokenTree.grow`` to place a run below an earlier run.

    Args:
        run: index of the earlier run, which must be in the same call of ``grow``.
    """
    return WITHIN - run


class TokenTree(ABC):
    """The continuations of each of B prompts, stored as a tree of tokens.

    Each node is one token and is identified by an integer, its handle. The root of a prompt's tree
    is the end of the prompt and has the handle ``ROOT``. A sequence of tokens that is appended in
    one piece is called a run.

    Attributes:
        rereads: whether each run costs as much as its whole sequence, so that no run should be
            read that may not be needed.
        seconds: how long the model took to read the end of the prompts, with the runs that were
            read in the same pass; 0 if this is not known.
    """

    rereads = False
    seconds = 0.0

    @property
    @abstractmethod
    def root(self) -> Outputs:
        """Return the model's outputs after each of the B prompts."""

    @property
    def users(self) -> int:
        """Return the number of prompts, B."""
        return len(self.root)

    @property
    def unread(self) -> bool:
        """Check whether the first runs can be read together with the end of the prompts."""
        return False

    @abstractmethod
    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Append runs of tokens below existing nodes and return the model's outputs after them.

        Args:
            user: index of the prompt to which each run belongs.
            parents: the node below which each run is placed. This is ROOT, a handle from an earlier
                call, or ``below(i)`` to place it below run i of this call.
            runs: token ids of each run, at least one id per run.
            every: whether to return the outputs after every token of every run, in order, instead
                of only after the last token of each run.

        Returns:
            The int64 handle of each run's last token, and the model's outputs. The outputs have one
            row per run, or one row per token if ``every`` is set.
        """

    def keep(self, users: IntArray) -> None:
        """Announce that only the given prompts are still needed, so that others may be dropped.

        Args:
            users: int64 indices of the prompts to which tokens may still be appended.
        """
        del users

    @abstractmethod
    def mark(self) -> int:
        """Return a marker for the tree's current size, to be passed to ``back``."""

    @abstractmethod
    def back(self, mark: int) -> None:
        """Remove all nodes that were added since ``mark`` returned the given marker."""

    @property
    def logits(self) -> torch.Tensor:
        """Return the (V,) float32 logits of the V vocabulary tokens after the first prompt."""
        return self.root.logits(slice(0, 1))[0]

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """Append runs of tokens to the first prompt and return the logits of the whole vocabulary.

        Args:
            parents: the node below which each run is placed, as for ``grow``.
            runs: token ids of each run, at least one id per run.
            every: whether to return logits after every token, as for ``grow``.

        Returns:
            The handle of each run's last token, and the float32 logits of the V vocabulary tokens.
            The logits have shape (number of runs, V), or (number of tokens, V) if ``every`` is set.
        """
        handles, outputs = self.grow([0] * len(runs), parents, runs, every=every)
        return handles.tolist(), outputs.logits()
