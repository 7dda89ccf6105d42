"""Lists, rankings and scores with ``attention="by_event"``, against one masked pass per prefix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.block_attention import forward_blocks, reader
from support.evidence_shop import Neighbours, past, shop
from support.reference import fused_logprobs, logprobs

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.config import PROTOCOL
from genrec.errors import PromptError, SettingsError
from genrec.models.language_model import LanguageModel

KINDS = ("llama", "qwen2", "qwen3", "gemma", "neox", "sentencepiece")
NAMES = ("red mug", "red bag", "blue mug", "doll house", "doll", "doll", "a tin of red tea")
CATALOG = Catalog(Item(f"i{n}", name) for n, name in enumerate(NAMES))
EVENTS = st.lists(
    st.builds(
        Interaction,
        st.sampled_from([i.item_id for i in CATALOG]),
        st.sampled_from(["buy", "view"]),
        value=st.sampled_from([None, 2.0]),
        text=st.sampled_from([None, "nice"]),
    )
    | st.builds(
        Interaction, st.none(), st.just("search"), text=st.sampled_from(["mug", "red tea"])
    ),
    max_size=8,
).map(lambda events: History(tuple(events)))


def made(kind: str, **settings: Any) -> Recommender:
    settings = {"exclude_seen": False, "encoder": "none", "attention": "by_event", **settings}
    return Recommender(CATALOG, tiny.language_model(kind), **settings)


def expected(recommender: Recommender, history: History) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The log P of every item, title by title."""
    prompt, sequences = recommender.prompt(history), list(recommender.encoder.titles(CATALOG))
    model, read = recommender.model.model, reader(recommender, prompt)
    if recommender.prior is None:
        kind = recommender.settings.normalization
        return np.array(logprobs(model, prompt.ids, sequences, kind, read))
    weights = recommender.prior.weights(history).values.tolist()
    weight = recommender.fusing.weight
    return np.array(fused_logprobs(model, prompt.ids, sequences, weights, weight, read))


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["exact", "auto", "beam"]),
    st.sampled_from(["catalog", "vocab"]),
    st.integers(0, 4),
    st.booleans(),
    st.lists(EVENTS, min_size=1, max_size=4),
)
def test_lists_equal_scoring_every_title(
    kind: str, search: str, normalization: str, recent: int, fused: bool, histories: list[History]
) -> None:
    recommender = made(
        kind, search=search, normalization=normalization, recent_events=recent, values=True
    )
    if fused and normalization == "catalog":
        recommender.prior = Neighbours(len(CATALOG))
    answers = recommender.recommend_many(histories, 3, options=PROTOCOL, batch_size=2)
    for history, answer in zip(histories, answers, strict=True):
        truth = expected(recommender, history)
        best = np.sort(truth)[::-1][:3]
        assert [r.score for r in answer] == pytest.approx(best, abs=1e-4)
        for item in answer:
            assert item.score == pytest.approx(truth[CATALOG.row(item.item_id)], abs=1e-4)
        alone = recommender.recommend(history, 3, options=PROTOCOL)
        assert [r.score for r in alone] == pytest.approx([r.score for r in answer], abs=1e-4)
        ids = [i.item_id for i in CATALOG]
        for ranked in (recommender.rank(history, ids), recommender.score(history, ids)):
            for item in ranked:
                assert item.score == pytest.approx(truth[CATALOG.row(item.item_id)], abs=1e-4)
        if normalization == "catalog" and not fused:
            _, nats, _ = recommender.with_nats(history, 3, "i3")
            assert nats == pytest.approx(-truth[3], abs=1e-4)


def test_answers_say_what_was_stored() -> None:
    model = LanguageModel(tiny.language_model().model, tiny.tokenizer("llama"))
    recommender = shop(attention="by_event", recent_events=1)
    recommender = Recommender(
        recommender.catalog, model, attention="by_event", recent_events=1, encoder="none"
    )
    first = recommender.recommend(past(0, 1, 2), 3)
    again = recommender.recommend(past(1, 3, 4), 3)
    kind = {"attention": "by_event", "recent_events": 1}
    for answer, stored, lines, rate in ((first, 0, 3, 0.0), (again, 1, 4, 0.333)):
        attention = dict(answer.details["attention"])
        assert attention.pop("store") == {"lines": lines, "memory_mib": 0.0, "hit_rate": rate}
        assert attention == {**kind, "stored": stored, "read": 2 - stored}
    assert model.lines.use().lines == 4  # three lines and the head
    assert "attention" not in recommender.with_settings(attention="full").recommend("", 3).details


