"""Define the route of conversations, which keeps nothing between requests."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from genrec.service import examples
from genrec.service.answers import ANSWERS
from genrec.service.chat_schemas import Chat
from genrec.service.http import StrictRoute, json_response
from genrec.service.service import service_of

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Recommend"])


@router.post("/chat", responses=ANSWERS["chat"], openapi_extra=examples.body("chat"))
async def chat(asked: Chat, request: Request) -> Response:
    """Answer the last turn of a conversation with a list, a sentence, and questions if needed.

    Nothing is kept: the client sends all turns each time, with the items that the answers listed. See
    `Recommender.chat`.
    """
    return json_response(await service_of(request).chat(request, asked))
