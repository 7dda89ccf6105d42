"""Define the routes for profiles: what a user's events say about their taste, and its corrections."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, Field

from genrec.data.catalog import LONGEST_ID
from genrec.service import examples, users
from genrec.service.answers import ANSWERS
from genrec.service.http import StrictRoute, json_response
from genrec.service.problems import Problem
from genrec.service.routes_users import UserId
from genrec.service.schemas import Keywords, Model, check_id
from genrec.service.service import service_of

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Users"])

Id = Annotated[
    str,
    Query(min_length=1, max_length=LONGEST_ID, description="The id."),
    AfterValidator(check_id),
]


class EditsIn(Model):
    """Corrections of a profile: lists of keywords."""

    added: Keywords | None = Field(
        None, description="Interests of the user. Items that hold one get twice the score."
    )
    removed: Keywords | None = Field(None, description="Keywords that the profile does not name.")
    banned: Keywords | None = Field(
        None, description="Items that hold one are left out of lists, and of the history."
    )

    def given(self) -> dict[str, list[str]]:
        """Return the lists that the client gave; null counts as an empty one."""
        return {n: getattr(self, n) or [] for n in sorted(self.model_fields_set)}


@router.get("/users/{user_id:path}/profile", responses=ANSWERS["profile"])
def get_profile(user_id: UserId, request: Request) -> Response:
    """Describe what a user's events say about their taste, by counting, with the user's corrections."""
    shop = service_of(request).shop
    known = shop.user_id(user_id)
    edits = users.profile_of(shop.store, known)
    history = shop.history(user_id)
    if not history.interactions and not edits and users.labels_of(shop.store, known) is None:
        raise Problem(404, f"There are no events and no labels of a user {user_id[:100]!r}.")
    recommender = shop.engines[shop.default].recommender
    profile = recommender.profile(history, edits=edits, measure=False)
    return json_response(profile.to_dict(recommender.catalog))


@router.put(
    "/users/{user_id:path}/profile", responses=ANSWERS["edits"],
    openapi_extra=examples.body("put profile"),
)  # fmt: skip
def put_profile(user_id: UserId, asked: EditsIn, request: Request) -> Response:
    """Store the corrections of a user's profile in place of earlier ones. The next list follows them."""
    return _put(user_id, asked, request, replace=True)


@router.patch(
    "/users/{user_id:path}/profile", responses=ANSWERS["edits"],
    openapi_extra=examples.body("patch profile"),
)  # fmt: skip
def patch_profile(user_id: UserId, asked: EditsIn, request: Request) -> Response:
    """Replace some of the lists of corrections; those that are not given stay."""
    return _put(user_id, asked, request, replace=False)


def _put(user_id: str, asked: EditsIn, request: Request, *, replace: bool) -> Response:
    shop = service_of(request).shop
    known = shop.user_id(user_id)
    kept = users.put_profile(shop.store, known, asked.given(), replace=replace)
    return json_response({"user_id": known, "edits": kept.to_dict()})


@router.get("/user/profile", responses=ANSWERS["profile"])
def get_profile_by_id(id: Id, request: Request) -> Response:
    """Describe what a user's events say about their taste, by counting, with the user's corrections."""
    return get_profile(id, request)


@router.put("/user/profile", responses=ANSWERS["edits"], openapi_extra=examples.body("put profile"))
def put_profile_by_id(id: Id, asked: EditsIn, request: Request) -> Response:
    """Store the corrections of a user's profile in place of earlier ones. The next list follows them."""
    return put_profile(id, asked, request)


@router.patch(
    "/user/profile", responses=ANSWERS["edits"], openapi_extra=examples.body("patch profile")
)
def patch_profile_by_id(id: Id, asked: EditsIn, request: Request) -> Response:
    """Replace some of the lists of corrections; those that are not given stay."""
    return patch_profile(id, asked, request)
