"""Read, check, split and store data: bad rows are reported, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.commands import Run
from support.shop_files import EVENTS, ITEMS, splits, write

from genrec import (
    Catalog,
    Dataset,
    Interactions,
    Item,
    Recommender,
)
from genrec.baselines import registry
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.readers.rejects import Rejects
from genrec.data.splits import split_last_unit
from genrec.errors import (
    DataError,
    RequestError,
    SettingsError,
    UnknownUserError,
)
from genrec.evaluation import evaluator, scoring_pass
from genrec.priors.collaborative import CollaborativePrior


def test_catalog_keeps_order_attributes_and_types(tmp_path: Path) -> None:
    catalog = Catalog.read(write(tmp_path)[0])
    assert [i.item_id for i in catalog] == ["a", "b", "c"]
    assert catalog[0].attributes == {"price": 1.5, "colour": "red"}
    assert catalog[2].attributes["price"] is None
    assert catalog.row("c") == 2
    assert "zz" not in catalog
    with pytest.raises(RequestError, match="'zz' is not in the catalog of 3 items"):
        catalog.row("zz")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("", "is empty"),
        ("id,title\na,b\n", "no column 'item_id'"),
        ("item_id,title,title\na,b,c\n", "found item_id, title.1, title.2"),
        ("item_id,title\n", "has no items"),
        ("item_id,title\n,mug\n", "data row 1: empty item_id"),
        ("item_id,title\na,mug\na,doll\n", "data row 2: duplicate item_id 'a'"),
        ("item_id,title\na,mug\nb, \t\n", "data row 2: empty title"),
        ("item_id,title\na,mug\nb,\x1b\x00\n", "data row 2: empty title"),
        ("item_id,title\na,mug\nb,x,y\n", "data row 2: 3 cells, but the header has 2"),
        ("item_id,title\na,mug é\nb,caf\udce9\n", "data row 2: not valid UTF-8"),
    ],
)
def test_bad_items_are_errors_when_strict(tmp_path: Path, items: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Catalog.read(write(tmp_path, items=items)[0])
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "items.txt", "broken.parquet", "broken.csv.gz"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    if name != "missing.csv":
        (tmp_path / name).write_bytes(b"not what it says")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        Catalog.read(tmp_path / name)


def test_gzip_and_parquet_read_alike(tmp_path: Path) -> None:
    path = write(tmp_path)[0]
    plain = Catalog.read(path)
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    pq.write_table(plain.to_table(), tmp_path / "items.parquet")
    for name in ("items.csv.gz", "items.parquet"):
        other = Catalog.read(tmp_path / name)
        assert list(other) == list(plain)
        assert other.hash() == plain.hash()


def test_a_byte_order_mark_and_quotes_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path, items='\ufeffitem_id,title\n"a","x, ""y""\nz"\n')[0]
    assert list(Catalog.read(path)) == [Item("a", 'x, "y"\nz')]


def test_titles_match_exactly_before_normalised() -> None:
    catalog = Catalog([Item("a", "Mug"), Item("b", "mug"), Item("c", "MUG!"), Item("d", "mug")])
    assert catalog.rows_of_title("mug") == ([1, 3], "exact")
    assert catalog.rows_of_title("muG") == ([0, 1, 2, 3], "normalized")
    assert catalog.rows_of_title("jug") == ([], "")
    assert catalog.rows_of_title("!") == ([], "")


def prepared(tmp_path: Path, **options: str) -> Dataset:
    items, events = write(tmp_path, **options)
    return Dataset.prepare(items, events)[0]


def test_histories_are_sorted_with_ties_in_file_order(tmp_path: Path) -> None:
    data = prepared(
        tmp_path,
        events="user_id,item_id,timestamp,behavior\nu,c,9,buy\nu,a,3,buy\nu,b,3,view\nu,a,3,buy\n",
    )
    history = data.interactions.history("u")
    assert history.item_ids == ("a", "b", "a", "c")
    assert [i.behavior for i in history.interactions] == ["buy", "view", "buy", "buy"]
    assert history.latest(2).item_ids == ("a", "c")
    assert history.latest(0).item_ids == ()
    assert data.info.tied == 2
    with pytest.raises(UnknownUserError, match="User 'zz' is not among the 1 users"):
        data.interactions.history("zz")


def test_interactions_keep_value_unit_and_attributes(tmp_path: Path) -> None:
    first = prepared(tmp_path).interactions.history("u").interactions[0]
    assert (first.value, first.unit, first.attributes) == (2.0, "i1", {"country": "DE"})
    assert prepared(tmp_path).interactions.history("u").interactions[1].value is None


def test_split_by_last_basket(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    assert splits(data, "u") == [
        ("a", "train"), ("b", "train"), ("c", "train"), ("c", "validation"), ("a", "test"),
    ]  # fmt: skip
    assert splits(data, "v") == [("b", "train")]  # a single unit is train only
    assert data.interactions.history("u", before="test").item_ids == ("a", "b", "c", "c")
    targets = data.interactions.targets("u", "validation", "buy")
    assert [t.item_id for t in targets] == ["c"]
    assert data.interactions.targets("v", "test", "buy") == []


def test_what_follows_the_last_target_is_test(tmp_path: Path) -> None:
    events = EVENTS + "u,b,50,return,,i9,FR\n"
    data = prepared(tmp_path, events=events)
    assert splits(data, "u")[-2:] == [("a", "test"), ("b", "test")]
    assert [t.item_id for t in data.interactions.targets("u", "test", "buy")] == ["a"]


def test_without_baskets_a_unit_is_an_event(tmp_path: Path) -> None:
    data = prepared(
        tmp_path, events="user_id,item_id,position,behavior\nu,a,0,x\nu,b,1,x\nu,c,2,x\nv,a,0,x\n"
    )
    assert splits(data, "u") == [("a", "train"), ("b", "validation"), ("c", "test")]
    assert data.info.unit is None


def split_slowly(units: list[int], is_target: list[bool]) -> list[int]:
    """Split one user's events by last unit, event by event."""
    order: list[int] = []
    for unit, target in zip(units, is_target, strict=True):
        if target and unit in order:
            order.remove(unit)
        if target:
            order.append(unit)
    if len(order) < 2:
        return [0] * len(units)
    test = units.index(order[-1])
    before = [u for u, t in zip(units[:test], is_target[:test], strict=True) if t]
    if not before:
        return [0] * len(units)
    validation = units.index(before[-1])
    return [2 if i >= test else 1 if i >= validation else 0 for i in range(len(units))]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_split_equals_the_slow_way(users: list[list[tuple[int, bool]]]) -> None:
    catalog = Catalog([Item("a", "mug")])
    rows = [
        {"user_id": f"u{n}", "item_id": "a", "behavior": "buy" if target else "view",
         "timestamp": place, "basket": str(unit)}
        for n, events in enumerate(users)
        for place, (unit, target) in enumerate(events)
    ]  # fmt: skip
    events = Interactions.from_table(pa.Table.from_pylist(rows), catalog)
    if "buy" not in events.behaviors:
        with pytest.raises(DataError, match="No interaction has the behavior 'buy'"):
            split_last_unit(events, "buy")
        return
    split = split_last_unit(events, "buy").columns.split.tolist()
    expected: list[int] = []
    for user in users:
        expected += split_slowly([u for u, _ in user], [t for _, t in user])
    assert split == expected


