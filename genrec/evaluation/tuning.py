"""How much a prior counts beside a model, fitted on validation users; one scoring pass each.

The pass keeps the model's logits at every choice on the way to the target, to the model's best items
and to the prior's. Everything else is arithmetic on them. By node, P of an item is a chain of choices
whose logits are a * (model) + b * (log of the prior's mass), so the targets' log-likelihood is concave
in a and b. What was fitted to the embedded sample counts as some more users, so that a few users do not
say too much. By score, what counts is the order of the candidates, and a grid is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genrec.config import MOST_WEIGHT
from genrec.data import protocols
from genrec.data.events import History
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options
from genrec.errors import RequestError, SettingsError
from genrec.evaluation import metrics
from genrec.models.token_tree import ROOT, TokenTree, below
from genrec.priors.fusion import TEMPERATURES
from genrec.priors.positions import PositionWeights
from genrec.priors.tuned import WEIGHTS, Tuned
from genrec.recommender import Recommender
from genrec.types import FloatArray, IntArray

USERS = 200
CANDIDATES = 50  # of the model, and as many of the prior
AT = 10
_LEAST, _MOST = 0.011, 90.0  # of one over the temperature
_TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)  # by score; above, the trie says more than the model
_WEIGHTS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0)
_ROUNDS = 100
_BEFORE = 20  # users that the embedded sample counts as, see benchmarks/LOG.md
_ENOUGH = 50  # users by whom the kind of fusion is chosen; by node with fewer


@dataclass(frozen=True, eq=False)
class Scored:
    """One user's scoring pass: C children at L choices, n candidates.

    Items that share a title are a choice of their own, where the model is indifferent.

    Attributes:
        logits: (C,) the model's.
        mass: (C,) log of the prior's weights below each child.
        start: (L,) where the children of each choice begin.
        above: (L,) the child that leads to each choice, -1 for the root; choices above come first.
        rows: (n,) catalog rows, the target first.
        ends: (n,) the child that is each of them.
        prior: (n,) log P by the prior alone.
        allowed: (n,) whether each may be in a list.
    """

    logits: FloatArray
    mass: FloatArray
    start: IntArray
    above: IntArray
    rows: IntArray
    ends: IntArray
    prior: FloatArray
    allowed: npt.NDArray[np.bool_]

    @property
    def source(self) -> IntArray:
        """(C,) the choice of each child."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.start, append=len(self.logits)))

    def logprobs(self, a: float, b: float) -> FloatArray:
        """(n,) log P of the candidates for logits of a * model + b * prior."""
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
        """Whether the target is among the first candidates of the model or of the prior."""
        if not self.allowed[0]:
            return False
        alone = (self.logprobs(1.0, 0.0)[self.allowed], self.prior[self.allowed])
        return any(int((values > values[0]).sum()) < CANDIDATES for values in alone)

    def path(self) -> tuple[IntArray, IntArray]:
        """The choices on the way to the target, and the child taken at each."""
        source, child = self.source, int(self.ends[0])
        choices, taken = [], []
        while child >= 0:
            choices.append(int(source[child]))
            taken.append(child)
            child = int(self.above[choices[-1]])
        return np.array(choices), np.array(taken)


def scored(recommender: Recommender, history: History, target: str) -> Scored:
    """The scoring pass for a user.

    Args:
        recommender: with a prior, and without edits.
        history: what the user did.
        target: what came next.
    """
    trie, source = recommender.trie, recommender.prior
    assert isinstance(trie, TitleTrie)
    assert source is not None
    prompt = recommender.prompt(history).ids
    tree = recommender.model.prefill(prompt)
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
        options=Options(budget=max(len(prompt), 256)),
    )
    fused = PositionWeights([source.weights(history)], trie)
    every = np.arange(trie.n_positions)
    weight = fused.at(np.zeros(len(every), dtype=np.int64), every)
    weight -= np.logaddexp.reduce(weight)
    order = np.argsort(-weight, kind="stable")
    likely = order[allowed.keeps(order)][:CANDIDATES]
    first = trie.find_positions(np.array([recommender.catalog.row(target)]))
    place = np.concatenate([first, trie.find_positions(ranking.rows), likely])
    place = place[np.sort(np.unique(place, return_index=True)[1])]
    return _collected(trie, tree, fused, place, weight[place], allowed.keeps(place))


@dataclass(frozen=True, slots=True)
class _Level:
    """L nodes of one level that lead to wanted positions, and their C children.

    Attributes:
        node: (L,) numbers in the trie.
        parent: (L,) index of each one's parent among all nodes of all levels, -1 for the root.
        above: (L,) index of each one among all children of all levels, -1 for the root.
        child: (C,) numbers in the trie.
        count: (L,) how many children each node has.
    """

    node: IntArray
    parent: IntArray
    above: IntArray
    child: IntArray
    count: IntArray


