"""Protocols: whom to recommend to, from what, and what came next. Knows data, no systems.

A protocol gives a list of ``Case``. A case holds places in the data's columns, and its history is
built when it is asked for, so that many users are light.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS, History
from genrec.data.interactions import Interactions
from genrec.data.splits import (
    hold_last_train_unit,
    hold_latest_train,
    is_test_after_train,
    split_global_time,
    split_last_unit,
)
from genrec.errors import DataError, RequestError
from genrec.text import main_script
from genrec.types import BoolArray, IntArray

DEMO_V1_MIN_EARLIER = 5
EVENTS = 25
CANDIDATES = 20
_KEPT_FOR_EACH = 4  # events of train for each that is held out of it
PARTS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Case:
    """One user to recommend to.

    Attributes:
        user_id: the user.
        target: the item that came next.
        basket: all items of the unit that came next, the target first.
        events: the data.
        at: the target's place in its columns.
        shown: (n,) places of what the system may see, oldest first.
        candidates: where only these items are ranked, the target among them.
    """

    user_id: str
    target: str
    basket: tuple[str, ...]
    events: Interactions = field(repr=False, compare=False)
    at: int = field(repr=False, compare=False)
    shown: IntArray = field(repr=False, compare=False)
    candidates: tuple[str, ...] | None = None

    @property
    def history(self) -> History:
        """What the system may see, oldest first."""
        return History(tuple(map(self.events.interaction, self.shown.tolist())), self.user_id)


def last_unit(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``last-unit``.

    The last unit with the target behavior out (the one before it for split ``validation``): a
    basket where the data has baskets, else an event. The history is everything before it, of any
    behavior.

    Args:
        dataset: with a split by last unit (``apply_protocol`` makes one).
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split)


def demo_v1(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``demo-v1``.

    Purchases only, users with at least 5 earlier ones, the last purchase invoice out (the one
    before it for split ``validation``), history the latest 25 purchases, seen items may be
    recommended, the target is the invoice's first item in file order.

    Args:
        dataset: ``genrec.datasets.load("online_retail_demo")`` or one of the same kind.
        split: ``test`` or ``validation``.
    """
    c = dataset.interactions.columns
    wanted = c.behavior == dataset.interactions.behaviors.index(dataset.info.target_behavior)
    return _cases(dataset, split, wanted, least=DEMO_V1_MIN_EARLIER, latest=EVENTS)


def last_out(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``last-out``, for data of several behaviors.

    The last unit with the target behavior out (the one before it for split ``validation``),
    everybody who has events before it, history the latest 25 events of any behavior; whether seen
    items may be recommended is the recommender's setting.

    Args:
        dataset: with a split.
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split, least=1, latest=EVENTS)


def global_time(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``global-time``: each user's first unit after a moment in time.

    The history ends at that moment, and is empty for who comes new.

    Args:
        dataset: with a split by global time (``apply_protocol`` makes one).
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split)


