"""Every file in ``tests/data/broken`` gives the expected message or the expected rejected rows.

For each file, ``expected.json`` holds either ``error`` (a part of the message), or ``kept`` (the
numbers of items and events), ``rejected`` (row number and reason) and ``notes`` (some of them). The
name of a file begins with its role, ``items`` or ``events``; the other file is good.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from genrec import Dataset
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError

FOLDER = Path(__file__).parent / "broken"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
REJECTING = [name for name, expected in EXPECTED.items() if expected.get("rejected")]


def prepare(name: str, *, strict: bool = False) -> tuple[Dataset, list[Rejects]]:
    files = {"items": FOLDER / "good-items.csv", "events": FOLDER / "good-events.csv"}
    files[name.split("-")[0]] = FOLDER / name
    return Dataset.prepare(files["items"], files["events"], strict=strict)


def test_every_file_is_expected_to_give_something() -> None:
    names = {p.name for p in FOLDER.iterdir()} - {"expected.json"}
    assert names == EXPECTED.keys() | {"good-items.csv", "good-events.csv"}
    assert len(EXPECTED) >= 100
    data, rejects = prepare("items-windows-lines.csv")
    assert not any(r.rows for r in rejects)
    assert data.info.notes == [
        "time unit of column 'timestamp' guessed: s, from 2023-11-14 to 2023-11-14"
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_broken_file(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    if "error" in expected:
        with pytest.raises(DataError) as caught:
            prepare(name)
        message = str(caught.value)
        assert expected["error"] in message
        assert name in message
        assert re.search(r"Expected|[Rr]ename |[Ss]ave |Close ", message)  # what to do
        return
    data, rejects = prepare(name)
    assert [len(data.catalog), len(data.interactions)] == expected["kept"]
    rows = [[row, reason] for r in rejects for file, row, reason, _ in r.rows if file == name]
    assert rows == expected["rejected"]
    assert set(expected["notes"]) <= set(data.info.notes)
    data.save(tmp_path / "o", rejects)
    assert len(Dataset.load(tmp_path / "o").interactions) == len(data.interactions)


@pytest.mark.parametrize("name", REJECTING)
def test_strict_makes_the_first_bad_row_an_error(name: str) -> None:
    row, reason = EXPECTED[name]["rejected"][0]
    with pytest.raises(DataError) as caught:
        prepare(name, strict=True)
    assert f"{name}, data row {row}: {reason}. Expected every row to be usable. Fix" in str(
        caught.value
    )
