"""A client of a small served shop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support import served


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a shop of its own."""
    with served.client(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client for tests that change nothing."""
    with served.client(tmp_path_factory.mktemp("served")) as found:
        yield found
