"""Encode titles as vectors computed from a language model's hidden states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from genrec.data.catalog import Catalog
from genrec.data.titles import TitleForm
from genrec.models.language_model import LanguageModel
from genrec.prompts.encoder import Encoder
from genrec.types import Float32Array

_TOKENS = 4_096  # maximum number of tokens in one batch, including padding


def title_states(
    model: LanguageModel, catalog: Catalog, progress: Callable[[int], None] = lambda done: None
) -> Float32Array:
    """Compute a vector for each title in a catalog from a language model's hidden states.

    The model processes each title separately, in the format used in prompts. A title's vector is
    the mean of the last layer's hidden states over its tokens. Such means all point in similar
    directions (Ethayarajh 2019, https://arxiv.org/abs/1909.00512), so the mean over the catalog is
    subtracted before the vectors are scaled to unit length.

    Args:
        model: any causal language model.
        catalog: the N items.
        progress: function that is called with the number of distinct titles encoded so far.

    Returns:
        (N, W) float32 unit vectors in the order of the catalog's rows. W is the model's width.
    """
    encoder = Encoder(model.tokenizer, TitleForm.of(catalog))
    every = [encoder.start + ids for ids in encoder.titles(catalog)]
    distinct = sorted(set(every), key=lambda ids: (len(ids), ids))
    parts, first = [], 0
    while first < len(distinct):
        last = first + 1  # titles are sorted, so the last title of a batch is the longest
        while last < len(distinct) and (last + 1 - first) * len(distinct[last]) <= _TOKENS:
            last += 1
        parts.append(_means(model, distinct[first:last]))
        first = last
        progress(first)
    place = {ids: n for n, ids in enumerate(distinct)}
    vectors = np.concatenate(parts)[[place[ids] for ids in every]]
    vectors -= vectors.mean(axis=0)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), dtype=np.float32)


@torch.inference_mode()
def _means(model: LanguageModel, batch: list[tuple[int, ...]]) -> Float32Array:
    """Compute the mean of the last layer's hidden states over the tokens of each of n titles.

    Padding comes after a title, so no token of the title attends to it.

    Args:
        model: any causal language model.
        batch: token ids of each title.

    Returns:
        (n, W) float32 means, where W is the model's width.
    """
    longest = max(map(len, batch))
    ids = torch.tensor([[*b, *[b[-1]] * (longest - len(b))] for b in batch], device=model.device)
    lengths = torch.tensor([len(b) for b in batch], device=model.device)
    mask = torch.arange(longest, device=model.device) < lengths[:, None]
    backbone = model.model.base_model
    states = backbone(input_ids=ids, attention_mask=mask.long(), use_cache=False)[0].float()
    mean = (states * mask[:, :, None]).sum(dim=1) / lengths[:, None]
    return np.asarray(mean.cpu().numpy(), dtype=np.float32)
