"""Train neural networks on sequences of events, and score items with them.

This module deals with catalog rows, not with titles.
"""

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
_CHUNK = 256  # maximum number of targets whose logits are in memory at the same time


@dataclass(frozen=True, slots=True)
class Sequences:
    """S sequences of events, which are concatenated in arrays with E entries in total.

    Each sequence begins with its oldest event.

    Attributes:
        starts: (S + 1,) index at which each sequence starts, followed by E.
        row: (E,) catalog row of each event's item.
        behavior: (E,) numeric code of each event's behavior.
        gap: (E,) time in seconds since the previous event; 0 for the first event of a sequence.
        target: (E,) whether the network is trained to predict the event.
    """

    starts: IntArray
    row: IntArray
    behavior: IntArray
    gap: FloatArray
    target: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> IntArray:
        """Return the number of events in each of the S sequences, as an (S,) array."""
        return np.diff(self.starts)

    def windows(self, length: int) -> Sequences:
        """Split each sequence into pieces of at most ``length`` events.

        The last event of a piece is also the first event of the next piece.
        """
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
        """Build a batch from selected sequences, which are padded to the same length.

        Args:
            which: indices of the sequences.
        """
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
    """A batch of B sequences of events, padded at the end to the same length of T events.

    Attributes:
        row: (B, T) int64 catalog row of each event's item; padding has an arbitrary row.
        behavior: (B, T) int64 numeric code of each event's behavior.
        gap: (B, T) float32 time in seconds since the previous event.
        target: (B, T) bool mask of the events to be predicted; False for padding.
        length: (B,) int64 number of events in each sequence, without padding.
    """

    row: Tensor
    behavior: Tensor
    gap: Tensor
    target: Tensor
    length: Tensor

    def but_last(self) -> Batch:
        """Return the batch without the last of its T columns."""
        return Batch(
            self.row[:, :-1],
            self.behavior[:, :-1],
            self.gap[:, :-1],
            self.target[:, :-1],
            self.length.clamp(max=self.row.shape[1] - 1),
        )


class Transformer(nn.Module):
    """A causal transformer with normalization before each block and learned position embeddings."""

    def __init__(self, hidden: int, layers: int, heads: int, dropout: float, length: int) -> None:
        """Initialize random weights.

        Args:
            hidden: number of dimensions of the vectors, which must be a multiple of ``heads``.
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
        """Compute a state vector for each event from that event and all events before it.

        Args:
            x: (B, T, D) input vectors of B sequences of T events, with D dimensions.

        Returns:
            (B, T, D) state vectors.
        """
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
    """A network that predicts the next item in a sequence of events.

    It computes a state vector after each event and a vector for each item. The logit of an item is
    the dot product of the two.
    """

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """Compute a state vector after each event, which depends only on the events so far.

        Args:
            batch: B sequences of T events.

        Returns:
            (B, T, D) state vectors with D dimensions.
        """

    @abstractmethod
    def items(self) -> Tensor:
        """Compute the vectors of all N items.

        Returns:
            (N, D) vectors with the same D dimensions as the state vectors.
        """

    def backward(self, batch: Batch) -> float:
        """Compute the loss of a batch and its gradients.

        The loss is the cross-entropy of predicting the next item among all items. The targets are
        processed in chunks, because the logits of all targets together would not fit into the
        processor's cache, and the computation would take twice as long.

        Args:
            batch: sequences with at least one event to be predicted.

        Returns:
            The mean loss per target, in nats.
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
        """Compute the next-item logits over all items for each sequence.

        Args:
            batch: B sequences.

        Returns:
            (B, N) logits of the N items.
        """
        last = self.states(batch)[torch.arange(len(batch.length)), batch.length.clamp(min=1) - 1]
        return last @ self.items().T


