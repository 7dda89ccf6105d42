"""Measure evidence: the drop in an item's score when an event is left out of the history.

A change either leaves out events or adds one. For each change, the prompt is rendered again with
the same window of events, and all other text stays the same. The items are then scored by the same
search that produced the list. If there is a prior, the drop is split between the model and the
prior. If the prior alone ranks items, the whole drop is the prior's. Let f(M, P) be the score if the model reads the history M and the prior uses the history P,
and let M' and P' be the changed history. The model's part is the mean of f(M, P) - f(M', P) and
f(M, P') - f(M', P'). The prior's part is defined in the same way, so with either kind of fusion,
the two parts add up to f(M, P) - f(M', P'). The model reads only two prompts for all four scores.

Evidence shows what the model relies on, not why a user did something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.config import EVIDENCE, EXPLAIN, FEATURE, FUSE
from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.decoding.block_reading import ByEvent
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import score
from genrec.decoding.shared_prefix import Branches, GatheredPrompts, Paths, PromptScorer
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options, Ranking, Trie
from genrec.decoding.weight_search import search_weights
from genrec.errors import RequestError
from genrec.explain.types import Evidence
from genrec.models.language_model import LanguageModel
from genrec.models.prefix import Prefix
from genrec.models.token_tree import TokenTree
from genrec.priors.model_feature import PRIOR_ONLY, Exponents, FirstStage
from genrec.priors.positions import PositionWeights
from genrec.priors.weights import ItemPrior, Weights
from genrec.prompts.encoder import EncodedPrompt
from genrec.text import one_line
from genrec.types import FloatArray, IntArray

_READINGS = 1.5  # after the groups, ``fast`` reads at most this many times the prompt's tokens


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a history, which leaves out or adds events.

    Attributes:
        left_out: the indices of the events to leave out. Event 0 is the oldest one in the prompt.
        added: an event to add after all others, or None.
        without_older: True to leave out the events that the prompt does not show.
        older: the indices of such events to leave out. Event 0 is the oldest of the whole history.
        without_context: True to leave out the context of the request, such as its season.
    """

    left_out: tuple[int, ...] = ()
    added: Interaction | None = None
    without_older: bool = False
    older: tuple[int, ...] = ()
    without_context: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A request whose recommendations are to be explained.

    Attributes:
        model: the language model.
        trie: the catalog's trie.
        history: the complete history, which the prior uses.
        events: the number of most recent events that the prompt shows.
        render: a function that renders a window of events as a prompt. All other text in the prompt
            stays the same.
        search: a function that repeats the request's search for other histories. It takes pairs of
            a history and its prompt.
        options: the search options for scoring given items. If the list is a random draw, items are
            scored under the distribution from which they are drawn.
        repeats: True if repeating the search returns the same list, so that lists can be compared.
        bare: a function that renders a window without the few-shot demonstrations; None if there
            are no demonstrations.
        prior: the prior that was combined with the model, or None.
        prefix: the beginning of the prompt that the model has already read, or None.
        role: the role of the model; see ``genrec.priors.fusion.Fusion``. It is ``fuse`` if there is
            no prior.
        exponents: the exponents for the role ``feature``.
        known: a function that returns the tree of a prompt, most of which the model has already
            processed, or None if it has not; None if nothing is kept.
        by_event: how the model reads events, if it reads the older ones by themselves; None with
            full attention.
    """

    model: LanguageModel
    trie: TitleTrie | LiveTrie
    history: History
    events: int
    render: Callable[[History], EncodedPrompt]
    search: Callable[[Sequence[tuple[History, EncodedPrompt]]], list[Ranking]]
    options: Options
    repeats: bool = True
    bare: Callable[[History], EncodedPrompt] | None = None
    prior: ItemPrior | None = None
    prefix: Prefix | None = None
    role: str = FUSE
    exponents: Exponents = PRIOR_ONLY
    by_event: ByEvent | None = None
    known: Callable[[EncodedPrompt], TokenTree | None] | None = None

    def tree(self, prompt: EncodedPrompt) -> TokenTree:
        """Run the model on a prompt, and return a tree that scores its continuations."""
        if self.by_event is None:
            return self.model.prefill_many([prompt.ids], self.prefix)
        return self.by_event.read(self.model, [prompt]).tree

    def branches(self, prompts: Sequence[EncodedPrompt], paths: Paths) -> PromptScorer:
        """Return an object that scores the same continuations after several similar prompts."""
        if self.by_event is None:
            start = None if self.known is None else self.known(prompts[0])
            return Branches(self.model, [p.ids for p in prompts], paths, self.prefix, start)
        return GatheredPrompts(self.model, prompts, self.by_event, paths)

    @property
    def window(self) -> History:
        """Return the part of the history that the prompt shows."""
        return self.history.latest(self.events)

    def changed(self, change: Change) -> tuple[History, History]:
        """Apply a change, and return the new window for the prompt and the new complete history."""
        before = 0 if change.without_older else len(self.history) - self.events
        kept = [e for i, e in enumerate(self.window.interactions) if i not in change.left_out]
        kept += [] if change.added is None else [change.added]
        first = enumerate(self.history.interactions[:before])
        whole = [*(e for i, e in first if i not in change.older), *kept]
        base = replace(self.history, context={}) if change.without_context else self.history
        return base.with_events(kept), base.with_events(whole)


@dataclass(frozen=True, slots=True)
class Drops:
    """The drops in the scores of R items under C changes to the history.

    Attributes:
        model: (C, R) the part of each drop that is due to the model, in nats.
        prior: (C, R) the part of each drop that is due to the prior, in nats.
        older: (R,) the drop, in nats, when older events that the prompt does not show are left out.
            It is None if there are no such events or there is no prior.
        context: (R,) the drop, in nats, when the context of the request is left out; None if it has
            none.
    """

    model: FloatArray
    prior: FloatArray
    older: FloatArray | None = None
    context: FloatArray | None = None

    @property
    def total(self) -> FloatArray:
        """Return the total drop in the score of each item under each change, in nats."""
        return self.model + self.prior


class Counterfactuals:
    """Measures how changes to a request's history affect the scores of R items, or of R sets of items.

    Attributes:
        own: (R,) the scores of the items with the unchanged history.
    """

    def __init__(
        self,
        question: Question,
        rows: Sequence[int],
        changes: Sequence[Change],
        sets: Sequence[IntArray] | None = None,
    ) -> None:
        """Score the items with the unchanged history.

        The model reads the prompts of changed histories only when a method needs them.

        Args:
            question: the request.
            rows: the catalog rows of the R items.
            changes: the changes that can be measured. The methods refer to them by index.
            sets: indices in ``rows`` of the items of each set. The score of a set is the logarithm of
                the sum of the exponentials of its items' scores. None to measure single items.
        """
        self._question, self._sets = question, sets
        self._rows = np.array(rows, dtype=np.int64)
        positions = question.trie.positions_of(self._rows)
        changed = [question.changed(c) for c in [Change(), *changes]]
        self._weights: list[Weights | FirstStage | None] = [
            self._weights_of(whole) for _, whole in changed
        ]
        self._branches: PromptScorer | None = None
        self._tables: dict[int, dict[int, float]] = {}
        trie: Trie = question.trie
        read = positions
        if question.role == FEATURE:
            stages = [w for w in self._weights if isinstance(w, FirstStage)]
            every = question.trie.find_positions(np.concatenate([s.rows for s in stages]))
            read = np.unique(np.append(positions, every[every >= 0]))
        if question.role != EXPLAIN:
            paths = Paths.to(trie, read, vocab=question.options.normalization == "vocab")
            prompts = [question.render(window) for window, _ in changed]
            self._branches = question.branches(prompts, paths)
        self._read = Filter.allow(read, question.trie.n_positions)
        self._only = Filter.allow(positions, question.trie.n_positions)
        self._options = replace(question.options, draw=None, min_probability=0.0)
        self.own = self._scores([0], [0])[0]

    def _weights_of(self, history: History) -> Weights | FirstStage | None:
        prior = self._question.prior
        if prior is not None and self._question.role == FEATURE:
            return FirstStage.of(prior, history)
        return None if prior is None else prior.weights(history)

    def _final(self, model: Sequence[int], prior: Sequence[int]) -> list[Weights]:
        """Compute the weights that rank items without a search of the trie by the model.

        The arguments are those of ``_scores``.
        """
        unread = sorted({*model} - {*self._tables}) if self._branches is not None else []
        if unread and self._branches is not None:
            options = Options(temperature=self._question.options.alone or 1.0)
            tree: TokenTree = self._branches.view(unread)
            allowed = Filters([self._read] * len(unread))
            for m, ranking in zip(
                unread,
                score(self._question.trie, tree, allowed=allowed, options=options),
                strict=True,
            ):
                pairs = zip(ranking.rows.tolist(), ranking.logprobs.tolist(), strict=True)
                self._tables[m] = dict(pairs)
        found = []
        for m, p in zip(model, prior, strict=True):
            weights = self._weights[p]
            if isinstance(weights, FirstStage):
                weights = weights.rerank(self._tables[m], self._question.exponents)
            assert weights is not None
            found.append(weights)
        return found

    def weights(self) -> Weights:
        """Return the final weights of all items with the unchanged history.

        This is possible only if items are ranked by weights, so if the role is not ``fuse``.
        """
        return self._final([0], [0])[0]

    @property
    def n_tokens(self) -> int:
        """Return the number of tokens that the model has read so far."""
        return 0 if self._branches is None else self._branches.n_tokens

    def cost(self, changes: Sequence[int]) -> int:
        """Return the number of tokens that the model must read to measure the given changes."""
        branches = self._branches
        return 0 if branches is None else sum(branches.cost(c + 1) for c in changes)

    def _scores(self, model: Sequence[int], prior: Sequence[int]) -> FloatArray:
        """Score the items for C pairs of a history for the model and a history for the prior.

        Histories are identified by the number of the change that was applied to them. Changes are
        numbered from 1, and 0 stands for the unchanged history.

        Args:
            model: for each pair, the number of the history that the model reads.
            prior: for each pair, the number of the history that the prior uses.

        Returns:
            (C, R) the scores of the R items.
        """
        trie, only = self._question.trie, Filters([self._only] * len(model))
        if self._question.role != FUSE:
            final = PositionWeights(self._final(model, prior), trie)
            every = [len(self._rows)] * len(prior)
            rankings = search_weights(trie, final, every, allowed=only, options=self._options)
        else:
            assert self._branches is not None
            given = [w for w in (self._weights[p] for p in prior) if isinstance(w, Weights)]
            tree: TokenTree = self._branches.view(model)
            ordered = PositionWeights(given, trie) if given else None
            rankings = score(trie, tree, allowed=only, prior=ordered, options=self._options)
        scores = np.empty((len(model), len(self._rows)))
        for index, ranking in enumerate(rankings):
            by_row = dict(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))
            scores[index] = [by_row[r] for r in self._rows.tolist()]
        if self._sets is None:
            return scores
        return np.stack([np.logaddexp.reduce(scores[:, s], axis=1) for s in self._sets], axis=1)

    def measure_drops(self, changes: Sequence[int]) -> Drops:
        """Measure the drops in the items' scores under the changes with the given indices."""
        which = [c + 1 for c in changes]
        zeros = [0] * len(which)
        if not which:
            nothing = np.empty((0, len(self.own)))
            return Drops(nothing, nothing)
        if self._branches is None:
            drop = self.own - self._scores(zeros, which)
            return Drops(np.zeros_like(drop), drop)
        other_model = self._scores(which, zeros)
        if all(self._weights[w] is self._weights[0] for w in which):
            drop = self.own - other_model
            return Drops(drop, np.zeros_like(drop))
        other_prior = self._scores(zeros, which)
        both = self._scores(which, which)
        return Drops(
            (self.own - other_model + other_prior - both) / 2,
            (self.own - other_prior + other_model - both) / 2,
        )

    def measure_prior_drops(self, changes: Sequence[int]) -> FloatArray:
        """Measure the drops in the scores when only the prior uses the changed histories.

        With ``fusion='score'``, this is exactly the prior's part of the drop. With
        ``fusion='node'``, it is the prior's part as long as the model reads the unchanged history.

        Args:
            changes: the indices of the C changes.

        Returns:
            (C, R) the drops of the R items, in nats.
        """
        which = [c + 1 for c in changes]
        if all(self._weights[w] is self._weights[0] for w in which):
            return np.zeros((len(which), len(self.own)))
        return np.asarray(self.own - self._scores([0] * len(which), which))


