"""Apply a LoRA adapter to a model of the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrec.errors import ModelError
from genrec.models.quiet import quiet_transformers


def with_adapter(model: Any, folder: Path, *, merge: bool) -> Any:
    """Apply a LoRA adapter to a model of the transformers library.

    Args:
        model: the model.
        folder: the folder of the adapter.
        merge: whether to merge the adapter into the weights.

    Raises:
        ModelError: the adapter cannot be loaded.
    """
    with quiet_transformers():
        from peft import PeftModel

        try:
            tuned: Any = PeftModel.from_pretrained(model, str(folder))
            return (tuned.merge_and_unload() if merge else tuned).eval()
        except Exception as error:  # a broken adapter may cause any kind of exception
            msg = (
                f"The adapter in {folder} cannot be loaded: {error} "
                "Expected the files that training wrote. Copy the run folder again."
            )
            raise ModelError(msg) from error
