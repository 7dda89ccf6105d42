"""Define prompts that are divided into blocks, which a model can read separately.

With ``attention="by_event"``, each of the older events of a history is a block. Its tokens attend
only to the head of the prompt, which is the text before the first event, and to the block itself.
All tokens after the last block attend to everything before them. This module deals with token ids
only, and does not need torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class BlockPrompt:
    """A prompt that consists of a head, blocks and a rest, in this order.

    Attributes:
        ids: all token ids of the prompt.
        head: number of tokens in the head. At least 1 if there are blocks.
        stops: for each block, the index in ``ids`` after its last token. A block begins where the
            block before it ends, and the first one begins after the head. The rest has at least one
            token.
        storable: for the head, and for each block, whether its keys and values may be kept for
            other requests. They must not be if the text was written by a user.
    """

    ids: tuple[int, ...]
    head: int
    stops: tuple[int, ...] = ()
    storable: tuple[bool, ...] = (True,)

    def __post_init__(self) -> None:
        """Check that the parts are in order.

        Raises:
            ValueError: a block is empty, or there is no head before blocks or no rest.
        """
        ends = (self.head, *self.stops)
        increasing = all(a < b for a, b in pairwise(ends))
        least = 1 if self.stops else 0
        if not (increasing and least <= self.head and ends[-1] < len(self.ids)):
            msg = (
                f"A prompt of {len(self.ids)} tokens cannot be divided at {ends}. Expected a head, "
                "blocks of at least one token each, and at least one token after the last block."
            )
            raise ValueError(msg)
        if len(self.storable) != len(ends):
            msg = f"storable has {len(self.storable)} values. Expected {len(ends)}."
            raise ValueError(msg)

    @property
    def blocks(self) -> list[tuple[int, ...]]:
        """Return the token ids of each block."""
        starts = (self.head, *self.stops[:-1])
        return [self.ids[a:b] for a, b in zip(starts, self.stops, strict=bool(self.stops))]

    @property
    def gathered(self) -> int:
        """Return the number of tokens in the head and the blocks."""
        return self.stops[-1] if self.stops else self.head
