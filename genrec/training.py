"""Training: a run of transformers' Trainer over rows, with checkpoints, a log and validation.

What is learned from is ``rows``, what is minimised is ``losses``; here is how it goes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from genrec import checkpoint, curves, example_files, metrics, protocols, recipe
from genrec.checkpoint import Run
from genrec.config import Settings
from genrec.dataset import Dataset
from genrec.errors import DataError, ModelError, SettingsError
from genrec.interactions import Interactions
from genrec.losses import CatalogLoss, Head, batch, visible, vocab_nats
from genrec.model import LanguageModel, quiet_transformers
from genrec.recipe import Training
from genrec.recommender import Recommender
from genrec.rows import Row, RowMaker, TitlePaths, of_users, packed
from genrec.trie import TitleTrie

Watch = Callable[[Mapping[str, Any]], None]
BoolArray = npt.NDArray[np.bool_]
Validate = Callable[[], dict[str, Any]]
Ready = Callable[[LanguageModel], tuple["Goal", Validate | None]]
FloatArray = npt.NDArray[np.float64]
_KEPT = 2  # checkpoints
_VALIDATIONS = 10  # in a run, where not said
_FREE = {  # settings that may change when a run goes on
    "max_minutes", "eval_users", "eval_every", "patience", "save_steps", "save_minutes",
    "log_steps", "report_to",
}  # fmt: skip
_DAY = 86_400.0


@dataclass(frozen=True, eq=False)
class Examples(TorchDataset[int]):
    """Packs of rows, with the weight of each target.

    Attributes:
        rows: all rows.
        weights: (targets,) of each row.
        packs: which rows stand side by side.
    """

    rows: Sequence[Row]
    weights: Sequence[FloatArray]
    packs: Sequence[Sequence[int]]

    def __len__(self) -> int:
        """How many packs there are."""
        return len(self.packs)

    def __getitem__(self, index: int) -> int:
        """The index itself; ``Objective.batch`` makes tensors of several."""
        return index

    @cached_property
    def n_targets(self) -> int:
        """How many titles are predicted in one pass."""
        return sum(len(r.item) for r in self.rows)


def examples(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None = None,
) -> tuple[Examples, TitlePaths]:
    """What one pass learns from, and the trie's paths.

    Args:
        recommender: gives prompt, tokenizer and trie.
        data: with the split that training keeps to.
        training: the settings.
        wanted: (E,) the only events that may be targets; all where None.

    Raises:
        SettingsError: behaviors are not in the data, or the model cannot take this layout.
        DataError: there is nothing to learn from.
    """
    events = data.interactions
    paths = _paths(recommender, training)
    if training.examples is not None:
        return _of_file(recommender, training, paths), paths
    shown = _shown(data, training)
    maker = _maker(recommender, data, training, paths)
    rows = of_users(maker, events, shown, shown if wanted is None else shown & wanted)
    if not rows:
        msg = (
            f"Nothing to learn from: no event in {training.fit} has an item of the catalog. "
            "Expected histories; check the split and --behaviors."
        )
        raise DataError(msg)
    plain = bool(recommender.model.obstacle)
    if plain and any((r.branch > 0).any() for r in rows):
        msg = (
            f"basket='tree' with {recommender.model.name}, which takes no branches "
            f"({recommender.model.obstacle}). Expected basket='first' or layout='window'."
        )
        raise SettingsError(msg)
    weights = target_weights(rows, data, training)
    packs = [[i] for i in range(len(rows))] if plain else packed(rows, training.pack_tokens)
    return Examples(rows, weights, packs), paths


def _maker(
    recommender: Recommender, data: Dataset, training: Training, paths: TitlePaths
) -> RowMaker:
    settings = recommender.settings
    return RowMaker(
        recommender.encoder,
        recommender.template,
        data.interactions,
        paths,
        basket=_basket(training, data),
        layout=training.layout,
        whole_titles=training.vocab_weight > 0,
        max_events=settings.max_events,
        max_tokens=training.pack_tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
        overlap=training.overlap,
        scale=recommender.scale if settings.values else None,
    )


def _of_file(recommender: Recommender, training: Training, paths: TitlePaths) -> Examples:
    """What a file of examples says, every example of weight 1."""
    assert training.examples is not None
    rows, rejected = example_files.rows(
        example_files.read(training.examples),
        recommender.encoder,
        recommender.catalog,
        paths,
        training.pack_tokens,
    )
    for reason, many in rejected.items():
        recommender.say(f"left out {many:,} examples: {reason}")
    ones = [np.ones(1) for _ in rows]
    plain = bool(recommender.model.obstacle)
    packs = [[i] for i in range(len(rows))] if plain else packed(rows, training.pack_tokens)
    return Examples(rows, ones, packs)


def write_examples(
    data: Dataset,
    out: str | Path,
    model: str | LanguageModel = "smollm2-135m",
    *,
    form: str = "prompt-completion",
    say: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> int:
    """Writes one prompt and one title for every target of train, as JSON Lines or Parquet.

    Args:
        data: with a split.
        out: the file, .jsonl or .parquet.
        model: whose tokenizer counts the tokens of prompts.
        form: ``prompt-completion``, or ``messages`` of a user and an assistant.
        say: called with a line of text before each slow step.
        **settings: as of ``train``.

    Returns:
        How many were written.

    Raises:
        SettingsError: a setting, the form or the file's ending is not known.
        DataError: there is nothing to write.
    """
    example_files.check(out, form)
    ours, training = recipe.resolved(settings)
    training = replace(training, layout="window", basket=_windowed(training.basket))
    data = protocols.under(data, training.protocol or protocols.default_protocol(data))
    recommender = Recommender(data, model, say=say, **asdict(replace(ours, prior="none")))
    maker = _maker(recommender, data, training, _paths(recommender, training))
    shown = _shown(data, training)
    found = example_files.examples(
        maker, recommender.encoder, data.interactions, shown, shown, form
    )
    many = example_files.write(out, found)
    if not many:
        msg = f"No event in {training.fit} is a target. Expected histories; check the split."
        raise DataError(msg)
    return many


def _windowed(basket: str) -> str:
    return "first" if basket == "first" else "auto"


def _shown(data: Dataset, training: Training) -> BoolArray:
    """(E,) which events histories show while training."""
    known = data.interactions.columns.split <= (0 if training.fit == "train" else 1)
    return known & shown_events(data.interactions, training)


def shown_events(events: Interactions, training: Training) -> BoolArray:
    """(E,) the events with one of the ``behaviors`` that histories show.

    Raises:
        SettingsError: one of these is not in the data.
    """
    if training.behaviors is None:
        return np.ones(len(events), dtype=np.bool_)
    if unknown := [b for b in training.behaviors if b not in events.behaviors]:
        msg = (
            f"behaviors={unknown[0]!r} is not in the data. Expected some of: "
            f"{', '.join(events.behaviors)}."
        )
        raise SettingsError(msg)
    codes = [events.behaviors.index(b) for b in training.behaviors]
    return np.isin(events.columns.behavior, codes)


def _basket(training: Training, data: Dataset) -> str:
    if training.basket != "auto":
        return training.basket
    return "tree" if data.info.unit is not None else "as_is"


def _paths(recommender: Recommender, training: Training) -> TitlePaths:
    """Of the whole catalog, or without the items that are held out."""
    n = len(recommender.catalog)
    if not training.holdout:
        trie = recommender.trie
        assert isinstance(trie, TitleTrie)
        return TitlePaths(trie)
    kept = kept_rows(n, training)
    titles = list(recommender.encoder.titles(recommender.catalog))
    return TitlePaths(TitleTrie([titles[r] for r in kept]), kept, n)


def kept_rows(n: int, training: Training) -> npt.NDArray[np.int64]:
    """Which of n catalog rows are trained on: a seeded sample, in order."""
    order = np.random.default_rng(training.seed).permutation(n)
    return np.sort(order[: max(1, round(n * (1 - training.holdout)))])


def target_weights(rows: Sequence[Row], data: Dataset, training: Training) -> list[FloatArray]:
    """How much each target counts, 1 on average."""
    c = data.interactions.columns
    weight = np.ones(len(c.row))
    if training.recency_half_life is not None:
        if data.info.time_unit == "position":
            msg = "recency_half_life with positions, which are no times. Expected data with times."
            raise SettingsError(msg)
        age = (c.timestamp[c.split == 0].max() - c.timestamp) / _DAY
        weight *= 0.5 ** (np.maximum(age, 0) / training.recency_half_life)
    for behavior, factor in training.behavior_weights.items():
        if behavior not in data.interactions.behaviors:
            msg = (
                f"behavior_weights for {behavior!r}, which is not in the data. Expected some of: "
                f"{', '.join(data.interactions.behaviors)}."
            )
            raise SettingsError(msg)
        weight[c.behavior == data.interactions.behaviors.index(behavior)] *= factor
    if training.popularity_strength:
        use = (c.split == 0) & (c.row >= 0)
        count = np.bincount(c.row[use], minlength=len(data.catalog)).astype(np.float64) + 1
        weight[c.row >= 0] *= count[c.row[c.row >= 0]] ** -training.popularity_strength
    mean = float(np.mean(weight[np.concatenate([r.event for r in rows])]))
    if not mean > 0:
        msg = "All targets weigh 0. Expected some above; check behavior_weights."
        raise SettingsError(msg)
    return [weight[r.event] / mean for r in rows]


class Goal(ABC):
    """What is minimised: packs to tensors, and these to a loss of each target.

    Attributes:
        lean: whether only the logits that a loss needs are computed.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Takes the model as it will be trained."""
        self._body = model.body
        self._plain = bool(model.obstacle)
        self.lean = self._body.head is not None

    @abstractmethod
    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """The collator: indices of packs to tensors, ``weight`` and ``document`` among them."""

    @abstractmethod
    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(G,) nats of each target, detached, and (G,) what is minimised, before its weight."""

    def _states(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Head]:
        """States of all tokens with the layer that makes logits of them, or logits."""
        asked: dict[str, Any] = {"use_cache": False}
        if self.lean:
            asked["output_hidden_states"] = True
            if self._body.keeps:
                asked["logits_to_keep"] = 1
        out = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=self._mask(inputs),
            **asked,
        )
        if not self.lean:
            return out.logits.flatten(0, 1), Head()
        assert self._body.head is not None
        head = Head(self._body.head.weight, self._body.head.bias)
        return out.hidden_states[-1].flatten(0, 1), head

    def _mask(self, inputs: dict[str, Tensor]) -> Any:
        if self._plain:
            return (inputs["document"] >= 0).long()
        dtype = torch.get_autocast_dtype(inputs["input_ids"].device.type)
        if not torch.is_autocast_enabled(inputs["input_ids"].device.type):
            dtype = self._body.dtype
        masks = {}
        for kind, window in self._body.windows.items():
            seen = visible(inputs, window)
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(~seen, torch.finfo(dtype).min)
        return masks if len(self._body.types) > 1 else next(iter(masks.values()))


