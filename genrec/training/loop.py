"""Session: one process's part of a run: steps, checkpoints, log, validation and the clock.

Knows objectives and weights, nothing of data or recommenders.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from genrec import files, runs
from genrec.errors import ModelError, SettingsError
from genrec.files import write_text
from genrec.models.language_model import LanguageModel
from genrec.models.quiet import quiet_transformers
from genrec.training.config import Training
from genrec.training.examples import Examples
from genrec.training.objectives import Objective, Validate

Watch = Callable[[Mapping[str, Any]], None]
_KEPT = 2  # checkpoints
_SHARDS = (1, 15)  # the first accelerate that is known to leave the last layer whole after a pass
_VALIDATIONS = 10  # in a run, where not said


def begun(
    objective: Objective,
    data: Examples,
    model: LanguageModel,
    training: Training,
    folder: Path,
    start: Path | None,
    watch: Watch,
    learned: Mapping[str, str],
) -> tuple[_Trainer, Session]:
    """The Trainer and what happens beside its steps.

    Raises:
        SettingsError: the checkpoint to go on from learned something else.
    """
    arguments = _arguments(model, training, folder)
    t = training
    per_step = t.batch_size * t.accumulate * arguments.world_size
    steps = math.ceil(len(data) / per_step)
    targets = data.n_targets * t.epochs if t.max_targets is None else t.max_targets
    arguments.max_steps = max(1, math.ceil(steps * targets / data.n_targets))
    arguments.warmup_steps = math.ceil(t.warmup * arguments.max_steps)
    session = Session(folder, t, None, watch, start, targets, learned)
    try:
        trainer = _Trainer(
            objective,
            model=model.model,
            args=arguments,
            train_dataset=data,
            callbacks=[_Callback(session)],
            processing_class=None,
        )
    except (ImportError, RuntimeError, ValueError) as error:
        if t.report_to == "none":
            raise
        msg = (
            f"report_to={t.report_to!r}: {error} Expected none, or trackers that transformers knows "
            "and that are installed, with commas between."
        )
        raise SettingsError(msg) from error
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if trainer.is_fsdp_enabled:
        _check_sharding(trainer.accelerator)
    return trainer, session


def _check_sharding(accelerator: Any) -> None:
    if not accelerator.is_fsdp2:
        msg = (
            "FSDP's first version is not supported. Expected fsdp_version: 2 in the configuration."
        )
        raise SettingsError(msg)
    found = importlib.metadata.version("accelerate")
    if tuple(map(int, found.split(".")[:2])) < _SHARDS:
        msg = f"FSDP with accelerate {found}. Expected {'.'.join(map(str, _SHARDS))} or later."
        raise SettingsError(msg)


def _arguments(model: LanguageModel, t: Training, folder: Path) -> TrainingArguments:
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with quiet_transformers():
        return TrainingArguments(
            output_dir=str(folder / runs.CHECKPOINTS),
            use_cpu=model.device.type == "cpu",
            ddp_backend="gloo" if several and model.device.type == "cpu" else None,
            bf16=model.device.type == "cuda" and model.dtype == torch.bfloat16,
            per_device_train_batch_size=t.batch_size,
            gradient_accumulation_steps=t.accumulate,
            learning_rate=t.learning_rate,
            lr_scheduler_type="constant_with_warmup" if t.schedule == "constant" else t.schedule,
            weight_decay=t.weight_decay,
            max_grad_norm=t.max_grad_norm,
            max_steps=1,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to=[r.strip() for r in t.report_to.split(",")],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=model.device.type == "cuda",
            seed=t.seed,
            data_seed=t.seed,
        )


class _Trainer(Trainer):
    """transformers' Trainer with our loss; checkpoints are the callback's, in safetensors."""

    def __init__(self, objective: Objective, **rest: Any) -> None:
        super().__init__(data_collator=objective.batch, **rest)
        self._objective = objective
        self.model_accepts_loss_kwargs = True  # so that it divides nothing again
        self.seen = np.zeros(3)  # sum of nats, targets, tokens of this process, till they are read
        self.learned = 0.0  # targets of all processes, likewise

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """The weights of one of our checkpoints; into the shards, where the model is sharded."""
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
                    name = name.replace(".default", "")  # PEFT's of the adapter, which files lack
                    found = kept[name if name in kept else name.removesuffix(".weight")]
                    value.copy_(_like(found, value))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        batches = [b for _, b in zip(range(num_batches), epoch_iterator, strict=False)]
        n = torch.tensor(float(sum(len(b["weight"]) for b in batches)), device=device)
        if self.args.world_size > 1:
            n = self.accelerator.gather(n).sum()
        self.learned += float(n)
        return batches, n

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        nats, losses = self._objective.losses(model, inputs)
        assert isinstance(num_items_in_batch, Tensor)
        share = self.args.world_size / num_items_in_batch
        loss = (losses * inputs["weight"].to(losses.dtype)).sum() * share
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {float(loss.detach())} at step {self.state.global_step + 1}. Expected "
                "a finite number; the last checkpoint is as it was. Lower learning_rate, or train "
                "in float32, and go on with --resume or start again."
            )
            raise ModelError(msg)
        tokens = float((inputs["document"] >= 0).sum())
        self.seen += [float(nats.sum()), len(nats), tokens]
        return loss


@dataclass
class Progress:
    """What a run has done; kept in its checkpoints.

    Attributes:
        targets: titles learned from.
        seconds: of training, validation aside.
        validations: what was measured, the oldest first.
        next_validation: at so many targets.
    """

    targets: float = 0.0
    seconds: float = 0.0
    validations: list[dict[str, Any]] | None = None
    next_validation: float = 0.0

    def __post_init__(self) -> None:
        self.validations = self.validations or []

    @property
    def measured(self) -> list[dict[str, Any]]:
        """The validations."""
        assert self.validations is not None
        return self.validations

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the fewest nats."""
        return min(self.measured, key=lambda v: v["nats"], default=None)


