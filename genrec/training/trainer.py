"""Fine-tune a model on a dataset and write the result to a run folder.

The examples are created in the module ``examples``, the losses are defined in ``objectives``, and
the training steps run in ``loop``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec import files, runs
from genrec.config import Settings
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS
from genrec.errors import ModelError, SettingsError
from genrec.models.block_reader import not_by_event
from genrec.models.devices import fast_bf16_cpu, resolve_device
from genrec.models.language_model import LanguageModel
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training import config, private
from genrec.training.block_objective import BlockObjective
from genrec.training.config import Training
from genrec.training.examples import Examples, make_examples
from genrec.training.frozen_blocks import States
from genrec.training.loop import RunPlan, Session, Watch
from genrec.training.lora import add_adapter, load_adapter
from genrec.training.objectives import NextItemObjective, Objective, ObjectiveBuilder, Validation
from genrec.training.prior_weights import WeightFit
from genrec.training.run_files import as_json, describe_run, save_weights, write_run, write_settings
from genrec.training.time_plan import Stopwatch
from genrec.training.validation import build_validation
from genrec.types import BoolArray, Log

_FREE = {  # these settings may change when a run is resumed
    "max_minutes", "eval_users", "eval_every", "tune_users", "patience", "save_steps", "save_minutes",
    "log_steps", "report_to",
    "ranker", "network", "network_encoder",  # training does not depend on the prior
}  # fmt: skip


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
    log: Callable[[str], None] = lambda message: None,
    watch: Watch = lambda line: None,
    stopwatch: Stopwatch | None = None,
    states: States | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a model on the histories of a dataset and write a run folder.

    Args:
        data: a dataset with a split. Test events are never used for training.
        out: the run folder, which must be new or empty. With ``resume``, it may contain an
            unfinished run.
        model: the name, folder or Hub ID of a model; or a loaded model, which is modified.
        resume: continue from the last checkpoint in the folder, if there is one.
        since: an earlier run, whose adapter is trained further; None to train a new adapter.
        new: a mask over all events that is True for new events (see
            ``data.updates.apply_updates``). The model is trained on these events and, to keep it
            from forgetting older events, on a random sample of old events that is ``replay`` times
            as large. If None, it is trained on all events.
        device: see ``LanguageModel.load``.
        dtype: see ``LanguageModel.load``. If all weights are trained, ``auto`` means float32 on a
            CPU.
        threads: see ``LanguageModel.load``.
        log: a function that is called with a line of text before each slow step.
        watch: a function that is called with each line of the log, which describes a step or a
            validation.
        stopwatch: the stopwatch that measures the time limited by ``max_minutes``; None to start
            one here.
        states: with ``dp_epsilon``, what the blocks below the adapter have computed in earlier trainings
            with the same base model; see ``frozen_blocks``.
        **settings: fields of ``genrec.training.Training`` and ``genrec.config.Settings``.

    Returns:
        The contents of ``run.json``.

    Raises:
        SettingsError: a setting cannot be used, a setting differs from that of the run to resume,
            the folder cannot be written, or another process is training a run in it.
        DataError: there are no targets to train on.
        ModelError: the model could not be loaded, the loss is not finite, or a file could not be
            written.
    """
    stopwatch = stopwatch or Stopwatch()
    ours, training = config.resolve(settings)
    folder, given = Path(out), data
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    data = data.with_context(ours.context_names).with_knowledge(ours.knowledge_names)
    if training.dp_epsilon is not None:
        private.check_settings(training)
        private.check_users(data, training)
        training = private.without_measuring(training, log)
        if resume or since is not None or new is not None:
            msg = (
                "dp_epsilon does not work with --resume and --from, because the guarantee covers one "
                "training as a whole. Start a new run."
            )
            raise SettingsError(msg)
    training = _without_missing_validation(data, training, log)
    written = {**asdict(ours), **asdict(training)}
    with _hold_folder(folder):
        start = _open_folder(folder, written, resume=resume)
        if resume and start is None:
            log(f"{folder} has no checkpoint to resume from, so training starts over.")
        if dtype == "auto" and not training.lora_rank and resolve_device(device).type != "cuda":
            dtype = "float32"  # bfloat16 is too coarse for small weight updates
        if isinstance(model, str):
            quantize = training.quantize
            try:
                model = LanguageModel.load(
                    model, device=device, dtype=dtype, threads=threads, quantize=quantize, log=log
                )
            except ModelError as error:
                if since is None:
                    raise
                msg = (
                    f"{error} If the base model of the run {since} has moved, pass its new location "
                    "with --model."
                )
                raise ModelError(msg) from error
        plain = replace(ours, search="auto", prior="none", fusion="auto")
        recommender = Recommender(data, model, log=log, **asdict(plain))
        run = describe_run(recommender, ours, training, data)
        _warn_of_half_precision(model, training, log)
        tuned = _make_trainable(model, training, run, since)
        wanted = None if new is None else _with_replay(data, new, training)
        log("Preparing the histories ...")
        with private.naming_its_setting(training):
            rows_as = private.with_short_rows(training)
            examples, build_objective = _prepare(recommender, data, ours, rows_as, wanted)
        if training.gradient_checkpointing:
            tuned.model.gradient_checkpointing_enable({"use_reentrant": False})
            tuned.model.enable_input_require_grads()
        if training.dp_epsilon is not None:
            how = private.PrivatePlan(
                folder, training, written, stopwatch, watch, log, states or States()
            )
            run = private.train_run(how, run, recommender, examples, tuned)
            tuned.model.eval()
            return run
        objective, validation = build_objective(tuned)
        if new is not None:
            validation = None  # validation events would be older than the new events
        weights = WeightFit(folder, given, training, None if new is None else since, log)
        time = weights.plan_time(tuned, stopwatch, recommender)
        plan = RunPlan(
            folder, training, start, _fingerprints(run, examples), validation, watch, time
        )
        session = Session(objective, examples, tuned, plan)
        if session.sharded and validation is not None:
            log(
                "The weights are sharded, so the model is not validated during training. Run `genrec "
                "evaluate` when the run has finished."
            )
        write_settings(folder, written)
        log(
            f"Training for {session.max_steps:,} steps ({examples.n_targets:,} targets and "
            f"{sum(map(len, examples.rows)):,} tokens per pass) ..."
        )
        session.run(log)
        gathered = session.checkpoints.gather_weights()
        if session.main:
            validations = session.progress.validations
            run = replace(
                run,
                targets=round(session.progress.targets),
                finished=session.finished,
                metrics={
                    "best": session.progress.best,
                    "last": validations[-1] if validations else None,
                    "items": len(recommender.catalog),
                },
            )
            kept = folder / "best" if session.best_is_earlier else None
            save = functools.partial(save_weights, session, gathered, kept)
            write_run(folder, run, recommender, training, save)
            tuned.model.eval()
            if session.sharded:
                run = weights.skip(run, "the weights are sharded")
            else:
                session.load_best()
                run = weights.run(run, tuned, time)
            run.write(folder)
    tuned.model.eval()
    return run


