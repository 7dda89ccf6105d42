"""Answering: from requests to lists with all that is said of them, and to explanations.

Knows how to search, to write and to explain; nothing of the edits that go on between requests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from genrec.config import QueryOptions
from genrec.errors import RequestError
from genrec.models.coverage import measure_coverage
from genrec.pipeline import free_text
from genrec.pipeline.request import HistoryLike, Request, RequestBuilder
from genrec.pipeline.trie_search import TrieSearch
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.priors.fusion import PriorSource
from genrec.priors.positions import Fused
from genrec.text import main_script

if TYPE_CHECKING:
    from genrec.decoding.types import Ranking
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.explain.sentences import Explainer
    from genrec.explain.types import Explanation
    from genrec.models.generation import Generated
    from genrec.models.language_model import LanguageModel


class ResponseBuilder:
    """Answers requests."""

    def __init__(
        self, model: LanguageModel, asker: RequestBuilder, searcher: TrieSearch, source: PriorSource
    ) -> None:
        """Takes what makes requests, what ranks items for them, and what gives the prior."""
        self._model, self._asker, self._searcher, self._source = model, asker, searcher, source
        self._settings, self._stock = asker.settings, asker.stock
        self._explainers: dict[tuple[str, bool], Explainer] = {}

    def forget(self) -> None:
        """Throws away what was made of the catalog before an edit."""
        self._explainers.clear()
        self.__dict__.pop("_unread", None)

    @property
    def _seen(self) -> str:
        return self._asker.seen(self._asker.exclude_seen)

    def lists(
        self, asked: Sequence[Request], wishes: QueryOptions, batch_size: int
    ) -> list[RecommendationList]:
        """A list for each request, requests with prompts of like length in one batch."""
        if self._settings.decoder == "match":
            return [self._named(a, wishes) for a in asked]
        order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt.ids))
        answers: dict[int, RecommendationList] = {}
        for first in range(0, len(order), batch_size):
            some = order[first : first + batch_size]
            batch = [asked[i] for i in some]
            tree, prior = self._searcher.read(batch)
            rankings = self._searcher.best(tree, prior, batch, wishes)
            for place, (i, ranking) in enumerate(zip(some, rankings, strict=True)):
                spoke = _spoke(prior, place)
                answers[i] = self._ranked(asked[i], ranking, int(wishes.k), self._seen, spoke)
        return [answers[i] for i in range(len(asked))]

    def scored(self, asked: Request, *, seen: bool) -> RecommendationList:
        """All items that a request allows; ``seen``: those of the history were left out."""
        tree, prior = self._searcher.read([asked])
        ranking = self._searcher.every(tree, prior, asked)
        said = self._asker.seen(seen)
        answer = self._ranked(asked, ranking, asked.size, said, _spoke(prior))
        return replace(answer, decoder="trie")

    def with_nats(
        self, history: HistoryLike, k: int, target: str
    ) -> tuple[RecommendationList, float, float]:
        """See ``Recommender.with_nats``."""
        started = time.perf_counter()
        wishes = QueryOptions(k)
        asked = self._asker.asked(history, self._stock.allowed(wishes))
        tree, prior = self._searcher.read([asked])
        (found,) = self._searcher.best(tree, prior, [asked], wishes)
        answer = self._ranked(asked, found, k, self._seen, _spoke(prior))
        seconds = time.perf_counter() - started
        allowed = self._stock.allowed(QueryOptions(1, allow=[target]))
        ranking = self._searcher.every(tree, prior, replace(asked, allowed=allowed, size=1))
        return answer, -float(ranking.logprobs[0]), seconds

    def written(self, prompt: Sequence[int]) -> list[Generated]:
        """See ``Recommender.generate``."""
        return free_text.written(self._model, self._asker.encoder, self._settings, prompt)

    def _named(self, asked: Request, wishes: QueryOptions) -> RecommendationList:
        """The items that freely written texts name, by how much was written of each."""
        if wishes.min_probability or wishes.chooses:
            msg = (
                "min_probability, per_title, caps and diversity with decoder='match', which states "
                "no probabilities. Expected the decoder trie for these."
            )
            raise RequestError(msg)
        k = int(wishes.k)
        items, notes = free_text.named(
            self.written(asked.prompt.ids),
            self._stock.catalog,
            self._asker.matcher,
            self._stock.mask(asked.allowed),
            asked.size,
            k,
            drawn=bool(self._settings.n_samples),
        )
        return self._list(asked, items, self._seen, k, notes)

    def _ranked(
        self, asked: Request, ranking: Ranking, k: int, seen: str, spoke: Sequence[str]
    ) -> RecommendationList:
        """The list that a ranking is."""
        notes = self._asker.matcher.notes if asked.understood else ()
        answer = self._list(asked, self._items(ranking), seen, k, notes)
        details = {**answer.details, "certificate": asdict(ranking.certificate)}
        if ranking.prior is not None:
            details |= {
                "parts": ["model", "prior"],
                "prior": {**asdict(self._source.fusing), "counted": list(spoke)},
            }
        if ranking.chosen_from is not None:
            details["chosen_from"] = ranking.chosen_from
        return replace(answer, details=details)

    def _items(self, ranking: Ranking) -> tuple[Recommendation, ...]:
        catalog = self._stock.catalog
        arrays = ranking.rows, ranking.logprobs, ranking.scores, ranking.alone
        columns = [a.tolist() for a in arrays]
        columns.append(
            [None] * len(columns[0]) if ranking.prior is None else ranking.prior.tolist()
        )
        return tuple(
            Recommendation(
                rank,
                catalog[row].item_id,
                catalog[row].title,
                value,
                score,
                logprob_model=model,
                logprob_prior=prior,
            )
            for rank, (row, value, score, model, prior) in enumerate(
                zip(*columns, strict=True), start=1
            )
        )

    def _list(
        self,
        asked: Request,
        items: tuple[Recommendation, ...],
        seen: str,
        k: int,
        notes: Sequence[str],
    ) -> RecommendationList:
        model = self._model
        details = {"threads": model.threads} if model.device.type == "cpu" else {}
        return RecommendationList(
            user_id=asked.history.user_id,
            decoder=self._settings.decoder,
            model=model.name,
            seen=seen,
            recommendations=items,
            understood=asked.understood,
            prompt_tokens=len(asked.prompt.ids),
            events=asked.prompt.prompt.events,
            behavior=self._asker.behavior,
            asked=k,
            notes=(*self._unread, *notes),
            details={"device": str(model.device), **details, "parts": ["model"]},
        )

    @cached_property
    def _unread(self) -> tuple[str, ...]:
        """Says where the model is asked about a script that it does not read."""
        script = main_script(self._stock.catalog.titles)
        if script in measure_coverage(self._model.tokenizer).spelled:
            return (
                f"{self._model.name} does not read the script of these titles ({script}): it spells "
                "it in fragments, and its order says little. Use a multilingual model, such as "
                "gemma3-270m or a hub id.",
            )
        return ()

    def _explainer(self, style: str, listed: bool = True) -> Explainer:
        """What writes sentences of a style on items that are recommended, or are not."""
        from genrec.explain.sentences import Explainer, explain_template

        if (style, listed) not in self._explainers:
            settings, form = self._settings, self._asker.encoder.form
            self._explainers[style, listed] = Explainer(
                self._model,
                explain_template(style, settings.language, settings.prompts),
                self._stock.catalog,
                case=form.case,
                max_title_tokens=form.max_title_tokens,
                listed=listed,
            )
        return self._explainers[style, listed]

    def explained(
        self, answer: RecommendationList, asked: Request, wishes: QueryOptions, how: tuple[str, str]
    ) -> RecommendationList:
        """A list with an explanation of each item, by kind of evidence and style."""
        from genrec.explain.sentences import FAINT, explanations, rounding

        rows = self._stock.catalog.rows([r.item_id for r in answer])
        question = self._searcher.question(asked, wishes)
        behavior = self._asker.behavior
        found = explanations(self._explainer(how[1]), question, rows, behavior, how[0])
        pairs = zip(answer.recommendations, found, strict=True)
        told = tuple(replace(r, explanation=e) for r, e in pairs)
        notes = answer.notes
        if (off := rounding(self._model, question.options.temperature)) >= FAINT:
            dtype = str(self._model.dtype).removeprefix("torch.")
            said = f"In {dtype} evidence may be off by {off:.2g} nats; with --dtype float32 it is exact."
            notes = (*notes, said)
        return replace(answer, recommendations=told, notes=notes)

    def examined(
        self, history: HistoryLike, row: int, wishes: QueryOptions, how: tuple[str, str]
    ) -> ItemExplanation:
        """Everything on one item, which need not be allowed; see ``Recommender.explain``."""
        from genrec.explain import counterfactuals
        from genrec.explain.sentences import explanations

        stock, behavior = self._stock, self._asker.behavior
        asked = self._asker.asked(history, stock.allowed(wishes), seen=False)
        allowed = asked.allowed
        if self._asker.exclude_seen:
            allowed = stock.unseen(asked.history, self._asker.lead_in_behaviors)
        listed = allowed
        if stock.size(allowed) < 1:
            listed = allowed.also(stock.trie.positions_of(np.array([row])))
        asked = replace(asked, allowed=listed, size=stock.size(listed))
        question = self._searcher.question(asked, wishes)

        def explain(recommended: bool) -> Explanation:
            writer = self._explainer(how[1], recommended)
            (found,) = explanations(writer, question, [row], behavior, how[0])
            return found

        decode = self._model.tokenizer.decode
        return counterfactuals.examined(
            question, stock.catalog, row, explain, allowed, wishes.k, behavior, decode
        )

    def falls(
        self, history: HistoryLike, row: int, left_out: Sequence[Sequence[int]]
    ) -> list[float]:
        """See ``Recommender.falls``."""
        from genrec.explain.evidence import Change, Counterfactuals

        asked = self._asker.asked(history, self._stock.allowed(QueryOptions()), seen=False)
        question = self._searcher.question(asked, QueryOptions())
        events = range(question.events)
        for places in left_out:
            if not all(p in events for p in places):
                msg = (
                    f"Events {list(places)} of a prompt that shows {len(events)}. Expected their "
                    f"places, from 0 for the oldest to {len(events) - 1}."
                )
                raise RequestError(msg)
        changes = [Change(tuple(places)) for places in left_out]
        found = Counterfactuals(question, [row], changes).falls(range(len(changes)))
        return [float(fall) for fall in found.total[:, 0]]

    def spans(self, history: HistoryLike) -> tuple[str, tuple[tuple[int, int], ...]]:
        """See ``Recommender.events_in_prompt``."""
        from genrec.explain.evidence import spans

        asked = self._asker.asked(history, self._stock.allowed(QueryOptions()), seen=False)
        return spans(self._searcher.question(asked, QueryOptions()))


def _spoke(prior: Fused | None, place: int = 0) -> Sequence[str]:
    """What the prior of a batch's request was counted from."""
    return () if prior is None else prior.spoke[place]
