from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from genrec import Dataset, History, evaluation
from genrec.baselines import Popular
from genrec.datasets import load
from genrec.errors import DataError


def test_demo_v1_has_the_counts_that_it_is_known_by(demo_data: Dataset) -> None:
    cases = evaluation.demo_v1(demo_data)
    assert len(cases) == 887
    assert max(len(c.history) for c in cases) == 25
    assert min(len(c.history) for c in cases) == 5
    assert all(i.behavior == "buy" for c in cases for i in c.history.interactions)
    assert all(c.basket[0] == c.target for c in cases)
    events = demo_data.interactions
    earlier = [
        {
            i.item_id
            for i in events.history(c.user_id, before="test").interactions
            if i.behavior == "buy"
        }
        for c in cases
    ]
    repeats = sum(c.target in e for c, e in zip(cases, earlier, strict=True))
    assert repeats / len(cases) == pytest.approx(0.33, abs=0.005)
    columns = events.columns
    bought = columns.behavior == events.behaviors.index("buy")
    users = [len(set(columns.unit[events.events(c.user_id)][
        bought[events.events(c.user_id)]].tolist())) for c in cases]  # fmt: skip
    assert users.count(2) == 326
    several = [u for u in events.user_ids if events.targets(u, "test", "buy")]
    inside = [events.events(u) for u in several]
    train = sum(int((bought[w] & (columns.split[w] == 0)).sum()) for w in inside)
    both = sum(int((bought[w] & (columns.split[w] < 2)).sum()) for w in inside)
    assert (train, both) == (21974, 38091)


def test_demo_v1_never_shows_the_target_basket(demo_data: Dataset) -> None:
    for case in evaluation.demo_v1(demo_data):
        units = {i.unit for i in case.history.interactions}
        (unit,) = {t.unit for t in demo_data.interactions.targets(case.user_id, "test", "buy")}
        assert unit not in units


def test_validation_cases_see_train_only(demo_data: Dataset) -> None:
    cases = evaluation.demo_v1(demo_data, "validation")
    assert 400 < len(cases) < 887
    for case in cases[:50]:
        train = demo_data.interactions.history(case.user_id, before="validation").interactions
        bought = [i.item_id for i in train if i.behavior == "buy"]
        assert list(case.history.item_ids) == bought[-25:]


def test_last_out_shows_every_behavior_before_the_last_purchase() -> None:
    data = load("zh_mini")
    cases = evaluation.last_out(data)
    assert len(cases) == 60
    assert {i.behavior for c in cases for i in c.history.interactions} > {"buy", "read", "search"}
    for case in cases:
        history = data.interactions.history(case.user_id)
        assert case.history == History(history.interactions[:-1], case.user_id)
        assert case.basket == (case.target,) == (history.interactions[-1].item_id,)


def test_popular_counts_what_it_may(demo_data: Dataset) -> None:
    popular = Popular(demo_data.interactions, "buy")
    table = demo_data.interactions.to_table().to_pylist()
    counts: dict[str, int] = {}
    for row in table:
        if row["behavior"] == "buy" and row["split"] != "test":
            counts[row["item_id"]] = counts.get(row["item_id"], 0) + 1
    best = [counts[i] for i in popular.rank(History(), 10)]
    assert best == sorted(counts.values(), reverse=True)[:10]
    assert sorted(popular.order) == sorted(i.item_id for i in demo_data.catalog)


def test_samples_are_the_same_every_time(demo_data: Dataset) -> None:
    cases = evaluation.demo_v1(demo_data)
    one = [c.user_id for c in evaluation.sample(cases, 40)]
    assert one == [c.user_id for c in evaluation.sample(cases, 40)]
    assert one == [c.user_id for c in cases if c.user_id in set(one)]
    assert len(one) == 40
    assert one != [c.user_id for c in evaluation.sample(cases, 40, seed=1)]
    assert evaluation.sample(cases, None) == cases


def test_a_killed_run_goes_on_where_it_was(demo_data: Dataset, tmp_path: Path) -> None:
    cases = evaluation.demo_v1(demo_data)[:6]
    popular = Popular(demo_data.interactions, "buy")
    log = tmp_path / "new" / "log.jsonl"
    asked: list[str | None] = []

    def rank(history: History) -> Sequence[str]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(history.user_id)
        return popular.rank(history, 3)

    with pytest.raises(KeyboardInterrupt):
        evaluation.run("p", rank, cases, log=log, key="k")
    with log.open("a") as stream:
        stream.write('{"system": "p", "key": "k", "user_')  # a line cut off by kill -9
    asked.clear()
    result = evaluation.run("p", rank, cases, log=log, key="k")
    assert asked == [c.user_id for c in cases[3:]]
    assert [json.loads(line)["user_id"] for line in log.read_text().splitlines()] == [
        c.user_id for c in cases
    ]
    assert result.ranked == [popular.rank(c.history, 3) for c in cases]
    with pytest.raises(DataError, match="was written for system 'p'"):
        evaluation.run("p", rank, cases, log=log, key="other")


def test_results_compare_per_user(demo_data: Dataset) -> None:
    cases = evaluation.demo_v1(demo_data)[:50]
    perfect = evaluation.run("oracle", lambda h: [], cases)
    oracle = evaluation.Result("oracle", cases, [[c.target] for c in cases])
    assert oracle.mean("hit_rate@10").mean == 1.0
    assert oracle.minus(perfect, "ndcg@10").low == 1.0
    assert oracle.per_user("recall@10") == pytest.approx([1 / len(set(c.basket)) for c in cases])
