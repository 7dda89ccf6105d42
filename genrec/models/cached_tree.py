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

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from genrec.models.growing_layer import GrowingLayer
from genrec.models.logits import Body, Outputs
from genrec.models.packing import Packing
from genrec.models.prefix import Prefix
from genrec.models.token_tree import ROOT, WITHIN, TokenTree
from genrec.models.unread import Unread
from genrec.types import BoolArray, IntArray

_NOBODY = -2  # used as the parent of a padding token, and as the batch row of a dropped prompt


class CachedTree(TokenTree):
    """A fast ``TokenTree`` for models that have only full and sliding-window attention layers.

    The end of the prompts is read when something is asked of the tree, and together with the first
    runs if these come first.
    """

    _unread: Unread | None

    def __init__(
        self, body: Body, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> None:
        """Store the prompts.

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
        ids = np.zeros((n, widest - skipped), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - skipped] = prompt[skipped:]
        layers = prefix.layers if prefix else body.new_layers()
        layers = [layer.repeated(n) for layer in layers] if prefix else layers
        self._start(layers, length, np.arange(widest) < length[:, None])
        known = np.full(n, skipped)
        self._unread = Unread(ids, known, length - skipped, causal=True)

    @classmethod
    def resume(
        cls,
        body: Body,
        layers: list[GrowingLayer],
        length: IntArray,
        filled: BoolArray,
        unread: Unread | None = None,
    ) -> CachedTree:
        """Return a tree for prompts whose first keys and values are known.

        Args:
            body: a model for which ``tree_obstacle`` returns an empty string, and whose layers all
                have full attention.
            layers: the keys and values of the B prompts, one buffer for each layer of the model.
            length: (B,) int64 number of tokens in each prompt.
            filled: (B, slots) bool mask of the slots that hold a token of the prompt, or will hold
                one when its end is read.
            unread: the end of the prompts; None if all keys and values are known and nobody will
                ask for the outputs after the prompts.
        """
        tree = cls.__new__(cls)
        tree._body = body
        tree._start(layers, length, filled)
        tree._unread = unread
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
        self._root: Outputs | None = None
        self._unread = None
        self._when_read: Callable[[CachedTree], None] | None = None

    @property
    def layers(self) -> list[GrowingLayer]:
        """Return the keys and values of the prompts and continuations, one buffer per layer."""
        self._read_end()
        return self._layers

    @property
    def users(self) -> int:
        """Return the number of prompts, without reading them."""
        return len(self._row)

    @property
    def unread(self) -> bool:
        """Check whether the first runs can be read together with the end of the prompts."""
        full = all(window is None for window in self._body.windows.values())
        return full and self._unread is not None

    @property
    def root(self) -> Outputs:
        """Return the model's outputs after each of the B prompts."""
        self._read_end()
        assert self._root is not None
        return self._root

    def when_read(self, call: Callable[[CachedTree], None]) -> None:
        """Call a function with this tree as soon as the prompts have been read."""
        self._when_read = call
        if self._unread is None:
            self._finish_reading()

    def _finish_reading(self) -> None:
        self._unread = None
        call, self._when_read = self._when_read, None
        if call is not None:
            call(self)

    def _read_end(self) -> None:
        """Let the model read the end of the prompts, if it has not done so."""
        unread = self._unread
        if unread is None:
            return
        started = time.perf_counter()
        if self._packs:
            ends = np.cumsum(unread.rest) - 1
            self._root = self._run_packed([unread.tokens(self._filled, self._slots)], ends)
            self.seconds = time.perf_counter() - started
            self._finish_reading()
            return
        device = self._body.device
        mask = None if unread.causal else self._as_bias(unread.seen(self._filled, self._slots))
        self._root = self._body(
            self._ends(unread),
            input_ids=torch.from_numpy(unread.ids).to(device),
            position_ids=torch.from_numpy(unread.position).to(device),
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        self.seconds = time.perf_counter() - started
        self._finish_reading()

    @property
    def _slots(self) -> int:
        """Return the number of slots that prompts and continuations take."""
        return self._prompt + self._parent.shape[1]

    @property
    def _packs(self) -> bool:
        """Check whether passes have the tokens of all prompts in one row, without padding."""
        return self._body.known and len(self._parent) > 1

    def _run_packed(self, tokens: Sequence[tuple[Any, ...]], returned: IntArray) -> Outputs:
        """Run the model on tokens of several prompts, without padding.

        Args:
            tokens: one or more sets of N tokens: their batch rows, slots, ids and positions (N,), and
                the (N, slots) mask of what they attend to.
            returned: indices of the tokens whose outputs are returned, over all sets.
        """
        rows, slots, ids, position, seen = (np.concatenate(a) for a in zip(*tokens, strict=True))
        order = np.argsort(rows, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        body = self._body
        keep = torch.from_numpy(place[returned]).to(body.device)
        return body(
            (torch.zeros_like(keep), keep),
            input_ids=torch.from_numpy(ids[order][None]).to(body.device),
            position_ids=torch.from_numpy(position[order][None]).to(body.device),
            past_key_values=self._cache,
            packing=Packing(
                rows[order], slots[order], seen[order], len(self._parent), body.device, body.dtype
            ),
        )

    def _ends(self, unread: Unread) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch row and column of the last token of each prompt."""
        rows = torch.arange(len(unread.rest), device=self._body.device)
        return rows, torch.from_numpy(unread.rest - 1).to(self._body.device)

    def _as_bias(self, seen: BoolArray) -> torch.Tensor:
        """Turn a (B, T, slots) mask into (B, 1, T, slots) numbers to add to attention scores."""
        mask = torch.zeros(seen.shape, dtype=self._body.dtype)
        mask.masked_fill_(torch.from_numpy(~seen), float("-inf"))
        return mask[:, None].to(self._body.device)

    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Append sequences of tokens to the tree in one forward pass; see ``TokenTree.grow``."""
        if not (self.unread and len(runs)):
            self._read_end()
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
        unread, started = self._unread, time.perf_counter()
        if self._packs:
            seen = self._seen(rows, columns, handles, width)[rows, columns]
            flat = ids[rows, columns], position[rows, columns]
            own = (rows, self._prompt + handles, *flat, seen)
            if unread is None:
                return handles[ends - 1], self._run_packed([own], returned)
            last = np.cumsum(unread.rest) - 1
            outputs = self._run_packed(
                [unread.tokens(self._filled, self._slots), own],
                np.append(last, last[-1] + 1 + returned),
            )
            return handles[ends - 1], self._split_root(outputs, started)
        mask = self._mask(rows, columns, handles, position)
        if unread is not None:  # the end of the prompts comes first in the same pass
            ids, position = np.hstack([unread.ids, ids]), np.hstack([unread.position, position])
            mask = torch.cat([self._as_bias(unread.seen(self._filled, self._slots)), mask], dim=2)
            end = self._ends(unread)
            keep = (
                torch.cat([end[0], keep[0]]),
                torch.cat([end[1], keep[1] + unread.ids.shape[1]]),
            )
        outputs = self._body(
            keep,
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=torch.from_numpy(position).to(device),
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        if unread is not None:
            outputs = self._split_root(outputs, started)
        return handles[ends - 1], outputs

    def _split_root(self, outputs: Outputs, started: float) -> Outputs:
        """Keep the outputs after the prompts, which come first, and return the others."""
        self.seconds, n = time.perf_counter() - started, len(self._parent)
        self._root = outputs.some(np.arange(n))
        self._finish_reading()
        return outputs.some(np.arange(n, len(outputs)))

    def as_nodes(self, head: int) -> IntArray:
        """Make nodes of the tokens of the only prompt, except for the first ones.

        Continuations can then be placed after any of these tokens. Other nodes are removed.

        Args:
            head: number of tokens that remain the prompt, at least 1.

        Returns:
            The handles of the other tokens, in order.
        """
        self._read_end()
        self.back(0)
        n = self._prompt - head
        self._prompt, self._filled, self._length = head, self._filled[:, :head], np.array([head])
        self._parent, self._depth = np.arange(-1, n - 1)[None], np.arange(1, n + 1)[None]
        return np.arange(n)

    def keep(self, users: IntArray) -> None:
        """Drop all prompts except the given ones if this at least halves the size of the batch.

        Args:
            users: int64 indices of the prompts to keep.
        """
        self._read_end()
        rows = np.unique(self._row[users])
        rows = rows[rows != _NOBODY]
        if 2 * len(rows) > len(self._parent) or self._packs:  # then they take no time
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
        if self._unread is not None:
            return  # nothing has been added
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
        self._read_end()
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
        seen = self._seen(rows, columns, handles, width)
        masks = {}
        for kind, window in self._body.windows.items():
            visible = seen
            if window is not None:
                prompt = np.broadcast_to(np.arange(self._prompt), (n, self._prompt))
                where = np.hstack([prompt, self._length[:, None] - 1 + self._depth])
                visible = seen & (where[:, None] > position[:, :, None] - window)
                visible[..., 0] |= ~visible.any(axis=-1)  # padding must attend to something
            masks[kind] = self._as_bias(visible)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _seen(self, rows: IntArray, columns: IntArray, handles: IntArray, width: int) -> BoolArray:
        """Return the (B, width, slots) mask of the slots to which each new token attends."""
        n = len(self._parent)
        slots = self._prompt + self._parent.shape[1]
        seen = np.zeros((n, width, slots), dtype=bool)
        seen[:, :, : self._prompt] = self._filled[:, None]
        row, column, node = rows, columns, handles
        while len(node):
            seen[row, column, self._prompt + node] = True
            node = self._parent[row, node]
            up = node != ROOT
            row, column, node = row[up], column[up], node[up]
        return seen
