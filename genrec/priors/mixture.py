"""Mix several sources' distributions over items, each with a share of the mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from genrec.baselines.base import Scorer
from genrec.config import CONTEXT, COUNTED, FURTHER, LEARNED
from genrec.data.events import History, Interaction
from genrec.errors import SettingsError
from genrec.priors.counts import Counts
from genrec.priors.weights import Weights
from genrec.types import FloatArray, IntArray

POPULAR, TRENDING = "popular", "trending"
# The sources that relate items to each other by events, not by their titles.
RELATING = (
    "markov", "followed", "itemknn", "nearest", "latest", "ease", "userknn", "sasrec", "textseq",
)  # fmt: skip
# The factor by which a baseline's scores are multiplied before a softmax makes them probabilities.
_SOFTMAX = {"sasrec": 1.0, "textseq": 1.0, "content": 20.0}


def normalized_mix(mix: Mapping[str, float], learned: Mapping[str, Scorer]) -> dict[str, float]:
    """Check the weights of the sources of a mixture, and scale them so that they sum to 1.

    Args:
        mix: the weight of each source.
        learned: the fitted baselines that may be used as sources, keyed by name.

    Raises:
        SettingsError: a source is unknown, a weight is negative, infinite or NaN, or the weight of
            ``popular`` is 0.
    """
    for name in mix:
        if name not in {*COUNTED, *FURTHER} and name not in learned:
            known = ", ".join([*COUNTED, *FURTHER, *LEARNED])
            msg = f"{name!r} is not a source of the prior. Expected one or more of: {known}."
            raise SettingsError(msg)
    values = np.array(list(mix.values()), dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and mix.get(POPULAR, 0) > 0):
        msg = (
            f"mix={dict(mix)} is invalid. Expected finite weights of at least 0, and a weight above "
            f"0 for {POPULAR!r}, so that every item has a weight above 0."
        )
        raise SettingsError(msg)
    return {name: float(w / values.sum()) for name, w in zip(mix, values, strict=True)}


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of sources, which holds the complete state of a collaborative prior.

    The object is immutable. To add events, the prior replaces it with a new one, so that requests
    in progress can finish with the old one.

    Attributes:
        counts: the counts of the users' events.
        mix: the share of each source; the shares sum to 1.
        learned: the fitted baselines that are used as sources, keyed by name.
    """

    counts: Counts
    mix: Mapping[str, float]
    learned: Mapping[str, Scorer] = field(default_factory=dict)

    def shares(self, source: str, histories: Sequence[History]) -> Any:
        """Compute a source's distribution over N items for each of H histories.

        Args:
            source: name of the source.
            histories: the H histories.

        Returns:
            A sparse or dense (H, N) matrix in which each row sums to 1. A row of zeros means that
            the source knows nothing about that history.
        """
        if source not in self.learned:
            return self.counts.shares(source, histories)
        scores = self.learned[source].scores_many(histories)
        added = len(self.counts.catalog) - scores.shape[1]  # items that the baseline does not know
        scores = np.pad(scores, ((0, 0), (0, added)), constant_values=-np.inf)
        scale = _SOFTMAX.get(source)
        if scale is None:
            values = np.maximum(scores, 0.0)
        else:
            values = np.exp(scale * (scores - scores.max(axis=1, keepdims=True)))
        values[[not h.item_ids for h in histories]] = 0.0
        total = values.sum(axis=1, keepdims=True)
        return np.divide(values, total, out=np.zeros_like(values), where=total > 0)

    def weights(self, history: History) -> Weights:
        """Weight every item for a history.

        If a source knows nothing about the history, its share is added to the share of popularity.
        Events whose items are not in the catalog are ignored. The result is that of ``combine`` for
        ``parts``. If no baseline is mixed in, it is computed several times faster.
        """
        if self._has_baselines:
            return self.combine(self.parts(history))
        popular, sources = self.mix[POPULAR], [n for n in (POPULAR, TRENDING) if self.mix.get(n)]
        columns, values = [], []
        for source, (column, value) in self._entries(history).items():
            share = self.mix[source]
            if len(column):
                columns.append(column)
                values.append(share * value)
                sources.append(source)
            else:
                popular += share
        base, rest = self._base(popular), popular + self.mix.get(TRENDING, 0.0)
        if not columns:
            return replace(base, sources=tuple(sources))
        total = np.bincount(np.concatenate(columns), weights=np.concatenate(values))
        some = np.flatnonzero(total > 0)
        return Weights(total[some] / rest, some, base=base, sources=tuple(sources))

    def parts(self, history: History) -> dict[str, Any]:
        """Compute the distribution of each source that depends on the history.

        Events whose items are not in the catalog are ignored.

        Returns:
            For each source with a share except ``popular`` and ``trending``, a sparse or dense
            (1, N) matrix that sums to 1, or to 0 if the source knows nothing about the history.
        """
        from scipy import sparse

        if self._has_baselines:
            return self.parts_of([history])[0]
        return {
            source: sparse.csr_array(
                (values, (np.zeros(len(columns), dtype=np.int64), columns)),
                shape=(1, len(self.counts.catalog)),
            )
            for source, (columns, values) in self._entries(history).items()
        }

    @property
    def _has_baselines(self) -> bool:
        return any(self.mix.get(name) for name in self.learned)

    def _entries(self, history: History) -> dict[str, tuple[IntArray, FloatArray]]:
        """Compute what ``parts`` does, but as columns and values; see ``Counts.entries``."""
        catalog = self.counts.catalog
        ids = [item for item in history.item_ids if item in catalog]
        rows = np.array(catalog.rows(ids), dtype=np.int64)
        found = {
            source: self.counts.entries(source, rows)
            for source, share in self.mix.items()
            if source not in {POPULAR, TRENDING, CONTEXT} and share
        }
        if self.mix.get(CONTEXT):
            given = self.counts.contexts.share(history.context, self.counts.base.values)
            values = np.empty(0) if given is None else given
            found[CONTEXT] = (np.arange(len(values)), values)
        return found

    def parts_of(self, histories: Sequence[History]) -> list[dict[str, Any]]:
        """Compute ``parts`` for each of several histories with matrices, which is faster for many."""
        catalog = self.counts.catalog
        known = [
            h.with_events([i for i in h.interactions if i.item_id in catalog]) for h in histories
        ]
        whole = {
            source: self.shares(source, known)
            for source, share in self.mix.items()
            if source not in {POPULAR, TRENDING} and share
        }
        return [
            {source: part[number : number + 1] for source, part in whole.items()}
            for number in range(len(known))
        ]

    def combine(self, given: Mapping[str, Any]) -> Weights:
        """Mix the distributions that ``parts`` has computed with ``popular`` and ``trending``."""
        popular = self.mix[POPULAR]
        parts, sources = [], [n for n in (POPULAR, TRENDING) if self.mix.get(n)]
        for source, part in given.items():
            share = self.mix[source]
            if part.sum() > 0:
                parts.append(share * part)
                sources.append(source)
            else:
                popular += share
        base, rest = self._base(popular), popular + self.mix.get(TRENDING, 0.0)
        if not parts:
            return replace(base, sources=tuple(sources))
        total = sum(parts[1:], start=parts[0])
        if isinstance(total, np.ndarray) or hasattr(total, "A1"):
            values = np.asarray(total).ravel() / rest + base.values
            return Weights(values, rest=base.rest, sources=tuple(sources))
        row = total.tocsr()
        some = row.data > 0
        rows = row.indices[some].astype(np.int64)
        return Weights(row.data[some] / rest, rows, base=base, sources=tuple(sources))

    def related(self, item_ids: Sequence[str], behavior: str) -> FloatArray:
        """Weight all items by how well they go with each item; see ``CollaborativePrior.related``."""
        catalog = self.counts.catalog
        rows = np.array(catalog.rows(item_ids), dtype=np.int64)
        histories = [History((Interaction(item, behavior),)) for item in item_ids]
        mix = {name: share for name, share in self.mix.items() if name in RELATING and share}
        weights = np.zeros((len(rows), len(catalog)))
        for source, share in (mix or {"itemknn": 1.0}).items():
            part = self.shares(source, histories)
            dense = part if isinstance(part, np.ndarray) else part.toarray()
            weights += share * np.asarray(dense)
        weights[np.arange(len(rows)), rows] = 0.0
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(weights, total, out=weights, where=total > 0))

    def _base(self, popular: float) -> Weights:
        """Mix the sources ``popular`` and ``trending``, which are the same for all histories.

        The result is cached.

        Args:
            popular: the share of popularity, including the shares of sources that know nothing
                about a history.
        """
        trending = self.mix.get(TRENDING, 0.0)
        if not trending:
            return self.counts.base
        known = self._bases.get(popular)
        if known is None:
            base, total = self.counts.base, popular + trending
            values = (popular * base.values + trending * self.counts.trend) / total
            mixed = Weights(values, rest=popular * base.rest / total)
            known = self._bases.setdefault(popular, mixed)
        return known

    @cached_property
    def _bases(self) -> dict[float, Weights]:
        return {}
