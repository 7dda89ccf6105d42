"""Run beam search entirely on the model's device, so that the host waits only for the final lists.

The search takes one step for each level of the trie. A step finds the children of all nodes in the
beam, computes the log-softmax over them and keeps the best ones. The model then processes the
tokens that lead to these children in one forward pass. All tensor shapes depend only on the catalog
and the beam width, so the host never has to wait for a size that is known only on the device.
Static shapes are also used by STATIC (https://arxiv.org/abs/2602.22647), which processes one token
per step, whereas here a step processes whole runs of tokens. All prefixes in the beam share one
key-value cache, and each attends only to its ancestors, so nothing has to be copied.

The module ``search`` implements the same search on the host. It returns the same lists and serves
as the reference in tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genrec.decoding.filters import Filters
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Allowed, Options, Prior, Trie
from genrec.models.cached_tree import CachedTree
from genrec.models.logits import Outputs
from genrec.models.token_tree import TokenTree
from genrec.types import FloatArray, IntArray

NOTHING = float("-inf")
MOST = 1 << 28  # maximum number of entries in the attention mask of one pass


@dataclass(frozen=True, slots=True)
class Level:
    """The maximum tensor sizes that a beam of a given width can need at one level of a trie.

    Attributes:
        children: maximum number of children that all nodes in the beam have together.
        beams: maximum number of these children that stay in the beam.
        run: maximum number of tokens that lead from a node in the beam to one of these children.
    """

    children: int
    beams: int
    run: int


class DeviceTrie:
    """A copy of a TitleTrie's arrays on a device, such as a GPU.

    See ``TitleTrie`` for the meaning of nodes and runs.
    """

    def __init__(self, trie: TitleTrie, device: torch.device) -> None:
        """Copy the arrays of a trie to a device.

        They take 20 bytes per node and 4 bytes per stored token, or twice as much for a trie whose
        numbers do not fit in 32 bits.
        """
        small = max(len(trie), trie.n_positions, len(trie.run)) < 1 << 31

        def copied(array: npt.NDArray[np.unsignedinteger]) -> Tensor:
            return torch.from_numpy(array.astype(np.int32 if small else np.int64)).to(device)

        self.token, self.first_child = copied(trie.token), copied(trie.first_child)
        self.low, self.high = copied(trie.low), copied(trie.high)
        self.run_start, self.run = copied(trie.run_start), copied(np.append(trie.run, [0]))
        # For each level: the inner nodes' numbers of children in descending order, and the number
        # of tokens in the longest run of an inner node.
        self._fans: list[IntArray] = []
        self._runs: list[int] = []
        node = np.array([trie.root])
        while len(node):
            child, count = trie.children(node)
            self._fans.append(-np.sort(-count))
            self._runs.append(int(trie.run_lengths(node).max()))
            node = child[~trie.is_leaf(child)]

    def levels(self, size: int) -> list[Level]:
        """Compute the maximum tensor sizes at each level of the trie, starting at the root.

        Args:
            size: number of prefixes in the beam.
        """
        runs, fans = [*self._runs[1:], 0], [*map(len, self._fans[1:]), 0]
        return [
            Level(int(fan[:size].sum()), min(inner, size), run)
            for fan, inner, run in zip(self._fans, fans, runs, strict=True)
        ]

    def children(self, node: Tensor, live: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """List the children of the nodes in each user's beam, padded to n children per user.

        Args:
            node: (U, B) trie nodes in the beams of U users with B nodes each.
            live: (U, B) mask of the nodes that are in use.
            n: maximum number of children that a user's nodes have together.

        Returns:
            Three tensors of shape (U, n): the child nodes, the index of each child's parent in the
            user's beam, and a mask of the entries that are not padding.
        """
        first = self.first_child[node].long()
        count = (self.first_child[node + 1].long() - first) * live
        ends = count.cumsum(1)
        place = torch.arange(n, device=node.device).expand(len(node), n).contiguous()
        owner = torch.searchsorted(ends, place, right=True).clamp(max=node.shape[1] - 1)
        child = (first - ends + count).gather(1, owner) + place
        some = place < ends[:, -1:]
        return child * some, owner, some

    def is_leaf(self, node: Tensor) -> Tensor:
        """Return a mask of the given nodes that is True where a title ends."""
        return self.first_child[node] == self.first_child[node + 1]

    def runs(self, node: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return the run of each node, that is, the tokens between the node and its parent.

        Args:
            node: (U, B) trie nodes in the beams of U users with B nodes each.
            n: number of tokens to which each run is padded.

        Returns:
            The (U, B, n) token ids of the runs, and their (U, B) lengths without padding.
        """
        start = self.run_start[node].long()
        length = self.run_start[node + 1].long() - start + 1
        place = torch.arange(n, device=node.device)
        rest = (start[..., None] + place - 1).clamp(0, len(self.run) - 1)
        tokens = torch.where(place == 0, self.token[node].long()[..., None], self.run[rest].long())
        return tokens * (place < length[..., None]), length


