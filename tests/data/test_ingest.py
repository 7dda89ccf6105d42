"""Users' files as they arrive: column names, units, behaviors, texts and mistakes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cells import cells
from support.shop_files import ITEMS, write

from genrec import Catalog, Dataset, Item
from genrec.data.ingest import EventOptions, ingest
from genrec.data.readers.files import read
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, GenrecError, SettingsError

CATALOG = Catalog([Item("a", "Red mug"), Item("b", "Blue mug"), Item("c", "Doll")])


def prepare(tmp_path: Path, events: str, **options: Any) -> Dataset:
    items, path = write(tmp_path, events=events)
    return Dataset.prepare(items, path, options=EventOptions(**options))[0]


def times(data: Dataset) -> Any:
    return data.interactions.columns.timestamp.tolist()


def test_whole_days_with_browse_buy_rate_and_no_values(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior\nu,a,19000,browse\nu,b,19001,buy\nu,c,19001,rate\n"
    data = prepare(tmp_path, events)
    assert data.info.time_unit == "day"
    assert (
        "time unit of column 'timestamp' guessed: day, from 2022-01-08 to 2022-01-09"
        in data.info.notes
    )
    assert times(data) == [19000 * 86400.0, 19001 * 86400.0, 19001 * 86400.0]
    assert data.interactions.history("u").interactions[2].value is None
    assert data.info.target_behavior == "buy"
    stated = prepare(tmp_path, events, time_unit="position")
    assert times(stated) == [19000.0, 19001.0, 19001.0]


def test_ratings_without_a_behavior(tmp_path: Path) -> None:
    events = "user_id,item_id,rating,timestamp\nu,a,4.5,978300760\nu,b,1,978302109\n"
    data = prepare(tmp_path, events)
    assert data.interactions.behaviors == ("rate",)
    assert [i.value for i in data.interactions.history("u").interactions] == [4.5, 1.0]
    assert "values from 1 to 4.5" in data.info.notes
    assert data.info.time_unit == "s"
    liked = prepare(tmp_path, events, behavior="like")
    assert liked.interactions.behaviors == ("like",)


@pytest.mark.parametrize(
    ("values", "unit", "seconds"),
    [
        (["978300760", "978300761"], "s", [978300760, 978300761]),
        (["978300760000", "978300761500"], "ms", [978300760, 978300761.5]),
        (["11000", "20000"], "day", [11000 * 86400, 20000 * 86400]),
        (["1", "2"], "position", [1, 2]),
        (["0.5", "19000.5"], "position", [0.5, 19000.5]),
        (["2000-12-31", "2001-01-01 12:00:00"], "s", [978220800, 978350400]),
        (["2000-12-31T22:12:40Z", "2000-12-31T23:12:40+01:00"], "s", [978300760, 978300760]),
        (["2000-12-31T22:12:40.25", "20010101T000000"], "s", [978300760.25, 978307200]),
    ],
)
def test_time_units(tmp_path: Path, values: list[str], unit: str, seconds: list[float]) -> None:
    rows = "".join(f"u,a,{v},buy\n" for v in values)
    data = prepare(tmp_path, f"user_id,item_id,timestamp,behavior\n{rows}")
    assert data.info.time_unit == unit
    assert times(data) == seconds
    data.save(tmp_path / "out")
    assert times(Dataset.load(tmp_path / "out")) == seconds


def test_dates_of_parquet(tmp_path: Path) -> None:
    import datetime as dt

    table = pa.table(
        {
            "user_id": pa.array([7, 7]),
            "item_id": pa.array(["a", "b"]).dictionary_encode(),
            "behavior": pa.array(["buy", "buy"], pa.large_string()),
            "timestamp": pa.array([dt.datetime(2001, 1, 1), None]),
        }
    )
    pq.write_table(table, tmp_path / "e.parquet")
    rejects = Rejects("e")
    found = ingest(read(tmp_path / "e.parquet"), CATALOG, rejects=rejects)
    assert found.events.columns.timestamp.tolist() == [978307200.0]
    assert tuple(found.events.user_ids) == ("7",)
    assert [r[1] for r in rejects.rows] == [2]


def test_titles_in_the_interactions_make_the_catalog(tmp_path: Path) -> None:
    _, path = write(
        tmp_path,
        events="user_id,item_id,title,timestamp,behavior\nu,x,,1,buy\nu,x,Tea,2,buy\nu,y,Pot,3,buy\n"
        "v,x,Other tea,1,buy\nv,z,,2,buy\n",
    )
    data, rejects = Dataset.prepare(None, path)
    assert [(i.item_id, i.title) for i in data.catalog] == [("x", "Tea"), ("y", "Pot")]
    assert len(data.interactions) == 4
    assert [r[1:3] for r in rejects[0].rows] == [(5, "no title for the item: 'z'")]
    _, path = write(tmp_path, events="user_id,item_id,timestamp,behavior\nu,x,1,buy\n")
    with pytest.raises(DataError, match="If the titles are in another file, pass it with --items"):
        Dataset.prepare(None, path)


def test_columns_by_their_own_names(tmp_path: Path) -> None:
    items = "sku,name,item_id\na,Red mug,ignored\n"
    events = "customer;product;when;did\nu;a;5;buy\n"
    one, two = write(tmp_path, items=items, events=events)
    mapping = {"user_id": "customer", "item_id": "product", "timestamp": "when", "behavior": "did"}
    data, _ = Dataset.prepare(
        one,
        two,
        options=EventOptions(columns=mapping),
        item_columns={"item_id": "sku", "title": "name"},
    )
    assert data.interactions.history("u").item_ids == ("a",)
    with pytest.raises(DataError, match="no column 'nope'"):
        Dataset.prepare(
            one,
            two,
            options=EventOptions(columns={"user_id": "nope"}),
            item_columns={"item_id": "sku", "title": "name"},
        )
    with pytest.raises(SettingsError, match="time_unit='fortnight'"):
        EventOptions(time_unit="fortnight")


def test_texts_with_and_without_an_item(tmp_path: Path) -> None:
    events = (
        "user_id,item_id,timestamp,behavior,text,device\n"
        'u,,1,search,"red ""mug""",phone\nu,a,2,buy,too small,web\nu,,3,search, ,web\nu,b,4,buy,,\n'
    )
    items, path = write(tmp_path, events=events)
    data, rejects = Dataset.prepare(items, path)
    assert [r[1] for r in rejects[1].rows] == [3]
    history = data.interactions.history("u")
    assert [(i.item_id, i.text) for i in history.interactions] == [
        (None, 'red "mug"'), ("a", "too small"), ("b", None),
    ]  # fmt: skip
    assert history.item_ids == ("a", "b")
    assert history.interactions[0].attributes == {"device": "phone"}
    targets = data.interactions.targets("u", "test", "buy")
    assert [t.item_id for t in targets] == ["b"]
    data.save(tmp_path / "out")
    assert Dataset.load(tmp_path / "out").interactions.history("u") == history


