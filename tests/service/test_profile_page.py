"""The profile on the page at ``/`` in a real browser. Errors in its console are failures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from support import served
from support.page import Page, serving, until
from support.page import page as page

from genrec import Dataset

pytestmark = pytest.mark.browser
USER = "a/b <i>&amp;"
CUSTOMER = json.dumps({"kind": "customer", "id": USER})
KINDS = ("mug", "doll", "vase", "lamp", "clock", "bag", "towel", "candle")
TITLES = [f"{color} {kind}" for kind in KINDS for color in ("red", "blue", "green", "white")]


def dataset() -> Dataset:
    """A customer of mugs, who lately bought dolls, among customers of anything."""
    rng = np.random.default_rng(0)
    bought = {f"u{n}": rng.permutation(len(TITLES))[:6].tolist() for n in range(30)}
    bought[USER] = [0, 1, 2, 0, 3, 1, 4, 5, 6, 4]
    events = [
        {"user_id": user, "item_id": f"i{row}", "behavior": "buy", "timestamp": 1.6e9 + n}
        for user, rows in bought.items()
        for n, row in enumerate(rows)
    ]
    items = {"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES}
    return Dataset.from_tables(pa.table(items), pa.Table.from_pylist(events), name="shop")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        served.service(tmp_path_factory.mktemp("shop"), dataset()) as made,
        serving(made) as found,
    ):
        yield found


def settled(page: Page) -> None:
    page.settled()
    until(lambda: not page.all("button:disabled"))


def interests(page: Page) -> list[str]:
    return page.texts(".interests strong")


def cards(page: Page) -> list[str]:
    return page.texts(".cards h3")


def test_interests_have_evidence_and_the_list_follows_corrections(page: Page, url: str) -> None:
    page.open(f"{url}/#/taste", subject=CUSTOMER)
    page.one(".interests strong")
    settled(page)
    assert "mug" in interests(page)
    assert any("mug" in text for text in page.texts(".interests .evidence a"))
    assert page.texts("#taste-intent")
    assert page.one("[aria-labelledby=taste-intent] li").text.endswith("%")
    assert cards(page)
    assert page.axe() == []
    # By keyboard: the field of keywords, and enter.
    page.run("document.querySelector('.taste form input').focus()")
    page.press("vase", "\ue007")
    page.one(".keywords li", "vase")
    until(lambda: page.run("return document.activeElement.tagName") == "H1")
    until(lambda: "vase" in interests(page) and "vase" in cards(page)[0])
    # The buttons of an interest.
    page.run("document.querySelector('[aria-label^=Ban][aria-label*=vase]').focus()")
    page.press("\ue007")
    until(lambda: cards(page) and not any("vase" in title for title in cards(page)))
    until(lambda: "vase" not in interests(page))
    assert page.texts(".keywords li") == ["vase ×"]
    settled(page)
    assert page.axe() == []
    page.click("[aria-label^=Remove][aria-label*=mug]")
    until(lambda: "mug" not in interests(page))
    page.driver.refresh()  # the service has kept both
    until(lambda: page.texts(".keywords li") == ["mug ×", "vase ×"])
    page.click("[aria-label^='Take back'][aria-label*=mug]")
    until(lambda: "mug" in interests(page))
    page.check()


def test_text_stays_text_and_it_speaks_chinese(page: Page, url: str) -> None:
    page.open(f"{url}/#/taste", width=500, subject=CUSTOMER)
    page.one(".taste form input")
    settled(page)
    hostile = "<img src=x onerror=window.hacked=1> {{7*7}}"
    page.type(".taste form input", hostile)
    page.click(".taste form button", "Ban")
    page.one(".keywords li", "<img src=x")
    assert page.run("return window.hacked") is None
    assert not page.all(".taste .keywords img")
    page.choose("Language", "zh")
    page.one("h1", "口味")
    page.one("#taste-edits", "修正")
    settled(page)
    assert page.axe() == []
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.choose("语言", "en")
    page.check()


def test_a_typed_history_and_an_unknown_customer_say_so(page: Page, url: str) -> None:
    typed = json.dumps({"kind": "typed", "events": [], "session": None})
    page.open(f"{url}/#/taste", subject=typed)
    page.one(".note", "Choose a customer")
    page.open(f"{url}/#/taste", subject=json.dumps({"kind": "customer", "id": "nobody"}))
    page.one(".failure", "nobody")
    page.check("404")
