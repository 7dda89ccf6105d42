"""Properties of search over random catalogs, with tiny models of several architectures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.reference import forward, logprobs, ranked
from support.titles import requests

from genrec import Catalog, History, Item, Recommender
from genrec.config import PROTOCOL, QueryOptions
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import score, search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options, Ranking
from genrec.models.token_tree import ROOT
from genrec.pipeline.types import RecommendationList


def expected(recommender: Recommender, history: History) -> list[float]:
    return logprobs(
        recommender.model.model,
        recommender.prompt(history).ids,
        list(recommender.encoder.titles(recommender.catalog)),
        recommender.settings.normalization,
    )


def same_list(answer: RecommendationList, values: list[float], rows: list[int]) -> None:
    """Check that a list is the true ranking; items closer than 2e-4 may be in any order."""
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
    answer = recommender.recommend(history, k, options=PROTOCOL)
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
    wide = recommender.with_settings(beam_size=len(recommender.catalog), search="beam")
    rows = [r for r in range(len(wide.catalog)) if f"i{r}" not in history.item_ids]
    rows = rows if wide.exclude_seen else list(range(len(wide.catalog)))
    if rows:
        same_list(wide.recommend(history, k, options=PROTOCOL), expected(wide, history), rows)


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


def test_one_item_needs_no_evaluation() -> None:
    recommender = Recommender(Catalog([Item("i0", "red mug")]), tiny.language_model())
    answer = recommender.recommend("", k=5)
    assert [(r.item_id, r.logprob) for r in answer] == [("i0", 0.0)]
    (ranking,) = search(recommender.trie, recommender.model.prefill([5, 6]), k=1)
    assert ranking.certificate.tokens == 0
    assert ranking.certificate.exact


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
    """Return 300 items made of few words, whose paths share much and end at many depths."""
    words = ["red", "blue", "mug", "doll", "set", "of", "1", "12", "house", "re", "m"]
    rng = np.random.default_rng(5)
    names = [" ".join(rng.choice(words, size=rng.integers(1, 6))) for _ in range(300)]
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    return Recommender(catalog, tiny.language_model(kind), **settings)


def best(recommender: Recommender, prompt: Any, k: int, **options: Any) -> Ranking:
    tree = recommender.model.prefill(prompt)
    return search(recommender.trie, tree, k, options=Options(**options))[0]


@pytest.mark.parametrize("mode", ["catalog", "vocab"])
@pytest.mark.parametrize(("width", "fill"), [(1, 0), (3, 9), (16, 0), (16, 32), (1000, 2000)])
def test_best_first_search_finds_the_true_best(mode: str, width: int, fill: int) -> None:
    recommender = crowded(normalization=mode)
    prompt = recommender.prompt("i3; i17").ids
    (full,) = score(
        recommender.trie, recommender.model.prefill(prompt), options=Options(normalization=mode)
    )
    assert len(full.rows) == 300
    for k in (1, 2, 3, 5, 8, 13, 40):
        part = best(
            recommender, prompt, k, search="exact", normalization=mode, width=width, fill=fill
        )
        assert part.logprobs == pytest.approx(full.logprobs[:k], abs=1e-4)
        assert part.certificate.tokens <= full.certificate.tokens
        assert part.certificate.exact
        assert part.certificate.certain_ranks == k
        assert part.certificate.missed_mass_bound == 0.0


@pytest.mark.parametrize("mode", ["catalog", "vocab"])
@pytest.mark.parametrize("kind", [*tiny.KINDS, "mistral", "gemma3"])
def test_certificates_never_claim_what_is_false(kind: str, mode: str) -> None:
    recommender = crowded(kind, normalization=mode)
    prompt = recommender.prompt("i3; i17").ids
    (full,) = score(
        recommender.trie, recommender.model.prefill(prompt), options=Options(normalization=mode)
    )
    truth = dict(zip(full.rows.tolist(), full.logprobs.tolist(), strict=True))
    claims = []
    for k in (1, 5, 20):
        for size in (1, 3, 8, 400):
            for how in ({"search": "beam"}, {"search": "exact", "max_nodes": size}):
                found = best(recommender, prompt, k, beam_size=size, normalization=mode, **how)
                assert len(found.rows) == k
                assert found.logprobs == pytest.approx(
                    [truth[r] for r in found.rows.tolist()], abs=1e-4
                )
                certificate = found.certificate
                certain = certificate.certain_ranks
                assert found.logprobs[:certain] == pytest.approx(full.logprobs[:certain], abs=4e-4)
                assert certificate.exact == (certain == k)
                missed = [p for r, p in truth.items() if r not in set(found.rows.tolist())]
                better = [p for p in missed if p > found.logprobs[-1] + 4e-4]
                assert np.exp(better).sum() <= certificate.missed_mass_bound + 1e-6
                claims.append(certificate.exact)
    assert {True, False} == set(claims)


def test_equal_scores_are_said_to_be_ties() -> None:
    flat = Recommender(
        Catalog(Item(f"i{n}", f"{a} {b}") for n, (a, b) in enumerate(PAIRS)), flat_model()
    )
    answer = flat.recommend("", k=3)
    certificate = answer.details["certificate"]
    assert certificate["exact"]
    assert certificate["ties"]
    single = Recommender(Catalog([Item("a", "red mug")]), tiny.language_model())
    assert not single.recommend("").details["certificate"]["ties"]


PAIRS = [(a, b) for a in ("red", "blue", "doll") for b in ("mug", "house", "set")]


def flat_model() -> Any:
    """Return a model whose logits are all equal."""
    import copy

    import torch

    model = copy.copy(tiny.language_model("gpt2"))
    model.model = copy.deepcopy(model.model)
    with torch.no_grad():
        model.model.get_output_embeddings().weight.zero_()
    return type(model)(model.model, model.tokenizer, name="flat")


@given(requests(), st.integers(1, 12), st.integers(0, 3))
def test_a_batch_gives_what_single_requests_give(
    request: tuple[Recommender, History], k: int, shorter: int
) -> None:
    recommender, history = request
    many = [history, History(), history.latest(shorter)]
    if recommender.exclude_seen and len(set(history.item_ids)) == len(recommender.catalog):
        return
    together = recommender.recommend_many(many, k, batch_size=3, options=PROTOCOL)
    for answer, each in zip(together, many, strict=True):
        alone = recommender.recommend(each, k, options=PROTOCOL)
        assert [r.logprob for r in answer] == pytest.approx([r.logprob for r in alone], abs=2e-4)
        assert len({r.item_id for r in answer}) == len(alone)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_narrow_beam_is_not_spent_on_what_may_not_be_returned(kind: str) -> None:
    recommender = crowded(kind)
    prompt = recommender.prompt("i3").ids
    trie, model = recommender.trie, recommender.model
    rng = np.random.default_rng(1)
    for search_kind in ("beam", "exact", "auto"):
        rows = np.sort(rng.choice(300, size=7, replace=False))
        allowed = Filters([Filter.allow(trie.positions_of(rows), 300)])
        options = Options(search=search_kind, beam_size=7, width=2, max_nodes=2)
        (ranking,) = search(trie, model.prefill(prompt), 7, allowed=allowed, options=options)
        assert sorted(ranking.rows.tolist()) == rows.tolist()
        options = Options(search=search_kind, beam_size=2, width=2, max_nodes=2)
        (narrow,) = search(trie, model.prefill(prompt), 2, allowed=allowed, options=options)
        assert len(narrow.rows) == 2
        assert set(narrow.rows.tolist()) <= set(rows.tolist())


@pytest.mark.parametrize("kind", [*tiny.KINDS, "mistral", "gemma3"])
def test_every_branching_node_has_the_logits_of_a_plain_pass(kind: str) -> None:
    recommender = crowded(kind)
    trie, model = recommender.trie, recommender.model
    assert isinstance(trie, TitleTrie)
    assert model.obstacle == ""
    prompt = recommender.prompt("i3; i17").ids
    tree = model.prefill(prompt)
    places: dict[int, tuple[int, list[int]]] = {0: (ROOT, [])}  # node -> handle, path
    checked = 0
    for node in range(len(trie)):  # level order: a node's parent comes before it
        handle, path = places[node]
        children, _ = trie.children(np.array([node]))
        for child, run in zip(children.tolist(), trie.runs(children), strict=True):
            (below,), logits = tree.extend([handle], [run])
            places[child] = (below, path + run)
            if len(trie.children(np.array([child]))[0]) > 1:
                plain = forward(model.model, [*prompt, *path, *run])
                assert torch.allclose(logits[0].double(), plain, atol=1e-4)
                checked += 1
    assert checked > 50


@given(requests(), st.integers(1, 5), st.integers(0, 1000))
def test_draws_are_of_different_items_and_repeatable(
    request: tuple[Recommender, History], k: int, seed: int
) -> None:
    recommender, history = request
    if recommender.exclude_seen and len(set(history.item_ids)) == len(recommender.catalog):
        return
    recommender = recommender.with_settings(normalization="catalog")
    drawn = recommender.with_settings(search="sample", seed=seed)
    one, two = (drawn.recommend(history, k, options=PROTOCOL) for _ in range(2))
    assert one == two
    assert len({r.item_id for r in one}) == len(one)
    values = {r.item_id: r.logprob for r in recommender.score(history)}
    for r in one:
        assert r.logprob == pytest.approx(values[r.item_id], abs=1e-4)
    assert all(a.score >= b.score for a, b in pairwise(one))


def test_first_draws_follow_the_distribution() -> None:
    recommender = crowded(search="sample", node_temperature=3.0)
    prompt = recommender.prompt("i3").ids
    (full,) = score(
        recommender.trie, recommender.model.prefill(prompt), options=Options(temperature=3.0)
    )
    chance = np.zeros(300)
    chance[full.rows] = np.exp(full.logprobs)
    assert chance.sum() == pytest.approx(1.0)
    first, second = np.zeros(300), np.zeros(300)
    users, seeds = 100, 15
    n = users * seeds
    for seed in range(seeds):  # each user of a batch has noise of their own
        tree = recommender.model.prefill_many([prompt] * users)
        options = Options(search="exact", draw=seed, temperature=3.0)
        for ranking in search(recommender.trie, tree, 2, options=options):
            first[ranking.rows[0]] += 1
            second[ranking.rows[1]] += 1
    again = np.array(
        [
            sum(chance[j] * chance[i] / (1 - chance[j]) for j in range(300) if j != i)
            for i in range(300)
        ]
    )
    for counts, expected in ((first, chance), (second, again)):
        groups = np.array_split(np.argsort(-expected), 12)
        found = np.array([counts[g].sum() for g in groups])
        wanted = np.array([expected[g].sum() for g in groups]) * n
        statistic = float(((found - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())
        assert statistic < 40  # chi-squared with 11 degrees of freedom: p = 4e-5


def test_draws_do_not_depend_on_the_batch() -> None:
    recommender = crowded(search="sample", node_temperature=3.0)
    histories = ["i3", "", "i3; i17; i4", ""]
    alone = [[r.item_id for r in recommender.recommend(h, 5)] for h in histories]
    for size in (1, 3, 4):
        many = recommender.recommend_many(histories, 5, batch_size=size)
        assert [[r.item_id for r in answer] for answer in many] == alone
    assert alone[0] != alone[1] == alone[3]
    other = recommender.with_settings(seed=2**63 - 1).recommend("i3", 5)
    assert [r.item_id for r in other] != alone[0]


def test_the_tolerance_grows_as_the_temperature_falls() -> None:
    """Logits are divided by the temperature, and so are their rounding errors."""
    recommender = crowded(search="exact", node_temperature=0.01)
    answer = recommender.recommend("i3; i17", 30)
    slow = Recommender(
        recommender.catalog,
        tiny.language_model(plain=True),
        search="exact",
        node_temperature=0.01,
    )
    truth = {r.item_id: r.logprob for r in slow.score("i3; i17")}
    (request,) = recommender._requests.build(["i3"], QueryOptions(5))
    options = recommender._search.options(request)
    assert options.tolerance == pytest.approx(0.02)
    for r in answer:
        assert r.logprob == pytest.approx(truth[r.item_id], abs=options.tolerance)


def test_whoever_comes_back_after_others_finished_is_still_known() -> None:
    """Users of a batch end at different times; those that lack items go on, with true scores."""
    recommender = crowded()
    trie, model = recommender.trie, recommender.model
    prompts = [recommender.prompt(h).ids for h in ("", "i3", "i3; i17; i4", "i2; i90; i7; i8")]
    truth = []
    for prompt in prompts:
        (full,) = score(trie, model.prefill(prompt))
        truth.append(dict(zip(full.rows.tolist(), full.logprobs.tolist(), strict=True)))
    rng = np.random.default_rng(0)
    for _ in range(12):
        size = rng.integers(1, 300, size=4).tolist()
        allowed = [Filter.allow(rng.choice(300, n, replace=False), 300) for n in size]
        k = [min(int(rng.choice([1, 5, 50])), n) for n in size]
        for how in ("auto", "exact", "beam"):
            options = Options(search=how, beam_size=5, max_nodes=20, budget=20)
            tree = model.prefill_many(prompts)
            found = search(trie, tree, k, allowed=Filters(allowed), options=options)
            for n, values, ranking in zip(k, truth, found, strict=True):
                wanted = [values[r] for r in ranking.rows.tolist()]
                assert len(ranking.rows) == n
                assert ranking.logprobs == pytest.approx(wanted, abs=2e-4)
