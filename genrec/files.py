"""Write files and folders atomically, by writing to a temporary path and renaming it.

Readers see either the old content or the new content, never a mixture. New files and folders get
the permissions that the umask allows. Other functions check that paths can be written, before any
slow work is done. This module does not interpret what the files contain.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genrec.errors import DataError, SettingsError

LOCK = ".lock"  # the file by which ``lock_folder`` locks a folder
_DAY = 86_400.0  # seconds


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
    with os_errors(path):
        work = temporary_file(path)
        try:
            work.touch(exist_ok=False)
            allowed = _mode(work)
            fill(work)
            if _mode(work) != allowed:  # safetensors makes files that only their owner can read
                work.chmod(allowed)
            with work.open("r+b") as stream:
                os.fsync(stream.fileno())
            work.replace(path)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
        _remove_left_behind(path)


def temporary_file(path: Path) -> Path:
    """Return a new path for the hidden temporary file that ``write_file`` uses for a given file.

    Every call returns a different path, so that two processes can write the same file at once.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")


def final_name(name: str) -> str:
    """Return the name of the file for which a temporary file was written.

    The name of any other file is returned unchanged.

    >>> final_name(".run.json.0a1b2c3d.new"), final_name(".run.json.new"), final_name("run.json")
    ('run.json', 'run.json', 'run.json')
    """
    found = re.fullmatch(r"\.(.+?)(\.[0-9a-f]{8})?\.new", name)
    return found[1] if found else name


def _remove_left_behind(path: Path) -> None:
    """Remove temporary files for a path that a killed process left behind at least a day ago."""
    with contextlib.suppress(OSError):
        for other in path.parent.iterdir():
            if other.name != path.name and final_name(other.name) == path.name:
                with contextlib.suppress(OSError):
                    if time.time() - other.stat().st_mtime > _DAY:
                        other.unlink()


