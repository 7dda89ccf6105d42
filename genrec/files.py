"""Folders written in one piece: filled beside their place, then put into it. Knows files only."""

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


def write(place: Path, fill: Callable[[Path], None]) -> None:
    """Fills a new folder and puts it in a place, in which there may be an old one.

    What fails leaves the old one as it was. A process that dies leaves the old one, the new one,
    or a hidden folder beside them.

    Args:
        place: where it is to be.
        fill: writes files into the folder that it is given.

    Raises:
        OSError: a folder cannot be made or moved; or what ``fill`` raises.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        fill(work)
        work.chmod(0o755)
        _swap(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    """Puts a finished folder in its place; an old one is moved aside first and then removed."""
    if not place.exists():
        new.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}-old-", dir=place.parent))
    try:
        place.rename(old / "old")
        try:
            new.rename(place)
        except BaseException:
            (old / "old").rename(place)
            raise
    finally:
        if place.exists():  # else the old one could not be put back, and this is the only copy
            shutil.rmtree(old, ignore_errors=True)


def write_arrays(path: Path, arrays: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Writes NumPy arrays as a safetensors file: beside its place first, then renamed into it.

    Args:
        path: of the file; what is beside it for a moment ends in ``.new`` instead.
        arrays: by name.
        about: the file's metadata.
    """
    import numpy as np
    from safetensors.numpy import save_file

    new = path.with_suffix(".new")
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, new, metadata=dict(about))
    new.chmod(0o644)  # safetensors writes it for its owner only
    new.replace(path)


def map_arrays(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of a safetensors file, mapped into memory and read-only, and its metadata.

    Raises:
        DataError: the file is not there, or its header and size do not belong together.
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
        about = header.pop("__metadata__", {})
        arrays = {}
        for name, entry in header.items():
            kind, shape = np.dtype(kinds[entry["dtype"]]), tuple(entry["shape"])
            first, last = entry["data_offsets"]
            if last - first != kind.itemsize * math.prod(shape):
                raise ValueError(f"{name} has another size than it says")
            arrays[name] = (
                np.memmap(path, kind, "r", 8 + size + first, shape)
                if last > first
                else np.empty(shape, kind)
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} cannot be read ({error}). Expected a whole safetensors file; write it again."
        raise DataError(msg) from error
    return arrays, about


def write_text(path: Path, text: str) -> None:
    """Writes a file beside its place and renames it."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)
