"""Decode with transformers' own beam search and a prefix function: the peer. Tests use it, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class PrefixFunction:
    """``prefix_allowed_tokens_fn`` over a trie of nested dicts, as users write it."""

    def __init__(self, sequences: Sequence[Sequence[int]], prompt_length: int) -> None:
        self._prompt = prompt_length
        self.root: dict[int, Any] = {}
        for sequence in sequences:
            node = self.root
            for token in sequence:
                node = node.setdefault(token, {})

    def __call__(self, batch: int, ids: torch.Tensor) -> list[int]:
        node: dict[int, Any] | None = self.root
        for token in ids[self._prompt :].tolist():
            node = None if node is None else node.get(token)
        return list(node) if node else [0]  # past the end: generate wants some token


def generate(
    model: Any,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    beams: int,
    *,
    renormalize: bool,
) -> list[tuple[tuple[int, ...], float]]:
    """``generate_many`` for one prompt."""
    return generate_many(model, [prompt], sequences, beams, renormalize)[0]


def generate_many(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sequences: Sequence[Sequence[int]],
    beams: int,
    renormalize: bool,
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Return title token sequences with summed log-probabilities, best first, for each prompt.

    Args:
        model: a transformers causal language model.
        prompts: token ids, as many of each.
        sequences: token ids of all titles; each ends with the same terminator id.
        beams: how many.
        renormalize: True for probabilities over the legal tokens, False over the vocabulary.
    """
    end, (length,) = sequences[0][-1], {len(p) for p in prompts}
    ids = torch.tensor([list(p) for p in prompts], device=model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=False,
        max_new_tokens=max(len(s) for s in sequences),
        eos_token_id=end,
        pad_token_id=end,
        renormalize_logits=renormalize,
        prefix_allowed_tokens_fn=PrefixFunction(sequences, length),
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = []
    for row, score in zip(output.sequences, output.sequences_scores.tolist(), strict=True):
        title = row[length:].tolist()
        found.append(
            (tuple(title[: title.index(end) + 1]) if end in title else tuple(title), score)
        )
    return [found[i : i + beams] for i in range(0, len(found), beams)]
