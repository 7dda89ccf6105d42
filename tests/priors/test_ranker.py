"""Learned rankings of the prior's candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counted_shop import EVEN, NAMES, catalog, counted, history, sequences
from support.tiny import language_model

import genrec
from genrec import Dataset, Interaction, Recommender
from genrec.config import PROTOCOL
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.interactions import Interactions
from genrec.errors import DataError
from genrec.evaluation.systems import RecommenderSystem
from genrec.priors import rank_features, rank_fit
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import Counts, count
from genrec.priors.event_times import EventTimes
from genrec.priors.rank_features import FEATURES, KINDS, NEW, SEEN
from genrec.priors.rank_fit import CandidateRankers, to_dense
from genrec.priors.ranking import Groups, Ranker, fit_ranker
from genrec.reports.evaluation_report import remarks
from genrec.reports.terminal import describe_prior


def groups(n: int, seed: int, *, size: int = 8) -> Groups:
    """Groups in which the second feature times the sign of the third decides what comes first."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n * size, 3)).astype(np.float32)
    value = features[:, 1] * np.sign(features[:, 2]) + 0.3 * rng.normal(size=n * size)
    labels = np.zeros(n * size, dtype=np.bool_)
    labels[np.arange(n) * size + value.reshape(n, size).argmax(1)] = True
    return Groups(features, labels, np.full(n, size, dtype=np.int64))


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    found = fit_ranker(groups(600, 0), groups(200, 1))
    assert found is not None
    return found


def test_it_learns_what_decides(ranker: Ranker) -> None:
    test = groups(300, 2)
    hits = 0
    for start in range(0, len(test.labels), 8):
        shares = ranker.shares(test.features[start : start + 8])
        assert shares.sum() == pytest.approx(1)
        assert (shares > 0).all()
        hits += int(test.labels[start + shares.argmax()])
    assert hits / 300 > 0.35  # by chance: one in eight


def test_its_shares_are_as_likely_as_it_says(ranker: Ranker) -> None:
    """The scale makes the labels of the validation groups most likely."""
    validation = groups(200, 1)

    def nats(scale: float) -> float:
        other = Ranker(ranker.trees, scale, 0.0)
        places = range(0, len(validation.labels), 8)
        shares = [other.shares(validation.features[start : start + 8]) for start in places]
        return float(-np.log(np.concatenate(shares)[validation.labels]).mean())

    assert nats(ranker.scale) == pytest.approx(ranker.nats)
    assert ranker.nats < np.log(8)
    assert ranker.nats <= min(nats(ranker.scale * 1.3), nats(ranker.scale / 1.3))


@pytest.mark.parametrize("what", ["few", "no labels", "every label"])
def test_too_little_to_learn_from(what: str) -> None:
    train = groups(20 if what == "few" else 200, 0)
    if what != "few":
        labels = np.full(len(train.labels), what == "every label")
        train = Groups(train.features, labels, train.sizes)
    assert fit_ranker(train, groups(200, 1)) is None
    assert fit_ranker(groups(200, 1), train) is None


def test_the_same_seed_gives_the_same_trees() -> None:
    first, second = (fit_ranker(groups(200, 0), groups(100, 1), seed=3) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.trees == second.trees


class _Backwards(Ranker):
    """Gives the largest share to the last candidate of the mixture."""

    def shares(self, features: np.ndarray, threads: int = 1) -> np.ndarray:
        assert threads == 1
        assert features.shape[1] == len(FEATURES)
        rank = features[:, list(FEATURES).index("rank")]
        values = 1.0 + rank
        return np.asarray(values / values.sum(), dtype=np.float64)


BACKWARDS = CandidateRankers(dict.fromkeys(KINDS, _Backwards("", 1.0, 0.0)))


@given(events=sequences, rows=st.lists(st.integers(0, len(NAMES) - 1), max_size=6))
def test_each_kind_keeps_its_mass(events: list[list[int]], rows: list[int]) -> None:
    prior = counted(events)
    plain = np.exp(prior.logprobs(history(*rows)))
    prior.rankers = BACKWARDS
    ranked = np.exp(prior.logprobs(history(*rows)))
    seen = np.isin(np.arange(len(NAMES)), rows)
    assert ranked.sum() == pytest.approx(1)
    for kind in (seen, ~seen):
        assert ranked[kind].sum() == pytest.approx(plain[kind].sum())
        order = np.argsort(-plain[kind].round(12), kind="stable")
        if kind.sum() > 1:
            assert (np.diff(ranked[kind][order]) > 0).all()  # the last one of the mixture leads
        else:
            assert ranked[kind] == pytest.approx(plain[kind])


@given(events=sequences, rows=st.lists(st.integers(0, len(NAMES) - 1), max_size=6))
def test_a_kind_without_a_ranking_stays_as_it_is(events: list[list[int]], rows: list[int]) -> None:
    prior = counted(events)
    plain = prior.logprobs(history(*rows))
    seen = np.isin(np.arange(len(NAMES)), rows)
    prior.rankers = CandidateRankers({NEW: BACKWARDS.by_kind[NEW]})
    assert prior.logprobs(history(*rows))[seen] == pytest.approx(plain[seen])
    prior.rankers = CandidateRankers({})
    assert prior.logprobs(history(*rows)) == pytest.approx(plain)


def test_only_the_best_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_features, "CANDIDATES", 3)
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [6, 0, 1]])
    plain = prior.logprobs(history(0))
    best = 1 + np.argsort(-plain[1:], kind="stable")[:3]
    prior.rankers = BACKWARDS
    ranked = prior.logprobs(history(0))
    others = np.setdiff1d(np.arange(len(NAMES)), best)
    assert ranked[others] == pytest.approx(plain[others])
    assert np.argsort(-ranked[best]).tolist() == [2, 1, 0]


