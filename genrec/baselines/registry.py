"""Fit a baseline by its name and keep it in a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy.typing as npt

from genrec import files
from genrec.baselines.base import FOLDER, VERSION, Arrays, Events, Scorer
from genrec.baselines.content import Content
from genrec.baselines.counting import Markov, Popular
from genrec.baselines.neighbors import EASE, ItemKNN, UserKNN
from genrec.data.dataset import Dataset
from genrec.errors import DataError, SettingsError
from genrec.types import Log

NAMES = (
    "popular", "markov", "itemknn", "userknn", "ease", "content", "mf", "bpr", "sasrec", "textseq",
)  # fmt: skip

SIMPLE: dict[str, type[Scorer]] = {
    "popular": Popular,
    "markov": Markov,
    "itemknn": ItemKNN,
    "userknn": UserKNN,
    "ease": EASE,
    "content": Content,
}


def classes() -> dict[str, type[Scorer]]:
    """The baselines by name; those that need torch are imported now."""
    from genrec.baselines.matrix_factorization import BPR, MF
    from genrec.baselines.sasrec import SASRec
    from genrec.baselines.text_sequence import TextSequence

    return {
        **SIMPLE,
        MF.name: MF,
        BPR.name: BPR,
        SASRec.name: SASRec,
        TextSequence.name: TextSequence,
    }


def fit(
    name: str,
    dataset: Dataset,
    *,
    before: str = "validation",
    folder: str | Path | None = None,
    seed: int = 0,
    log: Log = lambda message: None,
    **settings: Any,
) -> Scorer:
    """A fitted baseline; taken from its file where it was fitted before.

    The file is ``NAME-KEY.safetensors``, its key made of catalog, events before the split, behavior
    and settings. Where the folder cannot be written, nothing is kept.

    Args:
        name: one of ``NAMES``.
        dataset: with a split.
        before: ``validation`` learns from train only, ``test`` from train and validation.
        folder: where fitted baselines are kept; None for ``baselines`` in the dataset's own folder
            (nothing is kept where it has none).
        seed: of what is random.
        log: called with a line of text now and then in a long fit.
        **settings: see the class's ``defaults``. ``markov`` keeps repeats where the dataset's habit
            is to take items again.

    Raises:
        SettingsError: no such baseline or setting, or a package that it needs is not installed.
        DataError: a kept file is damaged.
    """
    if name not in NAMES:
        msg = f"{name!r} is not a baseline. Expected one of: {', '.join(NAMES)}."
        raise SettingsError(msg)
    kind = SIMPLE.get(name) or classes()[name]
    if name == "markov":
        settings.setdefault("keep_repeats", not dataset.info.exclude_seen)
    if "seed" in kind.defaults:
        settings.setdefault("seed", seed)
    behavior = dataset.info.target_behavior
    about = {
        "baseline": name,
        "version": VERSION,
        "catalog": dataset.catalog.hash(),
        "events": Events.of(dataset.interactions, behavior, before).digest(),
        "behavior": behavior,
        "before": before,
        "settings": kind.settings_of(settings),
    }
    text = json.dumps(about, sort_keys=True)
    if folder is None and dataset.folder is not None:
        folder = dataset.folder / FOLDER
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = None if folder is None else Path(folder) / f"{name}-{key}.safetensors"
    arrays = None if path is None else _load(path, text)
    work = None if path is None else path.with_suffix(".work")
    fitted = kind(
        dataset.interactions, behavior, before=before, arrays=arrays, work=work,
        index=dataset.folder, log=log, **settings,
    )  # fmt: skip
    fitted.lead_in_behaviors = dataset.info.lead_in_behaviors
    if path is not None and arrays is None:
        with contextlib.suppress(OSError):
            _save(path, fitted.arrays, text)
    return fitted


def _save(path: Path, arrays: Arrays, about: str) -> None:
    """Writes arrays into the folder of fitted baselines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_arrays(path, arrays, {"about": about})


def _load(path: Path, about: str) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays in a file; None where there is none or they were fitted to something else."""
    if not path.is_file():
        return None
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("about") != about:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has errors of its own
        msg = f"{path} is damaged: {error!r:.200}. Delete it; it is fitted again."
        raise DataError(msg) from error
