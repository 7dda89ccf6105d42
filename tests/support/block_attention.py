"""The slow, obvious way to read a prompt by its events: one masked pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from genrec import Recommender
from genrec.models.block_prompt import BlockPrompt
from genrec.prompts.encoder import EncodedPrompt
from support.reference import Read, forward


def reader(recommender: Recommender, prompt: EncodedPrompt) -> Read:
    """A function for ``reference.logprobs`` that reads a prompt as the recommender should."""
    model, recent = recommender.model.model, recommender.settings.recent
    if recent is None:
        return lambda path: forward(model, [*prompt.ids, *path])
    return lambda path: forward_blocks(model, prompt.by_event(recent), path)


def forward_blocks(model: Any, prompt: BlockPrompt, path: Sequence[int] = ()) -> torch.Tensor:
    """(V,) logits after a divided prompt and a path, by one pass without a cache."""
    with torch.inference_mode():
        logits: torch.Tensor = model(**block_inputs(prompt, path), use_cache=False).logits
    return logits[0, -1].double()


def block_inputs(prompt: BlockPrompt, path: Sequence[int] = ()) -> dict[str, torch.Tensor]:
    """The arguments for a model that reads a divided prompt and a path in one pass.

    Each token stands at its position in the ordinary prompt. A block sees itself and the head right
    before it, so before each block there is a copy of the head, which only the block sees.
    """
    ids: list[int] = []
    positions: list[int] = []
    parts: list[tuple[int, int]] = []  # the columns that the rest sees
    allowed: list[tuple[int, int, list[tuple[int, int]]]] = []  # columns, and what else they see

    def add(tokens: Sequence[int], position: int, seen: list[tuple[int, int]]) -> tuple[int, int]:
        start = len(ids)
        ids.extend(tokens)
        positions.extend(range(position, position + len(tokens)))
        allowed.append((start, len(ids), seen))
        return start, len(ids)

    head = prompt.ids[: prompt.head]
    parts.append(add(head, 0, []))
    start = prompt.head
    for stop in prompt.stops:
        copy = add(head, start - prompt.head, [])
        parts.append(add(prompt.ids[start:stop], start, [copy]))
        start = stop
    add([*prompt.ids[start:], *path], start, list(parts))

    mask = torch.full((len(ids), len(ids)), float("-inf"))
    for low, high, seen in allowed:
        mask[low:high, low:high] = torch.full((high - low, high - low), float("-inf")).triu(1)
        for a, b in seen:
            mask[low:high, a:b] = 0.0
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": mask[None, None],
    }