def test_features_say_what_their_names_say() -> None:
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1]])
    day = 86_400
    events = [(0, 0), (1, 2), (0, 5), (2, 6)]
    past = genrec.History(tuple(Interaction(f"i{r}", "buy", d * day) for r, d in events))
    mixture = prior._mixture
    parts = mixture.parts(past)
    values = to_dense(mixture.combine(parts))
    seen = rank_features.seen_rows(prior.counts, past, ())
    given = rank_fit.describe(mixture, past, parts, values, seen)
    assert set(given[SEEN].rows.tolist()) == {0, 1, 2}
    assert set(given[NEW].rows.tolist()) == {3, 4, 5, 6}
    table = dict(zip(FEATURES, given[SEEN].features().T, strict=True))
    row = given[SEEN].rows.tolist().index(0)
    assert table["times had"][row] == 2
    assert table["events since"][row] == 1
    assert table["days since"][row] == 1
    assert table["users"][row] == pytest.approx(np.log1p(2))
    assert table["events"][row] == 4
    shares = np.exp(prior.logprobs(past))[:3]
    assert table["mixture"][row] == pytest.approx(np.log(shares[0] / shares.sum()), rel=1e-5)
    markov = prior.counts.shares("markov", [past]).toarray()[0]
    assert table["markov"][row] == pytest.approx(np.log(markov[0] / markov[:3].sum()), rel=1e-5)
    new = dict(zip(FEATURES, given[NEW].features().T, strict=True))
    assert np.isnan(new["days since"]).all()
    assert (new["times had"] == 0).all()
    assert np.isnan(new["own"]).all()  # it knows nothing of new items, which is not the same as 0
    nothing = genrec.History()
    parts = mixture.parts(nothing)
    values = to_dense(mixture.combine(parts))
    alone = rank_fit.describe(mixture, nothing, parts, values, np.empty(0, dtype=np.int64))
    table = dict(zip(FEATURES, alone[NEW].features().T, strict=True))
    assert np.isnan(table["markov"]).all()
    assert np.isfinite(table["popular"]).all()


def _table(prior: CollaborativePrior, past: genrec.History, kind: str) -> dict[str, np.ndarray]:
    """The features of the candidates of one kind, in the order of their rows."""
    mixture = prior._mixture
    parts = mixture.parts(past)
    seen = rank_features.seen_rows(prior.counts, past, ())
    given = rank_fit.describe(mixture, past, parts, to_dense(mixture.combine(parts)), seen)[kind]
    order = np.argsort(given.rows)
    return dict(zip(FEATURES, given.features()[order].T, strict=True))


def test_features_compare_a_candidate_with_the_latest_events() -> None:
    prior = counted([[0, 1, 2], [0, 3], [0, 3, 1], [3, 0, 4]])
    table = _table(prior, history(5, 1, 0), NEW)  # so the candidates are 2, 3, 4 and 6
    assert table["after latest"].tolist() == [0, 2, 1, 0]
    assert table["before latest"].tolist() == [0, 1, 0, 0]
    shared = [[1, 3, 1, 0], [1, 1, 0, 0]]  # users with item 0, and with item 1
    users, of_each = np.array([[4], [2]]), np.array([1, 3, 1, 1])
    cosines = np.array(shared) / np.sqrt(users * of_each)
    assert table["cosine, latest"] == pytest.approx(cosines[0])
    assert table["cosine, one before"] == pytest.approx(cosines[1])
    assert table["cosine, highest"] == pytest.approx(cosines.max(axis=0))
    assert table["items shared users"].tolist() == [2, 2, 1, 0]
    assert (table["users of latest"] == np.float32(np.log1p(4))).all()
    # The titles: red mug, red doll, red doll house, blue mug, blue mug, set of 12, set of 1.
    assert table["first word, latest"].tolist() == [1, 0, 0, 0]
    assert table["first word, events"].tolist() == [2, 0, 0, 1]
    assert table["first word, share"] == pytest.approx([2 / 3, 0, 0, 1 / 3])
    assert table["first word, titles"] == pytest.approx(np.log1p([3, 2, 2, 2]))
    assert table["title, latest"][1] == table["title, latest"][2]  # two titles are the same
    assert table["title, latest"][1] > table["title, latest"][3]  # a mug is rather like a mug
    assert table["title, one before"].argmax() == 0
    assert (table["title, highest"] >= table["title, mean"]).all()
    assert table["title, highest"].argmax() in (0, 3)
    vectors = prior.counts.title_neighbors.alike.vectors.toarray()
    each = (vectors[[0, 1, 5]] @ vectors[[2, 3, 4, 6]].T).mean(axis=0)
    assert table["title, mean"] == pytest.approx(each, abs=1e-6)


def test_without_a_history_nothing_is_compared() -> None:
    table = _table(counted([[0, 1, 2], [0, 3]]), history(), NEW)
    for name in ("after latest", "cosine, latest", "title, highest", "users of latest", "span"):
        assert np.isnan(table[name]).all()
    one = _table(counted([[0, 1, 2], [0, 3]]), history(0), NEW)
    assert np.isnan(one["title, one before"]).all()
    assert np.isfinite(one["title, latest"]).all()


def test_features_of_time_count_back_from_the_latest_event() -> None:
    day = 86_400.0
    prior = CollaborativePrior(Counts.none(catalog()), EVEN)
    events = [("i0", 0), ("i1", 90), ("i2", 95), ("i2", 99), ("i3", 104)]
    prior.update({"u": [Interaction(item, "buy", d * day) for item, d in events]})
    past = genrec.History(
        tuple(Interaction(i, "buy", d * day) for i, d in [("i0", 40), ("i5", 99.5), ("i0", 100)])
    )
    table = _table(prior, past, NEW)  # the candidates are 1, 2, 3, 4 and 6
    assert table["month"] == pytest.approx(np.log(np.array([1.1, 2.1, 0.1, 0.1, 0.1]) / 103))
    assert table["half year"] == pytest.approx(np.log(np.array([1.1, 2.1, 0.1, 0.1, 0.1]) / 104))
    assert table["days from first"].tolist()[:3] == [10, 5, -4]
    assert table["days from last"].tolist()[:3] == [10, 1, -4]
    assert np.isnan(table["days from first"][3:]).all()
    assert table["latest gap"].tolist() == [0.5] * 5
    assert table["span"].tolist() == [60] * 5
    assert table["at once"].tolist() == [2] * 5
    untimed = _table(counted([[0, 1, 2], [0, 3]]), past, NEW)
    assert np.isnan(untimed["month"]).all()
    assert np.isnan(untimed["days from last"]).all()


