"""Items and users as vectors of their titles, for the baselines and for use in other models."""

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
LANGUAGE_MODEL = "lm:"  # before a model's name, where an encoder is asked for
_LEAST_READ = 0.9  # of the titles, for an encoder to be asked about a catalog
_WIDTH = 256  # of vectors made from character n-grams


def title_vectors(
    catalog: Catalog, encoder: str, log: Log, folder: str | Path | None = None
) -> Any:
    """(N, D) unit vectors of a catalog's titles: dense, or sparse character n-grams.

    An encoder ``lm:NAME`` is a language model, whose hidden states are taken (``genrec.hidden``).
    N-grams where they are asked for, and where the encoder reads fewer than nine in ten titles: one
    that maps all words of a script to the same tokens says that all titles are equal.

    Args:
        catalog: the items.
        encoder: a name as for ``genrec.embedding.load_embedder``, ``ngrams``, or ``lm:`` and a name
            as for ``LanguageModel.load``.
        log: called with a line of text now and then.
        folder: of the dataset. Where ``genrec index`` left vectors of this catalog and encoder,
            they are taken (cosines differ by less than .002: they are kept in half precision).

    Raises:
        ModelError: the encoder or model cannot be had.
        DataError: the index in the folder is damaged.
    """
    if encoder.startswith(LANGUAGE_MODEL):
        return _states(catalog, encoder.removeprefix(LANGUAGE_MODEL), log)
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
            f"encoder {embedder.name!r} reads {read:,} of {len(titles):,} titles; "
            "character n-grams are used"
        )
        return CharNgrams(titles).vectors
    indexed = [t for t in readable if normalized(t)]  # as genrec.matching has them
    known = None
    if folder is not None:
        known = load_vectors(folder, index_key(embedder, catalog.hash(), len(indexed)))
    if known is None:
        known, indexed = np.zeros((0, 0), np.float32), []
    else:
        log(f"{len(indexed):,} title vectors taken from {folder}")
    place = {title: n for n, title in enumerate(indexed)}
    missing = [t for t in distinct if t not in place]
    found = embed_titles(
        embedder, missing, lambda done: log(f"{done:,} of {len(missing):,} titles embedded")
    )
    place |= {title: n for n, title in enumerate(missing, start=len(indexed))}
    parts = [vectors for vectors in (known, found) if len(vectors)]
    return np.concatenate(parts)[[place[t] for t in titles]]


def _states(catalog: Catalog, name: str, log: Log) -> Float32Array:
    from genrec.matching.hidden_states import title_states
    from genrec.models.language_model import LanguageModel

    model = LanguageModel.load(name, log=log)
    return title_states(model, catalog, lambda done: log(f"{done:,} titles read by {model.name}"))


def dense(vectors: Any) -> Float32Array:
    """(N, W) dense vectors; sparse ones are cut to the 256 directions that say most (SVD)."""
    if isinstance(vectors, np.ndarray):
        return vectors
    from sklearn.decomposition import TruncatedSVD

    width = min(_WIDTH, *(n - 1 for n in vectors.shape))
    if width < 1:
        return np.asarray(vectors.toarray(), dtype=np.float32)
    found = TruncatedSVD(width, random_state=0).fit_transform(vectors)
    return np.asarray(found, dtype=np.float32)


def item_vectors(
    dataset: Dataset, encoder: str = "minilm", *, log: Log = lambda message: None
) -> Float32Array:
    """(N, W) unit vectors of the titles, by catalog row; see ``title_vectors``."""
    return _unit(dense(title_vectors(dataset.catalog, encoder, log, dataset.folder)))


def user_vectors(
    dataset: Dataset,
    items: Float32Array,
    *,
    before: str | None = None,
    decay: float = 0.8,
    last: int = 25,
) -> Float32Array:
    """(U, W) unit vectors of the users, in the order of ``interactions.user_ids``.

    A user is the mean of the vectors of the latest items, the newest weighing 1 and each older one
    ``decay`` times as much; zeros for somebody without any.

    Args:
        dataset: the users.
        items: (N, W) vectors of the items.
        before: a split; only what lies before the user's part of it. None for all events.
        decay: in 0 to 1.
        last: how many items are looked at.
    """
    events = dataset.interactions
    vectors = np.zeros((len(events.user_ids), items.shape[1]), dtype=np.float32)
    for number, user in enumerate(events.user_ids):
        rows = dataset.catalog.rows(events.history(user, before=before).item_ids)[::-1][:last]
        if rows:
            vectors[number] = decay ** np.arange(len(rows)) @ items[rows]
    return _unit(vectors)


def save(path: str | Path, ids: Sequence[str], vectors: Float32Array, name: str) -> None:
    """Writes vectors with their ids.

    Args:
        path: ends in ``.safetensors`` (tensor ``vectors``; the ids are JSON in the metadata, key
            ``ids``) or ``.parquet`` (columns NAME and ``vector``).
        ids: n ids.
        vectors: (n, W).
        name: ``item_id`` or ``user_id``.

    Raises:
        SettingsError: the path ends in something else.
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
        msg = f"{str(path)!r} could not be written: {error}. Choose another place."
        raise DataError(msg) from error


def describe_suffix_error(path: Path) -> str:
    """What to say of a file name that ``save`` cannot use."""
    return f"{str(path)!r} cannot hold vectors. Expected a name in {' or '.join(ENDINGS)}."


def _unit(vectors: Float32Array) -> Float32Array:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), dtype=np.float32)
