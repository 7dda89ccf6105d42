"""Files that are no tables are called what they are, and rows that are all bad say why."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from genrec import Dataset
from genrec.errors import DataError

CSV = "user_id,item_id,title,timestamp\nu,a,Tea,2024-01-01\n"
QUOTES = '{},{},"Thing 0" 24" wide,2024-01-0{}\n'


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as one:
        one.writestr("ok.csv", CSV)
    return stream.getvalue()


def packed(data: bytes) -> bytes:
    """Compress data without the time, since a parameter must be the same in every process."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.csv", b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        ("e.json", b"\xef\xbb\xbf\n <HTML>\n<body>", "is a web page"),
        ("e.csv", b"<?xml version='1.0'?><rows/>", "is an XML document"),
        ("e.sql", b"--\n-- PostgreSQL database dump\n--\n\nCOPY t (a) FROM stdin;\n", "PostgreSQL"),
        ("e.sql", b"--\r\n-- PostgreSQL database dump\r\n--\r\n", "copy TABLE"),
        ("e.sql", b"-- MySQL dump 10.13\n", "MySQL"),
        ("e.csv.gz", packed(archive()), "holds another compressed file"),
        ("e.csv.gz", packed(packed(CSV.encode())), "another compressed file"),
        ("e.json", b'{"error": {"code": 401, "message": "token expired"}}', "token expired"),
        ("e.txt", b"Some notes\nabout a book\nand its pages\n", "may mean that the file is no table"),
        ("e.csv", b"user_id,item_id,title,timestamp\n", "No row of e.csv could be read, since it"),
        (
            "e.csv",
            ("user_id,item_id,title,timestamp\n" + "".join(
                QUOTES.format(f"u{n}", n, n) for n in range(1, 9))).encode(),
            "a quote inside a quoted cell is not doubled",
        ),
    ],
)  # fmt: skip
def test_what_is_no_table_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        Dataset.prepare(None, path)
    assert said in str(error.value)
    assert "\0" not in str(error.value)


@pytest.mark.parametrize("wanted", ["U1", "u1 "])
def test_a_user_in_another_case_is_suggested(wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(CSV.replace("u,", "u1,"), encoding="utf-8")
    data = Dataset.prepare(None, path)[0]
    with pytest.raises(Exception, match="Did you mean 'u1'"):
        data.interactions.known_id(wanted)
