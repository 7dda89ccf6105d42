"""Measure what differential privacy per user costs, and what membership inference finds. Resumable.

    python -m benchmarks.training.private train
    python -m benchmarks.training.private evaluate --users 300
    python -m benchmarks.training.private audit

``train`` trains adapters on four fifths of the demo's users: with epsilon 2 and 8 (the defaults of --dp-epsilon), in the same form without
noise and clipping, and in the usual way. ``evaluate`` compares the model alone, and the system with a prior, on
the same test users of demo-v1. Private runs use the prior in their folder, whose noise is part of epsilon; the
others use the prior of all counts. ``audit`` trains shadow adapters, and attacks the
runs. Everything is kept in .results/training/private.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.common import ROOT, commit
from genrec import Dataset, Recommender, runs
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.evaluation import tuning
from genrec.evaluation.bootstrap import bootstrap
from genrec.evaluation.scoring_pass import ScoringPass, score_user
from genrec.json_text import to_json
from genrec.models.language_model import LanguageModel
from genrec.priors.collaborative import CollaborativePrior
from genrec.runs import RUN, Run
from genrec.training import accountant
from genrec.training.frozen_blocks import States
from genrec.training.privacy_audit import audit_privacy
from genrec.training.shadows import AuditOptions, Shadows
from genrec.training.trainer import train

FOLDER = ROOT / ".results" / "training" / "private"
USUAL: dict[str, Any] = {
    "behaviors": ("buy",), "protocol": "demo-v1", "eval_users": 0, "tune_users": 0, "threads": 1,
    "dtype": "float32", "fit": "both", "seed": 1,
}  # fmt: skip
HELD_OUT = 0.2
FIXED = (
    1 / 4.3479,
    0.6953,
)  # the factors of the model and of the prior that suit the shipped adapter
KINDS = (
    "base",
    "shipped",
    "usual",
    "none",
    "epsilon-8",
    "epsilon-2",
)  # "shipped": usual, 48,000 targets, all users
_ARRAYS = ("logits", "mass", "start", "above", "rows", "ends", "prior", "allowed")


def read_states() -> States:
    """Return what the frozen blocks have computed in earlier calls."""
    states, path = States(), FOLDER / "states.safetensors"
    if path.is_file():
        for name, value in load_file(path).items():
            first, _, key = name.partition("-")
            states.keep((int(first), bytes.fromhex(key)), value)
    return states


def write_states(states: States, before: int) -> None:
    """Keep the states for later calls if there are more than before."""
    if len(states.known) > before:
        FOLDER.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{first}-{key.hex()}": value  # type: ignore[attr-defined]
            for (first, key), value in states.known.items()
        }
        save_file(tensors, FOLDER / "states.safetensors")


def trained(kind: str, given: argparse.Namespace, states: States) -> Path:
    """Train a run once, and return its folder."""
    name = f"{kind}-held"
    folder = FOLDER / "runs" / name
    if (folder / RUN).is_file():
        return folder
    more: dict[str, Any] = {"max_targets": given.targets, "pack_tokens": 192}
    if kind != "usual":
        more = {"dp_epsilon": 8.0 if kind == "none" else float(kind.partition("-")[2])}
    more["holdout_users"] = HELD_OUT
    known, used = len(states.known), time.process_time()
    real, epsilon_of = accountant.plan, accountant.epsilon_of
    if kind == "none":  # the same steps, with neither noise nor clipping
        accountant.plan = lambda *a: replace(real(*a), noise=0.0, clip=1e9)
        accountant.epsilon_of = lambda history, delta: (
            1e9 if any(not each[0] for each in history) else epsilon_of(history, delta)
        )
    try:
        train(
            load("online_retail_demo"), folder, "smollm2-135m", states=states,
            watch=lambda line: print(
                f"{name}: step {line.get('step')}, nats {line.get('nats'):.3f}, clipped "
                f"{line.get('clipped', 0):.2f}", flush=True,
            ) if line.get("nats") and line.get("step") else None,
            **{**USUAL, **more},
        )  # fmt: skip
    finally:
        accountant.plan, accountant.epsilon_of = real, epsilon_of
    write_states(states, known)
    seconds = time.process_time() - used
    print(f"{name}: {seconds:.0f} s of processor time, {Run.read(folder).metrics}", flush=True)
    return folder


def folder_of(kind: str) -> Path | None:
    """Return the run folder of a kind; None for the base model."""
    known = {"base": None, "shipped": runs.find_run("online_retail_demo")}
    return known.get(kind, FOLDER / "runs" / f"{kind}-held")


def recommender_of(kind: str, data: Dataset) -> Recommender:
    """Return the recommender of a run with the prior that it is measured with."""
    options: dict[str, Any] = {"prior": "collaborative", "model_role": "fuse"}
    folder = folder_of(kind)
    if folder is None:
        model = LanguageModel.load("smollm2-135m", threads=1, dtype="float32")
        ours = Recommender(data, model, **options)
    else:
        model = LanguageModel.of_run(folder, threads=1, dtype="float32")
        ours = Recommender.load(folder, data, model=model, **options)
    ours = ours.for_tuning()
    if kind.startswith("epsilon"):
        assert folder is not None
        ours.prior = CollaborativePrior.load(folder / runs.PRIOR, data)
    else:
        ours.prior = CollaborativePrior.fit(data)
    return ours


def score_users(kinds: list[str], data: Dataset, users: int) -> None:
    """Compute the model's logits for the test users; one user after the other, for all kinds."""
    ready: dict[str, Recommender] = {}
    used = time.process_time()
    for case in protocols.sample(protocols.cases(data, "demo-v1"), users):
        for kind in kinds:
            path = FOLDER / "passes" / kind / f"{case.at}.npz"
            if path.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind not in ready:
                ready[kind] = recommender_of(kind, data)
            with torch.no_grad():
                one = score_user(ready[kind], case.history, case.target)
            np.savez(path.with_suffix(".tmp.npz"), **{n: getattr(one, n) for n in _ARRAYS})
            path.with_suffix(".tmp.npz").rename(path)
    print(f"{time.process_time() - used:.0f} s of processor time", flush=True)


