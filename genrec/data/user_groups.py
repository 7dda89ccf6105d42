"""Label the cases of an evaluation by a column of the events, such as the country of the user.

A column that describes users has one value per user; of any other column, the most frequent value
counts. This module deals with data only, not with results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from genrec.data.context import DERIVED, read_column
from genrec.data.dataset import Dataset
from genrec.data.protocols import Case
from genrec.errors import RequestError

MOST_GROUPS = 20  # the values of fewer users or items than those of so many others are joined
OTHER, UNKNOWN = "(other)", "(unknown)"


def label_users(dataset: Dataset, cases: Sequence[Case], column: str) -> list[str]:
    """Label each case by the most frequent value of a column in the events of its history.

    Of equally frequent values, the latest one counts. The label is empty if no event of the history
    has a value.

    Args:
        dataset: the dataset of the cases.
        cases: the cases.
        column: a further column of the events, or one that is derived from their times, such as
            ``season``.

    Raises:
        RequestError: the events have no such column.
    """
    events = dataset.interactions
    dated = dataset.info.time_unit != "position"
    own = [] if events.attributes is None else events.attributes.column_names
    if column not in [*own, *(DERIVED if dated else ())]:
        known = ", ".join([*own, *(DERIVED if dated else ())])
        msg = (
            f"The events have no column {column!r}, so users cannot be grouped by it. Expected one of: "
            f"{known}." if known else
            f"Users cannot be grouped by {column!r}, because the events have no further columns and no "
            "dates. Add a column with this name to the events file, and run `genrec prepare` again."
        )  # fmt: skip
        raise RequestError(msg)
    read = read_column(column, events.attributes, events.columns.timestamp, dated=dated)
    labels = []
    for case in cases:
        codes = read.codes[case.shown]
        codes = codes[codes >= 0][::-1]  # the latest first
        labels.append(
            read.values[Counter(codes.tolist()).most_common(1)[0][0]] if len(codes) else ""
        )
    return labels


def join_rare(labels: Iterable[str], *, most: int = MOST_GROUPS, least: int = 1) -> list[str]:
    """Replace rare labels with ``OTHER``, and empty ones with ``UNKNOWN``.

    Args:
        labels: the labels.
        most: the maximum number of labels to keep, the most frequent ones.
        least: how often a label must occur to be kept.

    >>> join_rare(["DE", "", "FR", "DE", "NL", "FR"], least=2)
    ['DE', '(unknown)', 'FR', 'DE', '(other)', 'FR']
    """
    labels = list(labels)
    counts = Counter(label for label in labels if label)
    kept = {label for label, n in counts.most_common(most) if n >= least}
    return [UNKNOWN if not label else label if label in kept else OTHER for label in labels]


def order_groups(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels, the most frequent first, and ``OTHER`` and ``UNKNOWN`` last.

    >>> order_groups(["(other)", "FR", "DE", "DE", "(other)"])
    ['DE', 'FR', '(other)']
    """
    counts = Counter(labels)
    return sorted(counts, key=lambda label: (label in (OTHER, UNKNOWN), -counts[label], label))
