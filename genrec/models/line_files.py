"""Keep the lines of a ``LineStore`` in files, so that later processes find them.

The files of one kind of line are safetensors shards in a folder whose name is a hash of all that the
lines depend on. They are written atomically and never changed, and only single lines are read. So
several processes may read and write at the same time. A damaged shard counts as missing. The size of
all such folders next to each other is limited; the shards that were used least recently are removed.
This module knows nothing of tokens or text, and does not decide what may be stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.cache import digest_code
from genrec.errors import DataError, SettingsError
from genrec.files import lock_folder, map_arrays, write_arrays
from genrec.types import ByteArray

FORMAT_VERSION = 1
SHARD = 8 << 20  # bytes; lines are written as soon as they have this size together
_ENDING = ".safetensors"
_ABOUT = "about"  # the entry of a shard's metadata that says what its lines depend on
_INDEX = (
    "keys",
    "starts",
    "sizes",
    "sums",
)  # the arrays of a shard, besides the bytes of the lines
_DATA = "data"
_USED = 60.0  # seconds after which the time of a shard's last use is written again
_WAIT = 10.0  # seconds to wait for another process that is writing


@dataclass(frozen=True, slots=True)
class LineOptions:
    """How lines are stored.

    Attributes:
        numbers: the number type, one of ``config.LINE_NUMBERS``.
        memory: maximum size in memory in bytes; None to leave the budget of the store as it is.
        folder: a folder in which lines are looked for; None for none.
        disk: maximum size of the files in the folder in bytes; 0 to write none.
    """

    numbers: str = "float32"
    memory: int | None = None
    folder: Path | None = None
    disk: int = 0


@dataclass(frozen=True, slots=True)
class FilesUse:
    """The size of a folder of lines.

    Attributes:
        lines: number of lines in it, including those that are not written yet.
        bytes: size of all files, including those of other models next to them.
        budget: maximum size of all files in bytes; 0 if nothing is written.
        hits: number of lines that were found in files by this process.
    """

    lines: int
    bytes: int
    budget: int
    hits: int


@dataclass(slots=True)
class _Shard:
    """The index of a file.

    Attributes:
        path: the file.
        keys: the keys of the n lines.
        starts: (n,) the place in the file at which each line starts.
        sizes: (n,) number of bytes of each line.
        sums: (n,) checksums (CRC-32) of the lines.
        used: when the file's time of last use was written, in seconds of the monotonic clock.
    """

    path: Path
    keys: list[bytes]
    starts: Any
    sizes: Any
    sums: Any
    used: float = 0.0

    def read(self, index: int) -> ByteArray | None:
        """Read a line. None if the file was removed or is damaged.

        The file is not mapped, since the pages that were read would then count as memory of this
        process.
        """
        size = int(self.sizes[index])
        try:
            with self.path.open("rb", buffering=0) as stream:
                stream.seek(int(self.starts[index]))
                line = np.fromfile(stream, dtype=np.uint8, count=size)
            now = time.monotonic()
            if now - self.used > _USED:
                self.used = now
                os.utime(self.path)
        except OSError:
            return None
        return line if zlib.crc32(line.data) == int(self.sums[index]) else None


class _Writer:
    """Writes the lines of one kind to files.

    Attributes:
        waiting: the lines that are not written yet.
        budget: maximum size of all files below the root in bytes; 0 to write nothing.
    """

    def __init__(self, root: Path, about: Mapping[str, object], budget: int) -> None:
        """Store the arguments; see ``LineFiles``."""
        whole = {**about, "format": FORMAT_VERSION, "code": digest_code("models")}
        self.about = json.dumps(whole, sort_keys=True)
        name = hashlib.sha256(self.about.encode()).hexdigest()[:16]
        self.root, self.folder, self.budget = root, root / name, budget
        self.waiting: dict[bytes, ByteArray] = {}

    def write(self) -> None:
        """Write the lines that are waiting as one shard, and remove old shards of all models.

        If the folder cannot be written, nothing is stored.
        """
        lines = dict(self.waiting)
        self.waiting.clear()
        if not lines or not self.budget:
            return
        with contextlib.suppress(OSError, SettingsError):
            self.root.mkdir(parents=True, exist_ok=True)
            with lock_folder(self.root, wait=_WAIT):
                self.folder.mkdir(exist_ok=True)
                path = self.folder / f"{time.time_ns():x}-{secrets.token_hex(4)}.safetensors"
                write_arrays(path, _to_arrays(lines), {_ABOUT: self.about})
                _shrink(self.root, self.budget)


class LineFiles:
    """The lines of one kind in a folder.

    Attributes:
        folder: the folder, which need not exist.
    """

    def __init__(self, root: Path, about: Mapping[str, object], budget: int = 0) -> None:
        """Read the names of the lines in the folder.

        Args:
            root: the folder with a subfolder for each kind of lines. It need not exist.
            about: everything that the lines depend on, except for their tokens, as values that JSON
                can represent. The code of this package and the version of the format are added.
            budget: maximum size of all files below ``root`` in bytes; 0 to write nothing.
        """
        self._writer = _Writer(root, about, budget)
        self.folder = self._writer.folder
        self._lock = threading.Lock()
        self._shards: dict[str, _Shard] = {}
        self._places: dict[bytes, tuple[str, int]] = {}
        self._damaged: set[str] = set()  # names of shards in which a checksum was wrong
        self._scanned, self._hits = -1, 0
        self._size = 0  # of all files, when the folder was last scanned
        weakref.finalize(self, self._writer.write)
        self._scan()

    @property
    def budget(self) -> int:
        """The maximum size of all files in bytes; 0 to write nothing."""
        return self._writer.budget

    @budget.setter
    def budget(self, size: int) -> None:
        self._writer.budget = size

    def find(self, key: bytes) -> ByteArray | None:
        """Return the bytes of a line, in memory of their own, or None if it is not here."""
        with self._lock:
            waiting = self._writer.waiting.get(key)
            if waiting is not None:
                self._hits += 1
                return waiting
            if key not in self._places:
                self._scan()
            while (place := self._places.get(key)) is not None:
                name, index = place
                line = self._shards[name].read(index)
                if line is not None:
                    self._hits += 1
                    return line
                self._damaged.add(name)
                self._forget({name})
            return None

    def _scan(self) -> None:
        """Open the shards that other processes have written, and forget those that were removed."""
        try:
            changed = self.folder.stat().st_mtime_ns
            if changed == self._scanned:
                return
            names = {p.name for p in self.folder.glob(f"*{_ENDING}")}
        except OSError:
            return
        self._scanned, self._size = changed, folder_size(self._writer.root)
        gone = set(self._shards) - names
        if gone:
            self._forget(gone)
        for name in sorted(names - set(self._shards) - self._damaged):
            with contextlib.suppress(DataError, OSError, KeyError, ValueError, AttributeError):
                self._open(name)

    def _forget(self, names: set[str]) -> None:
        """Do not use some shards any longer. Other shards may hold the same lines."""
        self._shards = {n: s for n, s in self._shards.items() if n not in names}
        self._places = {
            key: (name, n) for name, s in self._shards.items() for n, key in enumerate(s.keys)
        }

    def _open(self, name: str) -> None:
        """Read the index of a shard; see ``_to_arrays`` for its contents."""
        arrays, metadata = map_arrays(self.folder / name)
        rows, starts, sizes, sums = (np.array(arrays[n]) for n in _INDEX)
        keys = [row.tobytes() for row in rows]
        fits = int((starts + sizes).max()) <= len(arrays[_DATA])
        if metadata.get(_ABOUT) != self._writer.about or not fits:
            return
        self._shards[name] = _Shard(
            self.folder / name, keys, starts + arrays[_DATA].offset, sizes, sums
        )
        self._places |= {key: (name, n) for n, key in enumerate(keys)}

    def add(self, key: bytes, line: ByteArray) -> None:
        """Store a line, which is written together with others.

        Args:
            key: 16 bytes.
            line: the bytes of the line, which must not be changed later.
        """
        with self._lock:
            waiting = self._writer.waiting
            if not self.budget or key in self._places or key in waiting:
                return
            waiting[key] = line
            if sum(one.nbytes for one in waiting.values()) >= min(SHARD, self.budget // 4):
                self._writer.write()

    def has(self, key: bytes) -> bool:
        """Check whether a line is here."""
        with self._lock:
            self._scan()
            return key in self._places or key in self._writer.waiting

    def flush(self) -> None:
        """Write the lines that are waiting. This also happens when the process ends."""
        with self._lock:
            self._writer.write()

    def use(self) -> FilesUse:
        """Return the size of the folder and how often lines were found in it."""
        with self._lock:
            self._scan()
            lines = len(self._places) + len(self._writer.waiting)
            return FilesUse(lines, self._size, self.budget, self._hits)


@dataclass(frozen=True, slots=True)
class FolderUse:
    """The files with lines of one model.

    Attributes:
        lines: number of lines.
        bytes: size of the files.
        used: time at which one of them was last used, in seconds since 1970.
        about: the hash of the weights, the data type and the device.
    """

    lines: int
    bytes: int
    used: float
    about: str


def describe_folder(root: Path) -> dict[str, FolderUse]:
    """Describe each subfolder of a folder with lines. Damaged files are left out."""
    found: dict[str, FolderUse] = {}
    for used, size, path in _list_shards(root):
        with contextlib.suppress(DataError, OSError, KeyError, ValueError):
            arrays, metadata = map_arrays(path)
            before = found.get(path.parent.name)
            lines = len(arrays[_INDEX[0]]) + (0 if before is None else before.lines)
            total = size + (0 if before is None else before.bytes)
            about = str(json.loads(metadata[_ABOUT])["model"])
            found[path.parent.name] = FolderUse(lines, total, used, about)
    return found


def folder_size(root: Path) -> int:
    """Return the size in bytes of all shards below a folder with lines."""
    return sum(size for _, size, _ in _list_shards(root))


def _list_shards(root: Path) -> list[tuple[float, int, Path]]:
    """List the time of last use, the size and the path of each shard, oldest first."""
    found = []
    for path in root.glob(f"*/*{_ENDING}"):
        with contextlib.suppress(OSError):  # another process has removed it
            about = path.stat()
            found.append((about.st_mtime, about.st_size, path))
    return sorted(found)


def _shrink(root: Path, budget: int) -> None:
    """Remove the shards that were used least recently until the others fit the budget."""
    shards = _list_shards(root)
    size = sum(size for _, size, _ in shards)
    for _, own, path in shards:
        if size <= budget:
            return
        with contextlib.suppress(OSError):  # Windows does not remove a file that is mapped
            path.unlink()
            size -= own
            with contextlib.suppress(OSError):  # it is not empty
                path.parent.rmdir()


def _to_arrays(lines: Mapping[bytes, ByteArray]) -> dict[str, Any]:
    """Return the arrays of a shard: (n, 16) keys, and for each line its place and checksum."""
    sizes = np.array([line.nbytes for line in lines.values()], dtype=np.int64)
    return {
        _INDEX[0]: np.frombuffer(b"".join(lines), dtype=np.uint8).reshape(len(lines), -1),
        _INDEX[1]: (np.cumsum(sizes) - sizes).astype(np.uint64),
        _INDEX[2]: sizes.astype(np.uint64),
        _INDEX[3]: np.array([zlib.crc32(line.data) for line in lines.values()], dtype=np.uint32),
        _DATA: np.concatenate(list(lines.values())),
    }
