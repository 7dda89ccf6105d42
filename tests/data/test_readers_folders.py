"""Folders of files that are the parts of one table."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec import Dataset
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.data.readers.relations import join_tables
from genrec.errors import DataError

COLUMNS = ("user_id", "item_id", "timestamp", "behavior")
ITEMS = "item_id,title\n" + "".join(f"i{n},Mug {n}\n" for n in range(5))


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [
        dict(zip(COLUMNS, (f"u{n % 4}", f"i{n % 5}", 1_700_000_000 + n, "buy"), strict=True))
        for n in range(start, stop)
    ]


def write(path: Path, part: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(part), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in part))
    else:
        lines = [",".join(part[0]), *(",".join(str(v) for v in row.values()) for row in part)]
        data = "".join(line + "\n" for line in lines).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("ending", ["parquet", "snappy.parquet", "jsonl", "csv", "csv.gz", "dat"])
def test_the_parts_of_a_folder_are_one_table(tmp_path: Path, ending: str) -> None:
    events = tmp_path / "events"
    for n, place in enumerate([2, 0, 1]):
        write(events / f"part-{place}.{ending}", rows(10 * place, 10 * place + 10))
        (events / f".part-{n}.crc").write_bytes(b"\0\1\2")
    (events / "_SUCCESS").touch()
    (events / "_metadata").write_text("x")
    (events / f"part-9.{ending}").touch()
    notes: list[str] = []
    table = files.read(events, notes=notes)
    assert arrow.to_strings(table["timestamp"]) == [str(1_700_000_000 + n) for n in range(30)]
    assert notes == ["the 3 files of the folder are read as one table"]
    (tmp_path / "items.csv").write_text(ITEMS)
    data, _ = Dataset.prepare(tmp_path / "items.csv", events)
    assert (data.info.name, data.info.events, data.info.users) == ("events", 30, 4)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_bad_rows_are_named_by_their_part(tmp_path: Path, ending: str) -> None:
    events = tmp_path / "events"
    for n, name in enumerate(["a", "b/c", "d"]):
        part = rows(10 * n, 10 * n + 5)
        part[n]["item_id"] = "zz"
        write(events / f"{name}.{ending}", part)
    (tmp_path / "items.csv").write_text(ITEMS)
    write(tmp_path / f"late.{ending}", rows(50, 60))
    expected = [
        (f"events/{name}.{ending}", n + 1, "not in the items file: 'zz'")
        for n, name in enumerate(["a", "b/c", "d"])
    ]
    items = tmp_path / "items.csv"
    late = tmp_path / f"late.{ending}"
    for one, validation, test in (
        (events, None, None),
        (events, None, late),
        (late, None, events),
        (late, events, events),
    ):
        _, rejects = Dataset.prepare(items, one, validation=validation, test=test)
        found = [row[:3] for row in rejects[1].rows]
        assert found == expected * (2 if validation else 1)


def test_rows_that_cannot_be_split_are_named_by_their_part(tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / "e" / f"{n}.csv", rows(0, 3))
        with (tmp_path / "e" / f"{n}.csv").open("a") as stream:
            stream.write("one,two\n")
    rejects = Rejects("e")
    assert files.read(tmp_path / "e", rejects=rejects).num_rows == 6
    assert [row[:2] for row in rejects.rows] == [("e/0.csv", 4), ("e/1.csv", 4)]
    with pytest.raises(DataError, match=r"e/0\.csv, data row 4: 2 cells"):
        files.read(tmp_path / "e")


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_folders_named_after_a_value_become_columns(tmp_path: Path, ending: str) -> None:
    for place, name in enumerate(["a b", "__HIVE_DEFAULT_PARTITION__"]):
        folder = tmp_path / "e" / f"year={2023 + place}" / f"shop={name.replace(' ', '%20')}"
        write(folder / f"0.{ending}", rows(place, place + 1))
    table = files.read(tmp_path / "e")
    assert table["year"].to_pylist() == ["2023", "2024"]
    assert table["shop"].to_pylist() == ["a b", ""]
    assert table["user_id"].to_pylist() == ["u0", "u1"]
    one = files.read(tmp_path / "e" / "year=2023" / "shop=a%20b" / f"0.{ending}")
    assert arrow.column_names(one) == list(COLUMNS)


def test_an_encoding_is_guessed_for_the_whole_folder(tmp_path: Path) -> None:
    titles = ["红色杯子", "蓝色陶瓷茶壶套装", "纯棉毛巾三件套", "儿童玩具汽车", "不锈钢保温杯"]
    alone = []
    for n, title in enumerate([*titles, "手机", "充电宝", "耳机"]):
        folder = tmp_path / "alone" / str(n)
        folder.mkdir(parents=True)
        (folder / "0.csv").write_text(f"item_id,title\n{n},{title}\n", encoding="gb18030")
        alone.append(files.read(folder)["title"].to_pylist() == [title])
    assert not all(alone)  # the reason for the rule
    whole = "".join(f"{n},{title}\n" for n, title in enumerate(titles * 4))
    (tmp_path / "alone" / "z.csv").write_text(f"item_id,title\n{whole}", encoding="gb18030")
    notes: list[str] = []
    found = files.read(tmp_path / "alone", notes=notes)["title"].to_pylist()
    assert found == [*titles, "手机", "充电宝", "耳机", *titles * 4]
    assert notes[0].startswith("alone/0/0.csv: the text is read as gb18030, for example '红色杯子'")
    assert notes[1] == "similar remarks apply to 8 other files in the folder"


@pytest.mark.parametrize("other", ["x.csv", "x.jsonl", "x.parquet"])
def test_files_of_several_kinds_are_listed(tmp_path: Path, other: str) -> None:
    write(tmp_path / f"a.{'jsonl' if other == 'x.csv' else 'csv'}", rows(0, 3))
    write(tmp_path / other, rows(0, 3))
    with pytest.raises(DataError, match="files of different kinds: ") as caught:
        files.read(tmp_path)
    for path in tmp_path.iterdir():
        assert f"{tmp_path.name}/{path.name} (" in str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_files_of_several_tables_are_refused(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", rows(0, 3))
    write(tmp_path / f"b.{ending}", [{"item_id": "i0", "title": "Mug", "price": 3}])
    with pytest.raises(DataError, match=rf"b\.{ending} has item_id, title, price"):
        files.read(tmp_path)


def test_columns_may_be_in_another_order_and_json_may_lack_some(tmp_path: Path) -> None:
    write(tmp_path / "c" / "a.csv", rows(0, 2))
    write(tmp_path / "c" / "b.csv", [dict(reversed(row.items())) for row in rows(2, 4)])
    assert files.read(tmp_path / "c")["item_id"].to_pylist() == ["i0", "i1", "i2", "i3"]
    write(tmp_path / "j" / "a.jsonl", rows(0, 1))
    write(tmp_path / "j" / "b.jsonl", [{**rows(1, 2)[0], "price": 3}])
    assert files.read(tmp_path / "j")["price"].to_pylist() == [None, "3"]


def test_types_that_cannot_be_joined_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ["a"], "x": [[1]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"item_id": ["a"], "x": ["1"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"cannot be joined: .* Expected the same column types"):
        files.read(tmp_path)


def test_folders_without_a_table(tmp_path: Path) -> None:
    (tmp_path / "_log").mkdir()
    (tmp_path / "_log" / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no files with data"):
        files.read(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"is a dataset folder .* --data"):
        files.read(tmp_path)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cut\.parquet' cannot be read"):
        files.read(tmp_path)


ORDERS = "id,customer_id,created_at,status\n" + "".join(
    f"{500 + n},{n % 3},2024-03-{n + 1:02d} 10:00,{'cancelled' if n == 9 else 'paid'}\n"
    for n in range(10)
)
LINES = "id,order_id,product_id,quantity\n" + "".join(
    f"{n},{500 + n // 2},{n % 4},{1 + n % 2}\n" for n in range(20)
)
PRODUCTS = "id,name,category_id,created_at\n" + "".join(
    f"{n},Mug {n},{n % 2},2020-01-01\n" for n in range(6)
)
CUSTOMERS = "id,name,email\n" + "".join(f"{n},Ann {n},ann{n}@x\n" for n in range(3))
CATEGORIES = "id,name\n0,Cups\n1,Pots\n"
SHOP = {"orders": ORDERS, "order_items": LINES, "products": PRODUCTS, "customers": CUSTOMERS,
        "categories": CATEGORIES}  # fmt: skip


CLICKS = "user_id,product_id,clicked_at\n" + "".join(
    f"u{n % 4},i{n % 5},2024-03-01 10:{n:02d}\n" for n in range(20)
)
PURCHASES = "user_id,item_id,title,timestamp,price\n" + "".join(
    f"u{n},i{n},Mug {n},2024-03-02 10:00,5\n" for n in range(4)
)


def write_tables(folder: Path, tables: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.mark.parametrize("left_out", [(), ("customers",), ("customers", "categories")])
def test_tables_of_a_database_are_joined(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    tables = {name: text for name, text in SHOP.items() if name not in left_out}
    data, rejects = Dataset.prepare(None, write_tables(tmp_path / "shop", tables))
    c = data.interactions.columns
    assert (data.info.events, data.info.users, data.info.items) == (18, 3, 4)
    assert {i.item_id: i.title for i in data.catalog} == {f"{n}": f"Mug {n}" for n in range(4)}
    assert len(set(c.unit.tolist())) == 9
    assert c.timestamp.min() == 1_709_287_200  # of the order, not of the product
    assert c.value.tolist().count(2) == 9
    assert [r[:2] for r in rejects[0].rows] == [("shop/order_items.csv", n) for n in (19, 20)]
    assert rejects[0].rows[0][2].startswith("cancelled order")
    if not left_out:
        assert data.catalog[0].attributes["category_name"] == "Cups"
    remark = (
        "every row of order_items is an event, joined with orders (by 'order_id'), products (by"
    )
    assert any(remark in note for note in data.info.notes)


def test_a_row_that_refers_to_nothing_is_rejected(tmp_path: Path) -> None:
    tables = SHOP | {"order_items": LINES + "20,999,1,1\n"}
    _, (rejects,) = Dataset.prepare(None, write_tables(tmp_path / "shop", tables))
    assert (21, "empty user_id") in {(r[1], r[2]) for r in rejects.rows}


@pytest.mark.parametrize(
    "tables",
    [
        {"views": LINES, "sales": LINES.replace("quantity", "amount"), "products": PRODUCTS},
        {"order_items": LINES, "products": PRODUCTS.replace("5,Mug", "4,Mug").replace("3,Mug", "2,Mug")},
        {"order_items": LINES, "products": PRODUCTS.replace("\n", "\n9")},
        {"a": CUSTOMERS, "b": PRODUCTS},
        {"clicks": CLICKS, "purchases": PURCHASES},
    ],
)  # fmt: skip
def test_tables_without_a_clear_center_are_refused(tmp_path: Path, tables: dict[str, str]) -> None:
    with pytest.raises(DataError, match="or tables of which one refers to the keys of the others"):
        Dataset.prepare(None, write_tables(tmp_path / "shop", tables))


def test_joined_texts_may_be_long_and_missing_ones_are_empty() -> None:
    tables = {
        "lines": pa.table({"product_id": ["a", "b", "c", "a", "x"]}),
        "products": pa.table({"id": ["a", "b", "c"], "name": ["Mug", None, ""], "price": [1, 2, None]}),
    }  # fmt: skip
    found = join_tables(tables, [])
    assert found is not None
    _, table = found
    assert table["product_name"].to_pylist() == ["Mug", "", "", "Mug", ""]
    assert table["price"].to_pylist() == [1, 2, None, 1, None]
    # The offsets of other texts end at 2 GiB, which repeated descriptions reach.
    assert pa.types.is_large_string(table["product_name"].type)


def test_keys_that_are_not_text_are_not_followed(tmp_path: Path) -> None:
    shop = write_tables(tmp_path / "shop", {"lines": LINES, "orders": ORDERS, "products": PRODUCTS})
    for path in shop.iterdir():
        table = files.read(path)
        table = table.select(arrow.column_names(table))
        if path.stem != "products":
            keys = [b"\xff" + bytes([n % 10]) for n in range(table.num_rows)]
            table = table.append_column("session_id", pa.array(keys, pa.binary()))
        pq.write_table(table, path.with_suffix(".parquet"))
        path.unlink()
    data, _ = Dataset.prepare(None, shop)
    assert (data.info.events, data.info.users, data.info.items) == (18, 3, 4)


def test_tables_that_nothing_refers_to_are_named(tmp_path: Path) -> None:
    payments = "order_id,amount\n" + "".join(f"{500 + n // 3},5\n" for n in range(30))
    tables = SHOP | {"payments": payments}
    data, _ = Dataset.prepare(None, write_tables(tmp_path / "shop", tables))
    assert data.info.events == 18
    assert any(note.endswith("; not used: payments") for note in data.info.notes)


def test_a_table_of_order_lines_alone_leads_to_its_folder(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "shop", {"order_items": LINES, "orders": ORDERS})
    (tmp_path / "products.csv").write_text(PRODUCTS)
    with pytest.raises(
        DataError, match="another file with the column 'order_id', put both files in"
    ):
        Dataset.prepare(tmp_path / "products.csv", folder / "order_items.csv")
    data, _ = Dataset.prepare(tmp_path / "products.csv", folder)
    assert (data.info.events, data.info.users, data.info.items) == (18, 3, 6)
