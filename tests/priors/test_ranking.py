"""Where LightGBM is loaded from, and with how many threads it works."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.tiny import language_model

from genrec import Dataset, Recommender
from genrec.priors.ranking import why_unavailable

NAME, OTHER = b"libgomp.so.1\0", b"libgomq.so.1\0"
LOAD = """
import json, sys
from genrec.priors.ranking import why_unavailable
reason = why_unavailable()
trees = 0
if not reason:
    import lightgbm, numpy
    data = lightgbm.Dataset(numpy.arange(40.0)[:, None], numpy.arange(40.0))
    trees = lightgbm.train({"verbose": -1, "min_data_in_leaf": 2}, data, 3).num_trees()
print(json.dumps([reason, trees, "torch" in sys.modules]))
"""
LEARN = """
import json
from genrec.data.datasets import load
from genrec.errors import SettingsError
from genrec.priors.collaborative import CollaborativePrior
data = load("zh_mini")
prior = CollaborativePrior.fit(data)
try:
    prior.learn_to_rank(data, data.info.target_behavior)
except SettingsError as error:
    print(json.dumps([str(error), prior.rankers is None]))
"""


def rename(source: Path, target: Path) -> None:
    """Copy a library that is called libgomp, or needs it, and change that name.

    No system has a library of the other name, so the dynamic linker finds one only if it is loaded already.
    """
    content = source.read_bytes()
    if content.count(NAME) != 1:
        pytest.skip(
            f"{source.name} does not name libgomp.so.1 exactly once, so it cannot be hidden"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.replace(NAME, OTHER))


def run(script: str, folder: Path) -> list[Any]:
    """Run a script that finds the packages in a folder before those that are installed."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """A folder with a LightGBM whose OpenMP no system has, and a PyTorch without a copy of it."""
    if sys.platform != "linux":
        pytest.skip("libraries are renamed in the format of Linux only")
    spec = importlib.util.find_spec("lightgbm")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    shutil.copytree(package, tmp_path / "lightgbm", ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    rename(package / "lib" / "lib_lightgbm.so", tmp_path / "lightgbm" / "lib" / "lib_lightgbm.so")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text('raise AssertionError("imported")\n')
    return tmp_path


def test_lightgbm_can_be_loaded_here() -> None:
    assert why_unavailable() == ""


def test_torchs_openmp_is_used_where_the_system_has_none(hidden: Path) -> None:
    """PyTorch itself need not be imported for that."""
    lib = Path(torch.__file__).parent / "lib"
    for path in lib.glob("libgomp*"):
        rename(path, hidden / "torch" / "lib" / path.name)
    assert run(LOAD, hidden) == ["", 3, False]


def test_without_any_openmp_the_reason_is_given(hidden: Path) -> None:
    reason, trees, _ = run(LOAD, hidden)
    assert trees == 0
    for part in ("libgomq.so.1", "libgomp1", "ranker='none'"):
        assert part in reason


def test_without_any_openmp_learning_is_refused_at_once(hidden: Path) -> None:
    """Even if there are too few labels to learn from."""
    message, unchanged = run(LEARN, hidden)
    assert "libgomp1" in message
    assert unchanged


def test_a_missing_package_is_named(hidden: Path) -> None:
    (hidden / "lightgbm" / "__init__.py").write_text("raise ImportError('no such package')\n")
    reason, _, _ = run(LOAD, hidden)
    assert "pip install" in reason


def pairs(users: int = 90) -> Dataset:
    """Purchases in which every even item is followed by the next one."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[object]] = {"user_id": [], "item_id": [], "behavior": [], "timestamp": []}
    for user in range(users):
        order = np.repeat(rng.permutation(np.arange(0, 20, 2))[:5], 2)
        order[1::2] += 1
        for time, item in enumerate(order.tolist()):
            values = f"u{user}", f"i{item}", "buy", time * 86_400 + user
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    items = {"item_id": [f"i{n}" for n in range(20)], "title": [f"thing {n}" for n in range(20)]}
    return Dataset.from_tables(pa.table(items), pa.table(rows), name="pairs")


def test_it_works_with_the_threads_of_the_recommender(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fitting, ranking, ranking again from the cache, and ranking with a saved prior."""
    import lightgbm

    fitted: list[object] = []
    ranked: list[object] = []
    train, predict = lightgbm.train, lightgbm.Booster.predict

    def training(params: dict[str, Any], *rest: Any, **named: Any) -> Any:
        fitted.append(params["num_threads"])
        return train(params, *rest, **named)

    def predicting(self: Any, *rest: Any, **named: Any) -> Any:
        ranked.append(named["num_threads"])
        return predict(self, *rest, **named)

    monkeypatch.setattr(lightgbm, "train", training)
    monkeypatch.setattr(lightgbm.Booster, "predict", predicting)
    pairs().save(tmp_path / "data")
    before = torch.get_num_threads()
    try:
        for threads, fits in ((2, True), (3, False)):
            torch.set_num_threads(threads)
            data = Dataset.load(tmp_path / "data")
            shop = Recommender(data, language_model(), ranker="lambdarank", exclude_seen=False)
            shop.recommend(data.interactions.history("u0"), 3)
            assert shop.model.threads == threads
            assert bool(fitted) == fits
            assert set(fitted) <= {threads}
            assert ranked
            assert set(ranked) == {threads}
            fitted.clear()
            ranked.clear()
    finally:
        torch.set_num_threads(before)
