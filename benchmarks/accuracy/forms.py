"""Measure what asking a model in several ways adds, alone and with the prior. Resumable.

    python -m benchmarks.accuracy.forms demo --threads 1
    python -m benchmarks.accuracy.forms beauty --data DIR --users 200 --threads 1
    python -m benchmarks.accuracy.forms beauty --data DIR --titles short
    python -m benchmarks.accuracy.forms demo --run RUN

Data sets are those of public_datasets.py. Users are those of `genrec tune`: validation users, with a prior
that counts train. The model reads every form of the prompt: other templates, events of one moment in
another order, only the latest events or more of them, demonstrations, no history at all. The logits of all
children at the choices that lead to the target are kept in .results/forms; run it again to continue.

The rest is arithmetic. ``product`` takes the mean of the forms' log-probabilities at each choice, if the
forms have the same choices (another template may split titles into other tokens). ``mean`` takes the mean
of the item's probabilities. ``less nothing`` takes off what the model says without a history, as much as
the fit says. Temperature and weights are fitted crosswise (each half of the users by the other half), for
the model alone and with the prior.

``--titles short`` keeps only as many words of each title as tell it from all others, at least two.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from benchmarks.accuracy.public_datasets import TASKS, interval, rows
from benchmarks.common import ROOT, commit
from genrec import Recommender
from genrec.data import protocols
from genrec.data.events import History
from genrec.decoding.trie import TitleTrie
from genrec.evaluation.scoring_pass import read_choices
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.positions import PositionWeights
from genrec.types import FloatArray

BASE = "next_item"
ORDERS = ("order 1", "order 2", "order 3")
WINDOWS = ("last 5", "last 10")
SHORT = ("online_retail", "s3_beauty", "s3_toys", "msl_amazon_books")  # whose titles can be cut


@dataclass(frozen=True)
class Steps:
    """Choices that lead to one target under one form: C children in all, L choices.

    Attributes:
        logits: (C,) log-probabilities of the model among the children of each choice.
        mass: (C,) log of the prior's weights below each child.
        start: (L,) where the children of each choice begin.
        taken: (L,) which child leads to the target.
        tokens: of the prompt.
    """

    logits: FloatArray
    mass: FloatArray
    start: npt.NDArray[np.int64]
    taken: npt.NDArray[np.int64]
    tokens: int


Forms = dict[str, Steps]


def shuffled(history: History, seed: int) -> History:
    """Shuffle the events of one moment."""
    rng = np.random.default_rng([seed, len(history.interactions)])
    events = list(history.interactions)
    order: list[int] = []
    first = 0
    for last in range(1, len(events) + 1):
        if last == len(events) or events[last].timestamp != events[first].timestamp:
            order += [first + int(i) for i in rng.permutation(last - first)]
            first = last
    return replace(history, interactions=tuple(events[i] for i in order))


def forms(plain: Recommender) -> dict[str, Callable[[History], tuple[Recommender, History]]]:
    """Return each way to ask: a function from a history to a recommender and its history."""
    asked = {
        "sentence": plain.with_settings(template="sentence"),
        "few_shot 2": plain.with_settings(few_shot=2),
        "few_shot 4": plain.with_settings(few_shot=4),
        "last 50": plain.with_settings(max_events=50),
        **{name: plain.with_settings(max_events=int(name.split()[1])) for name in WINDOWS},
    }
    found: dict[str, Callable[[History], tuple[Recommender, History]]] = {
        BASE: lambda history: (plain, history),
        "nothing": lambda history: (plain, replace(history, interactions=())),
    }
    for name, system in asked.items():
        found[name] = lambda history, system=system: (system, history)  # type: ignore[misc]
    for seed, name in enumerate(ORDERS):
        found[name] = lambda history, seed=seed: (plain, shuffled(history, seed))  # type: ignore[misc]
    return found


def read(system: Recommender, asked: History, whole: History, target: str) -> tuple[Any, int]:
    """Return the logits of the choices that lead to a target, and the prompt's length in tokens."""
    trie, source = system.trie, system.prior
    assert isinstance(trie, TitleTrie)
    assert source is not None
    prompt = system.prompt(asked).ids
    place = trie.find_positions(np.array([system.catalog.row(target)]))
    tree = system.model.prefill(prompt)
    fused = PositionWeights([source.weights(whole)], trie)
    return read_choices(trie, tree, fused, place, np.zeros(1), np.ones(1, dtype=bool)), len(prompt)