def measure_drops(question: Question, rows: Sequence[int], mode: str = "full") -> Drops:
    """Measure the drop in each item's score when each event in the prompt is left out in turn.

    The mode ``full`` leaves out each event separately. The mode ``fast`` first leaves out groups of
    adjacent events. It then leaves out single events from the groups that matter most, until it has
    read 1.5 times as many tokens as the prompt contains. In each of the other groups, the model's
    part of the group's drop is divided equally among the group's events. The prior's part is
    measured for each event, since the model does not need to read anything for it.

    Args:
        question: the request.
        rows: the catalog rows of the items.
        mode: ``full`` or ``fast``.

    Returns:
        The drops, with one change for each event, oldest event first.

    Raises:
        RequestError: the mode is unknown.
    """
    if mode not in EVIDENCE:
        msg = f"Unknown value evidence={mode!r}. Expected one of: {', '.join(EVIDENCE)}."
        raise RequestError(msg)
    n = question.events
    has_context = bool(question.history.context)
    if not (len(rows) and (n or has_context)):
        nothing = np.zeros((n, len(rows)))
        return Drops(nothing, nothing)
    singles = [Change((i,)) for i in range(n)]
    has_older = question.prior is not None and len(question.history) > n
    last = [Change(without_older=True)] * has_older
    last += [Change(without_context=True)] * has_context

    def joint(every: Counterfactuals, first: int) -> tuple[FloatArray | None, FloatArray | None]:
        """Measure the drops without older events and without context, whose changes begin at an index."""
        older = every.measure_prior_drops([first])[0] if has_older else None
        context = every.measure_drops([first + has_older]).total[0] if has_context else None
        return older, context

    if mode == "full" or not n:
        every = Counterfactuals(question, rows, [*singles, *last])
        older, context = joint(every, n)
        return replace(every.measure_drops(range(n)), older=older, context=context)
    size = max(round(n**0.5), 1)
    groups = [tuple(range(low, min(low + size, n))) for low in range(0, n, size)]
    every = Counterfactuals(question, rows, [*singles, *(Change(g) for g in groups), *last])
    first = every.measure_drops(range(n, n + len(groups)))
    group_of = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    model = (first.model / np.array([[len(g)] for g in groups]))[group_of]
    prior = every.measure_prior_drops(range(n))
    tokens_left = _READINGS * len(question.render(question.window).ids)
    most = np.abs(first.model).max(axis=1) + np.abs(first.prior).max(axis=1)
    best = group_of[np.abs(model + prior).argmax(axis=0)]
    votes = np.bincount(best, minlength=len(groups)) + most / 1e6
    chosen: list[int] = []
    for group in np.argsort(-votes, kind="stable").tolist():
        cost = every.cost(groups[group])
        if cost <= tokens_left and len(groups[group]) > 1:
            tokens_left -= cost
            chosen += groups[group]
    fine = every.measure_drops(chosen)
    model[chosen], prior[chosen] = fine.model, fine.prior
    return Drops(model, prior, *joint(every, n + len(groups)))


