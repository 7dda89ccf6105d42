"""Erase a user from the prior that is saved in a run folder, and find out what the run learned from.

The counts of a saved prior are counted again from the dataset without the user. What a model or the
trees of a learned ranking learned from the user's events cannot be erased; the run must be trained again.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genrec.config import END
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.erasing import erase_from_dataset
from genrec.errors import DataError, GenrecError
from genrec.files import lock_folder, map_arrays
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import count
from genrec.runs import OWN_DATA, PRIOR, RUN, Run

DATASET = "dataset.json"
RECOUNTED, REMOVED, UNCHANGED, NONE = "recounted", "removed", "unchanged", "none"


@dataclass(frozen=True, slots=True)
class ErasedRun:
    """What was erased from a run folder.

    Attributes:
        run: the folder.
        learned: True if the run was trained on the dataset as it was before, so its weights learned
            from the user.
        prior: what became of the saved prior: ``recounted`` without the user; ``removed``, since it
            cannot be counted again from this dataset; ``unchanged``, since the user is not in it; or
            ``none``.
    """

    run: Path
    learned: bool
    prior: str


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders in a folder, at any depth, sorted; itself if it is one."""
    return sorted(path.parent for path in folder.rglob(RUN)) if folder.is_dir() else []


def erase_from_run(run: Path, user_id: str, before: Dataset, data: Dataset) -> ErasedRun:
    """Erase a user from the saved prior of a run, and from a dataset that was saved in its folder.

    A run that learned from the user also gets the hash of the dataset without the user, so that it is found
    again when the next user is erased. Private runs do not, since they keep no hash that others may see.

    Args:
        run: the run folder.
        user_id: the user.
        before: the dataset as it was before.
        data: the dataset without the user.

    Raises:
        ModelError: the folder is not a run folder.
        DataError: the prior is damaged, or the user is the only one.
        SettingsError: the folder cannot be written.
    """
    trained = Run.read(run)
    if (run / OWN_DATA / DATASET).is_file():  # trained on new events, which were saved with the run
        _, before, data = erase_from_dataset(run / OWN_DATA, user_id)
    known = {trained.data_fingerprint, *trained.parts}
    learned = user_id in before.interactions.user_ids and not known.isdisjoint(
        _fingerprints(before, trained)
    )
    if learned and "privacy" not in trained.metrics:
        with lock_folder(run):
            parts = dict.fromkeys((*trained.parts, *_fingerprints(data, trained)))
            replace(trained, parts=tuple(parts)).write(run)
    path = run / PRIOR
    if not path.is_file():
        return ErasedRun(run, learned, NONE)
    with lock_folder(run):
        if trained.catalog_hash != before.catalog.hash():
            return ErasedRun(run, learned, _erase_other(path, user_id))
        try:
            prior = CollaborativePrior.load(path, before)
        except DataError:
            return ErasedRun(run, learned, _erase_other(path, user_id))
        if user_id not in prior.counts.user_ids:
            return ErasedRun(run, learned, UNCHANGED)
        learned_sources = json.loads(map_arrays(path)[1]["prior"])["learned"]
        split = None if learned_sources else _find_split(prior, before)
        if split is None:
            path.unlink()
            return ErasedRun(run, learned, REMOVED)
        prior.before = split
        target = _target_of(prior, before, split)
        prior.recount(
            replace(data, info=replace(data.info, target_behavior=target)), {}, data.catalog
        )
        prior.save(path)
    return ErasedRun(run, learned, RECOUNTED)


def _fingerprints(data: Dataset, trained: Run) -> list[str]:
    """Return the hashes of a dataset as it is, and with the split of a run's protocol."""
    found = [protocols.fingerprint(data)]
    with contextlib.suppress(GenrecError):  # the protocol may not suit this dataset
        protocol = trained.training.get("protocol") or protocols.default_protocol(data)
        found.append(protocols.fingerprint(protocols.apply_protocol(data, protocol)))
    return found


def _erase_other(path: Path, user_id: str) -> str:
    """Remove the prior of another dataset if it names the user, since it cannot be counted again."""
    arrays, _ = map_arrays(path)
    if user_id not in bytes(arrays.get("users", b"")).decode().split("\0"):
        return UNCHANGED
    path.unlink()
    return REMOVED


def _find_split(prior: CollaborativePrior, before: Dataset) -> str | None:
    """Return the first split whose events a prior does not count; None if it counts other events."""
    for split in (END, "test", "validation"):
        if _target_of(prior, before, split):
            return split
    return None


def _target_of(prior: CollaborativePrior, before: Dataset, split: str) -> str:
    """Return the behavior that a prior counts if it counts up to a split; empty if it does not."""
    behaviors = before.interactions.behaviors
    for behavior in dict.fromkeys([before.info.target_behavior, *behaviors]):
        counted = count(before, behavior, split)
        if np.array_equal(counted.popularity, prior.counts.popularity):
            return behavior
    return ""
