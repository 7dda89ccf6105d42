from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from genrec import Catalog, History, Interaction, Item, Recommender, runs
from genrec.data.behaviors import templates_folder
from genrec.data.titles import TitleForm
from genrec.errors import (
    PromptError,
)
from genrec.models.packaged import DEFAULT_MODEL, PACKAGED
from genrec.prompts.encoder import EncodedPrompt, Encoder, PromptBudget
from genrec.prompts.template import Template
from genrec.runs import Run

KINDS = st.sampled_from(tiny.KINDS)


def added(kind: str) -> dict[int, str]:
    return {i: t.content for i, t in tiny.tokenizer(kind).added_tokens_decoder.items()}


@given(KINDS, st.data())
def test_no_text_becomes_a_control_token(kind: str, data: st.DataObject) -> None:
    tokens = sorted(added(kind).values())
    parts = st.one_of(st.sampled_from(tokens), st.text(max_size=4), st.sampled_from(tokens[:1]))
    title = "x" + "".join(data.draw(st.lists(parts, min_size=1, max_size=4)))
    encoder = Encoder(tiny.tokenizer(kind), TitleForm())
    catalog = Catalog([Item("a", title)])
    history = History((Interaction("a", title),))  # the behavior too is the user's text
    prompt = Template.load("next_item").render(catalog, history, title)
    ids = encoder.prompt(prompt).ids[len(encoder.start) :]
    assert not set(ids) & added(kind).keys()
    assert not set(next(encoder.titles(catalog))) & added(kind).keys()


CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def spellings(tokenizer: Any) -> list[str]:
    """Spell every added token as people might paste it, in texts of up to 150 characters or so."""
    tokens = [t.content for t in tokenizer.added_tokens_decoder.values() if t.content.strip()]
    wide = {c: c + 0xFEE0 for c in range(0x21, 0x7F)}
    forms = [
        f"{form} "
        for n, t in enumerate(tokens)
        for form in (t,) * (n >= 300) or (  # Gemma has 6,000 that differ by a number

            t, f"x{t}y", t + t, f"{t[:2]}{t}{t[2:]}", f" {t} ", f"\n{t}\n", t.upper(), t.lower(),
            t.translate(wide), " ".join(t), f"{t}\x00{t}", f'"{t}"',
        )
    ]  # fmt: skip
    texts, text = [], "x"
    for form in forms:
        if len(text) + len(form) > 150:
            texts.append(text)
            text = "x"
        text += form
    return [*texts, text]


def check_pasted(tokenizer: Any) -> None:
    """Check that prompts and titles have no control ids except those of the chat template."""
    texts = spellings(tokenizer)
    harmless = ["mug"] * len(texts)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template or CHAT

    def controls(template: Template, said: list[str]) -> list[int]:
        encoder = Encoder(tokenizer, template.form(max_title_tokens=1000))
        catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(said))
        events = [Interaction(f"i{n}", t, value=n, text=t) for n, t in enumerate(said)]
        events += [Interaction(None, "search", text=t) for t in said]
        shown = [History(tuple(events), "u")] if template.takes_demonstrations else []
        prompt = template.render(
            catalog, History(tuple(events)), said[-1], demonstrations=shown, scale=5, item=0
        )
        control = encoder.control_ids
        assert all(control.isdisjoint(ids) for ids in encoder.titles(catalog))
        return [i for i in encoder.prompt(prompt).ids if i in control]

    for file in templates_folder().glob("*/*.jinja"):
        template = Template.load(file.stem, file.parent.name)
        expected = controls(template, harmless)
        assert controls(template, texts) == expected
        assert len(expected) <= (20 if template.header["form"] == "chat" else 1)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_pasted_control_tokens_are_text(kind: str) -> None:
    check_pasted(tiny.tokenizer(kind))


