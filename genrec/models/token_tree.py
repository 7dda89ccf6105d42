"""TokenTree: many continuations of one or more prompts. Knows token ids only.

A prompt is read once. Continuations are nodes appended to its key-value cache; each attends to
the prompt and its own ancestors through a 4-D mask, at a position given by its depth. Nothing is
expanded to beams, reordered or copied. (Tree attention as in SpecInfer, Miao et al. 2024,
https://arxiv.org/abs/2305.09781, there for speculative decoding.) Several prompts stand in one
batch, the shorter ones padded on the right, where no real token looks.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from genrec.types import FloatArray, IntArray

ROOT = -1  # the handle of the prompt's end
WITHIN = -3  # and below: the end of a run of the same call; see ``below``
_NOBODY = -2  # in place of a padding token's parent
_PLAIN_BATCH = 16  # sequences in one plain pass
_GATHERED = 1 << 24  # numbers gathered at once for single logits
_NORMS = 64  # rows whose logits are made at once


def below(run: int) -> int:
    """In place of a handle: the end of an earlier run of the same call, by its index."""
    return WITHIN - run


class Body:
    """A causal language model in two parts, so that logits are computed only where needed.

    Attributes:
        model: the whole.
        body: ids to hidden states; the whole model where it could not be divided.
        head: hidden states to logits, a linear layer; None where it could not be divided.
        windows: kind of attention layer -> how far back it looks; None for all the way.
    """

    def __init__(self, model: Any) -> None:
        """Divides a transformers causal language model, LoRA-adapted or not."""
        self.model = model
        config = model.config.get_text_config()
        self.n_layers = int(config.num_hidden_layers)
        window = getattr(config, "sliding_window", None)
        window = window if getattr(config, "use_sliding_window", True) else None
        self.types = tuple(dict.fromkeys(getattr(config, "layer_types", None) or ()))
        kinds = self.types or (("sliding_attention",) if window else ("full_attention",))
        self.windows = {
            k: int(window) if k == "sliding_attention" and window else None for k in kinds
        }
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.body: Any = getattr(base, base.base_model_prefix, None)
        self.head: torch.nn.Linear | None = None
        head = base.get_output_embeddings()
        if self.body is not None and isinstance(head, torch.nn.Linear):
            self.head = head if self._divides(head) else None
        if self.head is None:
            self.body = model
        self.keeps = "logits_to_keep" in inspect.signature(base.forward).parameters

    @torch.inference_mode()
    def _divides(self, head: torch.nn.Linear) -> bool:
        """Whether hidden states through the head are the model's logits (no scaling, no cap)."""
        ids = torch.tensor([[1, 2, 3]], device=self.device) % self.vocabulary
        try:
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
            ours, theirs = head(hidden), self.model(input_ids=ids, use_cache=False).logits
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
            return False
        return bool(torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4))

    @property
    def vocabulary(self) -> int:
        """How many ids the model knows."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def __call__(self, keep: tuple[torch.Tensor, torch.Tensor], **inputs: Any) -> Outputs:
        """One pass.

        Args:
            keep: (R,) rows and (R,) columns of the tokens after which logits may be asked for.
            **inputs: as transformers has them.
        """
        if self.head is not None:
            hidden = self.body(**inputs).last_hidden_state
            return Outputs(hidden[keep], self.head)
        if self.keeps and inputs["input_ids"].shape[0] == 1:
            inputs["logits_to_keep"] = keep[1]
            return Outputs(self.model(**inputs).logits[0], None)
        return Outputs(self.model(**inputs).logits[keep], None)


class Outputs:
    """What is known after R tokens; logits are computed when they are asked for."""

    def __init__(self, states: torch.Tensor, head: torch.nn.Linear | None) -> None:
        """Keeps (R, D) hidden states with the head for them, or (R, V) logits without one."""
        self._states, self._head = states, head
        self._norms: dict[float, FloatArray] = {}  # by temperature

    def __len__(self) -> int:
        return len(self._states)

    @torch.inference_mode()
    def logits(self, rows: Any = slice(None)) -> torch.Tensor:
        """(R, V) float32 logits, of all rows or some."""
        states = self._states[rows]
        logits: torch.Tensor = states if self._head is None else self._head(states)
        return logits.float()

    @torch.inference_mode()
    def at(self, source: IntArray, token: IntArray) -> FloatArray:
        """(C,) logits of single tokens after the given rows, which must not fall."""
        if self._head is None:
            index = torch.from_numpy(source), torch.from_numpy(token.astype(np.int64))
            device = self._states.device
            found = self._states[index[0].to(device), index[1].to(device)]
            return np.asarray(found.double().cpu().numpy())
        count = np.bincount(source, minlength=len(self))
        wide = count > self._head.weight.shape[0] // 16
        values = np.empty(len(source))
        ends = np.cumsum(count)
        for row in np.flatnonzero(wide).tolist():
            of_row = slice(ends[row] - count[row], ends[row])
            logits = self.logits(slice(row, row + 1))[0].double().cpu().numpy()
            values[of_row] = logits[token[of_row]]
        rest = np.flatnonzero(~wide[source])
        step = max(_GATHERED // self._head.weight.shape[1], 1)
        for first in range(0, len(rest), step):
            part = rest[first : first + step]
            values[part] = self._single(source[part], token[part])
        return values

    def _single(self, source: IntArray, token: IntArray) -> FloatArray:
        device = self._states.device
        rows = torch.from_numpy(source).to(device)
        ids = torch.from_numpy(token.astype(np.int64)).to(device)
        return np.asarray(self._products(rows, ids).cpu().numpy())

    def _products(self, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """float64 logits of single tokens after rows, both of one shape."""
        assert self._head is not None
        logits = (self._head.weight[ids].float() * self._states[rows].float()).sum(dim=-1)
        if self._head.bias is not None:
            logits += self._head.bias[ids].float()
        return logits.double()

    @torch.inference_mode()
    def on_device(self, source: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """(U, C) float64 logits of (U, C) single tokens after the given rows; the host waits not."""
        single = self._head is not None and (
            source.numel() * self._head.weight.shape[1] <= len(self) * self._head.weight.shape[0]
        )
        if not single:
            return self.logits()[source, token].double()
        return self._products(source, token)

    def norms(self, temperature: float = 1.0) -> FloatArray:
        """(R,) log of the sum of exp over all logits, these divided by the temperature."""
        if temperature not in self._norms:
            found = np.empty(len(self))
            for first in range(0, len(self), _NORMS):
                part = slice(first, first + _NORMS)
                logits = self.logits(part)
                logits = logits if temperature == 1.0 else logits / temperature
                found[part] = torch.logsumexp(logits, dim=-1).double().cpu().numpy()
            self._norms[temperature] = found
        return self._norms[temperature]

    def some(self, rows: IntArray) -> Outputs:
        """Of some rows."""
        index = torch.from_numpy(rows).to(self._states.device)
        found = Outputs(self._states[index], self._head)
        found._norms = {t: norms[rows] for t, norms in self._norms.items()}
        return found

    @staticmethod
    def joined(parts: Sequence[Outputs]) -> Outputs:
        """The rows of several, one after the other."""
        return Outputs(torch.cat([p._states for p in parts]), parts[0]._head)


class TokenTree(ABC):
    """Continuations of B prompts; nodes are named by handles, ROOT is the prompt's end.

    Attributes:
        root: after each of the B prompts.
    """

    root: Outputs

    @abstractmethod
    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Appends runs of tokens below nodes, in one pass.

        Args:
            user: the prompt of each run.
            parents: the node below which each run hangs; ROOT, a handle from an earlier call, or
                ``below`` an earlier run of this one.
            runs: one or more token ids each.
            every: outputs after every token of every run, in order, in place of each run's last.

        Returns:
            The handle of each run's last token, and len(runs) outputs, with every as many as
            there are tokens.
        """

    def keep(self, users: IntArray) -> None:
        """Only these prompts will be grown from now on, so that the others may be forgotten."""
        del users

    @abstractmethod
    def mark(self) -> int:
        """How far the tree has grown, for ``back``."""

    @abstractmethod
    def back(self, mark: int) -> None:
        """Forgets all nodes that were grown since a mark."""

    @property
    def logits(self) -> torch.Tensor:
        """(V,) float32, after the first prompt."""
        return self.root.logits(slice(0, 1))[0]

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """``grow`` for the first prompt, with all logits: (runs, V), or with every (tokens, V)."""
        handles, outputs = self.grow([0] * len(runs), parents, runs, every=every)
        return handles.tolist(), outputs.logits()


