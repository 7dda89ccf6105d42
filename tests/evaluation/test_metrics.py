from __future__ import annotations

from typing import Any

import ir_measures
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from genrec.evaluation import bootstrap, metrics

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
    one, two = bootstrap.bootstrap(values), bootstrap.bootstrap(values)
    assert one == two
    assert one.low < one.mean < one.high
    spread = 1.96 * values.std() / np.sqrt(200)
    assert one.high - one.mean == pytest.approx(spread, rel=0.1)
    assert one.mean - one.low == pytest.approx(spread, rel=0.1)
    constant = bootstrap.bootstrap([0.5] * 10)
    assert (constant.low, constant.mean, constant.high) == (0.5, 0.5, 0.5)


def made_lists(
    users: int, places: int, items: int, seed: int = 0
) -> tuple[metrics.RowArray, list[list[int]]]:
    """Random lists of distinct rows, some short, and one to four relevant rows a user."""
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(items)[:places] for _ in range(users)]).astype(np.int32)
    lists[np.arange(places) >= rng.integers(0, places + 1, users)[:, None]] = metrics.END
    relevant = [rng.choice(items, rng.integers(1, 5), replace=False).tolist() for _ in range(users)]
    return lists, relevant


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_ir_measures(seed: int) -> None:
    lists, relevant = made_lists(400, 25, 60, seed)
    joined = np.concatenate([np.array(r) for r in relevant])
    hit = metrics.hits(joined, metrics.starts(relevant), lists)
    n_relevant = np.array([len(r) for r in relevant])
    qrels = [ir_measures.Qrel(f"{u}", f"{i}", 1) for u, r in enumerate(relevant) for i in r]
    run = [
        ir_measures.ScoredDoc(f"{u}", f"{i}", float(-place))
        for u, ranked in enumerate(lists.tolist())
        for place, i in enumerate(ranked)
        if i >= 0
    ]
    theirs = {"hit_rate": "Success", "recall": "R", "mrr": "RR", "ndcg": "nDCG"}
    for k in (1, 5, 10, 20):
        ours = metrics.set_metrics(hit, n_relevant, k)
        for name, other in theirs.items():
            if (name, k) == ("mrr", 1):
                continue
            wanted = np.zeros(len(lists))
            for value in ir_measures.iter_calc(
                [ir_measures.parse_measure(f"{other}@{k}")], qrels, run
            ):
                wanted[int(value.query_id)] = value.value
            assert np.abs(ours[name] - wanted).max() < 1e-9, (name, k)


def test_one_target_is_a_set_of_one() -> None:
    lists, relevant = made_lists(300, 20, 40)
    targets = np.array([r[0] for r in relevant])
    ranks = metrics.ranks_of(targets, lists)
    hit = metrics.hits(targets, np.arange(301), lists)
    for k in (1, 5, 20, 30):
        ours = metrics.set_metrics(hit, np.ones(300, dtype=np.int64), k)
        assert np.allclose(ours["hit_rate"], metrics.hit_rate(ranks, k), atol=1e-12)
        assert np.allclose(ours["ndcg"], metrics.ndcg(ranks, k), atol=1e-12)
        assert np.allclose(ours["mrr"], metrics.mrr(ranks, k), atol=1e-12)


def test_a_repeated_item_hits_once_and_makes_a_list_invalid() -> None:
    lists = np.array([[3, 3, 1], [3, 2, 1], [3, -2, 1], [3, 2, -1]], dtype=np.int32)
    assert metrics.hits([3, 3, 3, 3], np.arange(5), lists)[:, :2].tolist() == [[True, False]] * 4
    assert metrics.invalid(lists, 3).tolist() == [True, False, True, True]
    assert metrics.invalid(lists, [3, 3, 3, 2]).tolist() == [True, False, True, False]
    assert metrics.invalid(lists, 4).all()


