"""A search for settings finds the best of its trials, continues where it was stopped, and prunes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.amount import FULL
from support.tiny_runs import saved

from genrec.data.datasets import load
from genrec.errors import DataError, GenrecError, SettingsError
from genrec.runs import Run
from genrec.training import trainer
from genrec.training.config import Training
from genrec.training.space_search import Axis, Search, read_space

pytest.importorskip("optuna")
FEW: dict[str, Any] = {
    "max_targets": 16,
    "eval_users": 4,
    "eval_every": 8,
    "batch_size": 4,
    "warmup": 0.0,
    "schedule": "constant",
}
LOADING: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1}
SPACE = {
    "learning_rate": Axis(low=1e-4, high=1e-1, log=True),
    "lora_rank": Axis(choices=(2, Training().lora_rank)),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved(tmp_path_factory.mktemp("model")))


def make(model: str, **given: Any) -> Search:
    values: dict[str, Any] = {"trials": 3, **given}
    return Search(model=model, space=SPACE, settings=FEW, loading=LOADING, **values)


def test_the_best_trial_is_the_best_run(model: str, tmp_path: Path) -> None:
    data, folder = load("zh_mini"), tmp_path / "search"
    found = make(model).run(data, folder)
    assert len(found.trials) == 3
    assert found.best is not None
    assert found.best.nats == min(t.nats for t in found.trials if t.state == "complete")
    assert found.default is not None
    assert found.trials[0] == found.default
    written = yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8"))
    assert written == {**FEW, **found.best.settings}
    [kept] = (folder / "runs").iterdir()
    run = Run.read(kept)
    assert run.training["learning_rate"] == found.best.settings["learning_rate"]
    again = trainer.train(data, tmp_path / "again", model, tune_users=0, **LOADING, **written)
    assert again.metrics["last"]["nats"] >= found.best.nats - 1e-3
    more = make(model, trials=4).run(data, folder)  # the same search goes on
    assert more.trials[:3] == found.trials
    assert len(more.trials) == 4
    with pytest.raises(SettingsError, match="another model"):
        replace(make(model), model="other").run(data, folder)


def test_an_interrupted_search_begins_its_trial_again(model: str, tmp_path: Path) -> None:
    data, said = load("zh_mini"), list[str]()

    def interrupt(message: str) -> None:
        said.append(message)
        if message.startswith("Trial 2 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(model, trials=2).run(data, tmp_path, interrupt)
    found = make(model, trials=2).run(data, tmp_path)
    assert [t.state for t in found.trials] == ["complete", "complete"]
    assert any(str(t.settings["lora_rank"]) in said[-1] for t in found.trials[1:])


@pytest.mark.skipif(not FULL, reason="kills processes; scripts/test --full runs it")
def test_a_killed_search_continues(model: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("learning_rate: [0.001, 0.003, 0.01]\n", encoding="utf-8")
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(FEW), encoding="utf-8")
    load("zh_mini").save(tmp_path / "data")
    arguments = [
        sys.executable, "-m", "genrec", "search", str(tmp_path / "data"), "--space", str(tmp_path / "space.yaml"),
        "--out", str(tmp_path / "out"), "--config", str(tmp_path / "few.yaml"), "--trials", "2", "--model", model,
        "--device", "cpu", "--threads", "1", "--json",
    ]  # fmt: skip
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "out" / "runs").glob("*")):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert [t["state"] for t in trials].count("complete") + [t["state"] for t in trials].count(
        "pruned"
    ) == 2


def test_a_trial_that_is_far_worse_is_stopped(model: str, tmp_path: Path) -> None:
    space = {"learning_rate": Axis(choices=(1e-4, 0.9))}
    wanted = replace(make(model, trials=5), space=space)
    found = wanted.run(load("zh_mini"), tmp_path)
    assert {t.state for t in found.trials} <= {"complete", "pruned", "failed"}
    worst = [t for t in found.trials if t.settings["learning_rate"] == 0.9]
    assert worst
    assert found.best not in worst
    assert max(t.nats for t in found.trials) in [t.nats for t in worst]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: [1]", "learning_rat"),
        ("learning_rate: []", "is not a space"),
        ("learning_rate: {low: 1, high: 0.1}", "is not a space"),
        ("learning_rate: {low: 0, high: 0.1, log: true}", "is not a space"),
        ("lora_rank: [-1]", "lora_rank"),
        ("max_targets: [1, 2]", "cannot be searched"),
        ("- 3", "does not hold a mapping"),
    ],
)
def test_invalid_spaces(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(GenrecError, match=message):
        read_space(tmp_path / "space.yaml")


def test_unreadable_spaces(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_space(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_space(tmp_path / "broken.yaml")
