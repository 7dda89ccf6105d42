"""Audit a dataset for problems that would make evaluations on it misleading.

The checks are defined in ``audit_contents`` and ``audit_leaks``. Each check returns a finding with
figures and advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.evaluation import audit_contents, audit_leaks
from genrec.evaluation.audit_types import AuditedData
from genrec.evaluation.audit_types import Finding as Finding
from genrec.evaluation.published_tables import check_table

_CHECKS: tuple[Callable[[AuditedData], Finding], ...] = (
    audit_contents.check_users,
    audit_contents.check_rejected_rows,
    audit_contents.check_target_in_history,
    audit_contents.check_repeats,
    audit_leaks.check_repeated_events,
    audit_contents.check_shared_titles,
    audit_leaks.check_ties,
    audit_leaks.check_users_in_splits,
    audit_leaks.check_sequences_in_train,
    audit_leaks.check_future,
    audit_contents.check_cold_targets,
    audit_contents.check_counting,
)


@dataclass(frozen=True, slots=True)
class Audit:
    """The findings of all checks on a dataset under an evaluation protocol.

    Attributes:
        dataset: the name of the dataset.
        protocol: the protocol under which the dataset was audited.
        split: the part of the data that contains the targets.
        users: the number of users with a target.
        findings: one finding per check.
    """

    dataset: str
    protocol: str
    split: str
    users: int
    findings: Sequence[Finding]

    def count(self, level: str) -> int:
        """Return the number of findings at a level, such as ``warning``."""
        return sum(f.level == level for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as a dictionary of plain values that can be written as JSON."""
        return {"schema_version": 1, **asdict(self)}


def audit(
    dataset: Dataset,
    *,
    protocol: str | None = None,
    split: str = "test",
    table: Sequence[Mapping[str, object]] | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Audit:
    """Run all checks on a dataset, after preparing it in the same way as for an evaluation.

    Args:
        dataset: a dataset with a split. It is split again if the protocol needs a different split.
        protocol: one of ``protocols.NAMES``; None chooses the protocol that matches the dataset's
            split.
        split: ``test`` or ``validation``.
        table: the rows of a table of published results to check as well; see
            ``published_tables.check_table``.
        log: a function that is called with a line of text before each slow step.

    Raises:
        RequestError: the protocol or split is unknown, or no user has a target.
        DataError: the protocol does not fit the data, or the table has no metric column.
    """
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    cases = protocols.cases(dataset, protocol, split)
    data = AuditedData(dataset, cases, split, log)
    findings = [check(data) for check in _CHECKS]
    if table is not None:
        findings.append(published_table(table))
    return Audit(dataset.info.name, protocol, split, len(cases), findings)


def published_table(rows: Sequence[Mapping[str, object]]) -> Finding:
    """Check whether published results are arithmetically possible.

    Args:
        rows: the rows of a table of results; see ``published_tables.check_table``.

    Raises:
        DataError: no column is a metric.
    """
    contradictions = check_table(rows)
    figures = {"rows": len(rows), "impossible": len(contradictions)}
    if not contradictions:
        said = f"The table's figures are arithmetically possible ({len(rows):,} rows)."
        return Finding("table", "ok", figures, said)
    return Finding(
        "table",
        "warning",
        figures,
        f"{len(contradictions):,} of the table's figures are arithmetically impossible: "
        f"{'; '.join(contradictions)}.",
        "Do not compare with these rows. Ask the authors how the figures were computed.",
    )
