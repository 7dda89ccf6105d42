"""Evaluate recommenders and baselines on the cases of an evaluation protocol.

First, the ranked lists are computed and logged user by user, so that an interrupted run can be
resumed. Then the metrics are computed from each user's list and averaged over all users.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec import files
from genrec.config import FIT_ON, QueryOptions, to_before, to_parts
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.data.protocols import Case as Case
from genrec.data.protocols import demo_v1 as demo_v1
from genrec.data.protocols import last_out as last_out
from genrec.data.protocols import sample as sample
from genrec.data.slices import label_slices
from genrec.data.user_groups import join_rare, label_users
from genrec.errors import DataError, RequestError
from genrec.evaluation import metrics
from genrec.evaluation.exposure import ItemGroups, check_column
from genrec.evaluation.metrics import Calibration, RowArray
from genrec.evaluation.results import Comparison as Comparison
from genrec.evaluation.results import Evaluation as Evaluation
from genrec.evaluation.results import Result as Result
from genrec.evaluation.results import compare as compare
from genrec.evaluation.run_log import ANSWERS_VERSION, collect_answers, find_log
from genrec.evaluation.shop_rows import CaseRules, with_rules
from genrec.evaluation.slices import LEAST
from genrec.evaluation.systems import (
    Answer,
    Progress,
    System,
    build_systems,
    check_counted,
    split_name,
    with_declared_context,
)
from genrec.matching.vectors import title_vectors
from genrec.recommender import Recommender
from genrec.types import FloatArray, Log

KS = (5, 10, 20)
AT = 10  # the list length for metrics that are measured at only one length


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
    shop: QueryOptions | None = None,
    exposure_columns: Sequence[str] = (),
    group_column: str | None = None,
    vectors: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress = lambda system, done: None,
    log: Log = lambda message: None,
) -> Evaluation:
    """Rank items with each system for each user in a protocol, and compute metrics for the lists.

    Args:
        dataset: a dataset with a split. It is split again if the protocol needs a different split.
        systems: the systems to evaluate, starting with your own system. A system is a
            ``Recommender``, a baseline or its name, or ``prior`` for the collaborative prior alone.
            A pair of a name and a system gives the system this name in the results.
        protocol: one of ``protocols.NAMES``; None chooses the protocol that matches the dataset's
            split.
        split: ``test`` or ``validation``.
        users: the size of a fixed random sample of users; None for all users.
        fit_on: the data to which the recommenders' priors and the baselines given by name are
            fitted: ``train`` or ``train+validation``. None means ``train``, or ``train+validation``
            for ``demo-v1`` on test.
        exclude_seen: True to leave items of the history out of the lists, False to include them.
            None uses the recommenders' setting, whose default depends on the dataset.
        candidates: for ``candidates-20``, a mapping from each user_id to the items to rank, which
            replace the random candidates.
        shop: the query options for additional lists that follow the rules of a shop, such as
            ``QueryOptions(show="new")``. Each system then gets a second result for these lists,
            with a name such as ``popular, new items only``. The second results are compared only
            with one another. None for no additional lists.
        exposure_columns: attributes of the items, such as ``brand``. The shares of their values in
            the lists are measured, in addition to the shares by popularity.
        group_column: a column of the events, such as ``country``. The quality of the lists is
            compared between users with different values; see ``user_groups.label_users``. Values of
            fewer than 20 users are joined.
        vectors: a matrix with a unit vector for each of the catalog's items, used to measure
            diversity; None for character n-grams of the titles.
        seed: the random seed for the sample, the candidates and the baselines.
        out: the folder for per-user values and logs of the lists, from which an interrupted run can
            be resumed; None to store nothing.
        progress: a function that is called with the name of a system and the number of users that
            have been processed.
        log: a function that is called with a line of text while a baseline is trained, and if a
            fitted baseline cannot be saved.

    Raises:
        RequestError: an argument is invalid.
        SettingsError: the folder cannot be written, or another process writes to it.
        DataError: the folder is a dataset folder, or its logs belong to a different evaluation.
    """
    if not systems:
        msg = "No systems were given. Expected at least one, such as 'popular' or a Recommender."
        raise RequestError(msg)
    if out is not None and (Path(out) / "dataset.json").exists():
        msg = f"{out} is a dataset folder. Nothing was changed. Choose another folder for the results."
        raise DataError(msg)
    dataset = with_declared_context(dataset, systems)
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    before = resolve_before(fit_on, protocol, split)
    exclude = _resolve_exclude_seen(dataset, systems, exclude_seen)
    every = protocols.cases(dataset, protocol, split, candidates=candidates, seed=seed)
    chosen = sample(every, users, seed)
    groups = None
    if group_column is not None:
        groups = join_rare(label_users(dataset, chosen, group_column), least=LEAST)
    for column in exposure_columns:
        check_column(dataset.catalog, column)
    ks = (1, 5, 10) if protocol == protocols.NAMES[-1] else KS
    data = protocols.fingerprint(dataset)
    about = json.dumps([data, protocol, split, max(ks), exclude, ANSWERS_VERSION])
    about += " ".join(sorted(dataset.info.lead_in_behaviors))
    if candidates is not None:
        about += hashlib.sha256(repr([c.candidates for c in every]).encode()).hexdigest()
    known = protocols.withhold(dataset, split)
    for _, system in map(split_name, systems):
        check_counted(system, split)
    built = build_systems(known, systems, exclude, before, seed, log)
    if shop is not None:
        if any(case.candidates is not None for case in chosen):
            msg = (
                f"The rules of a shop (shop, --show) do not apply to the protocol {protocol}, which ranks "
                "given candidates. Use another protocol."
            )
            raise RequestError(msg)
        built += with_rules(built, CaseRules.of(known, shop, exclude_seen))
    described = "given vectors" if vectors is not None else "character n-grams of titles"
    measurement = _Measurement(dataset, chosen, ks, exclude, before, vectors)
    with contextlib.nullcontext() if out is None else files.lock_folder(Path(out)):
        results = []
        for system in built:
            key = hashlib.sha256(f"{about}{system.key}".encode()).hexdigest()[:16]
            log_path = None if out is None else find_log(Path(out), system, key)
            done = collect_answers(
                system, chosen, max(ks), log_path=log_path, key=key, progress=progress
            )
            results.append(measurement.measure(system, done))
        evaluation = Evaluation(
            dataset.info.name,
            protocol,
            split,
            fitted_on(before),
            exclude,
            seed,
            described,
            chosen,
            label_slices(dataset, chosen, before),
            results,
            ItemGroups.of(
                dataset.catalog, protocols.count_events(dataset, before), exposure_columns
            ),
            None if groups is None or group_column is None else (group_column, groups),
        )
        if out is not None:
            evaluation.save(out)
    return evaluation


def resolve_before(fit_on: str | None, protocol: str, split: str) -> str:
    """Return the first split whose events may not be used to fit systems.

    Args:
        fit_on: see ``evaluate``.
        protocol: the name of the protocol.
        split: the part of the data that contains the targets.

    Raises:
        RequestError: ``fit_on`` is unknown, or includes the targets.
    """
    if fit_on is None:
        return "test" if (protocol, split) == ("demo-v1", "test") else "validation"
    if fit_on not in FIT_ON:
        msg = f"Unknown value fit_on={fit_on!r}. Expected one of: {', '.join(FIT_ON)}."
        raise RequestError(msg)
    if (fit_on, split) == ("train+validation", "validation"):
        msg = (
            "fit_on='train+validation' with split='validation' would include the targets. Expected "
            "fit_on='train'."
        )
        raise RequestError(msg)
    return to_before(fit_on)


def fitted_on(before: str) -> str:
    """Return the names of the parts of the data before a split, in the form shown in results.

    >>> fitted_on("validation"), fitted_on("test")
    ('train', 'train + validation')
    """
    return to_parts(before).replace("+", " + ")


def _resolve_exclude_seen(dataset: Dataset, systems: Sequence[Any], asked: bool | None) -> bool:
    """Return True if seen items are left out of the lists of all systems.

    Raises:
        RequestError: the recommenders' settings differ from one another or from ``asked``.
    """
    ours = {
        s.exclude_seen for s in (split_name(s)[1] for s in systems) if isinstance(s, Recommender)
    }
    if len(ours) > 1 or (asked is not None and ours and ours != {asked}):
        msg = (
            f"exclude_seen={asked}, but the recommenders have exclude_seen={sorted(ours)}. "
            "Expected the same value everywhere. Change the exclude_seen setting of the recommenders."
        )
        raise RequestError(msg)
    if asked is not None:
        return asked
    return ours.pop() if ours else dataset.info.exclude_seen


@dataclass(frozen=True)
class _Measurement:
    """Computes metrics for each user. Values that all systems share are computed only once.

    Attributes:
        dataset: the dataset with the protocol's split.
        cases: the cases, one for each user.
        ks: the list lengths at which metrics are computed.
        exclude_seen: True if items of the history are left out of the lists.
        before: the first split whose events are not counted for popularity and novelty.
        vectors: a matrix with a unit vector for each item of the catalog; None for character
            n-grams of the titles.
    """

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
        events, lead_in = self.dataset.interactions, self.dataset.info.lead_in_behaviors
        marks_seen = np.array([b not in lead_in for b in events.behaviors])
        rows = np.where(marks_seen[events.columns.behavior], events.columns.row, -1)
        return [[r for r in np.unique(rows[c.shown]).tolist() if r >= 0] for c in self.cases]

    @cached_property
    def _counts(self) -> Any:
        return protocols.count_events(self.dataset, self.before)

    @cached_property
    def _vectors(self) -> Any:
        if self.vectors is not None:
            return self.vectors
        return title_vectors(self.dataset.catalog, "ngrams", lambda text: None)

    def measure(self, system: System, answers: Sequence[Answer]) -> Result:
        """Compute all metrics of a system.

        Args:
            system: the system.
            answers: the system's answer to each case.
        """
        ranked = [a.items for a in answers]
        rows = metrics.as_rows(ranked, self._row_of)
        ranks = metrics.ranks_of(self._targets, rows)
        hit = metrics.hits(_flatten(self._baskets), metrics.starts(self._baskets), rows)
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
        rules = getattr(system, "rules", None)
        values["invalid"] = self._invalid(rows) if rules is None else self._broken(rows, rules)
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
        return Result(
            system.name,
            self.cases,
            ranked,
            values,
            whole,
            reliability,
            dict(system.setup),
            "" if rules is None else rules.name,
        )

    def _invalid(self, rows: RowArray) -> FloatArray:
        """Return 1 for each user whose list is invalid, and 0 for all others.

        A list is invalid if it is too short, repeats an item, or contains an item that is unknown,
        seen or not a candidate.

        Args:
            rows: the lists as catalog rows; see ``metrics.as_rows``.
        """
        k, n = max(self.ks), len(self.dataset.catalog)
        among = [c.candidates for c in self.cases]
        if any(a is not None for a in among):
            allowed = [[self._row_of[i] for i in a or ()] for a in among]
            inside = metrics.hits(_flatten(allowed), metrics.starts(allowed), rows)
            bad = metrics.invalid(rows, np.minimum(k, [len(a) for a in allowed]))
            bad |= (~inside & (rows != metrics.END)).any(axis=1)
            return bad.astype(np.float64)
        seen = self._seen if self.exclude_seen else [[] for _ in self.cases]
        bad = metrics.invalid(rows, np.minimum(k, [n - len(s) for s in seen]))
        bad |= metrics.hits(_flatten(seen), metrics.starts(seen), rows).any(axis=1)
        return bad.astype(np.float64)

    def _broken(self, rows: RowArray, rules: CaseRules) -> FloatArray:
        """Return 1 for each user whose list breaks the rules of a shop, and 0 for the others.

        Args:
            rows: the lists as catalog rows; see ``metrics.as_rows``.
            rules: the rules.
        """
        k, every = max(self.ks), np.arange(len(self.dataset.catalog))
        broken, sizes = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=np.int64)
        for place, (case, listed) in enumerate(zip(self.cases, rows, strict=True)):
            allowed, own = rules.allowed(case), listed[listed >= 0].astype(np.int64)
            sizes[place] = len(rules.cut(every[allowed.keeps(every)], k))
            broken[place] = not allowed.keeps(own).all() or len(rules.cut(own, k)) < len(own)
        return (metrics.invalid(rows, sizes) | broken).astype(np.float64)

    def _reliability(self, answers: Sequence[Answer], ranks: Any) -> Calibration | None:
        """Compare the stated probabilities of the top ten items with the actual targets.

        Args:
            answers: the system's answer to each case.
            ranks: the rank of each target, starting at 1; 0 if it is not in the list.

        Returns:
            The comparison, or None if the system states no probabilities.
        """
        stated = [a.probabilities for a in answers]
        if any(s is None for s in stated):
            return None
        pairs = [
            (p, float(place == rank))
            for s, rank in zip(stated, ranks.tolist(), strict=True)
            for place, p in enumerate((s or ())[:AT], start=1)
        ]
        return metrics.calibration([p for p, _ in pairs], [y for _, y in pairs]) if pairs else None


def _flatten(sets: Sequence[Sequence[int]]) -> Any:
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
    """Rank items for each case with a function, and return the ranked lists as a result.

    If a log is written, an interrupted run can be resumed.

    Args:
        name: the name of the system.
        rank: a function that returns the ranked item ids for a history.
        cases: the cases for which items are ranked.
        log_path: the file to which the lists are logged; see ``run_log.collect_answers``.
        key: a string that identifies everything that the lists depend on, such as the model and its
            settings. A log with a different key is rejected.
        progress: a function that is called with the number of users processed so far.

    Raises:
        DataError: the log was written by another system or with other settings.
    """

    def report(system: str, done: int) -> None:
        if progress is not None:
            progress(done)

    system = _RankFunction(name, rank)
    done = collect_answers(system, cases, 0, log_path=log_path, key=key, progress=report)
    return Result(name, cases, [a.items for a in done])


@dataclass(slots=True)
class _RankFunction:
    name: str
    rank: Callable[[History], Sequence[str]]
    key: str = ""
    batch: int = 1
    setup: Mapping[str, Any] = field(default_factory=dict)
    former_names: tuple[str, ...] = ()

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        return [Answer(list(self.rank(case.history))) for case in cases]
