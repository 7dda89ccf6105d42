"""The slow, obvious ways that the fast ones are tested against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from genrec.models.base import Generated
from genrec.models.generation import Ending


class DictTrie:
    """A trie of nested dicts; a leaf holds its rows under the key None."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.root: dict[Any, Any] = {}
        for row, sequence in enumerate(sequences):
            node = self.root
            for token in sequence:
                node = node.setdefault(token, {})
            node.setdefault(None, []).append(row)


def forward(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """(V,) logits after ids by one plain pass."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits
    return logits[0, -1].double()


Read = Callable[[Sequence[int]], torch.Tensor]  # logits after the prompt and a path below it


def logprobs(
    model: Any,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    normalization: str,
    read: Read | None = None,
) -> list[float]:
    """Gives log P of every row, title by title, each token by a plain pass over prompt and prefix."""
    read = read or (lambda path: forward(model, [*prompt, *path]))
    trie = DictTrie(sequences)
    cache: dict[tuple[int, ...], torch.Tensor] = {}
    result = []
    for sequence in sequences:
        node, total = trie.root, 0.0
        for depth, token in enumerate(sequence):
            prefix = tuple(sequence[:depth])
            children = [t for t in node if t is not None]
            if normalization == "vocab" or len(children) > 1:
                if prefix not in cache:
                    cache[prefix] = read(prefix)
                logits = cache[prefix]
                over = logits if normalization == "vocab" else logits[children]
                total += float(logits[token] - torch.logsumexp(over, 0))
            node = node[token]
        result.append(total - float(torch.log(torch.tensor(float(len(node[None]))))))
    return result


def fused_logprobs(
    model: Any,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    weights: Sequence[float],
    beta: float,
    read: Read | None = None,
) -> list[float]:
    """Gives log P of every row where each child's share is weighed by its weight to the power beta."""
    after = read or (lambda path: forward(model, [*prompt, *path]))
    root = DictTrie(sequences).root
    result = [0.0] * len(sequences)

    def rows(node: dict[Any, Any]) -> list[int]:
        return [r for t, b in node.items() for r in (b if t is None else rows(b))]

    def visit(node: dict[Any, Any], prefix: tuple[int, ...], so_far: float) -> None:
        if None in node:
            shares = torch.tensor([beta * math.log(weights[r]) for r in node[None]]).double()
            values = torch.log_softmax(shares, 0).tolist()
            for row, value in zip(node[None], values, strict=True):
                result[row] = so_far + value
            return
        tokens = list(node)
        shares = torch.zeros(1).double()
        if len(tokens) > 1:
            mass = [sum(weights[r] for r in rows(node[t])) for t in tokens]
            logits = after(prefix)[tokens]
            shares = torch.log_softmax(logits + beta * torch.tensor(mass).double().log(), 0)
        for token, value in zip(tokens, shares.tolist(), strict=True):
            visit(node[token], (*prefix, token), so_far + value)

    visit(root, (), 0.0)
    return result


def ranked(values: Sequence[float], rows: Sequence[int]) -> list[int]:
    """Rows by falling value, ties by row."""
    return sorted(rows, key=lambda r: (-values[r], r))


def enumerated(model: Any, prompt: Sequence[int], ending: Ending) -> list[Generated]:
    """Every text that may be written, the most probable first, each token by a plain pass."""
    found = []
    open_: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while open_:
        prefix, so_far = open_.pop()
        values = ending.logprobs(forward(model, [*prompt, *prefix])[None])[0].tolist()
        for token, value in enumerate(values):
            ids, total = (*prefix, token), so_far + value
            if value == float("-inf"):
                continue
            text = ending.ended(ids)
            if text is not None:
                found.append(Generated(text, total, True))
            elif len(ids) == ending.max_tokens:
                found.append(Generated(ending.decode(ids), total, False))
            else:
                open_.append((ids, total))
    return sorted(found, key=lambda g: -g.logprob)
