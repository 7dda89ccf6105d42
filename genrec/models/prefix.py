"""Keep the keys and values of a common beginning of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from genrec.models.logits import Body


class Prefix:
    """The stored attention keys and values of the common prefix of several prompts.

    Attributes:
        ids: the token ids.
        layers: the keys and values, one buffer for each layer of the model.
    """

    def __init__(self, body: Body, ids: Sequence[int]) -> None:
        """Run the model on the tokens and store their keys and values.

        Args:
            body: the model.
            ids: token ids, at least one.
        """
        self.ids = tuple(ids)
        self.layers = body.new_layers()
        body(
            (torch.tensor([0]), torch.tensor([len(ids) - 1])),
            input_ids=torch.tensor([list(ids)], device=body.device),
            position_ids=torch.arange(len(ids), device=body.device)[None],
            past_key_values=body.as_cache(self.layers),
            use_cache=True,
        )

    def cut(self, n: int) -> Prefix:
        """Return a prefix of only the first n tokens, without running the model again."""
        shorter = Prefix.__new__(Prefix)
        shorter.ids = self.ids[:n]
        shorter.layers = [layer.cut(n) for layer in self.layers]
        return shorter
