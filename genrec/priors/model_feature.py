"""Rerank a prior's best items with the model's log-probability as a feature.

Within each kind of candidate (new items and seen items; see ``rank_features.choose``), the
probability of a candidate is proportional to

    exp(a * log(prior's weight) + b * log(model's probability)),

and the candidates of a kind together keep the weight that the prior gives them. All other items
keep their weights, so the result is a distribution over all items. This is a conditional logit
model (McFadden 1974, "Conditional logit analysis of qualitative choice behavior"), whose a and b are
fitted to the items that users chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from genrec.data.events import History
from genrec.priors.rank_fit import to_dense
from genrec.priors.weights import ItemPrior, Weights
from genrec.types import FloatArray, IntArray

CANDIDATES = 30  # maximum number of candidates of one kind whose titles the model scores
_PRIOR_USERS = 5.0  # a = 1 and b = 0 count like this many users, so that few users change little
_MOST = 10.0  # maximum of a and b


@runtime_checkable
class HasCandidates(Protocol):
    """The interface of a prior that can name candidates, such as the collaborative prior."""

    def weights(self, history: History) -> Weights:
        """Return the weights of all items; see ``ItemPrior``."""
        ...

    def candidates(self, history: History, values: FloatArray, most: int) -> dict[str, IntArray]:
        """Return the catalog rows of the highest-weighted items of each kind."""
        ...


@dataclass(frozen=True, slots=True)
class Exponents:
    """The exponents of the two probabilities.

    Attributes:
        prior: a, the exponent of the prior's weights among the candidates.
        model: b, the exponent of the model's probability.
    """

    prior: float
    model: float


PRIOR_ONLY = Exponents(1.0, 0.0)


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The prior's weights for a history, and the candidates that the model is asked about.

    Attributes:
        values: (N,) the prior's weight of each catalog item.
        kinds: the catalog rows of the candidates, keyed by kind.
        rest: see ``Weights``.
        sources: see ``Weights``.
    """

    values: FloatArray
    kinds: Mapping[str, IntArray]
    rest: float = 1.0
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, prior: ItemPrior, history: History, weights: Weights | None = None) -> FirstStage:
        """Compute the weights for a history, and choose the candidates.

        Args:
            prior: the prior, which must be able to name candidates.
            history: the history.
            weights: the prior's weights for the history, if they are known already.
        """
        assert isinstance(prior, HasCandidates)
        weights = prior.weights(history) if weights is None else weights
        values = to_dense(weights)
        rest = weights.rest if weights.base is None else weights.base.rest
        kinds = prior.candidates(history, values, CANDIDATES)
        return cls(values, kinds, rest, weights.sources)

    @property
    def rows(self) -> IntArray:
        """The catalog rows of all candidates."""
        found = [rows for _, rows in sorted(self.kinds.items())]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def rerank(self, logprobs: Mapping[int, float], exponents: Exponents) -> Weights:
        """Compute the final weights of all items.

        Args:
            logprobs: the log-probability of each candidate under the model, keyed by catalog row.
                Candidates that are not in the trie are missing, and keep their weights.
            exponents: the fitted exponents.
        """
        values = self.values.copy()
        for kind in sorted(self.kinds):
            rows = np.array([r for r in self.kinds[kind].tolist() if r in logprobs], dtype=np.int64)
            if not len(rows):
                continue
            model = np.array([logprobs[r] for r in rows.tolist()])
            scores = exponents.prior * np.log(values[rows]) + exponents.model * model
            shares = np.exp(scores - scores.max())
            values[rows] = values[rows].sum() * shares / shares.sum()
        least = np.finfo(float).tiny
        return Weights(np.maximum(values, least), rest=self.rest, sources=self.sources)


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidates of one kind for one user, one of which the user chose.

    Attributes:
        prior: (C,) logarithms of the prior's weights.
        model: (C,) log-probabilities under the model.
        chosen: the index of the chosen candidate.
    """

    prior: FloatArray
    model: FloatArray
    chosen: int
    features: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Combine both to (C, 2) features."""
        object.__setattr__(self, "features", np.stack([self.prior, self.model], axis=1))


def fit_exponents(choices: Sequence[Choice], *, with_model: bool = True) -> Exponents:
    """Fit the exponents by maximum likelihood, with a penalty that keeps a near 1 and b near 0.

    Args:
        choices: what users chose. With none, a is 1 and b is 0.
        with_model: False to fit only a.
    """
    if not choices:
        return PRIOR_ONLY
    from scipy.optimize import minimize

    used = np.array([1.0, float(with_model)])
    sizes = [len(c.prior) for c in choices]
    starts = np.cumsum([0, *sizes[:-1]])
    group = np.repeat(np.arange(len(sizes)), sizes)
    table = np.concatenate([c.features for c in choices]) * used
    mean = np.add.reduceat(table, starts) / np.array(sizes)[:, None]
    table = table - mean[group]  # only differences within a group matter
    chosen = table[starts + np.array([c.chosen for c in choices])]
    scale = np.maximum(np.sqrt(np.square(table).mean(axis=0)), 1e-9)

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        scores = table @ values
        peak = np.maximum.reduceat(scores, starts)
        weight = np.exp(scores - peak[group])
        total = np.add.reduceat(weight, starts)
        shares = weight / total[group]
        moved = (values - np.array([1.0, 0.0])) * scale
        nats = float((peak + np.log(total)).sum() - (chosen @ values).sum())
        slope = shares @ table - chosen.sum(axis=0)
        return nats + _PRIOR_USERS * float(moved @ moved), slope + 2 * _PRIOR_USERS * moved * scale

    best = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, _MOST)] * 2
    )
    a, b = (best.x * used).tolist()
    return Exponents(float(a), float(b))
