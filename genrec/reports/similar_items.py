"""Print the items that go with given items."""

from __future__ import annotations

from genrec.pipeline.similar import SimilarList
from genrec.reports.console import note, print_table


def print_similar(found: SimilarList) -> None:
    """Print similar items with their scores, followed by the meaning of the score and remarks.

    If events were counted, a further column shows the number of users. If the score combines counts
    and titles, two further columns show the share based on counts and the cosine between titles.
    """
    counted, both = found.behavior is not None, found.used == "both"
    names = ["rank", "score", *(["prior", "cosine"] if both else []), *["users"] * counted]
    rows = []
    for item in found.similar:
        row = [str(item.rank), f"{item.score:.4f}"]
        row += [f"{item.prior:.4f}", f"{item.cosine:.3f}"] if both else []
        row += [f"{item.users:,}"] if counted else []
        rows.append([*row, item.item_id, item.title])
    right = tuple(range(len(names)))
    print_table([*names, "item_id", "title"], rows, right=right)
    note(found.score_is)
    if counted:
        note(
            f"The column users is the number of users who have {found.behavior!r} events with the "
            f"item and with {'the given item' if len(found.given) == 1 else 'a given item'}."
        )
    for remark in found.notes:
        note(remark)