def test_a_search_is_never_a_target(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior,text\nu,a,1,x,\nu,b,2,x,\nu,,3,x,hello\n"
    data = prepare(tmp_path, events)
    assert [t.item_id for t in data.interactions.targets("u", "test", "x")] == ["b"]
    assert [t.item_id for t in data.interactions.targets("u", "validation", "x")] == ["a"]


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        '\ufeff{"user_id": 1, "item_id": "a", "timestamp": 5, "behavior": "buy", "value": 2.5}',
        "",
        '{"user_id": 1, "item_id": "b", "timestamp": 6, "behavior": "buy", "tags": ["x", 1]}',
        "{broken",
        "[1]",
        '{"user_id": 1, "item_id": "c", "timestamp": NaN, "behavior": "buy"}',
    ]
    (tmp_path / "e.jsonl").write_text("\n".join(lines), encoding="utf-8")
    items, _ = write(tmp_path)
    data, rejects = Dataset.prepare(items, tmp_path / "e.jsonl")
    events = data.interactions.history("1").interactions
    assert [(e.item_id, e.value, e.attributes["tags"]) for e in events] == [
        ("a", 2.5, ""), ("b", None, '["x", 1]'),
    ]  # fmt: skip
    assert [(r[1], r[2]) for r in rejects[1].rows] == [
        (3, "not valid JSON"),
        (4, "not a JSON object"),
        (5, "time is empty or not a number or date"),
    ]
    (tmp_path / "none.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="has no usable lines"):
        Dataset.prepare(items, tmp_path / "none.jsonl")


def test_times_of_another_kind_are_said_to_be_so(tmp_path: Path) -> None:
    head = "user_id,item_id,timestamp,behavior\n"
    numbers = [f"u,a,{1_300_000_000 + n},buy\n" for n in range(3)]
    dates = [f"u,a,2001-01-0{n},buy\n" for n in range(1, 4)]  # ten years before the numbers
    for most, other in ((numbers, dates[:1]), (dates, numbers[:1])):
        items, path = write(tmp_path, events=head + "".join([*other, *most, "u,a,soon,buy\n"]))
        data, rejects = Dataset.prepare(items, path)
        assert len(data.interactions) == 3
        assert [(r[1], r[2]) for r in rejects[1].rows] == [
            (1, "time is a number among dates, or a date among numbers"),
            (5, "time is empty or not a number or date"),
        ]


def test_rejected_rows_keep_their_cells(tmp_path: Path) -> None:
    items, path = write(
        tmp_path, events="user_id,item_id,timestamp,behavior,x\nu,zz,soon,buy,7\nu,a,1,buy,8\n"
    )
    data, rejects = Dataset.prepare(items, path)
    data.save(tmp_path / "out", rejects)
    with (tmp_path / "out" / "rejected.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert row["cells"] == "u | zz | soon | buy | 7"
    assert row["row"] == "1"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("user_id,item_id,behavior\nu,a,buy\n", "recognized as timestamp (the time)"),
        ("who,item_id,timestamp,behavior\nu,a,1,buy\n", "recognized as user_id (the user)"),
        ("user_id,timestamp,behavior\nu,1,buy\n", "recognized as item_id (the item)"),
        ("a,b\nu,1\n", "--column user_id=COLUMN --column item_id=COLUMN --column timestamp=COLUMN"),
        ("user_id,item_id,timestamp,behavior\n", "it has no rows"),
        ("user_id,item_id,timestamp,behavior\nu,q,1,buy\n", "every row was rejected"),
        ("é caf\udce9,item_id\nu,a\n", "header"),
        ("user_id,item_id,timestamp,behavior,user_id\nu,a,1,buy,v\n", "user_id.1, item_id,"),
        ("\x00\x01\x02", "recognized as user_id (the user)"),
        ('"user_id,item_id\n', "recognized as user_id (the user)"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, events: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, events)
    assert message in str(caught.value)


def kept_and_rejected(path: Path) -> tuple[int, int]:
    rejects = Rejects(path.name)
    table = read(path, rejects=rejects)
    try:
        kept = len(ingest(table, CATALOG, rejects=rejects).events.columns.row)
    except DataError:
        kept = 0
    return kept, len(rejects.rows)


@given(st.lists(st.tuples(cells, cells, cells, cells), max_size=12), st.booleans())
def test_fuzzed_csv_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], good: bool
) -> None:
    rows = [*rows, ("u", "a", "5", "buy")] if good else rows
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("user_id", "item_id", "timestamp", "behavior"), *rows])
    path = tmp_path_factory.mktemp("fuzz") / "e.csv"
    path.write_text(stream.getvalue(), encoding="utf-8", newline="")
    kept, rejected = kept_and_rejected(path)
    assert kept + rejected == len(rows)
    if good:
        assert kept >= 1


