"""The collaborative prior: against slow counting, and fused with tiny models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.counted_shop import EVEN, NAMES, catalog, counted, history, sequences, shop
from support.reference import fused_logprobs, logprobs
from support.slow_ngrams import slowly as cubed

import genrec
from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.baselines import registry as baselines
from genrec.config import PROTOCOL
from genrec.data import protocols
from genrec.data.interactions import Interactions
from genrec.data.splits import hold_last_train_unit, is_test_after_train
from genrec.errors import DataError, RequestError, SettingsError
from genrec.files import write_arrays
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.priors.counts import Counts
from genrec.priors.weights import Weights

ALIKE = cubed(NAMES)


def dense(weights: Weights, n: int = len(NAMES)) -> list[float]:
    """Weights as a list, which sums to 1."""
    if weights.rows is None:
        values = np.append(weights.values, np.full(n - len(weights.values), weights.rest))
    else:
        assert weights.base is not None
        values = np.array(dense(Weights(weights.base.values, rest=weights.base.rest), n))
        base = weights.base.values.sum() + weights.base.rest * (n - len(weights.base.values))
        values = values * base
        values[weights.rows] += weights.values
    found: list[float] = (values / values.sum()).tolist()
    return found


def slowly(events: Sequence[Sequence[int]], rows: Sequence[int]) -> list[float]:
    """The mixture of even weights by plain loops."""
    n = len(NAMES)
    popular = [1 + sum(row == i for e in events for row in e) for i in range(n)]
    after = [[0.0] * n for _ in range(n)]
    for bought in events:
        for a, b in itertools.pairwise(bought):
            after[a][b] += 1
            after[b][a] += 0.3
    users = [{u for u, e in enumerate(events) if i in e} for i in range(n)]

    def cosine(i: int, j: int) -> float:
        if i == j or not users[i] or not users[j]:
            return 0.0
        return len(users[i] & users[j]) / float(np.sqrt(len(users[i]) * len(users[j])))

    gram = np.array([[len(users[i] & users[j]) for j in range(n)] for i in range(n)], float)
    inverse = np.linalg.inv(gram + 250 * np.eye(n))
    linear = np.maximum(-inverse / np.diag(inverse), 0) * (1 - np.eye(n))

    newest = list(reversed(rows))
    sources = [
        [sum(0.8**k * after[a][i] for k, a in enumerate(newest[:5])) for i in range(n)],
        [sum(0.95**k * after[a][i] for k, a in enumerate(newest)) for i in range(n)],
        [sum(cosine(i, j) for j in set(rows)) for i in range(n)],
        [sum(cosine(i, j) ** 3 for j in set(rows)) for i in range(n)],
        [sum(0.5**k * cosine(i, a) ** 2 for k, a in enumerate(newest[:5])) for i in range(n)],
        [sum(float(linear[a][i]) for a in set(rows)) for i in range(n)],
        [sum(0.8**k * ALIKE[a][i] for k, a in enumerate(newest[:25])) for i in range(n)],
        [sum(0.95**k for k, a in enumerate(newest) if a == i) for i in range(n)],
        [sum(0.8**k for k, a in enumerate(newest) if a == i) for i in range(n)],
    ]
    total = np.zeros(n)
    for source in sources:
        given = np.array(source if sum(source) else popular, dtype=np.float64)
        total += given / given.sum() / len(COUNTED)
    every = [row for e in events for row in e]
    last = every[-max(len(every) // 10, 1) :]
    total += np.bincount(last, minlength=n) / len(last) / len(COUNTED)
    return list(total + np.array(popular) / sum(popular) / len(COUNTED))


@given(sequences, st.lists(st.integers(0, len(NAMES) - 1), max_size=8))
def test_weights_equal_plain_counting(events: list[list[int]], rows: list[int]) -> None:
    weights = counted(events).weights(history(*rows))
    assert dense(weights) == pytest.approx(slowly(events, rows), abs=1e-6)
    assert min(dense(weights)) > 0


@given(sequences, st.integers(0, 2**16), st.lists(st.integers(0, len(NAMES) - 1), max_size=4))
def test_an_update_equals_a_rebuild(events: list[list[int]], seed: int, rows: list[int]) -> None:
    rng = np.random.default_rng(seed)
    whole, prior = counted(events), CollaborativePrior(Counts.none(catalog()), EVEN)
    left = {f"u{n}": [f"i{row}" for row in rows] for n, rows in enumerate(events)}
    while any(left.values()):
        some = {user: items[: rng.integers(4)] for user, items in left.items()}
        prior.update(some)
        left = {user: items[len(some[user]) :] for user, items in left.items()}
    one, two = whole.counts, prior.counts
    order = [two.user_ids.index(u) for u in one.user_ids]
    assert one.latest.tolist() == two.latest[order].tolist()
    assert (one.items.toarray() == two.items.toarray()[order]).all()
    for name in ("after", "ease"):
        assert (getattr(one, name).toarray() == getattr(two, name).toarray()).all()
    assert one.popularity.tolist() == two.popularity.tolist()
    both = [  # what is trending depends on the order of users' events, which is another here
        CollaborativePrior(counts, {n: w for n, w in EVEN.items() if n != "trending"})
        for counts in (one, two)
    ]
    assert dense(both[0].weights(history(*rows))) == dense(both[1].weights(history(*rows)))


@given(st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=300), st.integers(1, 60))
def test_trending_is_the_latest_tenth(rows: list[int], size: int) -> None:
    prior = CollaborativePrior(Counts.none(catalog()), {"popular": 1.0, "trending": 1.0})
    for first in range(0, len(rows), size):
        prior.update({"u": [f"i{row}" for row in rows[first : first + size]]})
    latest = rows[-max(len(rows) // 10, 1) :]
    assert prior.counts.newest.tolist() == latest
    share = np.bincount(latest, minlength=len(NAMES)) / len(latest)
    expected = (prior.counts.base.values + share) / 2
    for known in (history(), history(0)):
        assert dense(prior.weights(known)) == pytest.approx(expected.tolist())


def test_the_latest_are_those_of_time() -> None:
    # Both users at once, the second a little later.
    order = shop([[0] * 9 + [5, 2], [1] * 10 + [2]], [["train"] * 10 + ["test"]] * 2)
    assert order.info.time_unit == "position"  # these compare within a user only
    known = CollaborativePrior.fit(order, mix={"popular": 1, "trending": 1}).counts
    assert known.newest.tolist() == []
    assert known.trend.tolist() == known.base.values.tolist()
    data = replace(order, info=replace(order.info, time_unit="s"))
    counts = CollaborativePrior.fit(data, mix={"popular": 1, "trending": 1}).counts
    assert counts.newest.tolist() == [5, 1]
    one, two = (CollaborativePrior(Counts.none(catalog()), EVEN) for _ in range(2))
    early, late = Interaction("i3", "buy", 1.0), Interaction("i4", "buy", 2.0)
    one.update({"a": [late], "b": [early]})
    two.update({"a": [late], "b": ["i3"]})  # one has no time
    assert (one.counts.newest.tolist(), two.counts.newest.tolist()) == ([4], [3])


def test_ease_is_the_baseline_s_strongest_weights(
    demo_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = baselines.fit("ease", demo_data).arrays["weights"]
    counts = CollaborativePrior.fit(demo_data, mix={"popular": 1, "ease": 1}).counts
    found = counts.ease.toarray()
    assert (np.diff(counts.ease.indptr) <= 50).all()
    assert (found >= 0).all()
    kept = found > 0
    assert found[kept] == pytest.approx(weights[kept], abs=1e-6)
    left = np.where(kept, 0.0, weights)
    full = np.diff(counts.ease.indptr) == 50
    least = np.where(kept, found, np.inf).min(axis=1, initial=np.inf)
    assert (left.max(axis=1) <= np.where(full, least, 0.0) + 1e-6).all()
    monkeypatch.setattr("genrec.priors.ease_weights._ITEMS", 40)
    few = CollaborativePrior.fit(demo_data, mix={"popular": 1, "ease": 1}).counts
    users = np.bincount(few.items.indices, minlength=len(few.catalog))
    rows, columns = few.ease.nonzero()
    assert 20 < len({*rows.tolist(), *columns.tolist()}) <= 40
    assert users[rows].min() >= np.sort(users)[-40]


def test_ease_is_refused_without_enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = counted([[0, 1, 2], [0, 1]])
    monkeypatch.setattr("genrec.memory.free_memory", lambda: 8 * 3**2 - 1)
    with pytest.raises(SettingsError, match=r"'ease' of the prior, with 3 items.*--prior-sources"):
        prior.weights(history(0))
    monkeypatch.setattr("genrec.memory.free_memory", lambda: 8 * 3**2)
    assert "ease" in prior.weights(history(0)).sources


@pytest.mark.parametrize("cells", [1, 3 * len(NAMES), 1000])
def test_shares_are_fitted_to_some_histories_at_a_time(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large catalog; the shares are the same."""
    prior = counted([[0, 1, 2, 3], [3, 4, 5], [0, 1], [2, 3, 0]])
    histories = [history(), *(history(n, n + 1) for n in range(5)), history(2)]
    targets = [f"i{n}" for n in (0, 2, 3, 0, 5, 6, 3)]
    whole = prior.mixed(histories, targets, COUNTED)
    monkeypatch.setattr("genrec.priors.mixture_fit._CELLS", cells)
    assert prior.mixed(histories, targets, COUNTED) == whole


