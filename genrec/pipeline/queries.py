"""Turn a query into filters and into weights of items, and say which parts of the score spoke.

The conditions of a query become filters. Its other words are compared with the titles. The model
reads them, too, and scores the best items by the other parts; see ``priors.query_weights``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genrec.config import EXPLAIN, FEATURE, QUERY_WEIGHTS, QueryOptions, Settings
from genrec.conversation.catalog_words import CatalogWords
from genrec.conversation.dialogue import Dialogue, Turn
from genrec.conversation.parser import parse_query
from genrec.conversation.query import Query
from genrec.data.events import History, Interaction
from genrec.errors import RequestError
from genrec.matching.likeness import TitleLikeness
from genrec.matching.matcher import TextMatcher
from genrec.pipeline.about import MATCH, find_examples
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.priors.fusion import PriorSource
from genrec.priors.model_feature import Exponents
from genrec.priors.query_weights import QueryPrior
from genrec.taste.keywords import KeywordIndex
from genrec.text import visible
from genrec.types import BoolArray, FloatArray, IntArray

CANDIDATES = 100  # number of items that the model scores for a query


@dataclass(frozen=True, eq=False)
class Wish:
    """What a query asks for, ready for the search.

    Attributes:
        query: what was understood of the query.
        weights: the weight of each part of the score.
        prior: the prior that takes the query into account; None if the query has only conditions, so
            that items are ranked as without a query.
        role: ``feature`` if the model scores the best items, ``explain`` if it does not.
        match: (N,) cosine of the wanted text and each title; None if there is no such text.
        unwanted: (N,) the largest cosine of what is not wanted and each title, at least 0; None if
            everything is wanted.
        compared: how the texts were compared: ``embedding`` or ``ngrams``.
        examples: the ids of the items that stand for what the query says about the user.
    """

    query: Query
    weights: Mapping[str, float]
    prior: QueryPrior | None = None
    role: str = EXPLAIN
    match: FloatArray | None = None
    unwanted: FloatArray | None = None
    compared: str = ""
    examples: tuple[str, ...] = ()

    @property
    def exponents(self) -> Exponents:
        """The exponents of the other parts together and of the model's probability."""
        return Exponents(1.0, self.weights["model"] if self.role == FEATURE else 0.0)

    @property
    def spoke(self) -> tuple[str, ...]:
        """The parts that have a say in the order of items; empty for a query of conditions."""
        if self.prior is None:
            return ()
        prior = self.prior.base is not None and self.weights["prior"] > 0
        there = {
            "match": self.match is not None and self.weights["match"] > 0,
            "unwanted": self.unwanted is not None and self.weights["unwanted"] > 0,
            "prior": prior,
            "model": self.role == FEATURE,
        }
        return tuple(part for part, speaks in there.items() if speaks)

    def describe(self) -> dict[str, Any]:
        """Describe the query for the answer."""
        return {
            **self.query.to_dict(),
            "parts": list(self.spoke),
            "weights": {part: self.weights[part] for part in self.spoke},
            "compared": self.compared or None,
            "examples": list(self.examples),
        }

    def prior_logs(self, history: History, rows: IntArray) -> list[float | None]:
        """Return the log-probability of items under the prior alone; None if it does not speak."""
        if self.prior is None or "prior" not in self.spoke:
            return [None] * len(rows)
        logs: list[float | None] = self.prior.prior_logs(history)[0][rows].tolist()
        return logs

    def parts_of(
        self, history: History, rows: IntArray, model: Sequence[float | None]
    ) -> list[dict[str, float]]:
        """Return what each part adds to the score of items, in nats.

        Args:
            history: the history.
            rows: (n,) the catalog rows of the items.
            model: the model's log-probability of each item; None where it was not asked.
        """
        assert self.prior is not None
        logs, _ = self.prior.prior_logs(history)
        found = []
        for place, row in enumerate(rows.tolist()):
            parts: dict[str, float] = {}
            if "match" in self.spoke and self.match is not None:
                parts["match"] = self.weights["match"] * float(self.match[row])
            if "unwanted" in self.spoke and self.unwanted is not None:
                parts["unwanted"] = -self.weights["unwanted"] * float(self.unwanted[row])
            if "prior" in self.spoke:
                parts["prior"] = self.weights["prior"] * float(logs[row])
            said = model[place]
            if "model" in self.spoke and said is not None:
                parts["model"] = self.weights["model"] * said
            found.append(parts)
        return found


