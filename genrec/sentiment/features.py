"""Compute features of texts, from which a classifier learns whether they are positive.

This module deals with texts only, not with labels or events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from genrec.models.language_model import LanguageModel
from genrec.text import one_line
from genrec.types import Float32Array, FloatArray, IntArray

START, END = 96, 32  # tokens that are read of a long text: its beginning and its end
POSITIVE = (" positive", " good", " great", " excellent")
NEGATIVE = (" negative", " bad", " terrible", " awful")
ASKED = ("Review: ", "\nThe sentiment of this review is")
BUCKETS = 1 << 17  # number of features for words and pairs of words
_TOKENS = 4_096  # maximum number of tokens in one batch, including padding


def hashed_words(texts: Sequence[str]) -> object:
    """Count the words and pairs of neighboring words of texts, hashed to a fixed number of columns.

    The counts of a text are replaced by 1 plus their logarithm. Chinese characters count as words. No
    vocabulary has to be stored (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
    Learning").

    Returns:
        (n, BUCKETS) sparse float64 matrix.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    made = HashingVectorizer(
        n_features=BUCKETS, ngram_range=(1, 2), alternate_sign=False, norm=None,
        token_pattern=r"(?u)[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[!?]",
    ).transform(texts)  # fmt: skip
    made.data = 1 + np.log(made.data)
    return made


class ReviewReader:
    """An object with which a causal language model reads texts as reviews.

    A text is user text, so it can contain no control tokens. Of a long text, only the beginning and
    the end are read.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Encode what stands around every text.

        Args:
            model: any causal language model.
        """
        self._model = model
        before, after = ASKED
        start = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
        self._before = [*start, *self._encode(before)]
        self._after = self._encode(after)
        self._words = [[self._encode(w)[0] for w in words] for words in (POSITIVE, NEGATIVE)]

    def states(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> Float32Array:
        """Compute the mean hidden states of texts, from four layers of the model.

        Sentiment is clearest in the middle layers, so the layers at about one half, two thirds, five
        sixths and the whole of the depth are used.

        Args:
            texts: n texts.
            progress: a function that is called with the number of texts read so far.

        Returns:
            (n, 4 * W) float32 array, where W is the model's width.
        """
        parts = [(places, means) for places, means, _ in self._read(texts, progress)]
        return _in_order(parts, len(texts))

    def answers(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> FloatArray:
        """Compute how much more the model expects a positive word than a negative one after a review.

        The value for a review without content is subtracted, since a model may prefer one answer
        regardless of the text (Zhao et al. 2021, "Calibrate Before Use").

        Args:
            texts: n texts.
            progress: a function that is called with the number of texts read so far.

        Returns:
            (n,) differences of log-probabilities in nats.
        """
        blank = ["", "N/A", "..."]
        every = [*texts, *blank]
        parts = [(places, margins) for places, _, margins in self._read(every, progress)]
        margins = _in_order(parts, len(every))
        return np.asarray(margins[: len(texts)] - margins[len(texts) :].mean(), dtype=np.float64)

    def _encode(self, text: str) -> list[int]:
        found = self._model.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(found["input_ids"])

    def _ids(self, text: str) -> list[int]:
        ids = self._encode(one_line(text))
        if len(ids) > START + END:
            ids = ids[:START] + ids[-END:]
        return [*self._before, *ids, *self._after]

    def _read(
        self, texts: Sequence[str], progress: Callable[[int], None]
    ) -> Iterator[tuple[IntArray, Float32Array, Float32Array]]:
        """Read texts in batches of similar length.

        Yields:
            The indices of b texts, the (b, 4 * W) mean hidden states and the (b,) margins.
        """
        every = [self._ids(text) for text in texts]
        order = sorted(range(len(every)), key=lambda n: (len(every[n]), n))
        first = 0
        while first < len(order):
            last = first + 1
            while last < len(order) and (last + 1 - first) * len(every[order[last]]) <= _TOKENS:
                last += 1
            batch = order[first:last]
            yield np.array(batch), *self._read_batch([every[n] for n in batch])
            first = last
            progress(first)

    @torch.inference_mode()
    def _read_batch(self, batch: Sequence[list[int]]) -> tuple[Float32Array, Float32Array]:
        """Compute the mean hidden states and the margins of texts with their surroundings."""
        model, device = self._model.model, self._model.device
        longest = max(map(len, batch))
        ids = torch.tensor([[*b, *[b[-1]] * (longest - len(b))] for b in batch], device=device)
        lengths = torch.tensor([len(b) for b in batch], device=device)
        place = torch.arange(longest, device=device)
        mask = place < lengths[:, None]
        out = model.base_model(
            input_ids=ids, attention_mask=mask.long(), use_cache=False, output_hidden_states=True
        )
        own = (place >= len(self._before)) & (place < (lengths - len(self._after))[:, None])
        many = own.sum(dim=1).clamp(min=1)[:, None]
        depth = len(out.hidden_states) - 1
        layers = sorted({depth // 2, 2 * depth // 3, 5 * depth // 6, depth})
        means = [(out.hidden_states[n].float() * own[:, :, None]).sum(dim=1) / many for n in layers]
        end = out.hidden_states[-1][torch.arange(len(batch), device=device), lengths - 1]
        logits = model.get_output_embeddings()(end).float()
        positive, negative = (logits[:, words].logsumexp(dim=1) for words in self._words)
        states = torch.cat(means, dim=1).cpu().numpy()
        return states, (positive - negative).cpu().numpy()


def _in_order(parts: Sequence[tuple[IntArray, Float32Array]], n: int) -> Float32Array:
    """Put the values of batches into the order of the texts."""
    if not parts:
        return np.zeros((0, 0), dtype=np.float32)
    values = np.concatenate([part for _, part in parts])
    found = np.empty_like(values)
    found[np.concatenate([places for places, _ in parts])] = values
    return found[:n]
