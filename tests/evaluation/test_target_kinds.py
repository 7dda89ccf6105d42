"""Results for new targets and for repeats, against counting by hand over random shops."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from genrec import Dataset, History
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.ingest import EventOptions
from genrec.errors import RequestError
from genrec.evaluation import bootstrap, evaluator
from genrec.evaluation.evaluator import Evaluation, Result, compare
from genrec.reports import evaluation_report

ITEMS = [f"i{n}" for n in range(9)]
BY_RANK: dict[str, Callable[[int], float]] = {
    "hit_rate": lambda rank: 1.0,
    "ndcg": lambda rank: 1 / log2(rank + 1),
    "mrr": lambda rank: 1 / rank,
}


@dataclass
class Fixed:
    """A system with a fixed list for each user."""

    name: str
    lists: Mapping[str | None, Sequence[str]]

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        return self.lists[history.user_id][:k]


@dataclass
class Shopper:
    """A user: earlier events as (item, behavior), the last basket, and the lists of two systems."""

    earlier: list[tuple[str, str]]
    basket: list[str]
    ours: list[str]
    theirs: list[str]


shoppers = st.lists(
    st.builds(
        Shopper,
        st.lists(
            st.tuples(st.sampled_from(ITEMS), st.sampled_from(["buy", "buy", "view", "return"])),
            min_size=1,
            max_size=6,
        ),
        st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4),
        st.lists(st.sampled_from(ITEMS), unique=True, max_size=9),
        st.lists(st.sampled_from(ITEMS), unique=True, max_size=9),
    ),
    min_size=1,
    max_size=7,
)


def shop(users: Mapping[str, Shopper], led_by: dict[str, float]) -> Dataset:
    """A dataset in which each earlier event is a unit of its own and the basket is the last unit."""
    rows = []
    for user, shopper in users.items():
        units = [[event] for event in shopper.earlier]
        units.append([(item, "buy") for item in shopper.basket])
        for day, unit in enumerate(units):
            for item, behavior in unit:
                time = 1_500_000_000 + 86_400 * day
                rows.append((user, item, behavior, time, f"{user}-{day}"))
    names = ("user_id", "item_id", "behavior", "timestamp", "unit")
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    items = pa.table({"item_id": ITEMS, "title": [f"title {i}" for i in ITEMS]})
    options = EventOptions(unit="unit", time_unit="s")
    data = Dataset.from_tables(items, events, name="s", target_behavior="buy", options=options)
    return replace(data, info=replace(data.info, led_by=led_by, repeat_share=0.0))


def value(metric: str, shopper: Shopper, ranked: list[str], wanted: Sequence[str]) -> float:
    """The value of a metric for one user, computed from its definition."""
    name, _, k = metric.partition("@")
    top = ranked[: int(k)]
    if name == "recall":
        return sum(item in top for item in set(wanted)) / len(set(wanted))
    target = shopper.basket[0]
    return BY_RANK[name](top.index(target) + 1) if target in top else 0.0


@given(many=shoppers, led_by=st.sampled_from([{}, {"view": 0.9}]))
def test_every_metric_of_each_kind_equals_counting_by_hand(
    many: list[Shopper], led_by: dict[str, float]
) -> None:
    users = {f"u{n}": shopper for n, shopper in enumerate(many)}
    # A user with a single purchase unit has no test part.
    tested = {u: s for u, s in users.items() if any(b == "buy" for _, b in s.earlier)}
    assume(tested)
    systems = [
        Fixed("ours", {u: s.ours for u, s in users.items()}),
        Fixed("theirs", {u: s.theirs for u, s in users.items()}),
    ]
    found = evaluator.evaluate(shop(users, led_by), systems, exclude_seen=False)
    assert [c.user_id for c in found.cases] == list(tested)
    plain = found.to_dict()["targets"]
    assert list(found.by_target) == list(plain) == ["new", "repeat"]
    for kind, results in found.by_target.items():
        inside = {}  # the shoppers with a target of this kind, and their basket's items of the kind
        for number, shopper in enumerate(tested.values()):
            seen = [item for item, behavior in shopper.earlier if behavior not in led_by]
            same = [i for i in shopper.basket if (i in seen) == (kind == "repeat")]
            if shopper.basket[0] in same:
                inside[number] = (shopper, same)
        assert results.users == plain[kind]["users"] == len(inside)
        for system in ("ours", "theirs"):
            expected = {}
            for metric, values in found[system].values.items():
                expected[metric] = values[list(inside)]
                if metric.partition("@")[0] in {*BY_RANK, "recall"}:
                    expected[metric] = np.array(
                        [value(metric, s, getattr(s, system), same) for s, same in inside.values()]
                    )
            check_means(found, system, kind, expected)
        for comparison in results.comparisons:
            minus = [
                value("ndcg@10", s, s.ours, same) - value("ndcg@10", s, s.theirs, same)
                for s, same in inside.values()
            ]
            assert comparison.difference == close(bootstrap.bootstrap(minus))
            assert (comparison.users, comparison.targets) == (len(inside), kind)
        assert len(results.comparisons) == len(plain[kind]["comparisons"]) == bool(inside)


def close(interval: bootstrap.Interval) -> Any:
    class Close:
        def __eq__(self, other: object) -> bool:
            assert isinstance(other, bootstrap.Interval)
            pair = ((i.mean, i.low, i.high) for i in (interval, other))
            return next(pair) == pytest.approx(next(pair), abs=1e-12)

    return Close()


def check_means(
    found: Evaluation, system: str, kind: str, expected: Mapping[str, np.ndarray]
) -> None:
    """Compare the intervals of a system with values that were computed for each user."""
    intervals = found.by_target[kind].intervals[system]
    plain = found.to_dict()["targets"][kind]["systems"][system]
    some = {m: v[~np.isnan(v)] for m, v in expected.items() if (~np.isnan(v)).any()}
    assert set(intervals) == set(plain) == set(some)
    for metric, values in some.items():
        assert intervals[metric].mean == pytest.approx(values.mean(), abs=1e-12)
        assert intervals[metric] == close(bootstrap.bootstrap(values))
        assert plain[metric]["low"] == intervals[metric].low
        assert found[system].per_user(metric, kind).tolist() == pytest.approx(
            expected[metric].tolist(), nan_ok=True
        )


def shop_of_three() -> tuple[Dataset, list[Fixed]]:
    users = {
        "a": Shopper([("i0", "buy"), ("i1", "buy")], ["i1", "i5", "i0"], ["i1", "i5"], ["i5"]),
        "b": Shopper([("i0", "buy"), ("i2", "view")], ["i2", "i0"], ["i0"], ["i2"]),
        "c": Shopper([("i3", "buy"), ("i4", "return")], ["i4"], ["i8"], ["i4"]),
    }
    names = ("ours", "theirs")
    systems = [Fixed(n, {u: getattr(s, n) for u, s in users.items()}) for n in names]
    return shop(users, {"view": 0.9}), systems


def test_by_hand() -> None:
    data, systems = shop_of_three()
    found = evaluator.evaluate(data, systems, exclude_seen=False)
    ours, theirs = found.results
    assert [c.repeats for c in found.cases] == [(True, False, True), (False, True), (True,)]
    assert ours.mean("hit_rate@10", "repeat").mean == 0.5
    assert ours.per_user("recall@10", "repeat").tolist() == [0.5, 0.0]  # i5 is new, so not counted
    assert theirs.mean("recall@10", "new").mean == 1.0
    assert theirs.per_user("recall@7", "new").tolist() == [1.0]
    said = str(compare(ours, theirs, "hit_rate@10", "new"))
    assert said.startswith(
        "ours is worse than theirs in hit_rate@10 on new targets: difference -1.0000 [-1.0000, "
        "-1.0000], 1 users"
    )
    assert " on repeats: difference +0.0000 [" in str(compare(ours, theirs, targets="repeat"))


def test_a_history_that_a_protocol_cuts_decides_what_is_new(demo_data: Dataset) -> None:
    cases = protocols.demo_v1(demo_data)
    assert sum(c.repeat for c in cases) == 227
    assert all(c.repeat == (c.target in c.history.item_ids) for c in cases)
    whole = {c.user_id: c.repeat for c in protocols.last_unit(demo_data)}
    assert sum(whole.values()) == 295
    assert sum(whole[c.user_id] and not c.repeat for c in cases) == 66


def test_kinds_that_do_not_exist_are_said() -> None:
    found = evaluator.evaluate(load("zh_mini"), ["popular", "recent"], users=5)
    ours, theirs = found.results
    for call in (
        lambda: ours.mean("ndcg@10", "repeat"),
        lambda: ours.minus(theirs, "ndcg@10", "repeat"),
        lambda: compare(ours, theirs, targets="repeat"),
    ):
        with pytest.raises(
            RequestError, match=r"No target is a repeat\. Expected at least one user"
        ):
            call()
    with pytest.raises(
        RequestError, match=r"Unknown value targets='old'\. Expected one of: all, new"
    ):
        compare(ours, theirs, targets="old")
    with pytest.raises(RequestError, match="Unknown value metric='loss'"):
        ours.per_user("loss", "new")
    assert found.by_target["repeat"].users == 0
    assert found.to_dict()["targets"]["repeat"] == {
        "users": 0, "systems": {"popular": {}, "recent": {}}, "comparisons": [],
    }  # fmt: skip
    assert evaluation_report.by_target(found) == []
    assert any(
        s.startswith("All targets are new to the user") for s in evaluation_report.remarks(found)
    )


@pytest.fixture(scope="module")
def on_demo(demo_data: Dataset) -> Evaluation:
    return evaluator.evaluate(demo_data, ["recent", "popular"], users=60)


@pytest.mark.parametrize("ending", ["html", "md"])
def test_reports_show_each_kind_with_its_number_and_intervals(
    on_demo: Evaluation, tmp_path: Path, ending: str
) -> None:
    evaluation_report.write(on_demo, tmp_path / f"r.{ending}")
    text = (tmp_path / f"r.{ending}").read_text(encoding="utf-8").replace("\\", "")
    text = text.replace("<small>", "").replace("</small>", "")
    new, repeats = (on_demo.by_target[kind] for kind in ("new", "repeat"))
    assert new.users + repeats.users == 60
    places = [
        text.index(f"Targets that are new to the user ({new.users} of 60)"),
        text.index(f"Repeats ({repeats.users} of 60)"),
        len(text),
    ]
    for kind, first, last in zip((new, repeats), places[:2], places[1:], strict=True):
        part = text[first:last]
        for metric in ("ndcg@10", "recall@10", "novelty@10", "hit_rate@5"):
            for system in ("recent", "popular"):
                assert metric in part
                assert str(kind.intervals[system][metric]) in part
        assert str(kind.comparisons[0]) in part


def test_each_kind_is_printed(on_demo: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    from genrec.reports import summaries

    summaries.print_evaluation(on_demo)
    out = capsys.readouterr().out
    new, repeats = (on_demo.by_target[kind] for kind in ("new", "repeat"))
    assert out.count("\nmetric\trecent\tpopular\n") == 2  # the first table begins the output
    assert f"\nTargets that are new to the user ({new.users} of 60)\nmetric\t" in out
    assert f"\nndcg@10\t{repeats.intervals['recent']['ndcg@10']}\t" in out
    assert f"{repeats.comparisons[0]}.\n" in out
    assert f"{new.users} targets are new to the user, and {repeats.users} are repeats" in out
    assert "no system may recommend a repeat" not in out


def test_repeats_cannot_be_found_where_seen_items_are_left_out(demo_data: Dataset) -> None:
    found = evaluator.evaluate(demo_data, ["recent", "popular"], users=60, exclude_seen=True)
    for result in found.results:
        assert not result.per_user("hit_rate@20", "repeat").any()
    assert found["recent"].ranked == found["popular"].ranked
    assert "no system may recommend a repeat" in " ".join(evaluation_report.remarks(found))


def test_a_folder_of_an_older_version_goes_on(tmp_path: Path, demo_data: Dataset) -> None:
    """Logs, values and results without kinds of targets, as older versions wrote them."""
    first = evaluator.evaluate(demo_data, ["recent"], users=20, out=tmp_path)
    log = (tmp_path / "recent.jsonl").read_bytes()
    assert b"repeat" not in log
    result = json.loads((tmp_path / "result.json").read_text())
    del result["targets"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    table = pq.read_table(tmp_path / "recent.parquet")
    assert table["repeat"].to_pylist() == [c.repeat for c in first.cases]
    pq.write_table(table.drop_columns("repeat"), tmp_path / "recent.parquet")
    again = evaluator.evaluate(demo_data, ["recent"], users=20, out=tmp_path)
    assert (tmp_path / "recent.jsonl").read_bytes() == log  # nothing was ranked again
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == again.to_dict() == first.to_dict()
    assert {name: value for name, value in written.items() if name != "targets"} == result
    assert pq.read_table(tmp_path / "recent.parquet").equals(table)


def test_lists_without_metrics_have_kinds_too(demo_data: Dataset) -> None:
    cases = evaluator.sample(protocols.demo_v1(demo_data), 40)
    oracle = Result("oracle", cases, [[c.target] for c in cases])
    assert oracle.mean("hit_rate@1", "new").mean == 1.0
    assert len(oracle.per_user("recall@3", "repeat")) == sum(c.repeat for c in cases)
