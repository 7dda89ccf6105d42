"""Read JSON Lines, and JSON arrays of objects, as Arrow tables of strings.

JSON Lines files are read line by line, so a broken line affects only one row.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any

import pyarrow as pa

from genrec.data.column_names import RoleNames
from genrec.data.readers.arrow import ROW
from genrec.data.readers.encodings import BROKEN, Encoding, open_text
from genrec.data.readers.rejects import BadRow, Rejects
from genrec.data.readers.sources import Source
from genrec.errors import DataError

_ARRAY = re.compile(r"\s*\[\s*[{\]]")
_SPREAD = re.compile(r'\s*\{\s*\n\s*"')  # an object on several lines
_INVALID = "not valid JSON"
_WRAPPERS = {"$oid", "$date", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"}
_EXAMPLE = '{"user_id": "u1", "item_id": "a"}'


def read(source: Source, encoding: Encoding, rejects: Rejects, scalar: Container[str]) -> pa.Table:
    """Read a file with one JSON object per line, or with one array of objects.

    A line may also be a Python literal, as in older data from Amazon and Steam. Values other than
    strings and null are kept as JSON. If most rows have a list in one of the scalar columns, the
    file has one row per user, and every column of lists becomes an Arrow list.

    Args:
        source: the file.
        encoding: the encoding of the file.
        rejects: the object that records bad rows.
        scalar: columns that must not contain a list or an object, unless most rows have one.

    Raises:
        DataError: no row is usable, or the array is broken.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[BadRow] = []
    for number, (text, value, problem) in enumerate(_values(source, encoding), start=1):
        problem = problem or ("" if isinstance(value, dict) else "not a JSON object")
        if problem:
            bad.append((number, problem, text or json.dumps(value, ensure_ascii=False)))
        else:
            rows.append((number, {str(k).strip(): _unwrap(v) for k, v in value.items()}))
    objects = _object_columns([row for _, row in rows])
    lists = _list_columns([row for _, row in rows], scalar, objects)
    kept: list[tuple[int, dict[str, Any]]] = []
    for number, row in rows:
        if problem := _problem(row, lists, scalar, objects):
            bad.append((number, problem, json.dumps(row, ensure_ascii=False)))
        else:
            kept.append((number, row))
    for number, problem, text in sorted(bad):
        rejects.add(number, problem, [text.replace(BROKEN, "\ufffd")])
    columns = list(dict.fromkeys(name for _, row in kept for name in row))
    if not columns:
        msg = (
            f"{str(source.path)!r} has no usable lines{rejects.first_reason()}. Expected one JSON "
            f"object per line, such as {_EXAMPLE}, or one line per user with lists of the same "
            "length. Fix the lines."
        )
        raise DataError(msg)
    if len(kept) == 1 and {"error", "errors"} & {*columns}:
        msg = (
            f"{str(source.path)!r} holds a single object with an error message: "
            f"{json.dumps(kept[0][1], ensure_ascii=False)[:200]}. Expected rows. Ask for the data again."
        )
        raise DataError(msg)
    table = {name: _column([row.get(name) for _, row in kept], name in lists) for name in columns}
    return pa.table({**table, ROW: pa.array([number for number, _ in kept], pa.int64())})


