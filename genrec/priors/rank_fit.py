"""Learn to rank the prior's candidates, and reweight them according to the learned ranking.

A history has two kinds of candidates: the highest-weighted items that are new to the user, and the
highest-weighted items that the user has already seen. If a network is a feature, its first items are
candidates as well, since it finds others than the counts do. Within each kind, the learned ranking
redistributes the total weight that the mixture gives to the candidates. All other items keep their
weights, so the total weight of all items does not change.

The ranking is trained to predict the items that users chose next in the train part. The users are
divided into groups. The features of one group's users are computed from these users' earlier events
and from all train events of the other users. So there are as many events to count as there will be
later on. If test is later than train for all users, other users' later events are not known in test
either, and many items are new. So the latest tenth of the train part is held out for all users, and
then the tenth before it. Training stops when the
ranking no longer improves on the items that users chose in the validation part.
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
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.data.interactions import Interactions
from genrec.data.protocols import Case
from genrec.data.splits import hold_last_train_unit, hold_latest_train, is_test_after_train
from genrec.errors import DataError, RequestError
from genrec.priors.counts import Counts, count
from genrec.priors.mixture import POPULAR, TRENDING, Mixture
from genrec.priors.mixture_fit import without
from genrec.priors.rank_features import ADDED, FEATURES, KINDS, SEEN, Candidates, choose, seen_rows
from genrec.priors.rank_network import RankNetwork
from genrec.priors.ranking import Groups, Ranker, check_available, fit_ranker
from genrec.priors.title_neighbors import TitleNeighbors
from genrec.priors.weights import Weights
from genrec.types import BoolArray, FloatArray, IntArray

RANKERS_KEY = "rankers"  # the entry of the metadata that describes the rankings
CUTS = 3  # how many of each user's latest train units serve as labels
FOLDS = 3  # number of groups of users whose labels are held out in turn
MAX_TRAIN = 30_000  # maximum number of histories to fit the trees to
_TIMELESS = 0.2  # share of the training histories in which the times of events are hidden
_CHUNK = 256  # maximum number of histories whose sources are computed at once
_CELLS = 20_000_000  # maximum number of weights of a source that are computed at once
_LEAST_MASS = 1e-6  # a source with less mass on a kind of items knows nothing about this kind
MAX_VALIDATION = 5_000  # maximum number of histories to decide when to stop


@dataclass(frozen=True, eq=False)
class CandidateRankers:
    """Learned rankings of a prior's candidates.

    Attributes:
        by_kind: the fitted ranking for each kind of candidate (see ``rank_features.KINDS``).
            Candidates of a kind without a ranking keep their weights.
        network: the network whose scores are features; None if there is none.
        threads: the number of threads for applying a ranking.
        added: the maximum number of candidates of a kind that the network adds to the mixture's.
    """

    by_kind: Mapping[str, Ranker]
    network: RankNetwork | None = None
    threads: int = 1
    added: int = 0

    def reweight(
        self, mixture: Mixture, history: History, read: History, lead_in: Collection[str]
    ) -> Weights:
        """Compute the weights of all items for a history, and reweight the candidates.

        Args:
            mixture: the mixture of sources.
            history: the complete history, which determines which items the user has seen.
            read: the history without the events that the sources ignore.
            lead_in: the behaviors that do not mark an item as seen.
        """
        parts = mixture.parts(read)
        mixed = mixture.combine(parts)
        values = to_dense(mixed)
        rest = mixed.rest if mixed.base is None else mixed.base.rest
        seen = seen_rows(mixture.counts, history, lead_in)
        network = None if self.network is None else self.network.logprobs([read])[0]
        found = describe(mixture, read, parts, values, seen, network, added=self.added)
        for kind, given in found.items():
            ranker = self.by_kind.get(kind)
            if ranker is not None:
                mass = values[given.rows].sum()
                values[given.rows] = mass * ranker.shares(given.features(), self.threads)
        return Weights(np.maximum(values, np.finfo(float).tiny), rest=rest, sources=mixed.sources)

    def to_arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return named arrays and metadata strings from which the rankings can be rebuilt."""
        arrays = {
            kind: np.frombuffer(ranker.trees.encode(), dtype=np.uint8)
            for kind, ranker in self.by_kind.items()
        }
        about = {kind: [ranker.scale, ranker.nats] for kind, ranker in self.by_kind.items()}
        said = {"features": list(FEATURES), "kinds": about}
        described = {RANKERS_KEY: json.dumps(said | ({"added": self.added} if self.added else {}))}
        if self.network is not None:
            more, named = self.network.to_arrays()
            arrays |= more
            described |= named
        return arrays, described

    def digest(self) -> str:
        """Return a SHA-256 hash (hex) of the rankings."""
        text = json.dumps([(k, r.scale, r.trees) for k, r in sorted(self.by_kind.items())])
        digest = hashlib.sha256(text.encode())
        if self.added:
            digest.update(f"added {self.added}".encode())
        if self.network is not None:
            arrays, about = self.network.to_arrays()
            digest.update(json.dumps(about, sort_keys=True).encode())
            for name in sorted(arrays):
                digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], catalog: Catalog
    ) -> CandidateRankers:
        """Rebuild rankings from the result of ``to_arrays``.

        Args:
            arrays: the arrays.
            metadata: the metadata.
            catalog: the catalog of the prior.

        Raises:
            DataError: the rankings use other features than this version of genrec.
        """
        read = json.loads(metadata[RANKERS_KEY])
        if read.get("features") != list(FEATURES):
            msg = (
                "The saved rankings use other features than this version of genrec. Expected "
                f"{', '.join(FEATURES)}. Fit the prior and its rankings again."
            )
            raise DataError(msg)
        about = read["kinds"]
        return cls(
            {kind: Ranker(bytes(arrays[kind]).decode(), *about[kind]) for kind in about},
            RankNetwork.from_arrays(arrays, metadata, catalog),
            added=read.get("added", 0),
        )