def test_rankings_of_other_features_are_refused(shop: Dataset, tmp_path: Path) -> None:
    prior = CollaborativePrior.fit(shop, sources=["markov"])
    prior.rankers = BACKWARDS
    prior.save(tmp_path / "prior.safetensors")
    fewer = dict(list(FEATURES.items())[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_fit, "FEATURES", fewer)
        with pytest.raises(DataError, match="other features"):
            CollaborativePrior.load(tmp_path / "prior.safetensors", shop)


def test_labels_are_held_out_of_one_group_of_users_at_a_time(
    shop: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = rank_fit.FOLDS
    monkeypatch.setattr(rank_fit, "is_test_after_train", lambda events: False)
    counts: list[int] = []
    labeled: list[set[str]] = []

    def counted_now(dataset: Dataset, *rest: Any) -> Counts:
        found = count(dataset, *rest)
        counts.append(int(found.popularity.sum()))
        labeled.append({c.user_id for c in protocols.cases(dataset, "last-unit", "validation")})
        return found

    monkeypatch.setattr(rank_fit, "count", counted_now)
    rank_fit.fit_rankers(shop, "buy", {"popular": 0.5, "markov": 0.5}, ())
    train = int((shop.interactions.columns.split == 0).sum())
    everyone = set(shop.interactions.user_ids)
    assert counts[0] == train  # before validation
    assert labeled[0] == everyone
    for cut in range(rank_fit.CUTS):
        some = [labeled[1 + fold * rank_fit.CUTS + cut] for fold in range(folds)]
        assert set.union(*some) == everyone
        assert sum(map(len, some)) == len(everyone)
        for fold, users in enumerate(some):  # the shop has no baskets, so a unit is an event
            assert counts[1 + fold * rank_fit.CUTS + cut] == train - (cut + 1) * len(users)


def test_where_test_is_later_for_all_the_labels_are_too() -> None:
    """Each cut holds out the latest tenth of what is left, in which new items appear."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(50), 40)
    times = rng.permutation(2000).astype(np.float64) * 3600
    items = (times / 3600 // 20).astype(int)  # an item is new every twenty hours
    events = pa.table({
        "user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items],
        "behavior": ["buy"] * 2000, "timestamp": times + 1e9,
    })  # fmt: skip
    names = pa.table(
        {"item_id": [f"i{n}" for n in range(100)], "title": [f"t {n}" for n in range(100)]}
    )
    data = Dataset.from_tables(names, events, name="late", split="global-time")
    before = np.inf
    for held in rank_fit.hold_labels(data.interactions, "buy"):
        c = held.columns
        train, labels = c.timestamp[c.split == 0], c.timestamp[c.split == 1]
        assert train.max() < labels.min() <= labels.max() < before
        assert len(labels) == pytest.approx(0.1 * (len(train) + len(labels)), abs=2)
        assert not set(c.row[c.split == 1].tolist()) <= set(c.row[c.split == 0].tolist())
        before = labels.min()
    together = data.interactions.with_split(data.interactions.columns.split)
    for held in rank_fit.hold_labels(together, "buy", np.arange(50) < 25):  # some users: by units
        assert (
            np.bincount(held.columns.user[held.columns.split == 1], minlength=50)[25:] == 0
        ).all()


def test_new_events_and_items_reach_it() -> None:
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1]])
    prior.rankers = BACKWARDS
    prior.update({"u9": ["i7", "i0"]}, catalog(2))
    ranked = np.exp(prior.logprobs(history(0)))
    assert len(ranked) == len(NAMES) + 2
    assert ranked.sum() == pytest.approx(1)


def pairs(users: int = 200, items: int = 40, seed: int = 0) -> Dataset:
    """A shop in which an even item is followed by the next one, but only by odd users' taste.

    Popular items (the first ten) are bought in between without any pattern, so that the mixture
    prefers them.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {"user_id": [], "item_id": [], "behavior": [], "timestamp": []}
    for user in range(users):
        time = 0
        order = rng.permutation(np.arange(10, items, 2))[:6]
        for first in order.tolist():
            for item in (first, int(rng.integers(0, 10)), first + 1):
                values = f"u{user}", f"i{item}", "buy", time * 86_400 + user
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
                time += 1
    table = pa.table({"item_id": [f"i{n}" for n in range(items)], "title": [f"thing {n}" for n in range(items)]})  # fmt: skip
    return Dataset.from_tables(table, pa.table(rows), name="pairs")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("pairs") / "data"
    pairs().save(folder)
    return Dataset.load(folder)


def test_it_finds_what_the_mixture_misses(shop: Dataset) -> None:
    found = genrec.evaluate(shop, ["prior", "ranker"], split="test", users=300)
    plain, ranked = found.results
    assert (plain.name, ranked.name) == ("prior", "ranker")
    assert ranked.mean("ndcg@5").mean > plain.mean("ndcg@5").mean + 0.02
    assert ranked.mean("nats").mean < plain.mean("nats").mean


def test_it_is_kept_in_the_cache(shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    past = shop.interactions.history("u0", before="test")
    lists = []
    for _ in range(2):
        prior = CollaborativePrior.fit(shop)
        prior.learn_to_rank(shop, "buy")
        lists.append(prior.logprobs(past))
        monkeypatch.setattr(rank_fit, "fit_ranker", None)  # a second fit would fail
    assert (lists[0] == lists[1]).all()


def test_a_recommender_uses_it_and_stays_exact(shop: Dataset) -> None:
    model = language_model()
    plain = Recommender(shop, model, exclude_seen=False)
    ranked = plain.with_settings(ranker="lambdarank")
    past = shop.interactions.history("u1", before="test")
    assert ranked.prior is not plain.prior
    assert plain.prior.rankers is None  # type: ignore[union-attr]
    full = ranked.recommend(past, len(shop.catalog), options=PROTOCOL)
    assert sum(r.probability for r in full) == pytest.approx(1, abs=1e-4)
    short = ranked.recommend(past, 5, options=PROTOCOL)
    assert short.details["certificate"]["exact"]
    assert [r.item_id for r in short] == [r.item_id for r in full][:5]
    new = ranked.with_settings(exclude_seen=True).recommend(past, 5)
    assert {r.item_id for r in new}.isdisjoint(past.item_ids)


def test_targets_do_not_enter_it(shop: Dataset) -> None:
    """Other test events lead to the same rankings."""
    events = shop.interactions
    columns = events.columns
    test = columns.split == 2
    rows = columns.row.copy()
    rows[test] = (rows[test] + 7) % len(shop.catalog)
    table = replace(events.table, columns=replace(columns, row=rows))
    other = replace(shop, interactions=Interactions(shop.catalog, table))
    digests = []
    for data in (shop, other):
        prior = CollaborativePrior.fit(replace(data, folder=None))
        prior.learn_to_rank(replace(data, folder=None), "buy")
        assert prior.rankers is not None
        digests.append(prior.rankers.digest())
    assert digests[0] == digests[1]


def test_without_enough_events_nothing_is_ranked() -> None:
    data = load("zh_mini")
    prior = CollaborativePrior.fit(data)
    past = data.interactions.history(data.interactions.user_ids[0])
    plain = prior.logprobs(past)
    prior.learn_to_rank(data, data.info.target_behavior)
    assert prior.rankers is not None
    if not prior.rankers.by_kind:
        assert prior.logprobs(past) == pytest.approx(plain)


def test_a_saved_prior_has_it(shop: Dataset, tmp_path: Path) -> None:
    past = shop.interactions.history("u0", before="test")
    prior = CollaborativePrior.fit(shop, sources=["markov", "ease", "itemknn"])
    plain = prior.logprobs(past)
    prior.learn_to_rank(shop, "buy")
    assert (prior.logprobs(past) != plain).any()
    prior.save(tmp_path / "prior.safetensors")
    again = CollaborativePrior.load(tmp_path / "prior.safetensors", shop)
    assert (again.logprobs(past) == prior.logprobs(past)).all()
    assert again.rankers is not None
    assert prior.rankers is not None
    assert again.rankers.digest() == prior.rankers.digest()


def test_a_saved_prior_with_a_baseline_has_it(shop: Dataset, tmp_path: Path) -> None:
    """Each part of the file goes back to the part that wrote it."""
    past = shop.interactions.history("u0", before="test")
    prior = CollaborativePrior.fit(shop, sources=["markov", "userknn"])
    prior.rankers = BACKWARDS
    prior.save(tmp_path / "prior.safetensors")
    again = CollaborativePrior.load(tmp_path / "prior.safetensors", shop)
    assert again.rankers is not None
    assert set(again.rankers.by_kind) == set(KINDS)
    again.rankers = prior.rankers = None
    assert again.logprobs(past) == pytest.approx(prior.logprobs(past))


def test_names_say_that_it_is_used(shop: Dataset) -> None:
    model = language_model()
    plain = Recommender(shop, model, exclude_seen=False, model_role="fuse")
    ranked = plain.with_settings(ranker="lambdarank")
    systems = [RecommenderSystem(plain), RecommenderSystem(ranked)]
    assert [s.name.partition(" + ")[2] for s in systems] == ["prior", "ranker"]
    assert ["ranker" in s.setup for s in systems] == [False, True]
    assert systems[0].key != systems[1].key
    assert ranked.prior.rankers.digest() in systems[1].key  # type: ignore[union-attr]
    answer = ranked.recommend(shop.interactions.history("u1"), 3)
    assert answer.details["prior"]["ranker"] == "lambdarank"
    assert "in the order of lambdarank" in describe_prior(answer)
    assert "ranker" not in plain.recommend(shop.interactions.history("u1"), 3).details["prior"]
    evaluation = genrec.evaluate(shop, [ranked], users=5)
    said = " ".join(remarks(evaluation))
    assert f"{systems[1].name} is the model {model.name} with" in said
    assert "ordered by lambdarank" in said


def new_candidates(past: genrec.History, prior: CollaborativePrior) -> rank_features.Candidates:
    mixture = prior._mixture
    parts = mixture.parts(past)
    values = to_dense(mixture.combine(parts))
    seen = rank_features.seen_rows(prior.counts, past, ())
    return rank_fit.describe(mixture, past, parts, values, seen)[NEW]


def described(past: genrec.History, prior: CollaborativePrior) -> dict[str, np.ndarray]:
    """The features of new candidates."""
    return dict(zip(FEATURES, new_candidates(past, prior).features().T, strict=True))


@pytest.mark.parametrize("times", [(0.0, 1.0), (None, None), (float("nan"), float("nan"))])
def test_positions_are_no_dates(times: tuple[float | None, ...]) -> None:
    """Events of typed histories have positions as times, and others have no times."""
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1]])
    dates = EventTimes(np.array([0, 1, 4]), np.array([1e9, 1.1e9, 1.2e9]))
    prior._mixture = replace(prior._mixture, counts=replace(prior.counts, times=dates))
    events = [Interaction(f"i{n}", "buy", t) for n, t in enumerate(times)]  # type: ignore[arg-type]
    table = described(genrec.History(tuple(events)), prior)
    for name in ("latest gap", "span", "at once", "days since"):
        assert np.isnan(table[name]).all(), name
    # The request is made now, which is no earlier than the latest counted event.
    ages = table["days from last"][
        np.isin(new_candidates(genrec.History(tuple(events)), prior).rows, [4])
    ]
    assert ages == pytest.approx([0.0] * len(ages))
    assert np.isfinite(table["month"]).all()
    known = [Interaction(f"i{n}", "buy", 1.15e9 + n) for n in range(2)]
    dated = described(genrec.History(tuple(known)), prior)
    assert np.isfinite(dated["month"]).all()
    assert (dated["at once"] == 2).all()


