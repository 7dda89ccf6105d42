"""Read the lines of a catalog in advance, so that no request has to wait for them.

With ``attention="by_event"``, a line is an event as the prompt prints it, such as ``bought: red mug``.
This module builds prompts that hold the lines of all items and lets the model read them. The store of
the model keeps what was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.decoding.block_reading import ByEvent
from genrec.models.line_files import SHARD
from genrec.prompts.encoder import EncodedPrompt
from genrec.types import Log

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel

LINES = "lines"  # the subfolder of a cache that holds the files
WARMED = 2048  # default of the maximum size of all files in MiB
_EVENTS = 25  # number of lines in a prompt
_SHARE = 0.01  # behaviors with a smaller share of the events are left out
_USERS = 200  # number of users whose prompts are examined afterwards


@dataclass(frozen=True, slots=True)
class Warmed:
    """What was stored.

    Attributes:
        lines: number of lines that were read or were stored already.
        wanted: number of lines of all items.
        seconds: how long it took.
        coverage: share of the older events in the prompts of some users whose line is stored now,
            from 0 to 1; None if these users have no older events.
        users: number of these users.
        store: sizes of the store; see ``StoreUse.to_dict``.
        folder: the folder with the files.
    """

    lines: int
    wanted: int
    seconds: float
    coverage: float | None
    users: int
    store: dict[str, float]
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)


def warm(
    model: LanguageModel,
    by_event: ByEvent,
    dataset: Dataset,
    render: Callable[[History], EncodedPrompt],
    prompt: Callable[[History], EncodedPrompt],
    log: Log,
) -> Warmed:
    """Read the lines of all items of a dataset, the most frequent ones first.

    It stops when the files would become larger than their budget.

    Args:
        model: the language model.
        by_event: how events are read and stored. The files must have a budget.
        dataset: the dataset.
        render: function that renders a window of events exactly as given.
        prompt: function that builds the prompt of a history as for a request.
        log: function that is called with a line of text from time to time.
    """
    started = said = time.perf_counter()
    options = by_event.lines
    assert options is not None
    assert options.folder is not None
    events = _events(dataset)
    done = 0
    for first in range(0, len(events), _EVENTS):
        some = events[first : first + _EVENTS]
        ByEvent(0, options).read(model, [render(History(tuple(some)))])
        done += len(some)
        files = model.lines.use().files
        if files is None or files.bytes + SHARD > options.disk:
            break
        if time.perf_counter() - said > 5:
            said = time.perf_counter()
            log(f"{done:,} of {len(events):,} lines ({files.bytes / 2**20:,.0f} MiB)")
    model.lines.flush()
    users = _sample(dataset, by_event.recent)
    stored = total = 0
    for user in users:
        found, every = model.count_stored(
            prompt(dataset.interactions.history(user)).by_event(by_event.recent), options
        )
        stored, total = stored + found, total + every
    return Warmed(
        done,
        len(events),
        time.perf_counter() - started,
        stored / total if total else None,
        len(users),
        model.lines.use().to_dict(),
        str(options.folder),
    )


def _events(dataset: Dataset) -> list[Interaction]:
    """Return one event for each item and each frequent behavior, the most frequent items first."""
    rows = dataset.interactions.columns.row
    count = np.bincount(rows[rows >= 0], minlength=len(dataset.catalog))
    order = np.argsort(-count, kind="stable").tolist()
    return [
        Interaction(dataset.catalog[row].item_id, behavior)
        for behavior in _behaviors(dataset)
        for row in order
    ]


def _behaviors(dataset: Dataset) -> Iterator[str]:
    """Yield the behaviors that have a share of the events with items, most frequent first."""
    columns, names = dataset.interactions.columns, dataset.interactions.behaviors
    behavior = columns.behavior[columns.row >= 0]
    count = np.bincount(behavior, minlength=len(names))
    for index in np.argsort(-count, kind="stable").tolist():
        if count[index] >= max(_SHARE * len(behavior), 1):
            yield names[index]


def _sample(dataset: Dataset, recent: int) -> Sequence[str]:
    """Choose users who have more events than are read in full, the same ones every time."""
    ids = dataset.interactions.user_ids
    order = np.random.default_rng(0).permutation(len(ids)).tolist()
    long = (ids[i] for i in order if len(dataset.interactions.history(ids[i])) > recent)
    return [user for _, user in zip(range(_USERS), long, strict=False)]
