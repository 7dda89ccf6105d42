"""Compute the shards of a batch in several processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from genrec.batch.job import Job
from genrec.batch.plan import ATTEMPTS, LESS_MEMORY, BatchError, Plan, as_error
from genrec.errors import GenrecError

_PAUSE = 0.5  # seconds between looks at the queue, so that an interruption is noticed


def run_processes(plan: Plan, workers: int) -> None:
    """Compute the shards that are left in several processes.

    Raises:
        GenrecError: a process reported an error, or ended too often.
    """
    todo: queue.Queue[int] = queue.Queue()
    for shard in plan.left:
        todo.put(shard)
    said: queue.Queue[tuple[int, dict[str, int], float] | GenrecError] = queue.Queue()
    fleet = _Fleet(plan, workers, todo, said)
    with fleet.running():
        for _ in plan.left:
            while True:
                with contextlib.suppress(queue.Empty):
                    news = said.get(timeout=_PAUSE)
                    break
            if isinstance(news, GenrecError):
                raise news
            plan.finish(*news)


class _Fleet:
    """Processes that compute shards, each fed by a thread of this process."""

    def __init__(
        self,
        plan: Plan,
        workers: int,
        todo: queue.Queue[int],
        said: queue.Queue[tuple[int, dict[str, int], float] | GenrecError],
    ) -> None:
        self._plan, self._workers, self._todo, self._said = plan, workers, todo, said
        self._stopping = threading.Event()
        self._processes: set[subprocess.Popen[str]] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for process in list(self._processes):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            for thread in threads:
                thread.join()

    def _feed(self) -> None:
        """Give shards to one process, and start another one when it ends."""
        process = None
        try:
            while not self._stopping.is_set():
                try:
                    shard = self._todo.get_nowait()
                except queue.Empty:
                    return
                for attempt in range(1, ATTEMPTS + 1):
                    if process is None:
                        process = self._start()
                    start = time.monotonic()
                    answer = _ask(process, shard)
                    if answer is not None:
                        break
                    status = self._end(process)
                    process = None
                    if self._stopping.is_set():
                        return
                    if attempt == ATTEMPTS:
                        self._said.put(_explain_end(self._plan.job, shard, status))
                        return
                assert answer is not None
                if "error" in answer:
                    self._said.put(as_error(answer))
                    return
                self._said.put((shard, answer["counts"], time.monotonic() - start))
        except OSError as error:
            self._said.put(BatchError(f"A process could not be started: {error}."))
        finally:
            if process is not None:
                self._end(process)

    def _end(self, process: subprocess.Popen[str]) -> int:
        """Let a process end, and return its exit status."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        status = process.wait()
        process.stdout.close()
        self._processes.discard(process)
        return status

    def _start(self) -> subprocess.Popen[str]:
        threads = self._plan.job.loading.get("threads") or max(1, _cores() // self._workers)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            [sys.executable, "-m", "genrec.batch.worker", str(self._plan.folder), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, encoding="utf-8",
        )  # fmt: skip
        self._processes.add(process)
        return process


def _ask(process: subprocess.Popen[str], shard: int) -> dict[str, Any] | None:
    """Ask a process to compute a shard; return its answer, or None if it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{shard}\n")
        process.stdin.flush()
    except OSError:
        return None
    line = process.stdout.readline()
    if not line.endswith("\n"):
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


def _explain_end(job: Job, shard: int, status: int) -> BatchError:
    first = shard * job.shard_size + 1
    how = f"with exit status {status}"
    advice = "The messages above say more."
    if status < 0:
        how = f"by signal {signal.Signals(-status).name}"
    if status == -signal.SIGKILL:
        advice = f"This is what the operating system does when memory runs out. {LESS_MEMORY}"
    msg = (
        f"Shard {shard}, which begins with row {first:,}, could not be computed: its process ended {ATTEMPTS} "
        f"times, the last time {how}. {advice} Finished shards are kept; the same command continues."
    )
    return BatchError(msg)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
