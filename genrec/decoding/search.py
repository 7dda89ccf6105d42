"""Search over a TitleTrie with a TokenTree: which items, with what probability, and how surely.

Knows tokens, nodes and rows, nothing of prompts or titles' texts. At each node the model's
log-softmax is taken over the node's children only ("catalog"), so that the probabilities of all
items sum to 1 and tokens without an alternative need no evaluation; or over the whole vocabulary
("vocab"), as plain generation does.

log P only falls along a path, so it bounds all that is below a prefix. Every search keeps the
prefixes that it did not follow, and knows from them what it may have missed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genrec.decoding import gpu_beam
from genrec.decoding.filters import Filters
from genrec.decoding.gumbel import perturb
from genrec.decoding.trie import TitleTrie, ranges
from genrec.decoding.types import Allowed, Certificate, Options, Prior, Ranking, Trie
from genrec.errors import ModelError
from genrec.models.cached_tree import CachedTree
from genrec.models.logits import NOT_FINITE, Outputs
from genrec.models.token_tree import ROOT, TokenTree, below
from genrec.types import BoolArray, FloatArray, IntArray

_NEAR = 1.0  # how far below the last of a list a prefix is still worth a guess
_PASS = 512  # most tokens given to the model in one pass


@dataclass(slots=True)
class _Open:
    """Prefixes that were not followed yet, one an entry; a prefix ends before a node's run."""

    user: IntArray
    node: IntArray  # whose first token is scored already
    parent: IntArray  # token tree handle above the node's run
    logprob: FloatArray  # of what is scored
    alone: FloatArray  # the same by the model alone
    bound: FloatArray  # no item below has a higher score

    @classmethod
    def none(cls) -> _Open:
        whole, real = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(whole, whole, whole, real, real, real)

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, which: Any) -> _Open:
        return _Open(*(getattr(self, name)[which] for name in self.__slots__))

    def __add__(self, other: _Open) -> _Open:
        return _Open(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__slots__)
        )


@dataclass(slots=True)
class _Found:
    """Items that were reached."""

    user: IntArray
    row: IntArray
    logprob: FloatArray
    score: FloatArray
    alone: FloatArray
    prior: FloatArray  # log of its share of all weights


def search(
    trie: Trie,
    tree: TokenTree,
    k: int | Sequence[int],
    *,
    allowed: Allowed | None = None,
    prior: Prior | None = None,
    options: Options | None = None,
) -> list[Ranking]:
    """The k best items for each of U prompts.

    k items come back whenever k are allowed and reach ``min_probability``, however the search ends.

    Args:
        trie: the catalog.
        tree: over the U prompts.
        k: how many items, at least 1; one number for each prompt, or one for all.
        allowed: what may be returned. The probabilities are those over all items, allowed or not.
        prior: weights that are fused with the model's.
        options: how to search.

    Raises:
        ModelError: the model's logits are not finite.
    """
    users = len(tree.root)
    counts = np.full(users, k) if isinstance(k, int | np.integer) else np.asarray(k)
    options = options or Options()
    if _fits_device(trie, tree, allowed, prior, options):
        found = _Search(trie, tree, counts, allowed, None, options).run_on_device()
        if found is not None:
            return found
    return _Search(trie, tree, counts, allowed, prior, options).run()


def _fits_device(
    trie: Trie, tree: TokenTree, allowed: Allowed | None, prior: Prior | None, options: Options
) -> bool:
    """Whether a beam can do without the host, and is to."""
    plain = (options.search, options.normalization, options.draw) == ("beam", "catalog", None)
    if not plain or (prior is not None and options.beta) or options.on_device is False:
        return False
    known = isinstance(trie, TitleTrie) and isinstance(allowed, Filters | None)
    if not (known and isinstance(tree, CachedTree) and tree.whole):
        return False
    assert isinstance(trie, TitleTrie)
    if not (options.on_device or tree.device.type == "cuda"):
        return False
    copied = gpu_beam.on_device(trie, tree.device)
    users, longest = len(tree.root), tree.n_prompt
    return gpu_beam.fits(copied, users, options.beam_size, longest)


