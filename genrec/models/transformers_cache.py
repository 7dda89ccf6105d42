"""Let transformers models store their keys and values in growing buffers."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.cache_utils import Cache, DynamicLayer

from genrec.models.growing_layer import GrowingLayer


class TransformersLayer(GrowingLayer, DynamicLayer):
    """A growing buffer that transformers can use as one layer of a cache."""

    lazy_initialization = DynamicLayer.lazy_initialization


def as_cache(layers: Sequence[GrowingLayer]) -> Cache:
    """Return a cache that uses the given layers directly, without copying them."""
    return Cache(layers=list(layers))
