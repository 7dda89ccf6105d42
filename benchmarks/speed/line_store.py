"""Measure the memory and the files of the store of lines for 10,000 items.

    python -m benchmarks.speed.line_store --items 10000

The lines of the demo's items are rendered as the prompt prints them, and their tokens counted; the sizes of 10,000 lines
are drawn from them. Their bytes are random, since the store does not look at them, so no model is loaded. The growth of
the process's resident memory is compared with the budget, while lines come and go, and while lines are read from files.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import commit
from genrec import History, Interaction, Recommender
from genrec.config import LINE_NUMBERS, PROTOCOL
from genrec.data.datasets import load
from genrec.models.lazy_model import lazy_model
from genrec.models.line_files import LineFiles, LineOptions
from genrec.models.line_layout import LineLayout
from genrec.models.line_store import LineStore
from genrec.types import IntArray

SHAPE = (30, 3, 64, 64)  # of SmolLM2-135M
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--budget", type=int, default=256, help="MiB in memory, for the churn")
    parser.add_argument("--numbers", choices=LINE_NUMBERS, default="int8")
    arguments = parser.parse_args()
    tokens = count_tokens()
    print(f"commit {commit()}; {len(tokens)} lines, {tokens.mean():.2f} tokens on average")
    for numbers in LINE_NUMBERS:
        size = tokens.mean() * LineLayout(SHAPE, torch.float32, numbers).token_bytes
        print(
            f"{numbers:9} {size / 1000:6.1f} KB a line, {arguments.items} lines "
            f"{arguments.items * size / 1e9:.2f} GB"
        )
    rng = np.random.default_rng(0)
    one = LineLayout(SHAPE, torch.float32, arguments.numbers).token_bytes
    sizes = one * rng.choice(tokens, arguments.items)
    fill_memory(sizes, arguments.budget * MIB)
    with tempfile.TemporaryDirectory() as folder:
        read_files(Path(folder), sizes)


def count_tokens() -> IntArray:
    """Return the number of tokens in the line of each item of the demo."""
    data = load("online_retail_demo")
    model = lazy_model("smollm2-135m", log=print, threads=1)
    ours = Recommender(data, model, prior="none", attention="by_event")
    (request,) = ours._requests.build([History()], PROTOCOL, keep_own=True, by_rows=True)
    found: list[int] = []
    items = [item.item_id for item in data.catalog]
    for first in range(0, len(items), 25):
        events = tuple(Interaction(i, "buy") for i in items[first : first + 25])
        found += [len(b) for b in request.render(History(events)).by_event(0).blocks]
    return np.array(found)


def resident() -> int:
    """Return the resident memory of this process in bytes, with mapped files."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def key(n: int) -> bytes:
    return n.to_bytes(16, "little")


def line(n: int, size: int) -> torch.Tensor:
    """Return bytes of which a few differ from line to line; all are written to."""
    made = torch.full((size,), n % 256, dtype=torch.uint8)
    made[:8] = torch.from_numpy(np.frombuffer(np.int64(n).tobytes(), dtype=np.uint8).copy())
    return made


def fill_memory(sizes: IntArray, budget: int) -> None:
    """Put all lines into a store that has room for some of them, three times."""
    before = resident()
    store = LineStore(budget)
    worst = 0
    for n, size in enumerate(np.tile(sizes, 3).tolist()):
        store.put(key(n), line(n, size))
        if n % 500 == 0:
            worst = max(worst, resident() - before)
    use = store.use()
    print(
        f"budget {budget / MIB:.0f} MiB: {use.lines} lines, {use.bytes / MIB:.1f} MiB counted, at most "
        f"{worst / MIB:.1f} MiB resident ({worst / budget:.3f} of the budget), {use.dropped} dropped"
    )


def read_files(folder: Path, sizes: IntArray) -> None:
    """Write all lines to files, and read them in a store with a budget of 64 MiB."""
    started = time.process_time()
    files = LineFiles(folder, {"model": "m"}, 1 << 40)
    for n, size in enumerate(sizes.tolist()):
        files.add(key(n), line(n, size).numpy())
    files.flush()
    written = time.process_time() - started
    total = files.use().bytes
    del files
    before = resident()
    started = time.process_time()
    store = LineStore()
    store.configure(LineOptions(memory=64 * MIB, folder=folder), "m")
    store.get(key(0))
    opened = time.process_time() - started
    rng = np.random.default_rng(1)
    worst, times = 0, []
    for _ in range(500):
        started = time.process_time()
        for n in rng.integers(0, len(sizes), 17).tolist():
            found = store.get(key(n))
            assert found is not None
            assert torch.equal(found, line(n, int(sizes[n])))
        times.append(time.process_time() - started)
        worst = max(worst, resident() - before)
    print(
        f"files: {total / 1e9:.2f} GB, written in {written:.1f} s, opened in {1000 * opened:.0f} ms; 17 random lines "
        f"of a request take {1000 * np.median(times):.1f} ms (with a comparison); at most {worst / MIB:.0f} MiB "
        f"resident more than before, with {64} MiB of lines in memory"
    )


if __name__ == "__main__":
    main()
