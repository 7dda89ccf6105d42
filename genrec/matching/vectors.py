"""Represent items and users as vectors computed from titles, for baselines and other models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec import files
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.errors import DataError, SettingsError
from genrec.matching.encoders import load_embedder
from genrec.matching.index import embed_titles, index_key, load_vectors
from genrec.matching.ngrams import CharNgrams
from genrec.text import normalized
from genrec.types import Float32Array, Log

ENDINGS = (".safetensors", ".parquet")
LANGUAGE_MODEL = "lm:"  # prefix of encoder names that refer to a language model
_LEAST_READ = 0.9  # minimum fraction of a catalog's titles that an encoder must be able to read
_WIDTH = 256  # dimensions of dense vectors computed from character n-grams


def title_vectors(
    catalog: Catalog, encoder: str, log: Log, folder: str | Path | None = None
) -> Any:
    """Return (N, D) unit vectors of a catalog's titles.

    For an encoder ``lm:NAME``, the hidden states of that language model are used
    (``genrec.matching.hidden_states``). If an encoder can read fewer than 90% of the titles,
    character n-grams are used instead. Such an encoder may map every word of a script to the same
    tokens, so that all titles look the same.

    Args:
        catalog: the items.
        encoder: a name accepted by ``load_embedder``, ``ngrams``, or ``lm:`` followed by a name
            accepted by ``LanguageModel.load``.
        log: function called with progress messages.
        folder: the dataset folder. If ``genrec index`` stored vectors for this catalog and encoder
            there, they are used. They are stored in half precision, which changes cosines by less
            than 0.002.

    Returns:
        A dense float32 array, or a sparse matrix for character n-grams.

    Raises:
        ModelError: the encoder or model could not be downloaded or loaded.
        DataError: the index in the folder is damaged.
    """
    if encoder.startswith(LANGUAGE_MODEL):
        return _hidden_state_vectors(catalog, encoder.removeprefix(LANGUAGE_MODEL), log)
    titles = [normalized(t) or t for t in catalog.titles]
    if encoder == "ngrams":
        return CharNgrams(titles).vectors
    embedder = load_embedder(encoder, log=log)
    distinct = list(dict.fromkeys(titles))
    readable = [t for t in distinct if embedder.coverage.reads(t)]
    reads = set(readable)
    read = sum(t in reads for t in titles)
    if read < _LEAST_READ * len(titles):
        log(
            f"The encoder {embedder.name!r} can read only {read:,} of {len(titles):,} titles, so "
            "character n-grams are used instead."
        )
        return CharNgrams(titles).vectors
    indexed = [t for t in readable if normalized(t)]  # the titles that an index contains
    known = None
    if folder is not None:
        known = load_vectors(folder, index_key(embedder, catalog.hash(), len(indexed)))
    if known is None:
        known, indexed = np.zeros((0, 0), np.float32), []
    else:
        log(f"Using {len(indexed):,} title vectors from {folder}.")
    place = {title: n for n, title in enumerate(indexed)}
    missing = [t for t in distinct if t not in place]
    new = embed_titles(
        embedder, missing, lambda done: log(f"{done:,} of {len(missing):,} titles embedded")
    )
    place |= {title: n for n, title in enumerate(missing, start=len(indexed))}
    parts = [vectors for vectors in (known, new) if len(vectors)]
    return np.concatenate(parts)[[place[t] for t in titles]]


def _hidden_state_vectors(catalog: Catalog, name: str, log: Log) -> Float32Array:
    """Load a language model and return its (N, W) vectors for a catalog's titles."""
    from genrec.matching.hidden_states import title_states
    from genrec.models.language_model import LanguageModel

    model = LanguageModel.load(name, log=log)
    return title_states(model, catalog, lambda done: log(f"{done:,} titles read by {model.name}"))


def dense(vectors: Any) -> Float32Array:
    """Return (N, W) dense float32 vectors. Sparse vectors are reduced to 256 dimensions by SVD."""
    if isinstance(vectors, np.ndarray):
        return vectors
    from sklearn.decomposition import TruncatedSVD

    width = min(_WIDTH, *(n - 1 for n in vectors.shape))
    if width < 1:
        return np.asarray(vectors.toarray(), dtype=np.float32)
    reduced = TruncatedSVD(width, random_state=0).fit_transform(vectors)
    return np.asarray(reduced, dtype=np.float32)


def item_vectors(
    dataset: Dataset, encoder: str = "minilm", *, log: Log = lambda message: None
) -> Float32Array:
    """Return (N, W) float32 unit vectors of the items' titles; see ``title_vectors``."""
    return _unit(dense(title_vectors(dataset.catalog, encoder, log, dataset.folder)))


def user_vectors(
    dataset: Dataset,
    items: Float32Array,
    *,
    before: str | None = None,
    decay: float = 0.8,
    last: int = 25,
) -> Float32Array:
    """Return (U, W) float32 unit vectors of users, in the order of ``interactions.user_ids``.

    A user's vector is the weighted mean of the latest items' vectors. The newest item has weight
    1, and the weight decreases by the factor ``decay`` with each older item. The vector of a user
    without items is zero.

    Args:
        dataset: the users and their events.
        items: (N, W) float32 vectors of the items by catalog row.
        before: name of a split. Only events before the user's part of that split are used; None
            uses all events.
        decay: weight of each item relative to the next newer one, from 0 to 1.
        last: number of latest items to use.
    """
    events = dataset.interactions
    vectors = np.zeros((len(events.user_ids), items.shape[1]), dtype=np.float32)
    for number, user in enumerate(events.user_ids):
        rows = dataset.catalog.rows(events.history(user, before=before).item_ids)[::-1][:last]
        if rows:
            vectors[number] = decay ** np.arange(len(rows)) @ items[rows]
    return _unit(vectors)


def save(path: str | Path, ids: Sequence[str], vectors: Float32Array, name: str) -> None:
    """Write vectors with their ids to a file.

    A ``.safetensors`` file has a tensor ``vectors`` and the ids as JSON in the metadata key
    ``ids``. A ``.parquet`` file has a column called ``item_id`` or ``user_id`` (see ``name``) and a
    column ``vector``.

    Args:
        path: a path that ends in ``.safetensors`` or ``.parquet``.
        ids: n ids.
        vectors: (n, W) float32 vectors.
        name: the kind of ids, ``item_id`` or ``user_id``.

    Raises:
        SettingsError: the path has a different extension.
        DataError: the file cannot be written.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            column = pa.array(list(vectors), pa.list_(pa.float32(), vectors.shape[1]))
            table = pa.table({name: pa.array(ids, pa.string()), "vector": column})
            files.write_file(path, partial(pq.write_table, table))
        elif path.suffix == ".safetensors":
            about = {"ids": json.dumps(list(ids)), "of": name}
            files.write_arrays(path, {"vectors": vectors}, about)
        else:
            raise SettingsError(describe_suffix_error(path))
    except OSError as error:
        msg = f"Cannot write {str(path)!r}: {error}. Choose another path."
        raise DataError(msg) from error


def describe_suffix_error(path: Path) -> str:
    """Build the error message for a path whose extension ``save`` does not support."""
    return (
        f"Vectors cannot be written to {str(path)!r}. Expected a file name that ends in "
        f"{' or '.join(ENDINGS)}."
    )


def _unit(vectors: Float32Array) -> Float32Array:
    """Scale vectors to unit length, leaving zero vectors unchanged."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), dtype=np.float32)
