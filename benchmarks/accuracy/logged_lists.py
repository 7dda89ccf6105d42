"""Measure how often the intervals of IPS and SNIPS contain the truth of a simulation.

    python -m benchmarks.accuracy.logged_lists --runs 1000

Users are of one of three kinds. Each kind likes eight items in its own way, and the list's first item is drawn
with probability p. The policy draws it with q, which prefers the items that another kind likes, the more so
the higher ``sharpness`` is. An item is accepted with a rate of its own, times the eagerness of the user,
which is uniform from 0 to 2. The truth is known from p, q and the rates. Printed are the truth, the mean of
IPS, the shares of simulations whose interval contains the truth, and the mean number of effective lists.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.common import commit
from genrec.evaluation.logged import estimate
from genrec.types import FloatArray

ITEMS, KINDS = 8, 3


def shares(logits: FloatArray) -> FloatArray:
    """Return the softmax of each row."""
    weights = np.exp(logits)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def measure(sharpness: float, users: int, lists: int, runs: int, seed: int) -> str:
    """Simulate one setting, and return its row of the table."""
    rng = np.random.default_rng([seed, round(10 * sharpness), users])
    taste = rng.normal(size=(KINDS, ITEMS))
    p, q = shares(taste), shares(sharpness * taste[::-1])
    rate = rng.uniform(0.05, 0.3, (KINDS, ITEMS))
    truth = float((q * rate).sum(axis=1).mean())
    inside, means, effective = {"ips": 0, "snips": 0}, [], []
    for _ in range(runs):
        user = np.repeat(np.arange(users), lists)
        kind = rng.integers(0, KINDS, users)[user]
        eager = rng.uniform(0.0, 2.0, users)[user]
        place = (p[kind].cumsum(axis=1) < rng.random(len(user))[:, None]).sum(axis=1)
        item = np.minimum(place, ITEMS - 1)
        accepted = (rng.random(len(user)) < rate[kind, item] * eager).astype(np.float64)
        found = estimate(q[kind, item] / p[kind, item], accepted, user)
        for name in inside:
            inside[name] += found[name].low <= truth <= found[name].high
        means.append(found["ips"].mean)
        effective.append(found["effective_lists"])
    covered = " | ".join(f"{count / runs:.3f}" for count in inside.values())
    numbers = f"{truth:.4f} | {np.mean(means):.4f} | {covered} | {np.mean(effective):,.0f}"
    return f"| {sharpness} | {users:,} | {lists} | {numbers} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"commit {commit()}, {given.runs:,} simulations in each row\n")
    print("| sharpness | users | lists of each | truth | mean of IPS | IPS covers | SNIPS covers | "
          "effective lists |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for sharpness in (0.5, 1.0, 2.0):
        for users, lists in ((100, 1), (250, 4), (1000, 4)):
            print(measure(sharpness, users, lists, given.runs, given.seed), flush=True)


if __name__ == "__main__":
    main()
