"""Gather and distribute the tensors of a model that FSDP shards across several processes."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from genrec.errors import SettingsError

_OLDEST_ACCELERATE = (1, 15)  # first version known to keep the output layer whole after a pass


def check_sharding(accelerator: Any) -> None:
    """Check that training supports the FSDP version and the accelerate version in use.

    Args:
        accelerator: the ``Accelerator`` of the accelerate library, in a run with sharded weights.

    Raises:
        SettingsError: FSDP version 1 is configured, or accelerate is too old.
    """
    if not accelerator.is_fsdp2:
        msg = "FSDP version 1 is not supported. Expected fsdp_version: 2 in the configuration."
        raise SettingsError(msg)
    installed = importlib.metadata.version("accelerate")
    if tuple(map(int, installed.split(".")[:2])) < _OLDEST_ACCELERATE:
        oldest = ".".join(map(str, _OLDEST_ACCELERATE))
        msg = f"FSDP does not work with accelerate {installed}. Expected version {oldest} or later."
        raise SettingsError(msg)


def gather_tensor(value: Tensor, keep: bool) -> Tensor:
    """Collect all parts of a sharded tensor and return the whole tensor on the CPU.

    If the tensor is sharded, every process must call this function.

    Args:
        value: a whole or a sharded tensor.
        keep: True if this process needs the result; otherwise, it gets an empty tensor.
    """
    value = value.detach()
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.cpu().contiguous() if keep else torch.empty(0)


def place_like(value: Tensor, other: Tensor) -> Tensor:
    """Move a whole tensor to the device of another tensor, and shard it in the same way."""
    value = value.to(other.device)
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements)


def unwrap(wrapped: Any, name: str) -> Any:
    """Return the optimizer or scheduler inside the wrapper that accelerate puts around it.

    Args:
        wrapped: the wrapped object; an object without a wrapper is returned unchanged.
        name: the name of the wrapper's attribute for the object: ``optimizer`` or ``scheduler``.
    """
    while hasattr(wrapped, name) and not callable(getattr(wrapped, name)):
        wrapped = getattr(wrapped, name)
    return wrapped
