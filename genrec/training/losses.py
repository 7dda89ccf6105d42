"""Turn training rows into batches, and compute each title's loss over a catalog's trie.

Deals with token ids and the trie, not with texts or the training loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from genrec.decoding.trie import ranges
from genrec.training.sequences import Row
from genrec.training.title_paths import TitlePaths
from genrec.types import IntArray

_WIDE = 64  # number of children from which a node's logits are computed as one matrix product
_CHUNK = 1024  # number of tokens whose vocabulary logits are in memory at the same time


def make_batch(
    packs: Sequence[Sequence[Row]],
    paths: TitlePaths,
    weights: Sequence[Sequence[npt.NDArray[np.float64]]],
    *,
    titles: Sequence[Sequence[int]] | None = None,
    multiple: int = 1,
) -> dict[str, Tensor]:
    """Turn B packs of rows with G targets into tensors.

    Each pack is padded at its end to T tokens.

    Args:
        packs: for each pack, the rows in it.
        paths: the paths of all titles in the trie.
        weights: for each row of each pack, a (targets,) array with the weights of its targets.
        titles: token ids of each catalog row's title, which the loss over the vocabulary needs;
            None to omit this loss.
        multiple: T is rounded up to a multiple of this number.

    Returns:
        Tensors by name. ``input_ids``, ``position_ids``, ``document`` (-1 for padding), ``limit``
        and ``branch`` are (B, T). ``source`` (an index into the B * T states), ``node``,
        ``choice`` and ``target`` have one value for each of S steps down the trie, (S,).
        ``vocab_source``, ``vocab_token`` and ``vocab_target`` have one value for each of M title
        tokens, (M,). ``weight`` and ``constant`` (the natural logarithm of the number of items
        that share the target's title) have one value for each target, (G,).
    """
    arrays, first, place, items = lay_out(packs, weights, multiple=multiple)
    step, count = paths.steps(items)
    target = np.repeat(np.arange(len(items)), count)
    offset = paths.offset[step]
    arrays |= {
        "source": np.where(offset == 0, first[target], place[target] + offset - 1),
        "node": paths.node[step],
        "choice": paths.choice[step],
        "target": target,
        "constant": np.log(paths.copies[items]),
    }
    if titles is not None:
        lengths = np.array([len(titles[i]) for i in items.tolist()])
        owner = np.repeat(np.arange(len(items)), lengths)
        k = ranges(np.zeros(len(items), dtype=np.int64), lengths)
        arrays["vocab_source"] = np.where(k == 0, first[owner], place[owner] + k - 1)
        arrays["vocab_token"] = np.concatenate([np.array(titles[i]) for i in items.tolist()])
        arrays["vocab_target"] = owner
    return to_tensors(arrays)


def lay_out(
    packs: Sequence[Sequence[Row]],
    weights: Sequence[Sequence[npt.NDArray[np.float64]]],
    *,
    multiple: int = 1,
) -> tuple[dict[str, npt.NDArray[Any]], IntArray, IntArray, IntArray]:
    """Arrange packs of rows in padded arrays, for any kind of target.

    Args:
        packs: see ``make_batch``.
        weights: see ``make_batch``.
        multiple: see ``make_batch``.

    Returns:
        The (B, T) arrays of ``make_batch`` and ``weight``, by name, followed by three (G,) arrays.
        These contain the index of the token before each target, the index of the target's first
        token, and the target's catalog row. Both indices count all B * T tokens.
    """
    n = len(packs)
    width = max(sum(map(len, pack)) for pack in packs)
    width = -(-width // multiple) * multiple
    shape = (n, width)
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    document, branch = np.full(shape, -1), np.zeros(shape, np.int64)
    limit = np.broadcast_to(np.arange(1, width + 1), shape).copy()  # padding sees itself
    before, at, item = list[IntArray](), list[IntArray](), list[IntArray]()
    for b, pack in enumerate(packs):
        start = 0
        for d, row in enumerate(pack):
            where = slice(start, start + len(row))
            ids[b, where], position[b, where] = row.ids, row.position
            document[b, where], branch[b, where] = d, row.branch
            limit[b, where] = row.limit + start
            before.append(b * width + start + row.before)
            at.append(b * width + start + row.at)
            item.append(row.item)
            start += len(row)
    arrays = {
        "input_ids": ids,
        "position_ids": position,
        "document": document,
        "limit": limit,
        "branch": branch,
        "weight": np.concatenate([w for pack in weights for w in pack]),
    }
    first, place, items = (np.concatenate(parts) for parts in (before, at, item))
    return arrays, first, place, items


def to_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    """Convert arrays to tensors of 64-bit integers or 32-bit floating-point numbers."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(a)).to(
            torch.float32 if a.dtype == np.float64 else torch.long
        )
        for name, a in arrays.items()
    }


