"""Remember what the blocks below an adapter compute, since training does not change it.

If only a model's last blocks are adapted, the states that enter them are the same in every step. So they
are computed once for each example and read from memory after that, which saves most of the time on a
CPU. This module deals with models, not with privacy or data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

ROOM = 4 << 30  # bytes of states that are kept; the states of further examples are computed again


class _Passing(nn.Module):
    """Stands for a block that is skipped, and has all other attributes of the block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule, so that its weights have one name
        self.output: Any = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)

    def forward(self, states: Any, *_: Any, **__: Any) -> Any:
        return states if self.output is None else self.output


@dataclass
class States:
    """What frozen blocks have computed, which trainings of the same base model can share.

    Attributes:
        room: the number of bytes that may be kept.
        known: the output of the last frozen block, by the number of frozen blocks and the example.
    """

    room: int = ROOM
    known: dict[tuple[int, Hashable], Any] = field(default_factory=dict)
    size: int = 0

    def keep(self, key: tuple[int, Hashable], output: Any) -> None:
        """Keep the output of a block, which is a tensor or a tuple that begins with one."""
        states = output[0] if isinstance(output, tuple) else output
        if self.size + states.nbytes > self.room:
            return
        self.size += states.nbytes
        known = states.detach().clone()
        self.known[key] = (known, *output[1:]) if isinstance(output, tuple) else known


class FrozenBlocks:
    """The first blocks of a model, whose outputs are remembered by example.

    Attributes:
        first: the number of blocks below the first one with a weight that is trained.
    """

    def __init__(self, blocks: nn.ModuleList, states: States | None = None) -> None:
        """Find the blocks that are not trained.

        Args:
            blocks: all blocks of the model.
            states: what is known already; None for nothing.
        """
        trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
        self.first = trained.index(True) if any(trained) else 0
        self._states = States() if states is None else states
        self._blocks, self._frozen = blocks, list(blocks)[: self.first]
        self._passing = [_Passing(block) for block in self._frozen]

    @contextlib.contextmanager
    def reading(self, example: Hashable) -> Iterator[None]:
        """Use what is known about an example in the ``with`` block, or remember it.

        The model must be run once in the block, on the same inputs for the same example.
        """
        if not self.first:
            yield
        elif (found := self._states.known.get((self.first, example))) is not None:
            self._passing[-1].output = found
            for index, block in enumerate(self._passing):
                self._blocks[index] = block
            try:
                yield
            finally:
                self._passing[-1].output = None
                for index, frozen in enumerate(self._frozen):
                    self._blocks[index] = frozen
        else:
            hook = self._frozen[-1].register_forward_hook(
                lambda module, args, output: self._states.keep((self.first, example), output)
            )
            try:
                yield
            finally:
                hook.remove()
