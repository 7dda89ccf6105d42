"""Define evaluation protocols, which choose the users, their histories and their targets.

A protocol returns a list of ``Case`` objects. A case holds indices into the data's columns and
builds its history on demand, so many cases need little memory. This module deals with data only,
not with the systems that are evaluated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS, History, split_code
from genrec.data.interactions import Interactions
from genrec.data.splits import (
    hold_last_train_unit,
    hold_latest_train,
    is_test_after_train,
    split_global_time,
    split_last_unit,
)
from genrec.errors import DataError, RequestError
from genrec.types import BoolArray, IntArray

DEMO_V1_MIN_EARLIER = 5  # the number of earlier purchases that demo-v1 requires
EVENTS = 25  # the maximum length of a history in demo-v1 and last-out
CANDIDATES = 20  # the number of candidates in candidates-20, including the target
_KEPT_PER_HELD_OUT = 4  # the number of train events that must remain for each one held out
PARTS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Case:
    """An evaluation case: a user, a history and the items to predict.

    Attributes:
        user_id: the user.
        target: the item that came next.
        basket: all items of the unit that came next, with the target first.
        events: the data.
        at: the index of the target in the data's columns.
        shown: (n,) indices of the events that the system may see, oldest first.
        repeats: for each item of the basket, True if it counts as seen in the events shown (see
            ``History.had``); False if it is new to the user.
        candidates: the items to rank, including the target; None for the whole catalog.
    """

    user_id: str
    target: str
    basket: tuple[str, ...]
    events: Interactions = field(repr=False, compare=False)
    at: int = field(repr=False, compare=False)
    shown: IntArray = field(repr=False, compare=False)
    repeats: tuple[bool, ...]
    candidates: tuple[str, ...] | None = None

    @property
    def history(self) -> History:
        """The events that the system may see, oldest first, and the context of the target."""
        seen = tuple(map(self.events.interaction, self.shown.tolist()))
        return History(seen, self.user_id, self.events.context_at(self.at))

    @property
    def repeat(self) -> bool:
        """True if the target is a repeat; False if it is new to the user."""
        return self.repeats[0]

    @property
    def same_kind(self) -> tuple[str, ...]:
        """The basket's repeats if the target is a repeat; otherwise its new items."""
        pairs = zip(self.basket, self.repeats, strict=True)
        return tuple(item_id for item_id, repeat in pairs if repeat == self.repeat)


def last_unit(dataset: Dataset, split: str = "test") -> list[Case]:
    """Return the cases of protocol ``last-unit``.

    The target is each user's last unit with the target behavior (for split ``validation``, the unit
    before that). A unit is a basket if the data has baskets, otherwise an event. The history
    consists of all earlier events, of any behavior.

    Args:
        dataset: a dataset split by last unit (see ``apply_protocol``).
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split)


def demo_v1(dataset: Dataset, split: str = "test") -> list[Case]:
    """Return the cases of protocol ``demo-v1``, which only considers purchases.

    The target is the first item, in file order, of each user's last purchase invoice (for split
    ``validation``, the invoice before it). The history consists of the latest 25 purchases before
    the target; users with fewer than 5 earlier purchases are left out. Seen items may be
    recommended.

    Args:
        dataset: ``genrec.datasets.load("online_retail_demo")``, or a dataset of the same kind.
        split: ``test`` or ``validation``.
    """
    c = dataset.interactions.columns
    wanted = c.behavior == dataset.interactions.behaviors.index(dataset.info.target_behavior)
    return _cases(dataset, split, wanted, least=DEMO_V1_MIN_EARLIER, latest=EVENTS)


def last_out(dataset: Dataset, split: str = "test") -> list[Case]:
    """Return the cases of protocol ``last-out``, for data with several behaviors.

    The target is each user's last unit with the target behavior (for split ``validation``, the unit
    before that). The history consists of the latest 25 events before it, of any behavior; users
    without earlier events are left out. The recommender's settings determine whether seen items may
    be recommended.

    Args:
        dataset: a dataset with a split.
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split, least=1, latest=EVENTS)


