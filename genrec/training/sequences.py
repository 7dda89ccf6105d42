"""Turn histories into training rows, which are token trees with titles as targets.

A row has the same structure as the token tree of the decoder. Its trunk is the prompt that the model
would read at inference. A branch splits off at some point of the trunk, and its positions continue
from there. The tokens in a branch attend to the branch itself and to the trunk before that point. A
title in the trunk is predicted from everything before it. The titles in a basket are branches that
all split off at the start of the basket, so they do not attend to each other.

This module deals with token ids, events and the trie, not with models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.data.interactions import Interactions
from genrec.errors import PromptError, SettingsError
from genrec.prompts.encoder import EncodedPrompt, Encoder, PromptBudget, shared_start
from genrec.prompts.template import Template
from genrec.training.title_paths import TitlePaths
from genrec.types import BoolArray, IntArray

_AROUND = 6  # the approximate number of tokens that an event adds to the tokens of its title
_LEAST_ROOM = 8  # tokens; a pack with less room than this is full, because no row is shorter


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A training row: a tree of T tokens, in which the titles of G targets are predicted.

    Attributes:
        ids: (T,) the token ids.
        position: (T,) the position of each token, as passed to the model.
        limit: (T,) the number of trunk tokens that each token attends to. For a token in the trunk,
            this includes the token itself.
        branch: (T,) the number of the branch that contains the token; 0 for the trunk. A token
            attends to its own branch and to the trunk, but to no other branch.
        before: (G,) the index of the token before each target's title.
        at: (G,) the index of the title's first token, if the row includes the title's tokens.
        item: (G,) the catalog row of each target.
        event: (G,) the index of each target among all events of the data.
        more: the names of further arrays, which a subclass adds.
    """

    more: ClassVar[tuple[str, ...]] = ()

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
        """Return the ids of the tokens that the model sees before a target's title."""
        last = int(self.before[target])
        own = (self.branch == self.branch[last]) & (np.arange(len(self)) <= last)
        trunk = (self.branch == 0) & (np.arange(len(self)) < self.limit[last])
        return [int(i) for i in self.ids[trunk | (own & (self.branch > 0))]]