BAD = {
    ",a,1,buy": "empty user_id",
    "u,,1,buy": "empty item_id",
    "u,zz,1,buy": "not in the items file: 'zz'",
    "u,a,1,": "empty behavior",
    "u,a,,buy": "time is empty or not a number or date",
    "u,a,nan,buy": "time is empty or not a number or date",
    "u,a,inf,buy": "time is empty or not a number or date",
    "u,a,soon,buy": "time is empty or not a number or date",
    "u,a,1": "3 cells, but the header has 4",
    "é,a\udcff,1,buy": "not valid UTF-8",
}


def test_bad_rows_are_set_aside_and_nothing_is_lost(tmp_path: Path) -> None:
    good = ["u,a,1,buy", "u,b,2,buy", "v,c,3,view"]
    lines = [*BAD, *good]
    events = "user_id,item_id,timestamp,behavior\n" + "\n".join(lines) + "\n"
    items, path = write(tmp_path, items=ITEMS + "a,again,1,x\n,none,1,x\n", events=events)
    data, rejects = Dataset.prepare(items, path)
    assert len(data.interactions) == len(good)
    rejected = [(number, reason) for _, number, reason, _ in rejects[1].rows]
    assert len(rejected) == len(BAD)
    assert {reason for _, reason in rejected} == set(BAD.values())
    by_number = dict(rejected)
    for reason in ("3 cells, but the header has 4", "not valid UTF-8"):
        assert by_number[list(BAD.values()).index(reason) + 1] == reason
    assert sum(data.info.rejected.values()) == len(BAD) + 2
    data.save(tmp_path / "out", rejects)
    text = (tmp_path / "out" / "rejected.csv").read_text(encoding="utf-8")
    assert text.count("\n") == 1 + len(BAD) + 2
    for line, reason in BAD.items():
        items, path = write(tmp_path, events=f"user_id,item_id,timestamp,behavior\n{line}\n")
        with pytest.raises(DataError) as caught:
            Dataset.prepare(items, path, strict=True)
        assert reason in str(caught.value)


