"""Every export in ``tests/data/shops`` becomes the dataset that its ``case.json`` describes.

The files are small ones as shops and media sites have them. Where all data is in one file, it must
also be read without the options that the case names.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import Run

FOLDER = Path(__file__).parent / "shops"
CASES: dict[str, Any] = {
    p.parent.name: json.loads(p.read_text(encoding="utf-8")) for p in FOLDER.glob("*/case.json")
}
SINGLE = [name for name, case in CASES.items() if "--items" not in case["args"]]


def seconds(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC).timestamp()


def check(out: Path, expected: dict[str, Any]) -> None:
    events = pq.read_table(out / "interactions.parquet").to_pylist()
    catalog = pq.read_table(out / "catalog.parquet").to_pylist()
    titles = {r["item_id"]: r["title"] for r in catalog}
    info = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert len(events) == expected["events"]
    assert len({r["user_id"] for r in events}) == expected["users"]
    assert len({r["item_id"] for r in events}) == expected["items_with_events"]
    for item, title in expected["titles"].items():
        assert titles[item] == title
    times = [r["timestamp"] for r in events]
    for name, found in (("first", min(times)), ("last", max(times))):
        if expected.get(name):
            assert abs(found - seconds(expected[name])) < 60, name
    behaviors = Counter(r["behavior"] for r in events)
    for behavior, count in expected.get("behaviors", {}).items():
        assert behaviors[behavior] == count
    if "rejected" in expected:
        assert sum(info["rejected"].values()) == expected["rejected"]
    if "target" in expected:
        assert info["target_behavior"] == expected["target"]
    if expected.get("unit") == "basket":
        assert info["unit"]
    if "find_user" in expected:
        assert expected["find_user"] in {r["user_id"] for r in events}


def prepare(run: Run, name: str, args: list[str], tmp_path: Path) -> Path:
    out = tmp_path / "out"
    code, printed, errors = run("prepare", *paths(name, args), "--out", out)
    assert code == 0, errors
    text = (FOLDER / name / args[0]).read_text("latin-1")
    assert "Columns:" in printed or "user_id" in text or "has no header" in printed
    return out


def paths(name: str, args: list[str]) -> list[str]:
    case = FOLDER / name
    return [str(case / a) if (case / a).is_file() else a for a in args]


def test_there_are_cases() -> None:
    assert len(CASES) >= 13
    assert len(SINGLE) >= 8


@pytest.mark.parametrize("name", CASES)
def test_an_export_with_the_options_of_its_case(run: Run, name: str, tmp_path: Path) -> None:
    check(prepare(run, name, CASES[name]["args"], tmp_path), CASES[name]["expect"])


@pytest.mark.parametrize("name", SINGLE)
def test_an_export_in_one_file_without_options(run: Run, name: str, tmp_path: Path) -> None:
    check(prepare(run, name, CASES[name]["args"][:1], tmp_path), CASES[name]["expect"])


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_shows_ten_rows_and_writes_nothing(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, errors = run("prepare", *paths(name, CASES[name]["args"]), "--dry-run")
    assert code == 0, errors
    assert "Nothing was written" in printed
    rows = [line for line in printed.splitlines() if re.search(r"\t2019-\S+Z\t", line)]
    assert len(rows) == 10
    assert "column\tread as\texample" in printed
    assert not os.listdir(tmp_path)


def test_the_folder_is_named_after_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, errors = run("prepare", FOLDER / "shopify" / "orders_export.csv")
    assert code == 0, errors
    assert (tmp_path / "orders_export" / "dataset.json").is_file()
    assert "unit from 'Name'" in printed
