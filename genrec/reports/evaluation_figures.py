"""Draw the figures of an evaluation's report as PNG images."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from genrec.errors import SettingsError
from genrec.evaluation import bootstrap, metrics
from genrec.evaluation.results import Evaluation, Result
from genrec.extras import how_to_install
from genrec.text import one_line

_CURVE = 20  # the largest k in the hit-rate curves
_BARS = 8  # the maximum number of slices of a kind in a figure
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_MARKS = "os^Dvp*"
SLICES = {
    "item": "whether the target item occurs in the train part",
    "user": "whether the user occurs in the train part",
    "history": "number of events in the history",
    "target_events": "number of earlier events of the target item",
    "last_behavior": "last behavior in the history",
    "script": "script of the target's title",
}


def hit_rate_curves(evaluation: Evaluation) -> bytes:
    """Plot the hit rate of each system by list length, with a band for its interval.

    Returns:
        The figure as PNG data.
    """
    figure, axes = _figure_of(1)
    longest = max((len(r) for s in evaluation.results for r in s.ranked), default=1)
    ks = range(1, min(_CURVE, max(longest, 1)) + 1)
    for result, color, mark in _styled(evaluation.results):
        ranks = result.ranks()
        values = np.stack([metrics.hit_rate(ranks, k) for k in ks], axis=1)
        means = bootstrap.bootstraps(values, draws=2_000)
        axes[0].plot(
            ks,
            [i.mean for i in means],
            color=color,
            marker=mark,
            markersize=4,
            label=_plain(result.name),
        )
        axes[0].fill_between(
            ks, [i.low for i in means], [i.high for i in means], color=color, alpha=0.15, lw=0
        )
    axes[0].set(xlabel="list length k", ylabel="HR@k with 95% interval", ylim=(0, None))
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, axes[0])
    return _png(figure)


def reliability(evaluation: Evaluation) -> bytes:
    """Plot observed frequencies by stated probability, with 95% intervals.

    Returns:
        The figure as PNG data.
    """
    figure, axes = _figure_of(1)
    highest = 1e-3
    for result, color, mark in _styled(evaluation.results):
        if result.reliability is None:
            continue
        r = result.reliability
        error = 1.96 * np.sqrt(r.observed * (1 - r.observed) / r.count)
        low = np.minimum(error, r.observed)
        label = f"{_plain(result.name)}, expected calibration error {r.error:.4f}"
        style = {"color": color, "marker": mark, "markersize": 5, "capsize": 2, "label": label}
        axes[0].errorbar(r.stated, r.observed, yerr=[low, error], **style)
        highest = max(highest, float(r.stated.max()), float((r.observed + error).max()))
    line = [0, min(1.0, 1.05 * highest)]
    axes[0].plot(line, line, color="#999999", ls="--", lw=1, label="perfect calibration")
    axes[0].set(xlabel="stated probability", ylabel="observed frequency", xlim=line, ylim=line)
    _legend(figure, axes[0])
    return _png(figure)


def slice_bars(evaluation: Evaluation, metric: str) -> bytes:
    """Plot a metric for the largest slices of users, with a panel for each kind of slice.

    The bars are means with 95% intervals.

    Returns:
        The figure as PNG data.
    """
    kinds = evaluation.by_slice
    figure, axes = _figure_of(len(kinds))
    n = len(evaluation.results)
    for panel, (kind, labels) in zip(axes, kinds.items(), strict=True):
        users = Counter(evaluation.slices[kind])
        largest = {label for label, _ in users.most_common(_BARS)}
        shown = [label for label in labels if label in largest]
        for place, (result, color, _) in enumerate(_styled(evaluation.results)):
            at = np.arange(len(shown)) + (place - (n - 1) / 2) * 0.8 / n
            intervals = [labels[label][result.name][metric] for label in shown]
            means = np.array([i.mean for i in intervals])
            error = np.array(
                [[m - i.low, i.high - m] for m, i in zip(means, intervals, strict=True)]
            )
            style = {"color": color, "alpha": 0.8, "ecolor": "#444444", "capsize": 2}
            name = _plain(result.name)
            panel.bar(at, means, 0.75 / n, yerr=np.maximum(error.T, 0), label=name, **style)
        names = [f"{_plain(label)}\nn={users[label]:,}" for label in shown]
        panel.set_xticks(range(len(shown)), names)
        panel.set(title=SLICES.get(kind, kind), ylabel=metric, ylim=(0, None))
    _legend(figure, axes[0])
    return _png(figure)


def _legend(figure: Any, panel: Any) -> None:
    """Draw a single legend above all panels of a figure."""
    handles, names = panel.get_legend_handles_labels()
    columns = 1 if max(map(len, names)) > 30 else 4
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False)


def _styled(results: Sequence[Result]) -> list[tuple[Result, str, str]]:
    n, m = len(_COLORS), len(_MARKS)
    return [(r, _COLORS[i % n], _MARKS[i % m]) for i, r in enumerate(results)]


def load_matplotlib() -> Any:
    """Import matplotlib.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        msg = f"A report needs matplotlib, which is not installed. {how_to_install('report')}"
        raise SettingsError(msg) from error
    return matplotlib


def _figure_of(panels: int) -> tuple[Any, Any]:
    load_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2 if panels == 1 else 3.2 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _plain(text: str) -> str:
    """Escape $ for matplotlib, where it starts a formula, and replace non-ASCII characters by ?."""
    shown = "".join(c if c.isascii() else "?" for c in one_line(text))
    return shown.replace("$", r"\$")
