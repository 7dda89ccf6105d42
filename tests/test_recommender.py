from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from support import tiny

from genrec import Catalog, Dataset, History, Interaction, Item, LanguageModel, Recommender
from genrec.errors import (
    ModelError,
    PromptError,
    RequestError,
    SettingsError,
)
from genrec.models.base import Generated

CATALOG = Catalog(Item(f"i{n}", t) for n, t in enumerate(["red mug", "doll", "bag", "blue mug"]))


def make(**settings: Any) -> Recommender:
    return Recommender(CATALOG, tiny.language_model(), **settings)


def test_every_form_of_a_history_gives_the_same_list() -> None:
    recommender = make()
    forms: list[Any] = [
        "bought: red mug; viewed: doll",
        ["i0", "viewed: doll"],
        History((Interaction("i0", "buy"), Interaction("i1", "view"))),
    ]
    lists = [[(r.item_id, r.logprob) for r in recommender.recommend(f, 4)] for f in forms]
    assert lists[0] == lists[1] == lists[2]
    assert recommender.recommend_many(forms, 4)[2].recommendations == tuple(
        recommender.recommend(forms[2], 4)
    )


def test_the_answer_says_how_it_came_about() -> None:
    answer = make().recommend("red MUG; nonsense", k=2)
    value = answer.to_dict()
    assert list(value)[:7] == [
        "schema_version", "user_id", "decoder", "model", "seen", "recommendations", "understood",
    ]  # fmt: skip
    assert value["schema_version"] == 1
    assert value["decoder"] == "trie"
    assert value["model"] == "tiny-llama"
    assert value["seen"] == "excluded"
    assert [u["match"] for u in value["understood"]] == ["normalized", "none"]
    assert [list(r) for r in value["recommendations"]] == [
        ["rank", "item_id", "title", "logprob", "score", "logprob_model", "logprob_prior"]
    ] * 2
    assert answer[0].probability == pytest.approx(2.718281828 ** answer[0].score)
    assert value["prompt"]["tokens"] == len(make().prompt("red mug").ids)


def test_seen_items_stay_out_unless_asked_for() -> None:
    out = make(exclude_seen=True).recommend("i0; i2", k=10)
    assert {r.item_id for r in out} == {"i1", "i3"}
    into = make(exclude_seen=False).recommend("i0; i2", k=10, allow_last_basket=True)
    assert {r.item_id for r in into} == {"i0", "i1", "i2", "i3"}
    assert into.seen == "included"
    by_id = {r.item_id: r.logprob for r in into}
    assert [r.logprob for r in out] == pytest.approx([by_id[r.item_id] for r in out], abs=1e-5)


def test_the_dataset_decides_about_seen_items(demo_data: Dataset) -> None:
    assert not Recommender(demo_data, tiny.language_model()).exclude_seen
    assert Recommender(demo_data, tiny.language_model(), exclude_seen=True).exclude_seen


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: make().recommend("", k=0),
            RequestError,
            "k=0 is not valid. Expected a whole number",
        ),
        (lambda: make().recommend("i0; i1; i2; i3"), RequestError, "every item is excluded"),
        (lambda: make().score("", []), RequestError, "there are no candidates"),
        (lambda: make().score("", ["zz"]), RequestError, "'zz' is not in the catalog"),
        (lambda: make().history("u"), RequestError, "there is no dataset"),
        (lambda: make(beem_size=3), SettingsError, "Did you mean 'beam_size'"),
        (
            lambda: make(beam_size=0),
            SettingsError,
            "beam_size=0 is not valid. Expected a number of at least 1",
        ),
        (lambda: make(decoder="magic"), SettingsError, "Expected one of: trie"),
        (lambda: make(normalization="x"), SettingsError, "catalog, vocab"),
        (lambda: make(few_shot=2), SettingsError, "needs a dataset"),
        (lambda: make(few_shot=2, template="next_item"), SettingsError, "shows no demonstrations"),
        (
            lambda: make(template="nope"),
            PromptError,
            "Expected one of: chat, explain, explain_pitch, explain_short, few_shot, next_item",
        ),
        (lambda: make(max_prompt_tokens=2).recommend(""), PromptError, "Raise max_prompt_tokens"),
        (lambda: Recommender(CATALOG, "/no/such/model"), ModelError, "Ways to get a model"),
        (lambda: Recommender(CATALOG, threads=0), SettingsError, "threads=0"),
        (lambda: Recommender(CATALOG, device="abacus"), SettingsError, "device='abacus'"),
        (lambda: Recommender(CATALOG, dtype="int3"), SettingsError, "dtype='int3'"),
    ],
)
def test_mistakes_are_explained(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_a_prompt_leaves_room_for_the_longest_title() -> None:
    """GPT-2 reads 1,024 tokens at most; a long history is cut so that a title still fits."""
    titles = [f"title number {n} of a long long list of things" for n in range(40)]
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(titles))
    model = tiny.language_model("gpt2")
    recommender = Recommender(catalog, model, max_events=1000, exclude_seen=False)
    history = History(tuple(Interaction(f"i{n % 40}", "buy") for n in range(200)))
    prompt = recommender.prompt(history)
    assert prompt.prompt.dropped > 0
    assert len(prompt.ids) + recommender.trie.max_depth <= model.context == 1024
    assert len(recommender.score(history)) == 40
    with pytest.raises(ModelError, match="Expected 1 to 1024"):
        model.prefill([1] * 1025)


