"""Compare zero-shot and few-shot prompting with popularity on held-out purchases, without training.

python examples/03_few_shot.py --users 20
"""

from __future__ import annotations

import argparse

from genrec import History, LanguageModel, Recommender, datasets
from genrec.baselines.counting import Popular
from genrec.config import PROTOCOL
from genrec.evaluation import evaluator


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--shots", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    data = datasets.load("online_retail_demo")
    cases = evaluator.sample(evaluator.demo_v1(data), arguments.users)
    model = LanguageModel.load(arguments.model, threads=arguments.threads)
    results = []
    for shots in (0, arguments.shots):
        recommender = Recommender(data, model, few_shot=shots, prior="none")

        def rank(history: History, by: Recommender = recommender) -> list[str]:
            return [item.item_id for item in by.recommend(history, options=PROTOCOL)]

        results.append(evaluator.run(f"{shots}-shot", rank, cases))
    popular = Popular(data.interactions, data.info.target_behavior)
    results.append(evaluator.run("popular", lambda h: popular.rank(h, 10), cases))
    print(f"hit rate@10 on {len(cases)} customers, with 95% intervals")
    for result in results:
        print(f"  {result.name:8} {result.mean('hit_rate@10')}")


if __name__ == "__main__":
    main()
