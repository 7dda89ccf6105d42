"""Files and folders are replaced in one piece, or stay as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genrec import files


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
