"""Read prompts that are divided into blocks, and keep the blocks for other prompts.

The keys and values of a block are computed once, with the block right after the head. For a prompt,
those of its blocks are gathered, and the keys are moved to their positions (see ``rotary``). Only
the rest of the prompt is then read, and it attends to everything before it. So each token has the
position that it has in the ordinary prompt, except that a block cannot know how far it is from the
head. (Block-Attention, Sun et al. 2024, https://arxiv.org/abs/2409.15355, reads retrieved passages
in this way; Prompt Cache, Gim et al. 2023, https://arxiv.org/abs/2311.04934, keeps modules of
prompts.) This module deals with token ids only, not with text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genrec.errors import SettingsError
from genrec.models.block_prompt import BlockPrompt
from genrec.models.cached_tree import CachedTree
from genrec.models.growing_layer import GrowingLayer
from genrec.models.line_files import LineOptions
from genrec.models.line_layout import LineLayout
from genrec.models.line_store import LineStore, StoreUse, line_key
from genrec.models.logits import Body
from genrec.models.partial_prompts import ROOM, read_rest
from genrec.models.rotary import Rotary
from genrec.models.token_tree import ROOT
from genrec.models.tree_checks import measure_shape
from genrec.types import IntArray

_PASS = 512  # maximum number of tokens of blocks in a forward pass, unless one block has more


@dataclass(frozen=True, slots=True)
class BlocksRead:
    """Prompts that were read block by block.

    Attributes:
        tree: the token tree of the prompts.
        found: for each prompt, the number of its blocks that were in the store.
        read: for each prompt, the number of its blocks that the model had to read. If several
            prompts of a batch share such a block, the first of them counts it.
        tokens: number of tokens that the model has read.
        use: the size of the store and how often lines were found in it so far.
    """

    tree: CachedTree
    found: tuple[int, ...]
    read: tuple[int, ...]
    tokens: int
    use: StoreUse


def not_by_event(name: str, reason: str) -> SettingsError:
    """Return the error to raise if a model cannot read prompts block by block.

    Args:
        name: the name of the model.
        reason: the reason why it cannot.
    """
    return SettingsError(
        f"attention='by_event' does not work with {name}: {reason}. Expected a model with rotary "
        "position embeddings and full attention in all layers, such as smollm2-135m; or use "
        "attention='full'."
    )


@dataclass(frozen=True, slots=True)
class _Kinds:
    """How the lines of a model are stored.

    Attributes:
        model: text that identifies the model's weights, data type and device.
        head: the layout of heads, which are always stored as the model computes them.
        block: the layout of blocks.
    """

    model: str
    head: LineLayout
    block: LineLayout

    def key(self, head: Sequence[int], block: Sequence[int] = ()) -> bytes:
        """Return the key of a block, or of the head itself if the block is empty."""
        layout = self.block if block else self.head
        return line_key(f"{self.model} {layout.numbers}", head, block)


class _Gathering:
    """The lines of the prompts of one call, which do not depend on what the store drops meanwhile.

    Attributes:
        found: see ``BlocksRead``.
        read: see ``BlocksRead``.
        tokens: number of tokens of heads and blocks that the model has read.
    """

    def __init__(self, body: Body, store: LineStore, kinds: _Kinds) -> None:
        self._body, self._store, self._kinds = body, store, kinds
        self._lines: dict[bytes, torch.Tensor] = {}
        self.found: list[int] = []
        self.read: list[int] = []
        self.tokens = 0

    def collect(self, prompts: Sequence[BlockPrompt]) -> list[list[bytes]]:
        """Find or compute the lines of all prompts.

        Returns:
            For each prompt, the keys of its head and its blocks.
        """
        keys: list[list[bytes]] = []
        missing: dict[tuple[int, ...], dict[bytes, tuple[int, ...]]] = {}
        storable: dict[bytes, bool] = {}
        for prompt in prompts:
            head, found, read = prompt.ids[: prompt.head], 0, 0
            blocks = ((), *prompt.blocks) if head else ()
            own = [self._kinds.key(head, block) for block in blocks]
            for index, (key, block) in enumerate(zip(own, blocks, strict=True)):
                # A block depends on the head, so it is as private as the head.
                public = prompt.storable[0] and prompt.storable[index]
                storable[key] = storable.get(key, True) and public
                new = key not in self._lines and key not in missing.get(head, {})
                if new and public and (line := self._store.get(key)) is not None:
                    self._lines[key], new = line, False
                if new:
                    missing.setdefault(head, {})[key] = block
                found, read = found + (not new and index > 0), read + (new and index > 0)
            self.found.append(found)
            self.read.append(read)
            keys.append(own)
        for head, wanted in missing.items():
            self._compute(head, wanted)
            for key in wanted:
                if storable[key]:
                    self._store.put(key, self._lines[key])
        return keys

    def _compute(self, head: tuple[int, ...], blocks: dict[bytes, tuple[int, ...]]) -> None:
        """Let the model read the head, if it has to, and blocks after it."""
        key, n = self._kinds.key(head), len(head)
        line = self._lines.get(key)
        if line is None:
            tree = CachedTree(self._body, [head])
            self._lines[key] = _pack(tree.layers, [(0, n)], self._kinds.head)[0]
            self.tokens += n
        else:
            tree = self._tree(line, n)
        group: list[bytes] = []
        wanted = [k for k, block in blocks.items() if block]
        for place, one in enumerate(wanted):
            group.append(one)
            following = blocks[wanted[place + 1]] if place + 1 < len(wanted) else None
            size = sum(len(blocks[k]) for k in group)
            if following is not None and size + len(following) <= _PASS:
                continue
            mark = tree.mark()
            runs = [blocks[k] for k in group]
            ends, _ = tree.grow([0] * len(runs), [ROOT] * len(runs), runs)
            spans = [
                (n + end + 1 - len(run), n + end + 1)
                for end, run in zip(ends.tolist(), runs, strict=True)
            ]
            packed = _pack(tree.layers, spans, self._kinds.block)
            self._lines |= dict(zip(group, packed, strict=True))
            self.tokens += size
            tree.back(mark)
            group = []

    def _tree(self, head: torch.Tensor, n: int) -> CachedTree:
        """Return a token tree after a head of n tokens that has already been read."""
        body = self._body
        both = self._kinds.head.unpack(head.to(body.device))
        layers = [
            body.layer_kind.holding(keys[None], values[None], n)
            for keys, values in zip(*both, strict=True)
        ]
        return CachedTree.resume(body, layers, np.array([n]), np.ones((1, n), dtype=bool))

    def lines(self, keys: Sequence[bytes]) -> list[torch.Tensor]:
        """Return the stored bytes of the lines with the given keys."""
        return [self._lines[key] for key in keys]


class BlockReader:
    """Reads prompts block by block with one model.

    Attributes:
        store: the store of lines.
    """

    def __init__(self, body: Body, rotary: Rotary, store: LineStore, model: str) -> None:
        """Store the parts.

        Args:
            body: the model.
            rotary: the object that moves the model's keys.
            store: the store of lines, which other models may use, too.
            model: text that identifies the model's weights.
        """
        self._body, self._rotary, self.store = body, rotary, store
        self._model = f"{model} {body.dtype} {body.device}"
        self._shape: tuple[int, int, int, int] | None = None

    def layout(self, numbers: str) -> LineLayout:
        """Return the layout of the model's lines with the given number type."""
        if self._shape is None:
            self._shape = measure_shape(self._body)
        return LineLayout(self._shape, self._body.dtype, numbers)

    def _kinds(self, options: LineOptions) -> _Kinds:
        return _Kinds(self._model, self.layout("float32"), self.layout(options.numbers))

    def count_stored(self, prompt: BlockPrompt, options: LineOptions) -> tuple[int, int]:
        """Count the blocks of a prompt that are in the store, and all of its blocks."""
        self.store.configure(options, self._model)
        head, kinds = prompt.ids[: prompt.head], self._kinds(options)
        keys = [kinds.key(head, block) for block in prompt.blocks]
        return sum(map(self.store.has, keys)), len(keys)

    @torch.inference_mode()
    def read(
        self, prompts: Sequence[BlockPrompt], options: LineOptions | None = None
    ) -> BlocksRead:
        """Read prompts, and return a token tree that scores their continuations.

        Args:
            prompts: the B divided prompts, at least one.
            options: how lines are stored; None to leave the store as it is and use float32.
        """
        body = self._body
        if options is None:
            options = LineOptions()
        else:
            self.store.configure(options, self._model)
        kinds = self._kinds(options)
        gathering = _Gathering(body, self.store, kinds)
        keys = gathering.collect(prompts)
        known = np.array([p.gathered for p in prompts])
        rest = np.array([len(p.ids) for p in prompts]) - known
        slots = int(known.max()) + int(rest.max())
        layers = self._gather([gathering.lines(k) for k in keys], prompts, slots, kinds)
        tree = read_rest(body, layers, known, [p.ids for p in prompts])
        tokens = gathering.tokens + int(rest.sum())
        use = self.store.use()
        return BlocksRead(tree, tuple(gathering.found), tuple(gathering.read), tokens, use)

    def _gather(
        self,
        lines: Sequence[Sequence[torch.Tensor]],
        prompts: Sequence[BlockPrompt],
        slots: int,
        kinds: _Kinds,
    ) -> list[GrowingLayer]:
        """Put the keys and values of heads and blocks into new buffers, at their positions.

        Args:
            lines: the stored head and blocks of each of the B prompts.
            prompts: the prompts.
            slots: number of slots that the prompts take.
            kinds: how the lines are stored.

        Returns:
            A buffer for each layer, which holds as many tokens as the longest head with its blocks.
        """
        body, length = self._body, max(p.gathered for p in prompts)
        if not length:
            return body.new_layers()
        n_layers, heads, *sizes = kinds.head.shape
        keys, values = (
            torch.empty(
                (n_layers, len(prompts), heads, slots + ROOM, size),
                dtype=body.dtype,
                device=body.device,
            )
            for size in sizes
        )
        for row, (own, prompt) in enumerate(zip(lines, prompts, strict=True)):
            start = 0
            for index, line in enumerate(own):
                layout = kinds.block if index else kinds.head
                some, others = layout.unpack(line.to(body.device))
                stop = start + some.shape[2]
                keys[:, row, :, start:stop], values[:, row, :, start:stop] = some, others
                start = stop
            for buffer in (keys, values):  # gaps must hold finite numbers
                buffer[:, row, :, start:length] = 0
            if prompt.stops:
                moved = keys[:, row, :, prompt.head : start]
                shifts = torch.from_numpy(_shifts(prompt)).to(body.device)
                keys[:, row, :, prompt.head : start] = self._rotary.turn(moved, shifts)
        return [body.layer_kind.holding(k, v, length) for k, v in zip(keys, values, strict=True)]


def _shifts(prompt: BlockPrompt) -> IntArray:
    """Return by how many positions each token of the blocks must be moved, as an int64 array."""
    starts = np.array([prompt.head, *prompt.stops[:-1]])[: len(prompt.stops)]
    sizes = np.diff([prompt.head, *prompt.stops])
    return np.repeat(starts - prompt.head, sizes)


def _pack(
    layers: Sequence[GrowingLayer], spans: Sequence[tuple[int, int]], layout: LineLayout
) -> list[torch.Tensor]:
    """Copy the keys and values of the first prompt in some intervals of slots.

    Args:
        layers: the buffers of the L layers.
        spans: the first slot of each interval, and the slot after its last one.
        layout: how they are stored.

    Returns:
        The bytes of each interval.
    """
    low, high = min(a for a, _ in spans), max(b for _, b in spans)
    keys = torch.stack([layer.keys[0, :, low:high] for layer in layers])
    values = torch.stack([layer.values[0, :, low:high] for layer in layers])
    return [
        layout.pack(keys[:, :, a - low : b - low], values[:, :, a - low : b - low])
        for a, b in spans
    ]
