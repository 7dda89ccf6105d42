"""Draw the charts of an evaluation, as SVG for pages and as PNG for Markdown.

In an SVG chart, lines and text have the color of the surrounding text, and series have the colors
that the page declares, so a chart follows the theme of its page.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from genrec.errors import SettingsError
from genrec.evaluation import bootstrap, metrics
from genrec.evaluation.results import Evaluation, Result
from genrec.evaluation.slices import Slice
from genrec.extras import how_to_install
from genrec.reports.html import LIGHT
from genrec.text import one_line

# How users are grouped, by the kind of slice.
SLICES = {
    "popularity": "popularity of the target item",
    "history": "number of events in the history",
    "last_event": "days from the last event in the history to the target",
    "target_events": "number of earlier events of the target item",
    "user": "whether the user occurs in the train part",
    "last_behavior": "last behavior in the history",
    "script": "script of the target's title",
}
_CURVE = 20  # the largest k in the hit-rate curves
_SLICES = 8  # the maximum number of slices of a kind in a chart
_SAME = "item"  # a kind of slice that is not shown, since ``popularity`` also has the cold items
_MARKS = "os^Dvp*"
_WIDTH = 5.0  # inches; at the width of a phone, texts then have almost their natural size
_INK, _GRID = "#212121", "#818181"  # replaced in SVG by the color of the text
_COLORS = {
    _INK: "currentColor",
    _GRID: "currentColor",
    **{color: f"var(--series-{n})" for n, color in enumerate(LIGHT)},
}
_SVG = "{http://www.w3.org/2000/svg}"
_STYLE = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlesize": "medium",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.parse_math": False,
    "svg.fonttype": "none",
}


def load_matplotlib() -> Any:
    """Import and return matplotlib.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        msg = f"A report needs matplotlib, which is not installed. {how_to_install('report')}"
        raise SettingsError(msg) from error
    return matplotlib


