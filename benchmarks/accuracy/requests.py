"""Measure how often the conditions of a request are understood exactly, or asked back.

    python -m benchmarks.accuracy.requests [--wrong]

``requests.jsonl`` has 200 requests of five kinds, written by somebody other than the author of the parser and not
used in its tests. Each has the right condition in ``where`` ("" for none, null if only a question is right), further
right ones in ``also``, and the right ``count``. Two conditions are equal if they choose the same items of a catalog with
every combination of prices, years and values. A request that is asked back counts as right, so the share of these is
stated, too: a parser that always asks would be useless.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import commit
from genrec import Catalog, Item
from genrec.conversation.parser import parse_query
from genrec.conversation.query import Query
from genrec.evaluation.bootstrap import bootstrap
from genrec.pipeline.predicates import Predicate

FILE = Path(__file__).with_name("requests.jsonl")
VALUES: dict[str, list[Any]] = {
    "category": ["kitchen", "garden", "toys", "books", "clothing", "stationery", "lighting"],
    "color": ["red", "blue", "green", "black", "white", "yellow", "pink"],
    "material": ["plastic", "wood", "glass", "metal", "cotton", "ceramic", "paper"],
    "brand": ["Northwind", "Penguin", "Kestrel", "Lumo", "Oak & Iron"],
    "in_stock": [True, False],
}
PRICES = [
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    12,
    12.5,
    14,
    15,
    16,
    18,
    18.99,
    20,
    22,
    25,
    30,
    35,
    40,
    50,
    60,
    80,
    90,
    100,
    200,
    1200,
]
YEARS = [
    1800,
    1809,
    1899,
    1966,
    1980,
    1984,
    1987,
    1989,
    1990,
    1995,
    1999,
    2000,
    2001,
    2005,
    2009,
    2010,
    2012,
    2015,
    2018,
    2019,
    2020,
    2026,
]
RATINGS = [1.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]


def make_catalog() -> Catalog:
    """Make a catalog with many combinations, so that different conditions choose different items."""
    rng = np.random.default_rng(0)
    prices = [p + d for p in PRICES for d in (-0.01, 0, 0.01)]
    years = sorted({y + d for y in YEARS for d in (-1, 0, 1)} - {2027})
    items = []
    for row, values in enumerate(itertools.product(*VALUES.values())):
        given = dict(zip(VALUES, values, strict=True))
        given["price"] = round(float(rng.choice(prices)), 2)
        given["year"] = int(rng.choice(years))
        given["rating"] = float(rng.choice(RATINGS))
        items.append(Item(f"i{row}", f"Article no. {row}", given))
    return Catalog(items)


def judge(asked: dict[str, Any], query: Query, catalog: Catalog) -> str:
    """Return ``exact``, ``asked`` or ``wrong``."""
    right = [w for w in (asked["where"], *asked.get("also", ())) if w is not None]
    chosen = _mask(query.where or "", catalog)
    same = any(np.array_equal(chosen, _mask(w, catalog)) for w in right)
    counts = {asked.get("count"), asked.get("also_count", asked.get("count"))}
    if query.questions:
        return "asked"
    return "exact" if same and query.count in counts else "wrong"


def _mask(where: str, catalog: Catalog) -> Any:
    return Predicate.parse(where).mask(catalog) if where else np.ones(len(catalog), dtype=bool)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wrong", action="store_true", help="list those that were misunderstood")
    arguments = parser.parse_args()
    catalog = make_catalog()
    found: dict[str, list[str]] = defaultdict(list)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        asked = json.loads(line)
        query = parse_query(asked["text"], catalog, year=2026)
        verdict = judge(asked, query, catalog)
        found[asked["kind"]].append(verdict)
        if arguments.wrong and verdict == "wrong":
            print(
                json.dumps(
                    {**asked, "got": query.where, "got_count": query.count}, ensure_ascii=False
                )
            )
    print(f"commit {commit()}")
    for kind, verdicts in [*found.items(), ("all", [v for vs in found.values() for v in vs])]:
        right = np.array([v != "wrong" for v in verdicts], dtype=float)
        shares = {v: verdicts.count(v) for v in ("exact", "asked", "wrong")}
        print(f"{kind}, {len(verdicts)}: {shares}, exact or asked {bootstrap(right)}")


if __name__ == "__main__":
    main()
