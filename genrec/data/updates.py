"""Feedback: new events and new items joined to a dataset, to go on training with. Knows data only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.ingest import EventOptions, ingest
from genrec.data.interactions import Interactions
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.types import BoolArray

_MARK = "genrec_new"  # a column of our own while two tables are one


def apply_updates(
    data: Dataset,
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    options: EventOptions | None = None,
    rejects: Rejects | None = None,
) -> tuple[Dataset, BoolArray]:
    """A dataset with new events, all of which are train, and new items.

    Args:
        data: what there was; its rows keep their numbers, its events their split.
        interactions: a file of new events, as ``prepare`` takes it.
        items: a file of new items; one with a known id takes its place. None for none.
        options: names, units and defaults of the new events; the time unit of the old ones where
            it is ``auto``.
        rejects: where bad events are recorded; without it the first one raises.

    Returns:
        The dataset, and (E,) which of its events are new.

    Raises:
        DataError: a file cannot be used, or nothing in it is new.
    """
    catalog = data.catalog if items is None else _with_items(data.catalog, items)
    rejects = rejects or Rejects(Path(interactions).name, strict=True)
    options = options or EventOptions()
    table = files.read(interactions, rejects=rejects)
    table = arrow.rename(table, options.columns, rejects.source)
    table = table.drop_columns([n for n in ("split", _MARK) if n in table.column_names])
    unit_of_time = data.info.time_unit if options.time_unit == "auto" else options.time_unit
    given = replace(options, columns={}, time_unit=unit_of_time)
    fresh = ingest(table, catalog, given, rejects=rejects)
    if (fresh.time_unit == "position") != (data.info.time_unit == "position"):
        msg = (
            f"{rejects.source} has time unit {fresh.time_unit}, and the dataset "
            f"{data.info.time_unit}. Expected the same kind; say --time-unit."
        )
        raise DataError(msg)
    if not len(fresh.events.columns.row):
        msg = f"{rejects.source} holds no event that can be used. Expected some; see what was rejected."
        raise DataError(msg)
    old = Interactions(catalog, data.interactions.table)
    table = _stacked(
        old, Interactions(catalog, fresh.events), positions=fresh.time_unit == "position"
    )
    unit = "none" if old.unit_ids is None else "unit"
    time_unit = "position" if fresh.time_unit == "position" else "s"
    both = ingest(table, catalog, EventOptions(time_unit=time_unit, unit=unit)).events
    assert both.attributes is not None
    new = np.array(both.attributes[_MARK].to_pylist(), dtype=np.bool_)
    kept = both.attributes.drop_columns([_MARK])
    attributes = kept if kept.num_columns else None
    events = Interactions(catalog, replace(both, attributes=attributes))
    counts = np.bincount(events.columns.split, minlength=3).tolist()
    info = replace(
        data.info,
        users=len(events.user_ids),
        items=len(catalog),
        events=len(events),
        split="given",
        split_events=dict(zip(("train", "validation", "test"), counts, strict=True)),
        catalog_hash=catalog.hash(),
        unit=events.unit_name,
    )
    return Dataset(catalog, events, info), new


def _with_items(catalog: Catalog, items: str | Path) -> Catalog:
    given = Catalog.read(items)
    add = [i for i in given if i.item_id not in catalog]
    return catalog.edited(add, [i for i in given if i.item_id in catalog])


def _stacked(old: Interactions, new: Interactions, *, positions: bool) -> pa.Table:
    """Both as one table, marked; new positions come after the old ones."""
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
