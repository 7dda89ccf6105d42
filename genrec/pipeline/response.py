"""Build the response to a request, which is a list of recommendations with notes and details.

This module works with requests and rankings. It uses only the model's name, device and tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from genrec.config import EXPLAIN, Settings
from genrec.models.base import TextModel, can_score_candidates
from genrec.models.coverage import measure_coverage
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.free_text import Named
from genrec.pipeline.readings import Ranked
from genrec.pipeline.request import Refusal, Request
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.priors.fusion import PriorSource
from genrec.text import main_script


class ResponseBuilder:
    """An object that turns rankings and matched texts into recommendation lists."""

    def __init__(
        self, model: TextModel, settings: Settings, index: CatalogIndex, priors: PriorSource
    ) -> None:
        """Store the data that all responses share."""
        self._model, self._settings, self._index, self._priors = model, settings, index, priors

    def from_ranking(
        self, request: Request, ranked: Ranked, *, asked: int | None = None, decoder: str = ""
    ) -> RecommendationList:
        """Build a recommendation list from a ranking.

        Args:
            request: the request.
            ranked: the ranking for the request.
            asked: the number of requested items; None for the ``k`` of the request.
            decoder: the name of the decoder that the list reports; if empty, the decoder in the
                settings.
        """
        ranking = ranked.ranking
        details: dict[str, Any] = {"certificate": asdict(ranking.certificate)}
        if ranked.attention is not None:
            details["attention"] = dict(ranked.attention)
        if ranking.prior is not None:
            counted = list(ranked.sources)
            details["parts"] = ["prior"] if self._priors.role == EXPLAIN else ["model", "prior"]
            details["prior"] = {**asdict(self._priors.fusing), "counted": counted}
            if self._priors.ranker != "none":
                details["prior"]["ranker"] = self._priors.ranker
        wish = request.wish
        if wish is not None:
            details["query"] = wish.describe()
        if wish is not None and wish.prior is not None:
            details["parts"] = list(wish.spoke)
            details.pop("prior", None)
        if (
            ranked.scored is not None
        ):  # by a server, whose scores are no distribution over the catalog
            details["parts"] = ["model", *(p for p in details["parts"] if p != "model")]
            details["scored"] = ranked.scored
            del details["certificate"]
        if ranking.chosen_from is not None:
            details["chosen_from"] = ranking.chosen_from
        arrays = ranking.rows, ranking.logprobs, ranking.scores, ranking.alone
        columns: list[list[Any]] = [a.tolist() for a in arrays]
        columns[3] = [None if value != value else value for value in columns[3]]  # NaN is unknown
        none = [None] * len(columns[0])
        if wish is not None and wish.prior is not None:
            columns.append(wish.prior_logs(request.history, ranking.rows))
        else:
            columns.append(none if ranking.prior is None else ranking.prior.tolist())
        boosts = request.boosts
        if boosts is None:
            columns.append(none)
        else:  # at most 700, since exp(710) is infinite
            columns.append(np.exp(np.minimum(boosts[ranking.rows], 700.0)).tolist())
        if wish is None or wish.prior is None:
            columns.append(none)
        else:
            columns.append(wish.parts_of(request.history, ranking.rows, columns[3]))
        chances = ranking.propensities
        columns.append(none if chances is None else chances.tolist())
        catalog, groups = self._index.catalog, self._index.groups
        items = tuple(
            Recommendation(
                rank,
                catalog[row].item_id,
                catalog[row].title,
                logprob,
                score,
                logprob_model=model,
                logprob_prior=prior,
                boost=boost,
                pinned=rank <= ranking.pinned,
                group=groups.name(row),
                propensity=chance,
                parts=parts,
            )
            for rank, (row, logprob, score, model, prior, boost, parts, chance) in enumerate(
                zip(*columns, strict=True), start=1
            )
        )
        k = int(request.options.k) if asked is None else asked
        notes = request.notes
        texts = sum(e.item_id is None for e in request.history.interactions)
        if texts and "model" not in details.get("parts", ["model"]):
            verb = "is a text" if texts == 1 else "are texts"
            notes = (
                *notes,
                f"{texts} of the {len(request.history)} events {verb}, which only the model can read, "
                "but the prior ranks the items alone. Use --model-role fuse to take them into account.",
            )
        if self._settings.search == "sample" and items and chances is None:
            why = "diversity chooses" if request.options.diversity else "the search ended early"
            notes = (*notes, f"The items have no propensity, because {why}.")
        if len(items) < min(k, request.size):
            notes = (
                *notes,
                f"The list has {len(items)} of {k} items, because min_probability, per_group or caps "
                "exclude the rest.",
            )
        return self._list(request, items, k, decoder or self._settings.decoder, notes, details)

    def from_texts(self, request: Request, named: Named) -> RecommendationList:
        """Build a recommendation list from the items that were found in generated texts."""
        k, catalog, groups = int(request.options.k), self._index.catalog, self._index.groups
        items = tuple(replace(i, group=groups.name(catalog.row(i.item_id))) for i in named.items)
        return self._list(request, items, k, self._settings.decoder, named.notes, {})

    def from_refusal(self, refusal: Refusal) -> RecommendationList:
        """Build the empty list for a history that cannot be answered. Its notes give the reason."""
        k = int(refusal.options.k)
        return self._list(refusal, (), k, self._settings.decoder, refusal.notes, {})

    def _list(
        self,
        request: Request | Refusal,
        items: tuple[Recommendation, ...],
        k: int,
        decoder: str,
        notes: Sequence[str],
        details: dict[str, Any],
    ) -> RecommendationList:
        used = "model" in details.get("parts", ["model"])  # otherwise, it need not even be loaded
        device = getattr(self._model, "device", None) if used else None
        where: dict[str, Any] = {} if device is None else {"device": str(device)}
        if device is not None and device.type == "cpu":
            where["threads"] = getattr(self._model, "threads", None)
        prompt = request.prompt if isinstance(request, Request) else None
        return RecommendationList(
            user_id=request.history.user_id,
            decoder=decoder,
            model=self._model.name,
            seen=request.seen,
            recommendations=items,
            understood=request.understood,
            prompt_tokens=0 if prompt is None else prompt.n_tokens,
            events=0 if prompt is None else prompt.prompt.events,
            behavior=request.behavior,
            asked=k,
            notes=(*self._unread_script(), *self._said_by_server(), *notes),
            show=request.show,
            left_out=request.left_out if isinstance(request, Request) else {},
            details={**where, "parts": ["model"], **details},
        )

    def _said_by_server(self) -> tuple[str, ...]:
        """Return what a model without probabilities could not do."""
        model: object = self._model
        return model.notes if can_score_candidates(model) else ()

    def _unread_script(self) -> tuple[str, ...]:
        """Return a note if the model cannot read the writing system of the titles."""

        def make() -> tuple[str, ...]:
            tokenizer = getattr(self._model, "tokenizer", None)
            if tokenizer is None:
                return ()
            script = main_script(self._index.catalog.titles)
            if script not in measure_coverage(tokenizer).spelled:
                return ()
            return (
                f"{self._model.name} cannot read the script of these titles ({script}) and spells "
                "them in fragments, so its ranking means little. Use a multilingual model, such as "
                "gemma3-270m or one from the Hugging Face Hub.",
            )

        return self._index.made("note on script", make)
