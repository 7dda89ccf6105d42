"""Find something in a conversation with the bundled shop: each turn refines the list."""

from __future__ import annotations

import argparse

import genrec

TURNS = (
    "something for a picnic, not plastic, under £5",
    "not the first one",
    "cheaper than the second one",
    "two christmas decorations instead",
)


def main() -> None:
    """Print the list after each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("turns", nargs="*", default=TURNS, help="what to say")
    given = parser.parse_args()
    recommender = genrec.Recommender(genrec.datasets.load("online_retail_demo"))
    turns: list[object] = []
    for text in given.turns:
        answer = recommender.chat([*turns, text], "bought: RED RETROSPOT MUG", k=3)  # type: ignore[list-item]
        print(f"> {text}")
        if answer.query.where:
            print(f"  conditions: {answer.query.where}")
        for item in answer.list or ():
            print(f"  {item.rank}. {item.title}  {item.probability:.3f}")
        for question in answer.questions:
            print(f"  {question.question}")
        turns += [text, answer.turn]  # nothing is kept between the calls


if __name__ == "__main__":
    main()