class _GrowingLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room to grow, so that adding copies nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (B, heads, T, D) keys and values; returns views of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = self._grown(self.keys, key_states, end)
            self.values = self._grown(self.values, value_states, end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, old: torch.Tensor, like: torch.Tensor, end: int) -> torch.Tensor:
        shape = list(like.shape)
        shape[2] = max(end + 128, end * 3 // 2)
        new = like.new_empty(shape)
        new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def repeated(self, n: int) -> _GrowingLayer:
        """The same keys and values for n prompts, in a buffer of their own."""
        layer = _GrowingLayer()
        shape = (n, -1, -1, -1)
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        layer.update(keys.expand(shape), values.expand(shape))
        return layer

    def cut(self, n: int) -> _GrowingLayer:
        """The first n keys and values, not copied; for reading alone."""
        layer = _GrowingLayer()
        layer.keys, layer.values = self.keys[:, :, :n], self.values[:, :, :n]
        layer.length = n
        return layer

    def keep(self, rows: torch.Tensor) -> None:
        """Forgets all prompts but some."""
        self.keys = self.keys[:, :, : self.length][rows]
        self.values = self.values[:, :, : self.length][rows]

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length


class Prefix:
    """The keys and values of the tokens with which several prompts begin.

    Attributes:
        ids: those tokens.
    """

    def __init__(self, body: Body, ids: Sequence[int]) -> None:
        """Reads the tokens, at least one."""
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
        """The first n of the tokens; nothing is read again."""
        found = Prefix.__new__(Prefix)
        found.ids = self.ids[:n]
        found.layers = [layer.cut(n) for layer in self.layers]
        return found


class CachedTree(TokenTree):
    """The fast tree, for models whose layers are all attention, full or in a sliding window."""

    def __init__(
        self, body: Body, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> None:
        """Reads the prompts.

        Args:
            body: a model without a ``tree_obstacle``.
            prompts: token ids of each, at least one.
            prefix: with which all of them begin and that none of them is; it is not read again.
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
        self._prompt, self._length = widest, length  # slots of prompts; (B,) tokens of each
        self._row = np.arange(n)  # of each user in the batch; _NOBODY once forgotten
        self._parent = np.empty((n, 0), dtype=np.int64)  # (B, slots) handle of each node's parent
        self._depth = np.empty((n, 0), dtype=np.int64)  # (B, slots) tokens below the prompt
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
        """See ``TokenTree.grow``."""
        row = self._row[np.asarray(user, dtype=np.int64)]
        if (row == _NOBODY).any():
            msg = "A prompt was forgotten that is grown again; see TokenTree.keep."
            raise ValueError(msg)
        length = np.array([len(r) for r in runs])
        # Each token's row in the batch and its column there, users' runs side by side.
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
        kept = np.arange(ends[-1]) if every else ends - 1
        device = self._body.device
        keep = (
            torch.from_numpy(rows[kept]).to(device),
            torch.from_numpy(columns[kept]).to(device),
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
        """See ``TokenTree.keep``; the others are dropped where that halves the batch at least."""
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
        """See ``TokenTree.mark``."""
        return self._parent.shape[1]

    def back(self, mark: int) -> None:
        """See ``TokenTree.back``."""
        self._parent, self._depth = self._parent[:, :mark], self._depth[:, :mark]
        for layer in self._layers:
            layer.length = self._prompt + mark

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._body.device
        return device

    @property
    def whole(self) -> bool:
        """Whether no prompt was forgotten, so that each one's row is its number."""
        return len(self._parent) == len(self._row)

    @property
    def n_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return self._prompt

    def places(self) -> torch.Tensor:
        """(B,) tokens of each prompt, on the device, for ``read``."""
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
        """A pass over tokens that the host knows nothing of, for all prompts; ``back`` forgets them.

        Args:
            ids: (B, T) tokens, in slots of their own after the S - T slots that are there.
            depth: (B, T) tokens below the prompt, of each.
            seen: (B, T, S) which of the slots each attends to, itself among them.
            depths: (B, S) of the slots.
            length: (B,) of ``places``.
            keep: (R,) rows and (R,) columns of the tokens after which logits may be asked for.
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
        """Additive (B, 1, T, slots): 0 for the prompt, the node and its ancestors, else -inf.

        One for each kind of layer where there are several.
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
                visible[..., 0] |= ~visible.any(axis=-1)  # padding must look somewhere
            mask = torch.zeros(visible.shape, dtype=self._body.dtype)
            mask.masked_fill_(torch.from_numpy(~visible), float("-inf"))
            masks[kind] = mask[:, None].to(self._body.device)
        return masks if len(masks) > 1 else next(iter(masks.values()))


class PlainTree(TokenTree):
    """The slow tree, for any causal model: full passes over prompts and paths.

    It is also the reference of the fast one in tests.
    """

    def __init__(self, body: Body, prompts: Sequence[Sequence[int]]) -> None:
        """Reads the prompts; as ``CachedTree``."""
        self._body = body
        self._prompts = [list(p) for p in prompts]
        self._paths: list[list[int]] = []
        self.root = self._read(self._prompts, [1] * len(prompts))

    def _read(self, sequences: Sequence[list[int]], last: Sequence[int]) -> Outputs:
        """Outputs after the last tokens of sequences, padded on the right, where none looks."""
        parts = []
        for first in range(0, len(sequences), _PLAIN_BATCH):
            some = sequences[first : first + _PLAIN_BATCH]
            counts = last[first : first + _PLAIN_BATCH]
            ids = torch.zeros((len(some), max(map(len, some))), dtype=torch.long)
            for row, sequence in enumerate(some):
                ids[row, : len(sequence)] = torch.tensor(sequence)
            rows = [row for row, n in enumerate(counts) for _ in range(n)]
            columns = [
                i for s, n in zip(some, counts, strict=True) for i in range(len(s) - n, len(s))
            ]
            device = self._body.device
            keep = torch.tensor(rows, device=device), torch.tensor(columns, device=device)
            parts.append(self._body(keep, input_ids=ids.to(device), use_cache=False))
        return Outputs.joined(parts)

    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """See ``TokenTree.grow``."""
        first = len(self._paths)
        for parent, run in zip(parents, runs, strict=True):
            place = first + WITHIN - parent if parent <= WITHIN else parent
            self._paths.append(([] if parent == ROOT else self._paths[place]) + list(run))
        sequences = [
            self._prompts[u] + path for u, path in zip(user, self._paths[first:], strict=True)
        ]
        outputs = self._read(sequences, [len(run) if every else 1 for run in runs])
        return np.arange(first, len(self._paths)), outputs

    def mark(self) -> int:
        """See ``TokenTree.mark``."""
        return len(self._paths)

    def back(self, mark: int) -> None:
        """See ``TokenTree.back``."""
        del self._paths[mark:]


def tree_obstacle(body: Body) -> str:
    """Why a model cannot take the fast tree, or the empty string.

    Recurrent states see more than a node's ancestors. What the configuration does not say, a
    probe of two branches does: the tree must give the logits of plain passes.
    """
    others = sorted(set(body.windows) - {"full_attention", "sliding_attention"})
    if others:
        return f"it has {', '.join(others)} layers"
    if body.head is None and not body.keeps:
        return "its forward pass takes no logits_to_keep"
    n = body.vocabulary
    prompt, runs = [t % n for t in (3, 5, 7)], [[t % n] for t in (11, 13)]
    try:
        with torch.random.fork_rng(devices=[]):
            fast, slow = CachedTree(body, [prompt]), PlainTree(body, [prompt])
            below = fast.extend([ROOT, ROOT], runs)[0], slow.extend([ROOT, ROOT], runs)[0]
            ours = fast.extend(below[0], runs[::-1])[1]
            plain = slow.extend(below[1], runs[::-1])[1]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        return f"a token tree fails on it ({type(error).__name__})"
    quantized = getattr(body.model.config, "quantization_config", None) is not None
    tolerance = 1e-3 if body.dtype == torch.float32 and not quantized else 0.25
    if not torch.allclose(ours, plain, atol=tolerance, rtol=tolerance):
        return "a token tree gives other logits than plain passes"
    return ""


NOT_FINITE = (
    "The model's logits are not finite: its weights or its precision are broken. "
    "Expected numbers; try dtype=float32, or get the model again."
)