def mark_visible(inputs: dict[str, Tensor], window: int | None = None) -> Tensor:
    """Return a (B, 1, T, T) mask of the tokens that each token attends to.

    Args:
        inputs: a batch; see ``make_batch``.
        window: number of latest positions that a token attends to; None for all positions.
    """
    document, branch, limit = inputs["document"], inputs["branch"], inputs["limit"]
    index = torch.arange(document.shape[1], device=document.device)
    trunk = (branch[:, None] == 0) & (index < limit[:, :, None])
    own = (branch[:, None] == branch[:, :, None]) & (index <= index[:, None])
    seen = (document[:, None] == document[:, :, None]) & (trunk | (own & (branch[:, None] > 0)))
    if window is not None:
        position = inputs["position_ids"]
        near = position[:, None] > position[:, :, None] - window
        seen = seen & (near | torch.eye(len(index), dtype=torch.bool, device=index.device))
    return seen[:, None]


@dataclass(frozen=True, slots=True)
class Head:
    """Turns states into logits with a linear layer. States that are already logits are unchanged.

    Attributes:
        weight: (V, D) the output layer's weight; None if the states are logits.
        bias: (V,) the output layer's bias; None if it has no bias.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None

    def over(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return the (R, C) logits of C tokens after each of R states, in at least 32 bits."""
        if self.weight is None:
            return _widen(states[:, tokens])
        logits = states @ self.weight[tokens].to(states.dtype).T
        if self.bias is not None:
            logits = logits + self.bias[tokens]
        return _widen(logits)

    def each(self, states: Tensor, source: Tensor, tokens: Tensor) -> Tensor:
        """Return the (C,) logits of C tokens, in at least 32 bits.

        Each token follows one of the states.

        Args:
            states: (R, D) the states.
            source: (C,) the index of the state before each token.
            tokens: (C,) token ids.
        """
        if self.weight is None:
            return _widen(states[source, tokens])
        rows = self.weight[tokens].to(states.dtype)
        logits = _widen((rows * states[source]).sum(dim=-1))
        return logits if self.bias is None else logits + self.bias[tokens]

    def all(self, states: Tensor) -> Tensor:
        """Return the (R, V) logits of the whole vocabulary."""
        if self.weight is None:
            return states
        return functional.linear(states, self.weight.to(states.dtype), self.bias)


def _widen(logits: Tensor) -> Tensor:
    """Convert logits to 32 bits, unless they have 64 bits."""
    return logits if logits.dtype == torch.float64 else logits.float()


