"""Profiles: nats by the evidence, sentences by the checker, and the line in a prompt."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import tiny
from support.amount import FULL
from support.evidence_shop import Neighbours, past, shop
from support.reviewed import reviewed_shop

from genrec import Dataset, History, Interaction, Recommender
from genrec.config import PROTOCOL
from genrec.data.behaviors import shipped_verbs
from genrec.data.datasets import load
from genrec.pipeline.profiles import LANGUAGES, Profiler, profile_dataset
from genrec.prompts.profile import ProfileWords
from genrec.taste.interests import find_interests
from genrec.taste.opinions import find_opinions
from genrec.taste.profile import Profile
from genrec.taste.sentences import Part, ProfileWriter, Sentence, find_unsupported


@pytest.mark.parametrize("role", ["fuse", "explain"])
def test_nats_are_what_the_items_lose_without_the_events(role: str) -> None:
    ours = shop(prior_weight=1.0, fusion="node", model_role=role)
    ours.prior = Neighbours(8)
    history = past(4, 0, 1, 2, 0, 1, 2, 0, 1)
    profile = ours.profile(history)
    assert profile.measured == ("prior" if role == "explain" else "model and prior")

    def chance(some: History, rows: list[str]) -> float:
        scored = ours.score(some, rows)
        found = [r.logprob_prior if role == "explain" else r.logprob for r in scored]
        return float(np.exp(np.array(found, dtype=np.float64)).sum())

    red = profile.interests[0]
    assert (red.keyword, red.events) == ("red", tuple(range(1, 9)))
    rows = [i.item_id for i in ours.catalog if "red" in i.title.split()]
    fall = np.log(chance(history, rows)) - np.log(chance(past(4), rows))
    assert red.nats == pytest.approx(fall, abs=1e-3)
    assert red.nats == pytest.approx((red.nats_model or 0) + (red.nats_prior or 0))
    assert (red.nats_model == 0) == (role == "explain")


def test_events_that_the_prompt_does_not_show_count_for_the_prior() -> None:
    ours = shop(prior_weight=1.0, fusion="score", max_events=2)
    ours.prior = Neighbours(8)
    history = past(0, 1, 2, 4, 5)
    rows = np.array([0, 1, 2])
    ((model, prior),) = ours._set_falls(history, [rows], [[0, 1, 2]])
    ids = [f"i{n}" for n in rows]
    before, after = ours.score(history, ids), ours.score(past(4, 5), ids)
    fall = np.logaddexp.reduce([r.score for r in before])
    fall -= np.logaddexp.reduce([r.score for r in after])
    assert (model, prior) == pytest.approx((0.0, fall), abs=1e-4)


def test_without_a_prior_and_a_model_that_gives_probabilities_nothing_is_measured() -> None:
    ours = shop()
    assert ours.profile(past(0, 1, 2, 0, 1)).measured == "model"
    wordy = shop(decoder="match", prior="none")
    profile = wordy.profile(past(0, 1, 2, 0, 1))
    assert profile.measured is None
    assert [i.nats for i in profile.interests] == [None]
    assert "no nats were measured" in profile.notes[0]


@functools.cache
def profiler_of(name: str) -> tuple[Dataset, Profiler]:
    data = load(name)
    return data, profile_dataset(data, History())[1]


@pytest.mark.parametrize("name", ["online_retail_demo", "zh_mini"])
def test_no_sentence_has_an_unsupported_claim(name: str) -> None:
    data, profiler = profiler_of(name)
    for user in data.interactions.user_ids[: 200 if FULL else 4]:
        profile = profiler.make(data.interactions.history(user), None)
        for language in LANGUAGES:
            assert profiler.unsupported(profile, language) == ()
            assert profile.text[language]


def made() -> tuple[Profile, dict[str, Any], list[Sentence]]:
    data, profiler = profiler_of("online_retail_demo")
    profile = profiler.make(data.interactions.history("12393"))
    words, verbs = ProfileWords.load("en"), shipped_verbs("en")
    about = {"profile": profile, "catalog": data.catalog, "words": words, "verbs": verbs}
    return profile, about, ProfileWriter(words, verbs).sentences(profile)


def test_the_checker_rejects_what_is_false() -> None:
    profile, about, sentences = made()
    interests = next(s for s in sentences if s.kind == "interests")
    part = interests.parts[1]
    false = {
        "number": replace(part, text=part.text.replace("(5)", "(6)")),
        "keyword": Part("candle (5)", "interest", "candle"),
        "word": replace(part, text=part.text.replace("(5)", "lovely (5)")),
    }
    for wrong in false.values():
        text = interests.text.replace(part.text, wrong.text)
        parts = tuple(wrong if p is part else p for p in interests.parts)
        assert find_unsupported([Sentence(text, "interests", parts)], **about)
    added = replace(interests, text=interests.text.replace(".", " and wine."))
    assert find_unsupported([added], **about)
    rises = next(s for s in sentences if s.kind == "rises")
    assert find_unsupported([replace(rises, kind="falls")], **about)
    assert find_unsupported(sentences, **about) == ()
    assert profile.text["en"] == " ".join(s.text for s in sentences)


def test_a_prompt_names_the_interests_of_events_that_do_not_fit() -> None:
    data = load("online_retail_demo")
    ours = Recommender(
        data, tiny.language_model(), prior="none", template="next_item_profile", max_events=5,
        encoder="none",
    )  # fmt: skip
    history = data.interactions.history("12393")
    text = ours.prompt(history).text
    first = text.splitlines()[0]
    assert first.startswith("Earlier interests: ")
    older = history.with_events(history.interactions[:-5])
    named = find_interests(ours._requests.keywords, older.interactions, most=12)
    assert first == "Earlier interests: " + ", ".join(i.keyword for i in named)
    plain = ours.with_settings(template="next_item").prompt(history).text
    assert text == f"{first}\n{plain}"
    # Evidence leaves out an event and keeps the line.
    window = ours.with_settings(max_events=5)
    assert window.falls(history, "22720", [[0], [4]])
    short = history.latest(3)
    assert ours.prompt(short).text == ours.with_settings(template="next_item").prompt(short).text
    edited = ours._requests.build(
        [history], replace(PROTOCOL, profile_edits={"removed": [named[0].keyword]})
    )[0]
    assert named[0].keyword not in edited.prompt.text.splitlines()[0].split(": ")[1].split(", ")


def test_opinions_come_from_marks_behaviors_and_classifiers() -> None:
    events = (
        Interaction("i0", "like"), Interaction("i1", "dislike"),
        Interaction("i2", "comment", text="fine", attributes={"sentiment": 0.9}),
        Interaction("i3", "comment", text="awful"), Interaction(None, "search", text="tea"),
        Interaction("i4", "buy"),
    )  # fmt: skip
    assert find_opinions(events).positive == (0, 2)

    class Grumpy:
        def probabilities(self, texts: Any) -> Any:
            assert list(texts) == ["awful"]
            return np.array([0.1])

    found = find_opinions(events, Grumpy())
    assert (found.read, found.positive, found.negative) == (4, (0, 2), (1, 3))
    assert found.mean == pytest.approx((1 + 0 + 0.9 + 0.1) / 4)
    data = reviewed_shop()
    profile, _ = profile_dataset(data, History(events[:3]))
    assert "Of 3 opinions, 2 are positive and 1 negative." in profile.text["en"]


def test_the_words_of_the_languages_have_the_same_names_and_places() -> None:
    english, chinese = (ProfileWords.load(language).patterns for language in LANGUAGES)
    assert list(english) == list(chinese)
    for name in english:
        assert set(re.findall(r"{\w+}", english[name])) == set(re.findall(r"{\w+}", chinese[name]))
