"""Offer the routes of single items, users and sessions with the id in the query of the address.

Browsers and proxies change some paths before they send them: ``.`` and ``..`` are taken as steps between
folders, and ``%2F`` as a slash. A query is left alone, so every id of a dataset works here.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator

from genrec.data.catalog import LONGEST_ID
from genrec.service import examples, routes_data, routes_lists, routes_users
from genrec.service.answers import ANSWERS, answers_of
from genrec.service.http import StrictRoute
from genrec.service.schemas import ItemIn, ItemPatch, Labels, check_id

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Data"])

Id = Annotated[
    str,
    Query(min_length=1, max_length=LONGEST_ID, description="The id."),
    AfterValidator(check_id),
]


@router.get("/item", responses=ANSWERS["item"])
def get_item(id: Id, request: Request) -> Response:
    """Return an item."""
    return routes_data.get_item(id, request)


@router.put("/item", responses=ANSWERS["item"], openapi_extra=examples.body("put item"))
def put_item(id: Id, asked: ItemIn, request: Request) -> Response:
    """Add an item, or replace it. Every request after the answer can recommend it."""
    return routes_data.put_item(id, asked, request)


@router.patch("/item", responses=ANSWERS["item"], openapi_extra=examples.body("patch item"))
def patch_item(id: Id, asked: ItemPatch, request: Request) -> Response:
    """Change the title or some attributes of an item."""
    return routes_data.patch_item(id, asked, request)


@router.delete("/item", responses=ANSWERS["item"])
def delete_item(id: Id, request: Request) -> Response:
    """Remove an item. No answer after this one recommends it; histories still show it."""
    return routes_data.delete_item(id, request)


@router.get("/user", responses=ANSWERS["user"])
def get_user(id: Id, request: Request, limit: routes_users.Page = 1000) -> Response:
    """Return a user's labels, and the latest events, oldest first, with the titles of their items."""
    return routes_users.get_user(id, request, limit)


@router.delete("/user", responses=ANSWERS["deleted"])
def delete_user(id: Id, request: Request) -> Response:
    """Delete a user's labels and events: from the store, the histories and the counts of the prior."""
    return routes_users.delete_user(id, request)


@router.put("/user", responses=ANSWERS["labels"], openapi_extra=examples.body("put labels"))
def put_labels(id: Id, asked: Labels, request: Request) -> Response:
    """Store the labels of a user in place of earlier ones. Lists do not depend on them."""
    return routes_users.put_labels(id, asked, request)


@router.patch("/user", responses=ANSWERS["labels"], openapi_extra=examples.body("patch labels"))
def patch_labels(id: Id, asked: Labels, request: Request) -> Response:
    """Change some labels of a user; those that are null are removed."""
    return routes_users.patch_labels(id, asked, request)


@router.delete("/session", responses=answers_of("deleted", 422))
async def delete_session(id: Id, request: Request) -> Response:
    """Delete a session with its events."""
    return await routes_lists.delete_session(id, request)
