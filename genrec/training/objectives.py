"""Define the training objectives, which compute a loss for each target of a batch.

This module deals with models and batches, not with datasets.
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


class Validation(ABC):
    """A validation of the model in its current state, on a fixed sample of users or packs.

    Attributes:
        size: the number of parts of the sample. Each part is a user or a pack of pairs.
    """

    size: int

    @abstractmethod
    def measure(self, parts: int) -> dict[str, Any]:
        """Return the metrics on the first ``parts`` parts of the sample, including ``nats``."""

    @abstractmethod
    def parts_of(self, values: Mapping[str, Any]) -> int:
        """Return the number of parts on which earlier metrics were measured."""


ObjectiveBuilder = Callable[[LanguageModel], tuple["Objective", Validation | None]]


class Objective(ABC):
    """The base class of objectives, which turn packs of training rows into a loss for each target.

    Attributes:
        lean: True if only the logits that the loss needs are computed. This is possible if the
            model's hidden states can be separated from its output layer.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Store the properties of the model to train, such as its output layer."""
        self._body = model.body
        self._plain = bool(model.obstacle)
        self.lean = self._body.head is not None

    @abstractmethod
    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Create a batch from packs of training rows.

        Args:
            packs: the indices of the B packs.

        Returns:
            The tensors of the batch, keyed by name. They include ``weight`` with the shape (G,),
            for G targets, and ``document`` with the shape (B, T), which is -1 for padding tokens.
        """

    @abstractmethod
    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the loss of each target in a batch.

        Args:
            model: the transformers model, which may be wrapped by accelerate.
            inputs: a batch as returned by ``batch``.

        Returns:
            Two tensors with one value for each of the G targets. The first is the negative
            log-probability in nats, detached from the graph, for logs. The second is the loss
            to minimize, before it is multiplied by the target's weight.
        """

    def _states(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Head]:
        """Compute the hidden states of all tokens, and return them with the output layer.

        If the states cannot be separated from the output layer, return the logits and an empty head.
        """
        options: dict[str, Any] = {"use_cache": False}
        if self.lean:
            options["output_hidden_states"] = True
            if self._body.keeps:
                options["logits_to_keep"] = 1
        out = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            **self._attention(inputs),
            **options,
        )
        if not self.lean:
            return out.logits.flatten(0, 1), Head()
        assert self._body.head is not None
        head = Head(self._body.head.weight, self._body.head.bias)
        return out.hidden_states[-1].flatten(0, 1), head

    def _attention(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Return the arguments for the model that say what each token attends to."""
        return {"attention_mask": self._mask(inputs)}

    def _mask(self, inputs: dict[str, Tensor]) -> Any:
        """Create the attention mask, or a mask for each type of layer if the model has several types."""
        if self._plain:
            return (inputs["document"] >= 0).long()
        masks = {
            kind: self._additive(mark_visible(inputs, window))
            for kind, window in self._body.windows.items()
        }
        return masks if len(self._body.types) > 1 else next(iter(masks.values()))

    def _additive(self, seen: Tensor) -> Tensor:
        """Turn a mask of what may be seen into one that is added to the attention logits."""
        dtype = torch.get_autocast_dtype(seen.device.type)
        if not torch.is_autocast_enabled(seen.device.type):
            dtype = self._body.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)


class NextItemObjective(Objective):
    """The objective of predicting the next item, with a loss over the items of the catalog.

    If ``vocab_weight`` is above 0, a loss over the whole vocabulary is added with this weight.
    """

    def __init__(
        self,
        data: Examples,
        paths: TitlePaths,
        model: LanguageModel,
        training: Training,
        titles: Sequence[Sequence[int]],
    ) -> None:
        """Store the data that all batches share.

        Args:
            data: the training examples.
            paths: the paths to all titles in the trie.
            model: the model to train.
            training: the training settings.
            titles: the token ids of each catalog row's title, which are used only if
                ``vocab_weight`` is above 0.
        """
        super().__init__(model)
        self._data, self._paths, self._training = data, paths, training
        self._titles = titles if training.vocab_weight else None
        self._loss = CatalogLoss(paths, training.label_smoothing)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Create a batch from packs; see ``Objective.batch``."""
        rows = [[self._data.rows[i] for i in self._data.packs[p]] for p in packs]
        weights = [[self._data.weights[i] for i in self._data.packs[p]] for p in packs]
        return make_batch(rows, self._paths, weights, titles=self._titles)

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the loss of each target in a batch; see ``Objective.losses``."""
        inputs = dict(inputs)
        self._loss.to(inputs["input_ids"].device)
        states, head = self._states(model, inputs)
        nats, losses = self._loss.nats(states, inputs, head)
        if self._titles is not None:
            losses = losses + self._training.vocab_weight * vocab_nats(states, inputs, head)
        return nats, losses
