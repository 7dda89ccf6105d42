from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import RequestError
from genrec.pipeline.rerank import capped, choose, mmr, per_title
from genrec.types import FloatArray


def units(n: int, d: int = 3) -> st.SearchStrategy[FloatArray]:
    """(n, d) rows of unit length, some the same, some of zeros."""
    rows = st.lists(st.integers(-3, 3), min_size=d, max_size=d)
    return st.lists(rows, min_size=n, max_size=n).map(_unit)


def _unit(rows: list[list[int]]) -> FloatArray:
    vectors = np.array(rows, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1.0)


def naive(
    scores: Sequence[float],
    vectors: FloatArray,
    trade_off: float,
    values: Mapping[str, Sequence[Any]],
    caps: Mapping[str, int],
    chosen: Sequence[int],
) -> dict[int, float]:
    """What each candidate that may come next is worth, after those chosen; loops only."""
    low, high = min(scores), max(scores)
    worth = {}
    for i in range(len(scores)):
        if i in chosen:
            continue
        full = False
        for name, cap in caps.items():
            value = values[name][i]
            same = sum(1 for j in chosen if values[name][j] == value)
            full = full or (value is not None and same >= cap)
        if full:
            continue
        relevance = (scores[i] - low) / (high - low) if high > low else 0.0
        cosines = [sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) for j in chosen]
        worth[i] = trade_off * relevance - (1 - trade_off) * max(cosines, default=0.0)
    return worth


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[float], FloatArray, int, float]:
    n = draw(st.integers(1, 8))
    scores = draw(st.lists(st.floats(-100, 100), min_size=n, max_size=n))
    return scores, draw(units(n)), draw(st.integers(1, 10)), draw(st.floats(0, 1))


brands = st.lists(st.sampled_from(["A", "B", None]), min_size=8, max_size=8)
sizes = st.lists(st.sampled_from([1, 2, 2.5, None]), min_size=8, max_size=8)
caps_of_both = st.fixed_dictionaries(
    {}, optional={"brand": st.integers(1, 3), "size": st.integers(1, 3)}
)


@given(cases(), brands, sizes, caps_of_both)
def test_each_choice_is_the_best_left(
    case: tuple[list[float], FloatArray, int, float],
    brand: list[str | None],
    size: list[float | None],
    caps: dict[str, int],
) -> None:
    scores, vectors, k, trade_off = case
    n = len(scores)
    columns: dict[str, Any] = {"brand": brand[:n], "size": size[:n]}
    chosen = choose(scores, k, vectors=vectors, trade_off=trade_off, columns=columns, caps=caps)
    before: list[int] = []
    for i in chosen.tolist():
        worth = naive(scores, vectors, trade_off, columns, caps, before)
        assert worth[i] >= max(worth.values()) - 1e-9
        before.append(i)
    assert len(before) == k or not naive(scores, vectors, trade_off, columns, caps, before)
    if not caps:
        assert len(before) == min(k, n)
        assert np.array_equal(chosen, mmr(scores, vectors, k, trade_off))


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=8),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    brands,
    st.integers(1, 2),
)
def test_equals_the_double_loop(
    scores: list[int], axes: list[int], trade_off: float, brand: list[str | None], cap: int
) -> None:
    """With numbers that doubles hold exactly: the same list, ties by score and then place."""
    scaled = [*(s / 8 for s in scores), 0.0, 1.0]
    vectors = np.eye(4)[[*axes[: len(scores)], 0, 1]]
    brand = [*brand[: len(scores)], "A", "B"]
    expected: list[int] = []
    while len(expected) < 5:
        worth = naive(scaled, vectors, trade_off, {"b": brand}, {"b": cap}, expected)
        if not worth:
            break
        expected.append(max(worth, key=lambda i: (worth[i], scaled[i], -i)))
    found = choose(
        scaled, 5, vectors=vectors, trade_off=trade_off, columns={"b": brand}, caps={"b": cap}
    )
    assert found.tolist() == expected


