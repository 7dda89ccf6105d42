"""Hugging Face datasets to Arrow tables. Knows no items or users; ``datasets`` loads when used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from genrec.errors import DataError


def read(data: Any, split: str | None = None) -> pa.Table:
    """The rows of a Hugging Face dataset; its code is never run, only its data read.

    Args:
        data: a ``datasets.Dataset``, a ``DatasetDict``, or the id of a dataset on the hub (or a
            local folder) for ``datasets.load_dataset``.
        split: which part of a dict or of a hub dataset, such as ``train`` or ``train[:1000]``;
            None where there is only one.

    Returns:
        A table with the dataset's types; class labels are their names.

    Raises:
        DataError: the library is not installed, the dataset cannot be had, or it has several
            splits and none was chosen.
    """
    library = _library()
    given = data
    if isinstance(data, str):
        data = _load(library, data, split)
        split = None
    if isinstance(data, library.DatasetDict):
        data = _part(data, split)
        split = None
    if not isinstance(data, library.Dataset) or split is not None:
        msg = (
            f"{given!r:.200} with split={split!r} cannot be read. Expected a datasets.Dataset "
            "(without split), a DatasetDict or the id of a dataset on the hub; load a stream "
            "without streaming=True."
        )
        raise DataError(msg)
    found = data.with_format("arrow")[:]
    for place, (name, kind) in enumerate(data.features.items()):
        if isinstance(kind, library.ClassLabel):
            found = found.set_column(place, name, _labels(found[name], kind.names))
    return found.replace_schema_metadata(None)


def display_name(data: Any, default: str) -> str:
    """What to call a dataset in messages: its id, else the default."""
    return data if isinstance(data, str) else default


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        msg = (
            "Hugging Face datasets need the library datasets, which is not installed. Expected "
            "it: pip install datasets."
        )
        raise DataError(msg) from error
    return datasets


def _load(library: Any, identity: str, split: str | None) -> Any:
    try:
        return library.load_dataset(identity, split=split)
    except Exception as error:  # of many libraries: hub, files, formats, network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = (
            f"Dataset {identity!r} (split {split or 'not chosen'}) could not be loaded: {reason}. "
            "Expected the id of a dataset on the Hugging Face hub that can be reached from here, "
            "or a local folder; check it, or load the dataset yourself and give that."
        )
        raise DataError(msg) from error


def _part(parts: Any, split: str | None) -> Any:
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    if split not in parts:
        msg = (
            f"split={split!r} of a dataset with the splits {', '.join(parts)}. Expected one of "
            "them; choose it, or join them with datasets.concatenate_datasets."
        )
        raise DataError(msg)
    return parts[split]


def _labels(codes: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Class labels by their names; null and -1, which is no label, become null."""
    known = np.asarray(codes.fill_null(-1), dtype=np.int64)
    places = pa.array(known, mask=known < 0)
    return pa.chunked_array([pa.array(names, pa.string()).take(places)])
