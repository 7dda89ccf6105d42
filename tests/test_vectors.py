from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from test_baselines import made
from test_cli import Run, data, run

from genrec import vectors

assert callable(run)
assert callable(data)


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


def test_embed_says_what_it_cannot_do(run: Run, data: Path, tmp_path: Path) -> None:
    code, _, err = run("embed", data, "--out", tmp_path / "x.parquet")
    assert (code, "Neither --users and --items" in err) == (2, True)
    code, _, err = run("embed", data, "--users", "--out", tmp_path / "x.csv")
    assert (code, "Expected a name in .safetensors or .parquet" in err) == (2, True)
    code, _, err = run("embed", data, "--users", "--encoder", "ngrams", "--before", "dawn",
                       "--out", tmp_path / "x.parquet")  # fmt: skip
    assert (code, "'dawn' is not a split" in err) == (6, True)
