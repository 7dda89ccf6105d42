"""Lists as a shop would show them stand beside those of the protocol, and change nothing in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.commands import Run
from support.made_shop import made

from genrec import Dataset, History, Recommender
from genrec.config import PROTOCOL, QueryOptions
from genrec.data.datasets import load
from genrec.data.groups import find_groups
from genrec.errors import RequestError
from genrec.evaluation import evaluator
from genrec.evaluation.systems import Answer
from genrec.reports import evaluation_report

NAMES = ["ours", "popular", "recent"]


@pytest.fixture(scope="module")
def zh() -> Dataset:
    return load("zh_mini")


def systems(data: Dataset, **settings: Any) -> list[Any]:
    ours = Recommender(data, tiny.language_model(), prior="none", encoder="none", **settings)
    return [("ours", ours), "popular", "recent"]


def left_out(history: History, data: Dataset, show: str, allowed: set[str]) -> set[str]:
    """The items that a list may not hold; behaviors that lead to the target are spared by ``new``."""
    ids = {item.item_id for item in data.catalog}
    events = [e for e in history.interactions if e.item_id is not None]
    bought = [e.item_id for e in events if e.behavior == data.info.target_behavior]
    out: set[str] = set()
    if "returned" not in allowed:
        last = {e.item_id: e.behavior for e in events}
        out |= {i for i, behavior in last.items() if i and behavior == "return"}
    if "last_basket" not in allowed:
        out |= {i for i in bought[-1:] if i}  # zh_mini has no baskets
    if show == "new":
        lead_in = data.info.lead_in_behaviors
        out |= {e.item_id for e in events if e.item_id and e.behavior not in lead_in}
    if show == "again":
        out |= ids - set(bought)
    return out


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"show": "new"}, "new items only"),
        ({"show": "again"}, "repeats only"),
        ({"show": "all"}, "all items"),
        ({"show": "all", "allow_last_basket": True}, "all items, with the latest basket"),
        ({"allow_returned": True}, "new items only, with returned items"),
        ({"show": "again", "allow_returned": True}, "repeats only, with returned items"),
    ],
)
def test_lists_under_rules_are_the_best_that_the_rules_allow(
    zh: Dataset, given: dict[str, Any], name: str
) -> None:
    shop = QueryOptions(**given)
    asked = systems(zh, search="exact")
    plain = evaluator.evaluate(zh, asked, users=12)
    found = evaluator.evaluate(zh, asked, users=12, shop=shop)
    assert [r.name for r in found.results] == [*NAMES, *(f"{n}, {name}" for n in NAMES)]
    show = given.get("show", "all" if not zh.info.exclude_seen else "new")
    allowed = {"returned"} if shop.allow_returned else set()
    allowed |= {"last_basket"} if shop.allow_last_basket else set()
    n = len(zh.catalog)
    ranks: dict[str, Callable[[History], list[str]]] = {
        "ours": lambda h: [r.item_id for r in asked[0][1].score(h)],
        "popular": lambda h: found_baseline("popular", zh).rank(h, n),
        "recent": lambda h: found_baseline("recent", zh).rank(h, n),
    }
    for before, after in zip(plain.results, found.results, strict=False):
        assert before.ranked == after.ranked
        assert before.rules == after.rules == ""
    for system, result in zip(NAMES, found.results[3:], strict=True):
        assert result.rules == name
        differ = {"show": shop.show, "allow_returned": False, "allow_last_basket": False}
        differ["allow_same_title"] = False
        differ = {k: v for k, v in differ.items() if v is not None and getattr(shop, k) == v}
        assert result.setup["rules"] == differ
        assert not result.values["invalid"].any()
        for case, listed in zip(result.cases, result.ranked, strict=True):
            denied = left_out(case.history, zh, show, allowed)
            wanted = [i for i in ranks[system](case.history) if i not in denied][:20]
            assert list(listed) == wanted


def found_baseline(name: str, data: Dataset) -> Any:
    from genrec.baselines import registry

    return registry.fit(name, data, before="validation", seed=0)


def test_rows_under_rules_are_compared_only_with_one_another(zh: Dataset) -> None:
    found = evaluator.evaluate(zh, systems(zh), users=8, shop=QueryOptions(show="new"))
    pairs = {(c.ours, c.other) for c in found.comparisons}
    rules = ", new items only"
    assert pairs == {("ours", "popular"), ("ours", "recent"),
                     (f"ours{rules}", f"popular{rules}"), (f"ours{rules}", f"recent{rules}")}  # fmt: skip
    said = " ".join(evaluation_report.remarks(found))
    assert 'Systems whose name ends with "new items only" follow the rules of a shop' in said
    assert found.to_dict()["setups"]["popular, new items only"]["rules"]["show"] == "new"


def test_a_list_that_breaks_the_rules_is_invalid(
    zh: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrec.evaluation import shop_rows

    kept = shop_rows._RuledBaseline.answers

    def answers(self: Any, cases: Any, k: int) -> Any:
        first, *rest = kept(self, cases, k)
        bought = [e.item_id for e in cases[0].history.interactions if e.behavior == "buy"]
        return [Answer([bought[-1], *first.items[1:]]), *rest]

    monkeypatch.setattr(shop_rows._RuledBaseline, "answers", answers)
    found = evaluator.evaluate(zh, ["popular"], users=8, shop=QueryOptions(show="all"))
    assert found.results[1].values["invalid"].tolist() == [1.0] + [0.0] * 7


def test_candidates_have_no_rules(zh: Dataset) -> None:
    with pytest.raises(RequestError, match="do not apply to the protocol candidates-20"):
        evaluator.evaluate(zh, ["popular"], protocol="candidates-20", shop=QueryOptions(show="new"))


def test_a_contradiction_is_refused(zh: Dataset) -> None:
    with pytest.raises(RequestError, match="show='again' contradicts exclude_seen=True"):
        evaluator.evaluate(zh, ["popular"], exclude_seen=True, shop=QueryOptions(show="again"))


def test_logs_of_rules_are_kept_apart(zh: Dataset, tmp_path: Path) -> None:
    for show in ("new", "again", "new"):
        evaluator.evaluate(zh, ["popular"], users=5, out=tmp_path, shop=QueryOptions(show=show))
    names = {p.name for p in tmp_path.glob("*.jsonl")}
    assert names == {
        "popular.jsonl", "popular-new-items-only.jsonl", "popular-repeats-only.jsonl",
    }  # fmt: skip
    for name in names:
        assert len((tmp_path / name).read_text(encoding="utf-8").splitlines()) == 5


def test_protocols_allow_what_a_shop_would_not_show() -> None:
    assert PROTOCOL.allow_returned
    assert PROTOCOL.allow_last_basket
    assert PROTOCOL.show is None


def test_a_user_list_of_a_protocol_holds_the_latest_basket(zh: Dataset) -> None:
    """The first item of ``recent`` is the latest basket, which stays in the protocol's own rows."""
    found = evaluator.evaluate(zh, ["recent"], users=8, exclude_seen=False)
    for case, listed in zip(found.cases, found.results[0].ranked, strict=True):
        bought = [e.item_id for e in case.history.interactions if e.behavior == "buy"]
        assert not bought or listed[0] == bought[-1]


