"""Turn tables with any column names into a catalog and checked events.

The steps are: recognize the columns, clean the cells, build the catalog, drop the items that the
user wants to leave out, and check the events. Everything that is guessed or changed is reported in
a remark.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data import cleaning, column_checks, column_choice, columns, nested, returns
from genrec.data.catalog import Catalog
from genrec.data.column_uses import ColumnUse, list_uses
from genrec.data.event_items import catalog_from_events, leave_out_unread, note_other_codes
from genrec.data.ingest import EventOptions, Ingested, ingest
from genrec.data.item_times import with_iso_times
from genrec.data.missing import blank_missing
from genrec.data.plausibility import check_columns, check_copies, check_titles
from genrec.data.readers import arrow
from genrec.data.readers.rejects import Rejects
from genrec.data.readers.repeated import NUMBERED
from genrec.errors import DataError
from genrec.text import one_line, quantity

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Imported:
    """A catalog and its events, with a record of how they were read.

    Attributes:
        catalog: the items.
        read: the checked events.
        names: maps genrec's name of each recognized column to its name in the file. The keys of the
            items table begin with ``items.``.
        notes: remarks on everything that was guessed or changed.
        uses: the use of each column of the files.
        warnings: signs that the columns were misunderstood.
    """

    catalog: Catalog
    read: Ingested
    names: dict[str, str]
    notes: list[str]
    uses: list[ColumnUse]
    warnings: list[str]


def import_tables(
    items: pa.Table | None,
    interactions: pa.Table,
    options: EventOptions,
    item_columns: dict[str, str],
    rejects: list[Rejects],
) -> Imported:
    """Read a table of events and, if there is one, a table of items.

    Args:
        items: one row per item, or None if the titles are in the table of events.
        interactions: one row per event, or one row per user with lists (``arrow.explode``).
        options: column names, units and defaults of the events.
        item_columns: maps genrec's column names to those in the table of items.
        rejects: two objects that record rejected rows, one for items and one for events.

    Raises:
        DataError: a column is missing, or no row is usable.
        SettingsError: an option is not valid for the table.
    """
    bad_items, bad_events = rejects
    if items is None and not interactions.num_rows:
        why = f": {bad_events.most_frequent()}" if bad_events.rows else ", since it has none"
        msg = (
            f"No row of {bad_events.source} could be read{why}. Expected at least one event below the "
            "header. Fix the rows, or export the file again."
        )
        raise DataError(msg)
    interactions = arrow.number_rows(interactions)
    notes: list[str] = []
    asked = [*options.columns.values(), *filter(None, (options.unit, options.status))]
    flat = nested.unnest(interactions, bad_events.source, notes, asked)
    given = dict(options.columns)
    if options.status not in {None, returns.IGNORED}:
        given["status"] = str(options.status)
    if options.time_unit == "position" and "position" in flat.column_names:
        given.setdefault("position", "position")  # even if there are dates
    column_checks.check_mapping(options.columns, bad_events.source)
    column_checks.check_mapping(item_columns, bad_items.source, option="--item-column")
    recognized = columns.recognize_events(
        flat, given, bad_events.source, with_titles=items is None, items=items
    )
    unit = column_checks.choose_unit(options.unit, recognized, bad_events.source)
    events = arrow.explode(recognized.table, bad_events)
    if events is recognized.table:
        bad_events.given = interactions  # the rows of both have the same numbers
    read = replace(recognized, table=events, unit=unit)
    read = _with_time(read, options, bad_events, interactions, with_titles=items is None)
    notes += recognized.notes + column_checks.note_time_zone(flat, read.table)
    table = cleaning.clean_events(read, notes, items)
    status = read.names.get("status", options.status)
    table, others = returns.mark_returns(table, read, notes, bad_events, status)
    names = {ours: theirs for ours, theirs in recognized.names.items() if ours != "unit"}
    if unit is not None:
        names["unit"] = unit
        notes.append(f"baskets come from the column {unit!r}; --unit none ignores them")
    elif options.unit is None:
        free = [n for n in recognized.found if n in table.column_names and n not in names.values()]
        notes += column_checks.note_baskets(table, free)
    if items is None:
        titled = "title" in table.column_names
        warnings = check_titles(table, names) + check_copies(table, names) if titled else []
        catalog = catalog_from_events(table, bad_items, notes, unit=unit)
        described = sorted({*catalog.columns} & {*table.column_names})
        gone = {*described} - {"item_id", "title"}
        table = table.select([n for n in table.column_names if n not in gone])
    else:
        catalog, of_items = _read_items(items, item_columns, read, bad_items, notes)
        names |= {f"items.{ours}": theirs for ours, theirs in of_items.items()}
        described, warnings = [], []
        table = _join_by_title(table, catalog, notes)
    if options.drop_duplicates:
        table = cleaning.drop_repeats(table, unit, bad_events, notes)
    catalog, table = _drop_items(catalog, table, options, bad_events, notes)
    catalog = with_iso_times(catalog, options.date_format, bad_items.source, notes)
    notes += note_other_codes([i.item_id for i in catalog])
    behavior = options.behavior
    if behavior is None and not {"behavior", "rating"} & set(table.column_names):
        behavior = read.behavior
    plain = replace(
        options, columns={}, behavior=behavior, unit=unit or "none", drop_items=(),
        drop_duplicates=False,
    )  # fmt: skip
    unknown = "no title for the item" if items is None else "not in the items file"
    found = ingest(table, catalog, plain, rejects=bad_events, unknown=unknown)
    bad_events.given = None  # frees the memory
    if items is None:
        catalog, found = leave_out_unread(catalog, found, table, notes)
    kept = found.events.attributes
    others.pop(names.get("status", ""), None)
    others |= {} if read.clock is None else {read.clock: "timestamp"}
    uses = list_uses(
        flat, {n: c for n, c in names.items() if not n.startswith("items.")}, others,
        items=described, events=[] if kept is None else kept.column_names,
    )  # fmt: skip
    if items is not None:
        uses += list_uses(items, of_items, {}, items=catalog.columns, prefix="items.")
    warnings += check_columns(flat, names, catalog, found.events)
    return Imported(catalog, found, names, notes, uses, warnings)


def _with_time(
    read: columns.Recognized,
    options: EventOptions,
    rejects: Rejects,
    raw: pa.Table,
    *,
    with_titles: bool,
) -> columns.Recognized:
    """Check that the required columns exist, and add positions if the time unit is ``position``.

    Args:
        read: the recognized columns.
        options: the options of the events.
        rejects: the record of bad rows, which knows the name of the table.
        raw: the table as it was read. If columns are missing, they may be inside its objects.
        with_titles: True if the titles must be in the table.

    Raises:
        DataError: a column is missing. The message lists all missing columns.
    """
    present = set(read.table.column_names)
    table = read.table
    if not present & {"timestamp", "position"} and options.time_unit == "position":
        table = table.append_column("position", pa.array(np.arange(table.num_rows)))
        present.add("position")
    missing = [n for n in ("user_id", "item_id") if n not in present]
    if not present & {"timestamp", "position"}:
        missing.append("timestamp")
    if with_titles and "title" not in present:
        missing.append("title")
    if missing:
        table = nested.add_parts(read.table, raw)
        found = (*read.found, *table.column_names[read.table.num_columns :])
        read = replace(read, table=table, found=found)
        msg = column_checks.describe_missing(missing, read, rejects.source)
        if "timestamp" in missing:
            msg += " If the rows have no times but are in order, use --time-unit position."
        if "user_id=COLUMN" in msg or "timestamp=COLUMN" in msg:
            msg += column_checks.point_to_folder(read.found)
        if "user_id=COLUMN" in msg:
            msg += column_checks.point_to_constant(read)
        if "title" in missing:
            msg += " If the titles are in another file, pass it with --items."
            doubts = [n for n in read.notes if column_choice.NO_TITLES in n]
            msg += "".join(f" Note that {n}." for n in doubts)
        raise DataError(msg)
    cells = ("user_id", "item_id", "behavior", "timestamp", "position", "rating", "value", "text")
    arrow.require_columns(table, [n for n in cells if n in table.column_names], rejects.source)
    return replace(read, table=table)


def _read_items(
    items: pa.Table,
    item_columns: dict[str, str],
    events: columns.Recognized,
    rejects: Rejects,
    notes: list[str],
) -> tuple[Catalog, dict[str, str]]:
    """Read the table of items, and return the catalog and the mapping of its columns."""
    read = columns.recognize_items(items, item_columns, rejects.source, events)
    missing = [n for n in ("item_id", "title") if n not in read.table.column_names]
    if missing:
        raise DataError(
            column_checks.describe_missing(missing, read, rejects.source, option="--item-column")
        )
    table = blank_missing(read.table, notes)
    table = cleaning.clean_ids(table, ["item_id"], notes)
    table = cleaning.clean_titles(table, notes)
    table = cleaning.fill_titles(table, notes)
    table = cleaning.read_amounts(table, notes, beside=events.table)
    return Catalog.from_table(table, rejects=rejects), read.names


def _join_by_title(table: pa.Table, catalog: Catalog, notes: list[str]) -> pa.Table:
    """In rows with an unknown item id, identify the item by its title if the title is unique."""
    if arrow.is_list(table["item_id"].type):
        return table
    ids = arrow.to_text(table["item_id"])
    titles = arrow.to_text(table["title"]) if "title" in table.column_names else ids
    known = pc.is_in(ids, pa.array([i.item_id for i in catalog], ids.type))
    lacking = pc.and_(pc.invert(known), pc.not_equal(titles, ""))
    found: dict[str, str] = {}
    for title in pc.unique(titles.filter(lacking)).to_pylist():
        rows, _ = catalog.rows_of_title(one_line(title))
        if len(rows) == 1:
            found[title] = catalog[rows[0]].item_id
    named = pc.and_(lacking, pc.is_in(titles, pa.array(list(found), titles.type)))
    count = int(pc.sum(named).as_py() or 0)
    if not count:
        return table
    notes.append(f"joined {quantity(count, 'row')} without a known item id on the title")
    theirs = pa.chunked_array([pa.array([found.get(t, "") for t in titles.to_pylist()], ids.type)])
    place = table.column_names.index("item_id")
    return table.set_column(place, "item_id", pc.if_else(named, theirs, ids))


def _drop_items(
    catalog: Catalog, table: pa.Table, options: EventOptions, rejects: Rejects, notes: list[str]
) -> tuple[Catalog, pa.Table]:
    """Leave out the items that the user asked to drop, and their events."""
    chosen = options.drop_items
    ids = list(dict.fromkeys(chosen(catalog) if callable(chosen) else chosen))
    if not ids:
        return catalog, table
    unknown = [i for i in ids if i not in catalog]
    if unknown:
        listed = ", ".join(repr(one_line(i)) for i in unknown[:_LISTED])
        more = f" and {len(unknown) - _LISTED:,} more" if len(unknown) > _LISTED else ""
        notes.append(f"no items in the data have these ids given to --drop-items: {listed}{more}")
    wanted = set(ids)
    kept = [item for item in catalog if item.item_id not in wanted]
    if not kept:
        msg = (
            f"--drop-items drops all {len(catalog):,} items. Expected at least one to "
            "remain. Drop fewer items."
        )
        raise DataError(msg)
    notes.append(f"dropped on request: {quantity(len(catalog) - len(kept), 'item')}")
    item = arrow.to_text(table["item_id"])
    bad = np.asarray(pc.is_in(item, pa.array(ids, item.type)), dtype=bool)
    reason = "the item was dropped on request"
    return Catalog(kept), arrow.reject(table, bad, reason, rejects, asked=True)


def describe_doubts(notes: list[str], tables: list[pa.Table | None]) -> str:
    """Return the remarks on names and encodings that may explain why columns were not recognized."""
    names = [n for table in tables if table is not None for n in arrow.column_names(table)]
    doubts = [n for n in notes if "--encoding" in n] if not "".join(names).isascii() else []
    doubts += [n for n in notes if NUMBERED in n]
    return "".join(f" Note that {n}." for n in doubts)