def test_new_items_and_users_are_counted_and_fall_back() -> None:
    prior = counted([[0, 1, 2], [0, 1]])
    wide = catalog(2)
    before = dense(prior.weights(History((Interaction("i8", "buy"),))), 9)
    assert before[7] == before[8] == min(before)  # a new item is one without events
    alike = CollaborativePrior(Counts.none(wide), {"popular": 1.0, "titles": 1.0})
    found = dense(alike.weights(History((Interaction("i8", "buy"),))), 9)
    assert found[7] > 5 * found[0]  # whose title says something nonetheless
    assert alike.weights(history(4)).sources == ("popular", "titles")
    assert alike.weights(History()).sources == ("popular",)
    prior.update({"new": ["i0", "i8"], "u1": [Interaction("i8", "buy")]}, wide)
    after = dense(prior.weights(history(0)), 9)
    assert after[8] > after[7] > 0
    again = CollaborativePrior(Counts.none(wide), EVEN)
    again.update({"u0": ["i0", "i1", "i2"], "u1": ["i0", "i1", "i8"], "new": ["i0", "i8"]})
    assert after == dense(again.weights(history(0)), 9)
    assert prior.weights(History()).sources == ("popular", "trending")
    assert prior.weights(history(3)).sources == ("popular", "trending", "titles", "own", "recent")
    assert prior.weights(history(0)).sources == COUNTED
    with pytest.raises(RequestError, match="same items"):
        prior.update({}, catalog())
    with pytest.raises(RequestError, match="mapping from user_id"):
        prior.update({"u0": "i0"})
    with pytest.raises(RequestError, match="not in the catalog"):
        prior.update({"u0": ["nothing"]})


