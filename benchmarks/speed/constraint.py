"""Time the constraint in one step: from K prefixes and their logits to the K best continuations.

    python -m benchmarks.speed.constraint --titles 10000 100000 1000000 --peer
    python -m benchmarks.speed.constraint --titles 10000 10000000 --fan-outs 2 8 32 128 400

Ours is the step of the search (children, their logits, log-softmax over them, the K best). The peer is what
``generate`` does with a prefix function over nested dicts: log_softmax, the processor that masks,
log_softmax again, 2 K best. Prefixes are those of random titles, at places where titles part, K of equal
length at once. A live trie has one title of a hundred replaced, 10,000 at most. One repetition is 20 steps
of each. Printed are processor microseconds per step (median) and the median of the ratios (lowest to
highest), all on one thread. ``--fan-outs`` takes K nodes with that many children (up to a quarter more)
instead. ``--device cuda --users 32`` times the step of ``gpu_beam`` by turns with the host's, for K prefixes
of each user at the widest level, by the clock, waiting for the device after each repetition.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LogitNormalization, PrefixConstrainedLogitsProcessor

from benchmarks.common import child
from benchmarks.speed import scale
from benchmarks.speed.peer import PrefixFunction
from benchmarks.speed.synthetic import Words
from genrec.decoding import gpu_beam
from genrec.decoding.frontier import Frontier
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import _Search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options, Trie
from genrec.models.logits import Outputs
from genrec.types import IntArray

K = 20
VOCABULARY = 49_152  # of the default model
STEPS = 20  # in a repetition
OPTIONS = Options(search="beam", beam_size=K)
Place = tuple[int, tuple[int, ...]]  # a node and the tokens that lead to it


def descent(trie: Trie, rng: np.random.Generator) -> Iterator[Place]:
    """Yield the inner nodes on the path of a random title, without the root."""
    node = trie.root
    tokens: tuple[int, ...] = ()
    while True:
        children, _ = trie.children(np.array([node]))
        owner, low, high = trie.intervals(children)
        weight = np.bincount(owner, high - low)
        node = int(rng.choice(children, p=weight / weight.sum()))
        if trie.is_leaf(np.array([node]))[0]:
            return
        tokens = (*tokens, *trie.runs(np.array([node]))[0])
        yield node, tokens


def prefixes(trie: Trie, steps: int, seed: int = 0) -> list[list[Place]]:
    """Draw K places of equal depth for each step."""
    rng = np.random.default_rng(seed)
    pool: dict[int, dict[int, Place]] = defaultdict(dict)
    for _ in range(5000):
        for place in descent(trie, rng):
            pool[len(place[1])][place[0]] = place
    depths = [d for d, places in pool.items() if len(places) >= K]
    share = np.array([len(pool[d]) for d in depths], dtype=float)
    found = []
    for depth in rng.choice(depths, steps, p=share / share.sum()).tolist():
        places = list(pool[depth].values())
        found.append([places[i] for i in rng.choice(len(places), K, replace=False)])
    return found


def ours(
    trie: Trie, nodes: IntArray, above: npt.NDArray[np.float64], logits: torch.Tensor
) -> dict[tuple[int, int], float]:
    """Take one step of the search.

    Args:
        trie: the catalog.
        nodes: (K,) the prefixes.
        above: (K,) their log-probabilities.
        logits: (K, V) after them.
    """
    tree: Any = None  # of the tree a step needs nothing but the outputs
    search = _Search(trie, tree, np.array([K]), None, None, OPTIONS)
    handles, zeros = np.arange(len(nodes)), np.zeros(len(nodes), dtype=np.int64)
    part = Frontier(zeros, nodes, handles, above, above, above)
    children = search._children(part, Outputs(logits, None))
    best = children[children.best(K)]
    tokens = trie.tokens(best.node)
    return dict(
        zip(
            zip(best.parent.tolist(), tokens.tolist(), strict=True),
            best.logprob.tolist(),
            strict=True,
        )
    )


def theirs(
    processor: PrefixConstrainedLogitsProcessor,
    ids: torch.Tensor,
    above: torch.Tensor,
    logits: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one step of ``generate``: values and flat indices of the 2 K best.

    Args:
        processor: with a prefix function.
        ids: (K, T) tokens of the prefixes.
        above: (K,) their log-probabilities.
        logits: (K, V) after them.
    """
    scores = processor(ids, torch.log_softmax(logits, dim=-1))
    scores = LogitNormalization()(ids, scores) + above[:, None]
    best: tuple[torch.Tensor, torch.Tensor] = torch.topk(scores.view(-1), 2 * K)
    return best


