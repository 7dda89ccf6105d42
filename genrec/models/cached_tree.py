"""Implement a token tree whose nodes are stored in the model's key-value cache.

The model processes each prompt once. The tokens of continuations are then appended to the prompt's
key-value cache. A 4-D attention mask lets each token attend only to the prompt and to its ancestors
in the tree, and its position in the sequence follows from its depth in the tree. The cache
therefore never has to be copied or reordered for the branches of a search. (SpecInfer uses such
tree attention for speculative decoding: Miao et al. 2024, https://arxiv.org/abs/2305.09781.)

Several prompts form one batch. Shorter prompts are padded on the right, so that no real token
attends to the padding. This module deals with token ids only, not with text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genrec.models.growing_layer import GrowingLayer
from genrec.models.logits import Body, Outputs
from genrec.models.plain_tree import PlainTree
from genrec.models.token_tree import ROOT, WITHIN, TokenTree
from genrec.types import BoolArray, IntArray

_NOBODY = -2  # used as the parent of a padding token, and as the batch row of a dropped prompt


class Prefix:
    """The stored attention keys and values of the common prefix of several prompts.

    Attributes:
        ids: the token ids.
        layers: the keys and values, one buffer for each layer of the model.
    """

    def __init__(self, body: Body, ids: Sequence[int]) -> None:
        """Run the model on the tokens and store their keys and values.

        Args:
            body: the model.
            ids: token ids, at least one.
        """
        self.ids = tuple(ids)
        self.layers = body.new_layers()
        body(
            (torch.tensor([0]), torch.tensor([len(ids) - 1])),
            input_ids=torch.tensor([list(ids)], device=body.device),
            position_ids=torch.arange(len(ids), device=body.device)[None],
            past_key_values=body.as_cache(self.layers),
            use_cache=True,
        )

    def cut(self, n: int) -> Prefix:
        """Return a prefix of only the first n tokens, without running the model again."""
        shorter = Prefix.__new__(Prefix)
        shorter.ids = self.ids[:n]
        shorter.layers = [layer.cut(n) for layer in self.layers]
        return shorter


class CachedTree(TokenTree):
    """A fast ``TokenTree`` for models that have only full and sliding-window attention layers."""

    def __init__(
        self, body: Body, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> None:
        """Run the model on the prompts.

        Args:
            body: a model for which ``tree_obstacle`` returns an empty string.
            prompts: token ids of each prompt, at least one id per prompt.
            prefix: a common prefix of all prompts that the model has already processed. It must be
                shorter than every prompt. None if there is no such prefix.
        """
        self._body = body
        n, skipped = len(prompts), len(prefix.ids) if prefix else 0
        length = np.array([len(p) for p in prompts])
        widest = int(length.max())
        ids = torch.zeros((n, widest - skipped), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - skipped] = torch.tensor(list(prompt[skipped:]))
        layers = prefix.layers if prefix else body.new_layers()
        layers = [layer.repeated(n) for layer in layers] if prefix else layers
        self._start(layers, length, np.arange(widest) < length[:, None])
        rows = torch.arange(n, device=body.device)
        self.root = body(
            (rows, torch.from_numpy(length - skipped - 1).to(body.device)),
            input_ids=ids.to(body.device),
            position_ids=torch.arange(skipped, widest, device=body.device)[None].expand(n, -1),
            past_key_values=self._cache,
            use_cache=True,
        )

    @classmethod
    def resume(
        cls,
        body: Body,
        layers: list[GrowingLayer],
        length: IntArray,
        filled: BoolArray,
        root: Outputs | None = None,
    ) -> CachedTree:
        """Return a tree for prompts whose keys and values are known.

        Args:
            body: a model for which ``tree_obstacle`` returns an empty string, and whose layers all
                have full attention.
            layers: the keys and values of the B prompts, one buffer for each layer of the model.
            length: (B,) int64 number of tokens in each prompt.
            filled: (B, slots) bool mask of the slots that hold a token of the prompt.
            root: the outputs after each prompt; None if nobody will ask for them.
        """
        tree = cls.__new__(cls)
        tree._body = body
        tree._start(layers, length, filled)
        if root is not None:
            tree.root = root
        return tree

    def _start(self, layers: list[GrowingLayer], length: IntArray, filled: BoolArray) -> None:
        """Set the attributes for B prompts without continuations; see ``resume``."""
        n = len(length)
        self._layers = layers
        self._cache = self._body.as_cache(layers)
        self._prompt = int(filled.shape[1])  # number of cache slots that each prompt takes
        self._filled = filled  # (B, slots of the prompt) slots that hold a token
        self._gaps = bool((filled != (np.arange(self._prompt) < length[:, None])).any())
        self._length = length  # (B,) number of tokens in each prompt
        self._row = np.arange(n)  # each prompt's row in the batch, or _NOBODY if it was dropped
        self._parent = np.empty((n, 0), dtype=np.int64)  # (B, slots) handle of each token's parent
        self._depth = np.empty((n, 0), dtype=np.int64)  # (B, slots) each token's depth in the tree

    @property
    def layers(self) -> list[GrowingLayer]:
        """Return the keys and values of the prompts and continuations, one buffer per layer."""
        return self._layers

    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Append sequences of tokens to the tree in one forward pass; see ``TokenTree.grow``."""
        row = self._row[np.asarray(user, dtype=np.int64)]
        if (row == _NOBODY).any():
            msg = (
                "Tokens cannot be appended to a prompt that TokenTree.keep has dropped. Expected "
                "only prompts that were kept."
            )
            raise ValueError(msg)
        length = np.array([len(r) for r in runs])
        # Find each token's row and column in the batch. A prompt's runs are next to each other.
        order = np.argsort(row, kind="stable")
        before = np.cumsum(length[order]) - length[order]
        first = np.empty_like(before)
        starts = np.searchsorted(row[order], row[order])
        first[order] = before - before[starts]
        rows = np.repeat(row, length)
        ends = np.cumsum(length)
        within = np.arange(ends[-1]) - np.repeat(ends - length, length)
        columns = np.repeat(first, length) + within
        width = int(columns.max()) + 1
        base = self._parent.shape[1]
        handles = base + columns
        above = np.array(parents, dtype=np.int64)
        start_depth = np.zeros(len(above), dtype=np.int64)
        old = above >= 0
        start_depth[old] = self._depth[row[old], above[old]]
        for new in np.flatnonzero(above <= WITHIN).tolist():
            parent = WITHIN - int(above[new])
            start_depth[new] = start_depth[parent] + length[parent]
            above[new] = handles[ends[parent] - 1]
        above = np.where(within == 0, np.repeat(above, length), handles - 1)
        n = len(self._parent)
        self._parent = np.hstack([self._parent, np.full((n, width), _NOBODY)])
        self._depth = np.hstack([self._depth, np.zeros((n, width), dtype=np.int64)])
        self._parent[rows, handles] = above
        self._depth[rows, handles] = np.repeat(start_depth, length) + within + 1
        ids = np.zeros((n, width), dtype=np.int64)
        ids[rows, columns] = np.fromiter((t for run in runs for t in run), np.int64, int(ends[-1]))
        position = self._length[:, None] - 1 + self._depth[:, base:]
        returned = np.arange(ends[-1]) if every else ends - 1
        device = self._body.device
        keep = (
            torch.from_numpy(rows[returned]).to(device),
            torch.from_numpy(columns[returned]).to(device),
        )
        outputs = self._body(
            keep,
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=torch.from_numpy(position).to(device),
            attention_mask=self._mask(rows, columns, handles, position),
            past_key_values=self._cache,
            use_cache=True,
        )
        return handles[ends - 1], outputs

    def keep(self, users: IntArray) -> None:
        """Drop all prompts except the given ones if this at least halves the size of the batch.

        Args:
            users: int64 indices of the prompts to keep.
        """
        rows = np.unique(self._row[users])
        rows = rows[rows != _NOBODY]
        if 2 * len(rows) > len(self._parent):
            return
        for layer in self._layers:
            layer.keep(torch.from_numpy(rows).to(self._body.device))
        self._parent, self._depth = self._parent[rows], self._depth[rows]
        self._length, self._filled = self._length[rows], self._filled[rows]
        moved = np.full(len(self._row), _NOBODY)
        for new, old in enumerate(rows.tolist()):
            moved[self._row == old] = new
        self._row = moved

    def mark(self) -> int:
        """Return a marker for the tree's current size, to be passed to ``back``."""
        return self._parent.shape[1]

    def back(self, mark: int) -> None:
        """Remove all nodes that were added since ``mark`` returned the given marker."""
        self._parent, self._depth = self._parent[:, :mark], self._depth[:, :mark]
        for layer in self._layers:
            layer.length = self._prompt + mark

    @property
    def device(self) -> torch.device:
        """Return the device on which the model runs."""
        device: torch.device = self._body.device
        return device

    @property
    def whole(self) -> bool:
        """Check whether all prompts are still in the batch."""
        return len(self._parent) == len(self._row)

    @property
    def n_prompt(self) -> int:
        """Return the number of tokens in the longest prompt."""
        return self._prompt

    def places(self) -> torch.Tensor:
        """Return the number of tokens in each of the B prompts, as a (B,) int64 device tensor."""
        return torch.from_numpy(self._length).to(self._body.device)

    def read(
        self,
        ids: torch.Tensor,
        depth: torch.Tensor,
        seen: torch.Tensor,
        depths: torch.Tensor,
        length: torch.Tensor,
        keep: tuple[torch.Tensor, torch.Tensor],
    ) -> Outputs:
        """Append T tokens to each of the B prompts in one forward pass.

        All arguments are tensors on the model's device, so the host need not know the tokens. Each
        token is stored in a slot of the key-value cache, after the slots of the prompt. Together
        with the new tokens, S slots are in use. Call ``back`` to remove the tokens again.

        Args:
            ids: (B, T) int64 token ids, stored in the last T of the S slots.
            depth: (B, T) int64 depth of each new token in the tree.
            seen: (B, T, S) bool mask of the slots to which each new token attends. This includes
                its own slot.
            depths: (B, S) int64 depth in the tree of the token in each slot.
            length: (B,) int64 number of tokens in each prompt, from ``places``.
            keep: int64 batch rows (R,) and columns (R,) of the R tokens whose outputs are returned.

        Returns:
            The outputs after the R tokens.
        """
        n, width = ids.shape
        position = length[:, None] - 1 + depth
        prompt = torch.arange(self._prompt, device=ids.device).expand(n, -1)
        past = prompt < length[:, None]
        if self._gaps:
            past = torch.from_numpy(self._filled).to(ids.device)
        past = past[:, None].expand(-1, width, -1)
        seen = torch.cat([past, seen], dim=2)
        where = torch.cat([prompt, length[:, None] - 1 + depths], dim=1)
        masks = {}
        for kind, window in self._body.windows.items():
            visible = seen
            if window is not None:
                visible = seen & (where[:, None] > position[:, :, None] - window)
            mask = torch.zeros(visible.shape, dtype=self._body.dtype, device=ids.device)
            masks[kind] = mask.masked_fill_(~visible, float("-inf"))[:, None]
        return self._body(
            keep,
            input_ids=ids,
            position_ids=position,
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
            past_key_values=self._cache,
            use_cache=True,
        )

    def _mask(
        self, rows: IntArray, columns: IntArray, handles: IntArray, position: IntArray
    ) -> Any:
        """Build the additive attention mask for up to T new tokens of each of B prompts.

        A token may attend to its prompt, to its ancestors in the tree and to itself. The mask is 0
        for these tokens and -inf for all others.

        Args:
            rows: batch row of each new token.
            columns: batch column of each new token.
            handles: handle of each new token.
            position: (B, T) position of each new token in its sequence.

        Returns:
            A tensor of shape (B, 1, T, slots), or for a model with several kinds of attention
            layers, a dict with one such tensor for each kind.
        """
        n, width = position.shape
        slots = self._prompt + self._parent.shape[1]
        seen = np.zeros((n, width, slots), dtype=bool)
        seen[:, :, : self._prompt] = self._filled[:, None]
        row, column, node = rows, columns, handles
        while len(node):
            seen[row, column, self._prompt + node] = True
            node = self._parent[row, node]
            up = node != ROOT
            row, column, node = row[up], column[up], node[up]
        masks = {}
        for kind, window in self._body.windows.items():
            visible = seen
            if window is not None:
                prompt = np.broadcast_to(np.arange(self._prompt), (n, self._prompt))
                where = np.hstack([prompt, self._length[:, None] - 1 + self._depth])
                visible = seen & (where[:, None] > position[:, :, None] - window)
                visible[..., 0] |= ~visible.any(axis=-1)  # padding must attend to something
            mask = torch.zeros(visible.shape, dtype=self._body.dtype)
            mask.masked_fill_(torch.from_numpy(~visible), float("-inf"))
            masks[kind] = mask[:, None].to(self._body.device)
        return masks if len(masks) > 1 else next(iter(masks.values()))