def test_demonstrations_are_seeded_and_never_ones_own(demo_data: Dataset) -> None:
    def shown(user: str | None = None, seed: int = 0) -> list[str | None]:
        recommender = Recommender(demo_data, tiny.language_model(), few_shot=3, seed=seed)
        return [h.user_id for h in recommender.demonstrations(user)]

    first = shown()
    assert first == shown()
    assert len(set(first)) == 3
    assert first != shown(seed=1)
    without = shown(first[0])
    assert first[0] not in without
    assert without[:2] == first[1:]
    recommender = Recommender(demo_data, tiny.language_model(), few_shot=3)
    train = [
        demo_data.interactions.history(h.user_id or "", before="validation").item_ids
        for h in recommender.demonstrations()
    ]
    for history, events in zip(recommender.demonstrations(), train, strict=True):
        assert set(history.item_ids) <= set(events)
    text = recommender.prompt("bought: RED RETROSPOT MUG").prompt.text
    assert text.count("Another customer") == 3
    assert text.endswith("bought: red retrospot mug\nbought:")


def test_near_demonstrations_are_the_users_with_the_same_rare_items(demo_data: Dataset) -> None:
    data = demo_data.interactions
    recommender = Recommender(demo_data, tiny.language_model(), few_shot=3, demonstrations="near")
    counts = Counter[str]()
    train = {
        u: {
            i.item_id
            for i in data.history(u, before="validation").interactions
            if i.behavior == "buy"
        }
        for u in data.user_ids
    }
    for items in train.values():
        counts.update(i for i in items if i is not None)

    def likeness(one: Iterable[str | None], other: Iterable[str | None]) -> float:
        def weight(i: str | None) -> float:
            return math.log((1 + len(train)) / (1 + counts[str(i)]))

        both = sum(weight(i) ** 2 for i in {*one} & {*other})
        lengths = [math.sqrt(sum(weight(i) ** 2 for i in {*x})) for x in (one, other)]
        return both / max(lengths[0] * lengths[1], 1e-12)

    for user in data.user_ids[5:8]:
        history = data.history(user)
        shown = recommender.demonstrations(user)
        assert user not in [h.user_id for h in shown]
        found = [likeness(history.item_ids, train[h.user_id or ""]) for h in shown]
        able = [
            likeness(history.item_ids, items)
            for u, items in train.items()
            if u != user
            and sum(i.behavior == "buy" for i in data.history(u, before="validation").interactions)
            >= 2
        ]
        assert found == pytest.approx(sorted(able, reverse=True)[:3])
    alone = recommender.demonstrations()
    assert [h.user_id for h in alone] == [
        h.user_id
        for h in Recommender(demo_data, tiny.language_model(), few_shot=3).demonstrations()
    ]  # nothing is nearest to an empty history, so the drawn users are shown


def test_too_many_demonstrations() -> None:
    from genrec.data.datasets import load

    data = load("online_retail_demo")
    recommender = Recommender(data, tiny.language_model(), few_shot=5000)
    with pytest.raises(RequestError, match="Lower few_shot"):
        recommender.recommend("")


