"""Run tokens of several prompts in one row, without padding.

In a batch, prompts and continuations have different lengths, and most layers treat each token by
itself. So all tokens are put next to each other, and only attention separates the prompts again.
This module deals with tensors only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from genrec.models.growing_layer import GrowingLayer
from genrec.types import BoolArray, IntArray


class Packing:
    """The places of N tokens of B prompts, and what each of them attends to."""

    def __init__(
        self,
        rows: IntArray,
        slots: IntArray,
        seen: BoolArray,
        n_prompts: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Prepare a forward pass.

        Args:
            rows: (N,) int64 prompt of each token, in ascending order.
            slots: (N,) int64 slot in which each token's key and value are stored.
            seen: (N, S) bool mask of the S slots of its prompt to which each token attends.
            n_prompts: the number of prompts, B.
            device: the device of the model.
            dtype: the data type of the model.
        """
        self._rows = torch.from_numpy(rows).to(device)
        self._slots = torch.from_numpy(slots).to(device)
        self._n, self._end = n_prompts, seen.shape[1]
        some, first = np.unique(rows, return_index=True)
        self._parts: list[tuple[int, int, int, torch.Tensor]] = []
        for row, start, stop in zip(some, first, [*first[1:], len(rows)], strict=True):
            own = seen[start:stop]
            own = own[:, : 1 + int(np.flatnonzero(own.any(axis=0))[-1])]
            bias = torch.zeros(own.shape, dtype=dtype)
            bias.masked_fill_(torch.from_numpy(~own), float("-inf"))
            self._parts.append((int(row), int(start), int(stop), bias.to(device)))
        self._repeated: dict[int, list[torch.Tensor]] = {}

    def attend(
        self,
        layer: GrowingLayer,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Store the keys and values, and let each token attend to its prompt.

        Args:
            layer: the keys and values so far.
            query: (1, query heads, N, D) queries.
            key: (1, heads, N, D) keys; each of these heads serves a group of query heads.
            value: (1, heads, N, D) values.
            scale: factor of the attention scores.

        Returns:
            (1, query heads, N, D) weighted means of the values.
        """
        layer.put(self._rows, self._slots, key[0], value[0], self._n, self._end)
        heads, groups = key.shape[1], query.shape[1] // key.shape[1]
        found = torch.empty_like(query)
        if groups not in self._repeated:  # the same in all layers
            self._repeated[groups] = [b.repeat(groups, 1)[None, None] for *_, b in self._parts]
        for (row, start, stop, bias), mask in zip(self._parts, self._repeated[groups], strict=True):
            width, slots = bias.shape
            # The queries of a group are put next to each other, so that keys need not be repeated.
            own = query[:, :, start:stop].reshape(1, heads, groups * width, -1)
            part = functional.scaled_dot_product_attention(
                own,
                layer.keys[row : row + 1, :, :slots],
                layer.values[row : row + 1, :, :slots],
                attn_mask=mask,
                scale=scale,
            )
            found[:, :, start:stop] = part.view(1, heads * groups, width, -1)
        return found
