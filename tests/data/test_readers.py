"""Files of any delimiter, compression and kind, as programs export them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cells import cells

from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError


def text_table(path: Path, text: str, **options: Any) -> dict[str, list[str]]:
    """Write a file, read it, and return its columns without the row numbers."""
    path.write_text(text, encoding="utf-8", newline="")
    table = files.read(path, **options)
    return {n: table[n].to_pylist() for n in arrow.column_names(table)}


NAMES = ["item.csv", "item.txt", "item.tab", "item.dat", "item.psv", "item", "item.export"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("id;Preis, netto;Name\n1;2,50;Tür\n2;3,00;Bad\n", ["id", "Preis, netto", "Name"]),
        ('id;"Größe (S,M,L,XL)"\n1;S\n2;L\n', ["id", "Größe (S,M,L,XL)"]),
        ("id;Preis, EUR\n1;27,79\n2;1,31\n", ["id", "Preis, EUR"]),
        ("id,tags;more\n1,a;b\n2,c;d\n3,\n", ["id", "tags;more"]),
        ("id\tprice, net\n1\t2,5\n2\t3,5\n", ["id", "price, net"]),
        ("id|name, long|x;y\n1|a, b|c\n2|d|e;f\n", ["id", "name, long", "x;y"]),
        ("id,name|alias\n1,a\n2,b|c\n", ["id", "name|alias"]),
        ('id,name\n1,"a;b;c"\n2,"d;e;f"\n', ["id", "name"]),
        ("sep=;\nid;a,b,c\n1;x,y,z\n2;x,y,z\n", ["id", "a,b,c"]),
        ("\n \nSEP=\t\r\nid\tname\r\n1\ta;b\r\n", ["id", "name"]),
        ("id::name::genre\n1::Heat: a film::x|y\n2::Jaws::z\n", ["id", "name", "genre"]),
        ("id\n1\n2\n", ["id"]),
        ("id;name, long", ["id", "name, long"]),
    ],
)
def test_delimiters(tmp_path: Path, text: str, columns: list[str], name: str) -> None:
    table = text_table(tmp_path / name, text)
    assert list(table) == columns
    assert table[columns[0]] == ["1", "2", "3"][: len(table[columns[0]])]


@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    start=st.sampled_from(["", "\ufeff", "\n\n", "sep"]),
)
def test_any_dialect_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    delimiter: str,
    ends: str,
    quoting: Any,
    start: str,
) -> None:
    if quoting == csv.QUOTE_MINIMAL:  # Python does not quote a line break of another kind
        rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=ends)
    writer.writerows(
        [
            ["customer, id", "name; title", "x|y"],
            *([f"u{n}", *row[1:]] for n, row in enumerate(rows)),
        ]
    )
    start = f"sep={delimiter}\n" if start == "sep" else start
    path = tmp_path_factory.mktemp("d") / "e.txt"
    table = text_table(path, start + stream.getvalue(), rejects=Rejects("e"))
    assert list(table) == ["customer, id", "name; title", "x|y"]
    assert [list(row) for row in zip(*table.values(), strict=True)] == [
        [f"u{n}", *row[1:]] for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("id,title,\n1,a,\n2,b,\n", ["id", "title"]),
        ("id,title,,\n1,a,,\n2,b,,\n", ["id", "title"]),
        ("id,title\n1,a,\n2,b,\n", ["id", "title"]),
        ("id;title;\n1;a\n2;b\n", ["id", "title"]),
        (",id,title\n,1,a\n,2,b\n", ["id", "title"]),
        (",id,title\n0,1,a\n1,2,b\n", ["", "id", "title"]),
        ("id,title,title\n1,a,\n2,b,\n", ["id", "title"]),
        ("id,x,title,x\n1,,a,\n2,,b,\n", ["id", "x", "title"]),
        ("id,title,\n", ["id", "title"]),
    ],
)
def test_empty_columns_without_a_name_are_dropped(
    tmp_path: Path, text: str, columns: list[str]
) -> None:
    table = text_table(tmp_path / "i.csv", text)
    assert list(table) == columns
    assert table["id"] == ["1", "2"][: text.count("\n") - 1]
    assert table["title"] == ["a", "b"][: text.count("\n") - 1]


@pytest.mark.parametrize(
    "before",
    [
        "Report of May 2024\n", "Report of May 2024\n\nAll shops\n\n", "Report;;;\n;;;\n", "\n\n",
        '"Report of May"\r\n', "Orders: all, with returns\n",
    ],
)  # fmt: skip
def test_lines_before_the_header(tmp_path: Path, before: str) -> None:
    notes: list[str] = []
    rejects = Rejects("e.csv")
    body = "customer;item;when;note\nu;a;1;\nv;b;2;\nv;b\nw;c;3;x\n"
    table = text_table(tmp_path / "e.csv", before + body, notes=notes, rejects=rejects)
    assert table["customer"] == ["u", "v", "w"]
    assert [row[1:3] for row in rejects.rows] == [(3, "2 cells, but the header has 4")]
    assert len(notes) == bool(before.strip())
    assert all(note.startswith("the text before the header is skipped: ") for note in notes)


@pytest.mark.parametrize(
    "text",
    ["id\n1,a\n2,b\n", "id,title\n1,a,x\n2,b,x\n3,c,x\n", "Sum;\nid;title\n1;a;4\n2;b;5\n"],
)
def test_a_header_that_does_not_fit_is_not_skipped(tmp_path: Path, text: str) -> None:
    notes: list[str] = []
    table = text_table(tmp_path / "e.csv", text, notes=notes, rejects=Rejects("e.csv"))
    assert table.keys() & {"id", "Sum", "id,title"}
    assert notes == []


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n", "1"),
        ('151603712,"Skyrim, V",purchase,1.0,0\n151603712,"Fallout",play,12.1,0\n', "151603712"),
        ("196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "196"),
        ("1::1193::5::978300760\n1::661::3::978302109\n", "1"),
        ("u1\t2009-05-04T23:08:57Z\tDeep\t\nu1\t2009-05-04T13:54:10Z\tUre\t\n", "u1"),
        ("a|Heat (1995)||0|0|1\nb|Jaws (1975)||1|0|0\n", "a"),
        ("a|Heat|01-Jan-1995\nb|Jaws|01-Jan-1975\n", "a"),
        ("a|Heat|1.1.1995 12:00\nb|Jaws|31.12.1975 12:00\n", "a"),
        ("N1;11/15/2019 8:55:22 AM\nN2;11/12/2019 8:55:22 AM\n", "N1"),
    ],
)
def test_files_without_a_header(tmp_path: Path, text: str, first: str) -> None:
    notes: list[str] = []
    rejects = Rejects("e.dat")
    bad = "only one cell\n"
    table = text_table(tmp_path / "e.dat", text + bad + text, notes=notes, rejects=rejects)
    assert list(table)[:2] == ["column_1", "column_2"]
    assert len(table["column_1"]) == 4
    assert table["column_1"][0] == first
    assert notes == [
        f"the file has no header, so its columns are called column_1 to {list(table)[-1]}"
    ]
    assert [row[1] for row in rejects.rows] == [3]
    misquoted = text.partition("\n")[0].replace(first, f'"{first} "x" y"', 1) + "\n"
    rejects = Rejects("e.dat")
    table = text_table(tmp_path / "e.dat", text + misquoted + text, rejects=rejects)
    if "\t" in text or "::" in text:  # here quotes do not surround cells
        assert table["column_1"][2] == f'"{first} "x" y"'
        return
    assert [row[1:3] for row in rejects.rows] == [
        (3, "a quote inside a quoted cell is not doubled")
    ]


MBID = "f1b1cf71-bd35-4e99-8624-24a6e15f133a"
KNOWN = {  # the first lines of well-known files
    "MovieLens's ratings": (
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n",
        "user_id item_id rating timestamp",
    ),
    "MovieLens's ratings of 10M": (
        "1::122::5::838985046\n1::185::4.5::838983525\n1::231::5::838983392\n",
        "user_id item_id rating timestamp",
    ),
    "MovieLens's tags": (
        "15::4973::excellent!::1215184630\n20::1747::politics::1188263867\n20::1747::satire::"
        "1188263867\n",
        "user_id item_id text timestamp",
    ),
    "MovieLens's movies": (
        "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Jumanji: a \"film (1995)::Adventure\n"
        "3::Heat (1995)::(no genres listed)\n",
        "item_id title genres",
    ),
    "MovieLens's movies of 100K": (
        "1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|0|0|0"
        "|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        '3|"Four Rooms" (1995)|01-Jan-1995||http://us.imdb.com/|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0|0\n',
        "item_id title release_date",
    ),
    "Amazon's ratings": (
        "AKM1MP6P0OYPR,0132793040,5.0,1365811200\nA2CX7LUOHB2NDG,0321732944,5.0,1341100800\n"
        "A2NWSAGRHCP8N5,B000031VPF,1.0,1367193600\n",
        "user_id item_id rating timestamp",
    ),
    "Amazon's ratings of 2018": (
        "0060009810,A1N4O8VOJZTDVB,3.0,1383782400\n0060009810,A2Z66Q7JC3DPJK,5.0,1380844800\n"
        "B00006J3W9,A2WXCYUU8J5OIE,5.0,1372982400\n",
        "item_id user_id rating timestamp",
    ),
    "Last.fm's plays": (
        f"user_000001\t2009-05-04T23:08:57Z\t{MBID}\tDeep Dish\t\tFuck Me Im Famous\n"
        f'user_000001\t2009-05-04T13:54:10Z\t\tB\u00f8rns\t{MBID}\t"Heroes" (Live)\n'
        f'user_000002\t2009-05-04T13:52:04Z\t{MBID}\tX\t\t7" mix\n',
        "user_id timestamp artid artname traid traname",
    ),
    "Last.fm's counts of plays": (
        f'{"0a" * 20}\t{MBID}\tmelvins\t2137\n{"0a" * 20}\t\tdie "Art" band\t1099\n'
        f"{'0b' * 20}\t{MBID}\t99\t897\n",
        "user_id artist_id artist_name plays",
    ),
    "Yoochoose's clicks": (
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n"
        "2,2014-04-07T13:56:37.614Z,214662742,12\n",
        "session_id timestamp item_id category",
    ),
    "Yoochoose's purchases": (
        "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n"
        "420374,2014-04-06T18:44:58.325Z,214537850,10471,1\n"
        "281626,2014-04-06T09:40:13.032Z,214535653,1883,1\n",
        "session_id timestamp item_id price quantity",
    ),
    "MIND's impressions": (
        "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-0\n"
        "3\tU73700\t11/14/2019 7:01:48 AM\tN10732\tN50014-0\n",
        "impression_id user_id time history impressions",
    ),
    "MIND's news": (
        'N55528\tlifestyle\tlifestyleroyals\tThe Brands\tShop\thttps://x/1.html\t[{"Label": 1}]\t[]\n'
        'N19639\thealth\tweight-loss\t50 "Worst Habits\t\thttps://x/2.html\t[]\t[]\n'
        'N61837\tnews\tnewsworld\t"The Cost" of\tLt.\thttps://x/3.html\t[]\t\n',
        "item_id category subcategory title abstract",
    ),
    "Steam's purchases and hours of play": (
        '151603712,"The Elder Scrolls V, Skyrim",purchase,1.0,0\n'
        '151603712,"The Elder Scrolls V, Skyrim",play,273.0,0\n151603712,"Fallout 4",purchase,1.0,0\n',
        "user_id game behavior hours",
    ),
    "Taobao's events": (
        "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,fav,1511561733\n"
        "1,2576651,149192,buy,1511572885\n",
        "user_id item_id category_id behavior timestamp",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_well_known_files_without_a_header(tmp_path: Path, name: str) -> None:
    text, columns = KNOWN[name]
    notes: list[str] = []
    rejects = Rejects("e.dat")
    table = text_table(tmp_path / "e.dat", text * 9 + "cut\n" + text, notes=notes, rejects=rejects)
    names = columns.split()
    assert list(table)[: len(names)] == names
    assert len(table[names[0]]) == 30
    assert [row[1] for row in rejects.rows] == [28]
    assert (
        f"its cells have the form of {name.partition(' of 1')[0].partition(' of 2')[0]}" in notes[0]
    )
    separator = next(s for s in ("::", "\t", "|", ",") if s in text)
    if '"' in text and separator != ",":  # quotes are part of the cells
        cells = [line.split(separator) for line in text.splitlines()]
        assert [list(row) for row in zip(*table.values(), strict=True)][:3] == cells
    two = "".join(text.splitlines(keepends=True)[:2])
    assert not any("form of" in note for note in read_notes(tmp_path, two))
    header = separator.join(f"name {n}" for n in range(len(table))) + "\n"
    assert not any("form of" in note for note in read_notes(tmp_path, header + text * 30))
    assert not any(
        "form of" in note for note in read_notes(tmp_path, text + text.replace("1", "x"))
    )


def read_notes(tmp_path: Path, text: str) -> list[str]:
    notes: list[str] = []
    text_table(tmp_path / "n.dat", text, notes=notes, rejects=Rejects("n.dat"))
    return notes


@pytest.mark.parametrize(
    ("rows", "whole"),
    [
        (['1\t"Heroes" (Live)', '2\t7" mix', "3\tx"], True),
        (['1\t"Heroes" (Live)', '2\t"open', "3\tx"], True),
        (['1\t"quoted"', '2\t"also ""this"""', "3\tx"], False),
        (['1\t"a\tb"', '2\t"Heroes" (Live)', "3\tx"], False),
        (["1\tx", "2\ty", "3\tz"], False),
    ],
)
def test_quotes_in_a_file_with_tabs(tmp_path: Path, rows: list[str], whole: bool) -> None:
    notes: list[str] = []
    text = "id\ttitle\n" + "\n".join(rows) + "\n"
    table = text_table(tmp_path / "e.tsv", text, notes=notes, rejects=Rejects("e.tsv"))
    cells = [f"{a}\t{b}" for a, b in zip(table["id"], table["title"], strict=True)]
    assert (cells == rows) == (whole or '"' not in text)
    said = "quotes are read as ordinary text, since they do not enclose whole cells"
    assert (notes == [said]) == whole