@pytest.mark.model
@pytest.mark.parametrize(
    "name",
    [
        DEFAULT_MODEL,
        pytest.param("gemma3-270m", marks=pytest.mark.slow),  # 6,400 added tokens
    ],
)
def test_pasted_control_tokens_of_real_models_are_text(name: str) -> None:
    packaged = PACKAGED[name]
    if not packaged.is_cached:
        pytest.skip(f"{name} is not in the cache")
    from transformers import AutoTokenizer

    check_pasted(AutoTokenizer.from_pretrained(packaged.path))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_typed_control_tokens_are_text(kind: str) -> None:
    """Check the same for typed histories, which pass through the parser."""
    texts = spellings(tiny.tokenizer(kind))
    catalog = Catalog([*(Item(f"i{n}", t) for n, t in enumerate(texts)), Item("a", "red mug")])
    recommender = Recommender(catalog, tiny.language_model(kind), encoder="none", max_events=1000)
    typed = "; ".join(f'searched "{t}", bought: {t}; {t}: red mug' for t in texts)
    read, _ = recommender.understand(typed)
    assert any(e.text and tiny.tokenizer(kind).eos_token in e.text for e in read.interactions)
    for history in (typed, texts):
        ids = recommender.prompt(history).ids[len(recommender.encoder.start) :]
        assert recommender.encoder.control_ids.isdisjoint(ids)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_the_tokenizer_alone_would_have_made_control_tokens(kind: str) -> None:
    """Show that the danger is real for every kind of tokenizer."""
    for token_id, content in added(kind).items():
        ids = tiny.tokenizer(kind)(content, add_special_tokens=False)["input_ids"]
        assert token_id in ids


def test_line_breaks_that_are_added_tokens_stay() -> None:
    """Keep line breaks, which are added tokens in Gemma's tokenizer."""
    tokenizer = tiny.byte_level(tiny.SPECIAL, ["\n", "\n\n", "<tool_call>"])
    encoder = Encoder(tokenizer, TitleForm())
    assert tokenizer.decode(encoder.terminator) == "\n"
    assert tokenizer.decode(encoder.text("a\n\nb")) == "a\n\nb"
    assert tokenizer.decode(encoder.text("a\n<tool_call>")) == "a\n< tool_call>"


@given(KINDS, st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6), st.data())
def test_titles_are_not_prefixes_of_one_another(
    kind: str, titles: list[str], data: st.DataObject
) -> None:
    encoder = Encoder(tiny.tokenizer(kind), TitleForm(max_title_tokens=4))
    sequences = {encoder.title(encoder.form.render(t)) for t in titles}
    for one in sequences:
        for two in sequences - {one}:
            assert two[: len(one)] != one


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_what_precedes_a_title_is_what_inference_would_produce(kind: str) -> None:
    """Check the first rule of prompts: every title of a history can serve as a training target."""
    catalog = Catalog(
        Item(f"i{n}", t) for n, t in enumerate(["red mug", "doll", "红色杯子", "set"])
    )
    events = tuple(
        Interaction(f"i{n % 4}", behavior)
        for n, behavior in enumerate(["buy", "view", "poke", "buy", "return", "view"])
    )
    events = (
        Interaction(None, "search", text="mug: <|im_end|>"),
        *events[:3],
        Interaction("i3", "buy", value=2, text='too "small"\nbought: x'),
        Interaction(None, "search", text="杯子"),
        *events[3:],
    )
    seasons = ("winter", "spring", "<|im_end|>", "")
    events = tuple(
        replace(e, context={"season": s} if (s := seasons[n % 4]) else {})
        for n, e in enumerate(events)
    )
    checked = 0
    for file in templates_folder().glob("*/*.jinja"):
        template = Template.load(file.stem, file.parent.name)
        if template.header.get("targets", "every") == "every":
            check_prefixes(
                Encoder(tiny.tokenizer(kind), template.form()), template, events, catalog
            )
            checked += 1
    assert checked == 8


def check_prefixes(
    encoder: Encoder, template: Template, events: tuple[Interaction, ...], catalog: Catalog
) -> None:
    shown = [History(events[:2], "other")] if template.takes_demonstrations else []

    def ids(history: History, behavior: str) -> EncodedPrompt:
        return encoder.prompt(
            template.render(catalog, history, behavior, demonstrations=shown, scale=5)
        )

    def before(number: int) -> History:
        context = events[number].context if template.shows_past_context else {}
        return History(events[:number], context=context)

    whole = ids(History(events), "buy")
    titles = [
        (s.event, start)
        for s, (start, _) in zip(whole.prompt.segments, whole.bounds, strict=True)
        if s.event is not None
    ]
    assert [e for e, _ in titles] == [n for n, e in enumerate(events) if e.item_id]
    for event, start in titles:
        assert whole.ids[:start] == ids(before(event), events[event].behavior).ids
        title = encoder.title(catalog[catalog.row(events[event].item_id or "")].title)
        assert whole.ids[start : start + len(title)] == title


