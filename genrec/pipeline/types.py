"""The values that a recommender returns: Recommendation and RecommendationList."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from genrec.matching.history_parser import Understood

if TYPE_CHECKING:
    from genrec.explain.types import Explanation

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item.

    Attributes:
        rank: the place in the list, from 1.
        item_id: the item's id in the catalog.
        title: the title as given in the catalog.
        logprob: natural log of the item's probability over the catalog: by model and prior where
            they are fused by node, else by the model alone; None with the decoder ``match``.
        score: the number that the list is sorted by; higher is better, comparable within one list.
            It is the logprob; with a prior fused by score, the logprob plus the weighted
            ``logprob_prior``; with ``match``, the share of the sampled texts that named the item
            (or the probability of the beams).
        texts: with ``match``, the texts that named the item, as the model wrote them.
        match: with ``match``, how the first of these texts was matched.
        similarity: with ``match``, the similarity of that text to the title, 0 to 1.
        explanation: the explanation, if one was requested.
        logprob_model: natural log of the item's probability by the model alone, over the whole
            catalog; None with ``match``.
        logprob_prior: natural log of its probability by the prior alone; None without a prior.
    """

    rank: int
    item_id: str
    title: str
    logprob: float | None
    score: float
    texts: tuple[str, ...] = ()
    match: str | None = None
    similarity: float | None = None
    explanation: Explanation | None = None
    logprob_model: float | None = None
    logprob_prior: float | None = None

    @property
    def probability(self) -> float:
        """The item's probability, exp(logprob); NaN without a logprob."""
        return float("nan") if self.logprob is None else float(np.exp(self.logprob))

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as plain values for JSON."""
        values = asdict(self)
        if self.match is None:
            del values["texts"], values["match"], values["similarity"]
        if self.explanation is None:
            del values["explanation"]
        return values


@dataclass(frozen=True, slots=True)
class RecommendationList(Sequence[Recommendation]):
    """A ranked list of recommendations.

    Attributes:
        user_id: the user in the dataset, or None.
        decoder: the decoder that made the list.
        model: the model's name.
        seen: ``included`` or ``excluded``, with any behaviors that are exempt from exclusion.
        recommendations: the items, best first.
        understood: how each piece of a typed history was understood.
        prompt_tokens: the number of tokens in the prompt.
        events: the number of events that the prompt shows.
        behavior: the behavior that was recommended for.
        asked: the number of requested items.
        notes: remarks for the user.
        details: additional values of ``to_dict``: device, certificate, parts, prior.
    """

    user_id: str | None
    decoder: str
    model: str
    seen: str
    recommendations: tuple[Recommendation, ...]
    understood: tuple[Understood, ...] = ()
    prompt_tokens: int = 0
    events: int = 0
    behavior: str = ""
    asked: int = 0
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Recommendation]: ...
    def __getitem__(self, index: int | slice) -> Recommendation | Sequence[Recommendation]:
        return self.recommendations[index]

    def __len__(self) -> int:
        return len(self.recommendations)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.recommendations)

    def to_dict(self) -> dict[str, Any]:
        """Return the list as plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "user_id": self.user_id,
            "decoder": self.decoder,
            "model": self.model,
            "seen": self.seen,
            "recommendations": [r.to_dict() for r in self.recommendations],
            "understood": [asdict(u) for u in self.understood],
            "behavior": self.behavior,
            "asked": self.asked,
            "notes": list(self.notes),
            "prompt": {"tokens": self.prompt_tokens, "events": self.events},
            **self.details,
        }
