"""Describe a customer's taste, take candidates from counts, and let the model rank them.

    python examples/06_profile_candidates_rank.py
    python examples/06_profile_candidates_rank.py --user 12356 --ban christmas

The profile is checked against the history. Its corrections hold for the candidates and for the ranking.
"""

from __future__ import annotations

import argparse
from typing import Any

from genrec import Recommender, datasets


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--user", default="12393")
    parser.add_argument("--ban", nargs="*", default=["spaceboy"], help="keywords to rule out")
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    data = datasets.load("online_retail_demo")
    counting = Recommender(
        data, arguments.model, model_role="explain", threads=arguments.threads, dtype="float32"
    )
    history = counting.history(arguments.user)
    edits = {"banned": arguments.ban}

    profile = counting.profile(history, edits=edits)
    print(profile.text["en"])

    options: dict[str, Any] = {"show": "new", "profile_edits": edits}
    candidates = counting.recommend(history, arguments.candidates, **options)
    print(f"\n{len(candidates)} candidates by counting, first: {candidates[0].title}")

    reading = counting.with_settings(model_role="fuse", template="next_item_profile", max_events=10)
    ranked = reading.rank(history, [item.item_id for item in candidates], k=5, **options)
    print(f"Ranked by the model and the counts:\n{reading.prompt(history).text.splitlines()[0]}")
    for item in ranked:
        print(f"{item.rank}. {item.title}  {item.probability:.4f}")


if __name__ == "__main__":
    main()
