"""Compute vectors of items and users from titles, for baselines and other uses."""

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
from genrec.text import normalized, title_key
from genrec.types import Float32Array, Log

ENDINGS = (".safetensors", ".parquet")
LANGUAGE_MODEL = "lm:"  # the prefix of an encoder's name that refers to a language model
_LEAST_READ = 0.9  # minimum fraction of a catalog's titles that an encoder must be able to read
_WIDTH = 256  # number of dimensions to which character n-gram vectors are reduced


def title_vectors(
    catalog: Catalog, encoder: str, log: Log, folder: str | Path | None = None
) -> Any:
    """Compute a unit vector for each title in a catalog.

    If an encoder can read fewer than 90% of the titles, character n-grams are used instead, because
    such an encoder may map every word of a script to the same tokens.

    Args:
        catalog: the N items.
        encoder: a name accepted by ``load_embedder``; ``ngrams`` for character n-grams; or ``lm:``
            followed by the name of a language model, whose hidden states are used (see
            ``genrec.matching.hidden_states``).
        log: function that is called with progress messages.
        folder: the dataset folder, or None. Vectors that ``genrec index`` stored there for the same
            catalog and encoder are reused. They are stored in half precision, which changes cosine
            similarities by less than 0.002.

    Returns:
        (N, D) unit vectors with D dimensions in the order of the catalog's rows. For character
        n-grams they are a sparse matrix, and otherwise a dense float32 array.

    Raises:
        ModelError: the encoder or model could not be downloaded or loaded.
        DataError: the index in the folder is damaged.
    """
    if encoder.startswith(LANGUAGE_MODEL):
        return _hidden_state_vectors(catalog, encoder.removeprefix(LANGUAGE_MODEL), log)
    titles = [title_key(t) for t in catalog.titles]
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
    """Load a language model and use it to compute a vector for each of a catalog's N titles.

    Returns:
        (N, W) float32 unit vectors, where W is the model's width.
    """
    from genrec.matching.hidden_states import title_states
    from genrec.models.language_model import LanguageModel

    model = LanguageModel.load(name, log=log)
    return title_states(model, catalog, lambda done: log(f"{done:,} titles read by {model.name}"))


def dense(vectors: Any) -> Float32Array:
    """Convert sparse vectors to dense vectors with at most 256 dimensions, using an SVD.

    Dense vectors are returned unchanged.

    Args:
        vectors: N vectors, as a sparse matrix with N rows or as a dense (N, W) array.

    Returns:
        A dense float32 array with N rows.
    """
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
    """Compute a dense unit vector for each item in a dataset from the item's title.

    Args:
        dataset: the dataset with N items.
        encoder: name of the encoder, as for ``title_vectors``.
        log: function that is called with progress messages.

    Returns:
        (N, W) float32 vectors with W dimensions in the order of the catalog's rows.
    """
    return _unit(dense(title_vectors(dataset.catalog, encoder, log, dataset.folder)))


def user_vectors(
    dataset: Dataset,
    items: Float32Array,
    *,
    before: str | None = None,
    decay: float = 0.8,
    last: int = 25,
) -> Float32Array:
    """Compute a unit vector for each user in a dataset from the vectors of the user's items.

    A user's vector is the weighted mean of the vectors of the user's latest items. The newest item
    has weight 1, and each older item has ``decay`` times the weight of the next newer one. A user
    without items has a vector of zeros.

    Args:
        dataset: the dataset with U users.
        items: (N, W) float32 vectors of the N items with W dimensions, by catalog row.
        before: name of a split, such as ``test``. Only a user's events before this part of the
            split are used; None to use all events.
        decay: weight of each item relative to the next newer one, from 0 to 1.
        last: maximum number of latest items to use.

    Returns:
        (U, W) float32 vectors in the order of ``dataset.interactions.user_ids``.
    """
    events = dataset.interactions
    vectors = np.zeros((len(events.user_ids), items.shape[1]), dtype=np.float32)
    for number, user in enumerate(events.user_ids):
        rows = dataset.catalog.rows(events.history(user, before=before).item_ids)[::-1][:last]
        if rows:
            vectors[number] = decay ** np.arange(len(rows)) @ items[rows]
    return _unit(vectors)


def save(path: str | Path, ids: Sequence[str], vectors: Float32Array, name: str) -> None:
    """Write vectors of items or users to a file, together with their ids.

    A ``.safetensors`` file gets a tensor named ``vectors``, and its metadata key ``ids`` holds the
    ids as JSON. A ``.parquet`` file gets a column with the ids and a column ``vector``.

    Args:
        path: a path that ends in ``.safetensors`` or ``.parquet``.
        ids: the n ids.
        vectors: (n, W) float32 vectors with W dimensions.
        name: the kind of ids, ``item_id`` or ``user_id``, which is also the name of their column.

    Raises:
        SettingsError: the path has a different extension, or cannot be written.
        DataError: the file could not be written.
    """
    path = Path(path)
    files.check_output(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        msg = f"Cannot write {str(path)!r}: {files.describe_error(error)}. Choose another path."
        raise DataError(msg) from error


def describe_suffix_error(path: Path) -> str:
    """Return the error message for a path whose extension ``save`` does not support."""
    return (
        f"Vectors cannot be written to {str(path)!r}. Expected a file name that ends in "
        f"{' or '.join(ENDINGS)}."
    )


def _unit(vectors: Float32Array) -> Float32Array:
    """Scale the rows of an array to unit length, leaving rows of zeros unchanged."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), dtype=np.float32)