def init_weights(net: nn.Module) -> None:
    """Set the weights of a network to random numbers and its biases to 0, in place.

    The random numbers are drawn from a normal distribution with a standard deviation of 0.02.
    """
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def train_net(
    net: Net, sequences: Sequences, settings: Mapping[str, Any], work: Path | None, log: Log
) -> int:
    """Train a network in place with Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    After each epoch, a checkpoint is written that contains the weights, the state of Adam and the
    CPU time used. Training continues from the last checkpoint if there is one. The result is the
    same as that of uninterrupted training.

    Args:
        net: the network to train, which is left in evaluation mode.
        sequences: the training sequences, which must not exceed the network's maximum length.
            Sequences with a single event are skipped.
        settings: the settings ``epochs``, ``minutes``, ``batch``, ``rate`` and ``seed``, which are
            described in ``SASRec``.
        work: a folder for checkpoints; None to write no checkpoints.
        log: function that is called with a line of text after each epoch.

    Returns:
        The number of epochs completed.
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
            work = _write_checkpoint(net, optimizer, epoch, seconds, work, log)
            log(f"Epoch {epoch}: {total / max(count, 1):.4f} nats per target, {seconds:.0f} s")
    net.eval()
    return epoch


def _shuffle(
    which: IntArray, lengths: IntArray, size: int, rng: np.random.Generator
) -> Iterator[IntArray]:
    """Divide sequences into batches in random order.

    Sequences of similar length are put in the same batch, so that little padding is needed.

    Args:
        which: indices of the sequences to use.
        lengths: number of events in each sequence.
        size: number of sequences per batch.
        rng: the random number generator.

    Yields:
        The indices of the sequences in each batch.
    """
    shuffled = rng.permutation(which)
    ordered = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _write_checkpoint(
    net: Net,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    seconds: float,
    work: Path | None,
    log: Log,
) -> Path | None:
    """Atomically write a checkpoint from which training can continue.

    Args:
        net: the network.
        optimizer: the optimizer, whose state is also saved.
        epoch: number of epochs completed.
        seconds: CPU time used so far.
        work: the folder for checkpoints; None to write nothing.
        log: function that is called with a line of text if the checkpoint cannot be written.

    Returns:
        The folder for the next checkpoint; None if this one could not be written. Training then
        continues without checkpoints.
    """
    if work is None:
        return None
    from safetensors.torch import save_file

    tensors = {f"net.{n}": t.contiguous() for n, t in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"adam.{number}.{name}"] = torch.as_tensor(value)
    about = {"epoch": str(epoch), "seconds": str(seconds)}
    try:
        work.mkdir(parents=True, exist_ok=True)
        files.write_file(work / _CHECKPOINT, lambda path: save_file(tensors, path, metadata=about))
    except OSError as error:
        reason = files.describe_error(error)
        log(
            f"The checkpoint in {work} cannot be written ({reason}). Training continues without it."
        )
        return None
    return work


def epochs_done(work: Path) -> int:
    """Return the number of epochs after which the checkpoint in a folder was written; 0 if none was."""
    path = work / _CHECKPOINT
    if files.describe_unreadable(path) or not path.is_file():
        return 0
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["epoch"])


def _resume(net: Net, optimizer: torch.optim.Optimizer, work: Path | None) -> tuple[int, float]:
    """Load the last checkpoint into the network and the optimizer, if there is one.

    Returns:
        The number of epochs completed and the CPU time used so far in seconds; both are 0 if there
        is no checkpoint.
    """
    if work is None or files.describe_unreadable(work / _CHECKPOINT):
        return 0, 0.0
    if not (work / _CHECKPOINT).is_file():
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
    """The base class for baselines that score items with a neural network.

    For an empty history, items are scored by popularity.
    """

    @abstractmethod
    def build(self) -> Net:
        """Build a network with random weights according to the settings."""

    @abstractmethod
    def sequences(self, events: TrainingEvents) -> Sequences:
        """Build the sequences on which the network is trained.

        Args:
            events: the events to use.
        """

    @abstractmethod
    def read(self, histories: Sequence[History]) -> Sequences:
        """Convert histories to input sequences for the network.

        Each sequence consists of the most recent events in a history, up to the setting ``length``.
        """

    def learn(self, events: TrainingEvents) -> Arrays:
        """Train the network on events, and return its weights and the popularity as arrays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings["seed"])
            net = self.build()
        windows = self.sequences(events).windows(self.settings["length"] + 1)
        epochs = train_net(net, windows, self.settings, self.work, self.log)
        arrays = {f"net.{n}": t.detach().numpy() for n, t in net.state_dict().items()}
        return {**arrays, "epochs": np.array([epochs]), "popularity": events.popularity()}

    @cached_property
    def net(self) -> Net:
        """Return the trained network, which is built from the saved weights on first use."""
        with torch.random.fork_rng(devices=[]):
            net = self.build()
        state = {
            n[4:]: torch.from_numpy(np.array(a)) for n, a in self.arrays.items() if n[:4] == "net."
        }
        net.load_state_dict(state)
        return net.eval()

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all items by the network's logits; see ``Scorer.scores_many``."""
        sequences = self.read(histories)
        batch = sequences.batch(np.arange(len(histories)))
        scores = self.net.scores(batch).numpy().astype(np.float64)
        return replace_unknown(scores, sequences.lengths() > 0, self.arrays["popularity"])