def global_time(dataset: Dataset, split: str = "test") -> list[Case]:
    """Return the cases of protocol ``global-time``.

    The target is each user's first unit after a point in time. The history ends at that time, so it
    is empty for new users.

    Args:
        dataset: a dataset split by global time (see ``apply_protocol``).
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split)


def given(dataset: Dataset, split: str = "test") -> list[Case]:
    """Return the cases of protocol ``given``, for data with a split column.

    If a user has events before the part to evaluate, the target is the user's first unit in this
    part. In many published splits, all events of a user are in the same part. In that case, the
    target is the user's last unit, the history consists of everything before it, and users with
    only one unit are left out.

    Args:
        dataset: a dataset with a split that came from a split column.
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split, windows=True)


PROTOCOLS: dict[str, Callable[[Dataset, str], list[Case]]] = {
    "last-unit": last_unit,
    "demo-v1": demo_v1,
    "last-out": last_out,
    "global-time": global_time,
    "given": given,
}
_SPLIT_OF = {"last-unit": "last unit", "demo-v1": "last unit", "last-out": "last unit",
             "global-time": "global time", "given": "given"}  # fmt: skip
_SAMPLED = f"candidates-{CANDIDATES}"
NAMES = (*PROTOCOLS, _SAMPLED)


def default_protocol(dataset: Dataset) -> str:
    """Return the protocol that matches a dataset's split."""
    return {"global time": "global-time", "given": "given"}.get(dataset.info.split, "last-unit")


def apply_protocol(dataset: Dataset, protocol: str) -> Dataset:
    """Return the dataset with the split that a protocol needs, computing the split if necessary.

    Raises:
        RequestError: the protocol is unknown.
        DataError: the data cannot be split in this way.
    """
    if protocol not in NAMES:
        msg = f"Unknown value protocol={protocol!r}. Expected one of: {', '.join(NAMES)}."
        raise RequestError(msg)
    needed = _SPLIT_OF.get(protocol, dataset.info.split)
    if needed == dataset.info.split:
        return dataset
    if needed == "given":
        msg = (
            f"protocol='given' needs a split column, but the data is split by {dataset.info.split}. "
            "Prepare interactions with a split column, or use last-unit or global-time."
        )
        raise DataError(msg)
    if needed == "last unit":
        events = split_last_unit(dataset.interactions, dataset.info.target_behavior)
    elif dataset.info.time_unit == "position":
        msg = (
            "protocol='global-time' needs times, but the data has positions, which cannot be "
            "compared between users. Use last-unit."
        )
        raise DataError(msg)
    else:
        events = split_global_time(dataset.interactions)
    counts = np.bincount(events.columns.split, minlength=len(SPLITS)).tolist()
    info = replace(dataset.info, split=needed, split_events=dict(zip(SPLITS, counts, strict=True)))
    return replace(dataset, interactions=events, info=info)


def with_validation(dataset: Dataset, least: int) -> Dataset:
    """Return the dataset with enough validation users to fit a few parameters.

    A dataset is returned unchanged if it has at least ``least`` validation users, and at least half
    that number have a history. Otherwise, a new validation part is held out from train. If test is
    later than train for all users, the new part is the latest tenth of train, in which new items
    appear as they do in test. If test is not later, or if too few users in this tenth have a
    history, the new part is each user's last train unit. If neither option yields more users with a
    history, the dataset is returned unchanged.

    Do not evaluate a model on the new validation part if it was trained on the old train part,
    which contains these events.

    Args:
        dataset: a dataset with a split.
        least: the number of validation users that suffices.
    """
    target = dataset.info.target_behavior
    if target not in dataset.interactions.behaviors:
        return dataset
    events = dataset.interactions
    train, many, _ = events.users_with_target(target)
    if not train or (many >= least and 2 * count_with_history(dataset) >= least):
        return dataset
    held = []
    if dataset.info.time_unit != "position" and is_test_after_train(events):
        latest = hold_latest_train(events, target)
        kept, taken, _ = np.bincount(latest.columns.split, minlength=len(SPLITS))
        if kept >= _KEPT_PER_HELD_OUT * taken:  # with many simultaneous events, more may be taken
            held.append(latest)
    held.append(hold_last_train_unit(events, target))
    candidate, n = dataset, 0
    for interactions in held:
        candidate = replace(dataset, interactions=interactions)
        n = count_with_history(candidate)
        if n >= least:
            return candidate
    return candidate if n > count_with_history(dataset) else dataset


