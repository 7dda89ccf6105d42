"""Measure what `genrec batch` costs, whether its engines keep up, and whether kills lose anything.

    python -m benchmarks.speed.batch overhead --rounds 20 [--model tiny]
    python -m benchmarks.speed.batch engines --rows 400 [--model tiny]
    python -m benchmarks.speed.batch processor --model tiny --rows 1024 --shard-size 256
    python -m benchmarks.speed.batch many --rows 100000 --engine local --out DIR
    python -m benchmarks.speed.batch kills --rounds 2 --engine local

``overhead``: the recommender's own function for several histories and a shard of a batch, in turn, for the same random
sessions of items on one thread. The processor time of a shard includes making histories of its rows and writing its files. Reading the
input, which is done once for all shards, has a line of its own.
``engines``: one and two processes of ``local`` and of ``ray``, by the clock, without starting: rows and time after the
first shard of each worker. It needs a quiet machine, and both engines take turns. ``processor``: one worker of each engine, by the processor time
of all processes together: what five times as many rows take beyond a short batch, so that starting cancels out. ``many``: rows to the end, on the model
``tiny`` over the 60 items of zh_mini, or on the default model over the demo; it continues where it was stopped. ``kills``: a
worker, or with every other round the driver, is killed with signal 9 at a random time; afterwards all files must have
the bytes of a batch that was not interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import ROOT, commit
from genrec.batch import Job, run
from genrec.batch.plan import read_rows
from genrec.batch.shards import ShardWriter
from genrec.data.datasets import load

KEPT = ROOT / ".results" / "batch"
TINY = "tiny"
RUN = """
import json, sys
from genrec.batch import Job, run
run(Job.of(json.loads(sys.argv[1])), sys.argv[2], engine=sys.argv[3], workers=2)
"""
DATA = {TINY: "zh_mini"}  # the data of a model; others use the demo


def tiny_model() -> Path:
    """Make a model of two layers with the tokenizer of the default model, and keep it."""
    folder = KEPT / "tiny-model"
    if not (folder / "config.json").exists():
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        from genrec.models.packaged import ensure

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=49152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            tie_word_embeddings=True,
        )  # fmt: skip
        AutoTokenizer.from_pretrained(ensure("smollm2-135m")).save_pretrained(folder)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def sessions(path: Path, data: str, n: int, seed: int = 0) -> Path:
    """Write a file of random sessions of one to eight items."""
    rng = np.random.default_rng(seed)
    ids = np.array([item.item_id for item in load(data).catalog])
    lengths = rng.integers(1, 9, n)
    items = [ids[rng.integers(0, len(ids), k)].tolist() for k in lengths]
    pq.write_table(pa.table({"id": [f"s{i}" for i in range(n)], "items": items}), path)
    return path


def make_job(model: str, users: Path | None, shard_size: int, batch_size: int = 16) -> Job:
    return Job(
        data=DATA.get(model, "online_retail_demo"),
        users=None if users is None else str(users),
        model=str(tiny_model()) if model == TINY else model,
        loading={"threads": 1, "device": "cpu"},
        settings={"prior": "none"} if model == TINY else {"model_role": "fuse"},
        options={"k": 5 if model == TINY else 20}, shard_size=shard_size, batch_size=batch_size,
    )  # fmt: skip


def interval(ratios: Sequence[float]) -> str:
    """Return the geometric mean of ratios with an interval by bootstrap."""
    logs, rng = np.log(ratios), np.random.default_rng(0)
    means = [rng.choice(logs, len(logs)).mean() for _ in range(5000)]
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return f"{np.exp(logs.mean()):.3f} [{low:.3f}, {high:.3f}], {len(ratios)} rounds"


def overhead(arguments: argparse.Namespace) -> None:
    name = DATA.get(arguments.model, "online_retail_demo")
    data = load(name)
    ratios, rates = [], []
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"overhead-{arguments.model}-{arguments.rows}.jsonl"
    with tempfile.TemporaryDirectory() as place:
        n = arguments.rows * (arguments.rounds + 1)
        users = sessions(Path(place) / "users.parquet", name, n)
        job = make_job(arguments.model, users, arguments.rows)
        began = time.process_time()
        rows = read_rows(job, data)
        print(f"reading {n} rows: {time.process_time() - began:.3f} s of the processor")
        recommender = job.load_recommender(data, print)
        writer = ShardWriter(job, rows, recommender, Path(place))
        writer.write(arguments.rounds)  # builds the trie and the prior
        for number in range(arguments.rounds):
            first = number * arguments.rows
            histories = [row.history or "" for row in rows.part(first, first + arguments.rows)]
            took = {}
            for way in ("raw", "batch") if number % 2 else ("batch", "raw"):
                began = time.process_time()
                if way == "raw":
                    recommender.recommend_many(
                        histories, batch_size=job.batch_size, options=job.query()
                    )
                else:
                    writer.write(number)
                took[way] = time.process_time() - began
            ratios.append(took["batch"] / took["raw"])
            rates.append(len(histories) / took["batch"])
            with kept.open("a") as stream:
                stream.write(
                    json.dumps({**took, "rows": len(histories), "commit": commit()}) + "\n"
                )
            print(f"{took} {ratios[-1]:.3f}", flush=True)
    print(
        f"{commit()}, {arguments.model}, {arguments.rows} users a round: {interval(ratios)}; "
        f"{np.median(rates):.2f} users a second of the processor"
    )


def rate(folder: Path, workers: int, shard_size: int) -> float:
    """Return the rows a second after the first shard of each worker, from the times of the files."""
    times = sorted(p.stat().st_mtime for p in folder.glob("part-*.parquet"))
    return (len(times) - workers) * shard_size / (times[-1] - times[workers - 1])


def engines(arguments: argparse.Namespace) -> None:
    size = max(arguments.rows // 10, 1)
    with tempfile.TemporaryDirectory() as place:
        data = DATA.get(arguments.model, "online_retail_demo")
        users = sessions(Path(place) / "users.parquet", data, arguments.rows)
        job = make_job(arguments.model, users, size)
        rates: dict[tuple[str, int], list[float]] = {}
        cells = [(e, w) for e in arguments.engines for w in arguments.workers]
        for number in range(arguments.rounds):
            for engine, workers in cells if number % 2 == 0 else cells[::-1]:
                folder = Path(place) / f"{engine}-{workers}-{number}"
                run(job, folder, engine=engine, workers=workers)
                rates.setdefault((engine, workers), []).append(rate(folder, workers, size))
                print(
                    f"{engine}, {workers}: {rates[engine, workers][-1]:.2f} rows a second",
                    flush=True,
                )
    for (engine, workers), found in rates.items():
        base = rates[cells[0]]
        ratios = [f / b for f, b in zip(found, base, strict=True)]
        print(
            f"{commit()}, {engine}, {workers}: {np.median(found):.2f} rows a second, {interval(ratios)}"
        )


def tree_seconds(driver: subprocess.Popen[bytes]) -> float:
    """Wait for a process, and return the processor time of it and all that it started, sampled four times a second."""
    spent: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    while driver.poll() is None:
        listed = subprocess.run(
            ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        pairs = [line.split() for line in listed.splitlines()]
        parents = {int(pid): int(parent) for pid, parent in pairs}
        for pid in parents:
            above = pid
            while above in parents and above != driver.pid:
                above = parents[above]
            if above == driver.pid:
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                spent[pid] = max(spent.get(pid, 0.0), (int(fields[11]) + int(fields[12])) / tick)
        time.sleep(0.25)
    assert driver.returncode == 0
    return sum(spent.values())


def processor(arguments: argparse.Namespace) -> None:
    size, slopes = arguments.shard_size, dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as place:
        data = DATA.get(arguments.model, "online_retail_demo")
        script = Path(place) / "run.py"
        script.write_text(RUN.replace("workers=2", "workers=1"))
        for number in range(arguments.rounds):
            for engine in arguments.engines if number % 2 == 0 else arguments.engines[::-1]:
                spent = []
                for rows in (arguments.rows, 5 * arguments.rows):
                    name = f"{engine}-{rows}-{number}"
                    users = sessions(Path(place) / f"{name}.parquet", data, rows, seed=number)
                    given = json.dumps(make_job(arguments.model, users, size).to_dict())
                    out = str(Path(place) / name)
                    command = [sys.executable, str(script), given, out, engine]
                    driver = subprocess.Popen(
                        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                    )
                    spent.append(tree_seconds(driver))
                slopes.setdefault(engine, []).append((spent[1] - spent[0]) / (4 * arguments.rows))
                print(engine, spent, f"{1e3 * slopes[engine][-1]:.3f} ms a row", flush=True)
    ratios = [r / b for r, b in zip(slopes["ray"], slopes["local"], strict=True)]
    print(f"{commit()}, {arguments.model}: ray / local {interval(ratios)}")


def many(arguments: argparse.Namespace) -> None:
    out = arguments.out or KEPT / f"many-{arguments.model}-{arguments.engine}-{arguments.rows}"
    KEPT.mkdir(parents=True, exist_ok=True)
    data = DATA.get(arguments.model, "online_retail_demo")
    users = KEPT / f"{data}-{arguments.rows}.parquet"
    if arguments.users == "sessions" and not users.exists():
        sessions(users, data, arguments.rows)
    given = users if arguments.users == "sessions" else None
    job = make_job(arguments.model, given, arguments.shard_size)
    report = run(job, out, engine=arguments.engine, workers=arguments.workers[0], log=print)
    rows = [
        row for kind in ("part", "rejected") for path in sorted(out.glob(f"{kind}-*.parquet"))
        for row in pq.read_table(path, columns=["row"])["row"].to_pylist()
    ]  # fmt: skip
    assert sorted(rows) == list(range(1, report.rows + 1)), "rows were lost or repeated"
    seconds = sum(
        s["seconds"] or 0
        for s in json.loads((out / "manifest.json").read_text())["shards"].values()
    )
    print(
        f"{commit()}: {report.to_dict()}, {report.rows / seconds:.1f} rows a second of the workers"
    )


def parquet(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.parquet")}


def workers_of(driver: int, engine: str) -> list[int]:
    """Return the processes that compute shards for a driver."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    parents, names = dict[int, int](), dict[int, str]()
    for line in listed.splitlines():
        number, parent, name = line.split(None, 2)
        parents[int(number)], names[int(number)] = int(parent), name
    mark = "genrec.batch.worker" if engine == "local" else "ray::"
    found = []
    for pid, name in names.items():
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        if above == driver and mark in name and "_Actor" in name + "_Actor" * (engine == "local"):
            found.append(pid)
    return found


