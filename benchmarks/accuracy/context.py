"""Measure what the context of events adds to the prior, and whether the true context helps. Resumable.

    python -m benchmarks.accuracy.context retail --data DIR
    python -m benchmarks.accuracy.context ml-100k --data DIR --model none
    python -m benchmarks.accuracy.context retail --data DIR --no-prior --columns season,country --users 60

DIR (or $GENREC_DATA) contains the folders of benchmarks.accuracy.public_datasets; demo is embedded in the
package. Columns are country, season, weekday and time_of_day of the shops, and the last three of Stack
Exchange; of MovieLens, weekday and time_of_day, and the user's age group, gender and occupation.

First, the prior alone, on all users: nats of the targets (-ln p) without a context, and with each column
alone and all of them. The prior counts train and validation; the shares of its sources are fitted on
validation, where the source ``context`` is dropped unless it helps significantly.

Then, whether the true context makes the true target likelier than another one: a target's value of one
column is replaced with a value that differs from it, of a target drawn from the same split (seeded). The gain
is nats with the other value minus nats with the true one, of the source alone, of the prior (both with all
columns), and of the model alone, which has not been fine-tuned and reads the context of all events shown. Country is split into users
of the most frequent country and all others. Seasons that train does not hold are left out. Each answer of
the model is kept in .results/context; run it again to continue.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.accuracy.public_datasets import tables
from benchmarks.common import ROOT, commit
from genrec import Dataset, History, Recommender
from genrec.config import CONTEXT, COUNTED
from genrec.data import protocols
from genrec.data.datasets import load, recbole
from genrec.data.interactions import Interactions
from genrec.evaluation.bootstrap import bootstrap
from genrec.priors.context_counts import ContextCounts
from genrec.priors.counts import count
from genrec.priors.mixture import POPULAR, TRENDING, Mixture, normalized_mix
from genrec.priors.mixture_fit import ENOUGH, _shares_of_targets, fit_on_validation, without
from genrec.types import FloatArray

TIMES = ("season", "weekday", "time_of_day")


def retail(folder: Path) -> tuple[Dataset, Sequence[str]]:
    columns = ["user_id", "item_id", "timestamp", "behavior", "value", "invoice", "country"]
    items, events = tables(folder / "online_retail", columns)
    return Dataset.from_tables(items, events, name="online_retail"), ("country", *TIMES)


def demo(folder: Path) -> tuple[Dataset, Sequence[str]]:
    del folder
    return load("online_retail_demo"), ("country", *TIMES)


def stackexchange(folder: Path) -> tuple[Dataset, Sequence[str]]:
    columns = ["user_id", "item_id", "timestamp", "behavior"]
    items, events = tables(folder / "stackexchange_quantum", columns)
    return Dataset.from_tables(items, events, name="stackexchange_quantum"), TIMES


def movielens(folder: Path) -> tuple[Dataset, Sequence[str]]:
    data = recbole(folder / "ml-100k", "ml-100k")
    with (folder / "ml-100k" / "ml-100k.user").open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream, delimiter="\t")
        users = {row[0]: row for row in list(lines)[1:]}
    table = data.interactions.to_table()
    who = [users[u] for u in table["user_id"].to_pylist()]
    values = {
        "age_group": [f"{int(row[1]) // 10 * 10}s" for row in who],
        "gender": [{"M": "man", "F": "woman"}[row[2]] for row in who],
        "occupation": [row[3] for row in who],
    }
    for name, column in values.items():
        table = table.append_column(name, pa.array(column))
    events = Interactions.from_table(table, data.catalog, time_unit="position", unit="none")
    return replace(data, interactions=events, folder=None), (*values, "weekday", "time_of_day")


SETS: dict[str, Callable[[Path], tuple[Dataset, Sequence[str]]]] = {
    "retail": retail, "demo": demo, "stackexchange": stackexchange, "ml-100k": movielens,
}  # fmt: skip


def protocol_of(data: Dataset) -> str:
    """Return the protocol of benchmarks.accuracy.public_datasets."""
    if data.info.name == "online_retail_demo":
        return "demo-v1"
    return "last-unit" if data.info.name == "ml-100k" else "last-out"


class Kept(Mixture):
    """A mixture that computes the distributions of a source only once for the same histories."""

    def shares(self, source: str, histories: Sequence[History]) -> Any:
        if source == CONTEXT:
            return super().shares(source, histories)
        key = source, tuple((h.user_id, len(h)) for h in histories)
        kept = self.__dict__.setdefault("known", {})
        if key not in kept:
            kept[key] = super().shares(source, histories)
        return kept[key]


class Priors:
    """The prior with any of the declared columns, of which everything else is counted only once."""

    def __init__(self, data: Dataset, histories: Sequence[History], rows: Sequence[int]) -> None:
        self.fitting = protocols.with_validation(data, ENOUGH)
        behavior = data.info.target_behavior
        even = dict.fromkeys([*COUNTED, CONTEXT], 1.0)
        self.train = Kept(count(self.fitting, behavior, "validation"), normalized_mix(even, {}))
        self.both = Kept(count(data, behavior, "test"), normalized_mix(even, {}))
        self.rows, self.unread = np.array(rows, dtype=np.int64), frozenset[str]()
        self.histories = histories

    def use(self, columns: Sequence[str]) -> None:
        """Choose the columns of the context, and fit the shares of the sources."""
        for mixture in (self.train, self.both):
            every = mixture.__dict__.setdefault("every", mixture.counts.contexts)
            some = tuple(c for c in every.columns if c.name in columns)
            counts = replace(mixture.counts, contexts=ContextCounts(some))
            object.__setattr__(mixture, "counts", counts)
        names = [*COUNTED, *([CONTEXT] if columns else [])]
        self.mix, self.unread = fit_on_validation(self.train, self.fitting, names, 0)

    @property
    def strengths(self) -> list[float]:
        return [c.strength for c in self.both.counts.contexts.columns]

    def nats(self, contexts: Sequence[Mapping[str, str]] | None = None) -> FloatArray:
        """Return (U,) negative log-probabilities of the targets, in their own or in other contexts."""
        read = [without(h, self.unread) for h in self.histories]
        if contexts is not None:
            read = [replace(h, context=c) for h, c in zip(read, contexts, strict=True)]
        popular = self.both.counts.base.values[self.rows]
        total = self.mix[POPULAR] * popular
        for source, share in self.mix.items():
            if source == TRENDING:
                total += share * self.both.counts.trend[self.rows]
            elif source != POPULAR and share:
                of_target, silent = _shares_of_targets(self.both, source, read, self.rows)
                total += share * np.where(silent, popular, of_target)
        return np.asarray(-np.log(total))

    def source_nats(self, contexts: Sequence[Mapping[str, str]]) -> FloatArray:
        """Return the same for the source ``context`` alone; without a value, for popularity."""
        base, counts = self.both.counts.base.values, self.both.counts.contexts
        found = []
        for context, row in zip(contexts, self.rows, strict=True):
            share = counts.share(context, base)
            found.append(-np.log((base if share is None else share)[row]))
        return np.array(found, dtype=np.float64)


def others(histories: Sequence[History], column: str, seed: int) -> list[History | None]:
    """Replace each history's value of a column with a differing one of another target of the split.

    The result is None for a history without a value, or if no target has another one.
    """
    rng = np.random.default_rng(seed)
    values = [h.context.get(column) for h in histories]
    known = np.array([v for v in values if v is not None], dtype=object)
    found: list[History | None] = []
    for history, value in zip(histories, values, strict=True):
        differing = known[known != value]
        if value is None or not len(differing):
            found.append(None)
            continue
        drawn = str(rng.choice(differing))
        found.append(replace(history, context={**history.context, column: drawn}))
    return found


def groups(data: Dataset, histories: Sequence[History], column: str) -> dict[str, list[int]]:
    """Return the numbers of the cases to report together; see the module's docstring."""
    values = [h.context.get(column) for h in histories]
    numbers = [n for n, v in enumerate(values) if v is not None]
    if column == "season":
        events = data.interactions
        codes = next(c for c in events.context if c.name == column)
        held = set(codes.texts(np.flatnonzero(events.columns.split == 0)))
        numbers = [n for n in numbers if values[n] in held]
    if column != "country":
        return {column: numbers}
    top = Counter(values).most_common(1)[0][0]
    return {
        f"country, not {top}": [n for n in numbers if values[n] != top],
        f"country, {top}": [n for n in numbers if values[n] == top],
    }