@pytest.mark.parametrize(
    "text",
    ["item,2019,2020\nmug,20190,3\ntea,1,20200\n", "id,20240101\n1,5\n2,6\n", "5,six\n5,7\n"],
)
def test_headers_with_numbers(tmp_path: Path, text: str) -> None:
    assert list(text_table(tmp_path / "e.csv", text)) == text.partition("\n")[0].split(",")


ROWS = [{"item_id": "a", "title": "Mug é", "n": 1}, {"item_id": "b", "title": "x", "n": None}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize("name", ["i.json", "i.txt", "i.jsonl", "i.csv", "items"])
@pytest.mark.parametrize(
    "text",
    [
        LINES,
        "\n\n" + LINES.replace("\n", "\r\n\r\n"),
        json.dumps(ROWS, ensure_ascii=False),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\ufeff" + json.dumps(ROWS),
    ],
)
def test_kinds_of_json(tmp_path: Path, text: str, name: str) -> None:
    table = text_table(tmp_path / name, text)
    assert table == {"item_id": ["a", "b"], "title": ["Mug é", "x"], "n": ["1", ""]}


@pytest.mark.parametrize("indent", [None, 1])
def test_json_objects_around_the_rows(tmp_path: Path, indent: int | None) -> None:
    wrapped = json.dumps({"count": 2, "tags": ["x"], "items": ROWS}, indent=indent)
    expected = {"item_id": ["a", "b"], "title": ["Mug é", "x"], "n": ["1", ""]}
    if indent:
        assert text_table(tmp_path / "i.json", wrapped) == expected
    assert text_table(tmp_path / "j.json", json.dumps(ROWS[0], indent=1))["title"] == ["Mug é"]


def test_broken_json_arrays(tmp_path: Path) -> None:
    for text in (json.dumps(ROWS)[:-9], json.dumps(ROWS) + "\n[]"):
        with pytest.raises(DataError, match="begins with a JSON array but is not valid JSON"):
            text_table(tmp_path / "i.json", text)
    rejects = Rejects("i.json")
    table = text_table(tmp_path / "i.json", json.dumps([*ROWS, 3, None, ["x"]]), rejects=rejects)
    assert table["item_id"] == ["a", "b"]
    assert [row[1:3] for row in rejects.rows] == [(n, "not a JSON object") for n in (3, 4, 5)]


def zipped(data: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return stream.getvalue()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
    "zip": lambda data: zipped(data, "export/", "export/items.csv", "__MACOSX/export/._items.csv"),
    "gz.two": lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:]),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("content", ["csv", "latin", "jsonl", "parquet", "header"])