def score(
    trie: Trie,
    tree: TokenTree,
    *,
    allowed: Allowed | None = None,
    prior: Prior | None = None,
    options: Options | None = None,
) -> list[Ranking]:
    """All allowed items of each prompt with their exact scores; as ``search`` with k of all."""
    everything = replace(options or Options(), search="exact", width=1 << 40, max_nodes=1 << 40)
    return search(trie, tree, trie.n_items, allowed=allowed, prior=prior, options=everything)


class _Search:
    """One search over a batch of prompts."""

    def __init__(
        self,
        trie: Trie,
        tree: TokenTree,
        k: IntArray,
        allowed: Allowed | None,
        prior: Prior | None,
        options: Options,
    ) -> None:
        self._trie, self._tree, self._k = trie, tree, k
        self._allowed, self._options = allowed, options
        self._prior = prior if options.beta else None
        self._users = len(k)
        self._nodes = np.zeros(self._users, dtype=np.int64)
        self._tokens = np.zeros(self._users, dtype=np.int64)
        least = options.min_probability
        self._floor = float(np.log(least)) if least > 0 else -np.inf
        kinds = (np.int64, np.int64, float, float, float, float)
        self._found = _Found(*(np.empty(0, dtype=t) for t in kinds))
        self._worst = np.full(self._users, -np.inf)  # a score that new items must exceed
        seeds = np.array([0 if options.draw is None else options.draw], dtype=np.uint64).ravel()
        self._seed = np.resize(seeds, self._users)
        self._salt = np.arange(self._users) * (len(seeds) == 1)
        self._left = np.full(self._users, -np.inf)  # the highest bound that was not worth following
        self._all = np.zeros(self._users)  # log of the sum of the prior's weights
        if self._prior is not None:
            root = np.full(self._users, trie.root)
            self._all = np.log(self._mass(np.arange(self._users), root))

    def run(self) -> list[Ranking]:
        """Searches; one ranking a prompt."""
        size = self._options.beam_size
        rest = self._start()
        if self._options.search == "beam":
            rest = self._dive(rest, size)
        else:
            rest = self._best_first(rest)
        # Whoever lacks items still, though there are more, gets them by going straight down.
        while (lacks := self._lacking()[(rest := self._promising(rest)).user]).any():
            rest = rest[~lacks] + self._dive(rest[lacks], size)
        return self._rankings(rest)

    def run_on_device(self) -> list[Ranking] | None:
        """As ``run`` by beam; None where a list is not full though there are more items."""
        options, trie, tree = self._options, self._trie, self._tree
        assert isinstance(trie, TitleTrie)
        assert isinstance(tree, CachedTree)
        assert isinstance(self._allowed, Filters | None)
        reached = gpu_beam.beam(
            gpu_beam.on_device(trie, tree.device),
            tree,
            self._k,
            options.beam_size,
            filters=self._allowed,
            temperature=options.temperature,
            floor=self._floor,
        )
        if not reached.finite:
            raise ModelError(NOT_FINITE)
        self._nodes, self._tokens = reached.nodes, reached.tokens
        user, place = np.nonzero(reached.leaf >= 0)
        value = reached.logprob[user, place]
        self._reach(user, reached.leaf[user, place], value, value, value)
        left = np.concatenate([np.empty((self._users, 0)), *reached.left], axis=1)
        user, place = np.nonzero(left > -np.inf)
        value, zero = left[user, place], np.zeros(len(user), dtype=np.int64)
        rest = self._promising(_Open(user, zero, zero, value, value, value))
        return None if self._lacking()[rest.user].any() else self._rankings(rest)

    def _start(self) -> _Open:
        user, zero = np.arange(self._users), np.zeros(self._users)
        node, handle = np.full(self._users, self._trie.root), np.full(self._users, ROOT)
        return self._children(user, node, handle, zero, zero, zero, self._tree.root)

    def _promising(self, rest: _Open) -> _Open:
        """Without the prefixes below which nothing can better a list."""
        promising = rest.bound > self._worst[rest.user]
        np.maximum.at(self._left, rest.user[~promising], rest.bound[~promising])
        return rest[promising]

    def _best_first(self, rest: _Open) -> _Open:
        """Follows the prefixes with the highest bounds until none can better a list."""
        options = self._options
        while len(rest := self._promising(rest)):
            going = self._nodes[rest.user] < options.max_nodes
            if options.search == "auto":
                going &= self._tokens[rest.user] < options.budget
            chosen = self._first(rest, options.width, going)
            if not len(chosen):
                break
            self._tree.keep(np.unique(rest.user))
            rest = rest[_others(chosen, len(rest))] + self._follow(rest[chosen])
        return rest

    def _dive(self, live: _Open, size: int) -> _Open:
        """Follows the best ``size`` prefixes of each level; gives those that were not followed."""
        left = _Open.none()
        while len(live := self._promising(live)):
            chosen = self._first(live, size, np.ones(len(live), dtype=bool))
            left += live[_others(chosen, len(live))]
            # Whoever lacks items still may come back to what was left.
            again = left.user[self._lacking()[left.user]]
            self._tree.keep(np.unique(np.concatenate([live.user, again])))
            live = self._follow(live[chosen])
        return left

    def _lacking(self) -> BoolArray:
        """(U,) whose list is shorter than asked for."""
        return np.bincount(self._found.user, minlength=self._users) < self._k

    def _first(self, rest: _Open, size: int, which: BoolArray) -> IntArray:
        """Indices of the ``size`` entries of each user with the highest bounds, of some entries."""
        some = np.flatnonzero(which)
        if not len(some) or size >= len(some):
            return some
        order = some[np.lexsort((-rest.bound[some], rest.user[some]))]
        return np.sort(order[_places(rest.user[order]) < size])

    def _follow(self, chosen: _Open) -> _Open:
        """Reads the runs of prefixes; gives the prefixes below, and keeps the items found."""
        lengths = self._trie.run_lengths(chosen.node)
        found, first = _Open.none(), 0
        passed = np.cumsum(lengths)
        while first < len(chosen):
            before = passed[first - 1] if first else 0
            stop = max(int(np.searchsorted(passed, before + _PASS, side="right")), first + 1)
            found += self._follow_some(chosen[first:stop])
            first = stop
        return found

    def _follow_some(self, part: _Open) -> _Open:
        if self._options.normalization == "catalog":
            return self._follow_ahead(part)
        runs = self._trie.runs(part.node)
        self._nodes += np.bincount(part.user, minlength=self._users)
        ends = self._trie.is_leaf(part.node)
        read = [r[:-1] if e else r for r, e in zip(runs, ends.tolist(), strict=True)]
        self._count_tokens(part.user, read)
        handles, every = self._tree.grow(part.user.tolist(), part.parent.tolist(), read, every=True)
        logprob = part.logprob + self._within(runs, read, every)
        if ends.any():
            done = logprob[ends]  # by the model alone, too: a prior does not change vocab's
            self._reach(part.user[ends], part.node[ends], done, done, part.bound[ends])
        inner = ~ends
        if not inner.any():
            return _Open.none()
        after = np.cumsum([len(r) for r in read])[inner] - 1
        part, logprob, handles = part[inner], logprob[inner], handles[inner]
        return self._below(part, handles, every.some(after), logprob)

    def _below(
        self, part: _Open, handle: IntArray, outputs: Outputs, logprob: FloatArray | None = None
    ) -> _Open:
        """The children of prefixes whose runs were read; see ``_children``."""
        logprob = part.logprob if logprob is None else logprob
        alone = part.alone + (logprob - part.logprob)
        return self._children(part.user, part.node, handle, logprob, alone, part.bound, outputs)

    def _follow_ahead(self, part: _Open) -> _Open:
        """Reads the runs of prefixes, and in the same pass some of those likely to come next."""
        n = len(part)
        node, above = self._ahead(part)
        user = part.user.tolist()
        for parent in above:
            user.append(user[parent])
        nodes = np.concatenate([part.node, np.array(node, dtype=np.int64)])
        runs = self._trie.runs(nodes)
        users = np.array(user)
        self._nodes += np.bincount(users, minlength=self._users)
        self._count_tokens(users, runs)
        parents = part.parent.tolist() + [below(i) for i in above]
        handles, outputs = self._tree.grow(user, parents, runs)
        found = self._below(part, handles[:n], outputs.some(np.arange(n)))
        rows = np.arange(n, len(nodes))
        while len(rows):  # level by level, as their parents' children become known
            place = _found_at(found, users[rows], nodes[rows])
            known = np.flatnonzero(place >= 0)
            if not len(known):
                break
            chosen, ready = place[known], rows[known]
            new = self._below(found[chosen], handles[ready], outputs.some(ready))
            found = found[_others(chosen, len(found))] + new
            rows = rows[place < 0]
        return found

    def _ahead(self, part: _Open) -> tuple[list[int], list[int]]:
        """Prefixes below some, as far as a pass has room: nodes, and the index of each one's parent.

        What the model will say is not known yet: a node is taken to be as likely below its parent
        as its share of the items there.
        """
        room = self._options.fill - int(self._trie.run_lengths(part.node).sum())
        nodes: list[int] = []
        above: list[int] = []
        if room <= 0:
            return nodes, above
        heap: list[tuple[float, int, int, int, int]] = []
        self._guess(heap, part.user, part.node, part.bound, np.arange(len(part)), room)
        while heap and room > 0:
            value, node, length, user, parent = heapq.heappop(heap)
            if length > room:
                continue
            room -= length
            nodes.append(node)
            above.append(parent)
            place = np.array([len(part) + len(nodes) - 1])
            self._guess(heap, np.array([user]), np.array([node]), np.array([-value]), place, room)
        return nodes, above

    def _guess(
        self,
        heap: list[tuple[float, int, int, int, int]],
        user: IntArray,
        node: IntArray,
        bound: FloatArray,
        place: IntArray,
        room: int,
    ) -> None:
        """Puts the children of nodes that may be followed next on a heap, the likeliest first."""
        trie = self._trie
        child, count = trie.children(node)
        source = np.repeat(np.arange(len(node)), count)
        inner = ~trie.is_leaf(child)
        child, source = child[inner], source[inner]
        if not len(child):
            return
        below_child = self._count(user[source], child)
        with np.errstate(divide="ignore"):
            share = np.log(below_child) - np.log(self._count(user, node))[source]
        guess = bound[source] + share
        length = trie.run_lengths(child)
        likely = np.flatnonzero((guess > self._worst[user[source]] - _NEAR) & (length <= room))
        likely = likely[np.argsort(-guess[likely], kind="stable")[:room]]
        arrays = (-guess, child, length, user[source], place[source])
        for entry in zip(*(a[likely].tolist() for a in arrays), strict=True):
            heapq.heappush(heap, entry)

    def _count_tokens(self, user: IntArray, runs: Sequence[Sequence[int]]) -> None:
        lengths = [len(r) for r in runs]
        self._tokens += np.bincount(user, lengths, self._users).astype(np.int64)

    def _within(
        self, runs: Sequence[Sequence[int]], read: Sequence[Sequence[int]], every: Outputs
    ) -> FloatArray:
        """(L,) log-probability of each run after its first token."""
        source: list[int] = []
        token: list[int] = []
        owner: list[int] = []
        start = 0
        for number, (run, known) in enumerate(zip(runs, read, strict=True)):
            source += range(start, start + len(run) - 1)
            token += run[1:]
            owner += [number] * (len(run) - 1)
            start += len(known)
        if not token:
            return np.zeros(len(runs))
        rows = np.array(source)
        temperature = self._options.temperature
        values = every.at(rows, np.array(token)) / temperature - _norms(every, temperature)[rows]
        return np.bincount(owner, values, len(runs)).astype(np.float64)

    def _children(
        self,
        user: IntArray,
        node: IntArray,
        handle: IntArray,
        logprob: FloatArray,
        alone: FloatArray,
        above: FloatArray,
        outputs: Outputs,
    ) -> _Open:
        """The children of L nodes: those that end are kept as items, the others given back."""
        options, trie = self._options, self._trie
        child, count = trie.children(node)
        source = np.repeat(np.arange(len(node)), count)
        start = np.cumsum(count) - count
        owner = user[source]
        fused = self._prior is not None and options.fusion == "node"
        other = options.alone not in {None, options.temperature}
        apart = fused or (self._prior is not None and other)
        value = np.zeros(len(child))
        own = value
        if options.normalization == "catalog":
            several = (count > 1)[source]  # the only child of a root is certain
            if several.any():
                value[several] = outputs.at(source[several], trie.tokens(child[several]))
                if apart:
                    own = value / (options.alone or options.temperature)
                    own -= _logsumexp(own, start, source)
                value /= options.temperature
                if fused:
                    value += options.beta * np.log(self._mass(owner, child))
                value -= _logsumexp(value, start, source)
        else:
            value = outputs.at(source, trie.tokens(child)) / options.temperature
            value -= _norms(outputs, options.temperature)[source]
        own = own + alone[source] if apart else value
        value += logprob[source]
        ends = trie.is_leaf(child)
        if options.normalization == "vocab":
            ends &= trie.run_lengths(child) == 1
        enter = self._count(owner, child) > 0
        if options.draw is not None:
            seed, salt = self._seed[owner], self._salt[owner]
            bound = perturb(seed, salt, child, value, start, source, above)
        elif self._prior is not None and not fused:
            bound = value + options.beta * (self._best(owner, child) - self._all[owner])
        else:
            bound = value
        done = ends & enter
        if done.any():
            self._reach(owner[done], child[done], value[done], own[done], bound[done])
        grows = np.flatnonzero(~ends & enter & (value >= self._floor) & np.isfinite(value))
        return _Open(
            owner[grows],
            child[grows],
            handle[source[grows]],
            value[grows],
            own[grows],
            bound[grows],
        )

    def _reach(
        self,
        user: IntArray,
        leaf: IntArray,
        logprob: FloatArray,
        alone: FloatArray,
        bound: FloatArray,
    ) -> None:
        """Keeps the allowed items at leaves, of each user the best k and one more."""
        options, trie = self._options, self._trie
        owner, low, high = trie.intervals(leaf)
        count = high - low
        place = ranges(low, count)
        owner = np.repeat(owner, count)
        who = user[owner]
        shared = np.log(np.bincount(owner, minlength=len(leaf)))
        value = final = (logprob - shared)[owner]
        weight = np.zeros(len(who))
        if self._prior is not None:
            weight = self._prior.at(who, place) - self._all[who]
            if options.fusion == "node":
                start = np.searchsorted(owner, np.arange(len(leaf)))
                share = options.beta * weight
                value = final = logprob[owner] + share - _logsumexp(share, start, owner)
            else:
                final = value + options.beta * weight
        rows = trie.rows_at(place)
        if options.draw is not None:
            start = np.searchsorted(owner, np.arange(len(leaf)))
            seed, salt = self._seed[who], self._salt[who]
            final = perturb(seed, salt, ~rows, value, start, owner, bound)
        keep = value >= self._floor
        if self._allowed is not None:
            keep &= self._allowed.keeps(who, place)
        new = (who, rows, value, final, (alone - shared)[owner], weight)
        old = self._found
        every = _Found(
            *(
                np.concatenate([getattr(old, n), a[keep]])
                for n, a in zip(_Found.__slots__, new, strict=True)
            )
        )
        order = np.lexsort((every.row, -every.score, every.user))
        place = _places(every.user[order])
        kept = place <= self._k[every.user[order]]
        order, place = order[kept], place[kept]
        found = _Found(*(getattr(every, n)[order] for n in _Found.__slots__))
        last = place == self._k[found.user] - 1
        self._worst[found.user[last]] = found.score[last]
        self._found = found

    def _count(self, user: IntArray, nodes: IntArray) -> IntArray:
        """(C,) how many items below each node may be returned to its user."""
        owner, low, high = self._trie.intervals(nodes)
        if self._allowed is None:
            count = high - low
        else:
            count = self._allowed.counts(user[owner], low, high)
        return count if len(owner) == len(nodes) else _sums(owner, count, len(nodes))

    def _mass(self, user: IntArray, nodes: IntArray) -> FloatArray:
        assert self._prior is not None
        owner, low, high = self._trie.intervals(nodes)
        mass = self._prior.mass(user[owner], low, high)
        if len(owner) > len(nodes):
            mass = np.bincount(owner, mass, len(nodes)).astype(np.float64)
        return mass

    def _best(self, user: IntArray, nodes: IntArray) -> FloatArray:
        assert self._prior is not None
        owner, low, high = self._trie.intervals(nodes)
        best = self._prior.best(user[owner], low, high)
        if len(owner) == len(nodes):
            return best
        found = np.full(len(nodes), -np.inf)
        np.maximum.at(found, owner, best)
        return found

    def _rankings(self, rest: _Open) -> list[Ranking]:
        found, tolerance = self._found, self._options.tolerance
        bound = np.full(self._users, -np.inf)
        np.maximum.at(bound, rest.user, rest.bound)
        mass = np.bincount(rest.user, np.exp(rest.logprob), self._users)
        rankings = []
        for user in range(self._users):
            which = np.flatnonzero(found.user == user)
            which, cut = which[: self._k[user]], which[self._k[user] :]
            scores, best = found.score[which], float(bound[user])
            full = len(scores) == self._k[user]
            worst = float(scores[-1]) if full else -np.inf
            exact = best == -np.inf or best <= worst + tolerance
            outside = max([best, float(self._left[user]), *found.score[cut].tolist()])
            certificate = Certificate(
                exact=exact,
                ties=exact and full and outside > worst - tolerance,
                certain_ranks=int((scores >= best - tolerance).sum()),
                missed_mass_bound=float(min(mass[user], 1.0)),
                nodes=int(self._nodes[user]),
                tokens=int(self._tokens[user]),
            )
            prior = None if self._prior is None else found.prior[which]
            rankings.append(
                Ranking(
                    found.row[which],
                    found.logprob[which],
                    scores,
                    certificate,
                    found.alone[which],
                    prior,
                )
            )
        return rankings


