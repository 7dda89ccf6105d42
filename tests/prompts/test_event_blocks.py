from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.titles import titles

from genrec import Catalog, History, Interaction, Item
from genrec.errors import SettingsError
from genrec.prompts.encoder import EncodedPrompt, Encoder
from genrec.prompts.template import Template

CATALOG = Catalog([Item("a", "red mug"), Item("b", "blue bag")])
HISTORY = History(
    (
        Interaction(None, "search", text="my secret"),
        Interaction("a", "buy"),
        Interaction(None, "search", text="x"),
        Interaction("b", "buy", text="good", value=4.0),
        Interaction("a", "view"),
    )
)


def encoded(
    kind: str, name: str = "next_item", language: str = "en", **how: object
) -> EncodedPrompt:
    template = Template.load(name, language)
    encoder = Encoder(tiny.tokenizer(kind), template.form())
    history = how.pop("history", HISTORY)
    return encoder.prompt(template.render(CATALOG, history, "buy", **how))  # type: ignore[arg-type]


def pieces(kind: str, prompt: EncodedPrompt) -> list[str]:
    assert prompt.cuts is not None
    ends = (0, *prompt.cuts, len(prompt.ids))
    decode = tiny.tokenizer(kind).decode
    return [str(decode(list(prompt.ids[a:b]), skip_special_tokens=True)) for a, b in pairwise(ends)]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "sentencepiece"])
def test_each_event_is_a_piece(kind: str) -> None:
    prompt = encoded(kind, scale=5.0)
    assert pieces(kind, prompt) == [
        "A customer's history, oldest first:\n",
        'searched: "my secret"\n',
        "bought: red mug\n",
        'searched: "x"\n',
        'bought: blue bag\n(4 pcs)\nwrote: "good"\n',
        "viewed: red mug\n",
        "bought:",
    ]
    assert prompt.prompt.free == (False, True, False, True, True, False)


def test_chinese_and_demonstrations() -> None:
    prompt = encoded("llama", language="zh")
    assert pieces("llama", prompt)[:3] == [
        "用户的历史记录，按时间先后排列：\n",
        "搜索了：“my secret”\n",
        "购买了：red mug\n",
    ]
    shown = encoded("llama", "few_shot", demonstrations=[HISTORY])
    assert pieces("llama", shown)[0].count("history, oldest first:\n") == 2
    assert shown.prompt.free[0]  # another user wrote something
    plain = History((Interaction("a", "buy"),))
    assert not encoded("llama", "few_shot", demonstrations=[plain]).prompt.free[0]


def test_recent_events_are_not_blocks() -> None:
    prompt = encoded("llama")
    assert prompt.cuts is not None
    divided = prompt.by_event(2)
    assert divided.ids == prompt.ids
    assert (divided.head, divided.stops) == (prompt.cuts[0], prompt.cuts[1:4])
    assert divided.storable == (True, False, True, False)
    assert prompt.by_event(5).stops == prompt.by_event(9).stops == ()
    empty = encoded("llama", history=History(()))
    assert (empty.by_event(0).head, empty.by_event(0).stops) == (0, ())


@given(st.lists(titles, min_size=1, max_size=4), st.data())
def test_cutting_does_not_change_the_ids(names: list[str], data: st.DataObject) -> None:
    """Every title is whole in one piece, which depends only on its event."""
    kind = data.draw(st.sampled_from(["llama", "qwen3", "sentencepiece"]))
    template = Template.load("next_item", "en")
    encoder = Encoder(tiny.tokenizer(kind), template.form())
    catalog = Catalog(Item(f"i{n}", name) for n, name in enumerate(names))
    which = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=5))
    history = History(tuple(Interaction(f"i{n}", "buy") for n in which))
    prompt = encoder.prompt(template.render(catalog, history, "buy"))
    assert prompt.cuts is not None
    assert len(prompt.cuts) == len(which) + 1
    seen: dict[int, tuple[int, ...]] = {}
    for row, start, stop in zip(which, prompt.cuts, prompt.cuts[1:], strict=False):
        block = prompt.ids[start:stop]
        title = encoder.title(encoder.form.render(catalog[row].title))
        assert block[len(block) - len(title) :] == title
        assert seen.setdefault(row, block) == block


@pytest.mark.parametrize(
    "source",
    [
        '{#-\nterminator: ","\n-#}\n'  # all on one line
        "{% for e in events %}{{ e.verb }} {{ e.title }},{% endfor %} {{ target }}",
        "Of {{ events[1].title }}\nand {{ events[0].title }}\nnext {{ target }}",  # another order
    ],
)
def test_other_prompts_cannot_be_cut(source: str) -> None:
    template = Template("mine", source, {})
    history = History((Interaction("a", "buy"), Interaction("b", "buy")))
    rendered = template.render(CATALOG, history, "buy")
    prompt = Encoder(tiny.tokenizer("llama"), template.form()).prompt(rendered)
    assert prompt.cuts is None
    with pytest.raises(SettingsError, match="by_event"):
        prompt.by_event(0)


def test_a_prompt_that_begins_with_an_event_cannot_be_cut() -> None:
    source = "{% for e in events %}{{ e.verb }} {{ e.title }}\n{% endfor %}next {{ target }}"
    template = Template("mine", source, {})
    history = History((Interaction("a", "buy"), Interaction("b", "buy")))
    rendered = template.render(CATALOG, history, "buy")
    llama = Encoder(tiny.tokenizer("llama"), template.form()).prompt(rendered)
    with pytest.raises(SettingsError, match="some text before the first event"):
        llama.by_event(0)
    with_start = Encoder(tiny.tokenizer("sentencepiece"), template.form()).prompt(rendered)
    assert with_start.by_event(0).head == 1
