"""The weights of one history are those of the sparse matrices of many histories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.config import COUNTED
from genrec.data.catalog import Catalog, Item
from genrec.data.events import History, Interaction
from genrec.errors import RequestError
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import Counts
from genrec.priors.mixture import POPULAR, Mixture
from genrec.priors.rank_fit import to_dense
from genrec.priors.weights import Weights

TITLES = [
    "red mug",
    "red mug large",
    "blue mug",
    "tea tray",
    "tea tray blue",
    "lamp",
    "cake tin red",
]
CATALOG = Catalog([Item(str(n), title) for n, title in enumerate(TITLES)])
rows = st.lists(st.integers(0, len(TITLES) - 1), max_size=8)
mixes = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.3, 1.0]) for name in COUNTED})


def counted(events: list[list[int]]) -> Counts:
    prior = CollaborativePrior(Counts.none(CATALOG), {POPULAR: 1.0})
    prior.update({f"u{n}": [str(row) for row in each] for n, each in enumerate(events)})
    return prior.counts


@given(st.lists(rows, max_size=6), rows, mixes, st.booleans())
def test_weights_equal_the_combined_parts(
    events: list[list[int]], past: list[int], mix: dict[str, float], every: bool
) -> None:
    counts = counted(events)
    if every:
        assert counts.cosines._every is not None  # all cosines are kept from now on
    total = sum(mix.values()) + 1.0
    shares = {name: (share + (name == POPULAR)) / total for name, share in mix.items()}
    mixture = Mixture(counts, shares)
    known = History(tuple(Interaction(str(row), "buy") for row in past))
    history = History(tuple(Interaction(item, "buy") for item in [*map(str, past), "unknown"]))
    slow, fast = mixture.combine(mixture.parts_of([history])[0]), mixture.weights(history)
    assert to_dense(fast) == pytest.approx(to_dense(slow), rel=1e-12)
    assert fast.sources == slow.sources
    for source, part in mixture.parts(history).items():
        assert part.toarray() == pytest.approx(mixture.shares(source, [known]).toarray())


def test_repeated_rows_are_refused_in_any_order() -> None:
    for repeated in ([1, 1, 2], [2, 0, 2]):
        with pytest.raises(RequestError, match="2 are distinct"):
            Weights(np.ones(3), np.array(repeated))
    assert len(Weights(np.ones(3), np.array([2, 0, 1])).values) == 3