class Objective(Goal):
    """Next items: nats of each target over the trie, and a share over the vocabulary."""

    def __init__(
        self,
        data: Examples,
        paths: TitlePaths,
        model: LanguageModel,
        training: Training,
        titles: Sequence[Sequence[int]],
    ) -> None:
        """Takes what all batches share; the model is already as it will be trained."""
        super().__init__(model)
        self._data, self._paths, self._training = data, paths, training
        self._titles = titles if training.vocab_weight else None
        self._loss = CatalogLoss(paths, training.label_smoothing)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """See ``Goal.batch``."""
        rows = [[self._data.rows[i] for i in self._data.packs[p]] for p in packs]
        weights = [[self._data.weights[i] for i in self._data.packs[p]] for p in packs]
        return batch(rows, self._paths, weights, titles=self._titles)

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See ``Goal.losses``."""
        inputs = dict(inputs)
        self._loss.to(inputs["input_ids"].device)
        states, head = self._states(model, inputs)
        nats, losses = self._loss.nats(states, inputs, head)
        if self._titles is not None:
            losses = losses + self._training.vocab_weight * vocab_nats(states, inputs, head)
        return nats, losses


class _Trainer(Trainer):
    """transformers' Trainer with our loss; checkpoints are the callback's, in safetensors."""

    def __init__(self, objective: Goal, **rest: Any) -> None:
        super().__init__(data_collator=objective.batch, **rest)
        self._objective = objective
        self.model_accepts_loss_kwargs = True  # so that it divides nothing again
        self.seen = np.zeros(3)  # sum of nats, targets, tokens of this process, till they are read
        self.learned = 0.0  # targets of all processes, likewise

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
    ) -> None:
        """Takes what it needs of a run.

        Args:
            folder: of the run.
            training: the settings.
            validate: measures the model as it is; None for never.
            watch: called with each line of the log.
            resumed: the checkpoint to go on from.
            n_targets: how many targets the run will learn from.
        """
        self.folder, self.training, self.progress = folder, training, Progress()
        self.trainer: _Trainer
        self._validate, self._watch, self._resumed = validate, watch, resumed
        self._every = training.eval_every or max(n_targets / _VALIDATIONS, 1)
        self.n_targets = n_targets
        self._started = self._saved = self._logged = time.monotonic()
        self._since = np.zeros(3)
        self._rng: dict[str, Tensor] = {}
        if resumed is not None:
            values = json.loads((resumed / "state.json").read_text(encoding="utf-8"))
            self.progress = Progress(**values["progress"])
            self._rng = load_file(resumed / "rng.safetensors")
            self._optimizer_state = values["optimizer"]

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.trainer.is_world_process_zero())

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
        elif self._validate is not None:
            self._measure(0)
        self._started = self._saved = self._logged = time.monotonic()

    def step_begins(self) -> None:
        """Puts the random numbers where the checkpoint had them, before the first step."""
        if self._rng:
            torch.set_rng_state(self._rng["cpu"])
            if "cuda" in self._rng and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._rng["cuda"])
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
            self._log(step, now)
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
            self._log(int(state.global_step), time.monotonic())
        if self._validate is not None and not any(
            v["step"] == state.global_step for v in self.progress.measured
        ):
            self._measure(int(state.global_step))
        self._save(state)

    def _log(self, step: int, now: float) -> None:
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
        self._say(line)
        self._since, self._logged = np.zeros(3), now

    def _say(self, line: dict[str, Any]) -> None:
        if self.main:
            with (self.folder / checkpoint.LOG).open("a", encoding="utf-8") as stream:
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
        self._say({"validation": True, **found, "seconds": round(self.progress.seconds, 1)})
        self._logged += time.monotonic() - began
        if self.main and step and (before is None or found["nats"] < before["nats"]):
            checkpoint.write_folder(self.folder / "best", self._save_weights)
        best = self.progress.best
        since = [v for v in self.progress.measured if best and v["step"] > best["step"]]
        return bool(self.training.patience) and len(since) >= self.training.patience

    def _save_weights(self, folder: Path) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        for name, value in model.named_parameters():
            if value.requires_grad and not torch.isfinite(value).all():
                msg = f"{name} is not finite. Expected numbers; the last checkpoint is as it was."
                raise ModelError(msg)
        with quiet_transformers():
            model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    def _save(self, state: Any) -> None:
        """Writes a checkpoint, whole or not at all, and removes those before the last two."""
        self._saved = time.monotonic()
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        if not self.main:
            return
        # Random states of other processes are not kept: with dropout a resumed run of several
        # processes draws other masks.

        def fill(folder: Path) -> None:
            self._save_weights(folder)
            _save_optimizer(self._optimizer, self.trainer.model, folder / "optimizer.safetensors")
            save_file(rng, folder / "rng.safetensors")
            state.save_to_json(str(folder / "trainer_state.json"))
            inner = _inner(self._scheduler, "scheduler")
            values = {
                "progress": asdict(self.progress),
                "optimizer": {
                    "rates": [g["lr"] for g in self._optimizer.param_groups],
                    "last_epoch": inner.last_epoch,
                },
            }
            checkpoint.write_text(folder / "state.json", json.dumps(values))

        place = self.folder / checkpoint.CHECKPOINTS / f"step-{state.global_step}"
        try:
            checkpoint.write_folder(place, fill)
        except (OSError, RuntimeError) as error:
            msg = (
                f"The checkpoint at step {state.global_step} could not be written: {error}. The "
                "one before it is as it was. Make room on the disk, and go on with --resume."
            )
            raise ModelError(msg) from error
        for old in checkpoint.checkpoints(self.folder)[:-_KEPT]:
            with contextlib.suppress(OSError):
                (old / "state.json").unlink()  # from now on it is none
            _remove(old)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _inner(wrapped: Any, name: str) -> Any:
    """What accelerate wraps."""
    while hasattr(wrapped, name) and not callable(getattr(wrapped, name)):
        wrapped = getattr(wrapped, name)
    return wrapped


def _names(model: Any) -> dict[int, str]:
    return {id(p): name for name, p in model.named_parameters()}


def _save_optimizer(optimizer: Any, model: Any, path: Path) -> None:
    """The state of every parameter, by its name."""
    names = _names(model)
    tensors = {
        f"{names[id(p)]}|{key}": value.detach().cpu().contiguous()
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    save_file(tensors, path)


def _load_optimizer(optimizer: Any, model: Any, path: Path) -> None:
    parameters = dict(model.named_parameters())
    state: dict[Any, dict[str, Tensor]] = {}
    for name, value in load_file(path).items():
        parameter, _, key = name.rpartition("|")
        owner = parameters[parameter]
        value = value if key == "step" else value.to(owner.device)
        state.setdefault(owner, {})[key] = value
    optimizer.state.update(state)


def adapted(model: Any, training: Training) -> Any:
    """A model with a fresh adapter, or all of it where the rank is 0.

    Raises:
        SettingsError: no layer has a name of ``target_modules``.
    """
    if not training.lora_rank:
        return model.requires_grad_(True)
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
        fan_in_fan_out=_transposed(model),
    )
    try:
        with quiet_transformers():
            return get_peft_model(model, settings)
    except ValueError as error:
        layers = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if _linear(m)})
        msg = (
            f"target_modules={training.target_modules!r}: {error} Expected all-linear, or some of: "
            f"{', '.join(layers)}."
        )
        raise SettingsError(msg) from error


def _transposed(model: Any) -> bool:
    return any(type(m).__name__ == "Conv1D" for m in model.modules())


def _linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def train(
    data: Dataset,
    out: str | Path,
    model: str | LanguageModel = "smollm2-135m",
    *,
    resume: bool = False,
    since: str | Path | None = None,
    new: BoolArray | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None] = lambda message: None,
    watch: Watch = lambda line: None,
    **settings: Any,
) -> Run:
    """Fine-tunes a model on the histories of a dataset and writes a run folder.

    Args:
        data: with a split; test events are never learned from.
        out: the run folder; new or empty, or with ``resume`` one that was begun.
        model: name, folder or hub id, or a loaded model, which is changed.
        resume: go on from the last checkpoint, if there is one.
        since: a run whose adapter is trained further, in place of a fresh one.
        new: (E,) which events are feedback (``feedback.joined``): these are learned, and of the
            others ``replay`` times as many, so that they are not forgotten.
        device: see ``LanguageModel.load``.
        dtype: see ``LanguageModel.load``.
        threads: see ``LanguageModel.load``.
        say: called with a line of text before each slow step.
        watch: called with each line of the log: step, nats, targets per second; or a validation.
        **settings: fields of ``genrec.recipe.Training`` and ``genrec.config.Settings``.

    Returns:
        What ``run.json`` says.

    Raises:
        SettingsError: a setting cannot be used, or differs from those of the run that goes on.
        DataError: there is nothing to learn from.
        ModelError: the model cannot be had, the loss is not finite, or nothing can be written.
    """
    ours, training = recipe.resolved(settings)
    folder = Path(out)
    start = _open(folder, {**asdict(ours), **asdict(training)}, resume=resume)
    data = protocols.under(data, training.protocol or protocols.default_protocol(data))
    lm = (
        LanguageModel.load(
            model,
            device=device,
            dtype=dtype,
            threads=threads,
            quantize=training.quantize,
            say=say,
        )
        if isinstance(model, str)
        else model
    )
    recommender = Recommender(
        data, lm, say=say, **asdict(replace(ours, search="auto", prior="none", fusion="auto"))
    )
    run = _described(recommender, ours, training, data)
    if lm.device.type == "cpu" and lm.dtype != torch.float32:
        say(f"{lm.describe()}: training in half precision on a CPU is slow and coarse.")
    say("Preparing the histories ...")
    wanted = None if new is None else _replayed(data, new, training)
    found, ready = _prepared(recommender, data, ours, training, wanted)
    torch.manual_seed(training.seed)
    if since is None:
        tuned = LanguageModel(adapted(lm.model, training), lm.tokenizer, name=lm.name)
    else:
        tuned = LanguageModel(_continued(lm.model, Path(since), run), lm.tokenizer, name=lm.name)
    if training.gradient_checkpointing:
        tuned.model.gradient_checkpointing_enable({"use_reentrant": False})
        tuned.model.enable_input_require_grads()
    objective, validate = ready(tuned)
    trainer, session = _trainer(objective, found, tuned, training, folder, start, watch)
    session._validate = validate if new is None else None  # new events come after validation
    session.trainer = trainer
    said = f"{found.n_targets:,} targets in {sum(map(len, found.rows)):,} tokens a pass"
    say(f"{said}, {trainer.args.max_steps:,} steps ...")
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    if session.main:
        measured = session.progress.measured
        run = replace(
            run,
            targets=round(session.progress.targets),
            finished=trainer.state.global_step >= trainer.args.max_steps,
            metrics={"best": session.progress.best, "last": measured[-1] if measured else None},
        )
        _finish(folder, run, session, recommender, training)
    tuned.model.eval()
    return run


def _replayed(data: Dataset, new: BoolArray, training: Training) -> BoolArray:
    """(E,) the new events, and a seeded sample of the old ones of train."""
    c = data.interactions.columns
    old = np.flatnonzero(~new & (c.split == 0) & (c.row >= 0))
    many = min(len(old), round(training.replay * int(new.sum())))
    chosen = np.random.default_rng(training.seed).permutation(old)[:many]
    wanted = new.copy()
    wanted[chosen] = True
    return wanted


def _continued(model: Any, since: Path, run: Run) -> Any:
    """A model with the adapter of an earlier run, to be trained further.

    Raises:
        ModelError: the earlier run is of another model, prompt or tokenizer, or has no adapter.
    """
    from peft import PeftModel

    old = Run.read(since)
    old.check(
        template=run.template_hash,
        encoder=run.encoder_hash,
        base=run.base_fingerprint or None,
        kept=run.base_kept,
    )
    if not (since / checkpoint.ADAPTER).is_dir():
        msg = f"{since} has no adapter: all its weights were trained. Expected a run with one."
        raise ModelError(msg)
    with quiet_transformers():
        return PeftModel.from_pretrained(
            model.requires_grad_(False), str(since / checkpoint.ADAPTER), is_trainable=True
        )


def _prepared(
    recommender: Recommender,
    data: Dataset,
    settings: Settings,
    training: Training,
    wanted: BoolArray | None,
) -> tuple[Examples, Ready]:
    """What is learned from, and what gives objective and validation for the model to be trained."""
    if training.objective == "pointwise":
        from genrec import pointwise

        return pointwise.prepared(recommender, data, training, wanted)
    found, paths = examples(recommender, data, training, wanted)
    titles = list(recommender.encoder.titles(recommender.catalog))

    def ready(model: LanguageModel) -> tuple[Goal, Validate | None]:
        objective = Objective(found, paths, model, training, titles)
        return objective, _validator(data, settings, training, model)

    return found, ready


def _open(folder: Path, values: dict[str, Any], *, resume: bool) -> Path | None:
    """Makes the run folder; the checkpoint to go on from, if any.

    Raises:
        SettingsError: something is there already, or the settings differ from the run's.
    """
    import yaml

    if int(os.environ.get("RANK", "0")):  # the first process looks after the folder
        return next(reversed(checkpoint.checkpoints(folder)), None)
    path = folder / checkpoint.SETTINGS
    values = json.loads(json.dumps(values))
    if folder.exists() and any(folder.iterdir()):
        if not resume:
            msg = (
                f"{folder} is not empty. Nothing was changed. Expected a new folder for --out; to "
                "go on with a run that was begun there, add --resume."
            )
            raise SettingsError(msg)
        if not path.is_file():
            msg = f"{folder} holds no run to go on with. Expected one that `genrec train` began."
            raise SettingsError(msg)
        old = {**asdict(Settings()), **asdict(Training()), **recipe.read(path)}
        changed = [
            f"{k}={values[k]!r} (it was {old.get(k)!r})"
            for k in values
            if k not in _FREE and old.get(k) != values[k]
        ]
        if changed:
            msg = (
                f"A run that goes on keeps its settings, but {', '.join(changed)}. Expected the "
                f"same as in {path}; begin a new run in another folder for others."
            )
            raise SettingsError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return next(reversed(checkpoint.checkpoints(folder)), None)


def _described(
    recommender: Recommender, settings: Settings, training: Training, data: Dataset
) -> Run:
    names = ("genrec", "torch", "transformers", "peft", "accelerate")
    whole = "" if recommender.model.quantize != "none" else recommender.model.fingerprint()
    return Run(
        base_model=recommender.model.name,
        base_fingerprint=whole,
        base_kept=recommender.model.kept_fingerprint(),
        base_revision=None,
        template=recommender.template.name,
        template_hash=recommender.template.hash,
        encoder_hash=recommender.encoder.hash,
        catalog_hash=recommender.catalog.hash(),
        data=data.info.name,
        data_fingerprint=protocols.fingerprint(data),
        settings=asdict(settings) | {"case": recommender.encoder.form.case},
        training=asdict(training),
        versions={name: importlib.metadata.version(name) for name in names},
        targets=0,
        finished=False,
    )


def _trainer(
    objective: Goal,
    data: Examples,
    model: LanguageModel,
    training: Training,
    folder: Path,
    start: Path | None,
    watch: Watch,
) -> tuple[_Trainer, Session]:
    """The Trainer and what happens beside its steps."""
    t, several = training, int(os.environ.get("WORLD_SIZE", "1")) > 1
    with quiet_transformers():
        arguments = TrainingArguments(
            output_dir=str(folder / checkpoint.CHECKPOINTS),
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
    per_step = t.batch_size * t.accumulate * arguments.world_size
    steps = math.ceil(len(data) / per_step)
    targets = data.n_targets * t.epochs if t.max_targets is None else t.max_targets
    arguments.max_steps = max(1, math.ceil(steps * targets / data.n_targets))
    arguments.warmup_steps = math.ceil(t.warmup * arguments.max_steps)
    session = Session(folder, t, None, watch, start, targets)
    trainer = _Trainer(
        objective,
        model=model.model,
        args=arguments,
        train_dataset=data,
        callbacks=[_Callback(session)],
        processing_class=None,
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer, session


def _validator(
    data: Dataset, settings: Settings, training: Training, model: LanguageModel
) -> Validate | None:
    """Measures nats, HR@10 and NDCG@10 on a fixed sample of validation users, by the decoder."""
    if not training.eval_users or training.fit == "both":
        return None
    protocol = training.protocol or protocols.default_protocol(data)
    cases = protocols.sample(protocols.cases(data, protocol, "validation"), training.eval_users)
    plain = replace(settings, prior="none", fusion="auto", normalization="catalog", decoder="trie")
    recommender = Recommender(data, model, **asdict(plain))

    def validate() -> dict[str, Any]:
        nats, ranks = [], []
        for case in cases:
            answer, spent, _ = recommender.with_nats(case.history, 10, case.target)
            nats.append(spent)
            ranks.append(metrics.rank_of(case.target, [r.item_id for r in answer]))
        return {
            "nats": float(np.mean(nats)),
            "hit_rate@10": float(np.mean(metrics.hit_rate(ranks, 10))),
            "ndcg@10": float(np.mean(metrics.ndcg(ranks, 10))),
            "users": len(cases),
        }

    return validate


def _finish(
    folder: Path, run: Run, session: Session, recommender: Recommender, training: Training
) -> None:
    """Writes the run folder's parts, and run.json last."""
    import pyarrow.parquet as pq

    best = session.progress.best
    last = session.progress.measured[-1] if session.progress.measured else None
    name = checkpoint.ADAPTER if training.lora_rank else checkpoint.WHOLE

    def fill(place: Path) -> None:
        source = folder / "best"
        if best is not None and best != last and best["step"] and source.is_dir():
            import shutil

            shutil.copytree(source, place, dirs_exist_ok=True)
        else:
            session._save_weights(place)
        if not training.lora_rank:
            recommender.model.tokenizer.save_pretrained(place)

    checkpoint.write_folder(folder / name, fill)
    pq.write_table(recommender.catalog.to_table(), folder / checkpoint.CATALOG)
    assert isinstance(recommender.trie, TitleTrie)
    recommender.trie.save(folder / checkpoint.TRIE)
    curves.write(folder, run, 2 if training.objective == "pointwise" else len(recommender.catalog))
    run.write(folder)
