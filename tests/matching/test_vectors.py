from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from support import tiny
from support.commands import Run
from support.made_shop import made

from genrec import Dataset
from genrec.baselines import registry
from genrec.errors import DataError
from genrec.matching import vectors
from genrec.matching.matcher import write_index


def test_users_are_the_mean_of_their_latest_items() -> None:
    dataset = made()
    items = vectors.item_vectors(dataset, "ngrams")
    assert items.shape == (24, 23)
    assert np.linalg.norm(items, axis=1) == pytest.approx(1.0, abs=1e-5)
    for before in (None, "test", "validation"):
        users = vectors.user_vectors(dataset, items, before=before, decay=0.5, last=2)
        for user, vector in zip(dataset.interactions.user_ids, users, strict=True):
            rows = dataset.catalog.rows(dataset.interactions.history(user, before=before).item_ids)
            if not rows:
                assert not vector.any()
                continue
            mean = items[rows[-1]] + (0.5 * items[rows[-2]] if len(rows) > 1 else 0.0)
            assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


@pytest.mark.parametrize("what", ["items", "users"])
def test_embed_writes_both_kinds_of_file(run: Run, data: Path, tmp_path: Path, what: str) -> None:
    column = {"items": "item_id", "users": "user_id"}[what]
    found = []
    for ending in ("parquet", "safetensors"):
        out = tmp_path / f"{what}.{ending}"
        code, said, err = run("embed", data, f"--{what}", "--encoder", "ngrams", "--out", out)
        assert code == 0, err
        assert said.startswith("3 vectors" if what == "items" else "2 vectors")
        if ending == "parquet":
            table = pq.read_table(out)
            found.append((table[column].to_pylist(), np.array(table["vector"].to_pylist())))
            continue
        with safe_open(out, framework="numpy") as file:
            about = file.metadata()
            found.append((json.loads(about["ids"]), file.get_tensor("vectors")))
        assert about["of"] == column
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1])


def indexed(folder: Path, titles: list[str]) -> Dataset:
    """Make a dataset folder with an index by the latin encoder; its items are i0, i1, ..."""
    ids = [f"i{n}" for n in range(len(titles))]
    items = pa.table({"item_id": ids, "title": titles})
    rows = {"user_id": ["u"] * len(ids), "item_id": ids, "position": list(range(len(ids)))}
    Dataset.from_tables(items, pa.table({**rows, "behavior": ["buy"] * len(ids)}), name="x").save(
        folder
    )
    dataset = Dataset.load(folder)
    write_index(dataset.catalog, folder, tiny.LatinEmbedder())
    return dataset


PLAIN = [
    f"{color} thing"
    for color in ["pink", "grey", "teal", "gold", "cyan", "lime", "plum", "navy", "rust"]
]
TITLES = ["Red mug", "blue MUG", "blue mug", "!!!", *PLAIN, *(f"{p} of wood" for p in PLAIN), "bus",
          "红色杯子"]  # fmt: skip


def test_vectors_of_an_index_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = indexed(tmp_path / "shop", TITLES)

    def embedded(
        use: Callable[[Dataset], object], dataset: Dataset = dataset, name: str = "latin"
    ) -> set[str]:
        embedder = tiny.LatinEmbedder(name)
        embedder.fingerprint  # noqa: B018  embeds probe texts
        embedder.asked.clear()
        monkeypatch.setattr(vectors, "load_embedder", lambda name, log: embedder)
        use(dataset)
        return set(embedder.asked)

    every = {"red mug", "blue mug", *TITLES[3:]}
    not_indexed = {"!!!", "红色杯子"}  # has no words; is not read
    uses: list[Callable[[Dataset], object]] = [
        lambda d: vectors.item_vectors(d, "latin"),
        lambda d: registry.fit("content", d, encoder="latin"),
        lambda d: registry.fit("textseq", d, encoder="latin", epochs=1, hidden=8),
    ]
    for use in uses:
        assert embedded(use) == not_indexed
        assert embedded(use, replace(dataset, folder=None)) == every
    assert embedded(uses[0], name="another encoder") == every
    changed = indexed(tmp_path / "other", [*TITLES[:-2], "tram", "红色杯子"])
    shutil.copy(tmp_path / "shop" / "titles.safetensors", tmp_path / "other")
    assert embedded(uses[0], changed) == every - {"bus"} | {"tram"}
    anew = vectors.item_vectors(replace(dataset, folder=None), "latin")
    taken = vectors.item_vectors(dataset, "latin")
    assert np.abs(anew @ anew.T - taken @ taken.T).max() < 0.002
    assert np.array_equal(taken[1], taken[2])
    assert not np.array_equal(taken[0], taken[1])
    (tmp_path / "shop" / "titles.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"is damaged.*genrec index"):
        vectors.item_vectors(dataset, "latin")


def test_embed_takes_the_vectors_of_index(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = tiny.LatinEmbedder("mine")
    for module in ("matcher", "vectors"):
        monkeypatch.setattr(f"genrec.matching.{module}.load_embedder", lambda name, log: embedder)
    assert run("index", data, "--encoder", "mine")[0] == 0
    embedder.asked.clear()
    out = tmp_path / "x.parquet"
    code, said, err = run("embed", data, "--items", "--encoder", "mine", "--out", out)
    assert code == 0, err
    assert said.startswith("3 vectors of 64 numbers")
    assert embedder.asked == []


def test_embed_says_what_it_cannot_do(run: Run, data: Path, tmp_path: Path) -> None:
    code, _, err = run("embed", data, "--out", tmp_path / "x.parquet")
    assert (code, "Neither --users nor --items" in err) == (2, True)
    code, _, err = run("embed", data, "--users", "--out", tmp_path / "x.csv")
    assert (code, "ends in .safetensors or .parquet" in err) == (2, True)
    code, _, err = run("embed", data, "--users", "--encoder", "ngrams", "--before", "dawn",
                       "--out", tmp_path / "x.parquet")  # fmt: skip
    assert (code, "'dawn' is not a split" in err) == (6, True)
