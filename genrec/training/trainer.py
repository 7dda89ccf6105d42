"""Training: from a dataset to a run folder.

What is learned from is ``learning``, what is minimised is ``objectives``, how it goes is ``session``.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
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
from genrec.decoding.trie import TitleTrie
from genrec.errors import SettingsError
from genrec.evaluation import metrics
from genrec.files import write_text
from genrec.models.language_model import LanguageModel, fast_bf16_cpu, resolve_device
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training import config, report
from genrec.training.config import Training
from genrec.training.examples import Examples, examples
from genrec.training.loop import Session, Watch, begun
from genrec.training.lora import adapted, continued
from genrec.training.objectives import NextItemObjective, Objective, Ready, Validate
from genrec.types import BoolArray

_FREE = {  # settings that may change when a run goes on
    "max_minutes", "eval_users", "eval_every", "patience", "save_steps", "save_minutes",
    "log_steps", "report_to",
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
        dtype: see ``LanguageModel.load``; with all weights, ``auto`` is float32 on a CPU.
        threads: see ``LanguageModel.load``.
        log: called with a line of text before each slow step.
        watch: called with each line of the log: step, nats, targets per second; or a validation.
        **settings: fields of ``genrec.recipe.Training`` and ``genrec.config.Settings``.

    Returns:
        What ``run.json`` says.

    Raises:
        SettingsError: a setting cannot be used, or differs from those of the run that goes on.
        DataError: there is nothing to learn from.
        ModelError: the model cannot be had, the loss is not finite, or nothing can be written.
    """
    ours, training = config.resolved(settings)
    folder = Path(out)
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    part = data.interactions.columns.split == SPLITS.index("validation")
    if (
        training.eval_users
        and training.pairs is None
        and training.before == "validation"
        and not part.any()
    ):
        log(
            "The data has no validation part: nothing is measured meanwhile, and the last weights are "
            "kept. `genrec prepare --split last-unit` makes one."
        )
        training = replace(training, eval_users=0)
    start = _open(folder, {**asdict(ours), **asdict(training)}, resume=resume)
    if dtype == "auto" and not training.lora_rank and resolve_device(device).type != "cuda":
        dtype = "float32"  # weights that learn themselves take smaller steps than bfloat16 has
    lm = (
        LanguageModel.load(
            model,
            device=device,
            dtype=dtype,
            threads=threads,
            quantize=training.quantize,
            log=log,
        )
        if isinstance(model, str)
        else model
    )
    recommender = Recommender(
        data, lm, log=log, **asdict(replace(ours, search="auto", prior="none", fusion="auto"))
    )
    run = _described(recommender, ours, training, data)
    if lm.device.type == "cpu" and lm.dtype != torch.float32:
        if not (lm.dtype == torch.bfloat16 and fast_bf16_cpu()):
            log(f"{lm.describe()}: half precision is slow on this CPU; --dtype float32 is not.")
        elif not training.lora_rank:
            log(f"{lm.describe()}: weights in half precision learn coarsely; --dtype float32.")
    tuned = _to_train(lm, training, run, since)
    wanted = None if new is None else _replayed(data, new, training)
    log("Preparing the histories ...")
    found, ready = _prepared(recommender, data, ours, training, wanted)
    if training.gradient_checkpointing:
        tuned.model.gradient_checkpointing_enable({"use_reentrant": False})
        tuned.model.enable_input_require_grads()
    objective, validate = ready(tuned)
    trainer, session = begun(
        objective, found, tuned, training, folder, start, watch, _learned(run, found)
    )
    session.trainer = trainer
    if new is None and not session.sharded:  # new events come after validation
        session._validate = validate
    elif session.sharded and validate is not None:
        log(
            "Sharded weights: no validation meanwhile. `genrec evaluate` measures the finished run."
        )
    _keep_settings(folder, {**asdict(ours), **asdict(training)})
    said = f"{found.n_targets:,} targets in {sum(map(len, found.rows)):,} tokens a pass"
    log(f"{said}, {trainer.args.max_steps:,} steps ...")
    done = 0 if start is None else runs.step_of(start)
    if start is not None and done >= trainer.args.max_steps and not session.sharded:
        log("All steps were done: nothing is learned anew.")
        trainer._load_from_checkpoint(str(start))
        trainer.state.global_step = done
    else:
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    gathered = session.gathered()
    if session.main:
        measured = session.progress.measured
        run = replace(
            run,
            targets=round(session.progress.targets),
            finished=trainer.state.global_step >= trainer.args.max_steps,
            metrics={"best": session.progress.best, "last": measured[-1] if measured else None},
        )
        _finish(folder, run, session, recommender, training, gathered)
    tuned.model.eval()
    return run


