"""Define the command ``batch``, which imports heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, ModelOptions, command
from genrec.cli.values import read_ids
from genrec.config import OUTPUT, WHAT, QueryOptions, Settings
from genrec.files import check_output

_HOW = "How to run it"


@command(
    "users",
    "out",
    "task",
    "workers",
    "engine",
    "k",
    "show",
    "where",
    "model",
    "run",
    "prior",
    "json",
)
def batch(
    data: Data,
    query: Annotated[Given, FieldsOf(QueryOptions, without=["explain"])],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings)],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Output folder: new, empty, or that of the same batch, which is then continued.",
            rich_help_panel=OUTPUT,
        ),
    ],
    users: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV, JSONL or Parquet file with one of the columns user_id (users of the dataset), history "
            "(typed histories) and items (the item_ids of a session, as a list or separated by |), and optionally "
            "id.",
            show_default="all users of the dataset",
            rich_help_panel=WHAT,
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="recommend|explain|score",
            help="recommend: lists. explain: lists with explanations. score: the probabilities of --items.",
            rich_help_panel=WHAT,
        ),
    ] = "recommend",
    items: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="With --task score: the items to score. FILE has one item_id per line.",
            show_default="none",
            rich_help_panel=WHAT,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="local: processes on this machine. ray: actors of Ray, here or on a cluster.",
            rich_help_panel=_HOW,
        ),
    ] = "local",
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes or actors. Each of them loads the model, and without --threads they share "
            "the cores.",
            rich_help_panel=_HOW,
        ),
    ] = 1,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Number of rows in each output file.", rich_help_panel=_HOW)
    ] = 256,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, help="Number of prompts that the model reads at once.", rich_help_panel=_HOW
        ),
    ] = 16,
    json: AsJson = False,
) -> None:
    """Make lists for many users, and write them to Parquet files.

    Every row of the input ends in exactly one row of part-*.parquet, or of rejected-*.parquet with the
    reason. If the command is interrupted, the same command continues, and finished files are kept.
    """
    from genrec.batch import Job, run
    from genrec.reports import console

    job = Job(
        data=str(data),
        users=None if users is None else str(users),
        task=task,
        run=None if which.run is None else str(which.run),
        model=which.model,
        loading={n: v for n, v in which.loading().items() if v != getattr(ModelOptions(), n)},
        settings=settings.only,
        options=query.only,
        items=None if items is None else read_ids(items),
        shard_size=shard_size,
        batch_size=batch_size,
    )
    check_output(out, kind="folder")
    with console.working("Starting ...", quiet=json) as log:
        report = run(job, out, engine=engine, workers=workers, log=log)
    if json:
        console.print_json({"schema_version": 1, **report.to_dict()})
        return
    console.print_line(
        f"{report.answered:,} of {report.rows:,} rows answered, {report.rejected:,} rejected, in "
        f"{report.shards:,} files ({report.resumed:,} were finished before) -> {out}"
    )
