"""The model ranks items, or it only explains what the prior ranks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny
from support.counted_shop import NAMES, history, shop

from genrec import Dataset, Recommender
from genrec.config import EXPLAIN, FUSE, Settings
from genrec.errors import DataError, SettingsError
from genrec.evaluation.systems import RecommenderSystem
from genrec.priors.fusion import ENOUGH, resolve_fusion
from genrec.priors.tuned import Tuned
from genrec.reports.terminal import describe_prior

TUNED = Tuned("key", "model", "node", {"node": 0.9, "score": 2.0}, {"node": 3.0, "score": 2.0}, 200,
              {"model": 2.0, "prior": 1.0, "node": 0.9}, {"model": 0.1, "prior": 0.2, "node": 0.2, "score": 0.2})  # fmt: skip


def dataset(users: int = 160) -> Dataset:
    rng = np.random.default_rng(0)
    return shop([rng.integers(0, len(NAMES), size=8).tolist() for _ in range(users)])


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset()


def recommender(data: Dataset, **settings: Any) -> Recommender:
    settings = {"encoder": "none", "exclude_seen": False, **settings}
    return Recommender(data, tiny.language_model(), **settings)


@pytest.mark.parametrize(
    ("settings", "prior", "tuned", "events", "trained", "role"),
    [
        ({}, "collaborative", None, ENOUGH, False, EXPLAIN),
        ({}, "collaborative", None, ENOUGH - 1, False, FUSE),
        ({}, "collaborative", None, ENOUGH, True, FUSE),
        ({}, "collaborative", TUNED, ENOUGH, False, FUSE),
        ({}, "collaborative", replace(TUNED, role=EXPLAIN), ENOUGH, True, EXPLAIN),
        ({}, "collaborative", replace(TUNED, role="auto"), ENOUGH, False, EXPLAIN),
        ({}, "collaborative", replace(TUNED, role="auto"), ENOUGH, True, FUSE),
        ({"few_shot": 2}, "collaborative", None, ENOUGH, False, FUSE),
        ({"prior_weight": 1.0}, "collaborative", replace(TUNED, role=EXPLAIN), 10, True, FUSE),
        ({"search": "exact"}, "collaborative", None, ENOUGH, False, EXPLAIN),
        ({"search": "beam"}, "collaborative", None, ENOUGH, False, FUSE),
        ({"model_role": FUSE}, "collaborative", None, ENOUGH, False, FUSE),
        ({"model_role": EXPLAIN}, "collaborative", TUNED, 10, True, EXPLAIN),
        ({"model_role": EXPLAIN}, "popularity", None, ENOUGH, False, EXPLAIN),
        ({}, "popularity", None, ENOUGH, False, FUSE),
        ({}, "own", None, ENOUGH, False, FUSE),
        ({}, "none", None, ENOUGH, False, FUSE),
    ],
)
def test_which_role_the_model_has(
    settings: dict[str, Any], prior: str, tuned: Tuned | None, events: int, trained: bool, role: str
) -> None:
    found = resolve_fusion(Settings(**settings), prior, tuned, events, trained=trained)
    assert found.role == role
    if role == EXPLAIN:
        assert found.weight == 1.0


def test_the_prior_alone_ranks_and_the_model_reads_nothing(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    explains = recommender(data)

    def read(*given: Any) -> Any:
        raise AssertionError(given)

    for name in ("prefill", "prefill_many", "prefix"):
        monkeypatch.setattr(explains.model, name, read)
    past = history(1, 2)
    answer = explains.recommend(past, 7, allow_last_basket=True)
    prior = explains.prior
    assert prior is not None
    logprobs = prior.logprobs(past)  # type: ignore[attr-defined]
    order = np.argsort(-logprobs, kind="stable").tolist()
    assert [r.item_id for r in answer] == [f"i{row}" for row in order]
    assert [r.logprob for r in answer] == pytest.approx(logprobs[order].tolist())
    assert sum(r.probability for r in answer) == pytest.approx(1)
    assert all(r.logprob_model is None and r.logprob_prior == r.logprob for r in answer)
    assert answer.details["parts"] == ["prior"]
    assert answer.details["prior"]["role"] == EXPLAIN
    assert answer.details["certificate"]["exact"]
    assert "alone ranks the items" in describe_prior(answer)
    json.dumps(answer.to_dict(), allow_nan=False)
    some = explains.rank(past, ["i5", "i1", "i3"], allow_last_basket=True)
    assert [r.logprob for r in some] == pytest.approx(sorted(logprobs[[1, 3, 5]], reverse=True))
    rails = explains.recommend_rails(past, 3, shows=("again",), allow_last_basket=True)
    assert {r.item_id for r in rails["again"]} == {"i1", "i2"}
    assert RecommenderSystem(explains).name == "prior"


def test_the_whole_evidence_is_the_priors(data: Dataset) -> None:
    explains = recommender(data)
    past = history(1, 2, 2, 5)
    (first, *_) = explains.recommend(past, 3, explain=True, allow_last_basket=True)
    assert first.explanation is not None
    for place, event in enumerate(first.explanation.evidence):
        rows = [1, 2, 2, 5]
        del rows[place]
        scores = [explains.score(h, [first.item_id])[0].score for h in (past, history(*rows))]
        assert event.nats_model == 0.0
        assert event.nats_prior == pytest.approx(scores[0] - scores[1])
        assert event.nats == event.nats_prior
    item = explains.explain(past, "i3", 3, allow_last_basket=True)
    every = [r.item_id for r in explains.rank(past, allow_last_basket=True)]
    assert item.rank == 1 + every.index("i3")
    assert item.choices == ()
    assert explains.falls(past, "i3", [[0]])[0] == pytest.approx(item.explanation.evidence[0].nats)


def test_both_roles_have_keys_of_their_own(data: Dataset) -> None:
    explains = recommender(data)
    fuses = explains.with_settings(model_role=FUSE)
    assert fuses.fusing.role == FUSE
    assert RecommenderSystem(explains).key != RecommenderSystem(fuses).key
    assert RecommenderSystem(fuses).name == "tiny-llama + prior"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "none"}, "prior='none'"),
        ({"decoder": "match"}, "decoder='match'"),
        ({"normalization": "vocab"}, "normalization='vocab'"),
    ],
)
def test_a_model_cannot_only_explain_without_a_prior_that_ranks(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(model_role=EXPLAIN, **settings)


def test_an_unknown_role_in_a_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    replace(TUNED, role=EXPLAIN).save(path)
    found = Tuned.load(path, "key")
    assert found is not None
    assert found.role == EXPLAIN
    path.write_text(path.read_text().replace('"explain"', '"dance"'))
    with pytest.raises(DataError, match="damaged"):
        Tuned.load(path, "key")
