"""Beam search on the model's device: from the prompts to the lists the host waits for nothing.

Level by level of a TitleTrie: the children of all prefixes, their log-softmax, the best of them, and
one pass over the runs into these. Every shape follows from the catalog and the width of the beam
alone, so that no step asks the device how much there is to do. (Static shapes as in STATIC,
https://arxiv.org/abs/2602.22647, there with one token a step; here a run is read in one pass, and
beams attend to their own ancestors in one cache, so that nothing is copied from beam to beam.)

The host's search (``decoding``) finds the same and is its reference in tests.
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
from genrec.models.cached_tree import CachedTree
from genrec.models.logits import Outputs
from genrec.types import FloatArray, IntArray

NOTHING = float("-inf")
MOST = 1 << 28  # cells of a pass's mask


@dataclass(frozen=True, slots=True)
class Level:
    """What a level of a trie can hold at most, for a beam of some width.

    Attributes:
        children: of the prefixes that end there.
        beams: of these that go on.
        run: tokens on the way into one that goes on.
    """

    children: int
    beams: int
    run: int


class DeviceTrie:
    """The arrays of a TitleTrie on a device."""

    def __init__(self, trie: TitleTrie, device: torch.device) -> None:
        """Copies the arrays, 12 to 20 bytes a node and 4 a token of its runs."""
        small = max(len(trie), trie.n_positions, len(trie.run)) < 1 << 31

        def kept(array: npt.NDArray[np.unsignedinteger]) -> Tensor:
            return torch.from_numpy(array.astype(np.int32 if small else np.int64)).to(device)

        self.token, self.first_child = kept(trie.token), kept(trie.first_child)
        self.low, self.high = kept(trie.low), kept(trie.high)
        self.run_start, self.run = kept(trie.run_start), kept(np.append(trie.run, [0]))
        self._fans: list[IntArray] = []  # of each level: children of its inner nodes, most first
        self._runs: list[int] = []  # the longest run into one of these
        node = np.array([trie.root])
        while len(node):
            child, count = trie.children(node)
            self._fans.append(-np.sort(-count))
            self._runs.append(int(trie.run_lengths(node).max()))
            node = child[~trie.is_leaf(child)]

    def levels(self, size: int) -> list[Level]:
        """What the levels hold for a beam of ``size`` prefixes, from the root on."""
        runs, fans = [*self._runs[1:], 0], [*map(len, self._fans[1:]), 0]
        return [
            Level(int(fan[:size].sum()), min(inner, size), run)
            for fan, inner, run in zip(self._fans, fans, runs, strict=True)
        ]

    def children(self, node: Tensor, live: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """(U, n) children of (U, B) nodes: their numbers, whose they are, and whether they are any.

        Args:
            node: (U, B).
            live: (U, B) whether each counts.
            n: the most that there can be for a user.
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
        """Which nodes are titles' ends."""
        return self.first_child[node] == self.first_child[node + 1]

    def runs(self, node: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """(U, B, n) the tokens on the way into (U, B) nodes, and (U, B) how many each has."""
        start = self.run_start[node].long()
        length = self.run_start[node + 1].long() - start + 1
        place = torch.arange(n, device=node.device)
        rest = (start[..., None] + place - 1).clamp(0, len(self.run) - 1)
        tokens = torch.where(place == 0, self.token[node].long()[..., None], self.run[rest].long())
        return tokens * (place < length[..., None]), length


class DeviceFilters:
    """The filters of U users on a device; see ``Filters``."""

    def __init__(self, filters: Filters, device: torch.device) -> None:
        """Copies the lists."""
        self._keys = torch.from_numpy(filters.keys).to(device)
        self._denies = torch.from_numpy(filters.denies).to(device)[:, None]
        self._common = torch.from_numpy(np.array(filters.common.listed)).to(device)
        self._common_denies, self._stride = filters.common.denies, filters.n + 1
        self._start = torch.arange(len(filters), device=device)[:, None] * self._stride

    def counts(self, low: Tensor, high: Tensor) -> Tensor:
        """(U, C) how many of the positions low to high - 1 each user may be given."""
        found = _between(self._keys, self._start + low, self._start + high)
        common = _between(self._common, low, high)
        whole = high - low - common if self._common_denies else common
        return torch.where(self._denies, whole - found, found)


@dataclass(frozen=True, slots=True)
class Reached:
    """What a beam found for U users, on the host.

    Attributes:
        leaf: (U, K + 1) the likeliest titles' ends by the probability of one item, -1 for none.
        logprob: (U, K + 1) of the titles.
        left: of each level: (U, C) log-probability of what was not followed, -inf elsewhere.
        nodes: (U,) prefixes that were followed.
        tokens: (U,) tokens that were read.
        finite: whether all logits were numbers.
    """

    leaf: IntArray
    logprob: FloatArray
    left: list[FloatArray]
    nodes: IntArray
    tokens: IntArray
    finite: bool


class Beam:
    """A beam of prefixes for each of U users, on the device; see ``beam``."""

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
        """Begins at the root.

        Args:
            trie: on the device.
            k: (U, 1) how many items each user is to get.
            most: the largest of them.
            filters: what may be returned.
            temperature: logits are divided by it.
            floor: log-probabilities of items below are left out.
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
        self.left: list[Tensor] = []
        self.nodes = torch.zeros(users, dtype=torch.long, device=device)
        self.broken = torch.zeros((), dtype=torch.bool, device=device)

    def step(self, outputs: Outputs, level: Level) -> None:
        """From what the model says after the prefixes to the best prefixes below.

        Args:
            outputs: after the U * B prefixes.
            level: what there can be.
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
        self._reach(child, value, torch.where(enter & leaf & (each >= self._floor), each, NOTHING))
        grows = torch.where(enter & ~leaf & (value >= self._floor), value, NOTHING)
        if not level.beams:
            return
        promising = torch.where(grows > self.score.gather(1, self._k - 1), grows, NOTHING)
        best = promising.topk(level.beams, dim=1)
        followed = best.values > NOTHING
        rest = torch.where(followed, NOTHING, grows.gather(1, best.indices))
        self.left.append(grows.scatter(1, best.indices, rest))
        self.owner = owner.gather(1, best.indices)
        self.node = child.gather(1, best.indices)
        self.value = best.values
        self.nodes += followed.sum(1)

    def _reach(self, child: Tensor, value: Tensor, each: Tensor) -> None:
        """Keeps the titles' ends whose items are likeliest, one more than are asked for."""
        score = torch.cat([self.score, each], dim=1)
        best = score.topk(self.score.shape[1], dim=1)
        self.score = best.values
        self.leaf = torch.cat([self.leaf, child], dim=1).gather(1, best.indices)
        self.logprob = torch.cat([self.logprob, value], dim=1).gather(1, best.indices)


def fits(trie: DeviceTrie, users: int, size: int, prompt: int) -> bool:
    """Whether the widest pass is not too large: every run is padded to its level's longest.

    Args:
        trie: the catalog.
        users: how many prompts.
        size: of the beam.
        prompt: tokens of the longest prompt.
    """
    widths = [level.beams * level.run for level in trie.levels(size)]
    return users * max(widths) * (prompt + sum(widths)) <= MOST


@torch.inference_mode()
def beam(
    trie: DeviceTrie,
    tree: CachedTree,
    k: IntArray,
    size: int,
    *,
    filters: Filters | None = None,
    temperature: float = 1.0,
    floor: float = NOTHING,
) -> Reached:
    """The items that a beam of ``size`` prefixes of each level reaches, catalog-normalised.

    Args:
        trie: the catalog.
        tree: over U prompts; it is as before afterwards.
        k: (U,) how many items each is to get, at least 1.
        size: of the beam.
        filters: what may be returned.
        temperature: logits are divided by it at each node.
        floor: log-probabilities of items below are left out.
    """
    device = trie.token.device
    mark, users, levels = tree.mark(), len(k), trie.levels(size)
    counts = torch.from_numpy(np.asarray(k, dtype=np.int64)).to(device)[:, None]
    ours = None if filters is None else DeviceFilters(filters, device)
    found = Beam(trie, counts, int(k.max()), filters=ours, temperature=temperature, floor=floor)
    places = tree.places()
    outputs = tree.root
    depth = torch.zeros((users, 1), dtype=torch.long, device=device)  # of each beam
    path = torch.zeros((users, 1, mark), dtype=torch.bool, device=device)  # slots it attends to
    depths = torch.zeros((users, mark), dtype=torch.long, device=device)  # of all slots
    tokens = torch.zeros(users, dtype=torch.long, device=device)
    for level in levels:
        found.step(outputs, level)
        if not level.beams:
            break
        n, width = level.run, level.beams * level.run
        ids, length = trie.runs(found.node, n)
        length = length * (found.value > NOTHING)
        tokens += length.sum(1)
        place = torch.arange(n, device=device)
        above = depth.gather(1, found.owner)
        new = (above[..., None] + place + 1).view(users, width)
        known = path.gather(1, found.owner[..., None].expand(-1, -1, path.shape[2]))
        seen = _seen(known, n)
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
        torch.where(found.score > NOTHING, found.leaf, -1).cpu().numpy(),
        found.logprob.cpu().numpy(),
        [values.cpu().numpy() for values in found.left],
        found.nodes.cpu().numpy(),
        tokens.cpu().numpy(),
        not bool(found.broken),
    )


