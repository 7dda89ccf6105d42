"""Pointwise training: a model learns to answer yes or no, whether somebody will want an item.

Pairs of what was known and one item come from events, or texts with labels from a file. All pairs
of a user's window are branches of one row, so that their common history is read once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.interactions import SPLITS, History, Interactions
from genrec.data.readers import arrow
from genrec.data.readers.arrow import Rejects
from genrec.errors import DataError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.pipeline.yes_no import Ids, YesNo
from genrec.prompts.encoder import shared_start
from genrec.recommender import Recommender
from genrec.training import config, export
from genrec.training.config import Training
from genrec.training.examples import Examples, shown_events, target_weights
from genrec.training.losses import laid, tensors
from genrec.training.objectives import Goal, Ready, Validate
from genrec.training.sequences import Row, packed
from genrec.types import BoolArray, FloatArray, IntArray

LABELS = {"buy": 1, "yes": 1, "1": 1, "true": 1, "not_buy": 0, "no": 0, "0": 0, "false": 0}
_HELD_OUT = 0.1  # of a file's rows, for validation
_PAIRS_OF_A_USER = 4  # in a validation
_TRUNK = 0.75  # of a row's tokens that the history may take


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


def pairs(
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
    if part == "train" and training.fit == "both":
        inside = c.split <= 1
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
    says = (c.row >= 0) & shown_events(events, training)
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
    table = arrow.read(path, rejects=rejects, scalar=("text", "label"))
    arrow.require(table, ("text", "label"), source)
    texts, said = arrow.strings(table["text"]), arrow.strings(table["label"])
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


@dataclass(frozen=True, eq=False)
class Pairs(Examples):
    """Packs of rows whose targets are answers.

    Attributes:
        labels: (targets,) of each row, 1 or 0.
    """

    labels: Sequence[IntArray]

    def _beside(self) -> list[Sequence[npt.NDArray[Any]]]:
        return [self.weights, self.labels]


class PairRows:
    """Makes rows of pairs."""

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
        """Takes what is the same for all users.

        Args:
            question: encodes histories and items.
            events: of all users.
            shown: (E,) which of them histories show.
            max_tokens: the most tokens of a row, where one pair fits.
            overlap: how much of the most events and tokens of a history the next window shows
                again.
            branches: whether pairs share rows; models that take no branches need one row each.
        """
        self._question, self._events, self._shown = question, events, shown
        self._max_tokens, self._overlap, self._branches = max_tokens, overlap, branches

    def rows(self, pairs: Sequence[Pair]) -> Iterator[tuple[Row, IntArray]]:
        """Rows with the labels of their targets, for pairs as ``pairs`` orders them."""
        for user, some in itertools.groupby(pairs, key=lambda p: p.user_id):
            waiting: list[tuple[Ids, Ids, Pair]] = []
            for known, pair in self._known(user, list(some)):
                run = self._question.item(pair.row)
                if waiting and not self._fits([*waiting, (known, run, pair)]):
                    yield _row(waiting)
                    waiting = []
                waiting.append((known, run, pair))
            if waiting:
                yield _row(waiting)

    def _known(self, user: str, pairs: Sequence[Pair]) -> Iterator[tuple[Ids, Pair]]:
        """Each pair with the ids of its history, which begins where others do while that fits."""
        where = self._events.events(user)
        places = where.start + np.flatnonzero(self._shown[where])
        events = [self._events.interaction(i) for i in places.tolist()]
        start, most = 0, int(self._max_tokens * _TRUNK)
        last = pairs[-1].first
        for first, some in itertools.groupby(pairs, key=lambda p: p.first):
            n = int(np.searchsorted(places, first))
            known, fit = self._question.known(History(tuple(events[start:n])), most)
            if fit < n - start or not self._branches:  # a new window, with room for what follows
                share = 1.0 if first == last or not self._branches else self._overlap
                latest = events[max(0, n - max(1, int(self._question.max_events * share))) : n]
                known, fit = self._question.known(History(tuple(latest)), int(most * share))
                start = n - fit
            for pair in some:
                yield known, pair

    def _fits(self, some: Sequence[tuple[Ids, Ids, Pair]]) -> bool:
        """Whether pairs can share a row; a pair with another window's history takes too much."""
        if not self._branches:
            return False
        trunk = max((known for known, _, _ in some), key=len)
        size = len(trunk)
        for known, run, _ in some:
            size += len(known) - shared_start([trunk, known]) + len(run)
        return size <= self._max_tokens


def _row(some: Sequence[tuple[Ids, Ids, Pair]]) -> tuple[Row, IntArray]:
    """A row of pairs: the longest history as trunk, what each adds to a part of it as branches."""
    texts = [(*known, *run) for known, run, _ in some]
    trunk = max((known for known, _, _ in some), key=len) if len(some) > 1 else texts[0]
    items, events = [p.row for _, _, p in some], [p.event for _, _, p in some]
    return branched(trunk, texts, items, events), np.array([p.label for _, _, p in some])


