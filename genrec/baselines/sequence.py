"""Train neural sequence models, and score items with them. Deals with catalog rows, not titles."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec import files
from genrec.baselines.base import Scorer
from genrec.baselines.ranking import replace_unknown
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.types import FloatArray, IntArray, Log

_CHECKPOINT = "checkpoint.safetensors"
_CHUNK = 256  # number of targets whose logits are in memory at the same time


@dataclass(frozen=True, slots=True)
class Sequences:
    """S sequences with E events in total, oldest event first, concatenated in arrays.

    Attributes:
        starts: (S + 1,) the index at which each sequence starts, followed by E.
        row: (E,) catalog rows.
        behavior: (E,) codes of the behaviors.
        gap: (E,) seconds since the previous event; 0 for the first event of a sequence.
        target: (E,) whether the event is to be predicted.
    """

    starts: IntArray
    row: IntArray
    behavior: IntArray
    gap: FloatArray
    target: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> IntArray:
        """Return the number of events in each sequence, (S,)."""
        return np.diff(self.starts)

    def windows(self, length: int) -> Sequences:
        """Split the sequences into pieces of at most ``length`` events that overlap by one event."""
        starts, index = [0], []
        for first, last in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            for begin in range(first, max(last - 1, first + 1), length - 1):
                index.append(np.arange(begin, min(begin + length, last)))
                starts.append(starts[-1] + len(index[-1]))
        at = np.concatenate(index) if index else np.zeros(0, dtype=np.int64)
        return Sequences(
            np.array(starts), self.row[at], self.behavior[at], self.gap[at], self.target[at]
        )

    def batch(self, which: IntArray) -> Batch:
        """Make a batch of some of the sequences, padded at the end."""
        lengths = self.lengths()[which]
        width = int(lengths.max(initial=1))
        inside = np.arange(width)[None] < lengths[:, None]
        place = np.where(inside, self.starts[which][:, None] + np.arange(width)[None], 0)
        if not len(self.row):
            empty = torch.zeros(len(which), width, dtype=torch.long)
            return Batch(empty, empty, empty.float(), empty.bool(), torch.from_numpy(lengths))
        return Batch(
            torch.from_numpy(self.row[place]),
            torch.from_numpy(self.behavior[place]),
            torch.from_numpy(self.gap[place].astype(np.float32)),
            torch.from_numpy(self.target[place] & inside),
            torch.from_numpy(lengths),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """B sequences of at most T events, padded at the end with row 0.

    Attributes:
        row: (B, T) int64, catalog rows.
        behavior: (B, T) int64, codes of the behaviors.
        gap: (B, T) float32, seconds since the previous event.
        target: (B, T) bool, whether an event is to be predicted; False for padding.
        length: (B,) int64, the number of events.
    """

    row: Tensor
    behavior: Tensor
    gap: Tensor
    target: Tensor
    length: Tensor

    def but_last(self) -> Batch:
        """Return the batch without its last column."""
        return Batch(
            self.row[:, :-1],
            self.behavior[:, :-1],
            self.gap[:, :-1],
            self.target[:, :-1],
            self.length.clamp(max=self.row.shape[1] - 1),
        )


class Transformer(nn.Module):
    """A causal pre-norm transformer of width D with learned position embeddings."""

    def __init__(self, hidden: int, layers: int, heads: int, dropout: float, length: int) -> None:
        """Initialize random weights.

        Args:
            hidden: the width D, a multiple of ``heads``.
            layers: number of layers, each with an attention and a feed-forward block.
            heads: number of attention heads per layer.
            dropout: the dropout rate of the inputs, the attention weights and the block outputs.
            length: maximum number of events in a sequence.
        """
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.positions = nn.Embedding(length, hidden)
        self.qkv = nn.ModuleList(nn.Linear(hidden, 3 * hidden) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(hidden, 4 * hidden) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * hidden, hidden) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2 * layers + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D) states for (B, T, D) inputs. No state depends on later events."""
        rate = self.dropout if self.training else 0.0
        x = functional.dropout(x + self.positions.weight[: x.shape[1]], rate)
        for i, (qkv, out) in enumerate(zip(self.qkv, self.out, strict=True)):
            heads = qkv(self.norms[2 * i](x)).unflatten(-1, (3, self.heads, -1))
            q, k, v = heads.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
            x = x + functional.dropout(out(seen.transpose(1, 2).flatten(2)), rate)
            inner = functional.gelu(self.up[i](self.norms[2 * i + 1](x)))
            x = x + functional.dropout(self.down[i](inner), rate)
        final: Tensor = self.norms[-1](x)
        return final


class Net(nn.Module):
    """A network that computes a state after each event, and a vector for each item."""

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """Return (B, T, D) states after each event, which depend only on the events so far."""

    @abstractmethod
    def items(self) -> Tensor:
        """Return (N, D) vectors of the items. An item's logit is the dot product with the state."""

    def backward(self, batch: Batch) -> float:
        """Compute the gradients of the next-item cross-entropy over all N items.

        The targets are processed in chunks. The logits of all targets at once would not fit into
        the processor's cache, and the computation would take twice as long.

        Args:
            batch: sequences with at least one target.

        Returns:
            The mean loss of the targets, in nats.
        """
        wanted = batch.target[:, 1:]
        states, following = self.states(batch.but_last())[wanted], batch.row[:, 1:][wanted]
        items = self.items()
        near, far = states.detach().requires_grad_(), items.detach().requires_grad_()
        total = 0.0
        for first in range(0, len(near), _CHUNK):
            logits = near[first : first + _CHUNK] @ far.T
            loss = functional.cross_entropy(
                logits, following[first : first + _CHUNK], reduction="sum"
            ) / len(near)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.autograd.backward([states, items], [near.grad, far.grad])
        return total

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """Return (B, N) logits of the item that follows each sequence."""
        last = self.states(batch)[torch.arange(len(batch.length)), batch.length.clamp(min=1) - 1]
        return last @ self.items().T


