"""Measure who still finds the next item when items or users are new. Resumable.

    genrec train DIR --protocol demo-v1 --behaviors buy --holdout 0.1 --out RUN
    python -m benchmarks.accuracy.cold items --run RUN --threads 1
    python -m benchmarks.accuracy.cold users --users 200 --threads 1
    python -m benchmarks.accuracy.cold attributes --set ml-100k --data DIR

Uses the embedded data. ``items``: a tenth of the catalog was never sold. The events of these items before
test are removed, also from histories, nothing is fitted on them, and then they are in the catalog. The
demo-v1 test cases whose target is one of them are ranked among all items and among the new ones alone. RUN
is optional and must have learned without the same items as targets. Everything is fitted on train.

``users``: seeded demo-v1 test cases of whose history only the latest 0, 1, 2 or 5 purchases are known. The
run is the one in the package; it learned from train and validation, and so do prior and baselines here.

``attributes``: as ``items``, on a set of benchmarks.accuracy.knowledge and by counting alone, with and without the
attributes of the items. The catalog is divided into ten parts at random; each of the first --folds parts is the
new tenth once, and the cases of all are put together. The differences are paired. The share of the attributes
is at least .01, since they are named as a source; validation has no target without events.

Where model and prior are fused, the weights are fitted on 200 validation users of the same data
(``items``), or are the defaults of the embedded sample and of the package's run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import ROOT, commit
from genrec import Dataset, History, Recommender
from genrec.baselines.registry import fit
from genrec.config import KNOWLEDGE
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.interactions import Interactions
from genrec.evaluation import bootstrap, metrics, tuning
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.training import examples
from genrec.training.config import Training

K = 10
SHOWN = (0, 1, 2, 5)
Ranks = Callable[[History, str], dict[str, float]]


def without(data: Dataset, rows: Sequence[int]) -> Dataset:
    """Remove the events before test of some catalog rows."""
    c = data.interactions.columns
    kept = ~np.isin(c.row, rows) | (c.split == 2)
    events = data.interactions.to_table().take(np.flatnonzero(kept))
    return replace(data, interactions=Interactions.from_table(events, data.catalog), folder=None)


def by_scores(
    data: Dataset, scores: Callable[[History], Sequence[float]], new: Sequence[int]
) -> Ranks:
    """Rank by a number for every item."""

    def found(history: History, target: str) -> dict[str, float]:
        values, row = np.asarray(scores(history), dtype=float), data.catalog.row(target)
        made = {"all": _place(values, values[row])}
        if len(new):
            made["new"] = _place(values[list(new)], values[row])
        return {name: r if r <= K else 0.0 for name, r in made.items()}

    return found


def _place(values: np.ndarray, own: float) -> float:
    """Return a value's rank, from 1, in the middle of the values that equal it."""
    return float((values > own).sum() + ((values == own).sum() + 1) // 2)


def by_model(recommender: Recommender, new: Sequence[int]) -> Ranks:
    """Rank with a recommender; return the ranks and the nats of the targets."""
    ids = [recommender.catalog[row].item_id for row in new]

    def found(history: History, target: str) -> dict[str, float]:
        answer, nats, _ = recommender.with_nats(history, K, target)
        made = {"all": float(metrics.rank_of(target, [r.item_id for r in answer])), "nats": nats}
        if ids:
            best = [s.item_id for s in recommender.score(history, ids)][:K]
            made["new"] = float(metrics.rank_of(target, best))
        return made

    return found


def measured(
    name: str,
    make: Callable[[], Ranks],
    asked: Sequence[tuple[str, History, str]],
    out: Path,
    about: Sequence[str],
) -> list[dict[str, float]]:
    """Measure every case, one line each in a file; ``about`` is what else the lines depend on."""
    state = [about, [(user, target, len(history)) for user, history, target in asked]]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    path = out / f"{name}-{key}.json"
    if path.is_file():
        kept: list[dict[str, float]] = json.loads(path.read_text())
        return kept
    ranks = make()
    found = [ranks(history, target) for _, history, target in asked]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def cell(values: Sequence[float] | np.ndarray) -> str:
    found = bootstrap.bootstrap(values)
    said = f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"
    return re.sub(r"(?<!\d)0\.", ".", said)


def row(name: str, lines: Sequence[Mapping[str, float]], places: Sequence[str]) -> str:
    cells = []
    for place in places:
        ranks = [int(line[place]) for line in lines]
        cells += [cell(metrics.hit_rate(ranks, K)), cell(metrics.ndcg(ranks, K))]
    nats = cell([line["nats"] for line in lines]) if "nats" in lines[0] else "-"
    return f"| {name} | {' | '.join(cells)} | {nats} |"


def fused(system: Recommender) -> Recommender:
    """Add the collaborative prior to a recommender, with weights fitted on validation."""
    found = tuning.tune(system, protocol="demo-v1")
    return system.with_settings(
        prior="collaborative",
        fusion="node",
        prior_weight=found.weights["node"],
        node_temperature=found.temperatures["node"],
    )


def items(arguments: argparse.Namespace) -> None:
    data = load("online_retail_demo")
    kept = set(examples.choose_kept_rows(len(data.catalog), Training(holdout=0.1)).tolist())
    new = [r for r in range(len(data.catalog)) if r not in kept]
    data = without(data, new)
    cases = [
        c for c in protocols.cases(data, "demo-v1", "test") if data.catalog.row(c.target) in new
    ]
    asked = [(c.user_id, c.history, c.target) for c in cases]
    known = protocols.withhold(data, "test")
    options = {
        "threads": arguments.threads,
        "exclude_seen": False,
        "prior": "none",
        "prior_events": "train",
    }

    def scorer(name: str) -> Ranks:
        made = fit(name, data)
        return by_scores(data, lambda history: made.scores(history).tolist(), new)

    def prior(mix: Mapping[str, float] | None = None) -> Ranks:
        made = CollaborativePrior.fit(data, mix=mix)
        return by_scores(data, lambda history: made.logprobs(history).tolist(), new)

    def former() -> Ranks:
        made = CollaborativePrior.fit(data, sources=[n for n in COUNTED if n != "titles"])
        return by_scores(data, lambda history: made.logprobs(history).tolist(), new)

    def base() -> Recommender:
        return Recommender(known, arguments.model, **options)

    def run() -> Recommender:
        return Recommender.load(arguments.run, known, **options)

    systems: dict[str, Callable[[], Ranks]] = {
        "popular": lambda: scorer("popular"),
        "content": lambda: scorer("content"),
        "textseq": lambda: scorer("textseq"),
        "prior without titles": former,
        "prior": prior,
        "zero-shot": lambda: by_model(base(), new),
        "zero-shot + prior": lambda: by_model(fused(base()), new),
    }
    if arguments.run is not None:
        systems["tuned"] = lambda: by_model(run(), new)
        systems["tuned + prior"] = lambda: by_model(fused(run()), new)
    about = [arguments.model, protocols.fingerprint(data)]
    if arguments.run is not None:
        about.append((arguments.run / "run.json").read_text())
    print(f"{len(new)} new items of {len(data.catalog)}, {len(cases)} cases, commit {commit()}\n")
    print(
        "| system | HR@10 of all | NDCG@10 of all | HR@10 of the new | NDCG@10 of the new | nats |"
    )
    print("|---|---|---|---|---|---|")
    for name, make in systems.items():
        lines = measured(name, make, asked, arguments.out / "items", about)
        print(row(name, lines, ["all", "new"]), flush=True)


def attributes(arguments: argparse.Namespace) -> None:
    from benchmarks.accuracy.knowledge import SETS
    from benchmarks.accuracy.knowledge import cell as signed

    whole, columns = SETS[arguments.set](arguments.data)
    parts = np.random.default_rng(0).integers(0, 10, len(whole.catalog))
    found: dict[str, list[dict[str, float]]] = {}
    for fold in range(arguments.folds):
        new = np.flatnonzero(parts == fold).tolist()
        data = without(whole, new)
        protocol = protocols.default_protocol(data)
        cases = [
            c for c in protocols.cases(data, protocol, "test") if data.catalog.row(c.target) in new
        ]
        asked = [(c.user_id, c.history, c.target) for c in cases]
        plain = [name for name in COUNTED if name != "titles"]
        for name, sources, names in (
            ("prior without titles", plain, ()),
            ("prior", [*COUNTED], ()),
            ("prior without titles, attributes", [*plain, KNOWLEDGE], columns),
            ("prior, attributes", [*COUNTED, KNOWLEDGE], columns),
        ):
            known = data.with_knowledge(names)

            def make(
                known: Dataset = known, sources: Sequence[str] = sources, new: Sequence[int] = new
            ) -> Ranks:
                prior = CollaborativePrior.fit(known, sources=sources)
                return by_scores(known, lambda history: prior.logprobs(history).tolist(), new)

            about = [arguments.set, protocols.fingerprint(data), *names]
            lines = measured(name, make, asked, arguments.out / "attributes", about)
            found.setdefault(name, []).extend(lines)
    print(f"{arguments.set}: {len(found['prior'])} cases of new items, commit {commit()}\n")
    print("| system | HR@10 of all | HR@10 of the new | NDCG@10 of the new |\n|---|---|---|---|")
    for name, lines in found.items():
        cells = []
        for place, metric in (
            ("all", metrics.hit_rate),
            ("new", metrics.hit_rate),
            ("new", metrics.ndcg),
        ):
            values = metric([int(line[place]) for line in lines], K)
            text = f"{values.mean():.4f}"
            if name.endswith(", attributes"):
                usual = found[name.removesuffix(", attributes")]
                text += f" ({signed(values - metric([int(line[place]) for line in usual], K))})"
            cells.append(text)
        print(f"| {name} | {' | '.join(cells)} |")


def users(arguments: argparse.Namespace) -> None:
    data = load("online_retail_demo")
    cases = protocols.sample(protocols.cases(data, "demo-v1", "test"), arguments.users)
    known = protocols.withhold(data, "test")
    options = {
        "threads": arguments.threads,
        "exclude_seen": False,
        "prior_events": "train+validation",
    }

    def scorer(name: str) -> Ranks:
        made = fit(name, data, before="test")
        return by_scores(data, lambda history: made.scores(history).tolist(), [])

    def prior() -> Ranks:
        made = CollaborativePrior.fit(data, before="test")
        return by_scores(data, lambda history: made.logprobs(history).tolist(), [])

    def model(run: str | None, name: str) -> Ranks:
        settings = {**options, "prior": name}
        if run is None:
            return by_model(Recommender(known, arguments.model, **settings), [])
        return by_model(Recommender.load(run, known, **settings), [])

    run = "online_retail_demo"
    systems: dict[str, Callable[[], Ranks]] = {
        "popular": lambda: scorer("popular"),
        "markov": lambda: scorer("markov"),
        "prior": prior,
        "zero-shot": lambda: model(None, "none"),
        "zero-shot + prior": lambda: model(None, "collaborative"),
        "tuned": lambda: model(run, "none"),
        "tuned + prior": lambda: model(run, "collaborative"),
    }
    about = [arguments.model, protocols.fingerprint(data)]
    print(f"{len(cases)} users, commit {commit()}\n")
    print("| purchases known | system | HR@10 | NDCG@10 | nats |\n|---|---|---|---|---|")
    for shown in SHOWN:
        asked = [(c.user_id, c.history.latest(shown), c.target) for c in cases]
        for name, make in systems.items():
            lines = measured(name, make, asked, arguments.out / f"users-{shown}", about)
            print(f"| {shown} {row(name, lines, ['all'])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["items", "users", "attributes"])
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--set", default="ml-100k", help="for attributes")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--folds", type=int, default=5, help="for attributes")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "cold")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    {"items": items, "users": users, "attributes": attributes}[arguments.kind](arguments)


if __name__ == "__main__":
    main()
