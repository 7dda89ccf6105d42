"""Priors by interval, and fused in search: against plain sums, and against the slow recursion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.reference import fused_logprobs, logprobs, ranked
from support.titles import requests

from genrec import Catalog, Dataset, History, Item, Recommender
from genrec.config import PROTOCOL
from genrec.decoding.trie import TitleTrie
from genrec.errors import RequestError, SettingsError
from genrec.priors.positions import PositionWeights
from genrec.priors.weights import ItemPrior, Weights

weights = st.floats(1e-3, 1e3)


@given(st.data(), st.integers(1, 30))
def test_intervals_equal_sums_over_their_positions(data: st.DataObject, n: int) -> None:
    titles = [[data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)), 0] for _ in range(n)]
    trie = TitleTrie(titles)
    users, plain = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        values = np.array(data.draw(st.lists(weights, min_size=n, max_size=n)))
        how = data.draw(st.sampled_from(["dense", "sparse", "added"]))
        rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        chosen = np.isin(np.arange(n), rows)
        if how == "sparse":
            rest = data.draw(weights)
            users.append(Weights(values[rows], rows, rest))
            values = np.where(chosen, values, rest)
        elif how == "added":
            base = np.array(data.draw(st.lists(weights, min_size=n, max_size=n)))
            users.append(Weights(values[rows], rows, base=Weights(base)))
            values = base + np.where(chosen, values, 0.0)
        else:
            users.append(Weights(values))
        plain.append(values[trie.order])
    fused = PositionWeights(users, trie)
    user = np.repeat(np.arange(len(users)), 10)
    low = np.array([data.draw(st.integers(0, n - 1)) for _ in user])
    high = np.array([data.draw(st.integers(int(x) + 1, n)) for x in low])
    mass, best = fused.mass(user, low, high), fused.best(user, low, high)
    for u in np.unique(user):
        which = np.flatnonzero(user == u)
        wanted = np.array([plain[u][low[i] : high[i]].sum() for i in which])
        assert mass[which] / mass[which[0]] == pytest.approx(wanted / wanted[0], rel=1e-6)
        top = np.array([np.log(plain[u][low[i] : high[i]].max()) for i in which])
        assert best[which] - best[which[0]] == pytest.approx(top - top[0], abs=1e-9)
        assert fused.at(user[which], low[which]) - best[which[0]] == pytest.approx(
            np.log(plain[u][low[which]]) - top[0], abs=1e-9
        )


class Given:
    """Weights that were written down."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def weights(self, history: History) -> Weights:
        """See ``ItemPrior``."""
        del history
        return self._weights


def with_prior(recommender: Recommender, prior: ItemPrior, **settings: Any) -> Recommender:
    first = recommender.with_settings(**settings)
    first.prior = prior
    return first.with_settings()  # which keeps it


@given(requests(), st.data(), st.sampled_from([0.3, 1.0, 2.0]), st.integers(1, 6))
def test_weighing_children_equals_the_slow_recursion(
    request: tuple[Recommender, History], data: st.DataObject, beta: float, k: int
) -> None:
    recommender, history = request
    n = len(recommender.catalog)
    values = data.draw(st.lists(weights, min_size=n, max_size=n))
    prior = Given(Weights(np.array(values)))
    shared = {"normalization": "catalog", "prior_weight": beta, "exclude_seen": False}
    fused = with_prior(recommender, prior, **shared)
    sequences = list(fused.encoder.titles(fused.catalog))
    ids = fused.prompt(history).ids
    expected = fused_logprobs(fused.model.model, ids, sequences, values, beta)
    answer = fused.score(history)
    got = {int(r.item_id[1:]): r.logprob for r in answer}
    assert [got[r] for r in range(n)] == pytest.approx(expected, abs=2e-4)
    assert sum(r.probability for r in answer) == pytest.approx(1.0, abs=1e-6)
    searched = with_prior(recommender, prior, **shared, search="exact")
    exact = searched.recommend(history, k, options=PROTOCOL)
    best = [expected[r] for r in ranked(expected, list(range(n)))[:k]]
    assert [r.logprob for r in exact] == pytest.approx(best, abs=2e-4)
    assert exact.details["certificate"]["exact"]


