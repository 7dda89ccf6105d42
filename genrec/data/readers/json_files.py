"""Read JSON Lines, and JSON arrays of objects, as Arrow tables of strings.

JSON Lines are read line by line, so that one broken line is one rejected row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from genrec.data.readers.arrow import ROW
from genrec.data.readers.encodings import BROKEN, Encoding, open_text
from genrec.data.readers.rejects import Rejects
from genrec.data.readers.sources import Source
from genrec.errors import DataError

_ARRAY = re.compile(r"\s*\[\s*[{\]]")
_EXAMPLE = '{"user_id": "u1", "item_id": "a"}'


def read(source: Source, encoding: Encoding, rejects: Rejects, scalar: Collection[str]) -> pa.Table:
    """Read a file with one JSON object per line, or with one array of objects.

    Values other than strings and null are kept as JSON.

    Args:
        source: the file.
        encoding: the encoding of the file.
        rejects: the record of bad rows.
        scalar: columns that must not contain a list or object.

    Raises:
        DataError: no row is usable, or the array is broken.
    """
    rows: list[dict[str, str]] = []
    kept: list[int] = []
    for number, (text, value, problem) in enumerate(_values(source, encoding), start=1):
        problem = problem or _object_problem(value, scalar)
        if problem:
            shown = text or json.dumps(value, ensure_ascii=False)
            rejects.add(number, problem, [shown.replace(BROKEN, "\ufffd")])
            continue
        rows.append({str(k).strip(): _cell(v) for k, v in value.items()})
        kept.append(number)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        msg = (
            f"{str(source.path)!r} has no usable line{rejects.first_reason()}. Expected one JSON "
            f"object per line, such as {_EXAMPLE}."
        )
        raise DataError(msg)
    table = {name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in columns}
    return pa.table({**table, ROW: pa.array(kept, pa.int64())})


def is_json(source: Source, start: str) -> bool:
    """Check whether the name or the first characters of a file say that it is JSON.

    Args:
        source: the file.
        start: its first characters.
    """
    if source.name.endswith((".jsonl", ".ndjson", ".json")) or _ARRAY.match(start):
        return True
    line = start.lstrip().partition("\n")[0]
    return line.startswith("{") and isinstance(_parse(line)[0], dict)


def _values(source: Source, encoding: Encoding) -> Iterator[tuple[str, Any, str]]:
    """Yield the text, the value and the problem of each row; the text or the problem may be empty."""
    with open_text(source.open, encoding.name, newline="\n") as stream:
        if _ARRAY.match(stream.read(4096)):
            stream.seek(0)
            yield from _elements(source, encoding, stream.read())
            return
    with open_text(source.open, encoding.name, newline="\n") as stream:
        for line in stream:
            if line.strip():
                broken = f"not valid {encoding.label}" if BROKEN in line else ""
                yield line.strip(), *((None, broken) if broken else _parse(line))


def _elements(source: Source, encoding: Encoding, text: str) -> Iterator[tuple[str, Any, str]]:
    """Yield the elements of a JSON array in the same form as lines."""
    try:
        elements = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = (
            f"{str(source.path)!r} holds a JSON array that is broken: {error}. Expected one array of "
            f"objects such as [{_EXAMPLE}], or one object per line. Export the file again."
        )
        raise DataError(msg) from error
    for value in elements:
        broken = BROKEN in text and BROKEN in json.dumps(value, ensure_ascii=False)
        yield "", value, f"not valid {encoding.label}" if broken else ""


def _parse(line: str) -> tuple[Any, str]:
    """Return the value of a JSON text, or None and the problem."""
    try:
        return json.loads(line), ""
    except (ValueError, RecursionError):
        return None, "not valid JSON"


def _object_problem(value: object, scalar: Collection[str]) -> str:
    """Return the reason why a JSON value is not a usable row; empty if it is usable."""
    if not isinstance(value, dict):
        return "not a JSON object"
    nested = (n for n, v in value.items() if isinstance(v, list | dict) and n.strip() in scalar)
    return next((f"{n.strip()} is a list or object, not text" for n in nested), "")


def _cell(value: object) -> str:
    """Convert a JSON value to the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become ?
    return json.dumps(value, ensure_ascii=False)
