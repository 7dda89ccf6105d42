"""A small shop for the collaborative prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from genrec import Catalog, Dataset, History, Interaction, Item
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.priors.counts import Counts

NAMES = ["red mug", "red doll", "red doll house", "blue mug", "blue mug", "set of 12", "set of 1"]


EVEN = dict.fromkeys(COUNTED, 1.0)


sequences = st.lists(
    st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=8), min_size=1, max_size=6
)


def shop(events: Sequence[Sequence[int]], splits: Sequence[Sequence[str]] | None = None) -> Dataset:
    """A dataset of buys: each user's rows, and the part that each event is of."""
    items = pa.table({"item_id": [f"i{n}" for n in range(len(NAMES))], "title": NAMES})
    rows: dict[str, list[Any]] = {"user_id": [], "item_id": [], "behavior": [], "timestamp": []}
    parts = []
    for user, bought in enumerate(events):
        for time, row in enumerate(bought):
            values = f"u{user}", f"i{row}", "buy", time * 100 + user
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
            parts.append(splits[user][time] if splits else "train")
    table = pa.table(rows)
    if splits:
        table = table.append_column("split", pa.array(parts))
    return Dataset.from_tables(items, table, name="shop")


def history(*rows: int) -> History:
    return History(tuple(Interaction(f"i{row}", "buy") for row in rows))


def counted(events: Sequence[Sequence[int]]) -> CollaborativePrior:
    """A prior of even weights, counted in one go."""
    prior = CollaborativePrior(Counts.none(catalog()), EVEN)
    prior.update({f"u{n}": [f"i{row}" for row in rows] for n, rows in enumerate(events)})
    return prior


def catalog(more: int = 0) -> Catalog:
    titles = [*NAMES, *(f"new thing {n}" for n in range(more))]
    return Catalog(Item(f"i{n}", t) for n, t in enumerate(titles))
