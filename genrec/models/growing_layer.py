"""Provide buffers for attention keys and values that grow with each pass over new tokens.

This module deals with tensors only and does not need transformers.
"""

from __future__ import annotations

from typing import Any, Self

import torch


class GrowingLayer:
    """The attention keys and values of one layer, in a buffer with spare room for new tokens.

    Because of the spare room, appending tokens rarely requires copying the buffer.

    Attributes:
        keys: (B, heads, slots, D) buffer for the keys.
        values: (B, heads, slots, D) buffer for the values.
        length: the number of slots in use.
        is_initialized: whether the buffers exist yet; transformers also reads and sets this
            attribute.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        """Start with an empty buffer."""
        super().__init__()
        self.length = 0
        self.is_initialized = False

    @classmethod
    def holding(cls, keys: torch.Tensor, values: torch.Tensor, length: int) -> Self:
        """Return a layer that uses given buffers, which it may write to.

        Args:
            keys: (B, heads, slots, D) buffer for the keys.
            values: (B, heads, slots, D) buffer for the values.
            length: the number of slots that are in use.
        """
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values, layer.length = keys, values, length
        return layer

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers when the first keys and values arrive."""
        del key_states, value_states
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the keys and values of new tokens, and return views of all keys and values.

        Args:
            key_states: (B, heads, T, D) keys of T new tokens for each of B prompts.
            value_states: (B, heads, T, D) values of the same tokens.
            *args: ignored; transformers may pass more arguments.
            **kwargs: ignored; transformers may pass more arguments.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = self._enlarge(self.keys, key_states, end)
            self.values = self._enlarge(self.values, value_states, end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def put(
        self,
        rows: torch.Tensor,
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        n_prompts: int,
        end: int,
    ) -> None:
        """Store the keys and values of N tokens in given slots. New slots without a token hold 0.

        Args:
            rows: (N,) int64 prompt of each token.
            slots: (N,) int64 slot of each token.
            keys: (heads, N, D) keys.
            values: (heads, N, D) values.
            n_prompts: the number of prompts, for which room is made with the first tokens.
            end: the number of slots that are in use afterwards.
        """
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self.keys = keys.new_empty((n_prompts, len(keys), 0, keys.shape[-1]))
            self.values = values.new_empty((n_prompts, len(values), 0, values.shape[-1]))
        if end > self.keys.shape[2]:
            self.keys = self._enlarge(self.keys, self.keys, end)
            self.values = self._enlarge(self.values, self.values, end)
        for buffer, new in ((self.keys, keys), (self.values, values)):
            buffer[:, :, self.length : end] = 0
            buffer[rows, :, slots] = new.transpose(0, 1)
        self.length = end

    def _enlarge(self, old: torch.Tensor, like: torch.Tensor, end: int) -> torch.Tensor:
        """Copy a buffer into a new one with room for at least ``end`` tokens.

        Args:
            old: the buffer to copy.
            like: a tensor that has the batch size, number of heads and width of the new buffer.
            end: number of tokens for which there must be room.
        """
        shape = list(like.shape)
        shape[2] = max(end + 128, end * 3 // 2)
        new = like.new_empty(shape)
        new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def repeated(self, n: int) -> GrowingLayer:
        """Return a new buffer for n prompts, each with a copy of this single prompt's contents."""
        layer = type(self)()
        shape = (n, -1, -1, -1)
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        layer.update(keys.expand(shape), values.expand(shape))
        return layer

    def cut(self, n: int) -> GrowingLayer:
        """Return a read-only view of the keys and values of the first n tokens."""
        layer = type(self)()
        layer.keys, layer.values = self.keys[:, :, :n], self.values[:, :, :n]
        layer.length = n
        return layer

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all prompts except those in the given rows of the batch."""
        self.keys = self.keys[:, :, : self.length][rows]
        self.values = self.values[:, :, : self.length][rows]

    def get_seq_length(self) -> int:
        """Return the number of tokens in the buffer."""
        return self.length
