"""Write the report of an evaluation as a single HTML or Markdown file that includes its figures.

A page contains no scripts. All text from the data, such as titles and names, is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec import __version__, files
from genrec.config import EXPLAIN, FEATURE
from genrec.data.protocols import Case
from genrec.errors import SettingsError
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.results import KINDS, Evaluation, Result
from genrec.evaluation.slices import LEAST
from genrec.reports import evaluation_figures as figures
from genrec.reports import fairness_tables
from genrec.reports.html import escape_line, fold, make_page
from genrec.text import one_line

ENDINGS = (".html", ".md")
_EXAMPLES = 5
_SHOWN = 5  # the number of events and recommendations shown for an example user
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
figure { margin: 1em 0; max-width: 40em; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in a report. A heading of level 1 is the title of the page."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences in a report, each of which forms its own paragraph."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a report, with a header and rows of cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart in a report (see ``evaluation_figures``), with a unique description."""

    alt: str
    figure: Any


@dataclass(frozen=True, slots=True)
class Fold:
    """A section of a report that is collapsed in an HTML page until the reader opens it."""

    summary: str
    parts: Sequence[Heading | Lines | Table | Picture]


Block = Heading | Lines | Table | Picture | Fold


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
    figures.load_matplotlib()
    files.check_output(path)


def overall(evaluation: Evaluation) -> Table:
    """Build a table of the metrics of each system.

    Each cell contains a mean with its 95% interval. For metrics that are computed once over all
    lists, it contains a single number.
    """
    table = _by_metric(evaluation, evaluation.intervals)
    whole = [
        [metric, *(_figure(r.whole.get(metric)) for r in evaluation.results)]
        for metric in dict.fromkeys(m for r in evaluation.results for m in r.whole)
    ]
    return Table(table.header, [*table.rows, *whole])


def by_target(evaluation: Evaluation) -> list[tuple[str, Table, list[str]]]:
    """Build one table of each system's metrics for new targets and another one for repeats.

    Returns:
        A heading, a table and the comparisons as sentences for each kind of target. The list is empty
        if all targets are of one kind, since the tables would not differ from ``overall``.
    """
    kinds, users = evaluation.by_target, len(evaluation.cases)
    if any(kind.users == users for kind in kinds.values()):
        return []
    titles = {"new": "Targets that are new to the user", "repeat": "Repeats"}
    return [
        (
            f"{titles[name]} ({kind.users:,} of {users:,})",
            _by_metric(evaluation, kind.intervals),
            [f"{c}." for c in kind.comparisons],
        )
        for name, kind in kinds.items()
    ]


def _by_metric(evaluation: Evaluation, intervals: Mapping[str, Mapping[str, Interval]]) -> Table:
    """Build a table with a row for each metric and a column for each system.

    Args:
        evaluation: the evaluation.
        intervals: the mean and the interval of each metric, keyed by system and metric.
    """
    names = [r.name for r in evaluation.results]
    rows = []
    for metric in dict.fromkeys(m for n in names for m in intervals[n]):
        k = metric.partition("@")[2]
        if metric.startswith("recall@") and all(
            np.array_equal(r.values[metric], r.values[f"hit_rate@{k}"]) for r in evaluation.results
        ):
            continue  # every basket contains one item
        rows.append([metric, *(format_interval(intervals[n].get(metric), metric) for n in names)])
    return Table(["metric", *names], rows)


def _only_main(table: Table) -> Table:
    """Return a copy of a table with only the rows that most readers need."""
    names = ("nats", "hit_rate@1", "hit_rate@10", "ndcg@10", "recall@10", "coverage@10", "invalid")
    return Table(table.header, [row for row in table.rows if row[0] in names])


def sliced(evaluation: Evaluation, metric: str) -> Table:
    """Build a table of one metric, with a value for each slice of users and each system.

    Further columns have the paired difference of each combined system from its best part.
    """
    names = [r.name for r in evaluation.results]
    found = figures.shown_slices(evaluation)
    pairs = dict.fromkeys(
        (c.ours, c.other)
        for slices in found.values()
        for each in slices.values()
        for c in each.comparisons
        if c.metric == metric
    )
    rows = [
        [kind, label, f"{each.users:,}"]
        + [format_interval(each.intervals.get(n, {}).get(metric)) for n in names]
        + [format_interval(each.difference(ours, metric)) for ours, _ in pairs]
        for kind, slices in found.items()
        for label, each in slices.items()
    ]
    differences = [f"{ours} less {other}" for ours, other in pairs]
    return Table(["slice", "value", "users", *names, *differences], rows)


