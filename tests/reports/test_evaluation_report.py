from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import markdown_it
import pyarrow as pa
import pytest
from support import tiny
from support.browser import screenshot, shares

from genrec import Dataset, Recommender
from genrec.data.datasets import load
from genrec.errors import SettingsError
from genrec.evaluation import evaluator
from genrec.evaluation.results import Evaluation
from genrec.reports import evaluation_report

EVIL = "<script>alert(1)</script> | **bold** $x^2$ <img src=x onerror=y> `a` [l](javascript:1)"


@pytest.fixture(scope="module")
def evaluated() -> Evaluation:
    data = load("zh_mini")
    return evaluator.evaluate(data, [Recommender(data, tiny.language_model()), "popular"], users=9)


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.charts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.tags[-1:] == ["text"]:
            self.charts.append(data)


def test_a_page_holds_everything_and_no_script(evaluated: Evaluation, tmp_path: Path) -> None:
    evaluation_report.write(evaluated, tmp_path / "new" / "r.html")
    page = Page((tmp_path / "new" / "r.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 2  # slices of nine users have no chart
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    sources = [value or "" for name, value in page.attributes if name in {"src", "href"}]
    assert sources
    assert all(s.startswith("#") for s in sources)
    text = " ".join(page.texts)
    for words in ("ndcg@10", "nats", "tiny-llama", "popular", "protocol last-unit", "not disting"):
        assert words in text


def test_charts_have_the_colors_of_the_page(evaluated: Evaluation) -> None:
    text = evaluation_report.to_html(evaluation_report.blocks(evaluated))
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        assert not re.findall(r"#[0-9a-f]{6}|rgb|black|white", chart)
        assert {"var(--series-0)", "currentColor"} <= set(
            re.findall(r"var\(.*?\)|currentColor", chart)
        )
        assert re.match(r'<svg [^>]*aria-label="[^"]{10}', chart)
        assert 'viewBox="0 0 360 ' in chart
        assert not re.match(r"<svg [^>]*(width|height)=", chart)
    ids = re.findall(r'id="(.*?)"', "".join(charts))
    assert len(set(ids)) == len(ids)
    for used in re.findall(r'href="#(.*?)"|url\(#(.*?)\)', "".join(charts)):
        assert "".join(used) in ids
    # Apart from colors, series differ by their marks.
    curves = re.findall(r'<use href="#(\w+)"[^>]*fill: var\(--series-(\d)\)', charts[0])
    marks = [{mark for mark, series in curves if series == n} for n in "01"]
    assert all(marks)
    assert not marks[0] & marks[1]


def test_charts_show_names_as_they_are(evaluated: Evaluation) -> None:
    name = "$x^2$ & 热门商品 <b>"
    results = [replace(r, name=name if n else "ours") for n, r in enumerate(evaluated.results)]
    other = replace(evaluated, results=results)
    parts = evaluation_report.blocks(other)
    assert "![" in evaluation_report.to_markdown(parts)  # a PNG image leaves the chart unchanged
    page = Page(evaluation_report.to_html(parts))
    assert page.charts.count(name) == 1  # neither a calibration nor slices


def test_the_main_results_come_first_and_the_rest_is_folded(evaluated: Evaluation) -> None:
    text = evaluation_report.to_html(evaluation_report.blocks(evaluated))
    start = text[: text.index("<details")]
    assert str(evaluated.comparisons[0]) in start
    first = text[text.index("<h2>All users") : text.index("<svg")]
    shown, folded = first.split("<details>")
    assert "<td>ndcg@10</td>" in shown
    assert shown.count("<tr>") < folded.count("<tr>") / 2
    assert "<details open" not in text


def test_markdown_has_the_same_tables(evaluated: Evaluation, tmp_path: Path) -> None:
    evaluation_report.write(evaluated, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    images = re.findall(r"^!\[.*\]\(data:image/png;base64,(.*)\)", text, re.MULTILINE)
    assert len(images) == 2
    for image in images:
        assert base64.b64decode(image)[:8] == b"\x89PNG\r\n\x1a\n"
    ours = evaluated.intervals["tiny-llama + prior"]["ndcg@10"]
    assert str(ours).replace("[", r"\[").replace("]", r"\]") in text


def test_texts_of_the_data_are_shown_as_text(tmp_path: Path) -> None:
    users = [f"{u}{EVIL}" for u in "abc"]
    events = pa.table(
        {
            "user_id": [u for u in users for _ in range(4)],
            "item_id": ["0", "1", "2", "3"] * 3,
            "timestamp": list(range(4)) * 3,
            "behavior": ["buy<b>"] * 12,
        }
    )
    titles = [f"0 {EVIL}", "0.1 [<b>, 2]", "</td></table>", f"3 {EVIL}"]
    items = pa.table({"item_id": list("0123"), "title": titles})
    dataset = Dataset.from_tables(items, events, name=EVIL)
    found = evaluator.evaluate(dataset, [(EVIL, "popular")], exclude_seen=False)
    for ending in ("html", "md"):
        evaluation_report.write(found, tmp_path / f"r.{ending}")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "table", "thead",
        "tbody", "tr", "th", "td", "div", "small", "details", "summary", "figure", "svg", "g", "defs",
        "path", "use", "text", "clippath", "rect",
    }  # fmt: skip
    assert "onerror" not in [name for name, _ in page.attributes]
    assert any(EVIL in t for t in page.texts)
    assert any(t.endswith("0.1 [<b>, 2]") for t in page.texts)
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "<script" not in text.replace("\\<script", "")
    assert "[l](" not in text.replace("\\[l\\]\\(", "")
    shown = Page(markdown_it.MarkdownIt("commonmark").enable("table").render(text))
    assert set(shown.tags) <= {"h1", "h2", "h3", "p", "img", "table", "thead", "tbody", "tr", "th",
                               "td"}  # fmt: skip
    assert sum(EVIL in t for t in shown.texts) > 5


def test_what_is_wide_scrolls_by_itself_and_intervals_stay_whole(evaluated: Evaluation) -> None:
    text = evaluation_report.to_html(evaluation_report.blocks(evaluated))
    assert text.count("<table") == text.count('<div class="wide" tabindex="0"><table')
    assert text.count("<svg") == text.count("<figure><svg")
    assert ".wide { overflow-x: auto;" in text
    ours = evaluated.intervals["tiny-llama + prior"]["ndcg@10"]
    mean, _, interval = str(ours).partition(" ")
    assert f"<td>{mean} <small>{interval}</small></td>" in text
    assert "td small { white-space: nowrap;" in text


def test_examples_say_what_came_next_and_the_slices_what_they_are(
    demo_data: Dataset, evaluated: Evaluation
) -> None:
    found = evaluator.evaluate(demo_data, ["popular"], users=40)
    text = evaluation_report.to_markdown(evaluation_report.blocks(found))
    more = [len(c.basket) - 5 for c in found.cases if len(c.basket) > 5]
    told = [int(n) for n in re.findall(r"target first: .*; and (\d+) more", text)]
    assert told
    assert set(told) <= set(more)
    page = evaluation_report.to_html(evaluation_report.blocks(found))
    for kind in found.by_slice:
        assert (f"{kind}: " in page) == (kind != "item")  # the cold items are in popularity, too
    assert 'aria-label="ndcg@10 by slice"' in page
    users = {
        label: len([v for v in found.slices["history"] if v == label])
        for label in found.slices["history"]
    }
    charted = page[page.index('aria-label="ndcg@10 by slice"') :].partition("</svg>")[0]
    for label, many in users.items():
        assert (f"{label} (n={many})" in charted) == (many >= 20)
    plain = evaluation_report.to_html(evaluation_report.blocks(evaluated))
    assert "Next item (→): " in plain


def test_other_endings_are_refused(evaluated: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Expected a file name that ends with \.html or \.md"):
        evaluation_report.write(evaluated, tmp_path / "r.pdf")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_charts_follow_the_theme_of_the_reader(
    evaluated: Evaluation, tmp_path: Path, dark: bool
) -> None:
    evaluation_report.write(evaluated, tmp_path / "r.html")
    white, black = shares(screenshot(tmp_path / "r.html", tmp_path / "r.png", dark=dark))
    assert (black if dark else white) > 0.8
    assert (white if dark else black) < 0.1
