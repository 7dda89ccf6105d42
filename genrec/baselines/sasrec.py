"""SASRec: the next item from a causal transformer over item vectors; and how such nets are trained.

Knows catalog rows, nothing of titles. ``Sequences``, ``Transformer`` and ``train`` also serve
``textseq``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from genrec.baselines.base import Events
from genrec.baselines.sequence import Batch, Net, NetScorer, Sequences, Transformer, start
from genrec.data.events import History
from genrec.types import IntArray


class ItemNet(Net):
    """A learned vector per item, the same for input and output, through a ``Transformer``."""

    def __init__(self, n: int, settings: Mapping[str, Any]) -> None:
        """Random weights for n items."""
        super().__init__()
        s = settings
        self.vectors = nn.Embedding(n, s["hidden"])
        self.body = Transformer(s["hidden"], s["layers"], s["heads"], s["dropout"], s["length"])
        start(self)

    def states(self, batch: Batch) -> Tensor:
        """See ``Net.states``."""
        states: Tensor = self.body(self.vectors(batch.row))
        return states

    def items(self) -> Tensor:
        """See ``Net.items``."""
        return self.vectors.weight


class SASRec(NetScorer):
    """Self-attention over the latest items (Kang and McAuley 2018, https://arxiv.org/abs/1808.09781).

    The loss is full softmax cross-entropy over all items, as RecBole's SASRec-CE has it, and not the
    binary loss with one sampled negative of the paper (Klenitskiy and Vasilev 2023,
    https://arxiv.org/abs/2309.07602, on what that changes). Reads the target behavior's events, or
    all of a history that has none.
    """

    name = "sasrec"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 64, "layers": 2, "heads": 2, "dropout": 0.5, "length": 50, "epochs": 60,
        "minutes": 60, "batch": 256, "rate": 1e-3, "seed": 0,
    }  # fmt: skip

    def build(self) -> Net:
        """See ``NetScorer.build``."""
        return ItemNet(len(self.catalog), self.settings)

    def sequences(self, events: Events) -> Sequences:
        """The users' events of the target behavior."""
        starts = np.searchsorted(events.user, np.arange(events.n_users + 1))
        return plain(starts, events.row)

    def read(self, histories: Sequence[History]) -> Sequences:
        """See ``NetScorer.read``."""
        rows = []
        for history in histories:
            wanted = [
                i.item_id
                for i in history.interactions
                if i.behavior == self.behavior and i.item_id is not None
            ]
            latest = (wanted or list(history.item_ids))[-self.settings["length"] :]
            rows.append(self.catalog.rows(latest))
        starts = np.cumsum([0, *map(len, rows)])
        return plain(starts, np.array([r for one in rows for r in one], dtype=np.int64))


def plain(starts: IntArray, rows: IntArray) -> Sequences:
    """Sequences of rows alone, every event a target."""
    nothing = np.zeros(len(rows), dtype=np.int64)
    return Sequences(
        starts, rows, nothing, nothing.astype(np.float64), np.ones(len(rows), dtype=np.bool_)
    )
