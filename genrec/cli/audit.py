"""Define the command ``audit``, which imports heavy modules when called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genrec.cli.options import AsJson, Data, command
from genrec.errors import SettingsError


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
        from genrec.training.privacy_audit import audit_privacy
        from genrec.training.shadows import AuditOptions, Shadows

        folder, many, minutes = shadows
        asked = None if folder is None or many is None else Shadows(folder, many, minutes)
        found = audit_privacy(
            run, dataset, AuditOptions(**options), outside=others, shadows=asked, log=log
        )
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