def kills(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        data = DATA.get(arguments.model, "online_retail_demo")
        users = sessions(Path(place) / "users.parquet", data, arguments.rows)
        size = max(arguments.rows // 6, 1)
        job = make_job(arguments.model, users, size)
        began = time.monotonic()
        run(job, Path(place) / "whole")
        length = time.monotonic() - began
        wanted = parquet(Path(place) / "whole")
        script = Path(place) / "again.py"
        script.write_text(RUN)
        for number in range(arguments.rounds):
            out = Path(place) / f"round-{number}"
            command = [
                sys.executable,
                str(script),
                json.dumps(job.to_dict()),
                str(out),
                arguments.engine,
            ]
            rng = random.Random(number)
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            victims: list[int] = []
            while not victims and process.poll() is None:
                time.sleep(0.05)
                victims = workers_of(process.pid, arguments.engine)
            time.sleep(rng.uniform(0, length))
            driver = number % 2 == 1
            if driver:
                process.kill()
                process.wait()
                done = subprocess.run(command, capture_output=True, check=False, text=True)
                assert done.returncode == 0, done.stderr[-2000:]
            else:
                victims = workers_of(process.pid, arguments.engine)
                for victim in victims[:1]:
                    os.kill(victim, signal.SIGKILL)
                assert process.wait(600) == 0
            assert parquet(out) == wanted
            killed = "driver" if driver else f"{min(len(victims), 1)} worker"
            print(f"round {number + 1}: killed {killed}, all bytes equal", flush=True)
    print(
        f"{commit()}: {arguments.rounds} rounds, {arguments.engine}, {arguments.rows} rows, nothing lost"
    )


PARTS: dict[str, Any] = {
    "processor": processor,
    "overhead": overhead, "engines": engines, "many": many, "kills": kills
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--users", choices=("sessions", "all"), default="sessions")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments)


if __name__ == "__main__":
    main()
