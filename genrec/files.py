"""Write files and folders in one piece: beside their place first, then renamed into it.

A reader sees the old content or the new one, never half of it. Knows files, nothing of what is in
them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genrec.errors import DataError


def write_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Write a file in one piece: to a temporary file, flushed to disk, then renamed.

    If ``fill`` fails, the old file stays as it was and the temporary one is removed. A process
    that is killed may leave the temporary file behind (see ``temporary_file``).

    Args:
        path: the file to write, in an existing folder.
        fill: writes the content to the path that it is given.

    Raises:
        OSError: the file cannot be written or renamed; or whatever ``fill`` raises.
    """
    work = temporary_file(path)
    try:
        fill(work)
        with work.open("r+b") as stream:
            os.fsync(stream.fileno())
        work.replace(path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def temporary_file(path: Path) -> Path:
    """Return the hidden file in the same folder that holds a file's content until it is renamed.

    >>> temporary_file(Path("run.json")).name
    '.run.json.new'
    """
    return path.with_name(f".{path.name}.new")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, in one piece; line ends stay as they are on every system."""
    write_file(path, lambda work: work.write_bytes(text.encode("utf-8")))


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder and move it to its path, where it replaces an older one as a whole.

    If ``fill`` or the move fails, the old folder stays as it was. A process that is killed leaves
    the old folder, the new one, or a hidden folder beside them.

    Args:
        path: the folder to write; missing parents are made.
        fill: writes the files into the folder that it is given.

    Raises:
        OSError: a folder cannot be made or moved; or whatever ``fill`` raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        fill(work)
        work.chmod(0o755)
        _swap(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Move a finished folder to its path; an old folder is set aside first and removed after."""
    if not path.exists():
        new.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
    try:
        path.rename(aside / "old")
        try:
            new.rename(path)
        except BaseException:
            (aside / "old").rename(path)
            raise
    finally:
        if path.exists():  # otherwise the old folder could not be moved back: keep the only copy
            shutil.rmtree(aside, ignore_errors=True)


def write_arrays(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write named NumPy arrays as a safetensors file, in one piece.

    Args:
        path: the file to write.
        arrays: the arrays by name.
        metadata: the texts by name that the file's header holds.
    """
    import numpy as np
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def fill(work: Path) -> None:
        save_file(contiguous, work, metadata=dict(metadata))
        work.chmod(0o644)  # safetensors writes it for its owner only

    write_file(path, fill)


def map_arrays(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Map the arrays of a safetensors file into memory, read-only.

    Returns:
        The arrays by name, and the file's metadata.

    Raises:
        DataError: the file is missing, or its header does not fit its size.
    """
    import numpy as np

    kinds = {
        "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "I64": np.int64,
        "F32": np.float32, "F64": np.float64,
    }  # fmt: skip
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(size))
        metadata = header.pop("__metadata__", {})
        arrays = {}
        for name, entry in header.items():
            kind, shape = np.dtype(kinds[entry["dtype"]]), tuple(entry["shape"])
            first, last = entry["data_offsets"]
            if last - first != kind.itemsize * math.prod(shape):
                raise ValueError(f"the size of {name} does not match its shape")
            arrays[name] = (
                np.memmap(path, kind, "r", 8 + size + first, shape)
                if last > first
                else np.empty(shape, kind)
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} cannot be read ({error}). Expected a complete safetensors file; write it again."
        raise DataError(msg) from error
    return arrays, metadata
