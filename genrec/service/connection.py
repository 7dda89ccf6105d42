"""Send requests to a running service, and turn its problems into exceptions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from genrec.errors import GenrecError, RequestError, SettingsError
from genrec.extras import how_to_install


class ServiceError(GenrecError):
    """Raised when the service cannot answer.

    Attributes:
        status: the HTTP status; 0 if there was no answer.
        problem: the problem details; empty if there are none.
        retry_after: the number of seconds after which to try again; None if that is unknown.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        problem: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.problem, self.retry_after = status, dict(problem or {}), retry_after


class InvalidRequestError(ServiceError, RequestError):
    """Raised when the service refuses a request because of its content."""


class Connection:
    """A connection to the service that ``genrec serve`` starts.

    It can be used by several threads, and as a context manager, which closes it.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 60.0,
        transport: Any = None,
    ) -> None:
        """Prepare the connection. Nothing is sent yet.

        Args:
            url: the address of the service.
            key: the key; None if the service needs none.
            timeout: the number of seconds to wait for an answer.
            transport: a transport of httpx2, for tests.

        Raises:
            SettingsError: httpx2 is not installed.
        """
        try:
            import httpx2
        except ImportError as error:
            msg = f"The client needs the package httpx2. {how_to_install('serve')}"
            raise SettingsError(msg) from error
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._failed: type[Exception] = httpx2.HTTPError
        self._http = httpx2.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a request, and return the answer.

        Raises:
            ServiceError: there is no answer, or it is a problem.
        """
        with self._answers():
            answer = self._http.request(method, path, json=body, headers=headers, params=query)
        if answer.status_code >= 400:
            raise _problem(answer)
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            msg = f"{self._http.base_url} answers, but not with JSON. Expected a running `genrec serve`."
            raise ServiceError(msg, answer.status_code) from error
        return found

    def _events(
        self, method: str, path: str, body: Mapping[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Send a request, and yield the server-sent events of the answer: their names and values.

        Raises:
            ServiceError: as in ``_lines``.
        """
        name = ""
        for line in self._lines(method, path, body, {"Accept": "text/event-stream"}):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)

    def _lines(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """Send a request, and yield the lines of the answer as they arrive.

        Raises:
            ServiceError: there is no answer, it is a problem, or the connection breaks.
        """
        with (
            self._answers(),
            self._http.stream(method, path, json=body, headers=headers) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            rest = ""
            for text in answer.iter_text():
                *lines, rest = (rest + text).split("\n")  # other line breaks may be in texts
                yield from lines

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn errors of the connection into a ``ServiceError``."""
        try:
            yield
        except self._failed as error:
            msg = f"{self._http.base_url} does not answer: {error}. Expected a running `genrec serve`."
            raise ServiceError(msg) from error


def error_of(values: Mapping[str, Any], retry_after: str | None = None) -> ServiceError:
    """Return the exception for problem details.

    Args:
        values: the problem details.
        retry_after: the header ``Retry-After``; None if there is none.
    """
    status = int(values.get("status", 0))
    kind = InvalidRequestError if status in {400, 404, 413, 422} else ServiceError
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return kind(str(values.get("detail", f"status {status}")), status, values, seconds)


def _problem(answer: Any) -> ServiceError:
    try:
        values = answer.json()
    except ValueError:
        values = {"detail": answer.text[:200]}
    if not isinstance(values, dict):
        values = {"detail": json.dumps(values)[:200]}
    return error_of({**values, "status": answer.status_code}, answer.headers.get("retry-after"))
