"""Measure seconds, peak memory and bytes of tries of many titles, and of tokenizing them.

    python -m benchmarks.speed.scale --titles 10000 100000 1000000 10000000
    python -m benchmarks.speed.scale --titles 1000000 --text

Each size is built from synthetic token ids (``synthetic.py``) in a process of its own, saved, and mapped in
another process, where some edits are made. The time to build excludes making the ids; the peak is that of
the whole process. Bytes per title token count all arrays, with the inverse permutation that filters need.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import child
from benchmarks.speed.synthetic import Words, demo, texts
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.trie import Chunk, TitleTrie

MODULE = "benchmarks.speed.scale"
EDITS = 200


def peak() -> float:
    """Return the peak memory of the process in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


class Timed:
    """Make chunks, and measure the seconds that this takes (clock and processor)."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self.seconds = self.cpu = 0.0

    def __iter__(self) -> Timed:
        return self

    def __next__(self) -> Chunk:
        started, cpu = time.perf_counter(), time.process_time()
        try:
            return next(self._chunks)
        finally:
            self.seconds += time.perf_counter() - started
            self.cpu += time.process_time() - cpu


def build(place: Path, n: int, multiple: int, phrases: int) -> dict[str, Any]:
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    words = Words.load(place / "words.npz")
    chunks = Timed(words.chunks(n, multiple=multiple, phrases=phrases))
    trie = TitleTrie.of_chunks(chunks)
    seconds = time.perf_counter() - started - chunks.seconds
    cpu = time.process_time() - cpu - chunks.cpu
    highest = peak()
    started = time.perf_counter()
    trie.save(place / "trie.safetensors")
    saved = time.perf_counter() - started
    n_bytes = trie.n_bytes + trie.order.nbytes
    return {
        "titles": n,
        "id_bytes": trie.token.itemsize,
        "tokens_a_title": round(trie.n_tokens / n, 1),
        "nodes_a_title": round(len(trie) / n, 2),
        "build_s": round(seconds, 2),
        "build_cpu_s": round(cpu, 2),
        "ids_s": round(chunks.seconds, 2),
        "peak_gb": round(highest, 2),
        "of_which_imports_gb": round(before, 2),
        "bytes_a_token": round(n_bytes / trie.n_tokens, 2),
        "trie_gb": round(n_bytes / 1e9, 3),
        "save_s": round(saved, 2),
        "edit_ms": round(edit_ms(trie, next(words.chunks(EDITS, seed=1, multiple=multiple))), 2),
    }


def edit_ms(trie: TitleTrie, new: Chunk) -> float:
    """Return the median processor milliseconds of an edit that removes and adds one title."""
    live, times = LiveTrie(trie), []
    tokens, length = new
    live.positions_of(np.array([0]))
    for row, title in enumerate(np.split(tokens, np.cumsum(length)[:-1])):
        started = time.process_time()
        live = live.edited({trie.n_items + row: title.tolist()}, [row])
        times.append(time.process_time() - started)
    return statistics.median(times) * 1e3


def query(place: Path) -> dict[str, Any]:
    """Map the trie and take one step of a search: the root's children and what is below."""
    started = time.perf_counter()
    trie = TitleTrie.load(place / "trie.safetensors")
    loaded = time.perf_counter()
    children, _ = trie.children(np.array([trie.root]))
    trie.tokens(children), trie.is_leaf(children), trie.intervals(children)
    trie.runs(children[:20])
    asked = time.perf_counter()
    trie.positions_of(np.array([0]))
    return {
        "load_s": round(loaded - started, 4),
        "first_query_s": round(asked - started, 4),
        "inverse_s": round(time.perf_counter() - asked, 2),
        "root_children": len(children),
    }


def tokenise(n: int) -> dict[str, Any]:
    """Tokenize the same titles as texts with ``Encoder.titles``, and build a trie."""
    from genrec.data.catalog import Catalog, Item

    words, _, encoder = demo()
    catalog = Catalog(Item(str(row), text) for row, text in enumerate(texts(n, phrases=2)))
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    tokens = sum(len(ids) for ids in encoder.titles(catalog))
    seconds, highest = time.perf_counter() - started, peak()
    cpu = time.process_time() - cpu
    started = time.perf_counter()
    trie = TitleTrie(encoder.titles(catalog))
    again = time.perf_counter() - started
    assert tokens == trie.n_tokens
    expected = TitleTrie.of_chunks(words.chunks(n))
    assert np.array_equal(trie.order, expected.order)
    assert np.array_equal(trie.run, expected.run)
    return {
        "titles": n,
        "tokenise_s": round(seconds, 1),
        "tokenise_cpu_s": round(cpu, 1),
        "titles_a_second": round(n / seconds),
        "peak_gb": round(highest, 2),
        "of_which_catalog_gb": round(before, 2),
        "tokenise_and_build_s": round(again, 1),
        "its_peak_gb": round(peak(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--titles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 5], help="of token ids")
    parser.add_argument("--phrases", type=int, default=2, help="how long titles are")
    parser.add_argument("--text", action="store_true", help="tokenise texts too")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, *rest = arguments.child
        if kind == "text":
            report = tokenise(int(rest[0]))
        elif kind == "words":
            demo()[0].save(Path(rest[0]))
            report = {}
        elif kind == "build":
            report = build(Path(rest[0]), *map(int, rest[1:]))
        else:
            report = query(Path(rest[0]))
        print(json.dumps(report))
        return
    for n in arguments.titles:
        if arguments.text:
            print(json.dumps(child(MODULE, "text", str(n))), flush=True)
            continue
        for multiple in arguments.multiples:
            with tempfile.TemporaryDirectory() as folder:
                child(
                    MODULE, "words", f"{folder}/words.npz"
                )  # a child's peak begins with its parent's
                report = child(
                    MODULE, "build", folder, str(n), str(multiple), str(arguments.phrases)
                )
                report |= child(MODULE, "query", folder)
                print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