def test_the_command_adds_rows(run: Run, shop: Path, model: Path) -> None:
    code, out, err = run(
        "evaluate", shop, "--model", model, "--users", 4, "--against", "popular", "--prior", "none",
        "--show", "again", "--json",
    )  # fmt: skip
    assert code == 0, err
    names = list(json.loads(out)["systems"])
    assert names[1:2] == ["popular"]
    assert names[3:] == ["popular, repeats only"]
    code, out, err = run(
        "evaluate", shop, "--no-model", "--against", "popular", "--explanations", "--show", "new"
    )
    assert code != 0


def test_a_limit_for_variants_applies_to_all_systems() -> None:
    data = made(title="desk {thing} {color}")
    groups = find_groups(data.catalog)
    plain = Recommender(data, tiny.language_model(), prior="none", encoder="none", search="exact")
    asked: list[Any] = [("ours", plain), "popular"]
    shop = QueryOptions(show="all", per_group=1)
    found = evaluator.evaluate(data, asked, users=6, shop=shop)
    assert [r.rules for r in found.results] == ["", "", *["all items, at most 1 of a group"] * 2]
    popular = found_baseline("popular", data)
    several = 0
    for system, result in zip((plain, popular), found.results[2:], strict=True):
        assert not result.values["invalid"].any()
        for case, listed in zip(result.cases, result.ranked, strict=True):
            ranked = (
                popular.rank(case.history, 24)
                if system is popular
                else [r.item_id for r in plain.score(case.history)]
            )
            denied = left_out(case.history, data, "all", set())
            wanted: list[str] = []
            names: list[str | None] = []
            for item in ranked:
                name = groups.name(data.catalog.row(item))
                if item not in denied and (name is None or name not in names):
                    wanted.append(item)
                    names.append(name)
                else:
                    several += item not in denied
            assert list(listed) == wanted[:20]
    assert several


def test_other_options_are_refused(zh: Dataset) -> None:
    with pytest.raises(RequestError, match="shop has a value for 'where'"):
        evaluator.evaluate(zh, ["popular"], shop=QueryOptions(where="category == '商品'"))
