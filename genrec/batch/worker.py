"""Compute shards in a process of its own, which ``local`` starts.

The process reads the numbers of shards from its standard input, one per line, and answers each with one
line of JSON. It ends when its input ends, also in the middle of a shard: the process that started it no
longer exists then, and another one may have begun the same shard.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from genrec.batch.plan import describe, open_writer
from genrec.batch.shards import ShardWriter
from genrec.errors import GenrecError


def work(folder: Path, threads: int, orders: TextIO, answers: TextIO) -> None:
    """Answer orders until they end.

    Args:
        folder: the output folder, whose manifest describes the job.
        threads: the number of threads of the model.
        orders: the numbers of shards, one per line.
        answers: receives a line of JSON for each: ``counts``, or ``error`` and its ``kind``.
    """
    waiting: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_listen, args=(orders, waiting), daemon=True).start()
    writer: ShardWriter | None = None
    while True:
        shard = waiting.get()
        try:
            if writer is None:
                writer = open_writer(folder, threads)
            answer: Mapping[str, Any] = {"counts": writer.write(shard)}
        except (
            Exception
        ) as error:  # it would come again: report it rather than end without a reason
            if not isinstance(error, GenrecError):
                traceback.print_exc()
            answer = {"error": describe(error), "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _listen(orders: TextIO, waiting: queue.Queue[int]) -> None:
    for line in orders:
        waiting.put(int(line))
    os._exit(0)


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not be mistaken for an answer
    work(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin, out)