def _object_columns(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Return the columns in which most values are objects or lists of objects."""
    counts: Counter[str] = Counter()
    for row in rows:
        for name, value in row.items():
            first = value[0] if isinstance(value, list) and value else value
            counts[name] += (1 if isinstance(first, dict) else -1) if value is not None else 0
    return {name for name, balance in counts.items() if balance > 0}


def _list_columns(
    rows: Sequence[dict[str, Any]], scalar: Container[str], objects: Container[str]
) -> set[str]:
    """Return the columns in which most rows have a list, if the file has one row per user."""
    counts = Counter(n for row in rows for n, v in row.items() if isinstance(v, list))
    lists = {n for n, count in counts.items() if 2 * count > len(rows) and n not in objects}
    return lists if any(name in scalar for name in lists) else set()


def _problem(
    row: dict[str, Any], lists: set[str], scalar: Container[str], objects: Container[str]
) -> str:
    """Return the reason why a row's lists or objects are unusable, or "" if they are usable."""
    for name, value in row.items():
        if isinstance(value, dict) and name in scalar and name not in objects:
            return f"{name} is a list or object, not text"
        if not isinstance(value, list):
            if name in lists and value is not None:
                return f"{name} is not a list, although it is in most rows"
        elif name in lists:
            if any(isinstance(one, list | dict) for one in value):
                return f"{name} is a list of lists or objects"
        elif name in scalar and name not in objects:
            return f"{name} is a list or object, not text"
    return ""


def _unwrap(value: Any, depth: int = 8) -> Any:
    """Replace objects such as ``{"$oid": "5f0c"}``, as MongoDB exports them, with their values.

    Args:
        value: a parsed JSON value.
        depth: the number of nesting levels to search for such objects.
    """
    while isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _WRAPPERS:
        value = next(iter(value.values()))
    if depth and isinstance(value, dict):
        return {key: _unwrap(inner, depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list):
        return [_unwrap(inner, depth - 1) for inner in value]
    return value


def _column(values: list[Any], lists: bool) -> pa.Array:
    """Build a column of strings, or of lists of strings."""
    if not lists:
        return pa.array([_cell(v) for v in values], pa.string())
    parts = [None if v is None else [_cell(one) for one in v] for v in values]
    return pa.array(parts, pa.list_(pa.string()))


def is_json(source: Source, start: str) -> bool:
    """Check whether a file's name or first characters indicate JSON.

    Args:
        source: the file.
        start: its first characters.
    """
    if source.name.endswith((".jsonl", ".ndjson", ".json")) or (
        _ARRAY.match(start) or _SPREAD.match(start)
    ):
        return True
    line = start.lstrip().partition("\n")[0]
    return line.startswith("{") and isinstance(parse(line)[0], dict)


def _values(source: Source, encoding: Encoding) -> Iterator[tuple[str, Any, str]]:
    """Yield each row's text (if it is a single line), its parsed value, and its problem, if any."""
    with open_text(source.open, encoding.name, newline="\n") as stream:
        first = next((line for line in stream if line.strip()), "")
        more = stream.read(4096)
        whole = _ARRAY.match(first + more)
    if whole or (first.lstrip().startswith("{") and (parse(first)[1] or not more.strip())):
        with open_text(source.open, encoding.name, newline="\n") as stream:
            text = stream.read()
        value, problem = parse(text)
        if whole and problem:
            msg = (
                f"{str(source.path)!r} begins with a JSON array but is {problem}. Expected one array "
                f"of objects such as [{_EXAMPLE}], or one object per line. Export the file again."
            )
            raise DataError(msg)
        if not problem:
            for row in _rows_of(value):
                broken = BROKEN in text and BROKEN in json.dumps(row, ensure_ascii=False)
                yield "", row, f"not valid {encoding.label}" if broken else ""
            return
    with open_text(source.open, encoding.name, newline="\n") as stream:
        for line in stream:
            if line.strip():
                value, problem = parse(line)
                broken = BROKEN in line
                yield line.strip(), value, f"not valid {encoding.label}" if broken else problem


def _rows_of(value: Any) -> list[Any]:
    """Return the rows of a JSON value.

    They are the elements of an array, the elements of the only array of objects inside an object,
    or the value itself. An object is a single order with its lines if it has a user or a time that
    the lines lack.
    """
    if isinstance(value, list):
        return value
    tables = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(tables) != 1:
        return [value]
    outer = [name for name, inner in value.items() if not isinstance(inner, list)]
    lines = {name for line in tables[0] if isinstance(line, dict) for name in line}
    for role in ("user_id", "timestamp"):
        known = RoleNames((role,), {})
        if any(name in known for name in outer) and not any(name in known for name in lines):
            return [value]
    return tables[0]


def parse(line: str) -> tuple[Any, str]:
    """Parse a JSON text or a Python literal; return the value, or None and the problem."""
    try:
        return json.loads(line), ""
    except (ValueError, RecursionError):
        pass
    try:
        return (ast.literal_eval(line.strip()), "") if "'" in line else (None, _INVALID)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None, _INVALID


def _cell(value: object) -> str:
    """Convert a JSON value to the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become ?
    return json.dumps(value, ensure_ascii=False)
