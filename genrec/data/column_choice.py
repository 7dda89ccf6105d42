"""Choose between columns that could have the same role by comparing their cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from genrec.data import column_cells
from genrec.data.column_names import fold, known_words
from genrec.text import quantity

Fits = dict[tuple[str, str], tuple[float, float]]
NO_TITLES = "does not hold the items' titles"  # part of the remarks on columns called title
DOUBTFUL_TITLES = 2
"""The mean number of titles per item above which a column may hold something else."""

_GOOD_FIT = 1.2  # titles per item and items per title in a column that surely holds titles
_MOST_REGISTERS = 20


def copy_shared(table: pa.Table, given: Mapping[str, str]) -> tuple[pa.Table, dict[str, str]]:
    """Copy each column that the user mapped to several roles, since each role needs its own column.

    Args:
        table: the table, with the column names of the file.
        given: the user's mapping of genrec's names to those in the file.

    Returns:
        The table with the added copies, each named after its role, and the mapping without these
        roles.
    """
    names: dict[str, str] = {}
    for role, name in given.items():
        if name not in names.values():
            names[role] = name
            continue
        copy = role
        if role == name:  # the copy goes to the other role
            copy = next(r for r, n in names.items() if n == name)
            del names[copy]
            names[role] = name
        column = table[name]
        others = [f"{n}_given" if n == copy else n for n in table.column_names]
        table = table.rename_columns(others).append_column(copy, column)
    return table, names


def are_registers(first: tuple[int, int], other: tuple[int, int]) -> bool:
    """Check whether a user column identifies cash registers or staff rather than customers.

    This is assumed if the column has only a few users with many rows each, while another candidate
    column has far more users.

    Args:
        first: for the column to check, the number of rows with a user and of distinct users.
        other: the same two counts for the other candidate column.
    """
    (rows, users), (other_rows, other_users) = first, other
    few = users <= _MOST_REGISTERS and rows > 30 * users
    return few and other_users >= 5 * users and other_rows >= 0.5 * rows


def compare_users(column: pa.ChunkedArray, first: tuple[int, int], other: tuple[int, int]) -> str:
    """Return why another column identifies users better than the first one, or "" if it does not.

    Args:
        column: the cells of the first column.
        first: for the first column, the number of rows with a user and of distinct users.
        other: the same two counts for the other column.
    """
    (rows, users), (other_rows, other_users) = first, other
    if other_users >= users and other_rows > rows:
        return f"identifies no user in {quantity(other_rows - rows, 'row')}"
    if other_users > users and other_rows == rows and column_cells.holds_names(column):
        return f"holds names, which tell only {users:,} of {other_users:,} users apart"
    return ""


def prefer_own(fits: Fits, own: str | None, notes: list[str]) -> Fits:
    """Keep only the pairs with the column called ``title``, unless another one fits far better.

    Args:
        fits: the result of ``misfit`` for each pair of an id column and a title column.
        own: the column called ``title``; None if there is none.
        notes: the list of remarks.
    """
    mine = {pair: fit for pair, fit in fits.items() if pair[1] == own}
    others = {pair: fit for pair, fit in fits.items() if pair[1] != own}
    if not mine or not others:
        return fits
    usual = min(mine.values(), key=max)
    full = {p: fit for p, fit in others.items() if fold(p[1]) in known_words("full_titles")}
    if full and min(max(fit) for fit in full.values()) < max(usual):
        return full  # such as the name of a series and an episode, where the title is the episode's
    best = min(max(fit) for fit in others.values())
    if usual[0] <= DOUBTFUL_TITLES or best > _GOOD_FIT:
        return mine
    notes.append(f"{own!r} {NO_TITLES}, since most items have several values there")
    return others


def choose_pair(fits: Fits, table: pa.Table) -> tuple[str, str]:
    """Return the first pair of an id column and a title column that fits about as well as the best.

    A pair is passed over if another one that fits has values in more than twice as many rows, such
    as a product's name beside the titles of the few pages that were recorded.

    Args:
        fits: the result of ``misfit`` for each pair.
        table: the table with the columns.
    """
    best = min(max(fit) for fit in fits.values())
    good = [pair for pair, fit in fits.items() if max(fit) <= 1.1 * best]
    if len(good) == 1 or not np.isfinite(best):
        return good[0]
    rows = [column_cells.count_pairs(table[i], table[t]) for i, t in good]
    return next(pair for pair, count in zip(good, rows, strict=True) if 2 * count >= max(rows))
