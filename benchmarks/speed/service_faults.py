"""Disturb the service for a long time over HTTP, and check what it still promises.

python -m benchmarks.speed.service_faults                      # a tiny random model, all parts at the counts asked
python -m benchmarks.speed.service_faults --parts fresh --serve="--workers 2"

catalog   eight items are added and removed in turn, ten changes a second, while four clients ask for lists of these
          items. An item that was removed before a request began must not be in its list, and one that was
          added before must be.
memory    resident memory of all processes, over requests for lists of all users in turn.
fresh     the time from sending an event until its user's changed list has arrived, beside the time of the model's
          thread for that list; and again after kill -9 and a restart on the same store.
poison    the time of ordinary requests, with and without another client that asks for explained lists of 1,000
          items for the longest history.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

from benchmarks.common import commit
from benchmarks.speed.service import Served, describe, make_tiny, metric, serve_folder
from genrec.data.datasets import load as load_dataset

PARTS = ("catalog", "memory", "fresh", "poison")
COUNTING = ("--model-role", "explain", "--prior", "collaborative")
MODEL = ("--model-role", "fuse", "--prior", "collaborative")
CHANGED = 8  # items that come and go


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a model to use instead of a tiny random one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--changes", type=int, default=5000, help="requests while items change")
    parser.add_argument("--requests", type=int, default=10_000, help="requests to measure memory")
    parser.add_argument("--events", type=int, default=100, help="events to measure freshness")
    parser.add_argument("--seconds", type=float, default=30.0, help="each half of poison")
    parser.add_argument("--serve", default="", help='more options, such as --serve="--workers 2"')
    arguments = parser.parse_args()
    print(f"commit {commit()}, {arguments}", flush=True)
    dataset = load_dataset("online_retail_demo")
    users = dataset.interactions.user_ids
    more = shlex.split(arguments.serve)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        dataset.save(work / "shop")
        model = arguments.model or str(make_tiny(work / "model"))

        @contextmanager
        def served(*options: str) -> Iterator[Served]:
            shutil.rmtree(work / "served", ignore_errors=True)
            shutil.copytree(work / "shop", work / "served")
            with serve_folder(work / "served", work / "log", model, *options, *more) as found:
                yield found

        if "catalog" in arguments.parts:
            with served(*COUNTING) as found:
                change_items(found, arguments.changes)
        if "memory" in arguments.parts:
            with served(*MODEL) as found:
                watch_memory(found, users, arguments.requests)
        if "fresh" in arguments.parts:
            with served(*MODEL) as found:
                measure_fresh(found, users, arguments.events, "fresh")
                for process in family(found):
                    process.send_signal(signal.SIGKILL)
            with serve_folder(work / "served", work / "log", model, *MODEL, *more) as found:
                measure_fresh(found, users[::-1], arguments.events, "fresh after kill -9")
        if "poison" in arguments.parts:
            longest = max(users, key=lambda u: len(dataset.interactions.history(u)))
            with served(*MODEL) as found:
                poison(found, users, longest, arguments.seconds)


def family(found: Served) -> list[psutil.Process]:
    """The processes of a service."""
    parent = psutil.Process(found.pid)
    return [parent, *parent.children(recursive=True)]


def list_of(client: httpx2.Client, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    answer.raise_for_status()
    return answer.json()


def in_threads(number: int, run: Callable[[int], None]) -> None:
    """Run a function in several threads, and raise the first error of one of them."""
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            run(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def change_items(found: Served, requests: int) -> None:
    """Add and remove items while clients ask for them, and count the lists that are wrong."""
    names = [f"thing-{n}" for n in range(CHANGED)]
    known: dict[str, tuple[int, bool]] = {}
    stop, wrong, checked, changes = threading.Event(), Counter[str](), Counter[str](), 0
    began = time.perf_counter()

    def edit(client: httpx2.Client, number: int) -> None:
        name, there = names[number % CHANGED], number % (2 * CHANGED) < CHANGED
        known.pop(name, None)  # from here to the acknowledgement, either answer is right
        if there:
            answer = client.put(f"/v1/items/{name}", json={"title": f"new thing {number}"})
        else:
            answer = client.delete(f"/v1/items/{name}")
        answer.raise_for_status()
        known[name] = number, there

    def edit_on() -> None:
        nonlocal changes
        with httpx2.Client(base_url=found.url, timeout=120) as client:
            for number in itertools.count(CHANGED):
                due = began + 0.1 * changes
                if stop.wait(max(0.0, due - time.perf_counter())):
                    return
                edit(client, number)
                changes += 1

    def ask(_: int) -> None:
        with httpx2.Client(base_url=found.url, timeout=120) as client:
            for _ in range(requests // 4):
                before = dict(known)
                allowed = [*names, "22720"]
                answer = list_of(client, history="", k=20, allow=allowed, show="all", per_group=0)
                listed = {r["item_id"] for r in answer["recommendations"]}
                after = dict(known)
                for name, state in before.items():
                    if after.get(name) == state:
                        kind = "added" if state[1] else "removed"
                        checked[kind] += 1
                        wrong[kind] += state[1] != (name in listed)

    with httpx2.Client(base_url=found.url, timeout=120) as client:
        for number in range(CHANGED):
            edit(client, number)
    editor = threading.Thread(target=edit_on)
    editor.start()
    try:
        in_threads(4, ask)
    finally:
        stop.set()
        editor.join()
    seconds = time.perf_counter() - began
    print(
        f"catalog: {requests} lists and {changes} changes in {seconds:.0f} s ({changes / seconds:.1f}/s); "
        f"checked {dict(checked)}, wrong {dict(wrong)}",
        flush=True,
    )


def watch_memory(found: Served, users: Sequence[str], requests: int) -> None:
    """Print the resident memory after each tenth of the requests."""
    sizes = []
    with httpx2.Client(base_url=found.url, timeout=120) as client:
        for number, user in enumerate(itertools.islice(itertools.cycle(users), requests)):
            if number % (requests // 10) == 0:
                sizes.append(sum(p.memory_info().rss for p in family(found)) / 1e6)
            list_of(client, user_id=user, k=10)
        sizes.append(sum(p.memory_info().rss for p in family(found)) / 1e6)
    described = ", ".join(f"{size:.0f}" for size in sizes)
    print(f"memory: MB before and after each tenth of {requests} lists: {described}", flush=True)


def measure_fresh(found: Served, users: Sequence[str], events: int, name: str) -> None:
    """Send events, and measure when the user's changed list has arrived."""
    times, beside, acknowledged, unchanged = [], [], [], 0
    with httpx2.Client(base_url=found.url, timeout=120) as client:
        for user in users[:events]:
            old = list_of(client, user_id=user, k=10, show="all")
            first = old["recommendations"][0]["item_id"]
            passes = metric(client.get("/metrics").text, "genrec_pass_seconds_sum")
            event = {"user_id": user, "item_id": first, "behavior": "buy"}
            began = time.perf_counter()
            client.post("/v1/feedback", json=event).raise_for_status()
            acknowledged.append(time.perf_counter() - began)
            new = list_of(client, user_id=user, k=10, show="all")
            times.append(time.perf_counter() - began)
            model = metric(client.get("/metrics").text, "genrec_pass_seconds_sum") - passes
            beside.append(times[-1] - model)
            unchanged += new["recommendations"] == old["recommendations"]
    print(f"{name}, {len(times)} events, elapsed milliseconds: median, p95, p99")
    for what, values in (
        ("acknowledged", acknowledged), ("changed list", times), ("beside the model", beside),
    ):  # fmt: skip
        print(f"  {what:17} {describe(values)}")
    print(f"  lists that did not change: {unchanged}", flush=True)


