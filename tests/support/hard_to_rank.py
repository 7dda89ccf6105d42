"""A shop in which every user buys the same few items in turn, which a mixture cannot express."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genrec import Dataset

CYCLE = 6


def cycles(users: int = 160, items: int = 30, length: int = 15, seed: int = 0) -> Dataset:
    """A shop in which a user buys six random items in turn, again and again.

    So the next item is the one that was bought longest ago. The sources of the mixture know only
    that recent and frequent items are bought again.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {"user_id": [], "item_id": [], "behavior": [], "timestamp": []}
    for user in range(users):
        own = rng.permutation(items)[:CYCLE].tolist()
        for time in range(length):
            values = f"u{user}", f"i{own[time % CYCLE]}", "buy", time * 86_400 + user
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    titles = [f"thing {n}" for n in range(items)]
    table = pa.table({"item_id": [f"i{n}" for n in range(items)], "title": titles})
    return Dataset.from_tables(table, pa.table(rows), name="cycles")
