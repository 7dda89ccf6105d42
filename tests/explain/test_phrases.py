"""Phrases of items: what may stand alone in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from genrec import Catalog
from genrec.data.catalog import Item
from genrec.explain.phrases import LONGEST, Phrases

SMALL = frozenset({"of", "the", "and", "的"})


def phrases(title: str, others: Sequence[str] = (), **attributes: object) -> frozenset[str]:
    items = [Item("0", title, attributes)]
    items += [Item(str(n), other) for n, other in enumerate(others, 1)]
    return Phrases(Catalog(items), SMALL).of(items[0])


def test_a_phrase_ends_where_phrases_end() -> None:
    found = phrases("TWO DOOR CURIO CABINET", ["Green door", "Curio shelf"])
    assert "two door" in found
    assert "curio cabinet" in found
    assert not {"two", "curio", "door curio", "two door curio"} & found


def test_words_that_stand_together_stay_together() -> None:
    others = [
        "hot water bottle",
        "red hot water bottle",
        "bottle",
        "sign",
        "metal sign",
        "tin metal sign",
    ]
    found = phrases("wine metal sign", [*others, "metal"])
    assert found == {"wine metal sign", "metal sign"}
    found = phrases("chick hot water bottle", others)
    assert found == {"chick hot water bottle", "hot water bottle"}


def test_two_words_stay_with_a_third_that_is_always_there() -> None:
    others = ["wedding card", "birthday card", "gift card", "thank you card", "bus wallet", "card"]
    others += ["travel card wallet pantry", "travel card wallet skulls"]
    found = phrases("travel card wallet jack", others)
    assert "travel card wallet jack" in found
    assert "travel card" not in found
    assert "travel card" in phrases("travel card wallet jack", [*others, "travel card holder"])


def test_numbers_and_marks_are_ends() -> None:
    found = phrases("Paper set 6, lace (white) t-light - holder")
    assert found == {"paper set", "set", "lace", "white", "t-light", "holder"}


def test_small_words_are_within_only() -> None:
    found = phrases("the house of cards")
    assert found == {"house", "house of cards", "cards"}
    assert phrases("of the") == frozenset()


def test_attributes_say_something_too() -> None:
    assert phrases("mug", tags="red kitchen", price=3.5) == {"mug", "red kitchen", "kitchen"}


def test_scripts_without_spaces_have_pieces() -> None:
    assert phrases("红的杯子 mug") == {"红的杯", "红的杯子", "杯子", "mug"}


def test_where_all_or_nothing_could_be_said_words_are_parted() -> None:
    others = ["party invites dinosaurs", "party invites jazz"]
    assert phrases("party invites jazz", others) == {"party invites jazz", "invites jazz", "jazz"}
    assert phrases("egg frying pan", ["egg frying pan"]) == {"egg frying pan", "frying pan", "pan"}
    assert phrases("party invites") == {"party invites", "invites"}  # two words are all there is


def test_marks_belong_to_their_letters() -> None:
    assert phrases("cafe\u0301 cre\u0300me, नीली किताब") >= {"cafe\u0301 cre\u0300me", "नीली किताब"}
    found = phrases("ชาเย็น")
    assert "เย็น" in found
    assert not any(p.startswith("็") or p.endswith("ย") for p in found)


def test_an_attribute_that_is_missing_says_nothing() -> None:
    assert phrases("mug", brand="NaN", shop="null", price=float("nan")) == {"mug"}


def test_letters_are_ends_but_no_words() -> None:
    assert phrases("plain tee L", ["plain tee m", "plain tee s"]) == {"plain tee"}
    assert phrases("vitamin c") == {"vitamin"}


def test_a_long_text_is_not_cut_within_a_word() -> None:
    text = "mug " * 247 + "so it is wonderful"
    assert text[:1000].endswith(" won")
    assert not any("wond" in p for p in phrases("cup", description=text))


def test_phrases_are_not_endless() -> None:
    found = phrases(
        " ".join(f"w{chr(97 + n)}" for n in range(20)), [f"w{chr(97 + n)}" for n in range(20)]
    )
    assert max(len(p.split()) for p in found) == LONGEST


@pytest.mark.parametrize("title", ["3", "...", "a", "\u200dx", "<|endoftext|>"])
def test_titles_of_next_to_nothing(title: str) -> None:
    assert all(len(p) > 1 for p in phrases(title))


def test_of_long_texts_the_beginning_counts() -> None:
    found = phrases("mug", description="red mugs. " * 50_000 + "the end")
    assert found == {"mug", "red mugs", "mugs"}