@pytest.mark.model
def test_end_to_end_on_the_real_model(demo_recommender: Recommender) -> None:
    history = demo_recommender.history("12493", before="test")
    answer = demo_recommender.recommend(history, k=10)
    assert len({r.item_id for r in answer}) == 10
    assert all(r.item_id in demo_recommender.catalog for r in answer)
    assert answer[0].score >= answer[9].score
    everything = demo_recommender.score(history)
    assert len(everything) == 2064
    assert sum(r.probability for r in everything) == pytest.approx(1.0, abs=1e-5)
    exact = {r.item_id: r.logprob for r in everything}
    assert [r.logprob for r in answer] == pytest.approx(
        [exact[r.item_id] for r in answer], abs=1e-3
    )
    target = demo_recommender.score(history, ["22386"])
    assert target[0].logprob == pytest.approx(exact["22386"], abs=1e-3)
    new_user = demo_recommender.recommend("", k=3)
    assert len(new_user) == 3
    assert new_user.events == 0


@pytest.mark.model
def test_a_chat_template_frames_the_message(demo_recommender: Recommender) -> None:
    chat = demo_recommender.with_settings(template="chat")
    encoded = chat.prompt("bought: RED RETROSPOT MUG")
    assert encoded.text.endswith("its title only.<|im_end|>\n<|im_start|>assistant\n")
    assert "bought: red retrospot mug\nWhich item will they buy next?" in encoded.text
    tokenizer = chat.model.tokenizer
    controls = [i for i in encoded.ids if i in tokenizer.added_tokens_decoder]
    plain = tokenizer(encoded.frame[0] + encoded.frame[1], add_special_tokens=False)["input_ids"]
    assert controls == [i for i in plain if i in tokenizer.added_tokens_decoder]
    assert len(chat.recommend("bought: RED RETROSPOT MUG", k=3)) == 3


def test_a_chat_template_needs_a_chat_model() -> None:
    with pytest.raises(PromptError, match="has no chat template"):
        make(template="chat").recommend("")


def test_verbs_of_every_language_are_understood() -> None:
    _, understood = make().understand("浏览了：red mug; bought: doll; 购买：bag; ask: red mug")
    assert [(u.behavior, u.item_id) for u in understood] == [
        ("browse", "i0"), ("buy", "i1"), ("buy", "i2"), ("ask", "i0"),
    ]  # fmt: skip


def test_every_template_recommends() -> None:
    for language in ("en", "zh"):
        for template in ("next_item", "sentence"):
            answer = make(template=template, language=language, values=True).recommend("i0", k=3)
            assert {r.item_id for r in answer} == {"i1", "i2", "i3"}


@pytest.mark.model
def test_the_real_model_is_the_expected_one(smollm2: LanguageModel) -> None:
    assert smollm2.obstacle == ""
    assert smollm2.context == 8192
    assert smollm2.fingerprint().startswith("1903b0d1ef3b")
    assert "float32, cpu" in smollm2.describe()


def written(texts: dict[str, float], catalog: Catalog = CATALOG, **settings: Any) -> Recommender:
    """A recommender with the decoder match whose model writes these texts."""
    recommender = Recommender(
        catalog, tiny.language_model(), **{"decoder": "match", "encoder": "none", **settings}
    )
    found = [Generated(t, p, True) for t, p in texts.items()]
    recommender._writing.write = lambda prompt: found  # type: ignore[method-assign]
    return recommender


def test_written_texts_are_merged_by_item() -> None:
    texts = {" red mug": -1.0, "Red Mug!": -2.0, "doll": -1.5, "spaceship": -0.5, "red mugg": -3.0}
    answer = written(texts).recommend("", k=2)
    assert [(r.item_id, r.score) for r in answer] == [("i0", pytest.approx(0.6)), ("i1", 0.2)]
    assert answer[0].texts == ("red mug", "Red Mug!", "red mugg")
    assert (answer[0].match, answer[0].similarity) == ("normalized", 1.0)
    assert answer.notes[1:] == ()
    value = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert [r["logprob"] for r in value["recommendations"]] == [None, None]
    assert answer[0].probability != answer[0].probability  # NaN


def test_beams_count_by_their_probability() -> None:
    texts = {"red mug": -1.0, "doll": -0.5, "RED MUG": -2.0}
    answer = written(texts, n_samples=0).recommend("", k=3)
    assert [r.item_id for r in answer] == ["i1", "i0"]
    assert answer[1].score == pytest.approx(0.3678794 + 0.1353353)
    assert "2 of 3 items" in answer.notes[-1]
    assert "raise beam_size" in answer.notes[-1]


