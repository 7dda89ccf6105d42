"""Define the command ``prepare``, which imports heavy modules when called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.dropped_items import read_drops
from genrec.cli.options import AsJson, FieldsOf, Given, command
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
