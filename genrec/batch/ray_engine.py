"""Compute the shards of a batch with Ray Data, on one machine or on a cluster.

Each actor loads the model once and computes whole shards, which it writes to the output folder, so all
nodes need the same paths. Ray starts an actor again when it has ended, and the driver plans the shards
that are not finished.
"""

from __future__ import annotations

import json
import logging
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genrec.batch.plan import (
    ATTEMPTS,
    LESS_MEMORY,
    BatchError,
    Plan,
    as_error,
    describe,
    open_writer,
)
from genrec.batch.shards import ShardWriter
from genrec.errors import SettingsError
from genrec.extras import how_to_install


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        SettingsError: it is not.
    """
    if find_spec("ray") is None:
        msg = f"engine='ray' needs the package ray. {how_to_install('ray')}"
        raise SettingsError(msg)


class _Actor:
    """Computes shards in a process of Ray; ``folder`` is the output folder."""

    def __init__(self, folder: str, threads: int | None) -> None:
        self._folder, self._threads = Path(folder), threads
        self._writer: ShardWriter | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Compute the shard ``row["item"]``."""
        start, shard = time.monotonic(), int(row["item"])
        try:
            if self._writer is None:
                self._writer = open_writer(self._folder, self._threads)
            counts = self._writer.write(shard)
        except Exception as error:  # it would come again
            told = {"shard": shard, "error": describe(error), "kind": type(error).__name__}
        else:
            told = {"shard": shard, "counts": counts, "seconds": time.monotonic() - start}
        return {"told": json.dumps(told)}


def run_on_ray(plan: Plan, workers: int) -> None:
    """Compute the shards that are left with actors of Ray.

    Ray is started on this machine unless it runs already or ``RAY_ADDRESS`` names a cluster.

    Args:
        plan: the plan.
        workers: the largest number of actors, each with one CPU, or one GPU if Ray knows of any.

    Raises:
        GenrecError: an actor reported an error, or actors ended too often.
    """
    import ray

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised below
    threads = plan.job.loading.get("threads") or 1
    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS")
        ray.init(
            address=address,
            num_cpus=None if address else max(workers * threads, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        _compute(plan, workers, threads, ray)
    except ray.exceptions.RayError as error:
        msg = (
            f"An actor of Ray ended {ATTEMPTS} times: {str(error).splitlines()[0]} If it was killed, "
            f"memory may have run out. {LESS_MEMORY} Finished shards are kept; the same command continues."
        )
        raise BatchError(msg) from error
    finally:
        if started:
            ray.shutdown()


def _compute(plan: Plan, workers: int, threads: int, ray: Any) -> None:
    gpus = ray.cluster_resources().get("GPU", 0)
    shards = ray.data.from_items(plan.left, override_num_blocks=len(plan.left))
    resources = {"num_gpus": 1} if gpus else {"num_cpus": threads}
    done = shards.map(
        _Actor,
        fn_constructor_args=(str(plan.folder.resolve()), threads),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        max_restarts=ATTEMPTS - 1,
        max_task_retries=ATTEMPTS - 1,
        **resources,
    )
    for row in done.iter_rows():
        told = json.loads(row["told"])
        if "error" in told:
            raise as_error(told)
        plan.finish(told["shard"], told["counts"], told["seconds"])
