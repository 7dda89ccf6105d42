"""Measure training under the mask of ``attention="by_event"``: its time and its nats. Resumable.

    python -m benchmarks.training.by_event speed --turns 12
    python -m benchmarks.training.by_event train --targets 2000
    python -m benchmarks.training.by_event nats --targets 2000 --users 100

``speed`` alternates between ordinary training and training under the mask, one pack with forward and backward
pass at a time, and gives the time per target (of the processor, unless it runs on a GPU). ``train`` trains an
adapter on the demo for each row of the table, on equally many targets and with equal settings. ``nats`` measures
minus the log of the target's probability on validation users, for the model alone, beside the prior and beside the
learned ranking, untrained and with each adapter, under each attention. Runs and results are kept in
.results/training/by_event.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import ROOT, commit
from genrec import Dataset, Recommender
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.evaluation import bootstrap, evaluator
from genrec.models.language_model import LanguageModel
from genrec.training import config, examples, lora
from genrec.training.block_objective import BlockObjective
from genrec.training.objectives import NextItemObjective
from genrec.training.trainer import train

USUAL: dict[str, Any] = {
    "behaviors": ("buy",),
    "protocol": "demo-v1",
    "eval_users": 0,
    "tune_users": 0,
}
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "by event, 8 in full": {"attention": "by_event", "recent_events": 8},
    "by event, 0 in full": {"attention": "by_event", "recent_events": 0},
}
READINGS: dict[str, dict[str, Any]] = {
    "full": {},
    **{
        f"by event, {n} in full": {"attention": "by_event", "recent_events": n}
        for n in (16, 8, 4, 2, 0)
    },
}
UNTRAINED, ALONE = "untrained", "alone"
BESIDE: dict[str, dict[str, Any]] = {
    ALONE: {"prior": "none"},
    "prior": {"prior": "collaborative"},
    "ranker": {"prior": "collaborative", "ranker": "lambdarank"},
}
# Of the shipped adapter. A given node_temperature would also hold for the model alone, so it is not given there.
TUNED = {"prior_weight": 0.6953, "node_temperature": 4.3479}
FOLDER = ROOT / ".results" / "training" / "by_event"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "train", "nats"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(f"{arguments.what}, commit {commit()}", flush=True)
    data = load("online_retail_demo")
    {"speed": measure_speed, "train": train_all, "nats": compare_nats}[arguments.what](
        data, arguments
    )


def place(name: str, arguments: argparse.Namespace) -> Path:
    """The run folder of a row."""
    short = name.replace(",", "").replace(" ", "-")
    return FOLDER / f"{short}-{arguments.targets}-{arguments.seed}"


def seconds_now(device: torch.device) -> float:
    """The processor time, or on a GPU the clock after all its work is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_speed(data: Dataset, arguments: argparse.Namespace) -> None:
    """Time one pack of each way in turn, on one model."""
    model = LanguageModel.load(arguments.model, threads=arguments.threads, device=arguments.device)
    data = protocols.apply_protocol(data, "demo-v1")
    made, per_target, keys = {}, dict[str, float](), dict[str, float]()
    for name, way in WAYS.items():
        ours, training = config.resolve({**USUAL, **way})
        recommender = Recommender(data, model, **asdict(ours) | {"prior": "none"})
        made[name] = *examples.make_examples(recommender, data, training), training, recommender
        some = made[name][0]
        tokens = sum(map(len, some.rows))
        moved = sum(len(getattr(r, "moved", ())) for r in some.rows)
        per_target[name], keys[name] = tokens / some.n_targets, moved / some.n_targets
    training = made["full"][2]
    tuned = LanguageModel(lora.add_adapter(model.model, training), model.tokenizer)
    tuned.model.train()
    objectives: dict[str, NextItemObjective] = {}
    for name, (some, paths, training, recommender) in made.items():
        titles = list(recommender.encoder.titles(recommender.catalog))
        kind = NextItemObjective if name == "full" else BlockObjective
        objectives[name] = kind(some, paths, tuned, training, titles)
    rng = np.random.default_rng(arguments.seed)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    read: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(arguments.turns + 1):
        for name, objective in objectives.items():
            inputs = objective.batch([int(rng.integers(len(made[name][0])))])
            inputs = {k: v.to(tuned.device) for k, v in inputs.items()}
            started = seconds_now(tuned.device)
            _, losses = objective.losses(tuned.model, inputs)
            torch.autograd.backward(losses.mean())
            tuned.model.zero_grad()
            if turn:  # the first one is slower
                seconds[name].append(seconds_now(tuned.device) - started)
                read[name].append(float((inputs["document"] >= 0).sum()))
    draws = rng.integers(arguments.turns, size=(2000, arguments.turns))
    base = np.array(seconds["full"]) / np.array(read["full"])
    known = per_target["full"]
    for name in WAYS:
        each = np.array(seconds[name]) / np.array(read[name])
        ratio = each[draws].mean(1) / base[draws].mean(1) * per_target[name] / known
        low, high = np.quantile(ratio, [0.025, 0.975])
        mean = each.mean() / base.mean() * per_target[name] / known
        print(
            f"{name:20} {1000 * each.mean():.2f} ms per token, {per_target[name]:.2f} tokens and "
            f"{keys[name]:.2f} moved keys per target, so {1000 * each.mean() * per_target[name]:.1f} ms "
            f"per target, {mean:.2f} [{low:.2f}, {high:.2f}] of full"
        )