class _Callback(TrainerCallback):
    """Checkpoints, log, validation and the clock."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.begin(kwargs["optimizer"], kwargs["lr_scheduler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.step_begins()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._session.step_ends(state):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.ends(state)


class Session:
    """One process's part of a run: what happens beside the steps."""

    def __init__(
        self,
        folder: Path,
        training: Training,
        validate: Validate | None,
        watch: Watch,
        resumed: Path | None,
        n_targets: float,
        learned: Mapping[str, str],
    ) -> None:
        """Takes what it needs of a run.

        Args:
            folder: of the run.
            training: the settings.
            validate: measures the model as it is; None for never.
            watch: called with each line of the log.
            resumed: the checkpoint to go on from.
            n_targets: how many targets the run will learn from.
            learned: names and fingerprints of what a run that goes on must have in common with
                the one that was begun.

        Raises:
            SettingsError: it has not.
        """
        self.folder, self.training, self.progress = folder, training, Progress()
        self.trainer: _Trainer
        self._validate, self._watch, self._resumed = validate, watch, resumed
        self._every = training.eval_every or max(n_targets / _VALIDATIONS, 1)
        self.n_targets = n_targets
        self._started = self._saved = self._logged = time.monotonic()
        self._since = np.zeros(3)
        self._rng: dict[str, Tensor] = {}
        self._learned = dict(learned)
        if resumed is not None:
            values = json.loads((resumed / "state.json").read_text(encoding="utf-8"))
            _same(self._learned, values.get("learned", {}), resumed)
            self.progress = Progress(**values["progress"])
            self._rng = load_file(resumed / "rng.safetensors")
            self._optimizer_state = values["optimizer"]

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.trainer.is_world_process_zero())

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of the weights only (FSDP)."""
        return bool(self.trainer.is_fsdp_enabled)

    def begin(self, optimizer: Any, scheduler: Any) -> None:
        """Puts the optimiser where the checkpoint had it."""
        self._optimizer, self._scheduler = _inner(optimizer, "optimizer"), scheduler
        if self._resumed is not None:
            _load_optimizer(
                self._optimizer, self.trainer.model, self._resumed / "optimizer.safetensors"
            )
            for group, rate in zip(
                self._optimizer.param_groups, self._optimizer_state["rates"], strict=True
            ):
                group["lr"] = rate
            inner = _inner(scheduler, "scheduler")
            inner.last_epoch = self._optimizer_state["last_epoch"]
            inner._step_count = inner.last_epoch + 1
            inner._last_lr = list(self._optimizer_state["rates"])
            if self.main:
                self._forget(runs.step_of(self._resumed))
        elif self._validate is not None:
            self._measure(0)
        self._started = self._saved = self._logged = time.monotonic()

    def _forget(self, step: int) -> None:
        """Drops the log's lines after the checkpoint: these steps are done again."""
        path = self.folder / runs.LOG
        with contextlib.suppress(FileNotFoundError):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(path, "".join(x for x in lines if _step_of(x) <= step))

    def step_begins(self) -> None:
        """Puts the random numbers where the checkpoint had them, before the first step."""
        rank = self.trainer.args.process_index
        if f"cpu.{rank}" in self._rng:
            torch.set_rng_state(self._rng[f"cpu.{rank}"])
        if f"cuda.{rank}" in self._rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(self._rng[f"cuda.{rank}"])
        self._rng = {}

    def step_ends(self, state: Any) -> bool:
        """Logs, validates and saves where it is time to; whether to stop."""
        seen, self.trainer.seen = self.trainer.seen, np.zeros(3)
        self._since += seen
        self.progress.targets += self.trainer.learned
        self.trainer.learned = 0.0
        now = time.monotonic()
        t, step = self.training, int(state.global_step)
        if step % t.log_steps == 0 or step >= state.max_steps:
            self._log_step(step, now)
        stop = False
        if (
            self._validate is not None
            and self.progress.targets >= self.progress.next_validation
            and step < state.max_steps
        ):
            stop = self._measure(step)
        late = t.max_minutes is not None and now - self._started >= t.max_minutes * 60
        late = self._agreed(late)
        due = step % t.save_steps == 0 if t.save_steps else now - self._saved >= t.save_minutes * 60
        if self._agreed(due) or late or stop:
            self._save(state)
        return late or stop

    def _agreed(self, yes: bool) -> bool:
        """What the first process says; clocks differ."""
        if self.trainer.args.world_size == 1:
            return yes
        from accelerate.utils import broadcast

        word = torch.tensor(int(yes), device=self.trainer.args.device)
        return bool(broadcast(word))

    def ends(self, state: Any) -> None:
        """The last line, validation and checkpoint."""
        if self._since[1] or not self.progress.seconds:
            self._log_step(int(state.global_step), time.monotonic())
        if self._validate is not None and not any(
            v["step"] == state.global_step for v in self.progress.measured
        ):
            self._measure(int(state.global_step))
        self._save(state)

    def _log_step(self, step: int, now: float) -> None:
        nats, targets, tokens = self._since
        seconds = now - self._logged
        self.progress.seconds += seconds
        world = self.trainer.args.world_size
        line = {
            "step": step,
            "targets": round(self.progress.targets),
            "of": round(self.n_targets),
            "nats": float(nats / max(targets, 1)),
            "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            "targets_per_second": float(targets) * world / max(seconds, 1e-9),
            "tokens_per_second": float(tokens) * world / max(seconds, 1e-9),
            "seconds": round(self.progress.seconds, 1),
        }
        self._log(line)
        self._since, self._logged = np.zeros(3), now

    def _log(self, line: dict[str, Any]) -> None:
        if self.main:
            with (self.folder / runs.LOG).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            self._watch(line)
        numbers = {k: v for k, v in line.items() if isinstance(v, int | float)}
        self.trainer.log(numbers)

    def _measure(self, step: int) -> bool:
        """Validates; keeps the best weights; whether there was no gain for too long."""
        assert self._validate is not None
        began = time.monotonic()
        model = self.trainer.model
        assert model is not None
        training = model.training
        model.eval()
        with torch.no_grad():
            found = self._validate()
        model.train(training)
        before = self.progress.best
        found = {"step": step, "targets": round(self.progress.targets), **found}
        self.progress.measured.append(found)
        self.progress.next_validation = self.progress.targets + self._every
        self._log({"validation": True, **found, "seconds": round(self.progress.seconds, 1)})
        self._logged += time.monotonic() - began
        if self.main and step and (before is None or found["nats"] < before["nats"]):
            files.write_folder(self.folder / "best", self.save_weights)  # never of a sharded model
        best = self.progress.best
        since = [v for v in self.progress.measured if best and v["step"] > best["step"]]
        return bool(self.training.patience) and len(since) >= self.training.patience

    def gathered(self) -> dict[str, Tensor] | None:
        """Whole weights of a sharded model; every process must call this, and the first gets them."""
        if not self.sharded:
            return None
        adapter = self.training.lora_rank > 0
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        found = {
            name: _whole(value, self.main)
            for name, value in model.named_parameters()
            if value.requires_grad or not adapter
        }
        return found if self.main else None

    def save_weights(self, folder: Path, gathered: dict[str, Tensor] | None = None) -> None:
        """Writes what is trained, of a sharded model what was gathered.

        Raises:
            ModelError: a weight is not finite.
        """
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        for name, value in (gathered or dict(model.named_parameters())).items():
            if (gathered or value.requires_grad) and not torch.isfinite(value).all():
                msg = f"{name} is not finite. Expected numbers; the last checkpoint is as it was."
                raise ModelError(msg)
        with quiet_transformers():
            model.save_pretrained(folder, safe_serialization=True, state_dict=gathered)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    def _random_states(self) -> dict[str, Tensor]:
        """Those of all processes; every process must call this."""
        from accelerate.utils import gather_object

        mine = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            mine["cuda"] = torch.cuda.get_rng_state()
        several = self.trainer.args.world_size > 1
        found = gather_object([mine]) if several else [mine]
        return {f"{kind}.{i}": v for i, each in enumerate(found) for kind, v in each.items()}

    def _save(self, state: Any) -> None:
        """Writes a checkpoint, whole or not at all, and removes those before the last two."""
        self._saved = time.monotonic()
        rng, gathered = self._random_states(), self.gathered()
        if not self.main and not self.sharded:
            return
        optimizer = _optimizer_tensors(self._optimizer, self.trainer.model, self.main)
        if not self.main:
            return

        def fill(folder: Path) -> None:
            self.save_weights(folder, gathered)
            save_file(optimizer, folder / "optimizer.safetensors")
            save_file(rng, folder / "rng.safetensors")
            state.save_to_json(str(folder / "trainer_state.json"))
            inner = _inner(self._scheduler, "scheduler")
            values = {
                "learned": self._learned,
                "progress": asdict(self.progress),
                "optimizer": {
                    "rates": [g["lr"] for g in self._optimizer.param_groups],
                    "last_epoch": inner.last_epoch,
                },
            }
            write_text(folder / "state.json", json.dumps(values))

        place = self.folder / runs.CHECKPOINTS / f"step-{state.global_step}"
        try:
            files.write_folder(place, fill)
        except (OSError, RuntimeError) as error:
            msg = (
                f"The checkpoint at step {state.global_step} could not be written: {error}. The "
                "one before it is as it was. Make room on the disk, and go on with --resume."
            )
            raise ModelError(msg) from error
        for old in runs.checkpoints(self.folder)[:-_KEPT]:
            with contextlib.suppress(OSError):
                (old / "state.json").unlink()  # from now on it is none
            shutil.rmtree(old, ignore_errors=True)


