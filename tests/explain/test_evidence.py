"""Compare evidence to plain recomputation that renders every history and scores every token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.block_attention import reader
from support.evidence_shop import Neighbours, past, shop
from support.reference import fused_logprobs, logprobs
from support.titles import titles

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.config import PROTOCOL
from genrec.errors import PromptError, RequestError
from genrec.explain.evidence import Change, Counterfactuals, find_strongest, measure_drops
from genrec.explain.types import Explanation
from genrec.prompts.template import Template

TEMPLATES = ("next_item", "sentence")
FORMS = ("none", "node", "score")
models = st.sampled_from([*tiny.KINDS, "mistral", "gemma3"])


def weights_of(recommender: Recommender, history: History) -> list[float]:
    assert recommender.prior is not None
    values: list[float] = recommender.prior.weights(history).values.tolist()
    return values


def plain_scores(
    recommender: Recommender, window: History, prior_of: History | None, rows: list[int]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Score title by title, with the prompt of a window and the prior of a history."""
    settings = recommender.settings
    sequences = list(recommender.encoder.titles(recommender.catalog))
    prompt = recommender.with_settings(max_events=100).prompt(window)
    ids, read = prompt.ids, reader(recommender, prompt)
    model = recommender.model.model
    if prior_of is None or settings.fusion == "score":
        found = np.array(logprobs(model, ids, sequences, settings.normalization, read))
        if prior_of is not None:
            values = np.array(weights_of(recommender, prior_of))
            found = found + recommender.fusing.weight * np.log(values / values.sum())
    else:
        weights = weights_of(recommender, prior_of)
        weight = recommender.fusing.weight
        found = np.array(fused_logprobs(model, ids, sequences, weights, weight, read))
    return found[rows]


def plain_drops(
    recommender: Recommender, history: History, events: int, rows: list[int]
) -> tuple[Any, Any]:
    """Apply the formula as written to every event of the window."""
    window, before = history.latest(events), len(history) - events
    has_prior = recommender.prior is not None

    def without(i: int) -> tuple[History, History]:
        left = [e for n, e in enumerate(window.interactions) if n != i]
        return History(tuple(left)), History((*history.interactions[:before], *left))

    model, prior = [], []
    for i in range(events):
        shown, whole = without(i)
        both = [history, whole] if has_prior else [None, None]
        f = {
            (m, p): plain_scores(recommender, w, h, rows)
            for m, w in enumerate([window, shown])
            for p, h in enumerate(both)
        }
        model.append((f[0, 0] - f[1, 0] + f[0, 1] - f[1, 1]) / 2)
        prior.append((f[0, 0] - f[0, 1] + f[1, 0] - f[1, 1]) / 2)
    return np.array(model), np.array(prior)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Recommender, History]:
    names = draw(st.lists(titles, min_size=1, max_size=9))
    fusion = draw(st.sampled_from(FORMS))
    mode = draw(st.sampled_from(["catalog", "vocab"])) if fusion != "node" else "catalog"
    apart = draw(st.booleans())  # the older events are read by themselves
    kind = draw(st.sampled_from(["llama", "qwen3", "gemma"]) if apart else models)
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(names)),
        tiny.language_model(kind, plain=not apart and draw(st.booleans())),
        attention="by_event" if apart else "full",
        recent_events=draw(st.integers(0, 3)),
        template="next_item" if apart else draw(st.sampled_from(TEMPLATES)),
        normalization=mode,
        fusion="score" if fusion == "none" else fusion,
        prior_weight=draw(st.sampled_from([0.3, 2.0])),
        exclude_seen=False,
        max_events=draw(st.sampled_from([3, 25])),
        values=draw(st.booleans()),
    )
    if fusion != "none":
        recommender.prior = Neighbours(len(names))
    events = st.builds(
        Interaction,
        st.sampled_from([f"i{n}" for n in range(len(names))]),
        st.sampled_from(["buy", "view"]),
        value=st.sampled_from([None, 2.0]),
        text=st.sampled_from([None, "nice mug"]),
    )
    searches = st.builds(Interaction, st.none(), st.just("search"), text=st.just("a red mug"))
    past = draw(st.lists(st.one_of(events, searches), min_size=1, max_size=5))
    return recommender, History(tuple(past))


def question_of(recommender: Recommender, history: History) -> Any:

    return recommender._search.question(recommender._whole_request(history))


