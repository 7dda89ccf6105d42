"""Search a trie of titles for the items that a model ranks highest.

A search returns the best items, their probabilities and a certificate, which states how much the
search may have missed. It deals with tokens, trie nodes and catalog rows, not with text.

With ``normalization='catalog'``, the model's softmax at a node covers only the tokens that can
continue a title. The probabilities of all items therefore sum to 1, and a token without an
alternative need not be scored. With ``normalization='vocab'``, the softmax covers the whole
vocabulary, as in ordinary text generation.

A title is never more probable than any of its prefixes. The probability of a prefix is therefore an
upper bound for all items whose titles begin with it. A search keeps the prefixes from which it did
not continue, and their bounds limit what it may have missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genrec.decoding import gpu_beam
from genrec.decoding.filters import Filters
from genrec.decoding.frontier import Frontier
from genrec.decoding.gumbel import perturb
from genrec.decoding.normalizers import group_logsumexp, run_logprobs, vocabulary_norms
from genrec.decoding.rankings import Work, build_rankings
from genrec.decoding.scored_items import Items, TopItems
from genrec.decoding.subtrees import Subtrees
from genrec.decoding.trie import TitleTrie, ranges
from genrec.decoding.types import Allowed, Options, Prior, Ranking, Trie
from genrec.errors import ModelError
from genrec.models.cached_tree import CachedTree
from genrec.models.logits import NOT_FINITE, Outputs
from genrec.models.token_tree import ROOT, TokenTree, below
from genrec.types import FloatArray, IntArray

_PASS = 512  # maximum number of tokens in one forward pass of the model
_TOGETHER = 192  # number of prefixes that users follow together in one forward pass
_LEAST = 6  # number of prefixes that each of them may follow at least
_FEW = 2  # with more prompts, a pass is full without prefixes that may not be needed


def search(
    trie: Trie,
    tree: TokenTree,
    k: int | Sequence[int],
    *,
    allowed: Allowed | None = None,
    prior: Prior | None = None,
    options: Options | None = None,
) -> list[Ranking]:
    """Find the k best items for each prompt.

    Each list has k items, even if the search stops at a limit. It is shorter only if fewer than k
    allowed items have at least the minimum probability.

    Args:
        trie: the catalog's trie.
        tree: a token tree for which the model has processed the prompts.
        k: number of items, at least 1; either one number for all prompts or one for each prompt.
        allowed: the items that may be returned; None to allow all items. Probabilities refer to all
            items in either case.
        prior: weights of the items to combine with the model's probabilities, or None.
        options: the search settings; None for the defaults.

    Returns:
        One ranking for each prompt.

    Raises:
        ModelError: the model's logits are not finite.
    """
    users = tree.users
    counts = np.full(users, k) if isinstance(k, int | np.integer) else np.asarray(k)
    options = options or Options()
    if gpu_beam.applies(trie, tree, allowed, prior, options):
        rankings = _Search(trie, tree, counts, allowed, None, options).run_on_device()
        if rankings is not None:
            return rankings
    return _Search(trie, tree, counts, allowed, prior, options).run()


def score(
    trie: Trie,
    tree: TokenTree,
    *,
    allowed: Allowed | None = None,
    prior: Prior | None = None,
    options: Options | None = None,
) -> list[Ranking]:
    """Rank all allowed items for each prompt by their exact scores.

    The arguments and results are the same as for ``search``, but all allowed items are returned.
    """
    exact = replace(
        options or Options(),
        search="exact",
        width=1 << 40,
        max_nodes=1 << 40,
        fill=_PASS,  # all prefixes are needed
        ahead=_PASS,
    )
    return search(trie, tree, trie.n_items, allowed=allowed, prior=prior, options=exact)


class _Search:
    """The state of one search for a batch of U users, each of whom has one prompt."""

    def __init__(
        self,
        trie: Trie,
        tree: TokenTree,
        k: IntArray,
        allowed: Allowed | None,
        prior: Prior | None,
        options: Options,
    ) -> None:
        self._trie, self._tree = trie, tree
        self._allowed, self._options = allowed, options
        self._prior = prior if options.beta else None
        self._subtrees = Subtrees(trie, allowed, self._prior, options)
        self._users = len(k)
        self._nodes = np.zeros(self._users, dtype=np.int64)
        self._tokens = np.zeros(self._users, dtype=np.int64)
        least = options.min_probability
        self._floor = float(np.log(least)) if least > 0 else -np.inf
        self._top = TopItems(k)
        self._pruned = np.full(self._users, -np.inf)  # highest bound of a dropped prefix
        seeds = np.array([0 if options.draw is None else options.draw], dtype=np.uint64).ravel()
        self._seed = np.resize(seeds, self._users)
        self._salt = np.arange(self._users) * (len(seeds) == 1)
        self._log_total = np.zeros(self._users)  # log of the sum of the prior's weights
        if self._prior is not None:
            root = np.full(self._users, trie.root)
            self._log_total = np.log(self._subtrees.prior_mass(np.arange(self._users), root))

    def run(self) -> list[Ranking]:
        """Run the search and return one ranking for each user."""
        size = self._options.beam_size
        rest = self._start()
        if self._options.search == "beam":
            rest = self._beam(rest, size)
        else:
            rest = self._best_first(rest)
        # If a list is still too short although items remain, run a beam from the open prefixes.
        while (short := self._top.incomplete()[(rest := self._prune(rest)).user]).any():
            rest = rest[~short] + self._beam(rest[short], size)
        return self._rankings(rest)

    def run_on_device(self) -> list[Ranking] | None:
        """Run the search on the model's device and return one ranking for each user.

        The result is None if a list has fewer items than requested even though more items remain.
        """
        options, trie, tree = self._options, self._trie, self._tree
        assert isinstance(trie, TitleTrie)
        assert isinstance(tree, CachedTree)
        assert isinstance(self._allowed, Filters | None)
        reached = gpu_beam.run_beam(
            gpu_beam.copy_to_device(trie, tree.device),
            tree,
            self._top.k,
            options.beam_size,
            filters=self._allowed,
            temperature=options.temperature,
            floor=self._floor,
        )
        if not reached.finite:
            raise ModelError(NOT_FINITE)
        self._nodes, self._tokens = reached.nodes, reached.tokens
        user, column = np.nonzero(reached.leaf >= 0)
        value = reached.logprob[user, column]
        self._add_items(user, reached.leaf[user, column], value, value, value)
        skipped = np.concatenate([np.empty((self._users, 0)), *reached.skipped], axis=1)
        user, column = np.nonzero(skipped > -np.inf)
        value, zero = skipped[user, column], np.zeros(len(user), dtype=np.int64)
        rest = self._prune(Frontier(user, zero, zero, value, value, value))
        return None if self._top.incomplete()[rest.user].any() else self._rankings(rest)

    def _start(self) -> Frontier:
        """Score the first tokens of all titles and return the prefixes that begin with them."""
        options, n = self._options, self._users
        user, zero = np.arange(n), np.zeros(n)
        root, handle = np.full(n, self._trie.root), np.full(n, ROOT)
        start = Frontier(user, root, handle, zero, zero, zero)
        room = options.ahead if n <= _FEW or options.ahead >= _PASS else 0
        by_level = options.search == "beam" or options.normalization != "catalog"
        if by_level or not self._tree.unread:
            room = 0
        users, ahead, above = self._subtrees.likely_descendants(start, self._top.worst, room)
        if not len(ahead):
            return self._children(start, self._tree.root)
        parents = [ROOT if i < n else below(i - n) for i in above.tolist()]
        handles, outputs = self._grow(users, ahead, parents)
        reached = self._children(start, self._tree.root)
        return self._score_ahead(reached, users, ahead, handles, outputs)

    def _prune(self, rest: Frontier) -> Frontier:
        """Drop the prefixes whose items can no longer enter a list."""
        promising = rest.bound > self._top.worst[rest.user]
        np.maximum.at(self._pruned, rest.user[~promising], rest.bound[~promising])
        return rest[promising]

    def _best_first(self, rest: Frontier) -> Frontier:
        """Continue from the prefixes with the highest bounds until none can improve a list.

        The prefixes that are still open when a limit is reached are returned.
        """
        options = self._options
        while len(rest := self._prune(rest)):
            within_limits = self._nodes[rest.user] < options.max_nodes
            if options.search == "auto":
                within_limits &= self._tokens[rest.user] < options.budget
            width = options.width
            if width <= _TOGETHER:  # in a batch, passes are full with fewer prefixes of each user
                active = len(np.unique(rest.user[within_limits]))
                width = min(width, max(_TOGETHER // max(active, 1), _LEAST))
            chosen = rest.best(width, within_limits)
            if not len(chosen):
                break
            if options.search != "auto" and not self._fits(rest[chosen], 0):
                return self._depth_first(rest)
            self._tree.keep(np.unique(rest.user))
            rest = rest.without(chosen) + self._follow(rest[chosen])
        return rest

    def _beam(self, live: Frontier, size: int) -> Frontier:
        """Continue from the best ``size`` prefixes of each user at each level of the trie.

        The other prefixes, from which the beam does not continue, are returned.
        """
        skipped, before = Frontier.empty(), self._tokens.copy()
        while len(live := self._prune(live)):
            chosen = live.best(size)
            if not self._fits(live[chosen], before):
                return skipped + self._depth_first(live)
            skipped += live.without(chosen)
            # The search may come back to these prefixes if a user's list is still too short.
            again = skipped.user[self._top.incomplete()[skipped.user]]
            self._tree.keep(np.unique(np.concatenate([live.user, again])))
            live = self._follow(live[chosen])
        return skipped

    def _fits(self, chosen: Frontier, before: IntArray | int) -> bool:
        """Check whether the token tree has room to keep the tokens of the chosen prefixes.

        Args:
            chosen: the prefixes to follow next.
            before: (U,) number of tokens not to count, because they were kept by earlier searches.
        """
        new = np.bincount(chosen.user, self._trie.run_lengths(chosen.node), self._users)
        return bool((self._tokens - before + new).max() <= self._options.kept_tokens)

    def _depth_first(self, rest: Frontier) -> Frontier:
        """Follow prefixes in groups, finishing everything below one group before the next.

        After each group, its tokens are removed from the token tree. A search that kept them all
        would slow down with every token, since each token of a pass is compared with all that are
        kept. The prefixes with the highest bounds come first, so most others need not be followed.

        Returns:
            The open prefixes that were not followed because the limit on prefixes was reached and
            the user's list is complete. They cannot be followed later.
        """
        limit = self._options.max_nodes + self._options.beam_size
        left = Frontier.empty()
        while len(rest := self._prune(rest)):
            if self._options.report is not None:
                self._options.report(int(self._tokens.sum()))
            complete = ~self._top.incomplete() & (self._nodes >= limit)
            stops = complete[rest.user]
            left += rest[stops]
            rest = rest[~stops]
            if not len(rest):
                break
            chosen = rest.first(self._trie.run_lengths(rest.node), _PASS)
            part, rest = rest[chosen], rest.without(chosen)
            mark = self._tree.mark()
            left += self._depth_first(self._follow_in_one_pass(part, _PASS))
            self._tree.back(mark)
        return left

    def _follow(self, chosen: Frontier) -> Frontier:
        """Run the model on the given prefixes, and return the longer prefixes that continue them.

        Items found along the way are added to the users' lists.
        """
        ends = np.cumsum(self._trie.run_lengths(chosen.node))
        reached, first = Frontier.empty(), 0
        while first < len(chosen):
            before = ends[first - 1] if first else 0
            stop = max(int(np.searchsorted(ends, before + _PASS, side="right")), first + 1)
            reached += self._follow_in_one_pass(chosen[first:stop], self._options.fill)
            first = stop
        return reached

    def _follow_in_one_pass(self, part: Frontier, fill: int) -> Frontier:
        if self._options.normalization == "catalog":
            return self._follow_catalog(part, fill)
        return self._follow_vocab(part)

    def _follow_vocab(self, part: Frontier) -> Frontier:
        """Implement ``_follow`` for probabilities that are normalized over the vocabulary.

        Unlike with ``normalization='catalog'``, every token of a prefix has to be scored.
        """
        runs = self._trie.runs(part.node)
        self._nodes += np.bincount(part.user, minlength=self._users)
        ends = self._trie.is_leaf(part.node)
        read = [r[:-1] if e else r for r, e in zip(runs, ends.tolist(), strict=True)]
        self._count_tokens(part.user, read)
        handles, every = self._tree.grow(part.user.tolist(), part.parent.tolist(), read, every=True)
        logprob = part.logprob + run_logprobs(runs, read, every, self._options.temperature)
        if ends.any():
            done = logprob[ends]  # the same with and without a prior, which is not fused at nodes
            self._add_items(part.user[ends], part.node[ends], done, done, part.bound[ends])
        inner = ~ends
        if not inner.any():
            return Frontier.empty()
        last = np.cumsum([len(r) for r in read])[inner] - 1
        alone = part.alone + (logprob - part.logprob)
        scored = replace(part, parent=handles, logprob=logprob, alone=alone)
        return self._children(scored[inner], every.some(last))

    def _follow_catalog(self, part: Frontier, fill: int) -> Frontier:
        """Implement ``_follow`` for probabilities that are normalized over the catalog.

        The same forward pass also processes longer prefixes that will probably be needed next.
        """
        n, fill = len(part), 0 if self._tree.rereads else fill
        users, ahead, above = self._subtrees.likely_descendants(part, self._top.worst, fill)
        parents = part.parent.tolist() + [below(i) for i in above.tolist()]
        every = np.append(part.user, users), np.append(part.node, ahead)
        handles, outputs = self._grow(*every, parents)
        reached = self._children(replace(part, parent=handles[:n]), outputs.some(np.arange(n)))
        rest = outputs.some(np.arange(n, len(outputs)))
        return self._score_ahead(reached, users, ahead, handles[n:], rest)

    def _grow(
        self, users: IntArray, nodes: IntArray, parents: Sequence[int]
    ) -> tuple[IntArray, Outputs]:
        """Run the model on the tokens of L prefixes; see ``TokenTree.grow``."""
        runs = self._trie.runs(nodes)
        self._nodes += np.bincount(users, minlength=self._users)
        self._count_tokens(users, runs)
        return self._tree.grow(users.tolist(), parents, runs)

    def _score_ahead(
        self,
        reached: Frontier,
        users: IntArray,
        nodes: IntArray,
        handles: IntArray,
        outputs: Outputs,
    ) -> Frontier:
        """Continue from those of L prefixes, read ahead, that are among the given open prefixes.

        Returns:
            The open prefixes, with longer ones in place of those from which the search continued.
        """
        waiting = np.arange(len(nodes))
        while len(waiting):  # proceed level by level, since a node is scored with its siblings
            index = reached.find(users[waiting], nodes[waiting])
            known = np.flatnonzero(index >= 0)
            if not len(known):
                break
            chosen, ready = index[known], waiting[known]
            read = replace(reached[chosen], parent=handles[ready])
            reached = reached.without(chosen) + self._children(read, outputs.some(ready))
            waiting = waiting[index < 0]
        return reached

    def _count_tokens(self, user: IntArray, runs: Sequence[Sequence[int]]) -> None:
        lengths = [len(r) for r in runs]
        self._tokens += np.bincount(user, lengths, self._users).astype(np.int64)

    def _children(self, part: Frontier, outputs: Outputs) -> Frontier:
        """Score the children of L prefixes, and return those that may lead to more items.

        Children that end a title are added to the users' lists of items.

        Args:
            part: the prefixes, whose tokens have all been scored. Here, ``parent`` is the handle of
                a prefix's last token.
            outputs: the model's outputs after each prefix.
        """
        options, trie = self._options, self._trie
        child, count = trie.children(part.node)
        source = np.repeat(np.arange(len(part)), count)
        start = np.cumsum(count) - count
        owner = part.user[source]
        fused = self._prior is not None and options.fusion == "node"
        other = options.alone not in {None, options.temperature}
        apart = fused or (self._prior is not None and other)
        value = np.zeros(len(child))
        own = value
        if options.normalization == "catalog":
            several = (count > 1)[source]  # an only child has probability 1
            if several.any():
                value[several] = outputs.at(source[several], trie.tokens(child[several]))
                if apart:
                    own = value / (options.alone or options.temperature)
                    own -= group_logsumexp(own, start, source)
                value /= options.temperature
                if fused:
                    value += options.beta * np.log(self._subtrees.prior_mass(owner, child))
                value -= group_logsumexp(value, start, source)
        else:
            value = outputs.at(source, trie.tokens(child)) / options.temperature
            value -= vocabulary_norms(outputs, options.temperature)[source]
        own = own + part.alone[source] if apart else value
        value += part.logprob[source]
        ends = trie.is_leaf(child)
        if options.normalization == "vocab":
            ends &= trie.run_lengths(child) == 1
        enter = self._subtrees.counts(owner, child) > 0
        if options.draw is not None:
            seed, salt = self._seed[owner], self._salt[owner]
            bound = perturb(seed, salt, child, value, start, source, part.bound)
        elif self._prior is not None and not fused:
            best = self._subtrees.best_prior(owner, child)
            bound = value + options.beta * (best - self._log_total[owner])
        else:
            bound = value
        if options.boosts is not None:
            bound = bound + self._subtrees.best_boost(child)
        done = ends & enter
        if done.any():
            self._add_items(owner[done], child[done], value[done], own[done], bound[done])
        grows = np.flatnonzero(~ends & enter & (value >= self._floor) & np.isfinite(value))
        return Frontier(
            owner[grows],
            child[grows],
            part.parent[source[grows]],
            value[grows],
            own[grows],
            bound[grows],
        )

    def _add_items(
        self,
        user: IntArray,
        leaf: IntArray,
        logprob: FloatArray,
        alone: FloatArray,
        bound: FloatArray,
    ) -> None:
        """Score the allowed items at L trie nodes that end a title, and add them to the lists.

        Several items may have the same title. They share its probability.

        Args:
            user: (L,) index of the user for whom each node was reached.
            leaf: (L,) trie nodes.
            logprob: (L,) log-probabilities of the titles.
            alone: (L,) log-probabilities of the titles under the model without a prior.
            bound: (L,) upper bounds on the items' scores.
        """
        options, trie = self._options, self._trie
        owner, low, high = trie.intervals(leaf)
        count = high - low
        position = ranges(low, count)
        owner = np.repeat(owner, count)
        who = user[owner]
        shared = np.log(np.bincount(owner, minlength=len(leaf)))
        value = final = (logprob - shared)[owner]
        weight = np.zeros(len(who))
        if self._prior is not None:
            weight = self._prior.at(who, position) - self._log_total[who]
            if options.fusion == "node":
                start = np.searchsorted(owner, np.arange(len(leaf)))
                share = options.beta * weight
                value = final = logprob[owner] + share - group_logsumexp(share, start, owner)
            else:
                final = value + options.beta * weight
        if options.boosts is not None:
            final = final + options.boosts.at(position)
        rows = trie.rows_at(position)
        if options.draw is not None:
            start = np.searchsorted(owner, np.arange(len(leaf)))
            seed, salt = self._seed[who], self._salt[who]
            final = perturb(seed, salt, ~rows, value, start, owner, bound)
        keep = value >= self._floor
        if self._allowed is not None:
            keep &= self._allowed.keeps(who, position)
        self._top.add(Items(who, rows, value, final, (alone - shared)[owner], weight)[keep])

    def _rankings(self, rest: Frontier) -> list[Ranking]:
        """Build each user's ranking, with a certificate based on the prefixes that are left."""
        work = Work(self._pruned, self._nodes, self._tokens)
        with_prior = self._prior is not None
        return build_rankings(self._top, rest, work, self._options.tolerance, with_prior)
