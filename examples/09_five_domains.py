"""Use the same code for a shop, news, films, music and a social network: items, verbs, a list and a reason.

    python examples/09_five_domains.py

The shop is real (a sample of UCI Online Retail). The items of the other domains are made up for this example, so
their lists say nothing about quality. One article is added after all others, as if it came in this morning.
"""

from __future__ import annotations

import argparse

from genrec import Catalog, Item, LanguageModel, Recommender, datasets

DOMAINS: dict[str, tuple[str, str, str]] = {
    "shop (real)": ("buy", "", "bought: RED RETROSPOT MUG; viewed: PARTY BUNTING"),
    "news": (
        "read", "Storm closes the coastal railway|City council votes on cycle lanes|Local team wins the cup final"
        "|New museum opens by the harbour|Bakers fear higher flour prices",
        "read: Storm closes the coastal railway; read: City council votes on cycle lanes",
    ),
    "films": (
        "watch",
        "The Lighthouse Keeper (1962)|Space Miners (1979)|Space Miners 2 (1984)|Rome (1955)|Robot Nurse (1990)",
        "watched: Space Miners (1979); watched: Robot Nurse (1990)",
    ),
    "music": (
        "listen",
        "Rain Piano (quiet)|Night Piano (quiet)|Garage Drums Live|Folk Songs for Two|Slow Strings (quiet)",
        "listened to: Rain Piano (quiet); listened to: Slow Strings (quiet)",
    ),
    "social": (
        "follow", "Weekend hikers|Mountain photos|Home bakers|Retro computers|Trail runners",
        "followed: Weekend hikers; followed: Mountain photos",
    ),
}  # fmt: skip


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    model = LanguageModel.load(arguments.model, threads=arguments.threads, dtype="float32")
    for name, (behavior, titles, history) in DOMAINS.items():
        items = [Item(str(n), title) for n, title in enumerate(titles.split("|"))]
        data = Catalog(items) if titles else datasets.load("online_retail_demo")
        recommender = Recommender(data, model, target_behavior=behavior, encoder="ngrams")
        if name == "news":
            recommender.add_items([Item("today", "Railway along the coast opens again")])
        print(f"== {name}\n{recommender.prompt(history).text}")
        answer = recommender.recommend(history, 4, explain=True)
        for item in answer:
            print(f"  {item.rank}. {item.title}  {item.probability:.3f}")
        print(f"  {answer[0].explanation.text if answer[0].explanation else ''}")


if __name__ == "__main__":
    main()