def measure_shape(body: Body) -> tuple[int, int, int, int]:
    """Return the number of layers, the number of heads, and the sizes of a key and of a value."""
    layers = CachedTree(body, [[0]]).layers
    _, heads, _, size = layers[0].keys.shape
    return len(layers), heads, size, layers[0].values.shape[-1]


def tree_obstacle(body: Body) -> str:
    """Return the reason why a model cannot use ``CachedTree``, or an empty string if it can.

    A model with recurrent states cannot use it, because such a state depends on all tokens
    processed so far and not only on a node's ancestors. If this is not evident from the
    configuration, it is detected by a test: on a small tree with two branches, ``CachedTree`` and
    ``PlainTree`` must give the same logits.
    """
    if body.known:
        return ""
    others = sorted(set(body.windows) - {"full_attention", "sliding_attention"})
    if others:
        return f"it has {', '.join(others)} layers"
    if body.head is None and not body.keeps:
        return "its forward pass has no logits_to_keep argument"
    n = body.vocabulary
    prompt, runs = [t % n for t in (3, 5, 7)], [[t % n] for t in (11, 13)]
    try:
        with torch.random.fork_rng(devices=[]):
            fast, slow = CachedTree(body, [prompt]), PlainTree(body, [prompt])
            below = fast.extend([ROOT, ROOT], runs)[0], slow.extend([ROOT, ROOT], runs)[0]
            ours = fast.extend(below[0], runs[::-1])[1]
            plain = slow.extend(below[1], runs[::-1])[1]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        return f"building a token tree fails ({type(error).__name__})"
    quantized = getattr(body.model.config, "quantization_config", None) is not None
    tolerance = 1e-3 if body.dtype == torch.float32 and not quantized else 0.25
    if not torch.allclose(ours, plain, atol=tolerance, rtol=tolerance):
        return "a token tree gives different logits from full passes"
    return ""
