"""Evidence: how much the score that ranked an item falls when an event of the history is left out.

Each change of a history (an event left out, several, one added) is rendered again, with the same
window of events and all other text as it was, and the items are scored under it by ``decoding``,
as the list was. With a prior the fall is divided: f(M, P) being the score by model and prior and '
meaning the changed history, the model's part is the mean of f(M, P) - f(M', P) and
f(M, P') - f(M', P'), the prior's likewise, so that the two add up to f(M, P) - f(M', P') under
either fusion. The priors need no pass of the model: all four scores are made from two readings.

What is measured is what the model rests on, not why a person did what they did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import score
from genrec.decoding.shared_prefix import Branches, Paths
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options, Ranking, Trie
from genrec.errors import RequestError
from genrec.explain.types import Evidence
from genrec.models.cached_tree import Prefix
from genrec.models.language_model import LanguageModel
from genrec.models.token_tree import TokenTree
from genrec.priors.positions import PositionWeights
from genrec.priors.weights import ItemPrior, Weights
from genrec.prompts.encoder import EncodedPrompt
from genrec.text import one_line
from genrec.types import FloatArray

MODES = ("full", "fast")
_READINGS = 1.5  # of the prompt: tokens that ``fast`` reads at most after the first look at groups


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a history.

    Attributes:
        left_out: places of events in the window, from 0 for the oldest that the prompt shows.
        added: an event after all others.
        without_older: whether the events that the prompt does not show are left out.
    """

    left_out: tuple[int, ...] = ()
    added: Interaction | None = None
    without_older: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A request whose answer is to be explained.

    Attributes:
        model: which answered.
        trie: the catalog's.
        history: all of it, as the prior has it.
        events: how many of its latest events the prompt shows.
        render: a window to its prompt, with all other text as in the request.
        search: as the request was, for other histories and their prompts.
        options: to score given items; a draw counts as its distribution.
        repeats: whether a list is the same when it is made again, and so worth comparing.
        bare: as ``render``, without the demonstrations of a few-shot prompt; None for no such.
        prior: which was fused, or None.
        prefix: with which the prompt begins, where that was read before.
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

    @property
    def window(self) -> History:
        """The events that the prompt shows."""
        return self.history.latest(self.events)

    def changed(self, change: Change) -> tuple[History, History]:
        """The window and the whole history after a change."""
        before = 0 if change.without_older else len(self.history) - self.events
        kept = [e for i, e in enumerate(self.window.interactions) if i not in change.left_out]
        kept += [] if change.added is None else [change.added]
        window, user = tuple(kept), self.history.user_id
        whole = (*self.history.interactions[:before], *window)
        return History(window, user), History(whole, user)


@dataclass(frozen=True, slots=True)
class Falls:
    """How far the scores of R items fall under C changes.

    Attributes:
        model: (C, R) nats, the model's part.
        prior: (C, R) nats, the prior's part.
        older: (R,) nats without all events that the prompt does not show, which only the prior knows;
            None where there are none, or no prior.
    """

    model: FloatArray
    prior: FloatArray
    older: FloatArray | None = None

    @property
    def total(self) -> FloatArray:
        """(C, R) nats."""
        return self.model + self.prior


class Counterfactuals:
    """The scores of some items under changes of one request's history."""

    def __init__(self, question: Question, rows: Sequence[int], changes: Sequence[Change]) -> None:
        """Reads the request's own prompt; that of each change is read when it is asked for.

        Args:
            question: the request.
            rows: catalog rows of the items, at least one.
            changes: what may be asked for.
        """
        self._question = question
        self._rows = np.array(rows, dtype=np.int64)
        trie: Trie = question.trie
        places = question.trie.positions_of(self._rows)
        paths = Paths.to(trie, places, vocab=question.options.normalization == "vocab")
        changed = [question.changed(c) for c in [Change(), *changes]]
        self._weights = [self._weights_of(whole) for _, whole in changed]
        sequences = [question.render(window).ids for window, _ in changed]
        self._branches = Branches(question.model, sequences, paths, question.prefix)
        self._only = Filter.allow(places, question.trie.n_positions)
        self._options = replace(question.options, draw=None, min_probability=0.0)
        self.own = self._scores([0], [0])[0]

    def _weights_of(self, history: History) -> Weights | None:
        prior = self._question.prior
        return None if prior is None else prior.weights(history)

    @property
    def n_tokens(self) -> int:
        """How many tokens the model has read."""
        return self._branches.n_tokens

    def cost(self, changes: Sequence[int]) -> int:
        """How many tokens reading some changes takes."""
        return sum(self._branches.cost(c + 1) for c in changes)

    def _scores(self, model: Sequence[int], prior: Sequence[int]) -> FloatArray:
        """(C, R) scores by the model under some changes and the prior under others; 0 is none."""
        tree: TokenTree = self._branches.view(model)
        weights = [self._weights[p] for p in prior]
        given = [w for w in weights if w is not None]
        trie = self._question.trie
        rankings = score(
            trie,
            tree,
            allowed=Filters([self._only] * len(model)),
            prior=PositionWeights(given, trie) if given else None,
            options=self._options,
        )
        found = np.empty((len(model), len(self._rows)))
        for place, ranking in enumerate(rankings):
            of_row = dict(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))
            found[place] = [of_row[r] for r in self._rows.tolist()]
        return found

    def falls(self, changes: Sequence[int]) -> Falls:
        """How far the scores fall under some of the changes, by index."""
        which = [c + 1 for c in changes]
        zeros = [0] * len(which)
        if not which:
            nothing = np.empty((0, len(self._rows)))
            return Falls(nothing, nothing)
        other_model = self._scores(which, zeros)
        if all(self._weights[w] is self._weights[0] for w in which):
            fall = self.own - other_model
            return Falls(fall, np.zeros_like(fall))
        other_prior = self._scores(zeros, which)
        both = self._scores(which, which)
        return Falls(
            (self.own - other_model + other_prior - both) / 2,
            (self.own - other_prior + other_model - both) / 2,
        )

    def prior_falls(self, changes: Sequence[int]) -> FloatArray:
        """(C, R) how far the scores fall with the prior of a changed history; no pass of the model.

        By score that is the prior's part; by node it is the part under the model as it was.
        """
        which = [c + 1 for c in changes]
        if all(self._weights[w] is self._weights[0] for w in which):
            return np.zeros((len(which), len(self._rows)))
        return np.asarray(self.own - self._scores([0] * len(which), which))


