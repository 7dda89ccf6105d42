"""What an answer says about the parts of a typed history that were not understood."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.commands import Run, answer

from genrec import Catalog, Item, Recommender
from genrec.data.datasets import load

TITLES = [
    "RED RETROSPOT MUG", "BLUE POLKADOT MUG", "RED WOOLLY HOTTIE", "JUMBO BAG PINK POLKADOT",
    "T-LIGHT HOLDER SET OF 4", "瑜伽垫 加厚", "红色马克杯",
]  # fmt: skip
CATALOG = Catalog(Item(f"i{n}", title) for n, title in enumerate(TITLES))


def remarks(notes: Sequence[str]) -> tuple[str, ...]:
    """Leave out the note on the tiny model, which reads no script well."""
    return tuple(n for n in notes if "cannot read the script" not in n)


def shop(**settings: Any) -> Recommender:
    return Recommender(CATALOG, tiny.language_model(), encoder="none", **settings)


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("RED MUG", "RED RETROSPOT MUG"),
        ("bought: red mug", "RED RETROSPOT MUG"),
        ("mug retrospott", "RED RETROSPOT MUG"),
        ("viewed: polkadot jumbo", "JUMBO BAG PINK POLKADOT"),
        (["red mug"], "RED RETROSPOT MUG"),
        ("购买瑜珈垫", "瑜伽垫 加厚"),
        ("马克杯", "红色马克杯"),
    ],
)
def test_near_titles_are_suggested_where_nothing_is_understood(typed: Any, title: str) -> None:
    recommender = shop()
    plain = recommender.recommend("", 3)
    assert remarks(plain.notes) == ()
    said = recommender.recommend(typed, 3)
    assert [r.item_id for r in said] == [r.item_id for r in plain]
    notes = remarks(said.notes)
    assert notes[0].startswith("Nothing in the typed history was understood")
    (piece,) = said.understood
    assert piece.suggestions[0] == title
    assert f"Similar titles: {title!r}" in notes[1]
    assert f"understood:\n      {piece.text!r} was not understood" in repr(said)
    assert notes[1] in repr(said)
    assert said.to_dict()["understood"][0]["suggestions"][0] == title
    many = recommender.recommend_many(["", typed], 3)
    assert [remarks(one.notes) for one in many] == [(), notes]
    for one in (recommender.rank(typed), recommender.score(typed)):
        assert one.notes == said.notes
    explained = recommender.explain(typed, "i1")
    assert explained.notes == notes
    assert explained.understood == said.understood
    assert explained.to_dict()["notes"] == list(notes)


@pytest.mark.parametrize("typed", ["asdfgh", "85123A", "一二三", "?!", "bought:", "x" * 300])
def test_nothing_is_suggested_where_no_title_is_near(typed: str) -> None:
    said = shop().recommend(typed, 2)
    assert "Nothing in the typed history was understood" in remarks(said.notes)[0]
    assert all(not u.suggestions for u in said.understood)
    assert "Similar" not in " ".join(said.notes)


def test_parts_that_are_not_understood_are_named() -> None:
    said = shop().recommend("RED RETROSPOT MUG; blue mug; asdfgh; searched: cups", 2)
    assert said.events == 2
    assert remarks(said.notes) == (
        "2 of 4 parts of the typed history were not understood and therefore ignored.",
        "No item matches 'blue mug'. Similar titles: 'BLUE POLKADOT MUG'.",
        "No item matches 'asdfgh'.",
    )
    shown = repr(said)
    assert "'RED RETROSPOT MUG' as buy 'RED RETROSPOT MUG' (exact)" in shown
    assert "'searched: cups' as search 'cups'" in shown
    assert [line.split()[2] for line in shown.splitlines()[1:3]] == [f"'{r.item_id}'" for r in said]


def test_many_parts_that_are_not_understood_give_few_notes() -> None:
    said = shop().recommend([f"nothing {n}" for n in range(9)], 2)
    assert len(remarks(said.notes)) == 7
    assert said.notes[-1] == "The same is true of 4 more parts."


def test_what_is_understood_needs_no_note() -> None:
    assert remarks(shop().recommend("RED RETROSPOT MUG; i3", 2).notes) == ()


@pytest.mark.parametrize("command", ["recommend", "rank", "score", "explain"])
def test_the_commands_say_what_was_not_understood(
    run: Run, data: Path, model: Path, command: str
) -> None:
    arguments = [command, data, "--history", "huge red mug", "--model", model, "--encoder", "none"]
    arguments += ["--item", "a"] if command == "explain" else []
    value = answer(run, *arguments)
    assert value["understood"][0]["suggestions"][0] == "Red mug"
    assert "Nothing in the typed history was understood" in " ".join(value["notes"])
    code, _, err = run(*arguments)
    assert code == 0, err
    assert "huge red mug | buy | - | not understood, ignored; similar: Red mug | none" in err
    assert "Similar titles: 'Red mug'" in err


def test_the_id_of_a_user_is_not_taken_for_a_history_in_silence() -> None:
    data = load("zh_mini")
    user = data.interactions.user_ids[0]
    recommender = Recommender(data, tiny.language_model(), encoder="none")
    said = recommender.recommend(user, 3)
    (note,) = [n for n in said.notes if "is the id of a user" in n]
    assert f"--user {user}" in note
    assert f"recommender.history({user!r})" in note
    for typed in ("", data.catalog[0].title, data.catalog[0].item_id, f"{user}x"):
        assert not any("id of a user" in n for n in recommender.recommend(typed, 3).notes)
    assert not any(
        "id of a user" in n for n in recommender.recommend(recommender.history(user), 3).notes
    )
