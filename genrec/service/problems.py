"""Describe errors as RFC 9457 problem details. No answer repeats what the client sent at length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrec.errors import GenrecError, ModelError, UnknownUserError
from genrec.service.store import ConflictError
from genrec.service.tables import StoreError
from genrec.service.worker import ClosedError, FullError, LateError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "The request cannot be read",
    401: "A key is needed",
    403: "The key does not allow this",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    413: "The request is too large",
    415: "The content type is not supported",
    421: "The request is meant for another host",
    422: "The request is not valid",
    429: "Too many requests",
    499: "The client has left",
    500: "Internal error",
    503: "Not available",
    504: "Not answered in time",
}


class Problem(Exception):
    """An error with its HTTP status.

    Attributes:
        status: the HTTP status.
        detail: a sentence that says what was wrong, what was expected and what to do.
        headers: further headers of the answer.
        errors: for each invalid field, its location and what is wrong.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers, self.errors = dict(headers or {}), list(errors)

    def to_dict(self, path: str, request_id: str) -> dict[str, Any]:
        """Return the problem details as a dictionary that can be written as JSON.

        Args:
            path: the path of the request.
            request_id: the id of the request.
        """
        details: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "instance": path,
            "request_id": request_id,
        }
        return details | ({"errors": self.errors} if self.errors else {})


def problem_of(error: BaseException) -> Problem:
    """Describe an exception. An unexpected one says nothing about what happened inside."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, FullError):
        seconds = str(max(1, round(error.seconds)))
        detail = f"The queue of the model is full. Try again in {seconds} seconds."
        return Problem(429, detail, headers={"Retry-After": seconds})
    if isinstance(error, LateError):
        return Problem(
            504, "The model did not answer before the deadline. Try again, or allow more time."
        )
    if isinstance(error, ClosedError):
        detail = "The service is stopping. Try again in a moment."
        return Problem(503, detail, headers={"Retry-After": "5"})
    if isinstance(error, ConflictError):
        detail = "The Idempotency-Key was used for another request. Expected the same content, or a new key."
        return Problem(422, detail)
    if isinstance(error, StoreError):
        return Problem(503, str(error), headers={"Retry-After": "5"})
    if isinstance(error, UnknownUserError):
        return Problem(404, str(error))
    if isinstance(error, ModelError):
        return Problem(503, str(error))
    if isinstance(error, GenrecError):
        return Problem(422, str(error))
    return Problem(500, "Something went wrong inside the service. Its log has the request id.")


def invalid(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Describe the errors that Pydantic found, without the values that it found them in."""
    listed = [
        {"field": ".".join(str(p) for p in e["loc"])[:200], "message": str(e["msg"])[:300]}
        for e in errors[:20]
    ]
    first = listed[0] if listed else {"field": "body", "message": "is not valid"}
    more = f" There are {len(errors) - 1} more." if len(errors) > 1 else ""
    return Problem(422, f"{first['field']}: {first['message']}.{more}", errors=listed)
