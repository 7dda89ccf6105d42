"""Print several lists for one user, such as new items and items to buy again.

This module works with finished results, not with models.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

from genrec.data.column_names import target_words
from genrec.pipeline.types import RecommendationList
from genrec.reports.console import note, out, print_line, print_table
from genrec.reports.terminal import (
    BOOSTED,
    describe_certainty,
    describe_prior,
    describe_request,
    describe_rules,
    list_columns,
    print_evidence,
    print_understood,
    ranked_by,
    ranking,
)


def rail_titles(behavior: str, verb: str) -> dict[str, str]:
    """Return the title of each list of ``Recommender.recommend_rails``.

    Args:
        behavior: the target behavior, such as ``buy``.
        verb: the base form of its verb, such as "buy".
    """
    who = "customer" if behavior.casefold() in target_words() else "user"
    return {
        "all": "All items",
        "new": f"New to this {who}",
        "again": f"{verb[:1].upper()}{verb[1:]} again",
    }


def print_rails(rails: Mapping[str, RecommendationList], titles: Mapping[str, str]) -> None:
    """Print several lists for one user, followed by remarks on their computation.

    In a terminal, the lists are side by side, or below one another if they have explanations.
    Otherwise, they form a single table, whose last column names the list.

    Args:
        rails: the lists, keyed by the value of ``show``.
        titles: the title of each list.
    """
    first = next(iter(rails.values()))
    print_understood(first.understood)
    shown = {show: answer for show, answer in rails.items() if len(answer)}
    explained = any(r.explanation for answer in shown.values() for r in answer)
    if not out().is_terminal:
        _print_as_one(shown)
    elif explained:
        for show, answer in shown.items():
            print_line(titles[show], "bold green")
            names, rows, right = list_columns(answer)
            print_table(names, rows, right=right)
            print_evidence(answer)
            print_line("")
    else:
        _print_beside(shown, titles)
    best = next(iter(shown.values()), first)
    note(describe_request(best))
    if "prior" in best.details:
        note(describe_prior(best))
    if any(r.boost is not None for answer in shown.values() for r in answer):
        note(BOOSTED)
    for show, answer in rails.items():
        said = []
        if "certificate" in answer.details:
            said.append(describe_certainty(answer))
        if answer.left_out:
            said.append(describe_rules(answer))
        said += [remark for remark in answer.notes if remark not in best.notes]
        note(f"{titles[show]}: {' '.join(said)}")
    for remark in best.notes:
        note(remark)


def _print_as_one(rails: Mapping[str, RecommendationList]) -> None:
    """Print the rows of all lists as one table, whose last column names the list."""
    names: list[str] = []
    rows: list[list[str]] = []
    for show, answer in rails.items():
        names, more, _ = list_columns(answer, [*rails.values()])
        rows += [[*row, show] for row in more]
    print_table([*names, "list"], rows)
    for answer in rails.values():
        print_evidence(answer)


def _print_beside(rails: Mapping[str, RecommendationList], titles: Mapping[str, str]) -> None:
    """Print the lists side by side, each with its numbers, ids and titles."""
    names, columns = ["rank"], []
    for show, answer in rails.items():
        names += [ranking(answer), "item_id", titles[show]]
        ids = ((r.item_id, r.title) for r in answer)
        columns.append([[by, *pair] for by, pair in zip(ranked_by(answer), ids, strict=True)])
    rows = [
        [str(rank), *(cell for cells in several for cell in cells)]
        for rank, several in enumerate(zip_longest(*columns, fillvalue=["", "", ""]), start=1)
    ]
    print_table(names, rows, right=(0, *range(1, len(names), 3)))
