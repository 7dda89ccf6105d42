"""What one user's history does to the others of a batch, and unknown ids to the known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support import tiny
from support.baskets import dataset
from support.scripted_model import Scripted

from genrec import Catalog, History, Interaction, Item, Recommender, evaluate
from genrec.config import QueryOptions, Settings
from genrec.data.splits import split_last_unit
from genrec.errors import ModelError, RequestError, SettingsError

TITLES = ["red mug", "doll", "bag", "blue mug"]
CATALOG = Catalog(
    Item(f"i{n}", title, {"price": 10 * n, "sort": "ab"[n % 2]}) for n, title in enumerate(TITLES)
)


def bought(*items: str, user: str | None = None) -> History:
    return History(tuple(Interaction(i, "buy") for i in items), user)


def shop(**settings: Any) -> Recommender:
    settings = {"encoder": "none", "exclude_seen": True, **settings}
    if settings.get("decoder") == "match":
        return Recommender(CATALOG, Scripted(lambda prompt: TITLES), **settings)
    return Recommender(CATALOG, tiny.language_model(), **settings)


EVERYTHING = bought("i0", "i1", "i2", "i3", user="u")


@pytest.mark.parametrize("settings", [{}, {"search": "beam"}, {"decoder": "match"}])
@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize(
    ("history", "options", "reason"),
    [
        (EVERYTHING, {}, "already interacted"),
        ("i0; i1; i2; i3", {}, "already interacted"),
        (bought("i1", "i3"), {"where": 'sort == "b"'}, "already interacted"),
        (bought("i1"), {"allow": ["i1"]}, "already interacted"),
        (bought("i1"), {"deny": ["i0", "i2", "i3"]}, "already interacted"),
        (bought("gone", "i1"), {}, "1 item that the catalog of 4 items does not have: 'gone'"),
        ([Interaction("gone", "view")], {}, "'gone'"),
    ],
)
def test_one_user_without_an_answer_gets_an_empty_list(
    settings: dict[str, Any], explain: bool, history: Any, options: dict[str, Any], reason: str
) -> None:
    recommender = shop(**settings)
    options = {**options, "explain": explain}
    others: list[Any] = ["", bought("i0"), bought("i0", "i0")]
    alone = [recommender.recommend(h, 2, **options) for h in others]
    for place in (0, 1, 3):
        batch = [*others[:place], history, *others[place:]]
        answers = recommender.recommend_many(batch, 2, **options)
        empty = answers.pop(place)
        assert len(empty) == 0
        assert empty.asked == 2
        assert reason in empty.notes[-1]
        assert empty.to_dict()["recommendations"] == []
        assert empty.user_id == getattr(history, "user_id", None)
        assert [[r.item_id for r in a] for a in answers] == [[r.item_id for r in a] for a in alone]
    assert [len(a) for a in recommender.recommend_many([history], 2, **options)] == [0]
    with pytest.raises(RequestError, match=reason):
        recommender.recommend(history, 2, **options)


@pytest.mark.parametrize(
    ("histories", "options", "message"),
    [
        (["", ""], {"where": "price > 99"}, "filters exclude all items"),
        (["", ""], {"allow": []}, "there are no candidates"),
        (["", ""], {"deny": ["i0", "i1", "i2", "i3"]}, "filters exclude all items"),
        (["", 5], {}, "is not a history"),
        (["", None], {}, "is not a history"),
    ],
)
def test_what_is_wrong_for_all_is_an_error(
    histories: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        shop().recommend_many(histories, **options)


def test_an_evaluation_goes_on_after_a_user_who_has_everything() -> None:
    made = dataset([[(n, "buy")] for n in (*range(7), 0)], 2)
    data = replace(made, interactions=split_last_unit(made.interactions, "buy"))
    data = replace(data, info=replace(data.info, split="last unit"))
    model = tiny.language_model()
    for how in ("catalog", "vocab"):
        ours = Recommender(data, model, exclude_seen=True, prior="none", normalization=how)
        with pytest.raises(RequestError, match="already interacted"):
            ours.recommend(ours.history("u0", before="test"), 3)
        results = evaluate(data, [("ours", ours), "popular"], exclude_seen=True)
        for name in ("ours", "popular"):
            assert results[name].mean("hit_rate@10").mean == 0


@pytest.mark.parametrize("method", ["rank", "score"])
@pytest.mark.parametrize(
    ("candidates", "unknown"),
    [
        (["i1", "gone", "i2"], ("gone",)),
        (["gone", "i1", "gone", "lost", "i2", "i1"], ("gone", "lost")),
        (("i1", "", "i2"), ("",)),
        (["i2", "i1", "I1", "i1 "], ("I1", "i1 ")),
    ],
)
def test_unknown_candidates_are_reported_and_skipped(
    method: str, candidates: Any, unknown: tuple[str, ...]
) -> None:
    recommender = shop()
    plain = getattr(recommender, method)("i0", ["i1", "i2"])
    assert plain.unknown == ()
    given = list(candidates)
    answer = getattr(recommender, method)("i0", iter(given))
    assert answer.recommendations == plain.recommendations
    assert answer.unknown == unknown
    assert answer.to_dict()["unknown"] == list(unknown)
    assert all(repr(item) in answer.notes[-1] for item in unknown)
    assert "skipped" in answer.notes[-1]
    assert answer.notes[-1] in repr(answer)
    with pytest.raises(RequestError, match=r"not in the catalog.*Expected ids") as caught:
        getattr(recommender, method)("i0", given, strict=True)
    assert "skipped" not in str(caught.value)
    assert getattr(recommender, method)("i0", ["i1", "i2"], strict=True).unknown == ()


def test_candidates_that_are_all_unknown_are_an_error() -> None:
    recommender = shop()
    with pytest.raises(RequestError, match=r"7 of 7 item ids are not .* and 2 more"):
        recommender.rank("", [f"x{n}" for n in range(7)])
    recommender.remove_items(["i1"])
    with pytest.raises(RequestError, match="Item 'i1' is not in the catalog"):
        recommender.score("", ["i1"])
    assert recommender.score("", ["i1", "i2"]).unknown == ("i1",)
    with pytest.raises(RequestError, match="Item 1 is not in the catalog"):
        recommender.score("", [1, "i2"])  # type: ignore[list-item]


@pytest.mark.parametrize("method", ["rank", "score"])
def test_k_shortens_a_ranking_if_it_is_given(method: str) -> None:
    recommender = shop()
    ask = getattr(recommender, method)
    everything = ask("")
    assert len(everything) == 4
    for k in (1, 3, 4, 10):
        for answer in (ask("", k=k), ask("", options=QueryOptions(k=k)), ask("", k=k, options=QueryOptions(k=2))):  # fmt: skip
            assert answer.recommendations == everything.recommendations[:k]
            assert answer.details["certificate"]["exact"]
            assert answer.asked == min(k, 4)
    assert len(ask("", options=QueryOptions(deny=["i1"]))) == 3
    many = Recommender(
        Catalog(Item(str(n), f"mug {n}") for n in range(12)), tiny.language_model(), encoder="none"
    )
    assert len(getattr(many, method)("", options=QueryOptions(deny=["3"]))) == 11
    assert len(getattr(many, method)("", options=QueryOptions(k=10))) == 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QueryOptions(explian=True), "'explian' is not an option. Did you mean 'explain'?"),  # type: ignore[call-arg]
        (lambda: QueryOptions(5, wher="x"), "Did you mean 'where'?"),  # type: ignore[call-arg]
        (lambda: Settings(tempalte="x"), "'tempalte' is not a setting. Did you mean 'template'?"),  # type: ignore[call-arg]
    ],
)
def test_a_misspelled_option_is_named_with_the_nearest_one(make: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (["red mug", "doll"], "a list with 'red mug'"),
        ("red mug", "returned str"),
        (None, "returned NoneType"),
        ([("red mug", 0.0, True)], "a list with ('red mug'"),
        ([{"text": "red mug"}], "a list with {'text'"),
    ],
)
@pytest.mark.parametrize("when", ["listing", "explaining"])
def test_a_text_model_that_returns_something_else_is_told_so(
    returned: Any, said: str, when: str
) -> None:
    class Wrong(Scripted):
        def generate(self, prompt: Any, options: Any) -> Any:
            if when == "explaining" and "We recommend" not in prompt.text:
                return super().generate(prompt, options)
            return returned

    script: Sequence[str] = ["blue mug"]
    recommender = Recommender(
        CATALOG, Wrong(lambda prompt: script), decoder="match", encoder="none"
    )
    with pytest.raises(ModelError, match=r"scripted\.generate returned .*Generated") as caught:
        recommender.recommend("i0", 2, explain=when == "explaining")
    assert said in str(caught.value)
