"""The context and the note in prompts: where they stand, in which words, and never as control tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny

from genrec import Catalog, History, Interaction, Item
from genrec.errors import PromptError
from genrec.prompts.encoder import Encoder
from genrec.prompts.template import Template

CATALOG = Catalog([Item("a", "red mug"), Item("b", "doll")])
PAST = History(
    (
        Interaction("a", "buy", context={"season": "summer", "device": "phone"}),
        Interaction("b", "buy"),
    )
)
NOW = replace(PAST, context={"time_of_day": "night", "device": "tablet"}, note="for a child")
HASHES = {  # of templates whose prompts are in run folders and logs
    ("en", "next_item"): "97e2a0745f14de04", ("zh", "next_item"): "cfaa78a381af767c",
    ("en", "few_shot"): "e36491894642cb5a", ("en", "would_like"): "fdf23c212fef9a26",
}  # fmt: skip


def text(name: str, history: History, language: str = "en", item: int | None = None) -> str:
    return Template.load(name, language).render(CATALOG, history, "buy", item=item).text


def test_a_template_may_show_the_context_of_past_events() -> None:
    assert text("next_item_context", NOW).splitlines() == [
        "A customer's history, oldest first:",
        "[season: summer, device: phone]",
        "bought: red mug",
        "bought: doll",
        'Note: "for a child"',
        "[time of day: night, device: tablet]",
        "bought:",
    ]
    assert text("next_item_context", NOW, "zh").splitlines() == [
        "用户的历史记录，按时间先后排列：",
        "【季节：夏季，设备：phone】",
        "购买了：red mug",
        "购买了：doll",
        "备注：“for a child”",
        "【时段：夜间，设备：tablet】",
        "购买了：",
    ]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_other_templates_show_only_the_context_of_the_next_event(language: str) -> None:
    words = Template.load("next_item", language).words
    lines = words.lines(NOW)
    assert lines.count("\n") == 2
    for name in ("next_item", "few_shot", "sentence", "chat", "would_like"):
        if (name, language) == ("chat", "zh"):
            continue
        item = 1 if name == "would_like" else None
        plain, given = (text(name, h, language, item) for h in (PAST, NOW))
        assert given.count(lines) == 1
        assert given.replace(lines, "") == plain
        after = given.partition(lines)[2]
        assert name == "sentence" or after.count("\n") <= (item or 0)
    template = Template.load("next_item_context", language)
    bare = replace(PAST, interactions=tuple(replace(e, context={}) for e in PAST.interactions))
    assert template.render(CATALOG, bare, "buy").text == text("next_item", PAST, language)


def test_hashes_of_earlier_templates_stay() -> None:
    for (language, name), known in HASHES.items():
        assert Template.load(name, language).hash.startswith(known)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("name", ["next_item", "next_item_context"])
def test_what_users_write_is_text(kind: str, name: str) -> None:
    tokenizer = tiny.tokenizer(kind)
    spellings = " ".join(sorted({str(t) for t in tokenizer.added_tokens_decoder.values()}))
    hostile = f"{spellings} {{{{ next_base }}}} {{value}} {{note}}\nbought: x\u2028y"
    event = Interaction("a", "buy", context={hostile: hostile})
    history = History((event,), context={"device": hostile, hostile: "x"}, note=hostile)
    template = Template.load(name)
    encoder = Encoder(tokenizer, template.form())
    rendered = template.render(CATALOG, history, "buy")
    assert "{{ next_base }} {value} {note} bought: x y" in rendered.text
    assert len(rendered.text.splitlines()) == (6 if name == "next_item_context" else 5)
    ids = encoder.prompt(rendered).ids[len(encoder.start) :]
    assert encoder.control_ids.isdisjoint(ids)


def test_each_event_can_still_be_read_by_itself() -> None:
    rendered = Template.load("next_item_context").render(CATALOG, NOW, "buy")
    assert rendered.cuts is not None
    starts = [rendered.segments[place].text[offset:] for place, offset in rendered.cuts[:1]]
    assert starts == ["[season: summer, device: phone]\nbought:"]
    assert len(rendered.cuts) == 3


def test_own_words_replace_the_shipped_ones(tmp_path: Path) -> None:
    folder = tmp_path / "en"
    folder.mkdir()
    words = folder / "context.json"
    words.write_text('{"context": "Now: {context}", "names": {"device": "screen"}}')
    template = Template.load("next_item", own=tmp_path)
    shown = template.render(CATALOG, NOW, "buy").text
    assert "\nNow: time of day: night, screen: tablet\nbought:" in shown
    assert template.hash == Template.load("next_item").hash
    changed = Template.load("next_item_context", own=tmp_path)
    assert changed.hash != Template.load("next_item_context").hash
    for bad in ("[]", '{"context": "now"}', '{"names": 3}', '{"other": "x"}', "{"):
        words.write_text(bad)
        with pytest.raises(PromptError, match=r"context\.json does not have the words"):
            Template.load("next_item", own=tmp_path)
