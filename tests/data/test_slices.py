"""Slices of cases, against counting by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from genrec import Dataset
from genrec.data import protocols, slices
from genrec.data.ingest import EventOptions

DAY = 86_400


def made(rows: list[tuple[str, str, float, str]], *, timed: bool = True) -> Dataset:
    """Make a dataset of (user, item, day, split) rows, with or without times."""
    users, items, days, splits = map(list, zip(*rows, strict=True))
    columns = {"user_id": users, "item_id": items, "split": splits, "behavior": ["buy"] * len(rows)}
    if timed:
        columns["timestamp"] = [1.5e9 + DAY * float(d) for d in days]
    else:
        columns["position"] = [float(d) for d in days]
    options = EventOptions(time_unit="s" if timed else "auto")
    catalog = pa.table({"item_id": list("abcdefgh"), "title": [f"title {i}" for i in "abcdefgh"]})
    return Dataset.from_tables(catalog, pa.table(columns), name="made", options=options)


ROWS = [
    ("u", "a", 0, "train"), ("u", "b", 0.5, "test"),
    ("v", "a", 0, "train"), ("v", "c", 5, "train"), ("v", "a", 45, "test"),
    ("w", "a", 1, "test"), ("w", "b", 400, "test"),
]  # fmt: skip


def test_every_case_has_a_label_of_each_kind() -> None:
    dataset = made([*ROWS, ("x", "a", 0, "train"), ("x", "a", 1, "train"), ("x", "c", 2, "test")])
    cases = protocols.cases(dataset, "given")
    found = slices.label_slices(dataset, cases)
    assert [(c.user_id, c.target) for c in cases] == [
        ("u", "b"),
        ("v", "a"),
        ("w", "b"),
        ("x", "c"),
    ]
    assert found["popularity"] == ["cold", "head", "cold", "long tail"]  # 4 events of a, 1 of c
    assert found["history"] == ["1-2"] * 4
    assert found["last_event"] == ["0 days", "30-89 days", "90+ days", "1-6 days"]
    assert found["item"] == ["cold", "warm", "cold", "warm"]
    assert found["user"] == ["warm", "warm", "cold", "warm"]
    assert found["target_events"] == ["0", "1-4", "0", "1-4"]
    assert found["last_behavior"] == ["buy"] * 4
    assert found["script"] == ["latin"] * 4


def test_data_without_times_has_no_slices_by_days() -> None:
    dataset = made(ROWS, timed=False)
    cases = protocols.cases(dataset, "given")
    found = slices.label_slices(dataset, cases)
    assert dataset.info.time_unit == "position"
    assert "last_event" not in found
    assert set(found) == {"popularity", "history", "target_events", "item", "user", "last_behavior",
                          "script"}  # fmt: skip


def test_an_empty_history_has_no_last_event() -> None:
    dataset = made(ROWS)
    (case, *_) = protocols.cases(dataset, "given")
    nobody = replace(case, shown=case.shown[:0])
    assert slices.days_since([case, nobody]) == [0.5, None]
    assert slices.label_days([None, math.nan, -3.0]) == ["none", "unknown", "0 days"]
    found = slices.label_slices(dataset, [nobody])
    assert (found["history"], found["last_event"]) == (["0"], ["none"])
    assert found["last_behavior"] == ["none"]


def test_what_is_counted_depends_on_what_was_fitted() -> None:
    rows = [("u", "a", 0.0, "train"), ("u", "b", 1.0, "validation"), ("u", "b", 2.0, "test")]
    dataset = made(rows)
    cases = protocols.cases(dataset, "given")
    assert slices.label_slices(dataset, cases)["popularity"] == ["cold"]
    assert slices.label_slices(dataset, cases, "test")["popularity"] == ["head"]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_the_long_tail_is_the_largest_that_has_a_fifth_of_the_events(counts: list[int]) -> None:
    labels = slices.label_popularity(counts, np.arange(len(counts)))
    assert [label == "cold" for label in labels] == [n == 0 for n in counts]
    tail = [n for n, label in zip(counts, labels, strict=True) if label == "long tail"]
    head = [n for n, label in zip(counts, labels, strict=True) if label == "head"]
    assert 5 * sum(tail) <= sum(counts)
    if head:
        least = min(head)
        assert max(tail, default=0) < least  # items with equally many events are not divided
        assert 5 * (sum(tail) + head.count(least) * least) > sum(counts)


def test_labels_are_shown_in_the_order_of_their_meaning() -> None:
    assert slices.in_order(["90+ days", "0 days", "none", "7-29 days"]) == [
        "none", "0 days", "7-29 days", "90+ days",
    ]  # fmt: skip
    assert slices.in_order(["warm", "cold"]) == ["cold", "warm"]
    assert slices.in_order(["repeat", "new"]) == ["new", "repeat"]
