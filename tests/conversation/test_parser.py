"""Queries in English and Chinese: texts, conditions, counts, references, and questions back."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.amount import EXAMPLES

from genrec.conversation.catalog_words import CatalogWords, stem
from genrec.conversation.numerals import read_number
from genrec.conversation.parser import parse_query
from genrec.conversation.query import MOST_QUERY
from genrec.data.catalog import Catalog, Item
from genrec.errors import RequestError
from genrec.matching.matcher import TextMatcher
from genrec.pipeline.predicates import Predicate

_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("Red Picnic Basket", {"price": 4.5, "color": "red", "brand": "Acme", "material": "wicker",
     "year": 1995, "category": "garden", "in_stock": True, "genres": "Comedy|Drama", "vegan": True,
     "pages": 100, "颜色": "红色"}),
    ("Blue Picnic Blanket", {"price": 12.0, "color": "blue", "brand": "Penguin", "material": "cotton",
     "year": 2012, "category": "garden", "in_stock": False, "genres": "Drama", "vegan": False,
     "pages": 200, "颜色": "蓝色"}),
    ("Plastic Cup", {"price": 1.0, "color": "red", "brand": "Acme", "material": "plastic", "year": 2020,
     "category": "kitchen", "in_stock": True, "genres": "Comedy|Horror", "vegan": True, "pages": 300,
     "颜色": "红色"}),
    ("Orange Juice", {"price": 3.0, "color": "orange", "brand": "Orange", "material": "plastic",
     "year": 2015, "category": "food", "in_stock": True, "genres": "Horror|Drama", "vegan": True,
     "pages": 400, "颜色": "橙色"}),
    ("Harry Potter", {"price": 8.0, "color": "blue", "brand": "Penguin", "material": "paper",
     "year": 1997, "category": "books", "in_stock": True, "genres": "Drama", "vegan": False,
     "pages": 500, "颜色": "蓝色"}),
]  # fmt: skip
CATALOG = Catalog([Item(str(i), title, values) for i, (title, values) in enumerate(_ROWS)])
WORDS = CatalogWords(CATALOG)
SHOWN = ("0", "1", "2")


def read(text: str, **given: Any) -> Any:
    return parse_query(text, CATALOG, words=WORDS, shown=SHOWN, year=2020, **given)


# The query, what is wanted, what is not, the rows that satisfy the conditions, the count.
_CLEAR: list[tuple[str, str, tuple[str, ...], str, int | None]] = [
    ("something for a picnic, not plastic, under £5", "something for a picnic", ("plastic",), "0", None),
    ("over £5", "", (), "14", None),
    ("at least £5 but under £9", "", (), "4", None),
    ("over £5 and not over £10", "", (), "4", None),
    ("nothing over 10 pounds", "", (), "0234", None),
    ("between 5 and 10 pounds", "", (), "4", None),
    ("10-20 pounds", "", (), "1", None),
    ("something under a fiver", "something", (), "023", None),
    ("around £10", "", (), "14", None),
    ("garden stuff under ten pounds", "garden stuff", (), "0", None),
    ("at least 200 pages", "", (), "1234", None),
    ("three red mugs for mum", "red mugs for mum", (), "02", 3),
    ("not more than three red mugs under £10", "red mugs", (), "02", 3),
    ("show me 5 books from the 90s", "books", (), "4", 5),
    ("a set of 3 cups", "a set of 3 cups", (), "01234", None),
    ("I'd like two candles under 5", "candles", (), "023", 2),
    ("kids under 5", "kids under 5", (), "01234", None),
    ("in red or blue", "in red or blue", (), "0124", None),
    ("in orange", "in orange", (), "3", None),
    ("books by Penguin", "books by Penguin", (), "4", None),
    ("books not by Penguin", "books", ("Penguin",), "", None),
    ("don't show me anything from Acme", "", ("Acme",), "134", None),
    ("anything but red", "", ("red",), "134", None),
    ("I hate plastic and want cotton", "want cotton", ("plastic",), "1", None),
    ("no plastic or cotton, please", "", ("plastic", "cotton"), "04", None),
    ("something without plastic for a picnic", "something for a picnic", ("plastic",), "014", None),
    ("plastic-free cups", "cups", ("plastic",), "014", None),
    ("without a lid", "", ("lid",), "01234", None),
    ("comedy but not horror", "comedy", ("horror",), "0", None),
    ("vegan snacks in stock", "vegan snacks", (), "023", None),
    ("something newer than 2000", "something", (), "123", None),
    ("a book before 2000", "a book", (), "4", None),
    ("from 2012 onwards", "", (), "123", None),
    ("released this year", "", (), "2", None),
    ("between 1996 and 2013", "", (), "14", None),
    ("un cadeau pour ma mère", "un cadeau pour ma mère", (), "01234", None),
    ("不要塑料，5元以下", "", ("塑料",), "023", None),
    ("推荐三本书，90年代的", "书", (), "04", 3),
    ("2010年以后的书", "书", (), "123", None),
    ("2000年之前", "", (), "04", None),
    ("有货的，5到10元", "", (), "4", None),
    ("红色的杯子，不超过四元", "红色的杯子", (), "2", None),
    ("不要红色的，要蓝色的", "蓝色的", ("红色",), "14", None),
    ("给我五个", "", (), "01234", 5),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted", "unwanted", "rows", "count"), _CLEAR)
def test_a_clear_query(
    text: str, wanted: str, unwanted: tuple[str, ...], rows: str, count: int | None
) -> None:
    query = read(text)
    assert not query.questions
    assert query.unwanted == unwanted
    assert query.count == count
    if text != "released this year":  # "released" may stay
        assert query.wanted == wanted
    met = [True] * len(CATALOG)
    if query.where is not None:
        met = Predicate.parse(query.where).mask(CATALOG).tolist()
    assert "".join(str(i) for i, fits in enumerate(met) if fits) == rows
    assert all(c.text and c.where for c in query.conditions)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("under £5 and over £10", "contradiction", "under £5, over £10"),
        ("in red but not in red", "contradiction", "red, but not in red"),
        ("a £5 mug", "ambiguous", "£5"),
        ("something cheap", "ambiguous", "cheap"),
        ("anything orange", "ambiguous", "orange"),
        ("the newest books", "ambiguous", "the newest"),
        ("under 30 minutes", "no_column", "under 30 minutes"),
        ("brand: Foo", "no_value", "brand: Foo"),
        ("the seventh one", "reference", "the seventh one"),
        ('something like "Nothing Known"', "reference", 'something like "Nothing Known"'),
        ("五元以下，十元以上", "contradiction", "五元以下, 十元以上"),
    ],
)
def test_what_is_unclear_is_asked_back(text: str, kind: str, said: str) -> None:
    query = read(text)
    (question,) = query.questions
    assert (question.kind, question.text.removeprefix("in ")) == (kind, said)
    assert question.question.endswith(("?", "？", "."))
    if kind == "contradiction":
        assert not query.conditions


@pytest.mark.parametrize(
    ("text", "kind", "items", "where"),
    [
        ("something like Harry Potter but darker", "like", ("4",), None),
        ("cheaper", "cheaper", ("0",), "price < 4.5"),
        ("cheaper than the second one", "cheaper", ("1",), "price < 12"),
        ("cheaper than Harry Potter", "cheaper", ("4",), "price < 8"),
        ("newer than the first one", "newer", ("0",), "year > 1995"),
        ("not that one", "not", ("0",), None),
        ("not the last one", "not", ("2",), None),
        ("I don't like the first two", "not", ("0", "1"), None),
        ("show me more", "not", ("0", "1", "2"), None),
        ("还有吗？", "not", ("0", "1", "2"), None),
        ("the second one", "this", ("1",), None),
        ("便宜一点的", "cheaper", ("0",), "price < 4.5"),
        ("比第二个便宜", "cheaper", ("1",), "price < 12"),
        ("除了那个", "not", ("0",), None),
        ("像第一个但是蓝色的", "like", ("0",), '颜色 == "蓝色"'),
    ],
)
def test_references(text: str, kind: str, items: tuple[str, ...], where: str | None) -> None:
    query = read(text)
    assert [(r.kind, r.item_ids) for r in query.references] == [(kind, items)]
    assert (query.where or "").replace("col('颜色')", "颜色") == (where or "")


def test_an_item_that_others_should_be_like_is_not_recommended_itself() -> None:
    query = read('"Harry Potter" but cheaper')
    assert query.liked == query.denied == ("4",)
    assert query.where == "price < 8"


def test_a_focus_is_what_that_one_means() -> None:
    assert read("not that one", focus="3").denied == ("3",)


def test_without_a_list_places_are_asked_about() -> None:
    query = parse_query("the second one", CATALOG, words=WORDS)
    assert query.questions[0].kind == "reference"


def test_titles_may_be_misspelled() -> None:
    matcher = TextMatcher(CATALOG, encoder=None)
    assert read("something like Red Picnik Basket", matcher=matcher).liked == ("0",)


def test_a_catalog_without_columns_asks_about_conditions() -> None:
    bare = Catalog([Item("1", "Mug"), Item("2", "Cup")])
    query = parse_query("a mug under £5 from the 90s in stock", bare)
    assert [q.kind for q in query.questions] == ["no_column"] * 3
    assert query.where is None
    assert "mug" in query.wanted


def test_prices_in_another_currency_are_asked_about() -> None:
    shop = Catalog([Item("1", "Mug", {"median_price_gbp": 2.0})])
    assert parse_query("under £5", shop).where == "median_price_gbp < 5"
    assert parse_query("under $5", shop).questions[0].kind == "ambiguous"


def test_dates_are_compared_as_texts() -> None:
    books = Catalog(
        [Item(str(y), f"Book {y}", {"published": f"{y}-05-01"}) for y in (1985, 1995, 2005)]
    )
    expected = {
        "after 1995": "2005", "since 1995": "1995 2005", "before 1995": "1985", "from the 90s": "1995",
        "until 1995": "1985 1995", "in 1985": "1985",
    }  # fmt: skip
    for text, years in expected.items():
        where = parse_query(text, books).where
        assert where is not None
        met = Predicate.parse(where).mask(books)
        assert " ".join(b.item_id for b, fits in zip(books, met, strict=True) if fits) == years


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("x" * (MOST_QUERY + 1), "shorten"),
        (7, "of type int"),
    ],
)
def test_unusable_queries_are_errors(given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(given)


def test_any_mixture_of_phrases_gives_conditions_that_the_catalog_understands() -> None:
    pieces = [p for text, *_ in _CLEAR for p in text.split(",")]
    pieces += [
        '"',
        "' or True",
        "col('price')",
        "\\",
        '") or price < 1',
        "{{ target }}",
        "<|im_start|>",
        "０",
        "²",
    ]
    chance = random.Random(0)
    for _ in range(EXAMPLES):
        text = chance.choice([" ", ", ", " and ", "，"]).join(chance.sample(pieces, 4))
        query = read(text)
        if query.where is not None:
            assert Predicate.parse(query.where).mask(CATALOG).shape == (len(CATALOG),)
        assert {*query.liked, *query.denied} <= {i.item_id for i in CATALOG}


def test_values_with_quotes_stay_values() -> None:
    odd = Catalog([Item(str(i), f"Item {i}", {"brand": b}) for i, b in
                   enumerate(['A"B', "O'Neil", "back\\slash", 'x") or ("y'] * 2)])  # fmt: skip
    for name in ('by A"B', "by O'Neil", "by back\\slash", 'by x") or ("y'):
        where = parse_query(name, odd).where
        assert where is not None
        assert Predicate.parse(where).mask(odd).sum() == 2


def test_numbers_and_plurals() -> None:
    assert [read_number(t) for t in ("twenty", "三百五", "1,000", "x")] == [
        20.0,
        305.0,
        1000.0,
        None,
    ]
    pairs = [("mugs", "mug"), ("boxes", "box"), ("glass", "glass")]
    assert all(stem(several) == one for several, one in pairs)
