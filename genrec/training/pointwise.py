"""Train a model to answer a yes-or-no question, such as "Will this user buy this item?".

Each pair consists of a history and an item. Pairs come from events or from a file of labeled texts.
All pairs in the same window of a user's history become branches of one row, so the history that
they share is processed only once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS, History
from genrec.data.interactions import Interactions
from genrec.errors import SettingsError
from genrec.models.language_model import LanguageModel
from genrec.pipeline.yes_no import Ids, YesNo
from genrec.prompts.encoder import shared_start
from genrec.recommender import Recommender
from genrec.training.config import Training
from genrec.training.examples import Examples, mark_behaviors, weigh_targets
from genrec.training.losses import lay_out, to_tensors
from genrec.training.objectives import Objective, ObjectiveBuilder, Validation
from genrec.training.pairs import (
    PAIRS_PER_USER,
    Pair,
    make_pairs,
    make_training_pairs,
    read_pairs,
    sample_pairs,
)
from genrec.training.sequences import Row, pack_rows
from genrec.types import BoolArray, FloatArray, IntArray

_HELD_OUT = 0.1  # the fraction of a file's rows that is used for validation
_TRUNK = 0.75  # the maximum fraction of a row's tokens that the history may take up


@dataclass(frozen=True, eq=False)
class Pairs(Examples):
    """Training rows whose targets are yes-or-no answers, grouped into packs.

    Attributes:
        labels: for each row, an array with the label of each of its targets, 1 or 0.
    """

    labels: Sequence[IntArray]

    def _hashed_beside_rows(self) -> list[Sequence[npt.NDArray[Any]]]:
        return [self.weights, self.labels]


class PairRows:
    """An object that turns labeled pairs of a history and an item into training rows."""

    def __init__(
        self,
        question: YesNo,
        events: Interactions,
        shown: BoolArray,
        *,
        max_tokens: int,
        overlap: float = 0.5,
        branches: bool = True,
    ) -> None:
        """Store the data that the rows of all users share.

        Args:
            question: the question, which encodes histories and items.
            events: the events of all users.
            shown: a mask over all events that is True for events that appear in histories.
            max_tokens: the maximum number of tokens in a row, unless a single pair needs more.
            overlap: the fraction of a window of the history that is repeated in the next window.
            branches: True if several pairs may share a row. A model that cannot process token trees
                needs a separate row for each pair.
        """
        self._question, self._events, self._shown = question, events, shown
        self._max_tokens, self._overlap, self._branches = max_tokens, overlap, branches

    def rows(self, pairs: Sequence[Pair]) -> Iterator[tuple[Row, IntArray]]:
        """Yield training rows, each with the labels of its targets.

        Args:
            pairs: the pairs, in the order in which ``make_pairs`` returns them.
        """
        for user, some in itertools.groupby(pairs, key=lambda p: p.user_id):
            waiting: list[tuple[Ids, Ids, Pair]] = []
            for known, pair in self._encode_histories(user, list(some)):
                run = self._question.item(pair.row)
                if waiting and not self._fits([*waiting, (known, run, pair)]):
                    yield _make_row(waiting)
                    waiting = []
                waiting.append((known, run, pair))
            if waiting:
                yield _make_row(waiting)

    def _encode_histories(self, user: str, pairs: Sequence[Pair]) -> Iterator[tuple[Ids, Pair]]:
        """Encode the history of each pair, and yield its token ids together with the pair.

        A user's histories start at the same event as long as they fit into a row, so that several
        pairs can share a history.
        """
        where = self._events.events(user)
        places = where.start + np.flatnonzero(self._shown[where])
        events = [self._events.interaction(i) for i in places.tolist()]
        start, most = 0, int(self._max_tokens * _TRUNK)
        last = pairs[-1].first
        for first, some in itertools.groupby(pairs, key=lambda p: p.first):
            n = int(np.searchsorted(places, first))
            context = self._events.context_at(first)
            shown = History(tuple(events[start:n]), context=context)
            known, fit = self._question.known(shown, most)
            if fit < n - start or not self._branches:  # a new window, with room for later events
                share = 1.0 if first == last or not self._branches else self._overlap
                latest = events[max(0, n - max(1, int(self._question.max_events * share))) : n]
                shown = History(tuple(latest), context=context)
                known, fit = self._question.known(shown, int(most * share))
                start = n - fit
            for pair in some:
                yield known, pair

    def _fits(self, some: Sequence[tuple[Ids, Ids, Pair]]) -> bool:
        """Check whether all given pairs fit into one row.

        Pairs from different windows rarely fit, since their histories start at different events.

        Args:
            some: for each pair, the token ids of its history, the token ids of its item, and the
                pair itself.
        """
        if not self._branches:
            return False
        trunk = max((known for known, _, _ in some), key=len)
        size = len(trunk)
        for known, run, _ in some:
            size += len(known) - shared_start([trunk, known]) + len(run)
        return size <= self._max_tokens


def _make_row(some: Sequence[tuple[Ids, Ids, Pair]]) -> tuple[Row, IntArray]:
    """Create a row from several pairs, with the longest of their histories as its trunk.

    Args:
        some: for each pair, the token ids of its history, the token ids of its item, and the pair
            itself.

    Returns:
        The row, and the labels of its targets.
    """
    texts = [(*known, *run) for known, run, _ in some]
    trunk = max((known for known, _, _ in some), key=len) if len(some) > 1 else texts[0]
    items, events = [p.row for _, _, p in some], [p.event for _, _, p in some]
    return make_branched_row(trunk, texts, items, events), np.array([p.label for _, _, p in some])


def make_branched_row(
    trunk: Ids, texts: Sequence[Ids], items: Sequence[int], events: Sequence[int]
) -> Row:
    """Create a row with a branch for each text and a target at the end of each text.

    The prefix that each text shares with the trunk is processed only once, and the rest of the text
    becomes a branch.

    Args:
        trunk: the token ids of the trunk.
        texts: for each target, the token ids of the whole text before it. At most one text may be
            the trunk itself.
        items: the catalog row of each target.
        events: the index of each target among all events of the data.
    """
    tokens, position = [np.array(trunk, dtype=np.int64)], [np.arange(len(trunk))]
    limit, branch = [np.arange(1, len(trunk) + 1)], [np.zeros(len(trunk), dtype=np.int64)]
    before, size = [], len(trunk)
    for number, text in enumerate(texts, start=1):
        n = shared_start([trunk, text])
        run = text[n:]
        tokens.append(np.array(run, dtype=np.int64))
        position.append(np.arange(n, len(text)))
        limit.append(np.full(len(run), n))
        branch.append(np.full(len(run), number))
        size += len(run)
        before.append(size - 1 if run else n - 1)
    last = np.array(before)
    return Row(
        np.concatenate(tokens),
        np.concatenate(position),
        np.concatenate(limit),
        np.concatenate(branch),
        last,
        last + 1,
        np.array(items),
        np.array(events),
    )


def make_examples(
    question: YesNo,
    data: Dataset,
    pairs: Sequence[Pair],
    training: Training,
    *,
    plain: bool,
    part: str = "test",
) -> Pairs:
    """Turn pairs into packs of training rows, weighted according to the settings.

    A random negative has the same weight as the wanted item that it is paired with.

    Args:
        question: the question, which encodes histories and items.
        data: the dataset that the pairs come from.
        pairs: the pairs to turn into rows.
        training: the training settings.
        plain: True if the model cannot process token trees, so that each pair needs its own row.
        part: the part of the data that the pairs belong to. Histories do not show events from
            later parts.
    """
    end = SPLITS.index(training.before) if part == "train" else SPLITS.index(part) + 1
    maker = PairRows(
        question,
        data.interactions,
        mark_behaviors(data.interactions, training) & (data.interactions.columns.split < end),
        max_tokens=training.pack_tokens,
        overlap=training.overlap,
        branches=not plain,
    )
    made = list(maker.rows(pairs))
    rows = [row for row, _ in made]
    weights = weigh_targets(rows, data, training)
    return _pack(rows, weights, [labels for _, labels in made], training, plain)


def make_text_examples(
    question: YesNo,
    texts: Sequence[str],
    labels: Sequence[int],
    training: Training,
    *,
    plain: bool,
) -> Pairs:
    """Turn labeled texts into packs of training rows. Each text has weight 1.

    Args:
        question: the question, which encodes the texts.
        texts: the texts, each of which ends where the answer begins.
        labels: the label of each text, 1 or 0.
        training: the training settings.
        plain: True if the model cannot process token trees, so that each pack has only one row.
    """
    rows = [make_branched_row(ids, [ids], [-1], [-1]) for ids in map(question.text, texts)]
    weights = [np.ones(1) for _ in rows]
    return _pack(rows, weights, [np.array([y]) for y in labels], training, plain)


def _pack(
    rows: Sequence[Row],
    weights: Sequence[FloatArray],
    labels: Sequence[IntArray],
    training: Training,
    plain: bool,
) -> Pairs:
    """Divide rows into packs.

    If the model cannot process token trees (``plain``), each pack contains only one row.
    """
    packs = [[i] for i in range(len(rows))] if plain else pack_rows(rows, training.pack_tokens)
    return Pairs(rows, weights, packs, labels)


class PointwiseObjective(Objective):
    """The objective of answering a yes-or-no question, with binary cross-entropy as the loss.

    The probabilities of yes and no are normalized to sum to 1, and all other tokens are ignored.
    """

    def __init__(
        self, data: Pairs, model: LanguageModel, question: YesNo, smoothing: float = 0.0
    ) -> None:
        """Store the data that all batches share.

        Args:
            data: the training rows with their labels.
            model: the model to train.
            question: the question, which provides the tokens of the two answers.
            smoothing: the fraction of each label that is spread evenly over both answers.
        """
        super().__init__(model)
        self._data, self._smoothing = data, smoothing
        self._tokens = torch.tensor(question.answers)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Create a batch from packs; see ``Objective.batch``."""
        chosen = [self._data.packs[p] for p in packs]
        rows = [[self._data.rows[i] for i in pack] for pack in chosen]
        weights = [[self._data.weights[i] for i in pack] for pack in chosen]
        arrays, source, _, _ = lay_out(rows, weights)
        label = np.concatenate([self._data.labels[i] for pack in chosen for i in pack])
        return to_tensors(arrays | {"source": source, "label": label})

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the loss of each target in a batch; see ``Objective.losses``."""
        states, head = self._states(model, dict(inputs))
        tokens = self._tokens.to(states.device)
        logprobs = torch.log_softmax(head.over(states[inputs["source"]], tokens), dim=-1)
        nats = -logprobs.gather(1, 1 - inputs["label"][:, None])[:, 0]
        losses = (1 - self._smoothing) * nats - self._smoothing * logprobs.mean(dim=-1)
        return nats.detach(), losses

    def chances(
        self, model: LanguageModel, packs: int | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Compute the model's probability of yes for every pair.

        Args:
            model: the model.
            packs: the number of packs to use, starting with the first; None for all.

        Returns:
            The labels of the pairs, and the probabilities of yes in the same order.
        """
        labels, chances = [], []
        with torch.no_grad():
            for pack in range(len(self._data) if packs is None else packs):
                inputs = {k: v.to(model.device) for k, v in self.batch([pack]).items()}
                right = torch.exp(-self.losses(model.model, inputs)[0]).double().cpu().numpy()
                label = inputs["label"].cpu().numpy()
                labels.append(label)
                chances.append(np.where(label == 1, right, 1 - right))
        return np.concatenate(labels), np.concatenate(chances)