def withhold(dataset: Dataset, split: str) -> Dataset:
    """Return the dataset without the contents of the events in a split and in all later splits.

    Nothing that is fitted to the returned dataset can depend on the items of these events.
    Evaluations therefore pass only such datasets to the systems that they evaluate.

    Args:
        dataset: a dataset with the protocol's split.
        split: the split that contains the targets, ``validation`` or ``test``.
    """
    hidden = dataset.interactions.columns.split >= split_code(split)
    return replace(dataset, interactions=dataset.interactions.withhold(hidden))


def count_with_history(dataset: Dataset) -> int:
    """Count the validation cases that have a history."""
    try:
        cases = PROTOCOLS[default_protocol(dataset)](dataset, "validation")
    except RequestError:  # no user has a target
        return 0
    return sum(len(case.shown) > 0 for case in cases)


def with_target_behavior(dataset: Dataset, behavior: str) -> Dataset:
    """Return the dataset with a different target behavior, recomputing a split by last unit.

    Raises:
        DataError: no event has that behavior.
    """
    if behavior == dataset.info.target_behavior:
        return dataset
    events = split_last_unit(dataset.interactions, behavior)
    if dataset.info.split != "last unit":
        events = dataset.interactions
    info = dataset.info.with_target(behavior, events)
    return replace(dataset, interactions=events, info=info)