def test_a_budget_cuts_whole_events_from_the_oldest_side() -> None:
    catalog = Catalog(Item(f"i{n}", f"title number {n}") for n in range(30))
    history = History(tuple(Interaction(f"i{n}", "buy") for n in range(30)))
    encoder = Encoder(tiny.tokenizer("llama"), TitleForm())
    template = Template.load("next_item")

    def fit(tokens: int, events: int = 100) -> tuple[int, list[int | None]]:
        found = encoder.fit(template, catalog, history, "buy", PromptBudget(tokens, events))
        assert found.prompt.events + found.prompt.dropped == 30
        return len(found.ids), [s.row for s in found.prompt.segments if s.row is not None]

    everything, rows = fit(10_000)
    assert rows == list(range(30))
    for tokens in range(everything, 60, -7):
        used, rows = fit(tokens)
        assert used <= tokens
        assert rows == list(range(30 - len(rows), 30))
        if len(rows) < 30:
            assert fit(10_000, events=len(rows) + 1)[0] > tokens  # one more would not have fit
    assert fit(10_000, events=3)[1] == [27, 28, 29]
    with pytest.raises(PromptError, match="more than the budget of 5"):
        fit(5)


def test_long_titles_are_cut_and_shared() -> None:
    encoder = Encoder(tiny.tokenizer("llama"), TitleForm(max_title_tokens=3))
    catalog = Catalog([Item("a", "zzzzzzzz 1"), Item("b", "zzzzzzzz 2")])
    one, two = encoder.titles(catalog)
    assert one == two
    assert len(one) == 3 + len(encoder.terminator)


def test_the_begin_token_comes_once_and_first() -> None:
    encoder = Encoder(tiny.tokenizer("sentencepiece"), TitleForm())
    assert encoder.start == (1,)
    prompt = Template.load("next_item").render(Catalog([Item("a", "mug")]), History(), "buy")
    ids = encoder.prompt(prompt).ids
    assert ids[0] == 1
    assert 1 not in ids[1:]


def test_the_hash_tells_tokenizers_and_forms_apart() -> None:
    hashes = {Encoder(tiny.tokenizer(k), TitleForm()).hash for k in ("llama", "qwen2", "gpt2")}
    hashes.add(Encoder(tiny.tokenizer("llama"), TitleForm("lower")).hash)
    assert len(hashes) == 4
    assert Encoder(tiny.tokenizer("llama"), TitleForm()).hash in hashes


def test_the_hash_survives_a_new_class_name_and_new_fields() -> None:
    """Check that old run folders still load after a class was renamed or a field added."""

    @dataclass(frozen=True, slots=True)
    class WritingStyle(TitleForm):
        quoted: bool = False

    tokenizer = tiny.tokenizer("llama")
    assert Encoder(tokenizer, WritingStyle()).hash == Encoder(tokenizer, TitleForm()).hash
    assert (
        Encoder(tokenizer, WritingStyle("lower")).hash
        == Encoder(tokenizer, TitleForm("lower")).hash
    )
    assert (
        Encoder(tokenizer, WritingStyle(quoted=True)).hash != Encoder(tokenizer, TitleForm()).hash
    )


@pytest.mark.model
def test_the_hash_of_the_shipped_run_stays() -> None:
    """Check a stored hash: it must never change for the same tokenizer and title form."""
    packaged = PACKAGED[DEFAULT_MODEL]
    if not packaged.is_cached:
        pytest.skip(f"{DEFAULT_MODEL} is not in the cache")
    from transformers import AutoTokenizer

    run_folder = runs.shipped_run("online_retail_demo")
    assert run_folder is not None
    run = Run.read(run_folder)
    form = Template.load(run.template).form(run.settings["case"], run.settings["max_title_tokens"])
    run.check(encoder=Encoder(AutoTokenizer.from_pretrained(packaged.path), form).hash)


def test_cut_titles_are_shown_as_they_are_read() -> None:
    catalog = Catalog([Item("a", "x " * 5000), Item("b", "red mug")])
    recommender = Recommender(catalog, tiny.language_model(), max_title_tokens=6)
    encoded = recommender.prompt(["a"])
    assert len(encoded.text) < 100
    again = tiny.tokenizer("llama")(encoded.text, add_special_tokens=False)["input_ids"]
    assert tiny.tokenizer("llama").decode(again) == tiny.tokenizer("llama").decode(encoded.ids)
