"""Implement a token tree that reprocesses whole sequences, for models without a usable cache."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from genrec.models.logits import Body, Outputs
from genrec.models.token_tree import ROOT, WITHIN, TokenTree
from genrec.types import IntArray

_PLAIN_BATCH = 16  # number of sequences per forward pass


class PlainTree(TokenTree):
    """A slow ``TokenTree`` that works with any causal language model.

    It caches nothing: for each continuation, the model processes the prompt and all tokens of the
    continuation again. Tests use it to check ``CachedTree``.
    """

    rereads = True

    def __init__(self, body: Body, prompts: Sequence[Sequence[int]]) -> None:
        """Run the model on the prompts.

        Args:
            body: any causal language model.
            prompts: token ids of each prompt, at least one id per prompt.
        """
        self._body = body
        self._prompts = [list(p) for p in prompts]
        self._paths: list[list[int]] = []
        started = time.perf_counter()
        self._root = self._read(self._prompts, [1] * len(prompts))
        self.seconds = time.perf_counter() - started

    @property
    def root(self) -> Outputs:
        """Return the model's outputs after each prompt."""
        return self._root

    def _read(self, sequences: Sequence[list[int]], last: Sequence[int]) -> Outputs:
        """Run the model on whole sequences and return the outputs after their last tokens.

        Sequences are padded on the right, so that no real token attends to the padding.

        Args:
            sequences: token ids of each sequence.
            last: number of tokens at the end of each sequence for which outputs are returned.
        """
        parts = []
        for first in range(0, len(sequences), _PLAIN_BATCH):
            some = sequences[first : first + _PLAIN_BATCH]
            counts = last[first : first + _PLAIN_BATCH]
            ids = torch.zeros((len(some), max(map(len, some))), dtype=torch.long)
            for row, sequence in enumerate(some):
                ids[row, : len(sequence)] = torch.tensor(sequence)
            rows = [row for row, n in enumerate(counts) for _ in range(n)]
            columns = [
                i for s, n in zip(some, counts, strict=True) for i in range(len(s) - n, len(s))
            ]
            device = self._body.device
            keep = torch.tensor(rows, device=device), torch.tensor(columns, device=device)
            parts.append(self._body(keep, input_ids=ids.to(device), use_cache=False))
        return Outputs.joined(parts)

    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Append sequences of tokens to the tree and score them; see ``TokenTree.grow``."""
        first = len(self._paths)
        for parent, run in zip(parents, runs, strict=True):
            place = first + WITHIN - parent if parent <= WITHIN else parent
            self._paths.append(([] if parent == ROOT else self._paths[place]) + list(run))
        sequences = [
            self._prompts[u] + path for u, path in zip(user, self._paths[first:], strict=True)
        ]
        outputs = self._read(sequences, [len(run) if every else 1 for run in runs])
        return np.arange(first, len(self._paths)), outputs

    def mark(self) -> int:
        """Return a marker for the tree's current size, to be passed to ``back``."""
        return len(self._paths)

    def back(self, mark: int) -> None:
        """Remove all nodes that were added since ``mark`` returned the given marker."""
        del self._paths[mark:]
