"""Fit the shares of a mixture's sources, and find behaviors whose events should be ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from genrec.config import CONTEXT, FURTHER, KNOWLEDGE, VECTORS
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.errors import RequestError
from genrec.priors.counts import OWN
from genrec.priors.mixture import POPULAR, TRENDING, Mixture
from genrec.types import BoolArray, FloatArray, IntArray

MAX_USERS = 1000  # maximum number of validation users to whose targets the shares are fitted
ENOUGH = 50  # minimum number of these users; with fewer, the default shares are used
LEAST_POPULAR = 0.01  # minimum share of popularity, and of a source that was asked for by name
# These are roughly the means of the shares fitted on five datasets (benchmarks/LOG.md), but with a
# larger share of popularity.
DEFAULT_MIX = {
    POPULAR: 0.25, TRENDING: 0.07, "markov": 0.12, "followed": 0.08, "itemknn": 0.05,
    "nearest": 0.15, "latest": 0.07, "ease": 0.08, "titles": 0.04, "own": 0.1, "recent": 0.1,
}  # fmt: skip
_NEGLIGIBLE = 0.002  # sources with a smaller share are dropped, since every source costs time
_CELLS = 20_000_000  # maximum number of weights of a source that are computed at once
_STEPS = 400  # number of steps of expectation-maximization
_RARE = 0.01  # behaviors with a smaller fraction of all events are never ignored
_STANDARD_ERRORS = (
    2.0  # minimum gain from ignoring a behavior or from the context, in standard errors
)


def declared(dataset: Dataset) -> list[str]:
    """Return the further sources for which a dataset has what they need."""
    given = {
        CONTEXT: dataset.info.context, KNOWLEDGE: dataset.info.knowledge,
        VECTORS: dataset.item_vectors is not None,
    }  # fmt: skip
    return [name for name, has in given.items() if has]


def fit_on_validation(
    mixture: Mixture, dataset: Dataset, sources: Sequence[str], seed: int, asked: Sequence[str] = ()
) -> tuple[dict[str, float], frozenset[str]]:
    """Fit the shares of sources to the validation part, and find the behaviors to ignore.

    A target is the item that a user chose next in the validation part. If there are fewer than
    ``ENOUGH`` targets, or if fewer than ``ENOUGH / 2`` of them have a history, the default shares
    are used.

    Args:
        mixture: a mixture whose counts come from the train part.
        dataset: a dataset with a validation part.
        sources: the sources to mix.
        seed: the random seed for sampling validation users.
        asked: the sources that were named. Of these, ``knowledge`` and ``vectors`` get a small share at
            least, since they are what gives weight to items without events, of which validation may
            have none.

    Returns:
        The share of each source, and the behaviors to ignore in histories. Any other source in
        ``FURTHER`` has no share unless it makes the targets significantly more likely.
    """
    try:
        every = protocols.cases(dataset, protocols.default_protocol(dataset), "validation")
    except RequestError:
        every = []
    with_history = sum(len(case.shown) > 0 for case in every)
    if len(every) < ENOUGH or 2 * with_history < ENOUGH:
        return _with_least(_default_mix(dataset, sources), asked), frozenset()
    cases = protocols.sample(every, MAX_USERS, seed)
    histories, targets = [c.history for c in cases], [c.target for c in cases]
    behavior = dataset.info.target_behavior
    ignored = _behaviors_to_ignore(mixture, histories, targets, sources, behavior)
    read = [without(h, ignored) for h in histories]
    mix, nats = fit_shares(mixture, read, targets, sources)
    used = [*sources]
    for name in FURTHER:
        if name in used and not (name in asked and name != CONTEXT):
            others = [other for other in used if other != name]
            plain, before = fit_shares(mixture, read, targets, others)
            if not _is_gain(before - nats):
                used, nats, mix = others, before, {**plain, name: 0.0}
    return _with_least(dict.fromkeys(sources, 0.0) | mix, asked), ignored


def _with_least(mix: dict[str, float], asked: Sequence[str]) -> dict[str, float]:
    """Give the sources ``knowledge`` and ``vectors`` a small share at least if they were named."""
    raised = {n: max(mix[n], LEAST_POPULAR) for n in (KNOWLEDGE, VECTORS) if n in asked}
    rest = 1 - sum(mix[name] for name in raised)
    scale = (1 - sum(raised.values())) / rest if any(raised[n] > mix[n] for n in raised) else 1.0
    return {name: raised.get(name, share * scale) for name, share in mix.items()}


def fit_shares(
    mixture: Mixture,
    histories: Sequence[History],
    targets: Sequence[str],
    sources: Sequence[str],
) -> tuple[dict[str, float], FloatArray]:
    """Find the shares of sources that maximize the likelihood of given targets.

    Args:
        mixture: the mixture that provides the distributions of the sources. Its current shares are
            not used.
        histories: the H histories.
        targets: the id of the item that followed each history.
        sources: the sources to mix.

    Returns:
        The share of each source, and the (H,) negative natural logarithms of the targets'
        probabilities. The latter are computed before sources with negligible shares are dropped.
    """
    rows = np.array(mixture.counts.catalog.rows(targets), dtype=np.int64)
    popular = mixture.counts.base.values[rows]
    columns = {POPULAR: popular}
    for source in sources:
        if source == TRENDING:
            if len(mixture.counts.newest):
                columns[source] = mixture.counts.trend[rows]
        elif source != POPULAR:
            of_target, silent = _shares_of_targets(mixture, source, histories, rows)
            if not silent.all():
                columns[source] = np.where(silent, popular, of_target)
    likelihoods = np.stack([*columns.values()], axis=1)
    fitted = _maximize_likelihood(likelihoods)
    nats = -np.log(likelihoods @ fitted)
    fitted = np.where(fitted < _NEGLIGIBLE, 0.0, fitted)
    by_source = dict(zip(columns, (fitted / fitted.sum()).tolist(), strict=True))
    mix = {name: by_source.get(name, 0.0) * (1 - LEAST_POPULAR) for name in sources}
    return {**mix, POPULAR: mix[POPULAR] + LEAST_POPULAR}, nats


def _shares_of_targets(
    mixture: Mixture, source: str, histories: Sequence[History], rows: IntArray
) -> tuple[FloatArray, BoolArray]:
    """Look up a source's share of each target.

    In a large catalog, few histories are handled at a time, because some sources weight every item.

    Args:
        mixture: the mixture that provides the distribution of the source.
        source: the source.
        histories: the H histories.
        rows: (H,) catalog row of the target of each history.

    Returns:
        (H,) shares, and an (H,) array that is True if the source knows nothing about a history.
    """
    size = max(1, _CELLS // len(mixture.counts.catalog))
    found, silent = [], []
    for first in range(0, len(histories), size):
        shares = mixture.shares(source, histories[first : first + size])
        some = rows[first : first + size]
        found.append(np.asarray(shares[np.arange(len(some)), some]).ravel())
        silent.append(np.asarray(shares.sum(axis=1)).ravel() == 0)
    return np.concatenate(found), np.concatenate(silent)


def without(history: History, behaviors: Collection[str]) -> History:
    """Return a copy of a history without the events that have one of the given behaviors."""
    if not behaviors:
        return history
    return history.with_events([i for i in history.interactions if i.behavior not in behaviors])


def _is_gain(gain: FloatArray) -> bool:
    """Check whether the (U,) gains of users are significantly above 0 on average."""
    return bool(gain.mean() > _STANDARD_ERRORS * gain.std() / np.sqrt(len(gain)))


def _default_mix(dataset: Dataset, sources: Sequence[str]) -> dict[str, float]:
    """Return the default share of each source.

    The sources that favor a user's own items get no share if users of this dataset rarely choose
    the same item again.
    """
    repeats = not dataset.info.exclude_seen or bool(dataset.info.lead_in_behaviors)
    usual = {n: w for n, w in DEFAULT_MIX.items() if n in sources and (repeats or n not in OWN)}
    return {**dict.fromkeys(sources, 0.0), **usual, POPULAR: DEFAULT_MIX[POPULAR]}


def _behaviors_to_ignore(
    mixture: Mixture,
    histories: Sequence[History],
    targets: Sequence[str],
    sources: Sequence[str],
    target_behavior: str,
) -> frozenset[str]:
    """Find the behaviors whose events should be ignored in histories.

    A behavior is ignored if the targets become significantly more likely without its events. Each
    behavior is tried once, starting with the most frequent one. Once a behavior is ignored, it is
    also left out when the next behaviors are tried.

    Args:
        mixture: the mixture that provides the distributions of the sources.
        histories: the histories.
        targets: the id of the item that followed each history.
        sources: the sources to mix.
        target_behavior: the behavior to predict, which is never ignored.
    """
    kinds = Counter(i.behavior for h in histories for i in h.interactions)
    frequent = [b for b, n in kinds.most_common() if n >= _RARE * kinds.total()]
    ignored: frozenset[str] = frozenset()
    nats = None
    for behavior in frequent:
        if behavior == target_behavior:
            continue
        if nats is None:
            _, nats = fit_shares(mixture, histories, targets, sources)
        trial = ignored | {behavior}
        _, other = fit_shares(mixture, [without(h, trial) for h in histories], targets, sources)
        gain = nats - other
        if _is_gain(gain):
            ignored, nats = trial, other
    return ignored


def _maximize_likelihood(likelihoods: FloatArray) -> FloatArray:
    """Find the weights of M distributions whose mixture makes U targets most likely.

    The weights maximize the mean of log(likelihoods @ weights). This function is concave, so
    expectation-maximization (Dempster et al. 1977) reaches its global maximum.

    Args:
        likelihoods: (U, M) probability of each target under each distribution.

    Returns:
        (M,) weights, which sum to 1.
    """
    weights = np.full(likelihoods.shape[1], 1.0 / likelihoods.shape[1])
    for _ in range(_STEPS):
        joint = likelihoods * weights
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights
