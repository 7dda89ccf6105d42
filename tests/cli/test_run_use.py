"""A run answers only what it was trained for, and a model without training says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run, answer
from support.tiny_runs import FEW, made, saved

from genrec import Dataset, Recommender
from genrec.data.splits import split_last_unit
from genrec.errors import SettingsError
from genrec.training import trainer

LISTS: list[list[str]] = [
    ["recommend", "--user", "u0"],
    ["recommend", "--history", "bought: red mug", "--explain"],
    ["recommend", "--user", "u0", "--decoder", "match"],
    ["rank", "--user", "u0"],
    ["score", "--user", "u0"],
    ["explain", "--user", "u0", "--item", "i1"],
    ["prompt", "--user", "u0"],
    ["evaluate", "--against", "none"],
    ["tune", "--users", "2"],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with data, a model, a run for next items and a run for questions."""
    folder = tmp_path_factory.mktemp("uses")
    data = made(8, users=4)
    events = split_last_unit(data.interactions, "buy")
    data = replace(data, interactions=events, info=replace(data.info, split="last unit"))
    data.save(folder / "data")
    model = str(saved(folder))
    for name in ("next", "pointwise"):
        trainer.train(data, folder / name, model, objective=name, **FEW)
    (folder / "items.txt").write_text("i0\ni5\n")
    return folder


def likes(place: Path, *more: object) -> list[object]:
    return ["likes", place / "data", "--user", "u0", "--items", place / "items.txt", *more]


def test_a_run_for_next_items_answers_no_questions(run: Run, place: Path) -> None:
    code, out, err = run(*likes(place, "--run", place / "next"))
    assert (code, out) == (SettingsError.exit_code, "")
    for part in ("next item", "--objective pointwise", "--template would_like", str(place)):
        assert part in err
    code, _, err = run(*likes(place, "--run", "online_retail_demo"))
    assert code == SettingsError.exit_code
    recommender = Recommender.load(place / "next", Dataset.load(place / "data"))
    for same in (recommender, recommender.with_settings(seed=1)):
        with pytest.raises(SettingsError, match="not to answer yes-or-no"):
            same.would_like("", "i0")
    with pytest.raises(SettingsError, match="not to answer yes-or-no"):
        Recommender.load(place / "next").would_like("", ["i0"])


@pytest.mark.parametrize("template", ["next_item", "sentence"])
def test_a_template_without_a_question_asks_none(run: Run, place: Path, template: str) -> None:
    for which in (["--run", place / "next"], ["--model", place / "tiny-llama"]):
        code, _, err = run(*likes(place, *which, "--template", template))
        assert code == 4
        assert f"template='{template}' does not ask a yes-or-no question" in err


def test_an_explicit_question_is_asked_and_reported(run: Run, place: Path) -> None:
    given = likes(place, "--run", place / "next", "--template", "would_like")
    found = answer(run, *given)
    assert (found["template"], found["trained"]) == ("would_like", False)
    assert "trained to predict the next item" in found["notes"][0]
    code, _, err = run(*given)
    assert code == 0
    assert "not calibrated" in err
    explicit = Recommender.load(place / "next", Dataset.load(place / "data"), template="would_like")
    chances = explicit.would_like(explicit.history("u0"), ["i0", "i5"])
    assert sorted(chances) == pytest.approx(sorted(i["probability"] for i in found["items"]))
    with pytest.raises(SettingsError, match="asks a yes-or-no question"):
        explicit.recommend("")


def test_who_was_trained_to_answer_is_reported(run: Run, place: Path) -> None:
    found = answer(run, *likes(place, "--run", place / "pointwise"))
    assert (found["template"], found["trained"], found["notes"]) == ("would_like", True, [])
    found = answer(run, *likes(place, "--model", place / "tiny-llama"))
    assert (found["template"], found["trained"]) == ("would_like", False)
    assert "was not fine-tuned" in found["notes"][0]


@pytest.mark.parametrize("arguments", LISTS, ids=lambda a: " ".join(a[:1] + a[3:4]))
def test_a_run_for_questions_ranks_no_items(run: Run, place: Path, arguments: list[str]) -> None:
    command, *more = arguments
    code, out, err = run(command, place / "data", *more, "--run", place / "pointwise")
    assert (code, out) == (SettingsError.exit_code, "")
    assert "answer yes-or-no questions" in err
    assert "genrec likes" in err


def test_the_use_is_checked_before_weights_are_loaded(
    run: Run, place: Path, tmp_path: Path
) -> None:
    for name, command in (
        ("next", likes(place)),
        ("pointwise", ["recommend", place / "data", "--user", "u0"]),
    ):
        moved = tmp_path / name
        moved.mkdir()
        values: dict[str, Any] = json.loads((place / name / "run.json").read_text())
        (moved / "run.json").write_text(json.dumps(values | {"base_model": "/no/such/model"}))
        code, _, err = run(*command, "--run", moved)
        assert code == SettingsError.exit_code
        assert "was trained to" in err


def test_python_refuses_lists_from_a_run_for_questions(place: Path) -> None:
    recommender = Recommender.load(place / "pointwise", Dataset.load(place / "data"))
    for ask in (recommender.recommend, recommender.score, recommender.prompt):
        with pytest.raises(SettingsError, match="cannot rank items"):
            ask("")
    with pytest.raises(SettingsError, match="cannot rank items"):
        recommender.explain("", "i0")