def path_of(asked: Mapping[str, Any], whole: History, target: str) -> dict[str, Any]:
    """Return all forms' choices for one user, as arrays by name."""
    found: dict[str, Any] = {}
    for form, ask in asked.items():
        system, history = ask(whole)
        scored, tokens = read(system, history, whole, target)
        choices, taken = scored.path()
        bounds = np.append(scored.start, len(scored.logits))
        parts = [slice(bounds[c], bounds[c + 1]) for c in choices]
        logits = [scored.logits[p] - np.logaddexp.reduce(scored.logits[p]) for p in parts]
        start = np.cumsum([0, *(len(each) for each in logits)])[:-1]
        steps = Steps(
            np.concatenate(logits).astype(np.float32),
            np.concatenate([scored.mass[p] for p in parts]),
            start,
            start + taken - bounds[choices],
            tokens,
        )
        found |= {f"{form}/{f.name}": getattr(steps, f.name) for f in fields(Steps)}
    return found


def loaded(values: Any) -> Forms:
    names = [key.removesuffix("/logits") for key in values.files if key.endswith("/logits")]
    return {n: Steps(**{f.name: values[f"{n}/{f.name}"] for f in fields(Steps)}) for n in names}


def together(path: Forms, group: Sequence[str]) -> FloatArray | None:
    """(C,) the mean of some forms' log-probabilities; None where they do not have the same choices."""
    if len({len(path[n].logits) for n in group}) > 1:
        return None
    return np.asarray(np.mean([path[n].logits for n in group], axis=0), dtype=np.float64)


def nats(
    columns: Sequence[FloatArray], path: Steps, weights: FloatArray
) -> tuple[float, FloatArray]:
    """-ln P of a target for a sum of columns, and its slope by the weights."""
    table = np.stack(columns, axis=1)
    x = table @ weights
    source = np.repeat(np.arange(len(path.start)), np.diff(path.start, append=len(x)))
    peak = np.maximum.reduceat(x, path.start)
    share = np.exp(x - peak[source])
    total = np.add.reduceat(share, path.start)
    share /= total[source]
    value = float((peak + np.log(total) - x[path.taken]).sum())
    return value, share @ table - table[path.taken].sum(axis=0)


def crosswise(paths: Sequence[Steps], made: Sequence[list[FloatArray]]) -> FloatArray:
    """(U,) nats of each half of the users by columns whose weights are fitted to the other half."""
    found = np.empty(len(paths))
    for first in (0, 1):
        others = range(1 - first, len(paths), 2)

        def loss(weights: FloatArray, others: range = others) -> tuple[float, FloatArray]:
            values = [nats(made[n], paths[n], weights) for n in others]
            slope = np.sum([s for _, s in values], axis=0)
            return sum(v for v, _ in values) / len(others), slope / len(others)

        start = np.full(len(made[0]), 0.3)
        best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
        for n in range(first, len(paths), 2):
            found[n] = nats(made[n], paths[n], best)[0]
    return found


def combinations(of: Sequence[str]) -> dict[str, list[str]]:
    """Return the combinations of forms by name."""
    groups = {
        "next_item, sentence": [BASE, "sentence"],
        "next_item and three orders": [BASE, *ORDERS],
        "next_item, last 5, last 10": [BASE, *WINDOWS],
        "next_item, few_shot 2 and 4": [BASE, "few_shot 2", "few_shot 4"],
        "all of these": [BASE, "sentence", *ORDERS, *WINDOWS, "few_shot 2", "few_shot 4"],
    }
    return {name: forms for name, forms in groups.items() if set(forms) <= set(of)}


