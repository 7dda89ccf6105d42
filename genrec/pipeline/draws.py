"""Apply ``pipeline.propensities`` to a list of catalog items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from genrec.config import QueryOptions
from genrec.decoding.trie import ranges
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.propensities import numbered, place_probabilities
from genrec.pipeline.request import Request
from genrec.types import FloatArray, IntArray

Score = Callable[[IntArray], tuple[IntArray, FloatArray]]


def list_propensities(
    rows: IntArray,
    pinned: int,
    request: Request,
    index: CatalogIndex,
    score: Score,
    *,
    all_known: bool,
) -> FloatArray:
    """Compute the probability with which a draw shows each item of a list, given those before it.

    Args:
        rows: (n,) the catalog rows of the list, in order.
        pinned: the number of pinned items at the beginning, whose probability is 1.
        request: the request, which must not ask for diversity.
        index: the catalog index.
        score: a function that takes trie positions and returns them in any order, with the
            log-probabilities of their items.
        all_known: True if the weights of all items are known. ``score`` then returns their logarithms,
            which need not sum to 1.
    """
    options, trie = request.options, index.trie
    _, low, high = trie.intervals(np.array([trie.root], dtype=np.int64))
    live = ranges(low, high - low)
    place = np.full(trie.n_positions, -1)
    place[live] = np.arange(len(live))
    listed = place[trie.find_positions(rows)]

    def chance(items: IntArray) -> FloatArray:
        if all_known:
            _, logs = score(live)
            weights = np.exp(logs - logs.max())
            return np.asarray((weights / weights.sum())[items])
        positions, logs = score(live[items])
        found = np.zeros(len(live))
        found[place[positions]] = np.exp(logs)
        return np.asarray(found[items])

    live_rows = trie.rows_at(live)
    places = place_probabilities(
        listed[pinned:],
        request.allowed.keeps(live),
        chance,
        caps=[(values[live_rows], most) for values, most in _caps(options, index)],
        first=listed[:pinned],
        least=options.min_probability,
    )
    return np.concatenate([np.ones(pinned), places])


def _caps(options: QueryOptions, index: CatalogIndex) -> list[tuple[IntArray, int]]:
    """Return, for each cap, the number of each catalog row's value, and the cap."""

    def column(name: str) -> IntArray:
        return index.made(("numbers", name), lambda: numbered(index.column(name).tolist()))

    def titles() -> IntArray:
        form = index.encoder.form
        return numbered(form.render(title) for title in index.catalog.titles)

    caps = [(column(name), int(most)) for name, most in options.caps.items()]
    if options.per_title is not None:
        caps.append((index.made("numbers of titles", titles), int(options.per_title)))
    if options.per_group and index.groups.names:
        caps.append((index.groups.numbers, int(options.per_group)))
    return caps


def seed_of(seed: int, ids: Sequence[int]) -> int:
    """Compute the random seed for a prompt from the seed of the settings and the prompt's ids."""
    data = np.array([seed, *ids], dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
