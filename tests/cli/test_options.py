"""Options of the command line: declared once, listed in part, given several times."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import typer
from support.commands import Run, answer, data, model, run, shop
from typer.testing import CliRunner

from genrec.cli import main, train
from genrec.cli.evaluate import EvaluateOptions
from genrec.cli.options import FieldsOf, Option
from genrec.cli.values import read_ids, read_items, read_list, read_pairs
from genrec.config import LEARNED, PANELS, QueryOptions, Settings
from genrec.data import protocols
from genrec.errors import DataError, SettingsError
from genrec.training.config import Training

assert all(map(callable, (data, model, run, shop)))

COMMANDS = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]


def listed(name: str, option: str = "--help") -> set[str]:
    """The flags that the help of a command shows."""
    done = CliRunner().invoke(main.app, [name, option], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return set(re.findall(r"^│[ *]+(--[\w-]+)", done.output, re.MULTILINE))


def flags(name: str) -> set[str]:
    """All flags of a command, by their first names."""
    return {p.opts[0] if p.opts[0].startswith("--") else p.opts[-1] for p in COMMANDS[name].params}


@pytest.mark.parametrize("cls", [Settings, QueryOptions])
def test_every_field_is_described(cls: type) -> None:
    for f in fields(cls):
        assert f.metadata["panel"] in PANELS
        assert f.metadata["help"][-1] == "."
        assert f.default is not None or f.metadata.get("unset") or f.name in {"where", "prompts"}


def test_training_is_described_in_panels() -> None:
    assert set(train.describe_training()) == {f.name for f in fields(Training)}


def test_protocols_are_all_listed() -> None:
    (protocol,) = (f for f in fields(EvaluateOptions) if f.name == "protocol")
    assert set(protocol.metadata["choices"]) == set(protocols.NAMES)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_lists_at_most_thirteen_options_and_help_all_lists_them_all(name: str) -> None:
    shown = listed(name) - {"--help", "--help-all"}
    everything = {f for f in flags(name) if f.startswith("--")} - {"--help", "--help-all"}
    assert shown <= everything
    assert len(shown) <= 13
    if shown != everything:
        assert listed(name, "--help-all") - {"--help", "--help-all"} == everything
    else:
        assert "--help-all" not in flags(name)


def test_recommend_lists_the_ten_options_that_people_use_first() -> None:
    assert listed("recommend") == {
        "--user", "--history", "--k", "--show", "--where", "--model", "--run", "--prior",
        "--explain", "--json", "--help", "--help-all",
    }  # fmt: skip
    assert len(listed("recommend", "--help-all")) > 45


def test_every_setting_is_an_option_of_recommend() -> None:
    names = [f.name for cls in (Settings, QueryOptions) for f in fields(cls)]
    assert {p.name for p in COMMANDS["recommend"].params} >= set(names)


def test_lists_are_read_alike_with_commas_and_repeated() -> None:
    for given in (["a,b"], ["a", "b"], ["a, b", ""], [" a ,,b"]):
        assert read_list(given) == ["a", "b"]
    assert read_list(None) == []
    assert read_list(["a,b"], whole=lambda value: True) == ["a,b"]
    for pairs in (["brand=2,color=1"], ["brand=2", "color=1"], ["brand = 2, color=1"]):
        assert read_pairs(pairs, "COLUMN=N") == {"brand": "2", "color": "1"}
    assert read_pairs(["title=name, en", "x=y"], "A=B") == {"title": "name, en", "x": "y"}
    for wrong in (["brand"], ["=2"], ["brand="], ["brand=1,brand=2"], ["brand=1", "brand=2"]):
        with pytest.raises(SettingsError, match=r"Expected (A=B|only one of them)"):
            read_pairs(wrong, "A=B")


def test_ids_come_from_several_files(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "one,two"))
    one.write_text("a\nb\n")
    two.write_text("b\nc\n")
    for given in ([f"{one},{two}"], [str(one), str(two)]):
        assert read_ids(given) == ["a", "b", "c"]
    three.write_text("d\n")
    assert read_ids([str(three)]) == ["d"]
    with pytest.raises(DataError, match="cannot be read"):
        read_ids([f"{one},{tmp_path / 'none'}"])


def test_ids_are_given_directly_or_in_files(tmp_path: Path) -> None:
    (tmp_path / "sold.txt").write_text("a\nb\n")
    assert read_items([f"{tmp_path / 'sold.txt'},c", "b", "85123A", "17841.0"]) == [
        "a", "b", "c", "85123A", "17841.0",
    ]  # fmt: skip
    assert read_items(["x" * 5000]) == ["x" * 5000]
    for missing in ("none.txt", str(tmp_path / "none")):
        with pytest.raises(DataError, match="cannot be read"):
            read_items([missing])


LISTS = [
    Option(f, f.metadata)
    for cls in (Settings, QueryOptions, EvaluateOptions)
    for f in fields(cls)
] + FieldsOf(Training, about=train.describe_training()).options()  # fmt: skip
LISTS = [o for o in LISTS if o.takes_several]


def test_the_options_that_take_lists() -> None:
    assert {o.flags[0] for o in LISTS} == {
        "--prior-sources", "--allow", "--exclude", "--pin", "--cap", "--boost", "--accepted", "--against", "--report",
        "--exposure-by",
        "--behaviors", "--behavior-weights", "--target-modules", "--report-to", "--context", "--context-columns", "--query-weight", "--knowledge",
        "--item-attributes",
    }  # fmt: skip


@pytest.mark.parametrize("option", LISTS, ids=lambda o: o.field.name)
def test_a_repeated_option_means_both(option: Option, tmp_path: Path) -> None:
    values = ["one=1", "two=2"] if option.kind.startswith("Mapping") else ["one.md", "two.md"]
    if option.kind.startswith("Sequence"):
        for n, value in enumerate(values):
            (tmp_path / value).write_text(f"{n}\n")
        values = [str(tmp_path / v) for v in values]
    if option.about.get("colon"):  # a condition may contain commas
        assert option.read(["a == 'x,y': 1", "b: 2"]) == {"a == 'x,y'": 1.0, "b": 2.0}
        return
    if option.about.get("verbatim"):  # titles contain commas, too
        assert option.read(["a, b", "c"]) == ("a, b", "c")
        return
    assert get_args(get_args(option.parameter().annotation)[0])[0] in {str, list[str]}
    assert option.read(values) == option.read([",".join(values)]) != option.default


def test_against_given_twice_means_both(run: Run, shop: Path, tmp_path: Path) -> None:
    options = ("evaluate", shop, "--no-model", "--users", 5)
    for against in (
        ["--against", "popular", "--against", "markov"],
        ["--against", "popular,markov"],
    ):
        value = answer(run, *options, *against)
        assert list(value["systems"]) == ["popular", "markov"]
    reports = f"{tmp_path / 'a.md'},{tmp_path / 'b.md'}"
    code, _, err = run(*options, "--against", "popular", "--report", reports)
    assert code == 0, err
    assert (tmp_path / "a.md").is_file()
    assert (tmp_path / "b.md").is_file()


def test_columns_caps_and_files_given_twice(run: Run, tmp_path: Path, model: Path) -> None:
    (tmp_path / "e.csv").write_text("who,what,when,behavior\nu,a,1,buy\nu,b,2,buy\nv,c,1,buy\n")
    (tmp_path / "i.csv").write_text("what,name,brand,color\na,x,1,r\nb,y,1,s\nc,z,2,t\n")
    columns = ["--column", "user_id=who,item_id=what", "--column", "timestamp=when",
               "--item-column", "item_id=what", "--item-column", "title=name"]  # fmt: skip
    code, _, err = run("prepare", "--interactions", tmp_path / "e.csv", "--items",
                       tmp_path / "i.csv", "--out", tmp_path / "o", *columns)  # fmt: skip
    assert code == 0, err
    for name in "ab":
        (tmp_path / name).write_text(f"{name}\n")
    shared = ["recommend", tmp_path / "o", "--model", model, "--history", "", "--include-seen"]
    value = answer(run, *shared, "--deny", tmp_path / "a", "--deny", tmp_path / "b")
    assert [r["item_id"] for r in value["recommendations"]] == ["c"]
    value = answer(run, *shared, "--exclude", "a", "--exclude", "b")
    assert [r["item_id"] for r in value["recommendations"]] == ["c"]
    rules = ["--pin", "z", "--pin", "b", "--boost", "color == 's' and brand == 1: 1e9", "-k", "3"]
    value = answer(run, *shared, *rules, "--exclude", "b")
    assert next((r["item_id"], "pinned" in r) for r in value["recommendations"]) == ("c", True)
    assert any("'b' was left out, because it is also excluded" in n for n in value["notes"])
    code, out, _ = run(*shared, "--pin", "c")
    assert code == 0
    assert out.splitlines()[1].split("\t")[:2] == ["1", "pinned"]
    value = answer(run, *shared, "--cap", "brand=1,color=1")
    assert len(value["recommendations"]) == 2
    value = answer(run, *shared, "--prior-sources", "popular", "--prior-sources", "markov,own")
    assert set(value["prior"]["counted"]) <= {"popular", "markov", "own"}
    code, _, err = run(*shared, "--prior-sources", "easy", "--prior-sources", LEARNED[0])
    assert (code, "'easy' is not known" in err) == (2, True)
