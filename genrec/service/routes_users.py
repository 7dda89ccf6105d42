"""Define the routes for users: their ids, events, labels and neighbors, and what is deleted of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator

from genrec.data.catalog import LONGEST_ID
from genrec.service import examples, users
from genrec.service.answers import ANSWERS
from genrec.service.http import StrictRoute, json_response
from genrec.service.problems import Problem
from genrec.service.schemas import Id, Label, Labels, NeighborsOf, check_id
from genrec.service.security import ADMIN
from genrec.service.service import service_of

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Users"])

UserId = Annotated[str, Path(min_length=1, max_length=LONGEST_ID), AfterValidator(check_id)]
Part = Annotated[str, Query(max_length=LONGEST_ID), AfterValidator(check_id)]
KnownId = Annotated[Id, AfterValidator(check_id)]
Page = Annotated[int, Query(ge=1, le=1000)]


@router.get("/users", responses=ANSWERS["users"])
def list_users(
    request: Request, prefix: Part = "", after: Part = "", limit: Page = 100
) -> Response:
    """List the ids of users with events or labels, sorted, or those that begin with `prefix`."""
    found = service_of(request).shop.user_ids(prefix, after, limit + 1)
    more = found[limit - 1] if len(found) > limit else None
    return json_response({"users": found[:limit], "next": more})


@router.get("/users/{user_id:path}", responses=ANSWERS["user"])
def get_user(user_id: UserId, request: Request, limit: Page = 1000) -> Response:
    """Return a user's labels, and the latest events, oldest first, with the titles of their items."""
    shop = service_of(request).shop
    labels = users.labels_of(shop.store, shop.user_id(user_id))
    history = shop.numbered(user_id)
    if not history and labels is None:
        raise Problem(404, f"There are no events and no labels of a user {user_id[:100]!r}.")
    catalog = shop.catalog
    events = []
    for e, sequence in history[-limit:]:
        title = None if e.item_id is None else catalog[catalog.row(e.item_id)].title
        events.append(
            {
                "item_id": e.item_id, "title": title, "behavior": e.behavior, "timestamp": e.timestamp,
                "value": e.value, "unit": e.unit, "text": e.text, "sequence": sequence,
            }
        )  # fmt: skip
    known = {"user_id": shop.user_id(user_id), "labels": labels or {}}
    return json_response({**known, "events": len(history), "history": events})


@router.delete("/users/{user_id:path}", responses=ANSWERS["deleted"])
def delete_user(user_id: UserId, request: Request) -> Response:
    """Delete a user's labels and events: from the store, the histories and the counts of the prior.

    The files of the dataset are not changed, but the user's events in them are not used any more.
    """
    gone = service_of(request).shop.delete_user(user_id)
    return json_response({"user_id": user_id, "events": gone})


@router.put(
    "/users/{user_id:path}", responses=ANSWERS["labels"], openapi_extra=examples.body("put labels")
)
def put_labels(user_id: UserId, asked: Labels, request: Request) -> Response:
    """Store the labels of a user in place of earlier ones. Lists do not depend on them."""
    return _put(user_id, asked, request, replace=True)


@router.patch(
    "/users/{user_id:path}",
    responses=ANSWERS["labels"],
    openapi_extra=examples.body("patch labels"),
)
def patch_labels(user_id: UserId, asked: Labels, request: Request) -> Response:
    """Change some labels of a user; those that are null are removed."""
    return _put(user_id, asked, request, replace=False)


def _put(user_id: str, asked: Labels, request: Request, *, replace: bool) -> Response:
    shop = service_of(request).shop
    known = shop.user_id(user_id)
    kept = users.put_labels(shop.store, known, asked.labels, replace=replace)
    return json_response({"user_id": known, "labels": kept})


@router.post("/neighbors", responses=ANSWERS["neighbors"], openapi_extra=examples.body("neighbors"))
def neighbors(asked: NeighborsOf, request: Request) -> Response:
    """Find the users whose items resemble those of a user.

    The similarity is the number of items that both users have, divided by the square root of the
    product of the numbers that each has. Items count once, and only events of the target behavior.
    With `items`, which needs the scope `admin`, the answer names the items that both have.
    """
    key = request.state.key
    if asked.items and key is not None and not key.allows(ADMIN):
        raise Problem(403, f"The key {key.name!r} may not see what others did. Leave out items.")
    shop = service_of(request).shop
    found: list[dict[str, Any]] = []
    for one in shop.neighbors(asked.user_id, asked.k):
        shared = {"items": list(one.shared)} if asked.items else {}
        found.append({"user_id": one.user_id, "similarity": one.similarity, **shared})
    notes = [] if found else [f"No other user has an item of user {asked.user_id!r}."]
    known = {"schema_version": 1, "user_id": shop.user_id(asked.user_id)}
    return json_response({**known, "neighbors": found, "notes": notes})


# Single events


@router.delete("/feedback", responses=ANSWERS["deleted"])
def delete_feedback(
    request: Request,
    item_id: Annotated[KnownId, Query(description="The item.")],
    user_id: Annotated[KnownId | None, Query(description="The user; or give a session_id.")] = None,
    session_id: Annotated[KnownId | None, Query(description="The session.")] = None,
    behavior: Annotated[
        Label | None, Query(description="Only events of this behavior; all if left out.")
    ] = None,
) -> Response:
    """Delete the events of a user or a session with an item, also those of the dataset.

    The next list of the user and the counts of the prior do not have them any more.
    """
    if (user_id is None) == (session_id is None):
        raise Problem(422, "Expected a user_id or a session_id, but not both.")
    gone = service_of(request).shop.delete_events(
        item_id, behavior, user_id=user_id, session_id=session_id
    )
    owner = {"user_id": user_id} if user_id is not None else {"session_id": session_id}
    return json_response({**owner, "events": gone})


@router.delete("/feedback/{sequence}", responses=ANSWERS["deleted"])
async def delete_event(
    sequence: Annotated[int, Path(ge=1, lt=2**63)], request: Request
) -> Response:
    """Delete one event by its number, which the answer to its feedback had.

    The next list of its user and the counts of the prior do not have it any more.
    """
    found = await asyncio.to_thread(service_of(request).shop.delete_event, sequence)
    if found is None:
        raise Problem(404, f"There is no event with the number {sequence}.")
    owner = {"user_id": found.user_id, "session_id": found.session_id}
    return json_response({n: v for n, v in owner.items() if v is not None} | {"events": 1})
