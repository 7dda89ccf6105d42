"""Define the commands ``prepare`` and ``audit``, which import heavy modules when called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.dropped_items import read_drops
from genrec.cli.options import AsJson, Data, FieldsOf, Given, command
from genrec.config import Settings, option
from genrec.errors import SettingsError
from genrec.files import real_path

if TYPE_CHECKING:
    import pyarrow as pa

    from genrec.data.dataset import Dataset
    from genrec.data.ingest import EventOptions
    from genrec.data.readers.rejects import Rejects

_FILES = "Files"
_COLUMNS = "Columns"
_ROWS = "Rows"
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]+")
_SPLIT = "Split"
_PAIR = {"metavar": "OURS=THEIRS", "example": "item_id=product"}


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """Options for turning files into a dataset."""

    items: Path | None = option(
        None,
        _FILES,
        "Catalog file with the item ids, titles and any attributes. Not needed if the events file has "
        "a title column.",
        metavar="FILE",
    )
    sql: str | None = option(
        None,
        _FILES,
        "Read the events from a database with this query, instead of from FILE. Needs --url.",
        metavar="QUERY",
    )
    items_sql: str | None = option(
        None,
        _FILES,
        "Read the catalog from the database with this query, instead of from --items.",
        metavar="QUERY",
    )
    url: str | None = option(
        None,
        _FILES,
        "Address of the database, such as sqlite:///shop.db or postgresql://USER@HOST/DB.",
        metavar="URL",
    )
    name: str | None = option(
        None, _FILES, "Name of the dataset.", unset="the name of the events file"
    )
    encoding: str | None = option(
        None,
        _FILES,
        "Encoding of the files, such as utf-8, cp1252 or gb18030.",
        metavar="NAME",
        unset="detected",
    )
    strict: bool = option(False, _FILES, "Stop at the first bad row instead of skipping it.")
    column: Mapping[str, str] = option(
        {},
        _COLUMNS,
        "Map a column of the events file that is not recognized by its name, for example with "
        "item_id=product.",
        **_PAIR,
    )
    item_column: Mapping[str, str] = option(
        {},
        _COLUMNS,
        "Map a column of the catalog file that is not recognized by its name, for example with "
        "title=name.",
        **_PAIR,
    )
    context_columns: tuple[str, ...] = option(
        (),
        _COLUMNS,
        "Columns of the events that describe their circumstances, such as device or country, or season, "
        "weekday and time_of_day, which are derived from the time. The prior counts items by them, and "
        "the prompt shows them before each event.",
        metavar="NAMES",
    )
    triples: Path | None = option(
        None,
        _FILES,
        "File of triples about the items, with the columns head (an item_id), relation and tail, or a "
        "NAME.kg of RecBole with NAME.link beside it.",
        metavar="FILE",
    )
    item_vectors: Path | None = option(
        None,
        _FILES,
        "Parquet file with the columns item_id and vector, such as vectors of pictures or sounds. The "
        "prior then also favors items whose vectors are similar to those of the history.",
        metavar="FILE",
    )
    knowledge: tuple[str, ...] = option(
        (),
        _COLUMNS,
        "Columns of the items and relations of the triples that say what items have in common, such as "
        "brand,genre. The prior then also favors items that share rare values with the history.",
        metavar="NAMES",
        unset="all relations of the triples",
    )
    unit: str | None = option(
        None,
        _COLUMNS,
        "Column that identifies the basket of each event; none for no baskets.",
        metavar="COLUMN",
        unset="a column with a usual name, such as invoice, order_id or session",
    )
    status: str | None = option(
        None,
        _COLUMNS,
        "Column with the status of each order. Cancelled orders are rejected, and returned ones do "
        "not count as purchases. With none, all orders count, whatever their status.",
        metavar="COLUMN",
        unset="columns such as status, cancelled_at or is_returned",
    )
    behavior: str | None = option(
        None,
        _COLUMNS,
        "Behavior of all events, if the file has no behavior column.",
        unset="buy, rate or listen if the columns look like it, otherwise interact",
    )
    time_unit: str = option(
        "auto",
        _COLUMNS,
        "Unit of the timestamps. auto infers it from the values. position uses the order of the rows, "
        "for data without times.",
        choices=(
            "auto",
            "day",
            "s",
            "ms",
            "us",
            "ns",
            "excel",
            "yyyymmdd",
            "position",
            "apple",
            "sas",
            "sas-day",
            "dotnet",
            "filetime",
            "webkit",
        ),
    )
    date_format: str | None = option(
        None,
        _COLUMNS,
        "Format of the dates, such as %d/%m/%Y, if it cannot be inferred from the values.",
        metavar="FORMAT",
        unset="inferred from the whole column",
    )
    drop_items: tuple[str, ...] = option(
        (),
        _ROWS,
        "Leave out these items and their events: ids, a file with one id per line, or a condition "
        "such as 'price == 0'.",
        metavar="IDS|FILE|CONDITION",
        whole=lambda value: True,
    )
    drop_duplicates: bool = option(
        False,
        _ROWS,
        "Drop rows that repeat the user, item, behavior, time, value and basket of an earlier row.",
    )
    redact: bool = option(
        True,
        _ROWS,
        "Replace mail addresses, phone numbers, payment cards, IBANs and street addresses in the texts of "
        "events, such as searches and reviews.",
        flags=("--redact/--no-redact",),
    )
    split: str | None = option(
        None,
        _SPLIT,
        "Method for holding out the validation and test parts. last-unit: the last baskets or events "
        "of each user. global-time: the events from one cutoff date on (validation) and from a later "
        "one on (test).",
        choices=("last-unit", "global-time"),
        unset="the split column if there is one, otherwise last-unit",
    )
    validation_from: str | None = option(
        None,
        _SPLIT,
        "With --split global-time: start of the validation part, as an ISO date or a timestamp.",
        metavar="TIME",
        unset="after 80% of the events",
    )
    test_from: str | None = option(
        None,
        _SPLIT,
        "With --split global-time: start of the test part, as an ISO date or a timestamp.",
        metavar="TIME",
        unset="after 90% of the events",
    )
    validation: Path | None = option(
        None,
        _SPLIT,
        "Additional events file to use as the validation part; --interactions is then the train part.",
        metavar="FILE",
    )
    test: Path | None = option(
        None, _SPLIT, "Additional events file to use as the test part.", metavar="FILE"
    )


@command(
    "file", "out", "dry_run", "items", "column", "item_column", "unit", "behavior",
    "target_behavior", "split", "drop_items", "json",
)  # fmt: skip
def prepare(
    how: PrepareOptions,
    target: Annotated[Given, FieldsOf(Settings, only=["target_behavior"])],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Events file or folder of files: CSV, TSV, JSON Lines or Parquet, optionally compressed. "
            "Columns are recognized by their names.",
        ),
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Events file, as an alternative to the FILE argument.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Dataset folder to write.",
            rich_help_panel=_FILES,
            show_default="the name of the dataset, in the current folder",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show how the files would be read, and write nothing.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Turn files of events and items into a dataset, which is checked, split and measured."""
    from genrec.data.dataset import check_destination
    from genrec.data.ingest import EventOptions
    from genrec.reports import console, summaries

    options = EventOptions(
        columns=how.column,
        time_unit=how.time_unit,
        date_format=how.date_format,
        behavior=how.behavior,
        unit=how.unit,
        status=how.status,
        encoding=how.encoding,
        drop_duplicates=how.drop_duplicates,
        drop_items=read_drops(how.drop_items),
        redact=how.redact,
    )
    source = _choose_source(file, interactions, how)
    if how.name is not None and not _NAME.fullmatch(how.name):
        msg = (
            f"--name {how.name!r} cannot be the name of a dataset. Expected a name without slashes or control characters, "
            "such as shop. To choose the folder, use --out."
        )
        raise SettingsError(msg)
    name = how.name or _name_of(source, how)
    folder = out or Path(name)
    if not dry_run:
        check_destination(folder)
    with console.working("Preparing ...", quiet=json) as log:
        dataset, rejects = _prepare(source, folder, replace(how, name=name), options, target,
                                    None if dry_run else folder, log)  # fmt: skip
        if not dry_run:
            dataset.save(folder, rejects)
    examples = [e for r in rejects for e in r.examples().items()]
    if json:
        report = {"schema_version": 1, "out": None if dry_run else str(folder)}
        rejected = {reason: [list(row) for row in rows] for reason, rows in examples}
        console.print_json({**report, **dataset.info.to_dict(), "rejected_examples": rejected})
        return
    if dry_run:
        summaries.print_uses(dataset.info)
        summaries.print_example_rows(dataset)
    summaries.print_dataset(dataset.info, None if dry_run else folder, dict(examples))