def test_dates_and_times_are_understood(tmp_path: Path) -> None:
    data = prepared(
        tmp_path,
        events="user_id,item_id,timestamp,behavior\n"
        "u,b,2024-01-02 00:00:00,buy\nu,a,2024-01-01T12:00:00,buy\n",
    )
    history = data.interactions.history("u")
    assert history.item_ids == ("a", "b")
    assert history.interactions[1].timestamp - history.interactions[0].timestamp == 12 * 3600


def test_a_dataset_folder_is_readable_by_pyarrow_and_loads_the_same(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    data.save(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "interactions.parquet")
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
    assert pq.read_table(tmp_path / "out" / "catalog.parquet")["title"][0].as_py() == "Red mug"
    again = Dataset.load(tmp_path / "out")
    assert again.info == data.info
    assert list(again.catalog) == list(data.catalog)
    assert again.interactions.to_table().equals(data.interactions.to_table())
    assert again.interactions.history("u") == data.interactions.history("u")


def test_saving_replaces_only_dataset_folders(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    data.save(tmp_path / "out")
    data.renamed("second").save(tmp_path / "out")
    assert Dataset.load(tmp_path / "out").info.name == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.csv", "items.csv", "out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="files that do not belong to a dataset"):
        data.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("fails", ["write", "swap"])
def test_a_failed_save_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    data = prepared(tmp_path)
    data.save(tmp_path / "out")
    rename = Path.rename

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def once(self: Path, target: Path) -> Path:
        if self.name.startswith(".out-") and target.name == "out":
            full()
        return rename(self, target)

    if fails == "write":
        monkeypatch.setattr(pq, "write_table", full)
    else:
        monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(DataError, match="no space left on device"):
        data.renamed("second").save(tmp_path / "out")
    assert Dataset.load(tmp_path / "out").info.name == data.info.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.csv", "items.csv", "out"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", "{", "is damaged"),
        ("dataset.json", '{"format_version": 99}', "format_version 99. Expected 1"),
        (
            "dataset.json",
            '{"format_version": 1}',
            "dataset.json lacks the fields name, target_behavior,",
        ),
        ("catalog.parquet", "x", "cannot be read"),
    ],
)
def test_damaged_folders(tmp_path: Path, name: str, content: str, message: str) -> None:
    prepared(tmp_path).save(tmp_path / "out")
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(DataError) as caught:
        Dataset.load(tmp_path / "out")
    assert message in str(caught.value)


