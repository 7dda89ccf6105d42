"""Read the rest of prompts whose first tokens have been read before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.models.cached_tree import CachedTree
from genrec.models.growing_layer import GrowingLayer
from genrec.models.logits import Body
from genrec.models.unread import Unread
from genrec.types import IntArray

ROOM = 256  # slots for the continuations of a prompt, so that buffers need not grow soon


def read_rest(
    body: Body, layers: list[GrowingLayer], known: IntArray, prompts: Sequence[Sequence[int]]
) -> CachedTree:
    """Return a token tree for prompts whose last tokens are not in the buffers yet.

    The tree reads them in one pass, when something is asked of it.

    Args:
        body: a model for which ``tree_obstacle`` returns an empty string, and whose layers all have
            full attention.
        layers: the keys and values of the first tokens of the B prompts, one buffer for each layer of
            the model. A prompt with fewer known tokens than the others has a gap, whose numbers must be
            finite.
        known: (B,) int64 number of tokens of each prompt that are in the buffers.
        prompts: token ids of each prompt, which must be longer than its known part.

    Returns:
        A token tree that scores continuations of the prompts.
    """
    rest = np.array([len(ids) for ids in prompts]) - known
    first = int(known.max())
    slots = np.arange(first + int(rest.max()))
    filled = (slots < known[:, None]) | ((slots >= first) & (slots < first + rest[:, None]))
    ids = np.zeros((len(prompts), len(slots) - first), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : rest[row]] = prompt[known[row] :]
    unread = Unread(ids, known, rest, causal=False)
    return CachedTree.resume(body, layers, known + rest, filled, unread)
