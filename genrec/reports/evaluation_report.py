"""Write the report of an evaluation as a single HTML or Markdown file that includes its figures.

A page contains no scripts. All text from the data, such as titles and names, is escaped.
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec import __version__, files
from genrec.data.protocols import Case
from genrec.errors import SettingsError
from genrec.evaluation import bootstrap, metrics
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.results import Evaluation, Result
from genrec.extras import how_to_install
from genrec.reports.html import escape_line, make_page
from genrec.text import one_line

ENDINGS = (".html", ".md")
_CURVE = 20  # the largest k in the hit-rate curves
_EXAMPLES = 5
_BARS = 8  # the maximum number of slices of a kind in a figure
_SHOWN = 5  # the number of events and recommendations shown for an example user
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_MARKS = "os^Dvp*"
_KINDS = {
    "item": "whether the target item occurs in the train part",
    "user": "whether the user occurs in the train part",
    "history": "number of events in the history",
    "target_events": "number of earlier events of the target item",
    "last_behavior": "last behavior in the history",
    "script": "script of the target's title",
}
_INTERVAL = re.compile(r"(-?[\d.e-]+) (\[[^\[\]<>&]+\])")
_STYLE = """
body { max-width: 64em; }
.wide { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; overflow-wrap: break-word; }
th, td { padding: .2em 1em .2em 0; text-align: left; vertical-align: top; }
th:first-child, td:first-child { position: sticky; left: 0; background: Canvas; }
thead th { border-bottom: 1px solid #888; }
tbody tr:hover td { background: color-mix(in srgb, Canvas, #888 15%); }
td { font-variant-numeric: tabular-nums; min-width: 4em; max-width: 30em; }
td small { white-space: nowrap; opacity: .75; }
img { width: 880px; min-width: 640px; max-width: 100%; height: auto; background: #fff; }
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a report. A heading of level 1 is the title of the page."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences of a report, each of which is a paragraph of its own."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report with a header and rows of cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of a report as PNG data, with a description of its content."""

    alt: str
    png: bytes


Block = Heading | Lines | Table | Picture


def write(evaluation: Evaluation, path: str | Path) -> None:
    """Write the report of an evaluation as HTML or Markdown, depending on the file extension.

    Raises:
        SettingsError: the extension is not one of ``ENDINGS``, or matplotlib is not installed.
    """
    path = Path(path)
    check(path)
    parts = blocks(evaluation)
    text = to_html(parts) if path.suffix == ".html" else to_markdown(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)


def check(path: str | Path) -> None:
    """Check that a report can be written to a file, before any slow work is done.

    Raises:
        SettingsError: the extension is not one of ``ENDINGS``, matplotlib is not installed, or the
            file cannot be written.
    """
    if Path(path).suffix not in ENDINGS:
        msg = (
            f"report={str(path)!r} is not valid. Expected a file name that ends with "
            f"{' or '.join(ENDINGS)}."
        )
        raise SettingsError(msg)
    _pyplot()
    files.check_output(path)


def overall(evaluation: Evaluation) -> Table:
    """Build a table of the metrics of each system.

    Each cell contains a mean with its 95% interval. For metrics that are computed once over all
    lists, it contains a single number.
    """
    names = [r.name for r in evaluation.results]
    intervals = evaluation.intervals
    rows = []
    for metric in dict.fromkeys(m for n in names for m in intervals[n]):
        k = metric.partition("@")[2]
        if metric.startswith("recall@") and all(
            np.array_equal(r.values[metric], r.values[f"hit_rate@{k}"]) for r in evaluation.results
        ):
            continue  # every basket contains one item
        rows.append([metric, *(format_interval(intervals[n].get(metric), metric) for n in names)])
    for metric in dict.fromkeys(m for r in evaluation.results for m in r.whole):
        rows.append([metric, *(_figure(r.whole.get(metric)) for r in evaluation.results)])
    return Table(["metric", *names], rows)


def sliced(evaluation: Evaluation, metric: str) -> Table:
    """Build a table of one metric, with a value for each slice of users and each system."""
    names = [r.name for r in evaluation.results]
    rows = [
        [kind, label, f"{list(evaluation.slices[kind]).count(label):,}"]
        + [format_interval(systems[n].get(metric)) for n in names]
        for kind, labels in evaluation.by_slice.items()
        for label, systems in labels.items()
    ]
    return Table(["slice", "value", "users", *names], rows)


def format_interval(interval: Interval | None, metric: str = "") -> str:
    """Write a mean with its interval, or a dash if there is none.

    Args:
        interval: the mean with its interval, or None.
        metric: the name of the metric. Values of ``seconds`` get three significant digits; all
            others get four decimals.
    """
    if interval is None:
        return "-"
    if metric == "seconds":
        return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
    return str(interval)


def remarks(evaluation: Evaluation) -> list[str]:
    """Return sentences that describe the evaluation and compare its systems."""
    e = evaluation
    users = len(e.cases)
    ranking = "all items by their IDs"
    if e.protocol.startswith("candidates"):
        ranking = "only 20 candidates for each user"
    lines = [
        f"This is an evaluation on {e.dataset} with {users:,} users (protocol {e.protocol}, split "
        f"{e.split}, seed {e.seed}). The systems ranked {ranking}. Seen items are "
        f"{'excluded' if e.exclude_seen else 'included'}, and the baselines were fitted on {e.fitted_on}.",
        "Values are means over users with 95% bootstrap intervals. Lower values are better for nats (-ln P "
        f"of the target), seconds and invalid lists. Diversity is measured with {e.vectors}.",
    ]
    lines += [line for line in map(_describe_setup, e.results) if line]
    lines += [f"{c}." for c in e.comparisons]
    for result in e.results:
        invalid = int(result.values["invalid"].sum())
        if invalid:
            lines.append(
                f"{invalid:,} of {users:,} lists of {result.name} are invalid, because they are too short, "
                "repeat an item or contain a forbidden item. The other metrics include these lists."
            )
    return lines


def _describe_setup(result: Result) -> str:
    """Describe the parts of a recommender in a sentence; empty for a baseline."""
    setup = result.setup
    if "model" not in setup:
        return ""
    run = "" if setup["run"] is None else f" of the run {setup['run']}"
    line = f"{result.name} is the model {setup['model']}{run}"
    prior = setup["prior"]
    if prior is None:
        return f"{line} without a prior."
    how = "at each step of a title" if prior["fusion"] == "node" else "in the final score"
    return (
        f"{line} with the {prior['prior']} prior (weight {prior['weight']:.3g}, node temperature "
        f"{prior['temperature']:.3g}), combined {how}."
    )


def main_metric(evaluation: Evaluation) -> str:
    """Return the name of the metric that is used for slices of users and for comparisons."""
    return "hit_rate@1" if evaluation.protocol.startswith("candidates") else "ndcg@10"


def blocks(evaluation: Evaluation) -> list[Block]:
    """Build the report's headings, sentences, tables and figures, in order of appearance."""
    metric = main_metric(evaluation)
    parts: list[Block] = [
        Heading(f"Evaluation of {evaluation.dataset}", 1),
        Lines(remarks(evaluation)),
        Heading("All users"),
        overall(evaluation),
        Picture("Hit rate by list length", hit_rate_curves(evaluation)),
    ]
    if any(r.reliability is not None for r in evaluation.results):
        parts += [
            Heading("Calibration"),
            Lines(
                [
                    "Each point represents a tenth of all recommendations (ten per user), grouped by their "
                    "stated probability. On the diagonal, the observed frequency equals the stated "
                    "probability."
                ]
            ),
            Picture("Observed frequency by stated probability", reliability(evaluation)),
        ]
    if evaluation.by_slice:
        parts += [
            Heading("Slices"),
            Picture(f"{metric} by slice", slice_bars(evaluation, metric)),
            Lines([f"{metric} with 95% intervals. {_describe_slices(evaluation)}"]),
            sliced(evaluation, metric),
        ]
    parts.append(Heading("Example users"))
    for case in _examples(evaluation.cases):
        parts += _example(evaluation, case)
    parts.append(Lines([f"Created with genrec {__version__}."]))
    return parts


def _describe_slices(evaluation: Evaluation) -> str:
    kinds = [f"{kind}: {_KINDS[kind]}" for kind in evaluation.by_slice if kind in _KINDS]
    return f"Users are grouped by {'; '.join(kinds)}." if kinds else ""


def _examples(cases: Sequence[Case]) -> list[Case]:
    order = np.random.default_rng(0).permutation(len(cases))[:_EXAMPLES]
    return [cases[i] for i in sorted(order.tolist())]


def _example(evaluation: Evaluation, case: Case) -> list[Block]:
    catalog = case.events.catalog
    row = [c.user_id for c in evaluation.cases].index(case.user_id)
    titles = [
        f"{i.behavior}: {i.text if i.item_id is None else catalog[catalog.row(i.item_id)].title}"
        for i in case.history.latest(_SHOWN).interactions
    ]
    columns = {"latest events, oldest first": titles}
    for result in evaluation.results:
        columns[result.name] = [
            f"{'→ ' if i in case.basket else ''}{_title(case, i)}"
            for i in result.ranked[row][:_SHOWN]
        ]
    height = max(len(c) for c in columns.values())
    rows = [[c[i] if i < len(c) else "" for c in columns.values()] for i in range(height)]
    targets = "; ".join(_title(case, i) for i in case.basket[:_SHOWN])
    more = f"; and {len(case.basket) - _SHOWN:,} more" if len(case.basket) > _SHOWN else ""
    what = "Next items (→), target first" if len(case.basket) > 1 else "Next item (→)"
    return [
        Heading(f"User {case.user_id}", 3),
        Lines([f"{what}: {targets}{more}"]),
        Table(list(columns), rows),
    ]


def _title(case: Case, item_id: str) -> str:
    catalog = case.events.catalog
    return catalog[catalog.row(item_id)].title if item_id in catalog else item_id


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
        panel.set(title=_KINDS.get(kind, kind), ylabel=metric, ylim=(0, None))
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


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        msg = f"A report needs matplotlib, which is not installed. {how_to_install('report')}"
        raise SettingsError(msg) from error
    return matplotlib


def _figure_of(panels: int) -> tuple[Any, Any]:
    _pyplot()
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


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def to_html(parts: Sequence[Block]) -> str:
    """Convert the parts of a report to an HTML page, in which figures are embedded."""
    title = next((b.text for b in parts if isinstance(b, Heading)), "Evaluation")
    return make_page(title, "\n".join(_html(block) for block in parts), _STYLE)


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape_line(block.text)}</h{block.level}>"
    if isinstance(block, Lines):
        return "\n".join(f"<p>{escape_line(text)}</p>" for text in block.texts)
    if isinstance(block, Picture):
        inside = f'<img alt="{escape_line(block.alt)}" src="{_data_uri(block)}">'
    else:
        head = "".join(f"<th>{escape_line(c)}</th>" for c in block.header)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in block.rows
        )
        inside = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f'<div class="wide" tabindex="0">{inside}</div>'


def _cell(text: str) -> str:
    """Convert the text of a table cell to HTML, in which an interval stays on one line."""
    match = _INTERVAL.fullmatch(text)
    return f"{match[1]} <small>{match[2]}</small>" if match else escape_line(text)


def to_markdown(parts: Sequence[Block]) -> str:
    """Convert the parts of a report to Markdown, in which figures are embedded."""
    return "\n\n".join(_markdown(block) for block in parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_marked(block.text)}"
    if isinstance(block, Lines):
        return "\n\n".join(_marked(text) for text in block.texts)
    if isinstance(block, Picture):
        return f"![{_marked(block.alt)}]({_data_uri(block)})"
    rows = [block.header, ["---"] * len(block.header), *block.rows]
    cells = [[c if i == 1 else _marked(c) for c in row] for i, row in enumerate(rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _marked(text: str) -> str:
    """Escape a text so that Markdown shows it exactly as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", one_line(text))


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
