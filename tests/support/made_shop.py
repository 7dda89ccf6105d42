"""A made shop for baselines."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genrec import Dataset

COLORS = ("red", "blue", "green", "white")


THINGS = ("mug", "bag", "chair", "lamp", "clock", "box")


def made(seed: int = 0, title: str = "{color} {thing}") -> Dataset:
    """24 items and 40 users with 1 to 12 events, some of them viewed only; two items are cold."""
    rng = np.random.default_rng(seed)
    items = pa.table(
        {
            "item_id": [str(n) for n in range(24)],
            "title": [
                title.format(color=color, thing=thing) for thing in THINGS for color in COLORS
            ],
        }
    )
    rows = [
        (f"u{user}", str(item), behavior, f"{60 * place}")
        for user in range(40)
        for place, (item, behavior) in enumerate(
            zip(
                (rng.integers(0, 22) + np.arange(1 + user % 12) * 3) % 22,
                rng.choice(["buy", "buy", "view"], 1 + user % 12),
                strict=True,
            )
        )
    ]
    names = ("user_id", "item_id", "behavior", "timestamp")
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    return Dataset.from_tables(items, events, name="made")
