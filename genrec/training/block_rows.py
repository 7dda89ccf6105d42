"""Turn histories into training rows for ``attention="by_event"``.

At inference, the model reads the older events of a prompt by themselves, and the latest
``recent_events`` together with everything before them. Which events are recent depends on the
target. So the trunk of a row consists of the head and of blocks, and each prompt that a target needs
is a stem that grows on it: its recent events, and the text before the title. The stem attends to the
head, to the blocks of its own older events and to itself. The titles of a basket grow on their
common stem. So an event is in a row once as a block, and once in each stem in which it is recent.

Targets with at most ``recent_events`` events before them have no blocks. Their rows are those of
full attention.

This module deals with token ids, events and the trie, not with models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from genrec.data.events import Interaction
from genrec.models.block_prompt import BlockPrompt
from genrec.prompts.encoder import EncodedPrompt
from genrec.training.sequences import Row, RowMaker
from genrec.types import BoolArray, IntArray

_MOVED = 3  # number of values that describe a moved key


@dataclass(frozen=True, slots=True, eq=False)
class BlockRow(Row):
    """A training row whose trunk consists of a head and blocks.

    A token attends to the trunk below its ``limit``, to an interval of a stem, and to the tokens
    from ``since`` up to itself. A token of a block has ``limit`` 0, and attends to the head by
    moved keys (see ``genrec.models.moved_keys``), unless the block is right after the head.

    Attributes:
        since: (T,) the index of the first token of the block, stem or title that contains the
            token. For other tokens, their own index.
        stem: (T, 2) the indices at which the interval begins and ends. Both are 0 outside of titles.
        moved: (E, 3) for each moved key, the index of the token whose key is moved, by how many
            positions, and the index of the first token of the block that attends to it.
    """

    more: ClassVar[tuple[str, ...]] = ("since", "stem", "moved")

    since: IntArray
    stem: IntArray
    moved: IntArray

    def seen_by(self, token: int) -> BoolArray:
        """Return a (T,) mask of the tokens that a token attends to, without moved keys."""
        index = np.arange(len(self))
        trunk = (self.branch == 0) & (index < self.limit[token])
        own = (self.since[token] <= index) & (index <= token)
        first, stop = self.stem[token]
        return np.asarray(trunk | own | ((first <= index) & (index < stop)))

    def text_before(self, target: int) -> list[int]:
        """Return the ids of the tokens that the model sees before a target's title."""
        return [int(i) for i in self.ids[self.seen_by(int(self.before[target]))]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A title to predict after a stem.

    Attributes:
        item: the catalog row of the item.
        event: the index of its event among all events of the data.
        title: the tokens of the title that the row includes.
    """

    item: int
    event: int
    title: tuple[int, ...]


Stem = tuple[BlockPrompt, Sequence[Goal]]  # a prompt, and the titles to predict after it


def without_blocks(row: Row) -> BlockRow:
    """Describe a row of full attention as a row that happens to have no blocks."""
    index = np.arange(len(row))
    branches, first = np.unique(row.branch, return_index=True)
    begin = first[np.searchsorted(branches, row.branch)]
    since = np.where(row.branch > 0, begin, index)
    kept = {name: getattr(row, name) for name in Row.__slots__}
    return BlockRow(**kept, since=since, stem=np.zeros((len(row), 2), np.int64), moved=_no_keys())


def make_block_row(stems: Sequence[Stem]) -> BlockRow:
    """Create a row from prompts that share their head, and whose blocks are those of the last one.

    Args:
        stems: the prompts with their goals. The blocks of each prompt are the first ones of the
            last prompt.
    """
    last = stems[-1][0]
    h, trunk = last.head, last.gathered
    limit, since = np.arange(1, trunk + 1), np.arange(trunk)
    moved = []
    for first, stop in pairwise((h, *last.stops)):
        limit[first:stop] = h if first == h else 0
        since[first:stop] = first
        if first > h:
            key = np.arange(h)
            moved.append(np.stack([key, np.full(h, first - h), np.full(h, first)], axis=1))
    row = _Parts(last.ids[:trunk], limit, since)
    before, at, goals = [], [], list[Goal]()
    for prompt, some in stems:
        rest = prompt.ids[prompt.gathered :]
        begin = row.add(rest, prompt.gathered, prompt.gathered)
        for goal in some:
            before.append(begin + len(rest) - 1)
            at.append(
                row.add(
                    goal.title, len(prompt.ids), prompt.gathered, stem=(begin, begin + len(rest))
                )
            )
            goals.append(goal)
    return BlockRow(
        **row.arrays(),
        before=np.array(before),
        at=np.array(at),
        item=np.array([g.item for g in goals]),
        event=np.array([g.event for g in goals]),
        moved=np.concatenate(moved) if moved else _no_keys(),
    )


def _no_keys() -> IntArray:
    return np.zeros((0, _MOVED), dtype=np.int64)


class _Parts:
    """The arrays of a row to which branches are added."""

    def __init__(self, trunk: Sequence[int], limit: IntArray, since: IntArray) -> None:
        n = len(trunk)
        self._ids, self._position = [np.array(trunk, dtype=np.int64)], [np.arange(n)]
        self._limit, self._since = [limit], [since]
        self._branch = [np.zeros(n, dtype=np.int64)]
        self._stem = [np.zeros((n, 2), dtype=np.int64)]
        self._size = n

    def add(
        self, ids: Sequence[int], position: int, limit: int, *, stem: tuple[int, int] = (0, 0)
    ) -> int:
        """Add a branch, and return the index of its first token.

        Args:
            ids: the tokens.
            position: the position of the first token.
            limit: the number of trunk tokens that it attends to.
            stem: the interval of tokens of another branch that it attends to.
        """
        n, begin = len(ids), self._size
        self._ids.append(np.array(ids, dtype=np.int64))
        self._position.append(position + np.arange(n))
        self._limit.append(np.full(n, limit))
        self._since.append(np.full(n, begin))
        self._branch.append(np.full(n, len(self._branch)))
        self._stem.append(np.tile(np.array(stem, dtype=np.int64), (n, 1)))
        self._size += n
        return begin

    def arrays(self) -> dict[str, Any]:
        """Return the arrays of the row by name."""
        return {
            "ids": np.concatenate(self._ids),
            "position": np.concatenate(self._position),
            "limit": np.concatenate(self._limit),
            "since": np.concatenate(self._since),
            "branch": np.concatenate(self._branch),
            "stem": np.concatenate(self._stem),
        }


class BlockRowMaker(RowMaker):
    """An object that turns the events of users into training rows with blocks."""

    def __init__(self, *shared: Any, recent: int, **options: Any) -> None:
        """Store what the rows of all users share.

        Args:
            *shared: the arguments of ``RowMaker``.
            recent: number of the latest events before a target that are not blocks.
            **options: the keyword arguments of ``RowMaker``.

        Raises:
            SettingsError: see ``RowMaker``.
        """
        super().__init__(*shared, **options)
        self._recent = recent

    def _make_prompt_row(self, prompt: EncodedPrompt, item: int, event: int) -> Row:
        """Create the row of one target from its prompt."""
        return make_block_row([(prompt.by_event(self._recent), [self._goal(item, event)])])

    def _goal(self, item: int, event: int) -> Goal:
        return Goal(item, event, self._titles[item][: self._count_read(item)])

    def _make_window_rows(
        self,
        events: Sequence[Interaction],
        shown: IntArray,
        start: int,
        units: Sequence[tuple[int, list[int]]],
    ) -> Iterator[Row]:
        """Yield the rows of one window; see ``RowMaker``.

        Raises:
            SettingsError: the events of a prompt cannot be separated.
        """
        few = [unit for unit in units if unit[0] - start <= self._recent]
        if few:
            self._encode_before(events[start : few[-1][0]], events[few[-1][0]]).by_event(
                self._recent
            )
            for row in super()._make_window_rows(events, shown, start, few):
                yield without_blocks(row)
        yield from self._join(self._make_stems(events, shown, start, units[len(few) :]))

    def _make_stems(
        self,
        events: Sequence[Interaction],
        shown: IntArray,
        start: int,
        units: Sequence[tuple[int, list[int]]],
    ) -> Iterator[Stem]:
        """Yield the prompts of units with the titles to predict after each of them."""
        row = self._events.columns.row
        for first, within in units:
            kinds: list[list[int]] = []  # targets whose prompts are the same
            for i in within:
                same = (k for k in kinds if _same_prompt(events[k[0]], events[i]))
                found = next(same, None)
                kinds += [[i]] if found is None else []
                if found is not None:
                    found.append(i)
            for kind in kinds:
                prompt = self._encode_before(events[start:first], events[kind[0]])
                goals = [self._goal(int(row[shown[i]]), int(shown[i])) for i in kind]
                yield prompt.by_event(self._recent), goals

    def _join(self, stems: Iterator[Stem]) -> Iterator[BlockRow]:
        """Distribute goals over rows of at most ``max_tokens`` tokens."""
        some, size = list[tuple[BlockPrompt, list[Goal]]](), 0
        for prompt, goals in stems:
            for goal in goals:
                new = not some or some[-1][0] is not prompt
                rest = len(prompt.ids) - prompt.gathered
                more = len(goal.title) + (rest if new else 0)
                full = prompt.gathered + size + more > self._options.max_tokens
                if some and (full or not _is_continued(some[-1][0], prompt)):
                    yield make_block_row(some)
                    some, size, new, more = [], 0, True, len(goal.title) + rest
                if new:
                    some.append((prompt, []))
                some[-1][1].append(goal)
                size += more
        if some:
            yield make_block_row(some)


def _same_prompt(one: Interaction, other: Interaction) -> bool:
    """Check whether two targets of a unit have the same prompt."""
    return one.behavior == other.behavior and one.context == other.context


def _is_continued(earlier: BlockPrompt, later: BlockPrompt) -> bool:
    """Check whether the head and the blocks of a prompt are the beginning of those of another."""
    n = len(earlier.stops)
    same = (earlier.head, earlier.stops) == (later.head, later.stops[:n])
    return same and earlier.ids[: earlier.gathered] == later.ids[: earlier.gathered]
