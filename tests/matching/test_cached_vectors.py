"""Vectors of titles are kept in a dataset's cache, and found only for the same titles and encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.limits import read_only
from support.tiny import LatinEmbedder

from genrec import Catalog, Item
from genrec.matching import matcher as module
from genrec.matching.matcher import TextMatcher, write_index
from genrec.types import Float32Array

TITLES = ["red mug", "wooden chair", "garden table", "paper lantern", "glass bottle"]
CATALOG = Catalog(Item(str(n), title) for n, title in enumerate(TITLES))


class Other(LatinEmbedder):
    """Another encoder."""

    def embed(self, texts: list[str]) -> Float32Array:  # type: ignore[override]
        return np.asarray(np.roll(super().embed(texts), 1, axis=1), np.float32)


def vectors(
    folder: Path | None, embedder: LatinEmbedder, catalog: Catalog = CATALOG
) -> tuple[Float32Array, set[str]]:
    """The vectors of a new matcher, and the titles that were embedded for it."""
    embedder.asked.clear()
    meaning = TextMatcher(catalog, encoder=embedder, folder=folder).meaning
    assert meaning is not None
    found = meaning.index.vectors
    return found, set(embedder.asked) & set(catalog.titles)


def test_the_second_matcher_embeds_no_titles(tmp_path: Path) -> None:
    first, embedded = vectors(tmp_path, LatinEmbedder())
    assert embedded == set(TITLES)
    second, embedded = vectors(tmp_path, LatinEmbedder())
    assert embedded == set()
    assert first.tobytes() == second.tobytes()
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_titles_and_encoders_are_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Catalog([*list(CATALOG)[:-1], Item("4", "glass jar")])
    vectors(tmp_path, LatinEmbedder())
    for embedder, catalog in ((Other(), CATALOG), (LatinEmbedder(), changed)):
        plain, _ = vectors(None, embedder, catalog)
        found, embedded = vectors(tmp_path, embedder, catalog)
        assert embedded == set(catalog.titles)
        assert found.tobytes() == plain.tobytes()
        assert vectors(tmp_path, embedder, catalog)[1] == set()
    monkeypatch.setattr(module, "digest_code", lambda *packages: "other")
    assert vectors(tmp_path, LatinEmbedder())[1] == set(TITLES)


def test_an_index_comes_first(tmp_path: Path) -> None:
    vectors(tmp_path, LatinEmbedder())
    write_index(CATALOG, tmp_path, LatinEmbedder())
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    assert vectors(tmp_path, LatinEmbedder())[1] == set()
    assert list((tmp_path / "cache").iterdir()) == []


def test_nothing_is_kept_of_large_catalogs_or_in_read_only_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with read_only(tmp_path):
        assert vectors(tmp_path, LatinEmbedder())[1] == set(TITLES)
    monkeypatch.setattr(module, "LARGEST_UNASKED", len(TITLES) - 1)
    assert vectors(tmp_path, LatinEmbedder())[1] == set(TITLES)
    assert list(tmp_path.iterdir()) == []
