"""Measure what each source adds to the collaborative prior. Resumable.

    python -m benchmarks.accuracy.mixes demo --base popular markov itemknn own recent --with trending ease
    python -m benchmarks.accuracy.mixes beauty --data DIR --with sasrec content

Protocols are those of public_datasets.py. The prior counts train. To the ``--base`` sources (by default all
that it counts itself) each other source is added alone, and then all of them; other sources may be counted
ones or baselines fitted on train. Mixing weights are those under which the targets of validation users are
most likely. Nats are of validation users that took no part in the fit (two halves, crosswise). R@10 and
N@10 are of the test cases, with paired differences from the prior as it is. Fitted baselines are shared
with public_datasets.py.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.public_datasets import TASKS, chosen, interval, ranks_by
from benchmarks.common import ROOT, commit
from genrec.baselines import registry
from genrec.data import protocols
from genrec.evaluation import bootstrap, metrics
from genrec.priors.collaborative import COUNTED, LEARNED, CollaborativePrior
from genrec.priors.counts import count

USERS = 1000


def crosswise(
    fitted: Callable[[Sequence[protocols.Case]], CollaborativePrior],
    cases: Sequence[protocols.Case],
) -> float:
    """Return mean nats of each half of the users under the prior fitted on the other half."""
    halves, nats = (cases[::2], cases[1::2]), []
    for one, other in (halves, halves[::-1]):
        prior = fitted(one)
        for case in other:
            row = prior.counts.catalog.row(case.target)
            nats.append(-float(prior.logprobs(case.history)[row]))
    return float(np.mean(nats))


def compared(ranks: Sequence[int], plain: Sequence[int] | None) -> list[str]:
    """Format R@10 and N@10 with intervals and paired differences from other ranks."""
    cells = []
    for metric in (metrics.hit_rate, metrics.ndcg):
        mine, beside = np.array(metric(ranks, 10)), ""
        if plain is not None:
            d = bootstrap.bootstrap(mine - np.array(metric(plain, 10)), draws=2000)
            beside = f" ({d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}])"
        cells.append(interval(mine) + beside)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--base", nargs="+", default=list(COUNTED), choices=COUNTED)
    parser.add_argument(
        "--with",
        dest="more",
        nargs="+",
        default=["content", "sasrec"],
        choices=[*COUNTED, *LEARNED],
    )
    parser.add_argument("--users", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "accuracy")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder, make = TASKS[arguments.set]
    task = chosen(make(arguments.data / folder), arguments.users)
    data = task.data
    behavior = data.info.target_behavior
    counts = count(data, behavior, "validation")
    scorers = {
        name: registry.fit(
            name,
            data,
            before="validation",
            folder=arguments.out / "fits" / arguments.set,
            log=lambda text: print(f"  {text}", flush=True),
        )
        for name in arguments.more
        if name in LEARNED
    }
    others = [n for n in arguments.more if n not in arguments.base]
    every = protocols.cases(data, protocols.default_protocol(data), "validation")
    cases = protocols.sample(every, USERS)
    print(f"{arguments.set}: {len(cases)} users of validation, {len(task.cases)} cases of test")
    print(f"commit {commit()}\n")
    print("| mixed in | weights | nats | R@10 | N@10 | s a history |\n|---|---|---|---|---|---|")
    plain: list[int] = []
    for more in [(), *((n,) for n in others), *([tuple(others)] if len(others) > 1 else [])]:
        names = (*arguments.base, *more)
        own = {n: scorers[n] for n in more if n in scorers}
        first = CollaborativePrior(counts, dict.fromkeys(names, 1.0), own)

        def fitted(some: Sequence[protocols.Case]) -> CollaborativePrior:
            told = [c.history for c in some], [c.target for c in some]
            return CollaborativePrior(counts, first.mixed(*told, names), own)  # noqa: B023

        nats = crosswise(fitted, cases)
        prior = fitted(cases)
        began = time.process_time()
        ranks = ranks_by(task, prior)
        seconds = (time.process_time() - began) / len(ranks)
        plain = plain or ranks
        cells = compared(ranks, plain if more else None)
        weights = ", ".join(f"{n} {w:.3f}" for n, w in prior.mix.items() if w)
        print(
            f"| {', '.join(more) or 'nothing'} | {weights} | {nats:.4f} "
            f"| {' | '.join(cells)} | {seconds:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
