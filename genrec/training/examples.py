"""Create the training examples for one pass over the data, and compute the weights of their targets.

The prompts and the trie come from a recommender. Losses are computed elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset as TorchDataset

from genrec.config import to_parts
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS
from genrec.data.feedback import WEIGHT
from genrec.data.interactions import Interactions
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.recommender import Recommender
from genrec.training import config, export
from genrec.training.block_rows import BlockRowMaker
from genrec.training.config import Training
from genrec.training.sequences import Row, RowMaker, RowOptions, make_rows, pack_rows
from genrec.training.title_paths import TitlePaths
from genrec.types import BoolArray, FloatArray

Titles = Sequence[tuple[int, ...]]
_DAY = 86_400.0
_HASHED = (
    "ids",
    "position",
    "limit",
    "branch",
    "before",
    "at",
    "item",
    "event",
)  # attributes of each row


@dataclass(frozen=True, eq=False)
class Examples(TorchDataset[int]):
    """Training rows with the weights of their targets, grouped into packs.

    Attributes:
        rows: all training rows.
        weights: for each row, an array with the weight of each of its targets.
        packs: for each pack, the indices of the rows in it.
    """

    rows: Sequence[Row]
    weights: Sequence[FloatArray]
    packs: Sequence[Sequence[int]]

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self.packs)

    def __getitem__(self, index: int) -> int:
        """Return the given pack index; ``Objective.batch`` later turns the pack into tensors."""
        return index

    @cached_property
    def n_targets(self) -> int:
        """The number of targets in one pass over the data."""
        return sum(len(r.item) for r in self.rows)

    def fingerprint(self) -> str:
        """Compute a hash of all tokens, targets, weights and packs.

        Checkpoints store the hash, so it must always cover the same arrays in the same order.

        Returns:
            The SHA-256 hash in hexadecimal.
        """
        packs = [[int(i) for i in pack] for pack in self.packs]
        digest = hashlib.sha256(json.dumps(packs).encode())
        for row, *more in zip(self.rows, *self._hashed_beside_rows(), strict=True):
            for part in [*(getattr(row, name) for name in (*_HASHED, *row.more)), *more]:
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def _hashed_beside_rows(self) -> list[Sequence[npt.NDArray[Any]]]:
        """Return the lists of arrays that the hash covers in addition to the rows.

        Each list contains one array for each row.
        """
        return [self.weights]


def make_examples(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None = None,
    titles: Titles | None = None,
) -> tuple[Examples, TitlePaths]:
    """Create the training examples for one pass over the data.

    Args:
        recommender: the recommender whose template, tokenizer and trie are used.
        data: the dataset, with the split to use for training.
        training: the training settings.
        wanted: a mask over all events that is True for events that may be targets; None for all.
        titles: the token ids of each catalog row's title; if None, they are computed here.

    Returns:
        The examples, and the paths to all titles in the trie.

    Raises:
        SettingsError: a behavior is not in the data, or the model does not support this layout.
        DataError: there are no targets to train on.
    """
    events = data.interactions
    titles = list(recommender.encoder.titles(recommender.catalog)) if titles is None else titles
    paths = build_paths(recommender, training, titles)
    if training.examples is not None:
        return _read_examples(recommender, training, paths), paths
    shown = mark_shown(data, training)
    maker = build_row_maker(recommender, data, training, paths, titles)
    rows = make_rows(maker, events, shown, shown if wanted is None else shown & wanted)
    if not rows:
        msg = (
            f"There is nothing to train on, because no event in {to_parts(training.before)} has an "
            "item in the catalog. Expected histories with known items; check the split and --behaviors."
        )
        raise DataError(msg)
    plain = bool(recommender.model.obstacle)
    if plain and any((r.branch > 0).any() for r in rows):
        msg = (
            f"basket='tree' does not work with {recommender.model.name}, which cannot process token "
            f"trees: {recommender.model.obstacle}. Expected basket='first' or layout='window'."
        )
        raise SettingsError(msg)
    weights = weigh_targets(rows, data, training)
    packs = [[i] for i in range(len(rows))] if plain else pack_rows(rows, training.pack_tokens)
    return Examples(rows, weights, packs), paths


def build_row_maker(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    paths: TitlePaths,
    titles: Titles,
) -> RowMaker:
    """Create an object that turns histories into training rows.

    Args:
        recommender: the recommender whose template, encoder and prompt settings are used.
        data: the dataset whose events are used.
        training: the training settings.
        paths: the paths to all titles in the trie.
        titles: the token ids of each catalog row's title.
    """
    settings = recommender.settings
    options = RowOptions(
        basket=_resolve_basket(training, data),
        layout=training.layout,
        whole_titles=training.vocab_weight > 0,
        max_events=settings.max_events,
        max_tokens=training.pack_tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
        overlap=training.overlap,
        scale=recommender.scale if settings.values else None,
    )
    shared = (recommender.encoder, recommender.template, data.interactions, paths, options)
    if settings.recent is not None:
        return BlockRowMaker(*shared, titles=titles, recent=settings.recent)
    return RowMaker(*shared, titles=titles)


def _read_examples(recommender: Recommender, training: Training, paths: TitlePaths) -> Examples:
    """Read the examples from the file given by the settings, each with weight 1."""
    assert training.examples is not None
    rows, rejected = export.read_rows(
        export.read(training.examples),
        recommender.encoder,
        recommender.catalog,
        paths,
        training.pack_tokens,
        whole_titles=training.vocab_weight > 0,
    )
    for reason, many in rejected.items():
        recommender.log(f"Skipped {many:,} examples for this reason: {reason}.")
    ones = [np.ones(1) for _ in rows]
    plain = bool(recommender.model.obstacle)
    packs = [[i] for i in range(len(rows))] if plain else pack_rows(rows, training.pack_tokens)
    return Examples(rows, ones, packs)


def write_examples(
    data: Dataset,
    out: str | Path,
    model: str | LanguageModel = "smollm2-135m",
    *,
    form: str = "prompt-completion",
    log: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> int:
    """Write each training target with its prompt to a file, for use with other training programs.

    Args:
        data: a dataset with a split.
        out: the path of the .jsonl or .parquet file to write.
        model: the model whose tokenizer is used to count the tokens of prompts.
        form: ``prompt-completion``, or ``messages`` for a user's message and an assistant's
            message.
        log: a function that is called with a line of text before each slow step.
        **settings: settings as in ``train``.

    Returns:
        The number of examples written.

    Raises:
        SettingsError: a setting, the format or the file extension is unknown.
        DataError: there are no targets to write.
    """
    export.check_output(out, form)
    ours, training = config.resolve(settings)
    training = replace(training, layout="window", basket=_basket_of_windows(training.basket))
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    data = data.with_context(ours.context_names)
    recommender = Recommender(data, model, log=log, **asdict(replace(ours, prior="none")))
    titles = list(recommender.encoder.titles(recommender.catalog))
    maker = build_row_maker(
        recommender, data, training, build_paths(recommender, training, titles), titles
    )
    shown = mark_shown(data, training)
    written = export.make_examples(
        maker, recommender.encoder, data.interactions, shown, shown, form
    )
    many = export.write(out, written)
    if not many:
        msg = (
            f"There is nothing to write, because no event in {to_parts(training.before)} is a target. "
            "Expected histories with targets; check the split and --behaviors."
        )
        raise DataError(msg)
    return many


def _basket_of_windows(basket: str) -> str:
    """Return the value of ``basket`` to use if each target has its own prompt."""
    return "first" if basket == "first" else "auto"


def mark_shown(data: Dataset, training: Training) -> BoolArray:
    """Create a mask over all events that is True for events that appear in training histories."""
    known = data.interactions.columns.split < SPLITS.index(training.before)
    if training.holdout_users:
        known = known & ~mark_held_out(data.interactions, training)
    return known & mark_behaviors(data.interactions, training)


def mark_held_out(events: Interactions, training: Training) -> BoolArray:
    """Create a mask over all events that is True for those of the users who are held out.

    Whether a user is held out depends only on the id, the seed and ``holdout_users``.
    """
    drawn = [_draw(user, training.seed) < training.holdout_users for user in events.user_ids]
    return np.array(drawn, dtype=np.bool_)[events.columns.user]


def _draw(user_id: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on a user's id and on a seed only."""
    text = f"held out {seed} {user_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64


