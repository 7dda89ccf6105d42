"""Losses over a catalog's trie: batches of rows, what of them to score, and nats per title.

Knows token ids and the trie, nothing of texts or of how training goes.
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

_WIDE = 64  # children from which a node's logits are one matrix product
_CHUNK = 1024  # rows whose logits over the vocabulary are there at once


def batch(
    packs: Sequence[Sequence[Row]],
    paths: TitlePaths,
    weights: Sequence[Sequence[npt.NDArray[np.float64]]],
    *,
    titles: Sequence[Sequence[int]] | None = None,
    multiple: int = 1,
) -> dict[str, Tensor]:
    """Packs of rows as tensors; B packs of T tokens, padded at the end, with G targets in all.

    Args:
        packs: rows that stand side by side in each.
        paths: of the trie.
        weights: (targets,) of each row of each pack.
        titles: ids of each catalog row's title, for a loss over the vocabulary; None for none.
        multiple: of which T is one.

    Returns:
        input_ids, position_ids, document (-1 for padding), limit and branch, all (B, T); for each
        of S steps down the trie: source (which of the B * T states), node, choice and target; for
        each of M title tokens: vocab_source, vocab_token and vocab_target; weight and constant
        (ln of the items that share the title) of each target, (G,).
    """
    found, first, place, items = lay_out(packs, weights, multiple=multiple)
    step, count = paths.steps(items)
    target = np.repeat(np.arange(len(items)), count)
    offset = paths.offset[step]
    found |= {
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
        found["vocab_source"] = np.where(k == 0, first[owner], place[owner] + k - 1)
        found["vocab_token"] = np.concatenate([np.array(titles[i]) for i in items.tolist()])
        found["vocab_target"] = owner
    return to_tensors(found)


def lay_out(
    packs: Sequence[Sequence[Row]],
    weights: Sequence[Sequence[npt.NDArray[np.float64]]],
    *,
    multiple: int = 1,
) -> tuple[dict[str, npt.NDArray[Any]], IntArray, IntArray, IntArray]:
    """What ``batch`` says of the tokens and the targets' weights, whatever is to be written.

    Returns:
        Arrays by name, and for each of G targets which of the B * T states stands before it, where
        its first token stands, and its item.
    """
    n = len(packs)
    width = max(sum(map(len, pack)) for pack in packs)
    width = -(-width // multiple) * multiple
    shape = (n, width)
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    document, branch = np.full(shape, -1), np.zeros(shape, np.int64)
    limit = np.broadcast_to(np.arange(1, width + 1), shape).copy()  # padding looks at itself
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
    found = {
        "input_ids": ids,
        "position_ids": position,
        "document": document,
        "limit": limit,
        "branch": branch,
        "weight": np.concatenate([w for pack in weights for w in pack]),
    }
    first, place, items = (np.concatenate(parts) for parts in (before, at, item))
    return found, first, place, items


def to_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    """Arrays by name as tensors, whole numbers in 64 bits, others in 32."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(a)).to(
            torch.float32 if a.dtype == np.float64 else torch.long
        )
        for name, a in arrays.items()
    }


def mark_visible(inputs: dict[str, Tensor], window: int | None = None) -> Tensor:
    """(B, 1, T, T) bool: which tokens each looks at.

    Args:
        inputs: of ``batch``.
        window: how far back it looks, in positions; None for all the way.
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
    """States to logits: a linear layer (V, D), or nothing where states are logits already."""

    weight: Tensor | None = None
    bias: Tensor | None = None

    def over(self, states: Tensor, tokens: Tensor) -> Tensor:
        """(R, C) logits in 32 bits or more, of C tokens after R states."""
        if self.weight is None:
            return _wide(states[:, tokens])
        logits = states @ self.weight[tokens].to(states.dtype).T
        if self.bias is not None:
            logits = logits + self.bias[tokens]
        return _wide(logits)

    def each(self, states: Tensor, source: Tensor, tokens: Tensor) -> Tensor:
        """(C,) logits, in 32 bits or more, of single tokens after the states of the given indices."""
        if self.weight is None:
            return _wide(states[source, tokens])
        rows = self.weight[tokens].to(states.dtype)
        logits = _wide((rows * states[source]).sum(dim=-1))
        return logits if self.bias is None else logits + self.bias[tokens]

    def all(self, states: Tensor) -> Tensor:
        """(R, V) logits."""
        if self.weight is None:
            return states
        return functional.linear(states, self.weight.to(states.dtype), self.bias)


def _wide(logits: Tensor) -> Tensor:
    """At least 32 bits."""
    return logits if logits.dtype == torch.float64 else logits.float()


class CatalogLoss:
    """-ln P(item) over the trie: at each node on a title's way the log-softmax over its children.

    Source: the trie-masked loss of MSL (Wang et al., SIGIR 2025, https://arxiv.org/abs/2504.04178),
    here over compressed tries, with forced tokens left out.
    """

    def __init__(self, paths: TitlePaths, smoothing: float = 0.0) -> None:
        """Takes the trie.

        Args:
            paths: of its titles.
            smoothing: the share of each choice that is spread over all children.
        """
        trie = paths.trie
        self._first = torch.from_numpy(trie.first_child.astype(np.int64))
        self._token = torch.from_numpy(trie.token.astype(np.int64))
        self._smoothing = smoothing

    def to(self, device: torch.device) -> CatalogLoss:
        """Moves the trie's arrays to a device."""
        self._first, self._token = self._first.to(device), self._token.to(device)
        return self

    def nats(self, states: Tensor, inputs: dict[str, Tensor], head: Head) -> tuple[Tensor, Tensor]:
        """Nats of each target, and what training minimises, which differs by the smoothing.

        Args:
            states: (B * T, D), or (B * T, V) logits where the head is empty.
            inputs: of ``batch``.
            head: states to logits.

        Returns:
            (G,) -ln P of each target, detached, and (G,) losses.
        """
        node, choice, target = inputs["node"], inputs["choice"], inputs["target"]
        states = states[inputs["source"]]
        count = self._first[node + 1] - self._first[node]
        taken = torch.zeros(len(node), device=node.device, dtype=_wide(states).dtype)
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
        """Steps at nodes with few children, all children in one array."""
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
    """(G,) -ln P of each target's title over the whole vocabulary, its terminator included.

    Args:
        states: (B * T, D), or logits where the head is empty.
        inputs: of ``batch``, with titles.
        head: states to logits; computed a chunk at a time, and again for the gradient.
    """
    source, token = inputs["vocab_source"], inputs["vocab_token"]

    def chunk(some: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(_wide(head.all(some)), wanted, reduction="none")

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
