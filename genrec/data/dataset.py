"""Prepare, save and load datasets: a catalog, interactions with a split, and measurements.

A dataset folder holds ``catalog.parquet``, ``interactions.parquet`` (with a split column),
``dataset.json`` and, if rows were rejected, ``rejected.csv``. The Parquet files can be read with
pyarrow alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genrec import files
from genrec.cache import Cache
from genrec.data.catalog import Catalog
from genrec.data.column_names import RoleNames, target_words
from genrec.data.column_uses import plain_uses
from genrec.data.columns import EVENT_ROLES
from genrec.data.importing import describe_doubts, import_tables
from genrec.data.info import (
    DatasetInfo,
    default_target,
    measure_info,
    note_targets,
    note_texts,
    note_unknown_verbs,
    read_info,
)
from genrec.data.ingest import EventOptions
from genrec.data.interactions import Interactions
from genrec.data.plausibility import check_parts, check_rejects
from genrec.data.readers import arrow, huggingface
from genrec.data.readers.files import read as read_table
from genrec.data.readers.rejects import Rejects, write_rejected
from genrec.data.redaction import redact_table
from genrec.data.splits import SplitOptions, split_events
from genrec.errors import DataError, SettingsError

CACHE = "cache"  # the subfolder with results that are kept, such as the counts of a prior
TUNED = "tuned.json"  # the file in the folder with the result of `genrec tune`
FITTED = "fitted.json"  # the file in the folder with the result of `genrec fit`
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
        *INDEX_FILES,
    }
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A catalog and its interactions.

    Attributes:
        catalog: the items.
        interactions: the events, with their split.
        info: the decisions and measurements made by ``prepare``.
        folder: the folder from which the dataset was loaded; None if it was built in memory.
        cache_folder: the folder that holds the cache if ``folder`` is None; None to cache nothing.
    """

    catalog: Catalog
    interactions: Interactions
    info: DatasetInfo
    folder: Path | None = None
    cache_folder: Path | None = None

    @property
    def cache(self) -> Cache:
        """The cache for results that are computed from this dataset."""
        place = self.folder or self.cache_folder
        return Cache(None if place is None else place / CACHE)

    @classmethod
    def prepare(
        cls,
        items: str | Path | pa.Table | None,
        interactions: str | Path | pa.Table,
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
        rejected_to: str | Path | None = None,
        context: Sequence[str] = (),
        log: Callable[[str], None] = lambda message: None,
    ) -> tuple[Dataset, list[Rejects]]:
        """Read two files, check and split their rows, and measure the resulting dataset.

        Common column names are recognized (``genrec.data.columns``). ``info.columns`` and
        ``info.notes`` say what was recognized, guessed or changed.

        Args:
            items: the items file or table, with ids, titles and any attributes; None if the
                interactions have a column of titles.
            interactions: the interactions file or table, with users, items and times or positions,
                and behaviors or ratings if there are several kinds of events.
            name: the display name; by default, the name of the interactions file.
            target_behavior: the behavior to predict. None selects a behavior that means a purchase,
                such as ``buy``, if the data has one, and otherwise the most frequent one.
            options: column names, units and defaults of the interactions.
            item_columns: maps genrec's column names to those in the items file.
            validation: an additional interactions file to use as the validation part. The first
                file is then used as the train part.
            test: an additional interactions file to use as the test part.
            split: ``last-unit`` (``splits.split_last_unit``) or ``global-time``
                (``splits.split_global_time``); None keeps an existing split column, or splits by
                last unit if there is none.
            validation_from: the start of the validation part for ``global-time``, as an ISO date or
                as a number in the data's time unit. None selects the time before which 80% of the
                events occur.
            test_from: the start of the test part, in the same format. None selects the time before
                which 90% of the events occur.
            strict: True to raise an error at the first bad row.
            rejected_to: the file to which the rejected rows are written if the data is unusable.
            context: the columns to declare as the context of events; see ``with_context``.
            log: a function that receives a line of text before each step.

        Returns:
            The dataset, and the rejected rows of each file.

        Raises:
            DataError: a file is unusable.
            SettingsError: an option is invalid.
        """
        options = options or EventOptions()
        source = _name_of(interactions, "events")
        bad_events = Rejects(source, strict)
        bad_items = Rejects(source if items is None else _name_of(items, "items"), strict)
        rejects = [bad_items, bad_events]
        notes: list[str] = []
        parts = {s: p for s, p in (("validation", validation), ("test", test)) if p is not None}
        if parts and split is not None:
            msg = (
                f"split={split!r} was given together with files for validation or test. Expected "
                "only one of the two."
            )
            raise SettingsError(msg)
        log(f"Reading {source} ...")
        roles = RoleNames(("user_id", "item_id", "behavior", "timestamp"), options.columns)
        reading = partial(_read, encoding=options.encoding, notes=notes)
        table = reading(interactions, roles, bad_events)
        if parts:
            table = _add_parts(table, parts, roles, bad_events, reading, log)
        table_of_items = None
        if items is not None:
            log(f"Reading {bad_items.source} ...")
            roles = RoleNames(("item_id", "title"), item_columns or {})
            table_of_items = reading(items, roles, bad_items)
        log("Checking, splitting and measuring ...")
        try:
            dataset = cls.from_tables(
                table_of_items,
                table,
                name=name or source.split(".")[0],
                target_behavior=target_behavior,
                options=options,
                item_columns=item_columns,
                split=split,
                validation_from=validation_from,
                test_from=test_from,
                rejects=rejects,
            )
        except DataError as error:
            msg = f"{error}{describe_doubts(notes, [table, table_of_items])}"
            if rejected_to is not None and any(r.rows for r in rejects):
                write_rejected(rejected_to, rejects)
                msg += f" The rejected rows are in {rejected_to}."
            raise DataError(msg) from error
        dataset = replace(dataset, info=replace(dataset.info, notes=notes + dataset.info.notes))
        dataset = dataset.with_context(context)
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
        item_columns: Mapping[str, str] | None = None,
        split: str | None = None,
        validation_from: str | float | None = None,
        test_from: str | float | None = None,
        rejects: list[Rejects] | None = None,
    ) -> Dataset:
        """Check and split the rows of two Arrow tables, and measure the resulting dataset.

        ``prepare`` does the same for files.

        Args:
            items: a table with item_id, title and any attributes; None if the interactions have a
                title column. Common column names are recognized (``genrec.data.columns``).
            interactions: a table of events; see ``genrec.data.importing.import_tables``.
            name: the display name.
            target_behavior: the behavior to predict; see ``prepare``.
            options: column names, units and defaults of the interactions.
            item_columns: maps genrec's column names to those in the table of items.
            split: how to split the events; see ``prepare``.
            validation_from: the start of the validation part; see ``prepare``.
            test_from: the start of the test part; see ``prepare``.
            rejects: two objects that record rejected rows, the first for the items and the second
                for the interactions. If it is None, the first bad row raises an error.

        Raises:
            DataError: a table is unusable.
            SettingsError: an option is invalid.
        """
        options = options or EventOptions()
        splitting = SplitOptions(split, validation_from, test_from)
        records = rejects or [Rejects("items", True), Rejects("interactions", True)]
        bad_events = records[1]
        rows = interactions.num_rows + len(bad_events.rows)
        replaced = split is not None and "split" in interactions.column_names
        if replaced:
            interactions = interactions.drop_columns("split")
        imported = import_tables(items, interactions, options, dict(item_columns or {}), records)
        catalog, read = imported.catalog, imported.read
        table, redacted = redact_table(read.events) if options.redact else (read.events, None)
        events = Interactions(catalog, table)
        target = target_behavior or default_target(events)
        if target not in events.behaviors:
            msg = (
                f"target_behavior={target!r} is not in the data. "
                f"Expected one of: {', '.join(events.behaviors)}."
            )
            raise DataError(msg)
        events, split_name, starts = split_events(
            events, target, splitting, time_unit=read.time_unit, given=read.given_split
        )
        notes = [*imported.notes, *read.notes, *note_texts(events), *note_unknown_verbs(events)]
        if replaced:
            notes.append(f"the split column was replaced with a split by {split_name}")
        if (
            target_behavior is None
            and target.casefold() not in target_words()
            and len(events.behaviors) > 1
        ):
            notes.append(
                f"the target behavior is {target!r}, the most frequent of {len(events.behaviors)} "
                "behaviors; use --target-behavior to choose another"
            )
        notes += note_targets(events, target, by_time=bool(starts))
        rejected_from = records[items is None :]
        info = replace(
            measure_info(name, events, target, split_name, read.time_unit),
            split_times=starts,
            columns=imported.names,
            uses=plain_uses(imported.uses, redact=options.redact),
            warnings=[
                *imported.warnings,
                *check_rejects(events.table, bad_events),
                *check_parts(events.table, split_name),
            ],
            notes=notes,
            rows=rows,
            rejected={why: n for r in rejected_from for why, n in r.counts(sources=True).items()},
            redacted=redacted,
            redact=options.redact,
        )
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
        """Check and split the rows of two Hugging Face datasets, and measure the resulting dataset.

        Args:
            items: a ``datasets.Dataset``, or the id of a dataset on the hub, with item_id, title
                and any attributes; None if the interactions have a title column.
            interactions: a ``datasets.Dataset`` or an id, as for ``items``, with one row per event,
                or one row per user with lists of events (``readers.arrow.explode``).
            name: the display name; by default, the dataset's id.
            item_columns: maps genrec's column names to those in the items dataset.
            **options: keyword arguments of ``from_tables``, such as ``options=EventOptions(...)``.

        Raises:
            DataError: a dataset cannot be loaded or used.
            SettingsError: an option is invalid.
        """
        return cls.from_tables(
            None if items is None else huggingface.read(items),
            huggingface.read(interactions),
            name=name or huggingface.display_name(interactions, "interactions"),
            item_columns=item_columns,
            **options,
        )

    def save(self, folder: str | Path, rejects: list[Rejects] | None = None) -> None:
        """Write the dataset folder atomically.

        An existing folder is replaced only if it contains nothing but dataset files.

        Args:
            folder: the folder to write.
            rejects: the rejected rows to record in ``rejected.csv``.

        Raises:
            DataError: the folder contains other files, or writing it fails.
            SettingsError: the folder is not writable; see ``check_destination``.
        """
        folder = files.real_path(folder)
        check_destination(folder)
        try:
            files.write_folder(folder, partial(self._write, rejects or []))
        except (OSError, pa.ArrowException) as error:
            reason = files.describe_error(error) if isinstance(error, OSError) else error
            msg = f"{folder} could not be written: {reason}. Nothing was changed; choose another folder."
            raise DataError(msg) from error

    def _write(self, rejects: list[Rejects], folder: Path) -> None:
        """Write the files of the dataset into an empty folder."""
        pq.write_table(self.catalog.to_table(), folder / "catalog.parquet")
        pq.write_table(self.interactions.to_table(), folder / "interactions.parquet")
        if any(r.rows for r in rejects):
            write_rejected(folder / "rejected.csv", rejects)
        (folder / "dataset.json").write_text(self.info.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Load a dataset folder.

        Raises:
            DataError: the folder is not a dataset folder, is damaged or has a different format
                version, or its catalog was changed.
        """
        folder = Path(folder)
        path = folder / "dataset.json"
        for needed in (path, folder / "catalog.parquet", folder / "interactions.parquet"):
            if problem := files.describe_unreadable(needed):
                raise DataError(problem)
        if not path.is_file():
            msg = (
                f"{str(folder)!r} is not a dataset folder: it has no dataset.json. Create one with "
                "`genrec prepare FILE --out DIR`."
            )
            raise DataError(msg)
        info = read_info(path)
        try:
            catalog = Catalog.read(folder / "catalog.parquet")
            unit = "none" if info.unit is None else "unit"
            events = Interactions.read(
                folder / "interactions.parquet", catalog, unit=unit, time_unit="position"
            )
        except (DataError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            reason = str(error) if isinstance(error, DataError) else f"{error!r}."
            msg = f"The dataset folder {folder} is damaged: {reason} Run `genrec prepare` again."
            raise DataError(msg) from error
        if catalog.hash() != info.catalog_hash:
            msg = (
                f"catalog.parquet in {folder} does not match dataset.json. "
                "Run `genrec prepare` again."
            )
            raise DataError(msg)
        return cls(catalog, events, info, folder).with_context(info.context)

    def with_context(self, columns: Sequence[str] | None) -> Dataset:
        """Return the same dataset with other declared columns of the context.

        Args:
            columns: columns of the events, or names in ``genrec.data.context.DERIVED``; empty for
                events without a context; None to change nothing.

        Raises:
            SettingsError: a column is not in the data.
        """
        columns = self.info.context if columns is None else list(dict.fromkeys(columns))
        if columns == [*self.interactions.table.context_columns] == self.info.context:
            return self
        dated = self.info.time_unit != "position"
        events = self.interactions.with_context(columns, dated=dated)
        return replace(self, interactions=events, info=replace(self.info, context=columns))

    def with_redaction(self, redact: bool | None) -> Dataset:
        """Return the dataset with the decision whether later texts are redacted; None keeps it."""
        return self if redact is None else replace(self, info=replace(self.info, redact=redact))

    def renamed(self, name: str) -> Dataset:
        """Return the same dataset under a different name."""
        return replace(self, info=replace(self.info, name=name))


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


def _name_of(source: str | Path | pa.Table, otherwise: str) -> str:
    """Return a file's name, or the given name if the source is a table."""
    return otherwise if isinstance(source, pa.Table) else files.real_path(source).name


def _read(
    source: str | Path | pa.Table,
    roles: RoleNames,
    rejects: Rejects,
    *,
    encoding: str | None,
    notes: list[str],
) -> pa.Table:
    """Read a file, and reject rows with lists or objects in columns that need single values."""
    if isinstance(source, pa.Table):
        return source
    remarks: list[str] = []
    known = RoleNames(EVENT_ROLES, {})
    table = read_table(
        source, rejects=rejects, scalar=roles, known=known, encoding=encoding, notes=remarks
    )
    notes += [f"{rejects.source}: {remark}" for remark in remarks]
    return table


def _add_parts(
    train: pa.Table,
    parts: Mapping[str, str | Path],
    roles: RoleNames,
    rejects: Rejects,
    reading: Callable[[str | Path, RoleNames, Rejects], pa.Table],
    log: Callable[[str], None],
) -> pa.Table:
    """Append the validation and test files to the train file, and add a split column.

    Raises:
        DataError: a file lacks a column that the user mapped.
    """
    tables = [(rejects, train)]
    bad: list[Rejects] = []
    for path in parts.values():
        log(f"Reading {path} ...")
        bad.append(Rejects(Path(path).name, rejects.strict))
        table = reading(path, roles, bad[-1])
        arrow.require_columns(table, sorted(roles.given), bad[-1].source)
        tables.append((bad[-1], table))
    for further in bad:
        rejects.rows += further.rows
    return arrow.stack(tables, "split", ["train", *parts], rejects)


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
