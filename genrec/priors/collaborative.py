"""Weight items for a history by counts of users' events (the collaborative prior).

The weights are a mixture of several distributions over items. Each of these sources is counted from
the users' events:

popular   weights each item by its popularity, smoothed so that no weight is 0
trending  weights each item by its popularity in the latest tenth of all events
markov    favors items that users chose right after one of the latest items in the history;
          ``followed`` does the same for all items in the history
itemknn   favors items that share users with those in the history, as measured by a cosine;
          ``nearest`` uses the cube of the cosine, so that the most similar items count most;
          ``latest`` uses the square of the cosine and only the latest items in the history
ease      uses the linear model that best reconstructs which users have which items (Steck 2019,
          https://arxiv.org/abs/1905.03375), with each item's 50 highest positive weights
titles    favors items with titles similar to those of the latest items in the history, including
          items without any events
own       favors items that occur often in the history; ``recent`` favors the latest items in it
context   favors items chosen in the same context, if columns are declared (``context_counts``)
knowledge favors items that share rare attributes or tails of triples with the latest items of the
          history, if these are declared (``knowledge_links``); ``vectors`` favors items with similar
          vectors, if the dataset has any (``vector_links``). Both know items without events.

Fitted baselines such as SASRec can be added as sources. Each source has a share of the mixture. The
shares maximize the likelihood of the targets in the validation part. If it has too few targets,
some events of the train part are held out as targets. Behaviors whose events make the targets less
likely, such as dislikes, are ignored. This module deals with catalog rows and titles, not with
tokens or models.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.baselines.base import Scorer
from genrec.baselines.ranking import mask_seen, top_rows
from genrec.baselines.registry import fit, load_classes
from genrec.cache import package_versions
from genrec.config import COUNTED as COUNTED
from genrec.config import END, KNOWLEDGE, VECTORS
from genrec.config import LEARNED as LEARNED
from genrec.data import protocols
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.errors import RequestError
from genrec.files import map_arrays, write_arrays
from genrec.priors.cache_key import describe_fit
from genrec.priors.counts import Counts, count, with_known_items
from genrec.priors.mixture import POPULAR, Mixture, normalized_mix
from genrec.priors.mixture_fit import ENOUGH, declared, fit_on_validation, fit_shares, without
from genrec.priors.rank_features import ADDED, choose, seen_rows
from genrec.priors.rank_fit import RANKERS_KEY, CandidateRankers, fit_rankers
from genrec.priors.rank_network import RankNetwork
from genrec.priors.ranking import check_available
from genrec.priors.saved_counts import (
    FORMAT_VERSION,
    check_header,
    counts_from_arrays,
    counts_to_arrays,
    own_arrays,
)
from genrec.priors.weights import Weights
from genrec.types import FloatArray, IntArray

_MANY = 100_000  # number of events from which counting takes a moment and is logged
CACHED, RANKERS = "prior", "ranker"  # the kinds of results in the dataset's cache


class CollaborativePrior:
    """Weights items for a history by counts of users' events.

    The docstring of this module describes how the weights are computed.

    Attributes:
        name: the prior's name in result tables.
        lead_in_behaviors: behaviors that do not mark an item as seen; see
            ``DatasetInfo.lead_in_behaviors``.
        unread: behaviors whose events are ignored in histories.
        rankers: the learned rankings that reorder the best items; None to keep the mixture's order.
        before: the first split whose events were not counted by ``fit``; None if it is unknown.
    """

    name = "prior"
    lead_in_behaviors: Collection[str] = frozenset()
    unread: Collection[str] = frozenset()
    rankers: CandidateRankers | None = None
    before: str | None = None
    _followed: Catalog | None = None  # the latest catalog that an edit made, for slower updates

    def __init__(
        self,
        counts: Counts,
        mix: Mapping[str, float],
        scorers: Mapping[str, Scorer] | None = None,
    ) -> None:
        """Create a prior from counts of events. To create one from a dataset, use ``fit``.

        Args:
            counts: the counts of events.
            mix: the weight of each source; that of ``popular`` must be above 0. Only ratios matter.
            scorers: the fitted baselines that are used as sources, keyed by name; None if there are
                none.

        Raises:
            SettingsError: a source is unknown, or a weight is invalid.
        """
        self._changing = threading.Lock()
        self._mixture = Mixture(counts, normalized_mix(mix, scorers or {}), scorers or {})

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
        """Create a prior by counting a dataset's events and fitting the shares of the sources.

        The shares are fitted to the targets of the validation part, with counts from the train part
        only. If there are fewer than ``mixture_fit.ENOUGH`` such targets, some events of the train
        part are held out as targets (see ``protocols.with_validation``), and only the events before
        them are counted. If there are still too few, default shares are used.

        Without sources in ``LEARNED``, the result is kept in the dataset's cache.

        Args:
            dataset: a dataset whose events are split into train, validation and test parts.
            behavior: the behavior to count; None for the dataset's target behavior.
            before: ``validation`` to count events of the train part only, ``test`` to count events
                of the train and validation parts, ``end`` to count all events.
            sources: names of the sources to mix, from ``COUNTED``, ``LEARNED`` and ``FURTHER``. The
                sources in ``LEARNED`` are fitted baselines, which are saved in the dataset's folder.
                If all of ``COUNTED`` are named, those of ``FURTHER`` that the dataset declares are
                added, and dropped if they do not help (see ``fit_on_validation``).
            mix: the sources and their weights; None to fit the weights of ``sources``.
            seed: the random seed for sampling validation users and fitting baselines.
            log: function that is called with a line of text before slow steps, and from time to time
                while a baseline is fitted.

        Raises:
            SettingsError: a source is unknown.
            DataError: the behavior is not in the data.
        """
        behavior = behavior or dataset.info.target_behavior
        if behavior != dataset.info.target_behavior:
            info = dataset.info.with_target(behavior, dataset.interactions)
            dataset = replace(dataset, info=info)
        names = tuple(dict.fromkeys([POPULAR, *(sources if mix is None else mix)]))
        asked = names
        if mix is None and {*COUNTED} <= {*names}:
            names = tuple(dict.fromkeys([*names, *declared(dataset)]))

        def counted(data: Dataset, before: str, mix: Mapping[str, float]) -> CollaborativePrior:
            learned = {
                name: fit(name, data, before=before, seed=seed, log=log)
                for name in names
                if name in LEARNED
            }
            return cls(count(data, behavior, before), mix, learned)

        def fitted() -> CollaborativePrior:
            if len(dataset.interactions) > _MANY:
                log("Counting items that users choose together ...")
            fitting = protocols.with_validation(dataset, ENOUGH)
            prior = counted(fitting, "validation", dict.fromkeys(names, 1.0))
            shares, unread = fit_on_validation(prior._mixture, fitting, names, seed, asked)
            if before == "validation" and fitting is dataset:
                prior = cls(prior.counts, shares, prior._mixture.learned)
            else:
                del prior  # its counts are not kept in memory while others are counted
                prior = counted(dataset, before, shares)
            prior.unread = unread
            return prior

        if mix is not None:
            prior = counted(dataset, before, mix)
        elif dataset.cache.folder is None or not {*names}.isdisjoint(LEARNED):
            prior = fitted()
        else:
            about = describe_fit(
                dataset, before, (*names, *({*asked} & {KNOWLEDGE, VECTORS})), seed
            )
            found = dataset.cache.read(CACHED, about)
            prior = fitted() if found is None else cls._from_arrays(*found, dataset)
            if found is None:
                dataset.cache.write(CACHED, about, *prior._to_arrays(titles=True))
        prior.lead_in_behaviors = dataset.info.lead_in_behaviors
        prior.before = before
        return prior

    def mixed(
        self, histories: Sequence[History], targets: Sequence[str], names: Sequence[str]
    ) -> dict[str, float]:
        """Find the shares of the sources that maximize the likelihood of the given targets.

        Args:
            histories: the histories.
            targets: the id of the item that followed each history.
            names: the sources to mix.

        Returns:
            The share of each source.
        """
        return fit_shares(self._mixture, histories, targets, names)[0]

    @property
    def mix(self) -> dict[str, float]:
        """Return the share of each source in the mixture; the shares sum to 1."""
        return dict(self._mixture.mix)

    @property
    def counts(self) -> Counts:
        """Return the counts of all events that have been added so far."""
        return self._mixture.counts

    def weights(self, history: History) -> Weights:
        """Weight every item for a history; see ``genrec.priors.weights.ItemPrior``.

        If a source knows nothing about a history, its share is added to the share of popularity.
        For an empty history, this applies to all sources except ``trending``. Events whose items
        are not in the catalog are ignored.
        """
        read = without(history, self.unread)
        if self.rankers is not None:
            return self.rankers.reweight(self._mixture, history, read, self.lead_in_behaviors)
        return self._mixture.weights(read)

    def candidates(self, history: History, values: FloatArray, most: int) -> dict[str, IntArray]:
        """Choose the highest-weighted items that are new to the user, and those that are not.

        Args:
            history: the history.
            values: (N,) weight of each catalog item.
            most: the maximum number of items of one kind.

        Returns:
            The catalog rows in descending order of weight, keyed by kind; see
            ``rank_features.choose``.
        """
        return choose(values, seen_rows(self.counts, history, self.lead_in_behaviors), most)

    def learn_to_rank(
        self,
        dataset: Dataset,
        behavior: str,
        *,
        network: str = "none",
        seed: int = 0,
        threads: int = 1,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Learn to rank the highest-weighted items, and apply the rankings to all later histories.

        The rankings are fitted to the train part and stored in the dataset's cache; see
        ``rank_fit``.

        Args:
            dataset: the dataset that this prior was fitted to.
            behavior: the behavior that this prior counts.
            network: a sequence network whose scores the ranking uses; see ``RankNetwork.fit``.
                It is trained on the events that this prior counts.
            seed: the random seed.
            threads: the number of threads for fitting and for applying the rankings.
            log: function that is called with a line of text before slow steps.
        """
        check_available()  # a ranking from the cache cannot be used without LightGBM, either
        if behavior != dataset.info.target_behavior:
            info = dataset.info.with_target(behavior, dataset.interactions)
            dataset = replace(dataset, info=info)
        mix = {name: share for name, share in self.mix.items() if name in COUNTED}
        about = {
            **describe_fit(dataset, "validation", sorted(mix), seed),
            "packages": package_versions("lightgbm", "scikit-learn"),
            "behavior": behavior,
            "mix": mix,
            "unread": sorted(self.unread),
        }
        if network != "none":
            about |= {"network": network, "added": ADDED, "counted": self.before}
        found = dataset.cache.read(RANKERS, about)
        if found is not None:
            rankers = CandidateRankers.from_arrays(*found, dataset.catalog)
            self.rankers = replace(rankers, threads=threads)
            return
        rankers = fit_rankers(
            dataset, behavior, mix, self.unread,
            network=network, seed=seed, threads=threads, log=log,
        )  # fmt: skip
        if rankers.network is not None and self.before not in {None, "validation"}:
            before = self.before or "validation"
            last = RankNetwork.fit(network, dataset, before, seed=seed, log=log)
            rankers = replace(rankers, network=last)
        self.rankers = rankers
        dataset.cache.write(RANKERS, about, *self.rankers.to_arrays())

    def logprobs(self, history: History) -> FloatArray:
        """Return the (N,) log-probabilities of all items under the prior alone, by catalog row."""
        weights = self.weights(history)
        values = (weights.base or weights).values.copy()
        if weights.rows is not None:
            values[weights.rows] += weights.values
        return np.asarray(np.log(values / values.sum()))

    def related(self, item_ids: Sequence[str], behavior: str) -> FloatArray:
        """Weight all N items by how well they go with each of R items.

        Only sources that relate items by events are mixed, or ``itemknn`` alone if none has a share.

        Args:
            item_ids: the ids of the R items.
            behavior: the behavior of the events that are counted.

        Returns:
            (R, N) weights by catalog row. An item has weight 0 for itself. Each row sums to 1, or to 0
            if no source knows anything about the item.
        """
        return self._mixture.related(item_ids, behavior)

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """Return the ids of the k best items; see ``genrec.baselines.base.Baseline.rank``."""
        catalog, scores = self.counts.catalog, self.logprobs(history)
        if exclude_seen:
            scores = mask_seen(catalog, history, scores, self.lead_in_behaviors)
        return [catalog[row].item_id for row in top_rows(scores, k).tolist()]

    def update(
        self,
        events: Mapping[str, Sequence[Interaction | str]],
        catalog: Catalog | None = None,
        ready: History | None = None,
    ) -> None:
        """Add new events to the counts, as if all events had been counted together.

        The shares of the sources do not change, and baselines among the sources are not fitted
        again. The weights of ``ease`` are recomputed at the next request (see ``Counts.ease``).
        Requests in progress finish with the old counts.

        Args:
            events: each user's new events or item ids, oldest first, keyed by user id. They must be
                later than the events counted so far, and they are assumed to have the prior's
                behavior. Trends are based on the events' times, or on the given order if an event
                has no time. A learned ranking does not know when such an event happened.
            catalog: the catalog with new items at its end; None if there are no new items.
            ready: a history whose weights are computed before the new counts are used, so that no
                later request has to wait for ``ease``; None to compute them when they are needed.

        Raises:
            RequestError: an item is not in the catalog, or the catalog does not begin with the
                items counted so far.
        """
        kind: object = events  # checked for callers without a type checker
        if not isinstance(kind, Mapping) or any(isinstance(e, str) for e in events.values()):
            msg = (
                f"events has the wrong type or contents ({type(events).__name__}). Expected a "
                "mapping from user_id to a list of item ids or Interactions."
            )
            raise RequestError(msg)

        def counted(old: Counts) -> Counts:
            newer = old.catalog is self._followed and len(old.catalog) > len(catalog or ())
            return old.with_events(events, old.catalog if newer or catalog is None else catalog)

        self._use(counted, ready)

    def follow(self, catalog: Catalog) -> None:
        """Know the items of an edited catalog if attributes or vectors link them."""
        if any(self.mix.get(name) for name in (KNOWLEDGE, VECTORS)):
            self._followed = catalog
            self.update({}, catalog)

    def recount(
        self,
        dataset: Dataset,
        events: Mapping[str, Sequence[Interaction | str]],
        catalog: Catalog,
        ready: History | None = None,
    ) -> None:
        """Count all events again, for example because those of a user were deleted.

        Args:
            dataset: the dataset without the deleted events. Its target behavior is counted.
            events: the events after those of the dataset; see ``update``.
            catalog: the catalog; see ``update``.
            ready: see ``update``.
        """
        counts = count(dataset, dataset.info.target_behavior, self.before or END)
        counts = counts.with_events(events, catalog)
        self._use(
            lambda old: counts.over(old.catalog) if len(old.catalog) > len(catalog) else counts,
            ready,
        )

    def _use(self, make: Callable[[Counts], Counts], ready: History | None) -> None:
        """Use other counts, which are made again if others came into use meanwhile; see ``update``."""
        while True:
            old = self._mixture
            mixture = replace(old, counts=make(old.counts))
            if ready is not None:
                mixture.weights(ready)
            with self._changing:
                if self._mixture is old:
                    self._mixture = mixture
                    return

    def save(self, path: str | Path) -> None:
        """Write the prior to a safetensors file."""
        write_arrays(Path(path), *self._to_arrays())

    def _to_arrays(
        self, *, titles: bool = False
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return the contents of the file that ``save`` writes: its arrays and its metadata.

        Args:
            titles: whether to include the vectors of the titles if the prior uses them.
        """
        mixture, counts = self._mixture, self.counts
        uses = {name for name, share in mixture.mix.items() if share}
        arrays = counts_to_arrays(counts, ease="ease" in uses, titles=titles and "titles" in uses)
        learned = {}
        for name, scorer in mixture.learned.items():
            arrays |= {f"{name}/{key}": array for key, array in scorer.arrays.items()}
            learned[name] = {"behavior": scorer.behavior, "settings": scorer.settings}
        header = {
            "format_version": FORMAT_VERSION,
            "catalog": counts.catalog.hash(),
            "mix": dict(mixture.mix),
            "learned": learned,
            "unread": sorted(self.unread),
            "lead_in_behaviors": sorted(self.lead_in_behaviors),
        }
        if self.rankers is None:
            return arrays, {"prior": json.dumps(header)}
        trees, about = self.rankers.to_arrays()
        arrays |= {f"{RANKERS}/{kind}": array for kind, array in trees.items()}
        return arrays, {"prior": json.dumps(header), **about}

    @classmethod
    def load(cls, path: str | Path, data: Dataset | Catalog) -> CollaborativePrior:
        """Read a prior written by ``save``.

        Args:
            path: the file.
            data: the catalog for which the prior was saved. If the prior uses fitted baselines, the
                dataset is needed instead.

        Raises:
            DataError: the file is not a saved prior, or was saved for a different catalog.
        """
        arrays, metadata = map_arrays(Path(path))
        catalog = data if isinstance(data, Catalog) else data.catalog
        check_header(path, metadata, data, catalog)
        return cls._from_arrays(arrays, metadata, data)

    @classmethod
    def _from_arrays(
        cls, arrays: Mapping[str, Any], metadata: Mapping[str, str], data: Dataset | Catalog
    ) -> CollaborativePrior:
        """Rebuild a prior from the result of ``_to_arrays``; see ``load``."""
        catalog = data if isinstance(data, Catalog) else data.catalog
        header = json.loads(metadata["prior"])
        counts = counts_from_arrays(arrays, catalog)
        if isinstance(data, Dataset) and (counts.knowledge, counts.vectors) == (None, None):
            counts = with_known_items(counts, data)  # the cache does not repeat the dataset
        scorers = {}
        for name, fitted in header["learned"].items():
            assert isinstance(data, Dataset)
            scorers[name] = load_classes()[name](
                data.interactions,
                fitted["behavior"],
                arrays=own_arrays(arrays, name),
                **fitted["settings"],
            )
        prior = cls(counts, header["mix"], scorers)
        # Scaling the shares again would change them by a rounding error.
        prior._mixture = replace(prior._mixture, mix=header["mix"])
        prior.unread = frozenset(header.get("unread", ()))
        if RANKERS_KEY in metadata:
            prior.rankers = CandidateRankers.from_arrays(
                own_arrays(arrays, RANKERS), metadata, catalog
            )
        prior.lead_in_behaviors = (
            data.info.lead_in_behaviors
            if isinstance(data, Dataset)
            else frozenset(header.get("lead_in_behaviors", ()))
        )
        return prior
