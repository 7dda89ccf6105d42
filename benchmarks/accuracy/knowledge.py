"""Measure what attributes, a knowledge graph and given vectors add to the prior and its ranker. Resumable.

    python -m benchmarks.accuracy.knowledge ml-100k --data DIR
    python -m benchmarks.accuracy.knowledge stackexchange --data DIR
    python -m benchmarks.accuracy.knowledge retail --data DIR --users 1000

DIR (or $GENREC_DATA) contains the folders of benchmarks.accuracy.public_datasets; demo is embedded in the
package. Attributes are the classes and years of ml-100k (the atomic files of RecBole, which its wheel has),
the tags of Stack Exchange, and the prices of the shops. The graph is ml-100k.kg, with ml-100k.link. ``vectors``
are title vectors of MiniLM, given as vectors of the items.

Everything is counted on train and validation, and the shares of the sources are fitted on validation. ``auto``:
a source is dropped if it does not help there; ``named``: it was asked for, and has at least a share of .01.
Nats (-ln p) and NDCG@10 are those of the test targets among the items that may be recommended: without the user's
own items, if the dataset leaves them out. Differences are paired, with intervals over users. Results of a
system are kept in .results/knowledge.

``graph`` first says whether the graph belongs to the items: the mutual information of the graph's genres and the
items' classes, beside that of 50 random assignments of the same entities to the items.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.accuracy.public_datasets import rows
from benchmarks.common import ROOT, commit
from genrec import Dataset
from genrec.config import COUNTED, KNOWLEDGE, VECTORS
from genrec.data import protocols
from genrec.data.datasets import load, recbole
from genrec.data.item_vectors import ItemVectors
from genrec.data.knowledge import read_triples
from genrec.data.readers.rejects import Rejects
from genrec.evaluation.bootstrap import bootstrap
from genrec.matching.vectors import item_vectors
from genrec.priors.collaborative import CollaborativePrior
from genrec.types import FloatArray

K = 10
EVENTS = ("user_id", "item_id", "timestamp", "behavior", "value", "invoice")


def with_columns(folder: Path, name: str) -> Dataset:
    """Read a set with all columns of its items, which ``public_datasets.tables`` leaves out."""
    items, events = (rows(folder / f) for f in ("items.csv.gz", "interactions.csv.gz"))
    for row in items:
        row["title"] = row["title"] or f"untitled {row['item_id']}"
    columns = [c for c in EVENTS if c in events[0]]
    return Dataset.from_tables(
        pa.table({c: [r[c] for r in items] for c in items[0]}),
        pa.table({c: [r[c] for r in events] for c in columns}),
        name=name,
    )


def movielens(folder: Path) -> tuple[Dataset, Sequence[str]]:
    return recbole(folder / "ml-100k", "ml-100k"), ("class", "release_year")


def stackexchange(folder: Path) -> tuple[Dataset, Sequence[str]]:
    return with_columns(folder / "stackexchange_quantum", "stackexchange_quantum"), ("tags",)


def retail(folder: Path) -> tuple[Dataset, Sequence[str]]:
    return with_columns(folder / "online_retail", "online_retail"), ("median_price_gbp",)


def demo(folder: Path) -> tuple[Dataset, Sequence[str]]:
    del folder
    return load("online_retail_demo"), ("median_price_gbp",)


SETS: dict[str, Callable[[Path], tuple[Dataset, Sequence[str]]]] = {
    "ml-100k": movielens, "stackexchange": stackexchange, "retail": retail, "demo": demo,
}  # fmt: skip


def variants(data: Dataset, columns: Sequence[str], folder: Path) -> dict[str, Dataset]:
    """Return the dataset without knowledge, with each kind of it, and with vectors."""
    made = {"nothing": data, "columns": data.with_knowledge(columns)}
    graph = folder / "ml-100k" / "ml-100k.kg"
    if data.info.name == "ml-100k" and graph.is_file():
        rejects = Rejects(graph.name)
        known = replace(data, triples=read_triples(graph, data.catalog, rejects))
        assert known.triples is not None
        print(f"graph: {known.triples.table.num_rows:,} triples; left out: {rejects.counts()}")
        test_graph(known)
        made["graph"] = known.with_knowledge(known.triples.relations)
        made["both"] = known.with_knowledge([*columns, *known.triples.relations])
    ids = tuple(item.item_id for item in data.catalog)
    made["vectors"] = replace(data, item_vectors=ItemVectors(ids, item_vectors(data)))
    return made


def test_graph(data: Dataset) -> None:
    """Print whether the genres of the graph and the classes of the items agree better than by chance."""
    assert data.triples is not None
    genres = {
        head: tails["film.film.genre"]
        for head, tails in data.triples.by_head.items()
        if "film.film.genre" in tails
    }
    classes = {i.item_id: str(i.attributes["class"]).split() for i in data.catalog}

    def information(heads: Sequence[str]) -> float:
        """Return the mutual information (nats) of genres and classes for an assignment of items."""
        pairs = [
            (g, c) for head, tails in zip(heads, genres.values(), strict=True)
            for g in tails for c in classes[head]
        ]  # fmt: skip
        both, n = Counter(pairs), len(pairs)
        first, second = Counter(g for g, _ in pairs), Counter(c for _, c in pairs)
        return sum(
            m / n * float(np.log(m * n / (first[g] * second[c]))) for (g, c), m in both.items()
        )

    rng, heads = np.random.default_rng(0), list(genres)
    drawn = [information([heads[n] for n in rng.permutation(len(heads))]) for _ in range(50)]
    print(
        f"genres and classes of {len(heads):,} items share {information(heads):.4f} nats; 50 random "
        f"assignments {np.mean(drawn):.4f} ({min(drawn):.4f} to {max(drawn):.4f})\n"
    )


def measure(
    data: Dataset, cases: Sequence[protocols.Case], sources: Sequence[str], *, ranked: bool
) -> dict[str, object]:
    """Return the shares of the sources, and the nats and the NDCG@10 of each case."""
    prior = CollaborativePrior.fit(data, before="test", sources=sources)
    if ranked:
        prior.learn_to_rank(data, data.info.target_behavior, log=print)
    nats, gains = [], []
    for case in cases:
        chances = np.exp(prior.logprobs(case.history))
        target = data.catalog.row(case.target)
        if data.info.exclude_seen:
            own = data.catalog.rows([*case.history.had(data.info.lead_in_behaviors)])
            chances[[row for row in own if row != target]] = 0
        nats.append(float(-np.log(chances[target] / chances.sum())))
        rank = int((chances > chances[target]).sum())
        gains.append(1 / np.log2(rank + 2) if rank < K else 0.0)
    return {"mix": prior.mix, "nats": nats, "ndcg": gains}


def cell(values: FloatArray, digits: int = 4) -> str:
    found = bootstrap(values)
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=None, help="of the test part; default all")
    parser.add_argument("--no-ranker", action="store_true", help="measure only the prior")
    parser.add_argument("--no-vectors", action="store_true", help="leave the vectors out")
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "knowledge")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, columns = SETS[arguments.set](arguments.data)
    every = protocols.cases(data, protocols.default_protocol(data), "test")
    cases = every if arguments.users is None else protocols.sample(every, arguments.users)
    print(f"{arguments.set}: {len(cases):,} targets, {', '.join(columns)}, commit {commit()}")
    made = variants(data, columns, arguments.data)
    if arguments.no_vectors:
        made.pop("vectors")
    for ranked in (False, True)[: 1 if arguments.no_ranker else 2]:
        print(f"\n{'Prior with lambdarank' if ranked else 'Prior'}:\n")
        print("| known | share | nats | gain | NDCG@10 | gain |\n|---|---|---|---|---|---|")
        base: dict[str, FloatArray] = {}
        for name, known in made.items():
            further = VECTORS if name == "vectors" else KNOWLEDGE
            for how in ("auto", "named") if name != "nothing" else ("auto",):
                sources = (*COUNTED, further) if how == "named" else COUNTED
                about: list[object] = [
                    data.info.catalog_hash,
                    protocols.fingerprint(data),
                    known.info.knowledge,
                ]
                about += [name, how, ranked, len(cases), "2"]
                key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
                path = arguments.out / f"{arguments.set}-{name}-{how}-{key}.json"
                if not path.is_file():
                    path.write_text(json.dumps(measure(known, cases, sources, ranked=ranked)))
                found = json.loads(path.read_text())
                nats, ndcg = np.array(found["nats"]), np.array(found["ndcg"])
                base = base or {"nats": nats, "ndcg": ndcg}
                share = found["mix"].get(further, 0.0)
                print(
                    f"| {name}, {how} | {share:.3f} | {nats.mean():.4f} | {cell(base['nats'] - nats)} | "
                    f"{ndcg.mean():.4f} | {cell(ndcg - base['ndcg'])} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
