from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.titles import kinds, titles

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.config import PROTOCOL
from genrec.data.behaviors import templates_folder
from genrec.errors import PromptError
from genrec.explain.sentences import FAINT, NEEDED
from genrec.explain.types import Explanation
from genrec.prompts.template import Template
from genrec.text import one_line

odd = st.sampled_from(
    ['12" ruler', '"""', "“杯子”", "<|im_end|>", "is", "Like", ".", "{item} {title}"]
)


def make(names: list[str], kind: str = "llama", **settings: Any) -> Recommender:
    catalog = Catalog(Item(f"i{n}", t, {"kind": "Kitchen 厨房"}) for n, t in enumerate(names))
    settings = {"exclude_seen": False, **settings}
    return Recommender(catalog, tiny.language_model(kind), **settings)


def check(
    found: Explanation, item: str, shown: list[Interaction], recommender: Recommender
) -> None:
    """Check that all words come from the catalog or the template, and that the named events count."""
    template = Template.load("explain", recommender.settings.language)
    header = template.header
    catalog = recommender.catalog
    names = {e.item_id: one_line(catalog[catalog.row(e.item_id)].title) for e in shown if e.item_id}
    most = max((e.nats for e in found.evidence), default=0.0)
    best = [n for n, e in enumerate(found.evidence) if e.nats == most >= FAINT]
    if found.source == "template":
        plain = [
            header["plain"]
            .replace("{verb}", template.verb(shown[n].behavior).past)
            .replace("{title}", found.evidence[n].title)
            for n in best
        ]
        assert found.text in (plain or [header["silent" if shown else "none"]])
        return
    own = catalog[catalog.row(item)]
    link = header["link"].replace(
        "{item}", f"{template.lead}{one_line(own.title)}{template.terminator}"
    )
    near = [e.item_id for e in found.evidence if e.nats >= max(most / 2, FAINT)]
    begins = [
        f"{header['opening']}{template.lead}{names[i]}{template.terminator}{link}"
        for i in near
        if i is not None and i != item
    ]
    rests = [found.text.removeprefix(b) for b in begins if found.text.startswith(b)]
    assert rests, found.text
    rest = min(rests, key=len)
    end = "。" if recommender.settings.language == "zh" else "."
    known = f"{own.title} kind {own.attributes['kind']}".lower()
    plain_words = f"{header['words']} {header['passing']}"
    if end == ".":
        words = re.findall(r"[^\W\d_]+", rest.lower())
        assert words
        assert all(w in plain_words.lower() or w.removesuffix("s") in known for w in words), rest
    else:
        assert len(rest) > 1
        letters = [c for c in rest.lower() if c.isalpha()]
        assert set(letters) <= set(plain_words + known)
    assert "\n" not in found.text
    assert "\ufffd" not in found.text


events = st.builds(
    Interaction,
    st.sampled_from(["i0", "i1", "i2", None]),
    st.sampled_from(["buy", "view", "poke"]),
    text=st.sampled_from([None, "a mug", 'x "y"\nz']),
)


@given(
    st.lists(st.one_of(titles, odd), min_size=3, max_size=6),
    st.lists(events, max_size=5),
    kinds,
    st.sampled_from(["en", "zh"]),
    st.sampled_from([48, 3, 1]),
)
def test_explanations_say_nothing_that_the_catalog_does_not(
    names: list[str], past: list[Interaction], kind: str, language: str, most: int
) -> None:
    recommender = make(names, kind, language=language, max_title_tokens=most)
    past = [replace(e, text=e.text or "x") if e.item_id is None else e for e in past]
    answer = recommender.recommend(History(tuple(past)), k=4, explain=True)
    for found in answer:
        assert found.explanation is not None
        check(found.explanation, found.item_id, past, recommender)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_models_write_some_of_them(kind: str) -> None:
    found = []
    for language in ("en", "zh"):
        recommender = make(["red mug", "doll", "bag", "blue mug"], kind, language=language)
        for past in ("i0", "i1; i2", "i3", "i3; i0; i2"):
            answer = recommender.recommend(past, 4, explain=True)
            found += [r.explanation.source for r in answer if r.explanation]
    assert "generated" in found


