"""Choose the device, the precision and the quantization of a model from the user's settings.

This module does not load models.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from genrec.errors import SettingsError
from genrec.extras import how_to_install

MAX_THREADS = 512
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def quantization_arguments(
    kind: str, precision: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Build the arguments that make ``from_pretrained`` quantize a model's weights.

    Args:
        kind: ``none``, ``int8`` or ``nf4``.
        precision: the data type for computations with nf4 weights.
        device: the device of the model.

    Returns:
        The keyword arguments; empty for ``none``.

    Raises:
        SettingsError: the kind is unknown, or bitsandbytes is not installed.
    """
    if kind == "none":
        return {}
    if kind not in {"int8", "nf4"}:
        msg = f"Unknown value quantize={kind!r}. Expected 'none', 'int8' or 'nf4'."
        raise SettingsError(msg)
    if importlib.util.find_spec("bitsandbytes") is None:
        msg = (
            f"quantize={kind!r} needs bitsandbytes, which is not installed. "
            f"{how_to_install('quantize')}"
        )
        raise SettingsError(msg)
    from transformers import BitsAndBytesConfig

    # Otherwise, int8 layers would issue a warning for every product of float32 numbers.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if kind == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision,
        )
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def resolve_device(device: str) -> torch.device:
    """Convert the name of a device to a torch device.

    Args:
        device: ``auto`` or a name that torch accepts. ``auto`` means the GPU assigned to this
            process if there is one, and the CPU otherwise.

    Raises:
        SettingsError: the name is unknown or the device is not available.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        own = os.environ.get("LOCAL_RANK")  # set if several processes each train on one GPU
        return torch.device("cuda" if own is None else f"cuda:{own}")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        msg = f"Unknown value device={device!r}. Expected auto, cpu, cuda, cuda:N or mps."
        raise SettingsError(msg) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    available["mps"] = torch.backends.mps.is_available()
    if not available.get(target.type, False):
        there = ", ".join(k for k, v in available.items() if v)
        msg = f"device={device!r} is not available here. Expected one of: auto, {there}."
        raise SettingsError(msg)
    return target


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Convert the name of a precision to a torch dtype.

    The name ``auto`` means bfloat16 on a CUDA GPU or a CPU with fast bfloat16 arithmetic, and
    float32 otherwise.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" or fast_bf16_cpu() else torch.float32
    if dtype not in DTYPES:
        msg = f"Unknown value dtype={dtype!r}. Expected auto or one of {', '.join(DTYPES)}."
        raise SettingsError(msg)
    return DTYPES[dtype]


def fast_bf16_cpu() -> bool:
    """Check whether this CPU has instructions for bfloat16 matrices (AMX).

    Without them, float32 is faster: with AVX-512's bfloat16 instructions alone, reading 256 tokens
    takes 1.45 times as long in bfloat16 (see benchmarks/LOG.md), and with neither, 40 times.
    """
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in info


def check_threads(threads: int) -> None:
    """Raise a SettingsError if the number of threads is invalid."""
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        msg = (
            f"threads={threads!r} is not valid. Expected 1 to {MAX_THREADS}, ideally one per idle "
            "core."
        )
        raise SettingsError(msg)
