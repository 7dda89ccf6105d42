"""Rows: histories as token trees whose titles are targets, the training twin of the decoder's tree.

Knows ids, events and the trie, nothing of models. A row is a trunk, which is what the model would
read at inference, and branches, each of which sees the trunk up to a place and itself, and stands
at the positions that follow that place. A title in the trunk is a target after what is before it;
the titles of a basket are branches at the basket's beginning, so that none sees its mates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.data.interactions import Interactions
from genrec.decoding.trie import TitleTrie, ranges
from genrec.errors import PromptError, SettingsError
from genrec.prompts.encoder import EncodedPrompt, Encoder, shared_start
from genrec.prompts.template import Template
from genrec.types import BoolArray, IntArray

_AROUND = 6  # tokens beside a title's own that an event takes, more or less
NO_CHOICE = 1  # a node with fewer children than two asks nothing


class TitlePaths:
    """What each title of a trie chooses on its way down: S steps of N rows.

    Attributes:
        start: (N + 1,) where each row's steps begin; a row that the trie lacks has none.
        node: (S,) the node whose children are chosen from.
        choice: (S,) which of its children.
        offset: (S,) which token of the title says so; what is before it has to be read.
        copies: (N,) rows that share the title, 0 for a row that the trie lacks.
        needed: (N,) how many tokens of the title have to be read to know its probability.
    """

    def __init__(self, trie: TitleTrie, kept: IntArray | None = None, n: int | None = None) -> None:
        """Walks up from every leaf.

        Args:
            trie: over the titles of some rows.
            kept: (n_items,) the catalog row of each of the trie's rows; the same where None.
            n: how many catalog rows there are; as many as the trie has where None.
        """
        self.trie = trie
        kept = np.arange(trie.n_items) if kept is None else kept
        n = trie.n_items if n is None else n
        first = trie.first_child.astype(np.int64)
        count = first[1:] - first[:-1]
        nodes = np.arange(len(trie))
        parent = np.concatenate([[-1], np.repeat(nodes, count)])
        length = trie.run_lengths(nodes)
        depth = np.zeros(len(trie), dtype=np.int64)
        low, high = 0, 1
        while low < high:  # level by level
            depth[low:high] = length[low:high] + np.where(low, depth[parent[low:high]], 0)
            low, high = high, int(trie.first_child[high])
        leaf = np.flatnonzero(count == 0)
        leaf = leaf[np.argsort(trie.low[leaf], kind="stable")]
        sizes = trie.high[leaf].astype(np.int64) - trie.low[leaf]
        at = np.repeat(leaf, sizes)[trie.positions_of(np.arange(trie.n_items))]
        parts: list[tuple[IntArray, IntArray]] = []
        row = np.arange(trie.n_items)
        below = at
        while len(row):
            above = parent[below]
            parts.append((row[count[above] > NO_CHOICE], below[count[above] > NO_CHOICE]))
            row, below = row[above > 0], above[above > 0]
        rows = np.concatenate([p[0] for p in parts[::-1]])  # from the top down
        lower = np.concatenate([p[1] for p in parts[::-1]])
        order = np.argsort(kept[rows], kind="stable")
        rows, lower = rows[order], lower[order]
        self.node = parent[lower]
        self.choice = lower - trie.first_child[self.node].astype(np.int64)
        self.offset = depth[self.node]
        self.start = np.concatenate([[0], np.cumsum(np.bincount(kept[rows], minlength=n))])
        self.copies = np.zeros(n, dtype=np.int64)
        self.copies[kept] = trie.high[at].astype(np.int64) - trie.low[at]
        self.needed = np.zeros(n, dtype=np.int64)
        np.maximum.at(self.needed, kept[rows], self.offset)

    def steps(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """The steps of R rows, one after the other, and (R,) how many each has."""
        count = self.start[rows + 1] - self.start[rows]
        return ranges(self.start[rows], count), count


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A token tree of T tokens with G targets.

    Attributes:
        ids: (T,) tokens.
        position: (T,) where the model takes them to stand.
        limit: (T,) how many tokens of the trunk each sees; of the trunk's own, itself included.
        branch: (T,) 0 in the trunk, else the number of the branch, which sees only itself beside.
        before: (G,) the token after which a title begins.
        at: (G,) where the title's first token stands, if any of it is read.
        item: (G,) catalog rows.
        event: (G,) places of the targets in the event columns.
    """

    ids: IntArray
    position: IntArray
    limit: IntArray
    branch: IntArray
    before: IntArray
    at: IntArray
    item: IntArray
    event: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    def text_before(self, target: int) -> list[int]:
        """The ids that the model knows before a target's title."""
        last = int(self.before[target])
        own = (self.branch == self.branch[last]) & (np.arange(len(self)) <= last)
        trunk = (self.branch == 0) & (np.arange(len(self)) < self.limit[last])
        return [int(i) for i in self.ids[trunk | (own & (self.branch > 0))]]