class DeviceFilters:
    """A copy of the filters of U users on a device, such as a GPU; see ``Filters``."""

    def __init__(self, filters: Filters, device: torch.device) -> None:
        """Copy filters to a device."""
        self._keys = torch.from_numpy(filters.keys).to(device)
        self._denies = torch.from_numpy(filters.denies).to(device)[:, None]
        self._common = torch.from_numpy(np.array(filters.common.listed)).to(device)
        self._common_denies, self._stride = filters.common.denies, filters.n + 1
        self._start = torch.arange(len(filters), device=device)[:, None] * self._stride

    def counts(self, low: Tensor, high: Tensor) -> Tensor:
        """Count the allowed positions in each of C ranges for each of U users.

        Args:
            low: (U, C) first position of each range.
            high: (U, C) position after the end of each range.

        Returns:
            (U, C) counts.
        """
        listed = _count_between(self._keys, self._start + low, self._start + high)
        common = _count_between(self._common, low, high)
        whole = high - low - common if self._common_denies else common
        return torch.where(self._denies, whole - listed, listed)


@dataclass(frozen=True, slots=True)
class Reached:
    """The results of a beam search for U users, copied from the device to the host.

    K is the largest number of items requested for a user.

    Attributes:
        leaf: (U, K + 1) trie nodes of the titles with the highest probability per item. One more
            than requested is returned so that ties can be detected; -1 marks unused entries.
        logprob: (U, K + 1) log-probabilities of these titles.
        skipped: for each level, an array with one row per user that contains the log-probabilities
            of the prefixes that did not stay in the beam; all its other entries are -inf.
        nodes: (U,) number of prefixes from which the search continued.
        tokens: (U,) number of tokens that the model processed after the prompt.
        finite: whether all logits were finite.
    """

    leaf: IntArray
    logprob: FloatArray
    skipped: list[FloatArray]
    nodes: IntArray
    tokens: IntArray
    finite: bool


