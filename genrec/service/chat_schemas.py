"""Define what clients send in a conversation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from genrec.conversation.dialogue import MOST_TURNS, Turn
from genrec.conversation.query import MOST_QUERY
from genrec.service.schemas import ForHistory, Id, Model, Name, Options, Shown

_MOST_SHOWN = 100  # items of a list that a turn repeats


class TurnIn(Model):
    """What one side says."""

    text: Annotated[str, Field(max_length=MOST_QUERY)] = Field("", description="The words.")
    items: Annotated[list[Id], Field(max_length=_MOST_SHOWN)] = Field(
        [], description="The items that an answer listed, best first."
    )
    mine: bool = Field(True, description="True for the turns of the user.")


class Chat(ForHistory, Options, Shown):
    """A conversation, whose last turn is to be answered."""

    turns: Annotated[list[TurnIn], Field(min_length=1, max_length=MOST_TURNS)] = Field(
        description="What was said, oldest first. The last turn is the user's."
    )
    scenario: Name | None = Field(None, description="Named options; see GET /v1/scenarios.")

    @model_validator(mode="after")
    def _has_turns_only(self) -> Chat:
        if self.query is not None:
            raise ValueError("the turns say what is wanted; leave out query")
        if not self.turns[-1].mine:
            raise ValueError("the last turn must be the user's")
        return self

    @property
    def said(self) -> list[Turn]:
        """The turns as the library has them."""
        return [Turn(turn.text, tuple(turn.items), turn.mine) for turn in self.turns]