@contextlib.contextmanager
def _hold_folder(folder: Path) -> Iterator[None]:
    """Hold a lock on the run folder for the duration of the ``with`` block.

    Raises:
        SettingsError: another process holds the lock, or the folder cannot be written.
        ModelError: a file could not be written inside the block.
    """
    first = runs.is_first_process()  # the others write no files
    try:
        with files.lock_folder(folder) if first else contextlib.nullcontext():
            yield
    except OSError as error:
        msg = (
            f"Training has stopped: {error.filename or folder}: {files.describe_error(error)}. "
            "Earlier checkpoints are intact. Free up disk space or correct the "
            "permissions, and continue with --resume."
        )
        raise ModelError(msg) from error


def _without_missing_validation(data: Dataset, training: Training, log: Log) -> Training:
    """Return settings without validation if the data has no validation part, and log a message."""
    needed = training.eval_users and training.pairs is None and training.before == "validation"
    part = data.interactions.columns.split == SPLITS.index("validation")
    if not needed or part.any():
        return training
    log(
        "The data has no validation part, so the model is not validated during training, and the "
        "final weights are kept. To create a validation part, use `genrec prepare --split "
        "last-unit`."
    )
    return replace(training, eval_users=0)


def _warn_of_half_precision(model: LanguageModel, training: Training, log: Log) -> None:
    """Log a warning if half precision makes training on a CPU slow or inaccurate."""
    if model.device.type != "cpu" or model.dtype == torch.float32:
        return
    if not (model.dtype == torch.bfloat16 and fast_bf16_cpu()):
        log(f"{model.describe()}: half precision is slow on this CPU. Use --dtype float32 instead.")
    elif not training.lora_rank:
        log(
            f"{model.describe()}: training all weights in half precision is inaccurate. Use "
            "--dtype float32 instead."
        )