def _choose_source(
    file: Path | None, interactions: Path | None, how: PrepareOptions
) -> Path | None:
    """Return the events file, or None if the events come from a database.

    Raises:
        SettingsError: no source or several sources were given.
    """
    given = [str(s) for s in (file, interactions) if s is not None]
    given += ["--sql"] if how.sql is not None else []
    if len(given) != 1:
        found = " and ".join(given) + " were given" if given else "Nothing was given to read"
        msg = (
            f"{found}. Expected one source of events: `genrec prepare FILE`, or `genrec prepare "
            "--sql QUERY --url URL`."
        )
        raise SettingsError(msg)
    if (how.sql is not None or how.items_sql is not None) != (how.url is not None):
        msg = (
            "A query was given without the address of a database, or an address without a query. "
            "Expected --sql QUERY (or --items-sql QUERY) with --url URL, such as --url sqlite:///shop.db."
        )
        raise SettingsError(msg)
    if how.items is not None and how.items_sql is not None:
        msg = "Both --items and --items-sql were given. Expected at most one of them."
        raise SettingsError(msg)
    if (how.sql is not None or how.items_sql is not None) and (how.validation or how.test):
        msg = "--validation and --test can only be used with an events file, not with a query."
        raise SettingsError(msg)
    return file if file is not None else interactions


