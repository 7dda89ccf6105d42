"""Fine-tune a language model on a dataset with LoRA (low-rank adapters)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.training.config import Training as Training
    from genrec.training.trainer import train as train

__all__ = ["Training", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, because the training modules load torch."""
    if name == "Training":
        from genrec.training.config import Training

        return Training
    if name == "train":
        from genrec.training.trainer import train

        return train
    msg = f"module 'genrec.training' has no attribute {name!r}"
    raise AttributeError(msg)