def _found_at(entries: _Open, user: IntArray, node: IntArray) -> IntArray:
    """(R,) the index of the entry of each user and node; -1 where there is none."""
    place = np.full(len(user), -1)
    if len(entries):
        span = int(max(entries.node.max(), node.max())) + 1
        keys, wanted = entries.user * span + entries.node, user * span + node
        order = np.argsort(keys)
        near = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        same = keys[near] == wanted
        place[same] = near[same]
    return place


def _norms(outputs: Outputs, temperature: float) -> FloatArray:
    norms = outputs.norms(temperature)
    if not np.isfinite(norms).all():
        raise ModelError(NOT_FINITE)
    return norms


def _sums(owner: IntArray, values: IntArray, n: int) -> IntArray:
    """(n,) sums of the values of each owner."""
    return np.bincount(owner, values, n).astype(np.int64)


def _others(chosen: IntArray, n: int) -> BoolArray:
    """(n,) all but the chosen."""
    others = np.ones(n, dtype=bool)
    others[chosen] = False
    return others


def _places(groups: IntArray) -> IntArray:
    """The place of each entry in its group, from 0; entries of a group are neighbours."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _logsumexp(values: FloatArray, start: IntArray, source: IntArray) -> FloatArray:
    """(C,) for each entry the log of the sum of exp over its group.

    Raises:
        ModelError: a sum is not finite.
    """
    peak = np.maximum.reduceat(values, start)
    with np.errstate(invalid="ignore"):
        norm = peak + np.log(np.add.reduceat(np.exp(values - peak[source]), start))
    if not np.isfinite(norm).all():
        raise ModelError(NOT_FINITE)
    return np.asarray(norm[source])