def _in_style(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Make a drawing function use this module's colors and treat all text as plain text."""

    @functools.wraps(draw)
    def styled(*arguments: Any) -> Any:
        with load_matplotlib().rc_context(_STYLE):
            return draw(*arguments)

    return styled


@_in_style
def hit_rate_curves(evaluation: Evaluation) -> Any:
    """Plot the hit rate of each system against the list length, with confidence bands."""
    figure, (axes,) = _figure_of([3.0])
    longest = max((len(r) for s in evaluation.results for r in s.ranked), default=1)
    ks = range(1, min(_CURVE, max(longest, 1)) + 1)
    for result, color, mark in _styled(evaluation.results):
        ranks = result.ranks()
        values = np.stack([metrics.hit_rate(ranks, k) for k in ks], axis=1)
        means = bootstrap.bootstraps(values, draws=2_000)
        middle = [i.mean for i in means]
        style = {"color": color, "marker": mark, "markersize": 4}
        axes.plot(ks, middle, label=_label(result.name), **style)
        low, high = [i.low for i in means], [i.high for i in means]
        axes.fill_between(ks, low, high, color=color, alpha=0.15, lw=0)
    axes.set(xlabel="list length k", ylabel="HR@k with 95% interval", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    _legend(figure, axes)
    return figure


@_in_style
def reliability(evaluation: Evaluation) -> Any:
    """Plot observed frequencies against stated probabilities, with 95% intervals."""
    figure, (axes,) = _figure_of([3.0])
    highest = 1e-3
    for result, color, mark in _styled(evaluation.results):
        if result.reliability is None:
            continue
        r = result.reliability
        error = 1.96 * np.sqrt(r.observed * (1 - r.observed) / r.count)
        low = np.minimum(error, r.observed)
        style = {"color": color, "marker": mark, "markersize": 5, "capsize": 2}
        label = _label(result.name)
        axes.errorbar(r.stated, r.observed, yerr=[low, error], label=label, **style)
        highest = max(highest, float(r.stated.max()), float((r.observed + error).max()))
    line = [0, min(1.0, 1.05 * highest)]
    axes.plot(line, line, color=_GRID, ls="--", lw=1, label="perfect calibration")
    axes.set(xlabel="stated probability", ylabel="observed frequency", xlim=line, ylim=line)
    axes.grid(axis="y")
    _legend(figure, axes)
    return figure


def shown_slices(evaluation: Evaluation) -> dict[str, dict[str, Slice]]:
    """Return the slices that are shown to readers, keyed by kind of slice and label."""
    return {kind: each for kind, each in evaluation.by_slice.items() if kind != _SAME}


def charted_slices(evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the labels of the largest slices of each kind that have enough users for intervals."""
    shown = {}
    for kind, slices in shown_slices(evaluation).items():
        by_size = sorted(slices, key=lambda label: -slices[label].users)
        largest = {label for label in by_size[:_SLICES] if slices[label].intervals}
        shown[kind] = [label for label in slices if label in largest]
    return {kind: labels for kind, labels in shown.items() if labels}


@_in_style
def slices(evaluation: Evaluation, metric: str) -> Any:
    """Plot a metric for the largest slices of users, with a panel for each kind of slice.

    The points are means with 95% intervals. At least one slice must have enough users for these;
    see ``charted_slices``.
    """
    kinds, shown = evaluation.by_slice, charted_slices(evaluation)
    n = len(evaluation.results)
    figure, axes = _figure_of([0.6 + len(s) * (0.2 + 0.13 * n) for s in shown.values()])
    for panel, (kind, labels) in zip(axes, shown.items(), strict=True):
        for place, (result, color, mark) in enumerate(_styled(evaluation.results)):
            at = np.arange(len(labels)) + (place - (n - 1) / 2) * 0.7 / n
            found = [kinds[kind][label].intervals[result.name][metric] for label in labels]
            means = np.array([i.mean for i in found])
            low = np.maximum(means - [i.low for i in found], 0)
            high = np.maximum([i.high for i in found] - means, 0)
            style = {"color": color, "fmt": mark, "markersize": 4, "capsize": 2}
            panel.errorbar(means, at, xerr=[low, high], label=_label(result.name), **style)
        names = [textwrap.fill(f"{one_line(s)} (n={kinds[kind][s].users:,})", 22) for s in labels]
        panel.set_yticks(range(len(labels)), names)
        panel.set(title=SLICES.get(kind, kind), xlim=(0, None), ylim=(len(labels) - 0.5, -0.5))
        panel.grid(axis="x")
    axes[-1].set_xlabel(metric)
    _legend(figure, axes[0])
    return figure


def to_svg(figure: Any, alt: str) -> str:
    """Convert a chart to an SVG element for a page.

    Args:
        figure: the chart.
        alt: a description of the chart, which must be unique on the page.
    """
    stream = io.StringIO()
    with (
        load_matplotlib().rc_context({**_STYLE, "svg.hashsalt": alt}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*missing from font")  # browsers have the glyphs
        figure.savefig(stream, format="svg", transparent=True)
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{_SVG}style", f"{_SVG}metadata"}:
                parent.remove(child)
    elements = list(root.iter())
    used = set(re.findall(r"#([\w-]+)", " ".join(v for e in elements for v in e.attrib.values())))
    for element in elements:
        element.tag = element.tag.removeprefix(_SVG)
        found = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in found.items():
            if name != "id" or value in used:
                element.set(name, _in_colors_of_page(value) if name == "style" else value)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": one_line(alt), "fill": "currentColor"}
    return ElementTree.tostring(root, encoding="unicode")


def _in_colors_of_page(style: str) -> str:
    """Replace the colors and the font in a style attribute with those of the page."""
    style = re.sub(r"#[0-9a-f]{6}\b", lambda m: _COLORS.get(m[0], m[0]), style)
    return re.sub(r"\bfont: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", style)


def to_png(figure: Any) -> bytes:
    """Convert a chart to a PNG image with a white background.

    Non-ASCII characters are replaced with question marks, since the font may not have them.
    """
    from matplotlib.text import Text

    texts = {text: text.get_text() for text in figure.findobj(Text)}
    for text, full in texts.items():
        text.set_text("".join(c if c.isascii() else "?" for c in full))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=160)
    for text, full in texts.items():
        text.set_text(full)
    return stream.getvalue()


def _legend(figure: Any, panel: Any) -> None:
    """Draw a single legend above all panels of a figure."""
    handles, names = panel.get_legend_handles_labels()
    columns = max(1, 52 // (max(len(line) for n in names for line in n.split("\n")) + 7))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False)


def _label(name: str) -> str:
    return textwrap.fill(one_line(name), 44) or "system"


def _styled(results: Sequence[Result]) -> list[tuple[Result, str, str]]:
    n, m = len(LIGHT), len(_MARKS)
    return [(r, LIGHT[i % n], _MARKS[i % m]) for i, r in enumerate(results)]


def _figure_of(heights: Sequence[float]) -> tuple[Any, Any]:
    """Create a figure with panels stacked vertically, given their heights in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.4), layout="constrained")
    return figure, figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
