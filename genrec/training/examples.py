"""Learning: examples, what one pass of training learns from, and how much each target counts.

Knows recommenders for their prompts and tries; nothing of losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
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
from genrec.training.sequences import Row, RowMaker, TitlePaths, of_users, packed
from genrec.types import BoolArray, FloatArray

Titles = Sequence[tuple[int, ...]]
_DAY = 86_400.0


@dataclass(frozen=True, eq=False)
class Examples(TorchDataset[int]):
    """Packs of rows, with the weight of each target.

    Attributes:
        rows: all rows.
        weights: (targets,) of each row.
        packs: which rows stand side by side.
    """

    rows: Sequence[Row]
    weights: Sequence[FloatArray]
    packs: Sequence[Sequence[int]]

    def __len__(self) -> int:
        """How many packs there are."""
        return len(self.packs)

    def __getitem__(self, index: int) -> int:
        """The index itself; ``objectives.Objective.batch`` makes tensors of several."""
        return index

    @cached_property
    def n_targets(self) -> int:
        """How many titles are predicted in one pass."""
        return sum(len(r.item) for r in self.rows)

    def fingerprint(self) -> str:
        """Of all tokens, targets, weights and packs: equal where the same is learned."""
        digest = hashlib.sha256(repr([list(p) for p in self.packs]).encode())
        for row, *more in zip(self.rows, *self._beside(), strict=True):
            for part in [*(getattr(row, f.name) for f in fields(row)), *more]:
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def _beside(self) -> list[Sequence[npt.NDArray[Any]]]:
        """What each row has beside its tokens."""
        return [self.weights]


def examples(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None = None,
    titles: Titles | None = None,
) -> tuple[Examples, TitlePaths]:
    """What one pass learns from, and the trie's paths.

    Args:
        recommender: gives prompt, tokenizer and trie.
        data: with the split that training keeps to.
        training: the settings.
        wanted: (E,) the only events that may be targets; all where None.
        titles: token ids by catalog row; made here where None.

    Raises:
        SettingsError: behaviors are not in the data, or the model cannot take this layout.
        DataError: there is nothing to learn from.
    """
    events = data.interactions
    titles = list(recommender.encoder.titles(recommender.catalog)) if titles is None else titles
    paths = paths_of(recommender, training, titles)
    if training.examples is not None:
        return _of_file(recommender, training, paths), paths
    shown = shown_of(data, training)
    maker = maker_of(recommender, data, training, paths, titles)
    rows = of_users(maker, events, shown, shown if wanted is None else shown & wanted)
    if not rows:
        msg = (
            f"Nothing to learn from: no event in {to_parts(training.before)} has an item of the catalog. "
            "Expected histories; check the split and --behaviors."
        )
        raise DataError(msg)
    plain = bool(recommender.model.obstacle)
    if plain and any((r.branch > 0).any() for r in rows):
        msg = (
            f"basket='tree' with {recommender.model.name}, which takes no branches "
            f"({recommender.model.obstacle}). Expected basket='first' or layout='window'."
        )
        raise SettingsError(msg)
    weights = target_weights(rows, data, training)
    packs = [[i] for i in range(len(rows))] if plain else packed(rows, training.pack_tokens)
    return Examples(rows, weights, packs), paths


def maker_of(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    paths: TitlePaths,
    titles: Titles,
) -> RowMaker:
    """What makes rows as the settings say."""
    settings = recommender.settings
    return RowMaker(
        recommender.encoder,
        recommender.template,
        data.interactions,
        paths,
        basket=_basket(training, data),
        layout=training.layout,
        whole_titles=training.vocab_weight > 0,
        max_events=settings.max_events,
        max_tokens=training.pack_tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
        overlap=training.overlap,
        scale=recommender.scale if settings.values else None,
        titles=titles,
    )


def _of_file(recommender: Recommender, training: Training, paths: TitlePaths) -> Examples:
    """What a file of examples says, every example of weight 1."""
    assert training.examples is not None
    rows, rejected = export.rows(
        export.read(training.examples),
        recommender.encoder,
        recommender.catalog,
        paths,
        training.pack_tokens,
        whole_titles=training.vocab_weight > 0,
    )
    for reason, many in rejected.items():
        recommender.log(f"left out {many:,} examples: {reason}")
    ones = [np.ones(1) for _ in rows]
    plain = bool(recommender.model.obstacle)
    packs = [[i] for i in range(len(rows))] if plain else packed(rows, training.pack_tokens)
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
    """Writes one prompt and one title for every target of train, as JSON Lines or Parquet.

    Args:
        data: with a split.
        out: the file, .jsonl or .parquet.
        model: whose tokenizer counts the tokens of prompts.
        form: ``prompt-completion``, or ``messages`` of a user and an assistant.
        log: called with a line of text before each slow step.
        **settings: as of ``train``.

    Returns:
        How many were written.

    Raises:
        SettingsError: a setting, the form or the file's ending is not known.
        DataError: there is nothing to write.
    """
    export.check(out, form)
    ours, training = config.resolved(settings)
    training = replace(training, layout="window", basket=windowed(training.basket))
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    recommender = Recommender(data, model, log=log, **asdict(replace(ours, prior="none")))
    titles = list(recommender.encoder.titles(recommender.catalog))
    maker = maker_of(recommender, data, training, paths_of(recommender, training, titles), titles)
    shown = shown_of(data, training)
    found = export.examples(maker, recommender.encoder, data.interactions, shown, shown, form)
    many = export.write(out, found)
    if not many:
        msg = f"No event in {to_parts(training.before)} is a target. Expected histories; check the split."
        raise DataError(msg)
    return many


def windowed(basket: str) -> str:
    """What a basket is where each target has a prompt of its own."""
    return "first" if basket == "first" else "auto"


def shown_of(data: Dataset, training: Training) -> BoolArray:
    """(E,) which events histories show while training."""
    known = data.interactions.columns.split < SPLITS.index(training.before)
    return known & shown_events(data.interactions, training)


def shown_events(events: Interactions, training: Training) -> BoolArray:
    """(E,) the events with one of the ``behaviors`` that histories show.

    Raises:
        SettingsError: one of these is not in the data.
    """
    if training.behaviors is None:
        return np.ones(len(events), dtype=np.bool_)
    if unknown := [b for b in training.behaviors if b not in events.behaviors]:
        msg = (
            f"behaviors={unknown[0]!r} is not in the data. Expected some of: "
            f"{', '.join(events.behaviors)}."
        )
        raise SettingsError(msg)
    codes = [events.behaviors.index(b) for b in training.behaviors]
    return np.isin(events.columns.behavior, codes)


def _basket(training: Training, data: Dataset) -> str:
    if training.basket != "auto":
        return training.basket
    return "tree" if data.info.unit is not None else "as_is"


def paths_of(recommender: Recommender, training: Training, titles: Titles) -> TitlePaths:
    """Of the whole catalog, or without the items that are held out."""
    n = len(recommender.catalog)
    if not training.holdout:
        trie = recommender.trie
        assert isinstance(trie, TitleTrie)
        return TitlePaths(trie)
    kept = kept_rows(n, training)
    return TitlePaths(TitleTrie([titles[r] for r in kept]), kept, n)


def kept_rows(n: int, training: Training) -> npt.NDArray[np.int64]:
    """Which of n catalog rows are trained on: a seeded sample, in order."""
    order = np.random.default_rng(training.seed).permutation(n)
    return np.sort(order[: max(1, round(n * (1 - training.holdout)))])


def target_weights(rows: Sequence[Row], data: Dataset, training: Training) -> list[FloatArray]:
    """How much each target counts, 1 on average."""
    c = data.interactions.columns
    weight = np.ones(len(c.row))
    if training.recency_half_life is not None:
        if data.info.time_unit == "position":
            msg = "recency_half_life with positions, which are no times. Expected data with times."
            raise SettingsError(msg)
        age = (c.timestamp[c.split == 0].max() - c.timestamp) / _DAY
        weight *= 0.5 ** (np.maximum(age, 0) / training.recency_half_life)
    for behavior, factor in training.behavior_weights.items():
        if behavior not in data.interactions.behaviors:
            msg = (
                f"behavior_weights for {behavior!r}, which is not in the data. Expected some of: "
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
        msg = "All targets weigh 0. Expected some above; check behavior_weights."
        raise SettingsError(msg)
    return [weight[r.event] / mean for r in rows]
