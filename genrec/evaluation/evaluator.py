"""Evaluation: systems over the cases of a protocol; resumable, per user first.

What ranks is a ``Recommender``, a baseline (``genrec.baselines``), a baseline's name, or ``prior``, the
collaborative prior alone. Lists come
first, and are logged user by user; every figure is computed from them afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec import __version__
from genrec.config import PRIOR_EVENTS, to_before, to_parts
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.data.protocols import Case as Case
from genrec.data.protocols import demo_v1 as demo_v1
from genrec.data.protocols import last_out as last_out
from genrec.data.protocols import sample as sample
from genrec.errors import RequestError
from genrec.evaluation import metrics
from genrec.evaluation.metrics import Calibration, RowArray
from genrec.evaluation.results import Comparison as Comparison
from genrec.evaluation.results import Evaluation as Evaluation
from genrec.evaluation.results import Result as Result
from genrec.evaluation.results import compare as compare
from genrec.evaluation.run_log import answers
from genrec.evaluation.systems import Answer, Progress, build_systems, named, slug
from genrec.matching.vectors import title_vectors
from genrec.recommender import Recommender
from genrec.types import FloatArray

KS = (5, 10, 20)
AT = 10  # the k of what is measured once


def evaluate(
    dataset: Dataset,
    systems: Sequence[Any],
    *,
    protocol: str | None = None,
    split: str = "test",
    users: int | None = None,
    fit_on: str | None = None,
    exclude_seen: bool | None = None,
    candidates: Mapping[str, Sequence[str]] | None = None,
    vectors: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress = lambda system, done: None,
) -> Evaluation:
    """Ranks the catalog for every user of a protocol with every system, and measures.

    Args:
        dataset: with a split; it is split anew where the protocol needs another one.
        systems: ours first: a ``Recommender``, a baseline or the name of one, ``prior`` for the
            collaborative prior alone, or a pair of a name and one of these.
        protocol: one of ``protocols.NAMES``; None for that of the dataset's split.
        split: ``test`` or ``validation``.
        users: how many, the same seeded sample every time; all where None.
        fit_on: what baselines given by name are fitted on and recommenders' priors count,
            ``train`` or ``train+validation``; None is train, and for ``demo-v1`` on test both.
        exclude_seen: whether items of the history are left out; None is the recommenders' setting,
            which is the dataset's habit unless it was set.
        candidates: for ``candidates-20``: user_id -> items, in place of random ones.
        vectors: (N, D) unit vectors of the items for diversity; None for character n-grams of the
            titles.
        seed: of the sample, random candidates and what is random in a baseline.
        out: a folder for per-user values and the log of lists; a run that was killed goes on from
            there. Nothing is kept where None.
        progress: called with a system's name and how many users it has done.

    Raises:
        RequestError: an argument cannot be used.
        DataError: the folder holds lists of another run under the same name.
    """
    if not systems:
        msg = "No systems were given. Expected at least one, such as 'popular' or a Recommender."
        raise RequestError(msg)
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    before = before_of(fit_on, protocol, split)
    exclude = _exclude_seen(dataset, systems, exclude_seen)
    every = protocols.cases(dataset, protocol, split, candidates=candidates, seed=seed)
    chosen = sample(every, users, seed)
    ks = (1, 5, 10) if protocol == protocols.NAMES[-1] else KS
    data = protocols.fingerprint(dataset)
    about = json.dumps([data, protocol, split, max(ks), exclude, __version__])
    about += " ".join(sorted(dataset.info.lead_in_behaviors))
    if candidates is not None:
        about += hashlib.sha256(repr([c.candidates for c in every]).encode()).hexdigest()
    found = build_systems(dataset, systems, exclude, before, seed)
    said = "given vectors" if vectors is not None else "character n-grams of titles"
    measure = _Measure(dataset, chosen, ks, exclude, before, vectors)
    results = []
    for system in found:
        log_path = None if out is None else Path(out) / f"{slug(system.name)}.jsonl"
        key = hashlib.sha256(f"{about}{system.key}".encode()).hexdigest()[:16]
        done = answers(system, chosen, max(ks), log_path=log_path, key=key, progress=progress)
        results.append(measure.result(system.name, done))
    evaluation = Evaluation(
        dataset.info.name,
        protocol,
        split,
        fitted_on(before),
        exclude,
        seed,
        said,
        chosen,
        protocols.label_slices(dataset, chosen, before),
        results,
    )
    if out is not None:
        evaluation.save(out)
    return evaluation


def before_of(fit_on: str | None, protocol: str, split: str) -> str:
    """The split before which systems are fitted; see ``evaluate``.

    Raises:
        RequestError: there is no such way, or it would count the targets.
    """
    if fit_on is None:
        return "test" if (protocol, split) == ("demo-v1", "test") else "validation"
    if fit_on not in PRIOR_EVENTS:
        msg = f"fit_on={fit_on!r} is not known. Expected one of: {', '.join(PRIOR_EVENTS)}."
        raise RequestError(msg)
    if (fit_on, split) == ("train+validation", "validation"):
        msg = (
            "fit_on='train+validation' with split='validation' would count the targets. Expected "
            "fit_on='train'."
        )
        raise RequestError(msg)
    return to_before(fit_on)


def fitted_on(before: str) -> str:
    """Name the parts before a split, as results have them.

    >>> fitted_on("validation"), fitted_on("test")
    ('train', 'train + validation')
    """
    return to_parts(before).replace("+", " + ")


def _exclude_seen(dataset: Dataset, systems: Sequence[Any], asked: bool | None) -> bool:
    """The one rule for all systems."""
    ours = {s.exclude_seen for s in (named(s)[1] for s in systems) if isinstance(s, Recommender)}
    if len(ours) > 1 or (asked is not None and ours and ours != {asked}):
        msg = (
            f"exclude_seen={asked} with recommenders of which it is {sorted(ours)}. Expected one "
            "rule for all; give the recommenders the same exclude_seen."
        )
        raise RequestError(msg)
    if asked is not None:
        return asked
    return ours.pop() if ours else dataset.info.exclude_seen


@dataclass(frozen=True)
class _Measure:
    """Computes per-user values of lists; what does not depend on the system is made once."""

    dataset: Dataset
    cases: Sequence[Case]
    ks: Sequence[int]
    exclude_seen: bool
    before: str
    vectors: Any

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item.item_id: row for row, item in enumerate(self.dataset.catalog)}

    @cached_property
    def _targets(self) -> RowArray:
        return np.array([self._row_of[c.target] for c in self.cases], dtype=np.int32)

    @cached_property
    def _baskets(self) -> list[list[int]]:
        return [sorted({self._row_of[i] for i in c.basket}) for c in self.cases]

    @cached_property
    def _seen(self) -> list[list[int]]:
        events, lead_in_behaviors = self.dataset.interactions, self.dataset.info.lead_in_behaviors
        had = np.array([b not in lead_in_behaviors for b in events.behaviors])
        rows = np.where(had[events.columns.behavior], events.columns.row, -1)
        return [[r for r in np.unique(rows[c.shown]).tolist() if r >= 0] for c in self.cases]

    @cached_property
    def _counts(self) -> Any:
        return protocols.count_events(self.dataset, self.before)

    @cached_property
    def _vectors(self) -> Any:
        if self.vectors is not None:
            return self.vectors
        return title_vectors(self.dataset.catalog, "ngrams", lambda text: None)

    def result(self, name: str, answers: Sequence[Answer]) -> Result:
        """The values of a system's answers, one a case."""
        ranked = [a.items for a in answers]
        rows = metrics.as_rows(ranked, self._row_of)
        ranks = metrics.ranks_of(self._targets, rows)
        hit = metrics.hits(_joined(self._baskets), metrics.starts(self._baskets), rows)
        basket_sizes = np.diff(metrics.starts(self._baskets))
        values: dict[str, FloatArray] = {}
        nats = np.array([np.nan if a.nats is None else a.nats for a in answers])
        if not np.isnan(nats).any():
            values["nats"] = nats
        for k in self.ks:
            values[f"hit_rate@{k}"] = metrics.hit_rate(ranks, k)
            values[f"ndcg@{k}"] = metrics.ndcg(ranks, k)
            values[f"mrr@{k}"] = metrics.mrr(ranks, k)
            values[f"recall@{k}"] = metrics.set_metrics(hit, basket_sizes, k)["recall"]
        values[f"novelty@{AT}"] = metrics.novelty(rows, self._counts, AT)
        values[f"popularity@{AT}"] = metrics.popularity(rows, self._counts, AT)
        values[f"diversity@{AT}"] = metrics.diversity(rows, self._vectors, AT)
        values["invalid"] = self._invalid(rows)
        if all(a.exact is not None for a in answers):
            values["exact"] = np.array([float(bool(a.exact)) for a in answers])
        if all(a.seconds is not None for a in answers):
            values["seconds"] = np.array([a.seconds for a in answers], dtype=np.float64)
        n = len(self.dataset.catalog)
        whole = {
            f"coverage@{AT}": metrics.coverage(rows, n, AT),
            f"gini@{AT}": metrics.gini(metrics.exposure(rows, n, AT)),
        }
        reliability = self._reliability(answers, ranks)
        if reliability is not None:
            whole["calibration_error"] = reliability.error
        return Result(name, self.cases, ranked, values, whole, reliability)

    def _invalid(self, rows: RowArray) -> FloatArray:
        """(users,) 1 where a list is short, holds an item twice, or one that is not allowed."""
        k, n = max(self.ks), len(self.dataset.catalog)
        among = [c.candidates for c in self.cases]
        if any(a is not None for a in among):
            allowed = [[self._row_of[i] for i in a or ()] for a in among]
            inside = metrics.hits(_joined(allowed), metrics.starts(allowed), rows)
            bad = metrics.invalid(rows, np.minimum(k, [len(a) for a in allowed]))
            bad |= (~inside & (rows != metrics.END)).any(axis=1)
            return bad.astype(np.float64)
        seen = self._seen if self.exclude_seen else [[] for _ in self.cases]
        bad = metrics.invalid(rows, np.minimum(k, [n - len(s) for s in seen]))
        bad |= metrics.hits(_joined(seen), metrics.starts(seen), rows).any(axis=1)
        return bad.astype(np.float64)

    def _reliability(self, answers: Sequence[Answer], ranks: Any) -> Calibration | None:
        """Of the probabilities of the first ten of each list: is the item the target?"""
        stated = [a.probabilities for a in answers]
        if any(s is None for s in stated):
            return None
        pairs = [
            (p, float(place == rank))
            for s, rank in zip(stated, ranks.tolist(), strict=True)
            for place, p in enumerate((s or ())[:AT], start=1)
        ]
        return metrics.calibration([p for p, _ in pairs], [y for _, y in pairs]) if pairs else None


def _joined(sets: Sequence[Sequence[int]]) -> Any:
    return np.array([row for each in sets for row in each], dtype=np.int64)


def run(
    name: str,
    rank: Callable[[History], Sequence[str]],
    cases: Sequence[Case],
    *,
    log_path: Path | None = None,
    key: str = "",
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Ranks every case with a function, resumably.

    Args:
        name: of the system.
        rank: a history to ranked item ids.
        cases: whom to rank for.
        log_path: see ``answers``.
        key: what the lists depend on (model, settings); a log written under another is refused.
        progress: called with the number of users done.

    Raises:
        DataError: the log was written by another system or for other settings.
    """
    report: Progress = lambda system, done: progress(done) if progress else None  # noqa: E731
    done = answers(_Function(name, rank), cases, 0, log_path=log_path, key=key, progress=report)
    return Result(name, cases, [a.items for a in done])


@dataclass(slots=True)
class _Function:
    name: str
    rank: Callable[[History], Sequence[str]]
    key: str = ""
    batch: int = 1

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        return [Answer(list(self.rank(case.history))) for case in cases]
