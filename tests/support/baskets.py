"""Datasets made of baskets."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from genrec import Dataset
from genrec.data.ingest import EventOptions

TITLES = ["red mug", "red mug large", "blue bag", "blue bag", "paper chain kit", "doll house", "x"]


def dataset(baskets: list[list[tuple[int, str]]], users: int = 1, **options: Any) -> Dataset:
    """Make users with the same baskets of (item, behavior), each basket a day after the last."""
    rows = [
        (f"u{u}", f"i{item}", behavior, 1_500_000_000 + 86_400 * day + place, f"u{u}b{day}")
        for u in range(users)
        for day, basket in enumerate(baskets)
        for place, (item, behavior) in enumerate(basket)
    ]
    columns = ["user_id", "item_id", "behavior", "timestamp", "unit"]
    events = pa.table(
        {name: [r[i] for r in rows] for i, name in enumerate(columns)}
        | {"split": ["train"] * len(rows)}
    )
    items = pa.table(
        {"item_id": [f"i{i}" for i in range(len(TITLES))], "title": TITLES, "price": [1.0] * 7}
    )
    return Dataset.from_tables(
        items, events, name="made", options=EventOptions(unit="unit", time_unit="s"), **options
    )
