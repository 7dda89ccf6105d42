"""Files and folders are replaced in one piece, or stay as they were."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from support import tiny
from support.limits import full_disk, modes, permissions_that_bind, read_only, umask

from genrec import files
from genrec.errors import DataError, SettingsError


def filled(text: str) -> Any:
    def fill(folder: Path) -> None:
        (folder / "a.txt").write_text(text)

    return fill


def refuse(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Let some of the next renames fail, counted from 1."""
    first, done = Path.rename, list[None]()

    def rename(self: Path, target: Path) -> Path:
        done.append(None)
        if len(done) in calls:
            raise OSError(28, "No space left on device")
        return first(self, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_a_folder_is_made_with_those_above_it_and_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "one"
    files.write_folder(place, filled("first"))
    (place / "more.txt").write_text("x")
    files.write_folder(place, filled("second"))
    assert [p.name for p in place.iterdir()] == ["a.txt"]
    assert (place / "a.txt").read_text() == "second"
    assert [p.name for p in place.parent.iterdir()] == ["one"]
    assert place.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_what_fails_while_it_fills_leaves_the_old_folder(
    tmp_path: Path, error: type[BaseException]
) -> None:
    files.write_folder(tmp_path / "one", filled("first"))

    def fill(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise error

    with pytest.raises(error):
        files.write_folder(tmp_path / "one", fill)
    with pytest.raises(error):
        files.write_folder(tmp_path / "two", fill)
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one" / "a.txt").read_text() == "first"


@pytest.mark.parametrize("call", [1, 2])
def test_what_cannot_be_moved_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    files.write_folder(tmp_path / "one", filled("first"))
    refuse(monkeypatch, call)
    with pytest.raises(OSError, match="No space left"):
        files.write_folder(tmp_path / "one", filled("second"))
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one" / "a.txt").read_text() == "first"


def test_an_old_folder_that_cannot_be_put_back_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_folder(tmp_path / "one", filled("first"))
    refuse(monkeypatch, 2, 3)
    with pytest.raises(OSError, match="No space left"):
        files.write_folder(tmp_path / "one", filled("second"))
    (beside,) = tmp_path.iterdir()
    assert beside.name.startswith(".one-old-")
    assert (beside / "old" / "a.txt").read_text() == "first"


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "first\n")
    assert path.read_bytes() == b"first\n"

    def fill(work: Path) -> None:
        work.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.write_file(path, fill)
    assert path.read_text() == "first\n"
    files.write_text(path, "second")
    assert path.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def weights(path: Path) -> None:
    save_file({"a": np.arange(2000.0)}, path)


WRITERS: dict[str, Any] = {
    "safetensors": weights,
    "arrow": lambda path: pq.write_table(
        pa.table({"a": np.random.default_rng(0).random(2000)}), path
    ),
    "text": lambda path: path.write_text("x" * 9000),
    "tokenizers": lambda path: tiny.tokenizer("llama").backend_tokenizer.save(str(path)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_modes_are_those_of_the_umask(tmp_path: Path, writer: str, mask: int) -> None:
    def fill(folder: Path) -> None:
        (folder / "inner").mkdir()
        WRITERS[writer](folder / "inner" / "file")

    with umask(mask):
        (tmp_path / "plain").write_text("x")  # what the system itself gives
        (tmp_path / "folder").mkdir()
        files.write_file(tmp_path / "file", WRITERS[writer])
        files.write_folder(tmp_path / "more" / "one", fill)
        files.write_folder(tmp_path / "more" / "one", fill)
    found = modes(tmp_path)
    assert {found[n] for n in ("plain", "file", "more/one/inner/file")} == {0o666 & ~mask}
    assert {found[n] for n in ("folder", "more", "more/one", "more/one/inner")} == {0o777 & ~mask}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_every_library_s_full_disk_is_an_os_error_that_names_the_path(
    tmp_path: Path, writer: str, kind: str
) -> None:
    def fill(folder: Path) -> None:
        WRITERS[writer](folder / "file")

    write: Any = files.write_file if kind == "file" else files.write_folder
    with full_disk(100), pytest.raises(OSError, match="ile too large") as caught:
        write(tmp_path / "one", WRITERS[writer] if kind == "file" else fill)
    assert caught.value.filename == str(tmp_path / "one")
    assert files.describe_error(caught.value) == "file too large"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_refused_folder_is_an_os_error_too(tmp_path: Path, writer: str) -> None:
    with read_only(tmp_path), pytest.raises(PermissionError) as caught:
        files.write_file(tmp_path / "one", WRITERS[writer])
    assert caught.value.filename == str(tmp_path / "one")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.os_errors(tmp_path):
        _ = 1 // 0
    with pytest.raises(FileNotFoundError) as caught, files.os_errors(tmp_path):
        (tmp_path / "elsewhere").read_text()
    assert caught.value.filename == str(tmp_path / "elsewhere")


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    """One writer is held up until the other is done; both files were whole."""
    path, begun, done = tmp_path / "one", threading.Event(), threading.Event()

    def slow(work: Path) -> None:
        work.write_text("slow")
        begun.set()
        assert done.wait(10)

    thread = threading.Thread(target=files.write_file, args=(path, slow))
    thread.start()
    assert begun.wait(10)
    files.write_text(path, "quick")
    assert path.read_text() == "quick"
    done.set()
    thread.join()
    assert path.read_text() == "slow"
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_process_left_is_removed_later(tmp_path: Path) -> None:
    old, new, foreign = (tmp_path / n for n in (".a.00000000.new", ".a.11111111.new", ".b.new"))
    for path in (old, new, foreign):
        path.write_text("half")
    os.utime(old, (time.time() - 200_000,) * 2)
    os.utime(foreign, (time.time() - 200_000,) * 2)
    files.write_text(tmp_path / "a", "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"a", new.name, foreign.name}


HOLD = """
import sys, time
from pathlib import Path
from genrec import files
with files.lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Start a process that locks a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_names_its_process_and_ends_with_it(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "one"
    other = hold(place)
    try:
        for wait in (0.0, 0.1):
            with (
                pytest.raises(SettingsError, match="is in use by process") as caught,
                files.lock_folder(place, wait=wait),
            ):
                pytest.fail("the lock was given twice")
            assert f"process {other.pid} on {platform.node()}" in str(caught.value)
    finally:
        other.send_signal(signal.SIGKILL)
        assert other.stdout is not None
        other.stdout.close()
        other.wait()
    assert (place / files.LOCK).exists()  # left behind, and it blocks nobody
    with files.lock_folder(place):
        assert json.loads((place / files.LOCK).read_text())["process"] == os.getpid()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "content", ['{"process": 1, "host": "elsewhere"}', "", "1\nelsewhere\n", "\0"]
)
def test_an_old_lock_file_does_not_block(tmp_path: Path, content: str) -> None:
    (tmp_path / files.LOCK).write_text(content)
    with files.lock_folder(tmp_path):
        assert json.loads((tmp_path / files.LOCK).read_text())["host"] == platform.node()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_holds_within_a_process_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with umask(0o077), files.lock_folder(place):
        assert modes(place) == {files.LOCK: 0o666}  # another user can lock a file left behind
        with pytest.raises(SettingsError, match="in use"), files.lock_folder(place):
            pytest.fail("the lock was given twice")
        assert (place / files.LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with files.lock_folder(place):
        (place / "kept").write_text("x")
    assert [p.name for p in place.iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_written_is_not_locked(tmp_path: Path) -> None:
    with (
        read_only(tmp_path),
        pytest.raises(SettingsError, match="cannot be written: permission denied"),
        files.lock_folder(tmp_path / "one"),
    ):
        pytest.fail("it was locked")


@pytest.mark.parametrize("mode", [0, 0o200])
def test_unreadable_files_are_named(tmp_path: Path, mode: int) -> None:
    (tmp_path / "one").mkdir()
    path = tmp_path / "one" / "w.safetensors"
    files.write_arrays(path, {"a": np.arange(3)}, {})
    assert files.describe_unreadable(path) == files.describe_unreadable(tmp_path / "one") == ""
    assert files.describe_unreadable(tmp_path / "none") == ""
    path.chmod(mode)
    with permissions_that_bind():
        for each in (path, path.parent):
            assert f"{path} cannot be read by this user" in files.describe_unreadable(each)
        with pytest.raises(DataError, match="cannot be read by this user"):
            files.map_arrays(path)
        path.parent.chmod(mode)
        for each in (path, path.parent):
            assert "cannot be read by this user" in files.describe_unreadable(each)
    path.parent.chmod(0o755)
