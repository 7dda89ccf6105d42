"""A run is used with the dataset's prior, whose weight training fits, and its faults are stated."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.baskets import dataset
from support.commands import Run, answer
from support.tiny_runs import FEW, fresh, made, saved

from genrec import Catalog, Dataset, Recommender, runs
from genrec.data.splits import split_last_unit
from genrec.evaluation import tuning
from genrec.priors.judgement import compare_with_uniform, judge
from genrec.priors.tuned import Tuned
from genrec.training import trainer

USERS = 12
FITS: dict[str, Any] = FEW | {"tune_users": USERS, "max_targets": 60}


def shop(users: int = USERS) -> Dataset:
    data = made(8, users=users)
    events = split_last_unit(data.interactions, "buy")
    return replace(data, interactions=events, info=replace(data.info, split="last unit"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with data, a model and a run whose weight was fitted."""
    folder = tmp_path_factory.mktemp("weights")
    shop().save(folder / "data")
    saved(folder)
    data = Dataset.load(folder / "data")
    trainer.train(data, folder / "run", str(folder / "tiny-llama"), **FITS)
    return folder


def copied(place: Path, to: Path, *without: str) -> Path:
    shutil.copytree(place / "run", to)
    for name in without:
        (to / name).unlink()
    return to


def figures_of(tuned: Tuned) -> dict[str, Any]:
    return {k: v for k, v in asdict(tuned).items() if k not in {"key", "model"}}


def notes(recommender: Recommender) -> str:
    return " ".join(recommender.recommend("bought: red mug", 3).notes)


def test_what_training_fits_is_what_tune_fits(place: Path, run: Run) -> None:
    kept = json.loads((place / "run" / "tuned.json").read_text())["tuned"]
    data = Dataset.load(place / "data")
    same = tuning.tune(Recommender.load(place / "run", data, dtype="float32"), users=USERS)
    assert kept == [asdict(same)]
    written = runs.Run.read(place / "run")
    assert written.metrics["tuned"] == figures_of(same)
    assert same.users == USERS
    assert same.items == 7
    asked = ["recommend", place / "data", "--run", place / "run", "--user", "u1"]
    found = answer(run, *asked)
    assert found["parts"] == ["model", "prior"]
    assert found["prior"]["weight"] == same.weights[same.fusion]
    assert f"a weight fitted on {USERS} users held out" in " ".join(found["notes"])
    code, _, err = run(*asked)
    assert code == 0
    assert "is used together with the collaborative prior" in err
    assert answer(run, *asked, "--prior", "none")["parts"] == ["model"]


def test_the_best_weights_are_fitted_and_not_the_last(tmp_path: Path) -> None:
    data = shop(4)
    data.save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    wild = FITS | {"eval_users": 4, "eval_every": 20, "learning_rate": 0.2, "max_targets": 200}
    run = trainer.train(data, tmp_path / "run", str(saved(tmp_path)), **wild)
    best, last = run.metrics["best"], run.metrics["last"]
    assert 0 < best["step"] < last["step"]
    again = tuning.tune(Recommender.load(tmp_path / "run", data, dtype="float32"), users=USERS)
    assert figures_of(again) == run.metrics["tuned"]


@pytest.mark.parametrize(
    ("settings", "reason", "advice"),
    [
        ({"tune_users": 0}, "tune_users is 0", "genrec tune"),
        ({"fit": "both"}, "also trained on the validation part", "--tuned THAT_RUN/tuned.json"),
        ({"max_minutes": 0.0}, "time limit", "genrec tune"),
    ],
)
def test_a_run_without_fitted_weights_says_why_and_what_to_do(
    place: Path, tmp_path: Path, settings: dict[str, Any], reason: str, advice: str
) -> None:
    data = Dataset.load(place / "data")
    run = trainer.train(data, tmp_path / "run", fresh(), **FITS | settings)
    assert reason in run.metrics["not_tuned"]
    assert not (tmp_path / "run" / "tuned.json").exists()
    model = str(place / "tiny-llama")
    recommender = Recommender.load(tmp_path / "run", data, model=model)
    said = notes(recommender)
    assert "without a prior, because its weight was not fitted for this run" in said
    assert advice in said
    if "fit" in settings:
        other = Recommender.load(
            tmp_path / "run", data, model=model, tuned=str(place / "run" / "tuned.json")
        )
        assert "is used together with the collaborative prior" in notes(other)


