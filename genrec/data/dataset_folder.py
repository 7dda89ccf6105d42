"""Name the files of a dataset folder, and check where such a folder may be written."""

from __future__ import annotations

import json
from pathlib import Path

from genrec import files
from genrec.errors import DataError

CACHE = "cache"  # the subfolder with results that are kept, such as the counts of a prior
TUNED = "tuned.json"  # the file in the folder with the result of `genrec tune`
FITTED = "fitted.json"  # the file in the folder with the result of `genrec fit`
TRIPLES, VECTORS = "triples.parquet", "item_vectors.parquet"  # what is known about the items
INDEX_FILES = ("titles.safetensors", "titles.faiss")
FILES = frozenset(
    {
        "dataset.json",
        "catalog.parquet",
        "interactions.parquet",
        "rejected.csv",
        "baselines",
        CACHE,
        "titles.new",  # left behind by version 0.1.0 if it was killed while writing the index
        TUNED,
        FITTED,
        TRIPLES,
        VECTORS,
        *INDEX_FILES,
    }
)


def check_destination(folder: str | Path) -> None:
    """Check that a dataset can be saved to a folder, before any slow work is done.

    Raises:
        DataError: the folder contains files that do not belong to a dataset.
        SettingsError: the folder cannot be written.
    """
    folder = files.real_path(folder)
    files.check_output(folder, kind="new folder")
    if folder.exists() and not _replaceable(folder):
        msg = (
            f"{folder} exists and contains files that do not belong to a dataset. Nothing was "
            "changed. Expected a new or empty folder, or one written by prepare; choose "
            "a different --out."
        )
        raise DataError(msg)


def _replaceable(folder: Path) -> bool:
    """Check whether a folder is empty or contains only a dataset."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    if names <= {"rejected.csv"}:  # written by an attempt in which no row was usable
        return True
    if not {files.final_name(name) for name in names} <= FILES | {files.LOCK}:
        return False
    try:
        values = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "catalog_hash" in values