@given(st.lists(st.floats(-1e300, 1e300), max_size=10), st.integers(1, 12))
def test_trade_off_one_is_the_order_by_score(scores: list[float], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert choose(scores, k).tolist() == expected
    vectors = np.ones((len(scores), 1))
    assert mmr(scores, vectors, k, 1).tolist() == expected


def test_scores_that_look_alike_beside_one_far_off_keep_their_order() -> None:
    assert choose([1.0, 1.0 + 1e-15, -1e30], 3).tolist() == [1, 0, 2]


@given(brands, sizes, caps_of_both, st.integers(1, 8))
def test_capped_takes_the_first_that_may(
    brand: list[str | None], size: list[float | None], caps: dict[str, int], k: int
) -> None:
    columns: dict[str, Any] = {"brand": brand, "size": size}
    expected: list[int] = []
    seen: Counter[tuple[str, Any]] = Counter()
    for i in range(8):
        keys = [(name, columns[name][i]) for name in caps if columns[name][i] is not None]
        if len(expected) < k and all(seen[key] < caps[key[0]] for key in keys):
            expected.append(i)
            seen.update(keys)
    assert capped(columns, k, caps).tolist() == expected
    by_score = choose(-np.arange(8.0), k, columns=columns, caps=caps)
    assert by_score.tolist() == expected
    if "brand" in caps:
        one = capped({"brand": brand}, k, {"brand": caps["brand"]})
        assert capped(brand, k, caps["brand"]).tolist() == one.tolist()


def test_missing_values_are_not_capped() -> None:
    assert capped([None, float("nan"), "", " ", None, float("nan")], 9, 1).tolist() == [*range(6)]


def test_per_title() -> None:
    assert per_title(["mug", "mug", "cup", "mug"], 3).tolist() == [0, 2]
    assert per_title(["mug", "mug", "cup", "mug"], 3, cap=2).tolist() == [0, 1, 2]


def test_nothing_to_choose_from() -> None:
    assert mmr([], np.zeros((0, 4)), 3, 0.5).tolist() == []
    assert capped([], 3, 1).tolist() == []
    assert choose([], 3).dtype == capped({}, 3, {}).dtype == np.int64


@pytest.mark.parametrize(
    ("given_arguments", "message"),
    [
        ({"k": 0}, "k=0 is not valid. Expected a whole number of at least 1"),
        ({"k": True}, "k=True"),
        ({"k": 1.5}, "k=1.5"),
        ({"trade_off": 1.1}, "trade_off=1.1 is not valid. Expected a number from 0"),
        ({"trade_off": float("nan")}, "trade_off=nan"),
        ({"trade_off": 0.5, "vectors": None}, "requires vectors"),
        ({"scores": [1.0, float("nan")]}, "scores contain nan"),
        ({"scores": [1.0, -np.inf]}, "scores contain -inf"),
        ({"scores": [1e308, -1e308]}, "too far apart for float64"),
        ({"scores": [[1.0, 2.0]]}, r"scores have the shape \(1, 2\)"),
        ({"vectors": np.eye(3)}, r"shape \(3, 3\) for 2 candidates"),
        ({"vectors": np.ones(2)}, r"shape \(2,\) for 2 candidates"),
        ({"vectors": np.ones((2, 4))}, "Vector 0 has length 2. Expected vectors of length 1"),
        ({"vectors": np.full((2, 1), np.nan)}, "Vector 0 has length nan"),
        ({"caps": {"brand": 0}}, "The cap of 'brand'=0 is not valid. Expected a whole number"),
        ({"caps": {"brnad": 1}}, "Cannot cap 'brnad'.* Expected one of 'brand'"),
        ({"columns": {"brand": ["A"]}}, "'brand' has 1 values for 2 candidates"),
        ({"columns": {"brand": ["A", ["B"]]}}, r"Value \['B'\] of 'brand' cannot be counted"),
    ],
)
def test_what_cannot_be(given_arguments: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "scores": [1.0, 2.0],
        "k": 1,
        "vectors": np.eye(2),
        "columns": {"brand": ["A", "B"]},
        "caps": {"brand": 1},
    } | given_arguments
    with pytest.raises(RequestError, match=message):
        choose(**arguments)


def test_capped_says_what_cannot_be() -> None:
    with pytest.raises(RequestError, match="k=0"):
        capped(["A"], 0, 1)
    with pytest.raises(RequestError, match="'values'=0"):
        capped(["A"], 1, 0)
    with pytest.raises(RequestError, match="no columns given"):
        capped({}, 1, {"brand": 1})