def texts(recommender: Recommender, history: Any, **settings: Any) -> list[tuple[str, str]]:
    found = recommender.with_settings(**settings).recommend(
        history, 4, options=PROTOCOL, explain=True
    )
    return [(r.explanation.source, r.explanation.text) for r in found if r.explanation]


def test_the_plain_sentences() -> None:
    recommender = make(["red mug", "doll"])
    assert texts(recommender, "") == [("template", "Nothing is known about this customer yet.")] * 2
    assert texts(recommender, "", language="zh") == [("template", "还没有该用户的任何记录。")] * 2
    found = texts(recommender, History((Interaction(None, "search", text="a\nb"),)))
    one = ("template", 'Because they searched "a b".')
    silent = ("template", "No event in this history supports it.")
    assert sorted(found) == sorted([one, silent])  # what speaks for one speaks against the other
    alone = make(["red mug"])
    assert texts(alone, "viewed: i0") == [silent]  # it has P = 1 either way


def test_another_item_of_the_same_title_is_no_evidence() -> None:
    recommender = make(["mug", "mug", 'mug"'])
    said = {'Because they bought "mug".', "No event in this history supports it."}
    assert {text for _, text in texts(recommender, "i0")} <= said


def test_only_what_the_prompt_shows_is_named() -> None:
    names = ["red mug", "doll", "bag", "blue mug"]
    recommender = make(names, max_events=1)
    for _, text in texts(recommender, "i0; i1; i2"):
        assert "doll" not in text.split("is ")[0] or text.startswith('Like "bag", "doll"')
        assert '"bag"' in text or "No event" in text


def test_a_long_history_leaves_room_for_both_titles() -> None:
    names = [f"title number {n} of a long long list of things" * 3 for n in range(12)]
    history = History(tuple(Interaction(f"i{n % 12}", "buy") for n in range(60)))
    recommender = make(names, "gpt2", max_events=1000)
    assert recommender.model.context == 1024
    assert len(texts(recommender, history, max_title_tokens=200)) == 4
    assert len(texts(make(["red mug", "doll"], "gpt2"), "i0", max_title_tokens=1000)) == 2


@pytest.mark.parametrize("key", [*NEEDED, "{item}"])
def test_a_template_that_lacks_something_says_so(tmp_path: Path, key: str) -> None:
    source = (templates_folder() / "en" / "explain.jinja").read_text(encoding="utf-8")
    source = source.replace(key, "x") if key == "{item}" else re.sub(f"\n{key}: .*", "", source)
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "explain.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(PromptError, match=f"its header lacks {key}"):
        texts(make(["red mug", "doll"]), "i0", prompts=str(tmp_path))


@pytest.mark.parametrize("most", ["most: some", "most: 0"])
def test_a_number_of_words_that_is_none(tmp_path: Path, most: str) -> None:
    source = (templates_folder() / "en" / "explain_short.jinja").read_text(encoding="utf-8")
    (tmp_path / "en").mkdir()
    path = tmp_path / "en" / "explain_mine.jinja"
    path.write_text(source.replace("most: 4", most), encoding="utf-8")
    recommender = make(["red mug", "doll"], prompts=str(tmp_path))
    with pytest.raises(PromptError, match="the maximum number of words"):
        recommender.recommend("i0", explain=True, style="mine")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("style", ["reason", "short", "pitch"])
def test_every_style_passes_its_own_check(style: str, language: str) -> None:
    recommender = make(["red mug", "doll", "bag", "blue mug"], "qwen3", language=language)
    name = "explain" if style == "reason" else f"explain_{style}"
    header = Template.load(name, language).header
    found = recommender.recommend("i0; viewed: i1; i3", 4, explain=True, style=style)
    for r in found:
        assert r.explanation is not None
        if r.explanation.source == "generated":
            assert r.explanation.text.startswith(header["opening"])
        else:
            assert r.explanation.text[:2] in {header["plain"][:2], header["silent"][:2]}


