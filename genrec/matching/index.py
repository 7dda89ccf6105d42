"""Search title vectors by cosine similarity, and store them in a dataset folder.

This module deals with texts and their vectors only, not with items.
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
from genrec.files import describe_unreadable, write_arrays, write_file
from genrec.matching.encoders import CHUNK, Embedder
from genrec.types import Float32Array, IntArray

EXACT_BELOW = 100_000  # with fewer vectors, comparing a query with all of them is fast enough


class TitleIndex:
    """An index of N title vectors that finds those with the highest cosine similarity to a query.

    If there are fewer than ``EXACT_BELOW`` vectors, or if faiss is not installed, a query is
    compared with every vector. Otherwise, faiss searches an HNSW graph (Malkov and Yashunin 2016,
    https://arxiv.org/abs/1603.09320), which is faster but may miss some vectors. The method
    ``recall`` measures how complete the results are.

    Attributes:
        vectors: (N, D) float32 unit vectors with D dimensions.
        graph: the faiss index, or None if queries are compared with every vector.
    """

    def __init__(
        self, vectors: Float32Array, *, exact_below: int = EXACT_BELOW, graph: Any = None
    ) -> None:
        """Store the vectors, and build a graph for searching them if there are many.

        Args:
            vectors: (N, D) float32 unit vectors with D dimensions.
            exact_below: number of vectors below which no graph is built.
            graph: an existing faiss graph of the vectors; None if there is no such graph.
        """
        self.vectors = vectors
        self.graph = graph
        if graph is None and len(vectors) >= exact_below:
            self.graph = _build_graph(vectors)

    @property
    def kind(self) -> str:
        """Return the name of the search method, which is ``exact`` or ``hnsw``."""
        return "exact" if self.graph is None else "hnsw"

    def nearest(self, queries: Float32Array, n: int) -> tuple[IntArray, Float32Array]:
        """Find the n vectors that are nearest to each of Q queries, nearest first.

        Args:
            queries: (Q, D) float32 unit vectors with D dimensions.
            n: number of vectors to find, at most the number of vectors in the index.

        Returns:
            The (Q, n) int64 indices of the nearest vectors, and their (Q, n) float32 cosines.
        """
        n = min(n, len(self.vectors))
        if self.graph is not None:
            cosines, places = self.graph.search(np.ascontiguousarray(queries), n)
            return places.astype(np.int64), cosines
        return self._nearest_exactly(queries, n)

    def _nearest_exactly(self, queries: Float32Array, n: int) -> tuple[IntArray, Float32Array]:
        """Find the nearest vectors by comparing each query with every vector.

        The arguments and results are the same as for ``nearest``.
        """
        cosines = queries @ self.vectors.T
        places = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
        best = np.take_along_axis(cosines, places, axis=1)
        order = np.lexsort((places, -best), axis=1)
        return (
            np.take_along_axis(places, order, axis=1).astype(np.int64),
            np.take_along_axis(best, order, axis=1),
        )

    def recall(self, n: int = 10, sample: int = 200, seed: int = 0) -> float:
        """Measure the fraction of the n truly nearest vectors that ``nearest`` finds.

        The queries are a random sample of the titles in the index. The result is 1 if queries are
        compared with every vector.

        Args:
            n: number of nearest vectors per query.
            sample: maximum number of queries.
            seed: random seed for choosing the queries.
        """
        if self.graph is None:
            return 1.0
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.vectors), size=min(sample, len(self.vectors)), replace=False)
        places, _ = self.nearest(self.vectors[chosen], n)
        _, exact = self._nearest_exactly(self.vectors[chosen], n)
        # Compare cosines rather than indices, since several titles may have the same vector.
        cosines = np.einsum("qnd,qd->qn", self.vectors[places], self.vectors[chosen])
        return float(np.mean(cosines >= exact[:, -1:] - 1e-5))

    def save(self, folder: str | Path, about: dict[str, str]) -> None:
        """Write the index to ``titles.safetensors`` and, if it has a graph, to ``titles.faiss``.

        Args:
            folder: an existing folder.
            about: the key that identifies the index, from ``index_key``. ``load`` returns the index
                only for the same key.
        """
        folder = Path(folder)
        digest = ""
        if self.graph is not None:
            import faiss

            for name in INDEX_FILES:
                (folder / name).unlink(missing_ok=True)
            data: bytes = faiss.serialize_index(self.graph).tobytes()
            digest = hashlib.sha256(data).hexdigest()
            write_file(folder / INDEX_FILES[1], lambda path: path.write_bytes(data))
        write_arrays(
            folder / INDEX_FILES[0],
            {"vectors": self.vectors.astype(np.float16)},
            {"about": json.dumps(about, sort_keys=True), "graph": digest},
        )
        if self.graph is None:
            (folder / INDEX_FILES[1]).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | Path, about: dict[str, str]) -> TitleIndex | None:
        """Load the index that ``save`` wrote into a dataset folder.

        Args:
            folder: the dataset folder.
            about: the key that the index must have, from ``index_key``.

        Returns:
            The index, or None if the folder has no index or one with a different key.

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
        embedder: the encoder that encoded the titles.
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
    """Load only the unit vectors of a stored index.

    Args:
        folder: the dataset folder.
        about: the key that the index must have, from ``index_key``.

    Returns:
        (N, D) float32 unit vectors of N titles with D dimensions, or None if the folder has no
        index or one with a different key.

    Raises:
        DataError: a file is damaged.
    """
    stored = _read_vectors(folder, about)
    return None if stored is None else stored[0]


def _read_vectors(folder: str | Path, about: dict[str, str]) -> tuple[Float32Array, str] | None:
    """Read the vectors of a stored index and the SHA-256 hash of its graph.

    Args:
        folder: the dataset folder.
        about: the key that the index must have, from ``index_key``.

    Returns:
        The (N, D) float32 unit vectors of N titles, and the hash in hexadecimal, which is empty if
        the index has no graph. None if the folder has no index or one with a different key.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(folder) / INDEX_FILES[0]
    if not path.is_file():
        return None
    if problem := describe_unreadable(path):
        raise DataError(problem)
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
    """Return the name of the encoder that built the index in a folder.

    The result is None if the folder has no index.

    Raises:
        DataError: the index is damaged.
    """
    path = Path(folder) / INDEX_FILES[0]
    if not path.is_file():
        return None
    if problem := describe_unreadable(path):
        raise DataError(problem)
    try:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            return str(json.loads((file.metadata() or {})["about"])["encoder"])
    except Exception as error:
        msg = f"{path} is damaged: {error!r:.200}. Run `genrec index` again."
        raise DataError(msg) from error


def _build_graph(vectors: Float32Array) -> Any:
    """Build a faiss HNSW graph for searching vectors, or return None if faiss is not installed."""
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
    """Read a faiss graph from a file after checking the file's hash.

    Args:
        path: the file.
        digest: expected SHA-256 hash of the file in hexadecimal; empty if the index has no graph.

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
    """Encode titles as vectors in batches.

    Args:
        embedder: the encoder.
        titles: the N titles.
        progress: function that is called after each batch with the number of titles encoded so far.

    Returns:
        (N, D) float32 unit vectors with D dimensions.
    """
    parts = []
    for first in range(0, len(titles), CHUNK):
        parts.append(embedder.embed(titles[first : first + CHUNK]))
        if progress:
            progress(min(first + CHUNK, len(titles)))
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
