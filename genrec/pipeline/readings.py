"""Hold what the model and the prior say about a batch of requests, and the rankings made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.priors.positions import PositionWeights
from genrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from genrec.decoding.types import Ranking
    from genrec.models.token_tree import TokenTree


@dataclass(frozen=True, slots=True)
class Ranked:
    """The ranking for one request.

    Attributes:
        ranking: the items, best first, with their scores and the certificate.
        sources: the names of the sources that contributed to the prior; empty if there is no prior.
        attention: how the events were read, for the answer; None if this was with full attention.
        scored: how a model without probabilities scored some of the items; None if none did.
    """

    ranking: Ranking
    sources: tuple[str, ...] = ()
    attention: Mapping[str, Any] | None = None
    scored: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch of prompts that the model has processed.

    Attributes:
        tree: the token tree to which continuations of the prompts are added; None if items are
            ranked by the weights in ``prior`` alone.
        prior: the weights of the items for each history, or None if there is no prior.
        tokens: the number of tokens of the prompts that the model had to process.
        alone: for each history, positions and the log-probabilities of their items under the model,
            which the weights already take into account; None if the model ranks items otherwise.
        attention: for each prompt, how its events were read; None with full attention.
        scored: see ``Ranked``.
    """

    tree: TokenTree | None
    prior: PositionWeights | None
    tokens: int = 0
    alone: Sequence[tuple[IntArray, FloatArray]] | None = None
    attention: Sequence[Mapping[str, Any]] | None = None
    scored: str | None = None

    @property
    def rate(self) -> float:
        """The number of tokens per second at which the model processes the prompts."""
        if self.tree is None or not len(self.tree.root) or not self.tree.seconds:
            return np.inf
        return self.tokens / self.tree.seconds

    def ranked(self, place: int, ranking: Ranking) -> Ranked:
        """Describe the ranking for one request of the batch.

        Args:
            place: the index of the request in the batch.
            ranking: the ranking.
        """
        sources = () if self.prior is None else tuple(self.prior.sources[place])
        attention = None if self.attention is None else self.attention[place]
        return Ranked(ranking, sources, attention, self.scored)
