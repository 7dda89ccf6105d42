"""Add LoRA adapters to a base model, or load those of an earlier run (PEFT). Knows no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrec import runs
from genrec.errors import ModelError, SettingsError
from genrec.models.quiet import quiet_transformers
from genrec.runs import Run
from genrec.training.config import Training


def add_adapter(model: Any, training: Training, base: str | None = None) -> Any:
    """Add a fresh adapter to a model, or make all its weights trainable if the rank is 0.

    Args:
        model: transformers' model.
        training: the settings.
        base: the model's name for PEFT's files; None for the folder that it was loaded from.

    Returns:
        The model to train.

    Raises:
        SettingsError: no layer has a name in ``target_modules``.
    """
    if not training.lora_rank:
        return model.requires_grad_(True)
    with quiet_transformers():  # it loads bitsandbytes
        from peft import LoraConfig, get_peft_model

    model.requires_grad_(False)

    names: Any = training.target_modules
    if names != "all-linear":
        names = [n.strip() for n in names.split(",") if n.strip()]
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.lora_dropout,
        use_dora=training.dora,
        target_modules=names,
        fan_in_fan_out=_is_transposed(model),
    )
    try:
        with quiet_transformers():
            tuned = get_peft_model(model, settings)
            if base is not None:
                tuned.peft_config["default"].base_model_name_or_path = base
            return tuned
    except ValueError as error:
        layers = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if _is_linear(m)})
        msg = (
            f"target_modules={training.target_modules!r}: {error} Expected all-linear, or names "
            f"among: {', '.join(layers)}."
        )
        raise SettingsError(msg) from error


def _is_transposed(model: Any) -> bool:
    """Check whether the model stores weights transposed, as GPT-2 does."""
    return any(type(m).__name__ == "Conv1D" for m in model.modules())


def _is_linear(module: Any) -> bool:
    return type(module).__name__ in {"Linear", "Conv1D"}


def load_adapter(model: Any, since: Path, run: Run) -> Any:
    """Load the adapter of an earlier run into a model, to train it further.

    Args:
        model: transformers' model.
        since: the earlier run's folder.
        run: the present run.

    Returns:
        The model to train.

    Raises:
        ModelError: the earlier run had another model, prompt or tokenizer, or has no adapter.
    """
    with quiet_transformers():
        from peft import PeftModel

    old = Run.read(since)
    old.check(
        template=run.template_hash,
        encoder=run.encoder_hash,
        base=run.base_fingerprint or None,
        kept=run.base_kept,
    )
    if not (since / runs.ADAPTER).is_dir():
        msg = f"{since} has no adapter, since all weights were trained. Expected a run with an adapter."
        raise ModelError(msg)
    with quiet_transformers():
        return PeftModel.from_pretrained(
            model.requires_grad_(False), str(since / runs.ADAPTER), is_trainable=True
        )
