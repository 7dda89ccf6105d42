"""Baselines say how much memory they need, and do not begin without it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import genrec
from genrec import Dataset, baselines, memory
from genrec.baselines import inverse, neighbors, registry
from genrec.baselines.counting import Popular
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.errors import SettingsError


def shop(users: int, items: int, bought: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    catalog = pa.table(
        {"item_id": [f"i{n}" for n in range(items)], "title": [f"thing {n}" for n in range(items)]}
    )
    rows = [
        (f"u{u}", f"i{i}", "buy", 86_400.0 * t)
        for u in range(users)
        for t, i in enumerate(rng.permutation(items)[:bought].tolist())
    ]
    names = ("user_id", "item_id", "behavior", "timestamp")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return Dataset.from_tables(catalog, pa.table(columns), name="shop")


@given(n=st.integers(1, 40), seed=st.integers(0, 99), block=st.integers(1, 50))
def test_the_inverse_equals_that_of_numpy(n: int, seed: int, block: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n + 3, n))
    gram = x.T @ x + 0.5 * np.eye(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverse, "_ROWS", block)
        found = inverse.invert(gram.copy())
    assert found == pytest.approx(np.linalg.inv(gram), abs=1e-8)
    assert (found == found.T).all()


def test_a_matrix_without_an_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        inverse.invert(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_nothing_is_the_inverse_of_nothing() -> None:
    assert inverse.invert(np.empty((0, 0))).shape == (0, 0)


@pytest.mark.parametrize("penalty", [0, -1.0, float("nan")])
def test_ease_needs_a_penalty(penalty: float) -> None:
    with pytest.raises(SettingsError, match="Expected a number above 0"):
        baselines.fit("ease", shop(20, 30, 6), penalty=penalty)


def test_ease_equals_the_formula_of_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    data = shop(60, 30, 6)
    events = TrainingEvents.of(data.interactions, "buy", "validation")
    x = events.matrix().toarray()
    p = np.linalg.inv(x.T @ x + 250.0 * np.eye(30))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0.0)
    monkeypatch.setattr(neighbors, "_ROWS", 7)
    weights = baselines.fit("ease", data).arrays["weights"]
    assert weights == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "items", "bought"), [("ease", 1500, 8), ("itemknn", 900, 60)])
def test_the_estimate_is_what_it_takes(name: str, items: int, bought: int) -> None:
    """Measured without a dataset folder; other memory grows with the number of events."""
    data = shop(300, items, bought)
    events = TrainingEvents.of(data.interactions, "buy", "validation")
    kind = registry.SIMPLE[name]
    settings = kind.settings_of({})
    tracemalloc.start()
    try:
        kind.learn(_Bare(settings), events)  # type: ignore[arg-type]
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimate = kind.memory(events, settings)
    assert 0.5 * taken < estimate < 2 * taken, (estimate, taken)


class _Bare:
    """What ``learn`` reads of a baseline."""

    def __init__(self, settings: dict[str, object]) -> None:
        self.settings = settings


def test_too_little_memory_is_said_before_anything_is_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = shop(40, 200, 5)
    monkeypatch.setattr(memory, "free_memory", lambda: 400_000)
    fitted: list[TrainingEvents] = []
    plain = Popular.learn

    def learn(self: Popular, events: TrainingEvents) -> Arrays:
        fitted.append(events)
        return plain(self, events)

    monkeypatch.setattr(Popular, "learn", learn)
    with pytest.raises(SettingsError, match=r"'ease', with 200 items, needs about 0.0 GB") as error:
        genrec.evaluate(data, ["popular", "ease"])
    assert "machine with more memory" in str(error.value)
    assert not fitted
    with pytest.raises(SettingsError, match="'ease'"):
        baselines.fit("ease", data)
    baselines.fit("popular", data)
    assert len(fitted) == 1


def test_a_saved_baseline_needs_no_memory_for_fitting(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("shop") / "data"
    shop(40, 200, 5).save(folder)
    data = Dataset.load(folder)
    weights = baselines.fit("ease", data).arrays["weights"]
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    assert (baselines.fit("ease", data).arrays["weights"] == weights).all()
    registry.check_memory(["ease", "popular"], data)


def test_the_limit_of_a_container_counts(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("cgroup")
    names = ("memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(memory, "_CGROUPS", ((str(folder), *names),))
    limit, used = folder / names[0], folder / names[1]
    free = memory.free_memory()  # without such files
    assert free > 10_000_000
    used.write_text("1000000\n")
    limit.write_text("max\n")
    assert memory.free_memory() > 10_000_000
    limit.write_text("6000000\n")
    assert memory.free_memory() == 5_000_000
    limit.write_text("500000\n")
    assert memory.free_memory() == 0
    (folder / "memory.stat").write_text("anon 5\ninactive_file 700000\nactive_file 9\n")
    assert memory.free_memory() == 200_000  # cached files give way
