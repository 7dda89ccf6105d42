"""Define the inputs and results of a search: protocols, options, certificates and rankings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from genrec.decoding.boosts import Boosts
from genrec.types import BoolArray, FloatArray, IntArray

# Maximum number of prefixes of one prompt that best-first search follows in one forward pass.
WIDTH = 24

KEPT = 4_096  # attending to this many kept tokens takes about as long as all other computation

FILL = (
    64  # on a CPU, a forward pass of this many tokens takes a fifth longer than one of half as many
)

# Number of tokens of likely prefixes that are read together with the end of the prompt. Each costs
# little in such a pass, and they often save the next one.
AHEAD = 48

TOLERANCE = 2e-4  # scores closer than this count as tied, since float32 cannot tell them apart


class Trie(Protocol):
    """The interface of a prefix tree of titles that can be searched.

    ``TitleTrie`` explains nodes, runs and positions.
    """

    root: int

    @property
    def n_items(self) -> int:
        """Return the number of items in the trie."""
        ...

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Return the children of all given nodes in one array, and the number of children of each."""
        ...

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """Return a mask of the given nodes that is True where a title ends."""
        ...

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """Return the tokens between each node and its parent."""
        ...

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """Return the number of tokens between each node and its parent."""
        ...

    def tokens(self, nodes: IntArray) -> IntArray:
        """Return the first of the tokens between each node and its parent."""
        ...

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the intervals of positions of the titles that lie below each node.

        Returns:
            Three arrays with one entry per interval: the index of the node in ``nodes``, the first
            position of the interval, and the position after its last one.
        """
        ...

    def rows_at(self, positions: IntArray) -> IntArray:
        """Return the catalog row at each of the given positions."""
        ...


class Allowed(Protocol):
    """The trie positions of the items that may be returned to each of U users."""

    def counts(self, user: IntArray, low: IntArray, high: IntArray) -> IntArray:
        """For each of C ranges, count the positions that are allowed for the range's user.

        Args:
            user: (C,) index of each range's user.
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) counts.
        """
        ...

    def keeps(self, user: IntArray, positions: IntArray) -> BoolArray:
        """Check whether each of P positions is allowed for its user.

        Args:
            user: (P,) index of the user for whom each position is checked.
            positions: (P,) positions.

        Returns:
            (P,) mask.
        """
        ...


class Prior(Protocol):
    """Positive weights of items for each of U users, computed without the language model.

    An item is identified by its position in the trie.
    """

    def mass(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """Sum the weights of the positions in each of C ranges.

        Args:
            user: (C,) index of the user whose weights are summed.
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) sums.
        """
        ...

    def best(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """Find the highest weight in each of C ranges of positions.

        Args:
            user: (C,) index of the user whose weights are compared.
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) natural logarithms of the highest weights.
        """
        ...

    def at(self, user: IntArray, positions: IntArray) -> FloatArray:
        """Look up the weights at P positions.

        Args:
            user: (P,) index of the user whose weight is looked up.
            positions: (P,) positions.

        Returns:
            (P,) natural logarithms of the weights.
        """
        ...


@dataclass(frozen=True, slots=True)
class Certificate:
    """The guarantees that a search gives for its result, and the amount of work that it took.

    Attributes:
        exact: whether the list contains the items with the highest scores. If so, no item outside
            the list has a higher score than any item in it.
        ties: whether the list is exact, but an item outside it may tie with its last item.
        certain_ranks: number of top ranks that are certain to be the same in the exact list, apart
            from ties.
        missed_mass_bound: upper bound on the total probability of the items that belong in the list
            but were not found.
        nodes: number of prefixes of titles from which the search continued.
        tokens: number of tokens that the model processed after the prompt.
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
        rows: (n,) catalog rows of the items.
        logprobs: (n,) natural logarithms of the items' probabilities.
        scores: (n,) scores by which the items are ranked. These are the log-probabilities, plus the
            prior if it is fused into the score, the logarithm of the item's factor if there are
            boosts, and noise if the list is a random draw.
        certificate: the guarantees that the search gives for this list. If the list was selected
            from more candidates, they refer to the list of candidates.
        alone: (n,) natural logarithms of the probabilities under the model without a prior.
        prior: (n,) natural logarithms of the probabilities under the prior alone; None if there is
            no prior.
        chosen_from: number of candidates from which the list was selected in order to limit items
            per group or to diversify the list; None if neither was requested.
        pinned: number of items at the beginning of the list that were put there regardless of their
            scores. The certificate's ``exact`` and ``ties`` then refer to the other items.
        propensities: (n,) if the list is a random draw, the probability of each item at its place,
            given the items before it; 1 for pinned items. None if they are unknown.
    """

    rows: IntArray
    logprobs: FloatArray
    scores: FloatArray
    certificate: Certificate
    alone: FloatArray
    prior: FloatArray | None = None
    chosen_from: int | None = None
    pinned: int = 0
    propensities: FloatArray | None = None

    def only(self, which: IntArray) -> Ranking:
        """Return a ranking that contains only the given items, in the given order."""
        return replace(
            self,
            rows=self.rows[which],
            logprobs=self.logprobs[which],
            scores=self.scores[which],
            alone=self.alone[which],
            prior=None if self.prior is None else self.prior[which],
            propensities=None if self.propensities is None else self.propensities[which],
        )


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a search.

    Following a prefix (the beginning of a title) means that the model processes its tokens, so that
    its continuations can be scored. The prefixes are nodes of the trie of titles.

    Attributes:
        search: the strategy. ``exact`` follows the most promising prefixes first until no item
            outside the list can have a higher score. ``auto`` does the same, but stops after
            ``budget`` tokens. ``beam`` follows the best ``beam_size`` prefixes at each level.
        beam_size: number of prefixes that ``beam`` follows at each level of the trie.
        normalization: the tokens over which probabilities are normalized. ``catalog`` means only
            the tokens that can continue a title, ``vocab`` means the whole vocabulary.
        temperature: number by which the logits are divided.
        max_nodes: maximum number of prefixes that ``exact`` and ``auto`` follow for one prompt. If
            the list is still too short after that, beam search fills it.
        budget: number of tokens after which ``auto`` stops for one prompt.
        fusion: how a prior is used. ``node`` multiplies the probabilities of each node's children
            by the prior's weights, so that all probabilities still sum to 1. ``score`` adds the
            prior to the final score.
        beta: exponent of the prior's weights, at least 0.
        boosts: factors that change the order of the items, but not their probabilities; None for no
            factors. They cannot be combined with ``draw``.
        alone: temperature of the probabilities that are reported for the model without a prior;
            None to use ``temperature``. This has an effect with ``catalog`` normalization only.
        min_probability: minimum probability of an item in the list.
        draw: random seed for drawing k items without replacement; None to return the k best items.
            A single seed produces a different draw for each prompt in a batch. A sequence with one
            seed per prompt makes a draw independent of the other prompts. Draws require ``catalog``
            normalization, and a prior fused into the score is ignored.
        tolerance: scores that differ by less than this count as tied.
        width: maximum number of prefixes of one prompt that ``exact`` and ``auto`` follow in one
            forward pass.
        fill: number of tokens up to which a forward pass is filled with prefixes that will probably
            be followed next, since smaller passes are hardly any faster. This has an effect with
            ``catalog`` normalization only.
        ahead: number of tokens up to which likely prefixes are read together with the end of the
            prompt, if the token tree can do so and there are at most two prompts. This has an
            effect with ``catalog`` normalization only.
        on_device: whether beam search runs entirely on the model's device (see the module
            ``gpu_beam``); None to do so on CUDA GPUs only. Such a search does not fill forward
            passes, and it pads every run to the longest one at its level. The option is ignored
            unless ``search`` is ``beam``, ``normalization`` is ``catalog``, there is no prior and
            there are no boosts, the catalog has not been edited and the padded passes are not too
            large.
        kept_tokens: maximum number of tokens per prompt that ``exact`` or one beam search keeps in
            the token tree. Beyond this limit, prefixes are followed depth first, and tokens are
            removed when everything below them has been scored. A depth-first search ends when no
            item outside the list can score higher, or after ``max_nodes + beam_size`` prefixes if
            the list is complete.
        report: function that is called before each forward pass of a depth-first search, with the
            number of tokens processed so far; None for no reports.
    """

    search: str = "auto"
    beam_size: int = 20
    normalization: str = "catalog"
    temperature: float = 1.0
    max_nodes: int = 20_000
    budget: int = 512
    fusion: str = "node"
    beta: float = 1.0
    boosts: Boosts | None = None
    alone: float | None = None
    min_probability: float = 0.0
    draw: int | tuple[int, ...] | None = None
    tolerance: float = TOLERANCE
    width: int = WIDTH
    fill: int = FILL
    ahead: int = AHEAD
    on_device: bool | None = None
    kept_tokens: int = KEPT
    report: Callable[[int], None] | None = None
