"""The slow search: one node a token, one token a step, the logits of the whole vocabulary.

It keeps what transformers' ``generate`` would keep, for comparisons with it, and is the reference
of the fast one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genrec.models.token_tree import ROOT, TokenTree
from support.reference import DictTrie


def beams(
    sequences: Sequence[Sequence[int]],
    tree: TokenTree,
    n: int,
    normalization: str = "catalog",
    *,
    like_generate: bool = True,
) -> list[tuple[tuple[int, ...], float]]:
    """The n best titles by beam search with n beams: tokens and log-probability, best first.

    Args:
        sequences: token ids of all titles.
        tree: over one prompt.
        n: beams and titles.
        normalization: ``catalog`` or ``vocab``.
        like_generate: of each step's continuations keep the ``2 n`` best, of the titles that end
            there those among the ``n`` best, as ``generate`` does; else every title that ends.
    """
    root = DictTrie(sequences).root
    live: list[tuple[tuple[int, ...], float, int, dict[Any, Any]]] = [((), 0.0, ROOT, root)]
    logits = tree.logits[None].double()
    done: list[tuple[tuple[int, ...], float]] = []
    while live:
        found: list[tuple[tuple[int, ...], float, int, dict[Any, Any]]] = []
        for place, (path, value, handle, node) in enumerate(live):
            tokens = [t for t in node if t is not None]
            over = logits[place] if normalization == "vocab" else logits[place][tokens]
            norm = torch.logsumexp(over, 0)
            for token in tokens:
                logprob = value + float(logits[place][token] - norm)
                found.append(((*path, token), logprob, handle, node[token]))
        found.sort(key=lambda f: -f[1])
        found = found[: 2 * n] if like_generate else found
        ends = [None in f[3] for f in found]
        best = found[:n] if like_generate else found
        done += [(f[0], f[1]) for f, end in zip(best, ends, strict=False) if end]
        done = sorted(done, key=lambda d: -d[1])[:n]
        grows = [f for f, end in zip(found, ends, strict=True) if not end][:n]
        worst = done[-1][1] if len(done) == n else -np.inf
        grows = [f for f in grows if f[1] >= worst]
        if not grows:
            break
        handles, logits = tree.extend([f[2] for f in grows], [[f[0][-1]] for f in grows])
        logits = logits.double()
        live = [(f[0], f[1], h, f[3]) for f, h in zip(grows, handles, strict=True)]
    return done