class CatalogLoss:
    """Computes -ln P(item) as the sum of the log-softmax losses at the nodes of its title's path.

    Each softmax is over the children of a node. Source: the trie-masked loss of MSL (Wang et al.,
    SIGIR 2025, https://arxiv.org/abs/2504.04178), adapted to compressed tries. Tokens that have no
    alternative are skipped.
    """

    def __init__(self, paths: TitlePaths, smoothing: float = 0.0) -> None:
        """Set up the loss for a trie.

        Args:
            paths: the paths of all titles in the trie.
            smoothing: fraction of each choice's target probability that is spread evenly over all
                children.
        """
        trie = paths.trie
        self._first = torch.from_numpy(trie.first_child.astype(np.int64))
        self._token = torch.from_numpy(trie.token.astype(np.int64))
        self._smoothing = smoothing

    def to(self, device: torch.device) -> CatalogLoss:
        """Move the trie's arrays to a device, and return this object."""
        self._first, self._token = self._first.to(device), self._token.to(device)
        return self

    def nats(self, states: Tensor, inputs: dict[str, Tensor], head: Head) -> tuple[Tensor, Tensor]:
        """Compute the nats and the loss of each target. The loss includes label smoothing.

        Args:
            states: (B * T, D) states, or (B * T, V) logits if the head is empty.
            inputs: a batch; see ``make_batch``.
            head: the output layer.

        Returns:
            Two (G,) tensors: -ln P of each target, detached, and the loss of each target.
        """
        node, choice, target = inputs["node"], inputs["choice"], inputs["target"]
        states = states[inputs["source"]]
        count = self._first[node + 1] - self._first[node]
        taken = torch.zeros(len(node), device=node.device, dtype=_widen(states).dtype)
        smooth = torch.zeros_like(taken)
        wide = count >= _WIDE
        parts = []
        if bool((~wide).any()):
            parts.append(
                self._narrow(states, node, choice, count, torch.nonzero(~wide)[:, 0], head)
            )
        for one in torch.unique(node[wide]).tolist():
            at = torch.nonzero(wide & (node == one))[:, 0]
            tokens = self._token[int(self._first[one]) : int(self._first[one + 1])]
            logprobs = torch.log_softmax(head.over(states[at], tokens), dim=-1)
            chosen = logprobs.gather(1, choice[at][:, None])[:, 0]
            parts.append((at, chosen, logprobs.mean(dim=-1)))
        for at, chosen, mean in parts:
            taken = taken.index_put((at,), chosen)
            smooth = smooth.index_put((at,), mean)
        s = self._smoothing
        zero = torch.zeros(len(inputs["weight"]), device=node.device, dtype=taken.dtype)
        nats = zero.index_add(0, target, -taken.detach()) + inputs["constant"]
        step = -taken if not s else -(1 - s) * taken - s * smooth
        return nats, zero.index_add(0, target, step) + inputs["constant"]

    def _narrow(
        self, states: Tensor, node: Tensor, choice: Tensor, count: Tensor, at: Tensor, head: Head
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Handle the steps at nodes with few children. All children are put in one array."""
        count, first = count[at], self._first[node[at]]
        source = torch.repeat_interleave(torch.arange(len(at), device=at.device), count)
        start = torch.cumsum(count, 0) - count
        child = first[source] + torch.arange(len(source), device=at.device) - start[source]
        logits = head.each(states, at[source], self._token[child])
        most = torch.full((len(at),), -torch.inf, device=at.device, dtype=logits.dtype)
        most = most.scatter_reduce(0, source, logits.detach(), "amax")
        total = torch.zeros_like(most).index_add(0, source, torch.exp(logits - most[source]))
        norm = most + torch.log(total)
        chosen = logits[start + choice[at]] - norm
        mean = torch.zeros_like(most).index_add(0, source, logits) / count - norm
        return at, chosen, mean


def vocab_nats(states: Tensor, inputs: dict[str, Tensor], head: Head) -> Tensor:
    """Return (G,) -ln P of each target's title over the vocabulary.

        A title's terminator is included.

    Args:
        states: (B * T, D) states, or (B * T, V) logits if the head is empty.
        inputs: a batch with titles; see ``make_batch``.
        head: the output layer. Its logits are computed in chunks, and again for the gradient.
    """
    source, token = inputs["vocab_source"], inputs["vocab_token"]

    def chunk(some: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(_widen(head.all(some)), wanted, reduction="none")

    parts = []
    for first in range(0, len(source), _CHUNK):
        some, wanted = states[source[first : first + _CHUNK]], token[first : first + _CHUNK]
        whole = len(source) <= _CHUNK or not some.requires_grad
        parts.append(
            chunk(some, wanted) if whole else checkpoint(chunk, some, wanted, use_reentrant=False)
        )
    nats = torch.cat(parts)
    zero = torch.zeros(len(inputs["weight"]), device=nats.device, dtype=nats.dtype)
    return zero.index_add(0, inputs["vocab_target"], nats)