def test_save_and_load(tmp_path: Path, demo_data: Dataset) -> None:
    prior = counted([[0, 1, 2], [0, 1, 0, 5], [6]])
    prior.save(tmp_path / "prior.safetensors")
    loaded = CollaborativePrior.load(tmp_path / "prior.safetensors", catalog())
    loaded.update({"u1": ["i6"], "x": ["i6"]})
    prior.update({"u1": ["i6"], "x": ["i6"]})
    for rows in ((), (0,), (5, 6)):
        assert dense(prior.weights(history(*rows))) == dense(loaded.weights(history(*rows)))
    assert loaded.mix == prior.mix
    with pytest.raises(DataError, match="the same catalog"):
        CollaborativePrior.load(tmp_path / "prior.safetensors", catalog(1))
    write_arrays(tmp_path / "x", {"a": np.zeros(1)}, {})
    with pytest.raises(DataError, match="not a saved prior"):
        CollaborativePrior.load(tmp_path / "x", catalog())
    CollaborativePrior(Counts.none(catalog()), EVEN).save(tmp_path / "empty")
    empty = CollaborativePrior.load(tmp_path / "empty", catalog())
    # All but titles and the history's own have nothing to say, and popularity is even.
    alike = np.array(ALIKE[0]) / sum(ALIKE[0])
    expected = 8 / 11 / 7 + alike[1:] / 11
    assert dense(empty.weights(history(0)))[1:] == pytest.approx(expected.tolist())
    mixed = CollaborativePrior.fit(demo_data, mix={"popular": 1, "userknn": 1})
    mixed.save(tmp_path / "mixed")
    with pytest.raises(DataError, match="Expected a Dataset"):
        CollaborativePrior.load(tmp_path / "mixed", demo_data.catalog)
    read = CollaborativePrior.load(tmp_path / "mixed", demo_data)
    known = demo_data.interactions.history("12493", before="test")
    assert (read.weights(known).values == mixed.weights(known).values).all()


