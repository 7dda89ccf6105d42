"""Let some tokens of a forward pass attend to keys that are moved to other positions.

With ``attention="by_event"``, a block is read right after the head of its prompt (see
``block_reader``). In a pass over a whole prompt, it stands further away from the head. So each layer
gets more keys than tokens: for each block, those of the head, moved up to the block. Only the tokens
of this block attend to them. The keys are moved after the model has turned them to their own
positions, and the values are the same. This needs no further tokens in the pass.

The module deals with tensors only, and with models of the transformers library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from genrec.models.rotary import Rotary

_NAME = "genrec_moved_keys"  # the name of the attention function in transformers


@dataclass(frozen=True, slots=True)
class MovedKeys:
    """The E moved keys of each of B sequences. They follow the keys of the sequence's own tokens.

    Attributes:
        rotary: the object that moves the keys.
        source: (B, E) int64 index of the token whose key is moved.
        shift: (B, E) int64 number of positions by which it is moved.
    """

    rotary: Rotary
    source: torch.Tensor
    shift: torch.Tensor

    def add(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of one layer with the moved ones after them.

        Args:
            keys: (B, heads, T, D) the keys, at their own positions.
            values: (B, heads, T, D) the values.

        Returns:
            (B, heads, T + E, D) keys and values.
        """
        index = self.source[:, None, :, None].expand(-1, keys.shape[1], -1, -1)
        moved = keys.gather(2, index.expand(-1, -1, -1, keys.shape[3]))
        turned = self.rotary.turn(moved, self.shift[:, None])
        same = values.gather(2, index.expand(-1, -1, -1, values.shape[3]))
        return torch.cat((keys, turned), dim=2), torch.cat((values, same), dim=2)


def accept_moved_keys(model: Any) -> str:
    """Let a model accept ``MovedKeys`` as the argument ``moved_keys`` of its forward method.

    Without this argument, the model computes what it computed before. With it, the attention mask
    must have the shape (B, 1, T, T + E).

    Args:
        model: a model of the transformers library, with or without LoRA adapters. It is changed.

    Returns:
        The reason why this model cannot; empty if it can.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    try:
        base.set_attn_implementation(_NAME)
    except (AttributeError, ValueError, ImportError) as error:
        return f"its attention function cannot be replaced ({error})"
    if base.config.get_text_config()._attn_implementation != _NAME:
        return "its attention function cannot be replaced"
    return ""


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    moved_keys: MovedKeys | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Compute the attention of one layer, as transformers does with ``sdpa``."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if moved_keys is not None:
        key, value = moved_keys.add(key, value)
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **rest)
    return output, None