def test_fields_of_other_versions_are_ignored_or_get_their_defaults(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    data.save(tmp_path / "out")
    path = tmp_path / "out" / "dataset.json"
    values = json.loads(path.read_text())
    for name in ("led_by", "split_times"):
        del values[name]
    path.write_text(json.dumps({**values, "of_a_later_version": [1]}))
    assert Dataset.load(tmp_path / "out").info == replace(data.info, led_by={}, split_times={})
    del values["unit"], values["case"]
    path.write_text(json.dumps(values))
    with pytest.raises(
        DataError, match=r"lacks the fields case, unit\. Run `genrec prepare` again"
    ):
        Dataset.load(tmp_path / "out")


def test_a_changed_catalog_is_noticed(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    data.save(tmp_path / "out")
    other = Catalog([*data.catalog, Item("d", "Cat")])
    pq.write_table(other.to_table(), tmp_path / "out" / "catalog.parquet")
    with pytest.raises(DataError, match=r"does not match dataset\.json"):
        Dataset.load(tmp_path / "out")
    with pytest.raises(DataError, match="not a dataset folder"):
        Dataset.load(tmp_path)


def test_the_seen_rule_follows_the_repeats(tmp_path: Path) -> None:
    def info(pairs: str) -> tuple[float, bool]:
        rows = "".join(f"u,{item},{n},buy\n" for n, item in enumerate(pairs))
        data = prepared(tmp_path, events=f"user_id,item_id,timestamp,behavior\n{rows}")
        return data.info.repeat_share, data.info.exclude_seen

    assert info("abca") == (0.0, True)  # the last, a repeat, is test and not looked at
    assert info("abac") == (0.5, False)


def share_of_repeats(events: list[tuple[int, int, int]], asked: int, had: int) -> float:
    """Compute ``repeat_share`` event by event; an event is user, item, behavior, and its own unit."""
    found = []
    for place, (user, item, behavior) in enumerate(events):
        before = [i for u, i, b in events[:place] if u == user and b == had]
        if behavior == asked and before:
            found.append(item in before)
    return sum(found) / len(found) if found else 0.0


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), min_size=1),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_the_share_of_repeats_is_counted_by_behavior(
    events: list[tuple[int, int, int]], asked: int, had: int
) -> None:
    codes = sorted({b for *_, b in events} | {asked, had})
    rows = [*events, *((9, 0, b) for b in codes)]  # so that each behavior is there; user 9 is test
    table = pa.table(
        {
            "user_id": [f"u{u}" for u, *_ in rows],
            "item_id": [f"i{i}" for _, i, _ in rows],
            "behavior": [f"b{b}" for *_, b in rows],
            "timestamp": range(len(rows)),
            "split": ["test" if u == 9 else "train" for u, *_ in rows],
        }
    )
    catalog = Catalog([Item(f"i{i}", f"title {i}") for i in range(4)])
    found = Interactions.from_table(table, catalog)
    assert found.repeat_share(f"b{asked}", f"b{had}") == pytest.approx(
        share_of_repeats(events, asked, had)
    )
    assert found.repeat_share(f"b{asked}") == found.repeat_share(f"b{asked}", f"b{asked}")


def test_what_leads_to_a_purchase_does_not_count_as_seen(tmp_path: Path) -> None:
    """Build data of users who view what they buy, and never buy twice or what they disliked."""
    items = "item_id,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(12))
    rows, at = [], 0
    for user in range(6):
        for n in range(4):
            item = (user + 3 * n) % 12
            for other, behavior in ((item, "view"), (item, "buy"), ((item + 1) % 12, "dislike")):
                at += 1
                rows.append(f"u{user},i{other},{at},{behavior}\n")
        rows.append(f"u{user},i{(user + 11) % 12},{at + 1},view\n")
    events = f"user_id,item_id,timestamp,behavior\n{''.join(rows)}"
    one, two = write(tmp_path, items, events)
    data, _ = Dataset.prepare(one, two)
    assert data.info.exclude_seen
    assert data.info.led_by == {"view": 1.0, "dislike": 0.0}
    assert {"view", "browse", "cart"} <= data.info.lead_in_behaviors
    assert not data.info.lead_in_behaviors & {"buy", "dislike", "return"}
    data.save(tmp_path / "out")
    assert Dataset.load(tmp_path / "out").info.lead_in_behaviors == data.info.lead_in_behaviors
    typed = Recommender(data, tiny.language_model(), prior="none")
    for verb, back in (("viewed", True), ("looked at", True), ("bought", False)):
        answer = typed.recommend(f"{verb} Thing 3", 12)
        assert ("i3" in {r.item_id for r in answer}) == back
        assert answer.seen == "excluded, except items with only view events"
    for case in protocols.last_unit(data):
        had = {i.item_id for i in case.history.interactions if i.behavior != "view"}
        assert case.target in case.history.item_ids
        prior = CollaborativePrior.fit(data)
        ours = Recommender(data, tiny.language_model(), prior="collaborative")
        for ranked in (
            registry.fit("popular", data).rank(case.history, 20, exclude_seen=True),
            prior.rank(case.history, 20, exclude_seen=True),
            [r.item_id for r in ours.recommend(case.history, 20)],
        ):
            assert set(ranked) == {i.item_id for i in data.catalog} - had
        assert scoring_pass.score_user(ours, case.history, case.target).allowed[0]
    (best,) = evaluator.evaluate(data, ["prior"]).results
    assert best.mean("hit_rate@5").mean == 1.0
    assert not best.per_user("invalid").any()
    viewed = protocols.with_target_behavior(data, "view").info
    assert viewed.lead_in_behaviors == set()
    assert (
        Recommender(data, tiny.language_model(), target_behavior="view").lead_in_behaviors == set()
    )