def to_dense(weights: Weights) -> FloatArray:
    """Return a new (N,) array with the weight that a mixture gives to each catalog item."""
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
    network: FloatArray | None = None,
    *,
    timeless: bool = False,
    added: int = 0,
) -> dict[str, Candidates]:
    """Choose the candidates of each kind for a history, and collect the data for their features.

    Args:
        mixture: the mixture of sources.
        history: the history.
        parts: the distribution of each source (see ``Mixture.parts``).
        values: (N,) weight of each catalog item in the mixture.
        seen: the catalog rows of the items that the user has seen.
        network: see ``Candidates``.
        timeless: see ``Candidates``.
        added: see ``choose``.

    Returns:
        The candidates, keyed by kind.
    """
    counts = mixture.counts
    known = {POPULAR: counts.base.values, TRENDING: counts.trend}
    for source, part in parts.items():
        dense = part.toarray() if hasattr(part, "toarray") else part
        known[source] = np.asarray(dense).ravel()
    mixed = values / values.sum()
    of_seen = {name: float(shares[np.unique(seen)].sum()) for name, shares in known.items()}
    found = {}
    for kind, rows in choose(mixed, seen, network=network, added=added).items():
        shares = {}
        for name, each in known.items():
            mass = of_seen[name] if kind == SEEN else float(each.sum()) - of_seen[name]
            if mass > _LEAST_MASS:
                shares[name] = each[rows] / mass
        whole = mixed[rows] / mixed[rows].sum()
        found[kind] = Candidates(rows, counts, history, whole, shares, timeless, network)
    return found


def fit_rankers(
    dataset: Dataset,
    behavior: str,
    mix: Mapping[str, float],
    ignored: Collection[str],
    *,
    network: str = "none",
    seed: int = 0,
    threads: int = 1,
    log: Callable[[str], None] = lambda message: None,
) -> CandidateRankers:
    """Fit the rankings of a prior's candidates.

    A network that is a feature has to be trained without the labels. So it is trained twice: on the
    events before all labels of the train part, and on the whole train part, to decide when to stop.

    Args:
        dataset: a dataset whose events are split into train, validation and test parts.
        behavior: the behavior that the prior counts.
        mix: the share of each counted source in the mixture.
        ignored: the behaviors whose events the sources ignore.
        network: the network whose scores are features; see ``RankNetwork.fit``.
        seed: the random seed for sampling users and fitting.
        threads: the number of threads.
        log: function that is called with a line of text before slow steps.

    Returns:
        The rankings. There is no ranking for a kind of candidate if too few users chose an item of
        this kind next, or if training does not improve the order of the mixture.

    Raises:
        SettingsError: LightGBM is not installed or cannot be loaded.
    """
    check_available()
    log("Learning to rank the prior's candidates ...")
    dataset = protocols.with_validation(dataset, 1)  # in an evaluation, it may be withheld
    titles = TitleNeighbors(dataset.catalog)
    events = dataset.interactions
    whole = early = None
    if network != "none":
        before = replace(dataset, interactions=hold_labels(events, behavior)[-1])
        early = RankNetwork.fit(network, before, "validation", seed=seed, log=log)
        whole = RankNetwork.fit(network, dataset, "validation", seed=seed, log=log)
    inputs = _Inputs(behavior, mix, ignored, titles, seed)
    validation = _groups(dataset, inputs, MAX_VALIDATION, whole)
    train: list[Mapping[str, Groups]] = []
    folds = 1 if is_test_after_train(events) else FOLDS
    fold = np.random.default_rng(seed).integers(folds, size=len(events.user_ids))
    for number in range(folds):
        for held in hold_labels(events, behavior, None if folds == 1 else fold == number):
            cut, most = replace(dataset, interactions=held), MAX_TRAIN // (CUTS * folds)
            train.append(_groups(cut, inputs, most, early, timeless=_TIMELESS))
    rankers = {}
    for kind in KINDS:
        parts = [part[kind] for part in train if kind in part]
        if parts and kind in validation:
            ranker = fit_ranker(Groups.join(parts), validation[kind], seed=seed, threads=threads)
            if ranker is not None:
                rankers[kind] = ranker
    return CandidateRankers(rankers, whole, threads, 0 if whole is None else ADDED)


