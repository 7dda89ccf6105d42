"""Train a model with the transformers Trainer and the losses of this library.

This module deals with steps and batches, not with checkpoints or logs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from genrec import runs
from genrec.errors import ModelError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.models.quiet import quiet_transformers
from genrec.training.config import Training
from genrec.training.examples import Examples
from genrec.training.objectives import Objective
from genrec.training.sharding import check_sharding, place_like
from genrec.types import FloatArray


def build_trainer(
    objective: Objective,
    examples: Examples,
    model: LanguageModel,
    training: Training,
    folder: Path,
    callback: TrainerCallback,
) -> LossTrainer:
    """Create a run's Trainer, and set its number of steps and its learning rate schedule.

    Args:
        objective: the objective to minimize.
        examples: the training examples.
        model: the model to train.
        training: the training settings.
        folder: the run folder.
        callback: an object whose methods the Trainer calls before and after each step.

    Raises:
        SettingsError: a tracker in ``report_to`` is unknown, or the FSDP configuration is not
            supported.
    """
    arguments = _training_arguments(model, training, folder)
    per_step = training.batch_size * training.accumulate * arguments.world_size
    steps = math.ceil(len(examples) / per_step)
    targets = count_targets(examples, training)
    arguments.max_steps = max(1, math.ceil(steps * targets / examples.n_targets))
    arguments.warmup_steps = math.ceil(training.warmup * arguments.max_steps)
    try:
        trainer = LossTrainer(
            objective,
            model=model.model,
            args=arguments,
            train_dataset=examples,
            callbacks=[callback],
            processing_class=None,
        )
    except (ImportError, RuntimeError, ValueError) as error:
        if training.report_to == "none":
            raise
        msg = (
            f"report_to={training.report_to!r} cannot be used: {error} Expected none, or the names "
            "of installed trackers that transformers supports, separated by commas."
        )
        raise SettingsError(msg) from error
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if trainer.is_fsdp_enabled:
        check_sharding(trainer.accelerator)
    return trainer


def count_targets(examples: Examples, training: Training) -> float:
    """Return the number of targets that a run trains on.

    This is ``max_targets`` if it is set, and otherwise ``epochs`` times the number of targets in the
    examples.
    """
    if training.max_targets is not None:
        return training.max_targets
    return examples.n_targets * training.epochs


def _training_arguments(
    model: LanguageModel, training: Training, folder: Path
) -> TrainingArguments:
    """Translate the training settings into arguments for the transformers Trainer.

    The Trainer's own logs and checkpoints are turned off, because genrec writes its own.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    constant = training.schedule == "constant"
    with quiet_transformers():
        return TrainingArguments(
            output_dir=str(folder / runs.CHECKPOINTS),
            use_cpu=model.device.type == "cpu",
            ddp_backend="gloo" if several and model.device.type == "cpu" else None,
            bf16=model.device.type == "cuda" and model.dtype == torch.bfloat16,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.accumulate,
            learning_rate=training.learning_rate,
            lr_scheduler_type="constant_with_warmup" if constant else training.schedule,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            max_steps=1,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to=[r.strip() for r in training.report_to.split(",")],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=model.device.type == "cuda",
            seed=training.seed,
            data_seed=training.seed,
        )


class LossTrainer(Trainer):
    """A Trainer that minimizes the loss of an ``Objective`` and counts targets and tokens."""

    def __init__(self, objective: Objective, **rest: Any) -> None:
        """Store the objective, and pass all other arguments to the transformers Trainer."""
        super().__init__(data_collator=objective.batch, **rest)
        self._objective = objective
        self.model_accepts_loss_kwargs = True  # otherwise, the Trainer would divide the loss again
        self._seen = np.zeros(3)  # this process's total nats, number of targets, number of tokens
        self._learned = 0.0  # number of targets in all processes

    def take_counts(self) -> tuple[FloatArray, float]:
        """Return the counts since the last call, and reset them to zero.

        Returns:
            A (3,) array with this process's sum of losses in nats, number of targets and number of
            tokens; and the number of targets in all processes.
        """
        counts = self._seen, self._learned
        self._seen, self._learned = np.zeros(3), 0.0
        return counts

    def load_weights(self, checkpoint: Path) -> None:
        """Load the model's weights from the folder of a checkpoint."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Load the weights of a checkpoint; for a sharded model, each process loads its part."""
        if not self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept: dict[str, Tensor] = {}
        for path in Path(resume_from_checkpoint).glob("*model*.safetensors"):
            kept |= load_file(path)
        assert self.model is not None
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                if value.requires_grad:
                    name = name.replace(
                        ".default", ""
                    )  # the names in the file do not contain PEFT's adapter name
                    whole = kept[name if name in kept else name.removesuffix(".weight")]
                    value.copy_(place_like(whole, value))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return this process's batches for the next step, and the target count across processes."""
        batches = [b for _, b in zip(range(num_batches), epoch_iterator, strict=False)]
        n = torch.tensor(float(sum(len(b["weight"]) for b in batches)), device=device)
        if self.args.world_size > 1:
            n = self.accelerator.gather(n).sum()
        self._learned += float(n)
        return batches, n

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of a batch, as its contribution to the mean loss of the whole step.

        The weighted losses of the batch's targets are summed and divided by the number of targets
        in the step. They are also multiplied by the number of processes, because the gradients of
        the processes are averaged.

        Raises:
            ModelError: the loss is not finite.
        """
        nats, losses = self._objective.losses(model, inputs)
        assert isinstance(num_items_in_batch, Tensor)
        share = self.args.world_size / num_items_in_batch
        loss = (losses * inputs["weight"].to(losses.dtype)).sum() * share
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {float(loss.detach())} at step {self.state.global_step + 1}. Expected "
                "a finite number. The last checkpoint is intact. Lower learning_rate or train in "
                "float32, and continue with --resume or start again."
            )
            raise ModelError(msg)
        tokens = float((inputs["document"] >= 0).sum())
        self._seen += [float(nats.sum()), len(nats), tokens]
        return loss
