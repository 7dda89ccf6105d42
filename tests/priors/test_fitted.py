"""The verdict of a fit: how it is kept, and what ``auto`` makes of it."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.counted_shop import shop
from support.tiny import language_model

import genrec
from genrec import Dataset, Recommender, Settings
from genrec.config import COUNTED
from genrec.data import protocols
from genrec.data.dataset import FITTED
from genrec.errors import DataError
from genrec.evaluation import systems
from genrec.evaluation.systems import RecommenderSystem
from genrec.priors import fusion
from genrec.priors.fitted import Fitted, Parts, load_fitted

EVENTS = [[0, 1, 2, 3], [3, 4, 5, 0], [6, 0, 1, 2]]
RANKED = Parts((*COUNTED, "userknn"), "lambdarank", "sasrec", 20, 3)
STATES = Parts(ranker="lambdarank", network="titlesasrec", encoder="lm:smollm2-135m")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    shop(EVENTS).save(tmp_path / "data")
    return Dataset.load(tmp_path / "data")


def verdict(data: Dataset, parts: Parts, behavior: str = "buy") -> None:
    assert data.folder is not None
    Fitted(protocols.fingerprint(data), behavior, parts, {"steps": []}).save(data.folder)


def test_auto_stands_for_what_was_found_and_else_for_the_defaults() -> None:
    assert Parts.given(Settings()) == Parts()
    assert RANKED.chosen_by(Settings()) == RANKED
    assert RANKED.chosen_by(Settings(ranker="none")) == replace(
        RANKED, ranker="none", network="none", epochs=None
    )
    plain = RANKED.chosen_by(Settings(ranker="none", prior_sources="markov", seed=5))
    assert plain == Parts(("markov",), seed=5)
    own = RANKED.chosen_by(Settings(ranker="lambdarank", network="titlesasrec"))
    assert (own.network, own.epochs) == ("titlesasrec", None)
    assert STATES.chosen_by(Settings()) == STATES
    assert STATES.chosen_by(Settings(ranker="lambdarank", network="titlesasrec")).encoder is None
    assert STATES.chosen_by(Settings(ranker="none")).encoder is None
    assert Parts().chosen_by(Settings(seed=4)) == Parts(seed=4)


def test_settings_that_name_the_parts_choose_them_again() -> None:
    named = RANKED.apply(Settings())
    assert replace(Parts.given(named), epochs=20) == RANKED
    assert Parts().apply(Settings()).prior_sources == "auto"
    assert Parts().named() == COUNTED  # as in the keys of earlier versions
    assert RANKED.named()[-2:] == ("ranker=lambdarank", "network=sasrec:20")
    assert Parts.given(STATES.apply(Settings())) == STATES
    assert STATES.named()[-1] == "network=titlesasrec@lm:smollm2-135m"
    assert STATES.describe().endswith("with titlesasrec from lm:smollm2-135m")
    minilm = Settings(ranker="lambdarank", network="titlesasrec", network_encoder="minilm")
    assert Parts.given(minilm).encoder is None  # it is the default


def test_a_verdict_is_found_again_by_its_events_and_behavior(data: Dataset) -> None:
    assert load_fitted(data, "buy") == (None, "")
    verdict(data, STATES)
    kept, _ = load_fitted(data, "buy")
    assert kept is not None
    assert kept.parts == STATES
    verdict(data, RANKED)
    verdict(data, Parts(), "view")
    found, note = load_fitted(data, "buy")
    assert found is not None
    assert (found.parts, found.report, note) == (RANKED, {"steps": []}, "")
    assert load_fitted(data, "like") == (None, "")  # nothing was fitted for it


def test_a_verdict_for_other_events_is_not_used_and_a_note_says_so(data: Dataset) -> None:
    verdict(data, replace(RANKED, network="none"))
    assert data.folder is not None
    old = (data.folder / FITTED).read_text(encoding="utf-8")
    shop([*EVENTS, [1, 2, 3]]).save(data.folder)
    (data.folder / FITTED).write_text(old, encoding="utf-8")
    changed = Dataset.load(data.folder)
    found, note = load_fitted(changed, "buy")
    assert found is None
    assert "written for other events" in note
    recommender = Recommender(changed, language_model())
    assert recommender.prior_parts == Parts()
    answer = recommender.recommend(changed.interactions.history("u0"), 2)
    assert note in answer.notes
    verdict(changed, Parts())
    assert json.loads((data.folder / FITTED).read_text(encoding="utf-8"))["fitted"][0][
        "events"
    ] == protocols.fingerprint(changed)
    again = Recommender(changed, language_model()).recommend("", 2)
    assert not any(FITTED in note for note in again.notes)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format_version": 1, "fitted": [{"events": "x"}]}',
     '{"format_version": 1, "fitted": [{"events": "x", "behavior": "buy", "report": {}, '
     '"parts": {"sources": ["markov"], "ranker": "magic"}}]}'],
)  # fmt: skip
def test_a_damaged_file_is_named(data: Dataset, text: str) -> None:
    assert data.folder is not None
    (data.folder / FITTED).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"fitted\.json is damaged"):
        load_fitted(data, "buy")
    verdict(data, RANKED)  # a new fit replaces it
    assert load_fitted(data, "buy")[0] is not None


def test_a_file_of_another_version_is_not_used(data: Dataset) -> None:
    assert data.folder is not None
    (data.folder / FITTED).write_text('{"format_version": 9}', encoding="utf-8")
    assert load_fitted(data, "buy")[0] is None


def test_preparing_the_data_again_drops_the_verdict(data: Dataset) -> None:
    verdict(data, RANKED)
    assert data.folder is not None
    shop(EVENTS).save(data.folder)
    assert not (data.folder / FITTED).exists()


def test_without_lightgbm_the_rest_of_the_verdict_is_used(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict(data, replace(RANKED, sources=(*COUNTED, "userknn")))
    real = importlib.import_module

    def refuse(name: str) -> object:
        if name == "lightgbm":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    recommender = Recommender(data, language_model(), exclude_seen=False)
    assert recommender.prior_parts == Parts((*COUNTED, "userknn"), seed=3)
    answer = recommender.recommend(data.interactions.history("u0"), 2)
    (note,) = [n for n in answer.notes if "lightgbm" in n]
    assert note.startswith("The ranker that `genrec fit` chose is not used.")


def test_an_evaluation_takes_over_the_verdict_but_fits_it_to_what_is_known(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model()
    plain = Recommender(data, model)
    known = protocols.withhold(data, "test")
    before = RecommenderSystem(systems.restrict(plain, known, "validation"))
    key = before.key
    verdict(data, replace(RANKED, network="none", epochs=None))
    assert Recommender(known, model).prior_parts == Parts()  # nothing was found for these events
    fitted_to = []
    build = fusion.build_prior

    def note(settings: Settings, dataset: Dataset, *rest: object) -> object:
        fitted_to.append((settings.ranker, dataset))
        return build(settings, dataset, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fusion, "build_prior", note)
    after = systems.restrict(Recommender(data, model), known, "validation")
    assert after.prior_parts.ranker == "lambdarank"
    assert after.prior is not None
    assert [r for r, _ in fitted_to] == ["lambdarank"]
    assert (fitted_to[0][1].interactions.columns.row == known.interactions.columns.row).all()
    changed = RecommenderSystem(after).key
    assert "ranker='lambdarank'" in changed
    assert "userknn" in changed
    assert key == RecommenderSystem(systems.restrict(plain, known, "validation")).key
    none = Recommender(data, model, ranker="none", network="none", prior_sources="auto")
    assert "ranker" not in RecommenderSystem(systems.restrict(none, known, "validation")).key


def test_weights_are_kept_apart_for_each_choice_of_parts(data: Dataset) -> None:
    model = language_model()
    plain = Recommender(data, model).tuning_key()
    verdict(data, replace(RANKED, sources=COUNTED, network="none", epochs=None))
    ranked = Recommender(data, model).tuning_key()
    assert plain == Recommender(data, model, ranker="none").tuning_key()
    assert ranked == Recommender(data, model, ranker="lambdarank").tuning_key()
    assert plain != ranked


def test_the_public_name() -> None:
    assert callable(genrec.fit)
