"""Every command that writes says at once when it cannot, and leaves nothing behind when it fails."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny
from support.commands import Run
from support.limits import full_disk, modes, permissions_that_bind, read_only, umask
from support.reviewed import reviewed_shop
from support.tiny_runs import saved

from genrec import Catalog, Dataset, Item, files, runs
from genrec.data.datasets import load
from genrec.errors import DataError, SettingsError
from genrec.matching.index import TitleIndex
from genrec.matching.matcher import write_index

QUICK = ("--max-targets", "4", "--threads", "1", "--dtype", "float32", "--device", "cpu")


@dataclass(frozen=True)
class Shop:
    """A dataset, a tiny model and a run of it."""

    data: Path
    model: Path
    run: Path


@pytest.fixture
def place(shop_with_run: Shop, tmp_path: Path) -> Shop:
    """A copy that the test may change."""
    for part in ("data", "model", "run"):
        shutil.copytree(getattr(shop_with_run, part), tmp_path / part)
    shutil.copytree(shop_with_run.data.parent / "reviewed", tmp_path / "reviewed")
    (tmp_path / "space.yaml").write_text("learning_rate: [0.001]\n", encoding="utf-8")
    (tmp_path / "few.yaml").write_text("max_targets: 4\neval_users: 2\n", encoding="utf-8")
    return Shop(tmp_path / "data", tmp_path / "model", tmp_path / "run")


@pytest.fixture(scope="module")
def shop_with_run(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    from genrec.training import trainer

    folder = tmp_path_factory.mktemp("shop")
    model = saved(folder)
    data = load("zh_mini")
    data.save(folder / "data")
    reviewed_shop().save(folder / "reviewed")
    options: dict[str, Any] = {"max_targets": 4, "eval_users": 0, "dtype": "float32", "threads": 1}
    trainer.train(data, folder / "run", str(model), device="cpu", **options)
    return Shop(folder / "data", model, folder / "run")


Command = Callable[[Shop, Path], list[object]]

# Each command by what it writes, with a place for its output.
COMMANDS: dict[str, tuple[str, Command]] = {
    "prepare": ("new folder", lambda s, out: [
        "prepare", "--interactions", s.data / "interactions.parquet",
        "--items", s.data / "catalog.parquet", "--out", out,
    ]),
    "sentiment": ("new folder", lambda s, out: [
        "sentiment", s.data.parent / "reviewed", "--like-threshold", 4, "--out", out,
    ]),
    "batch": ("folder", lambda s, out: [
        "batch", s.data, "--model", s.model, "--shard-size", 30, "-k", 1, "--out", out,
    ]),
    "search": ("folder", lambda s, out: [
        "search", s.data, "--model", s.model, "--trials", 1, "--space", s.data.parent / "space.yaml",
        "--config", s.data.parent / "few.yaml", "--out", out,
    ]),
    "embed": ("out.safetensors", lambda s, out: [
        "embed", s.data, "--items", "--encoder", "ngrams", "--out", out,
    ]),
    "embed parquet": ("out.parquet", lambda s, out: [
        "embed", s.data, "--users", "--encoder", "ngrams", "--out", out,
    ]),
    "train": ("folder", lambda s, out: [
        "train", s.data, "--model", s.model, "--eval-users", 0, *QUICK, "--out", out,
    ]),
    "train all weights": ("folder", lambda s, out: [
        "train", s.data, "--model", s.model, "--eval-users", 2, "--lora-rank", 0, *QUICK,
        "--out", out,
    ]),
    "tune": ("out.json", lambda s, out: [
        "tune", s.data, "--model", s.model, "--users", 4, "--out", out,
    ]),
    "examples": ("out.jsonl", lambda s, out: [
        "examples", s.data, "--model", s.model, "--out", out,
    ]),
    "pairs": ("out.parquet", lambda s, out: [
        "examples", s.data, "--model", s.model, "--format", "pointwise", "--out", out,
    ]),
    "merge": ("new folder", lambda s, out: ["merge", s.run, "--out", out]),
    "federate": ("new folder", lambda s, out: ["federate", s.run, s.run, "--out", out]),
    "evaluate": ("folder", lambda s, out: [
        "evaluate", s.data, "--model", s.model, "--users", 4, "--out", out,
    ]),
    "report": ("out.html", lambda s, out: [
        "evaluate", s.data, "--no-model", "--users", 4, "--report", out,
    ]),
    "explanations": ("out.jsonl", lambda s, out: [
        "evaluate", s.data, "--model", s.model, "--explanations", "--users", 1, "--encoder", "ngrams",
        "--out", out,
    ]),
    "page": ("out.html", lambda s, out: [
        "recommend", s.data, "--user", "u01", "-k", 2, "--model", s.model, "--html", out,
    ]),
}  # fmt: skip

IN_FOLDERS = {name for name, (kind, _) in COMMANDS.items() if "folder" in kind}


def name_of(command: str) -> str:
    kind = COMMANDS[command][0]
    return "out" if "folder" in kind else kind


def test_every_option_for_output_is_among_the_commands() -> None:
    from typer.main import get_command

    from genrec.cli.main import app

    options = {
        (name, option)
        for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
        if option in {"--out", "--report", "--html"}
    }
    assert options == {
        ("prepare", "--out"), ("embed", "--out"), ("train", "--out"), ("tune", "--out"),
        ("examples", "--out"), ("merge", "--out"), ("evaluate", "--out"), ("evaluate", "--report"),
        ("recommend", "--html"), ("explain", "--html"), ("sentiment", "--out"),
        ("search", "--out"), ("batch", "--out"), ("federate", "--out"),
    }  # fmt: skip


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a model is loaded or a file is read in."""
    from genrec.data.dataset import Dataset
    from genrec.models.language_model import LanguageModel

    def slow(*_: object, **__: object) -> None:
        pytest.fail("the output was not checked first")

    monkeypatch.setattr(LanguageModel, "load", slow)
    monkeypatch.setattr(Dataset, "prepare", slow)


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("fault", ["read-only", "full", "wrong kind", "below a file"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_said_first(
    run: Run, place: Shop, tmp_path: Path, command: str, fault: str
) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    out = folder / name_of(command)
    refused: AbstractContextManager[None] = nullcontext()
    if fault == "read-only":
        refused, reason = read_only(folder), "permission denied"
    elif fault == "full":
        refused, reason = full_disk(), "file too large"
    elif fault == "below a file":
        (folder / "file").write_text("x")
        out, reason = folder / "file" / out.name, "is a file, not a folder"
    elif command in IN_FOLDERS:
        out.write_text("x")
        reason = "is a file, not a folder"
    else:
        out.mkdir()
        reason = "is a folder, not a file"
    before = modes(tmp_path)
    with refused:
        code, _, said = run(*COMMANDS[command][1](place, out))
    assert reason in said
    assert str(out) in said
    assert code == SettingsError.exit_code
    assert modes(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fills_up_later_leaves_no_half_of_a_file(
    run: Run, place: Shop, tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    out = folder / name_of(command)
    with full_disk(150):
        code, _, said = run(*COMMANDS[command][1](place, out))
    assert "file too large" in said, said
    assert str(out) in said
    assert code in {1, 3, 5}
    whole = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in {".jsonl", ".lock"}]
    assert not whole or command.startswith("train")
    assert not [p for p in folder.rglob("*") if p.name.endswith(".new")]
    assert not (out / files.LOCK).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_folders_are_made_and_modes_are_those_of_the_umask(
    run: Run, place: Shop, tmp_path: Path, command: str
) -> None:
    mask = 0o027
    out = tmp_path / "outputs" / "new" / name_of(command)
    with umask(mask):
        code, _, said = run(*COMMANDS[command][1](place, out))
    assert code == 0, said
    assert out.exists()
    found = modes(tmp_path / "outputs")
    wanted = {
        name: (0o777 if (tmp_path / "outputs" / name).is_dir() else 0o666) & ~mask for name in found
    }
    assert found == wanted
    assert not [name for name in found if Path(name).name.startswith(".")]


@pytest.mark.parametrize("mask", [0o027, 0o002])
def test_what_is_kept_with_the_data_has_the_modes_of_the_umask(
    run: Run, place: Shop, mask: int
) -> None:
    for name in ("tuned.json", "prior.safetensors"):  # which train has written
        (place.run / name).unlink()
    before = set(modes(place.data.parent))
    with umask(mask):
        for arguments in (
            ["tune", place.data, "--run", place.run, "--users", 4],
            ["evaluate", place.data, "--no-model", "--users", 4, "--against", "popular,mf"],
        ):
            code, _, said = run(*arguments)
            assert code == 0, said
    found = {name: mode for name, mode in modes(place.data.parent).items() if name not in before}
    assert {"run/tuned.json", "run/prior.safetensors", "data/baselines"} <= set(found)
    for name, mode in found.items():
        folder = (place.data.parent / name).is_dir()
        assert mode == (0o777 if folder else 0o666) & ~mask, name


def test_read_only_data_works_and_nothing_is_kept(run: Run, place: Shop, tmp_path: Path) -> None:
    shared = ("--model", place.model)
    with read_only(place.data):
        before = modes(tmp_path)
        for arguments in (
            ["recommend", place.data, "--user", "u01", "-k", 2, *shared],
            ["prompt", place.data, "--user", "u01", *shared],
            ["audit", place.data],
            ["rank", place.data, "--user", "u01", "--run", place.run],
        ):
            code, _, said = run(*arguments)
            assert code == 0, said
        code, _, said = run("evaluate", place.data, "--no-model", "--users", 4,
                            "--against", "mf,textseq")  # fmt: skip
        assert code == 0, said
        for name in ("mf", "textseq"):
            assert f"(permission denied), so {name} will be fitted again next time" in said
        assert modes(tmp_path) == before
        code, _, said = run("tune", place.data, "--model", "no/such/model")
        assert code == SettingsError.exit_code
        assert "tuned.json cannot be written: permission denied" in said
        assert "--out" in said
        code, _, said = run("index", place.data, "--encoder", "no/such/encoder")
        assert code == SettingsError.exit_code
        assert "permission denied" in said
        assert "copy the dataset" in said
        assert modes(tmp_path) == before
        code, _, said = run("tune", place.data, *shared, "--users", 4, "--out", tmp_path / "t.json")
        assert code == 0, said


def test_a_disk_that_is_full_keeps_no_baseline_and_says_so(
    run: Run, place: Shop, tmp_path: Path
) -> None:
    with full_disk(150):
        code, out, said = run("evaluate", place.data, "--no-model", "--users", 4,
                              "--against", "textseq")  # fmt: skip
    assert code == 0, said
    assert "textseq" in out
    assert "The checkpoint in" in said
    assert "(file too large). Training continues without it" in said
    assert "(file too large), so textseq will be fitted again next time" in said
    assert not [p for p in (place.data / "baselines").rglob("*") if p.is_file()]


@pytest.mark.slow
def test_a_folder_in_which_another_process_trains_is_refused(
    run: Run, place: Shop, tmp_path: Path
) -> None:
    """Start a real training, and others beside it in the same folder."""
    out = tmp_path / "shared"
    asked = [str(a) for a in COMMANDS["train"][1](place, out)]
    asked += ["--max-targets", "1000000", "--save-steps", "1", "--log-steps", "1"]
    other = subprocess.Popen([sys.executable, "-m", "genrec", *asked], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (out / runs.LOG).is_file() and runs.list_checkpoints(out) != [])
        for more in ([], ["--resume"]):
            code, _, said = run(*asked, *more)
            assert code == SettingsError.exit_code
            assert f"{out} is in use by process {other.pid} on {platform.node()}" in said
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    lines = (out / runs.LOG).read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    assert steps == sorted(set(steps))  # the log is that of one training
    code, _, said = run(*asked, "--resume", "--max-minutes", 0)  # the dead process blocks nobody
    assert code == 0, said


@pytest.mark.parametrize("command", ["train", "train all weights", "evaluate"])
def test_a_locked_folder_is_refused_at_once(
    run: Run, place: Shop, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    with files.lock_folder(out):
        code, _, said = run(*COMMANDS[command][1](place, out))
        assert code == SettingsError.exit_code
        assert f"{out} is in use by process {os.getpid()}" in said
        assert [p.name for p in out.iterdir()] == [files.LOCK]
    code, _, said = run(*COMMANDS[command][1](place, out))
    assert code == 0, said
    assert not (out / files.LOCK).exists()


@pytest.mark.parametrize("command", ["tune", "index"])
def test_one_who_tunes_or_indexes_waits_for_the_other(run: Run, place: Shop, command: str) -> None:
    held, order = threading.Event(), list[str]()
    asked = ["tune", place.data, "--model", place.model, "--users", 4]
    path = place.data / ("tuned.json" if command == "tune" else "titles.safetensors")

    def hold() -> None:
        with files.lock_folder(place.data):
            held.set()
            for _ in range(20 if command == "index" else 100):
                time.sleep(0.05)
                if path.exists():
                    order.append("not waited")
            order.append("released")

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    if command == "tune":
        code, _, said = run(*asked)
        assert code == 0, said
    else:
        write_index(Catalog([Item("1", "red mug")]), place.data, tiny.LatinEmbedder())
    assert path.exists()
    thread.join()
    assert order == ["released"]
    assert not (place.data / files.LOCK).exists()


def test_a_dataset_with_a_lock_left_behind_is_replaced(place: Shop) -> None:
    for name in (files.LOCK, ".tuned.json.01234567.new", ".titles.safetensors.new"):
        (place.data / name).write_text("")
    Dataset.load(place.data).save(place.data)
    assert not (place.data / files.LOCK).exists()


@pytest.mark.parametrize("exact_below", [0, 100])
def test_an_index_that_does_not_fit_says_so(place: Shop, exact_below: int) -> None:
    """Without a graph, the earlier index stays; with one, no half of a new index is left."""
    catalog, encoder = Catalog([Item("1", "red mug"), Item("2", "cake tin")]), tiny.LatinEmbedder()
    write_index(catalog, place.data, encoder)
    before = (place.data / "titles.safetensors").read_bytes()
    vectors = np.eye(64, dtype=np.float32)
    index = TitleIndex(vectors, exact_below=exact_below)
    assert (index.graph is None) == (exact_below > 0)
    with full_disk(150), pytest.raises(OSError, match="ile too large"):
        index.save(place.data, {})
    with full_disk(150), pytest.raises(DataError, match="Cannot write the index to"):
        write_index(catalog, place.data, encoder)
    kept = [p for p in place.data.iterdir() if p.name.startswith("titles")]
    assert [p.read_bytes() for p in kept] == ([before] if exact_below else [])


def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(1200):
        if done():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within a minute")


def weights_of(folder: Path) -> Path:
    return next(p for p in folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "what", ["data", "table", "model", "run", "adapter", "ids", "tuned", "events"]
)
def test_what_may_not_be_read_is_not_called_missing(
    run: Run, place: Shop, tmp_path: Path, what: str
) -> None:
    asked: list[object] = ["recommend", place.data, "--user", "u01", "-k", 2]
    asked += ["--model", place.model] if what == "model" else ["--run", place.run]
    (tmp_path / "ids.txt").write_text("i1\n")
    path = {
        "data": place.data / "dataset.json",
        "table": place.data / "interactions.parquet",
        "model": weights_of(place.model),
        "run": place.run / "run.json",
        "adapter": weights_of(place.run / "adapter"),
        "ids": tmp_path / "ids.txt",
        "events": tmp_path / "events.parquet",
        "tuned": place.run / "tuned.json",
    }[what]
    if what == "ids":
        asked += ["--allow", path]
    if what == "events":
        shutil.copy(place.data / "interactions.parquet", path)
        asked = ["prepare", "--interactions", path, "--out", tmp_path / "out"]
    if what == "tuned":
        path.write_text("{}")
    path.chmod(0)
    try:
        with permissions_that_bind():
            code, _, said = run(*asked)
    finally:
        path.chmod(0o644)
    assert code
    assert "cannot be read by this user" in said or "permission denied" in said.lower()
    assert str(path) in said
    assert "No such file" not in said
    assert "not exist" not in said
    assert "damaged" not in said
