"""Measure the service over HTTP on this machine: overhead, shared passes, and behavior under load.

python -m benchmarks.speed.service                      # a tiny random model, all parts
python -m benchmarks.speed.service --model smollm2-135m --seconds 60 --parts shared load

overhead  requests for a list alternate with requests to /livez, which does nothing, and with the same lists made
          by the library in this process. Lists are made by counting, so that they are short. The overhead is the
          processor time of the service for a list without that of the other two, which is also meaningful on a
          busy machine.
shared    two services, of which one lets eight requests share a pass and one lets each run alone, answer
          eight clients in turn.
workers   two services, one of one process and one with two workers, answer eight clients in turn with lists made by
          counting, and then store events.
load      requests arrive at random times at .5, .7 and 2 times the rate of the shared service above.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from benchmarks.common import ROOT, commit
from genrec.data.datasets import load as load_dataset
from genrec.recommender import Recommender

PARTS = ("overhead", "shared", "load", "workers")
CLIENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a model to use instead of a tiny random one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--requests", type=int, default=300, help="requests to measure the overhead"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that compare shared passes")
    arguments = parser.parse_args()
    print(f"commit {commit()}, {arguments}")
    dataset = load_dataset("online_retail_demo")
    users = dataset.interactions.user_ids
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        dataset.save(work / "shop")
        model = arguments.model or str(make_tiny(work / "model"))
        if "overhead" in arguments.parts:
            recommender = Recommender(
                dataset, model, encoder="ngrams", model_role="explain", threads=1, dtype="float32"
            )
            with service(work, model, "--model-role", "explain") as served:
                measure_overhead(served, users, arguments.requests, recommender)
        if "workers" in arguments.parts:
            counting = ("--model-role", "explain", "--prior", "collaborative")
            with (
                service(work, model, *counting) as one,
                service(work, model, *counting, "--workers", "2") as several,
            ):
                asyncio.run(compare_workers(one, several, users, arguments))
        if not {"shared", "load"} & set(arguments.parts):
            return
        fused = ("--model-role", "fuse", "--prior", "collaborative")
        with (
            service(work, model, *fused, "--share", str(CLIENTS)) as together,
            service(work, model, *fused, "--share", "1") as alone,
        ):
            rate = asyncio.run(compare_shared(together, alone, users, arguments))
            if "load" in arguments.parts:
                for share in (0.5, 0.7, 2.0):
                    asyncio.run(arrive(together.url, users, share, share * rate, arguments.seconds))


def make_tiny(folder: Path) -> Path:
    """Save a random Llama model with two small layers and the tokenizer of the default model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from genrec.models.packaged import PACKAGED

    source = PACKAGED["smollm2-135m"].path
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_NUMBER = itertools.count()


@dataclass(frozen=True, slots=True)
class Served:
    """The address and the process of a service."""

    url: str
    pid: int

    def used(self) -> float:
        """Return the processor time that all processes of the service have used, in seconds."""
        return sum(self.used_each())

    def used_each(self) -> list[float]:
        """Return the processor time of each process: the first one, and those that it started."""
        parent = psutil.Process(self.pid)
        times = [p.cpu_times() for p in [parent, *parent.children()]]
        return [float(t.user + t.system) for t in times]


@contextmanager
def service(work: Path, model: str, *arguments: str) -> Iterator[Served]:
    """Serve a copy of the shop until the block ends."""
    shop = work / f"shop-{next(_NUMBER)}"
    shutil.copytree(work / "shop", shop)
    with serve_folder(shop, work / "log", model, *arguments) as served:
        yield served