def test_nothing_in_train_is_said(tmp_path: Path) -> None:
    two = "".join(f"u{u},{item},{n},buy\n" for u in range(24) for n, item in enumerate("ab"))
    data = prepared(tmp_path, events=f"user_id,item_id,timestamp,behavior\n{two}")
    assert any(
        "24 of 24 users with held-out events have none in train" in n for n in data.info.notes
    )
    assert not any("have none in train" in n for n in prepared(tmp_path).info.notes)


def test_target_behavior_is_buy_or_the_most_frequent(tmp_path: Path) -> None:
    assert prepared(tmp_path).info.target_behavior == "buy"
    events = "user_id,item_id,timestamp,behavior\nu,a,1,ask\nu,b,2,answer\nu,c,3,answer\n"
    info = prepared(tmp_path, events=events).info
    assert info.target_behavior == "answer"
    assert any("use --target-behavior to choose another" in note for note in info.notes)
    assert not any("--target-behavior" in note for note in prepared(tmp_path).info.notes)


def test_the_embedded_data(demo_data: Dataset) -> None:
    info = demo_data.info
    assert (info.users, info.items, info.events) == (995, 2064, 55864)
    assert info.rejected == {}
    assert (info.target_behavior, info.unit, info.case) == ("buy", "invoice", "lower")
    assert not info.exclude_seen
    assert 0.3 < info.repeat_share < 0.5
    assert 0.05 < info.led_by["return"] < info.repeat_share
    assert (
        info.lead_in_behaviors == set()
    )  # who returned an item buys it again less often than who did not
    with pytest.raises(DataError, match="online_retail_demo"):
        load("nope")


def test_reject_counts_group_by_kind() -> None:
    rejects = Rejects("f")
    for number, item in enumerate(["x", "y"]):
        rejects.add(number, f"not in the items file {item!r}", [])
    rejects.add(3, "empty user_id", [])
    assert rejects.counts() == {"not in the items file": 2, "empty user_id": 1}
    assert np.sum(list(rejects.counts().values())) == 3


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    events = (
        "user_id,item_id,timestamp,behavior,split\n"
        "u,a,1,x,train\nu,b,2,x,train\nu,c,3,x,valid\nv,a,1,x,test\n"
    )
    data = prepared(tmp_path, events=events)
    assert data.info.split == "given"
    assert splits(data, "u") == [("a", "train"), ("b", "train"), ("c", "validation")]
    assert splits(data, "v") == [("a", "test")]
    with pytest.raises(DataError, match="The split column holds 'soon'"):
        prepared(tmp_path, events=events.replace("valid", "soon"))


