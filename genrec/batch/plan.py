"""Keep track of a batch: its folder, its rows, and which shards are finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.batch.job import Job, Manifest, read_manifest
from genrec.batch.rows import Rows
from genrec.batch.shards import ShardWriter, count_rows
from genrec.config import Settings
from genrec.errors import DataError, GenrecError, SettingsError
from genrec.files import describe_error
from genrec.pipeline.resolve import behavior_of, template_of
from genrec.runs import Run, find_run
from genrec.text import quantity
from genrec.types import Log

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

LESS_MEMORY = "Use fewer --workers, a smaller --batch-size, or a smaller model."
ATTEMPTS = 3  # how often a shard is begun before the batch fails


class BatchError(GenrecError):
    """Raised when the processes of a batch end again and again."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a batch has done.

    Attributes:
        folder: the output folder.
        rows: the number of rows of the input.
        answered: the number of rows with an answer.
        rejected: the number of rejected rows.
        shards: the number of shards.
        resumed: the number of shards that an earlier call had finished.
        seconds: the time that this call took.
    """

    folder: Path
    rows: int
    answered: int
    rejected: int
    shards: int
    resumed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values that JSON can represent."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"folder": str(self.folder)}


@dataclass
class Plan:
    """A job whose folder is open: what is finished and what is left.

    Attributes:
        job: the job.
        folder: the output folder.
        rows: the rows of the job.
        manifest: the manifest of the folder.
        left: the shards that are not finished, in order.
        log: a function that is called with a line of text after each shard.
    """

    job: Job
    folder: Path
    rows: Rows
    manifest: Manifest
    left: list[int]
    log: Log
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def finish(self, shard: int, counts: dict[str, int], seconds: float) -> None:
        """Note that a shard is finished, and say how far the batch is."""
        self.manifest.shards[shard] = {**counts, "seconds": round(seconds, 3)}
        self.manifest.save()
        self.done += counts["rows"] + counts["rejected"]
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        finished = sum(s["rows"] + s["rejected"] for s in self.manifest.shards.values())
        left = len(self.rows) - finished
        self.log(
            f"{finished:,} of {quantity(len(self.rows), 'row')}, {rate:.1f} a second, "
            f"{_spell(left / rate)} left"
        )


def read_rows(job: Job, dataset: Dataset) -> Rows:
    """Read the rows of a job, given its dataset."""
    settings = Settings.of(job.settings)
    if job.run is not None:
        settings = Settings.of(Run.read(find_run(job.run)).serving_settings(job.settings))
    behavior = behavior_of(settings, dataset, template_of(settings, dataset))
    return Rows.read(dataset, None if job.users is None else Path(job.users), behavior)


def adopt(folder: Path, manifest: Manifest) -> int:
    """Bring the manifest up to date with the files, and return the number of finished shards."""
    for shard in range(manifest.n_shards):
        counts = count_rows(folder, shard)
        if counts is None:
            manifest.shards.pop(shard, None)
        elif shard not in manifest.shards:  # the process ended between the file and the manifest
            manifest.shards[shard] = {**counts, "seconds": None}
    return len(manifest.shards)


def open_writer(folder: Path, threads: int | None) -> ShardWriter:
    """Load what the job in a folder needs.

    Args:
        folder: the output folder, whose manifest describes the job.
        threads: the number of threads of the model; None for the job's own.

    Raises:
        GenrecError: the dataset, its rows or the model cannot be loaded.
    """
    job = Job.of(read_manifest(folder)["job"])
    dataset = job.load_dataset()
    rows = read_rows(job, dataset)
    loading = job.loading if threads is None else {**job.loading, "threads": threads}
    recommender = replace(job, loading=loading).load_recommender(dataset, tell)
    return ShardWriter(job, rows, recommender, folder)


def describe(error: Exception) -> str:
    """Describe an error that ended a shard, with advice if memory ran out."""
    if isinstance(error, GenrecError):
        return str(error)
    if isinstance(error, OSError):
        return describe_error(error)
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    if is_about_memory(error):
        return f"Memory ran out: {said.splitlines()[0]} {LESS_MEMORY}"
    return said


def is_about_memory(error: Exception) -> bool:
    """Return True if an error says that memory could not be allocated, in main memory or on a GPU."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


def as_error(answer: Mapping[str, Any]) -> GenrecError:
    """Return the error that another process reported as ``error`` and ``kind``."""
    kinds: dict[str, type[GenrecError]] = {"DataError": DataError, "SettingsError": SettingsError}
    return kinds.get(answer["kind"], BatchError)(answer["error"])


def tell(message: str) -> None:
    """Print a message to the standard error stream."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def _spell(seconds: float) -> str:
    """Spell a time span.

    >>> _spell(42), _spell(600), _spell(30_000)
    ('42 s', '10 min', '8.3 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
