"""Compare the explanation of any item to scoring everything anew."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.commands import Run
from support.evidence_shop import Neighbours, past, shop
from support.titles import kinds, titles

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.data.ingest import EventOptions
from genrec.errors import RequestError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.priors.weights import Weights
from genrec.reports import explanation_page


@given(
    st.lists(titles, min_size=2, max_size=8),
    kinds,
    st.lists(st.integers(0, 1), max_size=3),
    st.booleans(),
    st.sampled_from(["node", "score", "none"]),
)
def test_the_rank_is_that_of_scoring_everything(
    names: list[str], kind: str, seen: list[int], exclude: bool, fusion: str
) -> None:
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(names)),
        tiny.language_model(kind),
        exclude_seen=exclude,
        fusion="score" if fusion == "none" else fusion,
    )
    if fusion != "none":
        recommender.prior = Neighbours(len(names))
    history = past(*seen)
    every = list(recommender.score(history))
    for item in recommender.catalog:
        found = recommender.explain(
            history,
            item.item_id,
            2,
            evidence="fast",
            allow_last_basket=True,
            allow_same_title=True,
        )
        allowed = not (exclude and item.item_id in history.item_ids)
        among = [
            r
            for r in every
            if r.item_id == item.item_id or not (exclude and r.item_id in history.item_ids)
        ]
        own = next(r for r in every if r.item_id == item.item_id)
        assert found.allowed == allowed
        assert found.among == len(among)
        assert found.logprob == pytest.approx(own.logprob, abs=1e-4)
        assert found.rank is not None
        above = sum(r.score > own.score + 1e-4 for r in among)
        level = sum(abs(r.score - own.score) <= 1e-4 for r in among)
        assert above < found.rank <= above + level
        assert found.recommended == (allowed and found.rank <= 2)


def test_the_rank_is_found_in_bfloat16() -> None:
    """In bfloat16, one item alone and all items together get slightly different scores."""
    names = [f"{a} {b}" for a in ("red", "blue", "green") for b in ("mug", "bag", "lamp", "clock")]
    fine = tiny.language_model("llama")
    coarse = copy.deepcopy(fine.model).to(torch.bfloat16)
    model = LanguageModel(coarse, fine.tokenizer, name="coarse")
    recommender = Recommender(Catalog(Item(f"i{n}", t) for n, t in enumerate(names)), model)
    assert not model.precise
    for seen in ((), (0,), (3, 5)):
        ranks = [
            recommender.explain(past(*seen), i.item_id, evidence="fast").rank
            for i in recommender.catalog
            if i.item_id not in past(*seen).item_ids
        ]
        assert None not in ranks
        assert len(set(ranks)) >= len(ranks) - 2


def test_the_best_removal_and_the_best_addition_are_those_of_trying_all() -> None:
    recommender = shop(10, exclude_seen=False, search="exact")
    history = past(1, 2, 3)
    own = recommender.score(history, ["i7"])[0].score

    def after(events: tuple[Interaction, ...]) -> float:
        return recommender.score(History(events), ["i7"])[0].score - own

    found = recommender.explain(history, "i7", 3)
    events = history.interactions
    without = [after(events[:i] + events[i + 1 :]) for i in range(3)]
    if max(without) > 0:
        assert found.removal is not None
        assert found.removal.item_id == events[int(np.argmax(without))].item_id
        assert found.removal.nats == pytest.approx(max(without), abs=1e-5)
    tried = [f"i{i}" for i in (0, 4, 5, 6, 8, 9)]
    rises = {i: after((*events, Interaction(i, "buy"))) for i in tried}
    best = max(rises, key=lambda i: rises[i])
    assert found.tried == len(tried)
    assert found.addition is not None
    assert found.addition.item_id == best
    assert found.addition.nats == pytest.approx(rises[best], abs=1e-5)
    again = recommender.recommend(History((*events, Interaction(best, "buy"))), 3)
    ranks = {r.item_id: r.rank for r in again}
    assert found.addition.rank == ranks.get("i7")


class Partners:
    """A prior by which reading one of two items leads to the other; other behaviors do not count."""

    def weights(self, history: History) -> Weights:
        """See ``ItemPrior``."""
        values = np.ones(40)
        for event in history.interactions:
            if event.behavior == "read" and event.item_id in {"i7", "i33"}:
                values[7 if event.item_id == "i33" else 33] = 1e6
        return Weights(values)


def test_what_is_tried_is_what_goes_with_the_item_by_the_behavior_of_the_data() -> None:
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(40)],
            "title": [f"red mug {n}" if n < 30 else f"blue doll {n}" for n in range(40)],
        }
    )
    events = pa.table(
        {
            "user_id": ["u", "u", "v", "v"],
            "item_id": ["i1", "i2", "i3", "i4"],
            "behavior": ["read"] * 4,
            "timestamp": [1, 2, 3, 4],
        }
    )
    data = Dataset.from_tables(items, events, name="made", options=EventOptions(time_unit="s"))
    recommender = Recommender(data, tiny.language_model(), encoder="none", prior_weight=1.0)
    recommender.prior = Partners()
    history = History((Interaction("i1", "read"),))
    assert "i33" not in {r.item_id for r in recommender.recommend(history, 10)}
    found = recommender.explain(history, "i7", 10)
    assert found.behavior == "read"
    assert found.addition is not None
    assert found.addition.item_id == "i33"
    assert found.addition.behavior == "read"


def test_an_event_that_speaks_against_an_item_is_named() -> None:
    recommender = shop(10, exclude_seen=False)
    for item in ("i0", "i5", "i7"):
        found = recommender.explain(past(1, 2, 3, 4), item)
        negative = sorted(e.nats for e in found.explanation.evidence if e.nats < 0)
        assert [e.nats for e in found.against] == negative[:3]
        assert (found.removal is None) == (not negative)


def test_choices_are_the_models_own_shares() -> None:
    names = ["red mug", "red doll", "red doll house", "blue mug"]
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(names)), tiny.language_model()
    )
    every = {r.item_id: r.probability for r in recommender.score("")}
    for n in range(4):
        found = recommender.explain("", f"i{n}")
        assert all(c.rather_share > c.share > 0 for c in found.choices)
        assert all(c.such_as in names for c in found.choices)
        if not found.choices:  # then every step is the likeliest
            assert found.rank == 1 or every[f"i{n}"] > 0.1


def test_choices_beside_a_prior_are_the_models_own_too() -> None:
    names = ["red mug", "red doll", "red doll house", "blue mug", "blue hat", "red hat tall"]
    ids = [f"i{n}" for n in range(len(names))]
    rows = [
        (f"u{u}", ids[(u + n) % len(ids)], 3 * n + u, "buy") for u in range(30) for n in range(4)
    ]
    columns = zip(*rows, strict=True)
    keys = ("user_id", "item_id", "timestamp", "behavior")
    events = pa.table({key: list(column) for key, column in zip(keys, columns, strict=True)})
    data = Dataset.from_tables(pa.table({"item_id": ids, "title": names}), events, name="made")
    fused = Recommender(data, tiny.language_model(), prior="collaborative", encoder="none")
    alone = fused.with_settings(prior="none")
    assert fused.fusing.temperature > 1.2
    shares = []
    for item in ids:
        one, two = (r.explain(past(1, 2), item).choices for r in (alone, fused))
        assert [c.share for c in one] == pytest.approx([c.share for c in two], abs=1e-4)
        shares += [c.share for c in one]
    assert shares


def test_an_unknown_item_has_near_ones_named() -> None:
    with pytest.raises(
        RequestError, match=r"item_id, or a title .* similar titles are 'red mug 7'"
    ):
        named().explain("", "red mug 77")
    with pytest.raises(RequestError, match=r"a title as in the catalog\.$"):
        named().explain("", "xyz")


def named() -> Recommender:
    return Recommender(
        Catalog([Item("a", "red mug 7"), Item("b", "blue doll")]), tiny.language_model()
    )


def test_choices_are_whole_characters() -> None:
    names = ["книга о море", "чашка большая", "чай", "🎁 подарок", "🎀 лента", "软底鞋", "软毛刷"]
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(names)), tiny.language_model("gpt2")
    )
    seen = 0
    for n, name in enumerate(names):
        for choice in recommender.explain("", f"i{n}").choices:
            assert "\ufffd" not in choice.written + choice.wanted + choice.rather
            assert choice.wanted.strip()
            assert name.replace(" ", "").startswith(
                (choice.written + choice.wanted).replace(" ", "")
            )
            seen += len(choice.written.encode()) > len(choice.written)
    assert seen


@pytest.mark.parametrize(("language", "said", "unsaid"), [
    ("en", ", we suggest", ", you could consider"), ("zh", "，推荐", "，可以考虑")
])  # fmt: skip
def test_what_is_not_recommended_is_not_said_to_be(language: str, said: str, unsaid: str) -> None:
    names = ["red mug tall", "red doll house", "blue mug small", "green bag long", "red bag large"]
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(names)),
        tiny.language_model("qwen3"),
        language=language,
    )
    found = [
        recommender.explain(past(*seen), i.item_id, k)
        for seen in ((0, 1), (2, 3))
        for i in recommender.catalog
        for k in (1, 5)
    ]
    written = [(f.recommended, r.text) for f in found for r in f.explanation.rejected]
    written += [
        (f.recommended, f.explanation.text) for f in found if f.explanation.source == "generated"
    ]
    assert {recommended for recommended, _ in written} == {True, False}
    for recommended, text in written:
        assert (said in text) == recommended
        assert (unsaid in text) != recommended


def test_an_unknown_and_a_removed_item() -> None:
    recommender = shop(5)
    with pytest.raises(RequestError, match="'nope' is not in the catalog of 5 items"):
        recommender.explain("", "nope")
    recommender.remove_items(["i3"])
    with pytest.raises(RequestError, match="'i3' was removed"):
        recommender.explain("", "i3")


def test_an_item_may_be_given_by_a_title_that_is_its_own() -> None:
    catalog = Catalog([Item("a", "red mug"), Item("b", "doll"), Item("c", "doll")])
    recommender = Recommender(catalog, tiny.language_model())
    assert recommender.explain("", "Red  MUG").item_id == "a"
    with pytest.raises(RequestError, match=r"2 items have the title 'doll': 'b', 'c'\. Give"):
        recommender.explain("", "doll")
    recommender.remove_items(["b"])
    assert recommender.explain("", "doll").item_id == "c"


def test_where_all_items_were_had_none_is_recommended_instead() -> None:
    recommender = shop(3, exclude_seen=True)
    found = recommender.explain(past(0, 1, 2), "i1", 2)
    assert not found.allowed
    assert not found.recommended
    assert found.instead == ()
    assert found.explanation.without
    assert all(w.rank is None for w in found.explanation.without)


def test_an_empty_history_still_has_a_rank_and_what_would_help() -> None:
    found = shop(6).explain("", "i4")
    assert found.explanation.evidence == ()
    assert found.explanation.text == "Nothing is known about this customer yet."
    assert found.removal is None
    assert found.rank is not None
    assert found.tried == 5


def test_json_is_plain(run: Run, data: Path, model: Path) -> None:
    arguments = ["explain", data, "--model", model]
    code, out, err = run(*arguments, "--user", "u", "--item", "c", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["item_id"] == "c"
    assert 0 < found["probability"] <= 1
    assert found["rank"] >= 1
    names = ["item_id", "title", "behavior", "nats", "nats_model", "nats_prior", "event", "shared"]
    assert found["explanation"]["evidence"]
    assert all(list(e) == names for e in found["explanation"]["evidence"])
    code, out, err = run(*arguments, "--history", "bought: red mug", "--item", "c")
    assert code == 0, err
    assert "probability" in out
    assert "relies on, not why a person acted" in err


def test_mistakes_on_the_command_line(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    arguments = ["explain", data, "--model", model]
    code, _, err = run(*arguments, "--user", "u", "--item", "nope")
    assert code != 0
    assert "Item 'nope' is not in the catalog" in err
    code, _, err = run(*arguments, "--item", "c")
    assert code != 0
    assert "Neither --user nor --history was given" in err
    code, _, err = run(*arguments, "--user", "u", "--item", "c", "--html", tmp_path / "x.pdf")
    assert code != 0
    assert "ends with .html" in err
    code, _, err = run(*arguments, "--user", "u", "--item", "c", "--evidence", "some")
    assert code != 0
    assert "full, fast" in err


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.marked: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [n for n, _ in attrs if n.startswith("on") or n in {"src", "href"}]
        if tag == "mark":
            self.marked.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1] == "mark" and self.marked and not self.marked[-1]:
            self.marked[-1] = data


HOSTILE = ["<script>alert(1)</script>", "</pre><img src=x onerror=y>", "a & b \"c\" 'd'", "{{ x }}"]


def test_pages_show_hostile_titles_as_text(tmp_path: Path) -> None:
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(HOSTILE)),
        tiny.language_model(),
        exclude_seen=False,
    )
    search = Interaction(None, "search", text="<h3>bold</h3>\n</mark>")
    history = History((*past(0, 1, 2).interactions, search), "<h3>user</h3>")
    prompt, spans = recommender.events_in_prompt(history)
    answer = recommender.recommend(history, 3, explain=True)
    for text in (
        explanation_page.of_list(answer, explanation_page.Prompt(prompt, spans)),
        explanation_page.of_item(
            recommender.explain(history, "i0"), explanation_page.Prompt(prompt, spans)
        ),
    ):
        explanation_page.write(tmp_path / "x.html", text)
        seen = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
        assert not {"script", "img", "h3"} & set(seen.tags)
        assert HOSTILE[0] in seen.text
        assert "not why a person acted in a certain way" in seen.text
        assert "default-src 'none'" in text
        assert "<script" not in text


@pytest.mark.parametrize("template", ["next_item", "sentence", "few_shot"])
def test_each_event_is_shaded_and_nothing_else(template: str) -> None:
    recommender = shop(8, template=template)
    search = Interaction(None, "search", text="nice tin")
    history = History((*past(1, 1, 2).interactions, search, *past(2).interactions))
    prompt, spans = recommender.events_in_prompt(history)
    assert prompt == recommender.prompt(history).text
    inside = [prompt[a:b] for a, b in spans]
    titles_ = ["blue red 1", "blue red 1", "doll red 2", "nice tin", "doll red 2"]
    assert [re.sub(r"\s+", " ", t).count(n) for t, n in zip(inside, titles_, strict=True)] == [
        1
    ] * 5
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    answer = recommender.recommend(history, 1, explain=True)
    shown = Page(explanation_page.of_list(answer, explanation_page.Prompt(prompt, spans)))
    assert len(shown.marked) == 5
    for text, title in zip(shown.marked, titles_, strict=True):
        assert title in text


def test_only_html_files_are_written() -> None:
    with pytest.raises(SettingsError, match=r"ends with \.html"):
        explanation_page.check("x.txt")


def test_a_page_that_cannot_be_written_is_refused_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    for place in ("file/x.html", "folder.html", "file/deep/x.html"):
        with pytest.raises(SettingsError, match="cannot be written"):
            explanation_page.check(tmp_path / place)
    explanation_page.check(tmp_path / "new" / "deep" / "x.html")
    assert not (tmp_path / "new").exists()


def test_recommend_writes_a_page(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "pages" / "why.html"
    code, out, err = run(
        "recommend",
        data,
        "--user",
        "u",
        "--model",
        model,
        "--include-seen",
        "--allow-last-basket",
        "--html",
        out_file,
    )
    assert code == 0, err
    assert out.splitlines()[0].endswith("\twhy")
    assert Page(out_file.read_text(encoding="utf-8")).tags.count("article") == 3


def test_titles_with_line_breaks_stay_on_one_line() -> None:
    from genrec.reports.terminal import changes, evidence_lines

    names = ["red\nmug", "blue\x1b[31m mug", "red bag", "red\r\nlamp"]
    recommender = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(names)),
        tiny.language_model("llama"),
        exclude_seen=False,
    )
    for item in recommender.catalog:
        found = recommender.explain(past(0, 1, 3), item.item_id, 1)
        lines = [*evidence_lines(found.explanation), *changes(found)]
        assert len(lines) > 3
        assert not any(set(line) & set("\n\r\x1b") for line in lines)


def test_evidence_is_in_float32_on_a_cpu_or_says_what_it_is(
    run: Run, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.models.devices.fast_bf16_cpu", lambda: True)
    asked = [
        "recommend",
        str(data),
        "--model",
        str(model),
        "--device",
        "cpu",
        "--history",
        "Red mug",
    ]
    notes = {}
    for name, more in {
        "list": [],
        "auto": ["--explain"],
        "coarse": ["--explain", "--dtype", "bfloat16"],
    }.items():
        code, out, said = run(*asked, "--prior", "none", "--json", *more)
        assert code == 0, said
        notes[name] = [n for n in json.loads(out)["notes"] if "may be off by" in n]
    assert notes["list"] == notes["auto"] == []
    (note,) = notes["coarse"]
    assert (
        note
        == "In bfloat16, the evidence may be off by 0.25 nats. Use --dtype float32 for exact evidence."
    )


def test_bars_are_drawn_to_scale() -> None:
    from genrec.reports.terminal import evidence_lines

    recommender: Any = shop(8, exclude_seen=False)
    (first, *_) = recommender.recommend(past(1, 2, 3), 1, explain=True)
    lines = evidence_lines(first.explanation)
    peak = max(abs(e.nats) for e in first.explanation.evidence)
    for line, e in zip(lines, first.explanation.evidence, strict=True):
        size = line.count("█") if e.nats > 0 else line.count("░")
        assert size == round(24 * abs(e.nats) / peak)
        assert f"{e.nats:+.2f}" in line
        assert e.title in line
    assert len(evidence_lines(first.explanation, 2)) == 3
