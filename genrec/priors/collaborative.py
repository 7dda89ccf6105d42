"""CollaborativePrior: what people who took this take next, as a weight for every item.

A weight is a mixture of distributions over items, each made from what was counted of the users' events:

popular   how often anybody takes an item, which gives every item some weight
trending  the same of the latest tenth of all events
markov    what came right after the latest items; ``followed``: after any
itemknn   what the same users have, by the cosine; ``nearest``: by its third power, so that the
          nearest count most; ``latest``: by its square, of the latest items
ease      the linear model that fits who has what best (Steck 2019, https://arxiv.org/abs/1905.03375),
          of each item the 50 strongest weights above 0
titles    whose titles read like those of the latest items, so that new ones are found, too
own       what this user has, often; ``recent``: and soon

Fitted baselines (SASRec, ...) may be mixed in. The mixing weights are those under which the validation
targets are most likely, or, where there are few of them, some of train. Events of a behavior without
which they are likelier, such as dislikes, are not read. Knows rows and titles, nothing of tokens or models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.baselines.base import Scorer, best, sparse_from_arrays, sparse_to_arrays, without_seen
from genrec.baselines.registry import classes, fit
from genrec.config import COUNTED as COUNTED
from genrec.config import LEARNED as LEARNED
from genrec.data import protocols
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.errors import DataError, RequestError, SettingsError
from genrec.files import map_arrays, write_arrays
from genrec.priors.counts import OWN, Counts, count
from genrec.priors.weights import Weights
from genrec.types import FloatArray

POPULAR, TRENDING = "popular", "trending"
USERS = 1000  # of validation, at most, that mixing weights are fitted on
ENOUGH = 50  # of them; with fewer, the mixing weights are the defaults
LEAST = 0.01  # of the mixture is popularity's
_LITTLE = 0.002  # a source that counts for less is left out, since each takes time
FORMAT_VERSION = 2
# About the mean of what was fitted on five sets (benchmarks/LOG.md), with more for popularity.
_DEFAULT_MIX = {
    POPULAR: 0.25, TRENDING: 0.07, "markov": 0.12, "followed": 0.08, "itemknn": 0.05,
    "nearest": 0.15, "latest": 0.07, "ease": 0.08, "titles": 0.04, "own": 0.1, "recent": 0.1,
}  # fmt: skip
_SOFTMAX = {"sasrec": 1.0, "textseq": 1.0, "content": 20.0}  # what scores are multiplied by
_ROUNDS = 400  # of expectation and maximisation
_SELDOM = 0.01  # of the events: behaviors of fewer are read
_SURE = 2.0  # standard errors by which targets are likelier without a behavior


@dataclass(frozen=True, eq=False)
class _State:
    """What a prior knows, in one object: an update puts another in its place."""

    counts: Counts
    mix: Mapping[str, float]
    scorers: Mapping[str, Scorer] = field(default_factory=dict)

    def base(self, popular: float) -> Weights:
        """Popular items, which count for so much, and trending ones: one object for one number."""
        trending = self.mix.get(TRENDING, 0.0)
        if not trending:
            return self.counts.base
        found = self._bases.get(popular)
        if found is None:
            base, total = self.counts.base, popular + trending
            values = (popular * base.values + trending * self.counts.trend) / total
            made = Weights(values, rest=popular * base.rest / total)
            found = self._bases.setdefault(popular, made)
        return found

    @cached_property
    def _bases(self) -> dict[float, Weights]:
        return {}

    def shares(self, name: str, histories: Sequence[History]) -> Any:
        """(H, N) sparse or dense: see ``Counts.shares``."""
        if name not in self.scorers:
            return self.counts.shares(name, histories)
        scores = self.scorers[name].scores_many(histories)
        more = len(self.counts.catalog) - scores.shape[1]  # items that came later
        scores = np.pad(scores, ((0, 0), (0, more)), constant_values=-np.inf)
        scale = _SOFTMAX.get(name)
        if scale is None:
            found = np.maximum(scores, 0.0)
        else:
            found = np.exp(scale * (scores - scores.max(axis=1, keepdims=True)))
        found[[not h.item_ids for h in histories]] = 0.0
        total = found.sum(axis=1, keepdims=True)
        return np.divide(found, total, out=np.zeros_like(found), where=total > 0)


class CollaborativePrior:
    """Weights of items for a history, from other users' events; see the module.

    Attributes:
        name: in tables.
        leads: behaviors of which an item does not count as seen, see ``DatasetInfo.lead_in_behaviors``.
        unread: behaviors of which events are passed over.
    """

    name = "prior"
    lead_in_behaviors: Collection[str] = frozenset()
    unread: Collection[str] = frozenset()

    def __init__(
        self,
        counts: Counts,
        mix: Mapping[str, float],
        scorers: Mapping[str, Scorer] | None = None,
    ) -> None:
        """Wraps what was counted; ``fit`` makes one from a dataset.

        Args:
            counts: of events.
            mix: how much each source counts, above 0 for ``popular``; only ratios count.
            scorers: fitted baselines among the sources, by name.

        Raises:
            SettingsError: a source is not known, or a weight cannot be used.
        """
        scorers = scorers or {}
        for name in mix:
            if name not in COUNTED and name not in scorers:
                known = ", ".join([*COUNTED, *LEARNED])
                msg = f"{name!r} is no source of a prior. Expected some of: {known}."
                raise SettingsError(msg)
        values = np.array(list(mix.values()), dtype=np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all() and mix.get(POPULAR, 0) > 0):
            msg = (
                f"mix={dict(mix)}. Expected numbers of 0 or more, and more than 0 for "
                f"{POPULAR!r}, so that no item has a weight of 0."
            )
            raise SettingsError(msg)
        shares = {name: float(w / values.sum()) for name, w in zip(mix, values, strict=True)}
        self._state = _State(counts, shares, scorers)

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        *,
        behavior: str | None = None,
        before: str = "validation",
        sources: Sequence[str] = COUNTED,
        mix: Mapping[str, float] | None = None,
        seed: int = 0,
        log: Callable[[str], None] = lambda message: None,
    ) -> CollaborativePrior:
        """Counts the events before a split.

        The mixing weights are fitted on validation targets, with what was counted in train only; where
        these are fewer than ``ENOUGH``, on some held out of train (``protocols.with_validation``), with
        what was counted before them; where these are too few, too, they are defaults.

        Args:
            dataset: with a split.
            behavior: whose events are counted; None for the dataset's target behavior.
            before: ``validation`` for train only, ``test`` for train and validation.
            sources: what is mixed: some of ``COUNTED`` and ``LEARNED``; those learned are fitted
                baselines, kept in the dataset's folder.
            mix: their weights; None fits them.
            seed: of the sample of validation users, and of what is random in a baseline.
            log: called with a line of text while a baseline is fitted.

        Raises:
            SettingsError: a source is not known.
            DataError: the behavior is not in the data.
        """
        behavior = behavior or dataset.info.target_behavior
        if behavior != dataset.info.target_behavior:
            info = dataset.info.with_target(behavior, dataset.interactions)
            dataset = replace(dataset, info=info)
        names = tuple(dict.fromkeys([POPULAR, *(sources if mix is None else mix)]))

        def made(
            counts: Counts, mix: Mapping[str, float], scorers: Mapping[str, Scorer]
        ) -> CollaborativePrior:
            prior = cls(counts, mix, scorers)
            prior.lead_in_behaviors, prior.unread = dataset.info.lead_in_behaviors, unread
            return prior

        def counted(data: Dataset, before: str, mix: Mapping[str, float]) -> CollaborativePrior:
            scorers = {
                name: fit(name, data, before=before, seed=seed, log=log)
                for name in names
                if name in LEARNED
            }
            return made(count(data, behavior, before), mix, scorers)

        unread: Collection[str] = frozenset()
        if mix is not None:
            return counted(dataset, before, mix)
        fitting = protocols.with_validation(dataset, ENOUGH)
        first = counted(fitting, "validation", dict.fromkeys(names, 1.0))
        fitted, unread = first.mixed_for(fitting, names, seed)
        if before == "validation" and fitting is dataset:
            return made(first._state.counts, fitted, first._state.scorers)
        return counted(dataset, before, fitted)

    def mixed_for(
        self, dataset: Dataset, names: Sequence[str], seed: int
    ) -> tuple[dict[str, float], frozenset[str]]:
        """The weights of sources under which the validation targets are most likely, and ``unread``."""
        try:
            every = protocols.cases(dataset, protocols.default_protocol(dataset), "validation")
        except RequestError:
            every = []
        told = sum(len(case.shown) > 0 for case in every)
        if len(every) < ENOUGH or 2 * told < ENOUGH:
            seen = not dataset.info.exclude_seen or bool(dataset.info.lead_in_behaviors)
            mix = {n: w for n, w in _DEFAULT_MIX.items() if n in names and (seen or n not in OWN)}
            mix = {**dict.fromkeys(names, 0.0), **mix, POPULAR: _DEFAULT_MIX[POPULAR]}
            return mix, frozenset()
        cases = protocols.sample(every, USERS, seed)
        histories, targets = [c.history for c in cases], [c.target for c in cases]
        unread = self._better_unread(histories, targets, names, dataset.info.target_behavior)
        return self.mixed([_read(h, unread) for h in histories], targets, names), unread

    def _better_unread(
        self,
        histories: Sequence[History],
        targets: Sequence[str],
        names: Sequence[str],
        behavior: str,
    ) -> frozenset[str]:
        """Behaviors without which targets are likelier, beyond chance; the most frequent first.

        Each is asked for once, without those found before it.
        """
        kinds = Counter(i.behavior for h in histories for i in h.interactions)
        others = [b for b, n in kinds.most_common() if n >= _SELDOM * kinds.total()]
        unread: frozenset[str] = frozenset()
        loss = None
        for kind in others:
            if kind == behavior:
                continue
            if loss is None:
                loss = self._fitted(histories, targets, names)[1]
            without = unread | {kind}
            other = self._fitted([_read(h, without) for h in histories], targets, names)[1]
            gain = loss - other
            if gain.mean() > _SURE * gain.std() / np.sqrt(len(gain)):
                unread, loss = without, other
        return unread

    def mixed(
        self, histories: Sequence[History], targets: Sequence[str], names: Sequence[str]
    ) -> dict[str, float]:
        """The weights of sources under which targets are most likely after histories."""
        return self._fitted(histories, targets, names)[0]

    def _fitted(
        self, histories: Sequence[History], targets: Sequence[str], names: Sequence[str]
    ) -> tuple[dict[str, float], FloatArray]:
        """The weights, and (H,) -ln P of each target under them."""
        state = self._state
        rows = np.array(state.counts.catalog.rows(targets), dtype=np.int64)
        user = np.arange(len(rows))
        popular = state.counts.base.values[rows]
        columns = {POPULAR: popular}
        for name in names:
            if name == TRENDING:
                if len(state.counts.newest):
                    columns[name] = state.counts.trend[rows]
            elif name != POPULAR:
                found = state.shares(name, histories)
                silent = np.asarray(found.sum(axis=1)).ravel() == 0
                if not silent.all():
                    said = np.asarray(found[user, rows]).ravel()
                    columns[name] = np.where(silent, popular, said)
        each = np.stack([*columns.values()], axis=1)
        shares = _likeliest(each)
        loss = -np.log(each @ shares)
        shares = np.where(shares < _LITTLE, 0.0, shares)
        weights = dict(zip(columns, (shares / shares.sum()).tolist(), strict=True))
        mix = {n: weights.get(n, 0.0) * (1 - LEAST) for n in names}
        return {**mix, POPULAR: mix[POPULAR] + LEAST}, loss

    @property
    def mix(self) -> dict[str, float]:
        """How much each source counts; together 1."""
        return dict(self._state.mix)

    @property
    def counts(self) -> Counts:
        """What was counted."""
        return self._state.counts

    def weights(self, history: History) -> Weights:
        """See ``genrec.priors.ItemPrior``.

        A source that has nothing to say to a history leaves its share to popularity; for an empty
        one all but ``trending`` do. Items of the history that are not known are passed over.
        """
        state = self._state
        known = state.counts.catalog
        read = _read(history, self.unread)
        events = tuple(i for i in read.interactions if i.item_id in known)
        histories = [History(events, history.user_id)]
        popular = state.mix[POPULAR]
        found, spoke = [], [n for n in (POPULAR, TRENDING) if state.mix.get(n)]
        for name, share in state.mix.items():
            if name in {POPULAR, TRENDING} or share == 0:
                continue
            part = state.shares(name, histories)
            if part.sum() > 0:
                found.append(share * part)
                spoke.append(name)
            else:
                popular += share
        base, rest = state.base(popular), popular + state.mix.get(TRENDING, 0.0)
        if not found:
            return replace(base, spoke=tuple(spoke))
        total = sum(found[1:], start=found[0])
        if isinstance(total, np.ndarray) or hasattr(total, "A1"):
            values = np.asarray(total).ravel() / rest + base.values
            return Weights(values, rest=base.rest, spoke=tuple(spoke))
        row = total.tocsr()
        some = row.data > 0
        return Weights(
            row.data[some] / rest, row.indices[some].astype(np.int64), base=base, spoke=tuple(spoke)
        )

    def logprobs(self, history: History) -> FloatArray:
        """(N,) log P of every item by the prior alone, by catalog row."""
        weights = self.weights(history)
        values = (weights.base or weights).values.copy()
        if weights.rows is not None:
            values[weights.rows] += weights.values
        return np.asarray(np.log(values / values.sum()))

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """See ``genrec.baselines.Baseline.rank``: so the prior can be evaluated alone."""
        catalog, scores = self.counts.catalog, self.logprobs(history)
        if exclude_seen:
            scores = without_seen(catalog, history, scores, self.lead_in_behaviors)
        return [catalog[row].item_id for row in best(scores, k).tolist()]

    def update(
        self, events: Mapping[str, Sequence[Interaction | str]], catalog: Catalog | None = None
    ) -> None:
        """Counts further events, as if they had been there from the beginning.

        The mixing weights and fitted baselines among the sources stay as they are; EASE's weights
        are made anew by the next request (see ``Counts.ease``). Requests that run go on with what
        was there.

        Args:
            events: user_id -> the user's new events or item ids, oldest first, later than those
                that were counted. All are taken to be of the behavior that is counted. What is
                trending goes by their times, or by the given order where one has none.
            catalog: one that has the new items too; None where there are none.

        Raises:
            RequestError: an item is not in the catalog, or the catalog is another.
        """
        kind: object = events  # checked for callers without a type checker
        if not isinstance(kind, Mapping) or any(isinstance(e, str) for e in events.values()):
            msg = (
                f"events is {type(events).__name__}. Expected a mapping from user_id to a list of "
                "item ids or Interactions."
            )
            raise RequestError(msg)
        counts = self._state.counts.over(catalog or self._state.counts.catalog)
        rows = [counts.catalog.rows(_ids(e)) for e in events.values()]
        names = [name for name, r in zip(events, rows, strict=True) if r]
        rows = [r for r in rows if r]
        user = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        row = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
        times = list(chain.from_iterable(map(_times, events.values())))
        when = None if None in times else np.array(times, dtype=np.float64)
        self._state = replace(self._state, counts=counts.more(names, user, row, when))

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file."""
        state, counts = self._state, self._state.counts
        arrays: dict[str, npt.NDArray[Any]] = {
            "popularity": counts.popularity,
            "newest": counts.newest,
            "latest": counts.latest,
            "users": np.frombuffer("\0".join(counts.user_ids).encode(), dtype=np.uint8),
            **sparse_to_arrays("items", counts.items),
            **sparse_to_arrays("after", counts.after),
            **sparse_to_arrays("both", counts.both),
        }
        if state.mix.get("ease"):
            arrays |= sparse_to_arrays("ease", counts.ease)
        learned = {}
        for name, scorer in state.scorers.items():
            arrays |= {f"{name}/{key}": array for key, array in scorer.arrays.items()}
            learned[name] = {"behavior": scorer.behavior, "settings": scorer.settings}
        about = {
            "format_version": FORMAT_VERSION,
            "catalog": counts.catalog.hash(),
            "mix": dict(state.mix),
            "learned": learned,
            "unread": sorted(self.unread),
        }
        write_arrays(Path(path), arrays, {"prior": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path, data: Dataset | Catalog) -> CollaborativePrior:
        """A prior that ``save`` wrote.

        Args:
            path: of the file.
            data: the catalog that it was saved with; a dataset where baselines are among the
                sources.

        Raises:
            DataError: it is no such file, or of another catalog.
        """
        arrays, header = map_arrays(Path(path))
        catalog = data if isinstance(data, Catalog) else data.catalog
        try:
            about = json.loads(header["prior"])
            version, learned = about["format_version"], about["learned"]
        except (KeyError, ValueError, TypeError) as error:
            msg = f"{path} is not a saved prior ({error!r}). Expected a file that `save` wrote."
            raise DataError(msg) from error
        if version != FORMAT_VERSION or about["catalog"] != catalog.hash():
            msg = (
                f"{path} was saved with format {version} for another catalog than this one of "
                f"{len(catalog):,} items, or by another version. Expected the same; fit it again."
            )
            raise DataError(msg)
        if learned and isinstance(data, Catalog):
            msg = (
                f"{path} mixes in {', '.join(learned)}, which need the dataset. Expected a Dataset "
                "in place of the catalog."
            )
            raise DataError(msg)
        n = len(catalog)
        users = bytes(arrays["users"]).decode()
        counts = Counts(
            catalog,
            tuple(users.split("\0")) if len(arrays["latest"]) else (),
            np.array(arrays["latest"]),
            sparse_from_arrays("items", arrays, n),
            sparse_from_arrays("after", arrays, n),
            sparse_from_arrays("both", arrays, n),
            np.array(arrays["popularity"]),
            np.array(arrays["newest"]),
        )
        if "ease.data" in arrays:
            counts.__dict__["ease"] = sparse_from_arrays("ease", arrays, n)  # made once
        scorers = {}
        for name, said in learned.items():
            assert isinstance(data, Dataset)
            own = {k.removeprefix(f"{name}/"): a for k, a in arrays.items() if "/" in k}
            scorers[name] = classes()[name](
                data.interactions, said["behavior"], arrays=own, **said["settings"]
            )
        prior = cls(counts, about["mix"], scorers)
        prior.unread = frozenset(about.get("unread", ()))
        if isinstance(data, Dataset):
            prior.lead_in_behaviors = data.info.lead_in_behaviors
        return prior


def _read(history: History, unread: Collection[str]) -> History:
    """A history without the events of some behaviors."""
    if not unread:
        return history
    kept = tuple(i for i in history.interactions if i.behavior not in unread)
    return History(kept, history.user_id)


def _ids(events: Sequence[Interaction | str]) -> list[str]:
    found = [e.item_id if isinstance(e, Interaction) else e for e in events]
    return [item for item in found if item is not None]


def _times(events: Sequence[Interaction | str]) -> list[float | None]:
    """When the items of events were taken; None for what has no time."""
    found: list[float | None] = []
    for event in events:
        if isinstance(event, str):
            found.append(None)
        elif event.item_id is not None:
            when: float | None = event.timestamp  # callers without a type checker give None
            found.append(None if when is None or not np.isfinite(when) else when)
    return found


def _likeliest(columns: FloatArray) -> FloatArray:
    """(M,) mixing weights that maximise the mean log of (U, M) @ weights.

    By expectation and maximisation (Dempster et al. 1977), which cannot leave the only maximum out:
    the function is concave.
    """
    weights = np.full(columns.shape[1], 1.0 / columns.shape[1])
    for _ in range(_ROUNDS):
        each = columns * weights
        weights = (each / each.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights
