"""The recipe from data to the best lists, on small data."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.counted_shop import shop
from support.hard_to_rank import cycles
from support.tiny import language_model

import genrec
from genrec import Dataset, Recommender
from genrec.baselines.sasrec import SASRec
from genrec.baselines.title_sasrec import TitleSASRec
from genrec.config import COUNTED
from genrec.data.dataset import FITTED
from genrec.data.interactions import Interactions
from genrec.errors import SettingsError
from genrec.evaluation import tuning
from genrec.files import map_arrays
from genrec.fitting import model_steps, networks, recipe
from genrec.fitting.report import FitReport, Step
from genrec.priors.tuned import Tuned
from genrec.runs import Run
from genrec.training import trainer


@pytest.fixture(autouse=True)
def _no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are tried in one test only, since they take long to train."""
    monkeypatch.setattr(recipe, "NETWORKS", ())


def fit(dataset: Dataset, **options: Any) -> FitReport:
    return genrec.fit(dataset, **{"model": None, "minutes": None, **options})


def by_name(report: FitReport) -> dict[str, Step]:
    return {step.name: step for step in report.steps}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cycles") / "data"
    cycles().save(place)
    return place


@pytest.fixture(scope="module")
def fitted(folder: Path) -> FitReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "NETWORKS", ())
        return fit(Dataset.load(folder))


def test_a_part_that_improves_the_lists_is_kept_and_another_is_not(fitted: FitReport) -> None:
    steps = by_name(fitted)
    assert list(steps) == ["prior", "userknn", "ranker", "model"]
    assert not steps["userknn"].kept
    ranker = steps["ranker"]
    assert ranker.kept
    assert ranker.users == 160
    assert ranker.ndcg_gain is not None
    assert ranker.ndcg_gain.low > 0
    assert ranker.ndcg is not None
    assert steps["prior"].ndcg is not None
    gain = ranker.ndcg.mean - steps["prior"].ndcg.mean
    assert ranker.ndcg_gain.mean == pytest.approx(gain)
    assert fitted.parts.ranker == "lambdarank"
    assert fitted.parts.sources == COUNTED


def test_a_recommender_uses_what_was_kept(fitted: FitReport, folder: Path) -> None:
    data, model = Dataset.load(folder), language_model()
    assert fitted.out == folder / FITTED
    auto = Recommender(data, model)
    assert auto.ranker == "lambdarank"
    given = Recommender(data, model, ranker="lambdarank")
    none = Recommender(data, model, ranker="none")
    past = data.interactions.history("u3")
    lists = [[r.item_id for r in each.recommend(past, 6)] for each in (auto, given, none)]
    assert lists[0] == lists[1] != lists[2]
    c = data.interactions.columns
    longest_ago = data.interactions.events("u3").stop - 6  # the next in turn
    assert lists[0][0] == data.catalog[int(c.row[longest_ago])].item_id
    assert none.ranker == "none"


def test_a_second_fit_reuses_everything(
    fitted: FitReport, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "score", None)  # measuring again would fail
    again = fit(Dataset.load(folder))
    assert [s.reused for s in again.steps] == [True, True, True, False]
    for before, after in zip(fitted.steps, again.steps, strict=True):
        assert replace(after, reused=before.reused) == before
    assert again.parts == fitted.parts


class _Killed(Exception):
    pass


def test_a_killed_fit_continues_where_it_was(tmp_path: Path) -> None:
    cycles(60).save(tmp_path / "data")
    said: list[str] = []

    def stop(message: str) -> None:
        said.append(message)
        if "ranked by lambdarank" in message:
            raise _Killed

    with pytest.raises(_Killed):
        fit(Dataset.load(tmp_path / "data"), log=stop)
    assert not (tmp_path / "data" / FITTED).exists()
    report = fit(Dataset.load(tmp_path / "data"), log=said.append)
    assert [s.reused for s in report.steps] == [True, True, False, False]
    assert "The prior was measured before." in said
    assert (tmp_path / "data" / FITTED).exists()


def test_the_targets_of_the_test_part_are_not_used(tmp_path: Path) -> None:
    told = []
    for number, shift in enumerate((0, 7)):
        data = cycles(60)
        columns = data.interactions.columns
        rows = np.where(columns.split == 2, (columns.row + shift) % 30, columns.row)
        table = replace(data.interactions.table, columns=replace(columns, row=rows))
        changed = replace(data, interactions=Interactions(data.catalog, table))
        changed.save(tmp_path / str(number))
        report = fit(Dataset.load(tmp_path / str(number)))
        told.append([replace(step, seconds=0.0) for step in report.steps])
    assert told[0] == told[1]


def test_too_few_users_show_nothing(tmp_path: Path) -> None:
    shop([[0, 1, 2, 3], [3, 4, 5, 0], [6, 0, 1, 2]]).save(tmp_path / "data")
    report = fit(Dataset.load(tmp_path / "data"))
    assert list(by_name(report)) == ["prior", "model"]
    assert report.parts.named() == COUNTED
    assert "There are 3 validation users" in report.notes[0]
    assert Recommender(Dataset.load(tmp_path / "data"), language_model()).ranker == "none"


