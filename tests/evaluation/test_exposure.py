"""Exposure of groups of items, and quality by groups of users."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import Run

from genrec import Dataset
from genrec.data import protocols
from genrec.data.user_groups import OTHER, UNKNOWN, join_rare, label_users, order_groups
from genrec.errors import RequestError
from genrec.evaluation import evaluator
from genrec.evaluation.exposure import label_levels, measure_exposure
from genrec.evaluation.group_quality import compare_groups
from genrec.evaluation.results import Evaluation
from genrec.evaluation.slices import LEAST
from genrec.json_text import to_json
from genrec.reports import evaluation_report


def shop(countries: int = 3, users: int = 63) -> Dataset:
    """Return a made shop in which the brand of an item and the country of a user are known."""
    rng = np.random.default_rng(0)
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(30)],
            "title": [f"Thing number {n}" for n in range(30)],
            "brand": ["Big"] * 20 + ["Small"] * 8 + [None] * 2,
        }
    )
    rows: list[dict[str, Any]] = []
    for user in range(users):
        for time in range(6):
            rows.append(
                {
                    "user_id": f"u{user:03}",
                    "item_id": f"i{int(30 * rng.random() ** 2)}",
                    "timestamp": time,
                    "behavior": "buy",
                    "country": "ABC"[user % countries] if time or user % 2 else None,
                }
            )
    return Dataset.from_tables(items, pa.Table.from_pylist(rows), name="shop")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40))
def test_head_and_tail_hold_a_fifth_of_the_events(counts: list[int]) -> None:
    labels = label_levels(counts)
    events = dict.fromkeys(("head", "middle", "tail", "cold"), 0)
    for label, count in zip(labels, counts, strict=True):
        events[label] += count
        assert (label == "cold") == (count == 0)
    total = sum(counts)
    assert events["tail"] <= total / 5
    if total:
        head = [c for c, label in zip(counts, labels, strict=True) if label == "head"]
        assert sum(head) >= total / 5
        assert sum(c for c in head if c > min(head)) < total / 5  # no smaller head is enough
    by_count: dict[int, set[str]] = {}
    for label, count in zip(labels, counts, strict=True):
        by_count.setdefault(count, set()).add(label)
    assert all(len(found) == 1 for found in by_count.values())


def test_shares_and_exposure_are_those_of_the_places() -> None:
    labels = ["a", "a", "b", "c", "a"]
    lists = {"x": np.array([[0, 2, 3], [2, 1, -1]], dtype=np.int32)}
    counts = np.array([1, 2, 3, 0, 4])
    found = measure_exposure(labels, ["a", "b", "c", "none"], lists, counts, [2, 0], 3)
    assert list(found) == ["a", "b", "c"]
    a, b = found["a"], found["b"]
    assert (a.items, a.item_share, a.event_share, a.target_share) == (3, 0.6, 0.7, 0.5)
    assert a.intervals["x"]["share@3"].mean == pytest.approx((1 / 3 + 1 / 2) / 2)
    first, second, third = 1.0, 1 / math.log2(3), 0.5
    expected = (first / (first + second + third) + second / (first + second)) / 2
    assert a.intervals["x"]["exposure@3"].mean == pytest.approx(expected)
    assert a.coverage == {"x": pytest.approx(2 / 3)}
    assert b.coverage == {"x": 1.0}
    assert found["c"].intervals["x"]["share@3"].mean == pytest.approx(1 / 6)
    for metric in ("share@3", "exposure@3"):  # the groups share all places
        assert sum(g.intervals["x"][metric].mean for g in found.values()) == pytest.approx(1.0)


def test_a_group_is_compared_with_all_other_users() -> None:
    rng = np.random.default_rng(1)
    sizes = {"a": 120, "b": 60, "c": LEAST - 1}
    labels = [label for label, n in sizes.items() for _ in range(n)]
    better = np.array([label == "b" for label in labels])
    values = {("x", "ndcg@10"): rng.random(len(labels)) + better, ("x", "nats"): rng.random(199)}
    found = compare_groups(labels, values, {})
    assert list(found) == ["a", "b", "c"]
    assert (found["c"].differences, dict(found["c"].slice.intervals)) == ({}, {})
    gap, each = found["b"].differences["x"]["ndcg@10"], values["x", "ndcg@10"]
    assert gap.mean == pytest.approx(each[better].mean() - each[~better].mean())
    # The interval of two independent means, by their standard errors.
    error = math.sqrt(each[better].var() / 60 + each[~better].var() / 139)
    others = [each[:120], each[180:]]  # the sizes of the other groups stay the same, too
    error = math.sqrt(each[better].var() / 60 + sum(len(o) * o.var() for o in others) / 139**2)
    assert gap.low == pytest.approx(gap.mean - 1.96 * error, abs=0.02)
    assert gap.high == pytest.approx(gap.mean + 1.96 * error, abs=0.02)
    unlike = found["a"].differences["x"]["nats"]
    assert unlike.low < 0 < unlike.high
    assert compare_groups(["a"] * 199, values, {}) == {}


def test_users_have_the_value_that_is_most_frequent_in_their_history() -> None:
    data = shop()
    cases = protocols.cases(protocols.apply_protocol(data, "last-unit"), "last-unit", "test")
    labels = label_users(data, cases, "country")
    table = data.interactions.to_table().to_pylist()
    of: dict[str, Counter[str]] = {}
    for row in table:
        if row["country"] is not None:
            of.setdefault(row["user_id"], Counter())[row["country"]] += 1
    assert labels == [of[c.user_id].most_common(1)[0][0] for c in cases]
    assert set(labels) == set("ABC")
    assert join_rare([*"AAB", ""], least=2) == ["A", "A", OTHER, UNKNOWN]
    assert order_groups([OTHER, OTHER, "b", "a", UNKNOWN]) == ["a", "b", OTHER, UNKNOWN]
    with pytest.raises(RequestError, match=r"no column 'age'.*Expected one of: country"):
        label_users(data, cases, "age")


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluator.evaluate(
        shop(), ["popular", "markov"], exposure_columns=["brand"], group_column="country"
    )


def test_an_evaluation_has_exposure_and_groups(found: Evaluation) -> None:
    plain = json.loads(to_json(found.to_dict()))
    brands = plain["exposure"]["brand"]
    assert list(brands) == ["Big", "Small", UNKNOWN]
    assert [g["items"] for g in brands.values()] == [20, 8, 2]
    for groups in plain["exposure"].values():
        for share in ("item_share", "event_share", "target_share"):
            assert sum(g[share] for g in groups.values()) == pytest.approx(1.0)
        for system in ("popular", "markov"):
            for metric in ("share@10", "exposure@10"):
                means = [g["systems"][system][metric]["mean"] for g in groups.values()]
                assert sum(means) == pytest.approx(1.0)
    assert plain["groups"]["column"] == "country"
    groups = plain["groups"]["groups"]
    assert {label: g["users"] for label, g in groups.items()} == dict.fromkeys("ABC", 21)
    gaps = [g["less_others"]["markov"]["ndcg@10"]["mean"] for g in groups.values()]
    assert sum(gaps) == pytest.approx(0.0)  # of groups of the same size


def test_a_report_shows_exposure_and_groups(found: Evaluation) -> None:
    text = evaluation_report.to_html(evaluation_report.blocks(found))
    for words in ("<h2>Exposure", "share@10 by popularity", "share@10 by brand", "<h2>Groups of users",
                  "ndcg@10 by country", "popular less others"):  # fmt: skip
        assert words in text


def test_the_command_shows_what_it_was_asked_for(tmp_path: Path, run: Run) -> None:
    shop().save(tmp_path / "shop")
    args = ["evaluate", tmp_path / "shop", "--no-model", "--against", "popular", "--users", "30"]
    _, text, _ = run(*args, "--exposure-by", "brand", "--group-by", "country")
    assert "share@10 by brand" in text
    assert f"{OTHER}\t30" in text  # 30 users in groups of fewer than 20
    for wrong in ("colour", "title"):
        code, _, err = run(*args, "--exposure-by", wrong)
        assert code
        assert f"by {wrong!r}. Expected popularity, or one of the columns" in " ".join(err.split())
    assert "no column 'age'" in " ".join(run(*args, "--group-by", "age")[2].split())
