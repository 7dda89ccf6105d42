"""Ask the model whether a customer will buy an item, before and after a little training.

python examples/05_buy_or_not.py --minutes 0.3
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

from genrec import LanguageModel, Recommender, datasets
from genrec.training import Training, pointwise, train
from genrec.training.pairs import make_pairs, sample_pairs


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--minutes", type=float, default=0.3, help="minutes of training")
    parser.add_argument("--customers", type=int, default=5, help="number of customers to ask about")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    data = datasets.load("online_retail_demo")
    # Pair each customer's next purchase with a random item. Training never sees these pairs.
    pairs = make_pairs(data, Training(objective="pointwise"), "test")
    pairs = sample_pairs(pairs, arguments.customers, each=4)

    def ask(name: str, recommender: Recommender) -> None:
        probabilities: list[float] = []
        for user, some in itertools.groupby(pairs, key=lambda p: p.user_id):
            items = [data.catalog[p.row].item_id for p in some]
            history = recommender.history(user, before="test")  # processed once for all items
            probabilities += recommender.would_like(history, items)
        metrics = pointwise.measure([p.label for p in pairs], probabilities)
        print(f"{name:9} log loss {metrics['log_loss']:.3f}, AUC {metrics['auc']:.3f}")

    print(f"will they buy it? {len(pairs)} questions on {arguments.customers} customers")
    model = LanguageModel.load(arguments.model, threads=arguments.threads)
    ask("zero-shot", Recommender(data, model))
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            data,
            Path(folder) / "run",
            arguments.model,
            objective="pointwise",
            pairs_per_user=4,
            max_targets=400,
            max_minutes=arguments.minutes,
            eval_users=0,
            threads=arguments.threads,
        )
        ask("tuned", Recommender.load(Path(folder) / "run", data))
    print(f"trained on {run.targets} pairs in {arguments.minutes:g} minutes")


if __name__ == "__main__":
    main()