def test_a_step_without_time_is_not_begun(tmp_path: Path) -> None:
    cycles(60).save(tmp_path / "data")
    report = fit(Dataset.load(tmp_path / "data"), minutes=1e-6)
    steps = by_name(report)
    assert steps["prior"].ndcg is not None  # it is always measured
    for name in ("userknn", "ranker"):
        assert not steps[name].kept
        assert steps[name].ndcg is None
        assert "Use a higher --minutes" in steps[name].why
    assert report.parts.named() == COUNTED


def test_without_lightgbm_no_ranker_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycles(60).save(tmp_path / "data")
    real = importlib.import_module

    def refuse(name: str) -> object:
        if name == "lightgbm":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    steps = by_name(fit(Dataset.load(tmp_path / "data")))
    assert "lightgbm" in steps["ranker"].why
    assert not steps["ranker"].kept


def test_a_network_is_trained_as_long_as_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "NETWORKS", (("sasrec", None),))
    monkeypatch.setitem(SASRec.defaults, "epochs", 3)
    cycles(60).save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    step = by_name(fit(data))["ranker with sasrec"]
    assert step.ndcg is not None
    assert step.compared_with
    monkeypatch.setattr(recipe, "_MEASURED", "none")  # so nothing that was measured is found
    late = by_name(fit(data, minutes=1e-6))["ranker with sasrec"]
    assert late.ndcg is None
    assert "minutes" in late.why


def test_a_network_may_start_from_the_models_hidden_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(recipe, "NETWORKS", (("titlesasrec", recipe.MODEL),))
    monkeypatch.setattr(networks, "_SAMPLE", 4)
    monkeypatch.setattr(model_steps.ModelSteps, "run", lambda *given: model_steps.ModelResult())
    monkeypatch.setattr(TitleSASRec, "defaults", {**TitleSASRec.defaults, "epochs": 2})
    cycles(60).save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    step = by_name(fit(data, model=model))[f"ranker with titlesasrec from lm:{model}"]
    assert step.ndcg is not None
    encoders = {
        json.loads(map_arrays(path)[1]["about"])["settings"]["encoder"]
        for path in (tmp_path / "data" / "baselines").glob("titlesasrec-*.safetensors")
    }
    assert encoders == {f"lm:{model}"}
    assert [s for s in by_name(fit(data, model=None)) if "titlesasrec" in s] == []


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    data = cycles(3)
    with pytest.raises(SettingsError, match="has no folder"):
        fit(data)
    data.save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    with pytest.raises(SettingsError, match="fit chooses ranker itself"):
        fit(data, ranker="none")
    with pytest.raises(SettingsError, match="minutes=0 is not valid"):
        fit(data, minutes=0)


def test_an_adapter_is_trained_if_the_model_does_not_improve_the_lists(
    fitted: FitReport, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    trained = []
    train = trainer.train

    def briefly(*given: Any, **options: Any) -> Run:
        trained.append(options["tune_users"])
        return train(*given, **{**options, "max_targets": 8, "eval_users": 0})

    def useless(*given: Any) -> Tuned:
        return replace(decide(*given), role="explain")

    decide = tuning.fit_fusion
    monkeypatch.setattr(tuning, "fit_fusion", useless)
    monkeypatch.setattr(trainer, "train", briefly)
    data, run = Dataset.load(folder), tmp_path / "run"
    options: dict[str, Any] = {"model": model, "run": run, "threads": 1}
    monkeypatch.setattr(model_steps, "LEAST_TRAINING", 1e9)
    late = by_name(fit(data, minutes=1000.0, **options))
    assert "minutes left" in late["adapter"].why
    assert not run.exists()
    report = fit(data, **options)
    steps = by_name(report)
    assert steps["model"].reused
    assert steps["model"].users == 80  # those of one half
    assert not steps["model"].kept
    assert not steps["adapter"].kept
    assert (report.role, report.run) == ("explain", None)
    assert steps["model"].nats_gain is not None
    assert trained == [0]
    assert steps["adapter"].users == 80
    tuned = json.loads((folder / "tuned.json").read_text(encoding="utf-8"))["tuned"]
    keys = {Recommender(data, str(model), threads=1).tuning_key()}
    assert keys <= {entry["key"] for entry in tuned}
    loaded = Recommender.load(run, data, threads=1)
    assert loaded.prior_parts == report.parts
    assert loaded.tuning_key() in (run / "tuned.json").read_text(encoding="utf-8")
    monkeypatch.setattr(tuning, "collect", None)  # asking the model again would fail
    again = fit(data, **options)
    assert trained == [0]
    assert by_name(again)["adapter"].reused
    stored = json.loads((folder / FITTED).read_text(encoding="utf-8"))["fitted"][0]["report"]
    assert stored["role"] == again.role
    assert len(stored["steps"]) == len(asdict(again)["steps"])
