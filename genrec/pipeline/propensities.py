"""Compute the probability with which a random draw shows an item at each place of a list.

``search="sample"`` draws items without replacement. With Gumbel noise (Kool et al. 2019, see
``decoding.gumbel``), each item has an independent exponential time whose rate is the item's
probability P, and the items are listed in the order of their times. Given the items before it, item i
is therefore at a place with probability

    P(i) / (sum of P over the items that this place could show),

which are those that the filters allow, without the items listed before and without those whose cap is
used up. No item can become possible again later, so the items that were left out before do not change
this: an exponential time has no memory. The product over the places is the probability of the list.

The sum is computed from the items that the place could show, or as 1 minus the sum over all others,
whichever are fewer. Items are numbered from 0 to N - 1 here. This module does not know what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from genrec.pipeline.rerank import is_missing
from genrec.types import BoolArray, FloatArray, IntArray

_LEAST = 0.1  # if less of 1 is left, the difference has too few correct digits


def place_probabilities(
    shown: IntArray,
    allowed: BoolArray,
    chance: Callable[[IntArray], FloatArray],
    *,
    caps: Sequence[tuple[IntArray, int]] = (),
    first: IntArray | None = None,
    least: float = 0.0,
) -> FloatArray:
    """Compute, for each place, the probability of its item given the items before it.

    Args:
        shown: (n,) the items in the order of the list.
        allowed: (N,) True for the items that the filters allow.
        chance: a function that returns the probabilities P of given items.
        caps: for each cap, the (N,) number of each item's value, or -1 for a missing one, and how many
            items of a value a list may have.
        first: items that were put before the list; they count towards the caps.
        least: items with a smaller P are not listed.

    Returns:
        (n,) probabilities. They are 0 from the first item on that its place cannot show.
    """
    pinned = np.empty(0, dtype=np.int64) if first is None else first
    possible = allowed.copy()
    possible[pinned] = False
    closing = _closing(shown, pinned, possible, caps)
    others = np.flatnonzero(~possible)
    later = np.concatenate([shown, *closing]) if len(shown) else shown
    outside = np.union1d(others, later)
    if not least and len(outside) < possible.sum():
        p = np.zeros(len(allowed))
        p[outside] = chance(outside)
        gone = [float(p[left].sum()) for left in closing[:-1]]
        total = 1.0 - float(p[others].sum()) - np.cumsum([0.0, *gone])
        if len(shown) and total.min() >= _LEAST:
            return _shares(p, shown, closing, possible, lambda n, _: float(total[n]))
    inside = np.flatnonzero(possible)
    p = np.zeros(len(allowed))
    p[inside] = chance(inside)
    p[p < least] = 0.0
    return _shares(p, shown, closing, possible, lambda _, left: float(p[left].sum()))


def _closing(
    shown: IntArray, pinned: IntArray, possible: BoolArray, caps: Sequence[tuple[IntArray, int]]
) -> list[IntArray]:
    """Return, for each place, the items that cannot be shown after it but could be before.

    Items that the pinned ones rule out are removed from ``possible``.
    """
    left = possible.copy()
    counts: list[dict[int, int]] = [{} for _ in caps]
    found = []
    for place, item in enumerate([*pinned.tolist(), *shown.tolist()]):
        before = left.copy()
        left[item] = False
        for (values, most), count in zip(caps, counts, strict=True):
            value = int(values[item])
            if value >= 0:
                count[value] = count.get(value, 0) + 1
                if count[value] >= most:
                    left &= values != value
        if place < len(pinned):
            possible &= left
        else:
            found.append(np.flatnonzero(before & ~left))
    return found


def _shares(
    p: FloatArray,
    shown: IntArray,
    closing: Sequence[IntArray],
    possible: BoolArray,
    total: Callable[[int, BoolArray], float],
) -> FloatArray:
    """Divide each shown item's probability by the total of the items that its place could show."""
    left, shares = possible.copy(), np.zeros(len(shown))
    for place, item in enumerate(shown.tolist()):
        if not left[item]:
            break
        whole = total(place, left)
        shares[place] = min(float(p[item]) / whole, 1.0) if whole > 0 else 0.0
        left[closing[place]] = False
    return shares


def numbered(values: Iterable[Hashable]) -> IntArray:
    """Return a number for each value; equal values have the same, and missing ones have -1.

    >>> numbered(["a", None, "b", "a", ""]).tolist()
    [0, -1, 1, 0, -1]
    """
    seen: dict[Hashable, int] = {}
    return np.array(
        [-1 if is_missing(v) else seen.setdefault(v, len(seen)) for v in values], dtype=np.int64
    )