def table(paths: Sequence[Forms]) -> list[str]:
    lines = [
        "| form | tokens | nats alone | less next_item | nats with the prior | less next_item |"
    ]
    lines.append("|---" * 6 + "|")
    base: list[FloatArray] = []

    def row(name: str, values: Sequence[FloatArray], tokens: float) -> None:
        if not base:
            base.extend(values)
        cells = []
        for value, plain in zip(values, base, strict=True):
            cells += [interval(value, 3), "" if plain is value else interval(value - plain, 3)]
        lines.append(f"| {name} | {tokens:.0f} | {' | '.join(cells)} |")

    def both(form: str, columns: Sequence[list[FloatArray]]) -> list[FloatArray]:
        steps = [path[form] for path in paths]
        fused = [[*c, s.mass] for c, s in zip(columns, steps, strict=True)]
        return [crosswise(steps, columns), crosswise(steps, fused)]

    single: dict[str, list[FloatArray]] = {}
    tokens = {n: float(np.mean([p[n].tokens for p in paths])) for n in paths[0]}
    for name in paths[0]:
        single[name] = both(name, [[p[name].logits] for p in paths])
        row(name, single[name], tokens[name])
    less = [[p[BASE].logits, p["nothing"].logits] for p in paths]
    row("less nothing", both(BASE, less), tokens[BASE] + tokens["nothing"])
    for name, group in combinations(list(paths[0])).items():
        cost = sum(tokens[n] for n in group)
        product = [together(p, group) for p in paths]
        if all(p is not None for p in product):
            row(f"{name}: product", both(BASE, [[p] for p in product if p is not None]), cost)
        mean = [
            -np.logaddexp.reduce([-single[n][i] for n in group], axis=0) + np.log(len(group))
            for i in (0, 1)
        ]
        row(f"{name}: mean", mean, cost)
    return lines


def short(titles: Sequence[str], least: int = 2) -> list[str]:
    """Cut each title to the first words that tell it from all others, at least ``least``."""
    words = [title.split() for title in titles]
    counts = Counter(tuple(w[:n]) for w in words for n in range(1, len(w) + 1))
    whole = Counter(tuple(w) for w in words)
    found = []
    for each in words:
        same = whole[tuple(each)]  # items of the very same title stay together
        lengths = range(min(least, len(each)), len(each) + 1)
        n = next((n for n in lengths if counts[tuple(each[:n])] == same), len(each))
        found.append(" ".join(each[:n]))
    return found


def cut(folder: Path, out: Path) -> Path:
    """Copy a folder with short titles; link its other files."""
    new = out / f"{folder.name}-short" / folder.name
    if not new.is_dir():
        new.mkdir(parents=True)
        for path in folder.iterdir():
            if path.name != "items.csv.gz":
                (new / path.name).symlink_to(path.resolve())
        items = rows(folder / "items.csv.gz")
        for item, title in zip(items, short([r["title"] for r in items]), strict=True):
            item["title"] = title
        with gzip.open(new / "items.csv.gz", "wt", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(items[0]))
            writer.writeheader()
            writer.writerows(items)
    return new


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--run", help="run folder or name, in place of --model")
    parser.add_argument("--titles", choices=("whole", "short"), default="whole")
    parser.add_argument("--forms", help="only these, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "forms")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name, make = TASKS[arguments.set]
    folder = arguments.data / name
    if arguments.titles == "short":
        if name not in SHORT:
            parser.error(f"--titles short is for one of {', '.join(SHORT)}")
        folder = cut(folder, arguments.out)
    task = make(folder)
    protocol = task.protocol or protocols.default_protocol(task.data)
    data = protocols.with_validation(protocols.apply_protocol(task.data, protocol), 50)
    options: dict[str, Any] = {"threads": arguments.threads, "prior": "collaborative", "log": print}
    if arguments.run:
        plain = Recommender.load(arguments.run, data, **options)
    else:
        plain = Recommender(data, arguments.model, **options)
    cases = protocols.sample(protocols.cases(data, protocol, "validation"), arguments.users, 0)
    print(f"{arguments.set}: {len(cases)} validation users, {plain.model.name}, {commit()}")
    asked = forms(plain)
    if arguments.forms:
        asked = {n: asked[n] for n in (BASE, "nothing", *arguments.forms.split(","))}
    about = [plain.tuning_key(), arguments.run, protocol, protocols.fingerprint(data)]
    state = [*about, plain.prior.mix if isinstance(plain.prior, CollaborativePrior) else None]
    key = hashlib.sha256(json.dumps([*state, sorted(asked)]).encode()).hexdigest()[:16]
    kept = arguments.out / f"{arguments.set}-{key}"
    kept.mkdir(parents=True, exist_ok=True)
    paths, began = [], time.monotonic()
    for number, case in enumerate(cases):
        path = kept / f"{hashlib.sha256(case.user_id.encode()).hexdigest()[:16]}.npz"
        if not path.is_file():
            new = path.with_suffix(".new.npz")
            np.savez(new, **path_of(asked, case.history, case.target))
            new.replace(path)
            if number % 20 == 19:
                print(f"{number + 1} users, {time.monotonic() - began:.0f} s", flush=True)
        with np.load(path, allow_pickle=False) as values:
            paths.append(loaded(values))
    print("\n".join(table(paths)))


if __name__ == "__main__":
    main()
