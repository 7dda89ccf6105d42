"""The command line from data to the best lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import Run, answer, model, run
from support.hard_to_rank import cycles

from genrec.fitting import recipe

assert all(map(callable, (model, run)))


def test_fit_then_recommend_and_evaluate(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "NETWORKS", ())
    data = tmp_path / "data"
    cycles(120).save(data)
    shared = ("--model", model, "--threads", 1)
    plain = answer(run, "recommend", data, "--user", "u1", *shared)
    assert "ranker" not in plain["prior"]
    value = answer(run, "fit", data, *shared, "--minutes", 1000)
    kept = [step["name"] for step in value["steps"] if step["kept"]]
    assert kept[:2] == ["prior", "ranker"]
    assert value["parts"]["ranker"] == "lambdarank"
    assert value["out"] == str(data / "fitted.json")
    ranked = answer(run, "recommend", data, "--user", "u1", *shared)
    assert ranked["prior"]["ranker"] == "lambdarank"
    code, out, err = run("fit", data, "--no-model", "--minutes", 1000)
    assert code == 0, err
    assert "(before)" in out
    assert "The lists use the prior, ranked by lambdarank." in out
    code, _, err = run("fit", data, "--minutes", 0)
    assert code == 2
    code, _, err = run("fit", tmp_path)
    assert code != 0
    assert "is not a dataset folder" in err
