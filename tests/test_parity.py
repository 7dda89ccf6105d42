"""The real model against transformers' own beam search, nothing skipped."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from peer import generate

from genrec import Catalog, Item, LanguageModel, Recommender, evaluation
from genrec.decoding import search

CUSTOMERS = 2


def best_titles(
    recommender: Recommender, prompt: tuple[int, ...], beams: int, normalization: str
) -> list[tuple[tuple[int, ...], float]]:
    """Our list by title, as ``generate`` gives it: items that share a title are one entry."""
    sequences = list(recommender.encoder.titles(recommender.catalog))
    ranking = search(
        recommender.trie,
        recommender.model.prefill(prompt),
        k=2 * beams,
        beam_size=beams,
        normalization=normalization,
        like_generate=True,
    )
    found: dict[tuple[int, ...], float] = {}
    for row, value in zip(ranking.rows.tolist(), ranking.logprobs.tolist(), strict=True):
        shared = sum(s == sequences[row] for s in sequences)
        found.setdefault(sequences[row], value + float(np.log(shared)))
    return sorted(found.items(), key=lambda pair: -pair[1])[:beams]


def check(recommender: Recommender, prompt: tuple[int, ...], beams: int, mode: str) -> None:
    sequences = list(recommender.encoder.titles(recommender.catalog))
    theirs = generate(
        recommender.model.model, prompt, sequences, beams, renormalize=mode == "catalog"
    )
    ours = best_titles(recommender, prompt, beams, mode)
    assert [t for t, _ in ours] == [t for t, _ in theirs]
    assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], abs=1e-3)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["catalog", "vocab"])
@pytest.mark.parametrize("beams", [5, 20])
def test_the_real_model_gives_the_list_of_generate(
    demo_recommender: Recommender, mode: str, beams: int
) -> None:
    assert demo_recommender.dataset is not None
    cases = evaluation.demo_v1(demo_recommender.dataset, "validation")
    for case in evaluation.sample(cases, CUSTOMERS, seed=3):
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
def test_a_beam_without_skipping_equals_one_with_it(
    demo_recommender: Recommender, smollm2: LanguageModel
) -> None:
    """Forced tokens add nothing to log P; on the real model too."""
    prompt = demo_recommender.prompt("bought: RED RETROSPOT MUG").ids
    lists = [
        search(demo_recommender.trie, smollm2.prefill(prompt), k=10, beam_size=40, skip_forced=skip)
        for skip in (True, False)
    ]
    assert lists[0].rows.tolist() == lists[1].rows.tolist()
    assert lists[0].logprobs == pytest.approx(lists[1].logprobs, abs=1e-3)
    assert lists[0].evaluated < lists[1].evaluated / 2
