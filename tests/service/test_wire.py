"""What the processes of the service tell each other reads back as it was, and nothing else can be read."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from genrec import History, Interaction, Item, Recommender
from genrec.config import QueryOptions
from genrec.data.datasets import load
from genrec.data.deletions import Deletions
from genrec.explain.types import Evidence, Explanation
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.service.experiments import Arm, Experiment
from genrec.service.jobs import Prepared, StaleError, Wanted
from genrec.service.mirror import State
from genrec.service.problems import Problem
from genrec.service.wire import decode, encode

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.dates() | st.datetimes().map(lambda d: d.replace(fold=0)) | st.times().map(lambda t: t.replace(fold=0)) | st.decimals(allow_nan=False)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner) | st.frozensets(st.text()),
    max_leaves=12,
)  # fmt: skip


def kinds(value: Any) -> Any:
    """Return the types of a value and of all that it contains."""
    if isinstance(value, dict):
        return dict, [(kinds(k), kinds(v)) for k, v in value.items()]
    inner = [kinds(each) for each in value] if isinstance(value, list | tuple) else []
    return type(value), inner


@given(VALUES)
def test_any_value_reads_back_with_its_type(value: Any) -> None:
    found = decode(encode(value))
    assert found == value
    assert kinds(found) == kinds(value)


def test_what_a_request_needs_reads_back_as_it_was() -> None:
    event = Interaction(
        "a/..\ud800", "buy", 5.5, None, "u1", "<|im_end|>", {"when": date(2026, 1, 2)}
    )
    history = History((event, Interaction(None, "search", text="x")), "u")
    ready = Prepared("base", history, QueryOptions(deny=["b"], per_group=3), ("note",), sequence=7)
    reason = Explanation(
        "Because.", "template", evidence=(Evidence("a", "A", "buy", 1.0, 0.5, 0.5, 0),)
    )
    best = Recommendation(1, "a", "A", -1.5, -1.5, explanation=reason)
    answered = {"": RecommendationList("u", "trie", "m", "all", (best,), details={"exact": True})}
    arms = (Arm("one", "base"), Arm("two", "base", 0.5, options={"k": 3}))
    made = Experiment("e", arms, None, "e", ("buy",), 24.0, 2000, 1.0)
    gone = Deletions(frozenset({"v"}), frozenset({("u", "a", "buy")}))
    item = Item("i", "I", {"price": Decimal("1.50"), "at": datetime(2026, 1, 1, tzinfo=UTC)})
    for value in (
        (ready, Wanted(("new",), True, False, None), "r1"), (answered, None), time(1, 2),
        State(3, [item], gone, ("base",), "base", [made]),
    ):  # fmt: skip
        assert decode(encode(value)) == value
    again = decode(encode(ready)).options
    assert again.limited == ready.options.limited
    assert again.groups == ready.options.groups
    assert repr(decode(encode(np.float32(0.5)))) == "0.5"


def test_answers_of_a_recommender_read_back_as_they_were() -> None:
    recommender = Recommender(load("zh_mini"), tiny.language_model(), encoder="none")
    asked: dict[str, Any] = {
        "k": 2,
        "explain": True,
        "evidence": "full",
        "boosts": {"title != 'x'": 2.0},
    }
    for history in ("购买了 x; 搜索了 y", recommender.history("u01")):
        answer = recommender.recommend(history, **asked)
        assert answer[0].explanation is not None
        found = decode(encode({"": answer}))[""]
        assert found == answer
        assert found.to_dict() == answer.to_dict()


def test_a_problem_reads_back_with_its_kind() -> None:
    told = Problem(429, "full", headers={"Retry-After": "1"}, errors=[{"loc": ["k"]}])
    found = decode(encode((4, told)))[1]
    assert (found.status, found.detail, found.headers, found.errors) == (
        429, "full", {"Retry-After": "1"}, [{"loc": ["k"]}],
    )  # fmt: skip
    assert type(decode(encode(StaleError()))) is StaleError


@pytest.mark.parametrize(
    "text",
    [
        pickle.dumps(print), b"", b"{", b'["Path",{"x":1}]', b'["Item",{"x":1}]', b'["tuple"]', b"[]",
        b'["problem",[1]]', b'["bytes","\xc3"]', b'["datetime","x"]', b"[" * 100_000,
    ],
)  # fmt: skip
def test_nothing_else_can_be_read(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(text)
    with pytest.raises(TypeError, match="cannot be told"):
        encode(object())
