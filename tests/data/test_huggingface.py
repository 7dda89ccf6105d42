"""Hugging Face datasets: the same checks as for files, selected rows, labels, lists, no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets as library
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec import Catalog, Dataset, Interactions, Item
from genrec.data import datasets
from genrec.data.ingest import EventOptions
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError

ITEMS = library.Dataset.from_dict(
    {"item_id": [1, 2, 3], "title": ["Red mug", "Doll", "Bag"], "price": [1.5, None, 2.0]}
)
EVENTS = library.Dataset.from_dict(
    {
        "user_id": ["u", "u", "v", "u"],
        "item_id": [1, 2, 3, 3],
        "behavior": ["buy", "view", "buy", "buy"],
        "timestamp": [978300760, 978300761, 978300762, 978300763],
    }
)
CATALOG = Catalog([Item("a", "Mug"), Item("b", "Doll"), Item("c", "Bag")])


def test_a_catalog_and_events() -> None:
    catalog = Catalog.from_hf(ITEMS)
    assert catalog[0] == Item("1", "Red mug", {"price": 1.5})
    assert catalog[1].attributes == {"price": None}
    events = Interactions.from_hf(EVENTS, catalog)
    assert events.history("u").item_ids == ("1", "2", "3")


def test_rows_that_were_selected_shuffled_or_filtered() -> None:
    assert [i.item_id for i in Catalog.from_hf(ITEMS.select([2, 0]))] == ["3", "1"]
    shuffled = ITEMS.shuffle(seed=1)
    assert [i.item_id for i in Catalog.from_hf(shuffled)] == [str(i) for i in shuffled["item_id"]]
    kept = ITEMS.filter(lambda row: row["title"] == "Doll")
    assert [i.item_id for i in Catalog.from_hf(kept)] == ["2"]
    formatted = ITEMS.with_format("numpy", columns=["item_id"])
    assert len(Catalog.from_hf(formatted.with_format(None))) == 3


def test_both_make_a_dataset_that_is_saved(tmp_path: Path) -> None:
    data = Dataset.from_hf(ITEMS, EVENTS, name="shop")
    assert (data.info.name, data.info.users, data.info.target_behavior) == ("shop", 2, "buy")
    data.save(tmp_path / "o")
    assert Dataset.load(tmp_path / "o").info == data.info
    cut = Dataset.from_hf(ITEMS, EVENTS, split="global-time", test_from=978300763)
    assert cut.info.split == "global time"


def test_other_names_and_bad_rows() -> None:
    items = ITEMS.rename_columns({"item_id": "sku", "title": "name"})
    columns = {"item_id": "sku", "title": "name"}
    rejects = Rejects("items")
    doubled = library.concatenate_datasets([items, items.select([0])])
    assert len(Catalog.from_hf(doubled, columns=columns, rejects=rejects)) == 3
    assert [r[:3] for r in rejects.rows] == [
        ("items", 4, "duplicate item_id '1' (first in data row 1)")
    ]
    with pytest.raises(DataError, match="items, data row 4: duplicate item_id"):
        Catalog.from_hf(doubled, columns=columns)
    with pytest.raises(DataError, match="no column 'sku'"):
        Catalog.from_hf(ITEMS, columns=columns)
    bad = [Rejects("items"), Rejects("events")]
    events = EVENTS.select_columns(["user_id", "item_id", "timestamp"])
    data = Dataset.from_hf(
        ITEMS.select([0]), events, options=EventOptions(behavior="buy"), rejects=bad
    )
    assert data.info.rejected == {"events: not in the items file": 3}


def test_class_labels_are_their_names() -> None:
    features = library.Features(
        {**EVENTS.features, "behavior": library.ClassLabel(names=["view", "buy"])}
    )
    rows: dict[str, Any] = {**EVENTS.to_dict(), "behavior": [1, 0, None, -1]}
    events = library.Dataset.from_dict(rows, features=features)
    rejects = Rejects("events")
    found = Interactions.from_hf(events, Catalog.from_hf(ITEMS), rejects=rejects)
    assert [i.behavior for i in found.history("u").interactions] == ["buy", "view"]
    assert [(r[1], r[2]) for r in rejects.rows] == [(3, "empty behavior"), (4, "empty behavior")]


USERS = library.Dataset.from_dict(
    {
        "history": [["a", "b", "a"], ["c"], [], ["b", "zz"], ["a", "c"]],
        "did": [["buy", "view", "buy"], ["buy"], [], ["buy", "buy"], ["buy"]],
        "country": ["DE", "FR", "FR", "UK", "UK"],
    }
)
NAMES = {"item_id": "history", "behavior": "did"}


def test_one_row_a_user() -> None:
    rejects = Rejects("users")
    found = datasets.histories(USERS, CATALOG, columns=NAMES, rejects=rejects)
    assert [h.item_ids for h in found] == [("a", "b", "a"), ("c",), ("b",)]
    assert [i.behavior for i in found[0].interactions] == ["buy", "view", "buy"]
    assert [h.user_id for h in found] == ["1", "2", "4"]
    assert found[2].interactions[0].attributes == {"country": "UK"}
    assert [(r[1], r[2]) for r in rejects.rows] == [
        (3, "no events: the list item_id is empty"),
        (5, "item_id and behavior differ in length"),
        (4, "not in the items file: 'zz'"),
    ]
    with pytest.raises(DataError, match="histories, data row 3: no events"):
        datasets.histories(USERS, CATALOG, columns=NAMES)


def test_titles_and_times_in_lists() -> None:
    users = library.Dataset.from_dict(
        {
            "user_id": ["u", "v"],
            "title": [["doll!", "Mug"], ["Bag"]],
            "timestamp": [["2024-01-02", "2024-01-01"], ["2024-01-01"]],
        }
    )
    found = datasets.histories(users, CATALOG, behavior="buy")
    assert [(h.user_id, h.item_ids) for h in found] == [("u", ("a", "b")), ("v", ("c",))]
    with pytest.raises(DataError, match="data row 1: not in the items file: 'doll!'"):
        datasets.histories(users, Catalog([Item("a", "Mug")]), behavior="buy")
    with pytest.raises(DataError, match="no column 'title'"):
        datasets.histories(users.remove_columns("title"), CATALOG, behavior="buy")


def test_lists_of_parquet_are_read_alike(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": [["a", "b"], ["c", "a", "b"]]}), tmp_path / "e.parquet")
    pq.write_table(CATALOG.to_table(), tmp_path / "i.parquet")
    data, _ = Dataset.prepare(
        tmp_path / "i.parquet", tmp_path / "e.parquet", options=EventOptions(behavior="buy")
    )
    assert data.interactions.history("2").item_ids == ("c", "a", "b")
    assert data.info.time_unit == "position"


def test_a_dict_needs_a_split_and_a_dataset_none() -> None:
    parts = library.DatasetDict({"train": ITEMS, "test": ITEMS.select([1])})
    assert len(Catalog.from_hf(parts, "test")) == 1
    assert len(Catalog.from_hf(library.DatasetDict({"all": ITEMS}))) == 3
    with pytest.raises(DataError, match="splits train, test"):
        Catalog.from_hf(parts)
    for given, split in [(ITEMS, "train"), (ITEMS.to_iterable_dataset(), None), ([1], None)]:
        with pytest.raises(DataError, match="without streaming=True"):
            Catalog.from_hf(given, split)


def test_a_local_folder_is_a_dataset_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "d").mkdir()
    pq.write_table(CATALOG.to_table(), tmp_path / "d" / "train.parquet")
    assert list(Catalog.from_hf(str(tmp_path / "d"), "train[:2]")) == list(CATALOG)[:2]
    assert len(Catalog.from_hf(str(tmp_path / "d"))) == 3


def test_a_hub_that_cannot_be_reached_and_a_missing_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        DataError, match=r"'nobody/no-such-dataset'.* could not be loaded: Couldn't"
    ):
        Catalog.from_hf("nobody/no-such-dataset", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install 'datasets>=5'"):
        Catalog.from_hf(ITEMS)
