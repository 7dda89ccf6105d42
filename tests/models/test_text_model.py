"""A model that only writes text drives the decoder match, sentences and few-shot prompting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.scripted_model import Scripted

from genrec import Catalog, Item, Recommender, datasets
from genrec.errors import ModelError, RequestError, SettingsError
from genrec.models.base import (
    ScoringModel,
    TextModel,
    can_score,
)

TITLES = ["red mug", "blue mug", "garden fork", "tea towel", "cake tin"]


def shop(script: Callable[[str], Sequence[str]], **settings: Any) -> Recommender:
    items = [Item(f"i{n}", t, {"price": n + 1}) for n, t in enumerate(TITLES)]
    settings = {"decoder": "match", "encoder": "none", **settings}
    return Recommender(Catalog(items), Scripted(script), **settings)


def test_it_is_a_text_model_and_no_scoring_model() -> None:
    model: TextModel = Scripted(lambda prompt: [])
    assert isinstance(model, TextModel)
    assert not isinstance(model, ScoringModel)
    assert not can_score(model)


def test_texts_are_matched_to_items_and_counted() -> None:
    written = ["Blue Mug", "blue mug", "cake tin", "garden frok", "red mug", "a submarine"]
    recommender = shop(lambda prompt: written)
    answer = recommender.recommend("bought: red mug", k=3)
    assert [r.item_id for r in answer] == ["i1", "i2", "i4"]
    assert [r.score for r in answer] == pytest.approx([2 / 6, 1 / 6, 1 / 6])
    assert all(r.logprob is None for r in answer)
    assert answer.model == "scripted"
    assert answer.to_dict()["prompt"]["tokens"] == len(recommender.model.prompts[0].split())  # type: ignore[attr-defined]
    assert "red mug" in recommender.model.prompts[0]  # type: ignore[attr-defined]
    assert [g.text for g in recommender.generate("bought: red mug")] == written


def test_filters_and_edits_need_no_trie() -> None:
    recommender = shop(lambda prompt: [*TITLES, "hat"], exclude_seen=True)
    assert {r.item_id for r in recommender.recommend("i0")} == {"i1", "i2", "i3", "i4"}
    assert {r.item_id for r in recommender.recommend("", where="price > 3")} == {"i3", "i4"}
    assert {r.item_id for r in recommender.recommend("", deny=["i3"], allow=["i3", "i2"])} == {"i2"}
    recommender.add_items([Item("new", "hat", {"price": 9})])
    recommender.remove_items(["i1"])
    assert {r.item_id for r in recommender.recommend("i0")} == {"i2", "i3", "i4", "new"}
    recommender.retitle_items({"i2": "spade"})
    assert {r.item_id for r in recommender.recommend("i0")} == {"i3", "i4", "new"}
    other = recommender.with_settings(seed=1)
    assert {r.item_id for r in other.recommend("i0")} == {"i3", "i4", "new"}
    with pytest.raises(RequestError, match="No item may be returned"):
        recommender.recommend("", allow=["i1"])


def test_what_needs_probabilities_says_so() -> None:
    with pytest.raises(ModelError, match=r"scripted generates text .* decoder='match'"):
        shop(lambda prompt: [], decoder="trie")
    recommender = shop(lambda prompt: TITLES)
    for needs_logits in (
        lambda: recommender.trie,
        lambda: recommender.encoder,
        lambda: recommender.rank("", ["i1"]),
        lambda: recommender.explain("i0", "i1"),
        lambda: recommender.would_like("", "i1"),
    ):
        with pytest.raises(ModelError, match="gives no token probabilities"):
            needs_logits()


def test_sentences_are_checked_and_lies_replaced() -> None:
    honest = 'red mug", we suggest "blue mug", which has to do with mug.'
    lie = 'garden fork", we suggest "blue mug", which has to do with mug.'

    def script(prompt: str) -> Sequence[str]:
        if "We recommend" not in prompt:
            return ["blue mug", "cake tin"]
        return [lie, honest] if '"blue mug"' in prompt else [lie, lie]

    recommender = shop(script)
    blue, tin = recommender.recommend("bought: red mug", k=2, explain=True)
    assert blue.explanation is not None
    assert blue.explanation.source == "generated"
    assert blue.explanation.text == f'Because of "{honest}'
    assert blue.explanation.evidence == ()
    assert [r.text for r in blue.explanation.rejected] == [f'Because of "{lie}']
    assert "neither the item nor in the history" in blue.explanation.rejected[0].why
    assert tin.explanation is not None
    assert tin.explanation.source == "template"
    assert len(tin.explanation.rejected) == 2
    answer = recommender.recommend("bought: red mug", k=2, explain=True)
    assert any("there is no evidence" in note for note in answer.notes)


def test_few_shot_prompts_show_other_users() -> None:
    zh_data = datasets.load("zh_mini")
    title = zh_data.catalog[0].title
    model = Scripted(lambda prompt: [title])
    recommender = Recommender(zh_data, model, decoder="match", encoder="none", few_shot=2)
    shown = recommender.demonstrations()
    answer = recommender.recommend("", k=1)
    assert [r.title for r in answer] == [title]
    assert len(shown) == 2
    for history in shown:
        for event in history.interactions:
            assert event.item_id is not None
            assert zh_data.catalog[zh_data.catalog.row(event.item_id)].title in model.prompts[0]


def test_long_histories_are_cut_to_the_models_own_count() -> None:
    recommender = shop(lambda prompt: TITLES, max_prompt_tokens=40, max_events=200)
    history = [f"i{n % 5}" for n in range(100)]
    prompt = recommender.prompt(history)
    assert 0 < prompt.n_tokens <= 40
    assert 0 < prompt.prompt.events < 100
    assert prompt.ids == ()


def test_a_model_may_repeat_the_quotation_mark_and_reads_it() -> None:
    quoted = '"red mug", we suggest "blue mug", which has to do with mug.'
    recommender = shop(lambda p: [quoted] if "We recommend" in p else ["blue mug"])
    (blue,) = recommender.recommend("bought: red mug", k=1, explain=True)
    assert blue.explanation is not None
    assert blue.explanation.text == f"Because of {quoted}"
    assert recommender.model.prompts[-1].endswith('Because of "')  # type: ignore[attr-defined]


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="model is of type object"):
        Recommender(Catalog([Item("a", "mug")]), object(), decoder="match")  # type: ignore[arg-type]
