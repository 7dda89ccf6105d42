"""Add new events and items to a dataset for continued training, without involving a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from genrec.data.catalog import Catalog, Item
from genrec.data.dataset import Dataset
from genrec.data.info import count_behaviors
from genrec.data.ingest import EventOptions, ingest
from genrec.data.interactions import Interactions
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.data.redaction import redact_table
from genrec.errors import DataError
from genrec.types import BoolArray

_MARK = "genrec_new"  # a temporary column that marks the new events while both are sorted


def apply_updates(
    data: Dataset,
    interactions: str | Path | pa.Table,
    items: str | Path | Sequence[Item] | None = None,
    *,
    options: EventOptions | None = None,
    rejects: Rejects | None = None,
) -> tuple[Dataset, BoolArray]:
    """Return a dataset with new events and items; all new events belong to train.

    Args:
        data: the old dataset. Its items keep their rows, and its events keep their split.
        interactions: a file of new events, in the format that ``prepare`` accepts, or such a table.
        items: a file of new items, the items, or None. An item with a known id replaces the old one.
        options: column names, units and defaults of the new events. With the time unit ``auto``,
            the unit of the old events is used.
        rejects: the object that records bad events; if it is None, the first one raises an error.

    Returns:
        The dataset, and an (E,) mask of its new events.

    Raises:
        DataError: a file cannot be used, or has no usable events.
    """
    catalog = data.catalog if items is None else _add_items(data.catalog, items)
    given = isinstance(interactions, pa.Table)
    source = "the new events" if given else Path(interactions).name
    rejects = rejects or Rejects(source, strict=True)
    options = options or EventOptions()
    table = interactions if given else files.read(interactions, rejects=rejects)
    table = arrow.rename(table, options.columns, rejects.source)
    table = table.drop_columns([n for n in ("split", _MARK) if n in table.column_names])
    time_unit = data.info.time_unit if options.time_unit == "auto" else options.time_unit
    fresh = ingest(
        table, catalog, replace(options, columns={}, time_unit=time_unit), rejects=rejects
    )
    if (fresh.time_unit == "position") != (data.info.time_unit == "position"):
        msg = (
            f"{rejects.source} has the time unit {fresh.time_unit}, but the dataset has "
            f"{data.info.time_unit}. Expected times in both or positions in both. Set --time-unit."
        )
        raise DataError(msg)
    if not len(fresh.events.columns.row):
        msg = f"{rejects.source} has no usable events. Expected at least one. Check the rejected rows."
        raise DataError(msg)
    old = Interactions(catalog, data.interactions.table)
    events = redact_table(fresh.events)[0] if data.info.redact else fresh.events
    table = _stack(old, Interactions(catalog, events), positions=fresh.time_unit == "position")
    unit = "none" if old.unit_ids is None else "unit"
    both = ingest(table, catalog, EventOptions(time_unit="position", unit=unit)).events
    assert both.attributes is not None
    new = np.array(both.attributes[_MARK].to_pylist(), dtype=np.bool_)
    kept = both.attributes.drop_columns([_MARK])
    attributes = kept if kept.num_columns else None
    merged = Interactions(catalog, replace(both, attributes=attributes))
    counts = np.bincount(merged.columns.split, minlength=3).tolist()
    info = replace(
        data.info,
        users=len(merged.user_ids),
        items=len(catalog),
        events=len(merged),
        split="given",
        split_events=dict(zip(("train", "validation", "test"), counts, strict=True)),
        catalog_hash=catalog.hash(),
        unit=merged.unit_name,
        rows=0,
        behaviors=count_behaviors(merged),
    )
    made = replace(
        data, catalog=catalog, interactions=merged, info=info, folder=None, cache_folder=None
    )
    return made.with_context(info.context), new


def _add_items(catalog: Catalog, items: str | Path | Sequence[Item]) -> Catalog:
    """Return a copy of the catalog with more items, which may replace existing ones."""
    given = Catalog.read(items) if isinstance(items, str | Path) else items
    add = [i for i in given if i.item_id not in catalog]
    return catalog.edited(add, [i for i in given if i.item_id in catalog])


def _stack(old: Interactions, new: Interactions, *, positions: bool) -> pa.Table:
    """Stack old and new events into one table, with a column that marks the new events.

    The positions of new events are shifted so that they follow the old ones.
    """
    first, second = old.to_table(), new.to_table()
    second = second.set_column(
        second.schema.get_field_index("split"), "split", pa.array(["train"] * len(new))
    )
    if positions and len(old):
        after = float(old.columns.timestamp.max()) + 1 - float(new.columns.timestamp.min())
        shifted = pa.array(new.columns.timestamp + max(after, 0.0))
        second = second.set_column(second.schema.get_field_index("timestamp"), "timestamp", shifted)
    if "unit" in first.column_names and "unit" not in second.column_names:
        alone = pa.array([f"{_MARK} {i}" for i in range(len(new))])
        second = second.append_column("unit", alone)
    if "unit" in second.column_names and "unit" not in first.column_names:
        second = second.drop_columns(["unit"])
    marked = [
        t.append_column(_MARK, pa.array([is_new] * t.num_rows))
        for t, is_new in ((first, False), (second, True))
    ]
    return pa.concat_tables(marked, promote_options="permissive")
