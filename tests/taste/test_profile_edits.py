"""What users correct in their profile changes the profile, the lists and the reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.evidence_shop import Neighbours, past, shop

from genrec import History, Interaction, Recommender
from genrec.config import QueryOptions
from genrec.errors import DataError, RequestError
from genrec.taste.edits import FACTOR, ProfileEdits
from genrec.taste.keywords import holds


def recommender(**settings: Any) -> Recommender:
    ours = shop(prior_weight=1.0, fusion="node", exclude_seen=False, **settings)
    ours.prior = Neighbours(8)
    return ours


def test_added_keywords_double_the_scores_and_keep_the_probabilities() -> None:
    ours = recommender()
    plain = {r.item_id: r for r in ours.rank(past(1, 2, 5))}
    edited = {r.item_id: r for r in ours.rank(past(1, 2, 5), profile_edits={"added": ["dolls"]})}
    held = {i for i in plain if holds(ours.catalog[ours.catalog.row(i)], "doll")}
    assert held
    for item, one in edited.items():
        gain = np.log(FACTOR) if item in held else 0.0
        assert one.score == pytest.approx(plain[item].score + gain, abs=1e-4)
        assert one.logprob == pytest.approx(plain[item].logprob, abs=1e-4)


def test_banned_keywords_leave_no_trace() -> None:
    ours = recommender()
    banned = [n for n in range(8) if holds(ours.catalog[n], "red")]
    other = [n for n in range(8) if n not in banned]
    events = past(other[0], banned[0], other[1], banned[1])
    answer = ours.recommend(
        events, 8, profile_edits={"banned": ["RED"]}, explain=True, style="plain"
    )
    without = ours.recommend(past(other[0], other[1]), 8, deny=[f"i{n}" for n in banned])
    assert [r.item_id for r in answer] == [r.item_id for r in without]
    assert [r.score for r in answer] == pytest.approx([r.score for r in without], abs=1e-5)
    for one in answer:
        assert one.explanation is not None
        named = [e.item_id for e in one.explanation.evidence]
        assert not {f"i{n}" for n in banned} & set(named)
        assert "red" not in one.explanation.text.split()
    item = ours.explain(events, f"i{banned[0]}", profile_edits={"banned": ["red"]})
    assert item.excluded_by == "filters"


def test_texts_with_banned_keywords_are_not_read() -> None:
    ours = recommender()
    typed = History((Interaction(None, "search", text="red tins"), *past(1).interactions))
    kept = ours.profile(typed, edits={"banned": ["tin"]}).history
    assert [e.item_id for e in kept.interactions] == ["i1"]


def test_a_profile_names_added_and_no_removed_keywords() -> None:
    ours = recommender()
    events = past(4, 0, 1, 2, 0, 1, 2, 0, 1)
    first = ours.profile(events)
    assert first.interests
    word = first.interests[0].keyword
    edited = ours.profile(events, edits={"removed": [word], "added": ["hats"]})
    assert word not in [i.keyword for i in edited.interests]
    assert ("hats", "added") in [(i.keyword, i.source) for i in edited.interests]
    assert "hats" in edited.text["en"]
    assert (
        ours.recommend(events, 8).to_dict()
        == ours.recommend(events, 8, profile_edits={"removed": [word]}).to_dict()
    )


def test_draws_are_not_changed_by_added_keywords_and_say_so() -> None:
    ours = recommender(search="sample")
    plain = ours.recommend(past(1, 2), 4)
    edited = ours.recommend(past(1, 2), 4, profile_edits={"added": ["doll"]})
    assert [r.item_id for r in plain] == [r.item_id for r in edited]
    assert any("added" in note for note in edited.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"liked": ["tea"]}, "'liked' is not an edit of a profile"),
        ({"added": "tea"}, "Expected a list of keywords"),
        ({"added": ["..."]}, "Expected a text with letters"),
        ({"added": ["x" * 101]}, "at most 100 characters"),
        ({"added": ["tea"], "banned": ["Teas"]}, "both added and removed or banned"),
        ({"removed": ["a"] * 101}, "Expected at most 100"),
        (["tea"], "Expected a mapping"),
    ],
)
def test_wrong_edits_are_refused(given: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ProfileEdits.of(given)
    with pytest.raises(RequestError, match=message):
        recommender().recommend(past(1), options=QueryOptions(profile_edits=given))  # type: ignore[arg-type]


def test_edits_are_read_from_a_file_and_changed(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_text('{"added": ["Tea", "teas"], "banned": null}', encoding="utf-8")
    edits = ProfileEdits.read(path)
    assert edits.to_dict() == {"added": ["Tea"], "removed": [], "banned": []}
    changed = edits.changed({"added": None, "banned": ["pen"]})
    assert changed.to_dict() == {"added": [], "removed": [], "banned": ["pen"]}
    for text, message in (("[", "cannot be read"), ('{"x": []}', "is not an edit")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            ProfileEdits.read(path)
    with pytest.raises(RequestError, match="every item holds a keyword that the user banned"):
        recommender().recommend(
            past(1),
            profile_edits={"banned": ["red", "blue", "doll", "mug", "bag", "box", "tin", "cup"]},
        )