@pytest.mark.parametrize("name", ["content", "userknn"])
def test_fitted_baselines_can_be_mixed_in(demo_data: Dataset, name: str) -> None:
    prior = CollaborativePrior.fit(demo_data, mix={"popular": 1, name: 3})
    known = demo_data.interactions.history("12493", before="test")
    found = dense(prior.weights(known), len(demo_data.catalog))
    best = baselines.fit(name, demo_data).rank(known, 5)
    rows = demo_data.catalog.rows(best)
    popular = prior.counts.base.values[rows] / prior.counts.base.values.sum()
    assert (np.array(found)[rows] > popular).all()
    assert prior.weights(known).sources == ("popular", name)
    assert prior.weights(History()).sources == ("popular",)
    new = Recommender(demo_data, tiny.language_model(), encoder="none")
    new.prior = prior
    new.add_items([Item("new", "A NEW THING")])
    answer = new.score(known, ["new", best[0]])
    assert [r.item_id for r in answer][-1:] != [best[0]] or answer[0].score > answer[1].score


def test_mixing_weights_make_the_targets_likely(demo_data: Dataset) -> None:
    prior = CollaborativePrior.fit(demo_data)
    assert sum(prior.mix.values()) == pytest.approx(1)
    assert prior.mix["popular"] > 0.01
    cases = protocols.sample(protocols.demo_v1(demo_data, "validation"), 60)

    def nats(mix: dict[str, float]) -> float:
        made = CollaborativePrior(prior.counts, mix)
        rows = demo_data.catalog.rows([c.target for c in cases])
        n = len(demo_data.catalog)
        return float(
            np.mean(
                [
                    -np.log(dense(made.weights(c.history), n)[r])
                    for c, r in zip(cases, rows, strict=True)
                ]
            )
        )

    fitted = prior.mixed([c.history for c in cases], [c.target for c in cases], COUNTED)
    best = nats(fitted)
    assert best < nats({"popular": 1.0}) - 0.3
    for name in COUNTED:
        assert best < nats({**fitted, name: fitted[name] + 0.1}) + 1e-3


def test_mistakes_are_said() -> None:
    counts = Counts.none(catalog())
    with pytest.raises(SettingsError, match="'best' is not a source"):
        CollaborativePrior(counts, {"popular": 1.0, "best": 1.0})
    for mix in ({"markov": 1.0}, {"popular": 0.0}, {"popular": 1.0, "markov": np.nan}):
        with pytest.raises(SettingsError, match="Expected finite weights of at least 0"):
            CollaborativePrior(counts, mix)