@given(st.lists(st.dictionaries(
    st.sampled_from(["user_id", "item_id", "timestamp", "behavior", "text", "x"]),
    st.one_of(cells, st.none(), st.integers(), st.floats(), st.lists(st.integers(), max_size=2)),
), max_size=12))  # fmt: skip
def test_fuzzed_json_lines_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    rows = [*rows, {"user_id": "u", "item_id": "a", "timestamp": 5, "behavior": "buy"}]
    path = tmp_path_factory.mktemp("fuzz") / "e.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    kept, rejected = kept_and_rejected(path)
    assert kept + rejected == len(rows)
    assert kept >= 1


@given(st.binary(max_size=80), st.sampled_from(["e.csv", "e.jsonl", "e.tsv", "e.csv.gz"]))
def test_fuzzed_bytes_never_give_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(b"user_id,item_id,timestamp,behavior\n" + data if name == "e.csv" else data)
    with contextlib.suppress(GenrecError):  # and nothing else
        kept_and_rejected(path)


def test_items_are_read_like_interactions(tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").write_text('{"item_id": 1, "title": "Mug", "price": 2.5}\n')
    catalog = Catalog.read(tmp_path / "i.jsonl")
    assert list(catalog) == [Item("1", "Mug", {"price": 2.5})]
    (tmp_path / "i.tsv").write_text(ITEMS.replace(",", "\t"))
    assert len(Catalog.read(tmp_path / "i.tsv")) == 3


def test_repeated_rows_are_counted_and_kept(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior,value\n" + "u,a,1,buy,2\n" * 3 + "u,b,1,buy,\n" * 2
    data = prepare(tmp_path, events + "u,a,1,buy,3\nv,a,1,buy,2\nu,a,2,buy,2\n")
    assert len(data.interactions) == 8
    assert (
        "3 events repeat another one and are kept; --drop-duplicates leaves them out"
        in data.info.notes
    )


def test_what_prompts_will_show_otherwise_is_said(tmp_path: Path) -> None:
    rows = ["u,a,1,ask,hi", 'u,b,2,answer,"two\nlines"', "v,a,1,ask,\x1b[1m", "v,b,2,buy,"]
    items = 'item_id,title\na,Red mug\nb,Red mug\nc,"Red\nmug"\nd,\x1b[31mDoll\n'
    one, two = write(
        tmp_path,
        items=items,
        events="user_id,item_id,timestamp,behavior,text\n" + "\n".join(rows) + "\n",
    )
    notes = Dataset.prepare(one, two)[0].info.notes
    assert "2 items share their title with another item" in notes
    assert "line breaks or control characters in 2 titles are shown as spaces" in notes
    assert "line breaks or control characters in 2 texts are shown as spaces" in notes
    assert (
        "verbs.json lacks 2 of 3 behaviors, so prompts use their raw names: ask (2 events), answer "
        "(1 event). To change that, add their verbs to DIR/en/verbs.json and pass --prompts DIR"
    ) in notes
    many = "".join(f"u,a,{n},did{n % 12},\n" for n in range(30))
    one, two = write(tmp_path, events="user_id,item_id,timestamp,behavior,text\n" + many)
    (note,) = (n for n in Dataset.prepare(one, two)[0].info.notes if n.startswith("verbs"))
    assert "lacks 12 of 12 behaviors" in note
    assert "did0 (3 events), did1 (3 events)" in note
    assert "did9 (2 events) and 2 more." in note


def test_the_values_of_ratings_are_said(tmp_path: Path) -> None:
    rows = "".join(f"u,a,{n},{n % 5 + 1}\n" for n in range(9))
    data = prepare(tmp_path, f"user_id,item_id,timestamp,rating\n{rows}")
    assert "values from 1 to 5" in data.info.notes


def test_one_bad_date_spoils_one_row(tmp_path: Path) -> None:
    dates = ["2024-01-01T10:00:00Z", "2024-01-02T10:00:00.123456+01:00", "oops", "0", "2024-01-03"]
    rows = "".join(f"u,a,{d},buy\n" for d in dates)
    items, events = write(tmp_path, events=f"user_id,item_id,timestamp,behavior\n{rows}")
    found, rejects = Dataset.prepare(items, events)
    assert len(found.interactions) == 3
    assert [(r[1], r[3]) for r in rejects[1].rows] == [
        (3, "u | a | oops | buy"), (4, "u | a | 0 | buy"),
    ]  # fmt: skip


def test_codes_and_long_numbers_stay_text(tmp_path: Path) -> None:
    items = "item_id,title,zip,ean,n,x\na,mug,007,12345678901234567891,7,1.5\nb,bag,8,2,,2\n"
    first = Catalog.read(write(tmp_path, items=items)[0])[0]
    assert first.attributes == {"zip": "007", "ean": "12345678901234567891", "n": 7, "x": 1.5}


def test_values_that_are_no_numbers_are_rejected(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior,value\nu,a,1,buy,many\nu,b,2,buy,\nu,c,3,buy,2\n"
    items, path = write(tmp_path, events=events)
    found, rejects = Dataset.prepare(items, path)
    assert len(found.interactions) == 2
    assert rejects[1].counts() == {"value is not a number": 1}


def test_an_open_quote_is_an_error(tmp_path: Path) -> None:
    items = 'item_id,title\n1,mug\n2,"12 inch ruler\n3,tea\n4,bag\n'
    with pytest.raises(DataError, match="a quote that is opened and never closed"):
        Catalog.read(write(tmp_path, items=items)[0])
    fine = 'item_id,title\n1,"two\nlines"\n2,12" ruler\n'
    with pytest.raises(DataError, match="at or after data row 1"):
        Catalog.read(write(tmp_path, items=fine)[0])  # cannot be told apart: better to ask
    assert len(Catalog.read(write(tmp_path, items='item_id,title\n1,12" ruler\n')[0])) == 1


def test_times_out_of_range_are_rejected(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior\nu,a,1e30,buy\nu,b,5,buy\n"
    items, path = write(tmp_path, events=events)
    found, rejects = Dataset.prepare(items, path)
    assert rejects[1].counts() == {"time is out of range": 1}
    assert len(found.interactions) == 1


def test_attributes_never_overwrite_one_another(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,timestamp_given,position,behavior\nu,a,7,8,9,buy\n"
    items, path = write(tmp_path, events=events)
    found, _ = Dataset.prepare(items, path)
    found.save(tmp_path / "o")
    (event,) = Dataset.load(tmp_path / "o").interactions.history("u").interactions
    assert event.timestamp == 9
    assert sorted(event.attributes.values()) == [7, 8]


def test_parquet_of_odd_types(tmp_path: Path) -> None:
    import datetime as dt

    good: dict[str, Any] = {"item_id": ["a"], "title": ["mug"]}
    odd = {
        "when": pa.array([dt.datetime(2001, 1, 1)], pa.timestamp("ns")),
        "tags": pa.array([["x", "y"]]),
        "more": pa.array([{"k": 1}]),
    }
    pq.write_table(pa.table({**good, **odd}), tmp_path / "i.parquet")
    catalog = Catalog.read(tmp_path / "i.parquet")
    assert catalog[0].attributes["tags"] == '["x", "y"]'
    assert str(catalog[0].attributes["when"]).startswith("2001-01-01")
    catalog.to_table()
    for name in ("item_id", "title"):
        pq.write_table(pa.table({**good, name: pa.array([["x"]])}), tmp_path / "bad.parquet")
        with pytest.raises(DataError, match="cannot be read as text"):
            Catalog.read(tmp_path / "bad.parquet")


def test_files_broken_in_the_middle(tmp_path: Path) -> None:
    import gzip

    packed = bytearray(gzip.compress((ITEMS * 50).encode()))
    packed[20:60] = b"\xff" * 40
    (tmp_path / "i.csv.gz").write_bytes(bytes(packed))
    with pytest.raises(DataError, match="cannot be read"):
        Catalog.read(tmp_path / "i.csv.gz")
    (tmp_path / "i.csv").write_text("x" * 200_000 + ",title\na,b\n")
    with pytest.raises(DataError):
        Catalog.read(tmp_path / "i.csv")
    assert zlib.error is not None


def test_headers_with_blank_lines_and_breaks(tmp_path: Path) -> None:
    items = '\n\nitem_id,title,"two\nlines"\na,mug,x\nb,bag\n'
    path = write(tmp_path, items=items)[0]
    with pytest.raises(DataError, match="data row 2: 2 cells"):
        Catalog.read(path)
    path.write_text(items.removesuffix("b,bag\n"))
    assert Catalog.read(path)[0].attributes == {"two\nlines": "x"}


def test_duplicates_are_named_by_their_rows(tmp_path: Path) -> None:
    items = "item_id,title\n,x\n1,mug\n1,bag\n"
    from genrec.data.readers.rejects import Rejects

    rejects = Rejects("items.csv")
    Catalog.read(write(tmp_path, items=items)[0], rejects=rejects)
    assert rejects.rows[1][1:3] == (3, "duplicate item_id '1' (first in data row 2)")


def test_unknown_behaviors_are_named(tmp_path: Path) -> None:
    items, events = write(tmp_path)
    found, _ = Dataset.prepare(items, events, options=EventOptions())
    with pytest.raises(GenrecError, match="Expected one of: buy, view"):
        found.interactions.targets("u", "test", "zzz")
    with pytest.raises(DataError, match="target_behavior='zzz'"):
        Dataset.prepare(items, events, target_behavior="zzz")
