"""What a recommender returns: Recommendation and RecommendationList, plain values."""

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
        rank: from 1.
        item_id: the user's string.
        title: as given in the catalog.
        logprob: natural log of the item's probability under what ranked: model and prior by node,
            or the model alone; None with the decoder ``match``.
        score: higher is better; comparable within one list. The logprob, with a prior by score
            the weighed ``logprob_prior`` more, or with ``match`` the share of the drawn texts (the probability of the beams) that named the item.
        texts: with ``match``: what the model wrote, as it wrote it.
        match: with ``match``: how the first of the texts was matched.
        similarity: of that text to the title, 0 to 1.
        explanation: one sentence, where it was asked for.
        logprob_model: natural log of the model's probability alone, over the whole catalog, as it
            is without a prior; None with ``match``.
        logprob_prior: of the prior's alone; None without a prior.
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
        """The probability of this item, exp(logprob); NaN without a logprob."""
        return float("nan") if self.logprob is None else float(np.exp(self.logprob))

    def to_dict(self) -> dict[str, Any]:
        """The recommendation as plain values for JSON."""
        values = asdict(self)
        if self.match is None:
            del values["texts"], values["match"], values["similarity"]
        if self.explanation is None:
            del values["explanation"]
        return values


@dataclass(frozen=True, slots=True)
class RecommendationList(Sequence[Recommendation]):
    """A ranked list and how it came about."""

    user_id: str | None
    decoder: str
    model: str
    seen: str  # "included", or "excluded" and which behaviors' items are not
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
        """The list as plain values for JSON."""
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
