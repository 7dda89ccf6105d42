"""Keep the keys and values of texts that many prompts share, such as the lines of catalog items.

The store holds tensors under keys made from token ids. It has a budget in bytes and drops what was
used least recently. It may be used by several threads at once. This module deals with token ids
only, not with text, and does not decide what may be stored.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

BUDGET = 1 << 29  # bytes


@dataclass(frozen=True, slots=True)
class Line:
    """The attention keys and values of T tokens in all L layers of a model.

    Attributes:
        keys: (L, heads, T, D) keys. Those of a block stand at the positions right after the head.
        values: (L, heads, T, D) values.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def tokens(self) -> int:
        """Return the number of tokens."""
        return int(self.keys.shape[2])

    @property
    def nbytes(self) -> int:
        """Return the size of the keys and values in bytes."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True)
class StoreUse:
    """How a store has been used.

    Attributes:
        lines: number of lines in the store.
        bytes: size of their keys and values.
        budget: maximum size in bytes.
        hits: number of lines that were found since the store was created.
        misses: number of lines that were looked for but not found.
        dropped: number of lines that were dropped to stay within the budget.
    """

    lines: int
    bytes: int
    budget: int
    hits: int
    misses: int
    dropped: int

    @property
    def hit_rate(self) -> float:
        """Return the share of lines that were found, from 0 to 1; 0 if none was looked for."""
        return self.hits / max(self.hits + self.misses, 1)


def line_key(model: str, head: Sequence[int], block: Sequence[int] = ()) -> bytes:
    """Return the key under which the keys and values of a block are stored.

    Args:
        model: text that identifies the model's weights, data type and device.
        head: token ids of the head, to which the block attends.
        block: token ids of the block; empty for the head itself.
    """
    name = model.encode()
    sizes = np.array([len(name), len(head)], dtype=np.int64).tobytes()
    ids = np.array([*head, *block], dtype=np.int64).tobytes()
    return hashlib.blake2b(sizes + name + ids, digest_size=16).digest()


class LineStore:
    """A store of lines in memory, with a budget in bytes."""

    def __init__(self, budget: int = BUDGET) -> None:
        """Create an empty store.

        Args:
            budget: maximum size of all keys and values in bytes; 0 to store nothing.
        """
        self._lock = threading.Lock()
        self._lines: OrderedDict[bytes, Line] = OrderedDict()  # least recently used first
        self._budget, self._bytes = budget, 0
        self._hits = self._misses = self._dropped = 0

    @property
    def budget(self) -> int:
        """The maximum size of all keys and values in bytes."""
        return self._budget

    @budget.setter
    def budget(self, size: int) -> None:
        with self._lock:
            self._budget = size
            self._shrink()

    def get(self, key: bytes) -> Line | None:
        """Return a line and mark it as used, or return None if it is not in the store."""
        with self._lock:
            line = self._lines.get(key)
            if line is None:
                self._misses += 1
                return None
            self._hits += 1
            self._lines.move_to_end(key)
            return line

    def put(self, key: bytes, line: Line) -> None:
        """Store a line, and drop those that were used least recently if the budget requires it.

        A line that is larger than the budget is not stored.
        """
        if line.nbytes > self._budget:
            return
        with self._lock:
            old = self._lines.pop(key, None)
            self._bytes += line.nbytes - (0 if old is None else old.nbytes)
            self._lines[key] = line
            self._shrink()

    def _shrink(self) -> None:
        """Drop the least recently used lines until the rest fits the budget."""
        while self._bytes > self._budget:
            _, line = self._lines.popitem(last=False)
            self._bytes -= line.nbytes
            self._dropped += 1

    def clear(self) -> None:
        """Drop all lines."""
        with self._lock:
            self._lines.clear()
            self._bytes = 0

    def use(self) -> StoreUse:
        """Return the size of the store and how often lines were found."""
        with self._lock:
            return StoreUse(
                len(self._lines),
                self._bytes,
                self._budget,
                self._hits,
                self._misses,
                self._dropped,
            )
