"""Score the same continuations after many similar sequences, processing shared tokens only once.

All sequences are branches of one token tree. The longest common prefix of a sequence and the
first sequence is processed only once. The rest of the sequence and the continuations branch off
where the two sequences diverge. Several sequences are processed in one forward pass. A search
then looks up the model's outputs and needs no further pass. This module deals with token ids only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoding.block_reading import ByEvent
from genrec.decoding.types import Trie
from genrec.models.cached_tree import CachedTree
from genrec.models.language_model import LanguageModel
from genrec.models.logits import Outputs
from genrec.models.prefix import Prefix
from genrec.models.token_tree import ROOT, WITHIN, TokenTree, below
from genrec.prompts.encoder import EncodedPrompt, shared_start
from genrec.types import IntArray

PASS = 512  # maximum number of tokens in a forward pass, unless a single sequence needs more


@dataclass(frozen=True, slots=True)
class Paths:
    """The continuations to be processed after the end of each sequence.

    The continuations form a tree. A sequence of tokens between two branching points is called a
    run.

    Attributes:
        parent: for each run, the index of the earlier run that it follows; ROOT if it comes first.
        runs: token ids of each run; no run is empty.
        every: whether to keep the model's outputs after every token of a run rather than only after
            the last one.
    """

    parent: tuple[int, ...] = ()
    runs: tuple[tuple[int, ...], ...] = ()
    every: bool = False

    @classmethod
    def to(cls, trie: Trie, positions: IntArray, *, vocab: bool) -> Paths:
        """Collect the tokens that a model must process to score some of the titles in a trie.

        Args:
            trie: the catalog's trie.
            positions: positions of the titles in the trie.
            vocab: whether probabilities are normalized over the whole vocabulary. If so, the last
                run of each title must be processed as well.
        """
        wanted = np.unique(positions)
        parent: list[int] = []
        runs: list[tuple[int, ...]] = []
        nodes, above = np.array([trie.root]), [ROOT]
        while len(nodes):
            child, count = trie.children(nodes)
            source = np.repeat(np.arange(len(nodes)), count)
            owner, low, high = trie.intervals(child)
            hit = np.searchsorted(wanted, high) > np.searchsorted(wanted, low)
            on = np.unique(owner[hit])
            child, source = child[on], source[on]
            last: list[int] = []
            ends = trie.is_leaf(child)
            for index, (run, end) in enumerate(zip(trie.runs(child), ends.tolist(), strict=True)):
                read = run[: -1 if vocab else 0] if end else run
                if read:
                    parent.append(above[source[index]])
                    runs.append(tuple(read))
                last.append(len(runs) - 1)
            nodes = child[~ends]
            above = [run for run, end in zip(last, ends.tolist(), strict=True) if not end]
        return cls(tuple(parent), tuple(runs), vocab)

    @property
    def tokens(self) -> int:
        """Return the total number of tokens in the runs."""
        return sum(map(len, self.runs))


class PromptScorer(ABC):
    """The same continuations after several similar prompts.

    Attributes:
        n_tokens: number of tokens that the model has processed so far.
    """

    n_tokens: int

    @abstractmethod
    def cost(self, which: int) -> int:
        """Return the number of tokens to be processed for a prompt and its continuations."""

    @abstractmethod
    def view(self, which: Sequence[int]) -> TokenTree:
        """Return a token tree that looks up the model's outputs for some of the prompts.

        The outputs are computed here if necessary.

        Args:
            which: indices of the prompts.
        """

    def _groups(self, which: Sequence[int]) -> Iterator[list[int]]:
        """Split prompts into groups that are small enough for one forward pass each.

        A prompt that is too large for a forward pass forms a group of its own.
        """
        group: list[int] = []
        size = 0
        for i in which:
            cost = self.cost(i)
            if group and size + cost > PASS:
                yield group
                group, size = [], 0
            group.append(i)
            size += cost
        if group:
            yield group


class Branches(PromptScorer):
    """Similar sequences of tokens, each of which the model processes only when it is needed.

    Attributes:
        n_tokens: number of tokens that the model has processed so far.
    """

    def __init__(
        self,
        model: LanguageModel,
        sequences: Sequence[Sequence[int]],
        paths: Paths,
        prefix: Prefix | None = None,
        start: TokenTree | None = None,
    ) -> None:
        """Store the sequences, and run the model on the first one.

        Args:
            model: the language model.
            sequences: token ids of one or more sequences.
            paths: the continuations to be processed after the end of each sequence.
            prefix: a common prefix of the sequences that the model has already processed; None if
                there is none.
            start: a tree of the first sequence, most of which the model has already processed; None
                if there is none. It is changed.
        """
        self._model, self._paths = model, paths
        self._sequences = [tuple(s) for s in sequences]
        first = self._sequences[0]
        self._share = [min(shared_start([first, s]), len(s) - 1) for s in self._sequences]
        self._share[0] = len(first)
        self._roots: dict[int, Outputs] = {}
        self._nodes: dict[int, Outputs] = {}
        head = min(*self._share, len(first) - 1)
        if head and isinstance(start, CachedTree):
            self._continue(start, head)
            return
        if prefix is not None and len(prefix.ids) >= head:
            prefix = prefix.cut(head - 1) if head > 1 else None
        skipped = len(prefix.ids) if prefix is not None else 0
        self.n_tokens = head - skipped
        self._tree = model.prefill_many([first[:head]], prefix) if head else None
        self._at = {head: ROOT}
        if self._tree is not None:
            self._read_first(head)

    def _continue(self, start: CachedTree, head: int) -> None:
        """Use the tree of the first sequence, whose tokens after the head become nodes."""
        self._tree, first, paths = start, self._sequences[0], self._paths
        self._roots[0] = start.root
        handles = [*[ROOT] * head, *start.as_nodes(head).tolist()]
        self._at = {n: handles[n - 1] for n in {head, *self._share, len(first)}}
        self.n_tokens = paths.tokens
        if paths.runs:
            above = [handles[-1] if p == ROOT else below(p) for p in paths.parent]
            zeros = [0] * len(above)
            self._nodes[0] = start.grow(zeros, above, paths.runs, every=paths.every)[1]

    def _read_first(self, head: int) -> None:
        """Process the rest of the first sequence, in pieces that end where others diverge from it.

        Args:
            head: number of tokens of the first sequence that have already been processed.
        """
        assert self._tree is not None
        first = self._sequences[0]
        cuts = sorted({*self._share, len(first)} - set(range(head + 1)))
        starts = [head, *cuts[:-1]]
        pieces = [first[a:b] for a, b in zip(starts, cuts, strict=True)]
        parents = [ROOT, *(below(i) for i in range(len(pieces) - 1))]
        handles = self._grow([0], parents, pieces, [len(pieces) - 1])
        self._at |= dict(zip(cuts, handles[: len(cuts)].tolist(), strict=True))

    def _grow(
        self,
        which: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        ends: Sequence[int],
    ) -> IntArray:
        """Process the remaining tokens of some sequences, and their continuations, in one pass.

        The model's outputs are stored for later lookups.

        Args:
            which: indices of the sequences that these tokens complete.
            parents: the node below which each run of tokens is placed; see ``TokenTree.grow``.
            runs: the remaining tokens of the sequences.
            ends: for each sequence in ``which``, the index of its last run.

        Returns:
            The handle of each run's last token.
        """
        assert self._tree is not None
        every = self._paths.every
        above, all_runs = list(parents), list(runs)
        size = len(self._paths.runs)
        for end in ends:
            base = len(all_runs)
            above += [below(end if p == ROOT else base + p) for p in self._paths.parent]
            all_runs += self._paths.runs
        self.n_tokens += sum(map(len, all_runs))
        handles, outputs = self._tree.grow([0] * len(all_runs), above, all_runs, every=every)
        lengths = np.array([len(r) for r in all_runs])
        last = np.cumsum(lengths) - 1 if every else np.arange(len(all_runs))
        for number, (one, end) in enumerate(zip(which, ends, strict=True)):
            self._roots[one] = outputs.some(last[[end]])
            low = len(runs) + number * size
            rows = np.arange(last[low - 1] + 1, last[low + size - 1] + 1)
            self._nodes[one] = outputs.some(rows)
        return handles

    def read(self, which: Sequence[int]) -> None:
        """Run the model on any of the given sequences that it has not processed yet.

        Args:
            which: indices of the sequences.
        """
        new = [i for i in which if i not in self._roots]
        if self._tree is None:
            self._read_apart(new)
            return
        for group in self._groups(new):
            mark = self._tree.mark()
            parents = [self._at[self._share[i]] for i in group]
            runs = [self._sequences[i][self._share[i] :] for i in group]
            self._grow(group, parents, runs, list(range(len(group))))
            self._tree.back(mark)

    def cost(self, which: int) -> int:
        """Return the number of tokens to be processed for a sequence and its continuations."""
        return len(self._sequences[which]) - self._share[which] + self._paths.tokens

    def _read_apart(self, which: Sequence[int]) -> None:
        """Process each of the given sequences separately.

        This is necessary if the sequences do not all begin with the same token.
        """
        for i in {0, *which} - set(self._roots):
            self._tree = self._model.prefill(self._sequences[i])
            self._roots[i] = self._tree.root
            self.n_tokens += len(self._sequences[i])
            if self._paths.runs:
                above = [p if p == ROOT else below(p) for p in self._paths.parent]
                self.n_tokens += self._paths.tokens
                zeros = [0] * len(above)
                runs, every = self._paths.runs, self._paths.every
                self._nodes[i] = self._tree.grow(zeros, above, runs, every=every)[1]
            self._tree = None

    def view(self, which: Sequence[int]) -> TokenTree:
        """Return a token tree whose prompts are the given sequences.

        The tree looks up the model's outputs, which are computed here if necessary.

        Args:
            which: indices of the sequences.
        """
        self.read(which)
        return _LookupTree(
            self._paths, [self._roots[i] for i in which], [self._nodes.get(i) for i in which]
        )


class GatheredPrompts(PromptScorer):
    """Similar prompts whose older events are read by themselves; see ``models.block_reader``.

    Prompts share the keys and values of these events. So if an event is left out, only the latest
    events, the end of the prompt and the continuations are processed again.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[EncodedPrompt],
        by_event: ByEvent,
        paths: Paths,
    ) -> None:
        """Store the prompts, and run the model on the first one.

        Args:
            model: the language model.
            prompts: one or more prompts.
            by_event: how the events are read.
            paths: the continuations to be processed after the end of each prompt.
        """
        self._model, self._prompts, self._by_event, self._paths = model, prompts, by_event, paths
        self._rest = [len(p.ids) - p.by_event(by_event.recent).gathered for p in prompts]
        self._outputs: dict[int, tuple[Outputs, Outputs | None]] = {}
        self.n_tokens = 0
        self.read([0])

    def cost(self, which: int) -> int:
        """Return the number of tokens to be processed for a prompt and its continuations."""
        return self._rest[which] + self._paths.tokens

    def read(self, which: Sequence[int]) -> None:
        """Run the model on any of the given prompts that it has not processed yet."""
        new = [i for i in dict.fromkeys(which) if i not in self._outputs]
        runs, every = self._paths.runs, self._paths.every
        size = self._paths.tokens if every else len(runs)
        for group in self._groups(new):
            read = self._by_event.read(self._model, [self._prompts[i] for i in group])
            self.n_tokens += read.tokens + len(group) * self._paths.tokens
            nodes = None
            if runs:
                user = np.repeat(np.arange(len(group)), len(runs)).tolist()
                above = [
                    p if p == ROOT else below(n * len(runs) + p)
                    for n in range(len(group))
                    for p in self._paths.parent
                ]
                _, nodes = read.tree.grow(user, above, [*runs] * len(group), every=every)
            for n, one in enumerate(group):
                own = None if nodes is None else nodes.some(np.arange(n * size, (n + 1) * size))
                self._outputs[one] = read.tree.root.some(np.array([n])), own

    def view(self, which: Sequence[int]) -> TokenTree:
        """Return a token tree whose prompts are the given ones; see ``PromptScorer.view``."""
        self.read(which)
        some = [self._outputs[i] for i in which]
        return _LookupTree(self._paths, [root for root, _ in some], [nodes for _, nodes in some])


