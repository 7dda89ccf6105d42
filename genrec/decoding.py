"""Search over a TitleTrie with a TokenTree: which items, with what probability.

Knows tokens, nodes and rows, nothing of prompts or titles' texts. At each node the model's
log-softmax is taken over the node's children only ("catalog"), so that the probabilities of all
items sum to 1 and tokens without an alternative need no evaluation; or over the whole vocabulary
("vocab"), as plain generation does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from genrec.errors import ModelError
from genrec.token_tree import ROOT, TokenTree
from genrec.trie import TitleTrie

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_PASS = 256  # most runs given to the model in one pass
NOT_FINITE = (
    "The model's logits are not finite: its weights or its precision are broken. "
    "Expected numbers; try dtype=float32, or get the model again."
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items by falling log-probability; equal ones by rising row.

    Attributes:
        rows: (n,) catalog rows.
        logprobs: (n,) natural logarithms.
        evaluated: tokens that went through the model after the prompt.
    """

    rows: IntArray
    logprobs: FloatArray
    evaluated: int


@dataclass(frozen=True, slots=True)
class _Live:
    """Prefixes that can still grow, by all their children; logits are not kept."""

    handle: IntArray  # (L,) token tree handles of the prefixes
    child: IntArray  # (C,) trie nodes
    source: IntArray  # (C,) index of each child's prefix
    logprob: FloatArray  # (C,) log-probability of each child


def search(
    trie: TitleTrie,
    tree: TokenTree,
    *,
    k: int,
    beam_size: int | None = None,
    allowed: BoolArray | None = None,
    normalization: str = "catalog",
    skip_forced: bool = True,
    like_generate: bool = False,
) -> Ranking:
    """The k best items by beam search, or by scoring every allowed item.

    The beam keeps ``beam_size`` unfinished prefixes a step; finished titles stand beside them and
    are never dropped for unfinished ones. log P only falls along a path, so the search ends when
    no prefix can enter the k best. With ``beam_size >= k``, k items come back whenever k are
    allowed.

    Args:
        trie: the catalog.
        tree: a token tree over the prompt.
        k: how many items, at least 1.
        beam_size: None keeps every prefix: all allowed items are scored exactly.
        allowed: (N,) by catalog row; others are not returned and their own subtrees not entered.
            The probabilities are those over all items, allowed or not.
        normalization: ``catalog`` or ``vocab``.
        skip_forced: do not evaluate tokens that have no alternative (catalog only); without it
            every token takes a step of its own, as in ``generate``.
        like_generate: keep only what transformers' ``generate`` would keep, for comparisons: of
            each step's continuations the ``2 * beam_size`` best, of the titles that end there
            those among the ``beam_size`` best. Needs a beam_size, and skips nothing.

    Returns:
        At most k items. log P(item) is log P(title) - log m where m items share the title.
    """
    skip_forced = skip_forced and normalization == "catalog" and not like_generate
    positions = np.ones(trie.n_items, dtype=bool) if allowed is None else allowed[trie.order]
    below = np.concatenate([[0], np.cumsum(positions)])  # allowed positions before each position
    leaves: list[IntArray] = []
    finals: list[FloatArray] = []
    worst = -np.inf  # of the k best so far
    evaluated = 0
    live, used = _start(trie, tree, normalization, skip_forced, leaves, finals)
    evaluated += used
    while live is not None:
        child, source, logprob = live.child, live.source, live.logprob
        enter = below[trie.high[child]] > below[trie.low[child]]
        child, source, logprob = child[enter], source[enter], logprob[enter]
        end = trie.skip[child] if skip_forced else child
        done = trie.is_leaf(end)
        kept = done
        if like_generate and beam_size is not None:
            place = np.argsort(np.argsort(-logprob, kind="stable"))
            kept = done & (place < beam_size)
            logprob = np.where(place < 2 * beam_size, logprob, -np.inf)
        leaves.append(end[kept])
        finals.append(logprob[kept])
        worst = _kth(trie, below, leaves, finals, k)
        grows = np.flatnonzero(~done & (logprob >= worst) & np.isfinite(logprob))
        if beam_size is not None and len(grows) > beam_size:
            best = np.lexsort((child[grows], -logprob[grows]))[:beam_size]
            grows = grows[np.sort(best)]
        if not len(grows):
            break
        runs = [trie.run(int(child[g]), int(end[g])) for g in grows]
        parents = live.handle[source[grows]]
        live = _grow(trie, tree, parents, runs, end[grows], logprob[grows], normalization)
        evaluated += sum(len(r) for r in runs)
    rows, logprobs = _items(trie, positions, np.concatenate(leaves), np.concatenate(finals))
    order = np.lexsort((rows, -logprobs))[:k]
    return Ranking(rows[order], logprobs[order], evaluated)


