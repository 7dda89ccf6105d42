"""Orders and events of APIs, with objects and lists of objects in them, are read as plain events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec import Dataset
from genrec.data.ingest import EventOptions
from genrec.data.nested import unnest
from genrec.errors import DataError

LINES = [
    [{"id": 91, "product_id": 7, "sku": "A-7", "name": "Red mug", "quantity": 2, "price": "3.50"},
     {"id": 92, "product_id": 8, "sku": "A-8", "name": "Tea pot", "quantity": 1, "price": "12.00"}],
    [{"id": 93, "product_id": 7, "sku": "A-7", "name": "Red mug", "quantity": 1, "price": "3.50"}],
]  # fmt: skip
SHOPIFY = [
    {"id": 500 + n, "name": f"#{n}", "created_at": f"2019-03-0{n + 1}T10:00:00+01:00",
     "customer": {"id": 60 + n, "email": f"u{n}@x"}, "line_items": lines}
    for n, lines in enumerate(LINES)
]  # fmt: skip
WOO = [
    {"id": 500 + n, "status": "completed", "date_created": f"2019-03-0{n + 1}T09:00:00",
     "customer_id": 60 + n, "billing": {"first_name": "Ann", "email": f"u{n}@x"},
     "line_items": [{"product_id": one["product_id"], "name": one["name"],
                     "quantity": one["quantity"], "taxes": []} for one in lines]}
    for n, lines in enumerate(LINES)
]  # fmt: skip
ANALYTICS = [
    {"event_timestamp": str(1551430800000000 + n * 86_400_000_000), "event_name": "purchase",
     "user_pseudo_id": f"{60 + n}", "user_id": None,
     "event_params": [{"key": "page", "value": {"string_value": "/", "int_value": None}},
                      {"key": "ga_session_id", "value": {"string_value": None, "int_value": 500 + n}}],
     "device": {"name": "phone"},
     "items": [{"item_id": str(one["product_id"]), "item_name": one["name"],
                "quantity": one["quantity"]} for one in lines]}
    for n, lines in enumerate(LINES)
]  # fmt: skip
MONGO = [
    {"_id": {"$oid": f"5f{n}"}, "user": {"_id": 1, "id": 60 + n}, "product": {"id": 7, "name": "Red mug"},
     "date": {"$date": f"2019-03-0{n + 1}T09:00:00Z"}, "qty": {"$numberInt": "1"}}
    for n in range(2)
]  # fmt: skip


def write(path: Path, rows: list[Any], kind: str) -> Path:
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps({"orders": rows}, indent=1))
    elif kind == "literal":
        path.write_text("".join(f"{row!r}\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


KINDS = ["jsonl", "json", "literal", "parquet"]


@pytest.mark.parametrize(
    ("rows", "basket", "kind"),
    [
        *((rows, True, kind) for rows in (SHOPIFY, WOO, ANALYTICS) for kind in KINDS),
        *((MONGO, False, kind) for kind in KINDS[:3]),  # it wraps values only in JSON
    ],
)
def test_exports_of_apis(tmp_path: Path, rows: list[Any], basket: bool, kind: str) -> None:
    data, _ = Dataset.prepare(None, write(tmp_path / "e.x", rows, kind))
    events = data.interactions
    c = events.columns
    found = [
        (events.user_ids[c.user[n]], data.catalog[int(c.row[n])].item_id, c.value[n])
        for n in range(len(events))
    ]
    whole = [("60", "7", 2), ("60", "8", 1), ("61", "7", 1)]
    assert found == (whole if basket else [("60", "7", 1), ("61", "7", 1)])
    assert data.catalog[0].title == "Red mug"
    assert c.timestamp[0] == 1551430800
    assert bool(data.info.unit) == basket
    if basket:
        assert len(set(c.unit.tolist())) == 2
        assert c.unit[0] == c.unit[1]


def test_dates_of_mongo_may_be_written_in_several_ways(tmp_path: Path) -> None:
    moment = "2019-03-01T09:00:00Z"
    forms = [{"$date": moment}, {"$date": {"$numberLong": "1551430800000"}}, moment]
    rows = [{**MONGO[0], "date": form} for form in forms]
    data, (rejects,) = Dataset.prepare(None, write(tmp_path / "e.json", rows, "jsonl"))
    assert data.interactions.columns.timestamp.tolist() == [1551430800] * 3
    assert not rejects.rows


def test_a_row_without_items_is_rejected_and_shown_as_in_the_file(tmp_path: Path) -> None:
    rows = [*ANALYTICS, {**ANALYTICS[0], "event_name": "session_start", "items": []}]
    data, (rejects,) = Dataset.prepare(None, write(tmp_path / "e.jsonl", rows, "jsonl"))
    assert data.info.events == 3
    assert [row[1:3] for row in rejects.rows] == [(3, "empty item_id")]
    assert "session_start" in rejects.rows[0][3]
    assert '"string_value"' in rejects.rows[0][3]


def test_what_is_taken_from_objects_is_said() -> None:
    notes: list[str] = []
    table = unnest(pa.Table.from_pylist(SHOPIFY), "f", notes)
    assert notes == [
        "columns from the objects in 'customer': customer_id, customer_email",
        "every item in 'line_items' counts as an event: 3 events",
    ]
    assert table["order_name"].to_pylist() == ["#0", "#0", "#1"]
    assert table["order_id"].to_pylist() == [500, 500, 501]
    assert table["name"].to_pylist() == ["Red mug", "Tea pot", "Red mug"]
    assert "device_name" not in unnest(pa.Table.from_pylist(ANALYTICS), "f", []).column_names


@pytest.mark.parametrize(
    "rows",
    [
        [{"user_id": "u", "item_id": "a"}],
        [{"user_id": "u", "item_id": "a", "details": '{"name": "x"}', "tags": ["x"]}],
        [{"user_id": "u", "item_id": "a", "lines": "[not json", "name": "[DVD] Heat"}],
        [{"user_id": "u", "item_id": ["a", "b"], "timestamp": [1, 2]}],
        [{"user_id": "u", "item_id": "a", "items": '[{"item_id": "b"}]'}],
        [{"user_id": "u", "item_id": "a", "pairs": None, "more": ""}],
    ],
)
def test_other_tables_are_not_changed(rows: list[Any]) -> None:
    notes: list[str] = []
    table = pa.Table.from_pylist(rows)
    assert unnest(table, "f", notes).equals(table)
    assert notes == []


@pytest.mark.parametrize(
    ("order", "columns"),
    [
        ({"_id": {"user_id": "u"}}, {"user_id": "u"}),
        ({"id": {"user_id": "u"}}, {"user_id": "u"}),
        ({"date": {"time": "2024-01-01"}}, {"outer_date_time": "2024-01-01"}),
        ({"customer": {"id": "u"}}, {"customer_id": "u"}),
        ({"order_id": "X", "id": 1}, {"order_id": "X", "outer_id": 1}),
        ({"order_title": "X", "title": "Y"}, {"order_title": "X", "outer_title": "Y"}),
        ({"id": 1}, {"order_id": 1}),
    ],
)
def test_what_an_order_says_stays_beside_what_its_items_say(
    order: dict[str, Any], columns: dict[str, Any]
) -> None:
    item = {"sku": "a", "title": "A", "customer": "someone", "timestamp": 1_700_000_000}
    table = unnest(pa.Table.from_pylist([{**order, "items": [item]}]), "f", [])
    expected = columns | {k: str(v) for k, v in item.items()}
    assert table.to_pylist() == [expected]


@pytest.mark.parametrize("keys", [("item_id", "id"), ("id", "item_id")])
def test_the_id_of_a_line_does_not_replace_that_of_its_item(keys: tuple[str, str]) -> None:
    line = {"title": "A", **{key: {"id": "P1", "item_id": "REAL"}[key] for key in keys}}
    rows = [{"user_id": "u", "properties": {"id": "ORDER", "products": [line]}}]
    assert unnest(pa.Table.from_pylist(rows), "f", [])["item_id"].to_pylist() == ["REAL"]


def test_ids_in_objects() -> None:
    rows = [{"item_id": {"id": n}, "user_id": "u"} for n in range(2)]
    assert unnest(pa.Table.from_pylist(rows), "f", [])["item_id"].to_pylist() == ["0", "1"]
    cells = pa.table({"item_id": ['{"colour": 1}', ""], "user_id": ["u", "v"]})
    with pytest.raises(DataError, match=r"column 'item_id' holds objects such as .*--column"):
        unnest(cells, "f.jsonl", [])


def test_clicks_in_impressions(tmp_path: Path) -> None:
    lines = [
        "1\tU1\t11/11/2019 9:05:58 AM\tN9 N8\tN3-0 N1-1 N2-1",
        "2\tU1\t11/19/2019 9:05:58 PM\tN9 N8\tN3-0 N2-0",
        "3\tU2\t11/13/2019 12:05:58 AM\t\tN3-1",
    ]
    (tmp_path / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    news = [
        f'N{n}\tnews\tnews-us\tTitle "of {n}\tText\thttps://x/{n}\t[]\t[]' for n in range(1, 10)
    ]
    (tmp_path / "news.tsv").write_text("\n".join(news) + "\n")
    data, (_, rejects) = Dataset.prepare(tmp_path / "news.tsv", tmp_path / "behaviors.tsv")
    assert [data.catalog[int(r)].item_id for r in data.interactions.columns.row] == [
        "N1",
        "N2",
        "N3",
    ]
    assert list(data.interactions.behaviors) == ["click"]
    assert data.catalog[0].title == 'Title "of 1'
    assert [row[1:3] for row in rejects.rows] == [(2, "empty item_id")]
    assert any("3 items shown without a click" in note for note in data.info.notes)


def viewed(n: int, **more: Any) -> dict[str, Any]:
    """An event as Segment, Mixpanel and PostHog write them."""
    product = {"product_id": f"p{n}", "name": f"Lamp {n}", "price": 10 + n}
    return {"event": "Viewed", "name": "Page", "properties": {**product, **more}}


def test_events_with_one_product_and_orders_with_several(tmp_path: Path) -> None:
    lines = [{"product_id": f"p{n}", "name": f"Lamp {n}", "price": 10 + n} for n in range(3)]
    rows = [
        {"userId": "u", "timestamp": "2024-03-01T10:00:00Z", **viewed(0)},
        {"userId": "u", "timestamp": "2024-03-01T10:01:00Z", "event": "Login", "properties": {}},
        {"userId": "u", "timestamp": "2024-03-01T10:02:00Z", "event": "Ordered",
         "properties": {"order_id": "o1", "products": lines}},
        {"userId": "v", "timestamp": "2024-03-01T10:03:00Z", **viewed(2), "context": {"page": {"title": "Shop"}}},
    ]  # fmt: skip
    data, (rejects,) = Dataset.prepare(None, write(tmp_path / "e.jsonl", rows, "jsonl"))
    c = data.interactions.columns
    found = [
        (data.interactions.behaviors[c.behavior[n]], data.catalog[int(c.row[n])].title)
        for n in range(len(c.row))
    ]
    assert found == [
        ("Viewed", "Lamp 0"),
        *(("Ordered", f"Lamp {n}") for n in range(3)),
        ("Viewed", "Lamp 2"),
    ]
    assert data.catalog[1].attributes["price"] == 11
    assert [row[1:3] for row in rejects.rows] == [(2, "empty item_id")]
    assert (
        "every item in 'products' of 'properties' counts as an event: 3 events" in data.info.notes
    )


@pytest.mark.parametrize("indent", [None, 1])
def test_a_page_of_invoices_with_lists_in_objects(tmp_path: Path, indent: int | None) -> None:
    rows = [
        {"id": f"in_{n}", "customer": f"c{n % 2}", "created": 1_700_000_000 + n,
         "lines": {"object": "list", "data": [
             {"id": f"il_{n}{m}", "description": f"Plan {m}", "quantity": 1, "price": {"id": f"p{m}"}}
             for m in range(1 + n % 2)
         ]}}
        for n in range(6)
    ]  # fmt: skip
    path = tmp_path / "invoices.json"
    path.write_text(json.dumps({"object": "list", "data": rows, "has_more": False}, indent=indent))
    data, _ = Dataset.prepare(None, path)
    assert (data.info.events, data.info.users, data.info.items) == (9, 2, 2)
    assert data.info.unit == "order_id"
    assert len(set(data.interactions.columns.unit.tolist())) == 6


def test_one_order_on_a_line_of_its_own_is_one_order(tmp_path: Path) -> None:
    data, _ = Dataset.prepare(None, write(tmp_path / "e.jsonl", SHOPIFY[:1], "jsonl"))
    assert (data.info.events, data.info.users, data.info.items) == (2, 1, 2)


@pytest.mark.parametrize("more", [{}, {"user": "the exporting one"}])
def test_the_date_of_a_file_does_not_replace_those_of_its_events(
    tmp_path: Path, more: dict[str, str]
) -> None:
    events = [
        {"customer": f"c{n % 2}", "item_id": f"i{n}", "title": f"Mug {n}", "date": f"2024-01-0{n + 1}"}
        for n in range(4)
    ]  # fmt: skip
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"date": "2025-01-01", **more, "events": events}))
    data, _ = Dataset.prepare(None, path)
    assert (data.info.events, data.info.users, data.info.items) == (4, 2, 4)
    times = sorted(data.interactions.columns.timestamp.tolist())
    assert times == [1_704_067_200 + n * 86_400 for n in range(4)]


def test_the_user_of_a_file_with_one_history_is_kept(tmp_path: Path) -> None:
    events = [
        {"sku": f"i{n}", "title": f"Mug {n}", "timestamp": 1_700_000_000 + n} for n in range(3)
    ]
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"user_id": "u", "date": "2025-01-01", "events": events}))
    data, _ = Dataset.prepare(None, path)
    assert (data.info.events, data.info.users, data.info.items) == (3, 1, 3)
    assert data.interactions.columns.timestamp.min() == 1_700_000_000


def test_lines_inside_an_order_do_not_replace_the_keys_of_the_order() -> None:
    lines = [{"id": 91, "product_id": 7, "name": "Mug"}, {"id": 92, "product_id": 8, "name": "Pot"}]
    rows = [{"user": "u", "order": {"id": 500, "name": "#1", "lines": lines}}]
    table = unnest(pa.Table.from_pylist(rows), "f", [])
    assert table["order_id"].to_pylist() == ["500", "500"]
    assert table["product_id"].to_pylist() == ["7", "8"]
    assert table["item_name"].to_pylist() == ["Mug", "Pot"]


def test_the_time_beside_a_product_is_the_time_of_the_event(tmp_path: Path) -> None:
    rows = [viewed(n % 3, time=1_700_000_000 + n, distinct_id=f"u{n % 2}") for n in range(6)]
    data, _ = Dataset.prepare(None, write(tmp_path / "e.jsonl", rows, "jsonl"))
    assert (data.info.events, data.info.users, data.info.items) == (6, 2, 3)
    assert data.interactions.columns.timestamp.min() == 1_700_000_000


@pytest.mark.parametrize("key", ["played_at", "timestamp"])
def test_the_time_of_an_item_goes_before_that_of_its_user(tmp_path: Path, key: str) -> None:
    rows = [
        {"player_id": f"p{n}", "created_at": "2001-01-01T00:00:00Z", "history": [
            {"game_id": f"g{m}", "title": f"Game {m}", key: f"2024-03-0{m + 1}T10:00:00Z"} for m in range(3)
        ]}
        for n in range(4)
    ]  # fmt: skip
    data, _ = Dataset.prepare(None, write(tmp_path / "e.jsonl", rows, "jsonl"))
    assert data.info.events == 12
    assert data.interactions.columns.timestamp.min() == 1_709_287_200


def test_the_parts_that_fit_each_other_are_suggested(tmp_path: Path) -> None:
    rows = [
        {"user_id": f"u{n % 5}", "event_time": f"2024-03-01 10:{n:02d}:00", "plan": {"name": "free"},
         "event_properties": {"lesson_id": f"l{n % 7}", "lesson_title": f"Lesson {n % 7}", "device": f"d{n}"}}
        for n in range(50)
    ]  # fmt: skip
    message = "--column item_id=event_properties.lesson_id --column title=event_properties.lesson_title to"
    with pytest.raises(DataError, match=message):
        Dataset.prepare(None, write(tmp_path / "e.jsonl", rows, "jsonl"))


def test_parts_of_objects_can_be_named(tmp_path: Path) -> None:
    rows = [
        {"sku": f"s{n % 3}", "product name": f"Lamp {n % 3}",
         "meta": {"who": {"key": f"person {n % 4}"}, "seen": f"2024-03-0{n % 9 + 1}T10:00:00Z"}}
        for n in range(24)
    ]  # fmt: skip
    path = write(tmp_path / "e.jsonl", rows, "jsonl")
    with pytest.raises(DataError) as error:
        Dataset.prepare(None, path)
    assert "--column user_id=meta.who.key --column timestamp=meta.seen" in str(error.value)
    columns = {"user_id": "meta.who.key", "timestamp": "meta.seen"}
    data, _ = Dataset.prepare(None, path, options=EventOptions(columns=columns))
    assert (data.info.events, data.info.users, data.info.items) == (24, 4, 3)
    nowhere = EventOptions(columns={**columns, "user_id": "meta.nobody.key"})
    with pytest.raises(DataError, match="every row was rejected"):
        Dataset.prepare(None, path, options=nowhere)