def passes_of(kinds: list[str], data: Dataset, users: int) -> dict[str, list[ScoringPass]]:
    """Return what ``score_users`` has computed, for the users that all kinds have."""
    found: dict[str, list[ScoringPass]] = {kind: [] for kind in kinds}
    for case in protocols.sample(protocols.cases(data, "demo-v1"), users):
        paths = [FOLDER / "passes" / kind / f"{case.at}.npz" for kind in kinds]
        if all(path.is_file() for path in paths):
            for kind, path in zip(kinds, paths, strict=True):
                with np.load(path, allow_pickle=False) as arrays:
                    found[kind].append(ScoringPass(**{n: arrays[n] for n in _ARRAYS}))
    return found


def figures(passes: list[ScoringPass]) -> dict[str, np.ndarray[Any, Any]]:
    """Return each user's nats and NDCG@10, of the model, the prior and both, by name."""
    half = [passes[::2], passes[1::2]]
    fitted: list[Any] = [None] * len(passes)
    for first, (own, other) in enumerate((half, half[::-1])):
        a, b, _ = tuning.fit_node(other)
        fitted[first::2] = [each.logprobs(a, b) for each in own]
    scores = {
        "alone": [each.alone for each in passes],
        "prior": [each.prior for each in passes],
        "system": [each.logprobs(*FIXED) for each in passes],
        "system, fitted on the other half": fitted,
    }
    found = {}
    for name, values in scores.items():
        found[f"{name}, nats"] = np.array([-v[0] for v in values])
        found[f"{name}, ndcg@10"] = tuning.ndcg(passes, values)
    return found


def evaluate(given: argparse.Namespace) -> None:
    """Compare the runs on the same test users, and print the table."""
    data = protocols.apply_protocol(load("online_retail_demo"), "demo-v1")
    kinds = [k for k in KINDS if (f := folder_of(k)) is None or (f / RUN).is_file()]
    if not given.known:
        score_users(kinds, data, given.users)
    passes = passes_of(kinds, data, given.users)
    found = {kind: figures(each) for kind, each in passes.items()}
    users, table = len(passes[kinds[0]]), {}
    for kind, values in found.items():
        table[kind] = {
            name: {
                "value": str(bootstrap(v)),
                **{f"less {o}": str(bootstrap(v - found[o][name])) for o in found if o != kind},
            }
            for name, v in values.items()
        }
        for name, shown in table[kind].items():
            print(f"{kind}, {name}: {shown}", flush=True)
    about = {"commit": commit(), "users": users, "systems": table}
    (FOLDER / f"result-{users}.json").write_text(json.dumps(about, indent=1) + "\n")


def audit(given: argparse.Namespace) -> None:
    """Attack a usual run and a private one, with shadows."""
    states = read_states()
    data = load("online_retail_demo")
    for kind in given.kinds.split(","):
        folder = trained(kind, given, states)
        known, used = len(states.known), time.process_time()
        found = audit_privacy(
            folder, data, AuditOptions(given.users, 128, 1, states=states), log=print,
            shadows=Shadows(FOLDER / "shadows" / kind, 4) if given.shadows else None,
        )  # fmt: skip
        write_states(states, known)
        seconds = round(time.process_time() - used)
        text = to_json({**found.to_dict(), "commit": commit(), "processor_seconds": seconds})
        name = f"audit-{kind}" + ("" if given.shadows else "-alone")
        (FOLDER / f"{name}.json").write_text(text + "\n")
        print(text, flush=True)


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "evaluate", "audit"))
    parser.add_argument("--targets", type=int, default=6000, help="targets of the usual training")
    parser.add_argument("--users", type=int, default=300, help="test users, or users on each side")
    parser.add_argument("--kinds", default="usual,epsilon-8", help="runs to audit or to train")
    parser.add_argument("--known", action="store_true", help="evaluate users that are done only")
    parser.add_argument("--no-shadows", dest="shadows", action="store_false")
    given = parser.parse_args()
    if given.part == "train":
        states = read_states()
        for kind in KINDS[2:] if given.kinds == "usual,epsilon-8" else given.kinds.split(","):
            trained(kind, given, states)
    elif given.part == "evaluate":
        evaluate(given)
    else:
        audit(given)


if __name__ == "__main__":
    main()