def mark_behaviors(events: Interactions, training: Training) -> BoolArray:
    """Create a mask over all events that is True for the behaviors to train on.

    These are the behaviors listed in the setting ``behaviors``, or all behaviors if it is None.

    Raises:
        SettingsError: a behavior is not in the data.
    """
    if training.behaviors is None:
        return np.ones(len(events), dtype=np.bool_)
    if unknown := [b for b in training.behaviors if b not in events.behaviors]:
        msg = (
            f"behaviors={unknown[0]!r} is not in the data. Expected one or more of: "
            f"{', '.join(events.behaviors)}."
        )
        raise SettingsError(msg)
    codes = [events.behaviors.index(b) for b in training.behaviors]
    return np.isin(events.columns.behavior, codes)


def _resolve_basket(training: Training, data: Dataset) -> str:
    """Return the value of ``basket``, replacing ``auto`` with the value that suits the data."""
    if training.basket != "auto":
        return training.basket
    return "tree" if data.info.unit is not None else "as_is"


def build_paths(recommender: Recommender, training: Training, titles: Titles) -> TitlePaths:
    """Find the paths to the titles of all items that are not held out.

    Args:
        recommender: the recommender whose catalog and trie are used.
        training: the training settings, whose ``holdout`` is the fraction of items to hold out.
        titles: the token ids of each catalog row's title.
    """
    n = len(recommender.catalog)
    if not training.holdout:
        trie = recommender.trie
        assert isinstance(trie, TitleTrie)
        return TitlePaths(trie)
    kept = choose_kept_rows(n, training)
    return TitlePaths(TitleTrie([titles[r] for r in kept]), kept, n)


