"""Give the attributes of items as JSON, and describe the columns that hold them.

A page needs both: it shows attributes, and it offers conditions on columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalog import NEEDED, Catalog

MOST_VALUES = 60  # a text column with more different values is not offered as a choice
_MOST_COLUMNS = 60
_LONGEST = 100  # characters of a value that is offered


@lru_cache(maxsize=2)
def describe_columns(catalog: Catalog) -> list[dict[str, Any]]:
    """Describe the columns of a catalog except the id and the title. A catalog is read only once.

    Returns:
        For each column its ``name`` and its ``kind``: ``number`` with ``least`` and ``most``, ``flag``,
        ``text`` with its ``values``, most frequent first, or ``other``. The ``values`` are empty if
        there are too many.
    """
    names = [n for n in catalog.columns if n not in NEEDED][:_MOST_COLUMNS]
    return [{"name": name, **_describe(catalog.column(name))} for name in names]


def _describe(column: pa.Array) -> dict[str, Any]:
    kind = column.type
    if pa.types.is_boolean(kind):
        return {"kind": "flag"}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        finite = column.filter(pc.is_finite(column)) if pa.types.is_floating(kind) else column
        ends = pc.min_max(finite).as_py()
        return {"kind": "number", "least": ends["min"], "most": ends["max"]}
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        counts = pc.value_counts(column.drop_null()).to_pylist()
        if len(counts) > MOST_VALUES or any(len(c["values"]) > _LONGEST for c in counts):
            return {"kind": "text", "values": []}
        counts.sort(key=lambda c: (-c["counts"], c["values"]))
        return {"kind": "text", "values": [c["values"] for c in counts]}
    return {"kind": "other"}


def add_attributes(catalog: Catalog, items: Iterable[dict[str, Any]]) -> None:
    """Add the field ``attributes`` to each item of a list.

    Args:
        catalog: the catalog.
        items: the items of an answer, each with its ``item_id``.
    """
    for each in items:
        known = catalog[catalog.row(each["item_id"])].attributes
        each["attributes"] = {name: plain_value(value) for name, value in known.items()}


def plain_value(value: Any) -> Any:
    """Return a value that can be written as JSON; other values of a Parquet file become text."""
    if value is None or type(value) in {str, bool, int}:
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, list | tuple):
        return [plain_value(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain_value(v) for k, v in value.items()}
    return str(value)