def _to_train(
    lm: LanguageModel, training: Training, run: Run, since: str | Path | None
) -> LanguageModel:
    """The model with a fresh adapter, drawn by the seed, or with that of an earlier run."""
    torch.manual_seed(training.seed)
    if since is None:
        model = adapted(lm.model, training, run.base_model)
    else:
        model = continued(lm.model, runs.located(since), run)
    return LanguageModel(model, lm.tokenizer, name=lm.name)


def _learned(run: Run, found: Examples) -> dict[str, str]:
    """What a run that goes on must not change, by the names that an error gives them."""
    return {
        "the base model": run.base_fingerprint or run.base_kept,
        "the prompt template": run.template_hash,
        "the tokenizer or the form of titles": run.encoder_hash,
        "the catalog": run.catalog_hash,
        "what is learned (data, split, pairs, examples or new interactions)": found.fingerprint(),
    }


def _replayed(data: Dataset, new: BoolArray, training: Training) -> BoolArray:
    """(E,) the new events, and a seeded sample of the old ones of train."""
    c = data.interactions.columns
    old = np.flatnonzero(~new & (c.split == 0) & (c.row >= 0))
    many = min(len(old), round(training.replay * int(new.sum())))
    chosen = np.random.default_rng(training.seed).permutation(old)[:many]
    wanted = new.copy()
    wanted[chosen] = True
    return wanted


def _prepared(
    recommender: Recommender,
    data: Dataset,
    settings: Settings,
    training: Training,
    wanted: BoolArray | None,
) -> tuple[Examples, Ready]:
    """What is learned from, and what gives objective and validation for the model to be trained."""
    if training.objective == "pointwise":
        from genrec.training import pointwise

        return pointwise.prepared(recommender, data, training, wanted)
    titles = list(recommender.encoder.titles(recommender.catalog))
    found, paths = examples(recommender, data, training, wanted, titles)

    def ready(model: LanguageModel) -> tuple[Objective, Validate | None]:
        objective = NextItemObjective(found, paths, model, training, titles)
        return objective, _validator(data, settings, training, model)

    return found, ready


def _open(folder: Path, values: dict[str, Any], *, resume: bool) -> Path | None:
    """Looks whether a run may be written there; the checkpoint to go on from, if any.

    Raises:
        SettingsError: something is there already, or the settings differ from the run's.
    """
    if not runs.first_process():  # the first process looks after the folder
        return next(reversed(runs.checkpoints(folder)), None)
    path = folder / runs.SETTINGS
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
        old = {**asdict(Settings()), **asdict(Training()), **config.read(path)}
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
    return next(reversed(runs.checkpoints(folder)), None)


def _keep_settings(folder: Path, values: dict[str, Any]) -> None:
    """Makes the run folder, when all that can be wrong before the first step is known to be right."""
    import yaml

    if not runs.first_process():
        return
    values = json.loads(json.dumps(values))
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text(folder / runs.SETTINGS, text)


def _described(
    recommender: Recommender, settings: Settings, training: Training, data: Dataset
) -> Run:
    names = ("genrec", "torch", "transformers", "peft", "accelerate")
    place = str(Path(recommender.model.name).resolve())  # so that it is found from anywhere
    whole = "" if recommender.model.quantize != "none" else recommender.model.fingerprint()
    return Run(
        base_model=place if Path(place).is_dir() else recommender.model.name,
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


def _validator(
    data: Dataset, settings: Settings, training: Training, model: LanguageModel
) -> Validate | None:
    """Measures nats, HR@10 and NDCG@10 on a fixed sample of validation users, by the decoder."""
    if not training.eval_users or training.before == "test":
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
    folder: Path,
    run: Run,
    session: Session,
    recommender: Recommender,
    training: Training,
    gathered: dict[str, torch.Tensor] | None,
) -> None:
    """Writes the run folder's parts, and run.json last."""
    import pyarrow.parquet as pq

    best = session.progress.best
    last = session.progress.measured[-1] if session.progress.measured else None
    name = runs.ADAPTER if training.lora_rank else runs.WHOLE

    def fill(place: Path) -> None:
        source = folder / "best"
        if best is not None and best != last and best["step"] and source.is_dir():
            import shutil

            shutil.copytree(source, place, dirs_exist_ok=True)
        else:
            session.save_weights(place, gathered)
        if not training.lora_rank:
            recommender.model.tokenizer.save_pretrained(place)

    files.write_folder(folder / name, fill)
    pq.write_table(recommender.catalog.to_table(), folder / runs.CATALOG)
    assert isinstance(recommender.trie, TitleTrie)
    recommender.trie.save(folder / runs.TRIE)
    report.write(folder, run, 2 if training.objective == "pointwise" else len(recommender.catalog))
    run.write(folder)
