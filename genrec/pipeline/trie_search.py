"""Searching: the decoder trie, from requests to rankings. Knows a model, the stock and a prior.

Several requests are read in one pass and searched together; what their prompts have in common is
read once. What a list becomes is ``answering``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.config import QueryOptions
from genrec.data.events import History
from genrec.decoding.filters import Filters
from genrec.matching.ngrams import CharNgrams
from genrec.pipeline import rerank
from genrec.pipeline.request import Request, RequestBuilder
from genrec.priors.fusion import PriorSource
from genrec.priors.positions import Bases, Fused
from genrec.prompts.encoder import EncodedPrompt, shared_start
from genrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from genrec.decoding.types import Options, Ranking
    from genrec.explain.evidence import Question
    from genrec.models.cached_tree import Prefix
    from genrec.models.language_model import LanguageModel
    from genrec.models.token_tree import TokenTree

_PREFIX = 32  # tokens that prompts must share for these to be read once
_PREFIXES = 4  # read beginnings that are kept
_COARSE = 0.05  # scores that are nearer are not told apart in half precision
_BUDGET = 256  # tokens that a search may take at least
_EVERY = 1 << 40
_TITLES = "title as the model sees it"


class TrieSearch:
    """Ranks items for requests."""

    def __init__(self, model: LanguageModel, asker: RequestBuilder, source: PriorSource) -> None:
        """Takes what reads prompts, what made them, and what gives the prior."""
        self._model, self._asker, self._source = model, asker, source
        self._settings, self._stock = asker.settings, asker.stock
        self._bases = Bases()
        self._prefixes: dict[tuple[int, ...], Prefix | None] = {}

    def read(self, batch: Sequence[Request]) -> tuple[TokenTree, Fused | None]:
        """The prompts of a batch as a token tree, and the prior for their histories."""
        prompts = [a.prompt.ids for a in batch]
        tree = self._model.prefill_many(prompts, self._prefix(prompts))
        source = self._source.prior
        weights = None if source is None else [source.weights(a.history) for a in batch]
        return tree, None if weights is None else Fused(weights, self._stock.trie, self._bases)

    def _prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix | None:
        """What these prompts begin with, or what a prompt without events begins with too."""
        if len(prompts) == 1 and not self._settings.few_shot:
            return None
        others = list(prompts)
        if len(prompts) == 1:
            others.append(self._asker.prompt("").ids)
        shared = min(shared_start(others), min(map(len, prompts)) - 1)
        if shared < _PREFIX:
            return None
        key = tuple(prompts[0][:shared])
        if not self._settings.few_shot:  # what these happen to share; no later batch begins so
            return self._model.prefix(key)
        prefix = self._prefixes.get(key)
        if prefix is None:
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            prefix = self._model.prefix(key)
            self._prefixes[key] = prefix
        return prefix

    def options(self, asked: Request, k: int, min_probability: float) -> Options:
        """How to search for the k best of a request."""
        from genrec.decoding.types import TOLERANCE, Options

        settings, trie, fused = self._settings, self._stock.trie, self._source.fusing
        n = len(asked.prompt.ids)
        fine = self._model.precise
        whole = settings.normalization == "catalog" and trie.inner_tokens < 2 * n
        return Options(
            search="exact" if settings.search == "sample" else settings.search,
            beam_size=max(settings.beam_size or max(2 * k, 20), k),
            normalization=settings.normalization,
            temperature=fused.temperature,
            max_nodes=settings.max_nodes,
            budget=max(2 * n if whole else n, _BUDGET),
            fusion=fused.fusion,
            beta=fused.weight,
            alone=fused.alone,
            min_probability=min_probability,
            draw=settings.seed if settings.search == "sample" else None,
            tolerance=(TOLERANCE if fine else _COARSE) / min(fused.temperature, 1.0),
        )

    def _exactly(self, asked: Request) -> Options:
        """Options to score everything that is allowed."""
        options = self.options(asked, 1, 0.0)
        return replace(options, search="exact", draw=None, width=_EVERY, max_nodes=_EVERY)

    def _search(
        self,
        tree: TokenTree,
        prior: Fused | None,
        batch: Sequence[Request],
        sizes: Sequence[int],
        options: Options,
    ) -> list[Ranking]:
        from genrec.decoding.search import search

        if isinstance(options.draw, int):  # the same draws for the same prompt in any batch
            seeds = tuple(_seed(options.draw, a.prompt.ids) for a in batch)
            options = replace(options, draw=seeds)
        filters = Filters([a.allowed for a in batch])
        return search(self._stock.trie, tree, sizes, allowed=filters, prior=prior, options=options)

    def every(self, tree: TokenTree, prior: Fused | None, asked: Request) -> Ranking:
        """All items that a request allows, by their exact scores."""
        (found,) = self._search(tree, prior, [asked], [asked.size], self._exactly(asked))
        return found

    def best(
        self, tree: TokenTree, prior: Fused | None, batch: Sequence[Request], wishes: QueryOptions
    ) -> list[Ranking]:
        """The k best of each; with caps or diversity the k chosen from more."""
        k = int(wishes.k)
        options = self.options(
            max(batch, key=lambda a: len(a.prompt.ids)), k, wishes.min_probability
        )
        if not wishes.chooses:
            sizes = [min(k, a.size) for a in batch]
            return self._search(tree, prior, batch, sizes, options)
        pool, pending = max(4 * k, 50), list(range(len(batch)))
        found: dict[int, Ranking] = {}
        while pending:
            some = [batch[i] for i in pending]
            if found:  # the tree may have forgotten them
                tree, prior = self.read(some)
            sizes = [min(pool, a.size) for a in some]
            wide = replace(options, beam_size=max(options.beam_size, pool))
            rankings = dict(zip(pending, self._search(tree, prior, some, sizes, wide), strict=True))
            for i, ranking in rankings.items():
                found[i] = self._diverse(ranking, wishes)
            # Caps may have used up the candidates: then more are looked at, at last all.
            pending = [
                i for i, ranking in rankings.items()
                if len(found[i].rows) < min(k, batch[i].size) and len(ranking.rows) == pool
            ]  # fmt: skip
            pool *= 8
        return [found[i] for i in range(len(batch))]

    def _diverse(self, ranking: Ranking, wishes: QueryOptions) -> Ranking:
        """The k items of a longer ranking that caps and diversity choose, in that order."""
        columns: dict[str, Sequence[Any]] = {
            name: self._stock.column(name)[ranking.rows].tolist() for name in wishes.caps
        }
        caps = dict(wishes.caps)
        if wishes.per_title is not None:
            form, catalog = self._asker.encoder.form, self._stock.catalog
            columns[_TITLES] = [form.render(catalog[r].title) for r in ranking.rows.tolist()]
            caps[_TITLES] = wishes.per_title
        if wishes.diversity:
            vectors = self.title_vectors(ranking.rows)
            trade_off = 1.0 - wishes.diversity
            which = rerank.choose(
                ranking.scores,
                int(wishes.k),
                vectors=vectors,
                trade_off=trade_off,
                columns=columns,
                caps=caps,
            )
        else:
            which = rerank.capped(columns, int(wishes.k), caps)
        return replace(ranking.only(which), chosen_from=len(ranking.rows))

    def title_vectors(self, rows: IntArray) -> FloatArray:
        """See ``Recommender.title_vectors``."""
        titles = [self._stock.catalog[r].title for r in rows.tolist()]
        meaning = self._asker.matcher.meaning
        embedder = meaning.embedder if meaning is not None else None
        if embedder is not None and all(embedder.coverage.reads(t) for t in titles):
            return np.asarray(embedder.embed(titles), dtype=np.float64)
        return np.asarray(CharNgrams(titles).vectors.toarray(), dtype=np.float64)

    def question(self, asked: Request, wishes: QueryOptions) -> Question:
        """A request as its explanation needs it."""
        from genrec.explain.evidence import Question

        shots = self._asker.demonstrations(asked.history.user_id)
        settings, rendered = self._settings, self._asker.rendered

        def search(changed: Sequence[tuple[History, EncodedPrompt]]) -> list[Ranking]:
            batch = [replace(asked, history=h, prompt=p) for h, p in changed]
            return self.best(*self.read(batch), batch, wishes)

        return Question(
            model=self._model,
            trie=self._stock.trie,
            history=asked.history,
            events=asked.prompt.prompt.events,
            render=partial(rendered, shots),
            bare=partial(rendered, ()) if shots else None,
            search=search,
            repeats=settings.decoder == "trie" and settings.search != "sample",
            options=self._exactly(asked),
            prior=self._source.prior,
            prefix=self._prefix([asked.prompt.ids]),
        )


def _seed(seed: int, ids: Sequence[int]) -> int:
    """A seed for a prompt."""
    data = np.array([seed, *ids], dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
