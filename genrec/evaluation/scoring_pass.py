"""Collect the model's logits from which the weight of the prior is fitted.

The model processes the history of each user only once. The logits at every choice on the trie paths
to the target, to the model's best items and to the prior's best items are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genrec.data.events import History
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options
from genrec.models.token_tree import ROOT, TokenTree, below
from genrec.priors.model_feature import Choice, Exponents, FirstStage, HasCandidates
from genrec.priors.positions import PositionWeights
from genrec.recommender import Recommender
from genrec.types import FloatArray, IntArray

CANDIDATES = 50  # the number of best items of the model, and of the prior, that become candidates


@dataclass(frozen=True, eq=False)
class ScoringPass:
    """The model's logits for one user at each choice on the trie paths to n candidates.

    There are L choices with C children in total. If several items have the same title, choosing
    among them is an additional choice, at which the model has no preference.

    Attributes:
        logits: (C,) the model's logit of each child.
        mass: (C,) the logarithm of the total prior weight of the items below each child.
        start: (L,) the index of the first child of each choice. Choices are ordered from the root
            down.
        above: (L,) the index of the child that leads to each choice; -1 for the root.
        rows: (n,) the catalog rows of the candidates, starting with the target.
        ends: (n,) the index of the child at which each candidate's path ends.
        prior: (n,) the log-probability of each candidate under the prior alone.
        allowed: (n,) a mask that is True for candidates that may be recommended.
        kind: (n,) a number for each kind of candidate of the role ``feature`` (see
            ``genrec.priors.model_feature``); -1 for all other items. None if the prior names no
            candidates.
    """

    logits: FloatArray
    mass: FloatArray
    start: IntArray
    above: IntArray
    rows: IntArray
    ends: IntArray
    prior: FloatArray
    allowed: npt.NDArray[np.bool_]
    kind: IntArray | None = None

    @property
    def source(self) -> IntArray:
        """The index of the choice to which each of the C children belongs."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.start, append=len(self.logits)))

    def logprobs(self, a: float, b: float) -> FloatArray:
        """Compute the log-probability of each of the n candidates with ``fusion='node'``.

        Args:
            a: the factor for the model's logits, which is 1 / temperature.
            b: the factor for the logarithm of the prior's mass, which is the prior's weight.
        """
        value = a * self.logits + b * self.mass
        source = self.source
        peak = np.maximum.reduceat(value, self.start)
        norm = peak + np.log(np.add.reduceat(np.exp(value - peak[source]), self.start))
        value -= norm[source]
        bounds = np.append(self.start, len(value))
        for choice, child in enumerate(self.above.tolist()):
            if child >= 0:
                value[bounds[choice] : bounds[choice + 1]] += value[child]
        return value[self.ends]

    @cached_property
    def listed(self) -> bool:
        """True if the target is among the best ``CANDIDATES`` items of the model or of the prior."""
        if not self.allowed[0]:
            return False
        alone = (self.alone[self.allowed], self.prior[self.allowed])
        return any(int((values > values[0]).sum()) < CANDIDATES for values in alone)

    @cached_property
    def alone(self) -> FloatArray:
        """The (n,) log-probabilities of the candidates under the model alone."""
        return self.logprobs(1.0, 0.0)

    def choices(self) -> list[Choice]:
        """Return the target among the candidates of its kind, if it is one of them."""
        if self.kind is None or self.kind[0] < 0:
            return []
        same = np.flatnonzero(self.kind == self.kind[0])
        return [Choice(self.prior[same], self.alone[same], 0)] if len(same) > 1 else []

    def rerank(self, exponents: Exponents) -> FloatArray:
        """Compute the (n,) log-probabilities of the items with the role ``feature``."""
        found = self.prior.copy()
        if self.kind is None:
            return found
        for number in np.unique(self.kind[self.kind >= 0]).tolist():
            same = self.kind == number
            scores = exponents.prior * self.prior[same] + exponents.model * self.alone[same]
            mass = np.logaddexp.reduce(self.prior[same])
            found[same] = scores - np.logaddexp.reduce(scores) + mass
        return found

    def path(self) -> tuple[IntArray, IntArray]:
        """Return the indices of the choices on the path to the target, and of the children taken."""
        source, child = self.source, int(self.ends[0])
        choices, taken = [], []
        while child >= 0:
            choices.append(int(source[child]))
            taken.append(child)
            child = int(self.above[choices[-1]])
        return np.array(choices), np.array(taken)


