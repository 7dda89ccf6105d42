"""Triples, columns of items and vectors: read, checked, kept in a dataset folder, and turned into values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec import Catalog, Dataset, Item
from genrec.data.item_vectors import ItemVectors, read_item_vectors
from genrec.data.knowledge import Knowledge, Triples, read_cells, read_triples
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, SettingsError

CATALOG = Catalog(
    [
        Item("1", "Toy Story", {"genres": "Animation|Comedy", "year": 1995}),
        Item("2", "Heat", {"genres": "Action|Crime", "year": 1995}),
        Item("3", "Casino", {"genres": "Crime", "year": None}),
    ]
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_row_of_a_file_of_triples_is_kept_or_reported(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "head,relation,tail\n1,director,Lasseter\n2,director,Mann\n9,director,X\n2,,Mann\n"
        "3,actor,\n2,director,Mann\n3,actor,De Niro\n2,actor,De Niro\n",
    )
    rejects = Rejects(path.name)
    found = read_triples(path, CATALOG, rejects)
    assert found.table.to_pylist() == [
        {"head": "1", "relation": "director", "tail": "Lasseter"},
        {"head": "2", "relation": "director", "tail": "Mann"},
        {"head": "3", "relation": "actor", "tail": "De Niro"},
        {"head": "2", "relation": "actor", "tail": "De Niro"},
    ]
    assert [(number, reason) for _, number, reason, _ in rejects.rows] == [
        (3, "the head is not an item: '9'"),
        (4, "empty relation"),
        (5, "empty tail"),
        (6, "repeats an earlier triple"),
    ]
    with pytest.raises(DataError, match="data row 3: the head is not an item"):
        read_triples(path, CATALOG, Rejects("t.csv", strict=True))


def test_the_graph_of_recbole_is_read_through_its_links(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.kg",
        "head_id:token\trelation_id:token\ttail_id:token\n"
        "m.a\tdirector\tm.x\nm.x\tdirected\tm.a\nm.y\tproduced\tm.b\nm.b\tsequel\tm.a\nm.q\tr\tm.r\n",
    )
    write(tmp_path / "m.link", "item_id:token\tentity_id:token\n1\tm.a\n2\tm.b\n9\tm.q\n")
    rejects = Rejects(path.name)
    found = read_triples(path, CATALOG, rejects)
    assert [(*row.values(),) for row in found.table.to_pylist()] == [
        ("1", "director", "m.x"),
        ("2", "sequel", "m.a"),
        ("2", "produced", "m.y"),
    ]
    assert [reason for _, _, reason, _ in rejects.rows] == [
        "repeats an earlier triple in the other direction",
        "neither the head nor the tail is linked to an item",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head,relation\n1,a\n", "no column tail.*found head, relation"),
        ("head,relation,tail\n9,a,b\n", "no usable triples.*the head is not an item"),
    ],
)
def test_a_useless_file_of_triples_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_triples(write(tmp_path / "t.csv", text), CATALOG, Rejects("t.csv"))


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["A|B", "B", ""], [("a", "b"), ("b",), ()]),
        (["red, blue", "red", None], [("red", "blue"), ("red",), ()]),
        ([["X", "x", None], "y", float("nan")], [("x",), ("y",), ()]),
        (["Hello Kitty", "Fisher Price"], [("hello kitty",), ("fisher price",)]),
        (["a b", "b c", "a c", "c d", "a d", "b d", "a", "b", "c"],
         [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("b", "d"), ("a",), ("b",), ("c",)]),
        ([1995, 1995, 3.0, True], [("1995",), ("1995",), ("3",), ("true",)]),
        ([1, 2.5, None], [("1",), ("2.5",), ()]),
        ([None, ""], [(), ()]),
    ],
)  # fmt: skip
def test_cells_become_values(cells: list[object], values: list[tuple[str, ...]]) -> None:
    assert read_cells(cells) == values


def test_many_different_numbers_become_ranges() -> None:
    cells: list[object] = [n + 0.5 for n in range(400)]
    found = read_cells([*cells, None, float("inf")])
    assert found[-2:] == [(), ()]
    assert len({*found[:-2]}) == 20
    assert [int(v[0].split()[1]) for v in found[:-2]] == sorted(n // 20 for n in range(400))


def test_knowledge_joins_columns_and_triples() -> None:
    triples = Triples(
        pa.table({"head": ["3", "3"], "relation": ["genres", "by"], "tail": ["Drama", "Scorsese"]})
    )
    known = Knowledge(("genres", "by"), triples)
    assert known.values(CATALOG) == {
        "genres": [("animation", "comedy"), ("action", "crime"), ("crime", "drama")],
        "by": [(), (), ("scorsese",)],
    }
    assert known.of(CATALOG[2]) == {"genres": "Crime, Drama", "by": "Scorsese"}
    changed = CATALOG.edited(change=[Item("3", "Casino", {"genres": "Drama"})])
    assert (
        known.hash(changed) != known.hash(CATALOG) == Knowledge(known.names, triples).hash(CATALOG)
    )


def files(folder: Path) -> tuple[Path, Path]:
    items = write(
        folder / "items.csv", "item_id,title,brand\n1,red mug,Acme\n2,blue mug,Acme\n3,tin,Tinco\n"
    )
    rows = [f"u{u},{i},{86400 * n + u}" for u in range(4) for n, i in enumerate((1, 2, 3))]
    return items, write(
        folder / "events.csv", "\n".join(["user_id,item_id,timestamp", *rows]) + "\n"
    )


def test_a_dataset_folder_keeps_what_is_known(tmp_path: Path) -> None:
    items, events = files(tmp_path)
    triples = write(
        tmp_path / "t.csv", "head,relation,tail\n1,color,red\n2,color,blue\n7,color,red\n"
    )
    table = pa.table({"item_id": ["1", "2"], "vector": [[1.0, 0.0], [0.0, 2.0]]})
    pq.write_table(table, tmp_path / "v.parquet")
    data, rejects = Dataset.prepare(
        items,
        events,
        triples=triples,
        item_vectors=tmp_path / "v.parquet",
        knowledge=["brand", "color"],
    )
    data.save(tmp_path / "data", rejects)
    assert data.info.rejected == {"t.csv: the head is not an item": 1}
    assert "v.parquet has no vector for 1 item of 3" in data.info.notes
    assert "t.csv,3,the head is not an item" in (tmp_path / "data" / "rejected.csv").read_text()
    loaded = Dataset.load(tmp_path / "data")
    assert loaded.info.knowledge == ["brand", "color"]
    assert loaded.triples is not None
    assert loaded.triples.relations == ("color",)
    assert data.triples is not None
    assert loaded.triples.hash() == data.triples.hash()
    assert loaded.item_vectors is not None
    assert data.item_vectors is not None
    assert loaded.item_vectors.hash() == data.item_vectors.hash()
    assert loaded.with_knowledge(None) is loaded
    with pytest.raises(SettingsError, match=r"'brnd' is neither.*Did you mean 'brand'"):
        loaded.with_knowledge(["brnd"])
    by_default, _ = Dataset.prepare(items, events, triples=triples)
    assert by_default.info.knowledge == ["color"]
    plain, _ = Dataset.prepare(items, events)
    assert "knowledge" not in plain.info.to_dict()
    (tmp_path / "data" / "triples.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="is damaged"):
        Dataset.load(tmp_path / "data")


def vectors(path: Path, ids: list[object], rows: list[object]) -> Path:
    pq.write_table(
        pa.table({"item_id": pa.array(ids), "vector": pa.array(rows, pa.list_(pa.float64()))}), path
    )
    return path


def test_every_unusable_vector_is_reported(tmp_path: Path) -> None:
    path = vectors(
        tmp_path / "v.parquet",
        ["1", "1", "9", "2", "3", "3", "3", "3", "3"],
        [
            [3.0, 4.0],
            [0.0, 1.0],
            [1.0, 1.0],
            [1.0],
            [0.0, 0.0],
            [float("nan"), 1.0],
            [1e300, 0.0],
            None,
            [],
        ],
    )
    rejects, notes = Rejects(path.name), list[str]()
    found = read_item_vectors(path, CATALOG, rejects, notes)
    assert found.ids == ("1",)
    assert found.unit_rows(CATALOG) == pytest.approx(np.array([[0.6, 0.8], [0, 0], [0, 0]]))
    reasons = [reason for _, _, reason, _ in rejects.rows]
    assert len(reasons) == 8
    assert reasons[0] == "duplicate item_id '1' (first in data row 1)"
    assert reasons[1] == "the item is not in the catalog: '9'"
    assert reasons[2] == "the vector has other dimensions than most: 1 instead of 2"
    assert reasons[3] == "the vector is zero"
    assert reasons[4] == reasons[5] == "the vector has a value that is not a finite number"
    assert notes == ["v.parquet has no vector for 2 items of 3"]


def test_a_useless_file_of_vectors_is_an_error(tmp_path: Path) -> None:
    bad = vectors(tmp_path / "zero.parquet", ["1"], [[0.0, 0.0]])
    with pytest.raises(DataError, match=r"no usable vectors.*the vector is zero"):
        read_item_vectors(bad, CATALOG, Rejects("x"))
    pq.write_table(pa.table({"item_id": ["1"], "vector": ["1 2"]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match=r"has the type string\. Expected a list of numbers"):
        read_item_vectors(tmp_path / "text.parquet", CATALOG, Rejects("x"))
    pq.write_table(pa.table({"item": ["1"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="item_id"):
        read_item_vectors(tmp_path / "other.parquet", CATALOG, Rejects("x"))
    with pytest.raises(DataError, match=r"no\.parquet"):
        read_item_vectors(tmp_path / "no.parquet", CATALOG, Rejects("x"))
    with pytest.raises(DataError, match="Expected a Parquet file"):
        read_item_vectors(
            write(tmp_path / "csv.parquet", "item_id,vector\n"), CATALOG, Rejects("x")
        )


def test_tiny_and_huge_vectors_have_a_direction() -> None:
    found = ItemVectors(("1", "2"), np.array([[1e-40, 0], [3e38, 3e38]], dtype=np.float32))
    units = found.unit_rows(CATALOG)
    assert units[0] == pytest.approx([1, 0])
    assert units[1] == pytest.approx([0.5**0.5] * 2)
