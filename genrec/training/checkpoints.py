"""Write and read the checkpoints of a run. Knows weights, optimizers and files, nothing of steps.

CHECKPOINT/
    adapter_model.safetensors or model.safetensors   what is trained
    optimizer.safetensors   state of every parameter, named PARAMETER|KEY
    rng.safetensors         random states of every process, named DEVICE.PROCESS
    trainer_state.json      transformers' count of steps
    state.json              fingerprints, progress, learning rates
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
_KEPT = 2  # checkpoints, the newest
_IN_WORDS = {  # messages say this for a fingerprint's key, which older checkpoints hold
    "what is learned (data, split, pairs, examples or new interactions)": (
        "the training examples (data, split, pairs, examples or new interactions)"
    ),
}


@dataclass
class Progress:
    """What a run has done so far; kept in its checkpoints.

    Attributes:
        targets: how many titles were learned from.
        seconds: time spent on training, without validation.
        validations: what was measured, the oldest first.
        next_validation: the number of targets at which the next validation is due.
    """

    targets: float = 0.0
    seconds: float = 0.0
    validations: list[dict[str, Any]] = field(default_factory=list)
    next_validation: float = 0.0

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the fewest nats."""
        return min(self.validations, key=lambda v: v["nats"], default=None)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds beside weights and the optimizer's tensors.

    Attributes:
        place: its folder.
        progress: what the run had done.
        rates: the learning rate of each group of parameters.
        last_epoch: the learning rate scheduler's count of steps.
        random: random states by ``DEVICE.PROCESS``.
    """

    place: Path
    progress: Progress
    rates: list[float]
    last_epoch: int
    random: Mapping[str, Tensor]

    @classmethod
    def read(cls, place: Path, fingerprints: Mapping[str, str]) -> Checkpoint:
        """Read a checkpoint that the present run may resume from.

        Args:
            place: the checkpoint's folder.
            fingerprints: those of the present run, see ``check_unchanged``.

        Raises:
            SettingsError: the checkpoint belongs to other data, another model or other files.
        """
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
        """Put the optimizer and its learning rate schedule where the checkpoint had them.

        Args:
            optimizer: over the model's parameters, unwrapped.
            scheduler: accelerate's or torch's.
            model: whose parameters have the names in the file.
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
        """Put the random numbers of a process where the checkpoint had them."""
        if f"cpu.{process}" in self.random:
            torch.set_rng_state(self.random[f"cpu.{process}"])
        if f"cuda.{process}" in self.random and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.random[f"cuda.{process}"])


def check_unchanged(
    fingerprints: Mapping[str, str], before: Mapping[str, str] | None, place: Path
) -> None:
    """Refuse to resume from a checkpoint that learned something else.

    A fingerprint that older versions did not write is not compared.

    Args:
        fingerprints: of the present run, by what each is taken of.
        before: those in the checkpoint; None where it has none, which is refused.
        place: the checkpoint's folder, for the message.

    Raises:
        SettingsError: a fingerprint differs; the message names all that do.
    """
    changed = [
        _IN_WORDS.get(key, key)
        for key, value in fingerprints.items()
        if before is None or before.get(key, value) != value
    ]
    if changed:
        msg = (
            f"This run cannot be resumed: since {place} was written, these have changed: "
            f"{', '.join(changed)}. Expected the same data, model and files as at its beginning. "
            "To learn from others, begin a new run in another folder, or train this one further "
            "with --from."
        )
        raise SettingsError(msg)


class Checkpoints:
    """Write the weights and checkpoints of a run that is under way."""

    def __init__(
        self, trainer: LossTrainer, folder: Path, fingerprints: Mapping[str, str], *, adapter: bool
    ) -> None:
        """Take what all checkpoints of the run share.

        Args:
            trainer: holds the model.
            folder: the run folder.
            fingerprints: see ``check_unchanged``.
            adapter: whether only an adapter is trained, not all weights.
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
        """Gather the whole weights of a sharded model; every process must call this.

        Returns:
            The weights by name; None in all processes but the first, and for a model that is not
            sharded.
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
        """Write the trained weights.

        Args:
            folder: where to.
            gathered: the weights of a sharded model, see ``gather_weights``.

        Raises:
            ModelError: a weight is not finite.
        """
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        for name, value in (gathered or dict(model.named_parameters())).items():
            if (gathered or value.requires_grad) and not torch.isfinite(value).all():
                msg = (
                    f"The weight {name} is not finite. Expected numbers. The last checkpoint is "
                    "intact: lower learning_rate, and continue with --resume."
                )
                raise ModelError(msg)
        with quiet_transformers():
            model.save_pretrained(folder, safe_serialization=True, state_dict=gathered)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    def save(self, state: Any, progress: Progress, optimizer: Any, scheduler: Any) -> None:
        """Write a checkpoint, whole or not at all, and keep only the newest two.

        Every process must call this.

        Args:
            state: transformers' ``TrainerState``.
            progress: what the run has done.
            optimizer: unwrapped.
            scheduler: accelerate's or torch's.

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
            msg = (
                f"Cannot write the checkpoint at step {state.global_step}: {error}. The one before "
                "it is intact. Make room on the disk, and continue with --resume."
            )
            raise ModelError(msg) from error
        for old in runs.list_checkpoints(self._folder)[:-_KEPT]:
            with contextlib.suppress(OSError):
                (old / STATE).unlink()  # from now on it does not count as a checkpoint
            shutil.rmtree(old, ignore_errors=True)

    def _random_states(self) -> dict[str, Tensor]:
        """Collect the random states of all processes; every process must call this."""
        from accelerate.utils import gather_object

        mine = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            mine["cuda"] = torch.cuda.get_rng_state()
        several = self._trainer.args.world_size > 1
        states = gather_object([mine]) if several else [mine]
        return {f"{kind}.{i}": v for i, each in enumerate(states) for kind, v in each.items()}


def _optimizer_tensors(optimizer: Any, model: Any, keep: bool) -> dict[str, Tensor]:
    """Collect the optimizer's state of every parameter, by the parameter's name."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}|{key}": gather_tensor(value, keep)
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