# Leaks: what later parts hold must change nothing.

SPLITS = [["train"] * 3 + ["validation", "test"]] * 4
BEFORE_TEST = [[0, 1, 2, 3], [0, 1, 2, 5], [1, 2, 3, 0], [2, 1, 0, 6]]


def test_test_events_change_nothing() -> None:
    many, splits = BEFORE_TEST * 15, SPLITS * 15  # enough to fit mixing weights on
    one = shop([[*e, 0] for e in many], splits)
    two = shop([[*e, 6] for e in many], splits)
    assert CollaborativePrior.fit(one).mix["itemknn"] != pytest.approx(0.05)
    for before in ("validation", "test"):
        fits = [CollaborativePrior.fit(data, before=before) for data in (one, two)]
        assert fits[0].mix == fits[1].mix
        assert dense(fits[0].weights(history(0, 1))) == dense(fits[1].weights(history(0, 1)))
    both = CollaborativePrior.fit(one, before="test").counts.popularity.sum()
    assert both == 240
    assert CollaborativePrior.fit(one).counts.popularity.sum() == 180
    few = CollaborativePrior.fit(shop([[*e, 0] for e in BEFORE_TEST], SPLITS))
    assert few.mix["itemknn"] == pytest.approx(few.mix["popular"] / 5)


def test_without_validation_the_last_of_train_are_fitted_on() -> None:
    many = BEFORE_TEST * 15
    train = shop([e[:3] for e in many], [["train"] * 3] * 60)
    fit = CollaborativePrior.fit(train)
    assert fit.counts.popularity.sum() == 180
    held = shop([e[:3] for e in many], [["train", "train", "validation"]] * 60)
    assert fit.mix == CollaborativePrior.fit(held).mix
    some = shop([[*e, 0] for e in many], [SPLITS[0]] * 40 + [["train"] * 4 + ["test"]] * 20)
    assert protocols.with_validation(some, 40) is some
    assert protocols.with_validation(some, 50).interactions.users_with_target("buy") == [60, 60, 60]
    new = shop(
        [*[e[:3] for e in many], *[[3]] * 60], [*[["train"] * 3] * 60, *[["validation"]] * 60]
    )  # 60 validation users, all of them without a history
    assert protocols.count_with_history(new) == 0
    assert protocols.count_with_history(protocols.with_validation(new, 50)) == 60
    assert CollaborativePrior.fit(new).mix == fit.mix
    single = shop([[0]] * 60, [["train"]] * 60)
    assert protocols.with_validation(single, 50) is single


def timed(data: Dataset, columns: Any) -> Dataset:
    """The data with other columns, whose times are seconds."""
    i = data.interactions
    made = Interactions(i.catalog, replace(i.table, columns=columns))
    return replace(data, interactions=made, info=replace(data.info, time_unit="s"))


