"""Judgements of explanations, user by user, and the figures that are made of them. Knows no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from genrec.evaluation import bootstrap
from genrec.evaluation.bootstrap import Interval

WAYS = ("named", "evidence", "recent", "similar", "random")
SIZES = (1, 2, 3)  # events left out together, and kept


@dataclass(frozen=True, slots=True)
class Judged:
    """The explanation of one user's first recommendation. Events are places in the prompt, from 0.

    Attributes:
        user_id: the user.
        item_id: what was recommended.
        text: the sentence.
        source: ``generated`` or ``template``.
        rejected: what was written and did not pass, with the reason.
        unsupported: what the checker finds in the sentence.
        named: events whose titles the sentence names.
        own: events of the recommended item itself.
        evidence: nats of each event, under the recommender's own template.
        elsewhere: nats of each event under the other template.
        left_out: way -> the fall of the score without the first one, two and three events, in nats
            under the other template.
        kept: way -> the fall of the score with these alone.
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
    """The falls of the score by way, over the users whose sentences name an event.

    Attributes:
        points: way -> intervals for one, two and three events.
        area: way -> of the area under the curve, the mean over one, two and three.
        minus: way -> of the area of ``named`` less that of the way, user by user.
    """

    points: dict[str, list[Interval]]
    area: dict[str, Interval]
    minus: dict[str, Interval]

    @classmethod
    def of(cls, falls: Sequence[Mapping[str, Sequence[float]]]) -> Curves:
        """The curves of some users, at least one."""
        values = np.array([[user[way] for way in WAYS] for user in falls])  # users, ways, sizes
        area = values.mean(axis=2)
        points = [bootstrap.bootstraps(values[:, n]) for n in range(len(WAYS))]
        return cls(
            dict(zip(WAYS, points, strict=True)),
            dict(zip(WAYS, bootstrap.bootstraps(area), strict=True)),
            dict(zip(WAYS[1:], bootstrap.bootstraps(area[:, :1] - area[:, 1:]), strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
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
    """What was found.

    Attributes:
        dataset: its name.
        system: the recommender's name.
        protocol: see ``genrec.evaluate``.
        split: of the targets.
        fitted_on: what the prior counts.
        template: under which evidence was found.
        other: under which the score's fall was measured.
        style: of the sentences.
        encoder: what compares titles.
        seed: of the sample of users and of random events.
        users: one judgement each.
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
    users: Sequence[Judged]

    @cached_property
    def naming(self) -> list[Judged]:
        """Those whose sentences name an event."""
        return [u for u in self.users if u.named]

    @cached_property
    def deletion(self) -> Curves | None:
        """Events left out; None where no sentence names one."""
        return Curves.of([u.left_out for u in self.naming]) if self.naming else None

    @cached_property
    def sufficiency(self) -> Curves | None:
        """Only these events kept; None where no sentence names one. Less is better."""
        return Curves.of([u.kept for u in self.naming]) if self.naming else None

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """Shares of the users, and the rank correlation of evidence, where they can be had.

        ``generated``: sentences that the model wrote, all others being plain ones; ``names_event``:
        those that name one; ``names_strongest``: of these, those that name the event with the most
        evidence; ``strongest_is_item``: users whose strongest event is the item itself;
        ``same_strongest``: the same event is the strongest under both templates;
        ``rank_correlation``: Spearman's, over a user's events, between both templates.
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
        """User, sentence and what the checker finds in it; none is expected."""
        return [(u.user_id, u.text, why) for u in self.users for why in u.unsupported]

    def to_dict(self) -> dict[str, Any]:
        """The whole as plain values for JSON, without the users' lines."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "users"}
        return {
            "schema_version": 1,
            **said,
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
    """Spearman's rank correlation; None where one of them has the same value everywhere."""
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(one), rankdata(two)])
    if (ranks.std(axis=1) == 0).any():
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
