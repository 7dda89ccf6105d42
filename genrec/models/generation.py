"""Generate free text with a TokenTree, by sampling or beam search.

``generate`` in transformers would process the prompt once per text and apply the model's default
settings (top_k, top_p, ...). Here the prompt is processed once, and only the given arguments apply.
This module deals with tokens and text only, not with items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from genrec.errors import ModelError
from genrec.models.base import Generated
from genrec.models.logits import NOT_FINITE
from genrec.models.token_tree import ROOT, TokenTree

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Ending:
    """The conditions that end a generated text, and the tokens that it may not contain.

    Attributes:
        decode: function that converts token ids to text.
        terminator: string that ends a text as soon as it occurs.
        eos: (E,) ids that end a text.
        banned: (B,) ids that are never generated, except for those in ``eos``.
        max_tokens: maximum number of tokens in a text.
    """

    decode: Decode
    terminator: str
    eos: tuple[int, ...]
    banned: tuple[int, ...]
    max_tokens: int

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (n, V) float64 log-probabilities over the allowed tokens, and -inf for others.

        Args:
            logits: (n, V) float32.

        Raises:
            ModelError: the logits are not finite.
        """
        values = logits.double()
        never = [i for i in self.banned if i not in self.eos]
        values[:, never] = -torch.inf
        if not torch.logsumexp(values, dim=-1).isfinite().all():
            raise ModelError(NOT_FINITE)
        return torch.log_softmax(values, dim=-1)

    def ended(self, ids: Sequence[int]) -> str | None:
        """Decode token ids to text if the text has ended; return None if it is unfinished."""
        if ids[-1] in self.eos:
            return self.decode(ids[:-1])
        text = self.decode(ids)
        return text.partition(self.terminator)[0] if self.terminator in text else None


@dataclass(frozen=True, slots=True)
class _Live:
    """An unfinished text, which is shared by ``copies`` samples."""

    handle: int
    ids: tuple[int, ...]
    logprob: float
    copies: int = 1


def sample(
    tree: TokenTree, ending: Ending, *, n: int, temperature: float = 1.0, seed: int = 0
) -> list[Generated]:
    """Draw n texts from the model, in no particular order.

    Texts that begin with the same tokens share the forward passes for these tokens.

    Args:
        tree: the token tree of a single prompt.
        ending: the conditions that end a text.
        n: number of texts.
        temperature: positive number by which logits are divided before a token is drawn.
        seed: random seed.
    """
    generator = torch.Generator().manual_seed(seed)
    live = [_Live(ROOT, (), 0.0, n)]
    logits = tree.logits[None]
    done: list[Generated] = []
    for length in range(1, ending.max_tokens + 1):
        logprobs = ending.logprobs(logits).cpu()
        best = logprobs.max(dim=-1, keepdim=True).values  # keeps tiny temperatures finite
        chances = torch.softmax((logprobs - best) / temperature, dim=-1)
        counts: dict[tuple[int, int], int] = {}
        for place, prefix in enumerate(live):
            drawn = torch.multinomial(chances[place], prefix.copies, True, generator=generator)
            for token in drawn.tolist():
                counts[place, token] = counts.get((place, token), 0) + 1
        new: list[tuple[_Live, int]] = []
        for (place, token), copies in counts.items():
            ids = (*live[place].ids, token)
            logprob = live[place].logprob + float(logprobs[place, token])
            text = ending.ended(ids)
            if text is not None or length == ending.max_tokens:
                whole = ending.decode(ids) if text is None else text
                done += [Generated(whole, logprob, text is not None)] * copies
            else:
                new.append((_Live(live[place].handle, ids, logprob, copies), token))
        if not new:
            break
        live, logits = _extend(tree, new)
    return done


def beams(tree: TokenTree, ending: Ending, *, n: int) -> list[Generated]:
    """Find the n best texts by beam search with n beams, best first, without length normalization.

    Args:
        tree: the token tree of a single prompt.
        ending: the conditions that end a text.
        n: number of texts, which is also the number of beams.
    """
    live = [_Live(ROOT, (), 0.0)]
    logits = tree.logits[None]
    done: list[Generated] = []
    for _ in range(ending.max_tokens):
        logprobs = ending.logprobs(logits).cpu()
        scores = torch.tensor([p.logprob for p in live])[:, None] + logprobs
        best = torch.topk(scores.reshape(-1), min(2 * n, scores.numel()))
        new: list[tuple[_Live, int]] = []
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if score == -torch.inf or len(new) == n:
                break
            place, token = divmod(index, logprobs.shape[1])
            ids = (*live[place].ids, token)
            text = ending.ended(ids)
            if text is not None:
                done.append(Generated(text, score, True))
            else:
                new.append((_Live(live[place].handle, ids, score), token))
        done = sorted(done, key=lambda g: -g.logprob)[:n]
        if not new or (len(done) == n and new[0][0].logprob <= done[-1].logprob):
            return done
        live, logits = _extend(tree, new)
    cut = [Generated(ending.decode(p.ids), p.logprob, False) for p in live]
    return sorted([*done, *cut], key=lambda g: -g.logprob)[:n]


def _extend(tree: TokenTree, new: Sequence[tuple[_Live, int]]) -> tuple[list[_Live], torch.Tensor]:
    """Extend each text by one token.

    Returns:
        The texts, and the (n, V) float32 logits after them.
    """
    handles, logits = tree.extend([p.handle for p, _ in new], [[token] for _, token in new])
    live = [_Live(h, p.ids, p.logprob, p.copies) for h, (p, _) in zip(handles, new, strict=True)]
    return live, logits
