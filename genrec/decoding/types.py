"""Values that go into a search and come out of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from genrec.types import BoolArray, FloatArray, IntArray

WIDTH = 16  # prefixes of each prompt that best-first search follows in one pass

FILL = 32  # tokens that a pass may as well have

TOLERANCE = 2e-4  # scores that are nearer are not told apart, in float32


class Trie(Protocol):
    """What search needs of a trie; see ``TitleTrie``."""

    root: int

    @property
    def n_items(self) -> int:
        """How many items it holds."""
        ...

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """See ``TitleTrie.children``."""
        ...

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """See ``TitleTrie.is_leaf``."""
        ...

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """See ``TitleTrie.runs``."""
        ...

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """See ``TitleTrie.run_lengths``."""
        ...

    def tokens(self, nodes: IntArray) -> IntArray:
        """See ``TitleTrie.tokens``."""
        ...

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """See ``TitleTrie.intervals``."""
        ...

    def rows_at(self, positions: IntArray) -> IntArray:
        """See ``TitleTrie.rows_at``."""
        ...


class Allowed(Protocol):
    """Which positions may be returned to each of U users."""

    def counts(self, user: IntArray, low: IntArray, high: IntArray) -> IntArray:
        """(C,) how many of the positions low to high - 1."""
        ...

    def keeps(self, user: IntArray, positions: IntArray) -> BoolArray:
        """(P,) whether each position."""
        ...


class Prior(Protocol):
    """A weight above 0 for every position, for each of U users: what is likely without the model."""

    def mass(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """(C,) the sum of the weights of positions low to high - 1."""
        ...

    def best(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """(C,) the log of the greatest of them."""
        ...

    def at(self, user: IntArray, positions: IntArray) -> FloatArray:
        """(P,) the log of each."""
        ...


@dataclass(frozen=True, slots=True)
class Certificate:
    """How much of a list is certain.

    Attributes:
        exact: no item outside the list has a higher score than one in it.
        ties: exact only up to scores that differ by less than the tolerance.
        certain_ranks: how many of the first ranks are those of the exact list, up to ties.
        missed_mass_bound: the probability of the prefixes that were not followed although an item
            below may belong to the list, in all.
        nodes: prefixes that were followed.
        tokens: tokens that the model read after the prompt.
    """

    exact: bool
    ties: bool
    certain_ranks: int
    missed_mass_bound: float
    nodes: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items by falling score; equal ones by rising row.

    Attributes:
        rows: (n,) catalog rows.
        logprobs: (n,) natural logarithms of their probabilities.
        scores: (n,) what ranks them: logprobs, with a prior on the score more, drawn: perturbed.
        certificate: how much of it is certain.
        alone: (n,) natural logarithms of the model's own probabilities, without a prior.
        prior: (n,) of the prior's own, over all items; None without a prior.
        chosen_from: how many candidates the list was chosen from, for caps and diversity; then the
            certificate is of these. None for the best themselves.
    """

    rows: IntArray
    logprobs: FloatArray
    scores: FloatArray
    certificate: Certificate
    alone: FloatArray
    prior: FloatArray | None = None
    chosen_from: int | None = None

    def only(self, which: IntArray) -> Ranking:
        """Some of the items, in that order."""
        return replace(
            self,
            rows=self.rows[which],
            logprobs=self.logprobs[which],
            scores=self.scores[which],
            alone=self.alone[which],
            prior=None if self.prior is None else self.prior[which],
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How to search.

    Attributes:
        search: ``exact``: best-first until nothing outside the list can be better; ``beam``: the
            best ``beam_size`` prefixes of each level; ``auto``: best-first for ``budget`` tokens.
        beam_size: of ``beam``.
        normalization: ``catalog`` or ``vocab``.
        temperature: logits are divided by it at each node.
        max_nodes: the most prefixes that best-first search follows for one prompt; then the best
            that can be had fast fill the list.
        budget: of ``auto``: tokens for one prompt.
        fusion: what a prior does: ``node``: weighs a node's children, so that P stays a
            distribution; ``score``: is added to the final score.
        beta: how much a prior counts: its weights to this power, 0 or more.
        alone: the temperature at which the model's own probabilities are stated beside a prior;
            None for ``temperature``. Catalog-normalised only.
        min_probability: items below are left out.
        draw: the seed of k draws without replacement from P, in place of its k best; None ranks.
            One seed gives each prompt noise of its own; with one for each, a prompt's draws do
            not depend on its place in the batch. Catalog-normalised only, and by P alone: a prior
            on the score does not count.
        tolerance: scores that are nearer are not told apart.
        width: prefixes of each prompt that best-first search follows in one pass.
        fill: tokens up to which a pass is filled with prefixes that may be followed next, since a
            small pass costs little less than one of so many; catalog-normalised only.
        on_device: whether a beam goes from level to level without the host (``device_beam``, which
            fills no passes, and pads every run to the longest of its level); None where the model is
            on a CUDA GPU. Catalog-normalised, without a prior, on a catalog without edits and where
            the passes are not too large only; else it says nothing.
    """

    search: str = "auto"
    beam_size: int = 20
    normalization: str = "catalog"
    temperature: float = 1.0
    max_nodes: int = 20_000
    budget: int = 512
    fusion: str = "node"
    beta: float = 1.0
    alone: float | None = None
    min_probability: float = 0.0
    draw: int | tuple[int, ...] | None = None
    tolerance: float = TOLERANCE
    width: int = WIDTH
    fill: int = FILL
    on_device: bool | None = None
