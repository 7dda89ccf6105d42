"""What is kept, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.evaluation.bootstrap import Interval
from genrec.fitting.halves import Measured
from genrec.fitting.report import ENOUGH, FitReport, Step, compare, judge_gain
from genrec.priors.fitted import Parts
from genrec.reports.fit_summary import print_fit

UP, LEVEL, DOWN = Interval(0.2, 0.1, 0.3), Interval(0.0, -0.1, 0.1), Interval(-0.2, -0.3, -0.1)


@pytest.mark.parametrize("ndcg", [UP, LEVEL, DOWN])
@pytest.mark.parametrize("nats", [UP, LEVEL, DOWN])
@pytest.mark.parametrize("users", [ENOUGH - 1, ENOUGH])
def test_a_part_must_be_better_and_not_worse(ndcg: Interval, nats: Interval, users: int) -> None:
    kept, why = judge_gain(ndcg, nats, users, "the prior")
    assert kept == (ndcg is UP and nats is not DOWN and users >= ENOUGH)
    if users < ENOUGH:
        assert "too few" in why
    elif ndcg is not UP:
        assert "NDCG@10 is not higher" in why
    elif nats is DOWN:
        assert "less probable" in why


@given(
    values=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=60),
    nats=st.floats(0.5, 8),
)
def test_a_part_that_changes_nothing_is_never_kept(
    values: list[tuple[float, float]], nats: float
) -> None:
    ndcg = np.array([v for v, _ in values])
    same = Measured(ndcg, np.full(len(ndcg), nats), 1.0)
    step = compare("same", same, same, "itself")
    assert not step.kept
    assert step.ndcg_gain == Interval(0.0, 0.0, 0.0)
    assert step.nats_gain == Interval(0.0, 0.0, 0.0)


def test_differences_are_paired_and_signed_as_gains() -> None:
    rng = np.random.default_rng(0)
    before = Measured(rng.random(400), 3 + rng.random(400), 1.0)
    after = Measured(before.ndcg + 0.01, before.nats - 0.02, 2.0, reused=True)
    step = compare("better", after, before, "the prior")
    assert step.kept
    assert step.ndcg_gain is not None
    assert step.nats_gain is not None
    assert step.ndcg_gain.mean == pytest.approx(0.01)
    assert step.ndcg_gain.low == pytest.approx(0.01)
    assert step.nats_gain.mean == pytest.approx(0.02)
    assert step.reused
    assert Step.from_dict(json.loads(json.dumps(asdict(step)))) == step


def test_the_report_says_what_was_kept_and_how_to_use_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = (Step("prior", True, "It is the basis."), Step("ranker", False, "No gain.", 60, UP, UP, UP, DOWN))  # fmt: skip
    out = Path("shop") / "fitted.json"
    report = FitReport(out, Parts(), steps, Path("my run"), "fuse", ("A remark.",), 90.0, 30.0)
    print_fit(report, Path("shop"))
    said = capsys.readouterr().out
    assert "ranker\t60\t0.2000 [0.1000, 0.3000]\t+0.2000 [+0.1000, +0.3000]" in said
    assert "ranker: No gain." in said
    assert "A remark." in said
    assert "The lists use the prior. The adapter ranks items together with it." in said
    assert f"Saved to {out} after 1.5 of 30 minutes." in said
    assert "genrec recommend shop --user USER --run 'my run'" in said
    assert json.loads(json.dumps(report.to_dict()))["run"] == "my run"
