"""Sample, read and write labeled pairs of a user and an item for yes-or-no training.

This module deals with events and files, not with losses.
"""

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

PAIRS_PER_USER = 4  # the maximum number of validation pairs per user


@dataclass(frozen=True, slots=True)
class Pair:
    """A user and an item, with a label that says whether the user wanted the item.

    Attributes:
        user_id: the id of the user.
        first: the index of the first event after the history, among all events of the data.
        row: the catalog row of the item.
        label: 1 if the user wanted the item, 0 otherwise.
        event: the index of the event from which the label is derived. For a random negative, this
            is the event of the wanted item that it is paired with.
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
    """Create the labeled pairs of one part of the data, ordered by user and time.

    Items of events with the target behavior count as wanted. For each wanted item, ``negatives``
    random items are drawn from the items that the user interacted with neither earlier nor in the
    same basket. With a ``like_threshold``, an item counts as wanted if the value of its event
    reaches the threshold.

    Args:
        data: a dataset with a split.
        training: the training settings.
        part: ``train``, ``validation`` or ``test``. With ``fit="both"``, ``train`` includes the
            validation part.
        behavior: the target behavior; None for the dataset's target behavior.
        wanted: a mask over all events that is True for events that may provide labels; None for
            all.

    Raises:
        SettingsError: no event has this behavior, or a threshold is set but no event has a value.
        DataError: all pairs have the same label, or there are no pairs.
    """
    events, c = data.interactions, data.interactions.columns
    label = _label_events(data, training, behavior or data.info.target_behavior)
    inside = c.split == SPLITS.index(part)
    if part == "train":
        inside = c.split < SPLITS.index(training.before)
    if wanted is not None:
        inside &= wanted
    usual = 1 if training.like_threshold is None else 0
    n = usual if training.negatives is None else training.negatives
    rng = np.random.default_rng([training.seed, SPLITS.index(part)])
    pairs: list[Pair] = []
    for user in events.user_ids:
        where = events.events(user)
        labeled = where.start + np.flatnonzero(inside[where] & (label[where] >= 0))
        if not len(labeled):
            continue
        _, begins, basket = np.unique(c.unit[where], return_index=True, return_inverse=True)
        for at in labeled.tolist():
            unit = basket[at - where.start]
            first = where.start + int(begins[unit])
            pairs.append(Pair(user, first, int(c.row[at]), int(label[at]), at))
            if label[at] and n:
                seen = {*c.row[where.start : first].tolist()}
                seen |= {*c.row[where][basket == unit].tolist()}
                others = _draw_unseen(rng, len(data.catalog), seen - {-1}, n)
                pairs += [Pair(user, first, row, 0, at) for row in others]
    _check_labels([p.label for p in pairs], f"{part} events")
    return pairs


def _label_events(data: Dataset, training: Training, behavior: str) -> IntArray:
    """Label each event with 1 if its item was wanted, 0 if it was not wanted, and -1 if unknown."""
    events, c = data.interactions, data.interactions.columns
    usable = (c.row >= 0) & mark_behaviors(events, training)
    threshold = training.like_threshold
    if threshold is None:
        if behavior not in events.behaviors:
            msg = (
                f"No event has the behavior {behavior!r}. Expected target_behavior to be one of these: "
                f"{', '.join(events.behaviors)}. You can also set like_threshold instead."
            )
            raise SettingsError(msg)
        usable &= c.behavior == events.behaviors.index(behavior)
        return np.where(usable, 1, -1)
    usable &= np.isfinite(c.value)
    if not usable.any():
        msg = (
            f"like_threshold={threshold:g} needs events with values, such as ratings, but no event "
            "has a value. Expected data with values. If you leave the threshold out, every item of an "
            "event with the target behavior counts as wanted."
        )
        raise SettingsError(msg)
    return np.where(usable, np.where(c.value >= threshold, 1, 0), -1)


def _draw_unseen(rng: np.random.Generator, n_items: int, seen: set[int], n: int) -> list[int]:
    """Randomly draw at most n different catalog rows that the user has not seen."""
    rows: list[int] = []
    while len(rows) < min(n, n_items - len(seen)):
        row = int(rng.integers(n_items))
        if row not in seen and row not in rows:
            rows.append(row)
    return rows


def _check_labels(labels: Sequence[int], source: str) -> None:
    """Check that there are pairs with both labels.

    Args:
        labels: the labels of the pairs, 1 or 0.
        source: a description of where the pairs come from, for use in messages.

    Raises:
        DataError: all labels are the same, or there are no pairs.
    """
    if len(set(labels)) < 2:
        if labels:
            problem = (
                f"All {len(labels):,} pairs from the {source} have the label "
                f"{'yes' if labels[0] else 'no'}"
            )
        else:
            problem = f"There are no pairs in the {source}"
        msg = (
            f"{problem}. Expected some items that were wanted and some that were not; check the "
            "split, --behaviors, --like-threshold and --negatives."
        )
        raise DataError(msg)


def read_pairs(path: str | Path) -> tuple[list[str], list[int]]:
    """Read texts and their labels from a file with the columns text and label.

    Returns:
        The texts, and a label of 1 or 0 for each text.

    Raises:
        DataError: a column is missing, a text is empty or a label is unknown. The message gives
            the row number.
    """
    source = Path(path).name
    rejects = Rejects(source, strict=True)
    table = files.read(path, rejects=rejects, scalar=("text", "label"))
    arrow.require_columns(table, ("text", "label"), source)
    texts, words = arrow.to_strings(table["text"]), arrow.to_strings(table["label"])
    labels = []
    for number, text, word in zip(arrow.row_numbers(table), texts, words, strict=True):
        problem = "the text is empty" if not text else ""
        if word.lower() not in LABELS:
            problem = f"the label {word!r} is unknown"
        if problem:
            msg = (
                f"{source}, data row {number}: {problem}. Expected a text and one of the labels buy, "
                "not_buy, yes, no, 1 or 0. Fix the row."
            )
            raise DataError(msg)
        labels.append(LABELS[word.lower()])
    _check_labels(labels, f"rows of {source}")
    return texts, labels


def make_training_pairs(
    data: Dataset,
    training: Training,
    *,
    behavior: str | None = None,
    wanted: BoolArray | None = None,
) -> list[Pair]:
    """Create the training pairs, and keep only the latest ``pairs_per_user`` pairs of each user.

    Args:
        data: a dataset with a split.
        training: the training settings.
        behavior: the target behavior; None for the dataset's target behavior.
        wanted: a mask over all events that is True for events that may provide labels; None for
            all.
    """
    pairs = make_pairs(data, training, behavior=behavior, wanted=wanted)
    if training.pairs_per_user is None:
        return pairs
    of_user = itertools.groupby(pairs, key=lambda p: p.user_id)
    return [p for _, some in of_user for p in list(some)[-training.pairs_per_user :]]


def write_pairs(
    data: Dataset,
    out: str | Path,
    model: str | LanguageModel = "smollm2-135m",
    *,
    log: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> int:
    """Write the training pairs to a file that ``genrec train --pairs`` accepts.

    Each row contains a text, a label, the user id and the item id.

    Args:
        data: a dataset with a split.
        out: the path of the .jsonl or .parquet file to write.
        model: the model whose tokenizer is used to count the tokens of histories.
        log: a function that is called with a line of text before each slow step.
        **settings: settings as in ``train``.

    Returns:
        The number of pairs written.

    Raises:
        SettingsError: a setting or the file extension is unknown, or a setting does not suit the
            data.
        DataError: all pairs have the same label, or there are no pairs.
    """
    export.check_file(out)
    ours, training = config.resolve({**settings, "objective": "pointwise"})
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    data = data.with_context(ours.context_names)
    recommender = Recommender(data, model, log=log, **asdict(replace(ours, prior="none")))
    question, events = recommender.question, data.interactions
    learned = events.columns.split < SPLITS.index(training.before)
    shown = mark_behaviors(events, training) & learned
    chosen = make_training_pairs(data, training, behavior=recommender.behavior)

    def rows() -> Iterator[dict[str, Any]]:
        for user, some in itertools.groupby(chosen, key=lambda p: p.user_id):
            where = events.events(user)
            places = where.start + np.flatnonzero(shown[where])
            known = [events.interaction(i) for i in places.tolist()]
            for pair in some:
                before = known[: int(np.searchsorted(places, pair.first))]
                history = History(tuple(before), context=events.context_at(pair.first))
                yield {
                    "text": question.words(history, pair.row),
                    "label": "buy" if pair.label else "not_buy",
                    "user_id": user,
                    "item_id": data.catalog[pair.row].item_id,
                }

    return export.write(out, rows())


def sample_pairs(
    pairs: Sequence[Pair], users: int, each: int = PAIRS_PER_USER, seed: int = 0
) -> list[Pair]:
    """Draw a random sample of users and pairs, and return the pairs in their original order.

    Args:
        pairs: the pairs, grouped by user.
        users: the maximum number of users to draw.
        each: the maximum number of pairs to draw per user.
        seed: the random seed.
    """
    rng = np.random.default_rng(seed)
    of_user = [list(some) for _, some in itertools.groupby(pairs, key=lambda p: p.user_id)]
    chosen = []
    for user in sorted(rng.permutation(len(of_user))[:users].tolist()):
        some = of_user[user]
        chosen += [some[i] for i in sorted(rng.permutation(len(some))[:each].tolist())]
    return chosen