def slice_metrics(evaluation: Evaluation) -> list[str]:
    """Return the metrics that are shown for slices of users, the main metric first."""
    metric = evaluation.main_metric
    return [metric] if metric.startswith("hit_rate") else [metric, "hit_rate@10"]


def describe_slices(evaluation: Evaluation) -> list[str]:
    """Return sentences that explain the slices of users and say what to be careful about."""
    found = figures.shown_slices(evaluation)
    kinds = [f"{kind}: {figures.SLICES[kind]}" for kind in found if kind in figures.SLICES]
    lines = [f"Users are grouped by {'; '.join(kinds)}."] if kinds else []
    if "popularity" in found:
        lines.append(
            "A cold item has no event in the data that the baselines were fitted on. The long tail "
            "consists of the least popular items that have together at most a fifth of these events, "
            "and the head of all others."
        )
    lines.append(
        f"Slices with fewer than {LEAST} users have no values. With this many intervals, some differ "
        "from zero by chance alone."
    )
    return lines


def format_interval(interval: Interval | None, metric: str = "") -> str:
    """Format a mean with its interval, or return a dash if there is none.

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
    return [*_method(evaluation), *_conclusions(evaluation)]


def _method(e: Evaluation) -> list[str]:
    users = len(e.cases)
    ranking = "all items by their IDs"
    if e.protocol.startswith("candidates"):
        ranking = "only 20 candidates for each user"
    return [
        f"This is an evaluation on {e.dataset} with {users:,} users (protocol {e.protocol}, split "
        f"{e.split}, seed {e.seed}). The systems ranked {ranking}. Seen items are "
        f"{'excluded' if e.exclude_seen else 'included'}, and the baselines were fitted on {e.fitted_on}.",
        "Values are means over users with 95% bootstrap intervals. Lower values are better for nats (-ln P "
        f"of the target), seconds and invalid lists. Diversity is measured with {e.vectors}.",
        *(line for line in map(_describe_setup, e.results) if line),
        *_describe_rules(e),
    ]


def _conclusions(e: Evaluation) -> list[str]:
    users = len(e.cases)
    lines = [_describe_targets(e), *(f"{c}." for c in e.comparisons)]
    for result in e.results:
        invalid = int(result.values["invalid"].sum())
        if invalid:
            lines.append(
                f"The number of invalid lists from {result.name} is {invalid:,} out of {users:,}. A list is "
                "invalid if it is too short, repeats an item or contains a forbidden item. The other "
                "metrics include such lists."
            )
    return lines


def _describe_setup(result: Result) -> str:
    """Return a sentence that describes the parts of a recommender, or "" for a baseline."""
    setup = result.setup
    if "model" not in setup or result.rules:
        return ""
    run = "" if setup["run"] is None else f" of the run {setup['run']}"
    line = f"{result.name} is the model {setup['model']}{run}"
    prior = setup["prior"]
    if prior is None:
        return f"{line} without a prior."
    how = "at each step of a title" if prior["fusion"] == "node" else "in the final score"
    ranker = f" Its best items are ordered by {setup['ranker']}." if "ranker" in setup else ""
    if prior.get("role") == EXPLAIN:
        return (
            f"{result.name} ranks items by the {prior['prior']} prior alone; {setup['model']}{run} only "
            f"explains.{ranker}"
        )
    if prior.get("role") == FEATURE:
        return (
            f"{line}, whose probabilities rank the candidates of the {prior['prior']} prior together with "
            f"its weights (exponents {prior['model']:.3g} and {prior['power']:.3g}).{ranker}"
        )
    return (
        f"{line} with the {prior['prior']} prior (weight {prior['weight']:.3g}, node temperature "
        f"{prior['temperature']:.3g}), combined {how}.{ranker}"
    )


def _describe_rules(evaluation: Evaluation) -> list[str]:
    """Say which lists follow the rules of a shop instead of the rules of the protocol."""
    return [
        f'Systems whose name ends with "{rules}" follow the rules of a shop, not those of the protocol. '
        "Compare them only with one another, never with published results."
        for rules in dict.fromkeys(r.rules for r in evaluation.results)
        if rules
    ]


def _describe_targets(evaluation: Evaluation) -> str:
    """Return a sentence that states how many targets are new and how many are repeats."""
    new, repeats = (evaluation.by_target[kind].users for kind in KINDS)
    if not repeats:
        return (
            "All targets are new to the user: none occurs in the history that the protocol shows."
        )
    said = (
        f"{new:,} targets are new to the user, and {repeats:,} are repeats, which occur in the history "
        "that the protocol shows."
    )
    if evaluation.exclude_seen and not evaluation.protocol.startswith("candidates"):
        said += " Since seen items are excluded, no system may recommend a repeat."
    return said


def blocks(evaluation: Evaluation) -> list[Block]:
    """Build the report's headings, sentences, tables and figures, in order of appearance."""
    metric = evaluation.main_metric
    what, *how = _method(evaluation)
    parts: list[Block] = [
        Heading(f"Evaluation of {evaluation.dataset}", 1),
        Lines([what, *_conclusions(evaluation)]),
        Fold("How this was measured", [Lines(how)]),
        Heading("All users"),
        _only_main(overall(evaluation)),
        Fold("All metrics", [overall(evaluation)]),
        Picture("Hit rate by list length", figures.hit_rate_curves(evaluation)),
    ]
    for heading, table, compared in by_target(evaluation):
        full = Fold(f"All metrics: {heading}", [table])
        parts += [Heading(heading), Lines(compared), _only_main(table), full]
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
            Picture("Observed frequency by stated probability", figures.reliability(evaluation)),
        ]
    if evaluation.by_slice:
        parts += [Heading("Slices")]
        if figures.charted_slices(evaluation):
            parts += [Picture(f"{metric} by slice", figures.slices(evaluation, metric))]
        parts += [Lines(describe_slices(evaluation))]
        parts += [
            Fold(f"All slices: {name}", [sliced(evaluation, name)])
            for name in slice_metrics(evaluation)
        ]
    parts += _fairness(evaluation)
    parts.append(Heading("Example users"))
    for case in _examples(evaluation.cases):
        parts += _example(evaluation, case)
    parts.append(Lines([f"Created with genrec {__version__}."]))
    return parts


