"""Halves of the validation users, and what their targets get from a prior."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.counted_shop import counted, sequences, shop

from genrec.data import protocols
from genrec.evaluation.metrics import ndcg
from genrec.fitting.halves import divide, score

EVENTS = [[0, 1, 2, 3], [3, 4, 5, 0], [6, 0, 1, 2], [2, 1, 0, 4], [5, 6, 3, 1]]
whole = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=8), min_size=2, max_size=8)


@given(events=whole, seed=st.integers(0, 5))
@settings(deadline=None)
def test_a_half_does_not_know_what_its_own_users_chose(events: list[list[int]], seed: int) -> None:
    dataset = shop(events)
    found = divide(dataset, 100, seed)
    assert found is not None
    every = protocols.cases(dataset, "last-unit", "validation")
    names = [{case.user_id for case in half.cases} for half in found]
    assert names[0].isdisjoint(names[1])
    assert names[0] | names[1] == {case.user_id for case in every}
    assert abs(len(names[0]) - len(names[1])) <= 1
    c, users = dataset.interactions.columns, dataset.interactions.user_ids
    for half, own in zip(found, names, strict=True):
        rows = half.known.interactions.columns.row
        of_own = np.array([user in own for user in users])[c.user]
        hidden = (c.split == 2) | ((c.split == 1) & of_own)
        assert (rows[hidden] == -1).all()
        assert (rows[~hidden] == c.row[~hidden]).all()
        for case in half.cases:  # the history is the train part
            assert len(case.shown) == int((c.split[c.user == users.index(case.user_id)] == 0).sum())


def test_a_sample_has_as_many_users_of_each_half() -> None:
    found = divide(shop(EVENTS), 4, 0)
    assert found is not None
    assert [len(half.cases) for half in found] == [2, 2]
    again = divide(shop(EVENTS), 4, 0)
    assert again is not None
    assert [c.user_id for c in again[0].cases] == [c.user_id for c in found[0].cases]


def test_without_validation_users_there_are_no_halves() -> None:
    assert divide(shop([[0], [2]]), 10, 0) is None
    assert divide(shop([[0, 1], [2]]), 10, 0) is None  # one user cannot be divided


@given(events=sequences, exclude=st.booleans())
@settings(deadline=None)
def test_scores_are_those_of_the_lists(events: list[list[int]], exclude: bool) -> None:
    prior = counted(events)
    found = divide(shop(EVENTS), 10, 0)
    assert found is not None
    cases = found[0].cases
    values, nats = score(prior, cases, exclude_seen=exclude)
    for case, value, each in zip(cases, values, nats, strict=True):
        listed = prior.rank(case.history, 10, exclude_seen=exclude)
        place = listed.index(case.target) + 1 if case.target in listed else 0
        assert value == pytest.approx(float(ndcg([place], 10)[0]))
        row = prior.counts.catalog.row(case.target)
        assert each == pytest.approx(-prior.logprobs(case.history)[row])
