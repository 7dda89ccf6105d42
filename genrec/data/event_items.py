"""Build a catalog from an events table that also holds the titles and attributes of items.

An item may have several titles in such a table, because staff type remarks into the title field.
The most frequent title is used. Other columns are assumed to describe the item rather than the
event if their values hardly vary among the events of an item.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalog import NEEDED, Catalog
from genrec.data.ingest import Ingested
from genrec.data.readers import arrow
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.text import one_line, quantity, visible
from genrec.types import IntArray

CONSTANT = 0.95
"""The minimum fraction of rows that must have their item's value for a column to describe items."""

_EXPLAINED = 0.9
"""The minimum fraction of a column's variation that must be explained by the items."""

_EVENT_COLUMNS = frozenset(
    {
        "user_id", "item_id", "title", "behavior", "timestamp", "position", "value", "rating",
        "split", "text", arrow.ROW,
    }
)  # fmt: skip
_LISTED = 5
_PASTED = 20  # the most ids to write in an option, or columns in a remark


def catalog_from_events(
    table: pa.Table, rejects: Rejects, notes: list[str], *, unit: str | None = None
) -> Catalog:
    """Build a catalog from events, using the most frequent title of each item and its attributes.

    Args:
        table: the events, with the columns item_id and title.
        rejects: the object that records unusable items.
        notes: the list to which remarks are added.
        unit: the name of the basket column, which always describes events.

    Raises:
        DataError: the table has no titles.
    """
    if "title" not in table.column_names:
        msg = (
            f"No items file was given, and {rejects.source} has no title column. Expected titles "
            "to recommend. Write items.csv with the columns item_id,title (one row per item) and "
            "pass it with --items, or map the column of titles with --column title=NAME. Found "
            f"columns: {', '.join(arrow.column_names(table))}."
        )
        raise DataError(msg)
    arrow.require_columns(table, NEEDED, rejects.source)
    ids, item = arrow.encode(table["item_id"])
    titles, title = arrow.encode(table["title"])
    usable = np.array([bool(visible(one_line(t))) for t in titles], dtype=bool)[title]
    usable &= np.array([bool(i) for i in ids], dtype=bool)[item]
    best = _most_frequent(item[usable], title[usable], len(ids))
    notes += _note_several(item[usable], title[usable], best, ids, titles)
    known = np.flatnonzero(best >= 0)
    columns = {
        "item_id": pa.array([ids[i] for i in known], pa.string()),
        "title": pa.array([titles[best[i]] for i in known], pa.string()),
    }
    attributes = _describing_columns(table, item, len(ids), unit)
    for name, values in attributes.items():
        columns[name] = values.take(pa.array(known))
    if attributes:
        listed = ", ".join(map(repr, list(attributes)[:_PASTED]))
        more = f" and {len(attributes) - _PASTED:,} more" if len(attributes) > _PASTED else ""
        notes.append(f"columns that describe the items: {listed}{more}")
    return Catalog.from_table(pa.table(columns), rejects=rejects)


def leave_out_unread(
    catalog: Catalog, found: Ingested, table: pa.Table, notes: list[str]
) -> tuple[Catalog, Ingested]:
    """Leave out items that occur only in rows that could not be read, such as a second header.

    Items that were sold only to unknown users are kept, since they can be recommended.

    Args:
        catalog: the items, found in the table.
        found: the events that are kept.
        table: the events before they were checked.
        notes: the list of remarks.
    """
    row = found.events.columns.row
    used = np.zeros(len(catalog), dtype=bool)
    used[row[row >= 0]] = True
    if used.all():
        return catalog, found
    no_user = pc.equal(arrow.to_text(table["user_id"]), "")
    if "timestamp" in table.column_names:  # a row of totals has neither a user nor a time
        no_user = pc.and_(no_user, pc.not_equal(arrow.to_text(table["timestamp"]), ""))
    sold = set(pc.unique(arrow.to_text(table["item_id"]).filter(no_user)).to_pylist())
    keep = used | np.array([i.item_id in sold for i in catalog], dtype=bool)
    left = [item.title for item, stays in zip(catalog, keep.tolist(), strict=True) if not stays]
    if left:
        occur = "item occurs" if len(left) == 1 else "items occur"
        notes.append(
            f"{len(left):,} {occur} only in rows that cannot be read, such as {one_line(left[0])!r}, and "
            f"{'is' if len(left) == 1 else 'are'} left out"
        )
        places = np.cumsum(keep) - 1
        columns = replace(found.events.columns, row=np.where(row < 0, -1, places[row]))
        found = replace(found, events=replace(found.events, columns=columns))
        catalog = Catalog([i for i, stays in zip(catalog, keep.tolist(), strict=True) if stays])
    guests = int((keep & ~used).sum())
    if guests:
        occur = "item occurs" if guests == 1 else "items occur"
        notes.append(f"{guests:,} {occur} only in rejected rows, but can be recommended")
    return catalog, found


