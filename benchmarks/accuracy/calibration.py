"""Compare the stated probabilities of ten items with how often one of them comes next.

    genrec evaluate shop --protocol demo-v1 --out one && genrec evaluate shop --protocol demo-v1 --prior none --out two
    python -m benchmarks.accuracy.calibration one/*.jsonl two/*.jsonl --picture reliability.png

Reads the lists that ``genrec evaluate --out`` keeps, of the embedded data under demo-v1. For each system
with probabilities it prints the mean sum over ten items, the share of hits and the difference. Users are
put into five bins of equal size by that sum; for each bin it prints the mean sum beside the hits with
Wilson's 95% interval, and counts the bins whose interval contains the mean. Beside that stand the log loss
of hit or miss, the log loss of always stating the overall share of hits, and the nats of the target.
Temperatures are those of the evaluation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import commit
from genrec.data import protocols
from genrec.data.datasets import load

K, BINS, Z = 10, 5, 1.959964


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    share, extra = hits / n, Z * Z / n
    middle = (share + extra / 2) / (1 + extra)
    half = Z / (1 + extra) * np.sqrt(share * (1 - share) / n + extra / (4 * n))
    return float(middle - half), float(middle + half)


def log_loss(stated: Any, hit: Any) -> float:
    p = np.clip(stated, 1e-6, 1 - 1e-6)
    return float(-np.mean(hit * np.log(p) + (1 - hit) * np.log(1 - p)))


def measured(path: Path, targets: dict[str, str]) -> dict[str, Any] | None:
    """Compute the figures of one system's lists, or None if they have no probabilities."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if not all(line.get("probabilities") for line in lines):
        return None
    stated = np.array([sum(line["probabilities"][:K]) for line in lines])
    hit = np.array([float(targets[line["user_id"]] in line["items"][:K]) for line in lines])
    nats = [line["nats"] for line in lines if line.get("nats") is not None]
    order = np.argsort(stated, kind="stable")
    bins = []
    for part in np.array_split(order, BINS):
        low, high = wilson(int(hit[part].sum()), len(part))
        mean = float(stated[part].mean())
        bins.append((mean, float(hit[part].mean()), low, high, low <= mean <= high))
    return {
        "system": lines[0]["system"], "users": len(lines), "stated": float(stated.mean()),
        "hits": float(hit.mean()), "bins": bins, "within": sum(b[-1] for b in bins),
        "log_loss": log_loss(stated, hit), "constant": log_loss(np.full(len(hit), hit.mean()), hit),
        "nats": float(np.mean(nats)) if nats else None,
    }  # fmt: skip


def picture(found: list[dict[str, Any]], path: Path) -> None:
    """Draw hit rates with their intervals over the mean stated probability of each bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    most = max(max(b[0], b[3]) for one in found for b in one["bins"])
    axes.plot([0, most], [0, most], color="gray", linewidth=1, label="as stated")
    for one in found:
        mean, hit, low, high = (np.array(v) for v in list(zip(*one["bins"], strict=True))[:4])
        axes.errorbar(
            mean, hit, [hit - low, high - hit], marker="o", capsize=3, label=one["system"]
        )
    axes.set_xlabel("mean summed probability of the ten items")
    axes.set_ylabel("hit rate at 10 (95%)")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path, nargs="+")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    cases = protocols.cases(load("online_retail_demo"), "demo-v1", "test")
    targets = {c.user_id: c.target for c in cases}
    found = [f for f in (measured(p, targets) for p in arguments.lists) if f is not None]
    print(f"commit {commit()}\n")
    print(
        "| system | users | stated | hits | difference | bins within | log loss | of a constant | nats |"
    )
    print("|---" * 9 + "|")
    for one in found:
        nats = "-" if one["nats"] is None else f"{one['nats']:.3f}"
        print(
            f"| {one['system']} | {one['users']} | {one['stated']:.4f} | {one['hits']:.4f} "
            f"| {one['stated'] - one['hits']:+.4f} | {one['within']} of {BINS} "
            f"| {one['log_loss']:.4f} | {one['constant']:.4f} | {nats} |"
        )
    for one in found:
        said = ", ".join(f"{m:.3f}: {h:.3f} [{a:.3f}, {b:.3f}]" for m, h, a, b, _ in one["bins"])
        print(f"\n{one['system']}, stated: hits by bin: {said}")
    if arguments.picture:
        picture(found, arguments.picture)


if __name__ == "__main__":
    main()