def _start(
    trie: TitleTrie,
    tree: TokenTree,
    normalization: str,
    skip_forced: bool,
    leaves: list[IntArray],
    finals: list[FloatArray],
) -> tuple[_Live | None, int]:
    """The root as the one live prefix, past any tokens with which every title begins."""
    root, zero = np.array([0]), np.array([0.0])
    end = int(trie.skip[0]) if skip_forced else 0
    if end == 0:
        logits = tree.logits[None]
        child, source, logprob = _children(trie, root, zero, logits, normalization)
        return _Live(np.array([ROOT]), child, source, logprob), 0
    if trie.is_leaf(np.array([end]))[0]:
        leaves.append(np.array([end]))
        finals.append(zero)
        return None, 0
    run = trie.run(int(trie.first_child[0]), end)
    live = _grow(trie, tree, np.array([ROOT]), [run], np.array([end]), zero, normalization)
    return live, len(run)


def _grow(
    trie: TitleTrie,
    tree: TokenTree,
    parents: IntArray,
    runs: Sequence[Sequence[int]],
    node: IntArray,
    logprob: FloatArray,
    normalization: str,
) -> _Live:
    """Extends the tree by runs that end at trie nodes, in passes of bounded size."""
    handles: list[int] = []
    children: list[tuple[IntArray, IntArray, FloatArray]] = []
    for first in range(0, len(runs), _PASS):
        part = slice(first, first + _PASS)
        new, logits = tree.extend(parents[part].tolist(), runs[part])
        handles.extend(new)
        child, source, values = _children(trie, node[part], logprob[part], logits, normalization)
        children.append((child, source + first, values))
    child, source, values = (np.concatenate(arrays) for arrays in zip(*children, strict=True))
    return _Live(np.array(handles, dtype=np.int64), child, source, values)


def _children(
    trie: TitleTrie,
    node: IntArray,
    logprob: FloatArray,
    logits: torch.Tensor,
    normalization: str,
) -> tuple[IntArray, IntArray, FloatArray]:
    """All children of L nodes with (L, V) logits: node, index of the parent, log-probability."""
    first = trie.first_child[node]
    count = trie.first_child[node + 1] - first
    start = np.cumsum(count) - count
    source = np.repeat(np.arange(len(count)), count)
    child = np.arange(int(count.sum())) - start[source] + first[source]
    device = logits.device
    index = torch.from_numpy(source).to(device), torch.from_numpy(trie.token[child]).to(device)
    values = logits[index].double().cpu().numpy()
    if normalization == "catalog":
        peak = np.maximum.reduceat(values, start)
        total = np.add.reduceat(np.exp(values - peak[source]), start)
        norm = peak + np.log(total)
    else:
        norm = torch.logsumexp(logits.double(), dim=-1).cpu().numpy()
    if not np.isfinite(norm).all():
        raise ModelError(NOT_FINITE)
    return child, source, logprob[source] + values - norm[source]


def _kth(
    trie: TitleTrie, below: IntArray, leaves: list[IntArray], finals: list[FloatArray], k: int
) -> float:
    """The log-probability of the k-th best finished item; -inf with fewer than k."""
    leaf, final = np.concatenate(leaves), np.concatenate(finals)
    count = below[trie.high[leaf]] - below[trie.low[leaf]]
    if count.sum() < k:
        return -np.inf
    score = final - np.log(trie.high[leaf] - trie.low[leaf])
    order = np.argsort(-score, kind="stable")
    return float(score[order][np.searchsorted(np.cumsum(count[order]), k)])


def _items(
    trie: TitleTrie, positions: BoolArray, leaf: IntArray, final: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Rows of the allowed items at the leaves, a leaf's probability shared by all its items."""
    low = trie.low[leaf]
    count = trie.high[leaf] - low
    source = np.repeat(np.arange(len(leaf)), count)
    start = np.cumsum(count) - count
    place = np.arange(int(count.sum())) - start[source] + low[source]
    keep = positions[place]
    logprob = (final - np.log(count))[source]
    return trie.order[place[keep]], logprob[keep]
