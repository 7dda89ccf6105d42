"""Pages that explain recommendations, as a reader sees them."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.browser import screenshot, shares
from support.commands import Run

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.config import PROTOCOL
from genrec.explain.types import Evidence, Explanation, Older
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.reports import html
from genrec.reports.explanation_page import Prompt, of_item, of_list, write
from genrec.text import one_line


class Page(HTMLParser):
    """The elements of a page in their order, each with its classes and the text inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, list[str]]] = []
        self.open: list[list[str]] = []
        self.styles: list[str] = []
        self.titles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        texts: list[str] = []
        self.found.append((tag, values.get("class") or "", texts))
        self.styles.append(values.get("style") or "")
        if "title" in values:
            self.titles.append(values["title"] or "")
        if tag != "meta":
            self.open.append(texts)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for texts in self.open:
            texts.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[str]:
        """Return the text inside each element with a tag and a class."""
        return ["".join(x) for t, k, x in self.found if t == tag and kind in {None, k}]

    def place(self, tag: str, kind: str = "") -> int:
        """Return the place of the first element with a tag and a class."""
        return [(t, k) for t, k, _ in self.found].index((tag, kind))


def told(nats: list[float], titles: list[str] | None = None, **more: object) -> Explanation:
    """An explanation with the given evidence."""
    evidence = tuple(
        Evidence("i", titles[n] if titles else f"Item {n}", "buy", x, x / 2, x / 2, n)
        for n, x in enumerate(nats)
    )
    return replace(Explanation("Because of that.", "template", evidence=evidence), **more)  # type: ignore[arg-type]


def listed(*explanations: Explanation, title: str = "Mug", **details: object) -> RecommendationList:
    items = tuple(
        Recommendation(n, f"id{n}", title, -1.0, -1.0, explanation=e)
        for n, e in enumerate(explanations, 1)
    )
    return RecommendationList(
        "u", "trie", "a model", "included", items, behavior="buy", details=dict(details)
    )


def test_a_sentence_and_the_three_strongest_events_come_first() -> None:
    nats = [0.004, -0.5, 0.3, -0.001, 0.2, 0.1, -0.002]
    page = Page(of_list(listed(told(nats), told(nats[::-1])), Prompt("", ())))
    start, stop = page.place("article"), page.place("details")
    shown = [(t, k) for t, k, _ in page.found[start:stop] if t in {"p", "li"}]
    assert shown == [("p", "said"), ("li", "opposes"), ("li", "supports"), ("li", "supports")]
    assert page.all("p", "said")[0].startswith("Because of that.")
    assert [t[:5] for t in page.all("span", "nats")[:3]] == ["−0.50", "+0.30", "+0.20"]
    # All others are folded: no fold is open, and the first one lists every event in its order.
    text = of_list(listed(told(nats)), Prompt("", ()))
    assert "<details open" not in text
    assert "All 7 events, oldest first" in text
    assert [re.sub(r"\D", "", t[:6]) for t in re.findall(r"Item \d", text)[3:]] == list("0123456")


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12))
def test_the_side_of_a_bar_is_the_sign_of_the_evidence(nats: list[float]) -> None:
    text = of_list(listed(told(nats)), Prompt("", ()))
    page = Page(text)
    rows = [(k, "".join(x)) for t, k, x in page.found if t == "li"][-len(nats) :]
    for value, (side, row) in zip(nats, rows, strict=True):
        number = row[: row.index("buy")]
        if abs(value) < 0.005:
            assert (side, number) == ("", "0.00")
        else:
            assert side == ("supports" if value > 0 else "opposes")
            assert number == f"{value:+.2f}".replace("-", "−")
    assert not re.search(r"[-+−]0\.00\b", text)
    widths = [float(w) for w in re.findall(r"<i style=\"width:([\d.]+)%\"", text)]
    assert all(0 <= w <= 100 for w in widths)
    assert "No event changes the score" in text or max(widths) == 100


