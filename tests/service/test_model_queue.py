"""The queue of the model is bounded, shares passes, drops who has left, and notices a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from support import tiny

from genrec.service.worker import ClosedError, FullError, Job, LateError, Worker


class Gate:
    """Work that waits until it may go on, and remembers its passes."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.began = threading.Event()
        self.passes: list[list[Any]] = []

    def run(self, given: Sequence[Any]) -> Sequence[Any]:
        self.passes.append(list(given))
        self.began.set()
        assert self.open.wait(20)
        return [value * 10 for value in given]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def make(gate: Gate) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def build(**given: Any) -> Worker:
        made.append(Worker(**given))
        return made[-1]

    yield build
    gate.open.set()
    for worker in made:
        assert worker.close(20)


def test_jobs_that_fit_share_a_pass(make: Callable[..., Worker], gate: Gate) -> None:
    worker = make(size=20, most_shared=3)
    first = worker.submit(Job(gate.run, 0, "a"))
    assert gate.began.wait(20)
    keys = ["a", "b", "a", None, "a", "a", None]
    futures = [worker.submit(Job(gate.run, n, key)) for n, key in enumerate(keys, 1)]
    gate.open.set()
    assert [f.result(20) for f in [first, *futures]] == [n * 10 for n in range(8)]
    assert gate.passes == [[0], [1, 3, 5], [2], [4], [6], [7]]
    assert (worker.tally.passes, worker.tally.answered, worker.tally.shared) == (6, 8, 1)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    make: Callable[..., Worker], gate: Gate
) -> None:
    worker = make(size=2)
    running = worker.submit(Job(gate.run, 0))
    assert gate.began.wait(20)
    waiting = [worker.submit(Job(gate.run, n)) for n in (1, 2)]
    with pytest.raises(FullError) as refused:
        worker.submit(Job(gate.run, 3))
    assert refused.value.seconds >= 1
    assert waiting[0].cancel()  # the client has left, and its place is free at once
    assert worker.waiting == 1
    last = worker.submit(Job(gate.run, 4))
    gate.open.set()
    assert [f.result(20) for f in (running, waiting[1], last)] == [0, 20, 40]
    assert worker.tally.left == 1
    assert [1] not in gate.passes


def test_a_late_job_is_not_run(make: Callable[..., Worker], gate: Gate) -> None:
    worker = make()
    worker.submit(Job(gate.run, 0))
    assert gate.began.wait(20)
    late = worker.submit(Job(gate.run, 1, deadline=time.monotonic()))
    good = worker.submit(Job(gate.run, 2, deadline=time.monotonic() + 20))
    gate.open.set()
    assert good.result(20) == 20
    with pytest.raises(LateError):
        late.result(20)
    assert [1] not in gate.passes
    assert worker.tally.late == 1


def test_an_error_is_that_of_its_jobs_only(make: Callable[..., Worker], gate: Gate) -> None:
    gate.open.set()

    def fail(given: Sequence[Any]) -> Sequence[Any]:
        if given[0] == "all":
            raise ZeroDivisionError
        return [ValueError(v) if v == "bad" else v for v in given]

    worker = make()
    with pytest.raises(ZeroDivisionError):
        worker.submit(Job(fail, "all")).result(20)
    with pytest.raises(ValueError, match="bad"):
        worker.submit(Job(fail, "bad")).result(20)
    assert worker.submit(Job(fail, "good")).result(20) == "good"
    assert not worker.problem()


def test_a_hanging_job_is_noticed_while_it_hangs(make: Callable[..., Worker], gate: Gate) -> None:
    worker = make(hangs_after=0.05)
    job = worker.submit(Job(gate.run, 1))
    assert gate.began.wait(20)
    until = time.monotonic() + 20
    while not worker.problem() and time.monotonic() < until:
        time.sleep(0.01)
    assert "has been running for" in worker.problem()
    gate.open.set()
    assert job.result(20) == 10
    while worker.problem() and time.monotonic() < until:
        time.sleep(0.01)
    assert worker.problem() == ""


