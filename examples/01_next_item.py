"""Recommend the next item for a typed history, in English and Chinese, with any causal model.

    python examples/01_next_item.py                  # the default model, 135M, English
    python examples/01_next_item.py --model gpt2     # any hub id or local folder

The catalogs are made up. The default model reads English. It can do little more than spell Chinese,
so its Chinese ranking is meaningless. Probabilities are over the catalog's items.
"""

from __future__ import annotations

import argparse

from genrec import Catalog, Item, LanguageModel, Recommender

ENGLISH = [
    "Running shoes", "Sports socks", "Water bottle", "Yoga mat", "Coffee grinder",
    "Espresso cups", "Novel: The Lighthouse", "Desk lamp", "Running shorts", "Notebook",
]  # fmt: skip
CHINESE = [
    "跑步鞋",
    "运动袜",
    "水壶",
    "瑜伽垫",
    "咖啡研磨机",
    "浓缩咖啡杯",
    "小说",
    "台灯",
    "短裤",
    "笔记本",
]


def show(model: LanguageModel, titles: list[str], language: str, history: str) -> None:
    """Print the prompt and the five most probable next items."""
    catalog = Catalog(Item(str(n), t) for n, t in enumerate(titles))
    recommender = Recommender(catalog, model, language=language, template="sentence")
    print(recommender.prompt(history).text)
    for item in recommender.recommend(history, k=5):
        print(f"  {item.rank}. {item.title}  {item.probability:.3f}")


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    model = LanguageModel.load(arguments.model, threads=arguments.threads)
    show(model, ENGLISH, "en", "browsed: Running shoes; bought: Sports socks")
    show(model, CHINESE, "zh", "浏览：跑步鞋；购买：运动袜")


if __name__ == "__main__":
    main()
