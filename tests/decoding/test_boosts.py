"""A search with factors on the scores finds the items that brute force finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import tiny

from genrec import Catalog, Item, Recommender
from genrec.decoding.boosts import Boosts
from genrec.decoding.search import score, search
from genrec.decoding.types import Options


def shop(**settings: Any) -> Recommender:
    """Return 300 items with titles of few words, whose paths share much."""
    words = ["red", "blue", "mug", "doll", "set", "of", "1", "12", "house", "re", "m"]
    rng = np.random.default_rng(5)
    names = [" ".join(rng.choice(words, size=rng.integers(1, 6))) for _ in range(300)]
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    return Recommender(catalog, tiny.language_model(), **settings)


def test_the_highest_factor_of_a_range() -> None:
    logs = np.log(np.array([1.0, 3.0, 0.5, 2.0]))
    boosts = Boosts(logs)
    low, high = np.array([0, 1, 2, 3, 0]), np.array([1, 4, 4, 4, 4])
    expected = [logs[a:b].max() for a, b in zip(low, high, strict=True)]
    assert boosts.best(low, high).tolist() == expected
    assert boosts.best(low[:0], high[:0]).tolist() == []
    assert boosts.at(np.array([2, 0])).tolist() == [logs[2], 0.0]


@pytest.mark.parametrize("mode", ["catalog", "vocab"])
@pytest.mark.parametrize("spread", [0.5, 5.0, 50.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_boosted_items_are_found_one_prefix_at_a_time(
    mode: str, spread: float, seed: int
) -> None:
    recommender = shop(normalization=mode)
    trie, prompt = recommender.trie, recommender.prompt("i3; i17").ids
    rng = np.random.default_rng(seed)
    logs = np.where(rng.random(300) < 0.2, rng.normal(0, spread, 300), 0.0)
    plain = Options(normalization=mode, search="exact", width=1, fill=0)
    (full,) = score(trie, recommender.model.prefill(prompt), options=plain)
    factors = dict(zip(trie.rows_at(np.arange(300)).tolist(), logs.tolist(), strict=True))
    scores = {
        row: value + factors[row]
        for row, value in zip(full.rows.tolist(), full.logprobs.tolist(), strict=True)
    }
    expected = sorted(scores.values(), reverse=True)
    for k in (1, 5, 20):
        boosted = Options(normalization=mode, search="exact", width=1, fill=0, boosts=Boosts(logs))
        (found,) = search(trie, recommender.model.prefill(prompt), k, options=boosted)
        assert found.certificate.exact
        assert found.scores == pytest.approx(expected[:k], abs=4e-4)
        assert found.scores == pytest.approx([scores[r] for r in found.rows.tolist()], abs=4e-4)
        assert found.certificate.tokens < full.certificate.tokens
    for size in (1, 8, 400):
        beam = Options(
            normalization=mode, search="beam", beam_size=size, boosts=Boosts(logs), on_device=True
        )
        (found,) = search(trie, recommender.model.prefill(prompt), 5, options=beam)
        certain = found.certificate.certain_ranks
        assert found.scores[:certain] == pytest.approx(expected[:certain], abs=4e-4)
        assert certain == 5 or size < 400