def test_a_position_decides_over_a_timestamp(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,position,behavior\nu,a,,2,x\nu,b,9,1,x\nu,c,1,0,x\n"
    data = prepared(tmp_path, events=events)
    assert data.interactions.history("u").item_ids == ("c", "b", "a")
    assert data.interactions.history("u").interactions[1].attributes == {"timestamp_given": 9}
    data.save(tmp_path / "out")
    assert Dataset.load(tmp_path / "out").interactions.history("u") == data.interactions.history(
        "u"
    )


def test_a_split_given_as_files(tmp_path: Path) -> None:
    head = "user_id,item_id,timestamp,behavior\n"
    items, train = write(tmp_path, events=f"{head}u,a,1,buy\nu,x,2,buy\n")
    (tmp_path / "valid.csv").write_text(f"{head}u,b,3,buy\nu,y,4,buy\nu,a,never,buy\n")
    (tmp_path / "test.jsonl").write_text(
        '{"user_id": "u", "item_id": "a", "timestamp": 5, "behavior": "buy", "device": "tv"}\n[]\n'
    )
    found, rejects = Dataset.prepare(
        items, train, validation=tmp_path / "valid.csv", test=tmp_path / "test.jsonl"
    )
    assert found.info.split == "given"
    assert found.info.split_events == {"train": 1, "validation": 1, "test": 1}
    assert [(i.item_id, i.attributes["device"]) for i in found.interactions.history("u").interactions] == [
        ("a", None), ("b", None), ("a", "tv"),
    ]  # fmt: skip
    assert sorted((r[0], r[1]) for r in rejects[1].rows) == [
        (train.name, 2), ("test.jsonl", 2), ("valid.csv", 2), ("valid.csv", 3),
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="Expected only one of the two"):
        Dataset.prepare(items, train, test=tmp_path / "valid.csv", split="last-unit")
    (tmp_path / "one.csv").write_text(f"{head}u,a,1,buy\n")
    with pytest.raises(DataError, match=r"valid\.csv, data row 2"):
        Dataset.prepare(items, tmp_path / "one.csv", validation=tmp_path / "valid.csv", strict=True)


NO_ITEMS: list[Any] = [
    Item("1", None),  # type: ignore[arg-type]
    Item(1, "x"),  # type: ignore[arg-type]
    ("1", "x"),
    Item("1", "\u200b\u3164"),
    Item("1", "x", {"title": 1}),
]


def test_prepare_never_deletes_other_files(run: Run, tmp_path: Path) -> None:
    items, events = write(tmp_path)
    arguments = ["prepare", "--items", items, "--interactions", events, "--out", tmp_path / "o"]
    assert run(*arguments)[0] == 0
    (tmp_path / "o" / "notes.txt").write_text("mine")
    code, _, err = run(*arguments)
    assert code == 3
    assert "files that do not belong to a dataset" in err
    assert (tmp_path / "o" / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "dataset.json").write_text('{"mine": 1}')
    assert run(*arguments[:-1], foreign)[0] == 3
    assert (foreign / "dataset.json").read_text() == '{"mine": 1}'
    code, _, err = run(*arguments[:-1], events)
    assert code == 2
    assert events.read_text() == EVENTS


@pytest.mark.parametrize("item", NO_ITEMS)
def test_things_that_are_no_items(item: Any) -> None:
    with pytest.raises(DataError, match="data row 1"):
        Catalog([item])


def test_attributes_of_mixed_kinds_are_stored_as_text() -> None:
    table = Catalog([Item("1", "x", {"a": 1}), Item("2", "y", {"a": "b"})]).to_table()
    assert table["a"].to_pylist() == ["1", "b"]


def test_damaged_dataset_folders_say_prepare_again(tmp_path: Path) -> None:
    items, events = write(tmp_path)
    Dataset.prepare(items, events)[0].save(tmp_path / "o")
    for name in ("catalog.parquet", "interactions.parquet"):
        shutil.copytree(tmp_path / "o", tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(DataError, match="Run `genrec prepare` again"):
            Dataset.load(tmp_path / name)
    text = (tmp_path / "o" / "dataset.json").read_text()
    (tmp_path / "o" / "dataset.json").write_text(
        text.replace('"exclude_seen": ', '"exclude_seen": "no", "x": ')
    )
    with pytest.raises(DataError, match="is damaged"):
        Dataset.load(tmp_path / "o")
