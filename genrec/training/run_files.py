"""Write the files of a run folder, and describe the run.

This module deals with files and settings, not with training steps.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from genrec import files, runs
from genrec.config import Settings
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.decoding.trie import TitleTrie
from genrec.files import write_text
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training import report
from genrec.training.config import Training
from genrec.training.loop import Session


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings to types that JSON and YAML support, such as lists instead of tuples."""
    values: dict[str, Any] = json.loads(json.dumps(settings))
    return values


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Create the run folder and write the settings to it.

    This must be called just before the first step, when all checks have passed.
    """
    import yaml

    if not runs.is_first_process():
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(as_json(settings), sort_keys=False, allow_unicode=True)
    write_text(folder / runs.SETTINGS, text)


def describe_run(
    recommender: Recommender, settings: Settings, training: Training, data: Dataset
) -> Run:
    """Collect the contents of ``run.json`` for a run that has not started yet."""
    names = ("genrec", "torch", "transformers", "peft", "accelerate")
    model = recommender.model
    place = str(Path(model.name).resolve())  # an absolute path works from any working directory
    return Run(
        base_model=place if Path(place).is_dir() else model.name,
        base_fingerprint="" if model.quantize != "none" else model.fingerprint(),
        base_kept=model.kept_fingerprint(),
        base_revision=None,
        template=recommender.template.name,
        template_hash=recommender.template.hash,
        encoder_hash=recommender.encoder.hash,
        catalog_hash=recommender.catalog.hash(),
        data=data.info.name,
        data_fingerprint=protocols.fingerprint(data),
        settings=asdict(settings)
        | {"case": recommender.encoder.form.case}
        | ({"context_columns": ",".join(data.info.context)} if data.info.context else {}),
        training=asdict(training),
        versions={name: importlib.metadata.version(name) for name in names},
        targets=0,
        finished=False,
    )


def save_weights(
    session: Session, gathered: dict[str, torch.Tensor] | None, best: Path | None, place: Path
) -> None:
    """Write the weights of a session to a folder.

    Args:
        session: the training session.
        gathered: the complete weights of a sharded model; None for other models.
        best: the folder of earlier weights that are better; None if the latest are the best.
        place: the folder to write to.
    """
    if best is not None and best.is_dir():
        shutil.copytree(best, place, dirs_exist_ok=True)
    else:
        session.checkpoints.save_weights(place, gathered)


def write_run(
    folder: Path,
    run: Run,
    recommender: Recommender,
    training: Training,
    save: Callable[[Path], None],
    reports: Path | None = None,
) -> None:
    """Write all files of a run folder. The file run.json comes last, so it marks a complete run.

    Args:
        folder: the run folder.
        run: the contents of run.json.
        recommender: the recommender whose catalog, trie and tokenizer are written.
        training: the training settings.
        save: a function that writes the trained weights to a folder.
        reports: the folder of the log, to which the report is written; None for the run folder.
    """
    import pyarrow.parquet as pq

    name = runs.ADAPTER if training.lora_rank else runs.WHOLE

    def fill(place: Path) -> None:
        save(place)
        if not training.lora_rank:
            recommender.model.tokenizer.save_pretrained(place)

    files.write_folder(folder / name, fill)
    pq.write_table(recommender.catalog.to_table(), folder / runs.CATALOG)
    assert isinstance(recommender.trie, TitleTrie)
    recommender.trie.save(folder / runs.TRIE)
    report.write(
        reports or folder, run, 2 if training.objective == "pointwise" else len(recommender.catalog)
    )
    run.write(folder)
