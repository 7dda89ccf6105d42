"""Compute a language model's logits only where they are needed.

A causal language model has a body, which turns token ids into hidden states, and a head, which
turns hidden states into logits. If the vocabulary is large, the head accounts for much of the time
of a forward pass. Here, a forward pass therefore returns hidden states, and the head is applied
later, only to the states and vocabulary entries that are requested. This module deals with token
ids only, not with text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genrec.models.growing_layer import GrowingLayer
from genrec.models.llama import Llama
from genrec.models.stopping import check_stop
from genrec.types import FloatArray, IntArray

_GATHERED = 1 << 24  # maximum number of head weights copied at a time to compute single logits
_NORMS = 64  # number of rows whose logits are in memory at the same time

NOT_FINITE = (
    "The model's logits are not finite, so its weights are damaged or its precision is too low. "
    "Expected finite numbers; try dtype=float32, or download the model again."
)


class Body:
    """A causal language model that is split into its body and its head.

    Attributes:
        model: the whole model.
        body: the part that turns token ids into hidden states, or the whole model if it cannot be
            split.
        head: the linear layer that turns hidden states into logits, or None if the model cannot be
            split.
        windows: the size of the attention window in tokens for each kind of attention layer; the
            size is None if the window is not limited.
        n_layers: number of layers.
        types: the distinct kinds of layers named in the configuration.
        device: the device on which the weights are stored.
        dtype: the data type of the weights.
        keeps: whether the whole model's forward method has an argument ``logits_to_keep``.
        known: whether this is genrec's own ``Llama``, whose capabilities need not be tested.
    """

    def __init__(self, model: Any) -> None:
        """Split a causal language model.

        Args:
            model: a ``Llama``, or a model of the transformers library, with or without LoRA
                adapters.
        """
        self.model = model
        self.known = isinstance(model, Llama)
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
            self.head = head if self.known or self._divides(head) else None
        if self.head is None:
            self.body = model
        self.keeps = "logits_to_keep" in inspect.signature(base.forward).parameters

    @torch.inference_mode()
    def _divides(self, head: torch.nn.Linear) -> bool:
        """Check whether the body followed by the head gives the same logits as the whole model.

        This is not the case for models that scale or cap their logits after the head.

        Args:
            head: the model's output layer.
        """
        ids = torch.tensor([[1, 2, 3]], device=self.device) % self.vocabulary
        try:
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
            ours, theirs = head(hidden), self.model(input_ids=ids, use_cache=False).logits
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
            return False
        return bool(torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4))

    def new_layers(self) -> list[GrowingLayer]:
        """Return an empty buffer for the attention keys and values of each layer."""
        return [self.layer_kind() for _ in range(self.n_layers)]

    @property
    def layer_kind(self) -> type[GrowingLayer]:
        """Return the class of the buffers that the model accepts."""
        if self.known:
            return GrowingLayer
        from genrec.models.transformers_cache import TransformersLayer

        return TransformersLayer

    def as_cache(self, layers: Sequence[GrowingLayer]) -> Any:
        """Convert buffers to the type that the model accepts as ``past_key_values``."""
        if self.known:
            return layers
        from genrec.models.transformers_cache import as_cache

        return as_cache(layers)

    @property
    def vocabulary(self) -> int:
        """Return the number of token ids in the model's vocabulary."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def __call__(self, keep: tuple[torch.Tensor, torch.Tensor], **inputs: Any) -> Outputs:
        """Run one forward pass and return the outputs after R of the input tokens.

        Args:
            keep: the R tokens whose outputs are returned, given by their int64 batch rows (R,) and
                columns (R,).
            **inputs: keyword arguments for the transformers model, such as ``input_ids``.

        Raises:
            StoppedError: nobody waits for the result any more; see ``genrec.models.stopping``.
        """
        check_stop()
        if self.head is not None:
            hidden = self.body(**inputs).last_hidden_state
            return Outputs(hidden[keep], self.head)
        if self.keeps and inputs["input_ids"].shape[0] == 1:
            inputs["logits_to_keep"] = keep[1]
            return Outputs(self.model(**inputs).logits[0], None)
        return Outputs(self.model(**inputs).logits[keep], None)


