"""Results are found under what they depend on, whatever other processes or the disk do."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.limits import full_disk, permissions_that_bind, read_only

from genrec import cache
from genrec.cache import Cache, digest_code, package_versions

ABOUT = {"seed": 1, "names": ["a", "b"], "title": "Mug \ud800"}
ARRAYS = {"a": np.arange(5.0), "b": np.array([[1, 2]]), "none": np.empty((0, 3), dtype=np.uint8)}


def kept(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_result_is_found_under_its_description(tmp_path: Path) -> None:
    box = Cache(tmp_path / "new" / "cache")
    assert box.read("prior", ABOUT) is None
    assert kept(tmp_path) == []
    box.write("prior", ABOUT, ARRAYS, {"note": "hello"})
    found = box.read("prior", {**ABOUT, "names": ("a", "b")})  # a tuple is a list in JSON
    assert found is not None
    arrays, metadata = found
    assert metadata == {"note": "hello"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].tolist() == array.tolist()
    with pytest.raises(ValueError, match="read-only"):
        arrays["a"][0] = 1.0
    assert len(kept(tmp_path / "new" / "cache")) == 1


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"names": ["b", "a"]}, {"title": "Mug"}, {"more": None}], ids=str
)
def test_another_description_is_another_result(tmp_path: Path, change: dict[str, object]) -> None:
    box = Cache(tmp_path)
    box.write("prior", ABOUT, ARRAYS, {})
    assert box.read("prior", {**ABOUT, **change}) is None
    assert box.read("trie", ABOUT) is None
    box.write("prior", {**ABOUT, **change}, {"c": np.ones(2)}, {})
    assert (box.read("prior", ABOUT) or [{}])[0].keys() == ARRAYS.keys()


def test_a_file_of_another_description_is_not_used(tmp_path: Path) -> None:
    box = Cache(tmp_path)
    box.write("prior", ABOUT, ARRAYS, {})
    box.write("prior", {"seed": 2}, ARRAYS, {})
    one, two = sorted(tmp_path.iterdir())
    one.write_bytes(two.read_bytes())  # as if two descriptions had the same hash
    assert [box.read("prior", about) is None for about in (ABOUT, {"seed": 2})].count(True) == 1


def test_a_later_version_does_not_read_what_this_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path).write("prior", ABOUT, ARRAYS, {})
    monkeypatch.setattr(cache, "FORMAT_VERSION", cache.FORMAT_VERSION + 1)
    assert Cache(tmp_path).read("prior", ABOUT) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: b"\xff" * len(data),
        lambda data: data[:8] + b"null" + data[12:],
    ],
)
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    box = Cache(tmp_path)
    box.write("prior", ABOUT, ARRAYS, {})
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert box.read("prior", ABOUT) is None
    box.write("prior", ABOUT, ARRAYS, {})
    assert box.read("prior", ABOUT) is not None


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with read_only(tmp_path):
        Cache(folder).write("prior", ABOUT, ARRAYS, {})
        assert Cache(folder).read("prior", ABOUT) is None
    folder.write_text("a file")
    Cache(folder).write("prior", ABOUT, ARRAYS, {})
    assert Cache(folder).read("prior", ABOUT) is None
    folder.unlink()
    with full_disk(50):
        Cache(folder).write("prior", ABOUT, ARRAYS, {})
    assert kept(folder) == []
    Cache(None).write("prior", ABOUT, ARRAYS, {})
    assert Cache(None).read("prior", ABOUT) is None


def test_what_may_not_be_read_counts_as_missing(tmp_path: Path) -> None:
    box = Cache(tmp_path)
    box.write("prior", ABOUT, ARRAYS, {})
    (path,) = tmp_path.iterdir()
    path.chmod(0)
    with permissions_that_bind():
        assert box.read("prior", ABOUT) is None
    path.chmod(0o644)


def test_the_results_written_last_are_kept(tmp_path: Path) -> None:
    box = Cache(tmp_path)
    box.write("trie", ABOUT, ARRAYS, {})
    for seed in range(cache.KEPT + 3):
        box.write("prior", {"seed": seed}, ARRAYS, {})
        for path in tmp_path.iterdir():  # make all older, since times may be coarse
            os.utime(path, (time.time(), path.stat().st_mtime - 10))
    found = [seed for seed in range(cache.KEPT + 3) if box.read("prior", {"seed": seed})]
    assert found == list(range(3, cache.KEPT + 3))
    assert box.read("trie", ABOUT) is not None


def _write_and_read(folder: str, number: int) -> None:
    box = Cache(Path(folder))
    values = np.full(20_000, 7.0)
    for _ in range(20):
        box.write("prior", ABOUT, {"a": values}, {})
        found = box.read("prior", ABOUT)
        assert found is not None
        assert (found[0]["a"] == values).all()
        box.write("prior", {"by": number}, {"a": values}, {})


def test_several_processes_write_the_same_result(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_and_read, args=(str(tmp_path), n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(kept(tmp_path)) == 4
    assert not [name for name in kept(tmp_path) if name.startswith(".")]


def test_the_user_s_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.find_user_folder() == tmp_path / "genrec"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.find_user_folder() == tmp_path / ".cache" / "genrec"

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache.find_user_folder() is None


def test_the_code_is_part_of_a_description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert digest_code("priors") == digest_code("priors") != digest_code("data")
    package = tmp_path / "genrec"
    (package / "priors" / "inner").mkdir(parents=True)
    source = package / "priors" / "inner" / "counts.py"
    source.write_text("a = 1")
    monkeypatch.setattr(cache, "__file__", str(package / "cache.py"))
    digest_code.cache_clear()
    before = digest_code("priors")
    source.write_text("a = 2")
    digest_code.cache_clear()
    assert digest_code("priors") != before
    source.unlink()
    digest_code.cache_clear()
    without = digest_code("priors")
    monkeypatch.setattr(cache, "__version__", "9.9")
    digest_code.cache_clear()
    assert digest_code("priors") != without
    digest_code.cache_clear()


def test_versions_of_packages() -> None:
    numpy, nothing = package_versions("numpy", "no-such-package-as-this")
    assert numpy == np.__version__
    assert nothing == ""
