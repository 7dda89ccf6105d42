"""Add the counts of several datasets, of which each has other users, without their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genrec.errors import DataError
from genrec.priors.counts import Counts, newest_of
from genrec.priors.event_times import EventTimes


def merge_counts(parts: Sequence[Counts]) -> Counts:
    """Add counts for the same catalog.

    The result equals the counts of all events together if no user is in two parts. The users' ids are
    replaced with numbers; each user still has a row with the set of items. Counts by context are left
    out.

    Args:
        parts: the counts, at least one.

    Raises:
        DataError: the catalogs differ.
    """
    from scipy import sparse

    first = parts[0]
    if any(part.catalog.hash() != first.catalog.hash() for part in parts):
        raise DataError("Counts of different catalogs cannot be added. Expected the same catalog.")
    sizes = [len(part.user_ids) for part in parts]
    popularity = np.sum([part.popularity for part in parts], axis=0)
    ordered = all(len(part.times) == int(part.popularity.sum()) for part in parts)
    times = EventTimes()
    if ordered:
        times = EventTimes(
            np.concatenate([part.times.row for part in parts]),
            np.concatenate([part.times.when for part in parts]),
        )
    by_time = times.row[np.argsort(times.when, kind="stable")]
    return replace(
        Counts.none(first.catalog),
        user_ids=tuple(f"{site}.{n}" for site, size in enumerate(sizes, 1) for n in range(size)),
        latest=np.concatenate([part.latest for part in parts]),
        items=sparse.vstack([part.items for part in parts], format="csr"),
        after=sum((part.after for part in parts[1:]), start=first.after),
        popularity=popularity,
        newest=newest_of(by_time, int(popularity.sum())),
        times=times,
        title_neighbors=first.title_neighbors,
    )