def score_user(recommender: Recommender, history: History, target: str) -> ScoringPass:
    """Run the model on a user's history, and collect the logits that are needed for the fit.

    Args:
        recommender: a recommender with a prior, whose catalog has not been edited.
        history: the history of the user.
        target: the id of the item that came next.
    """
    trie, source = recommender.trie, recommender.prior
    assert isinstance(trie, TitleTrie)
    assert source is not None
    prompt = recommender.prompt(history)
    tree = recommender.token_tree(prompt)
    seen = history.had(recommender.lead_in_behaviors) if recommender.exclude_seen else ()
    rows = sorted(set(recommender.catalog.rows(seen)))
    denied = trie.positions_of(np.array(rows, dtype=np.int64))
    allowed = Filter.deny(denied, trie.n_positions)
    size = min(CANDIDATES, len(allowed))
    (ranking,) = search(
        trie,
        tree,
        max(size, 1),
        allowed=Filters([allowed]),
        options=Options(budget=max(prompt.n_tokens, 256)),
    )
    given = source.weights(history)
    weights = PositionWeights([given], trie)
    every = np.arange(trie.n_positions)
    weight = weights.at(np.zeros(len(every), dtype=np.int64), every)
    weight -= np.logaddexp.reduce(weight)
    order = np.argsort(-weight, kind="stable")
    likely = order[allowed.keeps(order)][:CANDIDATES]
    first = trie.find_positions(np.array([recommender.catalog.row(target)]))
    kinds: list[IntArray] = []
    if isinstance(source, HasCandidates):
        stage = FirstStage.of(source, history, given)
        kinds = [trie.find_positions(rows) for _, rows in sorted(stage.kinds.items())]
    place = np.concatenate([first, trie.find_positions(ranking.rows), likely, *kinds])
    place = place[np.sort(np.unique(place, return_index=True)[1])]
    found = read_choices(trie, tree, weights, place, weight[place], allowed.keeps(place))
    kind = np.full(len(place), -1)
    for number, positions in enumerate(kinds):
        kind[np.isin(place, positions)] = number
    return replace(found, kind=kind) if kinds else found


@dataclass(frozen=True, slots=True)
class _Level:
    """The L trie nodes at one level that lead to wanted positions, and their C children.

    Attributes:
        node: (L,) the nodes.
        parent: (L,) the index of each node's parent among the nodes of all levels; -1 for the root.
        above: (L,) the index of each node among the children of all levels; -1 for the root.
        child: (C,) the children of the nodes.
        count: (L,) the number of children of each node.
    """

    node: IntArray
    parent: IntArray
    above: IntArray
    child: IntArray
    count: IntArray


def _levels(trie: TitleTrie, wanted: IntArray) -> Iterator[_Level]:
    """Yield the inner nodes on the paths to wanted trie positions, level by level.

    The positions must be in ascending order.
    """
    node, parent, above = np.array([trie.root]), np.array([-1]), np.array([-1])
    nodes = children = 0
    while len(node):
        child, count = trie.children(node)
        yield _Level(node, parent, above, child, count)
        _, low, high = trie.intervals(child)
        inside = np.searchsorted(wanted, high) > np.searchsorted(wanted, low)
        goes = np.flatnonzero(inside & ~trie.is_leaf(child))
        parent = nodes + np.repeat(np.arange(len(node)), count)[goes]
        above = children + goes
        nodes, children = nodes + len(node), children + len(child)
        node = child[goes]


def read_choices(
    trie: TitleTrie,
    tree: TokenTree,
    weights: PositionWeights,
    place: IntArray,
    prior: FloatArray,
    allowed: npt.NDArray[np.bool_],
) -> ScoringPass:
    """Compute the model's logits at every choice on the paths to n candidates, in one pass.

    Args:
        trie: the trie of titles.
        tree: the token tree that contains the prompt.
        weights: the prior's weights by trie position.
        place: (n,) the trie positions of the candidates, starting with the target.
        prior: (n,) the log-probability of each candidate under the prior alone.
        allowed: (n,) a mask that is True for candidates that may be recommended.
    """
    levels = list(_levels(trie, np.sort(place)))
    node, parent, above, child, count = (
        np.concatenate([getattr(level, name) for level in levels]) for name in _Level.__slots__
    )
    source, token = np.repeat(np.arange(len(node)), count), trie.tokens(child)
    first = int(count[0])
    logits = [tree.root.at(source[:first], token[:first])]
    if len(node) > 1:
        runs = trie.runs(node[1:])
        hung = [ROOT if p == 0 else below(p - 1) for p in parent[1:].tolist()]
        _, outputs = tree.grow([0] * len(runs), hung, runs)
        logits.append(outputs.at(source[first:] - 1, token[first:]))
    _, low, high = trie.intervals(child)
    mass = [np.log(weights.mass(np.zeros(len(child), dtype=np.int64), low, high))]
    end = np.full(trie.n_positions, -1)
    leaf = trie.is_leaf(child)
    end[low[leaf]] = np.flatnonzero(leaf)
    total, start = len(child), (np.cumsum(count) - count).tolist()
    leading = above.tolist()
    for number in np.flatnonzero(leaf & (high > low + 1)).tolist():
        shared = np.arange(low[number], high[number])
        end[shared] = total + np.arange(len(shared))
        logits.append(np.zeros(len(shared)))
        mass.append(weights.at(np.zeros(len(shared), dtype=np.int64), shared))
        start.append(total)
        leading.append(number)
        total += len(shared)
    return ScoringPass(
        np.concatenate(logits),
        np.concatenate(mass),
        np.array(start),
        np.array(leading),
        trie.rows_at(place),
        end[place],
        prior,
        allowed,
    )
