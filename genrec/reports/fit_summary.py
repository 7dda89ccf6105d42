"""Print the report of ``genrec fit``."""

from __future__ import annotations

import shlex
from pathlib import Path

from genrec.config import EXPLAIN, FEATURE, FUSE
from genrec.evaluation.bootstrap import Interval
from genrec.fitting.report import FitReport, Step
from genrec.reports.console import print_line, print_table
from genrec.text import one_line

_HEADER = ("part", "users", "NDCG@10", "added", "nats", "fewer nats", "seconds", "kept")


def print_fit(report: FitReport, data: Path) -> None:
    """Print what each step added, why it was kept or not, and how to use the result.

    Args:
        report: the report.
        data: the dataset folder, which appears in the commands.
    """
    print_table(_HEADER, [_row(step) for step in report.steps], right=(1, 6))
    for step in report.steps:
        print_line(f"{step.name}: {one_line(step.why)}")
    for note in report.notes:
        print_line(note)
    print_line(f"The lists use the {report.parts.describe()}.{_describe_role(report)}")
    limit = "" if report.minutes is None else f" of {report.minutes:g}"
    print_line(f"Saved to {report.out} after {report.seconds / 60:.1f}{limit} minutes.")
    run = "" if report.run is None else f" --run {shlex.quote(str(report.run))}"
    print_line(f"Use it with: genrec recommend {shlex.quote(str(data))} --user USER{run}")


def _row(step: Step) -> list[str]:
    """Return the cells of a step in the table."""
    return [
        step.name,
        f"{step.users:,}" if step.users else "-",
        _spell(step.ndcg),
        _spell(step.ndcg_gain, signed=True),
        _spell(step.nats, digits=3),
        _spell(step.nats_gain, signed=True, digits=3),
        (f"{step.seconds:,.0f}" if step.seconds else "-") + (" (before)" if step.reused else ""),
        "yes" if step.kept else "no",
    ]


def _spell(value: Interval | None, *, signed: bool = False, digits: int = 4) -> str:
    """Spell a mean with its interval; a dash if there is none.

    >>> _spell(Interval(0.01, -0.002, 0.02), signed=True), _spell(None)
    ('+0.0100 [-0.0020, +0.0200]', '-')
    """
    if value is None:
        return "-"
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _describe_role(report: FitReport) -> str:
    """Return a sentence on what the model is used for; empty if this is not known."""
    if report.role in {FUSE, FEATURE}:
        adapter = "The adapter" if report.run is not None else "The model"
        return f" {adapter} ranks items together with it."
    if report.role == EXPLAIN:
        return " The model is used for explanations only."
    return ""
