"""Randomly damaged files in ``Dataset.prepare``: a clear error, or every row accounted for."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cells import cells

from genrec import Catalog, Dataset
from genrec.data.readers.rejects import Rejects
from genrec.errors import GenrecError

ITEMS = 'item_id,title\na,Red mug\nb,"Mug, blue"\nc,"Doll, 12"" tall"\n'
ROWS = [
    {
        "user_id": f"user{n}",
        "item_id": "abc"[n % 3],
        "timestamp": str(1_700_000_000 + n),
        "behavior": "buy" if n % 2 else "view",
        "text": ["", "too small", 'says "hello", twice', "é ☕"][n % 4],
    }
    for n in range(12)
]


def prepare(folder: Path, name: str, data: bytes) -> tuple[list[str], list[int]]:
    """Return the user of each kept event (each of ROWS has its own) and the rejected row numbers."""
    (folder / "items.csv").write_text(ITEMS, encoding="utf-8")
    (folder / name).write_bytes(data)
    found, rejects = Dataset.prepare(folder / "items.csv", folder / name)
    assert not rejects[0].rows
    c = found.interactions.columns
    assert len(c.row) == found.info.events
    users = [found.interactions.user_ids[code] for code in c.user]
    return users, [number for _, number, _, _ in rejects[1].rows]


def csv_text(rows: list[dict[str, str]], names: list[str], **dialect: Any) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, **{"lineterminator": "\n", **dialect})
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


PIECES = [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b";", b"\t", b'""', b'","', b"\n\n", b" ", b"7"]
change = st.tuples(
    st.sampled_from(["flip", "delete", "insert"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 255),
    st.sampled_from(PIECES),
)


def damaged(data: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, share, bits, piece in changes:
        at = int(share * len(data))
        middle = {
            "flip": bytes([data[at] ^ bits]),
            "delete": b"",
            "insert": piece + data[at : at + 1],
        }
        data = data[:at] + middle[kind] + data[at + 1 :]
    return data


@given(changes=st.lists(change, min_size=1, max_size=4), packed=st.booleans())
def test_damaged_csv(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, float, int, bytes]],
    packed: bool,
) -> None:
    good = csv_text(ROWS, list(ROWS[0])).encode()
    header, body = good.split(b"\n", 1)
    data = header + b"\n" + damaged(body, changes)
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        if packed:
            found, rejected = prepare(folder, "e.csv.gz", gzip.compress(data))
        else:
            found, rejected = prepare(folder, "e.csv", data)
    except GenrecError:
        return
    text = data.decode("utf-8", "replace")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert len(found) + len(rejected) == len(rows) - 1
    assert len(set(rejected)) == len(rejected)
    untouched = set(good.split(b"\n")) & set(data.split(b"\n"))
    kept_whole = {line.decode().split(",")[0] for line in untouched if line.startswith(b"user")}
    swallowed = " ".join(cell for row in rows for cell in row if "\n" in cell)
    assert all(u in found or u in swallowed for u in kept_whole - {"user_id"})


@given(changes=st.lists(change, min_size=1, max_size=3))
def test_damaged_items(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, float, int, bytes]]
) -> None:
    items = [{"item_id": f"i{n}", "title": f'Mug {n}, "red"', "price": f"{n}.5"} for n in range(9)]
    header, body = csv_text(items, list(items[0])).encode().split(b"\n", 1)
    data = header + b"\n" + damaged(body, changes)
    path = tmp_path_factory.mktemp("fuzz") / "items.csv"
    path.write_bytes(data)
    rejects = Rejects("items.csv")
    try:
        catalog = Catalog.read(path, rejects=rejects)
    except GenrecError:
        return
    text = data.decode("utf-8", "replace")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert len(catalog) + len(rejects.rows) == len(rows) - 1


@given(st.data())
def test_one_changed_byte_spoils_one_row(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rows = [{**row, "text": row["text"].replace('"', "")} for row in ROWS]
    lines = csv_text(rows, list(ROWS[0])).encode().splitlines(keepends=True)
    which = data.draw(st.integers(1, len(ROWS)))
    line = lines[which]
    place = data.draw(st.integers(0, len(line) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b not in b'\r\n"'))
    lines[which] = line[:place] + bytes([byte]) + line[place + 1 :]
    try:
        found, rejected = prepare(tmp_path_factory.mktemp("fuzz"), "e.csv", b"".join(lines))
    except GenrecError:
        assert b'"' in line  # one of a pair of quotes was hit, so that rows run together
        return
    assert {f"user{n}" for n in range(12) if n != which - 1} <= set(found)
    assert len(found) + len(rejected) == len(rows)
    assert set(rejected) <= {which}


@given(
    order=st.permutations([*ROWS[0], "country", "note two", "price"]),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    bad=st.lists(st.tuples(cells, cells, cells, cells, cells, cells), max_size=5),
)
def test_columns_in_any_order_with_others(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[str],
    delimiter: str,
    quoting: Any,
    ends: str,
    bad: list[tuple[str, ...]],
) -> None:
    extra = {"country": "DE", "note two": "x; y | z", "price": "1.5"}
    names = ["user_id", "item_id", "timestamp", "behavior", "text", "note two"]
    if quoting == csv.QUOTE_MINIMAL:  # Python does not quote a line break of another kind
        bad = [tuple(" ".join(cell.splitlines()) for cell in row) for row in bad]
    spoiled = [{**extra, **dict(zip(names, row, strict=True))} for row in bad]
    rows = [*({**row, **extra} for row in ROWS), *spoiled]
    data = csv_text(rows, order, delimiter=delimiter, quoting=quoting, lineterminator=ends).encode()
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "items.csv").write_text(ITEMS, encoding="utf-8")
    (folder / "e.csv").write_bytes(data)
    found, rejects = Dataset.prepare(folder / "items.csv", folder / "e.csv")
    assert len(found.interactions) + len(rejects[1].rows) == len(rows)
    for row in ROWS:
        first = found.interactions.history(row["user_id"]).interactions[0]
        assert (first.item_id, first.behavior) == (row["item_id"], row["behavior"])
        assert (first.text or "") == row["text"]
        assert first.attributes == {"country": "DE", "note two": "x; y | z", "price": 1.5}


values = st.recursive(
    st.one_of(cells, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(cells, inner, max_size=3)),
    max_leaves=5,
)


@given(
    changed=st.dictionaries(
        st.integers(0, 11), st.lists(change, min_size=1, max_size=3), max_size=6
    ),
    nested=st.lists(st.dictionaries(st.sampled_from([*ROWS[0], "value", "x"]), values), max_size=4),
    seed=st.randoms(use_true_random=False),
)
def test_damaged_json_lines(
    tmp_path_factory: pytest.TempPathFactory,
    changed: dict[int, list[tuple[str, float, int, bytes]]],
    nested: list[dict[str, Any]],
    seed: Any,
) -> None:
    lines = []
    for n, row in enumerate(ROWS):
        pairs = [*row.items(), ("tags", ["x", {"y": n}])]
        seed.shuffle(pairs)
        line = json.dumps(dict(pairs), ensure_ascii=bool(n % 2)).encode()
        lines.append(damaged(line, changed[n]) if n in changed else line)
    lines += [json.dumps(row).encode() for row in nested]
    data = b"\n".join(lines)
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "items.csv").write_text(ITEMS, encoding="utf-8")
    (folder / "e.jsonl").write_bytes(data)
    found, rejects = Dataset.prepare(folder / "items.csv", folder / "e.jsonl")
    given_rows = [line for line in data.split(b"\n") if line.strip()]
    assert len(found.interactions) + len(rejects[1].rows) == len(given_rows)
    for n, row in enumerate(ROWS):
        if n not in changed:
            first = found.interactions.history(row["user_id"]).interactions[0]
            assert (first.item_id, first.text or "") == (row["item_id"], row["text"])
            assert json.loads(first.attributes["tags"]) == ["x", {"y": n}]