@dataclass(frozen=True, slots=True)
class _Target:
    """One title to be written: the trunk's tokens that it sees, the branch's before it, its item."""

    limit: int
    head: tuple[int, ...]
    item: int
    event: int
    in_trunk: bool


class RowMaker:
    """Makes rows of users' events."""

    def __init__(
        self,
        encoder: Encoder,
        template: Template,
        events: Interactions,
        paths: TitlePaths,
        *,
        basket: str = "as_is",
        layout: str = "history",
        whole_titles: bool = True,
        max_events: int = 25,
        max_tokens: int = 1024,
        max_prompt_tokens: int = 2048,
        overlap: float = 0.5,
        scale: float | None = None,
        titles: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        """Takes what is the same for all users.

        Args:
            encoder: of the model.
            template: renders histories.
            events: of all users.
            paths: of the trie; a row without a path is no target.
            basket: ``tree``, ``first`` or ``as_is``; see ``recipe.Training``.
            layout: ``history`` or ``window``.
            whole_titles: whether targets are read whole, as a loss over the vocabulary needs them.
            max_events: the most events before a target.
            max_tokens: the most tokens of a row; longer branches make rows of their own.
            max_prompt_tokens: the most tokens before a target with ``window``.
            overlap: how much of ``max_events`` a long history's next window shows again.
            scale: the highest value that an event can have, to show values; None shows none.
            titles: token ids by catalog row; made here where None.

        Raises:
            SettingsError: the template does not allow this layout, or a row could not hold a title.
        """
        if layout == "history" and template.header.get("targets", "every") != "every":
            msg = (
                f"layout='history' with template {template.name!r}, in which a title within the "
                "history does not stand as a target does. Expected layout='window', or a template "
                "such as next_item."
            )
            raise SettingsError(msg)
        self._encoder, self._template, self._events, self._paths = encoder, template, events, paths
        self._basket, self._layout, self._whole = basket, layout, whole_titles
        self._max_events, self._max_tokens, self._overlap = max_events, max_tokens, overlap
        self._max_prompt = max_prompt_tokens
        self._scale = scale
        self._titles = list(encoder.titles(events.catalog)) if titles is None else titles
        self._longest = max(map(len, self._titles))
        if max_tokens < 2 * self._longest + 16:
            msg = (
                f"pack_tokens={max_tokens} with titles of up to {self._longest} tokens. Expected at "
                f"least {2 * self._longest + 16}; raise it, or lower max_title_tokens."
            )
            raise SettingsError(msg)

    @property
    def catalog(self) -> Catalog:
        """The items."""
        return self._events.catalog

    def rows(self, user_id: str, shown: IntArray, wanted: BoolArray) -> Iterator[Row]:
        """The rows of one user.

        Args:
            user_id: for the histories.
            shown: (n,) places of the user's events in the columns, oldest first.
            wanted: (n,) which of them are targets.
        """
        units = self._units(shown, wanted)
        if not units:
            return
        events = [self._events.interaction(i) for i in shown.tolist()]
        if self._layout == "window":
            for prompt, item, event in self._prompts(events, shown, units, user_id):
                yield self._row(prompt.ids, [_Target(len(prompt.ids), (), item, event, True)])
            return
        for start, some in self._windows(events, self._events.columns.row[shown], units):
            yield from self._window(events, shown, start, some)

    def prompts(
        self, user_id: str, shown: IntArray, wanted: BoolArray
    ) -> Iterator[tuple[EncodedPrompt, int, int]]:
        """One prompt for each target of a user, as inference has it, with its item and event.

        Args:
            user_id: see ``rows``.
            shown: see ``rows``.
            wanted: see ``rows``.
        """
        if units := self._units(shown, wanted):
            events = [self._events.interaction(i) for i in shown.tolist()]
            yield from self._prompts(events, shown, units, user_id)

    def apart(self, ids: Sequence[int], items: Sequence[int], events: Sequence[int]) -> Row:
        """A row of a prompt and titles after it that do not see each other.

        Args:
            ids: the prompt's.
            items: catalog rows of the titles.
            events: a place in the event columns for each.
        """
        both = zip(items, events, strict=True)
        return self._row(tuple(ids), [_Target(len(ids), (), i, e, False) for i, e in both])

    def _units(self, shown: IntArray, wanted: BoolArray) -> list[tuple[int, list[int]]]:
        """Where each unit with targets begins among a user's events, and which these are."""
        c = self._events.columns
        wanted = wanted & (c.row[shown] >= 0)
        wanted[wanted] = self._paths.copies[c.row[shown[wanted]]] > 0
        unit = np.arange(len(shown)) if self._basket == "as_is" else c.unit[shown]
        begins = np.flatnonzero(np.append(True, unit[1:] != unit[:-1]))
        units = [
            (first, [i for i in range(first, last) if wanted[i]])
            for first, last in zip(begins.tolist(), [*begins[1:].tolist(), len(shown)], strict=True)
        ]
        if self._basket == "first":
            units = [(first, within[:1]) for first, within in units]
        return [u for u in units if u[1]]

    def _prompts(
        self,
        events: Sequence[Interaction],
        shown: IntArray,
        units: Sequence[tuple[int, list[int]]],
        user_id: str,
    ) -> Iterator[tuple[EncodedPrompt, int, int]]:
        """One prompt and one target each, as inference has it: prompt, item and event."""
        for first, within in units:
            for i in within:
                prompt = self._encoder.fit(
                    self._template,
                    self.catalog,
                    History(tuple(events[:first]), user_id),
                    events[i].behavior,
                    max_tokens=min(self._max_prompt, self._max_tokens - self._longest),
                    max_events=self._max_events,
                    scale=self._scale,
                )
                yield prompt, int(self._events.columns.row[shown[i]]), int(shown[i])

    def _windows(
        self, events: Sequence[Interaction], row: IntArray, units: Sequence[tuple[int, list[int]]]
    ) -> Iterator[tuple[int, list[tuple[int, list[int]]]]]:
        """Where windows begin, and the units whose titles each predicts."""
        size = np.array(
            [
                (len(self._titles[r]) if r >= 0 else 0) + len(e.text or "") // 2 + _AROUND
                for r, e in zip(row.tolist(), events, strict=True)
            ]
        )
        before = np.concatenate([[0], np.cumsum(size)])
        most = self._max_tokens - self._longest - 2 * _AROUND
        start, some = 0, list[tuple[int, list[int]]]()
        for first, within in units:
            full = first - start > self._max_events or before[first] - before[start] > most
            if full:
                if some:
                    yield start, some
                start, some = max(start, first - int(self._max_events * self._overlap)), []
                while start < first and before[first] - before[start] > most * self._overlap:
                    start += 1
            some.append((first, within))
        if some:
            yield start, some

    def _window(
        self,
        events: Sequence[Interaction],
        shown: IntArray,
        start: int,
        units: Sequence[tuple[int, list[int]]],
    ) -> Iterator[Row]:
        """The rows of one window: a trunk up to the last unit, whose first title ends it."""
        last = units[-1][0]
        ids, ends = self._trunk(events[start : last + 1])
        row = self._events.columns.row
        targets = []
        for first, within in units:
            for i in within:
                limit, head = ends[first - start], tuple[int, ...]()
                own = i == first
                if not own and (
                    events[i].behavior != events[first].behavior or events[first].item_id is None
                ):
                    known = self._before(events[start:first], events[i].behavior)
                    limit = shared_start([ids, known])
                    head = known[limit:]
                targets.append(_Target(limit, head, int(row[shown[i]]), int(shown[i]), own))
        yield from self._split(ids, targets)

    def _before(self, events: Sequence[Interaction], behavior: str) -> tuple[int, ...]:
        """The ids of a prompt, as inference would have them."""
        rendered = self._template.render(
            self.catalog,
            History(tuple(events)),
            behavior,
            form=self._encoder.form,
            scale=self._scale,
        )
        return self._encoder.prompt(rendered).ids

    def _trunk(self, events: Sequence[Interaction]) -> tuple[tuple[int, ...], list[int]]:
        """Ids up to the last event's title, and for each event where its title begins."""
        rendered = self._template.render(
            self.catalog,
            History(tuple(events[:-1])),
            events[-1].behavior,
            form=self._encoder.form,
            scale=self._scale,
        )
        encoded = self._encoder.prompt(rendered)
        ends = [0] * len(events)
        place = 0
        for segment, (first, stop) in zip(encoded.prompt.segments, encoded.bounds, strict=True):
            if segment.event is not None:
                ends[segment.event] = first
            place = stop
        if place != len(encoded.ids):
            msg = f"Template {self._template.name!r} ends with text after its target."
            raise PromptError(msg)
        ends[-1] = len(encoded.ids)
        for i, event in enumerate(events[:-1]):
            if event.item_id is None:  # its unit's titles hang where a prompt of theirs parts
                ends[i] = 0
        return encoded.ids, ends

    def _split(self, ids: tuple[int, ...], targets: Sequence[_Target]) -> Iterator[Row]:
        """Rows of at most ``max_tokens``: the trunk again where the branches are too many."""
        some, size = list[_Target](), len(ids) + self._longest
        for target in targets:
            more = 0 if target.in_trunk else len(target.head) + self._read(target.item)
            if some and size + more > self._max_tokens:
                yield self._row(ids, some)
                some, size = [], max(t.limit for t in targets) + self._longest
            some.append(target)
            size += more
        if some:
            yield self._row(ids, some)

    def _read(self, item: int) -> int:
        """How many tokens of a title are read."""
        return len(self._titles[item]) if self._whole else int(self._paths.needed[item])

    def _row(self, ids: tuple[int, ...], targets: Sequence[_Target]) -> Row:
        """A trunk with its branches; the trunk goes as far as somebody looks."""
        n = max(t.limit for t in targets)
        trunk = list(ids[:n])
        for t in targets:
            if t.in_trunk and t.limit == n:  # the title that ends the trunk
                trunk += self._titles[t.item][: self._read(t.item)]
                break
        tokens = [np.array(trunk, dtype=np.int64)]
        position = [np.arange(len(trunk))]
        limit = [np.arange(1, len(trunk) + 1)]
        branch = [np.zeros(len(trunk), dtype=np.int64)]
        before, at, size = [], [], len(trunk)
        for t in targets:
            if t.in_trunk:
                before.append(t.limit - 1)
                at.append(t.limit)
                continue
            run = [*t.head, *self._titles[t.item][: self._read(t.item)]]
            before.append(size + len(t.head) - 1 if t.head else t.limit - 1)
            at.append(size + len(t.head))
            tokens.append(np.array(run, dtype=np.int64))
            position.append(t.limit + np.arange(len(run)))
            limit.append(np.full(len(run), t.limit))
            branch.append(np.full(len(run), len(branch)))
            size += len(run)
        return Row(
            np.concatenate(tokens),
            np.concatenate(position),
            np.concatenate(limit),
            np.concatenate(branch),
            np.array(before),
            np.array(at),
            np.array([t.item for t in targets]),
            np.array([t.event for t in targets]),
        )


def packed(rows: Sequence[Row], most: int) -> list[list[int]]:
    """Rows put side by side: lists of indices whose tokens sum to at most so many.

    First fit, the longest first (Johnson 1973); a row that is longer stands alone.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    packs: list[list[int]] = []
    room: list[int] = []
    open_from = 0
    for i in order:
        size = len(rows[i])
        while open_from < len(packs) and room[open_from] < _LEAST_ROOM:
            open_from += 1
        for p in range(open_from, len(packs)):
            if room[p] >= size:
                packs[p].append(i)
                room[p] -= size
                break
        else:
            packs.append([i])
            room.append(most - size)
    return packs


_LEAST_ROOM = 8  # tokens; no row is shorter


def of_users(
    maker: RowMaker,
    events: Interactions,
    shown: BoolArray,
    wanted: BoolArray,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """The rows of all users.

    Args:
        maker: makes them.
        events: of all users.
        shown: (E,) which events histories show.
        wanted: (E,) which of these are targets.
        progress: called with the number of users done.
    """
    found: list[Row] = []
    for done, user in enumerate(events.user_ids, start=1):
        where = events.events(user)
        places = where.start + np.flatnonzero(shown[where])
        if len(places):
            found += maker.rows(user, places, wanted[places])
        if done % 1000 == 0:
            progress(done)
    return found
