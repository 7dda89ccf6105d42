"""Gather and place the tensors of sharded models (FSDP). Knows tensors and wrappers, no runs."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from genrec.errors import SettingsError

_OLDEST_ACCELERATE = (1, 15)  # the first known to leave the output layer whole after a pass


def check_sharding(accelerator: Any) -> None:
    """Refuse a sharded setup that training does not support.

    Args:
        accelerator: accelerate's, of a run whose weights are sharded.

    Raises:
        SettingsError: FSDP's first version is configured, or accelerate is too old.
    """
    if not accelerator.is_fsdp2:
        msg = (
            "FSDP's first version is not supported. Expected fsdp_version: 2 in the configuration."
        )
        raise SettingsError(msg)
    installed = importlib.metadata.version("accelerate")
    if tuple(map(int, installed.split(".")[:2])) < _OLDEST_ACCELERATE:
        oldest = ".".join(map(str, _OLDEST_ACCELERATE))
        msg = f"FSDP does not work with accelerate {installed}. Expected version {oldest} or later."
        raise SettingsError(msg)


def gather_tensor(value: Tensor, keep: bool) -> Tensor:
    """Return a tensor whole and on the CPU; of a sharded tensor, every process must call this.

    Args:
        value: whole or sharded.
        keep: whether this process needs the result; otherwise it gets an empty tensor.
    """
    value = value.detach()
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.cpu().contiguous() if keep else torch.empty(0)


def place_like(value: Tensor, other: Tensor) -> Tensor:
    """Move a whole tensor to the device of another one, and shard it in the same way."""
    value = value.to(other.device)
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements)


def unwrap(wrapped: Any, name: str) -> Any:
    """Return the optimizer or scheduler that accelerate wraps.

    Args:
        wrapped: the wrapper, or the object itself.
        name: the wrapper's attribute that holds it, ``optimizer`` or ``scheduler``.
    """
    while hasattr(wrapped, name) and not callable(getattr(wrapped, name)):
        wrapped = getattr(wrapped, name)
    return wrapped