def poison(found: Served, users: Sequence[str], longest: str, seconds: float) -> None:
    """Measure ordinary requests alone, and beside one that is as expensive as possible."""
    heavy = {
        "user_id": longest, "k": 1000, "explain": True, "fallback": False, "show": "all",
        "deadline_ms": 30_000,
    }  # fmt: skip
    medians, tails = [], []
    for poisoned in (False, True):
        stop, statuses, times = threading.Event(), Counter[int](), list[float]()

        def disturb(stop: threading.Event = stop, statuses: Counter[int] = statuses) -> None:
            with httpx2.Client(base_url=found.url, timeout=120) as client:
                while not stop.is_set():
                    statuses[client.post("/v1/recommend", json=heavy).status_code] += 1

        disturber = threading.Thread(target=disturb)
        if poisoned:
            disturber.start()
        until = time.perf_counter() + seconds

        def ask(index: int, until: float = until, times: list[float] = times) -> None:
            with httpx2.Client(base_url=found.url, timeout=120) as client:
                for user in itertools.cycle(users[index::2]):
                    began = time.perf_counter()
                    if began > until:
                        return
                    list_of(client, user_id=user, k=10)
                    times.append(time.perf_counter() - began)

        in_threads(2, ask)
        stop.set()
        if poisoned:
            disturber.join()
        name = "beside a poisoned one" if poisoned else "alone"
        print(
            f"poison, {name}: median, p95, p99 {describe(times)} ms of {len(times)}; {dict(statuses)}"
        )
        medians.append(statistics.median(times))
        tails.append(statistics.quantiles(times, n=100, method="inclusive")[98])
    print(
        f"  p99 {tails[1] / tails[0]:.2f} times, median {medians[1] / medians[0]:.2f} times",
        flush=True,
    )


if __name__ == "__main__":
    main()
