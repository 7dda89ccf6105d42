"""Queries in words: filters, weights, the model on the best items, and what the answer says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support import tiny
from support.commands import Run, answer
from support.commands import data as data
from support.commands import model as model
from support.commands import run as run
from support.served import client as client

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.errors import RequestError
from genrec.matching.likeness import TitleLikeness
from genrec.matching.matcher import TextMatcher
from genrec.pipeline.about import find_examples
from genrec.priors.query_weights import QueryPrior
from genrec.priors.weights import Weights
from genrec.taste.keywords import KeywordIndex

_ROWS = [
    ("Red Picnic Basket", 4.5, "wicker"), ("Blue Picnic Blanket", 12.0, "cotton"),
    ("Plastic Picnic Cup", 1.0, "plastic"), ("Orange Juice", 3.0, "plastic"),
    ("Garden Chair", 30.0, "wood"), ("Red Mug", 3.5, "china"),
]  # fmt: skip
CATALOG = Catalog(
    [Item(str(i), t, {"price": p, "material": m}) for i, (t, p, m) in enumerate(_ROWS)]
)


class Counted:
    """A prior that favors later rows, and much more so after an event."""

    def weights(self, history: History) -> Weights:
        values = np.arange(1.0, len(CATALOG) + 1)
        for event in history.interactions:
            values[CATALOG.row(str(event.item_id))] += 100.0
        return Weights(values, sources=("counted",))


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    made = Recommender(CATALOG, tiny.language_model(), encoder="ngrams")
    made.prior = Counted()
    return made


def test_conditions_filter_and_words_rank(recommender: Recommender) -> None:
    found = recommender.recommend(
        "", 6, query="something for a picnic, not plastic, under £5",
        query_weights={"match": 50, "prior": 0.1, "model": 0.3},
    )  # fmt: skip
    assert [r.item_id for r in found][:1] == ["0"]
    assert {r.item_id for r in found} == {"0", "5"}
    said = found.to_dict()["query"]
    assert said["wanted"] == "something for a picnic"
    assert said["unwanted"] == ["plastic"]
    assert said["where"] == '(not (material == "plastic")) and (price < 5)'
    assert said["parts"] == ["match", "unwanted", "prior", "model"] == found.details["parts"]
    assert said["compared"] == "ngrams"


def test_probabilities_sum_to_one_and_lists_are_exact(recommender: Recommender) -> None:
    heard = {"model": 0.5}
    for query in ("red mug", "red mug, nothing shiny", "something like Red Mug"):
        every = recommender.score("0", query=query, query_weights=heard)
        liked = recommender.understand_query(query).denied
        assert len(every) == len(CATALOG) - len(liked)
        if not liked:
            assert math.isclose(sum(r.probability for r in every), 1.0)
        assert every.details["certificate"]["exact"]
        best = recommender.recommend("0", 3, query=query, show="all", query_weights=heard, allow_last_basket=True,
                                     allow_same_title=True)  # fmt: skip
        assert [r.item_id for r in best] == [r.item_id for r in every][:3]


def test_filters_of_the_caller_do_not_change_probabilities(recommender: Recommender) -> None:
    every = {r.item_id: r.logprob for r in recommender.rank("", query="red mug")}
    some = recommender.recommend("", 2, query="red mug", deny=["5"])
    assert [r.logprob for r in some] == [every[r.item_id] for r in some]


def test_the_parts_of_the_score_add_up(recommender: Recommender) -> None:
    weights = {"match": 7.0, "unwanted": 3.0, "prior": 0.5, "model": 0.25}
    found = recommender.rank("", query="red mug, not plastic", query_weights=weights)
    sums = [sum((r.parts or {}).values()) for r in found]
    gaps = [r.score - total for r, total in zip(found, sums, strict=True)]
    assert max(gaps) - min(gaps) < 1e-9
    first = found[0]
    assert first.parts is not None
    assert first.logprob_model is not None
    assert first.logprob_prior is not None
    assert math.isclose(first.parts["model"], 0.25 * first.logprob_model)
    assert math.isclose(first.parts["prior"], 0.5 * first.logprob_prior)
    assert first.parts["match"] > 0 >= first.parts["unwanted"]


def test_what_is_not_wanted_loses(recommender: Recommender) -> None:
    plain = {"model": 0.0, "prior": 0.0}
    place = {}
    for query in ("picnic", "picnic, without a blanket"):
        found = recommender.recommend("", 6, query=query, query_weights=plain)
        place[query] = [r.item_id for r in found].index("1")
    assert place["picnic"] < place["picnic, without a blanket"]


def test_without_its_weight_the_model_is_not_asked() -> None:
    calls: list[int] = []
    made = Recommender(CATALOG, tiny.language_model(), encoder="ngrams")
    tree = made.model.prefill_many

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return tree(*given, **more)

    made.model.prefill_many = counted  # type: ignore[method-assign]
    try:
        found = made.recommend("", 2, query="red mug")
        assert not calls
        assert found.details["parts"] == ["match"]
        made.recommend("", 2, query="red mug", query_weights={"model": 1})
        assert calls
    finally:
        del made.model.prefill_many


def test_the_model_reads_the_query_as_text(recommender: Recommender) -> None:
    history = History((Interaction("0", "buy"),), query="a {{ target }} <|endoftext|> mug")
    encoded = recommender.prompt(history)
    assert 'The customer asks for: "a {{ target }}' in encoded.text
    plain = recommender.prompt(History((Interaction("0", "buy"),), query="a mug"))
    specials = set(recommender.encoder.control_ids)
    assert specials.isdisjoint(set(encoded.ids) - set(plain.ids))
    chinese = recommender.with_settings(language="zh").prompt(history)
    assert "用户想要：“a" in chinese.text
    long = recommender.recommend("", 1, query="mug " * 400)
    assert long.prompt_tokens < recommender.model.context


def test_a_query_of_conditions_ranks_as_without_it(recommender: Recommender) -> None:
    plain = recommender.recommend("0", 2, where="price < 5")
    found = recommender.recommend("0", 2, query="under 5")
    assert [r.item_id for r in plain] == [r.item_id for r in found]
    assert found.to_dict()["query"]["parts"] == []
    assert all("parts" not in r for r in found.to_dict()["recommendations"])


def test_counts_and_given_numbers(recommender: Recommender) -> None:
    assert len(recommender.recommend("", query="two picnic things")) == 2
    assert len(recommender.recommend("", 3, query="two picnic things")) == 3


def test_items_that_are_liked_count_for_the_prior(recommender: Recommender) -> None:
    found = recommender.recommend("", 6, query="something like Red Mug")
    assert "5" not in [r.item_id for r in found]
    prior = QueryPrior(Counted(), 1.0, np.zeros(6), np.ones(6, bool), (Interaction("5", "buy"),))
    assert int(np.argmax(prior.weights(History()).to_dense(6))) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query": ""}, "is empty"),
        ({"query": "x" * 2001}, "2,001 characters"),
        ({"query": "mug under 0.1"}, "No item satisfies the conditions"),
        ({"query": "mug", "query_weights": {"taste": 1}}, "match, unwanted, prior, model"),
        ({"query": "mug", "query_weights": {"match": -1}}, "from 0 to"),
        ({"query": "mug", "query_weights": [1]}, "Expected a mapping"),
    ],
)
def test_wrong_queries(recommender: Recommender, given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        recommender.recommend("", **given)


def test_free_text_leaves_queries_to_the_titles(recommender: Recommender) -> None:
    made = Recommender(CATALOG, tiny.language_model(), decoder="match", encoder="none", n_samples=1)
    answer = made.recommend("", 3, query="red mug")
    wanted = recommender.recommend("", 3, query="red mug", query_weights={"prior": 0})
    assert [r.item_id for r in answer] == [r.item_id for r in wanted]
    assert answer.decoder == "trie"
    assert "model" not in answer.details["parts"]


def test_explanations_rails_batches_and_draws(recommender: Recommender) -> None:
    explained = recommender.recommend(
        "0; 1", 2, query="red mug", explain=True, style="plain", query_weights={"model": 1}
    )
    assert all(r.explanation is not None for r in explained)
    assert recommender.explain("0", "5", query="red mug").rank == 1
    rails = recommender.recommend_rails("0; 1", 2, query="picnic", allow_last_basket=True)
    assert {r.item_id for r in rails["again"]} == {"0", "1"}
    several = recommender.recommend_many(["0", ""], 2, query="red mug")
    assert [one.details["query"]["wanted"] for one in several] == ["red mug", "red mug"]
    drawn = recommender.with_settings(search="sample").recommend("", 3, query="red mug")
    assert all(r.propensity is not None for r in drawn)


def test_titles_that_no_encoder_reads_are_compared_by_spelling() -> None:
    shop = Catalog([Item("a", "红色杯子"), Item("b", "蓝色毯子")])
    likeness = TitleLikeness(TextMatcher(shop, encoder=tiny.LatinEmbedder()), 2)
    assert likeness.by("杯子") == "ngrams"
    assert likeness.cosines(["杯子"])[0].argmax() == 0
    assert not likeness.cosines(["!!"]).any()


def test_the_command_line(run: Run, data: Any, model: Any) -> None:
    one = answer(run, "recommend", data, "--model", model, "--query", "two red things",
                 "--encoder", "ngrams", "--query-weight", "match=30", "--history", "")  # fmt: skip
    assert one["query"]["count"] == one["asked"] == 2
    shown = answer(run, "prompt", data, "--model", model, "--query", "a mug", "--history", "")
    assert 'The customer asks for: "a mug"' in shown["text"]
    ranked = answer(
        run,
        "rank",
        data,
        "--model",
        model,
        "--query",
        "a mug",
        "--history",
        "",
        "--encoder",
        "ngrams",
    )
    assert ranked["query"]["wanted"] == "a mug"
    assert one["query"]["weights"]["match"] == 30


def test_the_service(client: TestClient) -> None:
    body = {"history": "", "query": "two things", "query_weights": {"model": 0}, "k": 3}
    answered = client.post("/v1/recommend", json=body).json()
    assert answered["query"]["wanted"] == "things"
    asked = {"query": "item", "k": 2}
    searched = client.post("/v1/search", json={**asked, "understand": True}).json()
    assert searched["query"]["text"] == "item"
    assert len(searched["recommendations"]) == 2
    assert "query" not in client.post("/v1/search", json=asked).json()


def test_what_people_say_about_themselves_adds_examples(recommender: Recommender) -> None:
    keywords = KeywordIndex(CATALOG)
    assert find_examples("I own two red mugs and a xylophone", keywords) == [0, 5]  # red, mug
    assert find_examples("I am fond of it", keywords) == []
    told = "I own two red mugs"
    found = recommender.recommend("", 6, query=told)
    said = found.to_dict()["query"]
    assert said["about"] is True
    assert said["weights"] == {"match": 2.0, "prior": 1.0}
    assert said["examples"] == ["0", "5"]
    assert sum(r.probability or 0.0 for r in found) == pytest.approx(1)
    asked = recommender.recommend("", 6, query="red mugs").to_dict()["query"]
    assert (asked["about"], asked["examples"], asked["weights"]["match"]) == (False, [], 20.0)
    heavy = recommender.recommend("", 6, query=told, query_weights={"match": 20})
    assert heavy.to_dict()["query"]["weights"]["match"] == 20.0
    # Half of the prior is that of a history with the examples, and half is that without.
    shares = []
    for history in (History(()), History((Interaction("5", "buy"), Interaction("0", "buy")))):
        values = Counted().weights(history).values
        shares.append(values / values.sum())
    prior = QueryPrior(
        Counted(), 1.0, np.zeros(6), np.ones(6, dtype=np.bool_),
        examples=(Interaction("5", "buy"), Interaction("0", "buy")),
    )  # fmt: skip
    logs, _ = prior.prior_logs(History(()))
    assert np.exp(logs) == pytest.approx((shares[0] + shares[1]) / 2)


def test_words_of_scripts_without_spaces_find_examples() -> None:
    catalog = Catalog(
        [
            Item("a", "红色杯子"),
            Item("b", "猫咪玩具"),
            Item("c", "书籍"),
            *(Item(f"x{n}", f"x {n}") for n in range(60)),
        ]
    )
    assert find_examples("我家有猫咪，常用红色杯子", KeywordIndex(catalog)) == [1, 0]
