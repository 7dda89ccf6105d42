"""Read and keep fitted fusion weights (tuned.json)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from genrec.data.dataset import TUNED
from genrec.errors import DataError, SettingsError
from genrec.files import write_text

WEIGHTS = {"node": 0.866, "score": 1.5}


@dataclass(frozen=True, slots=True)
class Tuned:
    """What ``genrec tune`` found for a dataset folder and a model.

    Attributes:
        key: of model, prompt and behavior; see ``key``.
        model: its name, for people.
        fusion: the better one by NDCG@10 on validation, crosswise.
        weights: the prior's weight by fusion.
        temperatures: the node temperature by fusion.
        users: how many users it was fitted on, of validation or held out of train.
        nats: -ln P(target) of the model alone, the prior alone and both by node, the last of each
            half of the users by what was fitted to the other half.
        ndcg: NDCG@10 of these and of both by score, likewise, within the candidates of model and
            prior.
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
        """Writes it into a JSON file, beside what was found for other models."""
        path = Path(path)
        known = _entries(path) if path.is_file() else []
        kept = [e for e in known if e["key"] != self.key]
        text = json.dumps({"format_version": 1, "tuned": [*kept, asdict(self)]}, indent=2)
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | Path, key: str) -> Tuned | None:
        """What was found for a key; None where there is no such file or entry.

        Raises:
            DataError: the file is damaged.
        """
        path = Path(path)
        if not path.is_file():
            return None
        found = [e for e in _entries(path) if e["key"] == key]
        return cls(**found[0]) if found else None


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["tuned"]
        known = {f.name for f in fields(Tuned)}
        required = {f.name for f in fields(Tuned) if f.default is MISSING}
        if all(required <= {*e} <= known and {*e["weights"]} == {*WEIGHTS} for e in entries):
            return list(entries)
        problem = "its entries have other fields"
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = repr(error)
    msg = f"{path} is damaged: {problem}. Delete it and run `genrec tune` again."
    raise DataError(msg)


def load_tuned(given: str | None, folder: Path | None, key: Callable[[], str]) -> Tuned | None:
    """What ``genrec tune`` found for a key, which is made only where there is a file.

    Args:
        given: the file; None for that of the folder, where there is one.
        folder: of the run, or of the dataset where the model is no run's.
        key: makes the key.

    Raises:
        SettingsError: the given file is not there, or knows nothing of this key.
        DataError: the file is damaged.
    """
    if given is not None:
        tuned = Tuned.load(given, key())
        if tuned is None:
            msg = (
                f"tuned={given!r} is no file, or was not written for this model, prompt and "
                "behavior. Expected one that `genrec tune --out` wrote with the same; run it again."
            )
            raise SettingsError(msg)
        return tuned
    if folder is None or not (folder / TUNED).is_file():
        return None
    return Tuned.load(folder / TUNED, key())
