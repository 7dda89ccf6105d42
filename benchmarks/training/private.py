"""Measure what differential privacy per user costs, and what membership inference finds. Resumable.

    python -m benchmarks.training.private train
    python -m benchmarks.training.private evaluate --users 300
    python -m benchmarks.training.private audit

``train`` trains adapters on the demo: with epsilon 2 and 8 (the defaults of --dp-epsilon), in the same form without
noise and clipping, and in the usual way. ``evaluate`` compares the model alone, and the system with a prior, on
the same test users of demo-v1. Private runs use the prior in their folder, whose noise is part of epsilon; the
others use the prior of all counts. ``audit`` trains runs with held-out users and shadow adapters, and attacks the
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
from genrec.training.privacy_audit import Shadows, audit_privacy
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
KINDS = ("base", "usual", "none", "epsilon-8", "epsilon-2")
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


def trained(name: str, kind: str, given: argparse.Namespace, states: States) -> Path:
    """Train a run once, and return its folder."""
    folder = FOLDER / "runs" / name
    if (folder / RUN).is_file():
        return folder
    more: dict[str, Any] = {"max_targets": given.targets, "pack_tokens": 192}
    if kind != "usual":
        more = {"dp_epsilon": 8.0 if kind == "none" else float(kind.partition("-")[2])}
    if name.endswith("held"):
        more["holdout_users"] = HELD_OUT
    known, used, real = len(states.known), time.process_time(), accountant.plan
    if kind == "none":  # the same steps, with neither noise nor clipping
        accountant.plan = lambda *a: replace(real(*a), noise=0.0, clip=1e9)
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
        accountant.plan = real
    write_states(states, known)
    seconds = time.process_time() - used
    print(f"{name}: {seconds:.0f} s of processor time, {Run.read(folder).metrics}", flush=True)
    return folder


def recommender_of(kind: str, data: Dataset, folder: Path | None) -> Recommender:
    """Return the recommender of a run with the prior that it is measured with."""
    options: dict[str, Any] = {"prior": "collaborative", "model_role": "fuse"}
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


def passes_of(kind: str, data: Dataset, folder: Path | None, users: int) -> list[ScoringPass]:
    """Return the model's logits for the test users, which are computed once."""
    place = FOLDER / "passes" / kind
    place.mkdir(parents=True, exist_ok=True)
    ours: Recommender | None = None
    found = []
    for case in protocols.sample(protocols.cases(data, "demo-v1"), users):
        path = place / f"{case.at}.npz"
        if not path.is_file():
            ours = recommender_of(kind, data, folder) if ours is None else ours
            with torch.no_grad():
                one = score_user(ours, case.history, case.target)
            np.savez(path.with_suffix(".tmp.npz"), **{n: getattr(one, n) for n in _ARRAYS})
            path.with_suffix(".tmp.npz").rename(path)
        with np.load(path, allow_pickle=False) as arrays:
            found.append(ScoringPass(**{n: arrays[n] for n in _ARRAYS}))
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
    found, table = {}, {}
    for kind in KINDS:
        folder = None if kind == "base" else FOLDER / "runs" / kind
        if folder is not None and not (folder / RUN).is_file():
            continue
        used = time.process_time()
        found[kind] = figures(passes_of(kind, data, folder, given.users))
        print(f"{kind}: {time.process_time() - used:.0f} s of processor time", flush=True)
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
    about = {"commit": commit(), "users": given.users, "systems": table}
    (FOLDER / f"result-{given.users}.json").write_text(json.dumps(about, indent=1) + "\n")


def audit(given: argparse.Namespace) -> None:
    """Attack a usual run and a private one, with shadows."""
    states = read_states()
    data = load("online_retail_demo")
    for kind in given.kinds.split(","):
        folder = trained(f"{kind}-held", kind, given, states)
        known, used = len(states.known), time.process_time()
        found = audit_privacy(
            folder, data, users=given.users, tokens=128, threads=1, states=states, log=print,
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
    parser.add_argument("--no-shadows", dest="shadows", action="store_false")
    given = parser.parse_args()
    if given.part == "train":
        states = read_states()
        for kind in KINDS[1:] if given.kinds == "usual,epsilon-8" else given.kinds.split(","):
            trained(kind, kind, given, states)
    elif given.part == "evaluate":
        evaluate(given)
    else:
        audit(given)


if __name__ == "__main__":
    main()
