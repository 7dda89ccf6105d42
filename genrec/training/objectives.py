"""Define the training objectives, which compute a loss for each target of a batch.

Deals with models, not with datasets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genrec.models.language_model import LanguageModel
from genrec.training.config import Training
from genrec.training.examples import Examples
from genrec.training.losses import CatalogLoss, Head, make_batch, mark_visible, vocab_nats
from genrec.training.title_paths import TitlePaths

Validate = Callable[[], dict[str, Any]]
ObjectiveBuilder = Callable[[LanguageModel], tuple["Objective", Validate | None]]


class Objective(ABC):
    """Turns packs into tensors, and tensors into a loss for each target.

    Attributes:
        lean: whether to compute only the logits that the loss needs.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Store the properties of the model to train."""
        self._body = model.body
        self._plain = bool(model.obstacle)
        self.lean = self._body.head is not None

    @abstractmethod
    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Make a batch from the indices of packs.

        Returns:
            Tensors by name, including ``weight`` (G,) and ``document`` (B, T).
        """

    @abstractmethod
    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the losses of a batch.

        Args:
            model: a transformers model, possibly wrapped.
            inputs: a batch; see ``batch``.

        Returns:
            Two (G,) tensors: the nats of each target, detached, and its unweighted loss.
        """

    def _states(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Head]:
        """Compute the states of all tokens, and return them with the output layer.

        If the states are not available, return the logits and an empty layer.
        """
        options: dict[str, Any] = {"use_cache": False}
        if self.lean:
            options["output_hidden_states"] = True
            if self._body.keeps:
                options["logits_to_keep"] = 1
        out = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=self._mask(inputs),
            **options,
        )
        if not self.lean:
            return out.logits.flatten(0, 1), Head()
        assert self._body.head is not None
        head = Head(self._body.head.weight, self._body.head.bias)
        return out.hidden_states[-1].flatten(0, 1), head

    def _mask(self, inputs: dict[str, Tensor]) -> Any:
        """Build the attention mask, or one for each layer type if the model has several types."""
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
    """Trains a model to predict the next item, with a loss over the trie.

    A loss over the vocabulary can be added.

    The loss over the vocabulary is used only if ``vocab_weight`` is above 0.
    """

    def __init__(
        self,
        data: Examples,
        paths: TitlePaths,
        model: LanguageModel,
        training: Training,
        titles: Sequence[Sequence[int]],
    ) -> None:
        """Store the state shared by all batches.

        Args:
            data: the training examples.
            paths: the paths of all titles in the trie.
            model: the model to train.
            training: the training settings.
            titles: token ids of each catalog row's title; used only if ``vocab_weight`` is above 0.
        """
        super().__init__(model)
        self._data, self._paths, self._training = data, paths, training
        self._titles = titles if training.vocab_weight else None
        self._loss = CatalogLoss(paths, training.label_smoothing)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Make a batch; see ``Objective.batch``."""
        rows = [[self._data.rows[i] for i in self._data.packs[p]] for p in packs]
        weights = [[self._data.weights[i] for i in self._data.packs[p]] for p in packs]
        return make_batch(rows, self._paths, weights, titles=self._titles)

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the losses; see ``Objective.losses``."""
        inputs = dict(inputs)
        self._loss.to(inputs["input_ids"].device)
        states, head = self._states(model, inputs)
        nats, losses = self._loss.nats(states, inputs, head)
        if self._titles is not None:
            losses = losses + self._training.vocab_weight * vocab_nats(states, inputs, head)
        return nats, losses
