"""Find what a history speaks for: keywords that are more frequent in it than in all events.

A keyword is rated by the log-likelihood ratio G of its share in the history against its share in
all events (Dunning 1993), where recent events weigh more. With n the sum of the weights of all
events of the history, y that of the events whose items hold the keyword, and p the share of all
events of the dataset that hold it,

    G = 2 (y ln(y / (n p)) + (n - y) ln((n - y) / (n (1 - p)))).

A G above 3.84 would arise by chance for one keyword in twenty. This module counts events and knows
neither models nor texts that describe a profile.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.events import Interaction
from genrec.explain.claims import SPACELESS
from genrec.taste.keywords import KeywordIndex, key_of
from genrec.text import script
from genrec.types import FloatArray

HALF_LIFE = 30.0  # number of later events after which an event weighs half as much
CHANCE = 3.84  # the 95% quantile of the chi-squared distribution with one degree of freedom
SHIFT = 6.63  # the 99% quantile, since many keywords are compared
FEW = 4  # with fewer events than this, one event is enough for an interest
_SMOOTHING = 5.0  # events of the average user that are added to a history for the log-odds
_ALIKE = 0.8  # two keywords with this share of common events are one interest
_ALIKE_WORDS = 0.5  # the same, if they have a word in common


@dataclass(frozen=True, slots=True)
class Interest:
    """A keyword for which a history speaks.

    Attributes:
        keyword: the keyword as the titles of the events write it, in lower case.
        events: the indices of the events in the history whose items hold it, oldest first.
        share: the share of the history's events, weighted by recency.
        usual: the share of all events of the dataset whose items hold the keyword.
        log_odds: the smoothed log-odds of the keyword in the history, less its log-odds in all events.
        ratio: the log-likelihood ratio G by which interests are sorted.
        nats: the nats by which the items that hold the keyword together lose probability if these events
            are left out; None if it was not measured. It is negative if they gain.
        nats_model: the part of ``nats`` that is due to the model.
        nats_prior: the part of ``nats`` that is due to the prior.
        source: ``history``, or ``added`` if the user added the keyword.
    """

    keyword: str
    events: tuple[int, ...]
    share: float
    usual: float
    log_odds: float
    ratio: float
    nats: float | None = None
    nats_model: float | None = None
    nats_prior: float | None = None
    source: str = "history"


@dataclass(frozen=True, slots=True)
class Shift:
    """A keyword that is more or less frequent in the recent half of a history than before.

    Attributes:
        keyword: the keyword.
        recent: the number of events of the recent half whose items hold it.
        of_recent: the number of events in the recent half.
        earlier: the number of events of the earlier half whose items hold it.
        of_earlier: the number of events in the earlier half.
        ratio: the log-likelihood ratio G of the two shares.
    """

    keyword: str
    recent: int
    of_recent: int
    earlier: int
    of_earlier: int
    ratio: float

    @property
    def rises(self) -> bool:
        """True if the keyword is more frequent lately."""
        return self.recent * self.of_earlier > self.earlier * self.of_recent


def recency(n: int, half_life: float = HALF_LIFE) -> FloatArray:
    """Return (n,) weights of n events, oldest first; the latest one has weight 1.

    >>> recency(3, half_life=1).tolist()
    [0.25, 0.5, 1.0]
    """
    return np.asarray(0.5 ** (np.arange(n)[::-1] / half_life))


def likelihood_ratio(y: float, n: float, p: float) -> float:
    """Return G for y of n against a share p; see the module's docstring.

    >>> round(likelihood_ratio(5, 10, 0.1), 2), likelihood_ratio(1, 10, 0.1)
    (10.22, 0.0)
    """
    p = min(max(p, 1e-12), 1 - 1e-12)
    found = 0.0
    for part, expected in ((y, n * p), (n - y, n * (1 - p))):
        found += part * math.log(part / expected) if part > 0 else 0.0
    return max(2 * found, 0.0)


def find_interests(
    index: KeywordIndex,
    events: Sequence[Interaction],
    *,
    most: int = 8,
    without: Collection[str] = (),
) -> tuple[Interest, ...]:
    """Find the keywords for which a history speaks, strongest first.

    Args:
        index: the keywords of the items.
        events: the history, oldest first. Events without an item and items that are not in the
            catalog are skipped.
        most: the maximum number of interests.
        without: keywords to leave out, and all that contain them.
    """
    weights = recency(len(events))
    rows = {
        n: index.catalog.row(e.item_id)
        for n, e in enumerate(events)
        if e.item_id is not None and e.item_id in index.catalog
    }
    holding = _events_by_keyword(index, rows)
    n = float(sum(weights[list(rows)])) if rows else 0.0
    avoided = [key_of(word) for word in without]
    found = []
    for key, places in holding.items():
        if any(_contains(key, word) for word in avoided):
            continue
        if len(places) < 2 and len(rows) >= FEW:
            continue
        y, p = float(weights[list(places)].sum()), index.share(key)
        ratio = likelihood_ratio(y, n, p)
        if y <= n * p or ratio < CHANCE:
            continue
        smooth = (y + _SMOOTHING * p) / (n + _SMOOTHING)
        odds = math.log(smooth / (1 - smooth)) - math.log(p / (1 - p)) if 0 < p < 1 else 0.0
        shown = index.shown(key, [rows[i] for i in places])
        found.append((ratio, Interest(shown, places, y / n, p, odds, ratio)))
    found.sort(key=lambda pair: (-pair[0], -len(pair[1].keyword), pair[1].keyword))
    return _distinct([interest for _, interest in found], most)


def find_shifts(
    index: KeywordIndex,
    events: Sequence[Interaction],
    *,
    most: int = 3,
    without: Collection[str] = (),
) -> tuple[Shift, ...]:
    """Find the keywords whose share in the recent half of a history differs from the earlier half.

    Args:
        index: the keywords of the items.
        events: the history, oldest first.
        most: the maximum number of keywords that rise, and of those that fall.
        without: keywords to leave out, and all that contain them.
    """
    known = [
        index.catalog.row(e.item_id)
        for e in events
        if e.item_id is not None and e.item_id in index.catalog
    ]
    middle = len(known) // 2
    rows = dict(enumerate(known))
    avoided = [key_of(word) for word in without]
    found: list[tuple[Shift, Interest]] = []
    for key, places in _events_by_keyword(index, rows).items():
        if any(_contains(key, word) for word in avoided):
            continue
        recent = sum(place >= middle for place in places)
        earlier, of_recent = len(places) - recent, len(known) - middle
        share = len(places) / len(known)
        ratio = likelihood_ratio(recent, of_recent, share)
        ratio += likelihood_ratio(earlier, middle, share) if middle else 0.0
        if ratio < SHIFT:
            continue
        shown = index.shown(key, [rows[i] for i in places])
        shift = Shift(shown, recent, of_recent, earlier, middle, ratio)
        found.append((shift, Interest(shown, places, share, 0.0, 0.0, ratio)))
    found.sort(key=lambda pair: (-pair[0].ratio, -len(pair[0].keyword), pair[0].keyword))
    shifts: list[Shift] = []
    for rises in (True, False):
        some = {i.keyword: s for s, i in found if s.rises is rises}
        kept = _distinct([i for s, i in found if s.rises is rises], most)
        shifts += [some[i.keyword] for i in kept]
    return tuple(shifts)


def _events_by_keyword(index: KeywordIndex, rows: dict[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the events that hold each keyword of a history.

    A keyword is left out if a longer one contains it and belongs to the same items of the catalog, as
    "water bottle" does if there are only hot water bottles.

    Args:
        index: the keywords of the items.
        rows: the catalog row of each event, by its index.
    """
    places: defaultdict[int, list[int]] = defaultdict(list)
    for place, row in rows.items():
        places[row].append(place)
    swallowed: set[str] = set()
    for row in set(rows.values()):
        keys = sorted(index.of(row), key=len)
        for n, key in enumerate(keys):
            longer = [k for k in keys[n + 1 :] if _contains(k, key)]
            if longer and key not in swallowed:
                own = len(index.rows(key))
                if any(len(index.rows(k)) == own for k in longer):
                    swallowed.add(key)
    found = {}
    kept = {k for row in places for k in index.of(row)} - swallowed
    for key in sorted({index.whole(k) for k in kept}):
        held = [row for row in index.rows(key).tolist() if row in places]
        found[key] = tuple(sorted(place for row in held for place in places[row]))
    return found