class Model:
    """A model that has not been fine-tuned, whose answers are kept in a file."""

    def __init__(self, data: Dataset, arguments: argparse.Namespace) -> None:
        self.recommender = Recommender(
            data, arguments.model, prior="none", template=arguments.template,
            threads=arguments.threads, max_events=arguments.max_events, prompt_memory=256,
        )  # fmt: skip
        named = [arguments.set, arguments.model, self.recommender.template.name]
        self.path = arguments.out / f"{'-'.join(named)}-{arguments.max_events}.jsonl"
        self.kept: dict[str, float] = {}
        if self.path.is_file():
            lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
            self.kept = {line["key"]: line["nats"] for line in lines}
        self.key = self.recommender.tuning_key()[:12]

    def nats(self, history: History, target: str) -> float:
        """Return the negative log-probability of a target among all items."""
        asked = [self.key, history.user_id, target, sorted(history.context.items())]
        key = json.dumps(asked)
        if key not in self.kept:
            (scored,) = self.recommender.score(history, [target])
            assert scored.logprob is not None
            self.kept[key] = -scored.logprob
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "nats": self.kept[key]}) + "\n")
        return self.kept[key]


def cell(values: FloatArray | Sequence[float]) -> str:
    found = bootstrap(values)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument(
        "--users", type=int, default=150, help="most users of a group, for the model"
    )
    parser.add_argument("--model", default="smollm2-135m", help="none to leave the model out")
    parser.add_argument("--template", default=None)
    parser.add_argument("--columns", default=None, help="those to compare with others; default all")
    parser.add_argument("--no-prior", action="store_true", help="only measure the model")
    parser.add_argument("--max-events", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "context")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plain, columns = SETS[arguments.set](arguments.data)
    chosen = columns if arguments.columns is None else arguments.columns.split(",")
    if arguments.no_prior:  # the prompt shows only these
        columns = chosen
    data = plain.with_context(columns)
    cases = protocols.cases(data, protocol_of(data), "test")
    histories, rows = [c.history for c in cases], [data.catalog.row(c.target) for c in cases]
    print(f"{arguments.set}: {len(cases):,} targets, {', '.join(columns)}, commit {commit()}\n")

    priors = None if arguments.no_prior else Priors(data, histories, rows)
    if priors is not None:
        measure_priors(priors, columns)
    model = None if arguments.model == "none" else Model(data, arguments)
    compare_contexts(arguments, data, cases, chosen, priors, model)