def test_data_without_validation_or_events_is_no_obstacle(tmp_path: Path) -> None:
    data, options = made(8, users=4), FITS
    run = trainer.train(data, tmp_path / "run", fresh(), **options)
    assert run.finished
    assert "in validation that fits protocol" in run.metrics["not_tuned"]


def test_training_on_new_events_keeps_the_weights_of_before(place: Path, tmp_path: Path) -> None:
    data, model = Dataset.load(place / "data"), str(place / "tiny-llama")
    new = np.arange(len(data.interactions)) < 9
    options = FITS | {"since": place / "run", "new": new}
    run = trainer.train(data, tmp_path / "run", model, **options)
    assert run.metrics["tuned_before"] == str(place / "run")
    one, other = (
        json.loads((p / "tuned.json").read_text()) for p in (place / "run", tmp_path / "run")
    )
    assert one == other
    assert Recommender.load(tmp_path / "run", data).prior is not None
    assert Recommender.load(tmp_path / "run").prior is not None
    bare = copied(place, tmp_path / "bare", "tuned.json")
    run = trainer.train(data, tmp_path / "run2", model, **options | {"since": bare})
    assert "has no fitted weights" in run.metrics["not_tuned"]


def test_a_resumed_run_fits_again(place: Path, tmp_path: Path) -> None:
    data, model = Dataset.load(place / "data"), str(place / "tiny-llama")
    first = trainer.train(data, tmp_path / "run", model, **FITS | {"max_minutes": 0.0})
    assert "tuned" not in first.metrics
    whole = trainer.train(data, tmp_path / "run", model, resume=True, **FITS)
    assert whole.finished
    assert whole.metrics == runs.Run.read(place / "run").metrics


def test_a_run_without_its_dataset_uses_its_own_prior_or_says_that_it_has_none(
    place: Path, tmp_path: Path
) -> None:
    alone = Recommender.load(place / "run")
    assert alone.prior is not None
    assert "is used together with the collaborative prior" in notes(alone)
    bare = Recommender.load(copied(place, tmp_path / "bare", "prior.safetensors"))
    assert bare.prior is None
    assert "there is no dataset, and the run folder contains no prior" in notes(bare)
    fewer = Catalog(list(Dataset.load(place / "data").catalog)[:5])
    other = Recommender.load(place / "run", fewer)
    assert other.prior is None
    assert "trained on another catalog: 5 of the 5" in notes(other)


def test_a_run_on_another_dataset_says_where_its_weight_comes_from(
    place: Path, tmp_path: Path
) -> None:
    data = shop(3)
    items = [replace(i, title=f"{i.title} {n}") for n, i in enumerate(data.catalog)]
    catalog = Catalog(items)
    other = replace(data, catalog=catalog, info=replace(data.info, catalog_hash=catalog.hash()))
    other.save(tmp_path / "other")
    recommender = Recommender.load(place / "run", Dataset.load(tmp_path / "other"))
    said = notes(recommender)
    assert "trained on another catalog: 0 of the 7" in said
    assert f"a weight fitted on {USERS} users held out of the data made" in said
    without = Recommender.load(
        place / "run", Dataset.load(tmp_path / "other"), target_behavior="view"
    )
    assert "its weight was not fitted for this run, prompt and behavior" in notes(without)


def test_settings_that_rule_out_a_prior_are_named(place: Path) -> None:
    data = Dataset.load(place / "data")
    said = notes(Recommender.load(place / "run", data, normalization="vocab"))
    assert "the chosen decoder, normalization or search works without one" in said
    given = notes(Recommender.load(place / "run", data, prior_weight=0.5))
    assert "with the given weight" in given
    assert "prior" not in notes(Recommender.load(place / "run", data, prior="none")).partition(
        "WORSE"
    )[0].replace("THE PRIOR", "")


