"""Describe what each step of ``genrec fit`` adds, and decide what is kept.

This module deals with figures only, not with the parts that they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genrec.evaluation.bootstrap import Interval, bootstrap
from genrec.fitting.halves import Measured
from genrec.priors.fitted import Parts

ENOUGH = 50  # with fewer users, nothing can be shown
DRAWS = 10_000  # number of bootstrap samples


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a part that was tried, and what came of it.

    Attributes:
        name: the name of the part, such as ``ranker``.
        kept: whether the part is used.
        why: a sentence that says why the part is used or not.
        users: the number of validation users; 0 if nothing was measured.
        ndcg: NDCG@10, with its interval; None if nothing was measured.
        nats: the mean negative log-probability of the targets; None if nothing was measured.
        ndcg_gain: the paired difference of NDCG@10 from what was kept before; None for the first
            step.
        nats_gain: the paired difference in nats, positive if the targets became more probable.
        compared_with: what the differences are from.
        seconds: how long the step took when it was computed.
        reused: whether an earlier run had computed it.
    """

    name: str
    kept: bool
    why: str
    users: int = 0
    ndcg: Interval | None = None
    nats: Interval | None = None
    ndcg_gain: Interval | None = None
    nats_gain: Interval | None = None
    compared_with: str = ""
    seconds: float = 0.0
    reused: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Step:
        """Rebuild a step from the result of ``dataclasses.asdict``."""
        named = ("ndcg", "nats", "ndcg_gain", "nats_gain")
        intervals = {n: None if values[n] is None else Interval(**values[n]) for n in named}
        return cls(**{**values, **intervals})


@dataclass(frozen=True, slots=True)
class FitReport:
    """The result of ``genrec fit``.

    Attributes:
        out: the file that holds the result.
        parts: the parts of the prior that improve the lists.
        steps: what was tried, in order.
        run: the run folder of an adapter that improves the lists; None if there is none.
        role: what the model is used for, as in ``Tuned``; ``auto`` if this is not known.
        notes: remarks for the user.
        seconds: how long the command took.
        minutes: the time limit; None if there was none.
    """

    out: Path
    parts: Parts
    steps: tuple[Step, ...]
    run: Path | None
    role: str
    notes: tuple[str, ...]
    seconds: float
    minutes: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary of plain values that can be written as JSON."""
        values: Mapping[str, Any] = asdict(self)
        run = None if self.run is None else str(self.run)
        return {"schema_version": 1, **values, "out": str(self.out), "run": run}


def judge_gain(ndcg: Interval, nats: Interval, users: int, other: str) -> tuple[bool, str]:
    """Decide whether a part is kept, and say why.

    Args:
        ndcg: the paired difference of NDCG@10, with the part less without it.
        nats: the paired difference in nats, positive if the targets became more probable.
        users: the number of users.
        other: what the part is compared with.

    Returns:
        True if the part is kept: there are enough users, NDCG@10 is higher beyond chance, and the
        targets are not less probable beyond chance; and a sentence.
    """
    if users < ENOUGH:
        return False, f"{users} validation users are too few to show anything (at least {ENOUGH})."
    if ndcg.low <= 0:
        return False, f"NDCG@10 is not higher than that of {other} beyond chance."
    if nats.high < 0:
        return False, f"The targets are less probable than under {other}, beyond chance."
    return True, f"NDCG@10 is higher than that of {other}, beyond chance."


def compare(name: str, measured: Measured, best: Measured, other: str) -> Step:
    """Compare a part with what was kept before, on the same users.

    Args:
        name: the name of the part.
        measured: the figures with the part.
        best: the figures without it.
        other: what the part is compared with.
    """
    ndcg_gain = bootstrap(measured.ndcg - best.ndcg, draws=DRAWS)
    nats_gain = bootstrap(best.nats - measured.nats, draws=DRAWS)
    users = len(measured.ndcg)
    kept, why = judge_gain(ndcg_gain, nats_gain, users, other)
    return Step(
        name, kept, why, users, bootstrap(measured.ndcg, draws=DRAWS),
        bootstrap(measured.nats, draws=DRAWS), ndcg_gain, nats_gain, other,
        round(measured.seconds, 1), measured.reused,
    )  # fmt: skip