class Outputs:
    """A model's outputs after R tokens. Logits are computed from them only when requested.

    Each of the R tokens is a row of the outputs. The vocabulary has V tokens.
    """

    def __init__(self, states: torch.Tensor, head: torch.nn.Linear | None) -> None:
        """Store the outputs.

        Args:
            states: (R, D) hidden states of width D, or (R, V) logits if ``head`` is None.
            head: the linear layer that turns hidden states into logits, or None.
        """
        self._states, self._head = states, head
        self._norms: dict[float, FloatArray] = {}  # results of ``norms`` by temperature

    def __len__(self) -> int:
        return len(self._states)

    @torch.inference_mode()
    def logits(self, rows: Any = slice(None)) -> torch.Tensor:
        """Compute the logits of all tokens in the vocabulary.

        Args:
            rows: an index or slice that selects some of the R rows; all rows by default.

        Returns:
            float32 logits of shape (number of selected rows, V).
        """
        states = self._states[rows]
        logits: torch.Tensor = states if self._head is None else self._head(states)
        return logits.float()

    @torch.inference_mode()
    def at(self, source: IntArray, token: IntArray) -> FloatArray:
        """Compute the logits of C tokens, each of which may follow a different row.

        Args:
            source: (C,) int64 index of the row that each token would follow, in ascending order.
            token: (C,) token ids.

        Returns:
            (C,) float64 logits.
        """
        if self._head is None:
            device = self._states.device
            rows = torch.from_numpy(source).to(device)
            ids = torch.from_numpy(token.astype(np.int64)).to(device)
            return np.asarray(self._states[rows, ids].double().cpu().numpy())
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
            values[part] = self._gather(source[part], token[part])
        return values

    def _gather(self, source: IntArray, token: IntArray) -> FloatArray:
        """Compute the logits of C tokens as separate dot products; see ``at`` for the arguments."""
        device = self._states.device
        rows = torch.from_numpy(source).to(device)
        ids = torch.from_numpy(token.astype(np.int64)).to(device)
        return np.asarray(self._products(rows, ids).cpu().numpy())

    def _products(self, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Compute the logits of single tokens as dot products of hidden states and head weights.

        Args:
            rows: int64 index of the row that each token would follow; a tensor of any shape.
            ids: int64 token ids; a tensor of the same shape.

        Returns:
            float64 logits, in a tensor of the same shape.
        """
        assert self._head is not None
        logits = (self._head.weight[ids].float() * self._states[rows].float()).sum(dim=-1)
        if self._head.bias is not None:
            logits += self._head.bias[ids].float()
        return logits.double()

    @torch.inference_mode()
    def on_device(self, source: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Compute the logits of U * C tokens on the device without synchronizing with the host.

        Args:
            source: (U, C) int64 index of the row that each token would follow, on the device.
            token: (U, C) int64 token ids, on the device.

        Returns:
            (U, C) float64 logits on the device.
        """
        single = self._head is not None and (
            source.numel() * self._head.weight.shape[1] <= len(self) * self._head.weight.shape[0]
        )
        if not single:
            return self.logits()[source, token].double()
        return self._products(source, token)

    def norms(self, temperature: float = 1.0) -> FloatArray:
        """Return the log-normalizer of each row's softmax at a given temperature.

        This is the logsumexp of the row's logits divided by the temperature. The results are
        cached.

        Args:
            temperature: positive number by which the logits are divided.

        Returns:
            (R,) float64 log-normalizers.
        """
        if temperature not in self._norms:
            norms = np.empty(len(self))
            for first in range(0, len(self), _NORMS):
                part = slice(first, first + _NORMS)
                logits = self.logits(part)
                logits = logits if temperature == 1.0 else logits / temperature
                norms[part] = torch.logsumexp(logits, dim=-1).double().cpu().numpy()
            self._norms[temperature] = norms
        return self._norms[temperature]

    def some(self, rows: IntArray) -> Outputs:
        """Return the outputs of only the rows with the given int64 indices."""
        index = torch.from_numpy(rows).to(self._states.device)
        selected = Outputs(self._states[index], self._head)
        selected._norms = {t: norms[rows] for t, norms in self._norms.items()}
        return selected

    @staticmethod
    def joined(parts: Sequence[Outputs]) -> Outputs:
        """Concatenate the rows of several outputs of the same model, in the given order."""
        return Outputs(torch.cat([p._states for p in parts]), parts[0]._head)
