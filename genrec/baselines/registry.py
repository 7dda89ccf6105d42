"""Fit the baseline with a given name, and save the fitted model to a file for later use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from genrec import files
from genrec.baselines.base import FOLDER, Scorer
from genrec.baselines.content import Content
from genrec.baselines.counting import Markov, Popular
from genrec.baselines.neighbors import EASE, ItemKNN, UserKNN
from genrec.baselines.own_items import Frequent, Recent
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.dataset import Dataset
from genrec.errors import DataError, SettingsError
from genrec.memory import check_memory as check_memory_for
from genrec.types import Log

VERSION = 1  # version of the saved arrays; increasing it makes old files unusable

NAMES = (
    "popular", "recent", "frequent", "markov", "itemknn", "userknn", "ease", "content", "mf", "bpr",
    "sasrec", "textseq", "titlesasrec",
)  # fmt: skip

SIMPLE: dict[str, type[Scorer]] = {
    "popular": Popular,
    "recent": Recent,
    "frequent": Frequent,
    "markov": Markov,
    "itemknn": ItemKNN,
    "userknn": UserKNN,
    "ease": EASE,
    "content": Content,
}


def load_classes() -> dict[str, type[Scorer]]:
    """Return the classes of all baselines, keyed by name. This imports torch."""
    from genrec.baselines.matrix_factorization import BPR, MF
    from genrec.baselines.sasrec import SASRec
    from genrec.baselines.text_sequence import TextSequence
    from genrec.baselines.title_sasrec import TitleSASRec

    return {
        **SIMPLE,
        MF.name: MF,
        BPR.name: BPR,
        SASRec.name: SASRec,
        TextSequence.name: TextSequence,
        TitleSASRec.name: TitleSASRec,
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
    """Fit a baseline to a dataset, or load it from a file if it has been fitted before.

    The file is named ``NAME-KEY.safetensors``. The key is a hash of the catalog, the events used,
    the behavior and the settings. If the file cannot be written, the baseline is not saved, and the
    log says so.

    Args:
        name: the baseline's name, which is one of ``NAMES``.
        dataset: a dataset whose events are split into train, validation and test parts.
        before: ``validation`` to use events of the train part only, ``test`` to use those of the
            train and validation parts, ``end`` to use all events.
        folder: the folder for fitted baselines; None for ``baselines`` in the dataset's folder. If
            the dataset has no folder, nothing is saved.
        seed: the random seed.
        log: function that is called with a line of text from time to time during training.
        **settings: values of settings, which override those in the class's ``defaults``. If users
            in this dataset often choose the same items again, the setting ``keep_repeats`` of
            ``markov`` defaults to True.

    Raises:
        SettingsError: the baseline or a setting is unknown, a required package is not installed, or
            fitting would need more memory than is free.
        DataError: a saved file is damaged.
    """
    kind, settings = _resolve(name, dataset, seed, settings)
    events = TrainingEvents.of(dataset.interactions, dataset.info.target_behavior, before)
    path, text = _locate(kind, dataset, events, before, folder, settings)
    arrays = None if path is None else _load(path, text)
    if path is not None and arrays is None and (problem := files.find_write_problem(path)):
        log(_describe_unsaved(name, path.parent, problem))
        path = None
    if arrays is None:
        _check_memory(kind, events, settings)
    work = None if path is None else path.with_suffix(".work")
    fitted = kind(
        dataset.interactions, events.behavior, before=before, arrays=arrays, work=work,
        index=dataset.folder, log=log, **settings,
    )  # fmt: skip
    fitted.lead_in_behaviors = dataset.info.lead_in_behaviors
    if path is not None and arrays is None:
        try:
            _save(path, fitted.arrays, text)
        except OSError as error:
            log(_describe_unsaved(name, path.parent, files.describe_error(error)))
    return fitted


def locate(
    name: str, dataset: Dataset, *, before: str = "validation", seed: int = 0, **settings: Any
) -> Path | None:
    """Return the file in which ``fit`` saves a baseline; None if it saves nothing.

    While a network is trained, its checkpoint is in the folder of the same name that ends with
    ``.work``. See ``fit`` for the arguments and errors.
    """
    kind, settings = _resolve(name, dataset, seed, settings)
    events = TrainingEvents.of(dataset.interactions, dataset.info.target_behavior, before)
    return _locate(kind, dataset, events, before, None, settings)[0]


def check_memory(
    names: Sequence[str], dataset: Dataset, *, before: str = "validation", seed: int = 0
) -> None:
    """Check that there is enough memory to fit baselines, before any of them is fitted.

    Args:
        names: the names of baselines, each of which is one of ``NAMES``.
        dataset: the dataset, as in ``fit``.
        before: as in ``fit``.
        seed: as in ``fit``.

    Raises:
        SettingsError: a baseline is unknown, or would need more memory than is free.
    """
    for name in names:
        kind, settings = _resolve(name, dataset, seed, {})
        events = TrainingEvents.of(dataset.interactions, dataset.info.target_behavior, before)
        path, _ = _locate(kind, dataset, events, before, None, settings)
        if path is None or not path.is_file():
            _check_memory(kind, events, settings)


def _check_memory(kind: type[Scorer], events: TrainingEvents, settings: Mapping[str, Any]) -> None:
    needed = kind.memory(events, kind.settings_of(settings))
    check_memory_for(
        f"The baseline {kind.name!r}, with {len(events.catalog):,} items,",
        needed,
        "Leave this baseline out, such as by naming others with --against, or use a machine with more "
        "memory.",
    )


def _resolve(
    name: str, dataset: Dataset, seed: int, settings: Mapping[str, Any]
) -> tuple[type[Scorer], dict[str, Any]]:
    """Find the class of a baseline, and add the defaults that depend on the dataset and the seed.

    Raises:
        SettingsError: the baseline is unknown, or a required package is not installed.
    """
    if name not in NAMES:
        msg = f"{name!r} is not a baseline. Expected one of: {', '.join(NAMES)}."
        raise SettingsError(msg)
    kind = SIMPLE.get(name) or load_classes()[name]
    settings = dict(settings)
    if name == "markov":
        settings.setdefault("keep_repeats", not dataset.info.exclude_seen)
    if "seed" in kind.defaults:
        settings.setdefault("seed", seed)
    return kind, settings


def _locate(
    kind: type[Scorer],
    dataset: Dataset,
    events: TrainingEvents,
    before: str,
    folder: str | Path | None,
    settings: Mapping[str, Any],
) -> tuple[Path | None, str]:
    """Find the file for a fitted baseline.

    Returns:
        The path, which is None if nothing is saved, and a JSON text that describes the data and the
        settings.
    """
    about = {
        "baseline": kind.name,
        "version": VERSION,
        "catalog": dataset.catalog.hash(),
        "events": events.digest(),
        "behavior": events.behavior,
        "before": before,
        "settings": kind.settings_of(settings),
    }
    text = json.dumps(about, sort_keys=True)
    if folder is None and dataset.folder is not None:
        folder = dataset.folder / FOLDER
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return None if folder is None else Path(folder) / f"{kind.name}-{key}.safetensors", text


def _describe_unsaved(name: str, folder: Path, problem: str) -> str:
    """Return a line of text that says why a fitted baseline is not saved."""
    return f"{folder} cannot be written ({problem}), so {name} will be fitted again next time."


def _save(path: Path, arrays: Arrays, about: str) -> None:
    """Write the arrays of a fitted baseline to a file.

    Args:
        path: the file, whose folder is created if necessary.
        arrays: the arrays, keyed by name.
        about: JSON text that describes the data and the settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_arrays(path, arrays, {"about": about})


def _load(path: Path, about: str) -> dict[str, npt.NDArray[Any]] | None:
    """Read the arrays of a fitted baseline from a file.

    Args:
        path: the file.
        about: JSON text that describes the expected data and settings.

    Returns:
        The arrays, keyed by name, or None if the file does not exist, cannot be read or has a
        different description.

    Raises:
        DataError: the file is damaged.
    """
    if files.describe_unreadable(path) or not path.is_file():
        return None
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("about") != about:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own exception types
        msg = f"{path} is damaged: {error!r:.200}. Delete it to fit the baseline again."
        raise DataError(msg) from error
