"""Run the training loop of one process.

Besides running the training steps, the loop writes the log, validates the model, writes
checkpoints, and stops at the time limit. This module works with objectives and weights, not with
datasets or recommenders.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from genrec import files, runs
from genrec.files import write_text
from genrec.models.language_model import LanguageModel
from genrec.training.checkpoints import Checkpoint, Checkpoints, Progress
from genrec.training.config import Training
from genrec.training.examples import Examples
from genrec.training.hf_trainer import build_trainer, count_targets
from genrec.training.objectives import Objective, Validation
from genrec.training.sharding import unwrap
from genrec.training.time_plan import TimePlan
from genrec.types import Log

Watch = Callable[[Mapping[str, Any]], None]
_LONGEST_SILENCE = 15.0  # seconds after which a slow step gets a log line of its own
_VALIDATIONS = 10  # the default number of validations in a run


@dataclass(frozen=True)
class RunPlan:
    """The options of a run that every process needs.

    Attributes:
        folder: the run folder.
        training: the training settings.
        resume_from: the checkpoint to continue from; None to start a new run.
        fingerprints: hashes of everything that must stay the same when the run is resumed, by name.
        validation: the validation of the model; None to skip validation. Sharded models are not
            validated.
        watch: a function that is called with each line of the log.
        time: the time plan of the run.
    """

    folder: Path
    training: Training
    resume_from: Path | None
    fingerprints: Mapping[str, str]
    validation: Validation | None
    watch: Watch
    time: TimePlan


class Session:
    """The training of a model in one process, including its log, validations and checkpoints.

    Attributes:
        progress: the progress of the run so far.
        checkpoints: the object that writes the run's weights and checkpoints.
    """

    def __init__(
        self, objective: Objective, examples: Examples, model: LanguageModel, plan: RunPlan
    ) -> None:
        """Create the trainer, and read the checkpoint to continue from, if there is one.

        Args:
            objective: the objective to minimize.
            examples: the training examples.
            model: the model to train.
            plan: the options of the run.

        Raises:
            SettingsError: a setting cannot be used, or the checkpoint belongs to a different model
                or to different data.
        """
        training = plan.training
        self._plan, self._training = plan, training
        self._resumed = (
            Checkpoint.read(plan.resume_from, plan.fingerprints) if plan.resume_from else None
        )
        self.progress = self._resumed.progress if self._resumed else Progress()
        self._trainer = build_trainer(
            objective, examples, model, training, plan.folder, _Callback(self)
        )
        self.checkpoints = Checkpoints(
            self._trainer, plan.folder, plan.fingerprints, adapter=training.lora_rank > 0
        )
        self._time, self._clock = plan.time, plan.time.watch.now
        self._validation = None if self.sharded else plan.validation
        self._n_targets = count_targets(examples, training)
        self._every = training.eval_every or max(self._n_targets / _VALIDATIONS, 1)
        self._saved = self._logged = self._stepped = self._clock()
        self._since = np.zeros(3)  # total nats, targets and tokens since the last log line

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes the files."""
        return bool(self._trainer.is_world_process_zero())

    @property
    def sharded(self) -> bool:
        """Whether the weights are sharded across several processes (FSDP)."""
        return bool(self._trainer.is_fsdp_enabled)

    @property
    def max_steps(self) -> int:
        """The number of steps in the whole run."""
        return int(self._trainer.args.max_steps)

    @property
    def finished(self) -> bool:
        """Whether all steps have been completed."""
        return bool(self._trainer.state.global_step >= self.max_steps)

    def run(self, log: Log) -> None:
        """Train until all steps are done, the time limit is reached, or validation stops improving.

        Args:
            log: a function that is called with a line of text that says how the time is divided, or
                that all steps were already done.

        Raises:
            ModelError: the loss or a weight is not finite, or a checkpoint could not be written.
        """
        self._say = log
        start = self._plan.resume_from
        done = 0 if start is None else runs.checkpoint_step(start)
        if start is not None and done >= self.max_steps and not self.sharded:
            log("All steps were already done, so there is nothing left to train.")
            self._trainer.load_weights(start)
            self._trainer.state.global_step = done
            return
        self._trainer.train(resume_from_checkpoint=None if start is None else str(start))

    def begin(self, optimizer: Any, scheduler: Any) -> None:
        """Prepare for the first step: restore the optimizer of a resumed run, or validate a new run.

        Args:
            optimizer: the optimizer, which accelerate may have wrapped.
            scheduler: the learning rate scheduler.
        """
        self._optimizer, self._scheduler = unwrap(optimizer, "optimizer"), scheduler
        if self._resumed is not None:
            self._resumed.restore_optimizer(self._optimizer, scheduler, self._trainer.model)
            if self.main:
                self._drop_log_after(runs.checkpoint_step(self._resumed.place))
        self._plan_validation()
        if self._resumed is None and self._may_validate():
            self._measure(0)
        if self._time.limited and self.main:
            self._say(self._time.describe())
        self._saved = self._logged = self._stepped = self._clock()

    def _plan_validation(self) -> None:
        """Choose the number of users for each validation, which is the same in all processes."""
        if self._validation is None:
            return
        earlier = self.progress.validations
        before = self._validation.parts_of(earlier[-1]) if earlier else None
        with self._evaluating():
            self._time.plan_validation(self._validation.size, self._validation.measure, before)
        self._time.parts = self._agree_on(self._time.parts)

    def _may_validate(self, *, last: bool = False) -> bool:
        return self._validation is not None and bool(
            self._agree_on(self._time.may_validate(last=last))
        )

    def begin_step(self) -> None:
        """Restore the states of the random number generators at the first step of a resumed run."""
        if self._resumed is not None:
            self._resumed.restore_random(self._trainer.args.process_index)
            self._resumed = None

    def end_step(self, state: Any) -> bool:
        """Log, validate and write a checkpoint, each only if it is due after this step.

        Args:
            state: the ``TrainerState`` of transformers.

        Returns:
            True if training should stop.
        """
        seen, learned = self._trainer.take_counts()
        self._since += seen
        self.progress.targets += learned
        now = self._clock()
        self._time.stepped(now - self._stepped)
        settings, step = self._training, int(state.global_step)
        waited = now - self._logged >= _LONGEST_SILENCE
        if step % settings.log_steps == 0 or step >= state.max_steps or waited:
            self._log_step(step, now)
        stop = False
        due = self.progress.targets >= self.progress.next_validation and step < state.max_steps
        if due and self._may_validate():
            stop = self._measure(step)
        late = bool(self._agree_on(self._time.late))
        if settings.save_steps:
            due = step % settings.save_steps == 0
        else:
            due = now - self._saved >= settings.save_minutes * 60
        if self._agree_on(due or self._time.must_save) or late or stop:
            self._save(state)
        self._stepped = self._clock()
        return late or stop

    def end(self, state: Any) -> None:
        """Write the last log line, validate the final model, and write the last checkpoint."""
        step = int(state.global_step)
        if self._since[1] or not self.progress.seconds:
            self._log_step(step, self._clock())
        measured = {v["step"] for v in self.progress.validations}
        if step not in measured and self._may_validate(last=True):
            self._measure(step)
        self._save(state)

    def _agree_on(self, number: int) -> int:
        """Broadcast a number that the first process derived from its clock, so that all processes agree."""
        if self._trainer.args.world_size == 1:
            return number
        from accelerate.utils import broadcast

        word: Tensor = torch.tensor(int(number), device=self._trainer.args.device)
        return int(broadcast(word))

    def _save(self, state: Any) -> None:
        began = self._clock()
        self.checkpoints.save(state, self.progress, self._optimizer, self._scheduler)
        self._saved = self._clock()
        self._time.saved(self._saved - began)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Put the model into evaluation mode while the ``with`` block runs."""
        model = self._trainer.model
        assert model is not None
        was_training = model.training
        model.eval()
        with torch.no_grad():
            yield
        model.train(was_training)

    def load_best(self) -> None:
        """Load the best weights of the run into the model if they are not its latest ones."""
        place = self._plan.folder / "best"
        if self.best_is_earlier and place.is_dir():
            self._trainer.load_weights(place)

    @property
    def best_is_earlier(self) -> bool:
        """True if earlier weights, kept in the run folder, had the best validation result."""
        best, validations = self.progress.best, self.progress.validations
        return best is not None and best != validations[-1] and best["step"] > 0

    def _measure(self, step: int) -> bool:
        """Validate the model, and save its weights if they are the best so far.

        Args:
            step: the number of steps completed.

        Returns:
            True if training should stop, because the last ``patience`` validations brought no
            improvement.
        """
        assert self._validation is not None
        began = self._clock()
        with self._evaluating():
            values = self._validation.measure(self._time.parts)
        self._time.validated(self._clock() - began)
        progress, before = self.progress, self.progress.best
        values = {"step": step, "targets": round(progress.targets), **values}
        progress.validations.append(values)
        progress.next_validation = progress.targets + self._every
        self._log({"validation": True, **values, "seconds": round(progress.seconds, 1)})
        if self.main and step and (before is None or values["nats"] < before["nats"]):
            files.write_folder(self._plan.folder / "best", self.checkpoints.save_weights)
        self._logged += self._clock() - began
        best = progress.best
        later = [v for v in progress.validations if best and v["step"] > best["step"]]
        return bool(self._training.patience) and len(later) >= self._training.patience

    def _log_step(self, step: int, now: float) -> None:
        """Write a log line with the mean loss and the speed since the previous log line."""
        nats, targets, tokens = self._since
        seconds = now - self._logged
        self.progress.seconds += seconds
        processes = self._trainer.args.world_size
        self._log(
            {
                "step": step,
                "targets": round(self.progress.targets),
                "of": round(self._n_targets),
                "nats": float(nats / max(targets, 1)),
                "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
                "targets_per_second": float(targets) * processes / max(seconds, 1e-9),
                "tokens_per_second": float(tokens) * processes / max(seconds, 1e-9),
                "seconds": round(self.progress.seconds, 1),
                "elapsed": round(self._time.watch.seconds, 1),
                "remaining": round(self._remaining(step), 1),
            }
        )
        self._since, self._logged = np.zeros(3), now

    def _remaining(self, step: int) -> float:
        """Estimate the seconds until the command ends."""
        steps = max(self.max_steps - step, 0)
        ahead = 0
        if self._time.parts:
            ahead = math.ceil((self._n_targets - self.progress.next_validation) / self._every)
        return self._time.remaining(steps, max(ahead, 0))

    def _log(self, line: dict[str, Any]) -> None:
        """Append a line to the run's log, and pass it to ``watch`` and the experiment trackers."""
        if self.main:
            files.append_text(self._plan.folder / runs.LOG, json.dumps(line) + "\n")
            self._plan.watch(line)
        self._trainer.log({k: v for k, v in line.items() if isinstance(v, int | float)})

    def _drop_log_after(self, step: int) -> None:
        """Remove the log lines after a step, because a resumed run repeats the later steps."""
        path = self._plan.folder / runs.LOG
        with contextlib.suppress(FileNotFoundError):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(path, "".join(x for x in lines if _step_of(x) <= step))


class _Callback(TrainerCallback):
    """A callback that forwards the Trainer's events to a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.begin(kwargs["optimizer"], kwargs["lr_scheduler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._session.end_step(state):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.end(state)


def _step_of(line: str) -> float:
    """Return the step number in a log line, or infinity if the line is incomplete."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
