"""The split by time: the same times for all users, whole baskets, and no future in train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import Run
from support.shop_files import EVENTS, splits, write

from genrec import Catalog, Dataset, Interactions, Item
from genrec.data.ingest import EventOptions
from genrec.data.splits import hold_latest_train, split_global_time
from genrec.errors import DataError, SettingsError

HEAD = "user_id,item_id,timestamp,behavior\n"
DATES = HEAD + "".join(
    f"{user},{item},2024-01-{day:02d},{did}\n"
    for day, (user, item, did) in enumerate(
        [("u", "a", "buy"), ("v", "b", "buy"), ("u", "b", "view"), ("v", "a", "buy"),
         ("u", "c", "buy"), ("u", "a", "buy"), ("v", "c", "view"), ("v", "b", "buy"),
         ("u", "b", "view"), ("u", "a", "buy"), ("w", "c", "buy")], start=1)
)  # fmt: skip


def prepare(folder: Path, events: str = DATES, **options: Any) -> Dataset:
    items, path = write(folder, events=events)
    return Dataset.prepare(items, path, split="global-time", **options)[0]


def test_the_cuts_are_quantiles_of_the_times(tmp_path: Path) -> None:
    data = prepare(tmp_path)
    assert data.info.split == "global time"
    day = 86400.0
    begin = 1704067200.0  # 2024-01-01
    assert data.info.split_times == {"validation": begin + 8 * day, "test": begin + 9 * day}
    assert data.info.split_events == {"train": 8, "validation": 1, "test": 2}
    assert splits(data, "u") == [
        ("a", "train"), ("b", "train"), ("c", "train"), ("a", "train"), ("b", "validation"),
        ("a", "test"),
    ]  # fmt: skip
    assert {s for _, s in splits(data, "v")} == {"train"}
    assert splits(data, "w") == [("c", "test")]  # a user of test only, whose history is empty
    assert len(data.interactions.history("w", before="test")) == 0
    assert [t.item_id for t in data.interactions.targets("w", "test", "buy")] == ["c"]
    assert "users with a 'buy' event: train 2, validation 0, test 2" in data.info.notes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-01-05", "2024-01-08"),
        ("2024-01-05T00:00:00Z", "1704672000"),
        (1704412800.0, 1704672000),
    ],
)
def test_the_cuts_may_be_given(tmp_path: Path, first: str | float, second: str | float) -> None:
    data = prepare(tmp_path, validation_from=first, test_from=second)
    assert data.info.split_events == {"train": 4, "validation": 3, "test": 4}
    data.save(tmp_path / "out")
    again = Dataset.load(tmp_path / "out")
    assert again.info == data.info
    assert again.interactions.to_table().equals(data.interactions.to_table())


def test_numbers_are_in_the_unit_of_the_data(tmp_path: Path) -> None:
    events = HEAD + "".join(f"u,a,{d},buy\n" for d in (19000, 19001, 19002))
    data = prepare(tmp_path, events, validation_from=19001, test_from="19002")
    assert data.info.time_unit == "day"
    assert [s for _, s in splits(data, "u")] == ["train", "validation", "test"]


def test_targets_are_of_the_first_unit_of_a_part(tmp_path: Path) -> None:
    data = prepare(tmp_path, validation_from="2024-01-03", test_from="2024-01-05")
    assert [s for _, s in splits(data, "u")].count("test") == 4
    targets = data.interactions.targets("u", "test", "buy")
    assert [t.item_id for t in targets] == ["c"]
    assert data.interactions.history("u", before="test").item_ids == ("a", "b")


def test_a_basket_stays_whole_and_overlapping_ones_together(tmp_path: Path) -> None:
    events = (
        "user_id,item_id,timestamp,behavior,basket\n"
        "u,a,1,buy,x\nu,b,12,buy,y\nu,c,13,buy,x\nu,a,14,buy,y\nu,b,15,buy,z\nv,a,2,buy,x\n"
    )
    data = prepare(tmp_path, events + "v,b,11,buy,w\n", validation_from=10, test_from=11,
                   options=EventOptions(time_unit="s"))  # fmt: skip
    assert [s for _, s in splits(data, "u")] == ["train"] * 4 + ["test"]
    assert [s for _, s in splits(data, "v")] == ["train", "test"]


def test_positions_cannot_be_compared(tmp_path: Path) -> None:
    events = "user_id,item_id,position,behavior\nu,a,1,buy\nu,b,2,buy\nu,c,3,buy\n"
    with pytest.raises(DataError, match="positions, which cannot be compared between users"):
        prepare(tmp_path, events)
    with pytest.raises(DataError, match="--time-unit s"):
        prepare(tmp_path, events.replace("position", "timestamp"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_from": "soon"}, "'soon' is not a time. Expected an ISO date"),
        ({"validation_from": "1/2/2024"}, "is not a time"),
        ({"test_from": "nan"}, "is not a time"),
        (
            {"validation_from": "2024-01-09", "test_from": "2024-01-02"},
            "two times between",
        ),
        ({"test_from": "2025-01-01"}, "0 for test"),
        ({"validation_from": "2023-01-01"}, "leave 0 events for train"),
        ({"split": "random"}, "Unknown value split='random'"),
        (
            {"split": "last-unit", "test_from": "2024-01-02"},
            "only allowed with split='global-time'",
        ),
    ],
)
def test_cuts_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    items, path = write(tmp_path, events=DATES)
    with pytest.raises((DataError, SettingsError)) as caught:
        Dataset.prepare(items, path, **{"split": "global-time", **options})
    assert message in str(caught.value)


def test_a_given_split_is_replaced_only_when_asked(tmp_path: Path) -> None:
    lines = DATES.splitlines()
    events = "\n".join([lines[0] + ",split", *(f"{line},odd" for line in lines[1:])]) + "\n"
    data = prepare(tmp_path, events)
    assert data.info.split == "global time"
    assert "the split column was replaced with a split by global time" in data.info.notes
    items, path = write(tmp_path, events=events.replace(",odd", ",train"))
    data, _ = Dataset.prepare(items, path, split="last-unit")
    assert data.info.split == "last unit"
    assert "the split column was replaced with a split by last unit" in data.info.notes
    assert Dataset.prepare(items, path)[0].info.split == "given"


def test_the_command_says_the_cuts(run: Run, tmp_path: Path) -> None:
    items, path = write(tmp_path, events=DATES)
    arguments = ["prepare", "--items", items, "--interactions", path, "--out", tmp_path / "o"]
    code, out, err = run(*arguments, "--split", "global-time", "--test-from", "2024-01-10")
    assert code == 0, err
    assert (
        "The events are split by time (validation from 2024-01-09T00:00:00Z, test from "
        "2024-01-10T00:00:00Z): train 8, validation 1, test 2."
    ) in out
    code, _, err = run(*arguments, "--split", "by-luck")
    assert code == 2
    assert "Expected one of: last-unit, global-time" in err


def test_a_folder_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    items, path = write(tmp_path, events=EVENTS)
    data, _ = Dataset.prepare(items, path)
    data.save(tmp_path / "o")
    file = tmp_path / "o" / "dataset.json"
    text = file.read_text().replace(',\n  "split_times": {}', "")
    assert "split_times" not in text
    file.write_text(text)
    assert Dataset.load(tmp_path / "o").info == data.info


events = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 30))  # user, basket, time


def bought(rows: list[tuple[int, int, int]], baskets: bool) -> Interactions:
    """Build purchases of one item by user, basket and time."""
    table = pa.Table.from_pylist(
        [
            {"user_id": f"u{user}", "item_id": "a", "behavior": "buy", "timestamp": float(time),
             "number": n, **({"basket": f"{basket}"} if baskets else {})}
            for n, (user, basket, time) in enumerate(rows)
        ]
    )  # fmt: skip
    return Interactions.from_table(table, Catalog([Item("a", "mug")]), time_unit="s")


@given(
    st.lists(events, min_size=2, max_size=30),
    st.booleans(),
    st.tuples(st.floats(0, 31), st.floats(0, 31)),
)
def test_nothing_of_train_is_later_than_test(
    rows: list[tuple[int, int, int]], baskets: bool, cuts: tuple[float, float]
) -> None:
    found = bought(rows, baskets)
    first, second = min(cuts), max(cuts)
    try:
        c = split_global_time(found, first, second).columns
    except DataError:
        return
    assert len(c.split) == len(rows)
    assert set(c.split.tolist()) <= {0, 1, 2}
    for user in range(len(found.user_ids)):
        mine = c.split[c.user == user]
        assert (mine[1:] >= mine[:-1]).all()  # never back: a history before test has no later event
    for unit in set(c.unit.tolist()):
        assert len(set(c.split[c.unit == unit].tolist())) == 1
    if not baskets:
        assert c.timestamp[c.split == 0].max() < c.timestamp[c.split == 2].min()
        assert ((c.timestamp < first) == (c.split == 0)).all()
        assert ((c.timestamp >= second) == (c.split == 2)).all()
    else:  # what is late in train is of a basket, or of a chain of them, that began in time
        late = (c.split == 0) & (c.timestamp >= first)
        for index in late.nonzero()[0].tolist():
            before = slice(0, index)
            same = (c.user[before] == c.user[index]) & (c.timestamp[before] < first)
            assert same.any()


@given(st.lists(events, min_size=2, max_size=30), st.booleans(), st.floats(0.05, 0.9))
def test_the_latest_of_train_is_held_out_for_all_users_at_once(
    rows: list[tuple[int, int, int]], baskets: bool, share: float
) -> None:
    found = bought(rows, baskets)
    try:
        found = split_global_time(found, 31.0 * share, 25.0)
    except DataError:
        return
    before, after = found.columns, hold_latest_train(found, "buy", share).columns
    assert ((after.split == 2) == (before.split > 0)).all()
    held, train = after.split == 1, after.split == 0
    assert held.sum() <= max(1, share * (before.split == 0).sum()) or _tied(before)
    if not baskets and held.any() and train.any():
        assert after.timestamp[train].max() < after.timestamp[held].min()
    for unit in set(after.unit.tolist()):
        assert len(set(after.split[after.unit == unit].tolist())) == 1
    with pytest.raises(DataError, match="view"):
        hold_latest_train(found, "view")


def _tied(c: Any) -> bool:
    """Check whether events of train share a time, or a basket with others."""
    train = c.split == 0
    return bool(
        len(set(c.timestamp[train].tolist())) < train.sum() or len(set(c.unit)) < len(c.unit)
    )