def test_a_run_in_a_read_only_folder_is_used_and_tuned_elsewhere(
    place: Path, tmp_path: Path, run: Run
) -> None:
    from support.limits import read_only

    bare = copied(place, tmp_path / "bare", "tuned.json")
    asked = ["recommend", place / "data", "--run", bare, "--user", "u1"]
    with read_only(bare):
        found = answer(run, *asked)
        assert f"genrec tune DIR --run {bare}" in " ".join(found["notes"])
        code, _, err = run("tune", place / "data", "--run", bare, "--users", 3)
        assert code == 2
        assert "--out" in err
        elsewhere = tmp_path / "tuned.json"
        answer(run, "tune", place / "data", "--run", bare, "--users", 3, "--out", elsewhere)
        assert answer(run, *asked, "--tuned", elsewhere)["parts"] == ["model", "prior"]


def figures(model: float, prior: float, node: float, nats: float = 1.0) -> Tuned:
    both = {"node": 1.0, "score": 1.0}
    return Tuned(
        "k", "m", "node", both, both, 60, {"model": nats, "prior": 1.0, "node": 1.0},
        {"model": model, "prior": prior, "node": node, "score": 0.0}, 100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tuned", "kinds"),
    [
        (figures(0.3, 0.2, 0.4), []),
        (figures(0.1, 0.2, 0.2), ["alone"]),
        (figures(0.1, 0.2, 0.19), ["prior"]),
        (figures(0.3, 0.2, 0.4, math.log(100) + 0.01), ["uniform"]),
        (figures(0.3, 0.2, 0.4, math.log(100)), []),
        (figures(0.1, 0.2, 0.1, 9.0), ["uniform", "prior"]),
        (replace(figures(0.3, 0.2, 0.4, 9.0), items=0), []),  # written by an earlier version
    ],
)
def test_what_is_better_than_a_run(tuned: Tuned, kinds: list[str]) -> None:
    found = judge(tuned, data="shop", run="runs/one")
    assert [f.kind for f in found] == kinds
    for finding in found:
        assert finding.headline.isupper()
        assert "`genrec recommend shop --user USER" in finding.advice
        assert ("--run runs/one" in finding.advice) == (finding.kind == "alone")
        assert "chance" not in finding.figures
    for finding in judge(replace(tuned, users=10), data="shop"):
        assert "may be chance" in finding.figures


def test_a_bad_run_says_so_in_capitals_wherever_it_is_used(tmp_path: Path, run: Run) -> None:
    data = dataset([[(0, "buy")]] * 6 + [[(5, "buy")], [(3, "buy")]], USERS)  # 5 is no habit
    events = split_last_unit(data.interactions, "buy")
    replace(data, interactions=events, info=replace(data.info, split="last unit")).save(
        tmp_path / "data"
    )
    model = saved(tmp_path)
    place = tmp_path / "a run"
    few = ("--max-targets", 200, "--eval-users", 0, "--learning-rate", "0.01", "--device", "cpu",
           "--pack-tokens", 128, "--tune-users", USERS)  # fmt: skip
    code, out, err = run("train", tmp_path / "data", "--out", place, "--model", model, *few)
    assert code == 0, err
    assert "THIS RUN IS WORSE THAN A UNIFORM GUESS." in out
    assert f"`genrec recommend {tmp_path / 'data'} --user USER`" in out
    assert "Use it with" not in out
    found = answer(run, "recommend", tmp_path / "data", "--run", place, "--user", "u1")
    assert "THIS RUN IS WORSE THAN A UNIFORM GUESS." in " ".join(found["notes"])
    value = answer(run, "tune", tmp_path / "data", "--run", place, "--users", USERS)
    assert any("UNIFORM" in f for f in value["findings"])
    value = answer(
        run, "train", tmp_path / "data", "--out", place, "--model", model, *few, "--resume"
    )
    assert any("UNIFORM" in f for f in value["findings"])
    page = (Path(__file__).parents[2] / "docs" / "reference" / "outputs.md").read_text("utf-8")
    section = page.partition("\n## train\n")[2].partition("\n## ")[0]
    assert all(f"`{name}`" in section for name in (*value, *value["metrics"]))


def test_a_run_without_fitted_weights_is_compared_with_a_uniform_guess() -> None:
    assert compare_with_uniform(2.0, 5, 7) != ()
    assert compare_with_uniform(1.9, 5, 7) == ()
    assert compare_with_uniform(2.0, 5, 0) == ()
