"""The time limit of a fit, with a clock that the tests set."""

from __future__ import annotations

import pytest

from genrec.fitting.budget import Budget, TimeUpError


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_step_goes_on_until_the_limit_has_passed_by_a_few_percent() -> None:
    clock, said = Clock(), list[str]()
    budget = Budget(1, clock)
    log = budget.watch(said.append)
    clock.seconds += 61
    log("one")
    assert budget.left == -1
    assert budget.seconds == 61
    clock.seconds += 5
    with pytest.raises(TimeUpError):
        log("two")
    with pytest.raises(TimeUpError):
        budget.check()
    assert said == ["one"]


def test_without_a_limit_nothing_is_stopped() -> None:
    clock = Clock()
    budget = Budget(None, clock)
    clock.seconds += 1e9
    budget.check()
    assert budget.left == float("inf")