def test_where_test_is_later_than_train_the_latest_of_train_are_held_out() -> None:
    many = BEFORE_TEST * 15
    later = shop([[*e[:3], 0] for e in many], [["train"] * 3 + ["test"]] * 60)
    assert is_test_after_train(later.interactions)
    found = protocols.with_validation(later, 15).interactions
    assert found.users_with_target("buy") == [60, 60, 60]  # positions are no times
    later = replace(later, info=replace(later.info, time_unit="s"))
    found = protocols.with_validation(later, 15).interactions
    assert found.users_with_target("buy") == [60, 18, 60]  # a tenth of 180 events
    held = found.columns.split == 1
    assert (
        found.columns.timestamp[held].min()
        > found.columns.timestamp[found.columns.split == 0].max()
    )
    last = hold_last_train_unit(later.interactions, "buy")
    assert protocols.with_validation(later, 50).interactions.columns.split.tolist() == (
        last.columns.split.tolist()
    )  # too few of the latest
    newcomers = shop(
        [*[e[:3] for e in many], *[[3]] * 600, *[[1, 2]] * 60],
        [*[["train"] * 3] * 60, *[["train"]] * 600, *[["train", "test"]] * 60],
    )  # who came last in train came once: nothing is learned of histories from them
    times = newcomers.interactions.columns.timestamp.copy()
    times[180:780] = 50_000
    times[newcomers.interactions.columns.split == 2] = 60_000
    columns = replace(newcomers.interactions.columns, timestamp=times)
    newcomers = timed(newcomers, columns)
    assert protocols.count_with_history(protocols.with_validation(newcomers, 50)) >= 50
    same = later.interactions.columns
    day = replace(same, timestamp=np.where(same.split == 2, 2.0, 1.0))
    found = protocols.with_validation(timed(later, day), 15).interactions
    assert found.users_with_target("buy") == [60, 60, 60]  # all of train is of one moment
    none = timed(later, replace(same, split=np.full(len(same.split), 2)))
    assert protocols.with_validation(none, 15) is none
    staggered = shop([[0] * (n % 7) + [1, 2] for n in range(60)],
                     [["train"] * (n % 7 + 1) + ["test"] for n in range(60)])  # fmt: skip
    assert not is_test_after_train(staggered.interactions)
    assert not is_test_after_train(shop([[0, 1]] * 3, [["train"] * 2] * 3).interactions)


def test_validation_events_are_not_counted_in_train() -> None:
    mix = dict.fromkeys(COUNTED, 1.0)
    three = shop([[*e[:3], 6, 0] for e in BEFORE_TEST], SPLITS)
    fits = [
        CollaborativePrior.fit(data, mix=mix)
        for data in (shop([[*e, 0] for e in BEFORE_TEST], SPLITS), three)
    ]
    assert dense(fits[0].weights(history(2))) == dense(fits[1].weights(history(2)))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_counts_what_it_may(split: str) -> None:
    """A recommender counted on more than the protocol allows is counted anew."""
    data = shop([[*e, 0] for e in BEFORE_TEST], SPLITS)
    other = shop([[*e, 6] for e in BEFORE_TEST], SPLITS)
    if split == "validation":
        other = shop([[*e[:3], 4, 6] for e in BEFORE_TEST], SPLITS)
    model = tiny.language_model()
    for fit_on in ("train",) if split == "validation" else ("train", "train+validation"):
        values = []
        for each in (data, other):
            ours = Recommender(
                each,
                model,
                prior="popularity",
                prior_events="train+validation",
                exclude_seen=False,
            )
            found = genrec.evaluate(each, [ours], split=split, fit_on=fit_on)
            assert found.results[0].name.endswith("+ popularity prior")
            values.append(found.results[0].ranked)
        assert values[0] == values[1]


# Fused with a model.


@given(sequences, st.lists(st.integers(0, len(NAMES) - 1), max_size=4), st.data())
def test_fused_search_equals_slow_scoring(
    events: list[list[int]], rows: list[int], data: st.DataObject
) -> None:
    beta = data.draw(st.sampled_from([0.3, 1.0, 2.0]))
    temperature = data.draw(st.sampled_from([1.0, 3.0]))
    fused = Recommender(
        catalog(),
        tiny.language_model(data.draw(st.sampled_from(tiny.KINDS))),
        prior_weight=beta,
        node_temperature=temperature,
        exclude_seen=False,
        encoder="none",
    )
    plain = fused.with_settings()
    fused.prior = prior = counted(events)
    values = dense(prior.weights(history(*rows)))
    titles = list(fused.encoder.titles(fused.catalog))
    model = Tempered(fused.model.model, temperature)
    expected = fused_logprobs(model, fused.prompt(history(*rows)).ids, titles, values, beta)
    everything = fused.score(history(*rows))
    assert sum(r.probability for r in everything) == pytest.approx(1, abs=1e-6)
    alone = {r.item_id: r.logprob for r in plain.score(history(*rows))}
    best = fused.with_settings(search="exact").recommend(history(*rows), 3, options=PROTOCOL)
    for answer in (everything, best):
        for r in answer:
            row = int(r.item_id[1:])
            assert r.logprob == pytest.approx(expected[row], abs=2e-4)
            assert r.logprob_model == pytest.approx(alone[r.item_id], abs=1e-5)
            assert r.logprob_prior == pytest.approx(np.log(values[row]), abs=1e-9)
    assert [r.logprob for r in best] == pytest.approx(sorted(expected)[:-4:-1], abs=2e-4)
    assert best.details["certificate"]["exact"]