def _name_of(source: Path | None, how: PrepareOptions) -> str:
    """Return the dataset's name, which is the name of the events file or of the database."""
    if source is not None:
        return real_path(source).name.split(".")[0] or "dataset"
    return Path((how.url or "").partition("?")[0]).stem or "dataset"


def _prepare(
    source: Path | None,
    folder: Path,
    how: PrepareOptions,
    options: EventOptions,
    target: Mapping[str, Any],
    rejected_to: Path | None,
    log: Callable[[str], None],
) -> tuple[Dataset, list[Rejects]]:
    """Read the files or the database, and return the dataset and the rejected rows."""
    from genrec.data.dataset import Dataset

    events: Path | pa.Table | None = source
    items: Path | pa.Table | None = how.items
    if how.url is not None:
        from genrec.data.readers.sql import read_query

        log("Reading the database ...")
        if how.sql is not None:
            events = read_query(how.sql, how.url)
        if how.items_sql is not None:
            items = read_query(how.items_sql, how.url)
    return Dataset.prepare(
        items,
        events,
        name=how.name,
        options=options,
        item_columns=how.item_column,
        validation=how.validation,
        test=how.test,
        split=how.split,
        validation_from=how.validation_from,
        test_from=how.test_from,
        strict=how.strict,
        rejected_to=None if rejected_to is None else rejected_to / "rejected.csv",
        context=how.context_columns,
        triples=how.triples,
        knowledge=how.knowledge or None,
        item_vectors=how.item_vectors,
        log=log,
        **target,
    )


