"""Print summaries of datasets, training runs and evaluations.

This module works with finished results, not with models.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from genrec.data.behaviors import shipped_verbs
from genrec.data.column_uses import NOT_USED, STATUS, WITH_EVENTS, WITH_ITEMS
from genrec.data.dataset import TUNED
from genrec.data.time_units import format_time
from genrec.priors.judgement import judge_run, tuned_of
from genrec.reports import evaluation_report, fairness_tables
from genrec.reports.console import err, print_line, print_table, use_stderr
from genrec.runs import Run
from genrec.text import one_line, quantity

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.data.info import DatasetInfo
    from genrec.evaluation.faithfulness_results import Faithfulness
    from genrec.evaluation.logged import LoggedEvaluation
    from genrec.evaluation.results import Evaluation
    from genrec.priors.tuned import Tuned

Watch = Callable[[Mapping[str, Any]], None]
_BEHAVIORS = 10  # the most behaviors to list
_CELLS = 200  # characters of a rejected row to print
_COLUMNS = 60  # the most columns to list in a table
_LISTED = 12  # the most columns to list in a line
_OTHERS = {
    STATUS: "Columns that show which orders were cancelled or returned",
    WITH_ITEMS: "Attributes of the items",
    WITH_EVENTS: "Columns that are not used, but kept with the events",
    NOT_USED: "Columns that are not used",
}
_NOUNS = {
    "buy": "purchases", "purchase": "purchases", "order": "orders", "view": "views",
    "browse": "views", "click": "clicks", "cart": "items for the cart", "rate": "ratings",
    "like": "likes", "favorite": "favorites", "share": "shares", "comment": "comments",
    "follow": "follows", "search": "searches",
}  # fmt: skip


def print_dataset(
    info: DatasetInfo,
    out: Path | None,
    rejected: Mapping[str, Sequence[tuple[str, int, str]]],
) -> None:
    """Print the statistics of a prepared dataset.

    Args:
        info: the decisions and measurements made by ``prepare``.
        out: the folder of the dataset; None if nothing was written.
        rejected: for each reason, the first rejected rows, given as file, row number and cells.
    """
    saved = (
        f"Nothing was written. Contents of the dataset {info.name}"
        if out is None
        else f"Saved the dataset {info.name} to {out}"
    )
    print_line(f"{saved}: {info.users:,} users, {info.items:,} items and {info.events:,} events.")
    if info.rejected and info.rows:
        print_line(f"Kept {info.events:,} events from {info.rows:,} rows.")
    if info.columns:
        listed = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in info.columns.items())
        print_line(f"Columns: {listed}.")
    if out is not None:
        for line in _describe_other_columns(info):
            print_line(line)
    if len(info.behaviors) > 1:
        print_line(f"Events: {_count_behaviors(info)}.")
    print_line(_describe_split(info))
    for line in _describe_target(info):
        print_line(line)
    case = "in lower case" if info.case == "lower" else "unchanged"
    print_line(f"The model sees titles {case}.")
    if info.context:
        print_line(f"Context of events: {', '.join(info.context)}.")
    if info.redacted is not None:
        print_line(_describe_redacted(info.redacted))
    if info.knowledge:
        print_line(f"What items have in common: {', '.join(info.knowledge)}.")
    if info.tied:
        print_line(
            "Events that have the same time as another event of the user keep their order from the "
            f"file. The number of such events is {info.tied:,}."
        )
    if info.warnings:
        print_line("Warnings:")
    for warning in info.warnings:
        print_line(f"- {warning}")
    if info.notes:
        print_line("Remarks:")
    for note in info.notes:
        print_line(f"- {note}")
    for why, count in info.rejected.items():
        kept_in = "" if out is None else " (see rejected.csv)"
        print_line(f"Rejected {quantity(count, 'row')}: {why}{kept_in}")
        for _, number, cells in rejected.get(why, ()):
            print_line(f"    row {number:,}: {cells[:_CELLS]}")


def _describe_redacted(counts: Mapping[str, int]) -> str:
    """Say how much personal data was replaced in the texts of events."""
    found = ", ".join(f"{n:,} {kind}" for kind, n in counts.items()) or "none was found"
    return f"Personal data replaced in the texts of events: {found}."


def print_uses(info: DatasetInfo) -> None:
    """Print what each column of the files is used for, with a sample value."""
    rows = [[u["column"], u["use"], u["example"] or "-"] for u in info.uses]
    print_table(["column", "read as", "example"], rows[:_COLUMNS])
    if len(rows) > _COLUMNS:
        print_line(f"The files have {quantity(len(rows) - _COLUMNS, 'more column')}.")
    print_line("")


def _describe_other_columns(info: DatasetInfo) -> list[str]:
    """List the columns without a role and their sample values, grouped by how they are treated."""
    lines = []
    groups: dict[str, list[str]] = {}
    for one in info.uses:
        if one["column"] not in info.columns.values() and one["example"]:
            cell = f"{one['column']!r} (such as {one['example']!r})"
            groups.setdefault(one["use"].partition(";")[0], []).append(cell)
    for use, heading in _OTHERS.items():
        cells = groups.get(use, [])
        if cells:
            more = f" and {len(cells) - _LISTED:,} more" if len(cells) > _LISTED else ""
            lines.append(f"{heading}: {', '.join(cells[:_LISTED])}{more}.")
    return lines


def print_example_rows(dataset: Dataset, count: int = 10) -> None:
    """Print the first events of a dataset as they would be stored."""
    events = dataset.interactions
    c = events.columns
    rows = []
    for place in range(min(count, len(events))):
        item = dataset.catalog[int(c.row[place])] if c.row[place] >= 0 else None
        time, value = float(c.timestamp[place]), float(c.value[place])
        rows.append(
            [
                events.user_ids[int(c.user[place])],
                "-" if item is None else item.item_id,
                "-" if item is None else item.title,
                events.behaviors[int(c.behavior[place])],
                f"{time:g}" if dataset.info.time_unit == "position" else format_time(time),
                "-" if value != value else f"{value:g}",
                "-" if events.unit_ids is None else events.unit_ids[int(c.unit[place])],
            ]
        )
    print_table(["user_id", "item_id", "title", "behavior", "time", "value", "basket"], rows)


def _count_behaviors(info: DatasetInfo) -> str:
    """List the behaviors with the number of events of each."""
    counts = [f"{n:,} {one_line(b)}" for b, n in list(info.behaviors.items())[:_BEHAVIORS]]
    more = len(info.behaviors) - _BEHAVIORS
    return ", ".join(counts) + (f" and {quantity(more, 'other behavior')}" if more > 0 else "")


def _describe_split(info: DatasetInfo) -> str:
    parts = ", ".join(f"{name} {n:,}" for name, n in info.split_events.items())
    if info.split == "given":
        how = "as given in the data"
    elif info.split == "global time":
        starts = [f"{name} from {format_time(t)}" for name, t in info.split_times.items()]
        how = f"by time ({', '.join(starts)})"
    else:
        how = f"by the last {info.unit or 'event'} of each user"
    return f"The events are split {how}: {parts}."


def _describe_target(info: DatasetInfo) -> list[str]:
    """Describe the target behavior, and say whether seen items may be recommended."""
    target = info.target_behavior
    verbs = shipped_verbs()
    things = _NOUNS.get(target, f"{target!r} events")
    had = f"had already {verbs[target].past}" if target in verbs else "had before"
    units = "baskets start with" if info.unit else f"{things} are of"
    if info.exclude_seen:
        then = "so such items are not recommended (`--include-seen` turns this off)."
    else:
        then = "so such items may be recommended again (`--exclude-seen` turns this off)."
    lines = [
        f"Recommending: {things}. {info.repeat_share:.1%} of {units} an item that the user {had}, "
        f"{then}"
    ]
    leads = sorted(info.lead_in_behaviors & info.led_by.keys())
    if info.exclude_seen and leads:
        shares = ", ".join(f"{b} (before {info.led_by[b]:.1%} of them)" for b in leads)
        lines.append(
            "Items that a user has only through the following behaviors may still be recommended, since "
            f"these often precede {things}: {shares}."
        )
    return lines


def print_tuned(tuned: Tuned, path: Path) -> None:
    """Print the fitted weights, and the accuracy of the model, of the prior and of both combined."""
    print_table(
        ["held out", *tuned.ndcg],
        [
            [name, *(f"{values[k]:.4f}" if k in values else "-" for k in tuned.ndcg)]
            for name, values in (("nats", tuned.nats), ("ndcg@10", tuned.ndcg))
        ],
    )
    print_line(
        f"Fitted on {tuned.users} users: fusion {tuned.fusion}, prior_weight "
        f"{tuned.weights[tuned.fusion]:g}, node_temperature {tuned.temperatures[tuned.fusion]:g}. "
        f"Saved to {path}."
    )


def print_evaluation(
    evaluation: Evaluation, *, slices: bool = False, exposure: bool = False
) -> None:
    """Print the metrics of all systems, for all targets and for each kind of target, and remarks.

    Args:
        evaluation: the evaluation.
        slices: True to also print the main metrics for each slice of users.
        exposure: True to also print which groups of items the lists show.
    """
    table = evaluation_report.overall(evaluation)
    print_table(table.header, table.rows)
    for heading, table, compared in evaluation_report.by_target(evaluation):
        print_line("")
        print_line(heading, "bold")
        print_table(table.header, table.rows)
        for line in compared:
            print_line(line)
    if slices:
        _print_slices(evaluation)
    tables = fairness_tables.exposure_tables(evaluation) if exposure else []
    for heading, header, rows in [*tables, *fairness_tables.group_tables(evaluation)]:
        print_line("")
        print_line(heading, "bold")
        print_table(header, rows)
    if exposure:
        print_line(fairness_tables.EXPOSURE)
    if evaluation.by_group:
        print_line(fairness_tables.GROUPS)
    print_line("")
    for remark in evaluation_report.remarks(evaluation):
        print_line(remark)


def _print_slices(evaluation: Evaluation) -> None:
    """Print a table of each main metric by slices of users, and what the slices mean."""
    print_line("")
    if not evaluation.by_slice:
        print_line("There are no slices, since all users are alike in every respect.")
        return
    for metric in evaluation_report.slice_metrics(evaluation):
        table = evaluation_report.sliced(evaluation, metric)
        print_line(f"{metric} by slice", "bold")
        print_table(table.header, table.rows)
        print_line("")
    for line in evaluation_report.describe_slices(evaluation):
        print_line(line)


@contextmanager
def training(*, quiet: bool = False) -> Iterator[tuple[Callable[[str], None], Watch]]:
    """Show the progress of training while the ``with`` block runs.

    In a terminal, a progress bar shows nats per item, targets per second and the time left, and
    each validation prints a line. Otherwise, each log entry is written as a line to standard error.

    Args:
        quiet: True to show nothing.

    Yields:
        A function for messages, and a function for log entries.
    """
    if quiet:
        yield lambda text: None, lambda line: None
        return
    console = err()
    if not console.is_terminal:
        yield use_stderr, lambda line: use_stderr(_training_line(line))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} targets"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Training", total=None, visible=False, left="")

        def watch(line: Mapping[str, Any]) -> None:
            if line.get("validation"):
                bar.console.print(Text(_training_line(line)))
                return
            text = f"{line['nats']:.3f} nats per item, {line['targets_per_second']:.1f} targets/s"
            done, total = int(line["targets"]), int(line["of"])
            left = _describe_time_left(line)
            bar.update(task, completed=done, total=total, description=text, visible=True, left=left)

        yield lambda text: bar.console.print(Text(text)), watch


def print_rejected(counts: Mapping[str, int]) -> None:
    """Print the number of rejected rows for each reason."""
    for why, count in counts.items():
        print_line(f"Rejected {quantity(count, 'row')}: {why}")


def _training_line(line: Mapping[str, Any]) -> str:
    if line.get("validation"):
        return f"Validation after {line['targets']:,} targets: {_describe_validation(line)}"
    return (
        f"{line['targets']:,} of {line['of']:,} targets, {line['nats']:.3f} nats per item, "
        f"{line['targets_per_second']:.1f} targets/s, {_describe_time_left(line)}"
    )


def _describe_time_left(line: Mapping[str, Any]) -> str:
    """Describe the time until the command ends, which includes validation, saving and fitting."""
    minutes, seconds = divmod(round(line["remaining"]), 60)
    if minutes >= 10:
        return f"{round(line['remaining'] / 60)} min left"
    return f"{minutes} min {seconds} s left" if minutes else f"{seconds} s left"


def print_run(run: Run, out: Path, data: Path) -> None:
    """Print the result of a training run, and a command that uses the trained model.

    Args:
        run: the contents of ``run.json``.
        out: the run folder.
        data: the dataset folder.
    """
    state = "has finished" if run.finished else "was stopped early; continue it with --resume"
    print_line(f"Trained on {run.targets:,} targets. The run in {out} {state}.")
    best = run.metrics.get("best")
    if best:
        print_line(
            f"Best validation result, after {best['targets']:,} targets: {_describe_validation(best)}"
        )
    folders = shlex.quote(str(data)), shlex.quote(str(out))
    if run.asks:
        print_line("Use it with: genrec likes {} --run {} --user USER --items F".format(*folders))
        return
    findings = judge_run(run, str(data), str(out))
    tuned, reason = tuned_of(run), run.metrics.get("not_tuned")
    if tuned is not None:
        print_tuned(tuned, out / TUNED)
    elif reason:
        print_line(
            f"The weight of the prior was not fitted: {reason.rstrip('.')}. So `recommend` uses this run "
            f"without the prior. {_describe_tuning(run, *folders)}"
        )
    for finding in findings:
        print_line(str(finding))
    if not findings:  # otherwise, they say what to use
        print_line("Use it with: genrec recommend {} --run {} --user USER".format(*folders))


def _describe_tuning(run: Run, data: str, out: str) -> str:
    """Explain how to fit the weight of the prior for a run that does not have one."""
    if run.training.get("fit") == "both":
        return (
            "Use the weight of a run with --fit train, as in "
            f"`genrec recommend {data} --run {out} --tuned THAT_RUN/tuned.json --user USER`."
        )
    return f"To fit it, use `genrec tune {data} --run {out}`."


def _describe_validation(result: Mapping[str, Any]) -> str:
    """Format the metrics of a validation in one line."""
    if "auc" in result:
        return f"log loss {result['nats']:.3f}, AUC {result['auc']:.4f} ({result['pairs']} pairs)"
    return (
        f"{result['nats']:.3f} nats, HR@10 {result['hit_rate@10']:.4f}, NDCG@10 "
        f"{result['ndcg@10']:.4f} ({result['users']} users)"
    )


def print_logged(found: LoggedEvaluation) -> None:
    """Print the estimates from random lists of a service, and the reasons to distrust them."""
    rows = [["lists as shown", str(found.logged)], ["IPS", str(found.ips)]]
    rows.append(["SNIPS", "-" if found.snips is None else str(found.snips)])
    print_table(["share of lists whose first item is accepted", "estimate"], rows)
    print_line("")
    print_line(
        f"IPS and SNIPS estimate this share for {found.system}, from {found.lists:,} random lists of "
        f"{found.users:,} users of {found.dataset}. They are worth {found.effective_lists:,.0f} lists of this "
        f"system; one list has at most {found.heaviest:.1%} of all weight. Accepted: {', '.join(found.behaviors)}. "
        "Intervals are 95% bootstrap intervals over users."
    )
    for why, count in found.skipped.items():
        print_line(f"Left out: {count:,} lists {why}.")
    for warning in found.warnings:
        print_line(f"Warning: {warning}")


def print_faithfulness(faithfulness: Faithfulness) -> None:
    """Print tables about the faithfulness of explanations.

    The first tables show the mean drop in the score when events are left out, and when only these
    events are kept. The last table shows the shares of users whose explanations have certain
    properties; see ``Faithfulness.shares``.
    """
    for title, curves in (
        ("left out", faithfulness.deletion),
        ("kept alone", faithfulness.sufficiency),
    ):
        if curves is not None:
            header = [title, "one event", "two", "three", "area", "named minus it"]
            rows = [
                [
                    way,
                    *map(str, points),
                    str(curves.area[way]),
                    str(curves.minus[way]) if way in curves.minus else "-",
                ]
                for way, points in curves.points.items()
            ]
            print_table(header, rows)
            print_line("")
    shares = [[name.replace("_", " "), str(i)] for name, i in faithfulness.shares.items()]
    print_table(["sentences and evidence", "share"], shares)
    print_line("")
    print_line(
        f"The first recommendation of {faithfulness.system} was explained for each of "
        f"{len(faithfulness.users):,} users of {faithfulness.dataset} (protocol {faithfulness.protocol}, split "
        f"{faithfulness.split}, seed {faithfulness.seed}). The tables of score drops cover the "
        f"{len(faithfulness.naming):,} sentences that name an event."
    )
    print_line(
        f"A value is the drop in the score, in nats, under the template {faithfulness.other!r}. The evidence "
        f"was measured under the template {faithfulness.template!r}. Titles were compared with {faithfulness.encoder}. "
        "Intervals are 95% bootstrap intervals over users."
    )
    claims = faithfulness.unsupported
    print_line(f"Unsupported claims that the checker found in all sentences: {len(claims)}.")
    for user, text, why in claims:
        print_line(f"  {user}: {text} ({why})")