@dataclass(frozen=True, slots=True)
class _Target:
    """A title to predict.

    Attributes:
        limit: the number of trunk tokens that the title's tokens attend to.
        head: the tokens before the title in its branch.
        item: the catalog row of the item.
        event: the index of its event among all events of the data.
        in_trunk: True if the title is part of the trunk itself.
    """

    limit: int
    head: tuple[int, ...]
    item: int
    event: int
    in_trunk: bool


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Options for turning histories into training rows.

    Attributes:
        basket: ``tree``, ``first`` or ``as_is``; see ``Training``.
        layout: ``history`` or ``window``; see ``Training``.
        whole_titles: True if rows include all tokens of each target, which a loss over the
            vocabulary requires.
        max_events: the maximum number of events before a target.
        max_tokens: the maximum number of tokens in a row. Branches that do not fit go into separate
            rows.
        max_prompt_tokens: the maximum number of tokens before a target, for ``layout="window"``.
        overlap: the fraction of each window of ``max_events`` events that is repeated in the next
            window, for long histories.
        scale: the highest possible value of an event, such as the best rating; None to omit values
            from histories.
    """

    basket: str = "as_is"
    layout: str = "history"
    whole_titles: bool = True
    max_events: int = 25
    max_tokens: int = 1024
    max_prompt_tokens: int = 2048
    overlap: float = 0.5
    scale: float | None = None


class RowMaker:
    """An object that turns the events of users into training rows."""

    def __init__(
        self,
        encoder: Encoder,
        template: Template,
        events: Interactions,
        paths: TitlePaths,
        options: RowOptions,
        *,
        titles: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        """Store the data that the rows of all users share, and check the options.

        Args:
            encoder: the encoder, which tokenizes prompts and titles.
            template: the template, which renders histories as prompts.
            events: the events of all users.
            paths: the paths to all titles in the trie. Catalog rows without a path cannot be
                targets.
            options: the options for making rows.
            titles: the token ids of each catalog row's title; if None, they are computed here.

        Raises:
            SettingsError: the template does not support this layout, or the longest title does not
                fit into a row.
        """
        if options.layout == "history" and template.header.get("targets", "every") != "every":
            msg = (
                f"layout='history' does not work with template {template.name!r}, which formats "
                "titles in the history differently from the target. Expected layout='window', or a "
                "template such as next_item."
            )
            raise SettingsError(msg)
        if template.shows_profile:
            msg = (
                f"The template {template.name!r} shows a line that stands for older events, which training "
                "cannot show. Expected a template such as next_item."
            )
            raise SettingsError(msg)
        columns = events.table.context_columns
        if options.layout == "history" and columns and not template.shows_past_context:
            msg = (
                f"layout='history' does not work with template {template.name!r} and the context columns "
                f"{', '.join(columns)}, because this template does not show the context of past events. "
                "Expected a template such as next_item_context, layout='window' or "
                "context_columns='none'."
            )
            raise SettingsError(msg)
        self._encoder, self._template, self._events, self._paths = encoder, template, events, paths
        self._options = options
        self._titles = list(encoder.titles(events.catalog)) if titles is None else titles
        self._longest = max(map(len, self._titles))
        least = 2 * self._longest + 16
        if options.max_tokens < least:
            msg = (
                f"pack_tokens={options.max_tokens} is too small for titles of up to {self._longest} "
                f"tokens. Expected at least {least}. Raise pack_tokens or lower max_title_tokens."
            )
            raise SettingsError(msg)

    @property
    def catalog(self) -> Catalog:
        """The catalog that contains the items of the events."""
        return self._events.catalog

    def rows(self, user_id: str, shown: IntArray, wanted: BoolArray) -> Iterator[Row]:
        """Yield the training rows of one user.

        Args:
            user_id: the id of the user, for templates that mention it.
            shown: (n,) the indices of the user's events among all events, oldest first.
            wanted: (n,) mask of the events that are targets.
        """
        units = self._find_units(shown, wanted)
        if not units:
            return
        events = [self._events.interaction(i) for i in shown.tolist()]
        if self._options.layout == "window":
            for prompt, item, event in self._make_prompts(events, shown, units, user_id):
                yield self._make_prompt_row(prompt, item, event)
            return
        for start, some in self._divide(events, self._events.columns.row[shown], units):
            yield from self._make_window_rows(events, shown, start, some)

    def prompts(
        self, user_id: str, shown: IntArray, wanted: BoolArray
    ) -> Iterator[tuple[EncodedPrompt, int, int]]:
        """Yield a prompt for each target of a user, as the recommender would build it at inference.

        The arguments are the same as for ``rows``.

        Yields:
            The prompt, the catalog row of the target, and the target's index among all events.
        """
        if units := self._find_units(shown, wanted):
            events = [self._events.interaction(i) for i in shown.tolist()]
            yield from self._make_prompts(events, shown, units, user_id)

    def _find_units(self, shown: IntArray, wanted: BoolArray) -> list[tuple[int, list[int]]]:
        """Find the user's units, such as baskets, that contain targets.

        If the option ``basket`` is ``as_is``, every event is a unit of its own.

        Returns:
            For each unit, the index of its first event and the indices of its targets. The indices
            refer to ``shown``.
        """
        c = self._events.columns
        wanted = wanted & (c.row[shown] >= 0)
        wanted[wanted] = self._paths.copies[c.row[shown[wanted]]] > 0
        unit = np.arange(len(shown)) if self._options.basket == "as_is" else c.unit[shown]
        begins = np.flatnonzero(np.append(True, unit[1:] != unit[:-1]))
        units = [
            (first, [i for i in range(first, last) if wanted[i]])
            for first, last in zip(begins.tolist(), [*begins[1:].tolist(), len(shown)], strict=True)
        ]
        if self._options.basket == "first":
            units = [(first, within[:1]) for first, within in units]
        return [u for u in units if u[1]]

    def _make_prompts(
        self,
        events: Sequence[Interaction],
        shown: IntArray,
        units: Sequence[tuple[int, list[int]]],
        user_id: str,
    ) -> Iterator[tuple[EncodedPrompt, int, int]]:
        """Yield a prompt for each target in the given units; see ``prompts``."""
        for first, within in units:
            for i in within:
                prompt = self._encoder.fit(
                    self._template,
                    self.catalog,
                    History(tuple(events[:first]), user_id, events[i].context),
                    events[i].behavior,
                    PromptBudget(
                        min(
                            self._options.max_prompt_tokens,
                            self._options.max_tokens - self._longest,
                        ),
                        self._options.max_events,
                    ),
                    scale=self._options.scale,
                )
                yield prompt, int(self._events.columns.row[shown[i]]), int(shown[i])

    def _divide(
        self, events: Sequence[Interaction], row: IntArray, units: Sequence[tuple[int, list[int]]]
    ) -> Iterator[tuple[int, list[tuple[int, list[int]]]]]:
        """Divide a long history into windows that overlap and fit into one row each.

        Yields:
            The index of the window's first event, and the units whose targets it predicts.
        """
        each = [
            (self._count_shown(r) if r >= 0 else 0) + len(e.text or "") // 2 + _AROUND
            for r, e in zip(row.tolist(), events, strict=True)
        ]
        before = np.concatenate([[0], np.cumsum(each)])
        most = self._options.max_tokens - self._longest - 2 * _AROUND
        start, some = 0, list[tuple[int, list[int]]]()
        for first, within in units:
            full = first - start > self._options.max_events or before[first] - before[start] > most
            if full:
                if some:
                    yield start, some
                start, some = (
                    max(start, first - int(self._options.max_events * self._options.overlap)),
                    [],
                )
                while (
                    start < first and before[first] - before[start] > most * self._options.overlap
                ):
                    start += 1
            some.append((first, within))
        if some:
            yield start, some

    def _count_shown(self, item: int) -> int:
        """Return the approximate number of tokens of an item in a history, with its attributes."""
        shown = self._template.write_attributes(self.catalog, item)
        return len(self._titles[item]) + len(shown) // 2

    def _make_prompt_row(self, prompt: EncodedPrompt, item: int, event: int) -> Row:
        """Create the row of one target from its prompt; see ``prompts``."""
        return self._make_row(prompt.ids, [_Target(len(prompt.ids), (), item, event, True)])

    def _make_window_rows(
        self,
        events: Sequence[Interaction],
        shown: IntArray,
        start: int,
        units: Sequence[tuple[int, list[int]]],
    ) -> Iterator[Row]:
        """Yield the rows of one window, whose trunk ends with the first title of the last unit.

        Args:
            events: all events of the user.
            shown: the indices of these events among all events of the data.
            start: the index of the window's first event.
            units: the units to predict; see ``_find_units``.
        """
        last = units[-1][0]
        ids, ends = self._encode_trunk(events[start : last + 1])
        row = self._events.columns.row
        targets = []
        for first, within in units:
            for i in within:
                limit, head = ends[first - start], tuple[int, ...]()
                own = i == first
                if not own and (
                    events[i].behavior != events[first].behavior
                    or events[first].item_id is None
                    or events[i].context != events[first].context
                ):
                    known = self._encode_before(events[start:first], events[i]).ids
                    limit = shared_start([ids, known])
                    head = known[limit:]
                targets.append(_Target(limit, head, int(row[shown[i]]), int(shown[i]), own))
        yield from self._split_rows(ids, targets)

    def _encode_before(self, events: Sequence[Interaction], target: Interaction) -> EncodedPrompt:
        """Encode the prompt for these events and a next event to predict."""
        rendered = self._template.render(
            self.catalog,
            History(tuple(events), context=target.context),
            target.behavior,
            form=self._encoder.form,
            scale=self._options.scale,
        )
        return self._encoder.prompt(rendered)

    def _encode_trunk(self, events: Sequence[Interaction]) -> tuple[tuple[int, ...], list[int]]:
        """Encode a window of events as a prompt that ends before the title of its last event.

        Returns:
            The token ids, and the index of each event's title in them. The index is 0 for an event
            without an item.
        """
        rendered = self._template.render(
            self.catalog,
            History(tuple(events[:-1]), context=events[-1].context),
            events[-1].behavior,
            form=self._encoder.form,
            scale=self._options.scale,
        )
        encoded = self._encoder.prompt(rendered)
        ends = [0] * len(events)
        place = 0
        for segment, (first, stop) in zip(encoded.prompt.segments, encoded.bounds, strict=True):
            if segment.event is not None:
                ends[segment.event] = first
            place = stop
        if place != len(encoded.ids):
            msg = (
                f"Template {self._template.name!r} has text after the target. Expected the target "
                "at the end of the template."
            )
            raise PromptError(msg)
        ends[-1] = len(encoded.ids)
        for i, event in enumerate(events[:-1]):
            if event.item_id is None:  # it has no title; titles of its unit branch off elsewhere
                ends[i] = 0
        return encoded.ids, ends

    def _split_rows(self, ids: tuple[int, ...], targets: Sequence[_Target]) -> Iterator[Row]:
        """Distribute targets over rows with the same trunk and at most ``max_tokens`` tokens."""
        some, size = list[_Target](), len(ids) + self._longest
        for target in targets:
            more = 0 if target.in_trunk else len(target.head) + self._count_read(target.item)
            if some and size + more > self._options.max_tokens:
                yield self._make_row(ids, some)
                some, size = [], max(t.limit for t in targets) + self._longest
            some.append(target)
            size += more
        if some:
            yield self._make_row(ids, some)

    def _count_read(self, item: int) -> int:
        """Return the number of tokens of an item's title that a row must include."""
        return (
            len(self._titles[item]) if self._options.whole_titles else int(self._paths.needed[item])
        )

    def _make_row(self, ids: tuple[int, ...], targets: Sequence[_Target]) -> Row:
        """Create a row from the tokens of the trunk and the targets.

        The trunk is cut after the last token that a target needs.
        """
        n = max(t.limit for t in targets)
        trunk = list(ids[:n])
        for t in targets:
            if t.in_trunk and t.limit == n:  # the trunk ends with this title
                trunk += self._titles[t.item][: self._count_read(t.item)]
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
            run = [*t.head, *self._titles[t.item][: self._count_read(t.item)]]
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


def pack_rows(rows: Sequence[Row], most: int) -> list[list[int]]:
    """Divide rows into packs of at most ``most`` tokens by first-fit decreasing (Johnson 1973).

    A row with more than ``most`` tokens gets a pack of its own.

    Returns:
        For each pack, the indices of its rows.
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


def make_rows(
    maker: RowMaker,
    events: Interactions,
    shown: BoolArray,
    wanted: BoolArray,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Create the training rows of all users.

    Args:
        maker: the object that creates the rows of one user.
        events: the events of all users.
        shown: a mask over all events that is True for events that appear in histories.
        wanted: a mask over all events that is True for events that are targets.
        progress: a function that is called after every 1,000 users with the number of users done.
    """
    rows: list[Row] = []
    for done, user in enumerate(events.user_ids, start=1):
        where = events.events(user)
        places = where.start + np.flatnonzero(shown[where])
        if len(places):
            rows += maker.rows(user, places, wanted[places])
        if done % 1000 == 0:
            progress(done)
    return rows