@command()
def audit(
    data: Data,
    split: Annotated[
        str,
        typer.Option(metavar="validation|test", help="Part of the data to check."),
    ] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Evaluation protocol, as in `genrec evaluate`.",
            show_default="the protocol that fits the data's split",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file of published results with columns such as HR@10 and NDCG@10. The "
            "command checks whether the results are arithmetically possible.",
        ),
    ] = None,
    privacy: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Check instead whether this run shows who it was trained on (membership inference). The run "
            "needs users who were held out with `genrec train --holdout-users`, or use --outside.",
        ),
    ] = None,
    outside: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --privacy: dataset of users who were not trained on, with the same items.",
        ),
    ] = None,
    users: Annotated[
        int,
        typer.Option(metavar="N", help="With --privacy: number of users on each side.", min=1),
    ] = 200,
    shadows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --privacy: train N shadow adapters like the run, each on a random half of the users, for a "
            "stronger attack. N must be even, such as 4.",
        ),
    ] = None,
    shadow_minutes: Annotated[
        float,
        typer.Option(
            metavar="N", help="With --shadows: time limit for each shadow in minutes.", min=0
        ),
    ] = 30.0,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --privacy: read only one window of at most N tokens per user, which is faster.",
            min=16,
            show_default="all events, or for a private run its --dp-tokens",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --shadows: folder for the shadows. Finished ones in it are used again.",
            show_default="RUN-shadows",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="With --privacy: number of CPU threads.", min=1)
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a dataset for problems that make evaluations misleading, such as leaks and ties."""
    if privacy is not None:
        options = {"users": users, "tokens": tokens, "threads": threads}
        place = None if shadows is None else out or Path(f"{privacy.rstrip('/')}-shadows")
        _audit_privacy(data, privacy, outside, options, (place, shadows, shadow_minutes), json=json)
        return
    if shadows is not None or tokens is not None or out is not None:
        raise SettingsError(
            "--shadows, --tokens and --out need --privacy RUN, which is the run to audit."
        )
    from genrec.data.dataset import Dataset
    from genrec.data.readers import arrow, files
    from genrec.data.readers.rejects import Rejects
    from genrec.evaluation import audit as audits
    from genrec.reports import console

    rows = None
    if table is not None:
        published = files.read(table, rejects=Rejects(table.name, strict=True))
        rows = published.select(arrow.column_names(published)).to_pylist()
    with console.working(f"Checking {data} ...", quiet=json) as log:
        report = audits.audit(
            Dataset.load(data), protocol=protocol, split=split, table=rows, log=log
        )
    if json:
        console.print_json(report.to_dict())
        return
    console.print_line(
        f"{report.dataset}: protocol {report.protocol}, split {report.split}, {report.users:,} "
        f"users; warnings: {report.count('warning')}, notes: {report.count('note')}"
    )
    console.print_table(
        ["level", "check", "finding", "what to do"],
        [[f.level, f.check, f.said, f.advice or "-"] for f in report.findings],
    )


def _audit_privacy(
    data: Path,
    run: str,
    outside: Path | None,
    options: Mapping[str, Any],
    shadows: tuple[Path | None, int | None, float],
    *,
    json: bool,
) -> None:
    from genrec.data.dataset import Dataset
    from genrec.reports import console

    dataset = Dataset.load(data)
    others = None if outside is None else Dataset.load(outside)
    with console.working(f"Auditing {run} ...", quiet=json) as log:
        from genrec.training.privacy_audit import Shadows, audit_privacy

        folder, many, minutes = shadows
        asked = None if folder is None or many is None else Shadows(folder, many, minutes)
        found = audit_privacy(run, dataset, outside=others, shadows=asked, log=log, **options)
    if json:
        console.print_json(found.to_dict())
        return
    console.print_line(
        f"{found.members:,} members (users who were trained on) and {found.non_members:,} non-members "
        f"({found.chosen}), with {found.events[0]:.1f} and {found.events[1]:.1f} targets on average"
    )
    console.print_line(
        f"Gain over the base model in nats per target: members {found.gains[0]:.3f}, non-members "
        f"{found.gains[1]:.3f}"
    )
    console.print_line(f"AUC {found.auc} (chance: 0.5)")
    console.print_line(f"Members found at 1% false positives: {found.tpr} (chance: 0.01)")
    for name, (auc, tpr) in found.attacks.items():
        console.print_line(
            f"With {found.shadows} shadows, by {name}: AUC {auc}, found at 1% false positives {tpr}"
        )
    console.print_line(found.verdict)
