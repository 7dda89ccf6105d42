"""Read and write tuned.json, the fusion parameters that ``genrec tune`` fitted per model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from genrec.data.dataset import TUNED
from genrec.errors import DataError, SettingsError
from genrec.files import write_text

# defaults if nothing was fitted; see ``genrec.priors.fusion``
WEIGHTS = {"node": 0.866, "score": 1.5}


@dataclass(frozen=True, slots=True)
class Tuned:
    """The parameters fitted by ``genrec tune`` for a dataset folder and a model.

    Attributes:
        key: a hash of the model, the prompt and the behavior; see ``Recommender.tuning_key``.
        model: the model's name, for display.
        fusion: the fusion method with the higher cross-validated NDCG@10.
        weights: the prior's weight for each fusion method.
        temperatures: the node temperature for each fusion method.
        users: the number of users that the parameters were fitted on. Their targets are in the
            validation part, or were held out from the train part.
        nats: mean -ln P(target) of ``model``, ``prior`` and their fusion by ``node``. For fusion,
            each half of the users is measured with the parameters fitted on the other half.
        ndcg: NDCG@10 of the same systems and of fusion by ``score``. It is measured in the same
            way, but only among the best items of the model and of the prior.
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
        """Write the parameters to a JSON file. The file's entries for other models are kept."""
        path = Path(path)
        known = _entries(path) if path.is_file() else []
        kept = [e for e in known if e["key"] != self.key]
        text = json.dumps({"format_version": 1, "tuned": [*kept, asdict(self)]}, indent=2)
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | Path, key: str) -> Tuned | None:
        """Read the parameters for a key, or return None if there is no such file or entry.

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
    """Read the parameters for a key. The key is computed only if there is a file.

    Args:
        given: the file to read; None for the file in ``folder``, if there is one.
        folder: the folder of the run, or of the dataset if the model does not come from a run.
        key: function that returns the key.

    Raises:
        SettingsError: the given file is missing or has no entry for the key.
        DataError: the file is damaged.
    """
    if given is not None:
        tuned = Tuned.load(given, key())
        if tuned is None:
            msg = (
                f"tuned={given!r} does not exist, or was not written for this model, prompt and "
                "behavior. Expected a file written by `genrec tune --out` for the same model, prompt "
                "and behavior; run it again."
            )
            raise SettingsError(msg)
        return tuned
    if folder is None or not (folder / TUNED).is_file():
        return None
    return Tuned.load(folder / TUNED, key())
