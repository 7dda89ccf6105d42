"""Define what training minimizes: a loss for each target of a batch. Knows models, no data sets."""

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
    """Turn packs into tensors, and tensors into a loss for each target.

    Attributes:
        lean: whether only the logits that the loss needs are computed.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Take the model as it will be trained."""
        self._body = model.body
        self._plain = bool(model.obstacle)
        self.lean = self._body.head is not None

    @abstractmethod
    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Make a batch from the indices of packs.

        Returns:
            Tensors by name, among them ``weight`` (G,) and ``document`` (B, T).
        """

    @abstractmethod
    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the losses of a batch.

        Args:
            model: transformers' model, possibly wrapped.
            inputs: a batch, see ``batch``.

        Returns:
            (G,) the nats of each target, detached, and (G,) the loss of each target before it is
            weighted.
        """

    def _states(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Head]:
        """Compute the states of all tokens and their output layer, or logits and an empty layer."""
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
        """Build the attention mask, or one mask for each kind of layer."""
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
    """Learn to predict the next item, by a loss over the trie and another over the vocabulary.

    The loss over the vocabulary is left out if ``vocab_weight`` is 0.
    """

    def __init__(
        self,
        data: Examples,
        paths: TitlePaths,
        model: LanguageModel,
        training: Training,
        titles: Sequence[Sequence[int]],
    ) -> None:
        """Take what all batches share.

        Args:
            data: the packs.
            paths: the paths of the trie.
            model: the model as it will be trained.
            training: the settings.
            titles: token ids of each catalog row's title; used only if ``vocab_weight`` is above 0.
        """
        super().__init__(model)
        self._data, self._paths, self._training = data, paths, training
        self._titles = titles if training.vocab_weight else None
        self._loss = CatalogLoss(paths, training.label_smoothing)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Make a batch, see ``Objective.batch``."""
        rows = [[self._data.rows[i] for i in self._data.packs[p]] for p in packs]
        weights = [[self._data.weights[i] for i in self._data.packs[p]] for p in packs]
        return make_batch(rows, self._paths, weights, titles=self._titles)

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the losses, see ``Objective.losses``."""
        inputs = dict(inputs)
        self._loss.to(inputs["input_ids"].device)
        states, head = self._states(model, inputs)
        nats, losses = self._loss.nats(states, inputs, head)
        if self._titles is not None:
            losses = losses + self._training.vocab_weight * vocab_nats(states, inputs, head)
        return nats, losses
