"""Find the items that share attributes, for the source ``knowledge`` of the collaborative prior.

Each item is a vector with an entry for each value that it shares with another item, such as a director
or a tag. The entry is the value's inverse document frequency, ln(N / n) for n of N items, so that rare
values count most. Two items are as similar as the cosine of their vectors.

This module deals with items and their values, not with events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genrec.baselines.sparse import normalize_rows
from genrec.data.catalog import Catalog
from genrec.data.knowledge import COLUMNS, Knowledge, Triples
from genrec.matching.ngrams import NearestRows

NEAR = 500  # maximum number of items to which an item is linked
PREFIX = "knowledge"


class KnowledgeLinks:
    """The values of the items of a catalog, which are compared only when they are first needed.

    Attributes:
        knowledge: what is known about the items. Without names, no items are linked.
    """

    def __init__(self, catalog: Catalog, knowledge: Knowledge | None = None) -> None:
        """Store the items and what is known about them."""
        self._catalog = catalog
        self.knowledge = knowledge or Knowledge(())

    def over(self, catalog: Catalog) -> KnowledgeLinks:
        """Return the same for another catalog, with the attributes of its items."""
        return KnowledgeLinks(catalog, self.knowledge)

    @cached_property
    def nearest(self) -> NearestRows:
        """An index of the items by their shared values; see the module's docstring."""
        return NearestRows(_vectors(self._catalog, self.knowledge), NEAR)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the names and the triples as named arrays, none if there are no names."""
        if not self.knowledge.names:
            return {}
        triples = self.knowledge.triples
        texts = [] if triples is None else [triples.table[n].to_pylist() for n in COLUMNS]
        told = json.dumps([self.knowledge.names, texts], ensure_ascii=False)
        data = told.encode("utf-8", "surrogatepass")
        return {PREFIX: np.frombuffer(data, dtype=np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], catalog: Catalog) -> KnowledgeLinks | None:
        """Rebuild the result of ``to_arrays`` for a catalog; other arrays are ignored.

        The result is None if there are none.
        """
        if PREFIX not in arrays:
            return None
        names, texts = json.loads(bytes(arrays[PREFIX]).decode("utf-8", "surrogatepass"))
        triples = Triples(pa.table(dict(zip(COLUMNS, texts, strict=True)))) if texts else None
        return cls(catalog, Knowledge(tuple(names), triples))


def _vectors(catalog: Catalog, knowledge: Knowledge) -> Any:
    """Return a sparse float32 matrix with the unit vector of each item as a row."""
    from scipy import sparse

    places: dict[tuple[str, str], int] = {}
    rows, columns = [], []
    for name, cells in knowledge.values(catalog).items():
        for row, values in enumerate(cells):
            for value in values:
                rows.append(row)
                columns.append(places.setdefault((name, value), len(places)))
    shape = len(catalog), max(len(places), 1)
    found = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    items = np.bincount(found.indices, minlength=shape[1])
    rarity = np.where(items > 1, np.log(len(catalog) / np.maximum(items, 1)), 0.0)
    found.data = rarity[found.indices]
    found.eliminate_zeros()
    return normalize_rows(found).astype(np.float32)