def _same(now: Mapping[str, str], before: Mapping[str, str], place: Path) -> None:
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        msg = (
            f"A run that goes on learns what it began with, but changed since {place}: "
            f"{', '.join(changed)}. Expected the same data, model and files as at its beginning; "
            "for others begin a new run in another folder, or train this one further with --from."
        )
        raise SettingsError(msg)


def _step_of(line: str) -> float:
    """A line of the log's step; infinite where the line was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _inner(wrapped: Any, name: str) -> Any:
    """What accelerate wraps."""
    while hasattr(wrapped, name) and not callable(getattr(wrapped, name)):
        wrapped = getattr(wrapped, name)
    return wrapped


def _names(model: Any) -> dict[int, str]:
    return {id(p): name for name, p in model.named_parameters()}


def _whole(value: Tensor, keep: bool) -> Tensor:
    """A tensor, on the CPU, or where it is not kept an empty one; sharded, all processes must call."""
    value = value.detach()
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.cpu().contiguous() if keep else torch.empty(0)


def _like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the device of another, sharded as that is."""
    value = value.to(other.device)
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements)


def _optimizer_tensors(optimizer: Any, model: Any, keep: bool) -> dict[str, Tensor]:
    """The state of every parameter, by its name."""
    names = _names(model)
    return {
        f"{names[id(p)]}|{key}": _whole(value, keep)
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(optimizer: Any, model: Any, path: Path) -> None:
    parameters = dict(model.named_parameters())
    state: dict[Any, dict[str, Tensor]] = {}
    for name, value in load_file(path).items():
        parameter, _, key = name.rpartition("|")
        owner = parameters[parameter]
        value = value if key == "step" else _like(value, owner)
        state.setdefault(owner, {})[key] = value
    optimizer.state.update(state)
