"""Hold one judgement of an explanation per user, and compute figures from the judgements.

Does not use models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from genrec.evaluation import bootstrap
from genrec.evaluation.bootstrap import Interval

WAYS = ("named", "evidence", "recent", "similar", "random")
SIZES = (1, 2, 3)  # numbers of events to leave out or keep together


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of one user's explanation. Events are given by their index in the prompt, from 0.

    Attributes:
        user_id: the user's id.
        item_id: the recommended item.
        text: the sentence.
        source: ``generated`` or ``template``.
        rejected: generated sentences that the checker rejected, each with the reason.
        unsupported: claims in the sentence that the checker could not verify.
        named: the events whose titles the sentence names.
        own: the events that involve the recommended item itself.
        evidence: the evidence of each event in nats, under the recommender's own template.
        elsewhere: the evidence of each event in nats, under the other template.
        left_out: for each selection method, how far the score falls when its first one, two and
            three events are left out, in nats under the other template.
        kept: for each selection method, how far the score falls when only these events are kept.
    """

    user_id: str
    item_id: str
    text: str
    source: str
    rejected: Sequence[Sequence[str]]
    unsupported: Sequence[str]
    named: Sequence[int]
    own: Sequence[int]
    evidence: Sequence[float]
    elsewhere: Sequence[float]
    left_out: Mapping[str, Sequence[float]]
    kept: Mapping[str, Sequence[float]]

    @property
    def strongest(self) -> int:
        """The event with the most evidence."""
        return int(np.argmax(self.evidence))


@dataclass(frozen=True)
class Curves:
    """How far scores fall with each selection method, over users whose sentences name an event.

    Attributes:
        points: for each method, the mean falls for one, two and three events, with their intervals.
        area: for each method, the area under the curve, with its interval. The area is the mean of
            the falls for one, two and three events.
        minus: for each method, the area of ``named`` minus the area of the method, paired by user,
            with its interval.
    """

    points: dict[str, list[Interval]]
    area: dict[str, Interval]
    minus: dict[str, Interval]

    @classmethod
    def of(cls, falls: Sequence[Mapping[str, Sequence[float]]]) -> Curves:
        """Compute the curves from the falls of at least one user."""
        # (users, methods, sizes)
        values = np.array([[user[way] for way in WAYS] for user in falls])
        area = values.mean(axis=2)
        points = [bootstrap.bootstraps(values[:, n]) for n in range(len(WAYS))]
        return cls(
            dict(zip(WAYS, points, strict=True)),
            dict(zip(WAYS, bootstrap.bootstraps(area), strict=True)),
            dict(zip(WAYS[1:], bootstrap.bootstraps(area[:, :1] - area[:, 1:]), strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the curves as plain values for JSON."""
        return {
            way: {
                "points": [asdict(i) for i in self.points[way]],
                "area": asdict(self.area[way]),
                **({"named_minus": asdict(self.minus[way])} if way in self.minus else {}),
            }
            for way in WAYS
        }


@dataclass(frozen=True)
class Faithfulness:
    """The result of measuring the faithfulness of a recommender's explanations.

    Attributes:
        dataset: the dataset's name.
        system: the recommender's name.
        protocol: see ``genrec.evaluate``.
        split: the split of the targets.
        fitted_on: the data that the prior counts.
        template: the template under which evidence was found.
        other: the template under which the fall of the score was measured.
        style: the style of the sentences.
        encoder: the encoder that compares titles.
        seed: the random seed for the sample of users and the random events.
        users: one judgement per user.
    """

    dataset: str
    system: str
    protocol: str
    split: str
    fitted_on: str
    template: str
    other: str
    style: str
    encoder: str
    seed: int
    users: Sequence[Judgement]

    @cached_property
    def naming(self) -> list[Judgement]:
        """The judgements of sentences that name an event."""
        return [u for u in self.users if u.named]

    @cached_property
    def deletion(self) -> Curves | None:
        """The curves for leaving out events; None if no sentence names an event."""
        return Curves.of([u.left_out for u in self.naming]) if self.naming else None

    @cached_property
    def sufficiency(self) -> Curves | None:
        """The curves for keeping only these events; None if no sentence names an event.

        Lower values are better.
        """
        return Curves.of([u.kept for u in self.naming]) if self.naming else None

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """Shares of users with each property, and the rank correlation of the evidence.

        A figure is omitted if no user has a value.

        - ``generated``: the model wrote the sentence; other sentences come from a template
        - ``names_event``: the sentence names an event
        - ``names_strongest``: among sentences that name an event, the share that names the event
          with the most evidence
        - ``strongest_is_item``: the event with the most evidence involves the recommended item itself
        - ``same_strongest``: the same event has the most evidence under both templates
        - ``rank_correlation``: Spearman's rank correlation of the evidence under both templates
        """
        ranks = (_spearman(u.evidence, u.elsewhere) for u in self.users)
        values: dict[str, list[float]] = {
            "generated": [float(u.source == "generated") for u in self.users],
            "names_event": [float(bool(u.named)) for u in self.users],
            "names_strongest": [float(u.strongest in u.named) for u in self.naming],
            "strongest_is_item": [float(u.strongest in u.own) for u in self.users],
            "same_strongest": [
                float(u.strongest == int(np.argmax(u.elsewhere))) for u in self.users
            ],
            "rank_correlation": [r for r in ranks if r is not None],
        }
        return {name: bootstrap.bootstrap(v) for name, v in values.items() if v}

    @property
    def unsupported(self) -> list[tuple[str, str, str]]:
        """The unsupported claims as (user, sentence, claim). The list should be empty."""
        return [(u.user_id, u.text, why) for u in self.users for why in u.unsupported]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON, without the judgements of individual users."""
        described = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "users"}
        return {
            "schema_version": 1,
            **described,
            "users": len(self.users),
            "naming": len(self.naming),
            "sizes": list(SIZES),
            "deletion": None if self.deletion is None else self.deletion.to_dict(),
            "sufficiency": None if self.sufficiency is None else self.sufficiency.to_dict(),
            "shares": {name: asdict(interval) for name, interval in self.shares.items()},
            "unsupported_claims": len(self.unsupported),
            "unsupported": [
                {"user_id": user, "text": text, "why": why} for user, text, why in self.unsupported
            ],
        }


def _spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None if either sequence is constant."""
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(one), rankdata(two)])
    if (ranks.std(axis=1) == 0).any():
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
