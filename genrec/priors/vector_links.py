"""Find the items with similar vectors, for the source ``vectors`` of the collaborative prior.

The vectors are given, so they can describe anything: pictures, sounds or texts. Two items are as similar
as the cosine of their vectors. This module deals with vectors by catalog row, not with events.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.item_vectors import ItemVectors
from genrec.matching.ngrams import NearestRows

PREFIX = "vectors"


class VectorLinks:
    """The vectors of the items of a catalog, which are compared only when they are first needed.

    Attributes:
        given: the vectors; None if there are none. Then no items are linked.
    """

    def __init__(self, catalog: Catalog, given: ItemVectors | None = None) -> None:
        """Store the items and their vectors."""
        self._catalog = catalog
        self.given = given

    def over(self, catalog: Catalog) -> VectorLinks:
        """Return the same for another catalog; items without a vector are not linked."""
        return VectorLinks(catalog, self.given)

    @cached_property
    def nearest(self) -> NearestRows:
        """An index of the items by their vectors."""
        from scipy import sparse

        if self.given is None:
            return NearestRows(sparse.csr_array((len(self._catalog), 1)))
        return NearestRows(self.given.unit_rows(self._catalog))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the vectors by catalog row as a named array, none if there are no vectors."""
        return {} if self.given is None else {PREFIX: self.given.unit_rows(self._catalog)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], catalog: Catalog) -> VectorLinks | None:
        """Rebuild the result of ``to_arrays`` for the same catalog; other arrays are ignored.

        The result is None if there are none.
        """
        if PREFIX not in arrays:
            return None
        vectors = arrays[PREFIX]
        some = (vectors != 0).any(axis=1)
        ids = tuple(
            item.item_id for item, known in zip(catalog, some.tolist(), strict=True) if known
        )
        return cls(catalog, ItemVectors(ids, vectors[some]))
