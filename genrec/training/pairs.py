"""Sample, read and write labelled pairs of users and items."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS, History
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.recommender import Recommender
from genrec.training import config, export
from genrec.training.config import Training
from genrec.training.examples import mark_behaviors
from genrec.types import BoolArray, IntArray

LABELS = {"buy": 1, "yes": 1, "1": 1, "true": 1, "not_buy": 0, "no": 0, "0": 0, "false": 0}

PAIRS_PER_USER = 4  # in a validation


@dataclass(frozen=True, slots=True)
class Pair:
    """One user, one item, and whether they wanted it.

    Attributes:
        user_id: the user.
        first: place in the event columns of the first event that was not known yet.
        row: the item's.
        label: 1 or 0.
        event: place of the event that says so; for a random item of the one it stands beside.
    """

    user_id: str
    first: int
    row: int
    label: int
    event: int


def make_pairs(
    data: Dataset,
    training: Training,
    part: str = "train",
    *,
    behavior: str | None = None,
    wanted: BoolArray | None = None,
) -> list[Pair]:
    """The pairs of one part of the split, by user and time.

    Wanted are the items of events with the target behavior, each beside ``negatives`` random items
    that the user had neither before nor in the same basket; with a ``like_threshold`` the events'
    values say what was wanted and what not.

    Args:
        data: with a split.
        training: the settings.
        part: ``train`` (with ``fit="both"`` validation too), ``validation`` or ``test``.
        behavior: the target; None is the data's.
        wanted: (E,) the only events that may say something; all where None.

    Raises:
        SettingsError: no event has this behavior, or a value.
        DataError: all pairs, or none, are wanted.
    """
    events, c = data.interactions, data.interactions.columns
    label = _labels(data, training, behavior or data.info.target_behavior)
    inside = c.split == SPLITS.index(part)
    if part == "train":
        inside = c.split < SPLITS.index(training.before)
    if wanted is not None:
        inside &= wanted
    usual = 1 if training.like_threshold is None else 0
    n = usual if training.negatives is None else training.negatives
    rng = np.random.default_rng([training.seed, SPLITS.index(part)])
    found: list[Pair] = []
    for user in events.user_ids:
        where = events.events(user)
        said = where.start + np.flatnonzero(inside[where] & (label[where] >= 0))
        if not len(said):
            continue
        _, begins, basket = np.unique(c.unit[where], return_index=True, return_inverse=True)
        for at in said.tolist():
            unit = basket[at - where.start]
            first = where.start + int(begins[unit])
            found.append(Pair(user, first, int(c.row[at]), int(label[at]), at))
            if label[at] and n:
                seen = {*c.row[where.start : first].tolist()}
                seen |= {*c.row[where][basket == unit].tolist()}
                others = _random(rng, len(data.catalog), seen - {-1}, n)
                found += [Pair(user, first, row, 0, at) for row in others]
    _check_labels([p.label for p in found], f"{part} events")
    return found


def _labels(data: Dataset, training: Training, behavior: str) -> IntArray:
    """(E,) 1 where an event says that its item was wanted, 0 that it was not, -1 nothing."""
    events, c = data.interactions, data.interactions.columns
    says = (c.row >= 0) & mark_behaviors(events, training)
    threshold = training.like_threshold
    if threshold is None:
        if behavior not in events.behaviors:
            msg = (
                f"No event has the behavior {behavior!r}. Expected one of: "
                f"{', '.join(events.behaviors)}, as target_behavior, or a like_threshold."
            )
            raise SettingsError(msg)
        says &= c.behavior == events.behaviors.index(behavior)
        return np.where(says, 1, -1)
    says &= np.isfinite(c.value)
    if not says.any():
        msg = (
            f"like_threshold={threshold:g}, and no event has a value. Expected ratings, say; "
            "without a threshold all events with the target behavior are wanted."
        )
        raise SettingsError(msg)
    return np.where(says, np.where(c.value >= threshold, 1, 0), -1)


def _random(rng: np.random.Generator, n_items: int, seen: set[int], n: int) -> list[int]:
    """So many different rows that were not seen; fewer where there are not so many."""
    found: list[int] = []
    while len(found) < min(n, n_items - len(seen)):
        row = int(rng.integers(n_items))
        if row not in seen and row not in found:
            found.append(row)
    return found


def _check_labels(labels: Sequence[int], source: str) -> None:
    if len(set(labels)) < 2:
        what = f"all {len(labels):,} are {'yes' if labels[0] else 'no'}" if labels else "none"
        msg = (
            f"Pairs of the {source}: {what}. Expected some that were wanted and some that were "
            "not; check the split, --behaviors, --like-threshold and --negatives."
        )
        raise DataError(msg)


def read_pairs(path: str | Path) -> tuple[list[str], list[int]]:
    """Texts and labels (1 or 0) of a file with the columns text and label.

    Raises:
        DataError: a column is missing, a text is empty or a label is not known; the message names
            the row.
    """
    source = Path(path).name
    rejects = Rejects(source, strict=True)
    table = files.read(path, rejects=rejects, scalar=("text", "label"))
    arrow.require_columns(table, ("text", "label"), source)
    texts, said = arrow.to_strings(table["text"]), arrow.to_strings(table["label"])
    labels = []
    for number, text, label in zip(arrow.row_numbers(table), texts, said, strict=True):
        problem = "the text is empty" if not text else ""
        if label.lower() not in LABELS:
            problem = f"label {label!r} is not known"
        if problem:
            msg = (
                f"{source}, data row {number}: {problem}. Expected a text, and one of the labels "
                "buy and not_buy, yes and no, 1 and 0. Mend the row."
            )
            raise DataError(msg)
        labels.append(LABELS[label.lower()])
    _check_labels(labels, f"rows of {source}")
    return texts, labels


def training_pairs(
    data: Dataset,
    training: Training,
    *,
    behavior: str | None = None,
    wanted: BoolArray | None = None,
) -> list[Pair]:
    """The pairs that are learned from: those of train, of each user the latest ``pairs_per_user``."""
    found = make_pairs(data, training, behavior=behavior, wanted=wanted)
    if training.pairs_per_user is None:
        return found
    of_user = itertools.groupby(found, key=lambda p: p.user_id)
    return [p for _, some in of_user for p in list(some)[-training.pairs_per_user :]]


def write_pairs(
    data: Dataset,
    out: str | Path,
    model: str | LanguageModel = "smollm2-135m",
    *,
    log: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> int:
    """Writes the pairs that are learned from, one text and label a row, as ``--pairs`` takes them.

    Args:
        data: with a split.
        out: the file, .jsonl or .parquet.
        model: whose tokenizer counts the tokens of histories.
        log: called with a line of text before each slow step.
        **settings: as of ``train``.

    Returns:
        How many were written.

    Raises:
        SettingsError: a setting or the file's ending is not known, or does not fit the data.
        DataError: all pairs, or none, are wanted.
    """
    export.check_ending(out)
    ours, training = config.resolve({**settings, "objective": "pointwise"})
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    recommender = Recommender(data, model, log=log, **asdict(replace(ours, prior="none")))
    question, events = recommender.question, data.interactions
    learned = events.columns.split < SPLITS.index(training.before)
    shown = mark_behaviors(events, training) & learned
    chosen = training_pairs(data, training, behavior=recommender.behavior)

    def rows() -> Iterator[dict[str, Any]]:
        for user, some in itertools.groupby(chosen, key=lambda p: p.user_id):
            where = events.events(user)
            places = where.start + np.flatnonzero(shown[where])
            known = [events.interaction(i) for i in places.tolist()]
            for pair in some:
                history = History(tuple(known[: int(np.searchsorted(places, pair.first))]))
                yield {
                    "text": question.words(history, pair.row),
                    "label": "buy" if pair.label else "not_buy",
                    "user_id": user,
                    "item_id": data.catalog[pair.row].item_id,
                }

    return export.write(out, rows())


def sample_pairs(
    found: Sequence[Pair], users: int, each: int = PAIRS_PER_USER, seed: int = 0
) -> list[Pair]:
    """Up to so many pairs of so many users, the same every time, in their order."""
    rng = np.random.default_rng(seed)
    of_user = [list(some) for _, some in itertools.groupby(found, key=lambda p: p.user_id)]
    chosen = []
    for user in sorted(rng.permutation(len(of_user))[:users].tolist()):
        some = of_user[user]
        chosen += [some[i] for i in sorted(rng.permutation(len(some))[:each].tolist())]
    return chosen
