"""Exports are cleaned as they are imported, and everything that was changed is said."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from support.commands import Run

from genrec import Dataset
from genrec.data.event_items import note_other_codes
from genrec.data.ingest import EventOptions
from genrec.errors import DataError

UCI = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"


def prepare(tmp_path: Path, text: str, **options: object) -> Dataset:
    path = tmp_path / "events.csv"
    path.write_text(text, encoding="utf-8")
    return Dataset.prepare(None, path, options=EventOptions(**options))[0]  # type: ignore[arg-type]


def uci(*rows: str) -> str:
    """Rows of user, invoice, item, title and quantity, on one day each."""
    lines = []
    for day, row in enumerate(rows, start=1):
        user, invoice, item, title, quantity = row.split(",")
        date = f"2019-03-{day:02d} 10:00"
        lines.append(f"{invoice},{item},{title},{quantity},{date},1.5,{user},France\n")
    return UCI + "".join(lines)


def behaviors(data: Dataset) -> list[str]:
    return [data.interactions.behaviors[b] for b in data.interactions.columns.behavior]


def test_the_most_frequent_title_wins_and_the_first_of_equal_ones(tmp_path: Path) -> None:
    data = prepare(
        tmp_path,
        uci("u,1,10A,damaged,1", "u,2,10A,RED MUG,1", "v,3,10A,RED MUG,2", "v,4,11B,POT,1",
            "v,5,11B,TEA POT,1", "w,6,12C,,1", "w,7,12C,CUP,1"),
    )  # fmt: skip
    assert [i.title for i in data.catalog] == ["RED MUG", "POT", "CUP"]
    assert (
        "2 items have several titles, of which the most frequent one is used; for example, "
        "'11B' is called 'POT' in 1 row and 'TEA POT' in 1" in data.info.notes
    )
    assert data.info.events == 7


def test_columns_that_hardly_vary_within_items_describe_them(tmp_path: Path) -> None:
    rows = ["user,sku,product name,date,brand,price,country"]
    for n in range(60):
        item = n % 6
        price = 1 + item if n != 7 else 0.5  # one odd price
        rows.append(f"u{n % 7},S{item},Mug {item},{n},B{item % 3},{price},C{n % 4}")
    data = prepare(tmp_path, "\n".join(rows), time_unit="day")
    assert data.catalog.columns == ("item_id", "title", "brand", "price")
    assert data.catalog[1].attributes == {"brand": "B1", "price": 2}
    assert data.interactions.attributes is not None
    assert "country" in data.interactions.attributes.column_names
    assert any("describe the items: 'brand', 'price'" in note for note in data.info.notes)


def test_a_column_that_is_nearly_the_same_everywhere_does_not_describe_items(
    tmp_path: Path,
) -> None:
    rows = ["user,sku,product name,date,country"]
    rows += [f"u{n % 7},S{n % 6},Mug {n % 6},{n},{'X' if n == 5 else 'UK'}" for n in range(60)]
    assert prepare(tmp_path, "\n".join(rows), time_unit="day").catalog.columns == (
        "item_id", "title",
    )  # fmt: skip


@pytest.mark.parametrize("word", ["NULL", "null", "\\N", "nan", "(not set)", "<NA>", "#N/A"])
def test_words_for_missing_values_are_no_users_or_baskets(tmp_path: Path, word: str) -> None:
    rows = ["user,order id,sku,product name,date,qty"]
    for n in range(6):
        user, order = (word if n == 2 else f"u{n % 2}"), (word if n % 3 == 0 else f"o{n}")
        rows.append(f"{user},{order},S{n},{word if n == 4 else f'Mug {n}'},2019-03-0{n + 1},{word}")
    data = prepare(tmp_path, "\n".join(rows))
    assert set(data.interactions.user_ids) == {"u0", "u1"}
    assert sum(data.info.rejected.values()) == 2  # without a user, and without a title
    assert len(set(data.interactions.columns.unit.tolist())) == 4
    said = f"words for missing values, such as {word!r}, are read as empty (10 cells)"
    assert said in data.info.notes


def test_lines_of_an_order_take_what_only_its_first_line_has(tmp_path: Path) -> None:
    rows = ["order id,customer,date,sku,product name"]
    for n in range(6):
        first = f"u{n // 3},2019-03-0{n // 3 + 1}" if n % 3 == 0 else ","
        rows.append(f"{n // 3},{first},S{n},Mug {n}")
    rows += [",,2019-03-01,S0,Mug 0", "1,,2019-03-01,S0,Mug 0"]  # sales without a customer
    data = prepare(tmp_path, "\n".join(rows))
    users = [data.interactions.user_ids[u] for u in data.interactions.columns.user]
    assert users == ["u0"] * 3 + ["u1"] * 3
    assert sum(data.info.rejected.values()) == 2
    said = "filled in times and users from the first line of the same order ('order id') in 4 rows"
    assert said in data.info.notes


def test_events_without_a_known_id_are_joined_by_the_title(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("sku,name\nA,Red mug\nB,Pot\nC,Tin\nD,Tin\n")
    rows = ["A,Red mug", ",Pot", "9,red  MUG", ",Tin", "B,Red mug", ",Lamp"]
    lines = [f"u,2019-03-0{n + 1},{row}\n" for n, row in enumerate(rows)]
    (tmp_path / "e.csv").write_text("customer,date,sku,name\n" + "".join(lines))
    data, _ = Dataset.prepare(tmp_path / "i.csv", tmp_path / "e.csv")
    assert [data.catalog[int(r)].item_id for r in data.interactions.columns.row] == list("ABAB")
    assert "joined 2 rows without a known item id on the title" in data.info.notes
    assert sum(data.info.rejected.values()) == 2
    (tmp_path / "e.csv").write_text("customer,date,product\nu,2019-03-01,Pot\nu,2019-03-02,A\n")
    data, _ = Dataset.prepare(tmp_path / "i.csv", tmp_path / "e.csv")
    assert [data.catalog[int(r)].item_id for r in data.interactions.columns.row] == ["B", "A"]


def test_variants_take_the_title_of_their_product(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(
        "Handle,Title,Vendor,Variant SKU\nmug,Red mug,Acme,A\nmug,,,B\npot,Pot,Acme,C\n,,,D\n"
    )
    (tmp_path / "e.csv").write_text("customer,date,sku\nu,2019-03-01,B\nu,2019-03-02,C\n")
    data, rejects = Dataset.prepare(tmp_path / "i.csv", tmp_path / "e.csv")
    assert [(i.item_id, i.title) for i in data.catalog] == [
        ("A", "Red mug"), ("B", "Red mug"), ("C", "Pot"),
    ]  # fmt: skip
    said = "1 row without a title got the title of the row above with the same 'Handle'"
    assert said in data.info.notes
    assert [row[1] for row in rejects[0].rows] == [4]


def test_people_are_users_only_if_nothing_else_identifies_them(tmp_path: Path) -> None:
    header = "Customer Name,sku,product name,date"
    data = prepare(tmp_path, f"{header}\nAnn,1,Mug,2019-03-01\n")
    assert data.interactions.user_ids == ("Ann",)
    assert "users are identified by the names in 'Customer Name'" in data.info.notes
    data = prepare(tmp_path, f"{header},email\nAnn,1,Mug,2019-03-01,a@x\nBo,1,Mug,2019-03-01,\n")
    assert data.interactions.user_ids == ("a@x",)


@pytest.mark.parametrize("column", ["behavior_type", "action"])
def test_behaviors_may_be_codes(tmp_path: Path, column: str) -> None:
    rows = [f"u{n},{n % 5},Mug {n % 5},{n % 4 + 1},2019-03-{n + 1:02}" for n in range(20)]
    data = prepare(tmp_path, "\n".join([f"user_id,item_id,title,{column},time", *rows]))
    assert sorted(data.interactions.behaviors) == ["1", "2", "3", "4"]
    many = [f"u{n},{n},Mug {n},{n},2019-03-{n + 1:02}" for n in range(20)]
    data = prepare(tmp_path, "\n".join([f"user_id,item_id,title,{column},time", *many]))
    assert list(data.interactions.behaviors) == ["interact"]


def test_books_that_were_not_rated_have_no_rating(tmp_path: Path) -> None:
    rows = [f"u,{n},Book {n},{n % 2},{n},2019-03-0{n + 1}" for n in range(3)]
    for flag, value in (("is_read", float("nan")), ("other", 0.0)):
        data = prepare(tmp_path, "\n".join([f"user_id,book_id,title,{flag},rating,date", *rows]))
        assert list(data.interactions.behaviors) == ["rate"]
        np.testing.assert_equal(data.interactions.columns.value[0], value)


@pytest.mark.parametrize("separate", [False, True])
def test_attributes_with_currency_signs_and_decimal_commas_are_numbers(
    tmp_path: Path, separate: bool
) -> None:
    shown = [("1.250,50 €", "030 123", "12,5 cm", "1.500"), ("3,95 €", "030 124", "x", "2.500")]
    names = "Preis;Telefon;Höhe;Stück je Palette"
    items = [f"S{n};Becher {n};{';'.join(cells)}" for n, cells in enumerate(shown)]
    events = [f"u{n};2019-03-0{n};{items[n % 2] if not separate else f'S{n % 2}'}"
              for n in range(1, 6)]  # fmt: skip
    described = f"Artikelnummer;Bezeichnung;{names}"
    header = f"Kunde;Datum;{described if not separate else 'Artikelnummer'}\n"
    (tmp_path / "e.csv").write_text(header + "\n".join(events), encoding="utf-8")
    (tmp_path / "i.csv").write_text(f"{described}\n" + "\n".join(items), encoding="utf-8")
    data, _ = Dataset.prepare(tmp_path / "i.csv" if separate else None, tmp_path / "e.csv")
    found = [tuple(i.attributes[n] for n in names.split(";")) for i in data.catalog]
    if not separate:
        found.sort(key=str)
    assert found == [(1250.5, "030 123", "12,5 cm", 1500), (3.95, "030 124", "x", 2500)]
    assert any("Preis: numbers read with a decimal comma" in n for n in data.info.notes)


def test_numbers_of_both_files_are_written_alike(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("sku;name;price\nA1;Mug;3,95\nA2;Pot;12,50\n")
    events = "customer;sku;date;qty\nu;A1;2019-03-01;1.500\nv;A2;2019-03-02;12\n"
    (tmp_path / "e.csv").write_text(events)
    data, _ = Dataset.prepare(tmp_path / "i.csv", tmp_path / "e.csv")
    assert data.interactions.columns.value.tolist() == [1500, 12]


def test_an_unknown_column_in_a_guessed_encoding_is_an_error_that_names_the_encoding(
    tmp_path: Path,
) -> None:
    text = "顧客番号,名,時\n" + "".join(f"u{n},a,2019-03-01\n" for n in range(30))
    (tmp_path / "e.csv").write_bytes(text.encode("euc_jp"))
    with pytest.raises(DataError, match=r"--column item_id=COLUMN.* Note that e\.csv: the text is read "
                       r".* name the encoding with --encoding\."):  # fmt: skip
        Dataset.prepare(None, tmp_path / "e.csv")


def test_returns_are_no_purchases(tmp_path: Path) -> None:
    data = prepare(
        tmp_path,
        uci(
            "u,1,10A,MUG,3", "u,C2,10A,MUG,-3", "u,3,11B,POT,-1", "u,C4,11B,POT,1", "u,5,11B,POT,2"
        ),
    )
    assert behaviors(data) == ["buy", "return", "return", "return", "buy"]
    assert data.interactions.columns.value.tolist() == [3, 3, 1, 1, 2]
    assert (
        "marked 3 rows as 'return' rather than as a purchase: 2 with a negative quantity, 2 with "
        "an invoice number that begins with C, 1 with both" in data.info.notes
    )


@pytest.mark.parametrize("word", ["Refund", "retoure", "退货", "returned"])
def test_words_for_returns(tmp_path: Path, word: str) -> None:
    text = f"user,sku,name,date,event\nu,1,Mug,2019-03-01,buy\nu,1,Mug,2019-03-02,{word}\n"
    assert behaviors(prepare(tmp_path, text)) == ["buy", "return"]


def test_invoices_that_all_begin_with_c_are_no_returns(tmp_path: Path) -> None:
    data = prepare(tmp_path, uci("u,C1,10A,MUG,3", "u,C2,10A,MUG,3", "u,3,10A,MUG,1"))
    assert behaviors(data) == ["buy"] * 3


def test_negative_ratings_are_no_returns(tmp_path: Path) -> None:
    text = "user,sku,name,date,rating\nu,1,Mug,2019-03-01,-3\nu,2,Pot,2019-03-02,4\n"
    data = prepare(tmp_path, text)
    assert behaviors(data) == ["rate", "rate"]
    assert data.interactions.columns.value.tolist() == [-3, 4]


def test_order_lines_take_what_the_first_line_says(tmp_path: Path) -> None:
    text = (
        "Order ID,Customer,Order Date,SKU,Product Name\n"
        "1,ann,2019-03-01,10,Mug\n2,bob,2019-03-02,10,Mug\n1,,,11,Pot\n3,,,12,Cup\n"
        "4,,2019-03-04,12,Cup\n4,,,13,Jar\n"
    )
    path = tmp_path / "o.csv"
    path.write_text(text, encoding="utf-8")
    data, rejects = Dataset.prepare(None, path)
    kept = [(data.interactions.user_ids[u], data.catalog[r].item_id)
            for u, r in zip(data.interactions.columns.user, data.interactions.columns.row,
                            strict=True)]  # fmt: skip
    assert sorted(kept) == [("ann", "10"), ("ann", "11"), ("bob", "10")]
    assert data.interactions.columns.timestamp[0] == data.interactions.columns.timestamp[1]
    assert [(row[1], row[2]) for row in rejects[0].rows] == [
        (4, "empty user_id"), (5, "empty user_id"), (6, "empty user_id"),
    ]  # fmt: skip


def test_html_entities_are_decoded_once(tmp_path: Path) -> None:
    data = prepare(
        tmp_path, uci("u,1,1,Bed &amp; Bath,1", "u,2,2,&amp;lt;b&amp;gt;,1", "v,3,3,A & B,1")
    )
    assert [i.title for i in data.catalog] == ["Bed & Bath", "&lt;b&gt;", "A & B"]
    assert "HTML entities were decoded in 2 titles" in data.info.notes


def test_codes_without_digits_are_reported_and_can_be_dropped(run: Run, tmp_path: Path) -> None:
    rows = [f"u{n % 5},{n},{100 + n % 25}A,Mug {n % 25},1" for n in range(28)]
    rows += ["u1,90,POST,POSTAGE,1"]
    path = tmp_path / "shop.csv"
    path.write_text(uci(*rows), encoding="utf-8")
    code, printed, errors = run("prepare", path, "--out", tmp_path / "a")
    assert code == 0, errors
    assert (
        "1 item may not be a product: its id has no digit. To leave it out, add --drop-items POST"
        in printed
    )
    (tmp_path / "ids.txt").write_text("POST\n100A\n", encoding="utf-8")
    for given, gone in (
        (["POST"], ["POST"]),
        (["POST,101A"], ["POST", "101A"]),
        ([str(tmp_path / "ids.txt")], ["POST", "100A"]),
        (['title == "POSTAGE"'], ["POST"]),
        (["POST", 'title in ("Mug 3", "Mug 4")'], ["POST", "103A", "104A"]),
    ):
        options = [o for one in given for o in ("--drop-items", one)]
        code, printed, errors = run("prepare", path, *options, "--out", tmp_path / "b")
        assert code == 0, errors
        data = Dataset.load(tmp_path / "b")
        assert not {i.item_id for i in data.catalog} & {*gone}
        assert len(data.catalog) == 26 - len(gone)
        assert data.info.events + sum(data.info.rejected.values()) == 29
        assert "no digit" not in printed


def test_what_a_shop_would_check_is_printed(run: Run, tmp_path: Path) -> None:
    rows = [f"u{n % 5},{n},{100 + n % 25}A,Mug {n % 25},1" for n in range(27)]
    rows += ["u1,C90,100a,Mug 0,-1", ",91,SAMPLE 1,Gift,1", ",92,SAMPLE 1,Gift,1"]
    path = tmp_path / "shop.csv"
    path.write_text(uci(*rows).replace(",u1,", ",7.0,").replace(",u", ","), encoding="utf-8")
    code, printed, errors = run("prepare", path, "--out", tmp_path / "a")
    assert code == 0, errors
    lines = printed.splitlines()
    assert lines[1] == "Kept 28 events from 30 rows."
    assert "Events: 27 buy, 1 return." in lines
    for remark in (
        "user_id: ids such as '7.0' are read as '7'",
        "1 item id differs from another one only in case, such as '100a' and '100A'; they are "
        "treated as different items",
        "1 item occurs only in rejected rows, but can be recommended",
    ):
        assert f"- {remark}" in lines
    assert lines[-3].startswith("Rejected 2 rows: shop.csv: empty user_id")


@pytest.mark.parametrize(
    ("ids", "advice"),
    [
        (["POST", "BANK CHARGES"], "add --drop-items 'POST,BANK CHARGES'"),
        (
            ["POST", "it's; rm"],
            "To leave some out, pass their ids with --drop-items: 'POST', \"it's; rm\"",
        ),
        (
            [chr(65 + n) for n in range(21)],
            "with --drop-items: 'A', 'B', 'C', 'D', 'E' and 16 more",
        ),
    ],
)
def test_the_option_to_paste_is_safe(ids: list[str], advice: str) -> None:
    (note,) = note_other_codes([*ids, *map(str, range(1000))])
    assert note.endswith(advice)


def test_searches_with_other_words_are_no_duplicates(tmp_path: Path) -> None:
    text = (
        "user,item_id,title,date,behavior,text\nu,1,Mug,2019-03-01,buy,\n"
        "u,,,2019-03-01,search,red\nu,,,2019-03-01,search,blue\nu,,,2019-03-01,search,red\n"
    )
    assert prepare(tmp_path, text, drop_duplicates=True).info.events == 3


def test_unknown_items_to_drop_are_said_and_dropping_all_is_an_error(tmp_path: Path) -> None:
    text = uci("u,1,10A,MUG,1", "v,2,11B,POT,1")
    data = prepare(tmp_path, text, drop_items=["10A", "nope"])
    assert "no items in the data have these ids given to --drop-items: 'nope'" in data.info.notes
    with pytest.raises(DataError, match="drops all 2 items"):
        prepare(tmp_path, text, drop_items=["10A", "11B"])


def test_duplicates_are_dropped_on_request_and_counted(tmp_path: Path) -> None:
    row = "1,10A,MUG,1,2019-03-01 10:00,1.5,u,France\n"
    other = "1,10A,MUG,2,2019-03-01 10:00,1.5,u,France\n"
    text = UCI + row + row + other + row
    assert prepare(tmp_path, text).info.events == 4
    kept = "2 events repeat another one and are kept; --drop-duplicates leaves them out"
    assert kept in prepare(tmp_path, text).info.notes
    data = prepare(tmp_path, text, drop_duplicates=True)
    assert data.info.events == 2
    assert sum(data.info.rejected.values()) == 2
    assert "2 rows dropped for repeating an earlier row" in data.info.notes


@pytest.mark.parametrize(
    ("header", "cells", "behavior"),
    [
        ("customer,sku,product name,date", "u,1,Mug,2019-03-01", "buy"),
        ("user,sku,product name,date,order id", "u,1,Mug,2019-03-01,9", "buy"),
        ("user,sku,product name,date,price", "u,1,Mug,2019-03-01,9", "buy"),
        ("user,track_id,track_name,artist,played_at", "u,1,Mug,X,2019-03-01", "listen"),
        ("user,sku,product name,date", "u,1,Mug,2019-03-01", "interact"),
        ("user,movie id,title,date,stars", "u,1,Mug,2019-03-01,4", "rate"),
    ],
)
def test_the_one_behavior_is_named_by_what_the_columns_look_like(
    tmp_path: Path, header: str, cells: str, behavior: str
) -> None:
    data = prepare(tmp_path, f"{header}\n{cells}\n")
    assert behaviors(data) == [behavior]
    assert f"no behavior column: every row counts as {behavior!r}" in data.info.notes


def test_several_rows_are_shown_for_each_reason(run: Run, tmp_path: Path) -> None:
    text = uci(*(f",{n},10A,MUG,1" for n in range(9)), "u,9,10A,MUG,1", "u,10,,,1")
    (tmp_path / "e.csv").write_text(text, encoding="utf-8")
    code, printed, errors = run("prepare", tmp_path / "e.csv", "--out", tmp_path / "o")
    assert code == 0, errors
    assert "Rejected 9 rows: e.csv: empty user_id (see rejected.csv)\n    row 1: 0 | 10A" in printed
    assert printed.count("    row ") == 4
    code, printed, errors = run("prepare", tmp_path / "e.csv", "--out", tmp_path / "o", "--json")
    assert '"rejected_examples"' in printed


ROWS = [
    ["1", "10A", "Bed &amp; Bath", "-2", "3/4/2019", "$1,500.00", "", "X"],
    ["C2", "10A", "Bed &amp; Bath", "-2", "3/14/2019", "$2.00", "17.0", "X"],
    ["C2", "10A", "Bed &amp; Bath", "-2", "3/14/2019", "$2.00", "17.0", "X"],
    ["3", "11B", "Pot", "1", "soon", "$2.00", "18.0", "X"],
    ["4", "12C", "", "1", "3/15/2019", "$2.00", "18.0", "X"],
]
REJECTED = [
    (3, "the row repeats an earlier one"),
    (1, "empty user_id"),
    (4, "time is empty or not a number or date"),
    (5, "no title for the item: '12C'"),
]


@pytest.mark.parametrize("kind", ["csv", "parquet", "table", "folder"])
def test_rejected_rows_are_recorded_as_they_are_in_the_file(tmp_path: Path, kind: str) -> None:
    names = UCI.strip().split(",")
    table = pa.table({n: [row[c] for row in ROWS] for c, n in enumerate(names)})
    path = tmp_path / "e.csv" if kind == "csv" else tmp_path / "0.parquet"
    if kind == "csv":
        pa_csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    given = {"csv": path, "parquet": path, "table": table, "folder": tmp_path}[kind]
    if kind == "folder":
        pq.write_table(table, tmp_path / "1.parquet")
    _, (rejects,) = Dataset.prepare(None, given, options=EventOptions(drop_duplicates=True))
    second = [row for row in rejects.rows if row[0].endswith("1.parquet")]
    first = [row for row in rejects.rows if row not in second]
    assert [row[1:] for row in first] == [(n, r, " | ".join(ROWS[n - 1])) for n, r in REJECTED]
    assert [row[1] for row in second] == ([1, 2, 3, 4, 5] if kind == "folder" else [])


def test_lists_are_recorded_event_by_event(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u", "v"], "title": [["Mug", ""], ["Pot"]]})
    _, (rejects,) = Dataset.prepare(None, table, options=EventOptions(behavior="buy"))
    assert [row[1:] for row in rejects.rows] == [(1, "empty item_id", "u |  |  | 1 | buy")]


def test_every_row_rejected_still_writes_the_rejected_rows(run: Run, tmp_path: Path) -> None:
    text = uci(",1,10A,MUG,1", ",2,10A,MUG,1", "u,3,10A,MUG,1").replace("2019-03-03", "soon")
    (tmp_path / "e.csv").write_text(text, encoding="utf-8")
    out = tmp_path / "o"
    code, _, errors = run("prepare", tmp_path / "e.csv", "--out", out)
    assert code != 0
    assert "empty user_id (2 rows" in errors
    assert str(out / "rejected.csv") in errors
    assert len((out / "rejected.csv").read_text(encoding="utf-8").splitlines()) == 4
    (tmp_path / "e.csv").write_text(uci("u,3,10A,MUG,1"), encoding="utf-8")
    assert run("prepare", tmp_path / "e.csv", "--out", out)[0] == 0  # the folder is taken over
    assert not (out / "rejected.csv").exists()


def test_rows_without_times_are_in_order_on_request(tmp_path: Path) -> None:
    text = "user,sku,product name\nu,1,Mug\nv,1,Mug\nu,2,Pot\n"
    with pytest.raises(DataError, match="--time-unit position"):
        prepare(tmp_path, text)
    data = prepare(tmp_path, text, time_unit="position")
    assert data.interactions.columns.timestamp.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Nothing was given to read"),
        (["{f}", "--interactions", "{f}"], "were given. Expected one source"),
        (["{f}", "--sql", "select 1", "--url", "sqlite://"], "were given. Expected one source"),
        (["--sql", "select 1"], "without the address of a database"),
        (["{f}", "--url", "sqlite://"], "without the address of a database"),
    ],
)
def test_one_source_of_events(run: Run, tmp_path: Path, given: list[str], message: str) -> None:
    (tmp_path / "e.csv").write_text(uci("u,3,10A,MUG,1"), encoding="utf-8")
    code, _, errors = run("prepare", *(g.format(f=tmp_path / "e.csv") for g in given))
    assert code == 2
    assert message in errors


def test_a_database_is_read_with_queries(run: Run, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("create table orders (customer, sku, date)")
        shop.executemany(
            "insert into orders values (?, ?, ?)",
            [(f"u{n % 3}", n % 4, f"2019-03-{n + 1:02d}") for n in range(12)],
        )
        shop.execute("create table products (sku, name)")
        shop.executemany("insert into products values (?, ?)", [(n, f"Mug {n}") for n in range(4)])
    shop.close()
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    query = ["--sql", "select customer, sku, date from orders where sku < 3", "--url", url]
    code, printed, errors = run(
        "prepare", *query, "--items-sql", "select * from products", "--out", tmp_path / "o"
    )
    assert code == 0, errors
    data = Dataset.load(tmp_path / "o")
    assert (data.info.name, data.info.events, len(data.catalog)) == ("shop", 9, 4)
    joined = "select o.*, p.name as product_name from orders o join products p using (sku)"
    code, printed, errors = run("prepare", "--sql", joined, "--url", url, "--out", tmp_path / "o")
    assert code == 0, errors
    assert "title from 'product_name'" in printed
    assert Dataset.load(tmp_path / "o").info.events == 12


def test_tables_with_any_names_are_imported_from_python() -> None:
    events = pa.table({"Customer": ["a", "a"], "SKU": [7.0, 8.0], "Date": ["2019-03-01"] * 2})
    items = pa.table({"id": [7, 8], "name": ["Mug &amp; pot", "Jar"]})
    data = Dataset.from_tables(items, events, name="shop")
    assert [(i.item_id, i.title) for i in data.catalog] == [("7", "Mug & pot"), ("8", "Jar")]
    assert data.info.columns == {
        "user_id": "Customer", "item_id": "SKU", "timestamp": "Date", "items.item_id": "id",
        "items.title": "name",
    }  # fmt: skip