def falls(question: Question, rows: Sequence[int], mode: str = "full") -> Falls:
    """The fall of each item's score for each event that the prompt shows.

    Args:
        question: the request.
        rows: catalog rows of the items.
        mode: ``full``: every event is left out by itself; ``fast``: groups of neighbours are left
            out together, and by themselves the events of the groups that do most for most items, as
            far as that reads no more than one and a half prompts. For an event of another group the
            model's part is an equal share of the group's, and the prior's part that under the model
            as it was, which needs no reading.

    Raises:
        RequestError: the mode is not known.
    """
    if mode not in MODES:
        msg = f"evidence={mode!r} is not known. Expected one of: {', '.join(MODES)}."
        raise RequestError(msg)
    n = question.events
    if not (n and len(rows)):
        nothing = np.zeros((n, len(rows)))
        return Falls(nothing, nothing)
    singles = [Change((i,)) for i in range(n)]
    more = question.prior is not None and len(question.history) > n
    last = [Change(without_older=True)] * more
    if mode == "full":
        every = Counterfactuals(question, rows, [*singles, *last])
        return replace(every.falls(range(n)), older=every.prior_falls([n])[0] if more else None)
    size = max(round(n**0.5), 1)
    groups = [tuple(range(low, min(low + size, n))) for low in range(0, n, size)]
    found = Counterfactuals(question, rows, [*singles, *(Change(g) for g in groups), *last])
    first = found.falls(range(n, n + len(groups)))
    group_of = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    model = (first.model / np.array([[len(g)] for g in groups]))[group_of]
    prior = found.prior_falls(range(n))
    left = _READINGS * len(question.render(question.window).ids)
    most = np.abs(first.model).max(axis=1) + np.abs(first.prior).max(axis=1)
    best = group_of[np.abs(model + prior).argmax(axis=0)]
    votes = np.bincount(best, minlength=len(groups)) + most / 1e6
    chosen: list[int] = []
    for group in np.argsort(-votes, kind="stable").tolist():
        cost = found.cost(groups[group])
        if cost <= left and len(groups[group]) > 1:
            left -= cost
            chosen += groups[group]
    fine = found.falls(chosen)
    model[chosen], prior[chosen] = fine.model, fine.prior
    return Falls(model, prior, found.prior_falls([n + len(groups)])[0] if more else None)


def strongest(found: Falls, n: int = 3) -> list[int]:
    """The places of the n events whose absence changes an item's score most, the strongest first."""
    most = np.abs(found.total).max(axis=1, initial=0.0)
    return [int(i) for i in np.argsort(-most, kind="stable")[:n]]


def demonstrations(question: Question, rows: Sequence[int]) -> FloatArray | None:
    """(R,) how far the scores fall without the demonstrations of a few-shot prompt, if it is one."""
    if question.bare is None:
        return None
    own = Counterfactuals(question, rows, []).own
    bare = replace(question, render=question.bare, prefix=None)
    return np.asarray(own - Counterfactuals(bare, rows, []).own)


def ranks(question: Question, changes: Sequence[Change]) -> list[dict[int, int]]:
    """The list searched again after each change: catalog row -> rank."""
    if not changes:
        return []
    changed = [question.changed(c) for c in changes]
    rankings = question.search([(whole, question.render(window)) for window, whole in changed])
    return [{row: n for n, row in enumerate(r.rows.tolist(), 1)} for r in rankings]


def of_item(question: Question, catalog: Catalog, found: Falls, item: int) -> tuple[Evidence, ...]:
    """The evidence for one of the items, in the order of the history.

    Args:
        question: the request.
        catalog: gives the titles.
        found: the falls of its items' scores.
        item: the item's place among them.
    """
    parts = zip(found.model[:, item].tolist(), found.prior[:, item].tolist(), strict=True)
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
        )
        for event, (model, prior) in zip(question.window.interactions, parts, strict=True)
    )


def spans(question: Question) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The prompt as one string, and where in it each event begins and ends.

    An event is what is missing where it is left out; where its template writes the rest in another
    way then, so that nothing can be cut out, its span is empty.
    """
    whole = question.render(question.window).text
    found: list[tuple[int, int]] = []
    end = 0
    for place in range(question.events):
        left = question.render(question.changed(Change((place,)))[0]).text
        size = len(whole) - len(left)
        places = range(end, len(left) + 1) if size > 0 else ()
        fits = [a for a in places if whole[:a] + whole[a + size :] == left]
        start = next((a for a in fits if whole[a - 1 : a] == "\n"), fits[0] if fits else end)
        end = start + size if fits else end
        found.append((start, end))
    return whole, tuple(found)
