"""Keep the keys and values of users' prompts, so that only what was appended is read next time.

A prompt is kept under its owner, and is only ever used for another prompt of the same owner: what one
user has done never serves another. This module deals with token ids only, not with text.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genrec.models.cached_tree import CachedTree
from genrec.models.line_layout import LineLayout
from genrec.models.line_store import in_own_pages
from genrec.models.logits import Body
from genrec.models.partial_prompts import ROOM, read_rest
from genrec.models.tree_checks import measure_shape
from genrec.types import IntArray

_LEAST = 16  # shorter beginnings are not worth a mask of their own


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """How a memory of prompts has been used.

    Attributes:
        prompts: number of prompts in memory.
        bytes: size of their keys and values.
        budget: maximum size in bytes.
        found: number of tokens that were found since the memory was created.
        read: number of tokens that the model had to read.
    """

    prompts: int
    bytes: int
    budget: int
    found: int
    read: int

    @property
    def hit_rate(self) -> float:
        """Return the share of tokens that were found, from 0 to 1; 0 if none was looked for."""
        return self.found / max(self.found + self.read, 1)

    def to_dict(self) -> dict[str, float]:
        """Return the number of prompts, their size in MiB and the hit rate, for an answer."""
        return {
            "prompts": self.prompts,
            "memory_mib": round(self.bytes / 2**20, 1),
            "hit_rate": round(self.hit_rate, 3),
        }


class PromptMemory:
    """The latest prompt of each owner, with a budget; the least recently used are dropped.

    The memory may be used by several threads at once.

    Attributes:
        layout: how the keys and values of the model are kept; None until the first prompt is read.
    """

    def __init__(self, budget: int = 0) -> None:
        """Create an empty memory.

        Args:
            budget: maximum size of all keys and values in bytes; 0 to keep none.
        """
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[IntArray, torch.Tensor]] = OrderedDict()
        self._gone: set[bytes] = set()
        self._budget, self._bytes = budget, 0
        self._found = self._read = 0
        self.layout: LineLayout | None = None

    @property
    def budget(self) -> int:
        """The maximum size of all keys and values in bytes."""
        return self._budget

    @budget.setter
    def budget(self, size: int) -> None:
        with self._lock:
            self._budget = size
            self._shrink()

    def find(self, owner: str, ids: Sequence[int]) -> tuple[int, torch.Tensor | None]:
        """Find what is known of an owner's prompt.

        Args:
            owner: text that identifies the owner.
            ids: token ids of the prompt.

        Returns:
            The number of tokens at the beginning that are known, which is less than the length of the
            prompt; and the bytes that were given to ``keep``, which may hold further tokens and must
            not be changed. They are None if the number is 0.
        """
        key = _key(owner)
        with self._lock:
            entry = self._kept.get(key)
            known = 0 if entry is None else _shared(entry[0], np.array(ids[:-1], dtype=np.int64))
            if entry is None or known < _LEAST:
                self._read += len(ids)
                return 0, None
            self._kept.move_to_end(key)
            self._found, self._read = self._found + known, self._read + len(ids) - known
            return known, entry[1]

    def keep(self, owner: str, ids: Sequence[int], line: torch.Tensor) -> None:
        """Keep the prompt of an owner in place of an earlier one, if it is not above the budget.

        Args:
            owner: text that identifies the owner.
            ids: token ids of the prompt.
            line: its keys and values as bytes; see ``LineLayout``.
        """
        key = _key(owner)
        with self._lock:
            self._drop(key)
            if line.nbytes <= self._budget and key not in self._gone:
                self._kept[key] = np.array(ids, dtype=np.int64), in_own_pages(line)
                self._bytes += line.nbytes
                self._shrink()

    def forget(self, owner: str, *, for_good: bool = True) -> None:
        """Drop the prompt of an owner.

        Args:
            owner: text that identifies the owner.
            for_good: True to keep none from now on, not even of a running request.
        """
        with self._lock:
            if for_good:
                self._gone.add(_key(owner))
            self._drop(_key(owner))

    def clear(self) -> None:
        """Drop all prompts."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def use(self) -> MemoryUse:
        """Return the size of the memory and how often it helped."""
        with self._lock:
            return MemoryUse(
                len(self._kept), self._bytes, self._budget, self._found, self._read
            )  # fmt: skip

    def _drop(self, key: bytes) -> None:
        entry = self._kept.pop(key, None)
        self._bytes -= 0 if entry is None else entry[1].nbytes

    def _shrink(self) -> None:
        while self._bytes > self._budget:
            self._drop(next(iter(self._kept)))


def _key(owner: str) -> bytes:
    return hashlib.blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _shared(one: IntArray, other: IntArray) -> int:
    """Return the number of equal tokens at the beginning of two prompts."""
    n = min(len(one), len(other))
    differ = np.flatnonzero(one[:n] != other[:n])
    return int(differ[0]) if len(differ) else n


@torch.inference_mode()
def read_prompts(
    body: Body,
    memory: PromptMemory,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[str | None],
) -> tuple[CachedTree, tuple[int, ...]]:
    """Return a tree that reads what is not known of prompts yet, and keeps them when it has done so.

    Args:
        body: a model for which ``tree_obstacle`` returns an empty string, and whose layers all have
            full attention.
        memory: the memory.
        prompts: token ids of each of the B prompts, at least one id per prompt.
        owners: the owner of each prompt; None for a prompt that is not kept.

    Returns:
        A token tree that scores continuations of the prompts, and for each prompt how many of its
        tokens were known.
    """
    if memory.layout is None:
        memory.layout = LineLayout(measure_shape(body), body.dtype)
    layout = memory.layout
    found = [
        (0, None) if owner is None else memory.find(owner, ids)
        for owner, ids in zip(owners, prompts, strict=True)
    ]
    known = np.array([n for n, _ in found])
    rest = np.array([len(ids) for ids in prompts]) - known
    if not known.any():
        tree = CachedTree(body, prompts)
    else:
        n_layers, heads, *sizes = layout.shape
        make = torch.empty if len(prompts) == 1 else torch.zeros  # gaps must hold finite numbers
        slots = int(known.max()) + int(rest.max()) + ROOM
        keys, values = (
            make((n_layers, len(prompts), heads, slots, size), dtype=body.dtype, device=body.device)
            for size in sizes
        )
        for row, (n, line) in enumerate(found):
            if line is not None:
                some, others = layout.unpack(line.to(body.device))
                keys[:, row, :, :n], values[:, row, :, :n] = some[:, :, :n], others[:, :, :n]
        layers = [
            body.layer_kind.holding(k, v, int(known.max()))
            for k, v in zip(keys, values, strict=True)
        ]
        tree = read_rest(body, layers, known, prompts)
    first = int(known.max())

    @torch.inference_mode()
    def keep(tree: CachedTree) -> None:
        for row, (owner, ids) in enumerate(zip(owners, prompts, strict=True)):
            if owner is None:
                continue
            places = [slice(0, known[row]), slice(first, first + rest[row])]
            keys, values = (
                torch.cat([torch.stack([b[row, :, at] for b in buffers]) for at in places], dim=2)
                for buffers in (
                    [layer.keys for layer in tree.layers],
                    [layer.values for layer in tree.layers],
                )
            )
            memory.keep(owner, ids, layout.pack(keys, values).cpu())

    tree.when_read(keep)
    return tree, tuple(known.tolist())