def test_compressed_files(tmp_path: Path, content: str, kind: str, named: bool) -> None:
    items = {"item_id": [f"i{n}" for n in range(50)], "title": ["Tür, groß"] * 50}
    text = "item_id;title\n" + "".join(f"{i};{t}\n" for i, t in zip(*items.values(), strict=True))
    sink = io.BytesIO()
    pq.write_table(pa.table(items), sink)
    data = {
        "csv": text.encode(),
        "latin": text.encode("latin-1"),
        "jsonl": "\n".join(json.dumps(r) for r in pa.table(items).to_pylist()).encode(),
        "parquet": sink.getvalue(),
        "header": b"item_id;title\n",
    }[content]
    path = tmp_path / (f"items.{content}.{kind}" if named else "items.csv")
    path.write_bytes(PACKED[kind](data))
    table = files.read(path)
    expected = {"item_id": [], "title": []} if content == "header" else items
    assert {n: table[n].to_pylist() for n in arrow.column_names(table)} == expected


@pytest.mark.parametrize("kind", [k for k in PACKED if k != "gz.two"])
def test_compressed_files_that_are_cut(tmp_path: Path, kind: str) -> None:
    import random

    noise = random.Random(0).randbytes(40_000).hex()
    data = PACKED[kind](f"item_id,title\na,{noise}\nb,x\n".encode())
    (tmp_path / "i.csv").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"i\.csv' cannot be read") as caught:
        files.read(tmp_path / "i.csv")
    assert "Expected" in str(caught.value)


