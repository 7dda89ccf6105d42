"""Make profiles: find what a history says about a user's taste, and measure it.

This module connects the counts of a dataset, the prior and the evidence with ``genrec.taste``. A
profile needs no language model; with one, the nats of its interests are measured with it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from genrec.config import Settings
from genrec.data.behaviors import Verb, shipped_verbs
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.errors import ModelError
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.keywords import keyword_index, write_section
from genrec.pipeline.request import HistoryLike, PromptLimits, RequestBuilder
from genrec.pipeline.resolve import behavior_of, template_of
from genrec.priors.fusion import build_prior, choose_prior
from genrec.priors.weights import ItemPrior
from genrec.prompts.profile import ProfileWords
from genrec.taste.behaviors import BehaviorCounts
from genrec.taste.edits import ProfileEdits
from genrec.taste.interests import Interest, find_interests, find_shifts
from genrec.taste.keywords import KeywordIndex
from genrec.taste.opinions import Classifier, Opinions, find_opinions
from genrec.taste.profile import Intent, Profile, Topic
from genrec.taste.sentences import ProfileWriter, find_unsupported
from genrec.text import quantity
from genrec.types import FloatArray, IntArray, Log

LANGUAGES = ("en", "zh")
CATEGORIES = (
    "category",
    "categories",
    "genre",
    "genres",
    "department",
    "product_type",
    "tags",
    "class",
)
ITEMS = 20  # items of an interest that the model scores
_TOPICS = 8
Falls = list[tuple[float, float]]
"""For each set of items, the nats that it loses by the model and by the prior."""
Measure = Callable[[History, Sequence[IntArray], Sequence[Sequence[int]]], Falls]


class Profiler:
    """Makes profiles of histories over the items of a catalog."""

    def __init__(
        self,
        index: CatalogIndex,
        settings: Settings,
        dataset: Dataset | None,
        prior: ItemPrior | None,
        verbs: Mapping[str, Verb] | None = None,
    ) -> None:
        """Store the data that all profiles share.

        Args:
            index: the catalog index.
            settings: the settings of the recommender.
            dataset: the dataset; None if there is only a catalog.
            prior: the prior; None if there is none.
            verbs: the verbs of the recommender's own template.
        """
        self._index, self._settings, self._dataset = index, settings, dataset
        self.prior, self._verbs = prior, dict(verbs or {})

    @property
    def keywords(self) -> KeywordIndex:
        """The keywords of the catalog's items."""
        return keyword_index(self._index, self._settings, self._dataset)

    @property
    def behaviors(self) -> BehaviorCounts | None:
        """What all users did, by behavior; None without a dataset."""
        data = self._dataset
        if data is None:
            return None
        before = self._settings.prior_before
        return self._index.made(
            "behavior counts", lambda: BehaviorCounts.count(data.interactions, before)
        )

    def make(
        self,
        history: History,
        edits: ProfileEdits | None = None,
        *,
        measure: Measure | None = None,
        measured: str | None = "prior",
        classifier: Classifier | None = None,
        most: int = 8,
    ) -> Profile:
        """Make the profile of a history.

        Args:
            history: the history, oldest first.
            edits: the user's corrections.
            measure: measures the nats of the interests; None for the prior alone.
            measured: what ``measure`` uses; see ``Profile.measured``.
            classifier: reads reviews; see ``genrec.taste.opinions.find_opinions``.
            most: the maximum number of interests.
        """
        edits = edits or ProfileEdits()
        keywords = self.keywords
        read = edits.apply(history, keywords)
        events = read.interactions
        found = find_interests(keywords, events, most=most, without=edits.unnamed)
        notes: list[str] = []
        if len(read) < len(history):
            notes.append(
                f"{quantity(len(history) - len(read), 'event')} of the history were left out, because "
                "the user banned keywords of them."
            )
        if measure is None and self.prior is None:
            notes.append("There is no prior and no model, so no nats were measured.")
            measured = None
        elif found:
            falls = (measure or self._measure_prior)(read, *self._sets(found, read, measure))
            found = tuple(
                replace(one, nats=model + prior, nats_model=model, nats_prior=prior)
                for one, (model, prior) in zip(found, falls, strict=True)
            )
        found += tuple(self._added(keyword, read) for keyword in edits.added)
        profile = Profile(
            history=read,
            interests=found,
            shifts=find_shifts(keywords, events, without=edits.unnamed),
            intent=self._intent(read, found),
            opinions=find_opinions(events, classifier) if events else Opinions(),
            edits=edits,
            measured=measured,
            section=self.section(read, edits),
            notes=tuple(notes),
        )
        return replace(profile, text=self._write(profile))

    def section(self, history: History, edits: ProfileEdits | None = None) -> str:
        """Write the line that a prompt shows instead of the events of a history."""
        return write_section(history, self.keywords, self._settings, edits or ProfileEdits())

    def unsupported(self, profile: Profile, language: str) -> tuple[str, ...]:
        """Check the paragraph of a profile; see ``genrec.taste.sentences.find_unsupported``."""
        words = ProfileWords.load(language, self._settings.prompts)
        verbs = self._spoken(language)
        sentences = ProfileWriter(words, verbs).sentences(profile)
        return find_unsupported(sentences, profile, self._index.catalog, words, verbs)

    def _spoken(self, language: str) -> dict[str, Verb]:
        """Return the verbs of a language, and those of the recommender's own template in its language."""
        verbs = shipped_verbs(language)
        return verbs | self._verbs if language == self._settings.language else verbs

    def _write(self, profile: Profile) -> dict[str, str]:
        """Write the paragraph in each language. A sentence that the check rejects is left out."""
        texts = {}
        for language in dict.fromkeys([*LANGUAGES, self._settings.language]):
            words = ProfileWords.load(language, self._settings.prompts)
            verbs = self._spoken(language)
            writer = ProfileWriter(words, verbs)
            kept = [
                s
                for s in writer.sentences(profile)
                if not find_unsupported([s], profile, self._index.catalog, words, verbs)
            ]
            texts[language] = writer.join(kept)
        return texts

    def _added(self, keyword: str, read: History) -> Interest:
        """Return the interest of a keyword that the user added."""
        keywords, catalog = self.keywords, self._index.catalog
        rows = set(keywords.rows(keyword).tolist())
        places = tuple(
            n
            for n, e in enumerate(read.interactions)
            if e.item_id is not None and e.item_id in catalog and catalog.row(e.item_id) in rows
        )
        share = len(places) / len(read) if len(read) else 0.0
        return Interest(keyword, places, share, keywords.share(keyword), 0.0, 0.0, source="added")

    def _sets(
        self, found: Sequence[Interest], read: History, measure: Measure | None
    ) -> tuple[list[IntArray], list[Sequence[int]]]:
        """Return the items and the events of each interest.

        With a model, only the most probable items by the prior, or the most frequent ones, are scored.
        """
        catalog_rows = [self._present(self.keywords.rows(i.keyword)) for i in found]
        if measure is not None:
            likely = self.keywords.shares if self.prior is None else self._chances(read)
            catalog_rows = [
                np.sort(rows[np.argsort(-likely[rows], kind="stable")[:ITEMS]])
                for rows in catalog_rows
            ]
        return catalog_rows, [i.events for i in found]

    def _present(self, rows: IntArray) -> IntArray:
        """Return rows without removed items, unless all of them were removed."""
        kept = rows[~np.isin(rows, list(self._index.removed))] if self._index.removed else rows
        return kept if len(kept) else rows

    def _measure_prior(
        self, history: History, sets: Sequence[IntArray], left_out: Sequence[Sequence[int]]
    ) -> Falls:
        """Measure how much probability sets of items lose by the prior alone."""
        own = self._chances(history)
        falls = []
        for rows, places in zip(sets, left_out, strict=True):
            gone = set(places)
            rest = [e for n, e in enumerate(history.interactions) if n not in gone]
            other = self._chances(history.with_events(rest))
            falls.append((0.0, float(np.log(own[rows].sum()) - np.log(other[rows].sum()))))
        return falls

    def _chances(self, history: History) -> FloatArray:
        """Return (N,) the probability of each item by the prior; removed items have none."""
        assert self.prior is not None
        weights = self.prior.weights(history).to_dense(len(self._index.catalog))
        if self._index.removed:
            weights[list(self._index.removed)] = 0.0
        return np.asarray(weights / weights.sum())

    def _intent(self, read: History, found: Sequence[Interest]) -> Intent:
        counts = self.behaviors
        behaviors: list[tuple[str, float]] = []
        if counts is not None:
            chances = counts.probabilities(read).tolist()
            behaviors = sorted(
                zip(counts.behaviors, chances, strict=True), key=lambda pair: (-pair[1], pair[0])
            )
        if self.prior is None:
            return Intent(tuple(behaviors))
        own, usual = self._chances(read), self._chances(History())
        topics = [
            Topic(i.keyword, None, float(own[rows].sum()), float(usual[rows].sum()))
            for i in found
            if len(rows := self.keywords.rows(i.keyword))
        ]
        topics += self._categories(own, usual)
        topics.sort(key=lambda t: (-t.probability, t.name))
        return Intent(tuple(behaviors), tuple(topics[:_TOPICS]))

    def _categories(self, own: FloatArray, usual: FloatArray) -> list[Topic]:
        """Return the most likely values of the catalog's column of categories, if it has one."""
        column = next((c for c in CATEGORIES if c in self._index.catalog.columns), None)
        if column is None:
            return []
        values = self._index.column(column)
        found = []
        for value in {str(v) for v in values if isinstance(v, str) and v}:
            mask = values == value
            found.append(Topic(value, column, float(own[mask].sum()), float(usual[mask].sum())))
        return sorted(found, key=lambda t: (-t.probability, t.name))[:_TOPICS]


