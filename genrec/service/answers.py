"""Describe what the service answers, for the OpenAPI document.

The answers are those of the library as JSON, so these models name their most important fields and
allow the others. docs/reference/outputs.md describes all fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from genrec.service.problems import MEDIA_TYPE, TITLES


class Answer(BaseModel):
    """The base of all answers."""

    model_config = ConfigDict(extra="allow")


class RecommendationOut(Answer):
    """A recommended item."""

    rank: int
    item_id: str
    title: str
    score: float
    logprob: float | None = None
    logprob_model: float | None = None
    logprob_prior: float | None = None
    propensity: float | None = None


class ListOut(Answer):
    """A list, as `RecommendationList.to_dict` describes it; or several, under `rails`."""

    schema_version: int
    recommendations: list[RecommendationOut] = []
    rails: dict[str, Any] = {}
    notes: list[str] = []
    list_id: str | None = None
    run: str | None = None
    scenario: str | None = None
    fallback: str | None = None
    experiment: str | None = None
    arm: str | None = None
    session_id: str | None = None


class BatchOut(Answer):
    """The answers to several requests, in their order; each is a list or a problem."""

    schema_version: int
    answers: list[dict[str, Any]]


class ChatOut(Answer):
    """The answer to a turn of a conversation, as `ChatAnswer.to_dict` describes it."""

    schema_version: int
    sentence: str
    questions: list[dict[str, Any]]
    turn: dict[str, Any] | None
    query: dict[str, Any]
    mentioned: list[str]
    notes: list[str]
    run: str


class SimilarOut(Answer):
    """Similar items, as `SimilarList.to_dict` describes them."""

    schema_version: int
    given: list[dict[str, Any]]
    similar: list[dict[str, Any]]
    notes: list[str]


class ExplanationOut(Answer):
    """An explanation, as `ItemExplanation.to_dict` describes it."""

    schema_version: int
    item_id: str
    title: str
    rank: int | None
    explanation: dict[str, Any]


class PromptOut(Answer):
    """The text that the model reads, in pieces; `event` is the index of an event in the prompt."""

    schema_version: int
    pieces: list[dict[str, Any]]
    events: int
    tokens: int
    run: str


class FeedbackOut(Answer):
    """The receipt of events that are now on the disk."""

    accepted: int
    sequences: list[int]
    repeated: bool


class ItemOut(Answer):
    """An item and whether it can be recommended: `available`, `removed` or `blocked`."""

    item_id: str
    title: str
    attributes: dict[str, Any]
    state: str


class ItemsOut(Answer):
    """A page of items. `next` is the value of `after` for the next page."""

    items: list[ItemOut]
    next: str | None


class UserOut(Answer):
    """A user's labels and events, oldest first. Events that came after the dataset have a `sequence`."""

    user_id: str
    labels: dict[str, Any]
    events: int
    history: list[dict[str, Any]]


class UsersOut(Answer):
    """A page of user ids. `next` is the value of `after` for the next page."""

    users: list[str]
    next: str | None


class LabelsOut(Answer):
    """The labels of a user."""

    user_id: str
    labels: dict[str, Any]


class EditsOut(Answer):
    """The corrections of a user's profile."""

    user_id: str
    edits: dict[str, Any]


class ProfileOut(Answer):
    """A user's profile, as `Profile.to_dict` describes it."""

    schema_version: int
    user_id: str | None
    events: int
    interests: list[dict[str, Any]]
    edits: dict[str, Any]
    text: dict[str, str]


class NeighborsOut(Answer):
    """Users whose items resemble those of a user, most similar first."""

    schema_version: int
    user_id: str
    neighbors: list[dict[str, Any]]
    notes: list[str]


class DeletedOut(Answer):
    """The number of events that were deleted."""

    events: int


class ProblemOut(Answer):
    """Problem details as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str


_MODELS: Mapping[str, type[BaseModel]] = {
    "list": ListOut, "batch": BatchOut, "search": ListOut, "chat": ChatOut, "similar": SimilarOut,
    "explanation": ExplanationOut, "prompt": PromptOut, "feedback": FeedbackOut, "item": ItemOut, "items": ItemsOut,
    "user": UserOut, "users": UsersOut, "labels": LabelsOut, "profile": ProfileOut, "edits": EditsOut, "neighbors": NeighborsOut, "deleted": DeletedOut, "other": Answer,
}  # fmt: skip
_ALWAYS = (400, 401, 403, 413, 415, 421, 422, 429, 503)


def answers_of(name: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route in FastAPI's form.

    Args:
        name: the name of the successful answer.
        statuses: the statuses of problems beside the usual ones.
    """
    problem = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    found: dict[int | str, dict[str, Any]] = {200: {"model": _MODELS[name]}}
    for status in sorted({*_ALWAYS, *statuses}):
        about = TITLES[status]
        found[status] = {"description": about, "content": {MEDIA_TYPE: problem}}
    return found


ANSWERS = {name: answers_of(name, 404, 405, 409, 504) for name in _MODELS}
