"""Measure how much of the trie exact search reads, and what a narrow filter costs.

    python -m benchmarks.speed.exact --data DIR --titles 10000 --prompts 200 --threads 1
    python -m benchmarks.speed.exact --set demo --systems exact
    python -m benchmarks.speed.exact --set demo --systems exact --run online_retail_demo

DIR contains s3_beauty. Its first titles that users of the sample do not need are left out until --titles
remain. For each seeded user's prompt it counts the prefixes and tokens that exact search for the 10 best
follows, and compares them with scoring every title over the same trie (prefixes shared, tails left out). It
times that search, beam search, and both with a filter that leaves a seeded 1% of the catalog, all in turn on
one reading of the prompt. ``--set demo`` takes the embedded data with all its titles, for which there is a
tuned model. Kept in .results/exact, prompt by prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.public_datasets import TASKS, sample
from benchmarks.common import ROOT, commit
from genrec import Catalog, Recommender
from genrec.data import protocols
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options

SYSTEMS = {
    "exact": ("exact", False),
    "exact_filtered": ("exact", True),
    "beam": ("beam", False),
    "beam_filtered": ("beam", True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--set", choices=["beauty", "demo"], default="beauty")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--run", default=None, help="a run folder or name, in place of --model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "exact")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder, make = TASKS[arguments.set]
    task = make(arguments.data / folder)
    cases = sample(task.cases, arguments.prompts)
    needed = {i for c in cases for i in c.history.item_ids}
    others = [i for i in task.data.catalog if i.item_id not in needed]
    kept = [i for i in task.data.catalog if i.item_id in needed]
    catalog = Catalog([*kept, *others][: arguments.titles])
    recommender = (
        Recommender(catalog, arguments.model, threads=arguments.threads)
        if arguments.run is None
        else Recommender.load(arguments.run, catalog, threads=arguments.threads)
    )
    trie = recommender.trie
    assert isinstance(trie, TitleTrie)
    inner = int((np.diff(trie.first_child.astype(np.int64)) > 0).sum()) - 1
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(catalog), size=len(catalog) // 100, replace=False))
    narrow = Filters([Filter.allow(trie.positions_of(rows), len(catalog))])
    name = f"{arguments.set}-{arguments.run or arguments.model}-{arguments.titles}"
    log = arguments.out / f"{name}-{arguments.threads}-{'-'.join(arguments.systems)}.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    with log.open("a") as stream:
        for case in cases[len(lines) :]:
            prompt = recommender.prompt(case.history.latest(protocols.EVENTS)).ids
            found: dict[str, Any] = {"prompt": len(prompt)}
            started = time.perf_counter()
            tree = recommender.model.prefill(prompt)
            assert len(tree.root) == 1  # reads the prompt
            found["prefill_s"] = time.perf_counter() - started
            for name in arguments.systems:
                kind, filtered = SYSTEMS[name]
                options, allowed = Options(search=kind), narrow if filtered else None
                started = time.perf_counter()
                (ranking,) = search(trie, tree, 10, allowed=allowed, options=options)
                found[f"{name}_s"] = time.perf_counter() - started
                certificate = ranking.certificate
                found[name] = [certificate.nodes, certificate.tokens, certificate.exact]
            stream.write(json.dumps(found) + "\n")
            stream.flush()
            lines.append(json.dumps(found))
            if len(lines) % 20 == 0:
                print(f"{len(lines)} of {len(cases)}", flush=True)
    values = [json.loads(line) for line in lines]
    print(f"{len(values)} prompts, {len(catalog):,} titles, commit {commit()}")
    print(f"whole trie: {inner:,} prefixes, {trie.inner_tokens:,} tokens")
    for name in arguments.systems:
        nodes, tokens, exact = (np.array([v[name][i] for v in values]) for i in range(3))
        for what, array, whole in (
            ("prefixes", nodes, inner),
            ("tokens", tokens, trie.inner_tokens),
        ):
            middle, high = np.percentile(array, [50, 95])
            print(
                f"{name}: {what} median {middle:.0f} (1/{whole / middle:.0f} of the whole), "
                f"95th percentile {high:.0f} (1/{whole / high:.0f})"
            )
        print(f"{name}: exact in {exact.mean():.3f} of the prompts")
    for name in ("exact", "beam"):
        if f"{name}_filtered" not in arguments.systems:
            continue
        whole_s, part_s = (
            np.array([v["prefill_s"] + v[f"{n}_s"] for v in values])
            for n in (name, f"{name}_filtered")
        )
        ratios = np.percentile(part_s / whole_s, [50, 5, 95])
        print(f"{name}: filtered / unfiltered, with the prompt: {ratios.round(2).tolist()}")


if __name__ == "__main__":
    main()
