"""What the audit finds in data that was made to mislead."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from genrec import Dataset
from genrec.data.datasets import load
from genrec.data.ingest import EventOptions
from genrec.data.readers.rejects import Rejects
from genrec.evaluation.audit import Finding, audit, published_table

Row = tuple[str, str, float, str]
DAY = 86_400


def made(rows: list[Row], titles: dict[str, str] | None = None, **options: object) -> Dataset:
    """A dataset of (user, item, time, split) rows; no split column where all are empty."""
    items = {f"i{n}": f"title {n}" for n in range(40)} | (titles or {})
    names = ("user_id", "item_id", "timestamp", "split")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    if not any(columns["split"]):
        del columns["split"]
    events = pa.table({**columns, "behavior": ["buy"] * len(rows)})
    catalog = pa.table({"item_id": list(items), "title": list(items.values())})
    given = EventOptions(**options)  # type: ignore[arg-type]
    rejects = [Rejects("i"), Rejects("e")]
    return Dataset.from_tables(catalog, events, name="made", options=given, rejects=rejects)


def found(dataset: Dataset) -> dict[str, Finding]:
    return {f.check: f for f in audit(dataset).findings}


def honest(users: int = 12) -> list[Row]:
    """Users with their own items, train long before test, nothing on the same day."""
    rng = np.random.default_rng(0)
    items = [rng.permutation(40) for _ in range(users)]
    return [
        (f"u{u:02}", f"i{items[u][n]}", (1e4 + 10 * n + u / 10) * DAY, split)
        for u in range(users)
        for n, split in enumerate(["train", "train", "train", "validation", "test"])
    ]


def test_nothing_is_found_in_honest_data() -> None:
    findings = found(made(honest(), time_unit="s"))
    assert {c: f.said for c, f in findings.items() if f.level == "warning"} == {}
    assert findings["users"].level == "note"
    assert findings["future"].level == "ok"
    assert findings["ties"].figures["same_day"] == 0.0


def test_a_leaking_split_is_found() -> None:
    rows = honest()
    tests = [r for r in rows if r[3] == "test"]
    copies = [(u, i, t, "train") for u, i, t, _ in tests]  # the targets are in train, too
    findings = found(made(rows + copies, time_unit="s"))
    assert findings["repeated events"].level == "warning"
    assert findings["repeated events"].figures["targets_in_train"] == 1.0
    assert "Drop repeated rows before splitting" in findings["repeated events"].advice
    assert findings["target in history"].level == "warning"
    assert "can never be hit" in findings["target in history"].advice


def test_windows_cut_before_splitting_are_found() -> None:
    items = [f"i{n}" for n in range(30)]
    rows = [
        (f"{split}{first}", item, float(first + n), split)
        for first in range(20)
        for split in ("train", "test")
        for n, item in enumerate(items[first : first + 6])
    ]
    findings = found(made(rows, time_unit="position"))
    assert findings["sequences in train"].level == "warning"
    assert findings["sequences in train"].figures["share"] == 1.0
    assert findings["users in splits"].figures["test_users_in_train"] == 0.0


def test_the_future_in_train_is_found() -> None:
    late = [(f"v{u}", f"i{u}", (3e4 + u) * DAY, "train") for u in range(9)]
    findings = found(made(honest() + late, time_unit="s"))
    assert findings["future"].level == "warning"
    assert findings["future"].figures["targets_with_later_train_events"] == 1.0
    assert "Split the data again" in findings["future"].advice
    last_out = found(made([(u, i, t, "") for u, i, t, _ in honest()], time_unit="s"))
    assert last_out["future"].level in {"ok", "note"}
    back = [(u, i, 4e4 * DAY - t, s) for u, i, t, s in honest()]
    findings = found(made(back, time_unit="s"))
    assert findings["future"].figures["histories_that_are_later"] == 1.0
    assert findings["users in splits"].level == "warning"


def test_ties_are_found_also_where_positions_order_the_events() -> None:
    rows = [(u, i, float(int(t / DAY / 1000)) * DAY, s) for u, i, t, s in honest()]
    tied = found(made(rows, time_unit="s"))["ties"]
    assert tied.level == "warning"
    assert tied.figures["same_time"] == 1.0
    assert "all times are whole days" in tied.said
    table = pa.table(
        {
            "user_id": ["u"] * 3 + ["v"] * 3,
            "item_id": ["i1", "i2", "i3"] * 2,
            "position": [0, 1, 2] * 2,
            "timestamp": [1318896000, 1318896000, 1318896000, 1318896000, 1318896000, 1418896000],
            "behavior": ["buy"] * 6,
        }
    )
    catalog = pa.table({"item_id": ["i1", "i2", "i3"], "title": list("xyz")})
    dataset = Dataset.from_tables(catalog, table, name="positions")
    assert dataset.info.time_unit == "position"
    assert found(dataset)["ties"].figures["same_day"] == 0.5


def test_shared_titles_are_found() -> None:
    shared = {f"i{n}": "the same" for n in range(20)}
    findings = found(made(honest(), shared, time_unit="s"))["shared titles"]
    assert findings.level == "note"
    assert findings.figures["items"] == 20
    assert findings.figures["targets"] > 0.3
    by_id, by_text = (findings.figures[f"popular_hit_rate@10_by_{how}"] for how in ("id", "text"))
    assert by_text > by_id


def test_rejected_rows_are_said() -> None:
    lost = [("u00", f"gone{n}", 1e9, "train") for n in range(3)]
    finding = found(made(honest() + lost, time_unit="s"))["rejected rows"]
    assert finding.level == "warning"
    assert finding.figures == {"rows": 3, "events_kept": 60}
    assert "60 events remain" in finding.said
    assert "not in the items" in finding.said
    assert found(made(honest(), time_unit="s"))["rejected rows"].level == "ok"


def test_repeats_and_the_rule_are_said() -> None:
    findings = {f.check: f for f in audit(load("online_retail_demo")).findings}
    assert findings["repeats"].figures["repeat_share"] > 0.3
    assert findings["target in history"].figures["by_id"] == pytest.approx(0.32, abs=0.02)
    assert findings["target in history"].level == "note"
    for name in ("popular", "recent", "frequent", "markov"):
        assert f"{name} HR@10" in findings["counting"].said


def test_a_table_that_cannot_be_is_said_and_all_is_json() -> None:
    dataset = made(honest(), time_unit="s")
    rows = [{"model": "theirs", "HR@10": ".0400", "NDCG@10": ".0450"}]
    value = audit(dataset, table=rows).to_dict()
    json.dumps(value, allow_nan=False)
    (finding,) = [f for f in value["findings"] if f["check"] == "table"]
    assert finding["level"] == "warning"
    assert "NDCG@10 0.045 is above HR@10 0.04" in finding["said"]
    assert published_table([{"HR@10": ".0450", "NDCG@10": ".0400"}]).level == "ok"