class Beam:
    """The state of a beam search for U users, which is kept on the device; see ``run_beam``."""

    def __init__(
        self,
        trie: DeviceTrie,
        k: Tensor,
        most: int,
        *,
        filters: DeviceFilters | None = None,
        temperature: float = 1.0,
        floor: float = NOTHING,
    ) -> None:
        """Start every user's beam at the root of the trie.

        Args:
            trie: the catalog's trie on the device.
            k: (U, 1) number of items requested for each user, on the device.
            most: the largest value in ``k``.
            filters: the items that may be returned to each user; None to allow all items.
            temperature: number by which the logits are divided.
            floor: minimum log-probability of a returned item.
        """
        self._trie, self._k, self._filters = trie, k, filters
        self._temperature, self._floor = temperature, floor
        users, device = len(k), k.device
        self.node = torch.zeros((users, 1), dtype=torch.long, device=device)
        self.value = torch.zeros((users, 1), dtype=torch.double, device=device)
        self.owner = self.node
        self.leaf = torch.full((users, most + 1), -1, device=device)
        self.score = torch.full((users, most + 1), NOTHING, dtype=torch.double, device=device)
        self.logprob = self.score
        self.skipped: list[Tensor] = []
        self.nodes = torch.zeros(users, dtype=torch.long, device=device)
        self.broken = torch.zeros((), dtype=torch.bool, device=device)

    def step(self, outputs: Outputs, level: Level) -> None:
        """Move the beams down by one level of the trie.

        The children of all nodes in the beams are scored. Those that end a title are added to the
        items found, and the best of the others form the new beams.

        Args:
            outputs: the model's outputs after each of the U * B prefixes in the beams.
            level: the maximum tensor sizes at this level.
        """
        trie, live = self._trie, self.value > NOTHING
        child, owner, some = trie.children(self.node, live, level.children)
        width = self.node.shape[1]
        source = owner + width * torch.arange(len(owner), device=owner.device)[:, None]
        x = outputs.on_device(source, trie.token[child].long()) / self._temperature
        self.broken |= (some & (x.isnan() | (x == -NOTHING))).any()
        possible = torch.zeros_like(self.node).scatter_add(1, owner, (some & x.isfinite()).long())
        self.broken |= (live & (possible == 0)).any()
        x = torch.where(some, x, NOTHING)
        value = x - _logsumexp(x, owner, width).gather(1, owner) + self.value.gather(1, owner)
        low, high = trie.low[child].long(), trie.high[child].long()
        enter = some if self._filters is None else some & (self._filters.counts(low, high) > 0)
        leaf = trie.is_leaf(child)
        each = value - (high - low).clamp(min=1).log()
        each = torch.where(enter & leaf & (each >= self._floor), each, NOTHING)
        self._add_leaves(child, value, each)
        grows = torch.where(enter & ~leaf & (value >= self._floor), value, NOTHING)
        if not level.beams:
            return
        promising = torch.where(grows > self.score.gather(1, self._k - 1), grows, NOTHING)
        best = promising.topk(level.beams, dim=1)
        followed = best.values > NOTHING
        rest = torch.where(followed, NOTHING, grows.gather(1, best.indices))
        self.skipped.append(grows.scatter(1, best.indices, rest))
        self.owner = owner.gather(1, best.indices)
        self.node = child.gather(1, best.indices)
        self.value = best.values
        self.nodes += followed.sum(1)

    def _add_leaves(self, child: Tensor, value: Tensor, each: Tensor) -> None:
        """Add nodes that end a title to those found so far, and keep the most probable ones.

        For each user, one more than requested is kept so that ties can be detected.

        Args:
            child: (U, C) trie nodes.
            value: (U, C) log-probabilities of the nodes' titles.
            each: (U, C) log-probability of each item with the title; -inf for a node that does not
                end a title or must not be returned.
        """
        score = torch.cat([self.score, each], dim=1)
        best = score.topk(self.score.shape[1], dim=1)
        self.score = best.values
        self.leaf = torch.cat([self.leaf, child], dim=1).gather(1, best.indices)
        self.logprob = torch.cat([self.logprob, value], dim=1).gather(1, best.indices)


def applies(
    trie: Trie, tree: TokenTree, allowed: Allowed | None, prior: Prior | None, options: Options
) -> bool:
    """Check whether a search should and can run on the model's device."""
    plain = (options.search, options.normalization, options.draw) == ("beam", "catalog", None)
    if not plain or (prior is not None and options.beta) or options.on_device is False:
        return False
    if options.boosts is not None:
        return False
    supported = isinstance(trie, TitleTrie) and isinstance(allowed, Filters | None)
    if not (supported and isinstance(tree, CachedTree) and tree.whole):
        return False
    assert isinstance(trie, TitleTrie)
    if not (options.on_device or tree.device.type == "cuda"):
        return False
    copied = copy_to_device(trie, tree.device)
    return fits_limit(copied, tree.users, options.beam_size, tree.n_prompt)


def fits_limit(trie: DeviceTrie, users: int, size: int, prompt: int) -> bool:
    """Check whether the attention masks of a beam search on the device are small enough.

    No forward pass may need a mask with more than ``MOST`` entries. The masks are large because
    each run of tokens is padded to the length of the longest run at its level of the trie.

    Args:
        trie: the catalog's trie on the device.
        users: number of users, each of whom has one prompt.
        size: number of prefixes in the beam of each user.
        prompt: number of tokens in the longest prompt.
    """
    widths = [level.beams * level.run for level in trie.levels(size)]
    return users * max(widths) * (prompt + sum(widths)) <= MOST


