"""Check published results for figures that are arithmetically impossible.

With one target per user, hit rate, NDCG and MRR are means over the same ranks, so each of them
constrains the others. Suppose that the target of a user has a rank from k1 + 1 to k2. If the cutoff
is raised from k1 to k2, the metrics of this user increase by these amounts:

- hit rate: 1
- NDCG: at least 1 / log2(k2 + 1) and at most 1 / log2(k1 + 2)
- MRR: at least 1 / k2 and at most 1 / (k1 + 1)

The metrics of all other users do not change. This module works with metric names and numbers
only.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.errors import DataError

_KINDS = {
    "hit_rate": ("hr", "hit", "hits", "hitrate", "hitratio", "h", "recall", "r"),
    "ndcg": ("ndcg", "n"),
    "mrr": ("mrr", "m"),
}
_NAMES = {"hit_rate": "HR", "ndcg": "NDCG", "mrr": "MRR"}
_COLUMN = re.compile(r"^(?:(?P<group>.*)[\s:|])?(?P<name>[A-Za-z_-]+)\s*@\s*(?P<k>\d+)$")


@dataclass(frozen=True, slots=True)
class _Value:
    """A published number, with the largest error that rounding may have caused."""

    value: float
    slack: float


def check_table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Find contradictions in a table of results, assuming one target per user.

    Args:
        rows: for each row, a mapping from column names to numbers or strings such as ``.0648``.
            Metric columns have names such as ``HR@10``, ``Recall@5``, ``N@10`` or ``MRR@20``, which
            may follow the name of a group, for example ``Beauty R@10``. All other columns label the
            row. Strings are assumed to be exact to their last digit, and floats to as many digits
            as the longest float in the row. The values of a group are read as percentages if one of
            them is above 1.

    Returns:
        A description of each contradiction; an empty list if there are none.

    Raises:
        DataError: no column is a metric.

    >>> check_table([{"model": "theirs", "HR@10": ".0400", "NDCG@10": ".0450"}])
    ['theirs: NDCG@10 0.045 is above HR@10 0.04']
    """
    findings, read = [], 0
    for number, row in enumerate(rows, start=1):
        labels = [str(v) for c, v in row.items() if _column(c) is None and str(v or "").strip()]
        label = ", ".join(labels) or f"row {number}"
        for group, table in _tables(row).items():
            read += sum(len(values) for values in table.values())
            name = f"{label} ({group})" if group else label
            findings += [f"{name}: {finding}" for finding in _check(table)]
    if rows and not read:
        msg = (
            f"The table has no metric column. Its columns are {', '.join(map(str, rows[0]))}. Expected "
            "names such as HR@10, Recall@5, NDCG@10 or MRR@20. Rename the columns."
        )
        raise DataError(msg)
    return findings


def _column(name: str) -> tuple[str, str, int] | None:
    """Split a metric column's name, such as ``Beauty HR@10``, into group, metric and k.

    The result is None if the column is not a metric.
    """
    match = _COLUMN.match(str(name).strip())
    if match is None:
        return None
    short = match["name"].lower().replace("_", "").replace("-", "")
    kind = next((kind for kind, names in _KINDS.items() if short in names), None)
    return None if kind is None else ((match["group"] or "").strip(), kind, int(match["k"]))


def _tables(row: Mapping[str, object]) -> dict[str, dict[str, dict[int, _Value]]]:
    """Read the metrics in one row of a table.

    Returns:
        For each group and metric, a mapping from k to the value.
    """
    tables: dict[str, dict[str, dict[int, _Value]]] = defaultdict(lambda: defaultdict(dict))
    digits = max((_digits(repr(c)) for c in row.values() if isinstance(c, float)), default=0)
    for column, cell in row.items():
        place, value = _column(column), _value(cell, digits)
        if place is not None and value is not None:
            group, kind, k = place
            tables[group][kind][k] = value
    for table in tables.values():
        values = [v.value for by_k in table.values() for v in by_k.values()]
        if max(values) > 1:
            for by_k in table.values():
                for k, v in by_k.items():
                    by_k[k] = _Value(v.value / 100, v.slack / 100)
    return tables


def _value(cell: object, digits: int) -> _Value | None:
    """Return the number in a cell, or None if the cell contains no number.

    Args:
        cell: the content of the cell.
        digits: the number of exact decimal places, if the cell contains a float.
    """
    text = str(cell).strip().strip("*%").replace(",", "")
    if not re.fullmatch(r"-?\d*\.?\d+(e-?\d+)?", text):
        return None
    digits = digits if isinstance(cell, float) else _digits(text)
    return _Value(float(text), 0.5 * 10.0**-digits + 1e-12)


def _digits(text: str) -> int:
    """Return the number of decimal places of a number written as text."""
    return 12 if "e" in text else len(text.partition(".")[2])


def _check(table: Mapping[str, Mapping[int, _Value]]) -> list[str]:
    """Find contradictions among the metrics of one row and group."""
    contradictions = []
    for kind, by_k in table.items():
        for k, v in by_k.items():
            if not -v.slack <= v.value <= 1 + v.slack:
                contradictions.append(f"{_format(kind, k, v)} is not between 0 and 1")
        ks = sorted(by_k)
        for small, large in itertools.pairwise(ks):
            low, high = by_k[small], by_k[large]
            if high.value + high.slack < low.value - low.slack:
                contradictions.append(
                    f"{_format(kind, large, high)} is below {_format(kind, small, low)}, but it "
                    "cannot fall as k grows"
                )
    for kind in ("ndcg", "mrr"):
        contradictions += _check_against_hits(kind, table.get(kind, {}), table.get("hit_rate", {}))
    return contradictions


def _check_against_hits(
    kind: str, gains: Mapping[int, _Value], hit_rates: Mapping[int, _Value]
) -> list[str]:
    contradictions = []
    nothing, last = _Value(0.0, 0.0), 0
    before, hit_before = nothing, nothing
    for k in sorted(gains.keys() & hit_rates.keys()):
        gain, hit = gains[k], hit_rates[k]
        gained, hits = gain.value - before.value, hit.value - hit_before.value
        slack = gain.slack + before.slack + hit.slack + hit_before.slack
        most, least = hits * _gain(kind, last + 1), hits * _gain(kind, k)
        both = f"{_format(kind, k, gain)} and {_format('hit_rate', k, hit)}"
        if gain.value > hit.value + gain.slack + hit.slack:
            contradictions.append(
                f"{_format(kind, k, gain)} is above {_format('hit_rate', k, hit)}"
            )
        elif gain.value < hit.value * _gain(kind, k) - slack:
            contradictions.append(
                f"{both}: that many hits give at least {hit.value * _gain(kind, k):.4f}, "
                "even if every target is at the last rank"
            )
        elif hits >= 0 and last and not least - slack <= gained <= most + slack:
            contradictions.append(
                f"{both}: from k={last} to k={k} HR gains {hits:.4f}, so {_NAMES[kind]} must gain "
                f"{least:.4f} to {most:.4f}, not {gained:.4f}"
            )
        before, hit_before, last = gain, hit, k
    return contradictions


def _gain(kind: str, rank: int) -> float:
    """Return the NDCG or the MRR of a user whose target has the given rank."""
    return float(1 / np.log2(rank + 1)) if kind == "ndcg" else 1 / rank


def _format(kind: str, k: int, value: _Value) -> str:
    return f"{_NAMES[kind]}@{k} {value.value:.6g}"