def _make_trainable(
    model: LanguageModel, training: Training, run: Run, since: str | Path | None
) -> LanguageModel:
    """Prepare a model for training by adding a new adapter or loading an earlier run's adapter.

    A new adapter is initialized with the seed of the settings.
    """
    torch.manual_seed(training.seed)
    if since is None:
        trainable = add_adapter(model.model, training, run.base_model)
    else:
        trainable = load_adapter(model.model, runs.find_run(since), run)
    return LanguageModel(trainable, model.tokenizer, name=model.name)


def _fingerprints(run: Run, examples: Examples) -> dict[str, str]:
    """Collect the hashes of everything that must stay the same when a run is resumed.

    Checkpoints store the hashes under these field names, so the names must not change. Hashes may
    be added, because a hash that is missing from an older checkpoint is not compared.
    """
    return {
        "the base model": run.base_fingerprint or run.base_kept,
        "the prompt template": run.template_hash,
        "the tokenizer or the form of titles": run.encoder_hash,
        "the catalog": run.catalog_hash,
        "what is learned (data, split, pairs, examples or new interactions)": (
            examples.fingerprint()
        ),
    }


def _with_replay(data: Dataset, new: BoolArray, training: Training) -> BoolArray:
    """Add a random sample of old training events to a mask of new events."""
    c = data.interactions.columns
    old = np.flatnonzero(~new & (c.split == 0) & (c.row >= 0))
    n = min(len(old), round(training.replay * int(new.sum())))
    replayed = np.random.default_rng(training.seed).permutation(old)[:n]
    wanted = new.copy()
    wanted[replayed] = True
    return wanted


def _prepare(
    recommender: Recommender,
    data: Dataset,
    settings: Settings,
    training: Training,
    wanted: BoolArray | None,
) -> tuple[Examples, ObjectiveBuilder]:
    """Create the examples and a function that builds a model's objective and its validation.

    Raises:
        SettingsError: a setting suits neither the data nor the model.
        DataError: there are no targets to train on.
    """
    if training.objective == "pointwise":
        from genrec.training import pointwise

        return pointwise.prepare(recommender, data, training, wanted)
    read = None if settings.recent is None else recommender.model.block_reading
    if isinstance(read, str):
        raise not_by_event(recommender.model.name, read)
    titles = list(recommender.encoder.titles(recommender.catalog))
    examples, paths = make_examples(recommender, data, training, wanted, titles)

    def build_objective(model: LanguageModel) -> tuple[Objective, Validation | None]:
        kind = NextItemObjective if settings.recent is None else BlockObjective
        objective = kind(examples, paths, model, training, titles)
        return objective, build_validation(data, settings, training, model)

    return examples, build_objective


def _open_folder(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> Path | None:
    """Check that a run can be written to a folder, and find the checkpoint to resume from.

    Args:
        folder: the run folder.
        settings: the settings of the run, by name.
        resume: True to continue the run in this folder.

    Returns:
        The checkpoint to resume from, or None if there is no checkpoint.

    Raises:
        SettingsError: the folder is not empty and there is no run in it to resume, or that run has
            different settings.
    """
    if runs.is_first_process():  # only the first process checks the folder
        path = folder / runs.SETTINGS
        if any(p.name != files.LOCK for p in folder.iterdir()):
            if not resume:
                msg = (
                    f"{folder} is not empty. Nothing was changed. Expected a new folder for --out. "
                    "To continue the run in that folder, add --resume."
                )
                raise SettingsError(msg)
            if not path.is_file():
                msg = (
                    f"{folder} contains no run to resume. Expected a run started by `genrec train`."
                )
                raise SettingsError(msg)
            _check_settings(settings, path)
    return next(reversed(runs.list_checkpoints(folder)), None)


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Check that a resumed run has the same settings as before.

    A setting that is missing from the file was added in a later version and is assumed to have had
    its default value.

    Args:
        settings: the current settings, by name.
        path: the file ``training.yaml`` of the run.

    Raises:
        SettingsError: a setting that must not change has changed. The message lists all changes.
    """
    now = as_json(settings)
    before = as_json({**asdict(Settings()), **asdict(Training()), **config.read(path)})
    changed = [
        f"{name}={now[name]!r} (it was {before.get(name)!r})"
        for name in now
        if name not in _FREE and before.get(name) != now[name]
    ]
    if changed:
        msg = (
            f"A resumed run must keep its settings, but these differ: {', '.join(changed)}. Expected "
            f"the settings in {path}. To use different ones, start a new run in another folder."
        )
        raise SettingsError(msg)
