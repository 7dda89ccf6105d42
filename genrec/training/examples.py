"""Make the training examples: what one pass learns from, and how much each target counts.

Knows recommenders for their prompts and tries; nothing of losses.
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
from genrec.data.interactions import Interactions
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.recommender import Recommender
from genrec.training import config, export
from genrec.training.config import Training
from genrec.training.sequences import Row, RowMaker, RowOptions, make_rows, pack_rows
from genrec.training.title_paths import TitlePaths
from genrec.types import BoolArray, FloatArray

Titles = Sequence[tuple[int, ...]]
_DAY = 86_400.0
_HASHED = ("ids", "position", "limit", "branch", "before", "at", "item", "event")  # of each row


@dataclass(frozen=True, eq=False)
class Examples(TorchDataset[int]):
    """Packs of rows, with the weight of each target.

    Attributes:
        rows: all rows.
        weights: (targets,) for each row, the weights of its targets.
        packs: for each pack, the indices of the rows that it holds side by side.
    """

    rows: Sequence[Row]
    weights: Sequence[FloatArray]
    packs: Sequence[Sequence[int]]

    def __len__(self) -> int:
        """Return how many packs there are."""
        return len(self.packs)

    def __getitem__(self, index: int) -> int:
        """Return the index itself; ``objectives.Objective.batch`` makes tensors from several."""
        return index

    @cached_property
    def n_targets(self) -> int:
        """The number of titles that are predicted in one pass."""
        return sum(len(r.item) for r in self.rows)

    def fingerprint(self) -> str:
        """Hash all tokens, targets, weights and packs (SHA-256, hex).

        Checkpoints hold the hash, so it covers a fixed list of arrays in a fixed order.
        """
        packs = [[int(i) for i in pack] for pack in self.packs]
        digest = hashlib.sha256(json.dumps(packs).encode())
        for row, *more in zip(self.rows, *self._hashed_beside_rows(), strict=True):
            for part in [*(getattr(row, name) for name in _HASHED), *more]:
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def _hashed_beside_rows(self) -> list[Sequence[npt.NDArray[Any]]]:
        """Return the arrays, one for each row, that are hashed after the row's own."""
        return [self.weights]


