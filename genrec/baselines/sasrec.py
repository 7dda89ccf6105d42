"""Predict the next item with SASRec, a causal transformer over learned item vectors.

This module deals with catalog rows, not with titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from genrec.baselines.sequence import Batch, Net, NetScorer, Sequences, Transformer, init_weights
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.types import IntArray


class ItemNet(Net):
    """A transformer that uses the same learned item vectors for its input and its output."""

    def __init__(self, n: int, settings: Mapping[str, Any]) -> None:
        """Initialize random weights.

        Args:
            n: number of items.
            settings: the settings of ``SASRec``.
        """
        super().__init__()
        s = settings
        self.vectors = nn.Embedding(n, s["hidden"])
        self.body = Transformer(s["hidden"], s["layers"], s["heads"], s["dropout"], s["length"])
        init_weights(self)

    def states(self, batch: Batch) -> Tensor:
        """Compute a state vector after each event of each sequence; see ``Net.states``."""
        states: Tensor = self.body(self.vectors(batch.row))
        return states

    def items(self) -> Tensor:
        """Return the learned vector of each item; see ``Net.items``."""
        return self.vectors.weight


class SASRec(NetScorer):
    """Predicts the next item with a network that attends to the most recent items in a history.

    The model is from Kang and McAuley 2018 (https://arxiv.org/abs/1808.09781). The loss is the
    softmax cross-entropy over all items, as in RecBole's SASRec-CE, whereas the paper uses a binary
    loss with one sampled negative. Klenitskiy and Vasilev 2023 (https://arxiv.org/abs/2309.07602)
    compare the two. The network takes only the events with the target behavior into account. If a
    history has no such events, it uses all events.

    Settings:
        hidden: number of dimensions of the vectors in the network.
        layers: number of layers.
        heads: number of attention heads per layer.
        dropout: the dropout rate.
        length: maximum number of the most recent events to use.
        epochs: maximum number of passes over the training sequences.
        minutes: CPU time in minutes after which no new epoch is started.
        batch: number of sequences per batch.
        rate: the learning rate.
        seed: the random seed.
    """

    name = "sasrec"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": 64, "layers": 2, "heads": 2, "dropout": 0.5, "length": 50, "epochs": 60,
        "minutes": 60, "batch": 256, "rate": 1e-3, "seed": 0,
    }  # fmt: skip

    @classmethod
    def restore(
        cls, catalog: Catalog, behavior: str, arrays: Arrays, settings: Mapping[str, Any]
    ) -> Self:
        """Return the fitted baseline with the given arrays, without the events it was fitted to."""
        found = cls.__new__(cls)
        found.catalog, found.behavior, found.arrays = catalog, behavior, arrays
        found.settings = cls.settings_of(settings)
        return found

    def build(self) -> Net:
        """Build a network with random weights; see ``NetScorer.build``."""
        return ItemNet(len(self.catalog), self.settings)

    def sequences(self, events: TrainingEvents) -> Sequences:
        """Build one training sequence per user from the events with the target behavior."""
        starts = np.searchsorted(events.user, np.arange(events.n_users + 1))
        return _make_sequences(starts, events.row)

    def read(self, histories: Sequence[History]) -> Sequences:
        """Convert histories to input sequences for the network; see ``NetScorer.read``."""
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
    """Build sequences in which every event is a target, and all behaviors and gaps are 0.

    Args:
        starts: index in ``rows`` at which each sequence starts, followed by the number of events.
        rows: catalog rows of the events of all sequences.
    """
    zeros = np.zeros(len(rows), dtype=np.int64)
    return Sequences(
        starts, rows, zeros, zeros.astype(np.float64), np.ones(len(rows), dtype=np.bool_)
    )
