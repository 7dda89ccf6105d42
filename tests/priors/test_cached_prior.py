"""A prior from the cache is the prior that would be counted, and is only found for the same data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy
from support.limits import read_only

from genrec import Dataset, History, Interaction, Item
from genrec.config import COUNTED
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.priors import cache_key, collaborative
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.weights import Weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "zh"
    load("zh_mini").save(path)
    return path


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> Dataset:
    """A copy of the data without anything in its cache."""
    shutil.copytree(folder, tmp_path / "zh")
    return Dataset.load(tmp_path / "zh")


def kept(data: Dataset) -> list[Path]:
    assert data.folder is not None
    return sorted((data.folder / "cache").glob("*")) if (data.folder / "cache").exists() else []


class Counted(Exception):
    """Raised instead of counting."""


@pytest.fixture
def no_counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function from whose call on counting is an error."""

    def refuse(*args: object) -> None:
        raise Counted

    return lambda: monkeypatch.setattr(collaborative, "count", refuse)


def parts(weights: Weights) -> list[Any]:
    """Everything in some weights, to the last bit."""
    base = None if weights.base is None else parts(weights.base)
    rows = None if weights.rows is None else weights.rows.tolist()
    return [weights.values.tobytes(), rows, weights.rest, weights.sources, base]


def answers(prior: CollaborativePrior, data: Dataset) -> list[Any]:
    """What a prior says about some users and about new ones, to the last bit."""
    users = data.interactions.user_ids
    histories = [data.interactions.history(u, before="test") for u in users[::5]]
    histories += [History(), *(History(h.interactions[-1:]) for h in histories[:3])]
    return [parts(prior.weights(h)) for h in histories]


def whole(prior: CollaborativePrior) -> list[Any]:
    counts = prior.counts
    matrices = [counts.items, counts.after, counts.ease]
    return [
        [*prior.mix.items()], prior.unread, prior.lead_in_behaviors, counts.user_ids,
        counts.latest.tolist(), counts.newest.tolist(), counts.popularity.tolist(),
        *(m.toarray().tobytes() for m in matrices),
    ]  # fmt: skip


KINDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "before test": {"before": "test"},
    "some sources": {"sources": ("own", "titles")},
    "no titles": {"sources": [n for n in COUNTED if n != "titles"]},
    "popular only": {"sources": ()},
    "another seed": {"seed": 3},
    "another behavior": {"behavior": "browse"},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_it_is_the_same_to_the_last_bit(
    data: Dataset, no_counting: Callable[[], None], options: dict[str, Any]
) -> None:
    fresh = CollaborativePrior.fit(replace(data, folder=None), **options)
    CollaborativePrior.fit(data)  # must not be mistaken for what follows
    first = CollaborativePrior.fit(data, **options)
    assert len(kept(data)) == (2 if options else 1)
    no_counting()
    with pytest.raises(Counted):
        CollaborativePrior.fit(replace(data, folder=None), **options)
    again = CollaborativePrior.fit(Dataset.load(data.folder or ""), **options)
    assert answers(fresh, data) == answers(first, data) == answers(again, data)
    assert whole(fresh) == whole(first) == whole(again)


@pytest.mark.parametrize("protocol", ["last-unit", "global-time"])
def test_it_is_the_same_on_other_splits(
    data: Dataset, no_counting: Callable[[], None], protocol: str
) -> None:
    CollaborativePrior.fit(data)  # of the split in the folder, which must not be mistaken
    other = protocols.apply_protocol(data, protocol)
    held = protocols.with_validation(other, 10_000)
    for case in (other, held):
        fresh = CollaborativePrior.fit(replace(case, folder=None))
        CollaborativePrior.fit(case)
        assert whole(fresh) == whole(CollaborativePrior.fit(case))


def test_updates_count_on(data: Dataset, no_counting: Callable[[], None]) -> None:
    catalog = data.catalog.edited([Item("new", "全新的杯子")])
    known = data.interactions.user_ids[0]
    events: dict[str, list[Interaction | str]] = {
        known: ["new", data.catalog[0].item_id],
        "someone": [Interaction("new", "buy", 5.0)],
    }
    fresh = CollaborativePrior.fit(data)
    no_counting()
    cached = CollaborativePrior.fit(data)
    for prior in (fresh, cached):
        prior.update(events, catalog)
    assert whole(fresh) == whole(cached)
    assert answers(fresh, data) == answers(cached, data)
    again = CollaborativePrior.fit(data)  # the file still holds what was counted
    assert again.counts.popularity.sum() == fresh.counts.popularity.sum() - 3


def edit_info(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def edit_events(folder: Path, column: str, change: Callable[[list[Any]], None]) -> None:
    path = folder / "interactions.parquet"
    table = pq.read_table(path)
    values = table[column].to_pylist()
    change(values)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table[column].type)), path)