def profile_dataset(
    dataset: Dataset,
    history: HistoryLike,
    edits: ProfileEdits | None = None,
    *,
    classifier: Classifier | None = None,
    log: Log = lambda message: None,
    **settings: object,
) -> tuple[Profile, Profiler]:
    """Make a profile by counting alone, without loading a language model.

    Args:
        dataset: the dataset.
        history: see ``Recommender.understand``.
        edits: the user's corrections.
        classifier: reads reviews.
        log: a function that is called with a line of text before each slow step.
        **settings: fields of ``genrec.config.Settings``.
    """
    checked = Settings.of(settings)
    template = template_of(checked, dataset)
    behavior = behavior_of(checked, dataset, template)
    index = CatalogIndex(dataset.catalog, _no_model, log, dataset.cache)
    name = choose_prior(checked, dataset, behavior)
    prior = None if name == "none" else build_prior(checked, dataset, name, behavior, log)
    limits = PromptLimits(lambda: 0, checked.max_events)
    builder = RequestBuilder(checked, dataset, index, template, behavior, _no_model, limits)
    read, _ = builder.understand(history)
    profiler = Profiler(index, checked, dataset, prior, template.verbs)
    return profiler.make(read, edits, classifier=classifier), profiler


def _no_model() -> NoReturn:
    msg = "No model is loaded, so there are no token ids."
    raise ModelError(msg)
