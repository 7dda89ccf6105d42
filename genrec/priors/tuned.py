"""Read and write what ``genrec tune`` fitted: fusion weights by data and model (tuned.json)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from genrec.data.dataset import TUNED
from genrec.errors import DataError, SettingsError
from genrec.files import write_text

WEIGHTS = {"node": 0.866, "score": 1.5}  # without a fit; see ``genrec.priors.fusion``


@dataclass(frozen=True, slots=True)
class Tuned:
    """The fit of ``genrec tune`` for a dataset folder and a model.

    Attributes:
        key: a hash of model, prompt and behavior; see ``Recommender.tuning_key``.
        model: the model's name, for people.
        fusion: the way with the higher NDCG@10 on validation users that it was not fitted to.
        weights: the prior's weight for each way of fusion.
        temperatures: the node temperature for each way of fusion.
        users: the number of users it was fitted on, from validation or held out of train.
        nats: mean -ln P(target) of ``model``, ``prior`` and their fusion by ``node``. Fusion is
            measured on each half of the users with the fit to the other half.
        ndcg: NDCG@10 of these and of fusion by ``score``, measured likewise, among the candidates
            of model and prior.
    """

    key: str
    model: str
    fusion: str
    weights: dict[str, float]
    temperatures: dict[str, float]
    users: int
    nats: dict[str, float]
    ndcg: dict[str, float]

    def save(self, path: str | Path) -> None:
        """Write the fit into a JSON file, beside those for other models."""
        path = Path(path)
        known = _entries(path) if path.is_file() else []
        kept = [e for e in known if e["key"] != self.key]
        text = json.dumps({"format_version": 1, "tuned": [*kept, asdict(self)]}, indent=2)
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | Path, key: str) -> Tuned | None:
        """Read the fit for a key; None if there is no such file or entry.

        Raises:
            DataError: the file is damaged.
        """
        path = Path(path)
        if not path.is_file():
            return None
        matching = [e for e in _entries(path) if e["key"] == key]
        return cls(**matching[0]) if matching else None


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["tuned"]
        known = {f.name for f in fields(Tuned)}
        required = {f.name for f in fields(Tuned) if f.default is MISSING}
        if all(required <= {*e} <= known and {*e["weights"]} == {*WEIGHTS} for e in entries):
            return list(entries)
        problem = "its entries lack fields or have unknown ones"
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = repr(error)
    msg = f"{path} is damaged: {problem}. Delete it and run `genrec tune` again."
    raise DataError(msg)


def load_tuned(given: str | None, folder: Path | None, key: Callable[[], str]) -> Tuned | None:
    """Read the fit for a key; the key is only made if there is a file.

    Args:
        given: the file to read; None for the one in the folder, if there is one.
        folder: the folder of the run, or of the dataset if the model is not from a run.
        key: returns the key.

    Raises:
        SettingsError: the given file is missing or has no entry for the key.
        DataError: the file is damaged.
    """
    if given is not None:
        tuned = Tuned.load(given, key())
        if tuned is None:
            msg = (
                f"tuned={given!r} does not exist, or was not written for this model, prompt and "
                "behavior. Expected a file that `genrec tune --out` wrote with the same; run it "
                "again."
            )
            raise SettingsError(msg)
        return tuned
    if folder is None or not (folder / TUNED).is_file():
        return None
    return Tuned.load(folder / TUNED, key())
