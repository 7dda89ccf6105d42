"""Rank candidates by a learned function of their features, and convert the scores to probabilities.

The function is an ensemble of decision trees, fitted by LambdaMART (Burges 2010, "From RankNet to
LambdaRank to LambdaMART: An Overview") as implemented in LightGBM (Ke et al. 2017). The trees are
stored as text. This module handles arrays and does not know what the features mean.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.errors import SettingsError
from genrec.extras import how_to_install
from genrec.types import BoolArray, FloatArray, IntArray

ENOUGH = 50  # minimum number of groups with a label, for fitting and for validation
_ROUNDS = 600  # maximum number of trees
_PATIENCE = 40  # the number of trees without an improvement after which fitting stops
_SETTINGS: dict[str, Any] = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "lambdarank_truncation_level": 20,
    "learning_rate": 0.03,
    "num_leaves": 15,
    "lambda_l2": 10,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_LEAF = 200  # minimum number of candidates in a leaf; fewer if there are few candidates
_SCALES = np.geomspace(0.05, 20, 60)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of candidates, each of which is ranked separately.

    Attributes:
        features: (C, F) features of the candidates of all groups; NaN if a feature is unknown.
        labels: (C,) True for the candidates that should be ranked first in their group.
        sizes: (G,) number of candidates in each group. The groups are stored one after another.
    """

    features: npt.NDArray[np.float32]
    labels: BoolArray
    sizes: IntArray

    @classmethod
    def join(cls, parts: Sequence[Groups]) -> Groups:
        """Concatenate the groups of several objects."""
        return cls(
            np.concatenate([p.features for p in parts]),
            np.concatenate([p.labels for p in parts]),
            np.concatenate([p.sizes for p in parts]),
        )

    def labeled(self) -> Groups:
        """Return only the groups in which some candidates, but not all of them, are labeled."""
        if not len(self.sizes):
            return self
        positive = np.add.reduceat(self.labels.astype(np.int64), self._starts)
        kept = (positive > 0) & (positive < self.sizes)
        rows = np.repeat(kept, self.sizes)
        return Groups(self.features[rows], self.labels[rows], self.sizes[kept])

    @property
    def _starts(self) -> IntArray:
        return np.append(0, np.cumsum(self.sizes)[:-1])

    def nats(self, scores: FloatArray) -> float:
        """Return the mean negative log-probability of the labeled candidates.

        The probabilities are the softmax of the scores within each group.
        """
        starts = self._starts
        shifted = scores - np.repeat(np.maximum.reduceat(scores, starts), self.sizes)
        total = np.log(np.add.reduceat(np.exp(shifted), starts))
        return float((np.repeat(total, self.sizes) - shifted)[self.labels].mean())


@dataclass(frozen=True, eq=False)
class Ranker:
    """A fitted ranking function.

    Attributes:
        trees: the decision trees, in LightGBM's text format.
        scale: the factor by which the trees' scores are multiplied before the softmax.
        nats: the mean negative log-probability of the labeled candidates in the validation groups.
    """

    trees: str
    scale: float
    nats: float

    def shares(self, features: npt.NDArray[np.float32], threads: int = 1) -> FloatArray:
        """Compute the softmax of the scores of the candidates in one group.

        Args:
            features: (C, F) features of the candidates.
            threads: the number of threads.

        Returns:
            (C,) positive probabilities, which sum to 1.
        """
        scores = self.scale * self._booster.predict(features, num_threads=threads)
        shares = np.exp(scores - scores.max())
        return np.asarray(shares / shares.sum(), dtype=np.float64)

    @cached_property
    def _booster(self) -> Any:
        return _lightgbm().Booster(model_str=self.trees)


def fit_ranker(
    train: Groups, validation: Groups, *, seed: int = 0, threads: int = 1
) -> Ranker | None:
    """Fit a ranking function to labeled groups of candidates.

    Its scores are scaled so that the labeled candidates in ``validation`` become as probable as
    possible. Groups in which no candidates or all candidates are labeled are ignored.

    Args:
        train: the groups to which the trees are fitted.
        validation: the groups on which NDCG@10 is measured to choose the number of trees.
        seed: the random seed for fitting the trees.
        threads: the number of threads.

    Returns:
        The ranking function; None if ``train`` or ``validation`` has fewer than ``ENOUGH`` usable
        groups, or if no tree improves the ranking.

    Raises:
        SettingsError: LightGBM is not installed or cannot be loaded.
    """
    train, validation = train.labeled(), validation.labeled()
    if min(len(train.sizes), len(validation.sizes)) < ENOUGH:
        return None
    lightgbm = _lightgbm()
    fitting = lightgbm.Dataset(
        train.features, train.labels.astype(np.int8), group=train.sizes, free_raw_data=True
    )
    stopping = lightgbm.Dataset(
        validation.features, validation.labels.astype(np.int8), group=validation.sizes,
        reference=fitting,
    )  # fmt: skip
    leaf = max(5, min(_LEAF, len(train.labels) // 100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        booster = lightgbm.train(
            {**_SETTINGS, "min_data_in_leaf": leaf, "seed": seed, "num_threads": threads},
            fitting,
            _ROUNDS,
            valid_sets=[stopping],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )
    trees = booster.model_to_string(num_iteration=booster.best_iteration)
    scores = booster.predict(
        validation.features, num_iteration=booster.best_iteration, num_threads=threads
    )
    if not np.ptp(scores):
        return None
    nats = [validation.nats(scale * scores) for scale in _SCALES]
    best = int(np.argmin(nats))
    return Ranker(trees, float(_SCALES[best]), nats[best])


def why_unavailable() -> str:
    """Return the reason why no ranking can be learned or used here; empty if LightGBM can be loaded.

    The reason is a sentence with advice, to show to users.
    """
    try:
        _lightgbm()
    except SettingsError as error:
        return str(error)
    return ""


def check_available() -> None:
    """Check that rankings can be learned, before the data for learning is prepared.

    Raises:
        SettingsError: LightGBM is not installed or cannot be loaded.
    """
    _lightgbm()


def _lightgbm() -> Any:
    """Import LightGBM.

    LightGBM's native library needs the OpenMP runtime (libgomp), which minimal system images lack.
    If it is missing, the copy that is shipped with PyTorch is used.

    Raises:
        SettingsError: LightGBM is not installed, or there is no OpenMP runtime.
    """
    try:
        return _import()
    except ImportError as error:
        msg = f"Learned rankings need the package lightgbm. {how_to_install('ranker')}"
        raise SettingsError(msg) from error
    except OSError as error:
        msg = (
            f"The library of the package lightgbm cannot be loaded: {error}. Expected an OpenMP "
            "runtime (libgomp); install the system package libgomp1, or set ranker='none'."
        )
        raise SettingsError(msg) from error


def _import() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except OSError:
        for path in _openmp_of_torch():
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("lightgbm")


def _openmp_of_torch() -> list[Path]:
    """Find the OpenMP runtimes that are shipped with PyTorch, without importing PyTorch."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return []
    return sorted((Path(found.origin).parent / "lib").glob("libgomp*"))
