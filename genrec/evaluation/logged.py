"""Estimate from the random lists of a service how another way of recommending would be accepted.

With ``search="sample"``, the service records the probability p with which each item was drawn. If a
policy would put item a first with probability q(a), the acceptance of the first item under this policy is
estimated from the lists that were shown, with r = 1 if the first item was accepted:

    IPS = mean of w r            with w = q(a) / p
    SNIPS = sum of w r / sum of w

(Horvitz and Thompson 1952; Swaminathan and Joachims 2015, The self-normalized estimator for
counterfactual learning, https://papers.nips.cc/paper/2015/hash/39027dfad5138c9ca0c474d71db915c3).
IPS is unbiased, and SNIPS varies less. Both estimate the share of lists whose first item would be
accepted; the other places are not used, because what is shown there depends on the items before it.
Intervals are 95%, by bootstrap over users, since the lists of one user resemble each other.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genrec.config import QueryOptions
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.data.exports import Export, KeptList
from genrec.errors import DataError, RequestError
from genrec.evaluation.bootstrap import Interval
from genrec.recommender import Recommender
from genrec.types import FloatArray, IntArray

_DRAWS = 2000  # resamples of the users
_CELLS = 1 << 22  # values that are resampled at once
FEWEST = 200  # lists to which the weighted lists should at least be equivalent
_FEWEST_USERS = 100
HEAVIEST = 0.05  # share of all weight that one list should at most have
_TIMED = ("available_from", "available_until")
_BATCH = 8  # prompts that the model reads together


@dataclass(frozen=True, slots=True)
class LoggedEvaluation:
    """The estimates for one policy.

    Attributes:
        dataset: the name of the dataset.
        system: the policy.
        behaviors: the behaviors that count as accepting an item.
        lists: the number of lists that were used.
        users: the number of their users and sessions.
        skipped: the number of lists that could not be used, for each reason.
        logged: the acceptance of the first items that were shown.
        ips, snips: the estimated acceptance under the policy. ``snips`` is None if the policy would have
            shown none of the items.
        effective_lists: (sum of w)^2 / (sum of w^2): the lists of its own that the policy would need for
            about the same precision.
        heaviest: the largest share of the total weight that one list has.
        warnings: reasons why the estimates may be unreliable.
    """

    dataset: str
    system: str
    behaviors: tuple[str, ...]
    lists: int
    users: int
    skipped: Mapping[str, int]
    logged: Interval
    ips: Interval
    snips: Interval | None
    effective_lists: float
    heaviest: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as values for JSON."""
        return {"schema_version": 1, **asdict(self), "skipped": dict(self.skipped)}


