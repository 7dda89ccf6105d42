"""Answer a turn of a conversation with a list, a sentence and questions.

The sentence names only items of the catalog, and repeats none of the user's own words except those that
became conditions on columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genrec.conversation.dialogue import MOST_TURNS, Dialogue, Turn
from genrec.conversation.query import Condition, Query, Question, to_plain
from genrec.errors import RequestError
from genrec.pipeline.types import RecommendationList

_NAMED = 3  # maximum number of items that a sentence names
TurnLike = Turn | str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The answer to the last turn of a conversation.

    Attributes:
        sentence: what the list is, in one sentence in the language of the user; empty if there is no
            list.
        questions: what is asked back; empty if everything is clear.
        list: the items; None if nothing is known that a list could be made of, or if no item satisfies
            the conditions.
        understood: what was understood of the last turn; None if it was empty.
        query: all that is known after it.
        mentioned: the ids of the items that the user has pointed at.
    """

    sentence: str
    questions: tuple[Question, ...]
    list: RecommendationList | None
    understood: Query | None
    query: Query
    mentioned: tuple[str, ...] = ()

    @property
    def turn(self) -> Turn:
        """The answer as a turn, to be added to the conversation."""
        items = () if self.list is None else tuple(r.item_id for r in self.list)
        said = " ".join([self.sentence, *(q.question for q in self.questions)]).strip()
        return Turn(said, items, mine=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as a dictionary that can be written as JSON."""
        return {
            "schema_version": 1,
            "sentence": self.sentence,
            "questions": [to_plain(asdict(q)) for q in self.questions],
            "turn": None if self.understood is None else self.understood.to_dict(),
            "query": self.query.to_dict(),
            "mentioned": list(self.mentioned),
            "list": None if self.list is None else self.list.to_dict(),
        }


def read_turns(given: object) -> tuple[Turn, ...]:
    """Read the turns of a conversation.

    Args:
        given: the turns, oldest first: texts and ``Turn`` objects, or mappings with ``text`` and, for the
            turns of the other side, ``items`` and ``mine=False``.

    Raises:
        RequestError: it is no list of turns, there are too many, or the last one is not the user's.
    """
    if isinstance(given, str | Mapping | Turn) or not isinstance(given, Iterable):
        msg = f"turns is a single {type(given).__name__}. Expected a list of turns, oldest first."
        raise RequestError(msg)
    turns = tuple(_read_turn(one) for one in given)
    if len(turns) > MOST_TURNS:
        msg = f"There are {len(turns)} turns. Expected at most {MOST_TURNS}; leave out the oldest."
        raise RequestError(msg)
    if not turns or not turns[-1].mine:
        msg = "The last turn is not the user's. Expected at least one turn, and one of the user at the end."
        raise RequestError(msg)
    return turns


def _read_turn(given: object) -> Turn:
    if isinstance(given, Turn):
        return given
    if isinstance(given, str):
        return Turn(given)
    if isinstance(given, Mapping) and set(given) <= {"text", "items", "mine"}:
        text, items, mine = given.get("text", ""), given.get("items", ()), given.get("mine", True)
        listed = isinstance(items, Sequence) and not isinstance(items, str)
        listed = listed and all(isinstance(item, str) for item in items)
        if isinstance(text, str) and isinstance(mine, bool) and listed:
            return Turn(text, tuple(items), mine)
    msg = (
        f"{given!r:.80} is not a turn. Expected a text, or a mapping with the fields text, items and mine, such "
        "as {'text': 'Here you are.', 'items': ['22720'], 'mine': False}."
    )
    raise RequestError(msg)


def write_sentence(dialogue: Dialogue, answer: RecommendationList) -> str:
    """Say what a list is. Only items of the list are named."""
    chinese = dialogue.language == "zh"
    titles = [r.title for r in answer][:_NAMED]
    said = [describe_condition(c, chinese=chinese) for c in dialogue.conditions]
    explained = answer[0].explanation if len(answer) else None
    reason = "" if explained is None else explained.text
    if chinese:
        what = f"符合条件（{'，'.join(said)}）的" if said else ""
        named = "、".join(f"“{title}”" for title in titles)
        sentence = f"为您找到{len(answer)}件{what}商品，首先是{named}。"
        return sentence + reason
    *most, last = [f'"{title}"' for title in titles]
    named = f"{', '.join(most)} and {last}" if most else last
    what = f" with {' and '.join(said)}" if said else ""
    count = "1 item" if len(answer) == 1 else f"{len(answer)} items"
    first = "" if len(answer) == 1 else ", first"
    sentence = f"Here {'is' if len(answer) == 1 else 'are'} {count}{what}{first or ','} {named}."
    return f"{sentence} {reason}".strip()


def describe_condition(given: Condition, *, chinese: bool) -> str:
    """Describe a condition by its column and its values, as the catalog writes them.

    >>> from genrec.conversation.query import condition
    >>> describe_condition(condition("unit_price", "<", [5.0], "under 5"), chinese=False)
    'unit price below 5'
    """
    column = given.column.replace("_", " ")
    values = [_shown(v) for v in given.values]
    operator = given.operator.removeprefix("not ") if given.operator != "not in" else "not in"
    refused = operator != given.operator
    if operator == "is":
        wants = (given.values[0] is True) != refused
        return (("是" if wants else "不是") if chinese else ("" if wants else "not ")) + column
    if chinese:
        words = {
            "<": "低于", "<=": "不超过", ">": "高于", ">=": "不低于", "between": "在", "==": "为", "in": "为",
            "not in": "不为", "!=": "不为",
        }  # fmt: skip
        joined = f"{'到'.join(values)}之间" if operator == "between" else "或".join(values)
        return f"{'并非' if refused else ''}{column}{words[operator]}{joined}"
    words = {
        "<": "below", "<=": "at most", ">": "above", ">=": "at least", "between": "from", "==": "", "in": "",
        "not in": "other than", "!=": "other than",
    }  # fmt: skip
    joined = " to ".join(values) if operator == "between" else " or ".join(values)
    said = " ".join(word for word in (column, words[operator], joined) if word)
    return f"not {said}" if refused else said


def _shown(value: str | float | bool) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
