"""Read and write run folders, which training creates and a recommender loads.

This module deals with files and hashes only, not with models::

    RUN/
        run.json            the base model, prompt, settings, versions and metrics; written last
        adapter/            the trained adapter as PEFT saves it (safetensors)
        model/              the whole model instead of an adapter, if all weights were trained
        catalog.parquet     the items of the training data
        trie.safetensors    the prefix tree of those items' titles
        tuned.json          the prior's weight and the temperature from ``genrec tune --run RUN``
        prior.safetensors   that prior, so that the run can be used without the dataset
        training.yaml       the complete settings, which ``genrec train --config`` accepts
        log.jsonl           the losses and validation metrics of each logged step
        checkpoints/        the training states from which ``--resume`` continues
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genrec.errors import ModelError
from genrec.files import describe_unreadable, write_text
from genrec.keys import pick_fields

FORMAT_VERSION = 1
RUN = "run.json"
ADAPTER = "adapter"
WHOLE = "model"
CATALOG = "catalog.parquet"
TRIE = "trie.safetensors"
PRIOR = "prior.safetensors"
SETTINGS = "training.yaml"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
OWN_DATA = "data"  # the dataset with the new events that a run was trained on
UNSHARED = (
    "unshared"  # folder in a private run for what was computed without noise, such as its log
)
DATA = "data.json"  # file in it with the hash of the dataset, which the adapter's guarantee does not cover


@dataclass(frozen=True, slots=True)
class Run:
    """The contents of ``run.json``.

    Attributes:
        base_model: the name or folder of the base model.
        base_fingerprint: the hash of the base model's weights, from ``LanguageModel.fingerprint``;
            empty if the weights were quantized.
        base_kept: the hash of those weights that are never quantized, from
            ``LanguageModel.kept_fingerprint``.
        base_revision: the hub revision of the model, or None.
        template: the name of the prompt template.
        template_hash: the hash of the template, from ``Template.hash``.
        encoder_hash: the hash of the tokenizer and the format of titles, from ``Encoder.hash``.
        catalog_hash: the hash of the items in the training data, from ``Catalog.hash``.
        data: the name of the dataset.
        data_fingerprint: the hash of the dataset, from ``protocols.fingerprint``. Of a private run, it is
            kept in the folder ``UNSHARED``, since a hash shows whether a user was in the data.
        settings: the settings of the recommender.
        training: the training settings.
        versions: the versions of genrec and of the libraries used in training.
        targets: the number of titles that the model was trained to predict.
        finished: whether training ran to completion; False if it was stopped early.
        metrics: the metrics of the last validation and of the best one.
        parts: further hashes of datasets that this run learned from: those of the runs that it is the average
            of, that of the dataset whose users a shadow was trained on, or that of the dataset after a user
            was erased.
        format_version: the version of the folder format.
    """

    base_model: str
    base_fingerprint: str
    base_kept: str
    base_revision: str | None
    template: str
    template_hash: str
    encoder_hash: str
    catalog_hash: str
    data: str
    data_fingerprint: str
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    versions: Mapping[str, str]
    targets: int
    finished: bool
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parts: Sequence[str] = ()
    format_version: int = FORMAT_VERSION

    @property
    def asks(self) -> bool:
        """Whether the run was trained to answer yes-or-no questions instead of predicting items."""
        return bool(self.training.get("objective") == "pointwise")

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Read the ``run.json`` of a run folder; unknown fields are ignored.

        Raises:
            ModelError: the folder is not a run folder, its files cannot be read, or its
                ``run.json`` is damaged, has a different format version or lacks a required field.
        """
        path = Path(folder) / RUN
        for part in (RUN, ADAPTER, WHOLE):
            if problem := describe_unreadable(Path(folder) / part):
                raise ModelError(problem)
        if not path.is_file():
            unfinished = Path(folder) / CHECKPOINTS
            hint = (
                " Its training has not finished; continue it with `genrec train ... --resume`."
                if unfinished.is_dir()
                else ""
            )
            msg = (
                f"{str(folder)!r} is not a run folder: it has no {RUN}.{hint} Expected a folder "
                "written by `genrec train DIR --out RUN`."
            )
            raise ModelError(msg)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.get("format_version")
            if version != FORMAT_VERSION:
                msg = (
                    f"{path} has format_version {version!r}. Expected {FORMAT_VERSION}. Train again "
                    "with this version of genrec, or use the version that wrote it."
                )
                raise ModelError(msg)
            known, lacking = pick_fields(cls, values)
            if lacking:
                msg = (
                    f"{path} lacks the fields {', '.join(lacking)}. Train again with this version of genrec, "
                    "or use the version that wrote it."
                )
                raise ModelError(msg)
            aside = Path(folder) / UNSHARED / DATA
            if not known["data_fingerprint"] and aside.is_file():
                known["data_fingerprint"] = json.loads(aside.read_text(encoding="utf-8"))[
                    "fingerprint"
                ]
            return cls(**{**known, "parts": tuple(known.get("parts", ()))})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            msg = f"{path} is damaged: {error!r}. Train again, or copy the run folder again."
            raise ModelError(msg) from error

    def write(self, folder: Path) -> None:
        """Write ``run.json`` atomically; the hash of the data of a private run is written elsewhere."""
        values = {n: v for n, v in asdict(self).items() if n != "parts" or v}
        if "privacy" in self.metrics:
            values["data_fingerprint"] = ""
            text = json.dumps({"fingerprint": self.data_fingerprint}, indent=2)
            write_text(folder / UNSHARED / DATA, text + "\n")
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / RUN, text + "\n")

    def serving_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a recommender that uses this run.

        These are the settings of the run, except that its ``prior_events`` is ignored, and so are
        ``ranker`` and ``network`` if they are ``none``. These settings have no effect on training,
        and the defaults of earlier versions leave out later events and any ranker.

        Args:
            given: settings that override those of the run.
        """
        trained = {name: v for name, v in self.settings.items() if name != "prior_events"}
        for name in ("ranker", "network"):
            if trained.get(name) == "none":
                del trained[name]
        return {**trained, **given}

    def check(
        self,
        *,
        template: str | None = None,
        encoder: str | None = None,
        base: str | None = None,
        kept: str | None = None,
    ) -> None:
        """Check that the prompt, tokenizer and base model are the same as in training.

        Each argument is compared with the stored value. An argument that is None is not compared.

        Args:
            template: the hash of the prompt template.
            encoder: the hash of the encoder.
            base: the fingerprint of the base model.
            kept: the fingerprint of those weights of the base model that are never quantized.

        Raises:
            ModelError: a value differs from the stored one. The message says which value differs.
        """
        changed = [
            part
            for part, theirs, ours in (
                (f"prompt template {self.template!r}", self.template_hash, template),
                (
                    f"tokenizer for the base model {self.base_model!r} or title format",
                    self.encoder_hash,
                    encoder,
                ),
                (f"base model {self.base_model!r}", self.base_fingerprint, base),
                (f"base model {self.base_model!r}", self.base_kept, kept),
            )
            if ours is not None and theirs != ours
        ]
        if changed:
            msg = (
                f"This run was trained with a different {' and a different '.join(dict.fromkeys(changed))}, "
                "so its scores would be wrong. Use the same as in training: remove the options that "
                "change this (such as --template, --few-shot, --prompts, --case, --model), or train again."
            )
            raise ModelError(msg)


def shipped_run(name: str) -> Path | None:
    """Return the run folder shipped with a bundled dataset, or None if there is none."""
    folder = Path(__file__).parent / "data" / "samples" / name / "run"
    return folder if name.isidentifier() and (folder / RUN).is_file() else None


def is_first_process() -> bool:
    """Check whether this process is the one that should write logs and files.

    This is true for a single process, and for the process with rank 0 in distributed training.
    """
    return not int(os.environ.get("RANK", "0"))


def find_run(run: str | os.PathLike[str]) -> Path:
    """Return the folder of a run, given its path or the name of the dataset it was shipped with."""
    path = Path(run)
    return path if path.exists() else shipped_run(str(run)) or path


def run_name(run: Path) -> str:
    """Return the name under which a run is shown to users.

    This is the name of the run's folder, or the dataset's name if the run was shipped with one.
    """
    return run.parent.name if run.name == "run" else run.name


def list_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    folders = (run / CHECKPOINTS).glob("step-*")
    complete = [p for p in folders if p.name[5:].isdecimal() and (p / "state.json").is_file()]
    return sorted(complete, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the number of training steps completed before a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])
