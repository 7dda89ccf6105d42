"""TokenTree: many continuations of one prompt over one key-value cache. Knows token ids only.

The prompt is read once. Continuations are nodes appended to the one cache; each attends to the
prompt and its own ancestors through a 4-D mask, at a position given by its depth. Nothing is
expanded to beams, reordered or copied. (Tree attention as in SpecInfer, Miao et al. 2024,
https://arxiv.org/abs/2305.09781, there for speculative decoding.)
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROOT = -1  # the handle of the prompt's end


class TokenTree(ABC):
    """Continuations of one prompt of P tokens; nodes are named by handles, ROOT is the prompt."""

    logits: torch.Tensor  # (V,) float32, after the prompt

    @abstractmethod
    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """Appends runs of tokens below nodes.

        Args:
            parents: the node below which each run hangs; ROOT or a handle from an earlier call.
            runs: one or more token ids each.
            every: logits after every token of every run, in order, in place of each run's last.

        Returns:
            The handle of each run's last token, and float32 logits, (len(runs), V) or, with
            every, (all tokens, V).
        """


class _GrowingLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room to grow, so that adding copies nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (1, heads, T, D) keys and values; returns views of all so far."""
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

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length


class CachedTree(TokenTree):
    """The fast tree, for models whose layers are all full attention."""

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        """Reads the prompt.

        Args:
            model: a transformers causal language model without a ``tree_obstacle``.
            ids: token ids of the prompt, at least one.
        """
        self._model = model
        self._prompt = len(ids)
        config = model.config.get_text_config()
        self._cache = Cache(layers=[_GrowingLayer() for _ in range(config.num_hidden_layers)])
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._parent = torch.empty(0, dtype=torch.long)  # (nodes,) handle of each node's parent
        self._depth = torch.empty(0, dtype=torch.long)  # (nodes,) tokens below the prompt, from 1
        keep = torch.tensor([len(ids) - 1])
        self.logits = self._forward(list(ids), torch.arange(len(ids)), None, keep)[0]

    def _forward(
        self,
        ids: list[int],
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        keep: torch.Tensor,
    ) -> torch.Tensor:
        """(len(keep), V) float32 logits at the kept places of one pass over ids (T,)."""
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([ids], device=self._device),
                position_ids=positions.to(self._device)[None],
                attention_mask=mask,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=keep.to(self._device),
            )
        logits: torch.Tensor = output.logits[0].float()
        return logits

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """See ``TokenTree.extend``."""
        first = len(self._parent)
        ids = [t for run in runs for t in run]
        lengths = torch.tensor([len(r) for r in runs])
        ends = torch.cumsum(lengths, 0)
        new = torch.arange(first, first + len(ids))
        above = new - 1  # within a run the parent is the token before
        above[ends - lengths] = torch.tensor(list(parents))
        start_depth = torch.tensor([0 if p == ROOT else int(self._depth[p]) for p in parents])
        within = torch.arange(len(ids)) - (ends - lengths).repeat_interleave(lengths)
        self._parent = torch.cat([self._parent, above])
        self._depth = torch.cat([self._depth, start_depth.repeat_interleave(lengths) + within + 1])
        positions = self._prompt - 1 + self._depth[first:]
        keep = torch.arange(len(ids)) if every else ends - 1
        logits = self._forward(ids, positions, self._mask(new), keep)
        return (first + ends - 1).tolist(), logits

    def _mask(self, new: torch.Tensor) -> torch.Tensor:
        """(1, 1, T, P + nodes) additive: 0 for the prompt, the node and its ancestors, else -inf."""
        mask = torch.full((len(new), self._prompt + len(self._parent)), float("-inf"))
        mask[:, : self._prompt] = 0.0
        rows, node = torch.arange(len(new)), new
        while len(node):
            mask[rows, self._prompt + node] = 0.0
            node = self._parent[node]
            rows, node = rows[node != ROOT], node[node != ROOT]
        return mask.to(self._device, self._dtype)[None, None]


class PlainTree(TokenTree):
    """The slow tree, for any causal model: a full pass over prompt and path for every run.

    It is also the reference of the fast one in tests.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        """Reads the prompt; as ``CachedTree``."""
        self._model = model
        self._ids = list(ids)
        self._paths: list[list[int]] = []
        self.logits = self._last_logits(self._ids, 1)[0]

    def _last_logits(self, ids: list[int], n: int) -> torch.Tensor:
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            output = self._model(input_ids=torch.tensor([ids], device=device), use_cache=False)
        logits: torch.Tensor = output.logits[0, -n:].float()
        return logits

    def extend(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, every: bool = False
    ) -> tuple[list[int], torch.Tensor]:
        """See ``TokenTree.extend``."""
        handles, logits = [], []
        for parent, run in zip(parents, runs, strict=True):
            path = ([] if parent == ROOT else self._paths[parent]) + list(run)
            logits.append(self._last_logits(self._ids + path, len(run) if every else 1))
            handles.append(len(self._paths))
            self._paths.append(path)
        return handles, torch.cat(logits)


def tree_obstacle(model: Any) -> str:
    """Why a model cannot take the fast tree, or the empty string.

    Recurrent states and windows that slide over the cache see more or less than a node's
    ancestors. What the configuration does not say, a probe of two branches does: the tree must
    give the logits of plain passes.
    """
    config = model.config.get_text_config()
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return "its forward pass takes no logits_to_keep"
    types = set(getattr(config, "layer_types", None) or [])
    if types - {"full_attention"}:
        return f"it has {', '.join(sorted(types - {'full_attention'}))} layers"
    window = getattr(config, "sliding_window", None)
    if not types and window and getattr(config, "use_sliding_window", True):
        return "it has a sliding attention window"
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    prompt, runs = [t % vocabulary for t in (3, 5, 7)], [[t % vocabulary] for t in (11, 13)]
    try:
        with torch.random.fork_rng(devices=[]):
            fast, slow = CachedTree(model, prompt), PlainTree(model, prompt)
            below = fast.extend([ROOT, ROOT], runs)[0], slow.extend([ROOT, ROOT], runs)[0]
            ours = fast.extend(below[0], runs[::-1])[1]
            plain = slow.extend(below[1], runs[::-1])[1]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        return f"a token tree fails on it ({type(error).__name__})"
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.25
    if not torch.allclose(ours, plain, atol=tolerance, rtol=tolerance):
        return "a token tree gives other logits than plain passes"
    return ""