def test_sides_differ_without_color() -> None:
    """The sides differ by place and by pattern, and the marks in the prompt by their underline."""
    text = of_list(listed(told([0.1, -0.1])), Prompt("a b", ((0, 1), (2, 3))))
    rules = dict(re.findall(r"^([^{}@\n]+?) \{ ?([^{}]*)\}", text, re.MULTILINE))
    assert "grid-column: 2" in rules[".supports .bar i"]
    assert "grid-column: 1" in rules[".opposes .bar i"]
    assert "repeating-linear-gradient" in rules[".opposes .bar i"]
    assert "solid" in rules["mark.supports"]
    assert "dashed" in rules["mark.opposes"]
    assert Page(text).titles == ["event 1: +0.10 nats", "event 2: −0.10 nats"]


def test_two_events_of_one_item_are_told_apart() -> None:
    why = told([0.5, 0.4, 0.3], ["Mug"] * 3)
    rows = Page(of_list(listed(why), Prompt("", (), ["2011-03-02 10:00", "", "2011-03-04"]))).all(
        "li"
    )
    assert len(set(rows)) == 3
    assert "event 1 of 3 · 2011-03-02 10:00 · model +0.25, prior +0.25" in rows[0]
    assert "event 2 of 3 · model" in rows[1]
    assert len({*Page(of_list(listed(why), Prompt("", ()))).all("li")}) == 3


def test_two_events_of_one_item_are_told_apart_everywhere() -> None:
    catalog = Catalog(
        Item(f"i{n}", t) for n, t in enumerate(["red mug", "doll", "blue bag", "tin"])
    )
    ours = Recommender(catalog, tiny.language_model(), exclude_seen=False)
    history = History(tuple(Interaction(f"i{n}", "buy") for n in (0, 0, 1, 0)))
    found = ours.explain(history, "i2")
    assert [e.event for e in found.explanation.evidence] == [0, 1, 2, 3]
    assert found.against or found.removal is None
    page = Page(of_item(found, Prompt(*ours.events_in_prompt(history))))
    lines = page.all("li")
    assert len(set(lines[3:])) == len(lines[3:])
    for line in lines:
        if re.match("(Against it|Without|In a new).*red mug", line):
            assert re.search(r"\(event [124] of 4\)", line)
    for e in found.against:
        assert 0 <= e.event < 4


def test_events_that_change_nothing_are_summed_up() -> None:
    page = Page(of_list(listed(told([-0.001] * 21)), Prompt("", ())))
    before = page.found[: page.place("details")]
    assert not [t for t, _, _ in before if t == "li"]
    assert "No event changes the score by 0.005 nats or more." in page.all("p")
    assert "All 21 events, oldest first" in page.all("summary")


def test_older_events_and_demonstrations_can_be_among_the_strongest() -> None:
    why = told([0.1, 0.2], older=Older(7, 1.5), demonstrations=-0.8)
    rows = Page(of_list(listed(why), Prompt("", ()))).all("li")[:3]
    assert rows[0].startswith("+1.507 older events together")
    assert rows[1].startswith("−0.80all demonstrations together")


def test_the_page_says_what_the_system_consists_of() -> None:
    for prior, name in (
        ("none", "a model"),
        ("collaborative", "a model + prior"),
        ("novelty", "a model + novelty prior"),
    ):
        text = of_list(listed(told([1.0]), prior={"prior": prior}), Prompt("", ()))
        assert f"System: {name}. Predicted behavior: buy." in text


TEXTS = st.lists(
    st.sampled_from(["&", "&amp;", "&amp;amp;", "&lt;b&gt;", "<b>", "</li>", '"', "'", "&#39;", "a", "é", " x"]),
    min_size=1, max_size=6,
).map("".join)  # fmt: skip