class Tempered:
    """A model whose logits are divided by a temperature."""

    def __init__(self, model: Any, temperature: float) -> None:
        self._model, self._temperature = model, temperature

    def __call__(self, **inputs: Any) -> Any:
        """As the model."""
        found = self._model(**inputs)
        found.logits = found.logits / self._temperature
        return found


@given(sequences, st.lists(st.integers(0, len(NAMES) - 1), max_size=4))
def test_by_score_the_parts_add_up(events: list[list[int]], rows: list[int]) -> None:
    for normalization in ("catalog", "vocab"):
        fused = Recommender(
            catalog(), tiny.language_model(), fusion="score", prior_weight=0.7, search="exact",
            normalization=normalization, exclude_seen=False, encoder="none",
        )  # fmt: skip
        ids = fused.prompt(history(*rows)).ids
        titles = list(fused.encoder.titles(fused.catalog))
        plain = logprobs(fused.model.model, ids, titles, normalization)
        fused.prior = prior = counted(events)
        values = np.log(dense(prior.weights(history(*rows))))
        scores = np.array(plain) + 0.7 * values
        answer = fused.recommend(history(*rows), 4, options=PROTOCOL)
        assert [r.score for r in answer] == pytest.approx(sorted(scores)[:-5:-1], abs=2e-4)
        for r in answer:
            assert r.logprob_prior is not None
            assert (
                r.logprob == r.logprob_model == pytest.approx(plain[int(r.item_id[1:])], abs=2e-4)
            )
            assert r.score == pytest.approx((r.logprob or 0) + 0.7 * r.logprob_prior, abs=1e-9)


def test_the_stated_model_is_the_one_without_a_prior(demo_data: Dataset) -> None:
    """Also where the fitted node temperature is another."""
    model = tiny.language_model()
    fused = Recommender(demo_data, model, encoder="none", model_role="fuse")
    assert fused.fusing.prior == "collaborative"
    assert isinstance(fused.prior, CollaborativePrior)
    known = fused.history("12493", before="test")
    answer = fused.recommend(known, 10)
    assert answer.details["parts"] == ["model", "prior"]
    assert answer.details["prior"]["counted"] == [
        n for n, weight in fused.prior.mix.items() if weight
    ]
    plain = fused.with_settings(prior="none")
    alone = plain.score(known, [r.item_id for r in answer])
    assert alone.details["parts"] == ["model"]
    values = {r.item_id: r.logprob for r in alone}
    for r in answer:
        assert r.logprob_model == pytest.approx(values[r.item_id], abs=1e-5)
    assert all(r.logprob_prior is None for r in alone)
    assert all(r.logprob_model == r.logprob for r in alone)
    many = fused.recommend_many([known, "", known], 10, batch_size=3)
    assert [r.item_id for r in many[0]] == [r.item_id for r in answer]
    assert many[1].details["prior"]["counted"] == ["popular", "trending"]


