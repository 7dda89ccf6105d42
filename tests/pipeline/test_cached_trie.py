"""The trie of a dataset is kept in its cache, and found only for the same titles and tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.limits import read_only
from support.tiny import language_model
from support.tiny_runs import saved

from genrec import Catalog, Dataset, Item, Recommender
from genrec.data.datasets import load
from genrec.decoding.trie import TitleTrie
from genrec.models.lazy_model import lazy_model

OPTIONS: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tries")
    load("zh_mini").save(place / "data")
    saved(place)
    return place


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(folder / "data", tmp_path / "data")
    return Dataset.load(tmp_path / "data")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of titles of each trie that is built."""
    sizes: list[int] = []
    plain = TitleTrie.__init__

    def build(self: TitleTrie, sequences: Iterable[Sequence[int]]) -> None:
        titles = list(sequences)
        sizes.append(len(titles))
        plain(self, titles)

    monkeypatch.setattr(TitleTrie, "__init__", build)
    return sizes


def kept(data: Dataset) -> list[Path]:
    assert data.folder is not None
    return sorted((data.folder / "cache").glob("trie-*"))


def same(one: object, two: object) -> bool:
    assert isinstance(one, TitleTrie)
    assert isinstance(two, TitleTrie)
    arrays = one.to_arrays(), two.to_arrays()
    return arrays[0][1] == arrays[1][1] and all(
        np.array_equal(arrays[0][0][name], arrays[1][0][name]) for name in arrays[0][0]
    )


def light(folder: Path) -> Any:
    return lazy_model(str(folder / "tiny-llama"), log=lambda message: None, **OPTIONS)


def test_the_second_recommender_reads_it(data: Dataset, folder: Path, built: list[int]) -> None:
    for make in (language_model, lambda: light(folder)):
        built.clear()
        first, second = (
            Recommender(data, make()),
            Recommender(Dataset.load(data.folder or ""), make()),
        )
        assert same(first.trie, second.trie)
        assert built == [len(data.catalog)]
        history = first.history(data.interactions.user_ids[0])
        lists = [r.recommend(history, 5) for r in (first, second)]
        assert [i.logprob for i in lists[0]] == [i.logprob for i in lists[1]]
    assert same(first.trie, TitleTrie(first.encoder.titles(data.catalog)))


def test_other_titles_tokenizers_and_forms_have_their_own(
    data: Dataset, folder: Path, tmp_path: Path, built: list[int]
) -> None:
    assert data.folder is not None
    plain = Recommender(data, light(folder))
    assert plain.trie
    shutil.copytree(folder / "tiny-llama", tmp_path / "tiny-llama")
    path = tmp_path / "tiny-llama" / "tokenizer.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["model"]["merges"] = stored["model"]["merges"][1:]  # the probe of Encoder.hash is short
    path.write_text(json.dumps(stored), encoding="utf-8")
    other = Recommender(data, light(tmp_path))
    changed = Catalog([Item(i.item_id, i.title + "!") for i in data.catalog])
    renamed = Dataset(changed, data.interactions, data.info, data.folder)
    others = [
        other,
        Recommender(data, light(folder), case="lower"),
        Recommender(data, light(folder), max_title_tokens=3),
        Recommender(renamed, light(folder)),
    ]
    for number, recommender in enumerate(others, start=2):
        assert same(recommender.trie, TitleTrie(recommender.encoder.titles(recommender.catalog)))
        assert len(kept(data)) == number
    built.clear()
    assert same(Recommender(data, light(folder)).trie, plain.trie)
    assert built == []


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"", lambda data: b"{}"])
def test_damage_and_read_only_folders(
    data: Dataset, built: list[int], damage: Callable[[bytes], bytes]
) -> None:
    assert data.folder is not None
    model = language_model()
    with read_only(data.folder):
        expected = Recommender(data, model).trie
    assert kept(data) == []
    assert same(Recommender(data, model).trie, expected)
    (path,) = kept(data)
    path.write_bytes(damage(path.read_bytes()))
    assert same(Recommender(data, model).trie, expected)
    assert len(built) == 3


def test_edits_leave_the_file_alone(data: Dataset, built: list[int]) -> None:
    model = language_model()
    first = Recommender(data, model)
    first.add_items([Item("new", "a new mug")])
    first.remove_items([data.catalog[0].item_id])
    second = Recommender(data, model)
    assert second.trie.n_items == len(data.catalog)
    assert len(kept(data)) == 1
    assert Recommender(data.catalog, model).trie.n_items == len(data.catalog)  # keeps nothing
    assert built[0] == len(data.catalog)
