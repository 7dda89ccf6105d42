from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import metrics

ranks = st.lists(st.integers(0, 30), min_size=1, max_size=30)


@given(ranks, st.integers(1, 20))
def test_ndcg_never_exceeds_hit_rate_and_both_rise_with_k(values: list[int], k: int) -> None:
    assert np.all(metrics.ndcg(values, k) <= metrics.hit_rate(values, k))
    assert np.all(metrics.ndcg(values, k) <= metrics.ndcg(values, k + 1))
    assert np.all(metrics.hit_rate(values, k) <= metrics.hit_rate(values, k + 1))


def test_by_hand() -> None:
    assert metrics.ndcg([2, 5, 6], 5).tolist() == pytest.approx([1 / np.log2(3), 1 / np.log2(6), 0])
    assert metrics.recall([["a", "b"], ["c"]], [["b", "x"], ["x", "c"]], 1).tolist() == [0.5, 0.0]


def test_the_interval_covers_the_mean_and_is_seeded() -> None:
    values = np.random.default_rng(1).random(200)
    one, two = metrics.bootstrap(values), metrics.bootstrap(values)
    assert one == two
    assert one.low < one.mean < one.high
    spread = 1.96 * values.std() / np.sqrt(200)
    assert one.high - one.mean == pytest.approx(spread, rel=0.1)
    assert one.mean - one.low == pytest.approx(spread, rel=0.1)
    constant = metrics.bootstrap([0.5] * 10)
    assert (constant.low, constant.mean, constant.high) == (0.5, 0.5, 0.5)
