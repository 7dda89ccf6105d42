"""Define the routes of the page at ``/``: its files, and signing in and out.

The page asks the same routes as every other client. None of its files contains anything of a shop.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from genrec.service.http import StrictRoute, json_response
from genrec.service.page_files import page_files, policy_of
from genrec.service.problems import Problem
from genrec.service.schemas import Model
from genrec.service.security import ADMIN, SCOPES, Key
from genrec.service.service import service_of
from genrec.service.sign_in import SignIn, make_cookie

router = APIRouter(route_class=StrictRoute, include_in_schema=False)
_YEAR = "public, max-age=31536000, immutable"


class SignInWith(Model):
    """A key to sign in with."""

    key: str = Field(min_length=1, max_length=200)


@router.get("/")
async def page(request: Request) -> Response:
    """Return the page."""
    headers = {
        "content-security-policy": policy_of(service_of(request).image_hosts),
        "cross-origin-opener-policy": "same-origin",
    }
    return Response(page_files().index, headers=headers, media_type="text/html")


@router.get("/page/{version}/{name:path}")
async def page_file(version: str, name: str) -> Response:
    """Return a file of the page. Its address changes with its content, so it may be kept."""
    found = page_files()
    if version != found.version or name not in found.files:
        raise Problem(404, "The page has no such file. Load the page again.")
    content, kind = found.files[name]
    return Response(content, headers={"cache-control": _YEAR}, media_type=kind)


@router.get("/session")
async def session(request: Request) -> Response:
    """Say whether a key is needed, and what the one that is signed in allows."""
    guard = service_of(request).guard
    if not guard.keys:
        return json_response(_session(None, needed=False))
    found = guard.signed_in(request.headers)
    return json_response(_session(found, needed=True))


@router.post("/signin")
async def sign_in(asked: SignInWith, request: Request) -> Response:
    """Sign in with a key. The answer sets the cookie, and has the token for later requests."""
    session_id, made, key = service_of(request).guard.sign_in(asked.key)
    answer = json_response(_session((made, key), needed=True))
    answer.headers["set-cookie"] = make_cookie(session_id, secure=_is_secure(request))
    return answer


@router.post("/signout")
async def sign_out(request: Request) -> Response:
    """Forget the sign-in, and remove the cookie."""
    guard = service_of(request).guard
    found = guard.signed_in(request.headers)
    if found is not None and not found[0].has_token(request.headers):
        raise Problem(403, "This needs the header X-CSRF-Token, which GET /session gives.")
    guard.sign_ins.close(request.headers)
    answer = json_response(_session(None, needed=bool(guard.keys)))
    answer.headers["set-cookie"] = make_cookie("", secure=_is_secure(request))
    return answer


def _session(found: tuple[SignIn, Key] | None, *, needed: bool) -> dict[str, Any]:
    """Describe who is signed in."""
    if found is None:
        scopes = [] if needed else list(SCOPES)
        return {"key_needed": needed, "name": None, "scopes": scopes, "token": None}
    signed, key = found
    scopes = list(SCOPES) if key.allows(ADMIN) else list(key.scopes)
    return {"key_needed": True, "name": key.name, "scopes": scopes, "token": signed.token}


def _is_secure(request: Request) -> bool:
    """Return True if the browser uses HTTPS, possibly up to a proxy in front of the service."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").lower())
