"""Names that occur twice in a header, and headers that occur twice in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.data.readers.repeated import name_columns


def text_table(path: Path, text: str, **options: Any) -> dict[str, list[str]]:
    """Write a file, read it, and return its columns without the row numbers."""
    path.write_text(text, encoding="utf-8")
    table = files.read(path, **options)
    return {n: table[n].to_pylist() for n in arrow.column_names(table)}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (
            "id,n,id,n\n1,a,7,b\n2,c,8,\n",
            {"id.1": "12", "n.1": "ac", "id.2": "78", "n.2": ["b", ""]},
        ),
        ("id,id,id\n1,1,5\n2,2,6\n", {"id.1": "12", "id.3": "56"}),
        ("id,,\n1,a,b\n2,c,d\n", {"id": "12", "column_2": "ac", "column_3": "bd"}),
        ("id,x,x,x.2\n1,a,b,c\n", {"id": "1", "x.1": "a", "x.2_": "b", "x.2": "c"}),
        ("sum,sum\n5,\n,6\n", {"sum.1": ["5", ""], "sum.2": ["", "6"]}),
        ("id,x,id\n1,a,1\n2,b,2\n", {"id": "12", "x": "ab"}),
        ("id,x,id\n1,a,1\n,b,2\n", {"x": "ab", "id": "12"}),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_with_one_name_are_numbered_unless_they_agree(
    tmp_path: Path, text: str, columns: dict[str, Any], kind: str
) -> None:
    expected = {name: list(cells) for name, cells in columns.items()}
    notes: list[str] = []
    if kind == "csv":
        table = text_table(tmp_path / "i.csv", text, notes=notes)
    else:
        names, *rows = (line.split(",") for line in text.splitlines())
        arrays = [pa.array([cell or None for cell in cells]) for cells in zip(*rows, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, names), tmp_path / "i.parquet")
        read = files.read(tmp_path / "i.parquet", notes=notes)
        table = {n: [v or "" for v in read[n].to_pylist()] for n in read.column_names}
    assert table == expected
    assert list(table) == list(expected)
    numbered = [name for name in table if re.search(r"\.\d_?$|^column_", name) and name not in text]
    assert all(any(repr(name) in note for note in notes) for name in numbered)
    assert notes


NAN = float("nan")
EQUAL = "since their cells are equal"
WITHIN = "since it has the filled cells of the others"


@pytest.mark.parametrize(
    ("arrays", "kept", "remark"),
    [
        ([pa.array(["a", "b"]), pa.array(["a", "b"])], 0, EQUAL),
        ([pa.array(["a", ""]), pa.array(["a", "b"])], 1, WITHIN),
        ([pa.array([1.5, NAN]), pa.array([1.5, NAN])], 0, EQUAL),
        ([pa.array([1.5, NAN]), pa.array([1.5, 2.0])], 1, WITHIN),
        ([pa.array([1.5, NAN], pa.float16()), pa.array([1.5, NAN], pa.float16())], 0, EQUAL),
        ([pa.array([NAN], pa.float16()), pa.array([None], pa.float16())], 0, ""),
        ([pa.array([[1], []]), pa.array([[1], []])], 0, EQUAL),
        ([pa.nulls(2), pa.nulls(2)], 0, ""),
        ([pa.nulls(2), pa.array([1, 2])], 1, ""),
    ],
)
@pytest.mark.parametrize(
    ("name", "called"), [("x", "2 columns are called 'x'"), ("", "2 columns have no name")]
)
def test_one_of_several_columns_with_one_name_is_kept(
    arrays: list[pa.Array], kept: int, remark: str, name: str, called: str
) -> None:
    notes: list[str] = []
    columns = [pa.chunked_array([array]) for array in arrays]
    table = name_columns([name, name], columns, notes)
    if name or remark or kept:  # an empty column without a name is left out
        assert table.column_names == [name]
        assert str(table.column(0)) == str(columns[kept])
    assert notes == ([f"{called}, and one is kept, {remark}"] if remark else [])


def test_columns_that_differ_at_once_are_not_compared_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = [pa.chunked_array([[f"{n}", "b"]]) for n in range(60)]
    equal = Mock(wraps=pc.equal)
    monkeypatch.setattr(pc, "equal", equal)
    assert name_columns([""] * 60, columns, []).num_columns == 60
    assert equal.call_count <= 2 * 60  # rather than one for each pair


HEADER = "Kunde;Artikel;Menge;Datum\n"
TECHNICAL = "KUNNR;MATNR;KWMENG;AUDAT\n"
BODY = [f"K;Tür;{n};{n}.3.2024\n" for n in range(1, 5)]


@pytest.mark.parametrize(
    ("lines", "reasons"),
    [
        ([HEADER, *BODY[:2], HEADER, *BODY[2:]], {3: "the row repeats the header"}),
        ([HEADER, TECHNICAL, *BODY], {1: "the row is a second header"}),
        (
            [HEADER, TECHNICAL, *BODY[:2], HEADER, TECHNICAL, *BODY[2:]],
            {1: "the row is a second header", 4: "the row repeats the header",
             5: "the row is a second header"},
        ),
        ([HEADER, *BODY], {}),
    ],
)  # fmt: skip
def test_headers_among_the_rows(tmp_path: Path, lines: list[str], reasons: dict[int, str]) -> None:
    rejects = Rejects("e.csv")
    table = text_table(tmp_path / "e.csv", "".join(lines), rejects=rejects)
    assert table["Menge"] == ["1", "2", "3", "4"]
    assert {number: reason for _, number, reason, _ in rejects.rows} == reasons


@pytest.mark.parametrize(
    "first",
    ["K;Tür;;1.3.2024\n", "unknown;Tür;none;1.3.2024\n", ";;;\n", "K;Tür;Stück;\n"],
)
def test_a_first_row_of_data_is_no_header(tmp_path: Path, first: str) -> None:
    rejects = Rejects("e.csv")
    table = text_table(tmp_path / "e.csv", HEADER + first + "".join(BODY), rejects=rejects)
    assert len(table["Menge"]) == 5
    assert not rejects.rows


@pytest.mark.parametrize(
    "first",
    [
        "guest,promo,Free Gift,2024-01-01T10:00:00Z,",
        'guest,promo,Free Gift,"Jan 5, 2024",',
        "guest,promo,Free Gift,5-Mär-24,",
        "bob,widget,,,",
        "bob,widget,Widget,,",
    ],
)
@pytest.mark.parametrize("where", ["user_id,item_id,title,date,channel", "kd,sku,name,seen,by"])
def test_a_first_row_of_names_above_codes_is_no_header(
    tmp_path: Path, first: str, where: str
) -> None:
    rejects = Rejects("e.csv")
    rows = "".join(f"u{n},i{n},Mug {n},2024-01-0{n},c{n}\n" for n in range(1, 6))
    table = text_table(tmp_path / "e.csv", f"{where}\n{first}\n{rows}", rejects=rejects)
    assert len(table[where.partition(",")[0]]) == 6
    assert not rejects.rows
