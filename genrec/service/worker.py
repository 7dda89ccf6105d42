"""Run requests on one thread behind a bounded queue, and let those that fit share a pass.

A model is used by one thread at a time. Each request waits in a queue of limited length, with a
deadline. The thread takes the oldest request together with others of the same kind. Between two passes, it
waits a moment for clients that ask again at once, if that has paid lately. A request whose
client has left is dropped from the queue, and a pass that nobody waits for stops before the model's
next forward pass. A pass that takes much longer than others lets the others pass between two forward
passes. This module knows nothing of HTTP or recommenders.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from genrec.models.stopping import StoppedError, stop_when

_PATIENCE = 0.25  # of the time of the last pass, which may be spent waiting for more jobs
_LONGEST_WAIT = 0.15  # seconds
_PAYS = 0.3  # the share of the latest waits that brought a job, from which on the thread waits
_LONG, _LONGER = 0.5, 4.0  # a pass is long after these seconds, and as many times the median pass
_LATEST = 20  # passes of which the median is taken
_DEEPEST = 4  # passes that may be interrupted at the same time
_TRIES_EVERY = 20  # passes after which it tries again to wait if that has not paid


class FullError(Exception):
    """Raised when the queue is full.

    Attributes:
        seconds: the estimated time until a place is free.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class LateError(Exception):
    """Raised when a request was not answered before its deadline."""


class ClosedError(Exception):
    """Raised when the worker takes no more requests because the service stops."""


@dataclass(eq=False, slots=True)
class Job:
    """A request in the queue.

    Attributes:
        run: a function that answers several jobs with the same key in one pass. It is called with
            the inputs of the jobs, and returns an answer or an exception for each of them.
        given: the input of this job.
        key: jobs with equal keys may share a pass; None if this job shares none.
        deadline: the time, by ``time.monotonic``, after which nobody waits for the answer.
        queued: the time at which the job was put into the queue; 0 before that.
        began: the time at which its pass began; 0 before that.
        ended: the time at which its pass ended; 0 before that.
        shared: the number of jobs in its pass.
        left: whether its client has left.
        future: receives the answer or an exception.
    """

    run: Callable[[Sequence[Any]], Sequence[Any]]
    given: Any
    key: Hashable | None = None
    deadline: float = float("inf")
    queued: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    shared: int = 0
    left: bool = False
    future: Future[Any] = field(default_factory=Future)


@dataclass(slots=True)
class Tally:
    """What the worker has done so far.

    Attributes:
        passes: the number of passes.
        answered: the number of jobs that these passes answered.
        shared: the number of passes with more than one job.
        interrupted: how often a long pass let another one pass.
        left: the number of jobs that were dropped because their client had left.
        stopped: the number of passes that were stopped because nobody waited for them any more.
        late: the number of jobs that were dropped because their deadline had passed.
        seconds: the total time of all passes.
        waited: the total time that answered jobs spent in the queue.
    """

    passes: int = 0
    answered: int = 0
    shared: int = 0
    interrupted: int = 0
    left: int = 0
    stopped: int = 0
    late: int = 0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class _Pass:
    """A pass that is running.

    Attributes:
        jobs: what it answers.
        began: the time when it began, by ``time.monotonic``, without the time of the passes inside it.
    """

    jobs: Sequence[Job]
    began: float


