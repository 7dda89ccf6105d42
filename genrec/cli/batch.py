"""Define the command ``batch``, which imports heavy modules when called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, ModelOptions, ServerOptions, command
from genrec.config import OUTPUT, WHAT, QueryOptions, Settings, option
from genrec.files import check_output

_HOW = "How to run it"


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options that say what is done for which rows, and wanted."""

    users: Path | None = option(
        None,
        WHAT,
        "CSV, JSONL or Parquet file with one of the columns user_id (users of the dataset), history (typed "
        "histories) and items (the item_ids of a session, as a list or separated by |), and optionally id.",
        metavar="FILE",
        unset="all users of the dataset",
    )
    task: str = option(
        "recommend",
        WHAT,
        "recommend: lists. explain: lists with explanations. score: the probabilities of the items in --items. "
        "profile: taste profiles.",
        choices=("recommend", "explain", "score", "profile"),
    )
    items: Sequence[str] | None = option(
        None, WHAT, "With --task score: the items to score.", unset="none", items=True
    )

    engine: str = option(
        "local",
        _HOW,
        "local: processes on this machine. ray: actors of Ray, here or on a cluster.",
        choices=("local", "ray"),
    )
    workers: int = option(
        1,
        _HOW,
        "Number of processes or actors. Each of them loads the model, and without --threads, processes share the "
        "cores.",
        least=1,
    )
    shard_size: int = option(256, _HOW, "Number of rows in each output file.", least=1)
    batch_size: int = option(16, _HOW, "Number of prompts that the model reads at once.", least=1)


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
    wanted: BatchOptions,
    query: Annotated[Given, FieldsOf(QueryOptions, without=["explain"])],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings)],
    server: ServerOptions,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Output folder: new, empty, or that of the same batch, which is then continued.",
            rich_help_panel=OUTPUT,
        ),
    ],
    json: AsJson = False,
) -> None:
    """Make lists or taste profiles for many users, and write them to Parquet files.

    Every row of the input ends in exactly one row of part-*.parquet, or of rejected-*.parquet with the
    reason. If the command is interrupted, the same command continues, and finished files are kept.
    """
    from genrec.batch import Job, run
    from genrec.cli.loading import for_server
    from genrec.reports import console

    job = Job(
        data=str(data),
        users=None if wanted.users is None else str(wanted.users),
        task=wanted.task,
        run=None if which.run is None else str(which.run),
        model=which.model,
        loading={n: v for n, v in which.loading().items() if v != getattr(ModelOptions(), n)},
        server={} if server.base_url is None else {"base_url": server.base_url, **server.server},
        settings=for_server(settings, which, server).only,
        options=query.only,
        items=wanted.items,
        shard_size=wanted.shard_size,
        batch_size=wanted.batch_size,
    )
    check_output(out, kind="folder")
    with console.working("Starting ...", quiet=json) as log:
        report = run(job, out, engine=wanted.engine, workers=wanted.workers, log=log)
    if json:
        console.print_json({"schema_version": 1, **report.to_dict()})
        return
    console.print_line(
        f"{report.answered:,} of {report.rows:,} rows answered, {report.rejected:,} rejected, in "
        f"{report.shards:,} files ({report.resumed:,} were finished before) -> {out}"
    )
