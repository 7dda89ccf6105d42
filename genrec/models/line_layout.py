"""Store the keys and values of a line of text as bytes, in one of three number types.

A line in memory and a line in a file are the same bytes. This module knows nothing of tokens or
text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_LARGEST = 127  # the largest absolute value of an int8 number here


@dataclass(frozen=True, slots=True)
class LineLayout:
    """The layout of the keys and values of lines of one model.

    With ``int8``, the vector of a token in a layer and a head is divided by its largest absolute
    value and rounded to 255 steps. So the error of each number is at most 1/254 of the largest one
    in its vector.

    Attributes:
        shape: the number of layers L, the number of heads, the size of a key and that of a value.
        dtype: the data type of the model's keys and values.
        numbers: how numbers are stored, one of ``config.LINE_NUMBERS``: ``float32`` (as the model
            computes them, whatever its data type), ``bfloat16`` or ``int8``.
    """

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    numbers: str = "float32"

    @property
    def kind(self) -> torch.dtype:
        """The data type of the stored numbers."""
        if self.numbers == "int8":
            return torch.int8
        return torch.bfloat16 if self.numbers == "bfloat16" else self.dtype

    @property
    def token_bytes(self) -> int:
        """The size of the keys and values of a token in bytes."""
        layers, heads, *sizes = self.shape
        scale = 4 if self.numbers == "int8" else 0
        return sum(layers * heads * (size * self.kind.itemsize + scale) for size in sizes)

    def pack(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Convert keys and values to bytes.

        Args:
            keys: (L, heads, T, D) keys.
            values: (L, heads, T, D) values.

        Returns:
            (T * token_bytes,) uint8 bytes on the same device, in memory of their own.
        """
        if self.numbers != "int8":
            parts = [keys.to(self.kind), values.to(self.kind)]
        else:
            wide = [keys.float(), values.float()]
            scales = [w.abs().amax(dim=-1, keepdim=True) / _LARGEST for w in wide]
            least = torch.finfo(torch.float32).tiny
            steps = [w / s.clamp(min=least) for w, s in zip(wide, scales, strict=True)]
            parts = [*scales, *(s.round().to(torch.int8) for s in steps)]
        return torch.cat([part.contiguous().view(torch.uint8).flatten() for part in parts])

    def unpack(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Convert bytes back to keys and values.

        Args:
            packed: (T * token_bytes,) uint8 bytes from ``pack``.

        Returns:
            (L, heads, T, D) keys and values in the model's data type. They may share memory with
            the bytes.
        """
        layers, heads, *sizes = self.shape
        tokens = len(packed) // self.token_bytes
        start = 0

        def take(size: int, kind: torch.dtype) -> torch.Tensor:
            nonlocal start
            first, start = start, start + layers * heads * tokens * size * kind.itemsize
            return packed[first:start].view(kind).view(layers, heads, tokens, size)

        if self.numbers != "int8":
            keys, values = (take(size, self.kind).to(self.dtype) for size in sizes)
        else:
            scales = [take(1, torch.float32) for _ in sizes]  # first, so that they are aligned
            keys, values = (
                (take(size, torch.int8) * scale).to(self.dtype)
                for size, scale in zip(sizes, scales, strict=True)
            )
        return keys, values