def rank_by_weights(question: Question, row: int, allowed: Filter) -> tuple[Ranking, int]:
    """Compute the score and the rank of an item if items are ranked by weights alone.

    Args:
        question: the request, in which the role of the model is not ``fuse``.
        row: the catalog row of the item.
        allowed: the items that may be returned. The item itself need not be one of them.

    Returns:
        A ranking that contains only this item, and its rank.
    """
    trie = question.trie
    weights = PositionWeights([Counterfactuals(question, [row], []).weights()], trie)
    among = allowed.also(trie.positions_of(np.array([row])))
    count = max(among.count_items(trie.n_items), 1)
    options = replace(question.options, draw=None, min_probability=0.0)
    (every,) = search_weights(trie, weights, [count], allowed=Filters([among]), options=options)
    place = np.flatnonzero(every.rows == row)
    return every.only(place), int(place[0]) + 1


def find_strongest(drops: Drops, n: int = 3) -> list[int]:
    """Return the indices of the n events with the largest effect on any item, strongest first.

    Args:
        drops: the drops of all items, with one change for each event.
        n: the maximum number of events to return.
    """
    most = np.abs(drops.total).max(axis=1, initial=0.0)
    return [int(i) for i in np.argsort(-most, kind="stable")[:n]]


def measure_demonstrations(question: Question, rows: Sequence[int]) -> FloatArray | None:
    """Measure the drop in each item's score when the few-shot demonstrations are left out.

    Args:
        question: the request.
        rows: the catalog rows of R items.

    Returns:
        (R,) the drops in nats, or None if the prompt has no demonstrations.
    """
    if question.bare is None:
        return None
    own = Counterfactuals(question, rows, []).own
    bare = replace(question, render=question.bare, prefix=None, known=None)
    return np.asarray(own - Counterfactuals(bare, rows, []).own)


