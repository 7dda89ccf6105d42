"""Character n-grams, counted slowly."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import strategies as st

titles = st.lists(st.text("abc 电脑'", max_size=12), min_size=1, max_size=8)


def grams(title: str) -> Counter[str]:
    """Count the 3- and 4-grams of each padded word; a very short word counts once, as itself."""
    found: Counter[str] = Counter()
    for word in title.lower().split():
        padded = f" {word} "
        for n in (3, 4):
            found.update(padded[i : i + n] for i in range(max(len(padded) - n, 0) + 1))
            if len(padded) <= n:
                break
    return found


def slowly(titles: list[str]) -> list[list[float]]:
    """Compute the third powers of all cosines, with 0 for a title and itself."""
    counts = [grams(t) for t in titles]
    within = Counter(g for c in counts for g in c)
    rare = {g: math.log((1 + len(titles)) / (1 + many)) + 1 for g, many in within.items()}
    vectors = [{g: (1 + math.log(many)) * rare[g] for g, many in c.items()} for c in counts]
    size = [math.sqrt(sum(v * v for v in vector.values())) for vector in vectors]

    def cosine(i: int, j: int) -> float:
        if i == j or not vectors[i] or not vectors[j]:
            return 0.0
        both = sum(v * vectors[j].get(g, 0.0) for g, v in vectors[i].items())
        return both / size[i] / size[j]

    return [[cosine(i, j) ** 3 for j in range(len(titles))] for i in range(len(titles))]