class _LookupTree(TokenTree):
    """A token tree that looks up outputs that the model has already computed."""

    def __init__(
        self, paths: Paths, roots: Sequence[Outputs], nodes: Sequence[Outputs | None]
    ) -> None:
        self._root = Outputs.joined(roots)
        self._index = {
            (p, r): i for i, (p, r) in enumerate(zip(paths.parent, paths.runs, strict=True))
        }
        lengths = [len(r) if paths.every else 1 for r in paths.runs]
        self._start = np.cumsum([0, *lengths])
        some = [n for n in nodes if n is not None]
        self._outputs = Outputs.joined(some) if some else self._root

    @property
    def root(self) -> Outputs:
        """Return the model's outputs after each prompt."""
        return self._root

    def grow(
        self,
        user: Sequence[int],
        parents: Sequence[int],
        runs: Sequence[Sequence[int]],
        *,
        every: bool = False,
    ) -> tuple[IntArray, Outputs]:
        """Look up the model's outputs after runs of tokens; see ``TokenTree.grow``.

        Raises:
            KeyError: the model has not processed a run.
        """
        handles: list[int] = []
        rows: list[int] = []
        for one, parent, run in zip(user, parents, runs, strict=True):
            above = handles[WITHIN - parent] if parent <= WITHIN else parent
            handle = self._index[above, tuple(run)]
            handles.append(handle)
            base = one * int(self._start[-1])
            low, high = int(self._start[handle]), int(self._start[handle + 1])
            rows += range(base + low if every else base + high - 1, base + high)
        return np.array(handles), self._outputs.some(np.array(rows))

    def mark(self) -> int:
        """Return 0 as the marker, since no nodes are ever added to this tree."""
        return 0

    def back(self, mark: int) -> None:
        """Do nothing, since no nodes are ever added to this tree."""