@torch.inference_mode()
def run_beam(
    trie: DeviceTrie,
    tree: CachedTree,
    k: IntArray,
    size: int,
    *,
    filters: Filters | None = None,
    temperature: float = 1.0,
    floor: float = NOTHING,
) -> Reached:
    """Search a trie for the most probable items of U users with a beam search on the device.

    Probabilities are normalized over the tokens that can continue a title.

    Args:
        trie: the catalog's trie on the device.
        tree: a token tree of the U prompts. Tokens added by the search are removed at the end.
        k: (U,) number of items requested for each user, at least 1.
        size: number of prefixes that stay in the beam of each user at each level of the trie.
        filters: the items that may be returned to each user; None to allow all items.
        temperature: number by which the logits are divided.
        floor: minimum log-probability of a returned item.
    """
    device = trie.token.device
    mark, users, levels = tree.mark(), len(k), trie.levels(size)
    counts = torch.from_numpy(np.asarray(k, dtype=np.int64)).to(device)[:, None]
    ours = None if filters is None else DeviceFilters(filters, device)
    beam = Beam(trie, counts, int(k.max()), filters=ours, temperature=temperature, floor=floor)
    places = tree.places()
    outputs = tree.root
    # The depth of each prefix in the beams, a mask of the cache slots that hold its tokens, and the
    # depth of the token in each cache slot.
    depth = torch.zeros((users, 1), dtype=torch.long, device=device)
    path = torch.zeros((users, 1, mark), dtype=torch.bool, device=device)
    depths = torch.zeros((users, mark), dtype=torch.long, device=device)
    tokens = torch.zeros(users, dtype=torch.long, device=device)
    for level in levels:
        beam.step(outputs, level)
        if not level.beams:
            break
        n, width = level.run, level.beams * level.run
        ids, length = trie.runs(beam.node, n)
        length = length * (beam.value > NOTHING)
        tokens += length.sum(1)
        place = torch.arange(n, device=device)
        above = depth.gather(1, beam.owner)
        new = (above[..., None] + place + 1).view(users, width)
        ancestors = path.gather(1, beam.owner[..., None].expand(-1, -1, path.shape[2]))
        seen = _visible_slots(ancestors, n)
        depths = torch.cat([depths, new], dim=1)
        last = (length - 1).clamp(min=0) + n * torch.arange(level.beams, device=device)
        rows = torch.arange(users, device=device)[:, None].expand_as(last)
        outputs = tree.read(
            ids.view(users, width), new, seen, depths, places, (rows.reshape(-1), last.reshape(-1))
        )
        path = seen.gather(1, last[..., None].expand(-1, -1, seen.shape[2]))
        depth = above + length
    tree.back(mark)
    return Reached(
        torch.where(beam.score > NOTHING, beam.leaf, -1).cpu().numpy(),
        beam.logprob.cpu().numpy(),
        [values.cpu().numpy() for values in beam.skipped],
        beam.nodes.cpu().numpy(),
        tokens.cpu().numpy(),
        not bool(beam.broken),
    )


def _visible_slots(ancestors: Tensor, run: int) -> Tensor:
    """Build the mask of the cache slots to which the tokens of new runs attend.

    For each of U users, B runs with the same number of tokens are appended after S occupied slots.
    Each token attends to the run's ancestors, to the earlier tokens of the run and to itself.

    Args:
        ancestors: (U, B, S) mask of the occupied slots that hold each run's ancestors.
        run: number of tokens in each run.

    Returns:
        A mask of shape (U, B * run, S + B * run).
    """
    users, beams, slots = ancestors.shape
    place, width = torch.arange(run, device=ancestors.device), beams * run
    own = (
        torch.eye(beams, dtype=torch.bool, device=ancestors.device)[:, None, :, None]
        & (place[:, None] >= place)[None, :, None, :]
    )
    above = ancestors[:, :, None].expand(-1, -1, run, -1).reshape(users, width, slots)
    return torch.cat([above, own.view(width, width).expand(users, -1, -1)], dim=2)


def _count_between(listed: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Count the numbers in a sorted list that lie in each range from ``low`` to ``high`` - 1."""
    first = torch.searchsorted(listed, low.contiguous())
    return torch.searchsorted(listed, high.contiguous()) - first


def _logsumexp(x: Tensor, owner: Tensor, n: int) -> Tensor:
    """Compute the logarithm of the sum of exponentials over the entries of each owner.

    Args:
        x: (U, C) entries.
        owner: (U, C) index of each entry's owner, from 0 to n - 1.
        n: number of owners per user.

    Returns:
        (U, n) logarithms; 0 for an owner whose entries are all -inf.
    """
    peak = x.new_full((len(x), n), NOTHING).scatter_reduce(1, owner, x, "amax")
    peak = torch.where(peak.isfinite(), peak, 0.0)
    total = torch.zeros_like(peak).scatter_add(1, owner, (x - peak.gather(1, owner)).exp())
    return torch.where(total > 0, peak + total.log(), 0.0)


_COPIES: WeakKeyDictionary[TitleTrie, DeviceTrie] = WeakKeyDictionary()


def copy_to_device(trie: TitleTrie, device: torch.device) -> DeviceTrie:
    """Return a copy of a trie on a device. The latest copy of each trie is kept for later calls."""
    copied = _COPIES.get(trie)
    if copied is None or copied.token.device != device:
        copied = _COPIES[trie] = DeviceTrie(trie, device)
    return copied