def init_weights(net: nn.Module) -> None:
    """Initialize matrices from a normal distribution (standard deviation 0.02), and biases to 0."""
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def train_net(
    net: Net, sequences: Sequences, settings: Mapping[str, Any], work: Path | None, log: Log
) -> int:
    """Train a network in place with Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    After each epoch, a checkpoint is written that contains the weights, Adam's moments and the CPU
    time. If training was killed, it is resumed from the last checkpoint, and the result is the
    same.

    Args:
        net: the network to train, which is left in evaluation mode.
        sequences: the training sequences. They must not be longer than the network's maximum
            length. Sequences with a single event are skipped.
        settings: ``epochs``, ``minutes`` (CPU time after which no new epoch is started), ``batch``
            (number of sequences), ``rate`` and ``seed``.
        work: a folder for checkpoints; None to write no checkpoints.
        log: called with a line of text after each epoch.

    Returns:
        The number of epochs trained.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=settings["rate"])
    epoch, seconds = _resume(net, optimizer, work)
    useful = np.flatnonzero(sequences.lengths() > 1)
    with torch.random.fork_rng(devices=[]):
        while epoch < settings["epochs"] and seconds < 60 * settings["minutes"] and len(useful):
            began = time.process_time()
            torch.manual_seed(settings["seed"] * 1_000_003 + epoch)
            rng = np.random.default_rng([settings["seed"], epoch])
            net.train()
            total = count = 0.0
            for which in _shuffle(useful, sequences.lengths(), settings["batch"], rng):
                batch = sequences.batch(which)
                targets = int(batch.target[:, 1:].sum())
                if not targets:
                    continue
                optimizer.zero_grad()
                total, count = total + net.backward(batch) * targets, count + targets
                optimizer.step()
            epoch += 1
            seconds += time.process_time() - began
            _write_checkpoint(net, optimizer, epoch, seconds, work)
            log(f"Epoch {epoch}: {total / max(count, 1):.4f} nats per target, {seconds:.0f} s")
    net.eval()
    return epoch


def _shuffle(
    which: IntArray, lengths: IntArray, size: int, rng: np.random.Generator
) -> Iterator[IntArray]:
    """Batch sequences of similar length to reduce padding, and order the batches at random."""
    shuffled = rng.permutation(which)
    ordered = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _write_checkpoint(
    net: Net, optimizer: torch.optim.Optimizer, epoch: int, seconds: float, work: Path | None
) -> None:
    """Write a checkpoint atomically."""
    if work is None:
        return
    from safetensors.torch import save_file

    tensors = {f"net.{n}": t.contiguous() for n, t in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"adam.{number}.{name}"] = torch.as_tensor(value)
    work.mkdir(parents=True, exist_ok=True)
    about = {"epoch": str(epoch), "seconds": str(seconds)}
    files.write_file(work / _CHECKPOINT, lambda path: save_file(tensors, path, metadata=about))


def _resume(net: Net, optimizer: torch.optim.Optimizer, work: Path | None) -> tuple[int, float]:
    """Load the last checkpoint, and return its number of epochs and its CPU time in seconds.

    If there is no checkpoint, return 0 for both.
    """
    if work is None or not (work / _CHECKPOINT).is_file():
        return 0, 0.0
    from safetensors import safe_open

    with safe_open(work / _CHECKPOINT, framework="pt") as file:
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        about = file.metadata()
    net.load_state_dict({n[4:]: t for n, t in tensors.items() if n.startswith("net.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, part = name.split(".", 2)
            state.setdefault(int(number), {})[part] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(about["epoch"]), float(about["seconds"])


class NetScorer(Scorer):
    """Scores items by the logits of a trained ``Net``, or by popularity for empty histories."""

    @abstractmethod
    def build(self) -> Net:
        """Build the network from the settings, with random weights."""

    @abstractmethod
    def sequences(self, events: TrainingEvents) -> Sequences:
        """Make the sequences to train on."""

    @abstractmethod
    def read(self, histories: Sequence[History]) -> Sequences:
        """Turn histories into sequences of at most ``length`` events."""

    def learn(self, events: TrainingEvents) -> Arrays:
        """Train the network, and return its weights, the number of epochs, and the popularity."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings["seed"])
            net = self.build()
        windows = self.sequences(events).windows(self.settings["length"] + 1)
        epochs = train_net(net, windows, self.settings, self.work, self.log)
        arrays = {f"net.{n}": t.detach().numpy() for n, t in net.state_dict().items()}
        return {**arrays, "epochs": np.array([epochs]), "popularity": events.popularity()}

    @cached_property
    def net(self) -> Net:
        """The trained network."""
        with torch.random.fork_rng(devices=[]):
            net = self.build()
        state = {
            n[4:]: torch.from_numpy(np.array(a)) for n, a in self.arrays.items() if n[:4] == "net."
        }
        net.load_state_dict(state)
        return net.eval()

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all catalog rows; see ``Scorer.scores_many``."""
        sequences = self.read(histories)
        batch = sequences.batch(np.arange(len(histories)))
        scores = self.net.scores(batch).numpy().astype(np.float64)
        return replace_unknown(scores, sequences.lengths() > 0, self.arrays["popularity"])
