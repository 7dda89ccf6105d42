"""Runs whose base model is not where it was during training, or whose catalog has changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run
from support.tiny_runs import FEW, fresh, made, saved

from genrec import Catalog, Dataset, Item, Recommender
from genrec.data.splits import split_last_unit
from genrec.errors import ModelError, SettingsError
from genrec.training import trainer

OPTIONS: dict[str, Any] = {"dtype": "float32", "prior": "none"}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run, and move its base model and the folder that both are in."""
    folder = tmp_path_factory.mktemp("before")
    data = made(8, users=6)
    events = split_last_unit(data.interactions, "buy")
    data = replace(data, interactions=events, info=replace(data.info, split="last unit"))
    data.save(folder / "data")
    trainer.train(data, folder / "run", str(saved(folder)), **FEW)
    shutil.copytree(folder / "tiny-llama", folder / "copied")
    saved(folder, "qwen3")
    place = folder.with_name("after")
    folder.rename(place)
    (place / "tiny-llama").rename(place / "elsewhere")
    return place


def test_the_base_model_is_told_where_it_is(moved: Path) -> None:
    with pytest.raises(ModelError, match=r"base model of the run .*run cannot be loaded") as caught:
        Recommender.load(moved / "run", **OPTIONS)
    assert "--model" in str(caught.value)
    assert "Recommender.load(run, model=...)" in str(caught.value)
    assert "There is no such folder." in str(caught.value)
    lists = [
        Recommender.load(moved / "run", model=base, **OPTIONS).recommend("i0")
        for base in (moved / "elsewhere", str(moved / "copied"))
    ]
    assert lists[0].recommendations == lists[1].recommendations
    assert len(lists[0])


@pytest.mark.parametrize("base", ["tiny-qwen3", "changed"])
def test_another_model_is_refused(moved: Path, base: str) -> None:
    if base == "changed":
        other = fresh()
        other.model.model.norm.weight.data.mul_(1.5)
        other.save(moved / base)
    with pytest.raises(ModelError, match="trained with a different base model"):
        Recommender.load(moved / "run", model=moved / base, **OPTIONS)
    with pytest.raises(ModelError, match=r"nowhere.* cannot be loaded: There is no such folder"):
        Recommender.load(moved / "run", model=moved / "nowhere", **OPTIONS)


def test_a_run_with_all_weights_needs_no_base_model(tmp_path: Path) -> None:
    trainer.train(made(6, users=2), tmp_path / "run", str(saved(tmp_path)), lora_rank=0, **FEW)
    (tmp_path / "tiny-llama").rename(tmp_path / "gone")
    assert len(Recommender.load(tmp_path / "run", **OPTIONS).recommend("i0"))
    with pytest.raises(SettingsError, match="needs no base model"):
        Recommender.load(tmp_path / "run", model=tmp_path / "gone", **OPTIONS)


@pytest.mark.parametrize(
    "command",
    [
        ["recommend", "DATA", "--run", "RUN", "--history", "red mug", "--encoder", "none"],
        ["prompt", "DATA", "--run", "RUN", "--history", "red mug", "--encoder", "none"],
        ["score", "DATA", "--run", "RUN", "--user", "u0"],
        ["tune", "DATA", "--run", "RUN", "--users", "2", "--out", "OUT/tuned.json"],
        ["evaluate", "DATA", "--run", "RUN", "--users", "2", "--against", "none"],
        ["merge", "RUN", "--out", "OUT/merged"],
        ["train", "DATA", "--out", "OUT/more", "--from", "RUN", "--max-targets", "60", "--eval-users", "0"],
    ],
)  # fmt: skip
def test_commands_take_the_base_model_beside_the_run(
    moved: Path, tmp_path: Path, run: Run, command: list[str]
) -> None:
    names = {"DATA": moved / "data", "RUN": moved / "run"}
    given = [str(names.get(a, a)).replace("OUT", str(tmp_path)) for a in command]
    code, _, err = run(*given)
    assert code == ModelError.exit_code
    assert "--model" in err
    assert "Traceback" not in err
    code, _, err = run(*given, "--model", moved / "tiny-qwen3")
    assert code != 0
    assert "base model" in err
    code, out, err = run(*given, "--model", moved / "elsewhere")
    assert code == 0, err + out


def test_a_run_says_that_the_catalog_is_another(moved: Path) -> None:
    data = Dataset.load(moved / "data")
    base = {"model": moved / "elsewhere", **OPTIONS}
    same = Recommender.load(moved / "run", data, **base)
    assert not any("another catalog" in n for n in same.recommend("i0").notes)
    items = [replace(i, title="green mug") if not n else i for n, i in enumerate(data.catalog)]
    other = Catalog([*items, Item("new", "new mug")])
    recommender = Recommender.load(moved / "run", other, **base)
    note = "The run was trained on another catalog: 6 of the 8 items here were in it, with the same titles."
    assert note in recommender.recommend("i0").notes
    assert note in recommender.recommend_many(["i0", [i.item_id for i in other]])[1].notes
    assert note in recommender.explain("i0", "new").notes
    assert note in recommender.with_settings(search="beam").score("i0").notes


def test_resuming_nothing_says_that_the_training_starts(tmp_path: Path) -> None:
    said: list[str] = []
    trainer.train(made(6, users=2), tmp_path / "run", fresh(), resume=True, log=said.append, **FEW)
    assert any("no checkpoint to resume from" in line for line in said)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    said.clear()
    trainer.train(made(6, users=2), tmp_path / "run", fresh(), resume=True, log=said.append, **FEW)
    assert not any("no checkpoint to resume from" in line for line in said)