@given(asked())
def test_evidence_equals_plain_recomputation(request: tuple[Recommender, History]) -> None:
    recommender, history = request
    question = question_of(recommender, history)
    rows = list(range(len(recommender.catalog)))[:3]
    found = measure_drops(question, rows)
    model, prior = plain_drops(recommender, history, question.events, rows)
    assert found.model == pytest.approx(model, abs=2e-5)
    assert found.prior == pytest.approx(prior, abs=2e-5)
    if recommender.prior is None:
        assert not found.prior.any()
    if recommender.prior is None or len(history) == question.events:
        assert found.older is None
        return
    window = question.window
    before, after = (plain_scores(recommender, window, h, rows) for h in (history, window))
    assert found.older == pytest.approx(before - after, abs=2e-5)
    assert measure_drops(question, rows, "fast").older == pytest.approx(found.older, abs=2e-5)


@given(asked())
def test_the_parts_add_up_to_the_fall_of_the_score(request: tuple[Recommender, History]) -> None:
    recommender, history = request
    question = question_of(recommender, history)
    rows = list(range(len(recommender.catalog)))[:3]
    found = measure_drops(question, rows)
    prior = recommender.prior
    for i in range(question.events):
        shown, whole = question.changed(Change((i,)))
        before, after = (
            plain_scores(recommender, w, None if prior is None else h, rows)
            for w, h in [(question.window, history), (shown, whole)]
        )
        assert found.total[i] == pytest.approx(before - after, abs=2e-5)


def explained(recommender: Recommender, history: Any, **how: Any) -> list[Explanation]:
    found = recommender.recommend(history, 3, explain=True, **how)
    assert all(r.explanation is not None for r in found)
    return [r.explanation for r in found if r.explanation is not None]


def test_a_list_has_the_evidence_of_each_event_in_order() -> None:
    recommender = shop()
    history = History((*past(1, 2).interactions, Interaction(None, "search", text="tin\nbox")))
    for one in explained(recommender, history):
        assert [e.item_id for e in one.evidence] == ["i1", "i2", None]
        assert [e.behavior for e in one.evidence] == ["buy", "buy", "search"]
        assert one.evidence[2].title == "tin box"
        for e in one.evidence:
            assert e.nats == e.nats_model != 0.0
            assert e.nats_prior == 0.0
        assert one.demonstrations is None


def test_json_has_plain_numbers() -> None:
    answer = shop().recommend(past(1, 2), 2, explain=True).to_dict()
    for item in answer["recommendations"]:
        names = [
            "item_id", "title", "behavior", "nats", "nats_model", "nats_prior", "event", "shared",
        ]  # fmt: skip
        for n, e in enumerate(item["explanation"]["evidence"]):
            assert list(e) == names
            assert e["event"] == n
            assert all(type(e[n]) is float for n in ("nats", "nats_model", "nats_prior"))


def test_the_prior_sees_the_whole_history_and_the_model_the_window() -> None:
    recommender = shop(max_events=2, fusion="score", prior_weight=1.0, exclude_seen=False)
    recommender.prior = Neighbours(8)
    history = past(6, 1, 2)  # i6 is outside the window and stays for the prior
    question = question_of(recommender, history)
    shown, whole = question.changed(Change((0,)))
    assert shown.item_ids == ("i2",)
    assert whole.item_ids == ("i6", "i2")
    found = measure_drops(question, [2])
    values = [weights_of(recommender, h)[2] for h in (history, past(6, 2))]
    sums = [sum(weights_of(recommender, h)) for h in (history, past(6, 2))]
    fall = np.log(values[0] / sums[0]) - np.log(values[1] / sums[1])
    assert found.prior[0, 0] == pytest.approx(fall, abs=1e-9)


@pytest.mark.parametrize(("language", "said"), [
    ("en", "Older events in the history support it."), ("zh", "更早的历史行为支持该商品。")
])  # fmt: skip
def test_older_events_speak_where_none_that_is_shown_does(language: str, said: str) -> None:
    recommender = shop(max_events=1, exclude_seen=False, prior_weight=3.0, language=language)
    recommender.prior = Neighbours(8)
    found = recommender.explain(past(1, 1, 1, 6), "i2").explanation
    assert found.older is not None
    assert found.older.events == 3
    assert found.older.nats > 0.5 > 0 > found.evidence[0].nats
    assert (found.text, found.source) == (said, "template")
    shown = recommender.explain(past(6, 6, 6, 1), "i2").explanation
    assert shown.older is not None
    assert shown.older.nats < 0
    assert shown.text != said
    assert recommender.explain(past(1), "i2").explanation.older is None


def test_what_is_left_is_what_it_was_token_by_token() -> None:
    for template in TEMPLATES:
        recommender = shop(template=template)
        question = question_of(recommender, past(1, 2, 3, 4))
        whole = question.render(question.window)
        titles_ = [n for n, s in enumerate(whole.prompt.segments) if s.row is not None]
        for place, segment in list(enumerate(titles_))[1:]:
            start = whole.bounds[titles_[place - 1]][1]
            stop = whole.bounds[segment][1]
            cut = whole.ids[:start] + whole.ids[stop:]
            assert question.render(question.changed(Change((place,)))[0]).ids == cut