def _contains(key: str, part: str) -> bool:
    """Return True if a keyword contains another one as whole words.

    In scripts without spaces, any place counts.
    """
    if part and script(part[0]) in SPACELESS:
        return part in key
    return f" {part} " in f" {key} "


def _distinct(found: Sequence[Interest], most: int) -> tuple[Interest, ...]:
    """Keep the first keywords, and leave out those that say the same as an earlier one."""
    kept: list[Interest] = []
    for one in found:
        words, events = set(key_of(one.keyword).split()), set(one.events)
        for other in kept:
            both = len(events & set(other.events)) / len(events | set(other.events))
            shared = words & set(key_of(other.keyword).split()) or _overlaps(one, other)
            within = events <= set(other.events)
            if both >= _ALIKE or (shared and (within or both >= _ALIKE_WORDS)):
                break
        else:
            kept.append(one)
        if len(kept) == most:
            break
    return tuple(kept)


def _overlaps(one: Interest, other: Interest) -> bool:
    """Return True if two keywords in a script without spaces share two adjacent characters."""
    pairs = [{k[i : i + 2] for i in range(len(k) - 1)} for k in (one.keyword, other.keyword)]
    spaceless = script(one.keyword[0]) in SPACELESS
    return spaceless and bool(pairs[0] & pairs[1])
