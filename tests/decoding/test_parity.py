"""Compare search with the real model to beam search by transformers."""

from __future__ import annotations

import numpy as np
import pytest
from support import stepwise, tiny
from support.amount import FULL

from benchmarks.speed.peer import generate
from genrec import Catalog, Item, LanguageModel, Recommender
from genrec.config import PROTOCOL
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import score, search
from genrec.decoding.types import Options, Ranking
from genrec.evaluation import evaluator

CUSTOMERS = 2 if FULL else 1


def check(recommender: Recommender, prompt: tuple[int, ...], beams: int, mode: str) -> None:
    """Check that the slow search equals ``generate``, and the fast one gives as good a list."""
    sequences = list(recommender.encoder.titles(recommender.catalog))
    trie, model = recommender.trie, recommender.model
    theirs = generate(model.model, prompt, sequences, beams, renormalize=mode == "catalog")
    slow = stepwise.beams(sequences, model.prefill(prompt), beams, mode)
    assert [t for t, _ in slow] == [t for t, _ in theirs]
    assert [v for _, v in slow] == pytest.approx([v for _, v in theirs], abs=1e-3)
    rows = np.array([r for r, s in enumerate(sequences) if s in dict(theirs)])
    allowed = Filters([Filter.allow(trie.positions_of(rows), len(sequences))])
    options = Options(normalization=mode)
    (same,) = score(trie, model.prefill(prompt), allowed=allowed, options=options)
    assert by_title(same, sequences) == pytest.approx(dict(theirs), abs=1e-3)
    if mode == "catalog":  # elsewhere exact search takes minutes on the real model
        (ours,) = search(trie, model.prefill(prompt), 4 * beams, options=Options(search="exact"))
        best = sorted(by_title(ours, sequences).values(), reverse=True)
        for value, (_, their_value) in zip(best, theirs, strict=False):
            assert value > their_value - 1e-3


def by_title(ranking: Ranking, sequences: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    """Return the log-probability of each title, summed over the items that share it."""
    return {
        sequences[r]: v + float(np.log(sequences.count(sequences[r])))
        for r, v in zip(ranking.rows.tolist(), ranking.logprobs.tolist(), strict=True)
    }


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["catalog", "vocab"])
@pytest.mark.parametrize("beams", [5, 20])
def test_the_real_model_gives_the_list_of_generate(
    demo_recommender: Recommender, mode: str, beams: int
) -> None:
    assert demo_recommender.dataset is not None
    cases = evaluator.demo_v1(demo_recommender.dataset, "validation")
    for case in evaluator.sample(cases, CUSTOMERS, seed=3):
        prompt = demo_recommender.prompt(case.history.latest(6)).ids
        check(demo_recommender, prompt, beams, mode)


@pytest.mark.parametrize("mode", ["catalog", "vocab"])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_tiny_models_give_the_list_of_generate(kind: str, mode: str) -> None:
    words = ["red", "blue", "mug", "doll", "set of 12", "house"]
    catalog = Catalog(
        Item(f"i{a}{b}", f"{x} {y}") for a, x in enumerate(words) for b, y in enumerate(words)
    )
    recommender = Recommender(catalog, tiny.language_model(kind))
    check(recommender, recommender.prompt("i01; i33").ids, 6, mode)


@pytest.mark.model
def test_exact_search_on_the_real_model_equals_scoring_every_item(
    demo_recommender: Recommender, smollm2: LanguageModel
) -> None:
    """The slow search, one token per step, gives the same list if its beam is wide."""
    recommender = demo_recommender.with_settings(prior="none")
    history = "bought: RED RETROSPOT MUG"
    scored = {r.item_id: r for r in recommender.score(history)}
    assert sum(r.probability for r in scored.values()) == pytest.approx(1.0, abs=1e-6)
    prompt = recommender.prompt(history).ids
    for search_kind in ("exact", "beam"):
        exact = recommender.with_settings(search=search_kind, exclude_seen=False, beam_size=40)
        answer = exact.recommend(history, 10, options=PROTOCOL)
        certificate = answer.details["certificate"]
        assert certificate["exact"]
        expected = list(scored.values())[:10]
        assert [r.logprob for r in answer] == pytest.approx([r.logprob for r in expected], abs=2e-4)
        for r in answer:
            assert r.logprob == pytest.approx(scored[r.item_id].logprob, abs=1e-4)
        assert certificate["tokens"] < 0.2 * recommender.trie.inner_tokens
    sequences = list(recommender.encoder.titles(recommender.catalog))
    slow = stepwise.beams(sequences, smollm2.prefill(prompt), 40, like_generate=False)
    values = {sequences[recommender.catalog.row(i)]: r for i, r in scored.items()}
    for title, value in slow[:10]:
        shared = sum(s == title for s in sequences)
        assert value - float(np.log(shared)) == pytest.approx(values[title].logprob, abs=1e-3)