def _levels(trie: TitleTrie, wanted: IntArray) -> Iterator[_Level]:
    """The inner nodes above wanted positions, which rise, level by level."""
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


def _collected(
    trie: TitleTrie,
    tree: TokenTree,
    fused: PositionWeights,
    place: IntArray,
    prior: FloatArray,
    allowed: npt.NDArray[np.bool_],
) -> Scored:
    """The choices on the way to some positions, with the model's logits: one pass."""
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
    mass = [np.log(fused.mass(np.zeros(len(child), dtype=np.int64), low, high))]
    end = np.full(trie.n_positions, -1)
    leaf = trie.is_leaf(child)
    end[low[leaf]] = np.flatnonzero(leaf)
    total, start = len(child), (np.cumsum(count) - count).tolist()
    lead_in_behaviors = above.tolist()
    for number in np.flatnonzero(leaf & (high > low + 1)).tolist():
        shared = np.arange(low[number], high[number])
        end[shared] = total + np.arange(len(shared))
        logits.append(np.zeros(len(shared)))
        mass.append(fused.at(np.zeros(len(shared), dtype=np.int64), shared))
        start.append(total)
        lead_in_behaviors.append(number)
        total += len(shared)
    return Scored(
        np.concatenate(logits),
        np.concatenate(mass),
        np.array(start),
        np.array(lead_in_behaviors),
        trie.rows_at(place),
        end[place],
        prior,
        allowed,
    )


def fit_node(passes: Sequence[Scored]) -> tuple[float, float, float]:
    """1 / temperature and weight under which the targets are likeliest by node, and the nats.

    The sample's own count as ``_BEFORE`` users: what moves away from them costs as much as it would cost
    so many users whom they fit best, by the curvature that these passes have there.
    """
    chosen = [each.path() for each in passes]
    logits, mass, start, taken, before = [], [], [], [], 0
    for each, (choices, took) in zip(passes, chosen, strict=True):
        bounds = np.append(each.start, len(each.logits))
        for choice, child in zip(choices.tolist(), took.tolist(), strict=True):
            part = slice(bounds[choice], bounds[choice + 1])
            logits.append(each.logits[part])
            mass.append(each.mass[part])
            start.append(before)
            taken.append(before + child - int(bounds[choice]))
            before += len(logits[-1])
    columns = np.stack([np.concatenate(logits), np.concatenate(mass)], axis=1)
    return _likeliest(columns, np.array(start), np.array(taken), len(passes))


def fit_score(passes: Sequence[Scored]) -> tuple[float, float]:
    """Node temperature and prior's weight with the best NDCG@10 by score, on a grid.

    The candidates are those of model and prior. Each place of the grid counts with those beside it,
    so that chance at one of them decides little.
    """
    found = np.empty((len(_TEMPERATURES), len(_WEIGHTS)))
    for row, temperature in enumerate(_TEMPERATURES):
        alone = [each.logprobs(1 / temperature, 0.0) for each in passes]
        for column, weight in enumerate(_WEIGHTS):
            pairs = zip(passes, alone, strict=True)
            scores = [values + weight * each.prior for each, values in pairs]
            found[row, column] = ndcg(passes, scores).mean()
    around = np.pad(found, 1, mode="edge")
    shape = found.shape
    smooth = sum(
        around[down : down + shape[0], right : right + shape[1]]
        for down in range(3)
        for right in range(3)
    )
    best = divmod(int(np.argmax(smooth)), shape[1])
    return _TEMPERATURES[best[0]], _WEIGHTS[best[1]]


def _likeliest(
    columns: FloatArray, start: IntArray, taken: IntArray, users: int
) -> tuple[float, float, float]:
    """The best a and b, and the nats of a user.

    Args:
        columns: (C, 2) of the model and of the prior, for each child.
        start: (L,) where the children of each choice begin.
        taken: (L,) which was chosen.
        users: how many users these choices are of.
    """
    from scipy.optimize import minimize

    source = np.repeat(np.arange(len(start)), np.diff(start, append=len(columns)))

    def shares(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(C,) the probability of each child, and (L,) the log of each choice's sum."""
        peak = np.maximum.reduceat(x, start)
        share = np.exp(x - peak[source])
        total = np.add.reduceat(share, start)
        return share / total[source], peak + np.log(total)

    def nats(values: FloatArray) -> tuple[float, FloatArray]:
        x = columns @ values
        share, norm = shares(x)
        slope = (share @ columns - columns[taken].sum(axis=0)) / users
        return float((norm - x[taken]).sum() / users), slope

    usual = np.array([1 / TEMPERATURES["node"], WEIGHTS["node"]])
    share, _ = shares(columns @ usual)
    mean = np.add.reduceat(share[:, None] * columns, start)
    apart = columns - mean[source]
    bend = (share[:, None] * apart).T @ apart / users * (_BEFORE / users)

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        value, slope = nats(values)
        moved = values - usual
        return value + float(moved @ bend @ moved) / 2, slope + bend @ moved

    found = minimize(
        loss,
        np.array([0.3, 0.5]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST, _MOST), (0.0, float(MOST_WEIGHT))],
        options={"maxiter": _ROUNDS},
    )
    return float(found.x[0]), float(found.x[1]), nats(found.x)[0]


