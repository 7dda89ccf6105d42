"""The test of an experiment may be looked at after every user, and still errs rarely."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.amount import FULL

from genrec.evaluation.sequential import LEAST_USERS, compare


def simulated(
    rng: np.random.Generator, users: int, effect: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Users with some lists each, of which a share that differs between users is accepted."""
    second = rng.random(users) < 0.5
    rate = np.clip(rng.beta(0.5, 2.0, users) + effect * second, 0, 1)
    lists = rng.geometric(0.3, users)
    return rng.binomial(lists, rate) / lists, second


def test_the_interval_is_that_of_the_formula() -> None:
    """The cumulative sums agree with means and variances that are computed again for every look."""
    values, second = simulated(np.random.default_rng(1), 400)
    first_excluded = None
    for n in range(1, 401):
        found = compare(values[:n], second[:n], planned=500)
        one, other = values[:n][~second[:n]], values[:n][second[:n]]
        if min(len(one), len(other)) < LEAST_USERS:
            assert found.low == -math.inf
            continue
        a, t = 0.05, n
        rate = (-2 * math.log(a) + math.log(-2 * math.log(a) + 1)) / 500
        width = math.sqrt(2 * (t * rate + 1) / (t * rate) * math.log(math.sqrt(t * rate + 1) / a))
        v1, v2, every = (float(v.var(ddof=1)) for v in (one, other, values[:n]))
        spread = math.sqrt(max(v1, every) / len(one) + max(v2, every) / len(other))
        assert found.difference == pytest.approx(other.mean() - one.mean())
        assert found.high - found.low == pytest.approx(2 * spread * width)
        assert found.users == (len(one), len(other))
        if first_excluded is None and abs(found.difference) > spread * width:
            first_excluded = n
        assert found.decided_after == first_excluded


def test_looking_after_every_user_rarely_finds_a_difference_that_is_not_there() -> None:
    """At most 5% of the experiments without a difference may ever be decided."""
    rng, runs = np.random.default_rng(2), 2000 if FULL else 200
    wrong = sum(compare(*simulated(rng, 2000)).decided_after is not None for _ in range(runs))
    assert wrong / runs <= 0.05


def test_a_small_arm_in_which_nobody_has_accepted_yet_decides_nothing() -> None:
    """Its variance is estimated as 0; with it, a fifth of these experiments would be decided."""
    rng, runs, wrong = np.random.default_rng(4), 1000 if FULL else 200, 0
    for _ in range(runs):
        second = rng.random(2000) < 0.1
        wrong += compare((rng.random(2000) < 0.02).astype(float), second).decided_after is not None
    assert wrong / runs <= 0.05


def test_a_difference_is_found_and_has_the_right_sign() -> None:
    rng = np.random.default_rng(3)
    for effect in (0.1, -0.1):
        values, second = simulated(rng, 20_000, effect)
        found = compare(values, second)
        assert found.second_is_better is (effect > 0)
        assert found.decided_after is not None
        assert LEAST_USERS < found.decided_after < 20_000
        true = float(np.mean(values[second]) - np.mean(values[~second]))
        assert found.low < true < found.high


@pytest.mark.parametrize("users", [0, 1, 30])
def test_few_users_decide_nothing(users: int) -> None:
    second = np.arange(users) % 2 == 1
    found = compare(second.astype(np.float64), second)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.decided_after is None
    assert sum(found.users) == users


def test_users_who_are_all_alike_decide_nothing() -> None:
    second = np.arange(1000) % 2 == 1
    assert compare(np.zeros(1000), second).decided_after is None
