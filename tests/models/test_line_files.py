from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.models import line_files
from genrec.models.line_files import LineFiles, LineOptions, describe_folder, folder_size
from genrec.models.line_store import LineStore

ABOUT = {"model": "tiny float32 cpu"}


def key(n: int) -> bytes:
    return n.to_bytes(16, "little")


def line(n: int, size: int = 1000) -> Any:
    return np.random.default_rng(n).integers(0, 256, size, dtype=np.uint8)


def same(found: Any, n: int) -> bool:
    return found is not None and np.array_equal(found, line(n))


def filled(root: Path, names: range, size: int = 1000, budget: int = 1 << 20) -> LineFiles:
    files = LineFiles(root, ABOUT, budget)
    for n in names:
        files.add(key(n), line(n, size))
    files.flush()
    return files


def test_another_process_finds_the_lines(tmp_path: Path) -> None:
    ours = LineFiles(tmp_path, ABOUT, 1 << 20)
    ours.add(key(1), line(1))
    assert same(ours.find(key(1)), 1)  # not written yet
    other = LineFiles(tmp_path, ABOUT)
    assert other.find(key(1)) is None
    ours.flush()
    assert same(other.find(key(1)), 1)
    assert other.find(key(2)) is None
    filled(tmp_path, range(2, 4))
    assert same(other.find(key(2)), 2)
    assert other.use().hits == 2
    assert other.use().lines == 3
    assert other.use().bytes == folder_size(tmp_path) > 3000


def test_lines_of_other_models_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, range(3))
    other = LineFiles(tmp_path, {"model": "tiny float32 cuda"})
    assert other.find(key(1)) is None
    monkeypatch.setattr(line_files, "digest_code", lambda package: "changed")
    assert LineFiles(tmp_path, ABOUT).find(key(1)) is None
    (about,) = describe_folder(tmp_path).values()
    assert (about.lines, about.about) == (3, ABOUT["model"])


def test_nothing_is_written_without_a_budget(tmp_path: Path) -> None:
    filled(tmp_path / "lines", range(3), budget=0)
    assert not (tmp_path / "lines").exists()


def test_the_budget_is_kept_and_old_shards_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = 20_000
    files = LineFiles(tmp_path, ABOUT, budget)
    for n in range(60):
        files.add(key(n), line(n))
        if n % 4 == 3:
            files.flush()
            for path in tmp_path.glob("*/*.safetensors"):
                before = path.stat().st_mtime - 1000  # in the same order as before
                os.utime(path, (before, before))
            monkeypatch.setattr(line_files, "_USED", -1.0)
            assert files.find(key(0)) is not None  # so its shard was used last
            assert folder_size(tmp_path) <= budget
    assert files.find(key(59)) is not None
    assert files.find(key(20)) is None
    other = LineFiles(tmp_path, {"model": "another"}, budget)
    for n in range(8):
        other.add(key(n), line(n))
    other.flush()
    assert folder_size(tmp_path) <= budget  # the budget is that of all models together


def test_large_lines_are_written_before_the_end(tmp_path: Path) -> None:
    files = LineFiles(tmp_path, ABOUT, 1 << 30)
    for n in range(9):
        files.add(key(n), line(n, 1 << 20))
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1
    del files  # the rest is written when the object goes
    assert LineFiles(tmp_path, ABOUT).use().lines == 9


@pytest.mark.parametrize("damage", ["cut", "changed", "header", "empty"])
def test_damaged_files_count_as_missing(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, range(3))
    (path,) = tmp_path.glob("*/*.safetensors")
    whole = bytearray(path.read_bytes())
    start = whole.find(line(1).tobytes())
    whole[start + 5] ^= 1
    path.unlink()
    new = {"cut": bytes(whole[:-500]), "changed": bytes(whole), "header": b"x" * 99, "empty": b""}
    path.with_name("other.safetensors").write_bytes(new[damage])
    files = LineFiles(tmp_path, ABOUT, 1 << 20)
    assert files.find(key(1)) is None
    files.add(key(1), line(1))
    files.flush()
    assert same(LineFiles(tmp_path, ABOUT).find(key(1)), 1)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a file", encoding="utf-8")
    files = filled(tmp_path / "lines", range(3))
    assert files.find(key(1)) is None


def _work(root: Path, start: int) -> None:
    files = LineFiles(root, ABOUT, 1 << 20)
    for n in range(start, start + 12):
        files.add(key(n % 16), line(n % 16))
        files.flush()
        found = files.find(key(n % 16))
        assert found is not None
        assert np.array_equal(found, line(n % 16))


def test_several_processes_write_and_read(tmp_path: Path) -> None:
    context: Any = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    workers = [context.Process(target=_work, args=(tmp_path, 4 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    files = LineFiles(tmp_path, ABOUT)
    for n in range(16):
        assert same(files.find(key(n)), n)


def test_the_store_reads_from_files_into_memory(tmp_path: Path) -> None:
    options = LineOptions(memory=2500, folder=tmp_path, disk=1 << 20)
    store = LineStore()
    store.configure(options, "m")
    for n in range(5):
        store.put(key(n), torch.from_numpy(line(n)))
    use = store.use()
    assert (use.lines, use.budget, use.dropped) == (2, 2500, 3)
    store.flush()
    fresh = LineStore()
    fresh.configure(options, "m")
    failed: list[int] = []

    def work(start: int) -> None:
        for step in range(40):
            n = (start + step) % 5
            found = fresh.get(key(n))
            if found is None or not np.array_equal(found.numpy(), line(n)):
                failed.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    use = fresh.use()
    assert not failed
    assert use.hits == 120
    assert use.files is not None
    assert 0 < use.files.hits <= 120
    assert use.bytes <= 2500
    assert fresh.get(key(9)) is None
    assert use.to_dict()["disk_lines"] == 5
    fresh.configure(LineOptions(), "m")
    assert fresh.use().files is None
