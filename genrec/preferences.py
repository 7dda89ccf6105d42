"""Softmax-DPO: the true next item against several that the model itself would have listed.

A second stage, after a run that imitates: for each history the model lists items, those that were not
taken are the negatives, and the adapter is trained on so that the taken one gains on all of them at
once, measured from where the model stood when the stage began. History, taken and other items are one
row, whose titles are branches that do not see each other.

Source: Chen et al., On Softmax Direct Preference Optimization for Recommendation, NeurIPS 2024,
https://arxiv.org/abs/2406.09215; here with the model's own lists for the random negatives, and with
probabilities over the catalog's trie.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from genrec import learning
from genrec.dataset import Dataset
from genrec.errors import DataError, SettingsError
from genrec.interactions import History
from genrec.learning import Examples
from genrec.losses import CatalogLoss, batch
from genrec.model import LanguageModel
from genrec.objectives import Goal
from genrec.recipe import Training
from genrec.recommender import Recommender
from genrec.rows import RowMaker, TitlePaths, packed

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
NEGATIVES = 4
LISTS = "negatives.jsonl"  # in the run folder: what the model listed, so that it is asked once
_TOGETHER = 8  # histories that are asked about in one call
_MOST = 16  # taken items in a row; a larger basket has several


@dataclass(frozen=True, slots=True)
class Choice:
    """One history and what was taken after it.

    Attributes:
        history: what was known.
        ids: the prompt.
        events: places of the events in the columns.
        taken: their catalog rows.
        basket: the catalog rows of all that was taken with them, which are no negatives.
    """

    history: History
    ids: tuple[int, ...]
    events: tuple[int, ...]
    taken: tuple[int, ...]
    basket: frozenset[int]


@dataclass(frozen=True, eq=False)
class Preferred(Examples):
    """Packs of rows; the first targets of a row were taken, the others were not.

    Attributes:
        taken: how many of each row's targets were.
    """

    taken: Sequence[int]

    @cached_property
    def n_targets(self) -> int:
        """How many items were taken, in one pass."""
        return sum(self.taken)


def prepared(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None,
    folder: Path,
) -> tuple[Preferred, TitlePaths]:
    """What is learned from, with the negatives that the model lists now.

    Args:
        recommender: of the model where the stage begins.
        data: with the split that training keeps to.
        training: the settings; no more histories are asked about than ``max_targets`` needs.
        wanted: (E,) the only events that may have been taken; all where None.
        folder: of the run, where the lists are kept.

    Raises:
        SettingsError: the model takes no branches, or the kept lists are of other data.
        DataError: there is nothing to learn from.
    """
    if recommender.model.obstacle:
        msg = (
            f"objective='sdpo' with {recommender.model.name}, which takes no branches "
            f"({recommender.model.obstacle}). Expected objective='next'."
        )
        raise SettingsError(msg)
    window = replace(training, layout="window", basket=learning.windowed(training.basket))
    titles = list(recommender.encoder.titles(recommender.catalog))
    paths = learning.paths_of(recommender, window, titles)
    maker = learning.maker_of(recommender, data, window, paths, titles)
    chosen = _sample(choices(maker, data, window, wanted), training)
    if not chosen:
        msg = "Nothing to learn from: no event is a target. Expected histories; check the split."
        raise DataError(msg)
    lists = [
        _others(listed, choice, paths, titles, training)
        for choice, listed in zip(
            chosen, _listed(recommender, chosen, training, folder / LISTS), strict=True
        )
    ]
    rows, taken = [], []
    for choice, listed in zip(chosen, lists, strict=True):
        for first in range(0, len(choice.taken), _MOST):
            some = slice(first, first + _MOST)
            items, events = choice.taken[some], choice.events[some]
            others = [events[0]] * len(listed)
            rows.append(maker.apart(choice.ids, [*items, *listed], [*events, *others]))
            taken.append(len(items))
    weights = learning.target_weights(rows, data, training)
    packs = packed(rows, training.pack_tokens)
    return Preferred(rows, weights, packs, taken), paths


def choices(
    maker: RowMaker, data: Dataset, training: Training, wanted: BoolArray | None
) -> Iterator[Choice]:
    """What each user took after what, as inference would be asked."""
    events = data.interactions
    c = events.columns
    shown = learning.shown_of(data, training)
    targets = shown if wanted is None else shown & wanted
    for user in events.user_ids:
        where = events.events(user)
        places = where.start + np.flatnonzero(shown[where])
        if not len(places):
            continue
        found = maker.prompts(user, places, targets[places])
        for (_, ids), some in itertools.groupby(found, key=lambda p: (c.unit[p[2]], p[0].ids)):
            asked = list(some)
            unit = c.unit[asked[0][2]]
            mates = places[c.unit[places] == unit]
            known = places[places < mates[0]].tolist()
            yield Choice(
                History(tuple(events.interaction(i) for i in known), user),
                ids,
                tuple(event for _, _, event in asked),
                tuple(item for _, item, _ in asked),
                frozenset(c.row[mates].tolist()),
            )


def _sample(found: Iterator[Choice], training: Training) -> list[Choice]:
    """So many that one pass over them is what the run learns, the same every time."""
    every = list(found)
    rng = np.random.default_rng([training.seed, 1])
    chosen, many = [], 0
    for i in rng.permutation(len(every)).tolist():
        if training.max_targets is not None and many >= training.max_targets:
            break
        chosen.append(i)
        many += len(every[i].taken)
    return [every[i] for i in sorted(chosen)]


def _others(
    listed: Sequence[int],
    choice: Choice,
    paths: TitlePaths,
    titles: Sequence[tuple[int, ...]],
    training: Training,
) -> list[int]:
    """The negatives of a list: items with another title than what was taken."""
    taken = {titles[r] for r in choice.basket if r >= 0}
    others = [r for r in listed if titles[r] not in taken and paths.copies[r]]
    return others[: _many(training)]


def _many(training: Training) -> int:
    return NEGATIVES if training.negatives is None else training.negatives


def _listed(
    recommender: Recommender, chosen: Sequence[Choice], training: Training, path: Path
) -> list[list[int]]:
    """For each choice the rows that the model lists, the best first."""
    done = _kept(path, chosen)
    recommender.say(f"Asking the model about {len(chosen) - len(done):,} histories ...")
    keep = path if os.environ.get("RANK", "0") == "0" else Path(os.devnull)
    with keep.open("a", encoding="utf-8") as stream:
        for first in range(len(done), len(chosen), _TOGETHER):
            some = chosen[first : first + _TOGETHER]
            most = 2 * _many(training) + max(len(c.basket) for c in some)
            answers = recommender.recommend_many([c.history for c in some], most)
            for choice, answer in zip(some, answers, strict=True):
                listed = [recommender.catalog.row(r.item_id) for r in answer]
                done.append(listed)
                stream.write(json.dumps({"event": choice.events[0], "rows": listed}) + "\n")
            stream.flush()
    return done


def _kept(path: Path, chosen: Sequence[Choice]) -> list[list[int]]:
    """What an earlier start has listed; a line that a kill cut off is dropped."""
    if not path.is_file():
        return []
    found: list[list[int]] = []
    whole = ""
    for line, choice in zip(path.read_text(encoding="utf-8").split("\n"), chosen, strict=False):
        try:
            values = json.loads(line)
            if values["event"] != choice.events[0]:
                msg = (
                    f"{path} lists items for other histories. Expected the data that the run began "
                    "with; begin a new run in another folder."
                )
                raise SettingsError(msg)
            found.append([int(r) for r in values["rows"]])
        except (ValueError, KeyError, TypeError):
            break
        whole += line + "\n"
    path.write_text(whole, encoding="utf-8")
    return found


class Preference(Goal):
    """Softmax-DPO: -ln sigma(-ln sum over the others of exp(beta * (their gain - the taken one's))).

    A gain is how far an item's log-probability over the trie has risen since the stage began.
    """

    def __init__(
        self, data: Preferred, paths: TitlePaths, model: LanguageModel, training: Training
    ) -> None:
        """Takes what all batches share, and measures where the model stands.

        Args:
            data: the packs.
            paths: of the trie.
            model: as it is where the stage begins.
            training: the settings.
        """
        super().__init__(model)
        self._data, self._paths, self._beta = data, paths, training.dpo_beta
        self._loss = CatalogLoss(paths)
        self._before: dict[int, Tensor] = {}  # (G,) nats of each pack's targets at the beginning
        with torch.no_grad():
            for pack in range(len(data)):
                inputs = {k: v.to(model.device) for k, v in self.batch([pack]).items()}
                self._before[pack] = self._nats(model.model, inputs).double().cpu()

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """See ``Goal.batch``; ``weight`` is of the items taken alone."""
        chosen = [self._data.packs[p] for p in packs]
        rows = [[self._data.rows[i] for i in pack] for pack in chosen]
        weights = [[self._data.weights[i] for i in pack] for pack in chosen]
        found = batch(rows, self._paths, weights)
        found["every"] = found["weight"]
        flat = [i for pack in chosen for i in pack]
        size = np.array([len(self._data.rows[i].item) for i in flat])
        taken = np.array([self._data.taken[i] for i in flat])
        start = np.cumsum(size) - size
        place = [s + np.arange(t) for s, t in zip(start, taken, strict=True)]
        mine = np.concatenate(place)
        found["weight"] = found["every"][torch.from_numpy(mine)]
        found["taken"] = torch.from_numpy(mine)
        pairs = [
            (p, other)
            for s, n, t in zip(start.tolist(), size.tolist(), taken.tolist(), strict=True)
            for p in range(s, s + t)
            for other in range(s + t, s + n)
        ]
        ordinal = {place: i for i, place in enumerate(mine.tolist())}
        found["of"] = torch.tensor([ordinal[p] for p, _ in pairs], dtype=torch.long)
        found["other"] = torch.tensor([other for _, other in pairs], dtype=torch.long)
        if all(p in self._before for p in packs):
            found["before"] = torch.cat([self._before[p] for p in packs]).float()
        return found

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See ``Goal.losses``."""
        nats = self._nats(model, dict(inputs))
        gain = inputs["before"].to(nats.dtype) - nats
        taken, of = inputs["taken"], inputs["of"]
        ahead = self._beta * (gain[inputs["other"]] - gain[taken][of])
        return nats[taken].detach(), functional.softplus(_logsumexp(ahead, of, len(taken)))

    def _nats(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """(G,) -ln P of each target, with its gradient."""
        self._loss.to(inputs["input_ids"].device)
        states, head = self._states(model, inputs)
        return self._loss.nats(states, {**inputs, "weight": inputs["every"]}, head)[1]


def _logsumexp(values: Tensor, of: Tensor, n: int) -> Tensor:
    """(n,) ln of the sum of exp of the values of each; -inf of none."""
    most = torch.full((n,), -torch.inf, dtype=values.dtype, device=values.device)
    most = most.scatter_reduce(0, of, values.detach(), "amax")
    total = torch.zeros_like(most).index_add(0, of, torch.exp(values - most[of]))
    return torch.where(torch.isfinite(most), most + torch.log(total.clamp_min(1e-30)), most)
