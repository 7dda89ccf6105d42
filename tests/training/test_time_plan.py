"""A run ends within its time limit and knows the time that is left, by a clock that its steps advance."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.tiny_runs import FEW, fresh, made

from genrec import Dataset
from genrec.data.splits import split_last_unit
from genrec.evaluation import tuning
from genrec.training import report, trainer
from genrec.training.checkpoints import Checkpoints
from genrec.training.hf_trainer import LossTrainer
from genrec.training.pointwise import PairValidation
from genrec.training.time_plan import Stopwatch, TimePlan
from genrec.training.validation import ListValidation


@dataclass
class Clock:
    """A clock that stands still unless a part of the run advances it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Costs:
    """The seconds that each part of a run takes."""

    loading: float = 20.0
    step: float = 2.0
    user: float = 1.0
    save: float = 1.5
    fit: float = 1.5
    first_step: float = 0.0
    write: float = 2.5


SLOW_USERS = Costs(user=4.4, fit=6.0)  # a busy computer on which training for 3 minutes took 7
SLOW_SAVES = Costs(save=12.0)
SLOW_STEPS = Costs(step=9.0)
ALL = [Costs(), SLOW_USERS, SLOW_SAVES, SLOW_STEPS, Costs(first_step=15.0)]


@contextmanager
def costing(clock: Clock, costs: Costs) -> Iterator[None]:
    """Let the real parts of a run advance the clock while the ``with`` block runs."""
    patch = pytest.MonkeyPatch()
    steps = []

    def advance(owner: Any, name: str, seconds: Any) -> None:
        first = getattr(owner, name)

        def call(subject: Any, *given: Any, **named: Any) -> Any:
            clock.now += seconds(*given)
            return first(subject, *given, **named)

        patch.setattr(owner, name, call)

    def of_step(*given: Any) -> float:
        steps.append(1)
        return costs.step + (costs.first_step if len(steps) == 1 else 0.0)

    advance(LossTrainer, "training_step", of_step)
    advance(ListValidation, "measure", lambda parts: parts * costs.user)
    advance(PairValidation, "measure", lambda parts: parts * costs.user)
    advance(Checkpoints, "save", lambda *given: costs.save)
    advance(tuning, "score_user", lambda *given: costs.fit)
    advance(report, "write", lambda *given: costs.write)
    try:
        yield
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return shop(20)


def shop(baskets: int) -> Dataset:
    made_up = made(baskets, users=30)
    events = split_last_unit(made_up.interactions, "buy")
    return replace(made_up, interactions=events, info=replace(made_up.info, split="last unit"))


def trained(
    data: Dataset, place: Path, costs: Costs, minutes: float | None, **settings: Any
) -> tuple[Any, float, list[dict[str, Any]]]:
    """Train with a clock, and return the run, the seconds that it took, and its log."""
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now += costs.loading
    options = FEW | {"eval_users": 20, "tune_users": 20, "log_steps": 1, "epochs": 50.0}
    options |= {"max_targets": None, "pack_tokens": 64, "max_minutes": minutes} | settings
    said: list[str] = []
    with costing(clock, costs):
        run = trainer.train(data, place, fresh(), stopwatch=watch, log=said.append, **options)
    lines = [json.loads(x) for x in (place / "log.jsonl").read_text().splitlines()]
    return run, clock.now, lines


def check_time_left(lines: list[dict[str, Any]], seconds: float) -> None:
    """Check the time left that was shown at a quarter, at half and at three quarters of the time."""
    for share in (0.25, 0.5, 0.75):
        line = min(lines, key=lambda s: abs(s["elapsed"] - share * seconds))
        truth = seconds - line["elapsed"]
        assert line["remaining"] == pytest.approx(truth, rel=0.25), (share, line, seconds)


@pytest.mark.parametrize("costs", ALL, ids=str)
def test_a_run_ends_in_time_and_knows_the_time_left(
    data: Dataset, tmp_path: Path, costs: Costs
) -> None:
    run, seconds, lines = trained(data, tmp_path / "run", costs, 3.0)
    assert not run.finished
    assert 0.85 * 180 < seconds <= 180
    assert run.metrics["tuned"]["users"] > 0
    steps = [line for line in lines if "validation" not in line]
    assert len(steps) * costs.step > 0.3 * (180 - costs.loading)  # most of the rest is training
    check_time_left(steps, seconds)


@pytest.mark.parametrize("minutes", [None, 20.0])
def test_a_run_that_is_done_before_the_limit_knows_the_time_left(
    data: Dataset, tmp_path: Path, minutes: float | None
) -> None:
    run, seconds, lines = trained(data, tmp_path / "run", Costs(), minutes, epochs=0.5)
    assert run.finished
    assert seconds < 0.9 * 1200
    check_time_left([line for line in lines if "validation" not in line], seconds)


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"objective": "pointwise"}, False),
        ({"eval_users": 0}, True),
        ({"tune_users": 0}, False),
        ({"fit": "both"}, False),
        ({"lora_rank": 0}, True),
    ],
    ids=str,
)
def test_every_kind_of_run_ends_in_time(
    data: Dataset, tmp_path: Path, settings: dict[str, Any], fits: bool
) -> None:
    if "objective" in settings:  # with few events, there are items that nobody had
        data = shop(6)
    run, seconds, _ = trained(data, tmp_path / "run", Costs(), 2.0, **settings)
    assert 0.8 * 120 < seconds <= 120
    assert ("tuned" in run.metrics) == fits


def test_a_resumed_run_has_the_whole_limit_again(data: Dataset, tmp_path: Path) -> None:
    first, _, _ = trained(data, tmp_path / "run", Costs(), 1.5)
    users = first.metrics["last"]["users"]
    again, seconds, _ = trained(data, tmp_path / "run", Costs(loading=30.0), 2.0, resume=True)
    assert again.targets > first.targets
    assert 0.75 * 120 < seconds <= 120
    assert again.metrics["last"]["users"] == users  # so that the best of all can be told


def test_time_that_is_up_before_the_first_step_is_not_spent_on_anything_else(
    data: Dataset, tmp_path: Path
) -> None:
    costs = Costs(loading=200.0)
    run, seconds, lines = trained(data, tmp_path / "run", costs, 3.0)
    assert len([x for x in lines if "validation" not in x]) == 1
    assert run.metrics["best"] is None
    assert run.metrics["not_tuned"] == "the time limit was reached"
    assert seconds <= costs.loading + costs.step + 2 * costs.save + costs.write


def test_without_a_limit_nothing_is_cut(data: Dataset, tmp_path: Path) -> None:
    run, _, lines = trained(data, tmp_path / "run", SLOW_USERS, None, epochs=0.3)
    assert run.finished
    assert {x["users"] for x in lines if "validation" in x} == {20}
    assert run.metrics["tuned"]["users"] == 20


def test_the_cost_of_a_validation_is_measured_once_on_a_few_users() -> None:
    clock = Clock()
    plan = TimePlan(Stopwatch(clock), 100.0)
    asked: list[int] = []

    def probe(parts: int) -> None:
        asked.append(parts)
        clock.now += parts

    plan.plan_validation(50, probe, None)
    assert asked == [2]
    assert 5 <= plan.parts <= 10
    for left, parts in ((20.0, 0), (math.inf, 50)):
        small = TimePlan(Stopwatch(clock), left if left < math.inf else None)
        small.plan_validation(50, probe, None)
        assert small.parts == parts
    assert asked == [2, 2]  # without a limit, there is nothing to measure