def train_all(data: Dataset, arguments: argparse.Namespace) -> None:
    """Train an adapter for each way, or continue where an earlier call was stopped."""
    for name, way in WAYS.items():
        folder = place(name, arguments)
        if (folder / "run.json").is_file():
            continue
        started = time.process_time()
        run = train(
            data, folder, arguments.model, resume=folder.is_dir(), threads=arguments.threads,
            device=arguments.device, max_targets=arguments.targets, save_minutes=2.0,
            seed=arguments.seed, log=print, **USUAL, **way,
        )  # fmt: skip
        spent = time.process_time() - started
        print(f"{name}: {run.targets} targets, {spent:.0f} s of the processor", flush=True)


def compare_nats(data: Dataset, arguments: argparse.Namespace) -> None:
    """Measure each adapter that is finished under each attention, and print the table.

    The weights are the same for all readings: those that were fitted to
    the shipped adapter, or without training the default ones. The ranking was stopped on these
    validation users, for all readings alike.
    """
    cases = evaluator.sample(evaluator.demo_v1(data, "validation"), arguments.users, seed=1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / f"nats-{arguments.targets}-{arguments.seed}-{arguments.users}.json"
    found: dict[str, dict[str, dict[str, list[float]]]] = (
        json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    )
    for name in (UNTRAINED, *WAYS):
        folder = place(name, arguments)
        if name != UNTRAINED and not (folder / "run.json").is_file():
            continue
        own: dict[str, Any] = {} if name == UNTRAINED else TUNED
        source = {"threads": arguments.threads, "device": arguments.device}
        model = (
            LanguageModel.load(arguments.model, **source)
            if name == UNTRAINED
            else LanguageModel.of_run(folder, arguments.model, **source)
        )
        for way, settings in READINGS.items():
            of = found.setdefault(name, {}).setdefault(way, {})
            for beside, more in BESIDE.items():
                if beside in of:
                    continue
                weights = {} if beside == ALONE else own
                recommender = Recommender(
                    data, model, encoder="none", prior_events="train", model_role="fuse",
                    threads=arguments.threads, **settings, **more, **weights,
                )  # fmt: skip
                answers = [recommender.score(c.history, [c.target])[0] for c in cases]
                of[beside] = [-a.score for a in answers]
                kept.write_text(json.dumps(found), encoding="utf-8")
    base = found.get("full", found[UNTRAINED])["full"]
    print("| trained | read | " + " | ".join(f"{b}, less full in full" for b in BESIDE) + " |")
    for name, ways in found.items():
        for way, values in ways.items():
            cells = []
            for beside in BESIDE:
                nats = np.array(values[beside])
                less = bootstrap.bootstrap(nats - np.array(base[beside]))
                cells.append(f"{nats.mean():.3f}, {less}")
            print(f"| {name} | {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
