from __future__ import annotations

from pathlib import Path

import pytest

from genrec import Catalog, History, Interaction, Item
from genrec.data.behaviors import Verb, templates_folder
from genrec.data.titles import TitleForm
from genrec.errors import PromptError, RequestError
from genrec.prompts.segments import Prompt
from genrec.prompts.template import Template

GOLDEN = Path(__file__).parent / "golden"
CATALOG = Catalog(
    [
        Item("a", "RED RETROSPOT MUG"),
        Item("b", "Jumbo Bag\r\nbought: {{ nope }} <|im_end|>"),
        Item("c", "红色杯子 ☕"),
    ]
)
HISTORY = History(
    (
        Interaction("a", "buy"),
        Interaction("b", "view"),
        Interaction("c", "cart"),
        Interaction("c", "rate", value=4.5),
        Interaction(None, "search", text='red "mug", 杯子'),
        Interaction("a", "poke\nbought"),
    )
)


def verbs(said: str) -> dict[str, Verb]:
    return {"buy": Verb(said, "buy")}


def shown(prompt: Prompt) -> str:
    lines = [f"{s.row!s:>4} {s.event!s:>4} {s.text!r}" for s in prompt.segments]
    return "\n".join([prompt.text, "--", *lines, ""])


CASES = [
    (name, language, what)
    for language in ("en", "zh")
    for name in ("next_item", "few_shot", "sentence")
    for what in ("events", "values", "empty")
] + [("chat", "en", "values")]


def rendered(name: str, language: str, what: str) -> Prompt:
    template = Template.load(name, language)
    return template.render(
        CATALOG,
        History() if what == "empty" else HISTORY,
        "buy",
        form=template.form("lower"),
        scale=5 if what == "values" else None,
        demonstrations=[HISTORY.latest(3), HISTORY.latest(1)] if name == "few_shot" else [],
    )


@pytest.mark.parametrize(("name", "language", "what"), CASES)
def test_golden(name: str, language: str, what: str) -> None:
    golden = GOLDEN / language / f"{name}-{what}.txt"
    assert shown(rendered(name, language, what)) == golden.read_text(encoding="utf-8")


def test_text_stands_on_lines_of_its_own() -> None:
    history = History(
        (
            Interaction(None, "search", text="red\nmug"),
            Interaction("a", "buy", text="too small"),
            Interaction(None, "search", text="x" * 500),
        )
    )
    prompt = Template.load("next_item").render(CATALOG, history, "buy")
    assert prompt.text.splitlines() == [
        "A customer's history, oldest first:",
        'searched: "red mug"',
        "bought: RED RETROSPOT MUG",
        'wrote: "too small"',
        f'searched: "{"x" * 200}"',
        "bought:",
    ]
    assert [s.event for s in prompt.segments if s.row is not None] == [1]


def test_segments_know_their_rows_and_events() -> None:
    prompt = Template.load("next_item").render(CATALOG, HISTORY, "buy")
    titles = [(s.row, s.event) for s in prompt.segments if s.row is not None]
    assert titles == [(0, 0), (1, 1), (2, 2), (2, 3), (0, 5)]
    assert prompt.segments[-1].text == "bought:"


