"""Define the command ``audit``, which imports heavy modules when called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, command
from genrec.config import option
from genrec.errors import SettingsError

_PRIVACY = "Privacy of a run"


@dataclass(frozen=True, slots=True)
class PrivacyOptions:
    """Options for attacking a run."""

    privacy: str | None = option(
        None,
        _PRIVACY,
        "Check instead whether this run shows who it was trained on (membership inference). The run "
        "needs users who were held out with `genrec train --holdout-users`, or use --outside.",
        metavar="RUN",
    )
    outside: Path | None = option(
        None,
        _PRIVACY,
        "With --privacy: dataset of users who were not trained on, with the same items.",
        metavar="DIR",
    )
    users: int = option(200, _PRIVACY, "With --privacy: number of users on each side.", metavar="N")
    tokens: int | None = option(
        None,
        _PRIVACY,
        "With --privacy: read only one window of at most N tokens per user, which is faster.",
        metavar="N",
        unset="all events, or for a private run its --dp-tokens",
    )
    shadows: int | None = option(
        None,
        _PRIVACY,
        "With --privacy: train N shadow adapters like the run, each on a random half of the users, for a "
        "stronger attack. N must be even, such as 4.",
        metavar="N",
    )
    shadow_minutes: float = option(
        30.0, _PRIVACY, "With --shadows: time limit for each shadow in minutes.", metavar="N"
    )
    shadow_dir: Path | None = option(
        None,
        _PRIVACY,
        "With --shadows: folder for the shadows. Finished ones in it are used again.",
        metavar="DIR",
        unset="RUN-shadows",
    )
    threads: int | None = option(
        None, _PRIVACY, "With --privacy: number of CPU threads.", metavar="N"
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SettingsError: a value is invalid, or an option needs --privacy.
        """
        least = {"users": 1, "tokens": 16, "threads": 1, "shadows": 2, "shadow_minutes": 0}
        for name, value in ((name, getattr(self, name)) for name in least):
            if value is not None and not value >= least[name]:
                msg = (
                    f"--{name.replace('_', '-')} {value} is not valid. Expected a number of at least "
                    f"{least[name]}."
                )
                raise SettingsError(msg)
        if self.privacy is None and any((self.outside, self.tokens, self.shadows, self.shadow_dir)):
            msg = "--outside, --tokens, --shadows and --shadow-dir need --privacy RUN, which is the run to audit."
            raise SettingsError(msg)


@command()
def audit(
    data: Data,
    attack: PrivacyOptions,
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
    json: AsJson = False,
) -> None:
    """Check a dataset for problems that make evaluations misleading, such as leaks and ties."""
    if attack.privacy is not None:
        _audit_privacy(data, attack.privacy, attack, json=json)
        return
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


def _audit_privacy(data: Path, run: str, attack: PrivacyOptions, *, json: bool) -> None:
    from genrec.data.dataset import Dataset
    from genrec.reports import console

    dataset = Dataset.load(data)
    others = None if attack.outside is None else Dataset.load(attack.outside)
    with console.working(f"Auditing {run} ...", quiet=json) as log:
        from genrec.training.privacy_audit import audit_privacy
        from genrec.training.shadows import AuditOptions, Shadows

        asked = None
        if attack.shadows is not None:
            place = attack.shadow_dir or Path(f"{run.rstrip('/')}-shadows")
            asked = Shadows(place, attack.shadows, attack.shadow_minutes)
        options = AuditOptions(attack.users, attack.tokens, attack.threads)
        found = audit_privacy(run, dataset, options, outside=others, shadows=asked, log=log)
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