def _seen(known: Tensor, run: int) -> Tensor:
    """(U, B * run, S + B * run) which slots each token of B runs attends to, the runs in new slots.

    Args:
        known: (U, B, S) the slots of each run's ancestors.
        run: tokens of each run, which attend to those before them and to themselves.
    """
    users, beams, slots = known.shape
    place, width = torch.arange(run, device=known.device), beams * run
    own = (
        torch.eye(beams, dtype=torch.bool, device=known.device)[:, None, :, None]
        & (place[:, None] >= place)[None, :, None, :]
    )
    above = known[:, :, None].expand(-1, -1, run, -1).reshape(users, width, slots)
    return torch.cat([above, own.view(width, width).expand(users, -1, -1)], dim=2)


def _between(listed: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How many of the sorted numbers are from low to high - 1."""
    first = torch.searchsorted(listed, low.contiguous())
    return torch.searchsorted(listed, high.contiguous()) - first


def _logsumexp(x: Tensor, owner: Tensor, n: int) -> Tensor:
    """(U, n) of the entries of each owner; 0 where all of them are -inf."""
    peak = x.new_full((len(x), n), NOTHING).scatter_reduce(1, owner, x, "amax")
    peak = torch.where(peak.isfinite(), peak, 0.0)
    total = torch.zeros_like(peak).scatter_add(1, owner, (x - peak.gather(1, owner)).exp())
    return torch.where(total > 0, peak + total.log(), 0.0)


_KEPT: WeakKeyDictionary[TitleTrie, DeviceTrie] = WeakKeyDictionary()


def on_device(trie: TitleTrie, device: torch.device) -> DeviceTrie:
    """The trie's arrays on a device, copied once."""
    found = _KEPT.get(trie)
    if found is None or found.token.device != device:
        found = _KEPT[trie] = DeviceTrie(trie, device)
    return found
