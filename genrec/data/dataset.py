"""Prepare, save and load datasets: a catalog, interactions with a split, and measurements.

A dataset folder holds ``catalog.parquet``, ``interactions.parquet`` (with a split column),
``dataset.json`` and, if rows were rejected, ``rejected.csv``. The Parquet files can be read with
pyarrow alone.
"""

from __future__ import annotations

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
from genrec.data.dataset_folder import CACHE as CACHE
from genrec.data.dataset_folder import FITTED as FITTED
from genrec.data.dataset_folder import INDEX_FILES as INDEX_FILES
from genrec.data.dataset_folder import TRIPLES, VECTORS
from genrec.data.dataset_folder import TUNED as TUNED
from genrec.data.dataset_folder import check_destination as check_destination
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
from genrec.data.input_files import add_parts, name_of, read_source
from genrec.data.interactions import Interactions
from genrec.data.item_vectors import ItemVectors, load_item_vectors, read_item_vectors
from genrec.data.knowledge import Triples, check_names, read_triples
from genrec.data.plausibility import check_parts, check_rejects
from genrec.data.readers import huggingface
from genrec.data.readers.rejects import Rejects, write_rejected
from genrec.data.redaction import redact_table
from genrec.data.splits import SplitOptions, split_events
from genrec.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True)
class Dataset:
    """A catalog and its interactions.

    Attributes:
        catalog: the items.
        interactions: the events, with their split.
        info: the decisions and measurements made by ``prepare``.
        folder: the folder from which the dataset was loaded; None if it was built in memory.
        cache_folder: the folder that holds the cache if ``folder`` is None; None to cache nothing.
        triples: triples about the items; None if there are none.
        item_vectors: vectors of the items; None if there are none.
    """

    catalog: Catalog
    interactions: Interactions
    info: DatasetInfo
    folder: Path | None = None
    cache_folder: Path | None = None
    triples: Triples | None = None
    item_vectors: ItemVectors | None = None

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
        triples: str | Path | None = None,
        knowledge: Sequence[str] | None = None,
        item_vectors: str | Path | None = None,
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
            triples: a file of triples about the items; see ``genrec.data.knowledge``.
            knowledge: columns of the items and relations of the triples that say what items have in
                common; None for all relations.
            item_vectors: a Parquet file with vectors of the items; see ``genrec.data.item_vectors``.
            log: a function that receives a line of text before each step.

        Returns:
            The dataset, and the rejected rows of each file.

        Raises:
            DataError: a file is unusable.
            SettingsError: an option is invalid.
        """
        options = options or EventOptions()
        source = name_of(interactions, "events")
        bad_events = Rejects(source, strict)
        bad_items = Rejects(source if items is None else name_of(items, "items"), strict)
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
        reading = partial(read_source, encoding=options.encoding, notes=notes)
        table = reading(interactions, roles, bad_events)
        if parts:
            table = add_parts(table, parts, roles, bad_events, reading, log)
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
        if items is None:
            rejects = rejects[1:]
        for path in [p for p in (triples, item_vectors) if p is not None]:
            log(f"Reading {path} ...")
            rejects.append(Rejects(Path(path).name, strict))
            dataset = dataset.with_items_known(path, rejects[-1], vectors=path is item_vectors)
        return dataset.with_knowledge(knowledge), rejects

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
        if self.triples is not None:
            pq.write_table(self.triples.table, folder / TRIPLES)
        if self.item_vectors is not None:
            pq.write_table(self.item_vectors.to_table(), folder / VECTORS)
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
            triples = vectors = None
            if (folder / TRIPLES).is_file():
                triples = Triples(pq.read_table(folder / TRIPLES))
            if (folder / VECTORS).is_file():
                vectors = load_item_vectors(folder / VECTORS)
        except (
            DataError, ValueError, KeyError, TypeError, AttributeError, OSError, pa.ArrowException,
        ) as error:  # fmt: skip
            reason = str(error) if isinstance(error, DataError) else f"{error!r}."
            msg = f"The dataset folder {folder} is damaged: {reason} Run `genrec prepare` again."
            raise DataError(msg) from error
        if catalog.hash() != info.catalog_hash:
            msg = (
                f"catalog.parquet in {folder} does not match dataset.json. "
                "Run `genrec prepare` again."
            )
            raise DataError(msg)
        loaded = cls(catalog, events, info, folder, None, triples, vectors)
        return loaded.with_context(info.context).with_knowledge(info.knowledge)

    def with_items_known(
        self, path: str | Path, rejects: Rejects, *, vectors: bool = False
    ) -> Dataset:
        """Return the same dataset with the triples or the vectors of a file.

        All relations of the triples are declared as knowledge; see ``with_knowledge``.

        Args:
            path: a file of triples or, with ``vectors``, of vectors.
            rejects: the object that records unusable rows.
            vectors: whether the file holds vectors.

        Raises:
            DataError: the file cannot be used.
        """
        notes = [*self.info.notes]
        if vectors:
            made = replace(self, item_vectors=read_item_vectors(path, self.catalog, rejects, notes))
        else:
            found = read_triples(path, self.catalog, rejects)
            made = replace(self, triples=found).with_knowledge(
                [*self.info.knowledge, *found.relations]
            )
        counts = {**self.info.rejected, **rejects.counts(sources=True)}
        return replace(made, info=replace(made.info, notes=notes, rejected=counts))

    def with_knowledge(self, names: Sequence[str] | None) -> Dataset:
        """Return the same dataset with other names that say what items have in common.

        Args:
            names: columns of the items and relations of the triples; empty for none; None to change
                nothing.

        Raises:
            SettingsError: there is no such column or relation.
        """
        if names is None or [*names] == self.info.knowledge == []:
            return self
        found = check_names(names, self.catalog, self.triples)
        return replace(self, info=replace(self.info, knowledge=found))

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
