"""Likely prefixes are read together with the end of the prompt, and change nothing but the passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from genrec import Catalog, Item
from genrec.decoding import search as searching
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import score, search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options
from genrec.models.logits import Body
from genrec.priors.positions import PositionWeights
from genrec.priors.weights import Weights
from genrec.recommender import Recommender

COLORS, THINGS = (
    ("red", "blue", "red and blue", ""),
    ("mug", "mug with doll", "doll", "doll bag", "bag"),
)
TITLES = [f"{c} {t} {n}".strip() for c in COLORS for t in THINGS for n in ("", "small", "x")]


@pytest.fixture(scope="module")
def trie() -> TitleTrie | LiveTrie:
    catalog = Catalog(Item(f"i{n}", title) for n, title in enumerate(dict.fromkeys(TITLES)))
    return Recommender(catalog, tiny.language_model(), encoder="none").trie


class Passes:
    """Counts the forward passes of a model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        real = Body.__call__

        def counted(body: Any, keep: Any, **inputs: Any) -> Any:
            self.sizes.append(int(inputs["input_ids"].shape[1]))
            return real(body, keep, **inputs)

        monkeypatch.setattr(Body, "__call__", counted)


@given(st.data())
def test_lists_do_not_depend_on_what_was_read_ahead(trie: Any, data: st.DataObject) -> None:
    """Compare with scoring all titles by plain passes, with and without a prior."""
    users = data.draw(st.integers(1, 3))
    prompts = [
        data.draw(st.lists(st.integers(3, 299), min_size=1, max_size=12)) for _ in range(users)
    ]
    prior = None
    if fusion := data.draw(st.sampled_from(["", "node", "score"])):
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        prior = PositionWeights([Weights(rng.random(trie.n_items) ** 4) for _ in prompts], trie)
    options = Options(
        search="exact",
        fusion=fusion or "node",
        temperature=data.draw(st.sampled_from([0.5, 1.0, 4.0])),
        beta=0.7,
        width=data.draw(st.sampled_from([1, 24])),
        fill=data.draw(st.sampled_from([0, 64])),
    )
    banned = data.draw(st.lists(st.integers(0, trie.n_positions - 1), max_size=40))
    allowed = Filters([Filter.deny(np.array(banned, dtype=np.int64), trie.n_positions)] * users)
    given: dict[str, Any] = {"allowed": allowed, "prior": prior}
    kind = data.draw(st.sampled_from(["llama", "gpt2", "gemma"]))
    plain = tiny.language_model(kind, plain=True)
    whole = score(trie, plain.prefill_many(prompts), options=options, **given)
    ahead = data.draw(st.sampled_from([0, 3, 48, searching._PASS]))
    tree = tiny.language_model(kind).prefill_many(prompts)
    k = data.draw(st.integers(1, 12))
    found = search(trie, tree, k, options=replace(options, ahead=ahead), **given)
    for ours, theirs in zip(found, whole, strict=True):
        assert ours.certificate.exact
        assert len(ours.rows) == min(k, len(theirs.rows))
        assert ours.scores == pytest.approx(theirs.scores[: len(ours.rows)], abs=1e-4)
        by_row = dict(zip(theirs.rows.tolist(), theirs.scores.tolist(), strict=True))
        assert ours.scores == pytest.approx([by_row[r] for r in ours.rows.tolist()], abs=1e-4)


def test_given_items_take_one_pass_with_the_prompt(
    trie: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    model = tiny.language_model()
    for users in (1, 3):
        passes.sizes.clear()
        tree = model.prefill_many([[5, 6, 7]] * users)
        allowed = Filters([Filter.allow(np.arange(0, 40, 3), trie.n_positions)] * users)
        score(trie, tree, allowed=allowed)
        assert len(passes.sizes) == 1


def test_a_list_takes_fewer_passes(trie: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    model, options = tiny.language_model(), Options(search="exact", width=4, fill=16)

    def count(ahead: int, prompts: int, asked: bool = False) -> int:
        passes.sizes.clear()
        tree = model.prefill_many([[5, 6, 7]] * prompts)
        if asked:
            assert len(tree.root) == prompts
        search(trie, tree, 5, options=replace(options, ahead=ahead))
        return len(passes.sizes)

    assert count(48, 1) < count(0, 1) == count(48, 1, asked=True)
    assert count(48, 3) == count(0, 3)  # with more prompts, passes are full anyway