def test_closing_answers_what_was_accepted(make: Callable[..., Worker], gate: Gate) -> None:
    worker = make()
    futures = [worker.submit(Job(gate.run, n)) for n in range(4)]
    assert gate.began.wait(20)
    assert not worker.close(0.01)
    with pytest.raises(ClosedError):
        worker.submit(Job(gate.run, 9))
    gate.open.set()
    assert worker.close(20)
    assert [f.result(0) for f in futures] == [0, 10, 20, 30]


class Passes:
    """Work with passes that can be stopped, which goes on until it is stopped or told to end."""

    def __init__(self) -> None:
        self.model = tiny.language_model()
        self.began, self.end = threading.Event(), threading.Event()

    def run(self, given: Sequence[Any]) -> Sequence[Any]:
        while not self.end.is_set():
            try:
                assert (
                    len(self.model.prefill([3, 4, 5]).root) == 1
                )  # which is read when it is needed
            except Exception:  # code that goes on after errors does not go on here
                continue
            self.began.set()
        return given


def test_a_pass_stops_when_nobody_waits_for_it(make: Callable[..., Worker]) -> None:
    worker, work = make(), Passes()
    one, other = Job(work.run, 1, "same"), Job(work.run, 2, "same")
    gate = Gate()
    worker.submit(Job(gate.run, 0))
    assert gate.began.wait(20)
    futures = [worker.submit(one), worker.submit(other)]
    gate.open.set()
    assert work.began.wait(20)
    worker.leave(one)
    work.began.clear()
    assert work.began.wait(20)  # the other one still waits
    worker.leave(other)
    for future in futures:
        with pytest.raises(LateError):
            future.result(20)
    assert worker.tally.stopped == 1
    late = worker.submit(Job(work.run, 3, deadline=time.monotonic() + 0.5))
    with pytest.raises(LateError):
        late.result(20)
    assert (worker.tally.stopped, worker.tally.late) in {(2, 0), (1, 1)}
    work.end.set()
    assert worker.submit(Job(work.run, 4)).result(20) == 4
    waiting = Job(work.run, 5)
    worker.leave(waiting)
    assert waiting.future.cancelled()


def test_clients_that_come_back_at_once_share_the_next_pass(make: Callable[..., Worker]) -> None:
    """Eight clients that ask one request after the other fill every pass but the first ones."""
    worker = make(size=20, most_shared=8)
    sizes: list[int] = []
    ended = threading.Event()

    def run(given: Sequence[Any]) -> Sequence[Any]:
        sizes.append(len(given))
        time.sleep(0.2)
        return given

    def ask() -> None:
        while not ended.is_set():
            worker.submit(Job(run, 0, "same")).result(20)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while not (full := sizes[-3:] == [8, 8, 8]) and time.monotonic() < until:
        time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    assert full, sizes  # without the wait, passes of one and of seven would alternate


HEARD: ContextVar[str] = ContextVar("HEARD", default="nobody")


def test_a_long_pass_lets_others_pass(make: Callable[..., Worker]) -> None:
    """Also a second long one; what the first has set for itself does not hold for the others."""
    worker, first, second = make(), Passes(), Passes()

    def hear(given: Sequence[Any]) -> Sequence[Any]:
        assert len(first.model.prefill([3]).root) == 1
        return [HEARD.get()]

    def run_first(given: Sequence[Any]) -> Sequence[Any]:
        token = HEARD.set("the first")
        answer = first.run(given)
        HEARD.reset(token)
        return answer

    one, two = worker.submit(Job(run_first, 1)), worker.submit(Job(second.run, 2))
    assert first.began.wait(20)
    assert worker.submit(Job(hear, 0)).result(20) == "nobody"
    assert second.began.wait(20)  # the second one was the older of the two that waited
    assert worker.submit(Job(hear, 0)).result(20) == "nobody"
    assert not one.done()
    assert not two.done()
    assert worker.tally.interrupted >= 2
    first.end.set()
    second.end.set()
    assert (one.result(20), two.result(20)) == (1, 2)
    assert worker.running == 0
