"""Our beam search against ``generate`` with a prefix function: the same model, prompts and titles.

    python benchmarks/decoding.py --threads 1
    python benchmarks/decoding.py --threads 2 --beams 20 --events 25

Each repetition runs ours and the peer in turn on one prompt; reported are the medians and the
median of the pairwise ratios with its range. ``stepwise`` skips nothing, as the peer; ``default``
leaves forced tokens out. ``ten_found`` is how many of the true ten best titles (every item scored)
each finds, on average; only for catalog-normalised scores, where scoring every item is cheap.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from peer import generate

from genrec import Recommender, evaluation
from genrec.datasets import load
from genrec.decoding import Ranking, search


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


def ours(model: Recommender, prompt: Sequence[int], beams: int, mode: str, skip: bool) -> Ranking:
    return search(
        model.trie,
        model.model.prefill(prompt),
        k=beams,
        beam_size=beams,
        normalization=mode,
        skip_forced=skip,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--events", type=int, nargs="+", default=[16, 22])
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    data = load("online_retail_demo")
    model = Recommender(data, arguments.model, threads=arguments.threads)
    sequences = list(model.encoder.titles(data.catalog))
    cases = [c for c in evaluation.demo_v1(data, "validation") if len(c.history) == 25]
    cases = evaluation.sample(cases, arguments.repetitions, seed=7)
    for events in arguments.events:
        prompts = [model.prompt(c.history.latest(events)).ids for c in cases]
        for beams in arguments.beams:
            for mode in ("catalog", "vocab"):
                compare(model, sequences, prompts, beams, mode)


def compare(
    model: Recommender,
    sequences: Sequence[tuple[int, ...]],
    prompts: Sequence[Sequence[int]],
    beams: int,
    mode: str,
) -> None:
    kinds = {"stepwise": False} if mode == "vocab" else {"default": True, "stepwise": False}
    times: dict[str, list[float]] = {name: [] for name in ("peer", "prefill", *kinds)}
    found: dict[str, list[int]] = {name: [] for name in ("peer", *kinds)}
    renormalize = mode == "catalog"
    for prompt in prompts:
        times["prefill"].append(timed(partial(model.model.prefill, prompt))[0])
        seconds, theirs = timed(
            partial(generate, model.model.model, prompt, sequences, beams, renormalize=renormalize)
        )
        times["peer"].append(seconds)
        lists = {"peer": [title for title, _ in theirs]}
        for name, skip in kinds.items():
            seconds, ranking = timed(partial(ours, model, prompt, beams, mode, skip))
            times[name].append(seconds)
            lists[name] = list(dict.fromkeys(sequences[row] for row in ranking.rows.tolist()))
        if mode == "catalog":
            exact = search(model.trie, model.model.prefill(prompt), k=20, beam_size=None)
            best = list(dict.fromkeys(sequences[row] for row in exact.rows.tolist()))[:10]
            for name, titles in lists.items():
                found[name].append(len(set(best) & set(titles[:10])))
    tokens = [len(p) for p in prompts]
    report: dict[str, Any] = {
        "mode": mode,
        "threads": model.model.threads,
        "prompt_tokens": f"{min(tokens)}-{max(tokens)}",
        "beams": beams,
        "ten_found": {n: statistics.mean(f) for n, f in found.items() if f},
    }
    for name, values in times.items():
        report[f"{name}_s"] = round(statistics.median(values), 2)
    for name in kinds:
        ratios = [p / o for p, o in zip(times["peer"], times[name], strict=True)]
        report[f"peer/{name}"] = (
            f"{statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
        )
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