def test_edits_leave_probabilities_whole() -> None:
    fused = Recommender(catalog(), tiny.language_model(), prior_weight=0.8, encoder="none",
                        exclude_seen=False)  # fmt: skip
    fused.prior = prior = counted([[0, 1, 2], [0, 1, 5], [6, 5]])
    fused.remove_items(["i1"])
    fused.add_items([Item("i7", "red doll house set"), Item("i8", "a lamp")])
    fused.retitle_items({"i0": "green mug"})
    answer = fused.score(history(0, 1))
    assert len(answer) == 8
    assert sum(r.probability for r in answer) == pytest.approx(1, abs=1e-6)
    assert sum(np.exp(r.logprob_prior or 0) for r in answer) == pytest.approx(1, abs=1e-9)
    assert sum(np.exp(r.logprob_model or 0) for r in answer) == pytest.approx(1, abs=1e-6)
    prior.update({"z": ["i8", "i8"], "u0": ["i8"]}, fused.catalog)
    again = fused.with_settings().score(history(0, 1, 8))
    values = dense(prior.weights(history(0, 1, 8)), 9)
    values[1] = 0.0
    expected = {f"i{row}": v / sum(values) for row, v in enumerate(values)}
    for r in again:
        assert np.exp(r.logprob_prior or 0) == pytest.approx(expected[r.item_id], rel=1e-6)


def test_auto_is_collaborative_where_there_are_events() -> None:
    data, model = shop(BEFORE_TEST), tiny.language_model()

    def name(given: Dataset | Catalog, **settings: Any) -> str:
        return Recommender(given, model, encoder="none", **settings).fusing.prior

    assert name(data) == "collaborative"
    assert name(data, prior="none") == name(catalog()) == "none"
    assert name(data, normalization="vocab") == "none"
    assert name(data, decoder="match") == "none"
    assert name(data, search="sample", fusion="score") == "none"
    vocab = Recommender(data, model, prior="collaborative", normalization="vocab")
    assert vocab.fusing.fusion == "score"
    with pytest.raises(SettingsError, match="fusion='score'"):
        name(data, prior="collaborative", normalization="vocab", fusion="node")
    with pytest.raises(SettingsError, match="without a dataset"):
        name(catalog(), prior="collaborative")
    later = shop(BEFORE_TEST, [["test"] * 4] * 4)
    assert name(later) == "collaborative"
    assert name(later, prior_events="train") == "none"
    with pytest.raises(SettingsError, match="behavior 'buy' in train"):
        name(later, prior="collaborative", prior_events="train")
    with pytest.raises(SettingsError, match="behavior 'like' in the data"):
        name(later, prior="collaborative", target_behavior="like")
    ours = Recommender(data, model)
    assert ours.with_settings().prior is ours.prior
    ours.prior = None
    assert ours.fusing.prior == "none"
    assert ours.recommend(history(0), 2)[0].logprob_prior is None


def test_a_behavior_that_misleads_is_not_read(tmp_path: Path) -> None:
    """Each user likes one half of the items and dislikes the other; views are of both, at random."""
    rng, rows = np.random.default_rng(0), []
    for user in range(80):
        half = user % 2
        order = rng.permutation(20)
        for at, item in enumerate(order.tolist()):
            behavior = "like" if item % 2 == half else "dislike"
            rows.append((f"u{user}", f"i{item}", 2 * at, behavior))
            rows.append((f"u{user}", f"i{rng.integers(20)}", 2 * at + 1, "view"))
    names = ("user_id", "item_id", "timestamp", "behavior")
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table(dict(zip(names, columns, strict=True)))
    ids, titles = [f"i{n}" for n in range(20)], [f"thing {n}" for n in range(20)]
    items = pa.table({"item_id": ids, "title": titles})
    data = Dataset.from_tables(items, table, name="halves", target_behavior="like")
    prior = CollaborativePrior.fit(data)
    assert "dislike" in prior.unread
    both = History((Interaction("i0", "like"), Interaction("i1", "dislike")))
    like = History((Interaction("i0", "like"),))
    assert prior.logprobs(both).tolist() == prior.logprobs(like).tolist()
    prior.save(tmp_path / "prior")
    loaded = CollaborativePrior.load(tmp_path / "prior", data)
    assert loaded.logprobs(both).tolist() == prior.logprobs(both).tolist()
    loaded.unread = frozenset()
    assert loaded.logprobs(both).tolist() != prior.logprobs(both).tolist()
