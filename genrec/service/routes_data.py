"""Define the routes for what a shop tells the service: feedback, items and users."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import AfterValidator

from genrec.data.behaviors import shipped_verbs
from genrec.data.catalog import LONGEST_ID, Item
from genrec.data.refusals import REFUSALS
from genrec.json_text import to_json
from genrec.service import examples
from genrec.service.answers import ANSWERS
from genrec.service.attributes import describe_columns, plain_value
from genrec.service.http import StrictRoute, json_response
from genrec.service.lists import lists_of
from genrec.service.problems import Problem
from genrec.service.schemas import (
    Feedback,
    FeedbackEvent,
    ItemEdits,
    ItemIn,
    ItemPatch,
    check_id,
    check_printable,
)
from genrec.service.service import Service, service_of
from genrec.service.store import Event

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Data"])

ItemId = Annotated[str, Path(min_length=1, max_length=LONGEST_ID), AfterValidator(check_id)]
Page = Annotated[int, Query(ge=1, le=1000)]
Words = Annotated[str, Query(max_length=200), AfterValidator(check_printable)]


@router.post("/feedback", responses=ANSWERS["feedback"], openapi_extra=examples.body("feedback"))
async def feedback(
    asked: FeedbackEvent | Feedback,
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            description="Identifies the request, so that it can be repeated.",
        ),
    ] = None,
) -> Response:
    """Store events of any behavior: all of them, or none.

    When the answer arrives, the events are on the disk, and the next list of their user takes them
    into account. A request with an `Idempotency-Key` may be repeated for a week; its events are
    stored only once.
    """
    service, now = lists_of(request), time.time()
    given = asked.events if isinstance(asked, Feedback) else [asked]
    shop = service.known
    events = [
        Event(
            shop.redact([e.interaction(now)])[0],
            None if e.user_id is None else shop.user_id(e.user_id),
            e.session_id,
            e.list_id,
        )
        for e in given
    ]
    if unknown := shop.check_events(events):
        some = ", ".join(map(repr, unknown[:5]))
        raise Problem(
            422, f"The catalog does not have {some}. Nothing was stored. Add the items first."
        )
    key, digest = None, ""
    if idempotency_key is not None:
        owner = getattr(request.state.key, "name", "")
        key = f"{owner}\n{idempotency_key}"
        digest = hashlib.sha256(to_json(asked.model_dump(), indent=None).encode()).hexdigest()
    stored = shop.store.add_events
    with service.metrics.stage("store"):
        numbers, repeated = await asyncio.to_thread(stored, events, key=key, digest=digest)
    if not repeated:
        service.metrics.events.inc(len(numbers))
    return json_response({"accepted": len(numbers), "sequences": numbers, "repeated": repeated})


# The shop


@router.get("/shop", responses=ANSWERS["other"])
def describe_shop(request: Request) -> Response:
    """Describe the shop: its size, its behaviors in words, and the columns of its items.

    A page needs this to offer filters. `words` has the past tense of known behaviors by language.
    """
    service = service_of(request)
    shop = service.shop
    behaviors = [
        shop.behavior,
        *(b for b in shop.dataset.interactions.behaviors if b != shop.behavior),
    ]
    words = {
        language: {behavior: verb.past for behavior, verb in shipped_verbs(language).items()}
        for language in ("en", "zh")
    }
    about = {
        "name": shop.dataset.info.name,
        "items": len(shop.catalog) - len(shop.hidden),
        "behavior": shop.behavior,
        "behaviors": behaviors,
        "words": words,
        "shows": _shows(service),
        "counts": service.engine(None).fallback is not None,
        "refusals": [b for b in REFUSALS if b not in behaviors],
        "columns": describe_columns(shop.catalog),
        "image_hosts": list(service.image_hosts),
    }
    return json_response(about)


def _shows(service: Service) -> list[str]:
    """Return the lists that a request for several lists may name, as the settings allow."""
    exclude_seen = service.engine(None).recommender.settings.exclude_seen
    return (
        ["new", "again"] if exclude_seen is None else ["new"] if exclude_seen else ["all", "again"]
    )


# Items. The routes of a single one are also in ``routes_by_id``.


def _describe(service: Service, item: Item) -> dict[str, Any]:
    values = {n: plain_value(v) for n, v in item.attributes.items()}
    state = service.shop.state(item.item_id)
    return {"item_id": item.item_id, "title": item.title, "attributes": values, "state": state}


def _item(service: Service, item_id: str) -> Item:
    catalog = service.shop.catalog
    if item_id not in catalog:
        raise Problem(404, f"The catalog has no item {item_id[:100]!r}.")
    return catalog[catalog.row(item_id)]


@router.get("/items", responses=ANSWERS["items"])
def list_items(
    request: Request,
    query: Annotated[
        Words, Query(description="Words of the title, of which the last may be unfinished.")
    ] = "",
    after: Annotated[Words, Query(description="The value of `next` of the page before.")] = "",
    order: Annotated[
        str, Query(pattern="^(catalog|latest)$", description="`catalog`, or `latest` items first.")
    ] = "catalog",
    limit: Page = 100,
) -> Response:
    """List the items, or those whose titles have the given words, as for completion."""
    service = service_of(request)
    catalog = service.shop.catalog
    if query.strip():
        rows = service.titles.complete(query, limit, service.shop.hidden)
        found = [_describe(service, catalog[row]) for row in rows]
        return json_response({"items": found, "next": None})
    first = 0
    if after:
        if not after.isascii() or not after.isdigit():
            raise Problem(
                422, "after is not valid. Expected the value of `next` of the page before."
            )
        first = int(after[:12])
    every = range(len(catalog)) if order == "catalog" else range(len(catalog))[::-1]
    page = [_describe(service, catalog[row]) for row in every[first : first + limit]]
    more = str(first + limit) if first + limit < len(catalog) else None
    return json_response({"items": page, "next": more})


@router.post("/items:bulk", responses=ANSWERS["other"], openapi_extra=examples.body("edit items"))
def edit_items(asked: ItemEdits, request: Request) -> Response:
    """Add, replace and remove items in one step, all or none of them."""
    put = [i.item(i.item_id) for i in asked.put]
    _edit(service_of(request), put, asked.remove)
    return json_response({"put": len(put), "removed": len(set(asked.remove))})


@router.get("/items/{item_id:path}", responses=ANSWERS["item"])
def get_item(item_id: ItemId, request: Request) -> Response:
    """Return an item."""
    service = service_of(request)
    return json_response(_describe(service, _item(service, item_id)))


@router.put(
    "/items/{item_id:path}", responses=ANSWERS["item"], openapi_extra=examples.body("put item")
)
def put_item(item_id: ItemId, asked: ItemIn, request: Request) -> Response:
    """Add an item, or replace it. Every request after the answer can recommend it."""
    service = service_of(request)
    _edit(service, [asked.item(item_id)], [])
    return json_response(_describe(service, _item(service, item_id)))


@router.patch(
    "/items/{item_id:path}", responses=ANSWERS["item"], openapi_extra=examples.body("patch item")
)
def patch_item(item_id: ItemId, asked: ItemPatch, request: Request) -> Response:
    """Change the title or some attributes of an item."""
    service = service_of(request)
    with service.shop.editing:  # the item must not be removed between the check and the change
        if service.shop.state(item_id) == "removed":
            raise Problem(409, f"Item {item_id[:100]!r} was removed. Put it again first.")
        _edit(service, [asked.applied(_item(service, item_id))], [])
    return json_response(_describe(service, _item(service, item_id)))


@router.delete("/items/{item_id:path}", responses=ANSWERS["item"])
def delete_item(item_id: ItemId, request: Request) -> Response:
    """Remove an item. No answer after this one recommends it; histories still show it."""
    service = service_of(request)
    _item(service, item_id)
    _edit(service, [], [item_id])
    return json_response(_describe(service, _item(service, item_id)))


def _edit(service: Service, put: list[Item], remove: list[str]) -> None:
    unknown = [i for i in remove if not service.shop.state(i) and i not in {p.item_id for p in put}]
    if unknown:
        some = ", ".join(map(repr, unknown[:5]))
        raise Problem(404, f"The catalog does not have {some}. Nothing was changed.")
    service.shop.edit(put, remove)
