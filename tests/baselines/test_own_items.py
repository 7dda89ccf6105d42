"""The baselines that repeat a user's own items, against a slow reference and by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_shop import made

from genrec import Dataset, History, Interaction
from genrec.baselines import registry
from genrec.baselines.base import Scorer

DATA = made()
IDS = [item.item_id for item in DATA.catalog]
FITTED = {
    (name, before): registry.fit(name, DATA, before=before)
    for name in ("recent", "frequent")
    for before in ("validation", "test")
}
events = st.lists(
    st.tuples(
        st.sampled_from([*IDS[:6], None]), st.sampled_from(["buy", "buy", "buy", "view", "return"])
    ),
    max_size=14,
)


def history(pairs: Sequence[tuple[str | None, str]]) -> History:
    return History(tuple(Interaction(i, b, 60.0 * n) for n, (i, b) in enumerate(pairs)))


def popularity(data: Dataset, before: str) -> dict[str, int]:
    parts = {"validation": ["train"], "test": ["train", "validation"]}[before]
    rows = data.interactions.to_table().to_pylist()
    counted = [r["item_id"] for r in rows if r["behavior"] == "buy" and r["split"] in parts]
    return {item_id: counted.count(item_id) for item_id in IDS}


def reference(
    name: str, pairs: Sequence[tuple[str | None, str]], counts: dict[str, int], leave_out: set[str]
) -> list[str]:
    """Every item of the catalog in the order of a baseline, worked out the slow way."""
    ranked: list[str] = []
    bought = [i for i, behavior in pairs if behavior == "buy" and i is not None]
    other = [i for i, behavior in pairs if behavior != "buy" and i is not None]
    for group in (bought, [i for i in other if i not in bought]):
        newest_first = []
        for item_id in reversed(group):
            if item_id not in newest_first:
                newest_first.append(item_id)
        if name == "frequent":  # sorted() is stable, so the newest stay first among equals
            newest_first = sorted(newest_first, key=lambda i: -group.count(i))
        ranked += newest_first
    ranked += sorted((i for i in IDS if i not in ranked), key=lambda i: (-counts[i], IDS.index(i)))
    return [i for i in ranked if i not in leave_out]


@pytest.mark.parametrize(("name", "before"), FITTED, ids=["-".join(key) for key in FITTED])
@given(
    many=st.lists(events, min_size=1, max_size=4),
    k=st.integers(1, 30),
    exclude_seen=st.booleans(),
    lead_in=st.sets(st.sampled_from(["view", "return"])),
)
def test_rankings_equal_a_slow_reference(
    name: str,
    before: str,
    many: list[list[tuple[str | None, str]]],
    k: int,
    exclude_seen: bool,
    lead_in: set[str],
) -> None:
    fitted, counts = FITTED[name, before], popularity(DATA, before)
    fitted.lead_in_behaviors = lead_in
    ranked = fitted.rank_many([history(pairs) for pairs in many], k, exclude_seen=exclude_seen)
    for pairs, found in zip(many, ranked, strict=True):
        had = {i for i, behavior in pairs if i is not None and behavior not in lead_in}
        assert found == reference(name, pairs, counts, had if exclude_seen else set())[:k]


@pytest.fixture(params=["recent", "frequent"])
def fitted(request: pytest.FixtureRequest) -> Scorer:
    return registry.fit(request.param, DATA)


def test_by_hand() -> None:
    pairs = [("5", "buy"), ("7", "buy"), ("5", "buy"), ("9", "buy"), ("7", "return"), ("2", "view")]
    recent, frequent = (
        registry.fit(n, DATA).rank(history(pairs), 4) for n in ("recent", "frequent")
    )
    assert recent == ["9", "5", "7", "2"]
    assert frequent == ["5", "9", "7", "2"]


def test_without_a_history_and_without_seen_items_popularity_is_left(fitted: Scorer) -> None:
    popular = registry.fit("popular", DATA)
    assert fitted.rank(History(), 24) == popular.rank(History(), 24)
    own = history([("3", "buy"), ("8", "buy"), ("3", "buy")])
    assert fitted.rank(own, 24, exclude_seen=True) == popular.rank(own, 24, exclude_seen=True)
    assert len(fitted.rank(own, 24, exclude_seen=True)) == 22


def test_viewed_items_stay_first_where_views_do_not_count_as_seen(fitted: Scorer) -> None:
    fitted.lead_in_behaviors = {"view"}
    own = history([("3", "buy"), ("22", "view"), ("23", "view"), ("3", "view")])
    assert fitted.rank(own, 3, exclude_seen=True)[:2] == ["23", "22"]
