"""Measure how well reviews are recognized as positive or negative, and what each way costs.

    python -m benchmarks.accuracy.sentiment FILE --train 3000

FILE has the columns text and label. The first rows are learned from, the others are the test; texts
that occurred before are left out. The ways are compared on the same texts, with the accuracy's difference
from the first way, paired by text.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import commit
from genrec.evaluation.bootstrap import bootstrap
from genrec.sentiment import WAYS, Sentiment, measure
from genrec.sentiment.labels import read_labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--train", type=int, default=3000, help="rows to learn from")
    parser.add_argument("--ways", nargs="+", default=["words", "encoder", "answers", "states"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    texts, labels, _ = read_labels(arguments.file)
    seen, train, test = set[str](), list[int](), list[int]()
    for n, text in enumerate(texts):
        if text not in seen:
            (train if n < arguments.train else test).append(n)
        seen.add(text)
    wanted = [labels[n] for n in test]
    asked = [texts[n] for n in test]
    print(f"commit {commit()}, {len(train):,} texts to learn from, {len(test):,} test texts")
    base = None
    for way in [*(w for w in WAYS if w in arguments.ways), "untrained"]:
        began = time.process_time()
        if way == "untrained":
            if "answers" not in arguments.ways:
                continue
            found = Sentiment.untrained("smollm2-135m")
        else:
            found = Sentiment.fit([texts[n] for n in train], [labels[n] for n in train], way)
        fitted = time.process_time()
        p = found.probabilities(asked)
        spent = time.process_time() - fitted
        got = measure(p, wanted)
        right = ((p > 0.5) == np.array(wanted)).astype(float)
        base = right if base is None else base
        print(
            f"{way}: accuracy {got.accuracy}, less the first {bootstrap(right - base)}, AUC {got.auc:.4f}, "
            f"{got.nats:.3f} nats, calibration error {got.calibration_error:.4f}; fitting "
            f"{fitted - began:.0f} s, {1000 * spent / len(test):.1f} ms a text",
            flush=True,
        )


if __name__ == "__main__":
    main()