def search_again(question: Question, changes: Sequence[Change]) -> list[dict[int, int]]:
    """Repeat the search for each changed history.

    Returns:
        For each change, a mapping from the catalog row of each listed item to its rank, starting at
        1.
    """
    if not changes:
        return []
    changed = [question.changed(c) for c in changes]
    rankings = question.search([(whole, question.render(window)) for window, whole in changed])
    return [{row: n for n, row in enumerate(r.rows.tolist(), 1)} for r in rankings]


def collect_evidence(
    question: Question, catalog: Catalog, drops: Drops, item: int
) -> tuple[Evidence, ...]:
    """Return the evidence that each event provides for one of the items, oldest event first.

    Args:
        question: the request.
        catalog: the items.
        drops: the drops in the items' scores, with one change for each event.
        item: the column of the item in ``drops``.
    """
    parts = zip(drops.model[:, item].tolist(), drops.prior[:, item].tolist(), strict=True)
    return tuple(
        Evidence(
            event.item_id,
            one_line(event.text or "")
            if event.item_id is None
            else catalog[catalog.row(event.item_id)].title,
            event.behavior,
            model + prior,
            model,
            prior,
            index,
        )
        for index, (event, (model, prior)) in enumerate(
            zip(question.window.interactions, parts, strict=True)
        )
    )