class Worker:
    """A thread that runs jobs one pass at a time.

    Attributes:
        tally: what it has done so far.
        size: the highest number of waiting jobs.
    """

    def __init__(
        self,
        *,
        size: int = 64,
        most_shared: int = 8,
        hangs_after: float = 120.0,
        watch: Callable[[int, float], None] = lambda jobs, seconds: None,
    ) -> None:
        """Start the thread.

        Args:
            size: the highest number of waiting jobs.
            most_shared: the highest number of jobs that share a pass.
            hangs_after: a pass that takes longer than this number of seconds counts as hanging.
            watch: a function that is called after each pass with its jobs and its seconds.
        """
        self.size, self.tally = size, Tally()
        self._most, self._hangs_after, self._watch = most_shared, hangs_after, watch
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._began: float | None = None
        self._seconds: deque[float] = deque(maxlen=_LATEST)  # of the latest passes
        self._depth = 0  # passes that are interrupted at the moment
        self._pass = 0.1  # seconds that a job takes, as an average that follows the latest ones
        self._ended, self._patience = (
            0.0,
            0.0,
        )  # when the last pass ended, and how long to wait after it
        self._company = 0  # jobs of the last pass, and those that waited at its end
        self._paid = (
            1.0  # the share of waits that brought a job, as an average that follows the latest
        )
        self._thread = threading.Thread(target=self._work, name="genrec-model", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """Put a job into the queue.

        Returns:
            A future. If it is cancelled, the job leaves the queue at once.

        Raises:
            FullError: the queue is full.
            ClosedError: the worker is closed.
        """
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._queue) >= self.size:
                raise FullError(max(1.0, self._pass * len(self._queue)))
            job.queued = time.monotonic()
            self._queue.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._leave(job))
        return job.future

    def leave(self, job: Job) -> None:
        """Say that nobody waits for a job any more.

        If it is still in the queue, it leaves the queue. If it runs, its pass stops as soon as nobody
        waits for any of its jobs.
        """
        job.left = True
        job.future.cancel()

    def _leave(self, job: Job) -> None:
        """Free the place of a job whose future was cancelled."""
        if job.future.cancelled():
            with self._changed:
                if job in self._queue:
                    self._queue.remove(job)
                    self.tally.left += 1

    @property
    def waiting(self) -> int:
        """The number of jobs in the queue."""
        return len(self._queue)

    @property
    def running(self) -> float:
        """The number of seconds for which the current pass has been running; 0 if there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def problem(self) -> str:
        """Say what is wrong with the thread, or return an empty string. This never waits."""
        if not self._thread.is_alive() and not self._closed:
            return "the thread of the model has ended"
        seconds = self.running
        if seconds > self._hangs_after:
            return f"a request has been running for {seconds:.0f} seconds"
        return ""

    def close(self, timeout: float | None = None) -> bool:
        """Take no more jobs, and wait until the others have been answered.

        Args:
            timeout: the number of seconds to wait; None to wait as long as it takes.

        Returns:
            True if all jobs have been answered.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                self._wait_for_company()
                jobs = self._take()
                if jobs:
                    self._began = time.monotonic()
            if jobs:
                self._run(jobs)

    def _wait_for_company(self) -> None:
        """Wait a moment for jobs that can share the next pass.

        Clients that ask one request after the other come back just after a pass. If the next one began
        without them, they would share the one after it, and passes would stay half full.
        """
        left = self._ended + self._patience - time.monotonic()
        wanted = min(self._most, self._company)
        before = self._fitting()
        if left <= 0 or not 0 < before < wanted:
            return
        if self._paid < _PAYS and self.tally.passes % _TRIES_EVERY:
            return
        self._changed.wait_for(lambda: self._closed or not 0 < self._fitting() < wanted, left)
        self._paid += 0.2 * ((self._fitting() > before) - self._paid)

    def _fitting(self) -> int:
        """Return how many jobs can share a pass with the oldest one; 0 if that shares none."""
        if not self._queue or self._queue[0].key is None:
            return 0
        return sum(job.key == self._queue[0].key for job in self._queue)

    def _take(self) -> list[Job]:
        """Remove the oldest job from the queue, and all others that can share its pass."""
        taken: list[Job] = []
        rest: deque[Job] = deque()
        now = time.monotonic()
        while self._queue:
            job = self._queue.popleft()
            if job.deadline <= now:
                self.tally.late += 1
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(LateError())
                continue
            fits = not taken or (job.key is not None and job.key == taken[0].key)
            if not (fits and len(taken) < self._most):
                rest.append(job)
            elif job.future.set_running_or_notify_cancel():
                taken.append(job)
            else:
                self.tally.left += 1
        self._queue = rest
        return taken

    def _may_stop(self, running: _Pass) -> bool:
        """Return True if a pass should stop; if it is a long one, let others pass first.

        It is called before each forward pass of the model. All that a pass knows is its own, so another one
        can run in the middle of it.
        """
        if _abandoned(running.jobs):
            return True
        now = time.monotonic()
        long = _LONGER * statistics.median(self._seconds) if self._seconds else 0.0
        if self._queue and self._depth < _DEEPEST and now - running.began > max(_LONG, long):
            with self._changed:
                jobs = self._take()
            if jobs:
                self._depth += 1
                self.tally.interrupted += 1
                Context().run(self._run, jobs)  # without what the long pass has set for itself
                self._depth -= 1
            running.began += time.monotonic() - now
            self._began = running.began
        return False

    def _run(self, jobs: list[Job]) -> None:
        began = time.monotonic()
        for job in jobs:
            job.began, job.shared = began, len(jobs)
        answers: Sequence[Any]
        running = _Pass(jobs, began)
        self._began = began
        try:
            with stop_when(lambda: self._may_stop(running)):
                answers = jobs[0].run([job.given for job in jobs])
        except StoppedError:
            self.tally.stopped += 1
            answers = [LateError()] * len(jobs)
        except BaseException as error:
            answers = [error] * len(jobs)
        ended = time.monotonic()
        seconds = ended - running.began
        self._began = None
        self._seconds.append(seconds)
        self._ended, self._patience = ended, min(_PATIENCE * seconds, _LONGEST_WAIT)
        self._company = len(jobs) + len(self._queue)
        tally = self.tally
        tally.passes += 1
        tally.shared += len(jobs) > 1
        tally.answered += len(jobs)
        tally.seconds += seconds
        tally.waited += sum(began - job.queued for job in jobs)
        self._pass += 0.2 * (seconds / len(jobs) - self._pass)
        for job, answer in zip(jobs, answers, strict=True):
            job.ended = ended
            if isinstance(answer, BaseException):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
        self._watch(len(jobs), seconds)


def _abandoned(jobs: Sequence[Job]) -> bool:
    """Return True if nobody waits for any of these jobs."""
    now = time.monotonic()
    return all(job.left or job.deadline <= now for job in jobs)
