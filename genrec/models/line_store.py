"""Keep the keys and values of texts that many prompts share, such as the lines of catalog items.

The store holds bytes (see ``line_layout``) under keys made from token ids. It has a budget for the
memory and drops what was used least recently. Lines can also be kept in files (see ``line_files``).
The store may be used by several threads at once. This module deals with token ids only, not with
text, and does not decide what may be stored.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genrec.models.line_files import FilesUse, LineFiles, LineOptions

BUDGET = 1 << 29  # bytes
_PAGED = 1 << 15  # bytes; smaller lines would waste much of their last page
_MAPPED = 30_000  # number of lines in pages of their own; systems allow about twice as many


@dataclass(frozen=True, slots=True)
class StoreUse:
    """How a store has been used.

    Attributes:
        lines: number of lines in memory.
        bytes: size of their keys and values.
        budget: maximum size in memory in bytes.
        hits: number of lines that were found since the store was created, in memory or in a file.
        misses: number of lines that were looked for but not found.
        dropped: number of lines that were dropped from memory to stay within the budget.
        files: the lines in files; None if there is no folder.
    """

    lines: int
    bytes: int
    budget: int
    hits: int
    misses: int
    dropped: int
    files: FilesUse | None = None

    @property
    def hit_rate(self) -> float:
        """Return the share of lines that were found, from 0 to 1; 0 if none was looked for."""
        return self.hits / max(self.hits + self.misses, 1)

    def to_dict(self) -> dict[str, float]:
        """Return the sizes in MiB, the number of lines and the hit rate, for an answer."""
        size = {
            "lines": self.lines,
            "memory_mib": round(self.bytes / 2**20, 1),
            "hit_rate": round(self.hit_rate, 3),
        }
        if self.files is None:
            return size
        return {
            **size,
            "disk_lines": self.files.lines,
            "disk_mib": round(self.files.bytes / 2**20, 1),
        }


def line_key(model: str, head: Sequence[int], block: Sequence[int] = ()) -> bytes:
    """Return the key under which the keys and values of a block are stored.

    Args:
        model: text that identifies the model's weights, data type and device, and the number type.
        head: token ids of the head, to which the block attends.
        block: token ids of the block; empty for the head itself.
    """
    name = model.encode()
    sizes = np.array([len(name), len(head)], dtype=np.int64).tobytes()
    ids = np.array([*head, *block], dtype=np.int64).tobytes()
    return hashlib.blake2b(sizes + name + ids, digest_size=16).digest()


def in_own_pages(line: torch.Tensor) -> torch.Tensor:
    """Copy a line to pages of its own, which the system gets back as soon as the line is dropped.

    Otherwise, the memory would be larger than the budget by the gaps that dropped lines leave.
    """
    if line.nbytes < _PAGED or line.device.type != "cpu":
        return line
    own = torch.frombuffer(mmap.mmap(-1, line.nbytes), dtype=torch.uint8)
    return own.copy_(line)


class LineStore:
    """A store of lines in memory, with a budget in bytes, and optionally in files."""

    def __init__(self, budget: int = BUDGET) -> None:
        """Create an empty store.

        Args:
            budget: maximum size of all keys and values in memory in bytes; 0 to keep none there.
        """
        self._lock = threading.Lock()
        self._lines: OrderedDict[bytes, torch.Tensor] = OrderedDict()  # least recently used first
        self._budget, self._bytes = budget, 0
        self._hits = self._misses = self._dropped = 0
        self._files: LineFiles | None = None
        self._place: tuple[Path, str] | None = None

    @property
    def budget(self) -> int:
        """The maximum size of all keys and values in memory in bytes."""
        return self._budget

    @budget.setter
    def budget(self, size: int) -> None:
        with self._lock:
            self._budget = size
            self._shrink()

    def configure(self, options: LineOptions, model: str) -> None:
        """Change the budgets and the folder of the store.

        Args:
            options: the options. The number type is not used.
            model: text that identifies the model's weights, data type and device.
        """
        if options.memory is not None and options.memory != self._budget:
            self.budget = options.memory
        with self._lock:
            place = None if options.folder is None else (options.folder, model)
            if place != self._place:
                if self._files is not None:
                    self._files.flush()
                self._place = place
                self._files = None if place is None else LineFiles(place[0], {"model": model})
            if self._files is not None:
                self._files.budget = options.disk

    def get(self, key: bytes) -> torch.Tensor | None:
        """Return a line and mark it as used, or return None if it is not in the store.

        Returns:
            The bytes of the line as an uint8 tensor, which must not be changed. It is in the memory
            of the CPU if the line comes from a file.
        """
        with self._lock:
            line = self._lines.get(key)
            if line is not None:
                self._hits += 1
                self._lines.move_to_end(key)
                return line
            files = self._files
        found = None if files is None else files.find(key)
        with self._lock:
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            line = torch.from_numpy(found)
            self._keep(key, line)
            return line

    def has(self, key: bytes) -> bool:
        """Check whether a line is in the store, without marking it as used."""
        with self._lock:
            return key in self._lines or (self._files is not None and self._files.has(key))

    def put(self, key: bytes, line: torch.Tensor) -> None:
        """Store a line, and drop those that were used least recently if the budget requires it.

        A line that is larger than the budget is not kept in memory.
        """
        with self._lock:
            self._keep(key, line)
            files = self._files
        if files is not None and files.budget:
            files.add(key, line.cpu().numpy())

    def _keep(self, key: bytes, line: torch.Tensor) -> None:
        """Keep a line in memory."""
        if line.nbytes > self._budget:
            return
        if len(self._lines) < _MAPPED:
            line = in_own_pages(line)
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

    def flush(self) -> None:
        """Write the lines to files that are not written yet, if there is a folder."""
        if self._files is not None:
            self._files.flush()

    def clear(self) -> None:
        """Drop all lines from memory. Files are left as they are."""
        with self._lock:
            self._lines.clear()
            self._bytes = 0

    def use(self) -> StoreUse:
        """Return the size of the store and how often lines were found."""
        files = None if self._files is None else self._files.use()
        with self._lock:
            return StoreUse(
                len(self._lines),
                self._bytes,
                self._budget,
                self._hits,
                self._misses,
                self._dropped,
                files,
            )
