"""Histories that people type, in any of the ways in which they type them. Knows texts and items.

"bought: A; viewed: B", "The user browsed A, bought B, and next they will buy", "浏览商品A 购买商品B",
or bare lists of ids and titles. Titles may hold separators and verbs themselves, so whole titles are
looked for before a text is taken apart.
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
from genrec.matching.matcher import Match, TextMatcher
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
_JOIN = 4  # a title may itself hold up to three separators
_MOST_CUTS = 24  # the most cuts inside one title
LONGEST = 20_000  # characters of a typed history; the prompt shows 25 events of it


@dataclass(frozen=True, slots=True)
class Understood:
    """What became of one piece of a typed history.

    Attributes:
        text: the piece as typed.
        behavior: what was done.
        item_id: the item, None where no title matched.
        title: the item's title as given.
        match: ``id``, ``exact``, ``normalized``, ``fuzzy``, ``embedding``, ``ngrams``, ``text`` for
            an event that is only a text (a search), or ``none``.
        others: further items with the same title.
        similarity: of the title to what was typed, 0 to 1.
        value: a rating or quantity that was typed after the title.
        note: a text that was typed with it (a search, a comment).
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


class HistoryReader:
    """Reads typed histories: ids, titles, or text such as ``"bought: A; viewed: B"``."""

    def __init__(
        self,
        catalog: Catalog,
        verbs: Mapping[str, Sequence[str]],
        default: str,
        matcher: TextMatcher | None = None,
    ) -> None:
        """Prepares the reader.

        Args:
            catalog: the items.
            verbs: behavior -> how it is said; the name and all forms are understood. Another verb
                with a colon before a title that matches becomes a behavior of its own name.
            default: the behavior where none is given.
            matcher: finds titles; one without an encoder where None.
        """
        self._catalog = catalog
        self._matcher = matcher or TextMatcher(catalog)
        self._default = default
        self._behavior = {normalized(said): b for b, forms in verbs.items() for said in forms}
        self._behavior |= {normalized(b): b for b in verbs}
        self._behavior.pop("", None)
        self._leading = _leading(list(self._behavior))

    def read(self, history: str | Sequence[str]) -> tuple[History, list[Understood]]:
        """The history of the pieces that match an item, and what became of every piece.

        Args:
            history: text with ``;``, line breaks, commas or verbs between events, or a list of ids
                or titles, each with or without a verb before it.

        Raises:
            RequestError: a text is longer than ``LONGEST``.
        """
        if isinstance(history, str) and len(history) > LONGEST:
            msg = (
                f"A typed history of {len(history):,} characters. Expected at most {LONGEST:,}; "
                "give a list of item ids or titles, or a user of a dataset."
            )
            raise RequestError(msg)
        pieces = _PIECE.split(history) if isinstance(history, str) else list(history)
        pieces = [p.strip() for p in pieces]
        understood: list[Understood] = []
        at = 0
        while at < len(pieces):
            if not pieces[at]:
                at += 1
                continue
            taken, found = self._longest(pieces[at : at + _JOIN], isinstance(history, str))
            understood.extend(found)
            at += taken
        events = tuple(
            Interaction(u.item_id, u.behavior, timestamp=float(n), value=u.value, text=u.note)
            for n, u in enumerate(understood)
            if u.match != "none"
        )
        return History(events), understood

    def _longest(self, pieces: Sequence[str], text: bool) -> tuple[int, list[Understood]]:
        """The first pieces that together name an item; titles may hold separators themselves."""
        alone = self._whole(pieces[0])
        if alone is not None:
            return 1, [alone]
        for n in range(len(pieces) if text else 1, 1, -1):
            joined = self._whole("; ".join(pieces[:n]))
            if joined is not None:
                return n, [joined]
        return 1, self._apart(pieces[0]) if text else [self._near(pieces[0], self._default)]

    def _whole(self, piece: str) -> Understood | None:
        """A piece that is one title, with or without a verb and a colon, by exact matching."""
        found = self._lookup(piece, piece, self._default, near=False)
        if found.item_id is not None:
            return found
        behavior, title = self._after_verb(piece)
        if behavior is None:
            return None
        if self._is_search(behavior):
            return self._said(piece, behavior, title)
        found = self._lookup(piece, title, behavior, near=False)
        return found if found.item_id is not None else None

    def _apart(self, piece: str) -> list[Understood]:
        """The events of a piece that is no title: known titles first, then what is between them."""
        piece = _GAVE.sub(r"评价了\1，\2分，", " ".join(piece.split()))
        trimmed = _REQUEST.sub("", piece).strip(_TRIM)
        piece = trimmed or piece
        cuts = self._cuts(piece)
        found: list[Understood] = []
        for start, stop, title in self._titles_in(piece, cuts):
            if title is not None:
                found.append(self._inherited(title, found))
                continue
            for part in self._parts(piece[start:stop]):
                self._take(part, found)
        return found or [self._near(piece, self._default)]

    def _take(self, part: str, found: list[Understood]) -> None:
        """Adds what a stretch without a known title says: a value, a comment, or an event."""
        value = _VALUE.fullmatch(part)
        if value is not None and found:
            number = float(value[1])
            found[-1] = replace(found[-1], value=number if isfinite(number) else None)
            return
        bare = _without_filler(part)
        for verb in _WROTE:
            rest = bare[len(verb) :].strip(" :：") if bare.lower().startswith(verb) else ""
            quoted = _QUOTED.match(rest)
            if quoted is not None and found:
                found[-1] = replace(found[-1], note=quoted[1])
                return
        if not normalized(bare):
            return
        found.append(self._inherited(self._near(bare, ""), found))

    def _inherited(self, event: Understood, before: Sequence[Understood]) -> Understood:
        """An event without a verb of its own does as the one before it in the same piece."""
        if event.behavior:
            return event
        return replace(event, behavior=before[-1].behavior if before else self._default)

    def _cuts(self, piece: str) -> list[int]:
        """Places at which an event may begin or end: separators, verbs, spaces beside Han."""
        cuts = {0, len(piece)}
        for separator in _COMMA.finditer(piece):
            cuts |= {separator.start(), separator.end()}
        if self._leading is not None:
            cuts |= {verb.start() for verb in self._leading.finditer(piece)}
        for value in _VALUE.finditer(piece):
            cuts |= {value.start(), value.end()}
        for at, character in enumerate(piece):
            if character.isspace() and any(
                script(c) not in {"", "latin"} for c in piece[max(0, at - 1) : at + 2]
            ):
                cuts |= {at, at + 1}
        return sorted(cuts)

    def _titles_in(
        self, piece: str, cuts: Sequence[int]
    ) -> list[tuple[int, int, Understood | None]]:
        """The stretches of a piece, as titles or not: those by which most letters are explained."""
        known: dict[str, Understood | None] = {"": None}
        best: list[float] = [0.0] * len(cuts)
        choice: list[tuple[int, Understood | None]] = [(0, None)] * len(cuts)
        for j in range(1, len(cuts)):
            best[j], choice[j] = best[j - 1], (j - 1, None)
            for i in range(max(0, j - _MOST_CUTS), j):
                part = piece[cuts[i] : cuts[j]].strip(_TRIM)
                if part not in known:
                    known[part] = self._title(part)
                found = known[part]
                if found is None:
                    continue
                gain = best[i] + len(normalized(found.title or "")) - 0.5  # few long ones win
                if gain > best[j]:
                    best[j], choice[j] = gain, (i, found)
        stretches: list[tuple[int, int, Understood | None]] = []
        j = len(cuts) - 1
        while j > 0:
            i, found = choice[j]
            if found is None and stretches and stretches[-1][2] is None:
                stretches[-1] = (cuts[i], stretches[-1][1], None)
            else:
                stretches.append((cuts[i], cuts[j], found))
            j = i
        return stretches[::-1]

    def _title(self, part: str) -> Understood | None:
        """A stretch that is a title as it stands, with or without a verb; behavior '' if without."""
        bare = _without_filler(part)
        for text in dict.fromkeys((part, bare)):
            found = self._lookup(part, text, "", near=False)
            if found.item_id is not None:
                return found
        behavior, title = self._after_verb(bare)
        if behavior is None or self._is_search(behavior):
            return None
        found = self._lookup(part, title, behavior, near=False)
        return found if found.item_id is not None else None

    def _parts(self, stretch: str) -> list[str]:
        """A stretch without known titles, cut at separators, and at verbs unless a title is near."""
        parts: list[str] = []
        for part in _COMMA.split(stretch):
            part = (part or "").strip(_TRIM)
            if not part:
                continue
            bare = _without_filler(part)
            starts = [m.start() for m in self._leading.finditer(part)] if self._leading else []
            starts = [s for s in starts if s > len(part) - len(bare)]
            behavior, title = self._after_verb(bare)
            near = self._matcher.match(title if behavior else part, semantic=False)
            if near.rows or not starts:
                parts.append(part)
                continue
            bounds = [0, *starts, len(part)]
            cut = [part[a:b].strip(_TRIM) for a, b in pairwise(bounds)]
            parts.extend(c for c in cut if c)
        return parts

    def _near(self, piece: str, default: str) -> Understood:
        """A piece that is no known title, by nearness."""
        behavior, title = self._after_verb(piece)
        if behavior is not None and self._is_search(behavior):
            return self._said(piece, behavior, title)
        if behavior is not None:
            quoted = _QUOTED.match(title)
            found = self._lookup(piece, quoted[1] if quoted else title, behavior, near=True)
            if found.item_id is not None or normalized(behavior) in self._behavior:
                return found
        return self._lookup(piece, piece, default, near=True)

    def _is_search(self, behavior: str) -> bool:
        return behavior == "search"

    def _said(self, piece: str, behavior: str, text: str) -> Understood:
        """An event that is a text only."""
        quoted = _QUOTED.match(text.strip())
        said = (quoted[1] if quoted else text).strip()
        if not normalized(said):
            return Understood(piece, behavior, None, None, "none", (), 0.0)
        return Understood(piece, behavior, None, None, "text", note=said)

    def _after_verb(self, piece: str) -> tuple[str | None, str]:
        """The behavior that a piece begins with and what follows; None where it begins with none."""
        split = _VERB.match(piece)
        if split is not None:
            verb = normalized(_without_filler(split[1]))
            if verb in self._behavior or (verb and not _COMMA.search(split[1])):
                return self._behavior.get(verb, verb), split[2].strip()
        verb_first = self._leading.match(piece) if self._leading is not None else None
        if verb_first is None:
            return None, piece
        behavior = self._behavior[normalized(verb_first[0])]
        return behavior, piece[verb_first.end() :].strip(" :：")

    def _lookup(self, piece: str, title: str, behavior: str, *, near: bool) -> Understood:
        if title in self._catalog:
            item = self._catalog[self._catalog.row(title)]
            return Understood(piece, behavior, item.item_id, item.title, "id")
        match = self._matcher.match(title) if near else self._exact(title)
        similarity = round(match.similarity, 4)
        if not match.rows:
            return Understood(piece, behavior, None, None, "none", (), similarity)
        item = self._catalog[match.rows[0]]
        others = tuple(self._catalog[r].item_id for r in match.rows[1:])
        return Understood(piece, behavior, item.item_id, item.title, match.how, others, similarity)

    def _exact(self, title: str) -> Match:
        return self._matcher.match(title, fuzzy=False)


def _without_filler(text: str) -> str:
    """A text without words such as "the user" or "then" at its start."""
    while True:
        shorter = _FILLER.sub("", text, count=1).strip(_TRIM)
        if shorter == text or not shorter:
            return text
        text = shorter


def _leading(verbs: Sequence[str]) -> re.Pattern[str] | None:
    """Matches a verb at which an event may begin: a word of its own, or anywhere in Han."""
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
