"""Generate free text by sampling or beam search, scoring tokens with a TokenTree.

The transformers method ``generate`` would process the prompt once for each text and apply the
model's default settings, such as top_k and top_p. Here, the prompt is processed only once, and only
the given arguments have an effect. This module deals with tokens and text only, not with items.
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
        terminator: string that ends a text as soon as it occurs in it.
        eos: token ids that end a text.
        banned: token ids that are never generated. Ids that are also in ``eos`` remain allowed.
        max_tokens: maximum number of tokens in a text.
    """

    decode: Decode
    terminator: str
    eos: tuple[int, ...]
    banned: tuple[int, ...]
    max_tokens: int

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert logits to log-probabilities in which banned tokens have probability 0.

        Args:
            logits: (n, V) float32 logits of the V tokens in the vocabulary, for n texts.

        Returns:
            (n, V) float64 log-probabilities; -inf for banned tokens.

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
        """Return the text of the given token ids if it has ended, or None if it is unfinished.

        Args:
            ids: token ids generated so far, at least one.
        """
        if ids[-1] in self.eos:
            return self.decode(ids[:-1])
        text = self.decode(ids)
        return text.partition(self.terminator)[0] if self.terminator in text else None


@dataclass(frozen=True, slots=True)
class _Live:
    """An unfinished text.

    Attributes:
        handle: handle of the text's last token in the token tree.
        ids: token ids generated so far.
        logprob: natural logarithm of the text's probability so far.
        copies: number of samples that begin with this text.
    """

    handle: int
    ids: tuple[int, ...]
    logprob: float
    copies: int = 1


def sample(
    tree: TokenTree, ending: Ending, *, n: int, temperature: float = 1.0, seed: int = 0
) -> list[Generated]:
    """Draw n random texts from the model and return them in no particular order.

    If several texts begin with the same tokens, the model processes these tokens only once.

    Args:
        tree: the token tree of a single prompt.
        ending: the conditions that end a text.
        n: number of texts to draw.
        temperature: positive number by which the logits are divided before a token is drawn.
        seed: random seed.
    """
    generator = torch.Generator().manual_seed(seed)
    live = [_Live(ROOT, (), 0.0, n)]
    logits = tree.logits[None]
    done: list[Generated] = []
    for length in range(1, ending.max_tokens + 1):
        logprobs = ending.logprobs(logits).cpu()
        best = logprobs.max(dim=-1, keepdim=True).values  # avoids overflow at tiny temperatures
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
    """Find n probable texts by beam search with n beams, and return the most probable first.

    Probabilities are not normalized by the length of the text.

    Args:
        tree: the token tree of a single prompt.
        ending: the conditions that end a text.
        n: number of texts to return, which is also the number of beams.
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
    """Extend each of n texts by one token and run the model on these tokens.

    Args:
        tree: the token tree of the prompt.
        new: n pairs of a text and its new token. The text's ids already include the token, but its
            handle is still the handle of the token before.

    Returns:
        The texts with the handles of their new tokens, and the model's (n, V) float32 logits after
        these texts for the V tokens in the vocabulary.
    """
    handles, logits = tree.extend([p.handle for p, _ in new], [[token] for _, token in new])
    live = [_Live(h, p.ids, p.logprob, p.copies) for h, (p, _) in zip(handles, new, strict=True)]
    return live, logits