def microseconds(call: Callable[[int], Any]) -> float:
    started = time.process_time()  # one thread; the clock would count other jobs too
    for step in range(STEPS):
        call(step)
    return (time.process_time() - started) / STEPS * 1e6


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


class Case:
    """Steps over one trie, and over nested dicts of the same titles if the peer runs, too."""

    def __init__(self, trie: Trie, seed: int, dicts: PrefixFunction | None = None) -> None:
        self._trie, places = trie, prefixes(trie, STEPS, seed)
        self._nodes = [np.array([node for node, _ in some]) for some in places]
        self._ids = [torch.tensor([tokens for _, tokens in some]) for some in places]
        torch.manual_seed(seed)
        self._logits = [torch.randn(K, VOCABULARY) * 3 for _ in range(2)]
        self._above = np.log(np.random.default_rng(seed).random(K))
        if dicts is not None:
            self._processor = PrefixConstrainedLogitsProcessor(dicts, num_beams=K)

    def ours(self, step: int) -> dict[tuple[int, int], float]:
        return ours(self._trie, self._nodes[step], self._above, self._logits[step % 2])

    def peer(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        above = torch.from_numpy(self._above).float()
        return theirs(self._processor, self._ids[step], above, self._logits[step % 2])

    def check(self) -> None:
        """Check that both find the same; a finished title is no longer a prefix for ours."""
        for step in range(STEPS):
            found = self.ours(step)
            values, index = (tensor.tolist() for tensor in self.peer(step))
            expected = dict(zip((divmod(i, VOCABULARY) for i in index), values, strict=True))
            for place, value in found.items():
                if place in expected:
                    assert abs(expected[place] - value) < 1e-4
            missing = [v for p, v in found.items() if p not in expected]
            assert max(missing, default=-np.inf) <= min(values) + 1e-4

    def fan_out(self) -> float:
        return float(np.mean([self._trie.children(nodes)[1].mean() for nodes in self._nodes]))


def compare(trie: TitleTrie, words: Words, with_peer: bool, repetitions: int) -> dict[str, Any]:
    """Time our step, also on a live trie, and the peer's step by turns."""
    n = trie.n_items
    dicts = PrefixFunction(list(lists(words, n)), 0) if with_peer else None
    gc.freeze()
    case = Case(trie, 0, dicts)
    if with_peer:
        case.check()
    new = lists(words, min(max(n // 100, 1), 10_000), seed=1)
    add = dict(enumerate(new, start=n))
    live = Case(LiveTrie(trie).edited(add, range(0, n, 100)[: len(add)]), 0)
    times = defaultdict(list)
    for _ in range(repetitions + 1):  # the first one warms
        times["ours_us"].append(microseconds(case.ours))
        times["live_us"].append(microseconds(live.ours))
        if with_peer:
            times["peer_us"].append(microseconds(case.peer))
    times = defaultdict(list, {name: values[1:] for name, values in times.items()})
    report: dict[str, Any] = {"titles": n, "mean_fan_out": round(case.fan_out(), 1)}
    report |= {name: round(statistics.median(values)) for name, values in times.items()}
    if with_peer:
        ratios = [p / o for p, o in zip(times["peer_us"], times["ours_us"], strict=True)]
        report["peer/ours"] = spread(ratios)
    return report


def lists(words: Words, n: int, seed: int = 0) -> Iterator[list[int]]:
    """Yield the titles as lists of token ids."""
    for tokens, length in words.chunks(n, seed):
        flat, stop = tokens.tolist(), np.cumsum(length).tolist()
        for low, high in zip([0, *stop[:-1]], stop, strict=True):
            yield flat[low:high]


def equal_fan_outs(
    tries: Sequence[TitleTrie], fan_outs: Sequence[int], repetitions: int
) -> Iterator[dict[str, Any]]:
    """Time the step of each trie by turns over nodes with equally many children."""
    logits = [torch.randn(K, VOCABULARY) * 3 for _ in range(2)]
    above, rng = np.log(np.random.default_rng(0).random(K)), np.random.default_rng(1)
    counts = [np.diff(trie.first_child) for trie in tries]

    def step(trie: TitleTrie, nodes: list[IntArray], number: int) -> None:
        ours(trie, nodes[number], above, logits[number % 2])

    for fan_out in fan_outs:
        some = [np.flatnonzero((c >= fan_out) & (c <= fan_out * 5 // 4)) for c in counts]
        if not all(map(len, some)):
            continue
        nodes = [[rng.choice(s, K) for _ in range(STEPS)] for s in some]
        children = [
            statistics.mean(int(c[n].sum()) for n in m) for c, m in zip(counts, nodes, strict=True)
        ]
        times: list[list[float]] = [[] for _ in tries]
        for _ in range(repetitions + 1):
            for trie, of, taken in zip(tries, nodes, times, strict=True):
                taken.append(microseconds(partial(step, trie, of)))
        report: dict[str, Any] = {"fan_out": fan_out, "children_of_all": children}
        for trie, taken, found in zip(tries, times, some, strict=True):
            report[f"{trie.n_items}_us"] = round(statistics.median(taken[1:]))
            report[f"{trie.n_items}_nodes"] = len(found)
        for trie, taken in zip(tries[1:], times[1:], strict=True):
            ratios = [t / o for t, o in zip(taken[1:], times[0][1:], strict=True)]
            report[f"{trie.n_items}/{tries[0].n_items}"] = spread(ratios)
        yield report


def on_device(
    trie: TitleTrie, device: torch.device, users: int, repetitions: int
) -> dict[str, Any]:
    """Time the step of each user's K prefixes on a device, and on the host with its copies."""
    ours = gpu_beam.copy_to_device(trie, device)
    number, level = max(
        enumerate(ours.levels(K)), key=lambda entry: entry[1].children * entry[1].beams
    )
    node = np.array([trie.root])
    for _ in range(number):
        child, _ = trie.children(node)
        node = child[~trie.is_leaf(child)]
    rng = np.random.default_rng(0)
    nodes = np.stack([rng.choice(node, K, replace=len(node) < K) for _ in range(users)])
    outputs = Outputs(torch.randn(users * K, VOCABULARY, device=device) * 3, None)
    above = np.log(rng.random((users, K)))
    k = torch.full((users, 1), K, device=device)
    begins = gpu_beam.Beam(ours, k, K)
    begins.node = torch.from_numpy(nodes).to(device)
    begins.value = torch.from_numpy(above).to(device)
    who = np.repeat(np.arange(users), K)

    def theirs() -> None:
        tree: Any = None
        search = _Search(trie, tree, np.full(users, K), None, None, OPTIONS)
        flat = above.ravel()
        search._children(Frontier(who, nodes.ravel(), who, flat, flat, flat), outputs).best(K)

    def device_step() -> None:
        beam = copy.copy(begins)
        beam.skipped = []
        beam.step(outputs, level)

    def seconds(call: Callable[[], None]) -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / STEPS * 1e6

    times: dict[str, list[float]] = {"device": [], "host": []}
    for _ in range(repetitions + 1):  # the first one warms
        times["device"].append(seconds(device_step))
        times["host"].append(seconds(theirs))
    ratios = [h / d for h, d in zip(times["host"][1:], times["device"][1:], strict=True)]
    return {
        "titles": trie.n_items, "users": users, "children": level.children,
        **{f"{name}_us": round(statistics.median(taken[1:])) for name, taken in times.items()},
        "host/device": spread(ratios),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--titles", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--peer", action="store_true", help="run the peer too")
    parser.add_argument("--fan-outs", type=int, nargs="+", help="compare sizes at equal fan-out")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--device", help="compare the step on a device with the host's")
    parser.add_argument("--users", type=int, default=32, help="with --device")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()  # of the peer's millions of dicts
    with tempfile.TemporaryDirectory() as folder:
        child(scale.MODULE, "words", f"{folder}/words.npz")
        words = Words.load(Path(folder) / "words.npz")
    if arguments.fan_outs:
        tries = [TitleTrie.of_chunks(words.chunks(n)) for n in arguments.titles]
        for report in equal_fan_outs(tries, arguments.fan_outs, arguments.repetitions):
            print(json.dumps(report), flush=True)
        return
    for n in arguments.titles:
        trie = TitleTrie.of_chunks(words.chunks(n))
        if arguments.device:
            device = torch.device(arguments.device)
            with torch.inference_mode():
                found = on_device(trie, device, arguments.users, arguments.repetitions)
            print(json.dumps(found), flush=True)
            continue
        report = compare(trie, words, arguments.peer, arguments.repetitions)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