def test_no_events_are_no_evidence() -> None:
    for mode in ("full", "fast"):
        for one in explained(shop(), "", evidence=mode):
            assert one.evidence == ()
            assert one.without == ()
            assert one.text == "Nothing is known about this customer yet."


def test_the_list_is_searched_again_without_the_strongest_events() -> None:
    recommender = shop(10, exclude_seen=False, search="exact")
    history = past(1, 2, 3, 4)
    answer = recommender.recommend(history, 3, options=PROTOCOL, explain=True)
    first = answer[0].explanation
    assert first is not None
    assert len(first.without) == 3
    most = [
        max(abs(r.explanation.evidence[e].nats) for r in answer if r.explanation) for e in range(4)
    ]
    assert [w.event for w in first.without] == sorted(range(4), key=lambda e: -most[e])[:3]
    for n, w in enumerate(first.without):
        left = History(tuple(e for i, e in enumerate(history.interactions) if i != w.event))
        again = [r.item_id for r in recommender.recommend(left, 3, options=PROTOCOL)]
        for r in answer:
            assert r.explanation is not None
            rank = again.index(r.item_id) + 1 if r.item_id in again else None
            assert r.explanation.without[n].rank == rank


def test_seen_items_stay_excluded_when_their_event_is_left_out() -> None:
    recommender = shop(4, exclude_seen=True)
    answer = recommender.recommend(past(0, 1), 4, explain=True)
    assert len(answer) == 2
    for r in answer:
        assert r.explanation is not None
        assert {w.rank for w in r.explanation.without} <= {1, 2}


@pytest.mark.parametrize("fusion", ["node", "score"])
def test_fast_evidence_is_exact_where_it_looked_and_adds_up_elsewhere(fusion: str) -> None:
    recommender = shop(10, exclude_seen=False, fusion=fusion)
    recommender.prior = Neighbours(10)
    question = question_of(recommender, past(*(i % 10 for i in range(25))))
    full, fast = measure_drops(question, [0, 5]), measure_drops(question, [0, 5], "fast")
    same = np.abs(full.total - fast.total).max(axis=1) < 1e-5
    assert 5 <= same.sum() < 25
    for low in range(0, 25, 5):
        group = list(range(low, low + 5))
        if not same[group].all():
            together = Counterfactuals(question, [0, 5], [Change(tuple(group))]).measure_drops([0])
            assert fast.model[group].sum(axis=0) == pytest.approx(together.model[0], abs=1e-5)
    if fusion == "score":  # the prior's part needs no reading
        assert fast.prior == pytest.approx(full.prior, abs=1e-6)
    else:
        changes = [Change((i,)) for i in range(25)]
        near = Counterfactuals(question, [0, 5], changes).measure_prior_drops(range(25))
        looked = np.abs(fast.prior - full.prior).max(axis=1) < 1e-6
        assert looked.sum() >= 5
        assert fast.prior[~looked] == pytest.approx(near[~looked], abs=1e-9)


def test_fast_evidence_reads_less() -> None:
    recommender = shop(10, exclude_seen=False)
    question = question_of(recommender, past(*(i % 10 for i in range(25))))
    n = len(question.render(question.window).ids)
    found = Counterfactuals(question, [0], [Change((i,)) for i in range(25)])
    found.measure_drops(range(25))
    floor = sum(found.cost([i]) for i in range(25))
    assert found.n_tokens <= floor + n + 20
    assert floor < 25 * n / 1.7


def test_an_unknown_mode_says_what_there_is() -> None:
    with pytest.raises(RequestError, match=r"evidence='all' .* full, fast"):
        shop().recommend(past(1), explain=True, evidence="all")


def test_an_unknown_style_says_what_there_is() -> None:
    with pytest.raises(PromptError, match=r"style='poem'\. .* reason, pitch, plain, short"):
        shop().recommend(past(1), explain=True, style="poem")


def test_a_draw_is_explained_by_its_distribution() -> None:
    drawn, ranked = shop(search="sample"), shop(search="exact")
    by_item = {
        r.item_id: r.explanation.evidence
        for r in ranked.recommend(past(1, 2), 6, explain=True)
        if r.explanation
    }
    for r in drawn.recommend(past(1, 2), 3, explain=True):
        assert r.explanation is not None
        assert r.explanation.without == ()
        for ours, theirs in zip(r.explanation.evidence, by_item[r.item_id], strict=True):
            assert ours.nats == pytest.approx(theirs.nats, abs=1e-6)


