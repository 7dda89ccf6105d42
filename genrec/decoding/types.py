"""Define the inputs and outputs of a search: protocols, options, certificates and rankings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from genrec.types import BoolArray, FloatArray, IntArray

WIDTH = 16  # maximum number of prefixes of one prompt that best-first search follows in one pass

FILL = 32  # a pass of up to this many tokens costs hardly more than a single token

TOLERANCE = 2e-4  # scores closer than this count as tied, since float32 cannot distinguish them


class Trie(Protocol):
    """A searchable prefix tree of titles; see ``TitleTrie``."""

    root: int

    @property
    def n_items(self) -> int:
        """Return the number of items in the trie."""
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
    """The trie positions that may be returned to each of U users."""

    def counts(self, user: IntArray, low: IntArray, high: IntArray) -> IntArray:
        """Count the allowed positions from low to high - 1, for each of C ranges; (C,)."""
        ...

    def keeps(self, user: IntArray, positions: IntArray) -> BoolArray:
        """Return a (P,) mask of the positions that are allowed."""
        ...


class Prior(Protocol):
    """Positive weights of the trie positions for each of U users, independent of the model."""

    def mass(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """Sum the weights of the positions from low to high - 1, for each of C ranges; (C,)."""
        ...

    def best(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """Return the (C,) log of the highest weight at the positions from low to high - 1."""
        ...

    def at(self, user: IntArray, positions: IntArray) -> FloatArray:
        """Return the (P,) log of the weight at each position."""
        ...


@dataclass(frozen=True, slots=True)
class Certificate:
    """The guarantees that a search gives for a list.

    Attributes:
        exact: whether no item outside the list scores higher than an item in the list, apart from
            ties.
        ties: whether the list is exact, but an item outside it may tie with its last item.
        certain_ranks: number of top ranks that are the same in the exact list, apart from ties.
        missed_mass_bound: upper bound on the total probability of the items that belong in the list
            but were not reached.
        nodes: number of prefixes followed.
        tokens: number of tokens that the model read after the prompt.
    """

    exact: bool
    ties: bool
    certain_ranks: int
    missed_mass_bound: float
    nodes: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items ranked by score, highest first; items with equal scores are in row order.

    Attributes:
        rows: (n,) catalog rows.
        logprobs: (n,) natural logs of the items' probabilities.
        scores: (n,) ranking scores. These are the log-probabilities, plus the prior if it is fused
            into the score. They are perturbed if the list is a random draw.
        certificate: the guarantees that the search gives for this list.
        alone: (n,) natural logs of the probabilities under the model without a prior.
        prior: (n,) natural logs of the probabilities under the prior alone; None if there is no
            prior.
        chosen_from: number of candidates from which caps or diversity selected the list; None if
            neither was used. The certificate then refers to the candidates.
    """

    rows: IntArray
    logprobs: FloatArray
    scores: FloatArray
    certificate: Certificate
    alone: FloatArray
    prior: FloatArray | None = None
    chosen_from: int | None = None

    def only(self, which: IntArray) -> Ranking:
        """Return a ranking that contains only the given items, in the given order."""
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
    """Search settings.

    Attributes:
        search: search strategy. ``exact`` follows the best prefixes first until no item outside the
            list can score higher. ``auto`` does the same, but stops after ``budget`` tokens.
            ``beam`` follows the best ``beam_size`` prefixes at each level.
        beam_size: number of prefixes that ``beam`` follows at each level.
        normalization: ``catalog`` or ``vocab``; see the module ``search``.
        temperature: divisor of the logits at each node.
        max_nodes: maximum number of prefixes that best-first search follows for one prompt. If a
            list is still short after that, beam search fills it.
        budget: number of tokens after which ``auto`` stops for one prompt.
        fusion: how a prior is used. ``node`` weights each node's children, so probabilities still
            sum to 1. ``score`` adds the prior to the final score.
        beta: exponent of the prior's weights, 0 or more.
        alone: temperature of the model's own probabilities, which are reported in addition to the
            fused ones; None uses ``temperature``. Applies to ``catalog`` normalization only.
        min_probability: minimum probability of a listed item.
        draw: seed for drawing k items without replacement; None returns the k best items. If a
            single seed is given, it is varied for each prompt. If one seed per prompt is given, a
            draw does not depend on the prompt's index in the batch. Applies to ``catalog``
            normalization only; a prior fused into the score is ignored.
        tolerance: scores closer than this count as tied.
        width: maximum number of prefixes of one prompt that best-first search follows in one pass.
        fill: a pass with fewer tokens is filled up to this number with prefixes that may be
            followed next, since a smaller pass is hardly faster. Applies to ``catalog``
            normalization only.
        on_device: whether beam search runs entirely on the model's device (``gpu_beam``); None
            means on CUDA GPUs only. Such a search does not read prefixes ahead, and it pads every
            run to the longest one of its level. The option is ignored unless the search is a
            ``catalog`` beam without a prior, the catalog has no edits and the passes are small
            enough.
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
