"""A sequence network's scores as features of the learned ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counted_shop import NAMES, catalog, history, shop
from support.tiny import language_model

from genrec import Dataset, History
from genrec.baselines import registry
from genrec.baselines.sasrec import SASRec
from genrec.baselines.title_sasrec import TitleSASRec, locate_vectors, project
from genrec.config import Settings
from genrec.errors import SettingsError
from genrec.files import map_arrays
from genrec.priors import rank_features, rank_fit
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.fitted import Parts
from genrec.priors.rank_features import FEATURES, NEW, SEEN
from genrec.priors.rank_network import RankNetwork

COLUMNS = ("network", "network, share", "network, rank")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"epochs": 2, "hidden": 8, "layers": 1, "heads": 1}
    monkeypatch.setattr(SASRec, "defaults", {**SASRec.defaults, **small})
    monkeypatch.setattr(
        TitleSASRec, "defaults", {**TitleSASRec.defaults, **small, "encoder": "ngrams"}
    )


def dataset(users: int = 70) -> Dataset:
    """Users who go through the catalog in order, from a random item on."""
    starts = np.random.default_rng(0).integers(len(NAMES), size=users)
    events = [[int(s + n) % len(NAMES) for n in range(6)] for s in starts]
    return shop(events, [["train"] * 4 + ["validation", "test"]] * users)


def table(prior: CollaborativePrior, past: History) -> tuple[Any, dict[str, np.ndarray]]:
    mixture = prior._mixture
    parts = mixture.parts(past)
    values = rank_fit.to_dense(mixture.combine(parts))
    seen = rank_features.seen_rows(prior.counts, past, ())
    assert prior.rankers is not None
    network = None if prior.rankers.network is None else prior.rankers.network.logprobs([past])[0]
    candidates = rank_fit.describe(mixture, past, parts, values, seen, network)[NEW]
    return candidates.rows, dict(zip(FEATURES, candidates.features().T, strict=True))


@pytest.mark.parametrize("name", ["sasrec", "titlesasrec"])
def test_its_scores_are_features(name: str, tmp_path: Path) -> None:
    data = dataset()
    prior = CollaborativePrior.fit(data)
    prior.learn_to_rank(data, "buy", network=name)
    rankers = prior.rankers
    assert rankers is not None
    assert rankers.network is not None
    past = history(1, 2)
    rows, found = table(prior, past)
    scores = rankers.network.scorer.scores(past)
    logprobs = scores - np.logaddexp.reduce(scores)
    assert found["network"] == pytest.approx(logprobs[rows], abs=1e-5)
    assert np.exp(found["network, share"]).sum() == pytest.approx(1, abs=1e-5)
    order = np.argsort(-logprobs[rows], kind="stable")
    assert found["network, rank"][order].tolist() == list(range(len(rows)))
    assert np.exp(prior.logprobs(past)).sum() == pytest.approx(1)
    # It is saved with the prior, and works without the events.
    prior.save(tmp_path / "prior.safetensors")
    for known in (data, data.catalog):
        again = CollaborativePrior.load(tmp_path / "prior.safetensors", known)
        assert again.logprobs(past) == pytest.approx(prior.logprobs(past))
        assert again.rankers is not None
        assert again.rankers.digest() == rankers.digest()


def first(scores: Mapping[int, float], n: int) -> list[int]:
    """The rows with the highest scores; the lower row comes first among equal ones."""
    return sorted(scores, key=lambda row: (-scores[row], row))[:n]


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 5), min_size=n, max_size=n),
            st.lists(st.integers(-9, -1), max_size=n),
            st.lists(st.integers(0, n - 1), max_size=n),
        )
    ),
    st.integers(1, 4),
    st.integers(0, 4),
)
def test_its_first_items_become_candidates(
    drawn: tuple[list[int], list[int], list[int]], most: int, added: int
) -> None:
    weights, scores, seen = drawn
    expected = {}
    for kind in (NEW, SEEN):
        of_kind = {r: float(w) for r, w in enumerate(weights) if (r in seen) == (kind == SEEN)}
        chosen = first(of_kind, most)
        rest = {r: s for r, s in enumerate(scores) if r in of_kind and r not in chosen}
        both = chosen + first(rest, added)
        if len(both) > 1:
            expected[kind] = sorted(both, key=lambda row: -of_kind[row])
    network = np.array(scores, dtype=float)
    rows = np.array(seen, dtype=np.int64)
    found = rank_features.choose(
        np.array(weights, dtype=float), rows, most, network=network, added=added
    )
    assert found.keys() == expected.keys()
    for kind, each in found.items():
        assert set(each.tolist()) == set(expected[kind])
        assert [weights[row] for row in each] == [weights[row] for row in expected[kind]]
    without = rank_features.choose(np.array(weights, dtype=float), rows, most)
    for kind, each in without.items():
        assert set(each.tolist()) <= set(found[kind].tolist())


def test_an_item_that_only_it_finds_moves_up(monkeypatch: pytest.MonkeyPatch) -> None:
    data, past = dataset(), history(1, 2)
    found = {}
    for most in (2, 7):
        monkeypatch.setattr(rank_features, "CANDIDATES", most)
        prior = CollaborativePrior.fit(data)
        mixed = np.exp(prior.logprobs(past))
        prior.learn_to_rank(data, "buy", network="sasrec")
        assert prior.rankers is not None
        assert prior.rankers.added == rank_features.ADDED
        seen = rank_features.seen_rows(prior.counts, past, ())
        new = np.setdiff1d(np.arange(len(mixed)), seen)
        changed = ~np.isclose(np.exp(prior.logprobs(past)), mixed)
        found[most] = set(np.flatnonzero(changed).tolist())
        assert len(found[most]) > 2  # it adds all others to the two
        assert found[most] <= set(new.tolist())
        alone = replace(prior.rankers, added=0)
        assert alone.digest() != prior.rankers.digest()
        again = rank_fit.CandidateRankers.from_arrays(*alone.to_arrays(), data.catalog)
        assert again.added == 0  # as a ranking that was saved before there was this number


def test_it_starts_from_the_encoder_that_is_named(tmp_path: Path, model: Path) -> None:
    dataset().save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    name = f"lm:{model}"
    network = RankNetwork.fit(f"titlesasrec:1@{name}", data, "validation")
    assert network.named == ("titlesasrec", 1, name)
    assert network.scorer.settings["encoder"] == name
    kept = locate_vectors(tmp_path / "data", data.catalog, name)
    width = map_arrays(kept)[0]["vectors"].shape[1]
    assert width == language_model().model.config.hidden_size
    plain = RankNetwork.fit("titlesasrec:1", data, "validation")
    assert plain.named == ("titlesasrec", 1, None)
    past = history(1, 2)
    assert not np.allclose(network.scorer.scores(past), plain.scorer.scores(past))
    kept.unlink()
    prior = CollaborativePrior.fit(data)
    prior.learn_to_rank(data, "buy", network=f"titlesasrec:1@{name}")
    assert prior.rankers is not None
    assert Parts().with_rankers(prior.rankers).network_text == f"titlesasrec:1@{name}"
    prior.save(tmp_path / "prior.safetensors")
    again = CollaborativePrior.load(tmp_path / "prior.safetensors", data)
    assert Parts().with_rankers(again.rankers).encoder == name
    with pytest.raises(SettingsError, match="only titlesasrec starts from vectors of titles"):
        Settings(ranker="lambdarank", network="sasrec", network_encoder=name)


def test_what_it_does_not_know_is_missing() -> None:
    data = dataset()
    prior = CollaborativePrior.fit(data)
    prior.learn_to_rank(data, "buy", network="sasrec")
    for past in (History(), History((replace(history(1).interactions[0], item_id="x"),))):
        assert prior.rankers is not None
        assert prior.rankers.network is not None
        assert prior.rankers.network.logprobs([past]) == [None]
    prior.update({"u1": ["i0", "i7"]}, catalog(1))
    rows, found = table(prior, history(0, 7))
    assert set(rows.tolist()) == set(range(1, 7))
    rows, found = table(prior, history(0, 1))
    unknown = rows == 7
    assert unknown.any()
    for name in COLUMNS:
        assert np.array_equal(np.isnan(found[name]), unknown)
    assert np.exp(prior.logprobs(history(0, 7))).sum() == pytest.approx(1)
    rows, found = table(prior, History())
    assert all(np.isnan(found[name]).all() for name in COLUMNS)


def test_it_never_learns_from_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one for the labels of train knows nothing of them, and the served one counts all."""
    data = dataset()
    monkeypatch.setattr(rank_fit, "is_test_after_train", lambda events: False)
    fitted: list[tuple[int, str]] = []
    fit = registry.fit

    def spy(name: str, dataset: Dataset, **options: Any) -> Any:
        found = fit(name, dataset, **options)
        limit = {"validation": 1, "test": 2, "end": 3}[options["before"]]
        fitted.append((int((dataset.interactions.columns.split < limit).sum()), options["before"]))
        return found

    monkeypatch.setattr(registry, "fit", spy)
    prior = CollaborativePrior.fit(data, before="end")
    prior.learn_to_rank(data, "buy", network="sasrec")
    n = len(data.interactions.user_ids)
    assert fitted == [(n, "validation"), (4 * n, "validation"), (6 * n, "end")]
    used: list[Any] = []
    real = RankNetwork.logprobs

    def logprobs(self: RankNetwork, histories: Any) -> Any:
        longest = max(map(len, histories))
        used.append((longest, float(self.scorer.arrays["popularity"].sum())))
        return real(self, histories)

    monkeypatch.setattr(RankNetwork, "logprobs", logprobs)
    rank_fit.fit_rankers(data, "buy", prior.mix, (), network="sasrec")
    assert {events for longest, events in used if longest < 4} == {n}
    assert {events for longest, events in used if longest == 4} == {4 * n}


def test_similar_titles_start_close_together() -> None:
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(4, 30))
    vectors = np.concatenate([g + 0.05 * rng.normal(size=(5, 30)) for g in groups]) + 3.0
    projected = project(vectors, 8)
    unit = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = np.kron(np.eye(4), np.ones((5, 5))).astype(bool)
    assert cosines[same].mean() > cosines[~same].mean() + 0.3
    assert projected.std() == pytest.approx(0.05, rel=0.01)
    wide = project(vectors[:3], 16)  # there are fewer axes than columns
    assert wide.shape == (3, 16)
    assert np.isfinite(wide).all()
    assert np.isfinite(project(np.ones((4, 3)), 2)).all()


def test_training_starts_from_the_titles() -> None:
    data = dataset()
    for epochs, near in ((0, True), (2, False)):
        fitted = registry.fit("titlesasrec", data, epochs=epochs)
        assert isinstance(fitted, TitleSASRec)
        start = np.asarray(fitted.arrays["net.vectors.weight"])
        assert np.allclose(start, fitted._first, atol=1e-6) == near


def test_a_network_needs_a_ranker() -> None:
    with pytest.raises(SettingsError, match="network='sasrec' does not work with ranker='auto'"):
        Settings(network="sasrec")