def test_strongest_are_by_size_and_not_by_sign() -> None:
    recommender = shop()
    found = measure_drops(question_of(recommender, past(1, 2, 3, 4)), [0])
    sizes = np.abs(found.total[:, 0])
    assert find_strongest(found, 2) == np.argsort(-sizes)[:2].tolist()


def test_the_demonstrations_have_their_share(demo_data: Dataset) -> None:
    recommender = Recommender(demo_data, tiny.language_model(), few_shot=2, prior="none")
    history = recommender.history(demo_data.interactions.user_ids[5], before="test").latest(4)
    answer = recommender.recommend(history, 2, explain=True)
    rows = demo_data.catalog.rows([r.item_id for r in answer])
    with_them = {
        r.item_id: r.logprob for r in recommender.score(history, [r.item_id for r in answer])
    }
    bare = Recommender(demo_data, recommender.model, template="few_shot", prior="none")
    without = {r.item_id: r.logprob for r in bare.score(history, [r.item_id for r in answer])}
    assert len(rows) == 2
    for r in answer:
        assert r.explanation is not None
        fall = (with_them[r.item_id] or 0) - (without[r.item_id] or 0)
        assert r.explanation.demonstrations == pytest.approx(fall, abs=1e-4)
    for i in range(4):
        left = History(history.interactions[:i] + history.interactions[i + 1 :], history.user_id)
        now = {r.item_id: r.logprob for r in recommender.score(left, list(with_them))}
        for r in answer:
            assert r.explanation is not None
            fall = (with_them[r.item_id] or 0) - (now[r.item_id] or 0)
            assert r.explanation.evidence[i].nats == pytest.approx(fall, abs=1e-4)


def test_what_was_read_of_a_few_shot_prompt_is_not_read_again(demo_data: Dataset) -> None:
    recommender = Recommender(demo_data, tiny.language_model(), few_shot=2, prior="none")
    history = recommender.history(demo_data.interactions.user_ids[5], before="test").latest(3)
    recommender.recommend(history, 1)
    question = question_of(recommender, history)
    assert question.prefix is not None
    found = Counterfactuals(question, [0], [Change((i,)) for i in range(3)])
    assert (
        found.n_tokens < len(question.render(question.window).ids) - len(question.prefix.ids) + 40
    )


def test_edits_of_the_catalog_are_seen() -> None:
    recommender = shop(exclude_seen=False)
    recommender.add_items([Item("i8", "red tin 8"), Item("i9", "hat")])
    recommender.remove_items(["i0"])
    question = question_of(recommender, past(1, 2))
    found = measure_drops(question, [8, 9, 3])
    for i in range(2):
        shown, _ = question.changed(Change((i,)))
        for n, item in enumerate(["i8", "i9", "i3"]):
            before, after = (recommender.score(h, [item])[0].logprob for h in (past(1, 2), shown))
            assert before is not None
            assert after is not None
            assert found.total[i, n] == pytest.approx(before - after, abs=1e-5)


def test_a_template_that_begins_with_an_event_shares_nothing(monkeypatch: Any) -> None:
    recommender = shop(4)
    source = "{% for event in events %}{{ event.verb }} {{ event.title }}\n{% endfor %}{{ next_verb }} {{ target }}"
    recommender._requests.template = Template("bare", source, recommender.template.verbs)
    history = History(
        (Interaction("i0", "view"), Interaction("i1", "buy"), Interaction("i2", "search"))
    )
    question = question_of(recommender, history)
    rows = [0, 3]
    found = measure_drops(question, rows)
    for i in range(3):
        shown, _ = question.changed(Change((i,)))
        sequences = list(recommender.encoder.titles(recommender.catalog))
        scores = [
            np.array(
                logprobs(recommender.model.model, question.render(w).ids, sequences, "catalog")
            )
            for w in (question.window, shown)
        ]
        assert found.total[i] == pytest.approx((scores[0] - scores[1])[rows], abs=2e-5)


@pytest.mark.model
def test_the_real_model_agrees_with_its_own_scores(demo_recommender: Recommender) -> None:
    data = demo_recommender.dataset
    assert data is not None
    user = data.interactions.user_ids[7]
    history = demo_recommender.history(user, before="test").latest(6)
    answer = demo_recommender.recommend(history, 3, explain=True)
    items = [r.item_id for r in answer]
    for i in range(len(history)):
        left = History(tuple(e for n, e in enumerate(history.interactions) if n != i))
        now = {r.item_id: r.score for r in demo_recommender.score(left, items)}
        for r in answer:
            assert r.explanation is not None
            assert r.explanation.evidence[i].nats == pytest.approx(
                r.score - now[r.item_id], abs=1e-3
            )
