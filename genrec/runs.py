"""Run folders: what training writes and a recommender loads. Knows files and hashes, no models.

RUN/
    run.json            base model, prompt, encoding, settings, versions, metrics; written last
    adapter/            PEFT's files (safetensors), or model/ where all weights were trained
    catalog.parquet     the items that were trained on
    trie.safetensors    their titles
    tuned.json          how much a prior counts beside the model, from ``genrec tune --run RUN``
    prior.safetensors   that prior, for those who load the run without the data
    training.yaml       the resolved settings, which ``genrec train --config`` takes
    log.jsonl           what was seen while it ran
    checkpoints/        from which ``--resume`` goes on
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from genrec.errors import ModelError
from genrec.files import write_text

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


@dataclass(frozen=True, slots=True)
class Run:
    """What ``run.json`` says.

    Attributes:
        base_model: name or folder of the model that was trained.
        base_fingerprint: of its weights (``LanguageModel.fingerprint``); empty where they were
            quantised.
        base_kept: ``LanguageModel.kept_fingerprint``.
        base_revision: a hub revision, or None.
        template: name of the prompt template.
        template_hash: ``Template.hash``.
        encoder_hash: ``Encoder.hash``: vocabulary, added tokens and title form.
        catalog_hash: ``Catalog.hash`` of the items trained on.
        data: name of the dataset.
        data_fingerprint: ``protocols.fingerprint``.
        settings: of the recommender.
        training: how it was trained.
        versions: of the libraries.
        targets: how many titles were learned from.
        finished: whether it went to its end, or stopped early.
        metrics: of the last validation, and of the best.
        format_version: of the folder.
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
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Reads a run folder's ``run.json``.

        Raises:
            ModelError: the folder is none, or of another version.
        """
        path = Path(folder) / RUN
        if not path.is_file():
            unfinished = Path(folder) / CHECKPOINTS
            hint = (
                " Its training has not come to an end: go on with `genrec train ... --resume`."
                if unfinished.is_dir()
                else ""
            )
            msg = (
                f"{str(folder)!r} is not a run folder: it has no {RUN}.{hint} Expected one that "
                "`genrec train DIR --out RUN` wrote."
            )
            raise ModelError(msg)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.get("format_version")
            if version != FORMAT_VERSION:
                msg = (
                    f"{path} has format_version {version!r}. Expected {FORMAT_VERSION}; train again "
                    "with this version of genrec, or use the version that wrote it."
                )
                raise ModelError(msg)
            absent = {f.name for f in fields(cls) if f.name not in values and _has_default(f)}
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name not in absent})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"{path} is damaged: {error!r}. Train again, or copy the run folder again."
            raise ModelError(msg) from error

    def write(self, folder: Path) -> None:
        """Writes ``run.json``, in one piece."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / RUN, text + "\n")

    def check(
        self,
        *,
        template: str | None = None,
        encoder: str | None = None,
        base: str | None = None,
        kept: str | None = None,
    ) -> None:
        """Refuses a prompt, tokenizer or base model that differs from what was trained with.

        Args:
            template: the hash of the prompt template; None is not checked, here and below.
            encoder: the hash of the encoder.
            base: the fingerprint of the base model.
            kept: that of what is not quantised.

        Raises:
            ModelError: one of them does; the message says which.
        """
        changed = [
            what
            for what, theirs, ours in (
                (f"the prompt template {self.template!r}", self.template_hash, template),
                ("the tokenizer or the form of titles", self.encoder_hash, encoder),
                (f"the base model {self.base_model!r}", self.base_fingerprint, base),
                (f"the base model {self.base_model!r}", self.base_kept, kept),
            )
            if ours is not None and theirs != ours
        ]
        if changed:
            msg = (
                f"This run was trained with another version of {', and of '.join(changed)}: its "
                "scores would be spoiled. Expected what it was trained with; put that back (drop "
                "options that change it, such as --template, --few-shot, --prompts, --case), or train again."
            )
            raise ModelError(msg)


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def shipped(name: str) -> Path | None:
    """The run folder in the package that belongs to an embedded dataset; None where there is none."""
    folder = Path(__file__).parent / "data" / "samples" / name / "run"
    return folder if name.isidentifier() and (folder / RUN).is_file() else None


def first_process() -> bool:
    """Whether this is a run's only process, or of several the one that speaks and writes."""
    return not int(os.environ.get("RANK", "0"))


def located(run: str | os.PathLike[str]) -> Path:
    """A run's folder: the path itself, or where no folder has it an embedded dataset's name."""
    path = Path(run)
    return path if path.exists() else shipped(str(run)) or path


def called(run: Path) -> str:
    """What people know a run by: its folder's name, of one in the package the dataset's."""
    return run.parent.name if run.name == "run" else run.name


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, the oldest first."""
    found = (run / CHECKPOINTS).glob("step-*")
    whole = [p for p in found if p.name[5:].isdecimal() and (p / "state.json").is_file()]
    return sorted(whole, key=step_of)


def step_of(place: Path) -> int:
    """How many steps were done at a checkpoint."""
    return int(place.name.rpartition("-")[2])
