"""Move the attention keys of rotary position embeddings from one position to another.

With rotary embeddings, a key at position p is the key without a position, turned by angles that are
proportional to p. Turning it further by the angles of s moves it to position p + s. (Su et al. 2021,
https://arxiv.org/abs/2104.09864.) The values do not depend on the position.
"""

from __future__ import annotations

import torch

from genrec.models.growing_layer import GrowingLayer
from genrec.models.llama import Llama, rotate
from genrec.models.logits import Body

_PROBE = (3, 5, 7, 11)
_SHIFT = 37
_ADAPTIVE = ("dynamic", "longrope")  # the angles of these kinds depend on the length of the text


class Rotary:
    """Turns the keys of one model.

    Attributes:
        speeds: (D / 2,) float32 angle in radians per position of each pair of the first D
            components of a key. Other components are not turned.
    """

    def __init__(self, speeds: torch.Tensor) -> None:
        """Store the angles."""
        self.speeds = speeds

    def turn(self, keys: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        """Move keys to later positions.

        Args:
            keys: (..., T, D) keys.
            shifts: (..., T) int64 number of positions by which each key is moved, which may be
                negative. Dimensions before the last one are broadcast to those of the keys.

        Returns:
            (..., T, D) keys of the same data type. They are turned in float32.
        """
        angles = shifts.to(self.speeds.device)[..., None].float() * self.speeds
        angles = torch.cat((angles, angles), dim=-1)
        size = angles.shape[-1]
        turned = rotate(keys[..., :size].float(), angles.cos(), angles.sin()).to(keys.dtype)
        rest = keys[..., size:]
        return turned if not rest.shape[-1] else torch.cat((turned, rest), dim=-1)


def find_rotary(body: Body) -> Rotary | str:
    """Find out how a model's keys can be moved.

    The result is tested: keys and values of a few tokens are computed at two positions, and those
    at the first one, turned, must equal those at the second one in every layer.

    Args:
        body: the model, for which ``tree_obstacle`` returns an empty string.

    Returns:
        An object that moves keys, or the reason why the model's keys cannot be moved.
    """
    limited = [kind for kind, window in body.windows.items() if window is not None]
    others = sorted(set(body.windows) - {"full_attention", *limited})
    if limited or others:
        return f"not all of its layers have full attention ({', '.join(limited + others)})"
    speeds = _find_speeds(body)
    if isinstance(speeds, str):
        return speeds
    rotary = Rotary(speeds)
    try:
        with torch.inference_mode():
            first, second = _read_at(body, 0), _read_at(body, _SHIFT)
            shifts = torch.full((len(_PROBE),), _SHIFT)
            same = all(
                _close(rotary.turn(a.keys[:, :, : a.length], shifts), b.keys[:, :, : b.length])
                and _close(a.values[:, :, : a.length], b.values[:, :, : b.length])
                for a, b in zip(first, second, strict=True)
            )
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        return f"moving its keys fails ({type(error).__name__})"
    return rotary if same else "its keys cannot be moved to other positions by turning them"


def _find_speeds(body: Body) -> torch.Tensor | str:
    """Find the angle per position of a model's rotary embeddings; see ``find_rotary``."""
    if isinstance(body.model, Llama):
        return body.model.model.speeds(body.device)
    found: list[torch.Tensor] = []
    for module in body.model.modules():
        speeds = getattr(module, "inv_freq", None)
        if isinstance(speeds, torch.Tensor):
            if getattr(module, "rope_type", "default") in _ADAPTIVE:
                return "the angles of its rotary embeddings depend on the prompt's length"
            found.append(speeds.to(body.device, torch.float32))
    if not found:
        return "it has no rotary position embeddings"
    if any(f.shape != found[0].shape or not torch.equal(f, found[0]) for f in found):
        return "its layers have different rotary position embeddings"
    return found[0]


def _read_at(body: Body, position: int) -> list[GrowingLayer]:
    """Run a model on a few tokens that start at a position, and return their keys and values."""
    layers = body.new_layers()
    n = len(_PROBE)
    ids = torch.tensor([_PROBE], device=body.device) % body.vocabulary
    causal = torch.full((n, n), float("-inf"), dtype=body.dtype, device=body.device).triu(1)
    body(
        (torch.tensor([0]), torch.tensor([n - 1])),
        input_ids=ids,
        position_ids=torch.arange(position, position + n, device=body.device)[None],
        attention_mask=causal[None, None],
        past_key_values=body.as_cache(layers),
        use_cache=True,
    )
    return layers


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Check that two tensors are equal up to rounding, relative to their norm."""
    tolerance = 1e-3 if theirs.dtype == torch.float32 else 0.05
    return bool((ours.float() - theirs.float()).norm() <= tolerance * theirs.float().norm())
