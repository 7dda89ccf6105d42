"""Objectives: what training minimises, from batches to a loss for each target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genrec.models.language_model import LanguageModel
from genrec.training.config import Training
from genrec.training.examples import Examples
from genrec.training.losses import CatalogLoss, Head, batch, mark_visible, vocab_nats
from genrec.training.title_paths import TitlePaths

Validate = Callable[[], dict[str, Any]]
ObjectiveBuilder = Callable[[LanguageModel], tuple["Objective", Validate | None]]


class Objective(ABC):
    """What is minimised: packs to tensors, and these to a loss of each target.

    Attributes:
        lean: whether only the logits that a loss needs are computed.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Takes the model as it will be trained."""
        self._body = model.body
        self._plain = bool(model.obstacle)
        self.lean = self._body.head is not None

    @abstractmethod
    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """The collator: indices of packs to tensors, ``weight`` and ``document`` among them."""

    @abstractmethod
    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(G,) nats of each target, detached, and (G,) what is minimised, before its weight."""

    def _states(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Head]:
        """States of all tokens with the layer that makes logits of them, or logits."""
        asked: dict[str, Any] = {"use_cache": False}
        if self.lean:
            asked["output_hidden_states"] = True
            if self._body.keeps:
                asked["logits_to_keep"] = 1
        out = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=self._mask(inputs),
            **asked,
        )
        if not self.lean:
            return out.logits.flatten(0, 1), Head()
        assert self._body.head is not None
        head = Head(self._body.head.weight, self._body.head.bias)
        return out.hidden_states[-1].flatten(0, 1), head

    def _mask(self, inputs: dict[str, Tensor]) -> Any:
        if self._plain:
            return (inputs["document"] >= 0).long()
        dtype = torch.get_autocast_dtype(inputs["input_ids"].device.type)
        if not torch.is_autocast_enabled(inputs["input_ids"].device.type):
            dtype = self._body.dtype
        masks = {}
        for kind, window in self._body.windows.items():
            seen = mark_visible(inputs, window)
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(~seen, torch.finfo(dtype).min)
        return masks if len(self._body.types) > 1 else next(iter(masks.values()))


class NextItemObjective(Objective):
    """Next items: nats of each target over the trie, and a share over the vocabulary."""

    def __init__(
        self,
        data: Examples,
        paths: TitlePaths,
        model: LanguageModel,
        training: Training,
        titles: Sequence[Sequence[int]],
    ) -> None:
        """Takes what all batches share.

        Args:
            data: the packs.
            paths: of the trie.
            model: as it will be trained.
            training: the settings.
            titles: token ids by catalog row; used only where ``vocab_weight`` is above 0.
        """
        super().__init__(model)
        self._data, self._paths, self._training = data, paths, training
        self._titles = titles if training.vocab_weight else None
        self._loss = CatalogLoss(paths, training.label_smoothing)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """See ``Objective.batch``."""
        rows = [[self._data.rows[i] for i in self._data.packs[p]] for p in packs]
        weights = [[self._data.weights[i] for i in self._data.packs[p]] for p in packs]
        return batch(rows, self._paths, weights, titles=self._titles)

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See ``Objective.losses``."""
        inputs = dict(inputs)
        self._loss.to(inputs["input_ids"].device)
        states, head = self._states(model, inputs)
        nats, losses = self._loss.nats(states, inputs, head)
        if self._titles is not None:
            losses = losses + self._training.vocab_weight * vocab_nats(states, inputs, head)
        return nats, losses
