"""Write files and folders atomically, by writing to a temporary path and renaming it.

Readers see either the old content or the new content, never a mixture. This module does not
interpret what the files contain.
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
    """Write a file atomically by writing a temporary file and then renaming it.

    If ``fill`` fails, the old file is left unchanged and the temporary file is removed. If the
    process is killed, the temporary file may be left behind (see ``temporary_file``).

    Args:
        path: the file to write, in an existing folder.
        fill: a function that writes the content to the path it receives.

    Raises:
        OSError: the file cannot be written or renamed. Exceptions from ``fill`` are passed on.
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
    """Return the path of the hidden temporary file that ``write_file`` uses for a given file.

    >>> temporary_file(Path("run.json")).name
    '.run.json.new'
    """
    return path.with_name(f".{path.name}.new")


def write_text(path: Path, text: str) -> None:
    """Write a text to a UTF-8 file atomically, without converting its line endings."""
    write_file(path, lambda work: work.write_bytes(text.encode("utf-8")))


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder atomically, replacing any existing folder at the same path as a whole.

    The files are first written into a hidden folder next to the path, which is then renamed. If
    ``fill`` or the renaming fails, the old folder is left unchanged. If the process is killed, a
    hidden folder may be left behind. In the worst case, it holds the only copy of the old files.

    Args:
        path: the folder to write; missing parents are created.
        fill: a function that writes the files into the folder it receives.

    Raises:
        OSError: a folder cannot be created or moved. Exceptions from ``fill`` are passed on.
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
    """Rename a finished folder to its final path.

    A folder that already exists at this path is set aside first and removed afterwards.
    """
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
        if path.exists():  # if not, the folder set aside is the only copy, so keep it
            shutil.rmtree(aside, ignore_errors=True)


def write_arrays(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write named NumPy arrays to a safetensors file atomically.

    Args:
        path: the file to write.
        arrays: the arrays by name.
        metadata: strings to store in the file's header, by name.
    """
    import numpy as np
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def fill(work: Path) -> None:
        save_file(contiguous, work, metadata=dict(metadata))
        work.chmod(0o644)  # safetensors makes the file readable by its owner only

    write_file(path, fill)


def map_arrays(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Map the arrays of a safetensors file into memory without reading the whole file.

    Returns:
        The read-only arrays by name, and the file's metadata.

    Raises:
        DataError: the file is missing, or its header does not match its size.
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
