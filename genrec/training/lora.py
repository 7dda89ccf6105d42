"""Add LoRA adapters to a base model with PEFT, or load the adapter of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrec import runs
from genrec.errors import ModelError, SettingsError
from genrec.models.quiet import quiet_transformers
from genrec.runs import Run
from genrec.training.config import Training


def add_adapter(model: Any, training: Training, base: str | None = None) -> Any:
    """Add a new adapter to a model, or make all weights trainable if the rank is 0.

    Args:
        model: a transformers model.
        training: the training settings.
        base: the name of the base model, which PEFT writes to its files. If None, PEFT writes the
            name under which the model was loaded.

    Returns:
        The model to train.

    Raises:
        SettingsError: no layer matches a name in ``target_modules``.
    """
    if not training.lora_rank:
        return model.requires_grad_(True)
    with quiet_transformers():  # PEFT imports bitsandbytes
        from peft import LoraConfig, get_peft_model

    model.requires_grad_(False)

    names: Any = training.target_modules
    blocks = find_blocks(model)
    if names != "all-linear":
        names = [n.strip() for n in names.split(",") if n.strip()]
    elif training.lora_layers is not None:  # PEFT selects blocks only if the layers are listed
        inside = {
            n.rpartition(".")[2] for b in blocks for n, m in b.named_modules() if _is_linear(m)
        }
        names = sorted(inside)
    chosen = None
    if training.lora_layers is not None:
        if not len(blocks):
            msg = (
                f"lora_layers={training.lora_layers} cannot be used, since the blocks of this model were not "
                "found. Leave it out."
            )
            raise SettingsError(msg)
        chosen = list(range(max(len(blocks) - training.lora_layers, 0), len(blocks)))
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.lora_dropout,
        use_dora=training.dora,
        target_modules=names,
        layers_to_transform=chosen,
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
            f"target_modules={training.target_modules!r} cannot be used: {error} Expected "
            f"all-linear, or one or more of these names: {', '.join(layers)}."
        )
        raise SettingsError(msg) from error


def find_blocks(model: Any) -> Any:
    """Return the ``ModuleList`` of a model's blocks; an empty list if it cannot be found."""
    from torch.nn import ModuleList

    many = int(model.config.get_text_config().num_hidden_layers)
    found = (m for m in model.modules() if isinstance(m, ModuleList) and len(m) == many)
    return next(found, ModuleList())


def _is_transposed(model: Any) -> bool:
    """Check whether the model stores its weight matrices transposed, as GPT-2 does."""
    return any(type(m).__name__ == "Conv1D" for m in model.modules())


def _is_linear(module: Any) -> bool:
    return type(module).__name__ in {"Linear", "Conv1D"}


def load_adapter(model: Any, since: Path, run: Run) -> Any:
    """Load the adapter of an earlier run into a model to continue training it.

    Args:
        model: a transformers model.
        since: the folder of the earlier run.
        run: the new run, which must have the same base model, prompt and tokenizer.

    Returns:
        The model to train.

    Raises:
        ModelError: the earlier run used a different model, prompt or tokenizer, or it has no
            adapter.
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
        msg = (
            f"{since} has no adapter, because all weights of its model were trained. Expected a run "
            "with an adapter (lora_rank of at least 1)."
        )
        raise ModelError(msg)
    with quiet_transformers():
        return PeftModel.from_pretrained(
            model.requires_grad_(False), str(since / runs.ADAPTER), is_trainable=True
        )
