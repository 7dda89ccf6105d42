"""Turn training rows into batches, and compute the loss of each title over a catalog's trie.

This module deals with token ids and the trie, not with texts or the training loop.
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

_WIDE = 64  # nodes with at least this many children get their logits from one matrix product
_CHUNK = 1024  # the vocabulary logits of this many tokens are in memory at the same time


def make_batch(
    packs: Sequence[Sequence[Row]],
    paths: TitlePaths,
    weights: Sequence[Sequence[npt.NDArray[np.float64]]],
    *,
    titles: Sequence[Sequence[int]] | None = None,
    multiple: int = 1,
) -> dict[str, Tensor]:
    """Turn B packs of rows into tensors. Each pack is padded at its end to T tokens.

    Args:
        packs: for each pack, the rows in it.
        paths: the paths to all titles in the trie.
        weights: for each row of each pack, an array with the weight of each of its targets.
        titles: the token ids of each catalog row's title, which the loss over the vocabulary needs;
            None to omit this loss.
        multiple: T is rounded up to a multiple of this number.

    Returns:
        The tensors, keyed by name:

        * ``input_ids``, ``position_ids``, ``document``, ``limit`` and ``branch`` have the shape
          (B, T) and describe each token as ``Row`` does. ``document`` numbers the rows of a pack and
          is -1 for padding.
        * ``source``, ``node``, ``choice`` and ``target`` have the shape (S,), with one value for each
          of the S choices on the paths to the targets. ``source`` is the index, among all B * T
          tokens, of the token before the choice; ``target`` is the index of the target.
        * ``vocab_source``, ``vocab_token`` and ``vocab_target`` have the shape (M,), with one value
          for each of the M tokens of the targets' titles. They exist only if titles are given.
        * ``weight`` and ``constant`` have the shape (G,), with one value for each of the G targets.
          ``constant`` is the natural logarithm of the number of items that share the title.
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
    """Copy packs of rows into padded arrays. This works for all kinds of targets.

    The arguments are the same as for ``make_batch``.

    Returns:
        A dictionary with ``weight`` and the arrays of shape (B, T) that ``make_batch`` describes;
        and three arrays with one value for each of the G targets. These are the index of the token
        before the target, the index of the target's first token (both among all B * T tokens), and
        the target's catalog row.
    """
    n = len(packs)
    width = max(sum(map(len, pack)) for pack in packs)
    width = -(-width // multiple) * multiple
    shape = (n, width)
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    document, branch = np.full(shape, -1), np.zeros(shape, np.int64)
    limit = np.broadcast_to(np.arange(1, width + 1), shape).copy()  # each padding token sees itself
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
    """Convert arrays to tensors: 32-bit for floating-point arrays, 64-bit for integer arrays."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(a)).to(
            torch.float32 if a.dtype == np.float64 else torch.long
        )
        for name, a in arrays.items()
    }


def mark_visible(inputs: dict[str, Tensor], window: int | None = None) -> Tensor:
    """Create the attention mask of a batch of B packs with T tokens each.

    Args:
        inputs: the tensors of the batch; see ``make_batch``.
        window: the size of the sliding window, for layers in which a token attends only to the
            latest positions within the window; None for layers without a window.

    Returns:
        A (B, 1, T, T) mask. In pack b, the value at [b, 0, i, j] is True if token i attends to token
        j.
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
    """A model's output layer, which turns hidden states into logits.

    An empty head, without a weight, takes states that are already logits and leaves them unchanged.

    Attributes:
        weight: (V, D) the weight of the layer, for V vocabulary entries and hidden states of size
            D; None if the states are already logits.
        bias: (V,) the bias of the layer; None if it has no bias.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None

    def over(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Compute the logits of the same tokens for every state.

        Args:
            states: (R, D) the states.
            tokens: (C,) the token ids.

        Returns:
            (R, C) the logits in at least 32 bits.
        """
        if self.weight is None:
            return _widen(states[:, tokens])
        logits = states @ self.weight[tokens].to(states.dtype).T
        if self.bias is not None:
            logits = logits + self.bias[tokens]
        return _widen(logits)

    def each(self, states: Tensor, source: Tensor, tokens: Tensor) -> Tensor:
        """Compute the logit of each token, given the state that it follows.

        Args:
            states: (R, D) the states.
            source: (C,) the index of the state that each token follows.
            tokens: (C,) the token ids.

        Returns:
            (C,) the logits in at least 32 bits.
        """
        if self.weight is None:
            return _widen(states[source, tokens])
        rows = self.weight[tokens].to(states.dtype)
        logits = _widen((rows * states[source]).sum(dim=-1))
        return logits if self.bias is None else logits + self.bias[tokens]

    def all(self, states: Tensor) -> Tensor:
        """Compute the logits of the whole vocabulary.

        Args:
            states: (R, D) the states.

        Returns:
            (R, V) the logits, in the precision of the states.
        """
        if self.weight is None:
            return states
        return functional.linear(states, self.weight.to(states.dtype), self.bias)


def _widen(logits: Tensor) -> Tensor:
    """Convert logits to 32 bits, unless they already have 64 bits."""
    return logits if logits.dtype == torch.float64 else logits.float()


class CatalogLoss:
    """A loss over the items of a catalog: the negative log-probability of the target item.

    The probability of an item is the product of the probabilities of the choices on the path to its
    title in the trie. At each node, a softmax over the node's children gives these probabilities.
    Tokens without alternatives are skipped. Source: the trie-masked loss of MSL (Wang et al., SIGIR
    2025, https://arxiv.org/abs/2504.04178), adapted to compressed tries.
    """

    def __init__(self, paths: TitlePaths, smoothing: float = 0.0) -> None:
        """Prepare the loss for a trie.

        Args:
            paths: the paths to all titles in the trie.
            smoothing: the fraction of the target probability of each choice that is spread evenly
                over all children of the node (label smoothing).
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
        """Compute the loss of each target, with and without label smoothing.

        Args:
            states: the hidden states of all tokens, (B * T, D); or their logits, (B * T, V), if the
                head is empty.
            inputs: the tensors of the batch; see ``make_batch``.
            head: the output layer.

        Returns:
            Two tensors with one value in nats for each of the G targets. The first is the loss
            without label smoothing (-ln P of the item), detached from the graph. The second is the
            loss with label smoothing, for training.
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
        """Compute log-probabilities for the choices at nodes with few children.

        The children of all these nodes are processed together in one array.

        Args:
            states: (S, D) the states before each of the S choices.
            node: (S,) the node of each choice.
            choice: (S,) the index of the chosen child.
            count: (S,) the number of children of the node.
            at: (A,) the indices of the choices to process.
            head: the output layer.

        Returns:
            ``at``, the (A,) log-probabilities of the chosen children, and the (A,) means of the
            log-probabilities of all children of the node.
        """
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
    """Compute the loss of each target over the whole vocabulary, as in ordinary language modeling.

    To save memory, the logits are computed in chunks, and recomputed for the gradient.

    Args:
        states: the hidden states of all tokens, (B * T, D); or their logits, (B * T, V), if the head
            is empty.
        inputs: the tensors of a batch that contains titles; see ``make_batch``.
        head: the output layer.

    Returns:
        (G,) -ln P of each target's title and its terminator, in nats.
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
