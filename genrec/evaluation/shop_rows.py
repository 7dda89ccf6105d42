"""Evaluate the lists that a shop would show, in addition to the lists of a protocol.

A protocol determines which items may be recommended, so that results under it are comparable. The
systems in this module rank items for the same cases, but follow the rules in ``QueryOptions``, such
as ``show``. They have names of their own and are compared only with one another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import numpy as np

from genrec.config import PROTOCOL, QueryOptions, Settings
from genrec.data.dataset import Dataset
from genrec.data.protocols import Case
from genrec.decoding.filters import Filter
from genrec.errors import ModelError, RequestError
from genrec.evaluation.systems import Answer, BaselineSystem, RecommenderSystem, System
from genrec.pipeline import rerank
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.shop_rules import ShopRules, apply_filters
from genrec.types import IntArray

RULES = ("show", "allow_returned", "allow_last_basket", "allow_same_title", "per_group")
_NAMES = {"all": "all items", "new": "new items only", "again": "repeats only"}
_ALLOWED = {
    "allow_returned": "with returned items",
    "allow_last_basket": "with the latest basket",
    "allow_same_title": "with items of the same title",
}


@dataclass(frozen=True, slots=True)
class CaseRules:
    """The shop rules that determine which items may be listed for each case of an evaluation.

    Attributes:
        options: the query options that are used for all lists.
        rules: the rules for items that a user has already interacted with.
    """

    options: QueryOptions
    rules: ShopRules

    @classmethod
    def of(cls, dataset: Dataset, options: QueryOptions, exclude_seen: bool | None) -> CaseRules:
        """Create the shop rules for the cases of a dataset.

        Args:
            dataset: the dataset.
            options: the query options that are used for all lists. Only the options in ``RULES``
                may be set. The default limit for ``per_group`` is ignored.
            exclude_seen: True if seen items are left out by default; None for the dataset's default.

        Raises:
            RequestError: an option that is not in ``RULES`` is set, or ``show`` contradicts
                ``exclude_seen``.
        """
        options = replace(
            options, at=PROTOCOL.at, per_group=options.per_group if options.groups else None
        )
        others = [name for name in _differing(options) if name not in RULES]
        if others:
            msg = (
                f"shop has a value for {others[0]!r}. Expected only the options {', '.join(RULES)}, which "
                "all systems follow."
            )
            raise RequestError(msg)
        settings = Settings(exclude_seen=exclude_seen)
        index = CatalogIndex(dataset.catalog, _no_model)
        rules = ShopRules(settings, dataset, index, dataset.info.target_behavior)
        rules.show(options)
        return cls(options, rules)

    @property
    def name(self) -> str:
        """The suffix that is added to a system's name, such as ``new items only``."""
        allowed = [words for option, words in _ALLOWED.items() if getattr(self.options, option)]
        limit = self.options.per_group
        grouped = [] if limit is None else [f"at most {limit} of a group"]
        return ", ".join([_NAMES[self.rules.show(self.options)], *allowed, *grouped])

    @property
    def setup(self) -> dict[str, Any]:
        """The options whose values differ from those that protocols use, keyed by name."""
        return _differing(self.options)

    def allowed(self, case: Case) -> Filter:
        """Return a filter that allows the catalog rows of the items that a list may contain."""
        order = self.rules.index.order(by_rows=True)
        filters = self.rules.filters(case.history, self.options, order)
        allowed, _ = apply_filters(Filter.all(order.n_positions), filters, order)
        return allowed

    def cut(self, rows: IntArray, k: int) -> IntArray:
        """Return the first k of the ranked rows, with at most ``per_group`` from each group."""
        limit = self.options.per_group
        if limit is None:
            return rows[:k]
        return rows[rerank.capped(self.rules.index.groups.values(rows), k, limit)]


def _differing(options: QueryOptions) -> dict[str, Any]:
    """Return the options whose values differ from those that protocols use."""
    usual = asdict(PROTOCOL)
    return {name: v for name, v in asdict(options).items() if v != usual[name]}


def with_rules(systems: Sequence[System], rules: CaseRules) -> list[System]:
    """Return a version of each system whose lists follow the rules of a shop."""
    made: list[System] = []
    for system in systems:
        if isinstance(system, RecommenderSystem):
            made.append(_RuledRecommender(system, rules))
        else:
            assert isinstance(system, BaselineSystem)
            made.append(_RuledBaseline(system, rules))
    return made


class _Ruled:
    """A system whose lists follow the rules of a shop; see ``systems.System``."""

    batch = 1

    def __init__(self, system: System, rules: CaseRules) -> None:
        """Store the system and the rules, and extend the system's name and description."""
        self.name = f"{system.name}, {rules.name}"
        self.former_names: tuple[str, ...] = ()
        self.setup: Mapping[str, Any] = {**system.setup, "rules": rules.setup}
        self.rules, self._plain = rules, system

    @property
    def key(self) -> str:
        """A string that identifies the system and the rules."""
        return f"{self._plain.key} {self.rules.setup}"


class _RuledRecommender(_Ruled):
    def __init__(self, system: RecommenderSystem, rules: CaseRules) -> None:
        super().__init__(system, rules)
        self._recommender = system.recommender

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """Answer each case with at most k items that the rules allow."""
        found = []
        for case in cases:
            started = time.perf_counter()
            (answer,) = self._recommender.recommend_many(
                [case.history], k, options=self.rules.options
            )
            certificate = answer.details.get("certificate")
            exact = None if certificate is None else bool(certificate["exact"])
            seconds = time.perf_counter() - started
            found.append(Answer([r.item_id for r in answer], exact=exact, seconds=seconds))
        return found


class _RuledBaseline(_Ruled):
    def __init__(self, system: BaselineSystem, rules: CaseRules) -> None:
        super().__init__(system, rules)
        self._system, self.batch = system, system.batch

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """Answer each case with at most k items that the rules allow.

        The baseline ranks enough items that k remain after the rules have left some out. If the
        number of items per group is limited, it ranks all items.
        """
        allowed = [self.rules.allowed(case) for case in cases]
        left_out = max(f.n - len(f) for f in allowed)
        started = time.perf_counter()
        size = allowed[0].n if self.rules.options.per_group else min(k + left_out, allowed[0].n)
        lists = self._system.rank([case.history for case in cases], size, exclude_seen=False)
        catalog, chosen = cases[0].events.catalog, []
        for ranked, one in zip(lists, allowed, strict=True):
            rows = np.array(catalog.rows(list(ranked)), dtype=np.int64)
            rows = self.rules.cut(rows[one.keeps(rows)], k)
            chosen.append([catalog[row].item_id for row in rows.tolist()])
        seconds = (time.perf_counter() - started) / len(cases)
        return [Answer(items, seconds=seconds) for items in chosen]


def _no_model() -> NoReturn:
    msg = "Token ids are not available here, because shop rules are applied without a model."
    raise ModelError(msg)
