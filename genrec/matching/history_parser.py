"""Parse histories that users type as text in various notations.

Examples are "bought: A; viewed: B", "The user browsed A, bought B, and next they will buy",
"浏览商品A 购买商品B", and plain lists of ids and titles. A title may itself contain separators and
verbs, so complete titles are looked up before a text is split. This module deals with texts and
items, not with stored users.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite

from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.errors import RequestError
from genrec.matching.matcher import TextMatcher
from genrec.text import normalized, script

_PIECE = re.compile(r"[;；\n]")
_VERB = re.compile(r"^\s*([^:：]{1,40})[:：]\s*(.*)$", re.DOTALL)
_COMMA = re.compile(r"[,，、。|→]|->|(?<![^\s,，]),?\s*\b(?:and|then)\s+(?=\S)", re.IGNORECASE)
_QUOTED = re.compile(r"^[\"'“‘”「『](.*)[\"'”’“」』]$", re.DOTALL)
_VALUE = re.compile(
    r"[(（]?(?<![\d.])(\d+(?:\.\d+)?)\s*(?:/\s*\d+(?:\.\d+)?|(?:分钟|分|件|次|星|stars?|pcs|min|times)(?!\w))\s*[)）]?",
    re.IGNORECASE,
)
_GAVE = re.compile(r"给(.{1,200}?)打了?(\d+(?:\.\d+)?)分")
_FILLER = re.compile(
    r"^(?:(?:(?:the|a)\s+)?(?:user|customer)|i|we|they|he|she|and|then|also|first|next)\b[\s,:]*"
    r"|^(?:用户|顾客|客户|然后|接着|之后|随后|并且|最近|我|他|她|又|还|并|先|再)",
    re.IGNORECASE,
)
_REQUEST = re.compile(
    r"(?:\b(?:and\s+)?(?:next\b,?\s*)?(?:(?:the\s+)?(?:user|customer)|they|i|he|she)\s+will\b[\w\s]{0,30}"
    r"|\b(?:and\s+)?next\s*[:：?]?|接下来.{0,8}|下一步.{0,8})[:：?？.。…\s]*$",
    re.IGNORECASE,
)
_WROTE = ("wrote", "写道", "评论说", "说")
_TRIM = " \t,，、。|"
_JOIN = 4  # maximum number of pieces that are joined to form one title
_MOST_CUTS = 24  # maximum number of adjacent stretches of text that are joined to form one title
LONGEST = 20_000  # maximum number of characters in a typed history
DESCRIBED = 5  # maximum number of pieces for which similar titles are looked up and shown


@dataclass(frozen=True, slots=True)
class Understood:
    """A piece of a typed history, and the event that it describes according to the parser.

    Attributes:
        text: the piece as the user typed it.
        behavior: the event's behavior, such as ``buy``.
        item_id: the item's id; None if no item matched.
        title: the item's title, as written in the catalog; None if no item matched.
        match: how the item was found: ``id`` for a match by id; ``exact``, ``normalized`` or
            ``fuzzy`` for a match by the spelling of its title; ``embedding`` or ``ngrams`` for a
            match by similarity; ``none`` if no item matched; and ``text`` for an event without an
            item, such as a search.
        others: ids of other items with the same title.
        similarity: similarity of the title to the typed text, from 0 to 1.
        value: rating or quantity typed with the title; None if there is none.
        note: text that belongs to the event, such as a search query or a comment; None if there is
            none.
        suggestions: titles in the catalog that are similar to the text, most similar first; empty
            if the text was understood.
    """

    text: str
    behavior: str
    item_id: str | None
    title: str | None
    match: str
    others: tuple[str, ...] = ()
    similarity: float = 1.0
    value: float | None = None
    note: str | None = None
    suggestions: tuple[str, ...] = ()


def check_length(history: object) -> None:
    """Check that a typed history is not too long.

    Raises:
        RequestError: the text has more than ``LONGEST`` characters.
    """
    if isinstance(history, str) and len(history) > LONGEST:
        msg = (
            f"The typed history has {len(history):,} characters. Expected at most "
            f"{LONGEST:,}; pass a list of item ids or titles, or a user of a dataset."
        )
        raise RequestError(msg)


class HistoryParser:
    """A parser that turns a typed history, such as ``"bought: A; viewed: B"``, into events."""

    def __init__(
        self,
        catalog: Catalog,
        verbs: Mapping[str, Sequence[str]],
        default: str,
        matcher: TextMatcher | None = None,
    ) -> None:
        """Set up the parser.

        Args:
            catalog: the items.
            verbs: the verb forms for each behavior, keyed by the behavior's name. The name itself
                is also recognized as a verb. Any other word that is followed by a colon and a known
                title is treated as the name of a behavior.
            default: the behavior to assume for events without a verb.
            matcher: the matcher that finds titles; None to use a matcher without an encoder.
        """
        self._catalog = catalog
        self._matcher = matcher or TextMatcher(catalog)
        self._default = default
        self._behavior = {normalized(said): b for b, forms in verbs.items() for said in forms}
        self._behavior |= {normalized(b): b for b in verbs}
        self._behavior.pop("", None)
        self._verb_pattern = _compile_verbs(list(self._behavior))

    def read(self, history: str | Sequence[str]) -> tuple[History, list[Understood]]:
        """Parse a typed history into events.

        Args:
            history: a text in which ``;``, line breaks, commas or verbs separate the events; or a
                list of ids or titles, each of which may be preceded by a verb.

        Returns:
            A history of all events that were understood, and a description of every piece,
            including those that were not understood.

        Raises:
            RequestError: the text has more than ``LONGEST`` characters.
        """
        check_length(history)
        pieces = _PIECE.split(history) if isinstance(history, str) else list(history)
        pieces = [p.strip() for p in pieces]
        understood: list[Understood] = []
        at = 0
        while at < len(pieces):
            if not pieces[at]:
                at += 1
                continue
            taken, events = self._read_first(pieces[at : at + _JOIN], isinstance(history, str))
            understood.extend(events)
            at += taken
        for place in [n for n, u in enumerate(understood) if u.match == "none"][:DESCRIBED]:
            _, title = self._split_verb(understood[place].text)
            such = self._matcher.suggest(title or understood[place].text)
            understood[place] = replace(understood[place], suggestions=such)
        history_events = tuple(
            Interaction(u.item_id, u.behavior, timestamp=float(n), value=u.value, text=u.note)
            for n, u in enumerate(understood)
            if u.match != "none"
        )
        return History(history_events), understood

    def _read_first(self, pieces: Sequence[str], text: bool) -> tuple[int, list[Understood]]:
        """Parse the first piece, together with the next ones if they belong to the same title.

        Args:
            pieces: the next pieces. A title that contains separators may span several of them.
            text: True if the pieces come from a single text, so that they may be joined and split.

        Returns:
            The number of pieces that were parsed, and their events.
        """
        alone = self._match_whole(pieces[0])
        if alone is not None:
            return 1, [alone]
        for n in range(len(pieces) if text else 1, 1, -1):
            joined = self._match_whole("; ".join(pieces[:n]))
            if joined is not None:
                return n, [joined]
        if text:
            return 1, self._split_events(pieces[0])
        return 1, [self._match_nearest(pieces[0], self._default)]

    def _match_whole(self, piece: str) -> Understood | None:
        """Match a piece that consists of a single id or title, possibly after a verb.

        The result is None if the piece does not have this form. The verb "search" may be followed
        by any text.
        """
        event = self._lookup(piece, piece, self._default, near=False)
        if event.item_id is not None:
            return event
        behavior, title = self._split_verb(piece)
        if behavior is None:
            return None
        if self._is_search(behavior):
            return self._text_event(piece, behavior, title)
        event = self._lookup(piece, title, behavior, near=False)
        return event if event.item_id is not None else None

    def _split_events(self, piece: str) -> list[Understood]:
        """Split a piece of text into events.

        Known titles are found first. The text between them is then split at separators and verbs.
        """
        piece = _GAVE.sub(r"评价了\1，\2分，", " ".join(piece.split()))
        trimmed = _REQUEST.sub("", piece).strip(_TRIM)
        piece = trimmed or piece
        cuts = self._find_cuts(piece)
        events: list[Understood] = []
        for start, stop, title in self._find_titles(piece, cuts):
            if title is not None:
                events.append(self._inherit_behavior(title, events))
                continue
            for part in self._split_stretch(piece[start:stop]):
                self._add_part(part, events)
        return events or [self._match_nearest(piece, self._default)]

    def _add_part(self, part: str, events: list[Understood]) -> None:
        """Interpret a part of the text that contains no known title, and update the list of events.

        The part may be a value or a comment that belongs to the last event, or it may be a new
        event.

        Args:
            part: the text of the part.
            events: the events so far, which are modified in place.
        """
        value = _VALUE.fullmatch(part)
        if value is not None and events:
            number = float(value[1])
            events[-1] = replace(events[-1], value=number if isfinite(number) else None)
            return
        bare = _strip_filler(part)
        for verb in _WROTE:
            rest = bare[len(verb) :].strip(" :：") if bare.lower().startswith(verb) else ""
            quoted = _QUOTED.match(rest)
            if quoted is not None and events:
                events[-1] = replace(events[-1], note=quoted[1])
                return
        if not normalized(bare):
            return
        events.append(self._inherit_behavior(self._match_nearest(bare, ""), events))

    def _inherit_behavior(self, event: Understood, before: Sequence[Understood]) -> Understood:
        """Give an event without a verb the behavior of the last event before it.

        Args:
            event: the event, whose behavior is '' if it has no verb.
            before: the earlier events in the same piece of text. If there are none, the event gets
                the default behavior.
        """
        if event.behavior:
            return event
        return replace(event, behavior=before[-1].behavior if before else self._default)

    def _find_cuts(self, piece: str) -> list[int]:
        """List the positions in a text at which an event may begin or end, in ascending order.

        These are the positions of separators, verbs and values, and of spaces next to non-Latin
        characters.
        """
        cuts = {0, len(piece)}
        for separator in _COMMA.finditer(piece):
            cuts |= {separator.start(), separator.end()}
        if self._verb_pattern is not None:
            cuts |= {verb.start() for verb in self._verb_pattern.finditer(piece)}
        for value in _VALUE.finditer(piece):
            cuts |= {value.start(), value.end()}
        for at, character in enumerate(piece):
            if character.isspace() and any(
                script(c) not in {"", "latin"} for c in piece[max(0, at - 1) : at + 2]
            ):
                cuts |= {at, at + 1}
        return sorted(cuts)

    def _find_titles(
        self, piece: str, cuts: Sequence[int]
    ) -> list[tuple[int, int, Understood | None]]:
        """Split a text into titles and other stretches, so that titles cover most of it.

        Args:
            piece: the text.
            cuts: positions at which a title may begin or end, in ascending order.

        Returns:
            The stretches in order. Each is a tuple of its start, its end and its event, which is
            None if the stretch is not a title.
        """
        known: dict[str, Understood | None] = {"": None}
        best: list[float] = [0.0] * len(cuts)
        choice: list[tuple[int, Understood | None]] = [(0, None)] * len(cuts)
        for j in range(1, len(cuts)):
            best[j], choice[j] = best[j - 1], (j - 1, None)
            for i in range(max(0, j - _MOST_CUTS), j):
                part = piece[cuts[i] : cuts[j]].strip(_TRIM)
                if part not in known:
                    known[part] = self._match_title(part)
                event = known[part]
                if event is None:
                    continue
                # The penalty of 0.5 per title favors a few long titles.
                gain = best[i] + len(normalized(event.title or "")) - 0.5
                if gain > best[j]:
                    best[j], choice[j] = gain, (i, event)
        stretches: list[tuple[int, int, Understood | None]] = []
        j = len(cuts) - 1
        while j > 0:
            i, event = choice[j]
            if event is None and stretches and stretches[-1][2] is None:
                stretches[-1] = (cuts[i], stretches[-1][1], None)
            else:
                stretches.append((cuts[i], cuts[j], event))
            j = i
        return stretches[::-1]

    def _match_title(self, part: str) -> Understood | None:
        """Match a stretch of text that consists of one known title, possibly after a verb.

        The result is None if the stretch does not have this form. If there is no verb, the event's
        behavior is ''.
        """
        bare = _strip_filler(part)
        for text in dict.fromkeys((part, bare)):
            event = self._lookup(part, text, "", near=False)
            if event.item_id is not None:
                return event
        behavior, title = self._split_verb(bare)
        if behavior is None or self._is_search(behavior):
            return None
        event = self._lookup(part, title, behavior, near=False)
        return event if event.item_id is not None else None

    def _split_stretch(self, stretch: str) -> list[str]:
        """Split a stretch of text that contains no known title into parts at its separators.

        A part that is not similar to any title is also split at its verbs.
        """
        parts: list[str] = []
        for part in _COMMA.split(stretch):
            part = (part or "").strip(_TRIM)
            if not part:
                continue
            bare = _strip_filler(part)
            verbs = self._verb_pattern.finditer(part) if self._verb_pattern else ()
            starts = [m.start() for m in verbs if m.start() > len(part) - len(bare)]
            behavior, title = self._split_verb(bare)
            near = self._matcher.match(title if behavior else part, semantic=False)
            if near.rows or not starts:
                parts.append(part)
                continue
            bounds = [0, *starts, len(part)]
            cut = [part[a:b].strip(_TRIM) for a, b in pairwise(bounds)]
            parts.extend(c for c in cut if c)
        return parts

    def _match_nearest(self, piece: str, default: str) -> Understood:
        """Find the title that is most similar to a text that is not itself a known title.

        Args:
            piece: the text, which may start with a verb.
            default: the behavior of the event if the text has no verb.
        """
        behavior, title = self._split_verb(piece)
        if behavior is not None and self._is_search(behavior):
            return self._text_event(piece, behavior, title)
        if behavior is not None:
            quoted = _QUOTED.match(title)
            event = self._lookup(piece, quoted[1] if quoted else title, behavior, near=True)
            if event.item_id is not None or normalized(behavior) in self._behavior:
                return event
        return self._lookup(piece, piece, default, near=True)

    def _is_search(self, behavior: str) -> bool:
        """Check whether a behavior is a search, which has a text but no item."""
        return behavior == "search"

    def _text_event(self, piece: str, behavior: str, text: str) -> Understood:
        """Build an event that has a text but no item, such as a search.

        Args:
            piece: the piece as the user typed it.
            behavior: the event's behavior.
            text: the text of the event, which may be in quotes.
        """
        quoted = _QUOTED.match(text.strip())
        note = (quoted[1] if quoted else text).strip()
        if not normalized(note):
            return Understood(piece, behavior, None, None, "none", (), 0.0)
        return Understood(piece, behavior, None, None, "text", note=note)

    def _split_verb(self, piece: str) -> tuple[str | None, str]:
        """Split a text into the behavior that its first verb expresses and the text after the verb.

        The behavior is None if the text does not begin with a verb.
        """
        split = _VERB.match(piece)
        if split is not None:
            verb = normalized(_strip_filler(split[1]))
            if verb in self._behavior or (verb and not _COMMA.search(split[1])):
                return self._behavior.get(verb, verb), split[2].strip()
        verb_first = self._verb_pattern.match(piece) if self._verb_pattern is not None else None
        if verb_first is None:
            return None, piece
        behavior = self._behavior[normalized(verb_first[0])]
        return behavior, piece[verb_first.end() :].strip(" :：")

    def _lookup(self, piece: str, title: str, behavior: str, *, near: bool) -> Understood:
        """Look up an item by its id or title.

        Args:
            piece: the piece as the user typed it.
            title: the part of the piece that may be an id or a title.
            behavior: the event's behavior.
            near: True to also accept a title that is only similar.
        """
        if title in self._catalog:
            item = self._catalog[self._catalog.row(title)]
            return Understood(piece, behavior, item.item_id, item.title, "id")
        match = self._matcher.match(title, fuzzy=near)
        similarity = round(match.similarity, 4)
        if not match.rows:
            return Understood(piece, behavior, None, None, "none", (), similarity)
        item = self._catalog[match.rows[0]]
        others = tuple(self._catalog[r].item_id for r in match.rows[1:])
        return Understood(piece, behavior, item.item_id, item.title, match.how, others, similarity)


def _strip_filler(text: str) -> str:
    """Remove words such as "the user" or "then" from the start of a text."""
    while True:
        shorter = _FILLER.sub("", text, count=1).strip(_TRIM)
        if shorter == text or not shorter:
            return text
        text = shorter


def _compile_verbs(verbs: Sequence[str]) -> re.Pattern[str] | None:
    """Compile a pattern that finds the verbs that may begin an event.

    Latin verbs match only whole words. In other scripts, verbs of several characters match
    anywhere, and verbs of one character match only at the start of a word.

    Args:
        verbs: normalized verb forms.

    Returns:
        The pattern, or None if there are no verbs.
    """
    alternatives = []
    for verb in sorted(verbs, key=len, reverse=True):
        escaped = re.escape(verb).replace(r"\ ", r"\s+")
        if script(verb[0]) in {"", "latin"}:
            alternatives.append(rf"(?<!\w){escaped}(?![\w-])")
        elif len(verb) > 1:
            alternatives.append(escaped)
        else:
            alternatives.append(rf"(?<!\w){escaped}")
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None
