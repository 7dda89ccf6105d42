"""Estimate what a user will do next: the probabilities of the behaviors, by counting.

Three counts are combined, each shrunk towards the one before:

1. how often each behavior follows the latest one among all users, shrunk towards the shares of the
   behaviors;
2. the user's own behaviors, where recent events weigh more;
3. what the user's own events with the latest behavior were followed by, with the same weights.

With weights w of the user's events, T the first count's probability, and strengths a and c,

    own(b) = (sum of w of events with behavior b + a T(b)) / (sum of w + a),
    P(b) = (sum of w of followers with behavior b + c own(b)) / (sum of w of followers + c).

The half-life of the weights and the two strengths are those from a small grid under which the last
events of the users in the train part are likeliest. This module knows behaviors as numbers only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.events import History, count_splits
from genrec.data.interactions import Interactions
from genrec.types import FloatArray, IntArray

HALF_LIVES = (2.0, 8.0, 32.0, 128.0)
STRENGTHS = (1.0, 4.0, 16.0, 64.0, 1e6)  # the last one leaves the user's own events out
_TRANSITIONS = 10.0  # events of the average user that are added to each row of the transitions
_USERS = 2_000  # users whose last events choose the half-life and the strengths
_EVENTS = 500  # latest events of a user that are read


@dataclass(frozen=True, eq=False)
class BehaviorCounts:
    """What all users did, and how much a user's own events count.

    Attributes:
        behaviors: the B behaviors.
        shares: (B,) share of each behavior among all events.
        transitions: (B, B) probability of each behavior (column) after the latest one (row).
        half_life: number of later events after which an event weighs half as much.
        own: the strength ``a`` of the module's docstring.
        followed: the strength ``c`` of the module's docstring.
    """

    behaviors: tuple[str, ...]
    shares: FloatArray
    transitions: FloatArray
    half_life: float = 8.0
    own: float = 4.0
    followed: float = 16.0

    @classmethod
    def count(cls, interactions: Interactions, before: str = "end") -> BehaviorCounts:
        """Count the events of all users, and choose the half-life and the strengths.

        Args:
            interactions: the events.
            before: ``validation`` to count events of the train part only, ``test`` to count those of
                the train and validation parts, ``end`` to count all events.
        """
        c, names = interactions.columns, interactions.behaviors
        counted = c.split < count_splits(before)
        user, code = c.user[counted], c.behavior[counted]
        after = np.zeros((len(names), len(names)))
        same = user[1:] == user[:-1]
        np.add.at(after, (code[:-1][same], code[1:][same]), 1.0)
        shares = (np.bincount(code, minlength=len(names)) + 1.0) / (len(code) + len(names))
        made = cls(names, shares, _shrink(after, shares))
        starts = [0, *(np.flatnonzero(user[1:] != user[:-1]) + 1).tolist()]
        ends = [*starts[1:], len(user)]
        spans = [(s, e) for s, e in zip(starts, ends, strict=True) if e - s > 1]
        chosen = np.random.default_rng(0).permutation(len(spans))[:_USERS]
        some = [code[spans[n][0] : spans[n][1]] for n in sorted(chosen.tolist())]
        return made._fitted(after, some) if some else made

    def _fitted(self, after: FloatArray, users: Sequence[IntArray]) -> BehaviorCounts:
        """Return the counts with the half-life and the strengths of the likeliest last events.

        Each last event is taken out of the transitions before it is predicted.
        """
        best, least = self, np.inf
        for half_life in HALF_LIVES:
            parts = []
            for codes in users:
                last, target = codes[-2], codes[-1]
                row = after[last].copy()
                row[target] -= 1.0
                base = _shrink(row[None], self.shares)[0]
                parts.append((base, *_own_counts(codes[:-1], len(self.behaviors), half_life)))
            for own, followed in itertools.product(STRENGTHS, STRENGTHS):
                nats = 0.0
                for (base, mine, then), codes in zip(parts, users, strict=True):
                    nats -= np.log(_combine(base, mine, then, own, followed)[codes[-1]])
                if nats < least:
                    least = nats
                    best = BehaviorCounts(
                        self.behaviors, self.shares, self.transitions, half_life, own, followed
                    )
        return best

    def probabilities(self, history: History) -> FloatArray:
        """Return (B,) the probability that the next event of a history has each behavior.

        Behaviors that the counts do not know are skipped. An empty history gives the shares of the
        behaviors among all events.
        """
        place = {name: n for n, name in enumerate(self.behaviors)}
        known = [place[e.behavior] for e in history.interactions if e.behavior in place]
        if not known:
            return self.shares
        codes = np.array(known, dtype=np.int64)
        mine, then = _own_counts(codes, len(self.behaviors), self.half_life)
        return _combine(self.transitions[codes[-1]], mine, then, self.own, self.followed)


def fuse(counted: FloatArray, model: FloatArray, a: float, c: float) -> FloatArray:
    """Combine counted probabilities with those of a model: P is proportional to counted^a model^c.

    Args:
        counted: (U, B) or (B,) positive probabilities.
        model: probabilities of the same shape.
        a: the exponent of the counted ones.
        c: the exponent of the model's.
    """
    logs = a * np.log(counted) + c * np.log(np.maximum(model, 1e-30))
    shifted = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def _shrink(after: FloatArray, shares: FloatArray) -> FloatArray:
    """Turn counts of transitions to probabilities, shrunk towards the shares of the behaviors."""
    total = after.sum(axis=1, keepdims=True)
    return np.asarray((after + _TRANSITIONS * shares) / (total + _TRANSITIONS))


def _own_counts(codes: IntArray, n: int, half_life: float) -> tuple[FloatArray, FloatArray]:
    """Return the weighted counts of a user's behaviors, and of those that followed the latest one."""
    codes = codes[-_EVENTS:]
    weights = 0.5 ** (np.arange(len(codes))[::-1] / half_life)
    mine, then = np.zeros(n), np.zeros(n)
    np.add.at(mine, codes, weights)
    after = np.flatnonzero(codes[:-1] == codes[-1]) + 1
    np.add.at(then, codes[after], weights[after])
    return mine, then


def _combine(
    base: FloatArray, mine: FloatArray, then: FloatArray, own: float, followed: float
) -> FloatArray:
    """Combine the three counts; see the module's docstring."""
    first = (mine + own * base) / (mine.sum() + own)
    return np.asarray((then + followed * first) / (then.sum() + followed))
