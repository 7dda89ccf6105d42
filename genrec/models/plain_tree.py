"""A token tree that uses full forward passes, for models that cannot use the cached tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genrec.models.logits import Body, Outputs
from genrec.models.token_tree import ROOT, WITHIN, TokenTree
from genrec.types import IntArray

_PLAIN_BATCH = 16  # sequences per pass


class PlainTree(TokenTree):
    """The slow token tree, which works with any causal model but uses full forward passes.

    Tests compare the fast tree with this one.
    """

    def __init__(self, body: Body, prompts: Sequence[Sequence[int]]) -> None:
        """Process the prompts.

        Args:
            body: any causal model.
            prompts: token ids of each prompt, at least one.
        """
        self._body = body
        self._prompts = [list(p) for p in prompts]
        self._paths: list[list[int]] = []
        self.root = self._read(self._prompts, [1] * len(prompts))

    def _read(self, sequences: Sequence[list[int]], last: Sequence[int]) -> Outputs:
        """Return the outputs after the last tokens of each sequence.

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
        """Append runs of tokens with full passes; see ``TokenTree.grow``."""
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
        """Return the number of nodes; see ``TokenTree.mark``."""
        return len(self._paths)

    def back(self, mark: int) -> None:
        """Remove the nodes added since a marker was set; see ``TokenTree.back``."""
        del self._paths[mark:]