class QueryReader:
    """Understands queries for one recommender."""

    def __init__(
        self,
        settings: Settings,
        index: CatalogIndex,
        priors: PriorSource,
        behavior: str,
        keywords: Callable[[], KeywordIndex],
        *,
        scores: bool = True,
    ) -> None:
        """Store what all queries share.

        Args:
            settings: the settings of the recommender.
            index: the catalog index.
            priors: the object that provides the prior.
            behavior: the target behavior.
            keywords: returns the keywords of the catalog's items.
            scores: whether the model can score items; otherwise, it has no part in the order of items.
        """
        self._keywords = keywords
        self._settings, self._index, self._priors = settings, index, priors
        self._behavior, self._scores = behavior, scores

    @property
    def words(self) -> CatalogWords:
        """The words by which queries can refer to the catalog's columns."""
        catalog = self._index.catalog
        return self._index.made("words of queries", lambda: CatalogWords(catalog))

    def parse(
        self, text: str, matcher: TextMatcher, shown: Sequence[str] = (), focus: str | None = None
    ) -> Query:
        """Understand a query; see ``parse_query``."""
        return parse_query(
            text, self._index.catalog, words=self.words, matcher=matcher, shown=shown, focus=focus
        )

    def replay(self, turns: Sequence[Turn], matcher: TextMatcher) -> tuple[Dialogue, Query | None]:
        """Read the turns of a conversation.

        Returns:
            What is known after them, and what was understood of the last one; None if it has no words.

        Raises:
            RequestError: a turn of the user is too long.
        """
        state, last = Dialogue(), None
        for turn in turns:
            last = None
            if not turn.mine:
                state = state.see([i for i in turn.items if i in self._index.catalog])
            elif visible(turn.text):
                last = self.parse(turn.text, matcher, state.shown, state.focus)
                state = state.add(last)
        return state, last

    def fits(self, query: Query) -> BoolArray:
        """Return an (N,) mask of the catalog rows that satisfy the conditions and may be recommended."""
        catalog = self._index.catalog
        fits = np.ones(len(catalog), dtype=np.bool_)
        if query.where:
            fits &= self._index.where(query.where)
        fits[catalog.rows(query.denied)] = False
        fits[list(self._index.removed)] = False
        return fits

    def may_find(self, query: Query) -> bool:
        """Check whether any item satisfies a query."""
        return bool(self.fits(query).any())

    def apply(self, query: Query, options: QueryOptions) -> QueryOptions:
        """Return options with the filters and the count of a query.

        The options of the caller remain: both conditions must hold, and a given ``k`` counts.

        Raises:
            RequestError: no item satisfies the conditions.
        """
        where = " and ".join(f"({w})" for w in (options.where, query.where) if w)
        if query.where and not self._index.where(query.where).any():
            said = ", ".join(f'"{c.text}"' for c in query.conditions)
            msg = (
                f"No item satisfies the conditions of the query ({said}: {query.where}). Expected at least "
                "one item; change or leave out a condition."
            )
            raise RequestError(msg)
        count = options.k if query.count is None or options.limited else query.count
        return replace(
            options,
            where=where or None,
            deny=(*options.deny, *(i for i in query.denied if i not in options.deny)),
            k=count,
        )

    def wish(self, query: Query, options: QueryOptions, matcher: TextMatcher) -> Wish:
        """Prepare a query for the search."""
        weights = {
            **QUERY_WEIGHTS,
            **({"match": MATCH} if query.about else {}),
            **options.query_weights,
        }
        if not (query.wanted or query.unwanted or query.liked):
            return Wish(query, weights)
        catalog = self._index.catalog
        likeness = self._index.made("likeness", lambda: TitleLikeness(matcher, len(catalog)))
        titles = [catalog[row].title for row in catalog.rows(query.liked)]
        wanted = ". ".join(text for text in (query.wanted, *titles) if text)
        scores = np.zeros(len(catalog))
        match = unwanted = None
        compared = likeness.by(wanted or query.unwanted[0])
        if wanted:
            match = likeness.cosines([wanted])[0]
            scores += weights["match"] * match
        if query.unwanted:
            unwanted = np.maximum(likeness.cosines(query.unwanted).max(axis=0), 0.0)
            scores -= weights["unwanted"] * unwanted
        liked = tuple(Interaction(item, self._behavior) for item in query.liked)
        examples: tuple[str, ...] = ()
        if query.about:
            rows = find_examples(query.wanted, self._keywords())
            examples = tuple(catalog[row].item_id for row in rows)
        prior = QueryPrior(
            self._priors.prior, weights["prior"], scores, self.fits(query), liked, CANDIDATES,
            tuple(Interaction(item, self._behavior) for item in reversed(examples)),
        )  # fmt: skip
        asked = weights["model"] > 0 and self._scores and self._settings.model_role != EXPLAIN
        role = FEATURE if asked else EXPLAIN
        return Wish(query, weights, prior, role, match, unwanted, compared, examples)