def _mode(path: Path) -> int:
    """Return the permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Convert every failure to write a path into an OSError that names the path.

    safetensors and tokenizers report a full disk or a missing permission with exceptions that are
    not OSErrors. pyarrow and Python's streams leave out the path, and other libraries name the
    temporary path.
    """
    try:
        yield
    except OSError as error:
        hidden = str(path.with_name(f".{path.name}"))
        if error.errno and (error.filename is None or str(error.filename).startswith(hidden)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    except Exception as error:
        found = re.search(r"([^:]*) \(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[2]), found[1].strip(), str(path)) from error


def real_path(path: str | Path) -> Path:
    """Return the absolute path of a file or folder, with all symbolic links resolved."""
    return Path(os.path.realpath(path))  # Path.resolve raises an error for links in a circle


def describe_error(error: OSError) -> str:
    """Return the operating system's reason for an error, such as "permission denied"."""
    return (error.strerror or str(error)).lower()


def write_text(path: Path, text: str) -> None:
    """Write a text to a UTF-8 file atomically, without converting its line endings."""
    write_file(path, lambda work: work.write_bytes(text.encode("utf-8")))


def append_text(path: Path, text: str) -> None:
    """Append a text to a UTF-8 file, such as a line to a log.

    Raises:
        OSError: the file cannot be written, or only the beginning of the text could be written.
    """
    with os_errors(path), path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)


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
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = _new_folder(path, "")
        try:
            fill(work)
            apply_umask(work)
            _swap(work, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _new_folder(path: Path, kind: str) -> Path:
    """Create a new hidden folder next to a path."""
    work = path.with_name(f".{path.name}-{kind}{secrets.token_hex(4)}")
    work.mkdir()
    return work


def apply_umask(folder: Path) -> None:
    """Give everything in a folder the permissions that the umask allowed for the folder itself.

    Some libraries create files that only their owner can read, regardless of the umask.
    """
    allowed = _mode(folder) & 0o777
    for path in folder.rglob("*"):
        mode = _mode(path)
        wanted = (mode & ~0o777) | (allowed if path.is_dir() else allowed & 0o666)
        if mode != wanted:
            path.chmod(wanted)


def _swap(new: Path, path: Path) -> None:
    """Rename a finished folder to its final path.

    A folder that already exists at this path is set aside first and removed afterwards.
    """
    if not path.exists():
        new.rename(path)
        return
    aside = _new_folder(path, "old-")
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
        arrays: the arrays, keyed by name.
        metadata: strings to store in the file's header, keyed by name.
    """
    import numpy as np
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_file(path, lambda work: save_file(contiguous, work, metadata=dict(metadata)))


def map_arrays(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Map the arrays of a safetensors file into memory without reading the whole file.

    Returns:
        The read-only arrays, keyed by name, and the file's metadata.

    Raises:
        DataError: the file is missing or unreadable, or its header does not match its size.
    """
    import numpy as np

    kinds = {
        "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "I64": np.int64,
        "F32": np.float32, "F64": np.float64,
    }  # fmt: skip
    if problem := describe_unreadable(path):
        raise DataError(problem)
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
        msg = f"{path} cannot be read ({error}). Expected a complete safetensors file; create it again."
        raise DataError(msg) from error
    return arrays, metadata


def describe_unreadable(path: Path) -> str:
    """Describe which file the user lacks permission to read, given the path of a file or folder.

    The result is empty if there is no such file, or if the path does not exist.
    """
    try:
        each = path
        for each in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
            each.open("rb").close()
    except PermissionError:
        return (
            f"{each} cannot be read by this user (permission denied). Expected a readable file; "
            "its owner can grant access, for example with `chmod -R a+rX`."
        )
    except OSError:
        pass
    return ""


def find_write_problem(path: Path, *, kind: str = "file") -> str:
    """Describe why a path cannot be written, or return an empty string if it can.

    This is tested by writing a small hidden file and removing it again. Missing parent folders are
    not a problem, since they are created later.

    Args:
        path: the file or folder.
        kind: ``file``; ``folder`` for files that are written into a folder; ``new folder`` for a
            folder that is written under a temporary name and then renamed.
    """
    path = path.absolute()
    try:
        if kind == "file" and path.is_dir():
            return "it is a folder, not a file"
        if kind != "file" and path.exists() and not path.is_dir():
            return "it is a file, not a folder"
        place = path if kind == "folder" else path.parent
        nearest = next(p for p in (place, *place.parents) if p.exists())
        if not nearest.is_dir():
            return f"{nearest} is a file, not a folder"
        probe = nearest / f".genrec-{secrets.token_hex(4)}"
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return describe_error(error)
    return ""


def check_output(path: str | Path, *, kind: str = "file", advice: str = "") -> None:
    """Check that a path can be written, before any slow work is done.

    Args:
        path: the file or folder.
        kind: see ``find_write_problem``.
        advice: a sentence that tells the user what to do if the path cannot be written; by
            default, it says to choose another path.

    Raises:
        SettingsError: the path cannot be written.
    """
    problem = find_write_problem(Path(path), kind=kind)
    if problem:
        expected = (
            f"Expected a {kind.removeprefix('new ')} that you have permission to write, on a disk "
            "with free space."
        )
        advice = advice or "Choose another path."
        msg = f"{path} cannot be written: {problem}. {expected} {advice}"
        raise SettingsError(msg)


def check_new_folder(folder: Path) -> None:
    """Check that a new folder can be written, before any slow work is done.

    Raises:
        SettingsError: the folder is not empty or cannot be written.
    """
    check_output(folder, kind="new folder")
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty. Nothing was changed. Expected a new or empty folder."
        raise SettingsError(msg)


@contextlib.contextmanager
def lock_folder(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Keep other processes from writing to a folder at the same time.

    The operating system releases the lock when the process ends, even if it is killed, so an old
    lock file never blocks a folder. The file names the process that holds the lock. The folder is
    created if it is missing, and removed again if it is still empty at the end.

    Args:
        folder: the folder to lock.
        wait: number of seconds to wait for another process to release the lock.

    Raises:
        SettingsError: another process holds the lock, or the folder cannot be written.
    """
    import filelock

    check_output(folder, kind="folder")
    created = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = filelock.FileLock(path, mode=0o666, thread_local=False)  # for every user
    try:
        try:
            lock.acquire(timeout=wait)
        except filelock.Timeout:
            msg = (
                f"{folder} is in use by {_describe_holder(path)}. Nothing was changed. Wait until it "
                "has finished, stop it, or choose another folder."
            )
            raise SettingsError(msg) from None
        with os_errors(path):
            if type(lock) is filelock.FileLock:  # another kind has its own content
                about = {"process": os.getpid(), "host": platform.node()}
                path.write_text(json.dumps(about), encoding="utf-8")
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows does not remove an open file
                path.unlink()
            lock.release()
        for place in created:
            with contextlib.suppress(OSError):  # it is no longer empty
                place.rmdir()


def _describe_holder(path: Path) -> str:
    """Describe the process that holds a lock, using the lock file if it can be read."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
