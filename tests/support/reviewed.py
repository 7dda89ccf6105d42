"""A small shop whose users review what they buy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from genrec import Dataset

GOOD = ["lovely", "great", "excellent", "perfect", "wonderful"]
BAD = ["awful", "broken", "terrible", "useless", "horrible"]
THINGS = ["mug", "lamp", "chair", "clock", "plate", "towel", "basket", "candle"]


def reviewed_shop() -> Dataset:
    """Make a shop of 40 users and 8 items. Users like the items with odd numbers, and rate them 5."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for user in range(40):
        for n in range(6):
            item, time = int(rng.integers(8)), 1e9 + 100 * n
            row = {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": time, "value": None}
            rows.append(row | {"behavior": "buy", "text": None})
            if n % 2:
                word = GOOD[item % 5] if item % 2 else BAD[item % 5]
                said = {
                    "text": f"a {word} {THINGS[item]} for room {user} {n}",
                    "value": 5 if item % 2 else 1,
                }
                rows.append(row | said | {"behavior": "comment", "timestamp": time + 1})
    items = pa.table({"item_id": [f"i{n}" for n in range(8)], "title": THINGS})
    return Dataset.from_tables(items, pa.Table.from_pylist(rows), name="reviewed")