def test_own_styles_are_used(tmp_path: Path) -> None:
    source = (templates_folder() / "en" / "explain.jinja").read_text(encoding="utf-8")
    (tmp_path / "en").mkdir()
    path = tmp_path / "en" / "explain_mine.jinja"
    path.write_text(source.replace("Because they {verb}", "They {verb}"), encoding="utf-8")
    recommender = make(["red mug"], prompts=str(tmp_path), exclude_seen=False)
    answer = recommender.recommend("i0", 1, options=PROTOCOL, explain=True, style="mine")
    assert answer[0].explanation is not None
    assert answer[0].explanation.text == "No event in this history supports it."
    with pytest.raises(PromptError, match=r"style='yours'.*mine"):
        recommender.recommend("i0", 1, options=PROTOCOL, explain=True, style="yours")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_words_are_chosen_of_those_that_say_something(kind: str) -> None:
    names = ["red mug of the tin", "set of 3 doll in box", "bag 50 g blue mug", "mug with lid on"]
    recommender = make(names, kind)
    header = Template.load("explain", "en").header
    seen = 0
    for past in ("i0", "i1; i2", "i3", "i3; i0; i2"):
        for found in recommender.recommend(past, 4, explain=True):
            assert found.explanation is not None
            if found.explanation.source != "generated" or not found.explanation.rejected:
                continue  # written freely
            rest = found.explanation.text.split(header["link"].partition("{item}")[2])[-1]
            words = re.findall(r"[^\W\d_]+", rest.lower())
            phrases = " ".join(words).split(" and ")
            said = [w for phrase in phrases for w in phrase.split()]
            assert len(said) >= 2
            assert len(said) == len(set(said))
            assert len(said) < max(len({*found.title.split(), "kitchen", "厨房"} - {"3"}), 3)
            text = f"{found.title} | Kitchen 厨房".lower()
            for phrase in phrases:
                assert phrase in text, rest
                ends = {phrase.split()[0], phrase.split()[-1]}
                assert not ends & {*header["empty"].split(), "and"}
                assert all(len(w) > 1 for w in ends)
            seen += 1
    assert seen


def test_what_an_attribute_is_called_says_nothing() -> None:
    item = Item("i0", "Blue mug", {"brand": "Acme", "unit_price": 3.5, "size": "NaN"})
    recommender = Recommender(Catalog([item]), tiny.language_model("llama"))
    explainer = recommender._explanations._explainer("reason")
    for tail in (" the brand and the price.", " brand and blue.", " acme."):
        assert explainer.writer.says_little(tail, item), tail
    for tail in (" blue and brand acme.", " acme and mug."):
        assert not explainer.writer.says_little(tail, item), tail


def test_pieces_of_words_are_not_put_together() -> None:
    recommender = make(["不锈钢保温杯", "茶室里的古琴与流水", "红陶花盆"], "qwen3", language="zh")
    header = Template.load("explain", "zh").header
    end = header["link"].partition("{item}")[2]
    seen = 0
    for past in ("i0", "i1", "i2", "i2; i0"):
        for found in recommender.recommend(past, 3, explain=True):
            assert found.explanation is not None
            if found.explanation.source != "generated" or not found.explanation.rejected:
                continue
            rest = found.explanation.text.split(end)[-1].removesuffix("。")
            for piece in re.split("[和与]", rest):
                assert piece in f"{found.title} kitchen 厨房", rest
                assert not {piece[0], piece[-1]} & set(header["empty"].split())
            seen += 1
    assert seen


@pytest.mark.model
def test_the_real_model_explains(demo_recommender: Recommender) -> None:
    history = "bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT"
    answer = demo_recommender.recommend(history, k=5, explain=True)
    sources = [r.explanation.source for r in answer if r.explanation]
    assert sources.count("generated") >= 1
    for found in answer:
        assert found.explanation is not None
        assert found.explanation.evidence
        assert all(r.why for r in found.explanation.rejected)
