"""Write the report of a training run to report.md, and its plot to curves.png.

The report is based only on the log and run.json, so the model need not be loaded.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from genrec import files, runs
from genrec.config import Settings
from genrec.errors import ModelError
from genrec.runs import Run
from genrec.training.config import Training

REPORT = "report.md"
CURVES = "curves.png"
Line = Mapping[str, Any]


def read_log(folder: Path) -> tuple[list[Line], list[Line]]:
    """Read the log of a run.

    If a run was killed and resumed, its log may have two lines for the same step; the later line is
    used.

    Returns:
        The lines about training steps, and the lines about validations.

    Raises:
        ModelError: there is no log, or a line other than the last is damaged.
    """
    path = folder / runs.LOG
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        msg = f"Cannot read {path}: {error}. Expected the log of a training run."
        raise ModelError(msg) from error
    steps: dict[int, Line] = {}
    validations: dict[int, Line] = {}
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            (validations if line.get("validation") else steps)[int(line["step"])] = line
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            if number == len(texts):  # the process was killed while writing it
                break
            msg = (
                f"{path}, line {number}, is damaged: {error!r}. Expected one JSON object per line."
            )
            raise ModelError(msg) from error
    return [steps[s] for s in sorted(steps)], [validations[s] for s in sorted(validations)]


_MEASURES = {
    "targets": "targets", "nats": "nats", "hit_rate@10": "HR@10", "ndcg@10": "NDCG@10",
    "auc": "AUC", "users": "users", "pairs": "pairs",
}  # fmt: skip


def write(folder: Path, run: Run, items: int) -> None:
    """Write the report of a run, including a plot if matplotlib is installed.

    Args:
        folder: the run folder.
        run: the contents of run.json.
        items: the number of items or answers to choose from. It determines the loss of a uniform
            guess, which the report shows for comparison.
    """
    steps, validations = read_log(folder)
    pictured = bool(steps) and importlib.util.find_spec("matplotlib") is not None
    if pictured:
        _draw(folder / CURVES, steps, validations, items)
    text = "\n".join(_markdown(run, steps, validations, items, pictured=pictured))
    files.write_text(folder / REPORT, text + "\n")


def _markdown(
    run: Run, steps: Sequence[Line], validations: Sequence[Line], items: int, *, pictured: bool
) -> list[str]:
    """Compose the lines of report.md."""
    import math

    state = "has finished" if run.finished else "was stopped early"
    lines = [
        f"# Model fine-tuned on {run.data}",
        "",
        f"The base model is {run.base_model}. Training on {run.targets:,} targets {state}.",
        "",
        _describe_reading(run.settings),
        "",
    ]
    if steps:
        last = steps[-1]
        speed = sum(s["targets_per_second"] for s in steps) / len(steps)
        what = "answer" if run.training.get("objective") == "pointwise" else "item"
        lines += [
            f"Training took {last['seconds'] / 60:.0f} minutes at {speed:.1f} targets per second. "
            f"The loss went from {steps[0]['nats']:.3f} to {last['nats']:.3f} nats per {what} "
            f"(a uniform guess among {items:,} {what}s has a loss of {math.log(items):.3f}).",
            "",
        ]
    if pictured:
        lines += [f"![Nats by number of training targets]({CURVES})", ""]
    if validations:
        names = [n for n in _MEASURES if n in validations[0]]
        lines += [f"| {' | '.join(map(_MEASURES.__getitem__, names))} |", "|---" * len(names) + "|"]
        lines += [
            f"| {' | '.join(format(v[n], ',' if isinstance(v[n], int) else '.4f') for n in names)} |"
            for v in validations
        ]
        same = "pairs" if "pairs" in names else "users. Their lists come from the decoder"
        lines += ["", f"All validations use the same {same}.", ""]
    changed = _changed_settings(run)
    if changed:
        lines += ["Settings that differ from the defaults:", "", *(f"- {c}" for c in changed), ""]
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return [*lines, f"Versions: {versions}."]


def _describe_reading(settings: Mapping[str, Any]) -> str:
    """Say how the model read the events of a history in training, and so should read them later."""
    if settings.get("attention", "full") == "full":
        return "Each event was read together with all earlier ones (`attention: full`)."
    return (
        "Older events were read by themselves (`attention: by_event`), and the latest "
        f"{settings['recent_events']} together with all earlier ones (`recent_events`)."
    )


def _changed_settings(run: Run) -> list[str]:
    """Return a line of text for each setting of the run that differs from its default."""
    given = {**run.settings, **run.training}
    defaults = {f.name: f.default for f in (*fields(Training), *fields(Settings))}
    return [
        f"`{name}: {json.dumps(value)}`"
        for name, value in given.items()
        if name in defaults and value != defaults[name] and value != {}
    ]


def _draw(path: Path, steps: Sequence[Line], validations: Sequence[Line], items: int) -> None:
    """Plot the loss and the validation results against the number of training targets."""
    import math

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6 if validations else 3.2), layout="constrained")
    panels = figure.subplots(2 if validations else 1, 1, squeeze=False, sharex=True)[:, 0]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
    nats = panels[0]
    nats.plot(
        [s["targets"] for s in steps], [s["nats"] for s in steps], color="#9ab", label="train"
    )
    nats.axhline(math.log(items), color="#888", linestyle=":", label="uniform guess")
    nats.set_ylabel("nats")
    if validations:
        at = [v["targets"] for v in validations]
        nats.plot(at, [v["nats"] for v in validations], "o-", color="#b33", label="validation")
        styles = {"hit_rate@10": ("#247", "o-"), "ndcg@10": ("#283", "s-"), "auc": ("#247", "o-")}
        for name, (color, mark) in styles.items():
            if name in validations[0]:
                panels[1].plot(at, [v[name] for v in validations], mark, color=color, label=name)
        panels[1].set_ylim(bottom=0)
        panels[1].legend(frameon=False)
    nats.legend(frameon=False)
    panels[-1].set_xlabel("training targets")
    figure.savefig(path, dpi=110)
