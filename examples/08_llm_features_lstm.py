"""Predict the next item with an LSTM over title vectors, another classic use of language models.

    python examples/08_llm_features_lstm.py --users 200
    python examples/08_llm_features_lstm.py --users 200 --encoder lm:smollm2-135m

Each event is represented by the vector of its title, its behavior and the time since the previous
event. The vector comes from the text encoder, or is the mean of a language model's hidden states. The
LSTM predicts the vector of the next title, so it can also score items that nobody has bought yet.
"""

from __future__ import annotations

import argparse

from genrec import History, baselines, datasets
from genrec.baselines.base import Baseline
from genrec.evaluation import evaluator


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="minilm", help="minilm, ngrams, lm:smollm2-135m, ...")
    parser.add_argument("--body", default="lstm", choices=["lstm", "gru", "transformer"])
    parser.add_argument("--fuse", default="concat", choices=["concat", "mean", "weighted"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--users", type=int, default=200)
    arguments = parser.parse_args()
    data = datasets.load("online_retail_demo")
    cases = evaluator.sample(evaluator.demo_v1(data), arguments.users)
    net = baselines.fit(
        "textseq",
        data,
        before="test",
        log=print,
        encoder=arguments.encoder,
        body=arguments.body,
        fuse=arguments.fuse,
        epochs=arguments.epochs,
    )
    popular = baselines.fit("popular", data, before="test")
    print(f"hit rate@10 on {len(cases)} customers, with 95% intervals")
    for system in (net, popular):

        def rank(history: History, by: Baseline = system) -> list[str]:
            return list(by.rank(history, 10))

        result = evaluator.run(system.name, rank, cases)
        print(f"  {system.name:8} {result.mean('hit_rate@10')}")
    (first,) = net.scores_many([cases[0].history])
    best = data.catalog[int(first.argmax())]
    print(f"most probable after {len(cases[0].history)} events: {best.title}")


if __name__ == "__main__":
    main()
