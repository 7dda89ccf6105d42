"""The sources ``knowledge`` and ``vectors``: cosines, updates, edits, saving, and off where they are useless."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support import tiny

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.config import KNOWLEDGE, VECTORS
from genrec.data.item_vectors import ItemVectors
from genrec.data.knowledge import Knowledge, Triples
from genrec.models.language_model import LanguageModel
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.priors.counts import count
from genrec.priors.knowledge_links import KnowledgeLinks

N = 40
MIX = {"popular": 1.0, KNOWLEDGE: 2.0, VECTORS: 2.0, "own": 1.0}


def shop(useful: bool, users: int = 72) -> Dataset:
    """Users who like one brand each. The column ``brand`` names it, or says nothing."""
    rng = np.random.default_rng(0)
    brand = np.arange(N) % 8
    rows = []
    for user in range(users):
        mine = rng.permutation(np.flatnonzero(brand == user % 8))
        rows += [
            (f"u{user}", f"i{item}", "buy", 1e9 + 86_400 * n) for n, item in enumerate(mine[:4])
        ]
    events = pa.table(
        dict(
            zip(
                ("user_id", "item_id", "behavior", "timestamp"),
                map(list, zip(*rows, strict=True)),
                strict=True,
            )
        )
    )
    told = brand if useful else rng.permutation(brand)
    letters = [chr(97 + n % 26) * 3 + chr(97 + n // 26) * 3 for n in range(N)]
    items = pa.table(
        {"item_id": [f"i{n}" for n in range(N)], "title": letters, "brand": [f"b{b}" for b in told]}
    )
    data = Dataset.from_tables(items, events, name="shop").with_knowledge(["brand"])
    found = np.eye(8, dtype=np.float32)[told] * 3
    return replace(data, item_vectors=ItemVectors(tuple(f"i{n}" for n in range(N)), found))


def test_links_are_cubes_of_cosines_of_rarities() -> None:
    items = [("a", "x|y"), ("b", "x|y"), ("c", "x"), ("d", "z"), ("e", None)]
    catalog = Catalog([Item(i, i, {"tags": tags}) for i, tags in items])
    links = KnowledgeLinks(catalog, Knowledge(("tags",))).nearest.links(np.arange(5)).toarray()
    x, y = np.log(5 / 3), np.log(5 / 2)
    slow = np.zeros((5, 5))
    slow[0, 1] = slow[1, 0] = 1
    slow[0, 2] = slow[1, 2] = slow[2, 0] = slow[2, 1] = (x / np.hypot(x, y)) ** 3
    assert links == pytest.approx(slow, abs=1e-6)


def test_the_share_is_fitted_and_off_where_it_does_not_help() -> None:
    sources = [n for n in COUNTED if n in {"popular", "own", "titles"}]
    useful, useless = (
        CollaborativePrior.fit(
            replace(shop(u), item_vectors=None), before="test", sources=[*sources, KNOWLEDGE]
        )
        for u in (True, False)
    )
    assert useful.mix[KNOWLEDGE] > 0.3
    assert useless.mix[KNOWLEDGE] >= 0.01  # it was asked for
    assert sum(useless.mix.values()) == pytest.approx(1)
    joined = CollaborativePrior.fit(shop(False))
    assert joined.mix[KNOWLEDGE] == joined.mix[VECTORS] == 0
    assert KNOWLEDGE not in CollaborativePrior.fit(shop(True).with_knowledge([]), before="test").mix


def test_both_ways_of_mixing_agree_and_saving_keeps_all(tmp_path: Path) -> None:
    data = shop(True)
    triples = Triples(
        pa.table({"head": ["i1", "i2"], "relation": ["maker"] * 2, "tail": ["Ä", "Ä"]})
    )
    data = replace(data, triples=triples).with_knowledge(["brand", "maker"])
    prior = CollaborativePrior(count(data, "buy", "end"), MIX)
    history = data.interactions.history("u1")
    one = prior._mixture.weights(history)
    two = prior._mixture.combine(prior._mixture.parts_of([history])[0])
    assert {*one.sources} == {*two.sources} == {*MIX}
    probabilities = np.exp(prior.logprobs(history))
    assert probabilities.sum() == pytest.approx(1)
    whole = two.values if two.base is None else two.base.values.copy()
    if two.base is not None:
        whole[two.rows] += two.values
    assert probabilities == pytest.approx(whole / whole.sum())
    prior.save(tmp_path / "prior.safetensors")
    for place in (data, data.catalog):
        loaded = CollaborativePrior.load(tmp_path / "prior.safetensors", place)
        assert np.exp(loaded.logprobs(history)) == pytest.approx(probabilities)
    data.save(tmp_path / "data")
    stored = Dataset.load(tmp_path / "data")
    first, second = (
        CollaborativePrior.fit(stored, sources=["popular", KNOWLEDGE]) for _ in range(2)
    )
    assert len([*(tmp_path / "data" / "cache").iterdir()]) == 1
    assert first.logprobs(history) == pytest.approx(second.logprobs(history))


def test_new_items_get_weight_from_their_attributes() -> None:
    data = shop(True)
    recommender = Recommender(
        data, model(), prior_sources="popular,ease,knowledge", encoder="none", model_role="explain"
    )
    history = History((Interaction("i0", "buy"), Interaction("i8", "buy")))
    before = recommender.prior
    assert isinstance(before, CollaborativePrior)
    ease = before.counts.ease
    recommender.add_items([Item("new", "novel thing", {"brand": "B0"}), Item("odd", "odd thing")])
    prior = recommender.prior
    assert isinstance(prior, CollaborativePrior)
    chances = np.exp(prior.logprobs(history))
    assert len(chances) == N + 2
    assert chances[N] > 3 * chances[N + 1]
    assert prior.counts.saved["ease"].shape == (N + 2, N + 2)  # kept, not computed again
    assert np.abs(prior.counts.ease[:N, :N] - ease).max() == 0
    assert (
        recommender.score(history, ["new"])[0].probability
        > recommender.score(history, ["odd"])[0].probability
    )
    recommender.put_items([Item("odd", "odd thing", {"brand": "b0"})])
    again = np.exp(prior.logprobs(history))
    assert again[N + 1] == pytest.approx(again[N])
    prior.update({"u1": ["new"]})
    assert prior.counts.popularity[N] == 1
    assert np.exp(prior.logprobs(history))[N] > np.exp(prior.logprobs(history))[N + 1]


def model() -> LanguageModel:
    return tiny.language_model()


def test_title_vectors_given_as_vectors_are_the_source_titles() -> None:
    data = shop(True)
    titles = [f"{c} mug {n % 5}" for n, c in enumerate(["red", "blue", "green", "tin"] * 10)]
    catalog = Catalog([Item(f"i{n}", title) for n, title in enumerate(titles)])
    data = replace(data, catalog=catalog).with_knowledge([])
    counts = count(data, "buy", "end")
    grams = counts.title_neighbors.alike.vectors.toarray()
    given = ItemVectors(tuple(i.item_id for i in catalog), grams)
    counts = count(replace(data, item_vectors=given), "buy", "end")
    histories = [data.interactions.history(u) for u in data.interactions.user_ids[:20]]
    ours, usual = (counts.shares(s, histories).toarray() for s in (VECTORS, "titles"))
    assert usual.sum() > 0
    assert ours == pytest.approx(usual, abs=1e-6)
