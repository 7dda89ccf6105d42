"""A small shop that is served by the real application, with a tiny model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from genrec import Dataset, Recommender
from genrec.service.app import create_app
from genrec.service.limits import Limits
from genrec.service.security import Guard
from genrec.service.service import Service
from genrec.service.shop import Engine, Shop
from genrec.service.store import Store
from genrec.service.tables import sqlite_url
from support import tiny

TITLES = [
    "red mug", "red doll", "red doll house", "blue mug", "glass vase", "set of 12 candles",
    "set of 6 candles", "paper chain kit", "party bunting", "hot water bottle", "tea towel",
    "knife block",
]  # fmt: skip


def made_shop(users: int = 20, *, target: str = "buy") -> Dataset:
    """A dataset of purchases and views with prices, in which every user has five events."""
    rng = np.random.default_rng(0)
    n = len(TITLES)
    items = pa.table(
        {
            "item_id": [f"i{row}" for row in range(n)],
            "title": TITLES,
            "price": [float(row + 1) for row in range(n)],
        }
    )
    rows: dict[str, list[Any]] = {"user_id": [], "item_id": [], "behavior": [], "timestamp": []}
    for user in range(users):
        for time, row in enumerate(rng.choice(n - 1, size=5, replace=False)):
            values = (
                f"u{user}",
                f"i{row}",
                "view" if time == 2 else target,
                1.6e9 + time * 100 + user,
            )
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    return Dataset.from_tables(items, pa.table(rows), name="shop")


def recommender(data: Dataset, **settings: Any) -> Recommender:
    return Recommender(data, tiny.language_model(), encoder="ngrams", **settings)


@contextmanager
def service(
    folder: Path,
    data: Dataset | None = None,
    *,
    guard: Guard | None = None,
    limits: Limits | None = None,
    **given: Any,
) -> Iterator[Service]:
    """The parts of a service over a store in a folder."""
    data = data or made_shop()
    shop = Shop(data, Store(sqlite_url(folder)), [Engine.of("tiny", recommender(data))])
    made = Service(shop, guard or Guard(()), limits, **given)
    try:
        yield made
    finally:
        if not made.stopping:
            made.close()


@contextmanager
def opened(folder: Path, data: Dataset | None = None, **given: Any) -> Iterator[TestClient]:
    """A client of the application over a store in a folder."""
    with service(folder, data, **given) as made, TestClient(create_app(made)) as found:
        found.app_state["service"] = made
        yield found


def service_of(client: TestClient) -> Service:
    """The parts of the service that a client talks to."""
    found: Service = cast("Any", client.app)._app.state.service
    return found


def ids(answer: Any) -> list[str]:
    """The items of a list."""
    return [r["item_id"] for r in answer["recommendations"]]


def recommend(client: TestClient, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def buy(client: TestClient, user: str, *items: str, **more: Any) -> Sequence[int]:
    events = [{"user_id": user, "item_id": i, "behavior": "buy", **more} for i in items]
    answer = client.post("/v1/feedback", json={"events": events})
    assert answer.status_code == 200, answer.text
    sequences: list[int] = answer.json()["sequences"]
    return sequences


def conform(client: TestClient, examples: int) -> tuple[int, int]:
    """Send requests that fit the OpenAPI document, and check that the answers do, too.

    Args:
        client: a client of the service.
        examples: the number of requests to each route.

    Returns:
        The number of routes and of requests.
    """
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    routes, sent = 0, 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(
                checks=[
                    not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                ],
                timeout=600,
            )

        conforms()
        routes += 1
    return routes, sent


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a shop of its own."""
    with opened(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client for tests that change nothing that others see."""
    with opened(tmp_path_factory.mktemp("served")) as found:
        yield found