def measure_priors(priors: Priors, columns: Sequence[str]) -> None:
    """Print the nats of the prior without a context, with each column and with all of them."""
    priors.use(())
    before = priors.nats()
    print(f"Prior without context: {before.mean():.4f} nats.\n")
    print("| columns | share of context | strength | nats | gain |\n|---|---|---|---|---|")
    for some in [*([c] for c in columns), columns]:
        priors.use(some)
        name, share = ", ".join(some), priors.mix.get(CONTEXT, 0.0)
        strengths = ", ".join(f"{m:,.0f}" for m in priors.strengths)
        after = priors.nats()
        told = f"{share:.3f}" if share else "0 (dropped)"
        print(f"| {name} | {told} | {strengths} | {after.mean():.4f} | {cell(before - after)} |",
              flush=True)  # fmt: skip


def compare_contexts(
    arguments: argparse.Namespace,
    data: Dataset,
    cases: Sequence[protocols.Case],
    columns: Sequence[str],
    priors: Priors | None,
    model: Model | None,
) -> None:
    """Print how much likelier the true context makes the targets than another one."""
    histories = [c.history for c in cases]
    if priors is not None:
        priors.use(data.info.context)
    print("\nNats with another context less nats with the true one:\n")
    print(
        "| column | users | source alone | prior | users | model alone |\n|---|---|---|---|---|---|"
    )
    for column in columns:
        false = others(histories, column, data.info.context.index(column))
        true_contexts = [h.context for h in histories]
        contexts = [
            h.context if f is None else f.context for h, f in zip(histories, false, strict=True)
        ]
        if priors is not None:
            source = priors.source_nats(contexts) - priors.source_nats(true_contexts)
            mixed = priors.nats(contexts) - priors.nats()
        for name, numbers in groups(data, histories, column).items():
            these = [n for n in numbers if false[n] is not None]
            cells = [name, f"{len(these):,}", "", ""]
            if priors is not None:
                share = priors.mix.get(CONTEXT)
                cells[2:] = [cell(source[these]), cell(mixed[these]) if share else "no share"]
            if model is None:
                cells += ["", ""]
            else:
                few = np.random.default_rng(0).permutation(len(these))[: arguments.users]
                gains = []
                for place in sorted(few.tolist()):
                    number = these[place]
                    target, other = cases[number].target, false[number]
                    assert other is not None
                    gains.append(model.nats(other, target) - model.nats(histories[number], target))
                cells += [f"{len(few):,}", cell(gains)]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
