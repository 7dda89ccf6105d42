"""Find out what a model's keys and values look like, and whether it can use ``CachedTree``."""

from __future__ import annotations

import torch

from genrec.models.cached_tree import CachedTree
from genrec.models.logits import Body
from genrec.models.plain_tree import PlainTree
from genrec.models.token_tree import ROOT


def measure_shape(body: Body) -> tuple[int, int, int, int]:
    """Return the number of layers, the number of heads, and the sizes of a key and of a value."""
    layers = CachedTree(body, [[0]]).layers
    _, heads, _, size = layers[0].keys.shape
    return len(layers), heads, size, layers[0].values.shape[-1]


def tree_obstacle(body: Body) -> str:
    """Return the reason why a model cannot use ``CachedTree``, or an empty string if it can.

    A model with recurrent states cannot use it, because such a state depends on all tokens
    processed so far and not only on a node's ancestors. If this is not evident from the
    configuration, it is detected by a test: on a small tree with two branches, ``CachedTree`` and
    ``PlainTree`` must give the same logits.
    """
    if body.known:
        return ""
    others = sorted(set(body.windows) - {"full_attention", "sliding_attention"})
    if others:
        return f"it has {', '.join(others)} layers"
    if body.head is None and not body.keeps:
        return "its forward pass has no logits_to_keep argument"
    n = body.vocabulary
    prompt, runs = [t % n for t in (3, 5, 7)], [[t % n] for t in (11, 13)]
    try:
        with torch.random.fork_rng(devices=[]):
            fast, slow = CachedTree(body, [prompt]), PlainTree(body, [prompt])
            below = fast.extend([ROOT, ROOT], runs)[0], slow.extend([ROOT, ROOT], runs)[0]
            ours = fast.extend(below[0], runs[::-1])[1]
            plain = slow.extend(below[1], runs[::-1])[1]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        return f"building a token tree fails ({type(error).__name__})"
    quantized = getattr(body.model.config, "quantization_config", None) is not None
    tolerance = 1e-3 if body.dtype == torch.float32 and not quantized else 0.25
    if not torch.allclose(ours, plain, atol=tolerance, rtol=tolerance):
        return "a token tree gives different logits from full passes"
    return ""
