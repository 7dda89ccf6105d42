"""Time our search against ``generate`` with a prefix function: same model, prompts and titles.

    python -m benchmarks.speed.decoding --gate --threads 1
    python -m benchmarks.speed.decoding --threads 1 --tokens 64 256 1000 --beams 10 20 --batches 1 8

Every repetition runs the peer and ours in turn on the same prompts, which have exactly the given number of
tokens (histories of validation users, one after the other, cut at the front). Printed are medians, and the
median of the pairwise ratios with its range. Systems:

- ``peer``: ``generate(num_beams=K, prefix_allowed_tokens_fn=...)``, a Python dict trie.
- ``prefill``: reading the prompts alone.
- ``beam``, ``exact``: ours with this search, K best items, K beams; exact only for
  catalog-normalized scores. The gate also has ``beam10`` and ``exact10``, the ten best items.

For catalog-normalized scores, ``found`` is how many of the true ten best titles (every item scored) are among
the first ten. Cells are kept in .results/decoding and not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import ROOT, commit
from benchmarks.speed.peer import generate_many
from genrec import LanguageModel, Recommender
from genrec.data.datasets import load
from genrec.decoding.search import score, search
from genrec.decoding.types import Options, Ranking
from genrec.evaluation import evaluator

HOST = "beam by the host"  # on a GPU: with fuller passes, and the host between them


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, value


def ours(
    model: Recommender, prompts: Sequence[Sequence[int]], k: int, beams: int, mode: str, kind: str
) -> list[Ranking]:
    options = Options(search=kind, beam_size=beams, normalization=mode)
    if kind == HOST:
        options = replace(options, search="beam", on_device=False)
    return search(model.trie, model.model.prefill_many(prompts), k, options=options)


def read(model: Recommender, prompts: Sequence[Sequence[int]]) -> int:
    return len(model.model.prefill_many(prompts).root)  # asking for the outputs reads the prompts


def prompts_of(model: Recommender, tokens: int, n: int) -> list[list[int]]:
    """Make N prompts of exactly ``tokens`` tokens that end as a recommender's do."""
    assert model.dataset is not None
    cases = [c for c in evaluator.demo_v1(model.dataset, "validation") if len(c.history) == 25]
    ids = [list(model.prompt(c.history).ids) for c in evaluator.sample(cases, 12 * n, seed=7)]
    found = []
    for first in range(0, len(ids), 12):
        joined = [t for one in ids[first : first + 12] for t in one]
        found.append(joined[-tokens:])
    return found


def measure(model: Recommender, cell: dict[str, Any], repetitions: int) -> dict[str, Any]:
    """Measure one cell of the table."""
    beams, mode, batch = cell["beams"], cell["mode"], cell["batch"]
    sequences = list(model.encoder.titles(model.catalog))
    prompts = prompts_of(model, cell["tokens"], batch * repetitions)
    kinds = {"beam": beams} | ({"beam10": 10} if cell["gate"] else {})
    if mode == "catalog":  # elsewhere probability leaks to what is no title, and exact is slow
        kinds |= {"exact": beams} | ({"exact10": 10} if cell["gate"] else {})
        if model.model.device.type != "cpu":
            kinds[HOST] = beams
    times: dict[str, list[float]] = {name: [] for name in ("peer", "prefill", *kinds)}
    found: dict[str, list[int]] = {name: [] for name in ("peer", *kinds)}
    tokens: dict[str, list[int]] = {name: [] for name in kinds}
    for turn in range(repetitions):
        some = prompts[turn * batch : (turn + 1) * batch]
        times["prefill"].append(timed(partial(read, model, some))[0])
        lists: dict[str, list[list[tuple[int, ...]]]] = {}
        for name, k in kinds.items():
            kind = name.removesuffix("10")
            seconds, rankings = timed(partial(ours, model, some, k, beams, mode, kind))
            times[name].append(seconds)
            tokens[name] += [r.certificate.tokens for r in rankings]
            lists[name] = [[sequences[row] for row in r.rows.tolist()] for r in rankings]
        seconds, theirs = timed(
            partial(generate_many, model.model.model, some, sequences, beams, mode == "catalog")
        )
        times["peer"].append(seconds)
        lists["peer"] = [[title for title, _ in one] for one in theirs]
        if mode == "catalog":
            truth = score(model.trie, model.model.prefill_many(some))
            for place, ranking in enumerate(truth):
                best = list(dict.fromkeys(sequences[r] for r in ranking.rows.tolist()))[:10]
                for name, titles in lists.items():
                    mine = list(dict.fromkeys(titles[place]))[:10]
                    found[name].append(len(set(best) & set(mine)))
        print(".", end="", flush=True)
    report: dict[str, Any] = {**cell, "threads": model.model.threads}
    report["found"] = {n: round(statistics.mean(f), 2) for n, f in found.items() if f}
    report["tokens"] = {n: statistics.median(t) for n, t in tokens.items()}
    report["seconds"] = {n: round(statistics.median(t), 3) for n, t in times.items()}
    for other in ("peer", "prefill"):
        for name in kinds:
            pairs = list(zip(times[other], times[name], strict=True))
            ratios = [p / o if other == "peer" else o / p for p, o in pairs]
            middle = statistics.median(ratios)
            said = f"{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            report[f"peer/{name}" if other == "peer" else f"{name}/prefill"] = said
    return report | {"commit": commit(), "date": time.strftime("%Y-%m-%d")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gate", action="store_true", help="256 tokens, K of 20, one user")
    parser.add_argument("--tokens", type=int, nargs="+", default=[256])
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--modes", nargs="+", default=["catalog", "vocab"])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "decoding")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = load("online_retail_demo")
    loaded = LanguageModel.load(  # with transformers' classes, which have ``generate``
        arguments.model, threads=arguments.threads, device=arguments.device, log=print
    )
    model = Recommender(data, loaded, threads=arguments.threads, prior="none", model_role="fuse")
    cells = [
        {"tokens": t, "beams": k, "batch": b, "mode": m, "gate": arguments.gate}
        for t in ([256] if arguments.gate else arguments.tokens)
        for k in ([20] if arguments.gate else arguments.beams)
        for b in ([1] if arguments.gate else arguments.batches)
        for m in arguments.modes
        if not (t == 1000 and b > 1 and k > 10)
    ]
    for cell in cells:
        name = "-".join(map(str, [*cell.values(), arguments.threads, model.model.device.type]))
        path = arguments.out / f"{name}.json"
        if not path.is_file():
            path.write_text(json.dumps(measure(model, cell, arguments.repetitions)))
            print()
        print(json.dumps(json.loads(path.read_text())), flush=True)


if __name__ == "__main__":
    main()
