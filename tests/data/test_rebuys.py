"""What users get again is counted basket by basket, and remarks name what they get again often."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import Dataset
from genrec.data.ingest import EventOptions
from genrec.data.rebuys import Rebuys, measure_rebuys


def dataset(users: list[list[tuple[int, str, int]]]) -> Dataset:
    """Users with events (item, behavior, day), where all purchases of a day are one basket."""
    rows = [
        (f"u{u}", f"i{item}", behavior, 1_500_000_000 + 86_400 * day, f"{u}-{day}-{behavior}")
        for u, events in enumerate(users)
        for item, behavior, day in sorted(events, key=lambda e: e[2])
    ]
    names = ("user_id", "item_id", "behavior", "timestamp", "order")
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    table = table.append_column("split", pa.array(["train"] * len(rows)))
    items = pa.table(
        {"item_id": [f"i{n}" for n in range(9)], "title": [f"title {n}" for n in range(9)]}
    )
    options = EventOptions(unit="order", time_unit="s")
    return Dataset.from_tables(items, table, name="s", target_behavior="buy", options=options)


events = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from(["buy", "buy", "view", "return"]), st.integers(0, 5)
    ),
    max_size=14,
)


@given(st.lists(events, max_size=4))
def test_chances_equal_counting_each_item_before_each_basket(users: Any) -> None:
    users = [[(0, "buy", 0), (0, "return", 0), (0, "view", 0)], *users]
    data = dataset(users)
    c, interactions = data.interactions.columns, data.interactions
    counted = {"latest": [0, 0], "returned": [0, 0], "others": [0, 0]}
    for user in interactions.user_ids:
        where = interactions.events(user)
        past = [
            (int(c.row[i]), interactions.behaviors[c.behavior[i]], int(c.unit[i]))
            for i in range(where.start, where.stop)
        ]
        order = list(dict.fromkeys(unit for _, behavior, unit in past if behavior == "buy"))
        baskets = [{r for r, b, u in past if b == "buy" and u == unit} for unit in order]
        for n, basket in enumerate(baskets[1:], start=1):
            begin = next(i for i, e in enumerate(past) if e[1] == "buy" and e[2] == order[n])
            for row in set().union(*baskets[:n]):
                last = [b for r, b, _ in past[:begin] if r == row]
                kind = "latest" if row in baskets[n - 1] else "others"
                kind = "returned" if last and last[-1] == "return" else kind
                counted[kind][0] += 1
                counted[kind][1] += row in basket
    found = measure_rebuys(interactions, "buy")
    assert {"latest": list(found.latest), "returned": list(found.returned),
            "others": list(found.others)} == counted  # fmt: skip


@pytest.mark.parametrize(
    ("latest", "returned", "others", "flags"),
    [
        ((1000, 300), (0, 0), (1000, 100), ["--allow-last-basket"]),
        ((1000, 100), (200, 60), (1000, 100), ["--allow-returned"]),
        ((1000, 300), (200, 60), (1000, 100), ["--allow-last-basket", "--allow-returned"]),
        ((1000, 50), (200, 2), (1000, 100), []),
        ((10, 9), (0, 0), (1000, 100), []),  # too few to say
        ((1000, 110), (0, 0), (1000, 100), []),  # within chance
        ((1000, 300), (0, 0), (0, 0), []),  # nothing to compare with
    ],
)
def test_remarks_name_what_is_bought_again_more_often(
    latest: Any, returned: Any, others: Any, flags: list[str]
) -> None:
    notes = Rebuys(latest, returned, others).notes()
    assert [note.rsplit(" ", 1)[-1] for note in notes] == flags


def test_prepare_says_so() -> None:
    often = [[(item, "buy", day) for day in range(5) for item in (0, day + 1)] for _ in range(30)]
    (note,) = [n for n in dataset(often).info.notes if "--allow-last-basket" in n]
    assert note == (
        "items of a user's latest basket are in the next basket in 50.0% of cases, other earlier items in "
        "0.0% (100% of all repeats are such items); lists leave them out unless you pass "
        "--allow-last-basket"
    )
    never = [[(day, "buy", day) for day in range(5)] for _ in range(30)]
    assert not any("--allow" in note for note in dataset(never).info.notes)
