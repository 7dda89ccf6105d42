"""Read Hugging Face datasets as Arrow tables; ``datasets`` is imported on first use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from genrec.errors import DataError
from genrec.extras import how_to_install


def read(data: Any, split: str | None = None) -> pa.Table:
    """Read the rows of a Hugging Face dataset, without running any of its code.

    Args:
        data: a ``datasets.Dataset``, a ``DatasetDict``, or the id of a dataset on the hub (or a
            local folder) for ``datasets.load_dataset``.
        split: the part of a ``DatasetDict`` or hub dataset to read, such as ``train`` or
            ``train[:1000]``; None if the dataset has only one part.

    Returns:
        A table with the dataset's types. Class labels are replaced with their names.

    Raises:
        DataError: the library is not installed, the dataset cannot be loaded, or it has several
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
            "(without split), a DatasetDict or the id of a dataset on the hub. Streaming is not "
            "supported, so load the dataset without streaming=True."
        )
        raise DataError(msg)
    table = data.with_format("arrow")[:]
    for place, (name, kind) in enumerate(data.features.items()):
        if isinstance(kind, library.ClassLabel):
            table = table.set_column(place, name, _label_names(table[name], kind.names))
    return table.replace_schema_metadata(None)


def display_name(data: Any, default: str) -> str:
    """Return a dataset's name for use in messages: its id if it has one, otherwise the default."""
    return data if isinstance(data, str) else default


def _library() -> Any:
    """Import the ``datasets`` library."""
    try:
        import datasets
    except ImportError as error:
        msg = (
            "Reading Hugging Face datasets needs the datasets library, which is not installed. "
            f"{how_to_install('datasets')}"
        )
        raise DataError(msg) from error
    return datasets


def _load(library: Any, identity: str, split: str | None) -> Any:
    """Load a dataset from the hub or a folder."""
    try:
        return library.load_dataset(identity, split=split)
    except Exception as error:  # from many libraries: hub, files, formats, network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = (
            f"Dataset {identity!r} (split {split or 'not chosen'}) could not be loaded: {reason}. "
            "Expected a local folder, or the id of a dataset on the Hugging Face hub, which must be "
            "reachable. Check the id, or load the dataset yourself and pass the object."
        )
        raise DataError(msg) from error


def _part(parts: Any, split: str | None) -> Any:
    """Return one split of a ``DatasetDict``."""
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    if split not in parts:
        msg = (
            f"split={split!r} is not one of the dataset's splits {', '.join(parts)}. Choose one, "
            "or join them with datasets.concatenate_datasets."
        )
        raise DataError(msg)
    return parts[split]


def _label_names(codes: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Replace class labels with their names; null and -1 (no label) become null."""
    known = np.asarray(codes.fill_null(-1), dtype=np.int64)
    places = pa.array(known, mask=known < 0)
    return pa.chunked_array([pa.array(names, pa.string()).take(places)])
