"""A stock file is read again when it changes, and a broken one does not replace a usable one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec import Catalog, Item
from genrec.data.stock import StockFile
from genrec.errors import DataError

CATALOG = Catalog(Item(f"i{n}", f"item {n}") for n in range(6))


def in_stock(file: StockFile, catalog: Catalog = CATALOG) -> set[str]:
    return {catalog[row].item_id for row in file.read(catalog).rows.tolist()}


@pytest.fixture
def file(tmp_path: Path) -> StockFile:
    path = tmp_path / "stock.csv"
    path.write_text("item_id,quantity\ni0,3\ni1,0\ni2,1\n")
    return StockFile(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("item_id\ni1\ni4\n", {"i1", "i4"}),
        ("item_id,quantity\ni1,2\ni4,0\ni5,-1\n", {"i1"}),
        ("item_id;quantity\ni1;2.5\ni4;0\n", {"i1"}),
        ("item_id,quantity\ni1,0\ni1,2\ni2,1\ni2,-1\n", {"i1"}),
        ("item_id,quantity,warehouse\ni1,0,Berlin\ni3,7,Paris\n", {"i3"}),
        ("item_id,quantity\ni1,0\n", set()),
    ],
)
def test_items_with_a_quantity_above_zero_are_in_stock(
    file: StockFile, text: str, expected: set[str]
) -> None:
    file.path.write_text(text)
    assert in_stock(file) == expected


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    path.with_name("new").write_text(text)
    path.with_name("new").replace(path)


def keep_time(path: Path, text: str) -> None:
    state = path.stat()
    path.write_text(text)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite, replace, keep_time])
@pytest.mark.parametrize("age", [0, 3600])
def test_a_changed_file_is_read_again(
    file: StockFile, change: Callable[[Path, str], None], age: int
) -> None:
    """The same size and time stamp do not hide a change."""
    past = time.time() - age
    os.utime(file.path, (past, past))
    assert in_stock(file) == {"i0", "i2"}
    change(file.path, "item_id,quantity\ni0,0\ni1,3\ni2,1\n")
    assert in_stock(file) == {"i1", "i2"}
    assert file.read(CATALOG).notes == ()


def test_an_unchanged_file_is_not_parsed_again(file: StockFile) -> None:
    past = time.time() - 3600
    os.utime(file.path, (past, past))
    first = file.read(CATALOG)
    assert file.read(CATALOG) is first
    os.utime(file.path)
    assert file.read(CATALOG) is first
    larger = CATALOG.edited(add=[Item("i7", "new")])
    assert file.read(larger) is not first


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_text("")


def write(text: str) -> Callable[[Path], None]:
    return lambda path: rewrite(path, text)


BROKEN = {
    "removed": (remove, "no such file"),
    "empty": (truncate, "stock.csv"),
    "header only": (write("item_id,quantity\n"), "None of its 0 items|no rows"),
    "other columns": (write("sku,n\ni0,1\n"), "It has the columns sku, n. Expected a column item_id"),
    "other shop": (write("item_id,quantity\nx,1\n"), "None of its 1 item is in the catalog"),
    "no number": (
        write("item_id,quantity\ni0,1\ni1,many\n"), "quantity of the item 'i1' is not a number"
    ),
    "no quantity": (write("item_id,quantity\ni0,1\ni1,\n"), "of the item 'i1' is not a number"),
    "infinite": (write("item_id,quantity\ni0,inf\n"), "of the item 'i0' is not a number"),
    "no id": (write("item_id,quantity\ni0,1\n,2\n"), "A row has no item_id"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_keeps_the_last_state_and_says_so(file: StockFile, kind: str) -> None:
    spoil, message = BROKEN[kind]
    assert in_stock(file) == {"i0", "i2"}
    spoil(file.path)
    for _ in range(2):
        found = file.read(CATALOG)
        assert {CATALOG[r].item_id for r in found.rows.tolist()} == {"i0", "i2"}
        (note,) = found.notes
        assert note.startswith(f"The stock file {file.path} cannot be used now: ")
        assert any(part in note for part in message.split("|"))
        assert " is used instead." in note
    file.path.write_text("item_id\ni5\n")
    assert in_stock(file) == {"i5"}
    assert file.read(CATALOG).notes == ()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_broken_from_the_start_is_refused(file: StockFile, kind: str) -> None:
    spoil, message = BROKEN[kind]
    spoil(file.path)
    for _ in range(2):
        with pytest.raises(DataError) as error:
            file.read(CATALOG)
        assert any(part in str(error.value) for part in message.split("|"))
    file.path.write_text("item_id\ni5\n")
    assert in_stock(file) == {"i5"}


def test_unknown_items_are_reported(file: StockFile) -> None:
    file.path.write_text("item_id\ni1\nx\n")
    (note,) = file.read(CATALOG).notes
    assert note.endswith("lists 1 item that the catalog does not have: 'x'. It was skipped.")
    file.path.write_text("item_id\ni1\n" + "".join(f"x{n}\n" for n in range(1500)))
    (note,) = file.read(CATALOG).notes
    assert "1,500 items that the catalog does not have, such as 'x0', 'x1', 'x2'. They" in note
    larger = CATALOG.edited(add=[Item("x7", "new")])
    assert in_stock(file, larger) == {"i1", "x7"}


def test_ids_in_another_spelling_are_found(tmp_path: Path) -> None:
    catalog = Catalog([Item("17841", "mug"), Item("5", "doll")])
    (tmp_path / "s.csv").write_text("item_id\n17841.0\n")
    assert in_stock(StockFile(tmp_path / "s.csv"), catalog) == {"17841"}
