"""Determine what a model's name refers to, before any of the model's files are read.

A name is a folder or an id on the Hugging Face hub. A name that can be neither is rejected
immediately. So is an id if the hub cannot be reached and the model is not in the local cache.
Without this check, transformers would try to reach the hub for about a minute.
"""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.errors import ModelError
from genrec.files import describe_unreadable
from genrec.models.packaged import MODELS, ensure, how_to_get
from genrec.types import Log

SECONDS = 4.0  # time within which the hub must answer
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATH = re.compile(r"^[~./\\]|[/\\].*[/\\]|\\|^[A-Za-z]:")  # names that can only be paths
_MOST = 1_000  # maximum number of characters of a message from another library


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The location from which a model is loaded.

    Attributes:
        name: the folder, or the id on the hub.
        local: whether only files on this machine may be used.
    """

    name: str
    local: bool


def find_source(
    name: str, known: Sequence[str], *, file: str = "config.json", revision: str | None = None
) -> ModelSource:
    """Determine whether a name refers to a folder or to a model on the hub.

    Args:
        name: the name as given by the user, which is not the name of a packaged model.
        known: the names of the packaged models, for suggestions.
        file: a file that the model must have.
        revision: a hub revision.

    Raises:
        ModelError: the name refers to nothing that can be loaded. The message is a sentence that
            continues "Model NAME cannot be loaded:".
    """
    folder = Path(os.path.expanduser(name))  # Path.expanduser fails for an unknown user
    if name and (problem := describe_unreadable(folder)):
        raise ModelError(problem)
    if name and folder.exists():
        _check_folder(folder, file)
        return ModelSource(str(folder), local=True)
    if not name or _PATH.search(name):
        msg = "There is no such folder."
        raise ModelError(msg)
    cached = _cached_folder(name, file, revision)
    if not _HUB_ID.fullmatch(name) and cached is None:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        msg = (
            f"There is no such folder, and genrec does not know a model of this name.{meant} Models "
            "on the Hugging Face hub have names of the form OWNER/NAME."
        )
        raise ModelError(msg)
    reason = _offline_reason()
    if not reason:
        return ModelSource(name, local=False)
    if cached is None:
        msg = (
            f"There is no such folder, {reason}, and the hub's cache on this machine does not have "
            "the model."
        )
        raise ModelError(msg)
    _check_folder(cached, file)
    return ModelSource(str(cached), local=True)


def locate_model(name: str, revision: str | None, log: Log) -> ModelSource:
    """Find the folder or hub id that the name of a language model refers to.

    A packaged model is downloaded if necessary.

    Args:
        name: the name as given by the user.
        revision: a hub revision.
        log: function that is called with a line of text before each slow step.

    Raises:
        ModelError: there is no such model, or it could not be downloaded.
    """
    if name in MODELS:
        return packaged_source(name, log)
    try:
        return find_source(name, MODELS, revision=revision)
    except ModelError as error:
        raise not_loaded(name, str(error)) from None


def not_loaded(name: str, reason: str) -> ModelError:
    """Return the error for a language model that cannot be loaded."""
    return ModelError(
        f"Model {name!r} cannot be loaded: {reason} Known models: {', '.join(MODELS)}. {how_to_get()}"
    )


def packaged_source(name: str, log: Log) -> ModelSource:
    """Return the folder of a packaged model, which is downloaded if necessary.

    Args:
        name: the model's name, which is a key of ``PACKAGED``.
        log: function that is called with a line of text before each slow step.

    Raises:
        ModelError: the model could not be downloaded, or its files cannot be read.
    """
    folder = ensure(name, log)
    if problem := describe_unreadable(folder):
        msg = f"Model {name!r} cannot be loaded: {problem}"
        raise ModelError(msg)
    return ModelSource(str(folder), local=True)


def describe_failure(error: Exception) -> str:
    """Return the message of a library's error, shortened to one line that ends in a period."""
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) > _MOST:
        text = f"{text[:_MOST].rsplit(' ', 1)[0]} ..."
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _check_folder(folder: Path, file: str) -> None:
    """Raise a ModelError if a path is not a folder with a model."""
    if not folder.is_dir():
        msg = "It is a file, not a folder."
        raise ModelError(msg)
    if (folder / file).is_file():
        if file == "config.json":
            _check_parts(folder)
        return
    if (folder / "run.json").is_file():
        msg = "The folder is a run. Pass it with --run, or load it with Recommender.load(folder)."
    elif (folder / "adapter_config.json").is_file():
        msg = (
            "The folder has an adapter, but no base model. Expected the folder of a whole model; "
            "`genrec merge` writes one from a run."
        )
    else:
        msg = f"The folder has no {file}."
    raise ModelError(msg)


def _check_parts(folder: Path) -> None:
    """Raise a ModelError if the folder of a language model has no tokenizer or no weights."""
    names = [p.name for p in folder.iterdir()]
    if not any(n.startswith(("tokenizer", "vocab", "spiece", "sentencepiece")) for n in names):
        msg = "The folder has no tokenizer, such as tokenizer.json."
        raise ModelError(msg)
    if not any(n.endswith(".safetensors") for n in names):
        pickled = any(n.endswith((".bin", ".pt", ".pth")) for n in names)
        why = " Pickled weights (*.bin) are never loaded." if pickled else ""
        msg = f"The folder has no weights in *.safetensors.{why}"
        raise ModelError(msg)


def _cached_folder(name: str, file: str, revision: str | None) -> Path | None:
    """Return a model's folder in the hub's cache on this machine; None if it is not there.

    When the hub cannot be reached, the model is loaded from this folder. Given the hub id,
    transformers would contact the hub for some files even if told to use only local files.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def _offline_reason() -> str:
    """Return the reason why the hub cannot be used, or an empty string if it can."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    reached = threading.Event()

    def probe() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
        except Exception:  # each HTTP library has its own errors; all mean that there is no answer
            return
        reached.set()

    # Looking up the host's name may take longer than any timeout of a request allows.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(SECONDS + 0.5)
    return "" if reached.is_set() else f"{constants.ENDPOINT} does not answer"


def check_loaded(name: str, model: Any, tokenizer: Any, report: dict[str, Any]) -> None:
    """Raise a ModelError if a model lacks weights, or if its tokenizer does not match the model.

    Args:
        name: the model's name, for use in the error message.
        model: the loaded model.
        tokenizer: the loaded tokenizer.
        report: the transformers loading report, which lists missing and mismatched weights.
    """
    missing = sorted(report.get("missing_keys") or [])
    mismatched = [str(m[0]) for m in report.get("mismatched_keys") or []]
    if missing or mismatched:
        some = ", ".join([*missing, *mismatched][:3])
        msg = (
            f"Model {name!r} lacks weights or has some of the wrong shape ({some}, ...; "
            f"{len(missing) + len(mismatched)} in all), so its results would be random. Expected "
            "all weights of the causal language model named in config.json; download the model "
            "again."
        )
        raise ModelError(msg)
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:
        msg = (
            f"Model {name!r} has {rows:,} token ids, but its tokenizer has {len(tokenizer):,}. "
            "Expected the model's own tokenizer; get both from the same source."
        )
        raise ModelError(msg)
