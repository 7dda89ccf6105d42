"""Write and read the checkpoints of a training run.

This module deals with weights, optimizers and files, not with the training steps. A checkpoint is a
folder with these files:

CHECKPOINT/
    adapter_model.safetensors or model.safetensors   trained weights
    optimizer.safetensors   optimizer state of every parameter, named PARAMETER|KEY
    rng.safetensors         random number generators of every process, named DEVICE.PROCESS
    trainer_state.json      step count of the transformers library
    state.json              fingerprints, progress and learning rates
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genrec import files, runs
from genrec.errors import ModelError, SettingsError
from genrec.files import write_text
from genrec.models.quiet import quiet_transformers
from genrec.training.hf_trainer import LossTrainer
from genrec.training.sharding import gather_tensor, place_like, unwrap

STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "rng.safetensors"
_KEPT = 2  # number of checkpoints to keep
_IN_WORDS = {  # the text shown for a key; the keys cannot change, as older checkpoints contain them
    "what is learned (data, split, pairs, examples or new interactions)": (
        "the training examples (data, split, pairs, examples or new interactions)"
    ),
}


@dataclass
class Progress:
    """The progress of a run, which is stored in its checkpoints.

    Attributes:
        targets: the number of targets trained on so far.
        seconds: the training time so far, without validation.
        validations: the results of the validations, oldest first.
        next_validation: the number of targets after which the next validation is due.
    """

    targets: float = 0.0
    seconds: float = 0.0
    validations: list[dict[str, Any]] = field(default_factory=list)
    next_validation: float = 0.0

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the lowest loss in nats; None before the first validation."""
        return min(self.validations, key=lambda v: v["nats"], default=None)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint, except for the weights and the optimizer's tensors.

    Attributes:
        place: the folder of the checkpoint.
        progress: the progress of the run when the checkpoint was written.
        rates: the learning rate of each parameter group of the optimizer.
        last_epoch: the number of steps that the learning rate scheduler has counted.
        random: the states of the random number generators, keyed by ``DEVICE.PROCESS``, such as
            ``cpu.0``.
    """

    place: Path
    progress: Progress
    rates: list[float]
    last_epoch: int
    random: Mapping[str, Tensor]

    @classmethod
    def read(cls, place: Path, fingerprints: Mapping[str, str]) -> Checkpoint:
        """Read a checkpoint, and check that the current run can resume from it.

        Args:
            place: the folder of the checkpoint.
            fingerprints: the fingerprints of the current run; see ``check_unchanged``.

        Raises:
            SettingsError: the checkpoint belongs to a different model or to different data.
            ModelError: a file of the checkpoint cannot be read.
        """
        if problem := files.describe_unreadable(place):
            raise ModelError(problem)
        state = json.loads((place / STATE).read_text(encoding="utf-8"))
        check_unchanged(fingerprints, state.get("learned"), place)
        return cls(
            place,
            Progress(**state["progress"]),
            state["optimizer"]["rates"],
            state["optimizer"]["last_epoch"],
            load_file(place / RANDOM),
        )

    def restore_optimizer(self, optimizer: Any, scheduler: Any, model: Any) -> None:
        """Restore the states of the optimizer and its learning rate scheduler.

        Args:
            optimizer: the underlying optimizer, without accelerate's wrapper.
            scheduler: the scheduler, which may be wrapped by accelerate.
            model: the model, whose parameters must have the same names as in the checkpoint.
        """
        parameters = dict(model.named_parameters())
        state: dict[Any, dict[str, Tensor]] = {}
        for name, value in load_file(self.place / OPTIMIZER).items():
            parameter, _, key = name.rpartition("|")
            owner = parameters[parameter]
            value = value if key == "step" else place_like(value, owner)
            state.setdefault(owner, {})[key] = value
        optimizer.state.update(state)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate
        inner = unwrap(scheduler, "scheduler")
        inner.last_epoch = self.last_epoch
        inner._step_count = inner.last_epoch + 1
        inner._last_lr = list(self.rates)

    def restore_random(self, process: int) -> None:
        """Restore the states of a process's random number generators.

        Args:
            process: the number of the process, starting at 0.
        """
        if f"cpu.{process}" in self.random:
            torch.set_rng_state(self.random[f"cpu.{process}"])
        if f"cuda.{process}" in self.random and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.random[f"cuda.{process}"])


def check_unchanged(
    fingerprints: Mapping[str, str], before: Mapping[str, str] | None, place: Path
) -> None:
    """Check that a checkpoint belongs to the same model, examples and files as the current run.

    Each fingerprint is the hash of one of these parts. A fingerprint that is missing from an older
    checkpoint is not compared.

    Args:
        fingerprints: the fingerprints of the current run. Each key is a description of a part,
            which is used in the error message.
        before: the fingerprints stored in the checkpoint. If it has none (None), the check fails.
        place: the folder of the checkpoint, for use in messages.

    Raises:
        SettingsError: a fingerprint differs. The message lists all parts that have changed.
    """
    changed = [
        _IN_WORDS.get(key, key)
        for key, value in fingerprints.items()
        if before is None or before.get(key, value) != value
    ]
    if changed:
        msg = (
            f"This run cannot be resumed, because the following has changed since {place} was "
            f"written: {', '.join(changed)}. Expected the same data, model and files as when the run "
            "started. To train on other data or with another model, start a new run in another "
            "folder, or continue training this one with --from."
        )
        raise SettingsError(msg)


class Checkpoints:
    """An object that writes the weights and checkpoints of a training run in progress."""

    def __init__(
        self, trainer: LossTrainer, folder: Path, fingerprints: Mapping[str, str], *, adapter: bool
    ) -> None:
        """Store the data that all checkpoints of the run share.

        Args:
            trainer: the trainer, which contains the model.
            folder: the run folder.
            fingerprints: the fingerprints of the run; see ``check_unchanged``.
            adapter: True if only an adapter is trained, False if all weights are trained.
        """
        self._trainer, self._folder, self._adapter = trainer, folder, adapter
        self._fingerprints = dict(fingerprints)

    @property
    def _main(self) -> bool:
        return bool(self._trainer.is_world_process_zero())

    @property
    def _sharded(self) -> bool:
        return bool(self._trainer.is_fsdp_enabled)

    def gather_weights(self) -> dict[str, Tensor] | None:
        """Gather the complete weights of a sharded model. Every process must call this method.

        Returns:
            In the first process, the weights, keyed by name; in the other processes, None. If the
            model is not sharded, all processes get None.
        """
        if not self._sharded:
            return None
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        weights = {
            name: gather_tensor(value, self._main)
            for name, value in model.named_parameters()
            if value.requires_grad or not self._adapter
        }
        return weights if self._main else None

    def save_weights(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Write the trained weights to a folder.

        Args:
            folder: the folder to write to.
            gathered: the weights of a sharded model from ``gather_weights``, or None to write the
                weights of a model that is not sharded.

        Raises:
            ModelError: a weight is not finite.
        """
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        for name, value in (gathered or dict(model.named_parameters())).items():
            if (gathered or value.requires_grad) and not torch.isfinite(value).all():
                msg = (
                    f"The weight {name} is not finite. Expected finite numbers. The last checkpoint "
                    "is intact. Lower learning_rate, and continue with --resume."
                )
                raise ModelError(msg)
        with quiet_transformers():
            model.save_pretrained(folder, safe_serialization=True, state_dict=gathered)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    def save(self, state: Any, progress: Progress, optimizer: Any, scheduler: Any) -> None:
        """Write a checkpoint atomically, and delete all but the two newest checkpoints.

        Every process must call this method.

        Args:
            state: the ``TrainerState`` of transformers.
            progress: the progress of the run so far.
            optimizer: the underlying optimizer, without accelerate's wrapper.
            scheduler: the scheduler, which may be wrapped by accelerate.

        Raises:
            ModelError: a weight is not finite, or the files could not be written.
        """
        random, gathered = self._random_states(), self.gather_weights()
        if not self._main and not self._sharded:
            return
        to_tensors = _optimizer_tensors(optimizer, self._trainer.model, self._main)
        if not self._main:
            return

        def fill(folder: Path) -> None:
            self.save_weights(folder, gathered)
            save_file(to_tensors, folder / OPTIMIZER)
            save_file(random, folder / RANDOM)
            state.save_to_json(str(folder / "trainer_state.json"))
            values = {
                "learned": self._fingerprints,
                "progress": asdict(progress),
                "optimizer": {
                    "rates": [g["lr"] for g in optimizer.param_groups],
                    "last_epoch": unwrap(scheduler, "scheduler").last_epoch,
                },
            }
            write_text(folder / STATE, json.dumps(values))

        place = self._folder / runs.CHECKPOINTS / f"step-{state.global_step}"
        try:
            files.write_folder(place, fill)
        except (OSError, RuntimeError) as error:
            reason = files.describe_error(error) if isinstance(error, OSError) else error
            msg = (
                f"Cannot write the checkpoint at step {state.global_step}: {reason}. The previous "
                "checkpoint is intact. Free up disk space, and continue with --resume."
            )
            raise ModelError(msg) from error
        for old in runs.list_checkpoints(self._folder)[:-_KEPT]:
            with contextlib.suppress(OSError):
                (old / STATE).unlink()  # without this file, it no longer counts as a checkpoint
            shutil.rmtree(old, ignore_errors=True)

    def _random_states(self) -> dict[str, Tensor]:
        """Collect the states of the random number generators of all processes.

        Every process must call this method.

        Returns:
            The states, keyed by ``DEVICE.PROCESS``, such as ``cpu.0``.
        """
        from accelerate.utils import gather_object

        mine = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            mine["cuda"] = torch.cuda.get_rng_state()
        several = self._trainer.args.world_size > 1
        states = gather_object([mine]) if several else [mine]
        return {f"{kind}.{i}": v for i, each in enumerate(states) for kind, v in each.items()}


def _optimizer_tensors(optimizer: Any, model: Any, keep: bool) -> dict[str, Tensor]:
    """Collect the optimizer's tensors, named after their parameters and keys.

    Args:
        optimizer: the underlying optimizer, without accelerate's wrapper.
        model: the model, which provides the names of the parameters.
        keep: True if this process needs the tensors. Other processes only help to gather sharded
            tensors, and get empty ones.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}|{key}": gather_tensor(value, keep)
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
