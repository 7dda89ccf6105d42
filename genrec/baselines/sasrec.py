"""Predict the next item with SASRec, a causal transformer over item vectors.

Deals with catalog rows, not with titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from genrec.baselines.sequence import Batch, Net, NetScorer, Sequences, Transformer, init_weights
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.types import IntArray


class ItemNet(Net):
    """A ``Transformer`` over learned item vectors, which are shared by input and output."""

    def __init__(self, n: int, settings: Mapping[str, Any]) -> None:
        """Initialize random weights for n items."""
        super().__init__()
        s = settings
        self.vectors = nn.Embedding(n, s["hidden"])
        self.body = Transformer(s["hidden"], s["layers"], s["heads"], s["dropout"], s["length"])
        init_weights(self)

    def states(self, batch: Batch) -> Tensor:
        """Compute the states after each event; see ``Net.states``."""
        states: Tensor = self.body(self.vectors(batch.row))
        return states

    def items(self) -> Tensor:
        """Return the vectors of the items; see ``Net.items``."""
        return self.vectors.weight


class SASRec(NetScorer):
    """Predicts the next item with self-attention over the latest items.

    The model is from Kang and McAuley 2018 (https://arxiv.org/abs/1808.09781). The loss is the
    softmax cross-entropy over all items, as in RecBole's SASRec-CE. The paper uses a binary loss
    with one sampled negative instead. Klenitskiy and Vasilev 2023
    (https://arxiv.org/abs/2309.07602) measure the difference. The network reads the events with the
    target behavior. If a history has no such events, it reads all events.

    Settings:
        hidden: the width of the network.
        layers: number of layers.
        heads: number of attention heads per layer.
        dropout: the dropout rate.
        length: number of latest events to read.
        epochs: number of passes over all sequences.
        minutes: CPU time in minutes. No epoch is started after this time.
        batch: number of sequences per batch.
        rate: the learning rate.
        seed: the random seed.
    """

    name = "sasrec"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 64, "layers": 2, "heads": 2, "dropout": 0.5, "length": 50, "epochs": 60,
        "minutes": 60, "batch": 256, "rate": 1e-3, "seed": 0,
    }  # fmt: skip

    def build(self) -> Net:
        """Build the network; see ``NetScorer.build``."""
        return ItemNet(len(self.catalog), self.settings)

    def sequences(self, events: TrainingEvents) -> Sequences:
        """Collect the users' events with the target behavior."""
        starts = np.searchsorted(events.user, np.arange(events.n_users + 1))
        return _make_sequences(starts, events.row)

    def read(self, histories: Sequence[History]) -> Sequences:
        """Turn histories into sequences; see ``NetScorer.read``."""
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
        return _make_sequences(starts, np.array([r for one in rows for r in one], dtype=np.int64))


def _make_sequences(starts: IntArray, rows: IntArray) -> Sequences:
    """Make sequences from catalog rows only. Every event in them is a target."""
    zeros = np.zeros(len(rows), dtype=np.int64)
    return Sequences(
        starts, rows, zeros, zeros.astype(np.float64), np.ones(len(rows), dtype=np.bool_)
    )