def make_foreign(path: Path, kind: str) -> None:
    if kind == "sqlite":
        with sqlite3.connect(path) as connection:
            connection.execute("create table t (x)")
        connection.close()
    elif kind == "feather":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([])):
            pass
    else:
        path.write_bytes(
            {
                "xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
                "xlsx": zipped(b"<x/>", "[Content_Types].xml", "xl/workbook.xml"),
                "ods": zipped(b"<x/>", "mimetype", "content.xml"),
                "two": zipped(b"a,b\n1,2\n", "a.csv", "b.csv"),
                "none": zipped(b""),
                "pdf": b"%PDF-1.7\n",
            }[kind]
        )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sqlite", r"is a SQLite database\. .* --sql .* --url sqlite:///"),
        ("feather", r"is an Arrow \(Feather\) file\. .*Convert it to Parquet"),
        ("xls", r"is an old Excel workbook\. .*CSV UTF-8"),
        ("xlsx", r"is a spreadsheet\. .*CSV UTF-8"),
        ("ods", r"is a spreadsheet\. .*CSV UTF-8"),
        ("two", r"holds 2 files \(a\.csv, b\.csv\)\. .*Unpack it"),
        ("none", r"holds 0 files \(none\)\."),
        ("pdf", r"is a PDF document\."),
    ],
)
@pytest.mark.parametrize("name", ["i.csv", "i.zip", "i"])
def test_kinds_that_are_not_read_are_named(
    tmp_path: Path, kind: str, message: str, name: str
) -> None:
    make_foreign(tmp_path / name, kind)
    with pytest.raises(DataError, match=message) as caught:
        files.read(tmp_path / name)
    assert "Expected" in str(caught.value)


