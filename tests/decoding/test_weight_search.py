"""A ranking by weights alone is the one that brute force and the trie search give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny

from genrec import Catalog, Item, Recommender
from genrec.decoding.boosts import Boosts
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import search
from genrec.decoding.types import Options
from genrec.decoding.weight_search import search_weights
from genrec.priors.positions import PositionWeights
from genrec.priors.weights import Weights

TITLES = ["red mug", "red doll", "blue mug", "red mug", "bag", "blue bag of dolls", "red"]


def shop() -> Recommender:
    """Return a catalog in which two items share a title and one was removed."""
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(TITLES)), tiny.language_model()
    )
    recommender.remove_items(["i4"])
    return recommender


SHOP = shop()
PRESENT = [row for row in range(len(TITLES)) if row != 4]


@settings(deadline=None)
@given(st.data())
def test_it_ranks_as_brute_force(data: Any) -> None:
    trie, n = SHOP.trie, SHOP.trie.n_positions
    users = data.draw(st.integers(1, 3))
    positive = st.floats(1e-6, 1e6)
    values = [np.array(data.draw(st.lists(positive, min_size=7, max_size=7))) for _ in range(users)]
    rows = [data.draw(st.lists(st.sampled_from(PRESENT), min_size=1)) for _ in range(users)]
    allowed = [trie.find_positions(np.array(sorted(set(r)))) for r in rows]
    logs = np.array(data.draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n)))
    least = data.draw(st.sampled_from([0.0, 0.1, 0.3]))
    k = [data.draw(st.integers(1, 9)) for _ in range(users)]
    found = search_weights(
        trie,
        PositionWeights([Weights(v) for v in values], trie),
        k,
        allowed=Filters([Filter.allow(p, n) for p in allowed]),
        options=Options(boosts=Boosts(logs), min_probability=least),
    )
    for user in range(users):
        shares = values[user] / values[user][PRESENT].sum()
        place = {r: int(trie.find_positions(np.array([r]))[0]) for r in PRESENT}
        scores = {
            row: np.log(shares[row]) + logs[place[row]]
            for row in set(rows[user])
            if shares[row] > least * (1 + 1e-9)
        }
        expected = sorted(scores.values(), reverse=True)[: k[user]]
        assert found[user].scores == pytest.approx(expected)
        assert found[user].scores == pytest.approx([scores[r] for r in found[user].rows.tolist()])
        assert np.exp(found[user].logprobs) == pytest.approx(shares[found[user].rows])
        assert np.isnan(found[user].alone).all()
        assert found[user].certificate.exact
        assert found[user].certificate.certain_ranks == len(expected)


def test_it_is_the_limit_of_fusion_with_a_model_that_has_no_preferences() -> None:
    trie, rng = SHOP.trie, np.random.default_rng(3)
    tree = SHOP.model.prefill(SHOP.prompt("i0; i2").ids)
    prior = PositionWeights([Weights(rng.random(7) + 0.01)], trie)
    (alone,) = search_weights(trie, prior, [6])
    (fused,) = search(trie, tree, 6, prior=prior, options=Options(temperature=1e9))
    assert np.exp(alone.logprobs).sum() == pytest.approx(1)
    assert alone.rows.tolist() == fused.rows.tolist()
    assert alone.logprobs == pytest.approx(fused.logprobs, abs=1e-6)
    assert alone.prior == pytest.approx(fused.prior)


def test_ties_are_ordered_by_row_and_reported() -> None:
    trie = SHOP.trie
    prior = PositionWeights([Weights(np.array([1.0, 2.0, 1.0, 1.0, 9.0, 1.0, 2.0]))], trie)
    (found,) = search_weights(trie, prior, [4])
    assert found.rows.tolist() == [1, 6, 0, 2]
    assert found.certificate.ties
    (found,) = search_weights(trie, prior, [2])
    assert found.rows.tolist() == [1, 6]
    assert not found.certificate.ties


def test_draws_follow_the_weights_and_the_seed_of_each_prompt() -> None:
    trie = SHOP.trie
    weights = Weights(np.array([4.0, 1.0, 2.0, 1.0, 5.0, 1.0, 1.0]))
    first = np.zeros(7)
    for seed in range(1500):
        (found,) = search_weights(
            trie, PositionWeights([weights], trie), [3], options=Options(draw=(seed,))
        )
        assert len(set(found.rows.tolist())) == 3
        first[found.rows[0]] += 1
    assert first[PRESENT] / 1500 == pytest.approx(weights.values[PRESENT] / 10, abs=0.05)
    both = PositionWeights([weights, weights], trie)
    one, two = search_weights(trie, both, [6, 6], options=Options(draw=(7, 7)))
    assert one.rows.tolist() == two.rows.tolist()
    (alone,) = search_weights(
        trie, PositionWeights([weights], trie), [6], options=Options(draw=(7,))
    )
    assert alone.rows.tolist() == one.rows.tolist()