def evaluate_logged(
    recommender: Recommender,
    export: Export,
    *,
    behaviors: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> LoggedEvaluation:
    """Estimate how the first items of a recommender's lists would be accepted.

    Each list is made again for the history that the user had then, with the options of the request. If
    the recommender's setting ``search`` is ``sample``, q(a) is the probability of a draw; otherwise, it is 1
    if the recommender puts a first, and 0 if not. Items that the service added are known; blocked
    items and the stock of the time are not.

    Args:
        recommender: the policy. Its dataset is the one that the service was started with.
        export: what the service kept.
        behaviors: the behaviors that count as accepting an item; the target behavior if empty.
        options: options that replace those of the requests.
        progress: a function that is called with the number of lists that have been made again.

    Raises:
        DataError: the export has no random lists of users or sessions, or the recommender has no dataset.
    """
    dataset = recommender.dataset
    if dataset is None:
        raise DataError("The recommender has no dataset. Expected the one that the service used.")
    recommender.put_items(export.items, [i for i in export.removed if i in recommender.catalog])
    wanted = tuple(behaviors) or (recommender.behavior,)
    usable, skipped = _usable(recommender, export)
    if not usable:
        found = ", ".join(f"{n:,} {why}" for why, n in skipped.items()) or "there are none"
        msg = (
            f"The export has no random lists that can be used ({found}). Expected lists that the service "
            "made for users with search=sample."
        )
        raise DataError(msg)
    chances = _chances(recommender, export, dataset, usable, options or {}, progress)
    kept = [n for n, chance in enumerate(chances) if chance is not None]
    if len(kept) < len(usable):
        skipped["whose options leave no item now"] += len(usable) - len(kept)
    lists = [usable[n] for n in kept]
    taken = {(e.list_id, e.interaction.item_id) for e in export.events
             if e.interaction.behavior in wanted}  # fmt: skip
    q = np.array([chances[n] for n in kept], dtype=np.float64)
    p = np.array([one.propensities[0] for one in lists], dtype=np.float64)
    r = np.array([float((one.list_id, one.item_ids[0]) in taken) for one in lists])
    owners = {owner: n for n, owner in enumerate(dict.fromkeys(_owner(one) for one in lists))}
    user = np.array([owners[_owner(one)] for one in lists], dtype=np.int64)
    estimates = estimate(q / p, r, user)
    return LoggedEvaluation(
        dataset=dataset.info.name,
        system=_describe(recommender),
        behaviors=wanted,
        lists=len(lists),
        users=len(owners),
        skipped=dict(skipped),
        **estimates,
    )


def estimate(weights: FloatArray, accepted: FloatArray, user: IntArray) -> dict[str, Any]:
    """Compute the estimates from L lists.

    Args:
        weights: (L,) q(a) / p of the first item of each list.
        accepted: (L,) 1 if it was accepted, and 0 if not.
        user: (L,) the number of the list's user, from 0.

    Returns:
        The fields ``logged``, ``ips``, ``snips``, ``effective_lists``, ``heaviest`` and ``warnings`` of
        ``LoggedEvaluation``.
    """
    columns = [np.ones_like(weights), accepted, weights, weights * accepted]
    sums = np.stack([np.bincount(user, values) for values in columns], axis=1).astype(np.float64)
    draws = _resampled(sums)
    count, taken, weight, both = sums.sum(axis=0).tolist()
    effective = weight**2 / float((weights**2).sum()) if weight else 0.0
    heaviest = float(weights.max()) / weight if weight else 0.0
    return {
        "logged": _interval(taken / count, draws[:, 1] / draws[:, 0]),
        "ips": _interval(both / count, draws[:, 3] / draws[:, 0]),
        "snips": _snips(both, weight, draws),
        "effective_lists": effective,
        "heaviest": heaviest,
        "warnings": _warnings(weight, effective, heaviest, len(sums)),
    }


def _snips(both: float, weight: float, draws: FloatArray) -> Interval | None:
    """Return the self-normalized estimate; None if all weights are 0."""
    if not weight:
        return None
    known = draws[:, 2] > 0  # a resample without any weight says nothing
    return _interval(both / weight, draws[known, 3] / draws[known, 2])


def _resampled(sums: FloatArray) -> FloatArray:
    """Return the (D, C) sums of D resamples of the users.

    Args:
        sums: (U, C) the sums of each user.
    """
    rng, users = np.random.default_rng(0), len(sums)
    together = max(1, _CELLS // (users * sums.shape[1]))
    parts = []
    for first in range(0, _DRAWS, together):
        size = min(together, _DRAWS - first), users
        parts.append(sums[rng.integers(0, users, size)].sum(axis=1))
    return np.concatenate(parts)


def _interval(mean: float, draws: FloatArray) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return Interval(mean, low, high)


def _warnings(weight: float, effective: float, heaviest: float, users: int) -> tuple[str, ...]:
    found = []
    if not weight:
        found.append(
            "The policy would have put none of the items first, so nothing is known about it."
        )
    elif effective < FEWEST:
        found.append(
            f"The lists are worth {effective:.0f} lists of this policy, fewer than {FEWEST}. The policy "
            "differs much from the one that made them; collect more random lists."
        )
    if heaviest > HEAVIEST:
        found.append(
            f"One list has {heaviest:.0%} of all weight, so the estimates depend on what happened to it."
        )
    if users < _FEWEST_USERS:
        found.append(f"There are {users} users, which is few for intervals by bootstrap.")
    return tuple(found)


def _usable(recommender: Recommender, export: Export) -> tuple[list[KeptList], Counter[str]]:
    """Return the random lists whose first item was drawn for a user or a session."""
    usable, skipped = [], Counter[str]()
    for one in export.lists:
        if one.fallback:
            skipped["made by counting because the model was late"] += 1
        elif not one.propensities or one.propensities[0] is None:
            skipped["not drawn at random"] += 1
        elif one.owner is None:
            skipped["of neither a user nor a session"] += 1
        elif one.options.get("pin"):
            skipped["with pinned items"] += 1
        elif one.item_ids[0] not in recommender.catalog or one.item_ids[0] in export.removed:
            skipped["whose first item is not in the catalog"] += 1
        else:
            usable.append(one)
    return usable, skipped


def _chances(
    recommender: Recommender,
    export: Export,
    dataset: Dataset,
    lists: Sequence[KeptList],
    changes: Mapping[str, Any],
    progress: Callable[[int], None],
) -> list[float | None]:
    """Return q(a) of the first item of each list; None if the options leave no item."""
    groups: dict[str, list[int]] = defaultdict(list)
    timed = any(name in recommender.catalog.columns for name in _TIMED)
    for n, one in enumerate(lists):
        at = one.options.get("at", one.shown if timed else "any")
        given = {**one.options, "at": at, **changes, "explain": False}
        groups[json.dumps(given, sort_keys=True)].append(n)
    found: list[float | None] = [None] * len(lists)
    done = 0
    for text, numbers in groups.items():
        options = QueryOptions.of(**json.loads(text))
        for first in range(0, len(numbers), _BATCH):
            some = numbers[first : first + _BATCH]
            histories = [
                export.history(dataset, str(o.owner), is_session=o.is_session, before=o.shown)
                for o in (lists[n] for n in some)
            ]
            items = [lists[n].item_ids[0] for n in some]
            with contextlib.suppress(RequestError):  # the filters leave no item
                for n, chance in zip(
                    some, _first(recommender, histories, items, options), strict=True
                ):
                    found[n] = chance
            done += len(some)
            progress(done)
    return found


def _first(
    recommender: Recommender,
    histories: Sequence[History],
    items: Sequence[str],
    options: QueryOptions,
) -> list[float | None]:
    """Return, for each history, the probability with which the recommender puts an item first."""
    if recommender.settings.search == "sample":
        return [
            recommender.propensities(history, [item], options=options)[0]
            for history, item in zip(histories, items, strict=True)
        ]
    answers = recommender.recommend_many(histories, 1, batch_size=_BATCH, options=options)
    return [
        float(answer[0].item_id == item) if answer else None
        for answer, item in zip(answers, items, strict=True)
    ]


def _owner(one: KeptList) -> tuple[str, bool]:
    return str(one.owner), one.is_session


def _describe(recommender: Recommender) -> str:
    """Name the policy by the run or the model, its role and its search."""
    run = recommender.run_folder
    name = recommender.model.name if run is None else run.name
    ranker = "" if recommender.ranker == "none" else f", ranker {recommender.ranker}"
    return f"{name} ({recommender.fusing.role}{ranker}, search {recommender.settings.search})"