def ndcg(passes: Sequence[Scored], scores: Sequence[FloatArray]) -> FloatArray:
    """(U,) NDCG@10 of each target among its candidates by their scores; ties go against it."""
    ranks = []
    for each, values in zip(passes, scores, strict=True):
        better = each.allowed & (values >= values[0])
        ranks.append(int(better[1:].sum()) + 1 if each.listed else 0)
    return np.asarray(metrics.ndcg(ranks, AT), dtype=np.float64)


def fused(fit: Sequence[Scored], passes: Sequence[Scored]) -> dict[str, list[FloatArray]]:
    """The scores of candidates by node and by score, as fitted to some passes, in others."""
    a, b, _ = fit_node(fit)
    temperature, weight = fit_score(fit)
    return {
        "node": [each.logprobs(a, b) for each in passes],
        "score": [each.logprobs(1 / temperature, 0.0) + weight * each.prior for each in passes],
    }


def tuned(recommender: Recommender, passes: Sequence[Scored]) -> Tuned:
    """What is fitted to scoring passes.

    What is stated of the two fusions, and the choice between them, is crosswise: of each half of the
    users by what was fitted to the other half, since a grid that is searched for the best NDCG always
    looks good on the users that it was searched on. With fewer than ``_ENOUGH`` users it is by node.
    """
    a, b, _ = fit_node(passes)
    temperature, weight = fit_score(passes)
    found: dict[str, list[FloatArray]] = {
        "model": [each.logprobs(1.0, 0.0) for each in passes],
        "prior": [each.prior for each in passes],
    }
    halves = (passes[::2], passes[1::2]) if len(passes) > 1 else (passes, passes)
    for name in WEIGHTS:
        found[name] = [np.empty(0)] * len(passes)
    for first, (own, other) in enumerate((halves, halves[::-1])):
        for name, scores in fused(other, own).items():
            found[name][first::2] = scores[: len(found[name][first::2])]
    nats = {n: float(np.mean([-v[0] for v in found[n]])) for n in ("model", "prior", "node")}
    means = {name: float(ndcg(passes, scores).mean()) for name, scores in found.items()}
    return Tuned(
        recommender.tuning_key(),
        recommender.model.name,
        "score" if len(passes) >= _ENOUGH and means["score"] > means["node"] else "node",
        {"node": round(b, 4), "score": weight},
        {"node": round(1 / a, 4), "score": temperature},
        len(passes),
        {name: round(value, 4) for name, value in nats.items()},
        {name: round(value, 4) for name, value in means.items()},
    )


def tune(
    recommender: Recommender,
    *,
    users: int | None = USERS,
    protocol: str | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Tuned:
    """Fits weight, node temperature and kind of fusion on users of validation.

    The prior counts train only, and nothing of test is looked at. Where there are fewer than ``_ENOUGH``
    such users and the model is no run's (which has learned from train), it is fitted on some held out
    of train (``protocols.with_validation``), and the prior counts what is before them.

    Args:
        recommender: with a dataset; its model, prompt and collaborative prior.
        users: how many, a seeded sample; all for None.
        protocol: see ``protocols.NAMES``; None for that of the dataset's split.
        seed: of the sample.
        progress: called with how many users are done.

    Raises:
        SettingsError: the recommender has no collaborative prior.
        RequestError: there are no such users, or the catalog was edited.
    """
    dataset = recommender.dataset
    if dataset is None:
        msg = "A recommender without a dataset, whose validation users are needed. Expected one."
        raise SettingsError(msg)
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    if recommender.run is None:
        dataset = protocols.with_validation(dataset, _ENOUGH)
    recommender = recommender.with_settings(
        data=dataset,
        prior="collaborative",
        prior_events="train",
        normalization="catalog",
        decoder="trie",
        search="auto",
    )
    if not isinstance(recommender.trie, TitleTrie):
        msg = "The recommender's catalog was edited. Expected the dataset's; make a new one."
        raise RequestError(msg)
    try:
        found = protocols.cases(dataset, protocol, "validation")
    except RequestError as error:
        if recommender.run is None:
            raise
        msg = (
            f"{error} Of train nothing can be held out for a run, which has learned it; prepare the "
            "data with --split last-unit, and train and tune on that."
        )
        raise RequestError(msg) from None
    cases = protocols.sample(found, users, seed)
    passes = []
    for case in cases:
        passes.append(scored(recommender, case.history, case.target))
        progress(len(passes))
    return tuned(recommender, passes)