@given(TEXTS, TEXTS)
def test_texts_are_escaped_exactly_once(title: str, other: str) -> None:
    """A reader sees each text exactly as it is, whatever it looks like."""
    why = told([1.0, -1.0], [title, other])
    why = replace(why, text=f"Because of {title}.")
    page = Page(of_list(listed(why, title=other), Prompt(title, ((0, len(title)),))))
    assert f"1. {one_line(other)} " in page.all("h2")[0]
    assert one_line(f"Because of {title}. ") in page.all("p", "said")[0].replace("plain", " ")
    assert f"+1.00buy {one_line(title)}event 1 of 2" in page.all("li")[0]
    assert page.all("mark") == [title]
    assert "b" not in [t for t, k, _ in page.found if k == "" and t == "b"]


def test_titles_of_real_answers_are_escaped_once(tmp_path: Path) -> None:
    titles = ["Salt & Pepper", "Tom &amp; Jerry", "5 < 6 \"mm\" 'x'", "<b>bold</b>"]
    catalog = Catalog(Item(f"i{n}&", t) for n, t in enumerate(titles))
    ours = Recommender(catalog, tiny.language_model(), exclude_seen=False)
    history = History(tuple(Interaction(f"i{n}&", "buy") for n in range(4)), "u & <i>")
    prompt = Prompt(*ours.events_in_prompt(history))
    for row, title in enumerate(titles):
        page = Page(of_item(ours.explain(history, f"i{row}&"), prompt))
        assert page.all("title") == page.all("h1") == [title]
    page = Page(of_list(ours.recommend(history, 4, options=PROTOCOL, explain=True), prompt))
    assert page.all("h1") == ["Why these items, for user u & <i>"]
    shown = "".join(page.all("body"))
    assert all(title in shown for title in titles)
    assert "&amp;amp;" not in of_list(listed(told([1.0]), title="Salt & Pepper"), Prompt("", ()))


def luminance(color: str) -> float:
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colors as WCAG defines it, from 1 to 21."""
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("palette", "background"),
    # Browsers' dark backgrounds differ: Chromium, Firefox and Safari.
    [(html.LIGHT, "#ffffff"), *((html.DARK, b) for b in ("#121212", "#1c1b22", "#1e1e1e"))],
)
def test_colors_stand_out_from_the_background(palette: tuple[str, ...], background: str) -> None:
    assert len(set(palette)) == len(palette) == len(html.LIGHT)
    for color in palette:
        assert contrast(color, background) >= 3, color  # WCAG 2.2, success criterion 1.4.11
    page = html.make_page("x", "", "")
    theme = page[page.index("prefers-color-scheme: dark") :] if palette == html.DARK else page
    assert all(f"--series-{n}: {color};" in theme for n, color in enumerate(palette))


def test_the_command_shows_times(run: Run, shop: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "why.html"
    asked = ["recommend", shop, "--model", model, "--include-seen", "-k", 1, "--html", out]
    code, _, err = run(*asked, "--user", "u01", "--max-events", 4)
    assert code == 0, err
    text = out.read_text(encoding="utf-8")
    assert len(re.findall(r"event \d of 4 · \d{4}-\d\d-\d\d \d\d:\d\d", text)) >= 4
    code, _, err = run(*asked, "--history", "轻量透气跑步鞋 男款")  # a typed history has no times
    assert code == 0, err
    assert "event 1 of 1" in out.read_text(encoding="utf-8")
    assert not re.search(r"\d{4}-\d\d-\d\d", out.read_text(encoding="utf-8"))


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_theme_of_the_reader(tmp_path: Path, dark: bool) -> None:
    write(tmp_path / "x.html", of_list(listed(told([1.0, -0.4, 0.2])), Prompt("a", ((0, 1),))))
    white, black = shares(screenshot(tmp_path / "x.html", tmp_path / "x.png", dark=dark))
    assert (black if dark else white) > 0.8
    assert (white if dark else black) < 0.1
