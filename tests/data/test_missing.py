"""Words for missing values are no users, items or titles."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrec import Dataset

HEAD = "user_id,item_id,title,timestamp\n"


def prepare(tmp_path: Path, rows: list[str], head: str = HEAD) -> Dataset:
    path = tmp_path / "e.csv"
    path.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    return Dataset.prepare(None, path)[0]


def events(user: str = "", item: str = "", title: str = "") -> list[str]:
    """Twenty usual rows, and one with the given cells."""
    rows = [f"c{n % 5},s{n % 4},Thing {n % 4},2024-01-{n + 1:02d}" for n in range(20)]
    return [*rows, f"{user or 'c1'},{item or 's1'},{title or 'Thing 1'},2024-02-01"]


@pytest.mark.parametrize(
    "word",
    ["None", "none", "NULL", "(null)", "nan", "NaT", "N/A", "NA", "nil", "undefined", "-", "--", "?",
     "<NA>", "#N/A", "\\N", "0", "-1", "00000000-0000-0000-0000-000000000000", "guest", "Anonymous",
     "Unknown"],
)  # fmt: skip
def test_no_user_is_called_by_a_word_for_nobody(word: str, tmp_path: Path) -> None:
    data = prepare(tmp_path, events(user=word))
    assert (data.info.users, data.info.events) == (5, 20)
    assert sum("empty user_id" in reason for reason in data.info.rejected) == 1
    assert any(repr(word) in note for note in data.info.notes)


def test_numbers_are_users_among_numbers(tmp_path: Path) -> None:
    rows = [f"{n % 5 - 1},s{n % 4},Thing {n % 4},2024-01-{n + 1:02d}" for n in range(20)]
    assert prepare(tmp_path, rows).info.users == 5


@pytest.mark.parametrize("word", ["N/A", "n/a", "-", "None", "NULL", "(null)", "?", "unknown"])
def test_words_for_no_title_are_not_recommended(word: str, tmp_path: Path) -> None:
    rows = [*events(title=word), f"c2,s8,{word},2024-02-02", f"c3,s9,{word},2024-02-03"]
    data = prepare(tmp_path, rows)
    assert sorted(i.title for i in data.catalog) == [f"Thing {n}" for n in range(4)]
    assert data.info.events == 21  # the item s1 has another title


@pytest.mark.parametrize("word", ["None", "?", "NA", "Unknown"])
def test_one_item_may_have_such_a_title(word: str, tmp_path: Path) -> None:
    data = prepare(tmp_path, [*events(), f"c2,s9,{word},2024-02-02"])
    assert word in [i.title for i in data.catalog]


def test_numbers_that_are_missing_do_not_cost_the_row(tmp_path: Path) -> None:
    rows = [f"{row},{'n/a' if n % 4 else 3}" for n, row in enumerate(events())]
    data = prepare(tmp_path, rows, HEAD.strip() + ",rating\n")
    assert data.info.events == 21


@pytest.mark.parametrize(
    ("zone", "time", "said"),
    [
        ("Eastern Time (US & Canada)", "2024-01-02 10:00", True),
        ("Europe/Berlin", "02.01.2024 10:00", True),
        ("", "2024-01-02 10:00", False),
        ("Europe/Berlin", "1704189600", False),
    ],
)
def test_a_column_of_time_zones_is_said(zone: str, time: str, said: bool, tmp_path: Path) -> None:
    rows = [f"c{n % 5},s{n % 4},Thing {n % 4},{time},{zone}" for n in range(20)]
    rows.append(f"c1,s1,Thing 1,{time.replace('02', '13', 1)},{zone}")
    data = prepare(tmp_path, rows, HEAD.strip() + ",Time Zone\n")
    assert any("'Time Zone'" in note and "UTC" in note for note in data.info.notes) == said