def test_the_latest_events_are_read_in_full() -> None:
    """The oldest event sees all that is before it anyway."""
    history = past(0, 1, 2, 3)
    full = shop().score(history, ["i5", "i6"])
    for recent, same in ((9, True), (3, True), (2, False), (0, False)):
        found = shop(attention="by_event", recent_events=recent).score(history, ["i5", "i6"])
        distance = [
            abs((a.logprob or 0) - (b.logprob or 0)) for a, b in zip(full, found, strict=True)
        ]
        assert (max(distance) < 1e-4) is same
        assert (max(distance) > 1e-2) is not same


def test_demonstrations_belong_to_the_first_segment() -> None:
    from support.baskets import dataset

    data = dataset([[(0, "buy")], [(2, "buy")], [(1, "view"), (4, "buy")], [(5, "buy")]], users=2)
    recommender = Recommender(
        data, tiny.language_model(), attention="by_event", recent_events=1, few_shot=1, prior="none"
    )
    history = data.interactions.history("u0")
    prompt = recommender.prompt(history)
    divided = prompt.by_event(1)
    text = tiny.tokenizer("llama").decode(list(divided.ids[: divided.head]))
    assert text.startswith("Another customer")
    assert text.endswith("A customer's history, oldest first:\n")
    truth = logprobs(
        None, (), list(recommender.encoder.titles(data.catalog)), "catalog",
        lambda path: forward_blocks(recommender.model.model, divided, path),
    )  # fmt: skip
    for item in recommender.rank(history):
        assert item.logprob == pytest.approx(truth[data.catalog.row(item.item_id)], abs=1e-4)


def test_explanations_and_draws_work() -> None:
    recommender = shop(attention="by_event", recent_events=1)
    answer = recommender.recommend(past(0, 1, 2, 3), 2, explain=True)
    assert all(r.explanation is not None and len(r.explanation.evidence) == 4 for r in answer)
    item = recommender.explain(past(0, 1, 2), "i5")
    assert item.logprob == pytest.approx(
        recommender.score(past(0, 1, 2), ["i5"])[0].logprob, abs=1e-4
    )
    drawn = shop(attention="by_event", search="sample")
    assert len(drawn.recommend(past(0, 1, 2, 3), 3)) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder": "match"}, "decoder='match', which reads each prompt as a whole"),
        ({"attention": "by_line"}, "Expected one of: full, by_event"),
        ({"recent_events": -1}, "at least 0"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        shop(**{"attention": "by_event", **settings})


def test_models_that_cannot_say_why() -> None:
    recommender = Recommender(
        CATALOG, tiny.language_model("gpt2"), attention="by_event", encoder="none"
    )
    with pytest.raises(SettingsError, match="tiny-gpt2: it has no rotary position embeddings"):
        recommender.recommend(past(0, 1), 2)


@pytest.mark.parametrize("source", ["sentence", "joined"])
def test_templates_whose_events_are_joined_are_refused(source: str, tmp_path: Any) -> None:
    settings: dict[str, Any] = {"template": source}
    if source == "joined":
        (tmp_path / "en").mkdir()
        (tmp_path / "en" / "joined.jinja").write_text(
            "{#-\nevents: joined\n-#}\nHistory:\n{% for event in events -%}\n"
            "{{ event.verb }}: {{ event.title }}\n{% endfor -%}\nnext: {{ target }}"
        )
        settings["prompts"] = str(tmp_path)
    recommender = shop(attention="by_event", **settings)
    with pytest.raises(SettingsError, match="each event on lines of its own"):
        recommender.recommend(past(0, 1), 2)
    assert len(recommender.with_settings(attention="full").recommend(past(0, 1), 2)) == 2


def test_keys_of_stored_results_change_only_with_by_event() -> None:
    from genrec.evaluation.systems import RecommenderSystem

    plain, ours = shop(), shop(attention="by_event")
    assert "attention" not in RecommenderSystem(plain).key
    assert "attention='by_event'" in RecommenderSystem(ours).key
    assert RecommenderSystem(ours).name == "tiny-llama by event"
    keys = {shop(attention="by_event", recent_events=n).tuning_key() for n in (0, 8)}
    assert len({plain.tuning_key(), *keys}) == 3


def test_a_header_that_is_wrong_is_an_error() -> None:
    from genrec.prompts.template import Template

    source = "{#-\nevents: separable\n-#}\n{% for e in events %}{{ e.verb }} {{ e.title }},{% endfor %}{{ target }}"
    source = source.replace("events:", 'terminator: ","\nevents:').replace("}}{%", "}}{%")
    template = Template("mine", source.replace("{{ target", " {{ target"), {})
    with pytest.raises(PromptError, match="'events: separable', but"):
        template.render(CATALOG, past(0, 1), "buy")
    with pytest.raises(PromptError, match="'events: maybe'"):
        Template("mine", source.replace("separable", "maybe"), {})