def measure(labels: npt.ArrayLike, chances: npt.ArrayLike) -> dict[str, float]:
    """Measure the quality of yes-or-no answers with metrics from scikit-learn.

    Accuracy, precision, recall and F1 treat a probability of 0.5 or more as yes. AUC is the
    probability that a wanted item has a higher score than an unwanted one, where ties count as one
    half; it is 0.5 if all labels are the same. Log loss is in nats.

    Args:
        labels: the label of each pair, 1 for yes and 0 for no.
        chances: the predicted probability of yes for each pair.

    Returns:
        The value of each metric, keyed by name.

    >>> values = measure([1, 1, 0, 0], [0.9, 0.4, 0.2, 0.6])
    >>> values["accuracy"], values["auc"], round(values["log_loss"], 4)
    (0.5, 0.75, 0.5403)
    """
    from sklearn import metrics

    y, p = np.asarray(labels), np.asarray(chances, dtype=np.float64)
    answers = p >= 0.5
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y, answers, average="binary", zero_division=0.0
    )
    return {
        "accuracy": float(metrics.accuracy_score(y, answers)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "auc": float(metrics.roc_auc_score(y, p)) if 0 < y.sum() < len(y) else 0.5,
        "log_loss": float(metrics.log_loss(y, p, labels=[0, 1])),
    }


class PairValidation(Validation):
    """A validation that measures the log loss and AUC on held-out packs of pairs."""

    def __init__(self, data: Pairs, model: LanguageModel, question: YesNo) -> None:
        """Store the pairs and the model."""
        self._data, self._model = data, model
        self._objective = PointwiseObjective(data, model, question)
        self.size = len(data)

    def measure(self, parts: int) -> dict[str, Any]:
        """Measure the model on the first packs; see ``Validation.measure``."""
        labels, chances = self._objective.chances(self._model, parts)
        values = measure(labels, chances)
        return {"nats": values["log_loss"], "auc": values["auc"], "pairs": len(labels)}

    def parts_of(self, values: Mapping[str, Any]) -> int:
        """Return the number of packs on which earlier metrics were measured."""
        pairs = [sum(len(self._data.labels[i]) for i in pack) for pack in self._data.packs]
        return int(np.searchsorted(np.cumsum(pairs), values["pairs"])) + 1


def prepare(
    recommender: Recommender, data: Dataset, training: Training, wanted: BoolArray | None = None
) -> tuple[Pairs, ObjectiveBuilder]:
    """Create the training pairs and a function that builds the objective and its validation.

    Args:
        recommender: the recommender whose template asks the yes-or-no question.
        data: the dataset, with the split to use for training.
        training: the training settings.
        wanted: a mask over all events that is True for events to train on; None for all.

    Returns:
        The training rows and a builder function. The builder takes the model to train and returns
        two values: the objective and the validation (or None if the settings turn validation off).

    Raises:
        SettingsError: the template does not ask a yes-or-no question, or a setting does not suit
            the data.
        DataError: there are no pairs to train on.
    """
    question, plain = recommender.question, bool(recommender.model.obstacle)
    if recommender.template.answers is None:
        msg = (
            f"template={recommender.template.name!r} does not ask a yes-or-no question, which "
            "objective='pointwise' requires. Expected a template with answers in its header, such as "
            "would_like. Leave out --template to use would_like."
        )
        raise SettingsError(msg)
    pairs, held_out = (
        _make_file_examples(training.pairs, question, training, plain=plain)
        if training.pairs is not None
        else _make_event_examples(recommender, data, training, wanted, plain=plain)
    )

    def build_objective(model: LanguageModel) -> tuple[Objective, Validation | None]:
        objective = PointwiseObjective(pairs, model, question, training.label_smoothing)
        if held_out is None:
            return objective, None
        return objective, PairValidation(held_out, model, question)

    return pairs, build_objective


def _make_event_examples(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None,
    *,
    plain: bool,
) -> tuple[Pairs, Pairs | None]:
    """Create rows from the training pairs and from a fixed sample of the validation pairs.

    The second value is None if the settings turn validation off.
    """
    question, behavior = recommender.question, recommender.behavior
    chosen = make_training_pairs(data, training, behavior=behavior, wanted=wanted)
    learned = make_examples(question, data, chosen, training, plain=plain, part="train")
    if not training.eval_users or training.before == "test":
        return learned, None
    few = sample_pairs(
        make_pairs(data, training, "validation", behavior=behavior), training.eval_users
    )
    return learned, make_examples(question, data, few, training, plain=plain, part="validation")


def _make_file_examples(
    path: str, question: YesNo, training: Training, *, plain: bool
) -> tuple[Pairs, Pairs | None]:
    """Read labeled texts from a file, and hold out up to a tenth of them for validation.

    Returns:
        The training rows; and the validation rows, or None if no texts are held out.
    """
    texts, labels = read_pairs(path)
    order = np.random.default_rng(training.seed).permutation(len(texts)).tolist()
    wanted = training.eval_users * PAIRS_PER_USER if training.before == "validation" else 0
    few = min(wanted, round(len(texts) * _HELD_OUT))

    def select(rows: Sequence[int]) -> Pairs:
        some = [texts[i] for i in rows], [labels[i] for i in rows]
        return make_text_examples(question, *some, training, plain=plain)

    return select(sorted(order[few:])), select(sorted(order[:few])) if few else None
