"""Dataset: catalog, split interactions and what was measured of them; as a folder.

The folder holds ``catalog.parquet``, ``interactions.parquet`` (with a split column),
``dataset.json`` and, where rows were rejected, ``rejected.csv``; pyarrow alone can read it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genrec import files
from genrec.data.catalog import NEEDED as ITEM_COLUMNS
from genrec.data.catalog import Catalog, Item
from genrec.data.events import SPLITS
from genrec.data.info import (
    FORMAT_VERSION,
    DatasetInfo,
    check_info,
    measure_info,
    note_texts,
    note_unknown_verbs,
    note_untrained_users,
)
from genrec.data.ingest import EventOptions, ingest, moment
from genrec.data.interactions import NEEDED as EVENT_COLUMNS
from genrec.data.interactions import Interactions
from genrec.data.readers import arrow, huggingface
from genrec.data.readers.files import read as read_table
from genrec.data.readers.rejects import Rejects
from genrec.data.splits import split_global_time, split_last_unit
from genrec.errors import DataError, SettingsError
from genrec.text import one_line

TUNED = "tuned.json"  # what `tune` found, in the folder
INDEX_FILES = ("titles.safetensors", "titles.faiss")
FILES = frozenset(
    {
        "dataset.json",
        "catalog.parquet",
        "interactions.parquet",
        "rejected.csv",
        "baselines",
        "titles.new",  # which 0.1.0 left when it was killed while it wrote the index
        TUNED,
        *INDEX_FILES,
    }
)
SPLIT_WAYS = ("last-unit", "global-time")
_TARGETS = ("buy", "purchase", "order")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Catalog and interactions that belong together."""

    catalog: Catalog
    interactions: Interactions
    info: DatasetInfo
    folder: Path | None = None  # from which it was loaded

    @classmethod
    def prepare(
        cls,
        items: str | Path | None,
        interactions: str | Path,
        *,
        name: str | None = None,
        target_behavior: str | None = None,
        options: EventOptions | None = None,
        item_columns: Mapping[str, str] | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        split: str | None = None,
        validation_from: str | float | None = None,
        test_from: str | float | None = None,
        strict: bool = False,
        log: Callable[[str], None] = lambda message: None,
    ) -> tuple[Dataset, list[Rejects]]:
        """Reads, checks, splits and measures two files.

        Args:
            items: CSV, JSONL or Parquet with item_id, title and any attributes; None where the
                interactions have a title column.
            interactions: CSV, JSONL or Parquet with user_id, item_id, behavior or rating, and
                timestamp or position.
            name: for display; the interactions file's name where None.
            target_behavior: what to recommend for; None takes buy, purchase or order where the
                data has it, else the most frequent.
            options: names, units and defaults of the interactions.
            item_columns: our name -> the items file's column.
            validation: a further file of interactions, which are the validation part, where the
                split is given as files; the first file is then train.
            test: likewise, the test part.
            split: ``last-unit`` (``splits.split_last_unit``) or ``global-time``
                (``split_global_time``); None takes a split column as given, else last-unit.
            validation_from: where validation begins, for global-time: an ISO date, or a number in
                the data's time unit; None for the time that 80% of the events lie before.
            test_from: where test begins, likewise; None for 90%.
            strict: a bad row is an error.
            log: called with a line of text before each step.

        Returns:
            The dataset, and the rejected rows of each file.

        Raises:
            DataError: a file cannot be used.
            SettingsError: an option cannot be used.
        """
        options = options or EventOptions()
        bad_items = Rejects(Path(items or interactions).name, strict)
        bad_events = Rejects(Path(interactions).name, strict)
        log(f"Reading {interactions} ...")
        table = _read(interactions, EVENT_COLUMNS, options.columns, bad_events)
        given = [(p, s) for p, s in ((validation, "validation"), (test, "test")) if p is not None]
        if given:
            table = _with_files(table, given, options.columns, bad_events, split, log)
        table_of_items = None
        if items is not None:
            log(f"Reading {items} ...")
            table_of_items = _read(items, ITEM_COLUMNS, item_columns or {}, bad_items)
        log("Checking, splitting and measuring ...")
        rejects = [bad_items, bad_events]
        dataset = cls.from_tables(
            table_of_items,
            table,
            name=name or Path(interactions).name.split(".")[0],
            target_behavior=target_behavior,
            options=replace(options, columns={}),
            split=split,
            validation_from=validation_from,
            test_from=test_from,
            rejects=rejects,
        )
        return dataset, rejects if items is not None else rejects[1:]

    @classmethod
    def from_tables(
        cls,
        items: pa.Table | None,
        interactions: pa.Table,
        *,
        name: str,
        target_behavior: str | None = None,
        options: EventOptions | None = None,
        split: str | None = None,
        validation_from: str | float | None = None,
        test_from: str | float | None = None,
        rejects: list[Rejects] | None = None,
    ) -> Dataset:
        """Checks, splits and measures two Arrow tables; ``prepare`` does it for files.

        Args:
            items: item_id, title and any attributes; None where the interactions have a title.
            interactions: see ``genrec.ingest.ingest``.
            name: for display.
            target_behavior: see ``prepare``.
            options: names, units and defaults of the interactions.
            split: see ``prepare``; so are validation_from and test_from.
            validation_from: where validation begins.
            test_from: where test begins.
            rejects: where bad items and bad interactions are recorded, in this order; without it
                the first one raises.

        Raises:
            DataError: a table cannot be used.
            SettingsError: an option cannot be used.
        """
        options = options or EventOptions()
        _check_split(split, validation_from, test_from)
        bad_items, bad_events = rejects or [Rejects("items", True), Rejects("interactions", True)]
        interactions = arrow.renamed(interactions, options.columns, bad_events.source)
        interactions = arrow.exploded(interactions, bad_events)
        replaced = split is not None and "split" in interactions.column_names
        if replaced:
            interactions = interactions.drop_columns("split")
        catalog = (
            _catalog_of_events(interactions, bad_items)
            if items is None
            else Catalog.from_table(items, rejects=bad_items)
        )
        read = ingest(interactions, catalog, replace(options, columns={}), rejects=bad_events)
        events = Interactions(catalog, read.events)
        target = target_behavior or _default_target(events)
        if target not in events.behaviors:
            msg = (
                f"target_behavior={target!r} is not in the data. "
                f"Expected one of: {', '.join(events.behaviors)}."
            )
            raise DataError(msg)
        how, cuts = "given" if read.given_split else "last unit", {}
        if split == "global-time":
            how, cuts = "global time", _cuts(events, read.time_unit, validation_from, test_from)
            events = split_global_time(events, cuts["validation"], cuts["test"])
        elif not read.given_split:
            events = split_last_unit(events, target)
        counted = [bad_events] if items is None else [bad_items, bad_events]
        rejected = {why: n for r in counted for why, n in r.counts(sources=True).items()}
        notes = [*read.notes, *note_texts(events), *note_unknown_verbs(events)]
        if replaced:
            notes.append(f"the split column was replaced by the split by {how}")
        counts = events.users_with_target(target)
        if target_behavior is None and target not in _TARGETS and len(events.behaviors) > 1:
            notes.append(
                f"{target!r} is asked for, the most frequent of {len(events.behaviors)} behaviors; "
                "--target-behavior chooses another"
            )
        if not any(counts):
            notes.append(f"no event {target!r} has an item: there is nothing to evaluate")
        notes += note_untrained_users(events, target)
        if cuts:
            said = ", ".join(f"{s} {n:,}" for s, n in zip(SPLITS, counts, strict=True))
            notes.append(f"users with an event to recommend ({target}): {said}")
        info = measure_info(name, events, target, how, read.time_unit)
        info = replace(info, split_times=cuts, notes=notes, rejected=rejected)
        return cls(catalog, events, info)

    @classmethod
    def from_hf(
        cls,
        items: Any,
        interactions: Any,
        *,
        name: str | None = None,
        item_columns: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Dataset:
        """Checks, splits and measures two Hugging Face datasets.

        Args:
            items: a ``datasets.Dataset`` or the id of one on the hub, with item_id, title and any
                attributes; None where the interactions have a title.
            interactions: likewise, one row an event, or one row a user with lists
                (``tables.exploded``).
            name: for display; the id where None.
            item_columns: our name -> the items' column.
            **options: those of ``from_tables``, such as ``options=EventOptions(...)``.

        Raises:
            DataError: a dataset cannot be had or used.
            SettingsError: an option cannot be used.
        """
        table = None
        if items is not None:
            table = arrow.renamed(
                huggingface.table(items), item_columns or {}, huggingface.name(items, "items")
            )
        called = name or huggingface.name(interactions, "interactions")
        return cls.from_tables(table, huggingface.table(interactions), name=called, **options)

    def save(self, folder: str | Path, rejects: list[Rejects] | None = None) -> None:
        """Writes the dataset folder: beside its place first, then renamed into it.

        A folder is replaced only if it holds nothing but what ``save`` writes.

        Raises:
            DataError: the place is taken by something else or cannot be written.
        """
        folder = Path(folder).resolve()
        if folder.exists() and not _replaceable(folder):
            msg = (
                f"{folder} exists and holds other files than a dataset folder does. Nothing was "
                "changed. Expected a new or empty folder, or one that prepare wrote; choose "
                "another --out."
            )
            raise DataError(msg)
        try:
            files.write_folder(folder, partial(self._write, rejects or []))
        except (OSError, pa.ArrowException) as error:
            msg = f"{folder} could not be written: {error}. Nothing was changed; choose another place."
            raise DataError(msg) from error

    def _write(self, rejects: list[Rejects], folder: Path) -> None:
        pq.write_table(self.catalog.to_table(), folder / "catalog.parquet")
        pq.write_table(self.interactions.to_table(), folder / "interactions.parquet")
        rows = [row for r in rejects for row in r.rows]
        if rows:
            with (folder / "rejected.csv").open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(["file", "row", "reason", "cells"])
                writer.writerows(
                    [
                        c.encode("utf-8", "backslashreplace").decode() if isinstance(c, str) else c
                        for c in row
                    ]
                    for row in rows
                )
        text = json.dumps(asdict(self.info), indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Loads a dataset folder.

        Raises:
            DataError: it is none, of another version, or its catalog was changed.
        """
        folder = Path(folder)
        path = folder / "dataset.json"
        if not path.is_file():
            msg = (
                f"{str(folder)!r} is not a dataset folder: it has no dataset.json. Make one with "
                "`genrec prepare --items items.csv --interactions interactions.csv --out DIR`."
            )
            raise DataError(msg)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format_version") != FORMAT_VERSION:
                msg = (
                    f"{path} has format_version {values.get('format_version')!r}, expected "
                    f"{FORMAT_VERSION}. Run `genrec prepare` again with this version of genrec."
                )
                raise DataError(msg)
            known = [f.name for f in fields(DatasetInfo) if f.name in values]
            info = DatasetInfo(**{name: values[name] for name in known})
            check_info(info)
            catalog = Catalog.read(folder / "catalog.parquet")
            unit = "none" if info.unit is None else "unit"
            events = Interactions.read(
                folder / "interactions.parquet", catalog, unit=unit, time_unit="s"
            )
        except DataError as error:
            msg = f"The dataset folder {folder} is damaged: {error} Run `genrec prepare` again."
            raise DataError(msg) from error
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            msg = f"{path} is damaged: {error!r}. Run `genrec prepare` again."
            raise DataError(msg) from error
        if catalog.hash() != info.catalog_hash:
            msg = (
                f"catalog.parquet in {folder} is not the one that dataset.json was written for. "
                "Run `genrec prepare` again."
            )
            raise DataError(msg)
        return cls(catalog, events, info, folder)

    def renamed(self, name: str) -> Dataset:
        """The same dataset under another name."""
        return replace(self, info=replace(self.info, name=name))


def _check_split(
    split: str | None, validation_from: str | float | None, test_from: str | float | None
) -> None:
    if split not in {None, *SPLIT_WAYS}:
        msg = f"split={split!r} is not known. Expected one of: {', '.join(SPLIT_WAYS)}."
        raise SettingsError(msg)
    if split != "global-time" and (validation_from, test_from) != (None, None):
        msg = (
            f"validation_from={validation_from!r} and test_from={test_from!r} with "
            f"split={split!r}. Expected them with the split global-time only; leave them out, or "
            "add --split global-time."
        )
        raise SettingsError(msg)


def _cuts(
    events: Interactions,
    time_unit: str,
    validation_from: str | float | None,
    test_from: str | float | None,
) -> dict[str, float]:
    """When validation and test begin, as stored timestamps."""
    if time_unit == "position":
        msg = (
            "split='global-time' with positions, which cannot be compared between users. Expected "
            "times; use --split last-unit, or say --time-unit s, ms or day if the numbers are times."
        )
        raise DataError(msg)
    given = {"validation": (validation_from, 0.8), "test": (test_from, 0.9)}
    return {
        part: events.time_quantile(share) if at is None else moment(at, time_unit)
        for part, (at, share) in given.items()
    }


def _read(
    path: str | Path, needed: Sequence[str], columns: Mapping[str, str], rejects: Rejects
) -> pa.Table:
    """A file under our names; the needed columns hold no lists or objects."""
    scalar = [columns.get(n, n) for n in needed]
    return arrow.renamed(read_table(path, rejects=rejects, scalar=scalar), columns, rejects.source)


def _with_files(
    train: pa.Table,
    given: Sequence[tuple[str | Path, str]],
    columns: Mapping[str, str],
    rejects: Rejects,
    split: str | None,
    log: Callable[[str], None],
) -> pa.Table:
    """The interactions of train and of further files, with the split that they are of."""
    if split is not None:
        msg = f"split={split!r} beside files for validation or test. Expected one of the two."
        raise SettingsError(msg)
    parts = [(rejects.source, train)]
    bad: list[Rejects] = []
    for path, _ in given:
        log(f"Reading {path} ...")
        bad.append(Rejects(Path(path).name, rejects.strict))
        parts.append((bad[-1].source, _read(path, EVENT_COLUMNS, columns, bad[-1])))
    for further in bad:
        rejects.rows += further.rows
    return arrow.stacked(parts, "split", ["train", *(name for _, name in given)], rejects)


def _default_target(events: Interactions) -> str:
    found = next((b for b in _TARGETS if b in events.behaviors), None)
    if found:
        return found
    c = events.columns
    counts = [int(((c.behavior == b) & (c.row >= 0)).sum()) for b in range(len(events.behaviors))]
    return events.behaviors[counts.index(max(counts))]


def _catalog_of_events(table: pa.Table, rejects: Rejects) -> Catalog:
    """The catalog of interactions that carry titles: an item's first title counts."""
    if "title" not in table.column_names:
        msg = (
            f"No items file was given, and {rejects.source} has no title column. Expected titles "
            "to recommend: write items.csv with the columns item_id,title (one row an item) and "
            f"give it with --items. Found columns: {', '.join(arrow.names(table))}."
        )
        raise DataError(msg)
    arrow.require(table, ["item_id", "title"], rejects.source)
    titles: dict[str, str] = {}
    pairs = zip(arrow.strings(table["item_id"]), arrow.strings(table["title"]), strict=True)
    for item_id, title in pairs:
        if item_id and one_line(title):
            titles.setdefault(item_id, title)
    return Catalog((Item(i, t) for i, t in titles.items()), rejects=rejects)


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty or holds a dataset folder's files and nothing else."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    if not names:
        return True
    if not names <= FILES | {files.temporary_file(Path(name)).name for name in FILES}:
        return False
    try:
        values = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "catalog_hash" in values
