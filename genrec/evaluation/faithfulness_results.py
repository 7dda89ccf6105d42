"""Define the judgement of a single explanation, and compute summary statistics over judgements.

This module deals with numbers and text, not with models.
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
SIZES = (1, 2, 3)  # the numbers of events that are left out, or kept, together


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of the explanation that one user would see.

    Events are identified by their index in the prompt, starting at 0.

    Attributes:
        user_id: the id of the user.
        item_id: the id of the recommended item.
        text: the sentence of the explanation.
        source: ``generated`` if the model wrote the sentence, otherwise ``template``.
        rejected: the generated sentences that the checker rejected, each with the reason.
        unsupported: the claims in the sentence that the checker could not verify.
        named: the events that the sentence names by title or text.
        own: the events whose item is the recommended item itself.
        evidence: the evidence of each event in nats, under the recommender's own template.
        elsewhere: the evidence of each event in nats, under the other template.
        left_out: for each method of choosing events, the drop in the score when the first one, two
            and three events are left out, in nats under the other template.
        kept: for each method of choosing events, the drop in the score when only these events are
            kept, in nats under the other template.
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
        """The index of the event with the most evidence."""
        return int(np.argmax(self.evidence))


@dataclass(frozen=True)
class Curves:
    """The mean drop in scores for each number of events and each method of choosing them.

    Attributes:
        points: for each method, the mean drops for one, two and three events, with their intervals.
        area: for each method, the area under the curve, with its interval. The area is the mean of
            the drops for one, two and three events.
        minus: for each method, the mean difference between the area of ``named`` and the area of
            the method on the same users, with its interval.
    """

    points: dict[str, list[Interval]]
    area: dict[str, Interval]
    minus: dict[str, Interval]

    @classmethod
    def of(cls, falls: Sequence[Mapping[str, Sequence[float]]]) -> Curves:
        """Compute the curves from the drops in the scores of at least one user.

        Args:
            falls: for each user and method, the drops for one, two and three events.
        """
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
        """Return the curves as a dictionary of plain values that can be written as JSON."""
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
        dataset: the name of the dataset.
        system: the name of the recommender.
        protocol: the evaluation protocol; see ``genrec.evaluate``.
        split: the part of the data that contains the targets.
        fitted_on: the part of the data that was used to build the prior.
        template: the template that was used to measure the evidence.
        other: the template that was used to measure the drop in the score.
        style: the style of the sentences.
        encoder: the encoder that was used to compare titles.
        seed: the random seed for the sample of users and the random events.
        users: the result for each user.
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
        """The curves measured when the chosen events are left out; higher values are better.

        They are None if no sentence names an event.
        """
        return Curves.of([u.left_out for u in self.naming]) if self.naming else None

    @cached_property
    def sufficiency(self) -> Curves | None:
        """The curves measured when only the chosen events are kept; lower values are better.

        They are None if no sentence names an event.
        """
        return Curves.of([u.kept for u in self.naming]) if self.naming else None

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """The shares of users whose explanations have certain properties, with their intervals.

        A figure is left out if no user has a value.

        - ``generated``: the model wrote the sentence, so it does not come from a template
        - ``names_event``: the sentence names an event
        - ``names_strongest``: the sentence names the event with the most evidence (only users whose
          sentences name an event are counted)
        - ``strongest_is_item``: the item of the event with the most evidence is the recommended
          item itself
        - ``same_strongest``: the same event has the most evidence under both templates
        - ``rank_correlation``: this is not a share, but the mean of Spearman's rank correlation of
          the evidence under both templates
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
        """All unsupported claims as (user, sentence, claim). The list should be empty."""
        return [(u.user_id, u.text, why) for u in self.users for why in u.unsupported]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary of plain values that can be written as JSON.

        The judgements of individual users are not included.
        """
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
    """Compute Spearman's rank correlation, or return None if either sequence is constant."""
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(one), rankdata(two)])
    if (ranks.std(axis=1) == 0).any():
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
