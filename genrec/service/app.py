"""Assemble the web application: its routes, its health checks, its metrics and its documentation."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from genrec.errors import GenrecError
from genrec.service import (
    routes_admin,
    routes_by_id,
    routes_chat,
    routes_data,
    routes_experiments,
    routes_lists,
    routes_page,
    routes_profile,
    routes_users,
)
from genrec.service.answers import Answer, ProblemOut
from genrec.service.documentation import STYLE_HASH, render_page
from genrec.service.http import Gate, json_response, problem_response
from genrec.service.problems import TITLES, Problem, invalid, problem_of
from genrec.service.security import ADMIN, FEEDBACK, READ
from genrec.service.service import Service, service_of
from genrec.service.store import ConflictError
from genrec.service.worker import ClosedError, FullError, LateError
from genrec.version import __version__

health = APIRouter(tags=["Health"])
_OPEN = {"/livez", "/readyz", "/healthz", "/docs", "/openapi.json"}
_SIGNING = {("GET", "/session"), ("POST", "/signin"), ("POST", "/signout")}
_READING = {
    "recommend", "recommend:batch", "sessions", "rank", "score", "search", "similar", "explain",
    "prompt", "neighbors", "chat",
}  # fmt: skip
_LISTED = {"shop", "item", "items", "user", "users", "models", "scenarios"}


def scope_of(method: str, path: str) -> str | None:
    """Return the scope that a request needs; None if no key is needed.

    Whatever is not listed needs ``admin``.
    """
    if path in _OPEN or (method, path) in _SIGNING:
        return None
    if method in {"GET", "HEAD"} and (path == "/" or path.startswith("/page/")):
        return None  # the files of the page contain nothing of a shop
    if path == "/metrics":
        return READ
    parts = path.split("/")
    name = parts[2] if len(parts) > 2 and parts[1] == "v1" else ""
    if method == "POST" and name in _READING and len(parts) == 3:
        return READ
    if method in {"GET", "HEAD"} and name in _LISTED:
        return READ
    if method == "DELETE" and name == "feedback" and len(parts) == 4:
        return FEEDBACK
    if (method == "POST" and path == "/v1/feedback") or (
        method == "DELETE" and name in {"session", "sessions"}
    ):
        return FEEDBACK
    return ADMIN


def create_app(service: Service) -> Gate:
    """Create the application that serves a shop.

    Args:
        service: the parts of the service. They are closed when the application shuts down.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="genrec",
        version=__version__,
        description="Recommendations from a catalog, as exact and checkable as those of the library.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for module in (
        routes_lists,
        routes_chat,
        routes_data,
        routes_profile,
        routes_users,
        routes_by_id,
        routes_admin,
    ):
        app.include_router(module.router)
    app.include_router(routes_experiments.router)
    app.include_router(routes_page.router)
    app.include_router(health)
    add_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return Gate(
        app,
        guard=service.guard,
        metrics=service.metrics,
        scope_of=scope_of,
        most_bytes=service.limits.most_bytes,
    )


def add_handlers(app: FastAPI) -> None:
    """Let an application describe all errors as problems."""

    async def failed(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        return problem_response(problem, request.url.path, request.state.request_id)

    async def not_valid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await failed(request, invalid(error.errors()))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, Problem):
            return await failed(request, error.__cause__)
        detail = f"{TITLES.get(error.status_code, 'Error')}: {request.method} is not offered here."
        if error.status_code != 405:
            detail = "There is nothing at this path. See /docs for all paths."
        return await failed(request, Problem(error.status_code, detail, headers=error.headers))

    for kind in (Exception, Problem, GenrecError, FullError, LateError, ClosedError, ConflictError):
        app.add_exception_handler(kind, failed)
    app.add_exception_handler(RequestValidationError, not_valid)
    app.add_exception_handler(HTTPException, refused)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the description of problems and of keys."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        parts = document.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        schemas["ProblemOut"] = ProblemOut.model_json_schema()
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for method, about in methods.items():
                about["responses"].pop("422", None) if path in _OPEN else None
                scope = scope_of(method.upper(), path)
                if scope is not None:
                    about["security"] = [{"key": []}, {}]
                    about["x-scope"] = scope
        app.openapi_schema = document
    return app.openapi_schema


_HEALTH: dict[int | str, dict[str, Any]] = {200: {"model": Answer}, 503: {"model": Answer}}


@health.get("/livez", responses=_HEALTH)
async def livez() -> Response:
    """Say that the process answers."""
    return json_response({"status": "ok"})


@health.get("/healthz", responses=_HEALTH)
async def healthz(request: Request) -> Response:
    """Say whether the thread of the model works. This never waits for it."""
    return json_response(*health_of(service_of(request)))


@health.get("/readyz", responses=_HEALTH)
def readyz(request: Request) -> Response:
    """Say whether requests can be answered: the store answers, and the service is not stopping."""
    return json_response(*readiness_of(service_of(request)))


def health_of(service: Service) -> tuple[dict[str, Any], int]:
    """Return whether the thread of the model works, and the HTTP status. This never waits for it."""
    problem = service.worker.problem()
    values = {
        "status": "failing" if problem else "ok",
        "problem": problem or None,
        "waiting": service.worker.waiting,
        "running_seconds": round(service.worker.running, 3),
    }
    return values, 503 if problem else 200


def readiness_of(service: Service) -> tuple[dict[str, Any], int]:
    """Return whether requests can be answered, and the HTTP status."""
    problem = "the service is stopping" if service.stopping else service.worker.problem()
    if not problem:
        try:
            service.shop.store.check()
        except GenrecError as error:
            problem = str(error)
    status = {"status": "not ready" if problem else "ok", "problem": problem or None}
    return status, 503 if problem else 200


@health.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(request: Request) -> Response:
    """Return metrics in Prometheus's text format."""
    body, kind = service_of(request).metrics.render()
    return Response(body, media_type=kind)


@health.get("/docs", include_in_schema=False)
async def documentation(request: Request) -> Response:
    """Return a page that describes all routes."""
    policy = (
        f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"
    )
    page = render_page(request.app.openapi())
    return Response(page, media_type="text/html", headers={"content-security-policy": policy})
