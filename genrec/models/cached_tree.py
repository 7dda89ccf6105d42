"""A token tree that stores all nodes in a key-value cache, and deals with token ids only.

Each prompt is processed once. Continuations are nodes appended to its key-value cache. Each node
attends to the prompt and its ancestors through a 4-D mask, at a position given by its depth.
Nothing is expanded to beams, reordered or copied. (SpecInfer uses such tree attention for
speculative decoding: Miao et al. 2024, https://arxiv.org/abs/2305.09781.) Several prompts form one
batch; shorter prompts are padded on the right, so that no real token attends to the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from genrec.models.logits import Body, Outputs
from genrec.models.plain_tree import PlainTree
from genrec.models.token_tree import ROOT, WITHIN, TokenTree
from genrec.types import IntArray

_NOBODY = -2  # stands for the parent of a padding token, and for the row of a dropped prompt


class _GrowingLayer(DynamicLayer):
    """One layer's keys and values, in a buffer with spare room so that appending is cheap."""

    def __init__(self) -> None:
        """Start with an empty buffer."""
        super().__init__()
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (B, heads, T, D) keys and values, and return views covering all tokens so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = self._enlarge(self.keys, key_states, end)
            self.values = self._enlarge(self.values, value_states, end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _enlarge(self, old: torch.Tensor, like: torch.Tensor, end: int) -> torch.Tensor:
        """Copy a buffer into a new one with room for at least ``end`` tokens."""
        shape = list(like.shape)
        shape[2] = max(end + 128, end * 3 // 2)
        new = like.new_empty(shape)
        new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def repeated(self, n: int) -> _GrowingLayer:
        """Copy one prompt's keys and values n times into a new buffer."""
        layer = _GrowingLayer()
        shape = (n, -1, -1, -1)
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        layer.update(keys.expand(shape), values.expand(shape))
        return layer

    def cut(self, n: int) -> _GrowingLayer:
        """Return a read-only view of the first n keys and values without copying them."""
        layer = _GrowingLayer()
        layer.keys, layer.values = self.keys[:, :, :n], self.values[:, :, :n]
        layer.length = n
        return layer

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all prompts except the given rows of the batch."""
        self.keys = self.keys[:, :, : self.length][rows]
        self.values = self.values[:, :, : self.length][rows]

    def get_seq_length(self) -> int:
        """Return the number of tokens in the buffer."""
        return self.length


class Prefix:
    """The keys and values of the tokens that several prompts share at the beginning.

    Attributes:
        ids: the token ids.
        layers: keys and values of each layer.
    """

    def __init__(self, body: Body, ids: Sequence[int]) -> None:
        """Process the tokens, of which there must be at least one."""
        self.ids = tuple(ids)
        self.layers = [_GrowingLayer() for _ in range(body.n_layers)]
        body(
            (torch.tensor([0]), torch.tensor([len(ids) - 1])),
            input_ids=torch.tensor([list(ids)], device=body.device),
            position_ids=torch.arange(len(ids), device=body.device)[None],
            past_key_values=Cache(layers=list(self.layers)),
            use_cache=True,
        )

    def cut(self, n: int) -> Prefix:
        """Return a prefix with only the first n tokens, without processing them again."""
        shorter = Prefix.__new__(Prefix)
        shorter.ids = self.ids[:n]
        shorter.layers = [layer.cut(n) for layer in self.layers]
        return shorter


class CachedTree(TokenTree):
    """The fast token tree, for models whose layers all use full or sliding-window attention."""

    def __init__(
        self, body: Body, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> None:
        """Process the prompts.

        Args:
            body: a model for which ``tree_obstacle`` returns an empty string.
            prompts: token ids of each prompt, at least one.
            prefix: a prefix that all prompts share and that is shorter than each of them; it is
                not processed again.
        """
        self._body = body
        n, skipped = len(prompts), len(prefix.ids) if prefix else 0
        length = np.array([len(p) for p in prompts])
        widest = int(length.max())
        ids = torch.zeros((n, widest - skipped), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - skipped] = torch.tensor(list(prompt[skipped:]))
        layers = prefix.layers if prefix else [_GrowingLayer() for _ in range(body.n_layers)]
        self._layers = [layer.repeated(n) for layer in layers] if prefix else layers
        self._cache = Cache(layers=list(self._layers))
        self._prompt, self._length = widest, length  # cache slots of prompts; (B,) prompt lengths
        self._row = np.arange(n)  # each prompt's row in the batch; _NOBODY once dropped
        self._parent = np.empty((n, 0), dtype=np.int64)  # (B, slots) handle of each node's parent
        self._depth = np.empty((n, 0), dtype=np.int64)  # (B, slots) depth below the prompt
        rows = torch.arange(n, device=body.device)
        self.root = body(
            (rows, torch.from_numpy(length - skipped - 1).to(body.device)),
            input_ids=ids.to(body.device),
            position_ids=torch.arange(skipped, widest, device=body.device)[None].expand(n, -1),
            past_key_values=self._cache,
            use_cache=True,
        )

    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Append runs of tokens in one pass; see ``TokenTree.grow``."""
        row = self._row[np.asarray(user, dtype=np.int64)]
        if (row == _NOBODY).any():
            msg = (
                "A prompt that TokenTree.keep has dropped was grown again. Expected a prompt that "
                "was kept."
            )
            raise ValueError(msg)
        length = np.array([len(r) for r in runs])
        # Each token's row and column in the batch; the runs of a prompt are next to each other.
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
        """Drop the other prompts if doing so at least halves the batch; see ``TokenTree.keep``."""
        rows = np.unique(self._row[users])
        rows = rows[rows != _NOBODY]
        if 2 * len(rows) > len(self._parent):
            return
        for layer in self._layers:
            layer.keep(torch.from_numpy(rows).to(self._body.device))
        self._parent, self._depth = self._parent[rows], self._depth[rows]
        self._length = self._length[rows]
        moved = np.full(len(self._row), _NOBODY)
        for new, old in enumerate(rows.tolist()):
            moved[self._row == old] = new
        self._row = moved

    def mark(self) -> int:
        """Return the number of cache slots used by nodes; see ``TokenTree.mark``."""
        return self._parent.shape[1]

    def back(self, mark: int) -> None:
        """Remove the nodes added since a marker was set; see ``TokenTree.back``."""
        self._parent, self._depth = self._parent[:, :mark], self._depth[:, :mark]
        for layer in self._layers:
            layer.length = self._prompt + mark

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        device: torch.device = self._body.device
        return device

    @property
    def whole(self) -> bool:
        """Check that no prompt has been dropped. Then each prompt's row equals its index."""
        return len(self._parent) == len(self._row)

    @property
    def n_prompt(self) -> int:
        """Return the length of the longest prompt in tokens."""
        return self._prompt

    def places(self) -> torch.Tensor:
        """Return the (B,) int64 prompt lengths on the device, for ``read``."""
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
        """Process tokens that are known only on the device, in one pass for all prompts.

        Call ``back`` to remove the tokens.

        Args:
            ids: (B, T) int64 token ids; they use T new slots after the S - T existing slots.
            depth: (B, T) int64 depth of each token below the prompt.
            seen: (B, T, S) bool mask of the slots that each token attends to, including the token's
                own slot.
            depths: (B, S) int64 depth of each slot below the prompt.
            length: (B,) int64 prompt lengths, from ``places``.
            keep: int64 (R,) rows and (R,) columns of the tokens whose outputs are kept.

        Returns:
            The outputs after the R tokens.
        """
        n, width = ids.shape
        position = length[:, None] - 1 + depth
        prompt = torch.arange(self._prompt, device=ids.device).expand(n, -1)
        past = (prompt < length[:, None])[:, None].expand(-1, width, -1)
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
        """Build the additive (B, 1, T, slots) attention mask for new tokens.

        The mask is 0 for the prompt, the token itself and its ancestors, and -inf elsewhere. For a
        model with several kinds of layers, the result is a dict with one mask for each kind.
        """
        n, width = position.shape
        slots = self._prompt + self._parent.shape[1]
        seen = np.zeros((n, width, slots), dtype=bool)
        seen[:, :, : self._prompt] = (np.arange(self._prompt) < self._length[:, None])[:, None]
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


def tree_obstacle(body: Body) -> str:
    """Explain why a model cannot use the cached tree; return an empty string if it can.

    Models with recurrent states cannot use it, because such states depend on more than a node's
    ancestors. If this is not evident from the configuration, it is detected by a test with two
    branches, in which the cached tree must give the same logits as full passes.
    """
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
