"""Answer requests with the decoder ``trie``, which searches the trie of titles with a model.

The requests of a batch are searched together. If their prompts have the same beginning, the model
processes it only once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.config import EXPLAIN, FEATURE, FUSE, Settings
from genrec.data.events import History
from genrec.decoding.block_reading import ByEvent
from genrec.decoding.filters import Filter, Filters
from genrec.models.base import need_logits
from genrec.pipeline import rerank
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.draws import list_propensities, seed_of
from genrec.pipeline.readings import Ranked, Reading
from genrec.pipeline.remembered import RememberedPrompts
from genrec.pipeline.request import Request
from genrec.pipeline.search_cost import LONG, MANY, SearchCost
from genrec.pipeline.server_rerank import read_weights
from genrec.priors.fusion import PriorSource
from genrec.priors.model_feature import Exponents, FirstStage
from genrec.priors.positions import DenseCache, PositionWeights
from genrec.priors.weights import ItemPrior, Weights
from genrec.prompts.encoder import EncodedPrompt, shared_start
from genrec.types import FloatArray, IntArray, Log

if TYPE_CHECKING:
    from genrec.decoding.types import Options, Ranking
    from genrec.explain.evidence import Question
    from genrec.models.language_model import LanguageModel
    from genrec.models.prefix import Prefix
    from genrec.models.token_tree import TokenTree

_PREFIX = 32  # a shared beginning of prompts is processed separately if it has this many tokens
_PREFIXES = 4  # the maximum number of processed beginnings of prompts in the cache
_COARSE = 0.05  # scores closer than this cannot be distinguished in half precision
_BUDGET = 512  # the smallest token budget of a search
_ALL = 1 << 40
_KEPT = 1024  # number of tokens that a search which scores all items keeps in the token tree
_TITLES, _GROUPS = "title as the model sees it", "variants of one product"


class TrieSearch:
    """An object that ranks items for requests by searching the trie of titles with a model."""

    def __init__(
        self,
        model: LanguageModel,
        settings: Settings,
        index: CatalogIndex,
        priors: PriorSource,
        vectors: Callable[[IntArray], FloatArray],
        log: Log = lambda message: None,
        by_event: ByEvent | None = None,
        remembered: RememberedPrompts | None = None,
    ) -> None:
        """Store the data that all requests share.

        Args:
            model: the language model.
            settings: the settings of the recommender.
            index: the catalog index.
            priors: the object that provides the prior and its weight.
            vectors: a function that returns the title vectors of catalog rows, which are used for
                diversity.
            log: function that is called with the cost and the progress of a search for a long list.
            by_event: how the older events are read by themselves; None with full attention.
            remembered: the reader that keeps users' prompts; None to keep none.
        """
        self._log = log
        self.remembered = remembered or RememberedPrompts(model, 0, "")
        self._model, self._settings, self._index, self._priors = model, settings, index, priors
        self._vectors = vectors
        self._bases = DenseCache()
        self._prefixes: dict[tuple[int, ...], Prefix | None] = {}
        self._by_event = by_event

    def read(self, requests: Sequence[Request]) -> Reading:
        """Process the prompts of a batch of requests with the model, unless it only explains."""
        (prior, role, exponents), trie = self._parts(requests[0]), self._index.trie
        if prior is not None and role == EXPLAIN:
            weights = [prior.weights(r.history) for r in requests]
            return read_weights(self._model, requests, weights, self._index, self._bases)
        tree, tokens, attention = self._read_prompts(requests)
        if prior is None:
            return Reading(tree, None, tokens, attention=attention)
        if role == FEATURE:
            stages = [FirstStage.of(prior, r.history) for r in requests]
            alone = self._score_candidates(tree, stages)
            weights = [self._rerank(s, *a, exponents) for s, a in zip(stages, alone, strict=True)]
            reranked = PositionWeights(weights, trie, self._bases)
            return Reading(None, reranked, tokens, alone, attention)
        weights = [prior.weights(r.history) for r in requests]
        ordered = PositionWeights(weights, trie, self._bases)
        return Reading(tree, ordered, tokens, attention=attention)

    def _read_prompts(
        self, requests: Sequence[Request]
    ) -> tuple[TokenTree, int, Sequence[Mapping[str, Any]] | None]:
        """Return a token tree that runs the model on the prompts.

        Returns:
            The token tree, the number of tokens of the prompts that the model reads, and how the events of each prompt were
            read (None with full attention).
        """
        by_event = self._by_event
        need_logits(self._model)
        if self.remembered.applies_to(requests):
            tree, read, told = self.remembered.read(requests)
            return tree, read, told
        if by_event is None:
            prompts = [r.prompt.ids for r in requests]
            tree = self._model.prefill_many(prompts, self._prefix(requests))
            return tree, sum(map(len, prompts)), None
        blocks = by_event.read(self._model, [r.prompt for r in requests])
        kind = {"attention": "by_event", "recent_events": by_event.recent}
        numbers = zip(blocks.found, blocks.read, strict=True)
        store = blocks.use.to_dict()
        attention = [
            {**kind, "stored": found, "read": read, "store": store} for found, read in numbers
        ]
        return blocks.tree, blocks.tokens, attention

    def tree(self, prompt: EncodedPrompt) -> TokenTree:
        """Process one prompt with the model, and return a tree that scores its continuations."""
        need_logits(self._model)
        if self._by_event is None:
            return self._model.prefill(prompt.ids)
        return self._by_event.read(self._model, [prompt]).tree

    def _score_candidates(
        self, tree: TokenTree, stages: Sequence[FirstStage]
    ) -> list[tuple[IntArray, FloatArray]]:
        """Compute the model's log-probabilities of each history's candidates.

        Returns:
            The trie positions of the candidates that are in the trie, and their log-probabilities.
        """
        from genrec.decoding.search import score
        from genrec.decoding.types import Options

        trie = self._index.trie
        found = [trie.find_positions(s.rows) for s in stages]
        filters = [Filter.allow(p[p >= 0], trie.n_positions) for p in found]
        options = Options(temperature=self._priors.fusing.alone, kept_tokens=_KEPT)
        rankings = score(trie, tree, allowed=Filters(filters), options=options)
        return [(trie.find_positions(r.rows), r.logprobs) for r in rankings]

    def _rerank(
        self, stage: FirstStage, positions: IntArray, logprobs: FloatArray, exponents: Exponents
    ) -> Weights:
        """Compute the final weights from the prior's weights and the model's log-probabilities."""
        rows = self._index.trie.rows_at(positions)
        by_row = dict(zip(rows.tolist(), logprobs.tolist(), strict=True))
        return stage.rerank(by_row, exponents)

    def _parts(self, request: Request) -> tuple[ItemPrior | None, str, Exponents]:
        """Return the prior, the role of the model and the exponents for a request."""
        if request.wish is not None and request.wish.prior is not None:
            return request.wish.prior, request.wish.role, request.wish.exponents
        return self._priors.prior, self._priors.role, self._priors.fusing.exponents

    def _prefix(self, requests: Sequence[Request]) -> Prefix | None:
        """Process the beginning that all prompts share, or return None if it is too short.

        A single prompt is compared with the prompt of an empty history, so that few-shot
        demonstrations are processed only once for all requests.
        """
        prompts = [r.prompt.ids for r in requests]
        if len(prompts) == 1 and not self._settings.few_shot:
            return None
        others = list(prompts)
        if len(prompts) == 1:
            others.append(requests[0].render(History()).ids)
        shared = min(shared_start(others), min(map(len, prompts)) - 1)
        if shared < _PREFIX:
            return None
        key = tuple(prompts[0][:shared])
        if not self._settings.few_shot:  # shared by chance, so later batches will not start with it
            return self._model.prefix(key)
        prefix = self._prefixes.get(key)
        if prefix is None:
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            prefix = self._model.prefix(key)
            self._prefixes[key] = prefix
        return prefix

    def options(self, request: Request) -> Options:
        """Return the search options for a request."""
        from genrec.decoding.boosts import Boosts
        from genrec.decoding.types import TOLERANCE, Options

        settings, trie, fusion = self._settings, self._index.trie, self._priors.fusing
        n, k = len(request.prompt.ids), int(request.options.k)
        fine = self._parts(request)[1] == EXPLAIN or self._model.precise
        boosts = None
        if request.boosts is not None:
            boosts = Boosts(request.boosts[trie.rows_at(np.arange(trie.n_positions))])
        return Options(
            search="exact" if settings.search == "sample" else settings.search,
            beam_size=max(settings.beam_size or max(2 * k, 20), k),
            normalization=settings.normalization,
            temperature=fusion.temperature,
            max_nodes=settings.max_nodes,
            budget=max(2 * n, _BUDGET),
            fusion=fusion.fusion,
            beta=fusion.weight,
            boosts=boosts,
            alone=fusion.alone,
            min_probability=request.options.min_probability,
            draw=settings.seed if settings.search == "sample" else None,
            tolerance=(TOLERANCE if fine else _COARSE) / min(fusion.temperature, 1.0),
        )

    def _exhaustive(self, request: Request) -> Options:
        """Return the search options for scoring every allowed item."""
        one = replace(request.options, k=1, min_probability=0.0)
        options = self.options(replace(request, options=one))
        return replace(
            options, search="exact", draw=None, width=_ALL, max_nodes=_ALL, kept_tokens=_KEPT
        )

    def _search(
        self,
        reading: Reading,
        requests: Sequence[Request],
        sizes: Sequence[int],
        options: Options,
    ) -> list[Ranking]:
        if isinstance(options.draw, int):  # a seed for each prompt, so that batches do not matter
            seeds = tuple(
                seed_of(options.draw, r.prompt.ids) if r.seed is None else r.seed for r in requests
            )
            options = replace(options, draw=seeds)
        filters = Filters([r.allowed for r in requests])
        trie = self._index.trie
        if reading.tree is None:
            from genrec.decoding.weight_search import search_weights

            assert reading.prior is not None
            return search_weights(
                trie,
                reading.prior,
                sizes,
                allowed=filters,
                options=options,
                alone=reading.alone,
            )
        from genrec.decoding.search import search  # imports torch

        most = self._most_tokens(requests)
        if max(sizes) > LONG and most > MANY:
            cost = SearchCost(self._log, sum(sizes), most, reading.rate)
            options = replace(options, report=cost)
        return search(
            trie,
            reading.tree,
            sizes,
            allowed=filters,
            prior=reading.prior,
            options=options,
        )

    def _most_tokens(self, requests: Sequence[Request]) -> int:
        """Return the number of tokens that the model processes if it scores every allowed item."""
        trie = self._index.trie
        whole = trie.inner_tokens
        if self._settings.normalization == "vocab":  # the last tokens of titles are processed, too
            whole = trie.max_depth * trie.n_items
        return sum(min(whole, trie.max_depth * r.size) for r in requests)

    def rank(self, requests: Sequence[Request], batch_size: int) -> list[Ranked]:
        """Rank the k best items for each request.

        Prompts of similar length are put into the same batch.

        Args:
            requests: the requests, which must all have the same options.
            batch_size: the number of prompts per batch.

        Returns:
            The rankings, in the order of the requests.
        """
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt.ids))
        ranked: dict[int, Ranked] = {}
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            batch = [requests[i] for i in places]
            reading = self.read(batch)
            for n, ranking in enumerate(self.best(reading, batch)):
                draws = self._settings.search == "sample" and not batch[n].options.diversity
                if draws and ranking.certificate.exact:
                    given = reading, batch, n, ranking.rows, ranking.pinned
                    ranking = replace(ranking, propensities=self.propensities(*given))
                ranked[places[n]] = reading.ranked(n, ranking)
        return [ranked[i] for i in range(len(requests))]

    def propensities(
        self,
        reading: Reading,
        batch: Sequence[Request],
        place: int,
        rows: IntArray,
        pinned: int = 0,
    ) -> FloatArray:
        """Compute the probability with which a draw shows each item of a list at its place.

        Args:
            reading: the processed prompts of the batch.
            batch: the requests of the batch.
            place: the index of the list's request.
            rows: (n,) the catalog rows of the list, in order.
            pinned: the number of pinned items at the beginning, whose probability is 1.
        """
        request, prior, trie = batch[place], reading.prior, self._index.trie

        def score(positions: IntArray) -> tuple[IntArray, FloatArray]:
            if reading.tree is None:
                assert prior is not None
                return positions, prior.at(np.full(len(positions), place), positions)
            # A search may drop prompts from the tree, unless there is only one.
            alone = reading if len(batch) == 1 else self.read([request])
            some = Filter.allow(positions, trie.n_positions)
            found = self.every(alone, replace(request, allowed=some))
            return trie.find_positions(found.rows), found.logprobs

        known = reading.tree is None
        return list_propensities(rows, pinned, request, self._index, score, all_known=known)

    def rank_all(self, request: Request, k: int) -> Ranked:
        """Rank the k best of the allowed items by their exact scores."""
        reading = self.read([request])
        return reading.ranked(0, self.every(reading, request, k))

    def every(self, reading: Reading, request: Request, k: int | None = None) -> Ranking:
        """Compute exact scores of the allowed items for a prompt that has been processed.

        Args:
            reading: the prompt.
            request: the request.
            k: the number of items to return, best first; None returns all.
        """
        sizes = [request.size if k is None else k]
        (ranking,) = self._search(reading, [request], sizes, self._exhaustive(request))
        return ranking

    def best(self, reading: Reading, requests: Sequence[Request]) -> list[Ranking]:
        """Find the k best items for each request of a batch, and put pinned items first.

        Args:
            reading: the processed prompts of the batch.
            requests: the requests of the batch, which must all have the same options.
        """
        n = self._index.trie.n_positions
        pins = [self._index.trie.positions_of(np.array(r.pins, np.int64)) for r in requests]
        some = [
            replace(r, allowed=Filter.allow(p, n))
            for r, p in zip(requests, pins, strict=True)
            if len(p)
        ]
        if not some:
            return self._best(reading, requests)
        # A search may drop prompts from the tree, unless there is only one.
        tree = reading if len(requests) == 1 else self.read(some)
        options = self._exhaustive(max(some, key=lambda r: len(r.prompt.ids)))
        pinned = iter(self._search(tree, some, [len(r.pins) for r in some], options))
        others = [
            replace(r, allowed=r.allowed & Filter.deny(p, n))
            for r, p in zip(requests, pins, strict=True)
        ]
        rankings = self._best(reading, others)
        k = int(requests[0].options.k)
        return [
            rerank.put_first(next(pinned), r.pins, ranking, k) if r.pins else ranking
            for r, ranking in zip(requests, rankings, strict=True)
        ]

    def _best(self, reading: Reading, requests: Sequence[Request]) -> list[Ranking]:
        """Find the best items for each request of a batch, without its pinned items.

        If the requests ask for caps or diversity, the items are chosen from a longer ranked list.
        If they only limit the variants of one product, a longer list is searched only for the
        requests whose list exceeds the limit.

        Args:
            reading: the processed prompts of the batch.
            requests: the requests of the batch, which must all have the same options.
        """
        wanted = requests[0].options
        k = int(wanted.k)
        sizes = [min(k - len(r.pins), r.size) for r in requests]
        options = self.options(max(requests, key=lambda r: len(r.prompt.ids)))
        grouped = bool(wanted.per_group) and bool(self._index.groups.names)
        if not (wanted.chooses or grouped):
            return self._search(reading, requests, [max(n, 1) for n in sizes], options)
        longer = max(4 * k, 50)
        pool, pending = longer if wanted.chooses else k, list(range(len(requests)))
        chosen: dict[int, Ranking] = {}
        while pending:
            some = [requests[i] for i in pending]
            if chosen and len(requests) > 1:  # the tree may no longer contain these prompts
                reading = self.read(some)
            pools = [max(min(pool - len(r.pins), r.size), 1) for r in some]
            wide = replace(options, beam_size=max(options.beam_size, pool))
            rankings = dict(zip(pending, self._search(reading, some, pools, wide), strict=True))
            for i, ranking in rankings.items():
                chosen[i] = self._choose(ranking, requests[i])
            # If the caps leave too few candidates, search longer lists, up to a list of all items.
            pending = [
                i for i, ranking in rankings.items()
                if len(chosen[i].rows) < sizes[i]
                and len(ranking.rows) == pool - len(requests[i].pins)
            ]  # fmt: skip
            pool *= 2 if pool < longer else 8
        return [chosen[i] for i in range(len(requests))]

    def _choose(self, ranking: Ranking, request: Request) -> Ranking:
        """Choose items from a ranking according to the options for diversity and caps.

        Pinned items count towards the caps and the length of the list, but are not returned. If
        ``per_group`` is the only such option and leaves out no item, the result does not report
        that items were chosen.
        """
        wanted, first = request.options, len(request.pins)
        rows = np.concatenate([np.array(request.pins, dtype=np.int64), ranking.rows])
        columns: dict[str, Sequence[Any]] = {
            name: self._index.column(name)[rows].tolist() for name in wanted.caps
        }
        caps = dict(wanted.caps)
        if wanted.per_title is not None:
            catalog, form = self._index.catalog, self._index.encoder.form
            columns[_TITLES] = [form.render(catalog[r].title) for r in rows.tolist()]
            caps[_TITLES] = wanted.per_title
        if wanted.per_group:
            columns[_GROUPS] = self._index.groups.values(rows)
            caps[_GROUPS] = wanted.per_group
        if wanted.diversity:
            which = rerank.choose(
                np.concatenate([np.zeros(first), ranking.scores]),
                int(wanted.k),
                vectors=self._vectors(rows),
                trade_off=1.0 - wanted.diversity,
                columns=columns,
                caps=caps,
                first=first,
            )
        else:
            which = rerank.capped(columns, int(wanted.k), caps, first)
        which = which[first:] - first
        whole = np.arange(min(len(ranking.rows), int(wanted.k) - first))
        if not wanted.chooses and np.array_equal(which, whole):
            return ranking.only(which)
        return replace(ranking.only(which), chosen_from=len(ranking.rows))

    def question(self, request: Request) -> Question:
        """Collect the parts of a request that are needed to explain its recommendations."""
        from genrec.explain.evidence import Question

        def search(changed: Sequence[tuple[History, EncodedPrompt]]) -> list[Ranking]:
            batch = [replace(request, history=h, prompt=p) for h, p in changed]
            return self.best(self.read(batch), batch)

        def known(prompt: EncodedPrompt) -> TokenTree | None:
            one = [replace(request, prompt=prompt)]
            return self.remembered.read(one)[0] if self.remembered.applies_to(one) else None

        settings, (prior, role, exponents) = self._settings, self._parts(request)
        role = FUSE if prior is None else role
        shares = self._by_event is None and role != EXPLAIN
        return Question(
            model=self._model,
            trie=self._index.trie,
            history=request.history,
            events=request.prompt.prompt.events,
            render=request.render,
            bare=request.bare,
            search=search,
            repeats=settings.decoder == "trie" and settings.search != "sample",
            options=self._exhaustive(request),
            prior=prior,
            role=role,
            exponents=exponents,
            prefix=self._prefix([request]) if shares else None,
            by_event=self._by_event,
            known=known,
        )
