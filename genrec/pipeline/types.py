"""Define what a recommender returns: recommendations and lists of recommendations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from genrec.matching.history_parser import Understood

if TYPE_CHECKING:
    from genrec.explain.types import Explanation

SCHEMA_VERSION = 1
_LEFT_OUT = {  # what each rule on the user's own items leaves out, for one item and for several
    "returned": ("returned item", "returned items"),
    "last_basket": ("item of the latest basket", "items of the latest basket"),
    "seen": ("item that the user has seen", "items that the user has seen"),
    "same_title": ("other item with the same title", "other items with the same title"),
}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item.

    Attributes:
        rank: the position in the list, starting at 1.
        item_id: the item's id in the catalog.
        title: the title as given in the catalog.
        logprob: the natural logarithm of the item's probability. With the fusion ``node``, this is
            the probability under the model and the prior together; otherwise, it is the probability
            under the model alone. It is None with the decoder ``match``.
        score: the number by which the list is sorted, apart from pinned items, which come first.
            Higher is better, and scores can be compared only within one list. By default, the score
            equals ``logprob``. With the fusion ``score``, the weighted ``logprob_prior`` is added.
            With boosts, the natural logarithm of ``boost`` is added. With the decoder ``match``,
            the score is the share of sampled texts that named the item, or the probability of the
            beams that named it.
        texts: with the decoder ``match``, the texts that named the item, as the model wrote them.
        match: with the decoder ``match``, the kind of match of the first of these texts.
        similarity: with the decoder ``match``, the similarity of the first of these texts to the
            title, from 0 to 1.
        explanation: the explanation, if one was requested.
        logprob_model: the natural logarithm of the item's probability under the model alone; None
            with the decoder ``match``, and for items that it did not score because the prior ranks them.
        logprob_prior: the natural logarithm of the item's probability under the prior alone; None
            if there is no prior.
        boost: the factor by which the options of the request multiply the item's score; None if
            they do not change the scores.
        pinned: True if the item is at this position because it was pinned, regardless of its score.
        group: the name of the group of variants that the item belongs to; None if the item is not
            in a group. See ``genrec.data.groups``.
        propensity: with ``search="sample"``, the probability with which the draw put this item here,
            given the items above it, all filters and the prior; 1 for a pinned item. None if the list
            is not a draw, and if the probability is unknown; see ``pipeline.propensities``.
        parts: with a query, what each part of the score adds to it in nats: ``match``, ``unwanted``,
            ``prior`` and ``model``, as far as they speak. The model speaks only of the best items by the
            other parts. None without a query.
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
    boost: float | None = None
    pinned: bool = False
    group: str | None = None
    propensity: float | None = None
    parts: Mapping[str, float] | None = None

    @property
    def probability(self) -> float:
        """The item's probability, from 0 to 1; NaN if ``logprob`` is None."""
        return float("nan") if self.logprob is None else float(np.exp(self.logprob))

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as a dictionary that can be written as JSON."""
        values = asdict(self)
        if self.match is None:
            del values["texts"], values["match"], values["similarity"]
        if self.explanation is None:
            del values["explanation"]
        if self.boost is None:
            del values["boost"]
        if not self.pinned:
            del values["pinned"]
        if self.group is None:
            del values["group"]
        if self.propensity is None:
            del values["propensity"]
        if self.parts is None:
            del values["parts"]
        return values


@dataclass(frozen=True, slots=True, repr=False)
class RecommendationList(Sequence[Recommendation]):
    """A ranked list of recommendations.

    Attributes:
        user_id: the id of the user in the dataset, or None.
        decoder: the decoder that produced the list.
        model: the name of the model.
        seen: a description of how seen items are treated, such as ``excluded``.
        recommendations: the items, best first.
        understood: the interpretation of each piece of a typed history.
        prompt_tokens: the number of tokens in the prompt.
        events: the number of events that the prompt shows.
        behavior: the target behavior of the recommendations, such as ``buy``.
        asked: the number of requested items.
        unknown: with ``rank`` and ``score``, the candidates that are not in the catalog.
        notes: remarks for the user.
        show: which items the list was chosen from: ``all``, ``new`` or ``again``.
        left_out: the rules about the user's own items that were applied, with the number of items
            that each of them removed: ``seen`` for a list of new items, ``unseen`` for a list of
            items that the user had before, ``returned``, ``last_basket`` and ``same_title``. An
            item that several rules remove counts for the first of them.
        details: further values that ``to_dict`` returns, such as the device, the certificate and
            the prior.
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
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    show: str = "all"
    left_out: Mapping[str, int] = field(default_factory=dict)
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

    def __repr__(self) -> str:
        """Return a multi-line text with the items, the understood history and the notes."""
        who = "" if self.user_id is None else f" for user {self.user_id!r}"
        lines = [f"{type(self).__name__}: {len(self)} of {self.asked} items{who}"]
        for r in self:
            value = r.score if r.logprob is None else r.probability
            lines.append(f"{r.rank:>4}  {value:.4f}  {r.item_id!r}  {r.title!r}")
        if described := describe_left_out(self.left_out):
            lines.append(f"left out: {described}")
        if self.understood:
            lines.append("understood:")
            lines += [
                f"      {u.text!r} as {u.behavior} {u.title!r} ({u.match})"
                if u.title is not None
                else f"      {u.text!r} as {u.behavior} {u.note!r}"
                if u.match == "text"
                else f"      {u.text!r} was not understood"
                for u in self.understood
            ]
        if self.notes:
            lines += ["notes:", *(f"      {note}" for note in self.notes)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the list as a dictionary that can be written as JSON."""
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
            "unknown": list(self.unknown),
            "notes": list(self.notes),
            "show": self.show,
            "left_out": dict(self.left_out),
            "prompt": {"tokens": self.prompt_tokens, "events": self.events},
            **self.details,
        }


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Say how many of the user's own items each rule removed; return "" if there were none.

    Args:
        left_out: see ``RecommendationList``. The rule ``unseen`` is skipped, because it is not
            about the user's own items.
    """
    parts = [f"{n:,} {_LEFT_OUT[r][n != 1]}" for r, n in left_out.items() if n and r in _LEFT_OUT]
    *most, last = parts or [""]
    return f"{', '.join(most)} and {last}" if most else last
