"""Measure how often the test of an experiment errs when it is looked at all the time, and its power.

    python -m benchmarks.accuracy.sequential_test --runs 4000

Users come one by one and get one of two arms at random. ``one list``: each sees one list and accepts it
with the given rate. ``many``: each sees one list or more (geometric, 3.3 on average) and accepts each with a
rate of its own (beta with the given mean), and its value is the share of accepted lists. Without a
difference, an experiment errs if it is ever decided: by ``genrec.evaluation.sequential.compare`` after any
user, and by an ordinary test (two-sided, 5%) at any of 100 looks. With a difference, power is the share of
experiments that are decided in favor of the better arm, by ``compare`` after any user and by one ordinary
test at the end. The difference is the one that the ordinary test finds in 80% of the cases.
"""

from __future__ import annotations

import argparse
from statistics import NormalDist

import numpy as np

from benchmarks.common import commit
from genrec.evaluation.sequential import compare
from genrec.types import BoolArray, FloatArray

LOOKS = 100
Z = NormalDist().inv_cdf(0.975)


def users_of(
    rng: np.random.Generator, n: int, rate: float, effect: float, share: float, many: bool
) -> tuple[FloatArray, BoolArray]:
    """Simulate n users; return their values, and True for those of the second arm.

    Args:
        rng: the source of randomness.
        n: the number of users.
        rate: the mean of the first arm.
        effect: the mean of the second arm minus that of the first.
        share: the probability of the second arm.
        many: True if users see several lists.
    """
    second = rng.random(n) < share
    means = rate + effect * second
    if not many:
        return (rng.random(n) < means).astype(np.float64), second
    own = rng.beta(0.5, 0.5 / means - 0.5)
    lists = rng.geometric(0.3, n)
    return rng.binomial(lists, own) / lists, second


def ordinary(values: FloatArray, second: BoolArray, looks: list[int]) -> bool:
    """Return True if an ordinary test finds a difference at one of the looks, which are numbers of users."""
    for n in looks:
        one, other = values[:n][~second[:n]], values[:n][second[:n]]
        if min(len(one), len(other)) < 2:
            continue
        error = float(np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)))
        if error > 0 and abs(other.mean() - one.mean()) > Z * error:
            return True
    return False


def errors(runs: int, seed: int) -> None:
    """Print how often experiments without a difference are decided."""
    print(
        "| users | rate | second arm | lists | sequential, after every user | ordinary, 100 looks |"
    )
    print("|---|---|---|---|---|---|")
    for n in (2_000, 20_000):
        looks = [round(n * (i + 1) / LOOKS) for i in range(LOOKS)]
        for rate in (0.02, 0.1, 0.3):
            for share, many in ((0.5, False), (0.5, True), (0.1, False), (0.1, True)):
                rng = np.random.default_rng([seed, n, round(100 * rate), round(10 * share), many])
                found, peeked, some = 0, 0, min(runs, 400)
                for run in range(runs):
                    values, second = users_of(rng, n, rate, 0.0, share, many)
                    found += compare(values, second).decided_after is not None
                    peeked += run < some and ordinary(values, second, looks)
                kind = "many" if many else "one"
                print(
                    f"| {n:,} | {rate} | {share} | {kind} | {found / runs:.4f} | {peeked / some:.3f} |",
                    flush=True,
                )


def power(runs: int, seed: int) -> None:
    """Print how often and how soon a difference is found."""
    print("\n| users n | rate | difference | ordinary, once at n | sequential by n | by 2n | by 3n | "
          "users to decide, median |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for n in (2_000, 20_000):
        for rate in (0.02, 0.1, 0.3):
            rng = np.random.default_rng([seed, n, round(100 * rate), 99])
            effect = (Z + NormalDist().inv_cdf(0.8)) * float(np.sqrt(4 * rate * (1 - rate) / n))
            once, when = 0, []
            for _ in range(runs):
                values, second = users_of(rng, 3 * n, rate, effect, 0.5, False)
                once += ordinary(values, second, [n])
                found = compare(values, second, planned=n)
                right = found.second_is_better and found.decided_after is not None
                when.append(float(found.decided_after or 0) if right else float("inf"))
            after = np.array(when)
            shares = [float((after <= m * n).mean()) for m in (1, 2, 3)]
            print(
                f"| {n:,} | {rate} | {effect:.4f} | {once / runs:.3f} | "
                + " | ".join(f"{share:.3f}" for share in shares)
                + f" | {np.median(after):,.0f} |",
                flush=True,
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"commit {commit()}, {given.runs:,} experiments in each row\n")
    errors(given.runs, given.seed)
    power(max(given.runs // 4, 1), given.seed)


if __name__ == "__main__":
    main()
