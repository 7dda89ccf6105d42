"""Compute the scores of similar items from event counts and from cosines between titles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.matching.ngrams import NEAR
from genrec.types import FloatArray, IntArray

_POWER = (
    3  # exponent of the cosines in the share of titles, as in the source ``titles`` of the prior
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Event counts that relate each of N items to R given items.

    Attributes:
        shares: (R, N) share of each item for each given item. A row of zeros means that the given
            item has no counts.
        users: (N,) number of users who have the item and at least one of the given items.
    """

    shares: FloatArray
    users: IntArray

    @property
    def known(self) -> Any:
        """An (R,) mask that is True for given items that have counts."""
        return self.shares.any(axis=1)


def score_items(used: str, counted: Counted | None, cosines: FloatArray | None) -> FloatArray:
    """Compute the (N,) scores of all items.

    Args:
        used: see ``SimilarList.used``.
        counted: the event counts; needed unless ``used`` is ``titles``.
        cosines: (R, N) cosines between titles; needed unless ``used`` is ``prior``.
    """
    if used == "titles":
        assert cosines is not None
        return np.asarray(cosines.mean(axis=0))
    assert counted is not None
    if used == "prior":
        return mean_of_known(counted)
    assert cosines is not None
    both = (counted.shares + _share_of_titles(cosines)) / 2
    both = np.where(counted.known[:, None], both, _share_of_titles(cosines))
    return np.asarray(both.mean(axis=0))


def mean_of_known(counted: Counted) -> FloatArray:
    """Return the (N,) shares, averaged over the given items that have counts."""
    return np.asarray(counted.shares[counted.known].sum(axis=0) / max(counted.known.sum(), 1))


def _share_of_titles(cosines: FloatArray) -> FloatArray:
    """Turn (R, N) cosines between titles into shares that sum to 1 over the nearest titles."""
    shares = np.zeros_like(cosines)
    for row, values in zip(shares, cosines, strict=True):
        near = np.argsort(-values, kind="stable")[:NEAR]
        row[near] = values[near] ** _POWER
    total = shares.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(shares, total, out=shares, where=total > 0))


def describe_lack(found: int, used: str) -> str:
    """Explain why the list is shorter than requested."""
    many = "no allowed item goes" if not found else f"only {found} of the allowed items go"
    said = f"{many[0].upper()}{many[1:]} with the given items"
    if used == "prior":
        return f"{said} by counts. With both counts and titles, there may be more."
    return f"{said}."
