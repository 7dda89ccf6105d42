"""Commands show what is new to a user beside what the user may get again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import Run, answer
from support.shop_files import write

from genrec.reports import rails

ITEMS = "item_id,title\n" + "".join(f"i{n},title number {n}\n" for n in range(12))


@pytest.fixture
def repeating(run: Run, tmp_path: Path) -> Path:
    """A shop with baskets in which users come back to item i0 and have returned item i1."""
    rows = ["user_id,item_id,timestamp,behavior,invoice"]
    for user in range(8):
        for order in range(4):
            at = 1_500_000_000 + 86_400 * order
            rows += [
                f"u{user},i0,{at},buy,{user}-{order}",
                f"u{user},i{order + 1},{at},buy,{user}-{order}",
            ]
        rows.append(f"u{user},i1,{at + 60},return,{user}-back")
    items, events = write(tmp_path, ITEMS, "\n".join(rows) + "\n")
    code, _, err = run(
        "prepare", "--items", items, "--interactions", events, "--out", tmp_path / "d"
    )
    assert code == 0, err
    return tmp_path / "d"


def ids(lines: list[list[str]], show: str) -> set[str]:
    return {line[-3] for line in lines[1:] if line[-1] == show}


def test_two_lists_are_shown(run: Run, repeating: Path, model: Path) -> None:
    code, out, err = run("recommend", repeating, "--user", "u0", "--model", model, "-k", 20)
    assert code == 0, err
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["rank", "probability", "model", "prior", "item_id", "title", "list"]
    assert ids(lines, "new") == {f"i{n}" for n in range(5, 12)}
    assert ids(lines, "again") == {"i2", "i3"}  # i0 and i4 are in the latest basket
    assert "New to this customer: Exact top 7." in err
    assert (
        "Buy again: Exact top 2. The list leaves out 1 returned item and 2 items of the latest"
        in err
    )
    assert "To include such items, use --allow-returned and --allow-last-basket." in err


def test_json_adds_the_two_lists(run: Run, repeating: Path, model: Path) -> None:
    base = ("recommend", repeating, "--user", "u0", "--model", model, "-k", 20)
    value = answer(run, *base)
    assert {r["item_id"] for r in value["recommendations"]} == {
        f"i{n}" for n in (2, 3, *range(5, 12))
    }
    assert value["show"] == "all"
    assert list(value["rails"]) == ["new", "again"]
    for show in ("new", "again"):
        alone = answer(run, *base, "--show", show)
        rail = value["rails"][show]
        assert "rails" not in alone
        assert alone["show"] == rail["show"] == show
        assert alone["left_out"] == rail["left_out"]
        assert [r["item_id"] for r in alone["recommendations"]] == [
            r["item_id"] for r in rail["recommendations"]
        ]
    explained = answer(run, *base[:-1], 2, "--explain")
    assert all("explanation" in r for r in explained["recommendations"])
    assert list(explained["rails"]) == ["new", "again"]


@pytest.mark.parametrize(
    "chosen", [["--show", "all"], ["--include-seen"], ["--exclude-seen"], ["--show", "again"]]
)
def test_a_choice_gives_one_list(run: Run, repeating: Path, model: Path, chosen: list[str]) -> None:
    code, out, err = run("recommend", repeating, "--user", "u0", "--model", model, *chosen)
    assert code == 0, err
    assert out.splitlines()[0].split("\t")[-1] == "title"
    assert "rails" not in answer(
        run, "recommend", repeating, "--user", "u0", "--model", model, *chosen
    )


def test_a_user_without_items_gets_new_ones_only(run: Run, repeating: Path, model: Path) -> None:
    code, out, err = run("recommend", repeating, "--history", "", "--model", model)
    assert code == 0, err
    assert {line.split("\t")[-1] for line in out.splitlines()[1:]} == {"new"}
    assert "Buy again: No item may be returned, because every item is excluded." in err


def test_options_reach_both_lists(run: Run, repeating: Path, model: Path) -> None:
    base = ("recommend", repeating, "--user", "u0", "--model", model, "-k", 20)
    value = answer(run, *base, "--allow-returned", "--allow-last-basket")
    assert {r["item_id"] for r in value["rails"]["again"]["recommendations"]} == {
        f"i{n}" for n in range(5)
    }
    assert value["left_out"] == {}


def test_a_page_shows_both_lists(run: Run, repeating: Path, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    code, out, err = run(
        "recommend", repeating, "--user", "u0", "--model", model, "-k", 3, "--html", page
    )
    assert code == 0, err
    text = page.read_text(encoding="utf-8")
    assert text.count("<section>") == 2
    assert text.count("<article>") == 5
    assert text.index("New to this customer") < text.index("Buy again")
    assert out.splitlines()[0].split("\t")[-2:] == ["why", "list"]


def test_contradictions_are_found_before_a_model_is_loaded(run: Run, repeating: Path) -> None:
    asked = ("--user", "u0", "--model", "no-such-model")
    for command, more in (("recommend", ()), ("explain", ("--item", "i5"))):
        code, _, err = run(command, repeating, *asked, *more, "--exclude-seen", "--show", "again")
        assert code == 6
        assert "show='again' contradicts exclude_seen=True (--exclude-seen)" in err


@pytest.mark.parametrize(
    ("behavior", "verb", "titles"),
    [
        ("buy", "buy", ["New to this customer", "Buy again"]),
        ("Purchase", "purchase", ["New to this customer", "Purchase again"]),
        ("listen", "listen to", ["New to this user", "Listen to again"]),
    ],
)
def test_titles_follow_the_behavior(behavior: str, verb: str, titles: list[str]) -> None:
    found = rails.rail_titles(behavior, verb)
    assert [found["new"], found["again"]] == titles


def test_in_a_terminal_the_lists_are_side_by_side(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console
    from support import tiny

    from genrec import Catalog, Item, Recommender

    catalog = Catalog(Item(f"i{n}", f"title {n}") for n in range(6))
    recommender = Recommender(catalog, tiny.language_model(), encoder="none")
    lists = recommender.recommend_rails("i0; i1; i2", 3)
    wide: Any = Console(force_terminal=True, width=120, no_color=True)
    monkeypatch.setattr(rails, "out", lambda: wide)
    monkeypatch.setattr("genrec.reports.console.out", lambda: wide)
    monkeypatch.setenv("COLUMNS", "120")
    rails.print_rails(lists, rails.rail_titles("buy", "buy"))
    out = capsys.readouterr().out
    (header,) = [line for line in out.splitlines() if "item_id" in line and "rank" in line]
    assert header.split() == [
        "rank",
        "probability",
        "item_id",
        "New",
        "to",
        "this",
        "customer",
        "probability",
        "item_id",
        "Buy",
        "again",
    ]
    rows = [line.split() for line in out.splitlines() if line.strip()[:1] in {"1", "2", "3"}]
    new, again = lists["new"], lists["again"]
    assert rows[0] == ["1", f"{new[0].probability:.4f}", new[0].item_id, *new[0].title.split(),
                       f"{again[0].probability:.4f}", again[0].item_id, *again[0].title.split()]  # fmt: skip
    assert rows[2] == ["3", f"{new[2].probability:.4f}", new[2].item_id, *new[2].title.split()]
    assert len(again) == 2
