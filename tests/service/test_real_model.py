"""The service answers with the real model as the library does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support import served
from support.amount import FULL
from support.served import buy, ids, recommend

from genrec import Dataset, Recommender
from genrec.cli.options import Given, ModelOptions
from genrec.cli.serve import load_base
from genrec.config import Settings
from genrec.models.language_model import LanguageModel
from genrec.models.packaged import DEFAULT_MODEL
from genrec.runs import shipped_run
from genrec.service.app import create_app
from genrec.service.limits import Limits
from genrec.service.security import Guard
from genrec.service.service import Service
from genrec.service.shop import Engine, Shop
from genrec.service.store import Store
from genrec.service.tables import sqlite_url


@pytest.mark.model
def test_lists_events_and_explanations(
    demo_data: Dataset, smollm2: LanguageModel, tmp_path: Path
) -> None:
    made = Recommender(demo_data, smollm2, encoder="ngrams", model_role="fuse")
    shop = Shop(demo_data, Store(sqlite_url(tmp_path)), [Engine.of("real", made)])
    user = demo_data.interactions.user_ids[3]
    with TestClient(create_app(Service(shop, Guard(())))) as client:
        first = recommend(client, user_id=user, k=3, deadline_ms=600_000)
        expected = made.recommend(made.history(user), 3)
        assert ids(first) == [r.item_id for r in expected]
        assert first["certificate"]["exact"]
        best = ids(first)[0]
        buy(client, user, best)
        second = recommend(client, user_id=user, k=3, deadline_ms=600_000)
        assert best not in ids(second)
        assert second["prompt"]["tokens"] != first["prompt"]["tokens"]
        body = {
            "user_id": user,
            "item_id": ids(second)[0],
            "k": 3,
            "evidence": "fast",
            "deadline_ms": 600_000,
        }
        told = client.post("/v1/explain", json=body).json()
        assert told["rank"] == 1
        assert told["explanation"]["text"]


@pytest.mark.model
@pytest.mark.skipif(not FULL, reason="two hundred requests to a real model take minutes")
def test_answers_are_as_documented(
    demo_data: Dataset,
    smollm2: LanguageModel,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    made = Recommender(demo_data, smollm2, encoder="ngrams", model_role="fuse")
    shop = Shop(demo_data, Store(sqlite_url(tmp_path)), [Engine.of("real", made)])
    limits = Limits(deadline=600.0)
    with TestClient(create_app(Service(shop, Guard(()), limits))) as client:
        routes, sent = served.conform(client, 6)
        record_property("requests", f"{sent} to {routes} routes")  # see --junitxml
        assert sent >= 200
        assert client.get("/healthz").status_code == 200


@pytest.mark.model
def test_the_base_model_of_a_run_ranks_beside_it(demo_data: Dataset) -> None:
    settings = Given({f.name: f.default for f in fields(Settings)}, {"encoder"})
    settings["encoder"] = "ngrams"
    which = ModelOptions(run=shipped_run("online_retail_demo"), threads=1)
    base = load_base(demo_data, which, settings, lambda text: None)
    assert base.model.name == DEFAULT_MODEL
    assert base.run is None
    assert base.fusing.role == "fuse"
    assert base.settings.encoder == "ngrams"
