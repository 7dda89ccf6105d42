"""Measure what the line of a profile adds to a prompt that is too short for the history. Resumable.

    python -m benchmarks.accuracy.profile retail --data DIR --users 200
    python -m benchmarks.accuracy.profile ml-100k --data DIR --tokens 128

DIR (or $GENREC_DATA) contains the folders of benchmarks.accuracy.public_datasets; demo is embedded in the
package. The users are a seeded sample of those whose history does not fit into the prompt of the template
``next_item`` under the budget. The template ``next_item_profile`` has the same budget, so its line takes the
place of one or two events. Nats of the target (-ln p, the items' probabilities sum to 1) with and without the
line, by the model alone and fused with the prior, and their paired difference: above zero, the line helps.
The prior counts train and validation. Each answer is kept in .results/profile; run it again to continue.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.context import SETS, protocol_of
from benchmarks.common import ROOT, commit
from genrec import Recommender
from genrec.data import protocols
from genrec.data.datasets import recbole
from genrec.evaluation.bootstrap import bootstrap
from genrec.evaluation.systems import restrict

TEMPLATES = ("next_item", "next_item_profile")


def cell(values: list[float]) -> str:
    found = bootstrap(values)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--protocol", default=None, help="default: that of the set")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "profile")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.set == "ml-100k":  # without the columns of the context
        data = recbole(arguments.data / "ml-100k", "ml-100k")
    else:
        data, _ = SETS[arguments.set](arguments.data)
    protocol = arguments.protocol or protocol_of(data)
    cases = protocols.cases(data, protocol, "test")
    known = protocols.withhold(protocols.apply_protocol(data, protocol), "test")
    first = Recommender(
        data, arguments.model, model_role="fuse", prior="collaborative", threads=arguments.threads,
        max_events=100,
    )  # fmt: skip
    base = restrict(first, known, "test")
    print(f"{arguments.set} {protocol}, {arguments.model}, commit {commit()}\n", flush=True)
    print(
        "| tokens | users | events | shown | shown beside the line | gain of the model alone | gain beside the prior |"
    )
    print("|---|---|---|---|---|---|---|")
    for tokens in arguments.tokens:
        both = [base.with_settings(template=name, max_prompt_tokens=tokens) for name in TEMPLATES]
        path = arguments.out / f"{arguments.set}-{protocol}-{arguments.model}-{tokens}.jsonl"
        kept: dict[str, dict[str, Any]] = {}
        if path.is_file():
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            kept = {line["key"]: line for line in lines}
        key = "-".join(one.tuning_key()[:12] for one in both)
        order = np.random.default_rng(0).permutation(len(cases)).tolist()
        found: list[dict[str, Any]] = []
        for number in order:
            if len(found) == arguments.users:
                break
            case = cases[number]
            name = f"{key} {case.history.user_id}"
            if name not in kept:
                kept[name] = {"key": name, **measure(both, case)}
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(kept[name]) + "\n")
            if kept[name]["dropped"]:
                found.append(kept[name])
        gains = [[f["plain"][n] - f["line"][n] for f in found] for n in (0, 1)]
        means = [np.mean([f[name] for f in found]) for name in ("events", "shown", "shown_line")]
        print(
            f"| {tokens} | {len(found)} | {means[0]:.0f} | {means[1]:.1f} | {means[2]:.1f} | "
            f"{cell(gains[0])} | {cell(gains[1])} |",
            flush=True,
        )
        nats = [np.mean([f[s][n] for f in found]) for s in ("plain", "line") for n in (0, 1)]
        print(
            f"\nnats of the model: {nats[0]:.4f}, with the line {nats[2]:.4f}; with the prior: "
            f"{nats[1]:.4f}, with the line {nats[3]:.4f}\n"
        )


def measure(both: list[Recommender], case: protocols.Case) -> dict[str, Any]:
    """Score a target with and without the line; without it only, if all events fit."""
    prompts = [one.prompt(case.history) for one in both]
    shown = [p.prompt.events for p in prompts]
    if not prompts[0].prompt.dropped:
        return {"dropped": 0}
    nats = []
    for one in both:
        (scored,) = one.score(case.history, [case.target])
        assert scored.logprob is not None
        assert scored.logprob_model is not None
        nats.append([-scored.logprob_model, -scored.logprob])
    return {
        "dropped": prompts[0].prompt.dropped, "events": len(case.history), "shown": shown[0],
        "shown_line": shown[1], "plain": nats[0], "line": nats[1], "said": prompts[1].prompt.profile,
    }  # fmt: skip


if __name__ == "__main__":
    main()