@pytest.mark.parametrize("seed", range(3))
def test_hits_and_invalid_lists_are_those_found_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = rng.integers(-2, 12, (200, 9)).astype(np.int32)  # many repeats and unknown items
    relevant = [rng.integers(0, 12, rng.integers(0, 40)).tolist() for _ in range(200)]
    joined = np.array([i for r in relevant for i in r])
    found = metrics.hits(joined, metrics.starts(relevant), lists)
    wanted = [
        [i in wish and i not in ranked[:place] for place, i in enumerate(ranked)]
        for wish, ranked in zip(relevant, lists.tolist(), strict=True)
    ]
    assert found.tolist() == wanted
    bad = [
        -2 in ranked or len({i for i in ranked if i >= 0}) < max(9, sum(i >= 0 for i in ranked))
        for ranked in lists.tolist()
    ]
    assert metrics.invalid(lists, 9).tolist() == bad
    short = [len(set(r) - {-1}) < len([i for i in r if i != -1]) or -2 in r for r in lists.tolist()]
    assert metrics.invalid(lists, 0).tolist() == short


def test_many_users_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lists, relevant = made_lists(50, 12, 30)
    joined, start = np.concatenate(relevant), metrics.starts(relevant)
    vectors = np.eye(30)

    def computed() -> list[npt.NDArray[Any]]:
        return [
            metrics.ranks_of([r[0] for r in relevant], lists),
            metrics.hits(joined, start, lists),
            metrics.invalid(lists, 12),
            metrics.diversity(lists, vectors, 5),
        ]

    whole = computed()
    monkeypatch.setattr(metrics, "MAX_CELLS", 30)  # two users at a time
    for one, two in zip(whole, computed(), strict=True):
        assert np.array_equal(one, two, equal_nan=one.dtype == np.float64)


def test_beyond_accuracy_by_hand() -> None:
    lists = np.array([[0, 1, 2], [0, 2, -1], [-1, -1, -1]], dtype=np.int32)
    assert metrics.coverage(lists, 4, 1) == 0.25
    assert metrics.coverage(lists, 4, 3) == 0.75
    assert metrics.exposure(lists, 4, 3).tolist() == [2, 1, 2, 0]
    assert np.isnan(metrics.novelty(lists, [1, 1, 2, 0], 3)[2])
    vectors = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    for given_vectors in (vectors, sparse.csr_array(vectors)):
        found = metrics.diversity(lists, given_vectors, 3)
        assert found[:2] == pytest.approx([2 / 3, 0.0])
        assert np.isnan(found[2])


def test_many_intervals_at_once_are_those_of_each() -> None:
    values = np.random.default_rng(2).random((150, 3))
    assert bootstrap.bootstraps(values)[1].low == pytest.approx(
        bootstrap.bootstrap(values[:, 1]).low
    )
    assert bootstrap.bootstraps(values)[2].high == pytest.approx(
        bootstrap.bootstrap(values[:, 2]).high
    )


def test_intervals_of_many_users_with_few_distinct_values(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    ranks = rng.integers(0, 40, 20_000)
    values = np.stack([metrics.ndcg(ranks, 20), rng.random(20_000), metrics.hit_rate(ranks, 5)], 1)
    found = bootstrap.bootstraps(values)
    assert [i.mean for i in found] == pytest.approx(values.mean(axis=0))
    assert found[0].low == pytest.approx(bootstrap.bootstrap(values[:, 0]).low)
    monkeypatch.setattr(bootstrap, "ALIKE_ABOVE", 1_000_000)
    one_by_one = bootstrap.bootstraps(values)
    assert found[1].low == pytest.approx(one_by_one[1].low, abs=1e-12)
    for one, other, column in zip(found, one_by_one, values.T, strict=True):
        error = column.std() / np.sqrt(20_000)
        assert abs(one.low - other.low) < 0.1 * error
        assert abs(one.high - other.high) < 0.1 * error
        assert one.high - one.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_calibration_of_true_probabilities_is_near_zero() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    good = metrics.calibration(p, rng.random(20_000) < p)
    assert good.error < 0.02
    assert good.count.tolist() == [2000] * 10
    assert metrics.calibration(p, np.zeros(20_000)).error == pytest.approx(p.mean())