def choose_kept_rows(n: int, training: Training) -> npt.NDArray[np.int64]:
    """Randomly choose the catalog rows to train on, holding out the fraction ``holdout``.

    Args:
        n: the number of catalog rows.
        training: the training settings.

    Returns:
        The rows to train on, in ascending order.
    """
    order = np.random.default_rng(training.seed).permutation(n)
    return np.sort(order[: max(1, round(n * (1 - training.holdout)))])


def weigh_targets(rows: Sequence[Row], data: Dataset, training: Training) -> list[FloatArray]:
    """Compute the weight of each target in the loss, scaled so that the mean weight is 1.

    Depending on the settings, the weights take into account the target's age, behavior and
    popularity. Feedback that was weighted by position has its weight in a column of the data.

    Args:
        rows: the training rows.
        data: the dataset that the rows were made from.
        training: the training settings.

    Returns:
        For each row, an array with the weight of each of its targets.

    Raises:
        SettingsError: a setting does not suit the data, or all weights are 0.
    """
    c = data.interactions.columns
    weight = np.ones(len(c.row))
    attributes = data.interactions.attributes
    if attributes is not None and WEIGHT in attributes.column_names:
        weight *= attributes[WEIGHT].cast("double").fill_null(1.0).to_numpy()
    if training.recency_half_life is not None:
        if data.info.time_unit == "position":
            msg = (
                "recency_half_life needs timestamps, but this data has only the order of events. "
                "Expected data with timestamps, or recency_half_life to be left out."
            )
            raise SettingsError(msg)
        age = (c.timestamp[c.split == 0].max() - c.timestamp) / _DAY
        weight *= 0.5 ** (np.maximum(age, 0) / training.recency_half_life)
    for behavior, factor in training.behavior_weights.items():
        if behavior not in data.interactions.behaviors:
            msg = (
                f"behavior_weights contains {behavior!r}, which is not in the data. Expected one or "
                f"more of: {', '.join(data.interactions.behaviors)}."
            )
            raise SettingsError(msg)
        weight[c.behavior == data.interactions.behaviors.index(behavior)] *= factor
    if training.popularity_strength:
        use = (c.split == 0) & (c.row >= 0)
        count = np.bincount(c.row[use], minlength=len(data.catalog)).astype(np.float64) + 1
        weight[c.row >= 0] *= count[c.row[c.row >= 0]] ** -training.popularity_strength
    mean = float(np.mean(weight[np.concatenate([r.event for r in rows])]))
    if not mean > 0:
        msg = "All targets have weight 0. Expected some weights above 0; check behavior_weights."
        raise SettingsError(msg)
    return [weight[r.event] / mean for r in rows]