def test_item_text_never_becomes_template_or_line() -> None:
    prompt = Template.load("next_item").render(CATALOG, HISTORY, "buy")
    assert "{{ nope }}" in prompt.text
    assert prompt.text.count("\n") == 1 + len(HISTORY)  # the heading and one line an event


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ events[0].title | upper }} {{ target }}", "modifies a title or joins"),
        ("a {{ 'x' ~ events[0].title }}\n{{ target }}", "modifies a title or joins"),
        ("a {{ '%s' | format(events[0].title) }}\n{{ target }}", "modifies a title or joins"),
        ("{{ nope }} {{ target }}", "'nope' is undefined"),
        ("no target at all", "does not print {{ target }}"),
        ("a: {{ target }} and more", "follows the target"),
        ("a:{{ target }}", "the text before a title ends with"),
        ("a {{ events[0].title }} b {{ target }}", "the text after a title begins with"),
        ("{% for %}", "not valid Jinja2"),
        ("{{ ''.__class__.__mro__ }} {{ target }}", "could not be rendered"),
    ],
)
def test_bad_templates(source: str, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        Template("bad", source, {}).render(CATALOG, HISTORY, "buy")
    assert message in str(caught.value)
    assert "'bad'" in str(caught.value) or "template" in str(caught.value)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(
        PromptError, match="few_shot, next_item, next_item_context, next_item_opinions"
    ):
        Template.load("nope")
    with pytest.raises(PromptError, match="Expected one of: en, zh"):
        Template.load("next_item", "xx")
    with pytest.raises(PromptError, match="as_is, lower"):
        TitleForm("upper")


def test_an_item_that_is_not_in_the_catalog() -> None:
    with pytest.raises(RequestError, match="'zz' is not in the catalog"):
        Template.load("next_item").render(CATALOG, History((Interaction("zz", "buy"),)), "buy")


def test_title_form_follows_the_catalog() -> None:
    assert TitleForm.of(Catalog([Item("a", "RED MUG"), Item("b", "Doll")])).case == "lower"
    assert TitleForm.of(Catalog([Item("a", "Red Mug")])).case == "as_is"
    assert TitleForm.of(Catalog([Item("a", "红色杯子")])).case == "as_is"
    assert TitleForm("lower").render("RED\x00 MUG\u2028x\x1b[0m") == "red mug x [0m"


def test_the_hash_follows_the_text_and_the_verbs() -> None:
    one = Template("t", "x {{ target }}", verbs("bought"))
    assert one.hash == Template("t", "x {{ target }}", verbs("bought")).hash
    assert one.hash != Template("t", "x {{ target }}", verbs("purchased")).hash
    assert one.hash != Template("t", "y {{ target }}", verbs("bought")).hash


def test_every_shipped_template_has_a_header() -> None:
    files = list(templates_folder().glob("*/*.jinja"))
    assert len(files) == 21
    for file in files:
        head = file.read_text(encoding="utf-8").split("-#}")[0]
        for key in ("for:", "language:", "form:"):
            assert key in head


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("color: red", "has the line 'color: red'"),
        ("lead: space", "Expected text in double quotes"),
        ('terminator: ""', "empty terminator"),
        ("targets: some", "Expected 'every' or 'last'"),
        ("form: poem", "Expected 'plain' or 'chat'"),
        ('answers: " yes"', "Expected two quoted strings"),
        ('answers: " yes", ""', "Expected two quoted strings"),
    ],
)
def test_bad_headers(header: str, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        Template("bad", f"{{#-\n{header}\n-#}}\nx {{{{ target }}}}", {})
    assert message in str(caught.value)


def test_a_title_never_holds_the_terminator() -> None:
    template = Template.load("sentence")
    catalog = Catalog([Item("a", "SIGN,BLUE, LARGE,")])
    prompt = template.render(catalog, History((Interaction("a", "buy"),)), "buy")
    assert prompt.text == "The user bought SIGN BLUE LARGE, and next they will buy"


def test_ones_own_folder_goes_before_what_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "next_item.jinja").write_text("mine: {{ next_verb }} {{ target }}")
    (tmp_path / "en" / "verbs.json").write_text('{"buy": {"past": "nabbed", "base": "nab"}}')
    mine = Template.load("next_item", own=tmp_path)
    assert mine.render(CATALOG, History(), "buy").text == "mine: nabbed"
    sentence = Template.load("sentence", own=tmp_path)
    assert sentence.render(CATALOG, History(), "buy").text == "The user will next nab"
    assert sentence.render(CATALOG, History(), "view").text == "The user will next view"
    (tmp_path / "en" / "verbs.json").write_text('{"buy": "nabbed"}')
    with pytest.raises(PromptError, match="is not a verb table"):
        Template.load("next_item", own=tmp_path)
    (tmp_path / "en" / "verbs.json").write_bytes(b"\xff")
    with pytest.raises(PromptError, match="Expected a text file in UTF-8"):
        Template.load("next_item", own=tmp_path)
    with pytest.raises(PromptError, match="There is no prompt folder"):
        Template.load("next_item", own=tmp_path / "none")


@pytest.mark.parametrize(("language", "liked"), [("en", "(liked it)"), ("zh", "（喜欢）")])
def test_opinions_are_written_after_the_titles(language: str, liked: str) -> None:
    catalog = Catalog(Item(f"i{n}", f"mug {n}") for n in range(5))
    events = (
        Interaction("i0", "buy", attributes={"sentiment": 0.9}),
        Interaction("i1", "buy", attributes={"sentiment": 0.5}),
        Interaction("i2", "dislike"),
        Interaction("i3", "buy", value=5.0, text="fine"),
    )
    template = Template.load("next_item_opinions", language)
    lines = template.render(catalog, History(events), "buy").text.splitlines()
    assert lines[2] == liked
    assert [n for n, line in enumerate(lines) if line[0] in "(（"] == [2, 5]
    plain = Template.load("next_item", language).render(catalog, History(events), "buy")
    kept = [line for n, line in enumerate(lines) if n not in {2, 5}]
    assert kept == plain.text.splitlines()
    assert len(template.render(catalog, History(events), "buy").cuts or ()) == 5
