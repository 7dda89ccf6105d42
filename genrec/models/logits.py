"""Compute a language model's logits only where they are needed. Knows token ids only.

A causal language model is a body (token ids to hidden states) and a head (hidden states to
logits). Over a large vocabulary the head costs much of a pass, so a pass keeps the hidden states,
and logits are computed for the tokens that are asked about.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genrec.types import FloatArray, IntArray

_GATHERED = 1 << 24  # numbers gathered at once for single logits
_NORMS = 64  # rows whose logits are made at once

NOT_FINITE = (
    "The model's logits are not finite: its weights or its precision are broken. "
    "Expected numbers; try dtype=float32, or get the model again."
)


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
