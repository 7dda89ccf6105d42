"""Fit a ranking of the prior's candidates, and reorder the prior's weights by it.

The candidates of a history are the items with the largest weights, separately among the items that
are new to the user and those that the user has seen. Within each of the two kinds, the learned
ranking divides the mass that the mixture gives to the candidates. All other items keep their
weights. The result is a distribution over all items like the mixture itself.

The ranking is fitted to the items that users of the train part chose next, described by counts of
the events before. The items that they chose in the validation part decide when to stop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.data.protocols import Case
from genrec.data.splits import hold_last_train_unit
from genrec.errors import DataError, RequestError
from genrec.priors.counts import Counts, count
from genrec.priors.mixture import POPULAR, TRENDING, Mixture
from genrec.priors.mixture_fit import without
from genrec.priors.rank_features import KINDS, SEEN, Candidates, choose, seen_rows
from genrec.priors.ranking import Groups, Ranker, fit_ranker
from genrec.priors.weights import Weights
from genrec.types import FloatArray, IntArray

CUTS = 3  # how many of each user's latest train units serve as labels
MAX_TRAIN = 10_000  # maximum number of labeled histories to fit the trees to
_LEAST_MASS = 1e-6  # a source with less mass on a kind of items knows nothing about this kind
MAX_VALIDATION = 3_000  # maximum number of labeled histories to decide when to stop


@dataclass(frozen=True, eq=False)
class CandidateRankers:
    """Rankings of the candidates of a prior.

    Attributes:
        by_kind: the fitted ranking of each kind of candidates (see ``rank_features.KINDS``).
            Candidates of other kinds keep the order of the mixture.
    """

    by_kind: Mapping[str, Ranker]

    def reweight(
        self, mixture: Mixture, history: History, read: History, lead_in: Collection[str]
    ) -> Weights:
        """Compute the weights of all items for a history, with the candidates in the new order.

        Args:
            mixture: the mixture of sources.
            history: the history, which determines what the user has seen.
            read: the part of the history that the sources should read.
            lead_in: the behaviors that do not mark an item as seen.
        """
        parts = mixture.parts(read)
        mixed = mixture.combine(parts)
        values = to_dense(mixed)
        rest = mixed.rest if mixed.base is None else mixed.base.rest
        seen = seen_rows(mixture.counts, history, lead_in)
        for kind, given in describe(mixture, read, parts, values, seen).items():
            ranker = self.by_kind.get(kind)
            if ranker is not None:
                mass = values[given.rows].sum()
                values[given.rows] = mass * ranker.shares(given.features())
        return Weights(np.maximum(values, np.finfo(float).tiny), rest=rest, sources=mixed.sources)

    def to_arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return the rankings as named arrays and a few strings, from which they can be rebuilt."""
        arrays = {
            kind: np.frombuffer(ranker.trees.encode(), dtype=np.uint8)
            for kind, ranker in self.by_kind.items()
        }
        about = {kind: [ranker.scale, ranker.nats] for kind, ranker in self.by_kind.items()}
        return arrays, {"rankers": json.dumps(about)}

    def digest(self) -> str:
        """Return a hash (SHA-256, hex) of the rankings."""
        text = json.dumps([(k, r.scale, r.trees) for k, r in sorted(self.by_kind.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
    ) -> CandidateRankers:
        """Rebuild rankings from the result of ``to_arrays``."""
        about = json.loads(metadata["rankers"])
        return cls({kind: Ranker(bytes(arrays[kind]).decode(), *about[kind]) for kind in about})


def to_dense(weights: Weights) -> FloatArray:
    """Return the weights of all items of a mixture as a new (N,) array."""
    if weights.rows is None:
        return weights.values.copy()
    assert weights.base is not None
    values = weights.base.values.copy()
    values[weights.rows] += weights.values
    return values


def describe(
    mixture: Mixture,
    history: History,
    parts: Mapping[str, Any],
    values: FloatArray,
    seen: IntArray,
) -> dict[str, Candidates]:
    """Choose the candidates of each kind for a history, and collect what describes them.

    Args:
        mixture: the mixture of sources.
        history: the history.
        parts: the distribution of each source (see ``Mixture.parts``).
        values: (N,) weight of each item.
        seen: the rows of the items that the user has seen.
    """
    counts = mixture.counts
    known = {POPULAR: counts.base.values, TRENDING: counts.trend}
    for source, part in parts.items():
        dense = part.toarray() if hasattr(part, "toarray") else part
        known[source] = np.asarray(dense).ravel()
    mixed = values / values.sum()
    of_seen = {name: float(shares[np.unique(seen)].sum()) for name, shares in known.items()}
    found = {}
    for kind, rows in choose(mixed, seen).items():
        shares = {}
        for name, each in known.items():
            mass = of_seen[name] if kind == SEEN else float(each.sum()) - of_seen[name]
            if mass > _LEAST_MASS:
                shares[name] = each[rows] / mass
        whole = mixed[rows] / mixed[rows].sum()
        found[kind] = Candidates(rows, counts, history, whole, shares)
    return found


def fit_rankers(
    dataset: Dataset,
    behavior: str,
    mix: Mapping[str, float],
    ignored: Collection[str],
    *,
    seed: int = 0,
    threads: int = 1,
    log: Callable[[str], None] = lambda message: None,
) -> CandidateRankers:
    """Fit the rankings of a prior's candidates.

    Args:
        dataset: a dataset whose events are split into train, validation and test parts.
        behavior: the behavior that the prior counts.
        mix: the share of each counted source in the mixture.
        ignored: the behaviors whose events the sources do not read.
        seed: the random seed for sampling users and fitting.
        threads: the number of threads.
        log: function that is called with a line of text before slow steps.

    Returns:
        The rankings. A kind of candidates is left out if too few users have labels of this kind.
    """
    log("Learning to rank the prior's candidates ...")
    dataset = protocols.with_validation(dataset, 1)  # in an evaluation, it may be withheld
    validation = _groups(dataset, behavior, mix, ignored, MAX_VALIDATION, seed)
    train: list[Mapping[str, Groups]] = []
    cut = dataset
    for _ in range(CUTS):
        cut = replace(cut, interactions=hold_last_train_unit(cut.interactions, behavior))
        train.append(_groups(cut, behavior, mix, ignored, MAX_TRAIN // CUTS, seed))
    rankers = {}
    for kind in KINDS:
        parts = [part[kind] for part in train if kind in part]
        if parts and kind in validation:
            ranker = fit_ranker(Groups.join(parts), validation[kind], seed=seed, threads=threads)
            if ranker is not None:
                rankers[kind] = ranker
    return CandidateRankers(rankers)


def _groups(
    dataset: Dataset,
    behavior: str,
    mix: Mapping[str, float],
    ignored: Collection[str],
    most: int,
    seed: int,
) -> dict[str, Groups]:
    """Describe what users chose in the validation part, with counts of the train part.

    Args:
        dataset: a dataset with a validation part.
        behavior: see ``fit_rankers``.
        mix: see ``fit_rankers``.
        ignored: see ``fit_rankers``.
        most: the maximum number of users.
        seed: the random seed for sampling users.
    """
    try:
        every = protocols.cases(dataset, protocols.default_protocol(dataset), "validation")
        counts = count(dataset, behavior, "validation")
    except (RequestError, DataError):  # nobody has a label, or there is nothing to count
        return {}
    cases = [case for case in every if len(case.shown)]
    if not cases:
        return {}
    mixture = Mixture(counts, mix)
    lead_in = dataset.info.lead_in_behaviors
    found: dict[str, list[Groups]] = {kind: [] for kind in KINDS}
    for case, each in _described(protocols.sample(cases, most, seed), mixture, ignored, lead_in):
        for kind, given in each.items():
            wanted = _labels(case, counts, kind)
            if wanted:
                labels = np.isin(given.rows, wanted)
                size = np.array([len(given.rows)], dtype=np.int64)
                found[kind].append(Groups(given.features(), labels, size))
    return {kind: Groups.join(groups).labeled() for kind, groups in found.items() if groups}


def _labels(case: Case, counts: Counts, kind: str) -> Sequence[int]:
    """Return the rows of the items of a kind that the user chose next."""
    pairs = zip(case.basket, case.repeats, strict=True)
    return counts.catalog.rows([item for item, repeat in pairs if repeat == (kind == SEEN)])


def _described(
    cases: Sequence[Case], mixture: Mixture, ignored: Collection[str], lead_in: Collection[str]
) -> Iterator[tuple[Case, dict[str, Candidates]]]:
    """Yield each case with the candidates of each kind."""
    for case in cases:
        history = case.history
        read = without(history, ignored)
        parts = mixture.parts(read)
        values = to_dense(mixture.combine(parts))
        yield (
            case,
            describe(mixture, read, parts, values, seen_rows(mixture.counts, history, lead_in)),
        )
