"""Convert the counts of a prior to named arrays that can be saved to a file, and back.

The header of such a file is checked here, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.baselines.sparse import sparse_from_arrays, sparse_to_arrays
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.errors import DataError
from genrec.priors.context_counts import ContextCounts
from genrec.priors.counts import Counts
from genrec.priors.event_times import EventTimes
from genrec.priors.knowledge_links import KnowledgeLinks
from genrec.priors.title_neighbors import TitleNeighbors
from genrec.priors.vector_links import VectorLinks

FORMAT_VERSION = 3
READABLE = (2, 3)  # format versions; 2 also has the number of users who have both of two items


def counts_to_arrays(
    counts: Counts, *, ease: bool, titles: bool = False
) -> dict[str, npt.NDArray[Any]]:
    """Return everything that is needed to rebuild counts for the same catalog.

    Args:
        counts: the counts.
        ease: whether to include the weights of EASE, so that they need not be computed again.
        titles: whether to include the title vectors, so that they need not be computed again, and to
            leave out what the dataset knows about the items.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "popularity": counts.popularity,
        "newest": counts.newest,
        "latest": counts.latest,
        "times.row": counts.times.row,
        "times.when": counts.times.when,
        "users": np.frombuffer("\0".join(counts.user_ids).encode(), dtype=np.uint8),
        **sparse_to_arrays("items", counts.items),
        **sparse_to_arrays("after", counts.after),
        **counts.contexts.to_arrays(),
    }
    if not titles:  # the cache belongs to a dataset, which has these
        arrays |= {} if counts.knowledge is None else counts.knowledge.to_arrays()
        arrays |= {} if counts.vectors is None else counts.vectors.to_arrays()
    if ease:
        arrays |= sparse_to_arrays("ease", counts.ease)
    if titles:
        arrays |= sparse_to_arrays("titles", counts.title_neighbors.alike.vectors)
    return arrays


def counts_from_arrays(arrays: Mapping[str, Any], catalog: Catalog) -> Counts:
    """Rebuild the counts from the arrays that ``counts_to_arrays`` returned.

    Args:
        arrays: the arrays, keyed by name. Other arrays are ignored.
        catalog: the catalog of the counts.
    """
    n = len(catalog)
    users = bytes(arrays["users"]).decode()
    vectors = None
    if "titles.data" in arrays:
        vectors = sparse_from_arrays("titles", arrays, int(arrays["titles.width"][0]))
    return Counts(
        catalog,
        tuple(users.split("\0")) if len(arrays["latest"]) else (),
        np.array(arrays["latest"]),
        sparse_from_arrays("items", arrays, n),
        sparse_from_arrays("after", arrays, n),
        np.array(arrays["popularity"]),
        np.array(arrays["newest"]),
        TitleNeighbors(catalog, vectors),
        {"ease": sparse_from_arrays("ease", arrays, n)} if "ease.data" in arrays else {},
        EventTimes(arrays["times.row"], arrays["times.when"])
        if "times.row" in arrays
        else EventTimes(),
        ContextCounts.from_arrays(arrays, n),
        KnowledgeLinks.from_arrays(arrays, catalog),
        VectorLinks.from_arrays(arrays, catalog),
    )


def check_header(
    path: str | Path, metadata: Mapping[str, str], data: Dataset | Catalog, catalog: Catalog
) -> None:
    """Parse the header of a saved prior, and check that the prior can be used with the given data.

    Args:
        path: the file, for messages.
        metadata: the metadata of the file, which contains the header.
        data: the dataset or catalog for which the prior is loaded.
        catalog: the same catalog, or the catalog of the dataset.

    Raises:
        DataError: the file is not a saved prior, or was saved for a different catalog.
    """
    try:
        header: dict[str, Any] = json.loads(metadata["prior"])
        version, learned = header["format_version"], header["learned"]
    except (KeyError, ValueError, TypeError) as error:
        msg = (
            f"{path} is not a saved prior ({error!r}). Expected a file "
            "written by CollaborativePrior.save."
        )
        raise DataError(msg) from error
    if version not in READABLE or header["catalog"] != catalog.hash():
        msg = (
            f"{path} (format {version}) cannot be used with this catalog of {len(catalog):,} items. "
            f"Expected format {FORMAT_VERSION}, and a prior saved for the same catalog; fit the "
            "prior again."
        )
        raise DataError(msg)
    if learned and isinstance(data, Catalog):
        msg = (
            f"{path} uses the baselines {', '.join(learned)}, which need the dataset. Expected a "
            "Dataset instead of a catalog."
        )
        raise DataError(msg)


def own_arrays(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the arrays whose names begin with ``name/``, under the rest of their names."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
