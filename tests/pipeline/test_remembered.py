"""The setting ``prompt_memory``: a user's later requests read only what was added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support import tiny
from support.counted_shop import shop

from genrec import Dataset, History, LanguageModel, Recommender
from genrec.pipeline.types import RecommendationList

EVENTS = [[0, 1, 2, 3, 4], [3, 4, 5, 0, 6], [6, 0, 1, 2, 5]]


def fresh() -> LanguageModel:
    model = tiny.language_model()
    return LanguageModel(model.model, model.tokenizer, name=model.name)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return shop(EVENTS)


def grown(data: Dataset, user: str, n: int) -> History:
    past = data.interactions.history(user)
    return replace(past, interactions=past.interactions[:n])


def numbers(answer: RecommendationList) -> list[tuple[str, Any]]:
    return [(r.item_id, pytest.approx(r.score, abs=1e-4)) for r in answer]


@pytest.mark.parametrize(
    "more", [{}, {"model_role": "fuse", "prior": "collaborative"}, {"normalization": "vocab"}]
)
def test_lists_are_the_same_and_less_is_read(data: Dataset, more: dict[str, Any]) -> None:
    plain = Recommender(data, fresh(), **more)
    kept = Recommender(data, fresh(), prompt_memory=64, **more)
    for user in ("u0", "u1"):
        read = []
        for n in (3, 4, 5):
            past = grown(data, user, n)
            answer = kept.recommend(past, k=3)
            assert numbers(answer) == numbers(plain.recommend(past, k=3))
            told = answer.details["attention"]
            assert told["attention"] == "full"
            assert told["read"] + told["remembered"] == len(kept.prompt(past).ids)
            read.append(told["read"])
        assert read[1] < read[0] / 2
        assert "attention" not in plain.recommend(past, k=3).details
    both = [grown(data, user, 5) for user in ("u0", "u1", "u2")]
    answers = kept.recommend_many(both, k=3)
    assert [a.details["attention"]["remembered"] > 0 for a in answers] == [True, True, False]
    for ours, theirs in zip(answers, plain.recommend_many(both, k=3), strict=True):
        assert numbers(ours) == numbers(theirs)


@pytest.mark.parametrize("more", [{}, {"model_role": "fuse", "prior": "collaborative"}])
def test_evidence_is_the_same_and_the_prompt_is_not_read_again(
    data: Dataset, more: dict[str, Any]
) -> None:
    plain = Recommender(data, fresh(), **more)
    kept = Recommender(data, fresh(), prompt_memory=64, **more)
    past = grown(data, "u0", 5)
    left_out = [[i] for i in range(5)] + [[0, 1], [2, 3, 4]]
    item = kept.recommend(past, k=3)[0].item_id
    before = kept.model.memory.use().read
    ours = kept.falls(past, item, left_out)
    assert ours == pytest.approx(plain.falls(past, item, left_out), abs=1e-4)
    assert kept.model.memory.use().read == before + 1  # the last token gives the outputs
    for evidence in ("fast", "full"):
        options: dict[str, Any] = {"k": 3, "explain": True, "evidence": evidence}
        lists = [r.recommend(past, **options) for r in (kept, plain)]
        for one, other in zip(*lists, strict=True):
            assert one.explanation is not None
            assert other.explanation is not None
            drops = [e.nats for e in other.explanation.evidence]
            assert [e.nats for e in one.explanation.evidence] == pytest.approx(drops, abs=1e-4)


def test_nothing_is_kept_of_anonymous_histories_and_of_users_who_are_forgotten(
    data: Dataset,
) -> None:
    model = fresh()
    kept = Recommender(data, model, prompt_memory=64)
    kept.recommend(replace(grown(data, "u0", 5), user_id=None), k=3)
    assert model.memory.use().prompts == 0
    kept.forget_user("u1")  # before the model has read anything
    kept.recommend(grown(data, "u1", 5), k=3)
    assert model.memory.use().prompts == 0
    kept.recommend(grown(data, "u0", 5), k=3)
    assert model.memory.use().prompts == 1
    other = replace(data, info=replace(data.info, name="another shop"))
    again = Recommender(other, model, prompt_memory=64).recommend(grown(data, "u0", 5), k=3)
    assert again.details["attention"]["remembered"] == 0
    kept.forget_user("u0")
    assert model.memory.use().prompts == 1
    kept.recommend(grown(data, "u0", 5), k=3)
    assert model.memory.use().prompts == 1


def test_other_settings_keep_nothing(data: Dataset) -> None:
    others: list[dict[str, Any]] = [
        {"attention": "by_event"}, {"few_shot": 1}, {"model_role": "explain"},
    ]  # fmt: skip
    for more in others:
        model = fresh()
        kept = Recommender(data, model, prompt_memory=64, prior="collaborative", **more)
        kept.recommend(grown(data, "u0", 5), k=3)
        assert model.memory.use().prompts == 0