def given(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``given``, for data with a split of its own.

    For a user with events before the part, the first unit of it. A user whose events all lie in the
    part is a window, as published splits have them: its last unit is the target, and what comes
    before it the history. A window of a single unit is left out.

    Args:
        dataset: with a split column as given.
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
    """The protocol that a dataset's own split is made for."""
    return {"global time": "global-time", "given": "given"}.get(dataset.info.split, "last-unit")


def apply_protocol(dataset: Dataset, protocol: str) -> Dataset:
    """The dataset with the split that a protocol needs; itself where it has that.

    Raises:
        RequestError: there is no such protocol.
        DataError: the split is ``given``, and the data has none.
    """
    if protocol not in NAMES:
        msg = f"protocol={protocol!r} is not known. Expected one of: {', '.join(NAMES)}."
        raise RequestError(msg)
    needed = _SPLIT_OF.get(protocol, dataset.info.split)
    if needed == dataset.info.split:
        return dataset
    if needed == "given":
        msg = (
            f"protocol='given' on data that is split by {dataset.info.split}. Expected interactions "
            "with a split column; use last-unit or global-time."
        )
        raise DataError(msg)
    if needed == "last unit":
        events = split_last_unit(dataset.interactions, dataset.info.target_behavior)
    elif dataset.info.time_unit == "position":
        msg = (
            "protocol='global-time' on positions, which cannot be compared between users. Expected "
            "times; use last-unit."
        )
        raise DataError(msg)
    else:
        events = split_global_time(dataset.interactions)
    counts = np.bincount(events.columns.split, minlength=len(SPLITS)).tolist()
    info = replace(dataset.info, split=needed, split_events=dict(zip(SPLITS, counts, strict=True)))
    return replace(dataset, interactions=events, info=info)


def with_validation(dataset: Dataset, least: int) -> Dataset:
    """The dataset with at least so many validation users, half with a history, to fit something small on.

    Itself where it has them, else one whose validation part is held out of train as test is: its latest
    tenth where test comes after train by time for all users, which has new items, too, as test has;
    else, or where few of those have a history, the last unit of everybody's. Itself, too, where that gives
    no more. Such a copy is not to be evaluated on: what was learned from train has seen that part.
    """
    target = dataset.info.target_behavior
    if target not in dataset.interactions.behaviors:
        return dataset
    events = dataset.interactions
    train, many, _ = events.users_with_target(target)
    if not train or (many >= least and 2 * with_history(dataset) >= least):
        return dataset
    held = []
    if dataset.info.time_unit != "position" and is_test_after_train(events):
        latest = hold_latest_train(events, target)
        kept, taken, _ = np.bincount(latest.columns.split, minlength=len(SPLITS))
        if kept >= _KEPT_FOR_EACH * taken:  # events of one moment may be many more than a tenth
            held.append(latest)
    held.append(hold_last_train_unit(events, target))
    found, n = dataset, 0
    for each in held:
        found = replace(dataset, interactions=each)
        n = with_history(found)
        if n >= least:
            return found
    return found if n > with_history(dataset) else dataset


def with_history(dataset: Dataset) -> int:
    """How many validation cases have a history."""
    try:
        cases = PROTOCOLS[default_protocol(dataset)](dataset, "validation")
    except RequestError:  # nobody
        return 0
    return sum(len(case.shown) > 0 for case in cases)


def with_target_behavior(dataset: Dataset, behavior: str) -> Dataset:
    """The dataset with another behavior to recommend for, and split by its last unit anew.

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
    """The cases of a protocol by name.

    Args:
        dataset: with the protocol's split (``apply_protocol``).
        protocol: one of ``NAMES``; ``candidates-20`` is the protocol of the dataset's own split with
            the target and 19 seeded random items that the user's history and basket lack.
        split: ``test`` or ``validation``.
        candidates: user_id -> the items to rank in place of random ones (``candidates-20`` only).
        seed: of the random candidates.

    Raises:
        RequestError: there is no such protocol or split, or nobody to recommend to.
    """
    if split not in PARTS:
        msg = f"split={split!r} is not known. Expected one of: {', '.join(PARTS)}."
        raise RequestError(msg)
    dataset = apply_protocol(dataset, protocol)
    base = default_protocol(dataset) if protocol == _SAMPLED else protocol
    found = PROTOCOLS[base](dataset, split)
    if not found:
        msg = (
            f"Nobody has a {dataset.info.target_behavior!r} event in {split} that protocol "
            f"{protocol} asks for. Expected at least one user; use another split or protocol."
        )
        raise RequestError(msg)
    if protocol == _SAMPLED:
        return _with_candidates(dataset, found, candidates, seed)
    return found


def sample(cases: Sequence[Case], users: int | None, seed: int = 0) -> list[Case]:
    """The same seeded sample of users every time, in the order of the cases; all for None.

    A larger sample holds the smaller one.
    """
    if users is None or users >= len(cases):
        return list(cases)
    if users < 1:
        msg = f"users={users}. Expected 1 or more."
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
    """Everybody with a target in the split and at least so many earlier events to show.

    Args:
        dataset: with a split.
        split: the part that holds the targets.
        wanted: (E,) which events are shown; all where None.
        least: how many events have to come before the target.
        latest: how many of them are shown.
        windows: whether a user all of whose events lie in the part has the last unit out.
    """
    events = dataset.interactions
    c = events.columns
    ids = [item.item_id for item in dataset.catalog]
    part = SPLITS.index(split)
    is_target = (c.behavior == events.behaviors.index(dataset.info.target_behavior)) & (c.row >= 0)
    found = []
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
        found.append(Case(user, basket[0], basket, events, int(targets[0]), shown))
    return found


def _with_candidates(
    dataset: Dataset,
    cases: Sequence[Case],
    own: Mapping[str, Sequence[str]] | None,
    seed: int,
) -> list[Case]:
    rng = np.random.default_rng(seed)
    catalog = dataset.catalog
    found = []
    for case in cases:
        if own is not None:
            listed = tuple(dict.fromkeys(own.get(case.user_id, ())))
            if case.target not in listed:
                msg = (
                    f"The candidates of user {case.user_id!r} lack the target {case.target!r}. "
                    "Expected every user's candidates, the target among them."
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
        found.append(replace(case, candidates=listed))
    return found


def count_events(dataset: Dataset, before: str = "validation") -> IntArray:
    """(N,) how many events of any behavior each item has before a split."""
    c = dataset.interactions.columns
    use = (c.split < SPLITS.index(before)) & (c.row >= 0)
    return np.bincount(c.row[use], minlength=len(dataset.catalog))


def label_slices(
    dataset: Dataset, cases: Sequence[Case], before: str = "validation"
) -> dict[str, list[str]]:
    """What each case is of: one label a case, by kind of slice.

    ``item``: whether the target has an event before the split, ``user`` likewise; ``history``:
    its length in events; ``target_events``: of the target before the split; ``last_behavior``: of
    the last event shown; ``script``: of the target's title.

    Args:
        dataset: with the protocol's split.
        cases: of it.
        before: the split before which systems were fitted.
    """
    c = dataset.interactions.columns
    popularity = count_events(dataset, before)
    fitted = np.bincount(
        c.user[c.split < SPLITS.index(before)], minlength=len(dataset.interactions.user_ids)
    )
    rows = dataset.catalog.rows([case.target for case in cases])
    behaviors = dataset.interactions.behaviors
    first = [dataset.interactions.events(case.user_id).start for case in cases]
    return {
        "item": ["warm" if popularity[row] else "cold" for row in rows],
        "user": ["warm" if fitted[c.user[place]] else "cold" for place in first],
        "history": [_bin(len(case.shown), (1, 5, 10, 25)) for case in cases],
        "target_events": [_bin(int(popularity[row]), (1, 5, 20, 100)) for row in rows],
        "last_behavior": [
            behaviors[c.behavior[case.shown[-1]]] if len(case.shown) else "none" for case in cases
        ],
        "script": [main_script([dataset.catalog[row].title]) for row in rows],
    }


def _bin(n: int, edges: Sequence[int]) -> str:
    """The name of the bin that holds n.

    >>> [_bin(n, (1, 5, 10)) for n in (0, 1, 4, 5, 10, 11)]
    ['0', '1-4', '1-4', '5-9', '10+', '10+']
    """
    bounds = [0, *edges]
    low = max(b for b in bounds if b <= n)
    above = [b for b in bounds if b > n]
    if not above:
        return f"{low}+"
    return str(low) if above[0] == low + 1 else f"{low}-{above[0] - 1}"


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) of the catalog, the events and their split."""
    c = dataset.interactions.columns
    digest = hashlib.sha256(dataset.info.catalog_hash.encode())
    for array in (c.user, c.row, c.behavior, c.timestamp, c.unit, c.split):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\0".join(dataset.interactions.user_ids).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
