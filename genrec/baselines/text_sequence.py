"""Predict the next item with a neural network that knows items only by their titles.

An event is represented by the vector of its item's title, its behavior, and the time since the
previous event. The vector comes from a text encoder or a language model's hidden states. The
three parts are combined and fed into a small LSTM, GRU or transformer. The logit of an item is the
dot product of the network's state and a projection of the item's title vector. Items without any
events can therefore be scored as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.baselines.sequence import Batch, Net, NetScorer, Sequences, Transformer, init_weights
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.data.interactions import Interactions
from genrec.errors import SettingsError
from genrec.matching.vectors import dense, title_vectors
from genrec.types import FloatArray

FUSIONS = ("concat", "mean", "weighted")
BODIES = ("lstm", "gru", "transformer")
_GAPS = 32  # number of classes of time gaps, whose bounds in seconds are powers of two


class TextNet(Net):
    """A network that reads events as combinations of a title, a behavior and a time gap."""

    def __init__(
        self, titles: npt.NDArray[Any], behaviors: int, settings: Mapping[str, Any]
    ) -> None:
        """Initialize random weights.

        Args:
            titles: (N, W) title vectors of the N items, with W dimensions. They are not trained.
            behaviors: number of behaviors in the data. All behaviors that do not occur in the data
                are treated as a single additional behavior.
            settings: the settings of ``TextSequence``.
        """
        super().__init__()  # saved files contain the layers' attribute names, so do not rename them
        s, hidden = settings, settings["hidden"]
        self.dropout, self.fuse, self.kind = s["dropout"], s["fuse"], s["body"]
        self.titles: Tensor
        self.register_buffer("titles", torch.from_numpy(np.asarray(titles, dtype=np.float32)))
        self.input = nn.Linear(titles.shape[1], hidden)
        self.output = nn.Linear(titles.shape[1], hidden)
        self.behaviors = nn.Embedding(behaviors + 1, hidden)
        self.gaps = nn.Embedding(_GAPS, hidden)
        if self.fuse == "concat":
            self.joined = nn.Linear(3 * hidden, hidden)
        elif self.fuse == "weighted":
            self.weights = nn.Parameter(torch.zeros(3))
        self.body: nn.Module
        if self.kind == "transformer":
            self.body = Transformer(hidden, s["layers"], s["heads"], s["dropout"], s["length"])
        else:
            kind = nn.LSTM if self.kind == "lstm" else nn.GRU
            inner = s["dropout"] if s["layers"] > 1 else 0.0
            self.body = kind(hidden, hidden, s["layers"], batch_first=True, dropout=inner)
        init_weights(self)
        for linear in (
            self.input,
            self.output,
        ):  # the inputs are unit vectors, so this keeps their scale
            nn.init.normal_(linear.weight, std=1.0)
        self.norm = nn.LayerNorm(hidden)

    def states(self, batch: Batch) -> Tensor:
        """Compute a state vector after each event of each sequence; see ``Net.states``."""
        rate = self.dropout if self.training else 0.0
        bucket = torch.log2(batch.gap.clamp(min=0) + 1).long().clamp(max=_GAPS - 1)
        parts = [
            self.input(self.titles[batch.row]),
            self.behaviors(batch.behavior),
            self.gaps(bucket),
        ]
        if self.fuse == "concat":
            x = self.joined(torch.cat(parts, dim=-1))
        elif self.fuse == "mean":
            x = sum(parts[1:], parts[0]) / 3.0
        else:
            shares = torch.softmax(self.weights, dim=0)
            x = sum(
                (w * p for w, p in zip(shares[1:], parts[1:], strict=True)),
                shares[0] * parts[0],
            )
        x = functional.dropout(x, rate)
        states = self.body(x) if self.kind == "transformer" else self.body(x)[0]
        final: Tensor = self.norm(functional.dropout(states, rate))
        return final

    def items(self) -> Tensor:
        """Compute a vector for each item from its title; see ``Net.items``."""
        vectors: Tensor = self.output(self.titles)
        return vectors / math.sqrt(vectors.shape[1])


class TextSequence(NetScorer):
    """Predicts the next item with a network that represents items by vectors of their titles.

    Representing items by their text follows Hou et al. 2022 (UniSRec,
    https://arxiv.org/abs/2206.05941). The recurrent networks are as in Hidasi et al. 2016 (GRU4Rec,
    https://arxiv.org/abs/1511.06939). The loss is the softmax cross-entropy over all items. The
    network reads events of all behaviors, but is trained to predict only events with the target
    behavior.

    Settings:
        encoder: the encoder for titles, such as ``lm:smollm2-135m``; see ``Content``.
        fuse: how title, behavior and time gap are combined: ``concat``, ``mean`` or ``weighted``.
        body: the type of network: ``lstm``, ``gru`` or ``transformer``.

    All other settings are the same as for ``sasrec``.
    """

    name = "textseq"
    defaults: ClassVar[Mapping[str, Any]] = {
        "encoder": "minilm", "fuse": "concat", "body": "gru", "hidden": 64, "layers": 1, "heads": 2,
        "dropout": 0.2, "length": 50, "epochs": 30, "minutes": 60, "batch": 256, "rate": 1e-3,
        "seed": 0,
    }  # fmt: skip

    def __init__(self, interactions: Interactions, behavior: str, **options: Any) -> None:
        """Check the settings, and fit the baseline to all users' events that precede a split.

        Args:
            interactions: the events, which are split into train, validation and test parts.
            behavior: the behavior to predict.
            **options: the other arguments of ``Scorer`` and the settings.

        Raises:
            SettingsError: a setting or its value is unknown.
        """
        self.codes = {b: n for n, b in enumerate(interactions.behaviors)}
        settings = self.settings_of({n: v for n, v in options.items() if n in self.defaults})
        for name, known in (("fuse", FUSIONS), ("body", BODIES)):
            if settings[name] not in known:
                msg = (
                    f"Unknown value {name}={settings[name]!r}. Expected one of: {', '.join(known)}."
                )
                raise SettingsError(msg)
        super().__init__(interactions, behavior, **options)

    def learn(self, events: TrainingEvents) -> Arrays:
        """Train the network on events, and return its weights and the title vectors as arrays."""
        encoder = self.settings["encoder"]
        self.titles = dense(title_vectors(self.catalog, encoder, self.log, self.index))
        return super().learn(events)

    def build(self) -> Net:
        """Build a network with random weights; see ``NetScorer.build``."""
        titles = self.arrays["net.titles"] if hasattr(self, "arrays") else self.titles
        return TextNet(titles, len(self.codes), self.settings)

    def sequences(self, events: TrainingEvents) -> Sequences:
        """Build one training sequence per user from the events of all behaviors."""
        c = events.interactions.columns
        at = np.flatnonzero((c.split < events.limit) & (c.row >= 0))
        _, user = np.unique(c.user[at], return_inverse=True)
        starts = np.searchsorted(user, np.arange(int(user.max(initial=-1)) + 2))
        target = c.behavior[at] == self.codes[self.behavior]
        return Sequences(
            starts, c.row[at], c.behavior[at], _compute_gaps(starts, c.timestamp[at]), target
        )

    def read(self, histories: Sequence[History]) -> Sequences:
        """Convert histories to input sequences for the network; see ``NetScorer.read``."""
        kept = [
            [i for i in h.interactions if i.item_id is not None][-self.settings["length"] :]
            for h in histories
        ]
        starts = np.cumsum([0, *map(len, kept)])
        events = [i for one in kept for i in one]
        row = np.array([self.catalog.row(i.item_id or "") for i in events], dtype=np.int64)
        other = len(self.codes)
        behavior = np.array([self.codes.get(i.behavior, other) for i in events], dtype=np.int64)
        time = np.array([i.timestamp for i in events], dtype=np.float64)
        return Sequences(
            starts, row, behavior, _compute_gaps(starts, time), np.ones(len(row), dtype=np.bool_)
        )


def _compute_gaps(starts: np.ndarray[Any, Any], time: np.ndarray[Any, Any]) -> FloatArray:
    """Compute the time that passed between each event and the one before it.

    Args:
        starts: index at which each sequence starts, followed by the number of events, E.
        time: (E,) time of each event.

    Returns:
        (E,) differences; 0 for the first event of a sequence.
    """
    gaps = np.diff(time, prepend=time[:1])
    gaps[starts[:-1][starts[:-1] < len(gaps)]] = 0.0
    return np.maximum(gaps, 0.0)
