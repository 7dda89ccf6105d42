"""Lines that ``warm`` has stored are found by other recommenders, and lists stay the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.baskets import dataset
from support.commands import Run

from genrec import Dataset, Recommender
from genrec.errors import SettingsError
from genrec.models.language_model import LanguageModel

BY_EVENT: dict[str, Any] = {
    "attention": "by_event", "recent_events": 2, "encoder": "none", "prior": "none",
}  # fmt: skip


def fresh() -> LanguageModel:
    """A model with an empty store."""
    model = tiny.language_model()
    return LanguageModel(model.model, model.tokenizer, name=model.name)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    shopping = [[(n % 5, "buy")] for n in range(6)] + [[(5, "view"), (4, "buy")]]
    dataset(shopping, users=3).save(tmp_path / "data")
    return Dataset.load(tmp_path / "data")


@pytest.mark.parametrize("numbers", ["float32", "int8"])
def test_every_line_is_stored(data: Dataset, numbers: str) -> None:
    ours = Recommender(data, fresh(), line_numbers=numbers, **BY_EVENT)
    before = ours.recommend(ours.history("u0"), 5)
    found = Recommender(data, fresh(), line_numbers=numbers, **BY_EVENT).warm()
    assert found.lines == found.wanted >= len(data.catalog)
    assert found.coverage == 1.0
    assert found.store["disk_lines"] == found.lines - 2 + 1  # two have one title; and the head
    again = Recommender(data, fresh(), line_numbers=numbers, line_memory=0, **BY_EVENT)
    after = again.recommend(again.history("u0"), 5)
    assert [r.item_id for r in after] == [r.item_id for r in before]
    assert [r.score for r in after] == pytest.approx([r.score for r in before], abs=1e-5)
    assert after.details["attention"]["read"] == 0
    assert after.details["attention"]["stored"] > 0
    assert after.details["attention"]["store"]["hit_rate"] == 1.0
    assert after.details["attention"]["store"]["lines"] == 0


def test_lines_of_another_number_type_are_not_found(data: Dataset) -> None:
    Recommender(data, fresh(), line_numbers="int8", **BY_EVENT).warm()
    other = Recommender(data, fresh(), **BY_EVENT)
    answer = other.recommend(other.history("u0"), 5)
    assert answer.details["attention"]["read"] == 4  # all that differ


def test_lines_are_stored_as_they_come(data: Dataset) -> None:
    first = Recommender(data, fresh(), line_disk=64, **BY_EVENT)
    assert first.recommend(first.history("u0"), 5).details["attention"]["read"] > 0
    first.model.lines.flush()
    second = Recommender(data, fresh(), **BY_EVENT)
    assert second.recommend(second.history("u0"), 5).details["attention"]["read"] == 0


def test_it_stops_at_the_budget(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from genrec.pipeline import warming

    monkeypatch.setattr(warming, "SHARD", (1 << 20) + 1)
    monkeypatch.setattr(warming, "_EVENTS", 2)
    ours = Recommender(data, fresh(), **BY_EVENT)
    found = ours.warm(disk=1)
    assert found.lines < found.wanted
    assert found.store["disk_mib"] <= 1.0


def test_what_is_missing_is_said(data: Dataset) -> None:
    with pytest.raises(SettingsError, match="Only attention='by_event' stores lines"):
        Recommender(data, fresh(), encoder="none").warm()
    with pytest.raises(SettingsError, match="no folder for the lines"):
        Recommender(data.catalog, fresh(), **BY_EVENT).warm()


def test_the_command(run: Run, data: Dataset, model: Path) -> None:
    code, out, err = run("warm", data.folder, "--model", model, "--line-numbers", "bfloat16")
    assert code == 0, err
    assert f"{2 * len(data.catalog)} of" in out or f"{len(data.catalog)} of" in out
    code, out, err = run("warm", data.folder, "--model", model, "--json")
    assert code == 0, err
    page = Path(__file__).parents[2] / "docs" / "reference" / "outputs.md"
    part = page.read_text(encoding="utf-8").partition("\n## warm\n")[2].partition("\n## ")[0]
    assert all(f"`{field}`" in part for field in json.loads(out))
    code, out, err = run("doctor", "--data", data.folder)
    assert code == 0, err
    assert "lines," in out
    assert "MiB, last used" in out