@contextmanager
def serve_folder(shop: Path, log: Path, model: str, *arguments: str) -> Iterator[Served]:
    """Serve a dataset folder until the block ends, and append what it says to a log."""
    command = [
        sys.executable, "-m", "genrec", "serve", str(shop), "--port", "0", "--model", model,
        "--threads", "1", "--encoder", "ngrams", *arguments,
    ]  # fmt: skip
    with (
        log.open("a") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+:\d+", process.stdout.readline())
            if found is None:
                raise SystemExit(log.read_text())
            yield Served(found[0], process.pid)
        finally:
            process.terminate()
            process.wait(60)


def body(user: str) -> dict[str, Any]:
    return {"user_id": user, "k": 10, "fallback": False}


def event_of(user: str) -> dict[str, Any]:
    return {"user_id": user, "item_id": "22720", "behavior": "view"}


def metric(text: str, name: str) -> float:
    """Read a value from Prometheus's text format."""
    return float(re.findall(rf"^{name} (\S+)$", text, re.M)[0])


def passes(url: str) -> float:
    """Return the number of passes of a service's model so far."""
    return metric(httpx2.get(f"{url}/metrics", timeout=60).text, "genrec_passes_total")


def measure_overhead(
    served: Served, users: Sequence[str], requests: int, recommender: Recommender
) -> None:
    """Alternate between lists, an endpoint that does nothing, and the same lists in this process."""
    lists, empty, passes = [], [], []
    spent = {"list": 0.0, "empty": 0.0, "library": 0.0}
    with httpx2.Client(base_url=served.url) as client:
        for number in range(20):  # the first requests fill caches
            client.post("/v1/recommend", json=body(users[number])).raise_for_status()
            recommender.recommend(recommender.history(users[number]), 10)
        for block in range(0, requests, 20):
            some = [users[n % 200] for n in range(block, block + 20)]
            seconds, cpu = (
                metric(client.get("/metrics").text, "genrec_pass_seconds_sum"),
                served.used(),
            )
            for user in some:
                began = time.perf_counter()
                client.post("/v1/recommend", json=body(user)).raise_for_status()
                lists.append(time.perf_counter() - began)
            spent["list"] += served.used() - cpu
            total = metric(client.get("/metrics").text, "genrec_pass_seconds_sum") - seconds
            passes.append(total / 20)
            cpu = served.used()
            for _ in some:
                began = time.perf_counter()
                client.get("/livez").raise_for_status()
                empty.append(time.perf_counter() - began)
            spent["empty"] += served.used() - cpu
            began = time.process_time()
            for user in some:
                recommender.recommend(recommender.history(user), 10).to_dict()
            spent["library"] += time.process_time() - began
    print(f"overhead, {requests} requests, elapsed milliseconds: median, p95, p99")
    for name, values in (("list", lists), ("empty", empty), ("mean pass", passes)):
        print(f"  {name:10} {describe(values)}")
    each = {name: 1000 * value / requests for name, value in spent.items()}
    own = each["list"] - each["empty"] - each["library"]
    named = ", ".join(f"{name} {value:.2f}" for name, value in each.items())
    print(f"  processor milliseconds each: {named}; overhead {own:.2f}")


def describe(seconds: Sequence[float]) -> str:
    """Return the median, the 95th and the 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return " ".join(f"{1000 * cuts[p - 1]:9.2f}" for p in (50, 95, 99))


async def compare_workers(
    one: Served, several: Served, users: Sequence[str], arguments: argparse.Namespace
) -> None:
    """Let clients ask both services in turn, and compare rates and processor time."""
    for name, path in (("lists", "/v1/recommend"), ("events", "/v1/feedback")):
        for served in (one, several):
            await saturate(served.url, users, 2.0, path)
        for number in range(arguments.rounds):
            for title, served in (("one process", one), ("two workers", several)):
                before = served.used_each()
                rate = await saturate(served.url, users, arguments.seconds, path)
                answered = rate * arguments.seconds + CLIENTS
                spent = [
                    1000 * (b - a) / answered
                    for a, b in zip(before, served.used_each(), strict=True)
                ]
                each = ", ".join(f"{s:.2f}" for s in spent)
                print(
                    f"workers, round {number + 1}, {name}, {title}: {rate:.1f}/s, processor milliseconds each "
                    f"{sum(spent):.2f} (by process: {each})",
                    flush=True,
                )


async def compare_shared(
    together: Served, alone: Served, users: Sequence[str], arguments: argparse.Namespace
) -> float:
    """Let clients ask both services in turn, and return the best rate of the first one."""
    rates: dict[Served, list[float]] = {together: [], alone: []}
    costs: dict[Served, list[float]] = {together: [], alone: []}
    sizes: dict[Served, list[float]] = {together: [], alone: []}
    for served in rates:
        await saturate(served.url, users, 3.0)
    for _ in range(arguments.rounds):
        for served in rates:
            before, counted = served.used(), passes(served.url)
            rate = await saturate(served.url, users, arguments.seconds)
            sizes[served].append(rate * arguments.seconds / (passes(served.url) - counted))
            rates[served].append(rate)
            costs[served].append((served.used() - before) / (rate * arguments.seconds + CLIENTS))
    print(
        f"shared passes, {CLIENTS} clients, lists/s and processor milliseconds per list, by round"
    )
    for name, served in (("together", together), ("alone", alone)):
        said = (
            f"{r:.2f}/s {1000 * c:.0f} ms"
            for r, c in zip(rates[served], costs[served], strict=True)
        )
        print(f"  {name:9} {', '.join(said)}")
    print(f"  lists per pass together: {', '.join(f'{size:.1f}' for size in sizes[together])}")
    by_rate = [a / b for a, b in zip(rates[together], rates[alone], strict=True)]
    by_cost = [b / a for a, b in zip(costs[together], costs[alone], strict=True)]
    print(
        f"  lists/s {describe_ratios(by_rate)}; lists per processor second {describe_ratios(by_cost)}"
    )
    return max(rates[together])


def describe_ratios(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} times ({', '.join(f'{r:.2f}' for r in ratios)})"


async def saturate(
    url: str, users: Sequence[str], seconds: float, path: str = "/v1/recommend"
) -> float:
    """Let clients ask one request after the other, and return the answers per second."""
    answered = 0
    end = time.perf_counter() + seconds

    async def ask(client: httpx2.AsyncClient, number: int) -> None:
        nonlocal answered
        for user in itertools.cycle(users[number::CLIENTS]):
            sent = body(user) if path == "/v1/recommend" else event_of(user)
            answer = await client.post(path, json=sent, timeout=120)
            answer.raise_for_status()
            if time.perf_counter() > end:
                return
            answered += 1

    async with httpx2.AsyncClient(base_url=url) as client:
        await asyncio.gather(*(ask(client, number) for number in range(CLIENTS)))
    return answered / seconds


async def arrive(url: str, users: Sequence[str], share: float, rate: float, seconds: float) -> None:
    """Send requests at random times with a given mean rate, and print how they were answered."""
    random_, times, statuses = random.Random(0), [], Counter[int]()

    async def ask(client: httpx2.AsyncClient, user: str) -> None:
        began = time.perf_counter()
        answer = await client.post("/v1/recommend", json=body(user), timeout=120)
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            times.append(time.perf_counter() - began)

    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, limits=limits) as client:
        began, tasks = time.perf_counter(), []
        due = began
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(client, random_.choice(users))))
            due += random_.expovariate(rate)
        await asyncio.gather(*tasks)
        spent = time.perf_counter() - began
    print(
        f"load {share:.1f} of saturation ({rate:.2f}/s): median, p95, p99 {describe(times)} ms; answers "
        f"{dict(statuses)}; {statuses[200] / spent:.2f} lists/s"
    )


if __name__ == "__main__":
    main()
