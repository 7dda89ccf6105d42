"""Read and write tuned.json, which holds the parameters that ``genrec tune`` fits to a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.config import FUSE, ROLES
from genrec.data.dataset import TUNED
from genrec.errors import DataError, SettingsError
from genrec.files import describe_unreadable, write_text
from genrec.runs import PRIOR

if TYPE_CHECKING:
    from genrec.priors.collaborative import CollaborativePrior

# The default weights of a prior if none were fitted; see ``genrec.priors.fusion``.
WEIGHTS = {"node": 0.866, "score": 1.5}


@dataclass(frozen=True, slots=True)
class Tuned:
    """The parameters fitted by ``genrec tune`` for a dataset folder and a model.

    Attributes:
        key: a hash of the model, the prompt and the behavior; see ``Recommender.tuning_key``.
        model: the model's name, for display.
        fusion: the fusion method with the higher cross-validated NDCG@10, ``node`` or ``score``.
        weights: the prior's weight for each fusion method.
        temperatures: the number by which the model's logits are divided, for each fusion method.
        users: the number of users to whose targets the parameters were fitted. The targets belong
            to the validation part, or were held out from the train part.
        nats: the mean of -ln P(target) for the model alone (``model``), the prior alone (``prior``),
            the prior with a fitted exponent (``power``), the role ``feature`` and the fusion (``node``). The fusion is cross-validated: each half of the users is
            measured with the parameters fitted on the other half.
        ndcg: the NDCG@10 of the model alone, the prior alone and both fusion methods, under the
            keys ``model``, ``prior``, ``node`` and ``score``. It is cross-validated in the same
            way, but only the best items of the model and of the prior are ranked.
        items: the number of items in the catalog; 0 if an earlier version wrote the file.
        role: what the model should be used for: ``fuse`` to rank items together with the prior,
            ``feature`` to rank the prior's best items again, ``explain`` if it does not improve the
            lists of the prior, or ``auto`` if there were too few users to tell.
        feature: the exponents of the prior and the model for the role ``feature``; see
            ``genrec.priors.model_feature``. It is empty if an earlier version wrote the file.
    """

    key: str
    model: str
    fusion: str
    weights: dict[str, float]
    temperatures: dict[str, float]
    users: int
    nats: dict[str, float]
    ndcg: dict[str, float]
    items: int = 0
    role: str = FUSE
    feature: dict[str, float] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the parameters to a JSON file, keeping its entries for other models."""
        path = Path(path)
        known = _entries(path) if path.is_file() else []
        kept = [e for e in known if e["key"] != self.key]
        text = json.dumps({"format_version": 1, "tuned": [*kept, asdict(self)]}, indent=2)
        write_text(path, text + "\n")

    def save_with_prior(self, run: Path, prior: CollaborativePrior) -> None:
        """Write the parameters and the prior to a run folder, so that it works without a dataset.

        The caller must hold the folder's lock.
        """
        self.save(run / TUNED)
        prior.save(run / PRIOR)

    @classmethod
    def load(cls, path: str | Path, key: str) -> Tuned | None:
        """Read the parameters that are stored under a key, or return None if there are none.

        Raises:
            DataError: the file is damaged.
        """
        path = Path(path)
        if not path.is_file():
            return None
        matching = [e for e in _entries(path) if e["key"] == key]
        return cls(**matching[0]) if matching else None


def _entries(path: Path) -> list[dict[str, Any]]:
    if problem := describe_unreadable(path):
        raise DataError(problem)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["tuned"]
        known = {f.name for f in fields(Tuned)}
        required = {
            f.name for f in fields(Tuned) if f.default is MISSING and f.default_factory is MISSING
        }
        fitting = {e.get("role", FUSE) for e in entries} <= {*ROLES}
        fitting &= all({*e.get("feature", ())} in ({"prior", "model"}, set()) for e in entries)
        if fitting and all(
            required <= {*e} <= known and {*e["weights"]} == {*WEIGHTS} for e in entries
        ):
            return list(entries)
        problem = "its entries lack fields or have unknown ones"
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = repr(error)
    msg = f"{path} is damaged: {problem}. Delete it and run `genrec tune` again."
    raise DataError(msg)


def load_tuned(given: str | None, folder: Path | None, key: Callable[[], str]) -> Tuned | None:
    """Read the parameters for a model from a given file or from a folder.

    Args:
        given: the file to read; None to read the file in ``folder`` if there is one.
        folder: the run folder from which the model was loaded, or otherwise the dataset's folder.
        key: function that returns the key under which the parameters are stored. It is called only
            if there is a file.

    Returns:
        The parameters, or None if ``given`` is None and there are no parameters in the folder.

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
