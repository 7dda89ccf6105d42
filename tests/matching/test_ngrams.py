"""Test the neighbors of titles against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.slow_ngrams import slowly, titles

from genrec.matching import ngrams
from genrec.matching.ngrams import AlikeTitles


@given(titles, st.integers(0, 2**16))
def test_links_equal_plain_loops(some: list[str], seed: int) -> None:
    rows = np.random.default_rng(seed).integers(len(some), size=3)
    found = AlikeTitles(some)
    expected = np.array(slowly(some))[rows]
    for _ in range(2):  # made, then remembered
        links = found.links(rows)
        assert links.shape == (3, len(some))
        assert links.toarray() == pytest.approx(expected, abs=1e-5)


def test_the_nearest_are_kept_and_some_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"thing number {n} {n % 7} of {n % 3}" for n in range(200)]
    whole = np.array(slowly(many))
    monkeypatch.setattr(ngrams, "_KEPT", 10)
    found = AlikeTitles(many)
    for rows in (np.arange(8), np.arange(4, 12), np.arange(200)):
        links = found.links(rows)
        assert (np.diff(links.indptr) <= ngrams.NEAR).all()
        for row, values in zip(rows, links.toarray(), strict=True):
            least = np.sort(whole[row])[-ngrams.NEAR]
            kept = values > 0
            assert values[kept] == pytest.approx(whole[row][kept], abs=1e-5)
            assert (values[whole[row] > least + 1e-5] > 0).all()
    assert found.links(np.array([], dtype=np.int64)).shape == (0, 200)


def test_nothing_to_compare_and_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for some in ([" "], ["", "  "]):
        assert AlikeTitles(some).links(np.array([0])).nnz == 0
    monkeypatch.setattr(ngrams, "MOST", 1)
    large = AlikeTitles(["red mug", "red mugs"])
    assert large.links(np.arange(2)).shape == (2, 2)
    assert large.links(np.arange(2)).nnz == 0
    assert large._cache == {}  # and nothing was compared