def edit_title(folder: Path) -> None:
    path = folder / "catalog.parquet"
    table = pq.read_table(path)
    titles = table["title"].to_pylist()
    titles[0] = "别的"
    table = table.set_column(table.column_names.index("title"), "title", pa.array(titles))
    pq.write_table(table, path)
    from genrec import Catalog

    edit_info(folder, catalog_hash=Catalog.read(path).hash())


def swap(values: list[Any]) -> None:
    other = next(n for n, v in enumerate(values) if v != values[0])
    values[0], values[other] = values[other], values[0]


EDITS: dict[str, Callable[[Path], None]] = {
    "title": edit_title,
    "item of an event": lambda f: edit_events(f, "item_id", swap),
    "user of an event": lambda f: edit_events(f, "user_id", lambda v: v.__setitem__(0, "new")),
    "behavior of an event": lambda f: edit_events(f, "behavior", swap),
    "name of a behavior": lambda f: edit_events(
        f, "behavior", lambda v: v.__setitem__(slice(None), [{"browse": "view"}.get(b, b) for b in v])
    ),
    "time of an event": lambda f: edit_events(f, "timestamp", lambda v: v.__setitem__(0, v[0] - 1)),
    "split of an event": lambda f: edit_events(f, "split", swap),
    "target behavior": lambda f: edit_info(f, target_behavior="browse"),
    "seen items": lambda f: edit_info(f, exclude_seen=False),
    "time unit": lambda f: edit_info(f, time_unit="position"),
    "lead-in behaviors": lambda f: edit_info(f, led_by={"browse": 0.9}),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_changed_data_is_counted_again(
    data: Dataset, no_counting: Callable[[], None], edit: Callable[[Path], None]
) -> None:
    assert data.folder is not None
    CollaborativePrior.fit(data)
    edit(data.folder)
    changed = Dataset.load(data.folder)
    fresh = whole(CollaborativePrior.fit(replace(changed, folder=None)))
    assert whole(CollaborativePrior.fit(changed)) == fresh
    assert len(kept(data)) == 2
    no_counting()
    assert whole(CollaborativePrior.fit(changed)) == fresh
    edit_events(data.folder, "timestamp", lambda values: values.__setitem__(-1, values[-1] + 1))
    changed = Dataset.load(data.folder)
    with pytest.raises(Counted):
        CollaborativePrior.fit(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.setattr(cache_key, "digest_code", lambda *packages: "other"),
        lambda m: m.setattr(np, "__version__", "9.9"),
        lambda m: m.setattr(scipy, "__version__", "9.9"),
    ],
    ids=["code", "numpy", "scipy"],
)
def test_other_code_counts_again(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, no_counting: Callable[[], None], change: Any
) -> None:
    CollaborativePrior.fit(data)
    change(monkeypatch)
    no_counting()
    with pytest.raises(Counted):
        CollaborativePrior.fit(data)


def test_damage_and_read_only_folders_change_nothing(data: Dataset) -> None:
    assert data.folder is not None
    with read_only(data.folder):
        fresh = whole(CollaborativePrior.fit(data))
    assert kept(data) == []
    CollaborativePrior.fit(data)
    (path,) = kept(data)
    path.write_bytes(path.read_bytes()[:-10])
    assert whole(CollaborativePrior.fit(data)) == fresh
    with read_only(data.folder):
        assert whole(CollaborativePrior.fit(data)) == fresh


def test_fitted_baselines_and_given_weights_are_not_kept(data: Dataset) -> None:
    CollaborativePrior.fit(data, sources=("popular", "userknn"))
    CollaborativePrior.fit(data, mix={"popular": 1.0, "own": 1.0})
    assert kept(data) == []


def test_prepare_replaces_a_folder_that_has_a_cache(data: Dataset) -> None:
    assert data.folder is not None
    CollaborativePrior.fit(data)
    data.save(data.folder)
    assert kept(data) == []


def test_bundled_data_uses_the_user_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_counting: Callable[[], None]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundled = load("zh_mini")
    fresh = whole(CollaborativePrior.fit(bundled))
    assert len(list((tmp_path / "genrec" / "data" / "zh_mini").iterdir())) == 1
    no_counting()
    assert whole(CollaborativePrior.fit(load("zh_mini"))) == fresh


def test_saved_priors_of_the_format_before_are_read(data: Dataset, tmp_path: Path) -> None:
    from genrec.baselines.sparse import sparse_to_arrays
    from genrec.files import map_arrays, write_arrays

    prior = CollaborativePrior.fit(data)
    prior.save(tmp_path / "new.safetensors")
    arrays, metadata = map_arrays(tmp_path / "new.safetensors")
    assert "both.data" not in arrays
    header = {**json.loads(metadata["prior"]), "format_version": 2}
    arrays |= sparse_to_arrays("both", prior.counts.items.T @ prior.counts.items)
    write_arrays(tmp_path / "old.safetensors", arrays, {"prior": json.dumps(header)})
    for name in ("new", "old"):
        again = CollaborativePrior.load(tmp_path / f"{name}.safetensors", data)
        assert whole(again) == whole(prior)
        assert answers(again, data) == answers(prior, data)
