"""Matching of perturbed titles, and false matches, by kind of perturbation.

    python benchmarks/matching.py
    python benchmarks/matching.py --items items.csv.gz --other other/items.csv.gz

A title is perturbed in one way; right is a match to an item of that title, wrong is another item,
none is no match. Foreign titles (of the other catalog, not in this one) should match nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from genrec import Catalog
from genrec.datasets import load
from genrec.matching import TextMatcher
from genrec.tables import Rejects
from genrec.text import normalized

Random = np.random.Generator
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def typo(title: str, rng: Random) -> str:
    """One letter dropped, doubled, replaced, or swapped with the next."""
    at = int(rng.integers(0, max(1, len(title) - 1)))
    kind = int(rng.integers(0, 4))
    head, letter, rest = title[:at], title[at : at + 1], title[at + 1 :]
    middle = ["", letter * 2, str(rng.choice(LETTERS)), rest[:1] + letter][kind]
    return head + middle + (rest[1:] if kind == 3 else rest)


def two_typos(title: str, rng: Random) -> str:
    return typo(typo(title, rng), rng)


def drop_word(title: str, rng: Random) -> str:
    words = title.split()
    if len(words) > 1:
        words.pop(int(rng.integers(0, len(words))))
    return " ".join(words)


def reorder(title: str, rng: Random) -> str:
    return " ".join(rng.permutation(title.split()))


def other_case(title: str, rng: Random) -> str:
    return title.swapcase()


def punctuation(title: str, rng: Random) -> str:
    return title.replace(" ", "-").replace(",", "，") + "!"


WAYS: list[Callable[[str, Random], str]] = [
    other_case, punctuation, typo, two_typos, reorder, drop_word,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=Path, default=None)
    parser.add_argument("--other", type=Path, default=None)
    parser.add_argument("--titles", type=int, default=500)
    arguments = parser.parse_args()
    catalog = read(arguments.items) if arguments.items else load().catalog
    matcher = TextMatcher(catalog)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(catalog), size=min(arguments.titles, len(catalog)), replace=False)
    for way in WAYS:
        right = wrong = 0
        for row in rows.tolist():
            match = matcher.match(way(catalog[row].title, rng))
            right += row in match.rows
            wrong += bool(match.rows) and row not in match.rows
        n = len(rows)
        print(
            f"{way.__name__:12} right {right / n:.3f}  wrong {wrong / n:.3f}  "
            f"none {1 - (right + wrong) / n:.3f}  of {n}"
        )
    if arguments.other:
        here = {normalized(t) for t in catalog.titles}
        foreign = [t for t in read(arguments.other).titles if normalized(t) not in here]
        chosen = rng.choice(len(foreign), size=min(arguments.titles, len(foreign)), replace=False)
        false = [foreign[i] for i in chosen if matcher.match(foreign[i]).rows]
        print(f"{'foreign':12} matched {len(false)} of {len(chosen)}  {false[:3]}")


def read(path: Path) -> Catalog:
    return Catalog.read(path, rejects=Rejects(path.name))


if __name__ == "__main__":
    main()
