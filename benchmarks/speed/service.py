"""Measure the service over HTTP on this machine: overhead, shared passes, and behavior under load.

python -m benchmarks.speed.service                      # a tiny random model, all parts
python -m benchmarks.speed.service --model smollm2-135m --seconds 60 --parts shared load

overhead  requests for a list alternate with requests to /livez, which does nothing. The overhead is the
          time of the former without its pass of the model and without the time of the latter. Lists are made by
          counting, so that the pass is short.
shared    two services, of which one lets eight requests share a pass and one lets each run alone, answer
          eight clients in turn.
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
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.common import ROOT, commit
from genrec.data.datasets import load as load_dataset

PARTS = ("overhead", "shared", "load")
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
            with service(work, model, "--model-role", "explain") as url:
                measure_overhead(url, users, arguments.requests)
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
                    asyncio.run(arrive(together, users, share, share * rate, arguments.seconds))


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


@contextmanager
def service(work: Path, model: str, *arguments: str) -> Iterator[str]:
    """Serve a copy of the shop until the block ends, and yield the address."""
    shop = work / f"shop-{next(_NUMBER)}"
    shutil.copytree(work / "shop", shop)
    command = [
        sys.executable, "-m", "genrec", "serve", str(shop), "--port", "0", "--model", model,
        "--threads", "1", "--encoder", "ngrams", *arguments,
    ]  # fmt: skip
    with (
        (work / "log").open("a") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+:\d+", process.stdout.readline())
            if found is None:
                raise SystemExit((work / "log").read_text())
            yield found[0]
        finally:
            process.terminate()
            process.wait(60)


def body(user: str) -> dict[str, Any]:
    return {"user_id": user, "k": 10, "fallback": False}


def metric(text: str, name: str) -> float:
    """Read a value from Prometheus's text format."""
    return float(re.findall(rf"^{name} (\S+)$", text, re.M)[0])


def measure_overhead(url: str, users: Sequence[str], requests: int) -> None:
    """Alternate between lists and an endpoint that does nothing."""
    lists, empty, passes = [], [], []
    with httpx2.Client(base_url=url) as client:
        for number in range(requests + 20):
            seconds = metric(client.get("/metrics").text, "genrec_pass_seconds_sum")
            began = time.perf_counter()
            client.post("/v1/recommend", json=body(users[number % 200])).raise_for_status()
            middle = time.perf_counter()
            client.get("/livez").raise_for_status()
            end = time.perf_counter()
            spent = metric(client.get("/metrics").text, "genrec_pass_seconds_sum") - seconds
            if number >= 20:  # the first requests fill caches
                lists.append(middle - began)
                empty.append(end - middle)
                passes.append(spent)
    own = [a - b - c for a, b, c in zip(lists, empty, passes, strict=True)]
    print(f"overhead, {requests} requests, milliseconds: median, p95, p99")
    for name, values in (
        ("list", lists),
        ("its pass", passes),
        ("empty", empty),
        ("overhead", own),
    ):
        print(f"  {name:10} {describe(values)}")


def describe(seconds: Sequence[float]) -> str:
    """Return the median, the 95th and the 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return " ".join(f"{1000 * cuts[p - 1]:9.2f}" for p in (50, 95, 99))


async def compare_shared(
    together: str, alone: str, users: Sequence[str], arguments: argparse.Namespace
) -> float:
    """Let clients ask both services in turn, and return the best rate of the first one."""
    rates: dict[str, list[float]] = {together: [], alone: []}
    for url in rates:
        await saturate(url, users, 3.0)
    for _ in range(arguments.rounds):
        for url, found in rates.items():
            found.append(await saturate(url, users, arguments.seconds))
    print(f"shared passes, {CLIENTS} clients, requests per second in each round")
    print(f"  together {' '.join(f'{r:.2f}' for r in rates[together])}")
    print(f"  alone    {' '.join(f'{r:.2f}' for r in rates[alone])}")
    ratios = [a / b for a, b in zip(rates[together], rates[alone], strict=True)]
    print(f"  ratio    {' '.join(f'{r:.2f}' for r in ratios)}")
    return max(rates[together])


async def saturate(url: str, users: Sequence[str], seconds: float) -> float:
    """Let clients ask one request after the other, and return the answers per second."""
    answered = 0
    end = time.perf_counter() + seconds

    async def ask(client: httpx2.AsyncClient, number: int) -> None:
        nonlocal answered
        for user in itertools.cycle(users[number::CLIENTS]):
            answer = await client.post("/v1/recommend", json=body(user), timeout=120)
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
