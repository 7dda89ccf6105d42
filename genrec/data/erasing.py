"""Erase a user from the files of a dataset folder and from the results of evaluations.

The events are removed from the dataset, and whatever was computed from them is deleted, since it is
computed again when it is needed. This module does not know of models, runs or the service.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec import files
from genrec.data.dataset import CACHE, Dataset
from genrec.data.events import SPLITS
from genrec.data.info import count_behaviors
from genrec.data.ingest import EventOptions, ingest
from genrec.data.interactions import Interactions
from genrec.errors import DataError

BASELINES = "baselines"
REJECTED = "rejected.csv"


@dataclass(frozen=True, slots=True)
class ErasedData:
    """What was erased from a dataset folder.

    Attributes:
        user_id: the id as it was written in the data.
        events: the number of events that were removed.
        rejected: the number of rejected rows that named the user.
        removed: the names of files and folders that were removed because they were computed from all
            events.
    """

    user_id: str
    events: int
    rejected: int
    removed: tuple[str, ...]


def without_user(data: Dataset, user_id: str) -> Dataset:
    """Return a dataset without a user's events, and with all statistics that are plain counts.

    Decisions such as the split and whether seen items are left out stay as they are.

    Args:
        data: the dataset.
        user_id: the user; nothing changes if the data does not have this user.

    Raises:
        DataError: the user is the only one.
    """
    old = data.interactions
    kept = np.ones(len(old), dtype=np.bool_)
    if user_id in old.user_ids:
        kept[old.events(user_id)] = False
    if not kept.any():
        msg = f"{user_id!r} is the only user of this dataset. Delete the dataset folder instead."
        raise DataError(msg)
    options = EventOptions(time_unit="position", unit="none" if old.unit_ids is None else "unit")
    table = ingest(old.to_table().filter(pa.array(kept)), data.catalog, options).events
    events = Interactions(data.catalog, table)
    counts = np.bincount(events.columns.split, minlength=len(SPLITS)).tolist()
    info = replace(
        data.info,
        users=len(events.user_ids),
        events=len(events),
        split_events=dict(zip(SPLITS, counts, strict=True)),
        tied=events.tied(),
        behaviors=count_behaviors(events),
        # The examples are cells of the first events, and remarks may quote some.
        uses=[u | {"example": ""} if "items." not in u["column"] else u for u in data.info.uses],
        notes=[note for note in data.info.notes if not names(note, user_id)],
        warnings=[text for text in data.info.warnings if not names(text, user_id)],
    )
    return replace(data, interactions=events, info=info).with_context(info.context)


def names(text: str, user_id: str) -> bool:
    """Return True if a text has an id that is not part of a longer word or number.

    >>> names("u1 bought", "u1"), names("u12 bought", "u1")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(user_id)}(?!\w)", text) is not None


def erase_from_dataset(folder: Path, user_id: str) -> tuple[ErasedData, Dataset, Dataset]:
    """Erase a user from a dataset folder.

    Fitted baselines and everything in the cache are removed, since all users' events are in them.

    Args:
        folder: the dataset folder.
        user_id: the user.

    Returns:
        What was erased, the dataset as it was before, and as it is now.

    Raises:
        DataError: the folder is not a dataset folder, or the user is the only one.
        SettingsError: the folder cannot be written, or another process writes to it.
    """
    with files.lock_folder(folder):
        before = Dataset.load(folder)
        data = without_user(before, user_id)
        gone = len(before.interactions) - len(data.interactions)
        rejected = _erase_lines(folder / REJECTED, _csv_without(user_id))
        removed = [name for name in (BASELINES, CACHE) if (folder / name).exists()]
        for name in removed:
            shutil.rmtree(folder / name)
        if gone or data.info.to_dict() != before.info.to_dict():
            table = data.interactions.to_table()
            files.write_file(folder / "interactions.parquet", partial(pq.write_table, table))
            files.write_text(folder / "dataset.json", data.info.to_json())
    return ErasedData(user_id, gone, rejected, tuple(removed)), before, Dataset.load(folder)


def erase_from_results(folder: Path, user_id: str) -> int:
    """Erase a user from the tables and logs in a folder with the results of an evaluation or a batch.

    Returns:
        The number of rows and lines that were removed. Means in ``result.json`` stay as they are.

    Raises:
        DataError: the folder does not exist, or a file cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder. Expected one that `genrec evaluate --out` or `genrec batch --out` wrote."
        )
    gone = 0
    with files.lock_folder(folder):
        for path in sorted(folder.glob("*.jsonl")):
            gone += _erase_lines(path, _json_without(user_id))
        for path in sorted(folder.glob("*.parquet")):
            gone += _erase_rows(path, user_id)
    return gone


def _erase_rows(path: Path, user_id: str) -> int:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}. Nothing was changed in it.") from error
    batch = {"row", "id"} <= set(table.column_names)  # of ``genrec batch``
    column = "id" if batch else "user_id"
    if column not in table.column_names:
        return 0
    kept = pa.array([str(one) != user_id for one in table[column].to_pylist()])
    rest = table.filter(kept)
    if len(rest) < len(table):
        files.write_file(path, partial(pq.write_table, rest))
    return len(table) - len(rest)


def _erase_lines(path: Path, rewrite: Callable[[str], tuple[str, int]]) -> int:
    """Rewrite a text file, and return the number of records that were left out."""
    if not path.is_file():
        return 0
    with path.open(encoding="utf-8", newline="") as stream:
        text, gone = rewrite(stream.read())
    if gone:
        files.write_text(path, text)
    return gone


def _csv_without(user_id: str) -> Callable[[str], tuple[str, int]]:
    def rewrite(text: str) -> tuple[str, int]:
        rows = list(csv.reader(io.StringIO(text, newline="")))
        kept = [row for row in rows if not any(names(cell, user_id) for cell in row)]
        out = io.StringIO(newline="")
        csv.writer(out).writerows(kept)
        return out.getvalue(), len(rows) - len(kept)

    return rewrite


def _json_without(user_id: str) -> Callable[[str], tuple[str, int]]:
    def rewrite(text: str) -> tuple[str, int]:
        lines = text.split("\n")
        kept = [line for line in lines if _user_of(line) != user_id]
        return "\n".join(kept), len(lines) - len(kept)

    return rewrite


def _user_of(line: str) -> Any:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry.get("user_id") if isinstance(entry, dict) else None
