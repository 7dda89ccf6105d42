"""The peer: transformers' own beam search with a Python prefix function. Used by tests too."""

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
    """Title token sequences with their summed log-probabilities, best first.

    Args:
        model: a transformers causal language model.
        prompt: token ids.
        sequences: token ids of all titles; each ends with the same terminator id.
        beams: how many.
        renormalize: True for probabilities over the legal tokens, False over the vocabulary.
    """
    end = sequences[0][-1]
    output = model.generate(
        torch.tensor([list(prompt)], device=model.device),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=model.device),
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=False,
        max_new_tokens=max(len(s) for s in sequences),
        eos_token_id=end,
        pad_token_id=end,
        renormalize_logits=renormalize,
        prefix_allowed_tokens_fn=PrefixFunction(sequences, len(prompt)),
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = []
    for ids, score in zip(output.sequences, output.sequences_scores.tolist(), strict=True):
        title = ids[len(prompt) :].tolist()
        found.append(
            (tuple(title[: title.index(end) + 1]) if end in title else tuple(title), score)
        )
    return found