def test_histories_without_times_are_learned_from_too() -> None:
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1]])
    dates = EventTimes(np.array([0, 1, 4]), np.array([1e9, 1.1e9, 1.2e9]))
    prior._mixture = replace(prior._mixture, counts=replace(prior.counts, times=dates))
    past = genrec.History(tuple(Interaction(f"i{n}", "buy", 1.1e9 + n) for n in range(2)))
    shown = new_candidates(past, prior)
    hidden = replace(shown, timeless=True)
    assert hidden.now == shown.now == 1.1e9 + 1
    own = ("latest gap", "span", "at once", "days since")
    for name, before, after in zip(FEATURES, shown.features().T, hidden.features().T, strict=True):
        if name in own:
            assert np.isnan(after).all(), name
        else:
            assert np.array_equal(before, after, equal_nan=True), name


def test_fitted_baselines_do_not_speak() -> None:
    """They are sources only after the ranking was learned."""
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1]])
    given = new_candidates(history(0), prior)
    plain = given.features()
    more = replace(given, shares={**given.shares, "sasrec": np.ones(len(given.rows))})
    assert np.array_equal(more.features(), plain, equal_nan=True)


def test_another_behavior_is_what_it_learns_to_rank(shop: Dataset) -> None:
    """The labels have the behavior that is counted, and not the one that the dataset names."""
    table = shop.interactions.to_table()
    views = ["view" if n % 2 else b for n, b in enumerate(table["behavior"].to_pylist())]
    events = table.set_column(table.schema.get_field_index("behavior"), "behavior", pa.array(views))
    items = pa.table({"item_id": [i.item_id for i in shop.catalog], "title": shop.catalog.titles})
    keep = ["user_id", "item_id", "behavior", "timestamp"]
    both = Dataset.from_tables(items, events.select(keep), name="both", target_behavior="buy")
    named = Dataset.from_tables(items, events.select(keep), name="both", target_behavior="view")
    digests = []
    for data in (both, named):
        prior = CollaborativePrior.fit(data, behavior="view")
        prior.learn_to_rank(data, "view")
        assert prior.rankers is not None
        digests.append((sorted(prior.rankers.by_kind), prior.rankers.digest()))
    assert digests[0][0]
    assert digests[0][0] == digests[1][0]


def test_a_saved_prior_knows_what_counts_as_seen(tmp_path: Path) -> None:
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1]])
    prior.lead_in_behaviors = frozenset({"view"})
    prior.save(tmp_path / "prior.safetensors")
    again = CollaborativePrior.load(tmp_path / "prior.safetensors", prior.counts.catalog)
    assert again.lead_in_behaviors == {"view"}
