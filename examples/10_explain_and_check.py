"""Explain recommendations and check the explanations with a deletion test.

Prints the evidence for each item, rejected sentences, and the reason why an item is not recommended.
Evidence is the drop in an item's score when an event is left out. It shows what the model relies on,
not why anybody bought anything.
"""

from __future__ import annotations

import argparse

from genrec import History, LanguageModel, Recommender, datasets
from genrec.reports.terminal import evidence_lines, standing

TYPED = (
    "bought: RED RETROSPOT MUG; bought: PARTY BUNTING; bought: JUMBO BAG PINK POLKADOT; "
    "viewed: SET OF 3 CAKE TINS PANTRY DESIGN; bought: PACK OF 72 RETROSPOT CAKE CASES"
)
ASKED_FOR = "22938"  # CUPCAKE LACE PAPER SET 6


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    model = LanguageModel.load(arguments.model, threads=arguments.threads)
    recommender = Recommender(datasets.load("online_retail_demo"), model, exclude_seen=True)
    history, _ = recommender.understand(TYPED)
    answer = recommender.recommend(history, 3, explain=True)
    for item in answer:
        why = item.explanation
        assert why
        print(f"{item.rank}. {item.title}  {item.probability:.3f}\n   {why.text} ({why.source})")
        for sentence in why.rejected:
            print(f"   rejected: {sentence.text} ({sentence.why})")
    first = answer[0]
    assert first.explanation
    print(f"\nevidence for {first.title}")
    print("\n".join(evidence_lines(first.explanation)))

    print("\ndeletion test: change of its score under another template without one event")
    other = Recommender(recommender.dataset or recommender.catalog, model, template="sentence")
    events = history.interactions
    nats = [e.nats for e in first.explanation.evidence]
    whole = other.score(history, [first.item_id])[0].score
    for name, place in (("the strongest", nats.index(max(nats))), ("the latest", len(events) - 1)):
        left = History(events[:place] + events[place + 1 :])
        print(f"  {name}: {other.score(left, [first.item_id])[0].score - whole:+.2f} nats")

    asked = recommender.explain(history, ASKED_FOR)
    print(f"\nwhy not {asked.title}? {standing(asked)}")
    for what, change in (("without", asked.removal), ("with one more event:", asked.addition)):
        if change is not None:
            print(f"  {what} {change.title}: {change.nats:+.2f} nats, rank {change.rank or '> 10'}")


if __name__ == "__main__":
    main()