def cases(
    dataset: Dataset,
    protocol: str,
    split: str = "test",
    *,
    candidates: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> list[Case]:
    """Return the cases of the protocol with the given name.

    Args:
        dataset: a dataset with the protocol's split (see ``apply_protocol``).
        protocol: one of ``NAMES``. ``candidates-20`` uses the protocol of the dataset's split, but
            gives each case 20 candidates: the target and 19 random items that are in neither the
            user's history nor the basket.
        split: ``test`` or ``validation``.
        candidates: the items to rank for each user_id, instead of random items (``candidates-20``
            only).
        seed: the seed of the random candidates.

    Raises:
        RequestError: the protocol or split is unknown, or there are no users to recommend to.
    """
    if split not in PARTS:
        msg = f"Unknown value split={split!r}. Expected one of: {', '.join(PARTS)}."
        raise RequestError(msg)
    dataset = apply_protocol(dataset, protocol)
    base = default_protocol(dataset) if protocol == _SAMPLED else protocol
    chosen = PROTOCOLS[base](dataset, split)
    if not chosen:
        msg = (
            f"No user has a {dataset.info.target_behavior!r} event in {split} that fits protocol "
            f"{protocol}. Expected at least one user. Use another split or protocol."
        )
        raise RequestError(msg)
    if protocol == _SAMPLED:
        return _add_candidates(dataset, chosen, candidates, seed)
    return chosen


def sample(cases: Sequence[Case], users: int | None, seed: int = 0) -> list[Case]:
    """Draw a random sample of users, keeping the order of the cases.

    The same seed gives the same sample, and a larger sample contains all smaller ones. If ``users``
    is None, all cases are returned.
    """
    if users is None or users >= len(cases):
        return list(cases)
    if users < 1:
        msg = f"users={users} is too small. Expected a number of at least 1."
        raise RequestError(msg)
    chosen = np.random.default_rng(seed).permutation(len(cases))[:users]
    return [cases[i] for i in sorted(chosen)]


def _cases(
    dataset: Dataset,
    split: str,
    wanted: BoolArray | None = None,
    *,
    least: int = 0,
    latest: int | None = None,
    windows: bool = False,
) -> list[Case]:
    """Return a case for every user with a target in the split and enough earlier events.

    Args:
        dataset: a dataset with a split.
        split: the part with the targets.
        wanted: an (E,) mask of the events to show; None for all.
        least: the number of earlier events that a user needs.
        latest: the number of latest events to show; None for all.
        windows: True to use a user's last unit as the target if all of the user's events are in
            this part.
    """
    events = dataset.interactions
    c = events.columns
    ids = [item.item_id for item in dataset.catalog]
    lead_in = dataset.info.lead_in_behaviors
    marks_seen = np.array([b not in lead_in for b in events.behaviors])[c.behavior]
    part = SPLITS.index(split)
    is_target = (c.behavior == events.behaviors.index(dataset.info.target_behavior)) & (c.row >= 0)
    cases = []
    for user in events.user_ids:
        where = events.events(user)
        places = np.arange(where.start, where.stop)
        inside = places[(c.split[where] == part) & is_target[where]]
        if not len(inside):
            continue
        earlier = places[c.split[where] < part]
        unit = c.unit[inside[0]]
        if windows and not len(earlier):
            unit = c.unit[inside[-1]]
            earlier = places[places < inside[c.unit[inside] == unit][0]]
            if not len(earlier):
                continue
        if wanted is not None:
            earlier = earlier[wanted[earlier]]
        if len(earlier) < least:
            continue
        targets = inside[c.unit[inside] == unit]
        basket = tuple(ids[row] for row in c.row[targets])
        shown = earlier[max(0, len(earlier) - latest) :] if latest else earlier
        repeats = np.isin(c.row[targets], c.row[shown[marks_seen[shown]]])
        cases.append(
            Case(user, basket[0], basket, events, int(targets[0]), shown, tuple(repeats.tolist()))
        )
    return cases


def _add_candidates(
    dataset: Dataset,
    cases: Sequence[Case],
    own: Mapping[str, Sequence[str]] | None,
    seed: int,
) -> list[Case]:
    """Add candidates to every case, either from the given lists or by drawing random items."""
    rng = np.random.default_rng(seed)
    catalog = dataset.catalog
    filled = []
    for case in cases:
        if own is not None:
            listed = tuple(dict.fromkeys(own.get(case.user_id, ())))
            if case.target not in listed:
                msg = (
                    f"The candidates of user {case.user_id!r} lack the target {case.target!r}. "
                    "Expected candidates for every user, including the target."
                )
                raise RequestError(msg)
            catalog.rows(listed)
        else:
            known = {*case.events.columns.row[case.shown].tolist(), *catalog.rows(case.basket)}
            many = min(len(catalog), CANDIDATES - 1 + len(known))
            drawn = rng.choice(len(catalog), many, replace=False).tolist()
            others = [row for row in drawn if row not in known]
            rows = [catalog.row(case.target), *others[: CANDIDATES - 1]]
            listed = tuple(catalog[rows[i]].item_id for i in rng.permutation(len(rows)))
        filled.append(replace(case, candidates=listed))
    return filled


def count_events(dataset: Dataset, before: str = "validation") -> IntArray:
    """Return an (N,) array with each item's number of events before a split, of any behavior."""
    c = dataset.interactions.columns
    use = (c.split < SPLITS.index(before)) & (c.row >= 0)
    return np.bincount(c.row[use], minlength=len(dataset.catalog))


def fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 hash (hex) of the catalog, the events and their split."""
    c = dataset.interactions.columns
    digest = hashlib.sha256(dataset.info.catalog_hash.encode())
    for array in (c.user, c.row, c.behavior, c.timestamp, c.unit, c.split):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\0".join(dataset.interactions.user_ids).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
