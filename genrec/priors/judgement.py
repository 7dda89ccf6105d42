"""Check whether a fine-tuned model is worse than simpler alternatives.

The metrics that are compared were measured by ``genrec tune`` or during training. This module deals
with numbers and sentences only.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from genrec.priors.tuned import Tuned
from genrec.runs import Run

ENOUGH = 50  # with fewer users, a difference may well be chance
BASE = "genrec recommend {data} --user USER"


@dataclass(frozen=True, slots=True)
class Finding:
    """A comparison in which a fine-tuned model is worse than a simpler alternative.

    Attributes:
        kind: ``uniform`` if the model alone is worse than a uniform guess, ``prior`` if the model
            combined with the prior is worse than the prior alone, or ``alone`` if the model alone
            is worse than the prior alone, but their combination is not.
        headline: a sentence in capital letters that states what is worse.
        figures: a sentence with the metrics that were compared.
        advice: the recommended action, including a command.
    """

    kind: str
    headline: str
    figures: str
    advice: str

    def __str__(self) -> str:
        """Return the headline, the figures and the advice on one line."""
        return f"{self.headline} {self.figures} {self.advice}"


def compare_with_uniform(
    nats: float, users: int, items: int, *, data: str = "DIR"
) -> tuple[Finding, ...]:
    """Check whether a model predicts the targets worse than a uniform guess.

    Args:
        nats: the mean negative log-probability of the targets, in nats, under the model alone.
        users: the number of validation users.
        items: the number of items or answers to choose from; 0 if it is unknown.
        data: the dataset folder, which appears in the recommended command.

    Returns:
        One finding if the model is worse. The result is empty if it is not, or if ``items`` is 0.
    """
    if not items or nats <= math.log(items):
        return ()
    return (
        Finding(
            "uniform",
            "THIS RUN IS WORSE THAN A UNIFORM GUESS.",
            f"On {users:,} validation users, the model alone needs {nats:.3f} nats per item, and a uniform "
            f"guess among {items:,} items needs {math.log(items):.3f}.{_hedge(users)}",
            "Train again with a lower --learning-rate or for longer. Until then, leave out --run: "
            f"`{BASE.format(data=data)}`.",
        ),
    )


def _hedge(users: int) -> str:
    return "" if users >= ENOUGH else " With so few users, this may be chance."


def judge(tuned: Tuned, *, data: str = "DIR", run: str = "RUN") -> tuple[Finding, ...]:
    """Compare a fine-tuned model with a uniform guess and with the prior alone.

    Args:
        tuned: the fitted parameters, together with the metrics measured when they were fitted.
        data: the dataset folder, which appears in the recommended commands.
        run: the run folder, which appears in the recommended commands.

    Returns:
        The findings, most serious first; empty if no simpler alternative is better.
    """
    found = compare_with_uniform(tuned.nats["model"], tuned.users, tuned.items, data=data)
    chance = _hedge(tuned.users)
    model, prior, both = (tuned.ndcg[k] for k in ("model", "prior", tuned.fusion))
    measured = f"On {tuned.users:,} validation users, NDCG@10 is {prior:.4f} for the prior alone"
    if both < prior:
        return (
            *found,
            Finding(
                "prior",
                "THIS RUN IS WORSE THAN THE PRIOR ALONE.",
                f"{measured} and {both:.4f} for the model and the prior together.{chance}",
                "Leave out --run, so that the prior decides nearly alone: "
                f"`{BASE.format(data=data)}`. Training for longer or on more events may help.",
            ),
        )
    if model < prior and not found:
        return (
            Finding(
                "alone",
                "THE MODEL ALONE IS WORSE THAN THE PRIOR ALONE.",
                f"{measured}, {model:.4f} for the model alone and {both:.4f} for both together."
                f"{chance}",
                f"Use both, without --prior none: `{BASE.format(data=data)} --run {run}`.",
            ),
        )
    return found


def judge_run(run: Run, data: str, folder: str) -> tuple[Finding, ...]:
    """Compare a run with simpler alternatives, using the metrics stored in its ``run.json``.

    Args:
        run: the contents of ``run.json``.
        data: the dataset folder, which appears in the recommended commands.
        folder: the run folder, which appears in the recommended commands.
    """
    if run.asks:
        return ()
    data, folder = shlex.quote(data), shlex.quote(folder)
    tuned, best = tuned_of(run), run.metrics.get("best") or {}
    if tuned is not None:
        return judge(tuned, data=data, run=folder)
    return compare_with_uniform(
        best.get("nats", 0.0), best.get("users", 0), run.metrics.get("items", 0), data=data
    )


def tuned_of(run: Run) -> Tuned | None:
    """Return the parameters that were fitted after training, or None if none were fitted."""
    figures = run.metrics.get("tuned")
    return Tuned(key="", model=run.base_model, **figures) if figures else None