EVENTS = [
    {"user_id": "u", "item_id": ["a", "b"], "timestamp": [1, 2], "behavior": "buy"},
    {"user_id": "v", "item_id": ["c"], "timestamp": [3], "behavior": "buy", "tags": ["x"]},
]


def test_json_lines_of_users_become_lists(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    bad = [
        {"user_id": "w", "item_id": "a", "timestamp": 1, "behavior": "buy"},
        {"user_id": ["w"], "item_id": ["a"], "timestamp": [1], "behavior": "buy"},
        {"user_id": "w", "item_id": [["a"]], "timestamp": [1], "behavior": "buy"},
        {"user_id": "w", "item_id": {"a": 1}, "timestamp": [1], "behavior": "buy"},
        {"user_id": "w", "item_id": ["a"], "timestamp": 1, "behavior": "buy"},
    ]
    good = [*EVENTS, *EVENTS, *EVENTS]
    path.write_text("\n".join(json.dumps(row) for row in [*good, *bad]))
    rejects = Rejects("e.jsonl")
    needed = ("user_id", "item_id", "timestamp", "behavior")
    table = files.read(path, rejects=rejects, scalar=needed)
    assert table["item_id"].to_pylist()[:2] == [["a", "b"], ["c"]]
    assert table["timestamp"].to_pylist()[:2] == [["1", "2"], ["3"]]
    assert table["tags"].to_pylist()[:2] == ["", '["x"]']
    assert [row[1:3] for row in rejects.rows] == [
        (7, "item_id is not a list, although it is in most rows"),
        (8, "user_id is a list or object, not text"),
        (9, "item_id is a list of lists or objects"),
        (10, "item_id is a list or object, not text"),
        (11, "timestamp is not a list, although it is in most rows"),
    ]
    pq.write_table(pa.Table.from_pylist(EVENTS), tmp_path / "e.parquet")
    flat, same = (
        arrow.explode(t, Rejects("e")) for t in (table, files.read(tmp_path / "e.parquet"))
    )
    assert arrow.to_strings(flat["item_id"])[:3] == arrow.to_strings(same["item_id"])
    assert arrow.to_strings(flat["timestamp"])[:3] == arrow.to_strings(same["timestamp"])


def test_lists_in_few_rows_are_rejected_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('["a"]\n["b"]\n')
    with pytest.raises(DataError, match="or one line per user with lists of the same length"):
        files.read(path, scalar=("item_id",), rejects=Rejects("e.jsonl"))
    path.write_text('{"item_id": {"id": 1}}\n{"item_id": {"id": 2}}\n')
    table = files.read(path, scalar=("item_id",), rejects=Rejects("e.jsonl"))
    assert table["item_id"].to_pylist() == ['{"id": 1}', '{"id": 2}']
    path.write_text('{"item_id": "a"}\n{"item_id": "b"}\n{"item_id": ["c"]}\n')
    rejects = Rejects("e.jsonl")
    assert files.read(path, scalar=("item_id",), rejects=rejects).num_rows == 2
    assert rejects.rows[0][1:3] == (3, "item_id is a list or object, not text")
    assert files.read(path)["item_id"].to_pylist() == ["a", "b", '["c"]']


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv' does not exist\. Expected"):
        files.read(tmp_path / "none.csv")
