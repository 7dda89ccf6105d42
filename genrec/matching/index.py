"""Index title vectors: store them, search them, embed new ones."""

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

EXACT_BELOW = 100_000  # vectors; up to here a matrix product is quick enough


class TitleIndex:
    """Vectors of N titles and the nearest of them to a vector, by cosine.

    Up to ``EXACT_BELOW`` vectors, or where faiss is not installed, every one is compared; beyond it
    faiss's HNSW graph (Malkov and Yashunin 2016, https://arxiv.org/abs/1603.09320) is asked, whose
    recall ``recall`` measures.
    """

    def __init__(
        self, vectors: Float32Array, *, exact_below: int = EXACT_BELOW, graph: Any = None
    ) -> None:
        """Wraps vectors and builds the graph where there are many.

        Args:
            vectors: (N, D), of unit length.
            exact_below: the number from which on a graph is built.
            graph: one that is there already.
        """
        self.vectors = vectors
        self.graph = graph
        if graph is None and len(vectors) >= exact_below:
            self.graph = _graph(vectors)

    @property
    def kind(self) -> str:
        """``exact`` or ``hnsw``."""
        return "exact" if self.graph is None else "hnsw"

    def nearest(self, queries: Float32Array, n: int) -> tuple[IntArray, Float32Array]:
        """(Q, n) places and cosines of the nearest vectors, the nearest first; n at most N."""
        n = min(n, len(self.vectors))
        if self.graph is not None:
            cosines, places = self.graph.search(np.ascontiguousarray(queries), n)
            return places.astype(np.int64), cosines
        return self._compared(queries, n)

    def _compared(self, queries: Float32Array, n: int) -> tuple[IntArray, Float32Array]:
        cosines = queries @ self.vectors.T
        places = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
        found = np.take_along_axis(cosines, places, axis=1)
        order = np.lexsort((places, -found), axis=1)
        return (
            np.take_along_axis(places, order, axis=1).astype(np.int64),
            np.take_along_axis(found, order, axis=1),
        )

    def recall(self, n: int = 10, sample: int = 200, seed: int = 0) -> float:
        """The share of the n nearest that ``nearest`` finds, for sampled titles; 1 where exact."""
        if self.graph is None:
            return 1.0
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.vectors), size=min(sample, len(self.vectors)), replace=False)
        found, _ = self.nearest(self.vectors[chosen], n)
        _, cosines = self._compared(self.vectors[chosen], n)
        # By cosine and not by place: titles of the same vector are as good as one another.
        mine = np.einsum("qnd,qd->qn", self.vectors[found], self.vectors[chosen])
        return float(np.mean(mine >= cosines[:, -1:] - 1e-5))

    def save(self, folder: str | Path, about: dict[str, str]) -> None:
        """Writes ``titles.safetensors`` and, with a graph, ``titles.faiss``.

        Args:
            folder: an existing folder.
            about: what has to be the same when it is loaded.
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
        """The index in a folder; None where there is none or it was made of something else.

        Raises:
            DataError: a file is damaged.
        """
        found = _stored(folder, about)
        if found is None:
            return None
        vectors, digest = found
        return cls(vectors, graph=_read_graph(Path(folder) / INDEX_FILES[1], digest))


def index_key(embedder: Embedder, catalog_hash: str, titles: int) -> dict[str, str]:
    """What an index in a folder has to have been made of: encoder, catalog, how many titles."""
    return {
        "encoder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "catalog": catalog_hash,
        "titles": str(titles),
    }


def load_vectors(folder: str | Path, about: dict[str, str]) -> Float32Array | None:
    """The unit vectors of the index in a folder; see ``TitleIndex.load``."""
    found = _stored(folder, about)
    return None if found is None else found[0]


def _stored(folder: str | Path, about: dict[str, str]) -> tuple[Float32Array, str] | None:
    """The vectors in a folder and the digest of their graph."""
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
    except Exception as error:  # safetensors has errors of its own
        msg = f"{path} is damaged: {error!r:.200}. Run `genrec index` again."
        raise DataError(msg) from error


def read_encoder_name(folder: str | Path) -> str | None:
    """The encoder whose vectors a dataset folder holds; None where it holds none."""
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


def _graph(vectors: Float32Array) -> Any:
    """Faiss's HNSW graph over vectors, None where faiss is not installed."""
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
    """The graph in a file; None where there is none or faiss is not installed."""
    if not digest:
        return None
    try:
        import faiss
    except ImportError:
        return None
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != digest:
        msg = f"{path} is missing or is not what was written. Run `genrec index` again."
        raise DataError(msg)
    return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))


def embed_titles(
    embedder: Embedder, titles: Sequence[str], progress: Callable[[int], None] | None = None
) -> Float32Array:
    """(N, D) vectors of titles, in chunks.

    Args:
        embedder: the encoder.
        titles: N texts.
        progress: called with the number of titles done.
    """
    parts = []
    for first in range(0, len(titles), CHUNK):
        parts.append(embedder.embed(titles[first : first + CHUNK]))
        if progress:
            progress(min(first + CHUNK, len(titles)))
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
