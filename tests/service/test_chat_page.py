"""The conversation on the page at ``/`` in a real browser. Errors in its console are failures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support import served
from support.page import Page, serving, until
from support.page import page as page

pytestmark = pytest.mark.browser
TYPED = json.dumps({"kind": "typed", "events": [], "session": None})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served.service(tmp_path_factory.mktemp("shop")) as made, serving(made) as found:
        yield found


def say(page: Page, text: str) -> None:
    turns = len(page.texts(".turns li"))
    page.type(".chat form input", text, "\ue007")  # enter
    until(lambda: len(page.texts(".turns li")) == turns + 2)


def test_turns_refine_the_list_and_text_stays_text(page: Page, url: str) -> None:
    page.open(f"{url}/#/chat", subject=TYPED)
    say(page, "a mug")
    cards = page.texts(".cards h2")
    assert cards[0] in {"red mug", "blue mug"}
    say(page, "not the first one, under 5")
    assert cards[0] not in page.texts(".cards h2")
    assert "price < 5" in page.one(".understood").text
    hostile = "<img src=x onerror=window.hacked=1> {{7*7}} <script>window.hacked=1</script>"
    say(page, hostile)
    assert hostile in page.texts(".turns li")[-2]
    assert page.run("return window.hacked") is None
    assert not page.all(".turns img, .turns script")
    page.driver.refresh()  # the browser keeps the turns
    until(lambda: len(page.texts(".turns li")) == 6)
    assert page.axe() == []
    page.click(".chat button", "Start over")
    until(lambda: not page.texts(".turns li"))
    say(page, "a mug under 9 and over 12")
    page.click(".chat .row button", "over 12")
    until(lambda: len(page.texts(".turns li")) == 4)
    page.check()


def test_it_speaks_chinese(page: Page, url: str) -> None:
    page.open(f"{url}/#/chat", subject=TYPED)
    page.choose("Language", "zh")
    page.one("h1", "对话")
    say(page, "红色的杯子，十元以下")
    assert page.texts(".turns li")[-1].startswith("回答：为您找到")
    page.choose("语言", "en")
    page.check()
