"""Properties of search over random catalogs, on tiny models of several architectures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import forward, logprobs, ranked

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.decoding import Ranking, search
from genrec.recommender import RecommendationList
from genrec.text import visible
from genrec.token_tree import ROOT

# Short words over a small alphabet make shared prefixes and duplicates likely; the rest is what
# real catalogs are full of.
WORDS = ["red", "mug", "re", "set of 1", "set of 12", "A", "a", "红色", "杯子", "☕", "👩‍🚀", "ß"]
CONTROL = ["<|im_end|>", "<|endoftext|>", "<tool_call>", "</s>", "<s>", "<unk>", "\x1b[0m", "\n"]
titles = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("".join),
    st.tuples(st.sampled_from(WORDS), st.sampled_from(CONTROL), st.sampled_from(WORDS)).map(
        "".join
    ),
    st.text(min_size=1, max_size=6).filter(visible),
)
kinds = st.sampled_from(tiny.KINDS)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Recommender, History]:
    names = draw(st.lists(titles, min_size=1, max_size=14))
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    recommender = Recommender(
        catalog,
        tiny.language_model(draw(kinds)),
        normalization=draw(st.sampled_from(["catalog", "vocab"])),
        case=draw(st.sampled_from(["as_is", "lower"])),
        exclude_seen=draw(st.booleans()),
        beam_size=draw(st.sampled_from([None, 1, 3])),
    )
    rows = draw(st.lists(st.integers(0, len(names) - 1), max_size=4))
    history = History(tuple(Interaction(f"i{r}", "buy") for r in rows))
    return recommender, history


def expected(recommender: Recommender, history: History) -> list[float]:
    return logprobs(
        recommender.model.model,
        recommender.prompt(history).ids,
        list(recommender.encoder.titles(recommender.catalog)),
        recommender.settings.normalization,
    )


def same_list(answer: RecommendationList, values: list[float], rows: list[int]) -> None:
    """The list is the true ranking of rows; order is free among items closer than 2e-4."""
    best = ranked(values, rows)[: len(answer)]
    got = [int(r.item_id[1:]) for r in answer]
    assert [r.logprob for r in answer] == pytest.approx([values[r] for r in got], abs=1e-4)
    assert [values[r] for r in got] == pytest.approx([values[r] for r in best], abs=2e-4)


@given(requests())
def test_scores_equal_title_by_title_plain_passes(request: tuple[Recommender, History]) -> None:
    recommender, history = request
    values = expected(recommender, history)
    answer = recommender.score(history)
    assert len(answer) == len(values)
    same_list(answer, values, list(range(len(values))))
    if recommender.settings.normalization == "catalog":
        assert sum(r.probability for r in answer) == pytest.approx(1.0, abs=1e-6)


@given(requests(), st.integers(1, 20))
def test_lists_are_legal_and_full(request: tuple[Recommender, History], k: int) -> None:
    recommender, history = request
    seen = set(history.item_ids) if recommender.exclude_seen else set()
    allowed = len(recommender.catalog) - len(seen)
    if not allowed:
        return
    answer = recommender.recommend(history, k)
    ids = [r.item_id for r in answer]
    assert len(ids) == min(k, allowed)
    assert len(set(ids)) == len(ids)
    assert all(i in recommender.catalog and i not in seen for i in ids)
    assert [r.rank for r in answer] == list(range(1, len(ids) + 1))
    assert all(a.score >= b.score for a, b in pairwise(answer))


@given(requests(), st.integers(1, 20))
def test_a_beam_as_wide_as_the_catalog_is_exact(
    request: tuple[Recommender, History], k: int
) -> None:
    recommender, history = request
    wide = recommender.with_settings(beam_size=len(recommender.catalog))
    rows = [r for r in range(len(wide.catalog)) if f"i{r}" not in history.item_ids]
    rows = rows if wide.exclude_seen else list(range(len(wide.catalog)))
    if rows:
        same_list(wide.recommend(history, k), expected(wide, history), rows)


@given(requests(), st.data())
def test_candidates_keep_the_probabilities_of_the_whole_catalog(
    request: tuple[Recommender, History], data: st.DataObject
) -> None:
    recommender, history = request
    values = expected(recommender, history)
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=5))
    answer = recommender.score(history, [f"i{r}" for r in rows])
    assert {int(r.item_id[1:]) for r in answer} == set(rows)
    same_list(answer, values, sorted(set(rows)))


@given(requests())
def test_skipping_forced_tokens_changes_nothing(request: tuple[Recommender, History]) -> None:
    recommender, history = request
    wide: dict[str, Any] = {"k": len(recommender.catalog), "beam_size": None}
    lists = [
        search(
            recommender.trie,
            recommender.model.prefill(recommender.prompt(history).ids),
            skip_forced=skip,
            **wide,
        )
        for skip in (True, False)
    ]
    values = [dict(zip(r.rows.tolist(), r.logprobs.tolist(), strict=True)) for r in lists]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert lists[0].evaluated <= lists[1].evaluated


def test_one_item_needs_no_evaluation() -> None:
    recommender = Recommender(Catalog([Item("i0", "red mug")]), tiny.language_model())
    answer = recommender.recommend("", k=5)
    assert [(r.item_id, r.logprob) for r in answer] == [("i0", 0.0)]
    ranking = search(recommender.trie, recommender.model.prefill([5, 6]), k=1)
    assert ranking.evaluated == 0


def test_duplicates_share_their_probability_and_all_come_back() -> None:
    items = [Item("i0", "mug"), Item("i1", "Mug "), Item("i2", "doll"), Item("i3", "mug")]
    recommender = Recommender(Catalog(items), tiny.language_model(), case="lower")
    answer = recommender.score("")
    by_id = {r.item_id: r.score for r in answer}
    assert by_id["i0"] == by_id["i1"] == by_id["i3"]
    assert sum(np.exp(v) for v in by_id.values()) == pytest.approx(1.0)
    mugs = [r.item_id for r in answer if r.item_id != "i2"]
    assert mugs == ["i0", "i1", "i3"]


def test_the_plain_path_gives_the_same_lists() -> None:
    names = ["red mug", "red doll", "red doll house", "blue mug", "set of 12", "set of 1"]
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    fast = Recommender(catalog, tiny.language_model("llama"))
    slow = Recommender(catalog, tiny.language_model("llama", plain=True))
    assert fast.model.obstacle == ""
    assert slow.model.obstacle
    one, two = fast.score("i1; i4"), slow.score("i1; i4")
    assert [r.item_id for r in one] == [r.item_id for r in two]
    assert [r.logprob for r in one] == pytest.approx([r.logprob for r in two], abs=1e-4)


def test_hostile_generation_settings_change_nothing() -> None:
    import copy

    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(["mug", "mugs", "doll", "dolls"]))
    model = tiny.language_model("qwen2")
    before = Recommender(catalog, model).score("i1").to_dict()
    hostile = copy.copy(model)
    hostile.model = copy.deepcopy(model.model)
    generation = hostile.model.generation_config
    generation.do_sample, generation.top_k, generation.top_p = True, 1, 0.1
    generation.temperature, generation.repetition_penalty = 9.0, 5.0
    assert Recommender(catalog, hostile).score("i1").to_dict() == before


def crowded(kind: str = "llama", **settings: Any) -> Recommender:
    """300 items over few words, so that paths share much and finish at many depths."""
    words = ["red", "blue", "mug", "doll", "set", "of", "1", "12", "house", "re", "m"]
    rng = np.random.default_rng(5)
    names = [" ".join(rng.choice(words, size=rng.integers(1, 6))) for _ in range(300)]
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    return Recommender(catalog, tiny.language_model(kind), **settings)


@pytest.mark.parametrize("mode", ["catalog", "vocab"])
def test_pruning_never_costs_an_item_of_a_wide_search(mode: str) -> None:
    recommender = crowded(normalization=mode)
    prompt = recommender.prompt("i3; i17").ids

    def best(k: int) -> Ranking:
        tree = recommender.model.prefill(prompt)
        return search(recommender.trie, tree, k=k, beam_size=None, normalization=mode)

    full = best(300)
    for k in (1, 2, 3, 5, 8, 13, 40):
        part = best(k)
        assert part.logprobs == pytest.approx(full.logprobs[:k], abs=1e-4)
        assert part.evaluated <= full.evaluated


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_narrow_beam_is_not_spent_on_what_may_not_be_returned(kind: str) -> None:
    recommender = crowded(kind)
    prompt = recommender.prompt("i3").ids
    rng = np.random.default_rng(1)
    for _ in range(5):
        allowed = np.zeros(300, dtype=bool)
        allowed[rng.choice(300, size=7, replace=False)] = True
        ranking = search(
            recommender.trie,
            recommender.model.prefill(prompt),
            k=7,
            beam_size=7,
            allowed=allowed,
        )
        assert sorted(ranking.rows.tolist()) == np.flatnonzero(allowed).tolist()
        narrow = search(
            recommender.trie, recommender.model.prefill(prompt), k=2, beam_size=2, allowed=allowed
        )
        assert len(narrow.rows) == 2
        assert allowed[narrow.rows].all()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_branching_node_has_the_logits_of_a_plain_pass(kind: str) -> None:
    recommender = crowded(kind)
    trie, model = recommender.trie, recommender.model
    prompt = recommender.prompt("i3; i17").ids
    tree = model.prefill(prompt)
    places: dict[int, tuple[int, list[int]]] = {0: (ROOT, [])}  # node -> handle, path
    checked = 0
    for node in range(len(trie)):  # level order: a node's parent comes before it
        handle, path = places[node]
        for child in trie.children(node).tolist():
            run = [int(trie.token[child])]
            (below,), logits = tree.extend([handle], [run])
            places[child] = (below, path + run)
            if len(trie.children(child)) > 1:
                plain = forward(model.model, [*prompt, *path, *run])
                assert torch.allclose(logits[0].double(), plain, atol=1e-4)
                checked += 1
    assert checked > 50
