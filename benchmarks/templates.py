"""Templates and value forms against the list form: nats per target on validation, paired.

    python benchmarks/templates.py --users 150 --threads 1

The nats of a target are minus the log of the probability that the model gives it among all items:
lower is better, and log(N) is what a uniform guess has. Nothing here looks at test.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from genrec import LanguageModel, Recommender, evaluation, metrics
from genrec.datasets import load

FORMS: dict[str, dict[str, Any]] = {
    "next_item": {},
    "next_item, values": {"values": True},
    "sentence": {"template": "sentence"},
    "sentence, values": {"template": "sentence", "values": True},
    "chat": {"template": "chat"},
    "next_item, as given": {"case": "as_is"},
    "few_shot, 2": {"few_shot": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--users", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    arguments = parser.parse_args()
    data = load("online_retail_demo")
    cases = evaluation.sample(evaluation.demo_v1(data, "validation"), arguments.users, seed=1)
    model = LanguageModel.load(arguments.model, threads=arguments.threads, say=print)
    base = None
    print(f"{len(cases)} users, {model.describe()}, uniform {np.log(len(data.catalog)):.3f} nats")
    for name in arguments.forms:
        recommender = Recommender(data, model, **FORMS[name])
        nats = np.array(
            [-recommender.score(c.history, [c.target])[0].score for c in cases], dtype=np.float64
        )
        tokens = np.mean([len(recommender.prompt(c.history).ids) for c in cases])
        base = nats if base is None else base
        difference = metrics.bootstrap(nats - base)
        print(f"{name:20} {metrics.bootstrap(nats)}  difference {difference}  {tokens:.0f} tokens")


if __name__ == "__main__":
    main()