def make_examples(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None = None,
    titles: Titles | None = None,
) -> tuple[Examples, TitlePaths]:
    """Make the examples of one pass over the data.

    Args:
        recommender: provides template, tokenizer and trie.
        data: a dataset with the split that training keeps to.
        training: the settings.
        wanted: (E,) which events may be targets; None for all.
        titles: token ids of each catalog row's title; None to make them here.

    Returns:
        The examples, and the paths of the trie's titles.

    Raises:
        SettingsError: a behavior is not in the data, or the model cannot take this layout.
        DataError: there is nothing to learn from.
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
            f"There is nothing to learn from: no event in {to_parts(training.before)} has an item of "
            "the catalog. Expected histories; check the split and --behaviors."
        )
        raise DataError(msg)
    plain = bool(recommender.model.obstacle)
    if plain and any((r.branch > 0).any() for r in rows):
        msg = (
            f"basket='tree' does not work with {recommender.model.name}, which takes no branches "
            f"({recommender.model.obstacle}). Expected basket='first' or layout='window'."
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
    """Build the row maker that the settings ask for."""
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
    return RowMaker(
        recommender.encoder,
        recommender.template,
        data.interactions,
        paths,
        options,
        titles=titles,
    )


def _read_examples(recommender: Recommender, training: Training, paths: TitlePaths) -> Examples:
    """Read the examples in a file; each has weight 1."""
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
        recommender.log(f"Left out {many:,} examples: {reason}")
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
    """Write one prompt and one title for every target of train, as JSON Lines or Parquet.

    Args:
        data: a dataset with a split.
        out: the file to write, .jsonl or .parquet.
        model: the model whose tokenizer counts the tokens of prompts.
        form: ``prompt-completion``, or ``messages`` of a user and an assistant.
        log: called with a line of text before each slow step.
        **settings: those of ``train``.

    Returns:
        How many examples were written.

    Raises:
        SettingsError: a setting, the form or the file's ending is not known.
        DataError: there is nothing to write.
    """
    export.check_output(out, form)
    ours, training = config.resolve(settings)
    training = replace(training, layout="window", basket=_basket_of_windows(training.basket))
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
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
            f"There is nothing to write: no event in {to_parts(training.before)} is a target. "
            "Expected histories; check the split."
        )
        raise DataError(msg)
    return many


def _basket_of_windows(basket: str) -> str:
    """Return the setting ``basket`` for targets that each have a prompt of their own."""
    return "first" if basket == "first" else "auto"


def mark_shown(data: Dataset, training: Training) -> BoolArray:
    """Return a mask, (E,), of the events that histories show in training."""
    known = data.interactions.columns.split < SPLITS.index(training.before)
    return known & mark_behaviors(data.interactions, training)


def mark_behaviors(events: Interactions, training: Training) -> BoolArray:
    """Return a mask, (E,), of the events whose behavior is among the setting ``behaviors``.

    Raises:
        SettingsError: a behavior is not in the data.
    """
    if training.behaviors is None:
        return np.ones(len(events), dtype=np.bool_)
    if unknown := [b for b in training.behaviors if b not in events.behaviors]:
        msg = (
            f"behaviors={unknown[0]!r} is not in the data. Expected names among: "
            f"{', '.join(events.behaviors)}."
        )
        raise SettingsError(msg)
    codes = [events.behaviors.index(b) for b in training.behaviors]
    return np.isin(events.columns.behavior, codes)


def _resolve_basket(training: Training, data: Dataset) -> str:
    """Return the setting ``basket``, with ``auto`` resolved."""
    if training.basket != "auto":
        return training.basket
    return "tree" if data.info.unit is not None else "as_is"


def build_paths(recommender: Recommender, training: Training, titles: Titles) -> TitlePaths:
    """Build the paths to all titles, or to those of the items that are not held out."""
    n = len(recommender.catalog)
    if not training.holdout:
        trie = recommender.trie
        assert isinstance(trie, TitleTrie)
        return TitlePaths(trie)
    kept = choose_kept_rows(n, training)
    return TitlePaths(TitleTrie([titles[r] for r in kept]), kept, n)


def choose_kept_rows(n: int, training: Training) -> npt.NDArray[np.int64]:
    """Draw which of n catalog rows are trained on, and return them in order."""
    order = np.random.default_rng(training.seed).permutation(n)
    return np.sort(order[: max(1, round(n * (1 - training.holdout)))])


def weigh_targets(rows: Sequence[Row], data: Dataset, training: Training) -> list[FloatArray]:
    """Return how much each row's targets count in the loss; the average is 1."""
    c = data.interactions.columns
    weight = np.ones(len(c.row))
    if training.recency_half_life is not None:
        if data.info.time_unit == "position":
            msg = (
                "recency_half_life needs times, but this data has only the order of events. Expected "
                "data with times; drop the setting."
            )
            raise SettingsError(msg)
        age = (c.timestamp[c.split == 0].max() - c.timestamp) / _DAY
        weight *= 0.5 ** (np.maximum(age, 0) / training.recency_half_life)
    for behavior, factor in training.behavior_weights.items():
        if behavior not in data.interactions.behaviors:
            msg = (
                f"behavior_weights names {behavior!r}, which is not in the data. Expected names among: "
                f"{', '.join(data.interactions.behaviors)}."
            )
            raise SettingsError(msg)
        weight[c.behavior == data.interactions.behaviors.index(behavior)] *= factor
    if training.popularity_strength:
        use = (c.split == 0) & (c.row >= 0)
        count = np.bincount(c.row[use], minlength=len(data.catalog)).astype(np.float64) + 1
        weight[c.row >= 0] *= count[c.row[c.row >= 0]] ** -training.popularity_strength
    mean = float(np.mean(weight[np.concatenate([r.event for r in rows])]))
    if not mean > 0:
        msg = "All targets have weight 0. Expected some above 0; check behavior_weights."
        raise SettingsError(msg)
    return [weight[r.event] / mean for r in rows]
