"""Columns that do not hold what their names say are left alone, and what looks wrong is said."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from support.commands import Run

from genrec.data.column_cells import holds_numbers, may_hold_baskets
from genrec.data.dataset import Dataset
from genrec.data.ingest import EventOptions
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError

ROWS = 600
START = dt.datetime(2023, 1, 1)
NAMES = ["Blue Mug", "Red Mug", "Tea Pot", "Spoon", "Fork", "Knife", "Plate"]


def item(n: int) -> int:
    return n * 7 % 30


CELLS: dict[str, Callable[[int], str]] = {
    "user": lambda n: f"c{n * 11 % 40:03d}",
    "id": lambda n: f"SKU-{item(n):03d}",
    "name": lambda n: f"{NAMES[item(n) % 7]} No {item(n)}",
    "time": lambda n: (START + dt.timedelta(hours=13 * n)).isoformat(" "),
    "person": lambda n: (
        f"{['Ana', 'Ben', 'Cleo', 'Dev'][n * 11 % 4]} {'ABCDEFGHIJ'[n * 11 % 40 // 4]}"
    ),
    "register": lambda n: ["amy", "bob", "register 1"][n % 3],
    "salutation": lambda n: ["Mr", "Mrs.", "Dr", ""][n % 4],
    "headline": lambda n: ["Great!", "Meh", "Five stars", "Broke at once", "OK", "Fine", "No"][
        n % 7
    ],
    "text": lambda n: f"It was {n % 3}",
    "stars": lambda n: str(n % 5 + 1),
    "event": lambda n: ["pageview", "pageview", "Signup", "pageview", "click", "pageview", "view"][
        n % 7
    ],
    "page": lambda n: f"/docs/page-{item(n)}",
    "order": lambda n: f"A{n // 2}",
    "few": lambda n: "TB-X" if item(n) == 3 else "",
    "about": lambda n: f"Viewed by {n * 11 % 40}",
    "copy": lambda n: f"{item(n)}/{n // 30 % 2}",
    "quantity": lambda n: str(n % 4 + 1),
    "unit": lambda n: ["ea", "ea", "kg"][n % 3],
    "piece": lambda n: "ea",
    "note": lambda n: ["\\N", "please wrap as a gift", "\\N", "\\N", "leave at the door"][n % 5],
    "series": lambda n: f"Series {item(n) % 3} - Episode {item(n) // 3}",
    "episode": lambda n: f"Episode {item(n) // 3}",
    "rounded": lambda n: f"9.{78314 + item(n) % 3}E+12",
}


def table(**columns: str) -> pa.Table:
    """A table whose columns have the given kinds of cells; two underscores stand for a space."""
    return pa.table(
        {name.replace("__", " "): [CELLS[kind](n) for n in range(ROWS)]
         for name, kind in columns.items()}
    )  # fmt: skip


def prepare(given: pa.Table, **options: object) -> Dataset:
    rejects = [Rejects("orders"), Rejects("orders")]
    return Dataset.from_tables(
        None, given, name="orders", rejects=rejects, options=EventOptions(**options)  # type: ignore[arg-type]
    )  # fmt: skip


UNDERSTOOD = {
    "form of address": (
        table(customer_id="user", title="salutation", sku="id", product_name="name", date="time"),
        {"user_id": "customer_id", "item_id": "sku", "title": "product_name"},
    ),
    "form of address beside a product": (
        table(customer_id="user", title="salutation", sku="id", product="name", date="time"),
        {"user_id": "customer_id", "item_id": "sku", "title": "product"},
    ),
    "another title for every event": (
        table(customer_id="user", title="headline", sku="id", product_name="name", date="time"),
        {"item_id": "sku", "title": "product_name"},
    ),
    "episode": (
        table(user_id="user", date="time", rating_key="id", full_title="series", title="episode"),
        {"item_id": "rating_key", "title": "full_title"},
    ),
    "names of events": (
        table(timestamp="time", name="event", user_id="user", pathname="page"),
        {"item_id": "pathname", "behavior": "name"},
    ),
    "cash registers": (
        table(Date="time", Sale__ID="order", User="register", Customer="person", Item="name", SKU="id"),
        {"user_id": "Customer", "unit": "Sale ID", "title": "Item"},
    ),
    "unit of measure": (
        table(Date="time", Customer__ID="user", Item="name", SKU="id", Unit="unit",
              Transaction__ID="order"),
        {"unit": "Transaction ID"},
    ),
    "constant unit": (
        table(Date="time", Customer__ID="user", Item="name", SKU="id", unit="piece",
              Transaction__ID="order"),
        {"unit": "Transaction ID"},
    ),
    "a few codes beside names": (
        table(Date="time", Customer__ID="user", Item="name", SKU="few"),
        {"item_id": "SKU", "title": "Item"},
    ),
    "note in words": (
        table(customer_id="user", product_id="id", product_name="name", quantity="quantity",
              created_at="time", note="note"),
        {"value": "quantity"},
    ),
    "note in numbers": (
        table(client="user", produit="id", nom="name", note="stars", date="time"),
        {"rating": "note"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_columns_with_misleading_names(kind: str) -> None:
    given, expected = UNDERSTOOD[kind]
    data = prepare(given)
    assert expected.items() <= data.info.columns.items()
    assert len(data.catalog) == 30
    assert not data.info.warnings
    assert all(data.info.split_events.values())


def test_own_names_hold_what_they_say_where_nothing_fits_better() -> None:
    data = prepare(table(user_id="user", item_id="id", title="name", name="headline", date="time"))
    assert data.catalog[0].title == CELLS["name"](0)
    assert "title" not in data.info.columns


def test_the_headline_of_a_review_is_not_a_title() -> None:
    given = table(reviewerID="user", asin="id", title="headline", text="text", rating="stars",
                  timestamp="time")  # fmt: skip
    with pytest.raises(DataError, match="'title' does not hold the items' titles"):
        prepare(given)
    items = pa.table({"asin": [f"SKU-{n:03d}" for n in range(30)], "title": ["Mug"] * 30})
    rejects = [Rejects("items"), Rejects("orders")]
    assert Dataset.from_tables(items, given, name="x", rejects=rejects).info.events == ROWS


WRONG = {
    "item": (
        table(Who="user", What="event", Page="page", When="time"),
        {"user_id": "Who", "item_id": "What", "title": "What", "timestamp": "When"},
        ["600 events have only 4 items", "--column item_id=Page"],
    ),
    "user": (
        table(User="register", Customer="person", SKU="id", Item="name", Date="time"),
        {"user_id": "User"},
        ["600 events have only 3 users", "--column user_id=Customer"],
    ),
    "title": (
        table(user="user", title="headline", sku="id", product_name="name", date="time"),
        {"title": "title"},
        ["30 of 30 items have several titles", "--column title=product_name"],
    ),
    "same titles": (
        table(user="user", page="page", event="event", date="time"),
        {"item_id": "page", "title": "event"},
        ["30 items have only 1 different title,", "--column title=COLUMN"],
    ),
    "a text on each user": (
        table(user="user", what="about", date="time"),
        {"item_id": "what", "title": "what"},
        ["each user has only one item, in 15 events, so the column 'what'"],
    ),
    "copies": (
        table(reader="user", item_id="copy", title="name", record="id", date="time"),
        {},
        ["there are 2.0 items for each title", "--column item_id=record"],
    ),
    "rounded items": (
        table(user="user", item_id="rounded", title="name", date="time"),
        {},
        ["600 cells of the column 'item_id' look like numbers that a spreadsheet rounded"],
    ),
    "rounded users": (
        table(card="rounded", item_id="id", title="name", date="time"),
        {"user_id": "card"},
        ["'card' look like numbers that a spreadsheet rounded", "different users"],
    ),
}


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("kind", WRONG)
def test_what_looks_wrong_is_a_warning(kind: str, images: bool) -> None:
    given, columns, expected = WRONG[kind]
    if images:  # bytes that are not text
        cells = pa.array([b"\xff\xd8" + bytes([n % 250]) for n in range(ROWS)], pa.binary())
        given = given.add_column(0, "image", cells)
    warnings = "\n".join(prepare(given, columns=columns).info.warnings)
    for text in expected:
        assert text in warnings


@pytest.mark.parametrize(("untitled", "warned"), [(299, False), (301, True)])
def test_more_rejected_rows_than_events_are_a_warning(untitled: int, warned: bool) -> None:
    given = table(user_id="user", item_id="id", date="time", title="name").to_pylist()
    rows = [
        {**row, "item_id": f"X{n}", "title": ""} if n < untitled else row
        for n, row in enumerate(given)
    ]
    warnings = prepare(pa.Table.from_pylist(rows)).info.warnings
    said = f"only {ROWS - untitled} events could be read, and {untitled} rows were rejected"
    assert any(said in one and "no title for the item" in one for one in warnings) == warned


@pytest.mark.parametrize(
    ("options", "extra", "expected"),
    [
        ({"unit": "user"}, {}, "the validation part and the test part have no events"),
        ({}, {"split": ["train"]}, "--split last-unit makes a new split"),
        ({}, {"split": ["train", "test"]}, "the validation part has no events"),
    ],
)
def test_parts_without_events_are_a_warning(
    options: dict[str, str], extra: dict[str, list[str]], expected: str
) -> None:
    given = table(user="user", item_id="id", title="name", timestamp="time")
    for name, cells in extra.items():
        given = given.append_column(name, [cells * (ROWS // len(cells))])
    assert any(expected in warning for warning in prepare(given, **options).info.warnings)


def test_warnings_are_printed_and_stored(run: Run, tmp_path: Path) -> None:
    given = table(user="user", item_id="rounded", title="name", timestamp="time")
    path = tmp_path / "events.csv"
    rows = [",".join(row.values()) for row in given.to_pylist()]
    path.write_text("\n".join([",".join(given.column_names), *rows]), encoding="utf-8")
    code, printed, errors = run("prepare", path, "--out", tmp_path / "out")
    assert code == 0, errors
    assert "Warnings:\n- 600 cells of the column 'item_id' look like" in printed
    info = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert len(info["warnings"]) == 1
    assert Dataset.load(tmp_path / "out").info.warnings == info["warnings"]


def test_a_title_with_one_id_gives_its_id_to_rows_without_one() -> None:
    given = table(user="user", sku="id", title="name", timestamp="time")
    ids = ["" if n % 7 == 0 else CELLS["id"](n) for n in range(ROWS)]
    ids[1], ids[2] = "", "OTHER"  # one more id for the title of row 2
    tips = ["Tip" if n % 50 == 0 else CELLS["name"](n) for n in range(ROWS)]
    given = given.set_column(1, "sku", [ids]).set_column(2, "title", [tips])
    data = prepare(given)
    known = {i.item_id for i in data.catalog}
    ambiguous = CELLS["name"](2)
    assert known == {CELLS["id"](n) for n in range(30)} | {"OTHER", "Tip", ambiguous}
    assert any("without an item id took it from other rows" in n for n in data.info.notes)


def test_lines_that_are_no_events_are_no_items() -> None:
    given = table(customer_id="user", sku="id", product_name="name", order_date="time")
    header = {
        "customer_id": "Customer",
        "sku": "Code",
        "product_name": "Product",
        "order_date": "Date",
    }
    guest = {"customer_id": "", "sku": "SKU-900", "product_name": "Rug", "order_date": "2023-01-01"}
    rows = [header, guest, *given.to_pylist()]
    data = prepare(pa.Table.from_pylist(rows))
    assert "Code" not in data.catalog
    assert "SKU-900" in data.catalog
    assert data.info.items == 31
    assert data.interactions.columns.row.max() < 31
    assert any("1 item occurs only in rows that cannot be read" in n for n in data.info.notes)
    first = data.interactions.history("c000").interactions[0]
    assert first.item_id == CELLS["id"](0)


def test_a_column_that_may_identify_baskets_is_a_remark() -> None:
    rows = [
        {"customer": f"c{n // 3 % 7}", "item": f"{NAMES[n % 7]}", "when": f"2024-03-{1 + n // 3:02d} 10:00",
         "Beleg": f"B{n // 3}", "clerk": "amy", "weight": f"{n * 37 % 90}"}
        for n in range(60)
    ]  # fmt: skip
    data = prepare(pa.Table.from_pylist(rows), columns={"timestamp": "when"})
    assert not any("identify baskets" in note for note in data.info.notes)  # "Beleg" is known
    renamed = [{"Vorgang": row.pop("Beleg"), **row} for row in rows]
    notes = prepare(pa.Table.from_pylist(renamed), columns={"timestamp": "when"}).info.notes
    (remark,) = [note for note in notes if "identify baskets" in note]
    assert "--unit Vorgang uses it" in remark
    alone = [row for n, row in enumerate(renamed) if n % 3 == 0]
    notes = prepare(pa.Table.from_pylist(alone), columns={"timestamp": "when"}).info.notes
    assert not any("identify baskets" in note for note in notes)


@pytest.mark.parametrize("people", ["person", "user"])
def test_an_address_that_tells_more_people_apart_than_names_is_the_user(people: str) -> None:
    given = table(client="person", sku="id", product_name="name", order_date="time").to_pylist()
    mails = [
        f"{CELLS['person'](n)}{n * 11 % 40 if people == 'user' else ''}@x" for n in range(ROWS)
    ]
    twins = [
        {**row, "client": row["client"][:3], "email": mail}
        for row, mail in zip(given, mails, strict=True)
    ]
    data = prepare(pa.Table.from_pylist(twins))
    assert data.info.users == len(set(mails)) > 4
    assert any("'client' holds names, which tell only 4 of" in note for note in data.info.notes)
    same = [{**row, "email": f"{row['client']}@x"} for row in given]
    assert prepare(pa.Table.from_pylist(same)).info.columns["user_id"] == "client"


def test_a_row_of_totals_is_no_item() -> None:
    given = table(customer_id="user", product_name="name", order_date="time", quantity="quantity")
    total = {"customer_id": "", "product_name": "Total", "order_date": "", "quantity": "1500"}
    data = prepare(pa.Table.from_pylist([*given.to_pylist(), total]))
    assert len(data.catalog) == 30
    assert "Total" not in {i.title for i in data.catalog}


def test_escapes_of_postgresql() -> None:
    given = table(user="user", sku="id", title="name", timestamp="time", note="note")
    titles = [t.as_py().replace(" No", r"\tNo\\") for t in given["title"]]
    data = prepare(given.set_column(2, "title", [titles]))
    assert data.catalog[0].title == CELLS["name"](0).replace(" No", " No\\")
    plain = given.set_column(2, "title", [titles]).drop_columns("note")
    assert r"\t" in prepare(plain).catalog[0].title


def test_ids_of_mongodb_in_objects(run: Run, tmp_path: Path) -> None:
    lines = [
        {"_id": {"$oid": f"5f{n:04d}"}, "customer": {"id": {"$oid": f"ab{n % 6}"}, "email": "x@x"},
         "items": [{"product": {"$oid": f"cd{n % 4}"}, "name": f"Mug {n % 4}", "qty": 1},
                   {"product": {"$oid": "cd9"}, "name": "Tea pot", "qty": {"$numberInt": "2"}}],
         "createdAt": {"$date": f"2023-03-{n + 1:02d}T10:00:00Z"}}
        for n in range(24)
    ]  # fmt: skip
    path = tmp_path / "orders.json"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    data, _ = Dataset.prepare(None, path)
    assert set(data.interactions.user_ids) == {f"ab{n}" for n in range(6)}
    assert {i.item_id for i in data.catalog} == {"cd0", "cd1", "cd2", "cd3", "cd9"}
    assert data.info.unit == "order_id"
    assert len(data.interactions) == 48
    assert data.interactions.unit_ids is not None
    assert len(data.interactions.unit_ids) == 24


@pytest.mark.parametrize(
    ("cells", "vague", "expected"),
    [
        (["ea"] * 50, False, False),
        (["1"] * 50, True, False),
        (["1"] * 50, False, False),
        (["1", "2"] * 50, True, False),
        (["1", "2"] * 50, False, True),  # the numbers of visits
        (["web", "shop"] * 50, False, False),
        ([f"A{n}" for n in range(50)], True, True),
        (["o1", "o1", "o1"], True, True),
        ([""] * 50, False, False),
    ],
)
def test_columns_of_baskets(cells: list[str], vague: bool, expected: bool) -> None:
    assert may_hold_baskets(pa.chunked_array([cells]), vague=vague) is expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["4", "", "5"], True), (["★★★", "★"], True), (["gift", "\\N", "7"], True), (["gift"], False),
     (["", "NULL"], True), (["great", "bad", "3"], False)],
)  # fmt: skip
def test_columns_of_numbers(cells: list[str], expected: bool) -> None:
    assert holds_numbers(pa.chunked_array([cells])) is expected


@pytest.mark.parametrize("columns", [
    {"item_id": "page", "title": "page"},
    {"title": "page", "item_id": "page"},
    {"item_id": "title", "title": "title"},
    {"title": "item_id", "item_id": "item_id"},
])  # fmt: skip
def test_a_column_may_be_mapped_to_two_roles(columns: dict[str, str]) -> None:
    given = table(user="user", item_id="page", title="page", page="page", date="time")
    data = prepare(given, columns=columns)
    assert {i.item_id for i in data.catalog} == {i.title for i in data.catalog}
    assert len(data.catalog) == 30


def test_exports_of_a_library_and_of_netsuite() -> None:
    loans = table(Ausweisnummer="user", Mediennummer="order", Titelnummer="id", Titel="name",
                  Ausleihdatum="time", Note="note")  # fmt: skip
    assert prepare(loans).info.columns.items() >= {
        "user_id": "Ausweisnummer", "item_id": "Titelnummer", "title": "Titel",
        "timestamp": "Ausleihdatum",
    }.items()  # fmt: skip
    sales = pa.table({
        "Document Number": [CELLS["order"](n) for n in range(ROWS)],
        "Date": [CELLS["time"](n) for n in range(ROWS)],
        "Customer/Project: Name": [CELLS["person"](n) for n in range(ROWS)],
        "Item: Name": [CELLS["id"](n) for n in range(ROWS)],
        "Item: Display Name": [CELLS["name"](n) for n in range(ROWS)],
        "Qty. Sold": [CELLS["quantity"](n) for n in range(ROWS)],
    })  # fmt: skip
    data = prepare(sales)
    assert data.info.columns["title"] == "Item: Display Name"
    assert data.info.columns["unit"] == "Document Number"
    assert len(data.catalog) == 30


def test_a_second_number_is_named_beside_the_value() -> None:
    data = prepare(table(user="user", sku="id", title="name", date="time", rating="stars",
                         qty="quantity"))  # fmt: skip
    uses = {u["column"]: u["use"] for u in data.info.uses}
    assert uses["rating"] == "rating"
    assert uses["qty"].endswith("could also be value")
