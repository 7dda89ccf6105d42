"""Run a batch from its beginning or from where it was interrupted."""

from __future__ import annotations

import time
from pathlib import Path

from genrec.batch.job import Inputs, Job, Manifest
from genrec.batch.local import run_processes
from genrec.batch.plan import (
    BatchError,
    Plan,
    Report,
    adopt,
    describe,
    is_about_memory,
    read_rows,
)
from genrec.batch.ray_engine import check_ray, run_on_ray
from genrec.batch.shards import ShardWriter
from genrec.errors import SettingsError
from genrec.files import lock_folder
from genrec.text import quantity
from genrec.types import Log

ENGINES = ("local", "ray")


def run(
    job: Job,
    folder: str | Path,
    *,
    engine: str = "local",
    workers: int = 1,
    log: Log = lambda message: None,
) -> Report:
    """Run a batch, or continue one that was interrupted.

    Every row of the input ends in exactly one row of ``part-*.parquet`` or of ``rejected-*.parquet`` in
    the output folder. A shard that is finished is never computed again.

    Args:
        job: what to do.
        folder: the output folder: new, empty, or that of the same job.
        engine: ``local`` for processes on this machine, or ``ray`` for actors of Ray.
        workers: the number of processes or actors, each of which loads the model. One local worker is
            this process. Without ``threads`` in ``job.loading``, local workers share the cores.
        log: a function that is called with a line of text as the batch proceeds.

    Raises:
        SettingsError: the engine is unknown or not installed, or the folder holds something else.
        DataError: the input cannot be read, or the output cannot be written, such as on a full disk.
        BatchError: a shard could not be computed in several attempts, or memory ran out; finished shards are
            kept.
    """
    if engine not in ENGINES:
        msg = f"engine={engine!r} is not valid. Expected one of {', '.join(ENGINES)}."
        raise SettingsError(msg)
    if workers < 1:
        msg = f"workers={workers} is not valid. Expected a whole number of at least 1."
        raise SettingsError(msg)
    if job.server and (engine != "local" or workers != 1):
        msg = (
            "A model behind a server needs one local worker, which sends several requests at once."
        )
        raise SettingsError(msg)
    if engine == "ray":
        check_ray()
    began = time.monotonic()
    folder, job = Path(folder), job.resolved()
    with lock_folder(folder):
        dataset = job.load_dataset()
        rows = read_rows(job, dataset)
        manifest = Manifest(folder, job, Inputs.find(job, dataset, len(rows)))
        manifest.open()
        resumed = adopt(folder, manifest)
        left = [n for n in range(manifest.n_shards) if n not in manifest.shards]
        if resumed:
            log(f"{quantity(resumed, 'shard')} of {manifest.n_shards:,} are finished already")
        plan = Plan(job, folder, rows, manifest, left, log)
        if left and engine == "ray":
            run_on_ray(plan, workers)
        elif left and workers == 1:
            recommender = job.load_recommender(dataset, log)
            writer = ShardWriter(job, rows, recommender, folder)
            for shard in left:
                start = time.monotonic()
                try:
                    counts = writer.write(shard)
                except (MemoryError, RuntimeError) as error:  # PyTorch's error is a RuntimeError
                    if not is_about_memory(error):
                        raise
                    raise BatchError(
                        f"Shard {shard} could not be computed. {describe(error)}"
                    ) from error
                plan.finish(shard, counts, time.monotonic() - start)
        elif left:
            run_processes(plan, min(workers, len(left)))
        manifest.save()
        values = manifest.shards.values()
        return Report(
            folder, len(rows), sum(s["rows"] for s in values), sum(s["rejected"] for s in values),
            manifest.n_shards, resumed, time.monotonic() - began,
        )  # fmt: skip