def note_other_codes(ids: Sequence[str]) -> list[str]:
    """Return remarks on items that may not be products, and on ids that differ only in case.

    Shops record postage, fees and corrections as items whose ids have no digits, although nearly
    all other ids have some. Examples in UCI Online Retail are POST, M, BANK CHARGES and AMAZONFEE.
    """
    notes = []
    odd = [i for i in ids if not any(c.isdigit() for c in i)]
    if odd and len(odd) <= 0.05 * len(ids):
        may = "a product: its id has" if len(odd) == 1 else "products: their ids have"
        notes.append(
            f"{quantity(len(odd), 'item')} may not be {may} no digit. {_say_how_to_drop(odd)}"
        )
    first: dict[str, str] = {}
    twins = [(first[i.casefold()], i) for i in ids if first.setdefault(i.casefold(), i) != i]
    if twins:
        one, other = (repr(one_line(i)) for i in twins[0])
        notes.append(
            f"{quantity(len(twins), 'item id')} {'differs' if len(twins) == 1 else 'differ'} from "
            f"another one only in case, such as {other} and {one}; they are treated as different "
            "items"
        )
    return notes


def _say_how_to_drop(ids: Sequence[str]) -> str:
    """Return a hint on how to leave out the given items with a command-line option."""
    plain = all(re.fullmatch(r"[\w ./-]+", i) for i in ids)
    if plain and len(ids) <= _PASTED:
        them = "it" if len(ids) == 1 else "them"
        return f"To leave {them} out, add --drop-items {shlex.quote(','.join(ids))}"
    listed = ", ".join(repr(one_line(i)) for i in ids[:_LISTED])
    more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
    return f"To leave some out, pass their ids with --drop-items: {listed}{more}"


def _most_frequent(item: IntArray, value: IntArray, items: int) -> IntArray:
    """Return the most frequent value of each item.

    Args:
        item: (R,) item code of each row.
        value: (R,) value code of each row.
        items: the number of items.

    Returns:
        An (items,) array of the most frequent value codes, with -1 for items without a value. In a
        tie, the value that occurs first is used.
    """
    best = np.full(items, -1, dtype=np.int64)
    if not len(item):
        return best
    width = int(value.max()) + 1
    pairs, first, count = np.unique(item * width + value, return_index=True, return_counts=True)
    order = np.lexsort((-first, count))  # the last one of each item wins
    best[pairs[order] // width] = pairs[order] % width
    return best


def _note_several(
    item: IntArray, title: IntArray, best: IntArray, ids: Sequence[str], titles: Sequence[str]
) -> list[str]:
    """Return a remark on items with several titles.

    As an example, the remark names the item whose two most frequent titles are closest in
    frequency.
    """
    if not len(item):
        return []
    width = int(title.max()) + 1
    pairs, count = np.unique(item * width + title, return_counts=True)
    owner, given = pairs // width, pairs % width
    several = int((np.bincount(owner) > 1).sum())
    if not several:
        return []
    votes = np.zeros(len(best), dtype=np.int64)
    won = given == best[owner]
    votes[owner[won]] = count[won]
    lost = np.flatnonzero(~won)
    close = lost[np.argmin(votes[owner[lost]] / count[lost])]
    place, other = int(owner[close]), one_line(titles[given[close]])
    used = one_line(titles[best[place]])
    are = "item has" if several == 1 else "items have"
    return [
        f"{several:,} {are} several titles, of which the most frequent one is used; for "
        f"example, {one_line(ids[place])!r} is called {used!r} in {quantity(int(votes[place]), 'row')} "
        f"and {other!r} in {int(count[close]):,}"
    ]


def _describing_columns(
    table: pa.Table, item: IntArray, items: int, unit: str | None
) -> dict[str, pa.Array]:
    """Return one value per item from each column that hardly varies among an item's events."""
    found: dict[str, pa.Array] = {}
    repeated = np.bincount(item, minlength=items) > 1
    if not repeated.any():
        return found
    for name in arrow.column_names(table):
        if name in _EVENT_COLUMNS or name == unit or pa.types.is_nested(table[name].type):
            continue
        try:
            values, code = arrow.encode(table[name])
        except DataError:
            continue
        filled = np.array([v != "" for v in values], dtype=bool)[code]
        if len(values) < 2 or not (filled & repeated[item]).any():
            continue
        best = _most_frequent(item[filled], code[filled], items)
        among = filled & repeated[item]
        agree = float(np.mean(best[item[among]] == code[among]))
        by_chance = float(np.bincount(code[among]).max() / among.sum())
        if agree >= CONSTANT and agree - by_chance >= _EXPLAINED * (1 - by_chance) > 0:
            texts = [values[b] if b >= 0 else "" for b in best]
            found[name] = pa.array(texts, pa.string())
    return found
