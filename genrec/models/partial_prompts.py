"""Read the rest of prompts whose first tokens have been read before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genrec.models.cached_tree import CachedTree
from genrec.models.growing_layer import GrowingLayer
from genrec.models.logits import Body
from genrec.types import IntArray

ROOM = 256  # slots for the continuations of a prompt, so that buffers need not grow soon


def read_rest(
    body: Body, layers: list[GrowingLayer], known: IntArray, prompts: Sequence[Sequence[int]]
) -> CachedTree:
    """Read the tokens of prompts that are not in the buffers yet, in one pass.

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
    column = np.arange(ids.shape[1])
    seen = filled[:, None] & (slots <= first + column[:, None])
    seen[:, column, first + column] = True  # padding must attend to something
    mask = torch.zeros(seen.shape, dtype=body.dtype)
    mask.masked_fill_(torch.from_numpy(~seen), float("-inf"))
    device = body.device
    root = body(
        (torch.arange(len(prompts), device=device), torch.from_numpy(rest - 1).to(device)),
        input_ids=torch.from_numpy(ids).to(device),
        position_ids=torch.from_numpy(known[:, None] + column).to(device),
        attention_mask=mask[:, None].to(device),
        past_key_values=body.as_cache(layers),
        use_cache=True,
    )
    return CachedTree.resume(body, layers, known + rest, filled, root)
