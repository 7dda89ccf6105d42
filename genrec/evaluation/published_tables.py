"""Published tables of results: rows that arithmetic rules out. Knows names of metrics and numbers.

With one target a user, hit rate, NDCG and MRR are all means over the same ranks, so they bound each
other. A user whose target stands at a rank r from k1 + 1 to k2 adds 1 to HR@k2 - HR@k1, and to
NDCG@k2 - NDCG@k1 between 1 / log2(k2 + 1) and 1 / log2(k1 + 2); to MRR between 1 / k2 and
1 / (k1 + 1).
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
    """A number and how far it may be off because it was rounded."""

    value: float
    slack: float


def check_table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Rows of a table of results that cannot be, with one target a user.

    Args:
        rows: one mapping a row: columns such as ``HR@10``, ``Recall@5``, ``N@10``, ``MRR@20``, also
            with a group before (``Beauty R@10``), to numbers or texts such as ``.0648``; other
            columns name the row. Texts are taken as exact to their last digit, floats to the last
            digit of the row's longest. A group's values are percentages where one is above 1.

    Returns:
        One sentence for each thing that is impossible; none where all may be.

    Raises:
        DataError: no column is a metric.
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
            f"No column of the table holds a metric; found {', '.join(map(str, rows[0]))}. Expected "
            "names such as HR@10, Recall@5, NDCG@10 or MRR@20; rename the columns."
        )
        raise DataError(msg)
    return findings


def _column(name: str) -> tuple[str, str, int] | None:
    """The group, kind and k of a column's name; None where it is no metric."""
    found = _COLUMN.match(str(name).strip())
    if found is None:
        return None
    short = found["name"].lower().replace("_", "").replace("-", "")
    kind = next((kind for kind, names in _KINDS.items() if short in names), None)
    return None if kind is None else ((found["group"] or "").strip(), kind, int(found["k"]))


def _tables(row: Mapping[str, object]) -> dict[str, dict[str, dict[int, _Value]]]:
    """The values of one row, by group, kind of metric and k."""
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
    """The number in a cell; None where there is none. ``digits`` is how exact floats are."""
    text = str(cell).strip().strip("*%").replace(",", "")
    if not re.fullmatch(r"-?\d*\.?\d+(e-?\d+)?", text):
        return None
    digits = digits if isinstance(cell, float) else _digits(text)
    return _Value(float(text), 0.5 * 10.0**-digits + 1e-12)


def _digits(text: str) -> int:
    """How many digits stand after the point of a number."""
    return 12 if "e" in text else len(text.partition(".")[2])


def _check(table: Mapping[str, Mapping[int, _Value]]) -> list[str]:
    """The findings on one row's values."""
    found = []
    for kind, by_k in table.items():
        for k, v in by_k.items():
            if not -v.slack <= v.value <= 1 + v.slack:
                found.append(f"{_said(kind, k, v)} is not between 0 and 1")
        ks = sorted(by_k)
        for small, large in itertools.pairwise(ks):
            low, high = by_k[small], by_k[large]
            if high.value + high.slack < low.value - low.slack:
                found.append(
                    f"{_said(kind, large, high)} is below {_said(kind, small, low)}; "
                    "it can only rise with k"
                )
    for kind in ("ndcg", "mrr"):
        found += _check_against_hits(kind, table.get(kind, {}), table.get("hit_rate", {}))
    return found


def _check_against_hits(
    kind: str, gains: Mapping[int, _Value], hit_rates: Mapping[int, _Value]
) -> list[str]:
    found = []
    nothing, last = _Value(0.0, 0.0), 0
    before, hit_before = nothing, nothing
    for k in sorted(gains.keys() & hit_rates.keys()):
        gain, hit = gains[k], hit_rates[k]
        gained, hits = gain.value - before.value, hit.value - hit_before.value
        slack = gain.slack + before.slack + hit.slack + hit_before.slack
        most, least = hits * _gain(kind, last + 1), hits * _gain(kind, k)
        both = f"{_said(kind, k, gain)} and {_said('hit_rate', k, hit)}"
        if gain.value > hit.value + gain.slack + hit.slack:
            found.append(f"{_said(kind, k, gain)} is above {_said('hit_rate', k, hit)}")
        elif gain.value < hit.value * _gain(kind, k) - slack:
            found.append(
                f"{both}: that many hits give at least {hit.value * _gain(kind, k):.4f}, "
                "even if all stand last"
            )
        elif hits >= 0 and last and not least - slack <= gained <= most + slack:
            found.append(
                f"{both}: from k={last} on HR gains {hits:.4f}, so {_NAMES[kind]} gains "
                f"{least:.4f} to {most:.4f}, not {gained:.4f}"
            )
        before, hit_before, last = gain, hit, k
    return found


def _gain(kind: str, rank: int) -> float:
    """What a hit at a rank adds."""
    return float(1 / np.log2(rank + 1)) if kind == "ndcg" else 1 / rank


def _said(kind: str, k: int, value: _Value) -> str:
    return f"{_NAMES[kind]}@{k} {value.value:.6g}"
