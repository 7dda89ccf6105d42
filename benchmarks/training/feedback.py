"""Measure what a run learns from new events and items, and whether it forgets. Resumable.

    genrec train DIR --protocol demo-v1 --behaviors buy --holdout 0.05 --out RUN
    python -m benchmarks.training.feedback --run RUN --threads 1

DIR is the embedded data, and RUN learned from train without 5% of the items. It continues with the validation
units of all users as new events, in which those items are sold, too: once with as many old titles learned
again as new ones (the default), and once with none. Nats without a prior are measured before and after: of
what test users take next (known items, and items that were no targets before), and of the first item of each
user's last unit of train, which the run had learned (some of them are among those learned again). The old
events are those of the known items. Results for one RUN and these settings are kept in a folder of their
own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, commit
from benchmarks.training.recipe import nats
from genrec import Dataset, Recommender, runs
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.interactions import Interactions
from genrec.data.splits import split_last_unit
from genrec.data.updates import apply_updates
from genrec.evaluation import bootstrap
from genrec.training import examples
from genrec.training.config import Training
from genrec.training.trainer import train

Groups = dict[str, list[protocols.Case]]


def part(data: Dataset, split: int, kept: set[int] | None = None) -> Dataset:
    """Keep the events of train (0) or validation (1), and only of the rows ``kept`` if given."""
    c = data.interactions.columns
    chosen = c.split == split
    if kept is not None:
        chosen &= np.isin(c.row, list(kept))
    events = data.interactions.to_table().take(np.flatnonzero(chosen))
    found = Interactions.from_table(events, data.catalog)
    return replace(data, interactions=found)


def write(data: Dataset, path: Path) -> None:
    """Write new events as the CSV file that a shop would have."""
    columns = ("user_id", "item_id", "behavior", "timestamp", "unit")
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        events = data.interactions.to_table()
        writer.writerows(zip(*(events[c].to_pylist() for c in columns), strict=True))


def groups(data: Dataset, old: Dataset, kept: set[int], users: int) -> Groups:
    """Return the test cases by group: known items, new items, and items learned before."""
    tests = protocols.cases(data, "demo-v1", "test")
    split = split_last_unit(old.interactions, data.info.target_behavior)
    past = protocols.cases(replace(old, interactions=split), "demo-v1", "test")
    row = data.catalog.row
    return {
        "next, a known item": protocols.sample([c for c in tests if row(c.target) in kept], users),
        "next, a new item": [c for c in tests if row(c.target) not in kept],
        "learned before": protocols.sample([c for c in past if row(c.target) in kept], users),
    }


def measured(
    run: Path, data: Dataset, found: Groups, out: Path, threads: int
) -> dict[str, list[float]]:
    """Return each group's nats by case, from the file if it exists."""
    values: dict[str, list[float]] = json.loads(out.read_text()) if out.is_file() else {}
    recommender = Recommender.load(run, data, prior="none", threads=threads)
    for name, cases in found.items():
        if name not in values:
            values[name] = nats(recommender, cases)
            new = out.with_name(f"{out.name}.new")
            new.write_text(json.dumps(values))
            new.replace(out)
    return values


def cell(values: Sequence[float], before: Sequence[float] | None = None) -> str:
    """Format a mean with its interval, or a paired difference."""
    sign = "" if before is None else "+"
    found = bootstrap.bootstrap(np.array(values) - (0.0 if before is None else np.array(before)))
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--users", type=int, default=150, help="of each group, at most")
    parser.add_argument("--targets", type=int, default=None, help="default: all new events, once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "feedback")
    arguments = parser.parse_args()
    adapter = arguments.run / runs.ADAPTER / "adapter_model.safetensors"
    state = [hashlib.sha256(adapter.read_bytes()).hexdigest(), arguments.users, arguments.targets]
    place = arguments.out / hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    recipe = Training(**runs.Run.read(arguments.run).training)
    data = load("online_retail_demo")
    kept = set(examples.choose_kept_rows(len(data.catalog), recipe).tolist())
    old = part(data, 0, kept)
    write(part(data, 1), place / "new.csv")
    both, new = apply_updates(old, place / "new.csv")
    found = groups(data, old, kept, arguments.users)
    print(f"commit {commit()}: {int(new.sum()):,} new events of {len(new):,}")
    asked = [f"{name} ({len(cases)})" for name, cases in found.items()]
    print("| | " + " | ".join(asked) + " |\n|---" + "|---" * len(asked) + "|")
    threads = arguments.threads
    before = measured(arguments.run, data, found, place / "before.json", threads)
    print("| before | " + " | ".join(cell(before[n]) for n in found) + " |", flush=True)
    for replay in (1.0, 0.0):
        run = place / f"replay-{replay:g}"
        if not (run / "run.json").is_file():
            most = None if arguments.targets is None else round(arguments.targets * (1 + replay))
            train(
                both, run, since=arguments.run, new=new, resume=run.is_dir(), replay=replay,
                behaviors=recipe.behaviors, basket=recipe.basket, vocab_weight=recipe.vocab_weight,
                max_targets=most, epochs=1.0, eval_users=0, threads=threads,
                log=lambda text: print(f"  {text}", flush=True),
            )  # fmt: skip
        after = measured(run, data, found, place / f"replay-{replay:g}.json", threads)
        cells = " | ".join(f"{cell(after[n])} ({cell(after[n], before[n])})" for n in found)
        print(f"| after, replay {replay:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
