"""Keep what somebody wants over the turns of a conversation.

Each turn refines the state: it adds wants, replaces conditions, and leaves items out. A state is a
value that is computed from the turns, so whoever keeps the turns needs to keep nothing else. This
module deals with texts and item ids, not with models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genrec.conversation.contradictions import find_contradictions
from genrec.conversation.query import LIKE, NOT, THIS, Condition, Query, Question, Reference
from genrec.conversation.questions import Asker
from genrec.text import normalized

MOST_TURNS = 200  # turns of a conversation, those of both sides counted
_LATEST = 8  # number of turns whose wants count; older ones are forgotten
_LIKED = 5  # number of items that the wanted ones should be like
_AFRESH = re.compile(
    r"\b(?:start (?:over|again|afresh)|new search|forget (?:it|that|everything|all that)|never ?mind|reset)\b|"
    r"重新开始|从头开始|重来|算了",
    re.IGNORECASE,
)
_INSTEAD = re.compile(r"\binstead(?! of)\b|\brather(?! than)\b|而是|改成|换成", re.IGNORECASE)
_SIDES = {
    "<": "high", "<=": "high", ">": "low", ">=": "low", "between": "both", "==": "both", "in": "value",
    "not in": "refused",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says.

    Attributes:
        text: the words; may be empty if there are items.
        items: the ids of the items that an answer lists, best first; empty for the user's turns.
        mine: True if the user says it.
    """

    text: str = ""
    items: tuple[str, ...] = ()
    mine: bool = True


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What is known after some turns.

    Attributes:
        texts: what the user has said, oldest first.
        wanted: the words that say what is wanted, of the latest turns that have any, oldest first.
        unwanted: the things that are not wanted.
        conditions: the conditions that hold.
        references: the references that hold: items that others should be like, and items to leave out.
        mentioned: the ids of all items that were pointed at, oldest first.
        shown: the ids of the items in the last list.
        focus: the id of the item that was spoken of last; None if there is none.
        count: the number of items asked for; None if nobody said it.
        language: the language of the last turn of the user.
        about: True if all turns only say something about the user.
    """

    texts: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    references: tuple[Reference, ...] = ()
    mentioned: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    focus: str | None = None
    count: int | None = None
    language: str = "en"
    about: bool = False

    def see(self, items: Sequence[str]) -> Dialogue:
        """Return the state after a list was shown."""
        return replace(self, shown=tuple(items), focus=None) if items else self

    def add(self, query: Query) -> Dialogue:
        """Return the state after another turn of the user."""
        if _AFRESH.search(query.text):
            return Dialogue(language=query.language)
        likes = [r for r in query.references if r.kind not in {NOT} and r.item_ids]
        denied = [r for r in query.references if r.kind == NOT and r.item_ids]
        pointed = [i for r in query.references for i in r.item_ids]
        other = _INSTEAD.search(query.text) is not None  # something else is wanted now
        earlier = () if other else self.wanted
        kept_likes = [r for r in self.references if r.kind != NOT and not other]
        kept_denied = [r for r in self.references if r.kind == NOT]
        named = [r for r in likes if r.kind in {LIKE, THIS} or r.place is not None]
        focus = named[-1].item_ids[0] if named else self.focus
        words = {w for text in (query.wanted, *query.accepted) for w in normalized(text).split()}
        wanted = (*earlier, query.wanted) if query.wanted else self.wanted
        return Dialogue(
            texts=(*self.texts, query.text),
            wanted=wanted[-_LATEST:],
            unwanted=tuple(
                dict.fromkeys(
                    [u for u in self.unwanted if not set(normalized(u).split()) <= words]
                    + list(query.unwanted)
                )
            ),
            conditions=_refine(_accept(self.conditions, query.accepted), query.conditions),
            references=(*kept_denied, *denied, *[*kept_likes, *likes][-_LIKED:]),
            mentioned=tuple(dict.fromkeys([*self.mentioned, *pointed])),
            shown=self.shown,
            focus=focus,
            count=self.count if query.count is None else query.count,
            language=query.language,
            about=query.about and (self.about or not self.texts),
        )

    def query(self, questions: Sequence[Question] = ()) -> Query:
        """Return all that is known as one query, with the latest wants first.

        Args:
            questions: what has to be asked back about the last turn.
        """
        return Query(
            text=" ".join(self.texts),
            wanted=". ".join(reversed(self.wanted)),
            unwanted=self.unwanted,
            conditions=self.conditions,
            references=self.references,
            count=self.count,
            questions=tuple(questions),
            language=self.language,
            about=self.about,
        )


def _accept(conditions: Sequence[Condition], accepted: Sequence[str]) -> list[Condition]:
    """Leave out conditions that refuse what is now said to be fine."""
    fine = [set(normalized(text).split()) for text in accepted]
    return [
        c
        for c in conditions
        if c.operator != "not in"
        or not any(set(normalized(str(v)).split()) <= words for v in c.values for words in fine)
    ]


def _refine(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[Condition, ...]:
    """Add new conditions to old ones. Newer ones replace those that say something else of the same."""
    kept = list(old)
    for one in new:
        side = _SIDES.get(one.operator, "other")
        replaced = {side, "both"} if side in {"high", "low"} else {side}
        if side == "both":
            replaced = {"high", "low", "both"}
        if side != "refused":
            kept = [
                c
                for c in kept
                if c.column != one.column or _SIDES.get(c.operator, "other") not in replaced
            ]
        kept = [c for c in kept if c.where != one.where]
        together = [c for c in kept if c.column == one.column]
        if find_contradictions([*together, one], Asker(chinese=False))[1]:
            kept = [c for c in kept if c.column != one.column]
        kept.append(one)
    return tuple(kept)
