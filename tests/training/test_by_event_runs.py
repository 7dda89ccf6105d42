"""Runs trained with ``attention="by_event"``: stored, validated, used and continued as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_runs
from support.commands import Run as Command
from support.tiny_runs import FEW, done, fresh, made

from genrec import Dataset, Recommender
from genrec.data import protocols
from genrec.errors import SettingsError
from genrec.runs import Run
from genrec.training import config, trainer

place = tiny_runs.place  # the fixture
BY_EVENT: dict[str, Any] = {"attention": "by_event", "recent_events": 1}


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """Train with validations, between which the weights change."""
    data = Dataset.load(place / "data")
    folder = place / "by-event"
    trainer.train(
        data,
        folder,
        str(place / "tiny-llama"),
        **FEW | BY_EVENT | {"eval_users": 4, "eval_every": 20},
    )
    return folder


def test_a_run_stores_its_attention_and_is_used_with_it(place: Path, trained: Path) -> None:
    data, stored = Dataset.load(place / "data"), Run.read(trained)
    assert {n: stored.settings[n] for n in BY_EVENT} == BY_EVENT
    assert "the latest 1 together with all earlier ones" in (trained / "report.md").read_text()
    for given, note in (
        ({}, ""),
        (
            {"recent_events": 3},
            "recent_events=1 and is used with attention='by_event' and recent_e",
        ),
        ({"attention": "full"}, "recent_events=1 and is used with attention='full', so it may be"),
    ):
        used = Recommender.load(trained, data, dtype="float32", prior="none", **given)
        answer = used.recommend("bought: red mug", 2)
        said = [n for n in answer.notes if "was trained with attention=" in n]
        assert len(said) == bool(note)
        assert all(note in n for n in said)
        assert ("attention" in answer.details) == (used.settings.attention == "by_event")


def test_old_runs_are_used_with_full_attention(place: Path, trained: Path, tmp_path: Path) -> None:
    values = json.loads((trained / "run.json").read_text())
    for name in BY_EVENT:
        del values["settings"][name]
    for part in trained.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").write_text(json.dumps(values))
    data = Dataset.load(place / "data")
    old = Recommender.load(tmp_path, data, dtype="float32", prior="none")
    assert old.settings.attention == "full"
    answer = old.recommend("bought: red mug", 2)
    assert not [n for n in answer.notes if "was trained with attention=" in n]


def test_validations_read_with_the_weights_of_their_time(place: Path, trained: Path) -> None:
    """Else lines that were read with earlier weights would be found in the store."""
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line.get("validation")]
    assert len(validations) > 2
    best = min(validations, key=lambda line: float(line["nats"]))
    assert best["step"] > 0
    data = Dataset.load(place / "data")
    used = Recommender.load(trained, data, dtype="float32", prior="none")
    cases = protocols.cases(data, protocols.default_protocol(data), "validation")
    some = protocols.sample(cases, 4)
    nats = [used.with_nats(c.history, 10, c.target)[1] for c in some]
    assert float(np.mean(nats)) == pytest.approx(best["nats"], abs=1e-4)


def test_a_run_is_resumed_only_under_the_same_attention(place: Path, trained: Path) -> None:
    data = Dataset.load(place / "data")
    for other in ({"recent_events": 2}, {"attention": "full"}):
        settings = FEW | BY_EVENT | {"eval_users": 4, "eval_every": 20} | other
        with pytest.raises(SettingsError, match=f"must keep its settings.*{next(iter(other))}="):
            trainer.train(data, trained, str(place / "tiny-llama"), resume=True, **settings)


def test_the_attention_changes_what_is_learned(tmp_path: Path) -> None:
    data, found = made(8, users=2), {}
    for name, settings in {
        "full": {},
        "one": BY_EVENT,
        "all": BY_EVENT | {"recent_events": 99},
    }.items():
        model = fresh()
        trainer.train(data, tmp_path / name, model, **FEW | {"lora_dropout": 0.0} | settings)
        recommender = Recommender(data, model, prior="none", encoder="none")
        found[name] = [r.logprob for r in recommender.score("bought: red mug")]
    assert found["all"] == pytest.approx(found["full"], abs=1e-4)
    assert found["one"] != pytest.approx(found["full"], abs=1e-2)


def test_all_weights_and_windows_can_be_trained_under_the_mask(tmp_path: Path) -> None:
    data = made(6, users=2)
    settings = (
        FEW | BY_EVENT | {"lora_rank": 0, "layout": "window", "gradient_checkpointing": False}
    )
    trainer.train(data, tmp_path / "run", fresh("qwen3"), **settings)
    found = Recommender.load(tmp_path / "run", data, dtype="float32")
    assert found.settings.recent == 1
    assert len(found.recommend("bought: red mug, blue bag")) > 2


def test_what_is_read_as_a_whole_is_refused(tmp_path: Path) -> None:
    for other in ({"objective": "pointwise"}, {"examples": "texts.jsonl"}):
        with pytest.raises(SettingsError, match="attention='by_event' does not work with"):
            config.resolve(BY_EVENT | other)
    for kind, reason in (("gpt2", "no rotary"), ("gemma3", "sliding_attention")):
        with pytest.raises(SettingsError, match=reason):
            trainer.train(made(3), tmp_path / "run", fresh(kind), **FEW | BY_EVENT)
        assert not (tmp_path / "run").exists()


def test_the_commands(place: Path, trained: Path, tmp_path: Path, run: Command) -> None:
    said = done(run, ["doctor", "--run", str(trained), "--json"])
    report = json.loads(said)
    assert report["run"]["attention"] == "attention='by_event' and recent_events=1"
    assert report["run"]["data"] == "made"
    shipped = json.loads(done(run, ["doctor", "--run", "online_retail_demo", "--json"]))
    assert shipped["run"]["attention"] == "attention='full'"
    code, _, told = run("doctor", "--run", str(tmp_path))
    assert code == 5
    assert "is not a run folder" in told
    few = ["--max-targets", "20", "--eval-users", "0", "--tune-users", "0", "--pack-tokens", "128",
           "--dtype", "float32", "--device", "cpu", "--threads", "1"]  # fmt: skip
    data, model = str(place / "data"), str(place / "tiny-llama")
    one = ["train", data, "--model", model, "--out", str(tmp_path / "one"), *few]
    done(run, [*one, "--attention", "by_event", "--recent-events", "2"])
    done(
        run, ["train", data, "--from", str(tmp_path / "one"), "--out", str(tmp_path / "two"), *few]
    )
    for name in ("one", "two"):
        settings = Run.read(tmp_path / name).settings
        assert (settings["attention"], settings["recent_events"]) == ("by_event", 2)
