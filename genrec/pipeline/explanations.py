"""Explain the items of a recommendation list, or a single item.

This module connects the trie search with the modules that measure evidence and write sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from genrec.config import Settings
from genrec.data.knowledge import Knowledge
from genrec.data.titles import TitleForm
from genrec.errors import RequestError
from genrec.models.base import TextModel
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.request import Request
from genrec.pipeline.shop_rules import apply_filters
from genrec.pipeline.trie_search import TrieSearch
from genrec.pipeline.types import RecommendationList
from genrec.types import IntArray

if TYPE_CHECKING:
    from genrec.decoding.filters import Filter
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.explain.sentences import Explainer
    from genrec.explain.text_sentences import TextExplainer
    from genrec.explain.types import Explanation
    from genrec.models.language_model import LanguageModel


class TextExplanations:
    """Explains items with a model that only generates text.

    The sentences are checked, but no evidence is measured.
    """

    def __init__(
        self, model: TextModel, settings: Settings, index: CatalogIndex, form: TitleForm
    ) -> None:
        """Store the data that all requests share."""
        self._model, self._settings, self._index, self._form = model, settings, index, form

    def _explainer(self, style: str) -> TextExplainer:
        """Return the explainer that writes sentences in the given style."""
        from genrec.explain.styles import PLAIN, load_explain_template
        from genrec.explain.text_sentences import TextExplainer

        if style == PLAIN:
            msg = (
                f"style={PLAIN!r} needs evidence, and {self._model.name} gives no probabilities to measure "
                "it with. Choose another style."
            )
            raise RequestError(msg)
        settings = self._settings
        template = load_explain_template(style, settings.language, settings.prompts)
        return self._index.made(
            ("text explainer", style),
            lambda: TextExplainer(
                self._model,
                template,
                self._index.catalog,
                template.form(self._form.case, self._form.max_title_tokens),
            ),
        )

    def add(self, answer: RecommendationList, request: Request) -> RecommendationList:
        """Add an explanation to each item of a list."""
        rows = self._index.catalog.rows([r.item_id for r in answer])
        explainer = self._explainer(request.options.style)
        window = request.history.latest(request.prompt.prompt.events)
        written = explainer.explain(window, rows, request.behavior)
        note = (
            f"{self._model.name} gives no probabilities, so the sentences of the explanations are "
            "checked, but there is no evidence."
        )
        return replace(
            answer,
            recommendations=tuple(
                replace(r, explanation=e)
                for r, e in zip(answer.recommendations, written, strict=True)
            ),
            notes=(*answer.notes, note),
        )


class Explanations:
    """An object that explains items with evidence, checked sentences and changes to the history."""

    def __init__(
        self,
        model: LanguageModel,
        settings: Settings,
        index: CatalogIndex,
        search: TrieSearch,
        form: TitleForm,
        known: Knowledge | None = None,
    ) -> None:
        """Store the data that all requests share.

        Args:
            model: the language model.
            settings: the settings of the recommender.
            index: the catalog index.
            search: the trie search.
            form: the form of titles in prompts.
            known: the attributes that prompts show after titles; None if they show none.
        """
        self._model, self._settings, self._index = model, settings, index
        self._search, self._form, self._known = search, form, known or Knowledge(())

    def _explainer(self, style: str, listed: bool = True) -> Explainer:
        """Return the explainer that writes sentences in the given style.

        Args:
            style: the style of the sentences, such as ``reason``.
            listed: True if the sentences are about recommended items.
        """
        from genrec.explain.sentences import Explainer
        from genrec.explain.styles import PLAIN, load_explain_template

        settings = self._settings
        return self._index.made(
            ("explainer", style, listed),
            lambda: Explainer(
                self._model,
                load_explain_template(style, settings.language, settings.prompts).with_attributes(
                    self._known
                ),
                self._index.catalog,
                case=self._form.case,
                max_title_tokens=self._form.max_title_tokens,
                listed=listed,
                writes=style != PLAIN,
            ),
        )

    def add(self, answer: RecommendationList, request: Request) -> RecommendationList:
        """Add an explanation to each item of a list."""
        from genrec.explain.sentences import FAINT, explain_items, rounding_error

        options = request.options
        rows = self._index.catalog.rows([r.item_id for r in answer])
        question = self._search.question(request)
        explainer = self._explainer(options.style)
        written = explain_items(explainer, question, rows, request.behavior, options.evidence)
        written = [self._with_shared(e, row) for e, row in zip(written, rows, strict=True)]
        notes = answer.notes
        if (error := rounding_error(question)) >= FAINT:
            dtype = str(self._model.dtype).removeprefix("torch.")
            notes = (
                *notes,
                f"In {dtype}, the evidence may be off by {error:.2g} nats. Use --dtype float32 for "
                "exact evidence.",
            )
        return replace(
            answer,
            recommendations=tuple(
                replace(r, explanation=e)
                for r, e in zip(answer.recommendations, written, strict=True)
            ),
            notes=notes,
        )

    def _with_shared(self, explanation: Explanation, row: int) -> Explanation:
        """Add to the evidence what the events' items have in common with an item, by catalog row."""
        if not self._known.names:
            return explanation
        catalog = self._index.catalog
        evidence = tuple(
            e
            if e.item_id is None
            else replace(
                e, shared=self._known.shared(catalog[catalog.row(e.item_id)], catalog[row])
            )
            for e in explanation.evidence
        )
        return replace(explanation, evidence=evidence)

    def examine(self, request: Request, row: int, rules: Mapping[str, Filter]) -> ItemExplanation:
        """Explain one item, even if it may not be recommended; see ``Recommender.explain``.

        Args:
            request: the request, which must not exclude the user's own items.
            row: the catalog row of the item.
            rules: the filters of the rules about the user's own items; see ``ShopRules.filters``.
        """
        from genrec.explain import counterfactuals
        from genrec.explain.drafts import Draft, tell
        from genrec.explain.sentences import explain_items

        index, options = self._index, request.options
        allowed, _ = apply_filters(request.allowed, rules, request.order)
        place = index.trie.positions_of(np.array([row]))
        listed = allowed
        if allowed.count_items(request.order.n_items) < 1:
            listed = allowed.also(place)
        filters = {"filters": request.allowed, **rules}
        # the clearest reasons first
        reasons = ("filters", "returned", "last_basket", "seen", "same_title", "unseen")
        excluding = [r for r in reasons if r in filters and not filters[r].keeps(place)[0]]
        question = self._search.question(replace(request, allowed=listed))

        def explain(recommended: bool) -> Explanation:
            writer = self._explainer(options.style, recommended)
            (one,) = explain_items(writer, question, [row], request.behavior, options.evidence)
            one = self._with_shared(one, row)
            tell(Draft(one.text, len(one.rejected) + 1, checked=True))
            return one

        item = counterfactuals.examine_item(
            question,
            index.catalog,
            row,
            explain,
            allowed,
            int(options.k),
            request.behavior,
            self._model.tokenizer.decode,
        )
        notes, group = request.notes, index.groups.name(row)
        if item.allowed and not item.listed and item.rank is not None and item.rank <= item.k:
            reason = "limits such as caps leave it out"
            if options.per_group and group is not None:
                reason = (
                    f"at most {options.per_group} items of the group {group!r} are listed (--per-group), "
                    "and others of this group rank higher"
                )
            note = f"The item has rank {item.rank} but is not in the list of {item.k} items, because {reason}."
            notes = (*notes, note)
        return replace(
            item,
            excluded_by=excluding[0] if excluding else None,
            understood=request.understood,
            notes=notes,
        )

    def falls(self, request: Request, row: int, left_out: Sequence[Sequence[int]]) -> list[float]:
        """Measure the drop in a score when events are removed; see ``Recommender.falls``."""
        from genrec.explain.evidence import Change, Counterfactuals

        question = self._search.question(request)
        events = range(question.events)
        for places in left_out:
            if not all(p in events for p in places):
                msg = (
                    f"left_out contains {list(places)}, but the prompt shows {len(events)} events. "
                    f"Expected indices from 0 for the oldest event to {len(events) - 1}."
                )
                raise RequestError(msg)
        changes = [Change(tuple(places)) for places in left_out]
        drops = Counterfactuals(question, [row], changes).measure_drops(range(len(changes)))
        return [float(drop) for drop in drops.total[:, 0]]

    def set_falls(
        self, request: Request, sets: Sequence[IntArray], left_out: Sequence[Sequence[int]]
    ) -> list[tuple[float, float]]:
        """Measure how much probability sets of items lose when events are left out.

        Args:
            request: the request, which must not exclude the user's own items.
            sets: the catalog rows of each set of items, which is not empty.
            left_out: for each set, the indices of the events in the whole history that are left out.

        Returns:
            For each set, the drop of the logarithm of its items' total probability in nats: the parts
            due to the model and to the prior.
        """
        from genrec.explain.evidence import Change, Counterfactuals

        question = self._search.question(request)
        first = len(question.history) - question.events
        changes = [
            Change(
                left_out=tuple(n - first for n in places if n >= first),
                older=tuple(n for n in places if n < first),
            )
            for places in left_out
        ]
        rows = np.unique(np.concatenate(sets))
        places = [np.searchsorted(rows, one) for one in sets]
        drops = Counterfactuals(question, rows.tolist(), changes, places).measure_drops(
            range(len(changes))
        )
        both = zip(np.diag(drops.model).tolist(), np.diag(drops.prior).tolist(), strict=True)
        return [(float(model), float(prior)) for model, prior in both]

    def spans(self, request: Request) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Locate each event in the prompt; see ``Recommender.events_in_prompt``."""
        from genrec.explain.event_places import locate_events

        return locate_events(self._search.question(request))