def test_fewer_than_k_written_say_why() -> None:
    answer = written({"red mug": -1.0, "doll": -2.0, "spaceship": -3.0}).recommend("i0", k=9)
    assert [r.item_id for r in answer] == ["i1"]
    assert (
        "1 of 9 items. Of 3 texts that the model wrote, 1 matched no item, and 1 matched only"
        in (answer.notes[-1])
    )
    assert answer.seen == "excluded"
    both = written({"red mug": -1.0, "doll": -2.0}, exclude_seen=False).recommend(
        "i2; i0", k=2, allow_last_basket=True
    )
    assert [r.item_id for r in both] == ["i0", "i1"]
    every = dict.fromkeys(("red mug", "doll", "bag", "blue mug"), -1.0)
    assert len(written(every).recommend("i0", k=100)) == 3
    assert "of 100 items" not in " ".join(written(every).recommend("i0", k=100).notes)
    with pytest.raises(RequestError, match="every item is excluded"):
        written(every).recommend("i0; i1; i2; i3")


def test_a_text_that_names_several_items_gives_all() -> None:
    catalog = Catalog([Item("a", "mug"), Item("b", "doll"), Item("c", "mug"), Item("d", "mug")])
    answer = written({"mug": -1.0}, catalog).recommend("b", k=3, per_group=None)
    assert [r.item_id for r in answer] == ["a", "c", "d"]
    assert [r.score for r in answer] == pytest.approx([1 / 3] * 3)
    twins = written({"mug": -1.0}, catalog).recommend("c", k=2, allow_same_title=True)
    assert [r.item_id for r in twins] == ["a", "d"]
    assert not len(written({"mug": -1.0}, catalog).recommend("c", k=2))


@pytest.mark.parametrize("settings", [{}, {"n_samples": 0, "beam_size": 5}, {"n_samples": 1}])
def test_the_decoder_match_on_tiny_models(settings: dict[str, Any]) -> None:
    titles = [str(tiny.tokenizer("llama").decode([i])) for i in range(290, 380)]
    catalog = Catalog(Item(f"i{n}", f"x{t}") for n, t in enumerate(titles))
    recommender = Recommender(
        catalog, tiny.language_model(), decoder="match", encoder="ngrams", match_threshold=0.1,
        max_title_tokens=2, **settings,
    )  # fmt: skip
    answer = recommender.recommend("i1", k=50)
    assert answer.recommendations == recommender.recommend("i1", k=50).recommendations
    assert sum(r.score for r in answer) <= 1 + 1e-9
    assert all(r.item_id != "i1" and r.texts and r.match for r in answer)
    json.dumps(answer.to_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_free_texts_stay_within_the_context(kind: str) -> None:
    recommender = Recommender(
        CATALOG, tiny.language_model(kind), decoder="match", encoder="none", max_events=1000,
        max_title_tokens=1500, n_samples=2, exclude_seen=False,
    )  # fmt: skip
    history = History(tuple(Interaction(f"i{n % 4}", "buy") for n in range(400)))
    assert recommender.recommend(history).asked == 10


OTHER_CATALOG = Catalog(Item(str(n), t) for n, t in enumerate(["red mug", "doll", "bag"]))


def other_make(**settings: Any) -> Recommender:
    return Recommender(OTHER_CATALOG, tiny.language_model(), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"exclude_seen": "no"},
        {"few_shot": "3"},
        {"beam_size": 2.5},
        {"max_events": None},
        {"seed": True},
        {"case": "UP"},
        {"template": 3},
    ],
)
def test_settings_of_another_kind(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(settings))}="):
        other_make(**settings)


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", None, float("nan"), True])
def test_k_of_another_kind(k: Any) -> None:
    with pytest.raises(RequestError, match="whole number"):
        other_make().recommend("", k)


def test_histories_that_people_try_first() -> None:
    recommender = other_make(exclude_seen=False)
    expected = recommender.recommend("0; 2").recommendations
    for history in ([0, 2], np.array([0, 2]), ("0", "2"), (str(i) for i in (0, 2))):
        assert recommender.recommend(history).recommendations == expected
    events = [Interaction("0", "buy"), Interaction("2", "buy")]
    assert recommender.recommend(events).recommendations == expected
    assert recommender.recommend(History(tuple(events))).recommendations == expected
    for wrong in (None, 7, [("buy", "0")], [None], [events[0], "2"], [True]):
        with pytest.raises(RequestError, match="is not a history"):
            recommender.recommend(wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="Expected a list of histories"):
        recommender.recommend_many("007")
    with pytest.raises(RequestError, match="Expected a list of item ids"):
        recommender.score("", "007")
