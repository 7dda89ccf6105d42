"""Store title vectors in a dataset folder and search them by cosine.

Deals with texts only, not with items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.dataset import INDEX_FILES
from genrec.errors import DataError
from genrec.files import write_arrays, write_file
from genrec.matching.encoders import CHUNK, Embedder
from genrec.types import Float32Array, IntArray

EXACT_BELOW = 100_000  # number of vectors below which a matrix product is fast enough


class TitleIndex:
    """An index of N title vectors that finds the vectors nearest to a query by cosine.

    With fewer than ``EXACT_BELOW`` vectors, or without faiss, a query is compared with every
    vector. Otherwise, the HNSW graph of faiss is searched (Malkov and Yashunin 2016,
    https://arxiv.org/abs/1603.09320). ``recall`` measures the fraction of the nearest vectors
    that this search finds.

    Attributes:
        vectors: (N, D) float32 unit vectors.
        graph: the faiss index, or None for exact search.
    """

    def __init__(
        self, vectors: Float32Array, *, exact_below: int = EXACT_BELOW, graph: Any = None
    ) -> None:
        """Store the vectors, and build a graph if there are many.

        Args:
            vectors: (N, D) float32 unit vectors.
            exact_below: minimum number of vectors for which a graph is built.
            graph: an existing graph of the vectors; None if there is no such graph.
        """
        self.vectors = vectors
        self.graph = graph
        if graph is None and len(vectors) >= exact_below:
            self.graph = _build_graph(vectors)

    @property
    def kind(self) -> str:
        """Return the search method: ``exact`` or ``hnsw``."""
        return "exact" if self.graph is None else "hnsw"

    def nearest(self, queries: Float32Array, n: int) -> tuple[IntArray, Float32Array]:
        """Find the n vectors nearest to each query, nearest first.

        Args:
            queries: (Q, D) float32 unit vectors.
            n: number of vectors, at most N.

        Returns:
            (Q, n) int64 positions of the vectors and (Q, n) float32 cosines.
        """
        n = min(n, len(self.vectors))
        if self.graph is not None:
            cosines, places = self.graph.search(np.ascontiguousarray(queries), n)
            return places.astype(np.int64), cosines
        return self._nearest_exactly(queries, n)

    def _nearest_exactly(self, queries: Float32Array, n: int) -> tuple[IntArray, Float32Array]:
        """Find the nearest vectors by comparing each query with every vector; see ``nearest``."""
        cosines = queries @ self.vectors.T
        places = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
        best = np.take_along_axis(cosines, places, axis=1)
        order = np.lexsort((places, -best), axis=1)
        return (
            np.take_along_axis(places, order, axis=1).astype(np.int64),
            np.take_along_axis(best, order, axis=1),
        )

    def recall(self, n: int = 10, sample: int = 200, seed: int = 0) -> float:
        """Measure the fraction of the n nearest vectors that ``nearest`` finds.

        The result is 1 for exact search.

        Args:
            n: number of nearest vectors per title.
            sample: number of titles to query.
            seed: random seed for the sample.
        """
        if self.graph is None:
            return 1.0
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.vectors), size=min(sample, len(self.vectors)), replace=False)
        places, _ = self.nearest(self.vectors[chosen], n)
        _, exact = self._nearest_exactly(self.vectors[chosen], n)
        # Compare cosines rather than positions, since several titles may have the same vector.
        cosines = np.einsum("qnd,qd->qn", self.vectors[places], self.vectors[chosen])
        return float(np.mean(cosines >= exact[:, -1:] - 1e-5))

    def save(self, folder: str | Path, about: dict[str, str]) -> None:
        """Write ``titles.safetensors`` and, if there is a graph, ``titles.faiss``.

        Args:
            folder: an existing folder.
            about: the ``index_key``. The same key must be passed to ``load``.
        """
        folder = Path(folder)
        for name in INDEX_FILES:
            (folder / name).unlink(missing_ok=True)
        digest = ""
        if self.graph is not None:
            import faiss

            data: bytes = faiss.serialize_index(self.graph).tobytes()
            digest = hashlib.sha256(data).hexdigest()
            write_file(folder / INDEX_FILES[1], lambda path: path.write_bytes(data))
        write_arrays(
            folder / INDEX_FILES[0],
            {"vectors": self.vectors.astype(np.float16)},
            {"about": json.dumps(about, sort_keys=True), "graph": digest},
        )

    @classmethod
    def load(cls, folder: str | Path, about: dict[str, str]) -> TitleIndex | None:
        """Load the index from a dataset folder.

        Args:
            folder: the dataset folder.
            about: the ``index_key`` that the index must have.

        Returns:
            The index, or None if there is no index or it has a different key.

        Raises:
            DataError: a file is damaged.
        """
        stored = _read_vectors(folder, about)
        if stored is None:
            return None
        vectors, digest = stored
        return cls(vectors, graph=_read_graph(Path(folder) / INDEX_FILES[1], digest))


def index_key(embedder: Embedder, catalog_hash: str, titles: int) -> dict[str, str]:
    """Build the key that identifies an index by its encoder, catalog and number of titles.

    Args:
        embedder: the encoder of the titles.
        catalog_hash: hash of the catalog.
        titles: number of titles that the encoder can read.
    """
    return {
        "encoder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "catalog": catalog_hash,
        "titles": str(titles),
    }


def load_vectors(folder: str | Path, about: dict[str, str]) -> Float32Array | None:
    """Load only the unit vectors of an index; see ``TitleIndex.load``."""
    stored = _read_vectors(folder, about)
    return None if stored is None else stored[0]


def _read_vectors(folder: str | Path, about: dict[str, str]) -> tuple[Float32Array, str] | None:
    """Read the vectors in a folder and the SHA-256 of their graph ("" if there is no graph)."""
    path = Path(folder) / INDEX_FILES[0]
    if not path.is_file():
        return None
    try:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if json.loads(metadata["about"]) != about:
                return None
            vectors = file.get_tensor("vectors").astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1.0), metadata["graph"]
    except Exception as error:  # safetensors raises exceptions of its own
        msg = f"{path} is damaged: {error!r:.200}. Run `genrec index` again."
        raise DataError(msg) from error


def read_encoder_name(folder: str | Path) -> str | None:
    """Read the encoder's name from the index in a folder; return None if there is no index."""
    path = Path(folder) / INDEX_FILES[0]
    if not path.is_file():
        return None
    try:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            return str(json.loads((file.metadata() or {})["about"])["encoder"])
    except Exception as error:
        msg = f"{path} is damaged: {error!r:.200}. Run `genrec index` again."
        raise DataError(msg) from error


def _build_graph(vectors: Float32Array) -> Any:
    """Build a faiss HNSW graph of the vectors, or return None if faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 100
    graph.hnsw.efSearch = 128
    graph.add(np.ascontiguousarray(vectors))
    return graph


def _read_graph(path: Path, digest: str) -> Any:
    """Read a graph from a file.

    Args:
        path: the file.
        digest: SHA-256 (hex) of the file; empty if the index has no graph.

    Returns:
        The graph, or None if the index has no graph or faiss is not installed.

    Raises:
        DataError: the file is missing or has changed.
    """
    if not digest:
        return None
    try:
        import faiss
    except ImportError:
        return None
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != digest:
        msg = f"{path} is missing or has changed since it was written. Run `genrec index` again."
        raise DataError(msg)
    return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))


def embed_titles(
    embedder: Embedder, titles: Sequence[str], progress: Callable[[int], None] | None = None
) -> Float32Array:
    """Embed titles in chunks.

    Args:
        embedder: the encoder.
        titles: N texts.
        progress: function called with the number of titles embedded so far.

    Returns:
        (N, D) float32 unit vectors.
    """
    parts = []
    for first in range(0, len(titles), CHUNK):
        parts.append(embedder.embed(titles[first : first + CHUNK]))
        if progress:
            progress(min(first + CHUNK, len(titles)))
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