def _fairness(evaluation: Evaluation) -> list[Block]:
    """Build the tables of exposure and of groups of users, with the sentences that explain them."""
    shown, grouped = (
        fairness_tables.exposure_tables(evaluation),
        fairness_tables.group_tables(evaluation),
    )
    parts: list[Block] = []
    if shown:
        parts += [Heading("Exposure"), Lines([fairness_tables.EXPOSURE])]
        parts += [Fold(heading, [Table(header, rows)]) for heading, header, rows in shown]
    if grouped:
        parts += [Heading("Groups of users"), Lines([fairness_tables.GROUPS])]
        parts += [Fold(heading, [Table(header, rows)]) for heading, header, rows in grouped]
    return parts


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
    if isinstance(block, Fold):
        return fold(block.summary, "\n".join(map(_html, block.parts)))
    if isinstance(block, Picture):
        return f"<figure>{figures.to_svg(block.figure, block.alt)}</figure>"
    head = "".join(f"<th>{escape_line(c)}</th>" for c in block.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in block.rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _cell(text: str) -> str:
    """Convert the text of a table cell to HTML, keeping an interval on one line."""
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
    if isinstance(block, Fold):
        return "\n\n".join([f"### {_marked(block.summary)}", *map(_markdown, block.parts)])
    if isinstance(block, Picture):
        return f"![{_marked(block.alt)}]({_data_uri(block)})"
    rows = [block.header, ["---"] * len(block.header), *block.rows]
    cells = [[c if i == 1 else _marked(c) for c in row] for i, row in enumerate(rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _marked(text: str) -> str:
    """Escape a text so that Markdown displays it exactly as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", one_line(text))


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(figures.to_png(picture.figure)).decode()}"