@given(requests(), st.data(), st.sampled_from([0.3, 2.0]), st.integers(1, 6), st.booleans())
def test_adding_to_the_score_stays_exact(
    request: tuple[Recommender, History], data: st.DataObject, beta: float, k: int, sparse: bool
) -> None:
    recommender, history = request
    n = len(recommender.catalog)
    values = np.array(data.draw(st.lists(weights, min_size=n, max_size=n)))
    values = np.where(np.arange(n) % 3 == 0, values, 1.0) if sparse else values
    rows = np.arange(0, n, 3)
    prior = Given(Weights(values[rows], rows) if sparse else Weights(values))
    fused = with_prior(
        recommender, prior, fusion="score", prior_weight=beta, search="exact", exclude_seen=False
    )
    mode = fused.settings.normalization
    sequences = list(fused.encoder.titles(fused.catalog))
    plain = logprobs(fused.model.model, fused.prompt(history).ids, sequences, mode)
    scores = [p + beta * np.log(v / values.max()) for p, v in zip(plain, values, strict=True)]
    answer = fused.recommend(history, k, options=PROTOCOL)
    got = [int(r.item_id[1:]) for r in answer]
    assert [r.logprob for r in answer] == pytest.approx([plain[r] for r in got], abs=2e-4)
    best = np.array([scores[r] for r in ranked(scores, list(range(n)))[:k]])
    offset = answer[0].score - best[0]
    assert [r.score for r in answer] == pytest.approx(best + offset, abs=4e-4)


@pytest.mark.parametrize("beta", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("sparse", [False, True])
def test_great_weights_and_powers_stay_true(beta: float, sparse: bool) -> None:
    names = ["red mug", "red doll", "red doll house", "blue mug", "set of 12", "set of 1"]
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    values = np.array([1.0, 1e-18, 2e-18, 1e-24, 3e-12, 5e-20])
    recommender = Recommender(catalog, tiny.language_model(), prior_weight=beta, encoder="none")
    recommender.prior = Given(Weights(values, np.arange(6) if sparse else None))
    sequences = list(recommender.encoder.titles(catalog))
    ids = recommender.prompt("").ids
    expected = fused_logprobs(recommender.model.model, ids, sequences, values.tolist(), beta)
    got = {int(r.item_id[1:]): r.logprob for r in recommender.score("")}
    assert [got[r] for r in range(6)] == pytest.approx(expected, rel=1e-6, abs=1e-4)


def test_popularity_and_novelty_pull_either_way(demo_data: Dataset) -> None:
    model = tiny.language_model("llama")
    columns = demo_data.interactions.columns
    counts = np.bincount(columns.row[columns.split == 0], minlength=len(demo_data.catalog))

    def mean_count(**settings: Any) -> float:
        recommender = Recommender(demo_data, model, exclude_seen=False, **settings)
        rows = recommender.catalog.rows([r.item_id for r in recommender.recommend("", 50)])
        return float(counts[rows].mean())

    for fusion in ("node", "score"):
        plain = mean_count(prior="none")
        assert mean_count(prior="popularity", prior_weight=2.0, fusion=fusion) > plain
        assert mean_count(prior="novelty", prior_weight=2.0, fusion=fusion) < plain
        assert mean_count(prior="novelty", prior_weight=0.0, fusion=fusion) == plain


def test_a_prior_is_checked() -> None:
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(RequestError, match="prior weight"):
            Weights(np.array([1.0, bad]))
    with pytest.raises(RequestError, match="no repeated rows"):
        Weights(np.array([1.0, 2.0]), np.array([0, 0]))
    for wrong in ([[1.0]], None, "x", ["x"]):
        with pytest.raises(RequestError, match="prior weights"):
            Weights(wrong)  # type: ignore[arg-type]
    trie = TitleTrie([[1], [2]])
    lists = PositionWeights([Weights([1.0, 3.0], [1, 0])], trie)  # type: ignore[arg-type]
    assert lists.mass(np.array([0]), np.array([0]), np.array([2])) == pytest.approx(4 / 3)
    with pytest.raises(RequestError, match=r"The prior.s method weights"):
        PositionWeights([np.ones(2)], trie)  # type: ignore[list-item]
    catalog = Catalog([Item("a", "red mug")])
    for settings, message in (
        ({"prior_weight": float("inf")}, "prior_weight=inf"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
        ({"node_temperature": 1e-3}, "node_temperature=0.001"),
        ({"search": "sample", "normalization": "vocab"}, "no distribution over items"),
        ({"search": "sample", "prior": "novelty", "fusion": "score"}, "fusion='score'"),
        ({"prior_events": "test"}, "prior_events='test'"),
    ):
        with pytest.raises(SettingsError, match=message):
            Recommender(catalog, tiny.language_model(), **settings)
    with pytest.raises(SettingsError, match="without a dataset"):
        Recommender(catalog, tiny.language_model(), prior="popularity")
    with pytest.raises(SettingsError, match="fusion='score'"):
        Recommender(
            catalog,
            tiny.language_model(),
            prior="popularity",
            normalization="vocab",
            fusion="node",
        )
