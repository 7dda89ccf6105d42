"""Results by slices of users, and what combined systems are compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import tiny

from genrec import Dataset, Recommender
from genrec.data.datasets import load
from genrec.evaluation import evaluator
from genrec.evaluation.bootstrap import Interval, bootstrap
from genrec.evaluation.slices import DRAWS, LEAST, best_parts, by_slice
from genrec.reports import evaluation_report


@pytest.fixture(scope="module")
def zh_data() -> Dataset:
    return load("zh_mini")


def close(one: Interval, other: Interval) -> bool:
    """Compare the means and bounds, with room for sums in another order."""
    pairs = ((one.mean, other.mean), (one.low, other.low), (one.high, other.high))
    return all(math.isclose(a, b, abs_tol=1e-12) for a, b in pairs)


def test_each_slice_is_computed_from_its_own_users() -> None:
    rng = np.random.default_rng(0)
    labels = {
        "kind": ["few"] * (LEAST - 1) + ["some"] * LEAST + ["many"] * 40,
        "same": ["x"] * (2 * LEAST + 39),
    }
    values = {
        (system, metric): rng.random(len(labels["kind"]))
        for system in ("both", "one", "other")
        for metric in ("ndcg@10", "nats")
    }
    del values["one", "nats"]
    found = by_slice(labels, values, {"both": "one", "other": "both"})
    assert list(found) == ["kind"]  # a kind with a single label is no slice
    assert {label: each.users for label, each in found["kind"].items()} == {
        "few": LEAST - 1, "some": LEAST, "many": 40,
    }  # fmt: skip
    few, some, many = (found["kind"][label] for label in ("few", "some", "many"))
    assert (few.intervals, list(few.comparisons)) == ({}, [])
    assert few.difference("both", "ndcg@10") is None
    for each, inside in (
        (some, slice(LEAST - 1, 2 * LEAST - 1)),
        (many, slice(2 * LEAST - 1, None)),
    ):
        for (system, metric), value in values.items():
            assert close(each.intervals[system][metric], bootstrap(value[inside], draws=DRAWS))
        pairs = {(c.ours, c.other, c.metric) for c in each.comparisons}
        assert pairs == {
            ("both", "one", "ndcg@10"), ("other", "both", "ndcg@10"), ("other", "both", "nats"),
        }  # fmt: skip
        less = (values["both", "ndcg@10"] - values["one", "ndcg@10"])[inside]
        difference = each.difference("both", "ndcg@10")
        assert difference is not None
        assert close(difference, bootstrap(less, draws=DRAWS))
        assert each.difference("both", "nats") is None
        assert {c.users for c in each.comparisons} == {each.users}
    assert "in the slice kind: many: difference " in str(many.comparisons[0])
    json.dumps(many.to_dict(), allow_nan=False)


def test_a_difference_is_judged_by_what_is_better() -> None:
    labels = {"kind": ["a"] * LEAST + ["b"] * LEAST}
    n = 2 * LEAST
    values = {
        ("both", "ndcg@10"): np.ones(n), ("one", "ndcg@10"): np.zeros(n),
        ("both", "nats"): np.ones(n), ("one", "nats"): np.zeros(n),
    }  # fmt: skip
    found = by_slice(labels, values, {"both": "one"})["kind"]["a"].comparisons
    assert {c.metric: c.verdict for c in found} == {"ndcg@10": "better", "nats": "worse"}


def test_the_best_part_is_chosen_over_all_users() -> None:
    values = {
        ("both", "ndcg@10"): np.array([0.0, 0.0]),
        ("one", "ndcg@10"): np.array([1.0, 0.0]),
        ("other", "ndcg@10"): np.array([0.0, 0.9]),
    }
    parts = {"both": ["other", "one", "not measured"], "alone": ["one"], "none": ["not measured"]}
    assert best_parts(parts, values, "ndcg@10") == {"both": "one"}


def test_a_model_with_a_prior_is_compared_with_its_parts(zh_data: Dataset, tmp_path: Path) -> None:
    model = tiny.language_model()
    fused = Recommender(zh_data, model)
    found = evaluator.evaluate(
        zh_data,
        [fused, ("alone", fused.with_settings(prior="none")), "prior", "popular",
         ("other", fused.with_settings(prior="popularity"))],
        users=50,
        out=tmp_path,
    )  # fmt: skip
    ours, prior = found["tiny-llama + prior"], found["prior"]
    alone = found["alone"]
    values = {r.name: r.per_user("ndcg@10").mean() for r in (alone, prior)}
    best = max(("alone", "prior"), key=values.__getitem__)
    pairs = {(c.ours, c.other) for each in found.by_slice.values() for s in each.values()
             for c in s.comparisons}  # fmt: skip
    assert pairs == {("tiny-llama + prior", best), ("other", "alone")}
    (kind, label) = next((k, s) for k, each in found.by_slice.items() for s in each
                         if each[s].users >= LEAST)  # fmt: skip
    inside = np.array(found.slices[kind]) == label
    less = ours.per_user("ndcg@10") - found[best].per_user("ndcg@10")
    difference = found.by_slice[kind][label].difference("tiny-llama + prior", "ndcg@10")
    assert difference is not None
    assert difference.mean == pytest.approx(less[inside].mean())
    plain = json.loads((tmp_path / "result.json").read_text())["slices"]
    assert plain[kind][label]["users"] == inside.sum()
    compared = plain[kind][label]["comparisons"]
    assert {(c["system"], c["other"]) for c in compared} == pairs
    table = evaluation_report.sliced(found, "ndcg@10")
    assert table.header[3:] == [
        *(r.name for r in found.results), f"tiny-llama + prior less {best}", "other less alone",
    ]  # fmt: skip
    (row,) = [row for row in table.rows if row[:2] == [kind, label]]
    assert row[-2] == str(difference)
    stored = pq.read_table(tmp_path / "prior.parquet")
    assert stored[kind].to_pylist() == list(found.slices[kind])


def test_setups_say_what_is_a_part(zh_data: Dataset) -> None:
    found = evaluator.evaluate(zh_data, ["popular"], users=50)
    (plain,) = found.results
    prior, ranker = {"baseline": "prior"}, {"baseline": "prior", "ranker": "lambdarank"}
    alone = {"model": "m", "run": None, "template": "t", "decoder": "trie", "prior": None}
    fused = {**alone, "prior": {"prior": "collaborative"}}

    def pairs(**setups: Mapping[str, object]) -> set[tuple[str, str]]:
        results = [replace(plain, name=name, setup=setup) for name, setup in setups.items()]
        slices = replace(found, results=results).by_slice
        return {(c.ours, c.other) for each in slices.values() for s in each.values()
                for c in s.comparisons}  # fmt: skip

    assert pairs(ranker=ranker, prior=prior) == {("ranker", "prior")}
    assert pairs(fused=fused, prior=prior) == {("fused", "prior")}
    assert pairs(fused=fused, alone=alone) == {("fused", "alone")}
    assert pairs(fused=fused, ranker=ranker) == set()  # the model has no learned ranking
    assert pairs(fused={**fused, "ranker": "lambdarank"}, r=ranker) == {("fused", "r")}
    assert pairs(fused=fused, alone={**alone, "run": "runs/x"}) == set()
    assert pairs(fused={**fused, "prior": {"prior": "novelty"}}, prior=prior) == set()
    assert pairs(alone=alone, prior=prior, popular={"baseline": "popular"}) == set()
    shop = replace(plain, name="p", setup=prior, rules="new items only")
    results = [replace(plain, name="r", setup=ranker), shop]
    slices = replace(found, results=results).by_slice
    assert not any(s.comparisons for each in slices.values() for s in each.values())