def hold_labels(
    events: Interactions, behavior: str, users: BoolArray | None = None
) -> list[Interactions]:
    """Hold out labels from the train part ``CUTS`` times, each time before those held out already.

    If test is later than train for all users, the latest tenth of the train part is held out each
    time, in which new items appear as they do in test. Otherwise, it is a unit of each user.

    Args:
        events: the events.
        behavior: the behavior of the labels.
        users: (U,) mask of the users whose units are held out; None for all users.

    Returns:
        The events with the labels as their validation part, for each cut.
    """
    cuts = []
    latest = users is None and is_test_after_train(events)
    for _ in range(CUTS):
        held = hold_latest_train(events, behavior) if latest else events
        kept, taken, _ = np.bincount(held.columns.split, minlength=3)
        if not latest or kept < taken:  # too many events have the same time
            held = hold_last_train_unit(events, behavior, users)
        cuts.append(held)
        events = held
    return cuts


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What all groups are collected with: the arguments of ``fit_rankers``, and the titles."""

    behavior: str
    mix: Mapping[str, float]
    ignored: Collection[str]
    titles: TitleNeighbors
    seed: int


def _groups(
    dataset: Dataset,
    inputs: _Inputs,
    most: int,
    network: RankNetwork | None,
    *,
    timeless: float = 0.0,
) -> dict[str, Groups]:
    """Collect the candidates of validation users, and label the items that the users chose next.

    The features are computed from the train part only. The result is keyed by kind of candidate.

    Args:
        dataset: a dataset with a validation part.
        inputs: the arguments that all groups share.
        most: the maximum number of users.
        network: a network that was not trained on the labels, or None.
        timeless: the share of users whose events' times are treated as unknown.
    """
    behavior, mix, ignored, seed = inputs.behavior, inputs.mix, inputs.ignored, inputs.seed
    try:
        every = protocols.cases(dataset, protocols.default_protocol(dataset), "validation")
        counts = count(dataset, behavior, "validation", inputs.titles)
    except (RequestError, DataError):  # nobody has a label, or there is nothing to count
        return {}
    cases = [case for case in every if len(case.shown)]
    if not cases:
        return {}
    mixture = Mixture(counts, mix)
    lead_in = dataset.info.lead_in_behaviors
    found: dict[str, list[Groups]] = {kind: [] for kind in KINDS}
    sampled = protocols.sample(cases, most, seed)
    hidden = np.random.default_rng(seed).random(len(sampled)) < timeless
    for case, each in _described(sampled, mixture, ignored, lead_in, network, hidden):
        for kind, given in each.items():
            labels = np.isin(given.rows, _labels(case, counts, kind))
            if labels.any():
                size = np.array([len(given.rows)], dtype=np.int64)
                found[kind].append(Groups(given.features(), labels, size))
    return {kind: Groups.join(groups).labeled() for kind, groups in found.items() if groups}


def _labels(case: Case, counts: Counts, kind: str) -> Sequence[int]:
    """Return the catalog rows of the items of one kind that the user chose next."""
    pairs = zip(case.basket, case.repeats, strict=True)
    return counts.catalog.rows([item for item, repeat in pairs if repeat == (kind == SEEN)])


def _described(
    cases: Sequence[Case],
    mixture: Mixture,
    ignored: Collection[str],
    lead_in: Collection[str],
    network: RankNetwork | None,
    timeless: BoolArray,
) -> Iterator[tuple[Case, dict[str, Candidates]]]:
    """Yield each case together with its candidates, which are keyed by kind."""
    size = max(1, min(_CHUNK, _CELLS // len(mixture.counts.catalog)))
    for first in range(0, len(cases), size):
        chunk = cases[first : first + size]
        reads = [without(case.history, ignored) for case in chunk]
        scores = [None] * len(reads) if network is None else network.logprobs(reads)
        hidden = timeless[first : first + size].tolist()
        parts_of = mixture.parts_of(reads)
        for case, read, parts, own, hide in zip(
            chunk, reads, parts_of, scores, hidden, strict=True
        ):
            values = to_dense(mixture.combine(parts))
            seen = seen_rows(mixture.counts, case.history, lead_in)
            yield (
                case,
                describe(mixture, read, parts, values, seen, own, timeless=hide, added=ADDED),
            )