def branched(trunk: Ids, texts: Sequence[Ids], items: Sequence[int], events: Sequence[int]) -> Row:
    """A row whose targets stand at the ends of texts: what each shares with the trunk is read once.

    Args:
        trunk: the ids that all see up to where they part from them.
        texts: the ids before each target; one alone may be the trunk itself.
        items: catalog row of each.
        events: place in the event columns of each.
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


def examples(
    question: YesNo,
    data: Dataset,
    found: Sequence[Pair],
    training: Training,
    *,
    plain: bool,
    part: str = "test",
) -> Pairs:
    """Pairs as packs of rows, weighed as ``training`` says (a random item as its neighbour).

    Args:
        question: encodes them.
        data: they are of.
        found: the pairs.
        training: the settings.
        plain: for a model that takes no branches.
        part: of the split, that they are of; histories show no later one.
    """
    last = SPLITS.index("validation" if part == "train" and training.fit == "both" else part)
    maker = PairRows(
        question,
        data.interactions,
        shown_events(data.interactions, training) & (data.interactions.columns.split <= last),
        max_tokens=training.pack_tokens,
        overlap=training.overlap,
        branches=not plain,
    )
    made = list(maker.rows(found))
    rows = [row for row, _ in made]
    weights = target_weights(rows, data, training)
    return _packed(rows, weights, [labels for _, labels in made], training, plain)


def of_texts(
    question: YesNo,
    texts: Sequence[str],
    labels: Sequence[int],
    training: Training,
    *,
    plain: bool,
) -> Pairs:
    """Texts with labels as packs of rows."""
    rows = [branched(ids, [ids], [-1], [-1]) for ids in map(question.text, texts)]
    weights = [np.ones(1) for _ in rows]
    return _packed(rows, weights, [np.array([y]) for y in labels], training, plain)


def _packed(
    rows: Sequence[Row],
    weights: Sequence[FloatArray],
    labels: Sequence[IntArray],
    training: Training,
    plain: bool,
) -> Pairs:
    packs = [[i] for i in range(len(rows))] if plain else packed(rows, training.pack_tokens)
    return Pairs(rows, weights, packs, labels)


class Answers(Goal):
    """Yes or no: binary cross-entropy on the two answers' log-probabilities, all others left out."""

    def __init__(
        self, data: Pairs, model: LanguageModel, question: YesNo, smoothing: float = 0.0
    ) -> None:
        """Takes what all batches share.

        Args:
            data: the pairs.
            model: as it will be trained.
            question: knows the answers.
            smoothing: the share of each label that is spread over both answers.
        """
        super().__init__(model)
        self._data, self._smoothing = data, smoothing
        self._tokens = torch.tensor(question.answers)

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """See ``Goal.batch``."""
        chosen = [self._data.packs[p] for p in packs]
        rows = [[self._data.rows[i] for i in pack] for pack in chosen]
        weights = [[self._data.weights[i] for i in pack] for pack in chosen]
        found, source, _, _ = laid(rows, weights)
        label = np.concatenate([self._data.labels[i] for pack in chosen for i in pack])
        return tensors(found | {"source": source, "label": label})

    def losses(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See ``Goal.losses``."""
        states, head = self._states(model, dict(inputs))
        tokens = self._tokens.to(states.device)
        logprobs = torch.log_softmax(head.over(states[inputs["source"]], tokens), dim=-1)
        nats = -logprobs.gather(1, 1 - inputs["label"][:, None])[:, 0]
        losses = (1 - self._smoothing) * nats - self._smoothing * logprobs.mean(dim=-1)
        return nats.detach(), losses

    def chances(self, model: LanguageModel) -> tuple[IntArray, FloatArray]:
        """(G,) the labels of all pairs, and the probability of yes that the model gives each."""
        labels, chances = [], []
        with torch.no_grad():
            for pack in range(len(self._data)):
                inputs = {k: v.to(model.device) for k, v in self.batch([pack]).items()}
                right = torch.exp(-self.losses(model.model, inputs)[0]).double().cpu().numpy()
                label = inputs["label"].cpu().numpy()
                labels.append(label)
                chances.append(np.where(label == 1, right, 1 - right))
        return np.concatenate(labels), np.concatenate(chances)


def measured(labels: npt.ArrayLike, chances: npt.ArrayLike) -> dict[str, float]:
    """How good probabilities of yes are: accuracy, precision, recall and F1 at 0.5, AUC, log loss.

    AUC is the chance that a wanted item has a higher probability than another one (ties count
    half; 0.5 where all labels are the same), log loss is in nats. By scikit-learn.

    >>> found = measured([1, 1, 0, 0], [0.9, 0.4, 0.2, 0.6])
    >>> found["accuracy"], found["auc"], round(found["log_loss"], 4)
    (0.5, 0.75, 0.5403)
    """
    from sklearn import metrics

    y, p = np.asarray(labels), np.asarray(chances, dtype=np.float64)
    said = p >= 0.5
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y, said, average="binary", zero_division=0.0
    )
    return {
        "accuracy": float(metrics.accuracy_score(y, said)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "auc": float(metrics.roc_auc_score(y, p)) if 0 < y.sum() < len(y) else 0.5,
        "log_loss": float(metrics.log_loss(y, p, labels=[0, 1])),
    }


def prepared(
    recommender: Recommender, data: Dataset, training: Training, wanted: BoolArray | None = None
) -> tuple[Pairs, Ready]:
    """What is learned from, and what gives objective and validation for the model to be trained.

    Args:
        recommender: gives the question.
        data: with the split that training keeps to.
        training: the settings.
        wanted: (E,) the only events that may be learned from; all where None.

    Raises:
        SettingsError: the template does not ask about items, or a setting does not fit the data.
        DataError: there is nothing to learn from.
    """
    question, plain = recommender.question, bool(recommender.model.obstacle)
    if recommender.template.answers is None:
        msg = (
            f"template={recommender.template.name!r} with objective='pointwise'. Expected one whose "
            "header has answers, such as would_like; drop --template."
        )
        raise SettingsError(msg)
    found, held_out = (
        _of_file(training.pairs, question, training, plain=plain)
        if training.pairs is not None
        else _of_events(recommender, data, training, wanted, plain=plain)
    )

    def ready(model: LanguageModel) -> tuple[Goal, Validate | None]:
        goal = Answers(found, model, question, training.label_smoothing)
        if held_out is None:
            return goal, None
        asked = Answers(held_out, model, question)

        def validate() -> dict[str, Any]:
            labels, chances = asked.chances(model)
            values = measured(labels, chances)
            return {"nats": values["log_loss"], "auc": values["auc"], "pairs": len(labels)}

        return goal, validate

    return found, ready


def _of_events(
    recommender: Recommender,
    data: Dataset,
    training: Training,
    wanted: BoolArray | None,
    *,
    plain: bool,
) -> tuple[Pairs, Pairs | None]:
    """The pairs of train, and a fixed sample of those of validation."""
    question, behavior = recommender.question, recommender.behavior
    chosen = learned(data, training, behavior=behavior, wanted=wanted)
    found = examples(question, data, chosen, training, plain=plain, part="train")
    if not training.eval_users or training.fit == "both":
        return found, None
    few = sample(pairs(data, training, "validation", behavior=behavior), training.eval_users)
    return found, examples(question, data, few, training, plain=plain, part="validation")


def learned(
    data: Dataset,
    training: Training,
    *,
    behavior: str | None = None,
    wanted: BoolArray | None = None,
) -> list[Pair]:
    """The pairs that are learned from: those of train, of each user the latest ``pairs_per_user``."""
    found = pairs(data, training, behavior=behavior, wanted=wanted)
    if training.pairs_per_user is None:
        return found
    of_user = itertools.groupby(found, key=lambda p: p.user_id)
    return [p for _, some in of_user for p in list(some)[-training.pairs_per_user :]]


def write_pairs(
    data: Dataset,
    out: str | Path,
    model: str | LanguageModel = "smollm2-135m",
    *,
    say: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> int:
    """Writes the pairs that are learned from, one text and label a row, as ``--pairs`` takes them.

    Args:
        data: with a split.
        out: the file, .jsonl or .parquet.
        model: whose tokenizer counts the tokens of histories.
        say: called with a line of text before each slow step.
        **settings: as of ``train``.

    Returns:
        How many were written.

    Raises:
        SettingsError: a setting or the file's ending is not known, or does not fit the data.
        DataError: all pairs, or none, are wanted.
    """
    export.check_ending(out)
    ours, training = config.resolved({**settings, "objective": "pointwise"})
    data = protocols.under(data, training.protocol or protocols.default_protocol(data))
    recommender = Recommender(data, model, say=say, **asdict(replace(ours, prior="none")))
    question, events = recommender.question, data.interactions
    shown = shown_events(events, training) & (
        events.columns.split <= (1 if training.fit == "both" else 0)
    )
    chosen = learned(data, training, behavior=recommender.behavior)

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


def sample(
    found: Sequence[Pair], users: int, each: int = _PAIRS_OF_A_USER, seed: int = 0
) -> list[Pair]:
    """Up to so many pairs of so many users, the same every time, in their order."""
    rng = np.random.default_rng(seed)
    of_user = [list(some) for _, some in itertools.groupby(found, key=lambda p: p.user_id)]
    chosen = []
    for user in sorted(rng.permutation(len(of_user))[:users].tolist()):
        some = of_user[user]
        chosen += [some[i] for i in sorted(rng.permutation(len(some))[:each].tolist())]
    return chosen


def _of_file(
    path: str, question: YesNo, training: Training, *, plain: bool
) -> tuple[Pairs, Pairs | None]:
    """The rows of a file, and the tenth of them that is held out, as far as a sample needs."""
    texts, labels = read_pairs(path)
    order = np.random.default_rng(training.seed).permutation(len(texts)).tolist()
    wanted = training.eval_users * _PAIRS_OF_A_USER if training.fit == "train" else 0
    few = min(wanted, round(len(texts) * _HELD_OUT))

    def of(rows: Sequence[int]) -> Pairs:
        some = [texts[i] for i in rows], [labels[i] for i in rows]
        return of_texts(question, *some, training, plain=plain)

    return of(sorted(order[few:])), of(sorted(order[:few])) if few else None
