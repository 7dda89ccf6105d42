"""Averages of adapters and sums of counts, compared with what they must equal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_runs
from support.commands import Run as Command
from support.commands import answer

from genrec import Dataset, Recommender, runs
from genrec.config import END
from genrec.data.erasing import without_user
from genrec.errors import ModelError, SettingsError
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import count
from genrec.priors.erasing import erase_from_run
from genrec.priors.merging import merge_counts
from genrec.runs import Run
from genrec.training.federated import WEIGHTS, average_adapters, federate, nearest_product
from genrec.training.trainer import train


def adapters(n: int, rank: int = 3) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(n)
    return [
        {
            "x.lora_A.weight": torch.randn(rank, 7),
            "x.lora_B.weight": torch.randn(9, rank),
            "y.lora_A.weight": torch.randn(rank, 5),
            "y.lora_B.weight": torch.randn(4, rank),
        }
        for _ in range(n)
    ]


def test_tensors_are_means() -> None:
    given, shares = adapters(3), (0.5, 0.3, 0.2)
    mean, kept = average_adapters(given, shares, "tensors")
    assert kept == 1.0
    for name in mean:
        expected = sum(w * a[name] for w, a in zip(shares, given, strict=True))
        torch.testing.assert_close(mean[name], expected)


def test_products_are_the_nearest_of_the_same_rank() -> None:
    given, shares = adapters(2), (0.75, 0.25)
    mean, kept = average_adapters(given, shares, "products")
    total = lost = 0.0
    for layer in "xy":
        one, two = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
        target = sum(w * (g[two] @ g[one]) for w, g in zip(shares, given, strict=True))
        assert isinstance(target, torch.Tensor)
        u, s, v = torch.linalg.svd(target)
        nearest = u[:, :3] * s[:3] @ v[:3]
        torch.testing.assert_close(mean[two] @ mean[one], nearest, atol=1e-5, rtol=1e-5)
        assert mean[one].shape == given[0][one].shape
        total, lost = total + float((s**2).sum()), lost + float((s[3:] ** 2).sum())
    assert kept == pytest.approx(1 - lost / total, abs=1e-5)
    # A single adapter, and equal ones, stay what they are.
    same, kept = average_adapters([given[0], given[0]], shares, "products")
    assert kept == pytest.approx(1.0)
    torch.testing.assert_close(
        same["x.lora_B.weight"] @ same["x.lora_A.weight"],
        given[0]["x.lora_B.weight"] @ given[0]["x.lora_A.weight"],
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    b, a, values = nearest_product(torch.zeros(4, 2), torch.zeros(2, 3), 1)
    assert (b @ a).abs().sum() == 0 == values.sum()


def with_users(data: Dataset, users: list[str]) -> Dataset:
    for user in data.interactions.user_ids:
        if user not in users:
            data = without_user(data, user)
    return data


@pytest.fixture(scope="module")
def sites() -> tuple[Dataset, list[Dataset]]:
    data = tiny_runs.made(30, users=6)
    users = list(data.interactions.user_ids)
    return data, [with_users(data, users[:2]), with_users(data, users[2:])]


def test_merged_counts_are_those_of_all_users(sites: tuple[Dataset, list[Dataset]]) -> None:
    data, parts = sites
    merged = merge_counts([count(part, "buy", END) for part in parts])
    union = count(data, "buy", END)
    assert merged.user_ids[:3] == ("1.0", "1.1", "2.0")
    assert len(merged.user_ids) == len(union.user_ids)
    assert np.array_equal(merged.popularity, union.popularity)
    assert np.array_equal(merged.latest, union.latest)
    for one, other in ((merged.items, union.items), (merged.after, union.after)):
        assert not (one != other).nnz
    assert np.array_equal(np.sort(merged.times.when), np.sort(union.times.when))
    assert np.array_equal(np.sort(merged.newest), np.sort(union.newest))
    history = data.interactions.history(data.interactions.user_ids[0])
    mix = CollaborativePrior.fit(data).mix
    ours, theirs = (CollaborativePrior(c, mix, {}) for c in (merged, union))
    np.testing.assert_allclose(ours.logprobs(history), theirs.logprobs(history))


@pytest.fixture(scope="module")
def trained(
    sites: tuple[Dataset, list[Dataset]], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    base = tiny_runs.saved(folder)
    found = []
    for number, part in enumerate(sites[1]):
        out = folder / f"site{number}"
        train(part, out, str(base), **{**tiny_runs.FEW, "max_targets": 20 * (number + 1)})
        CollaborativePrior.fit(part, before=END).save(out / runs.PRIOR)
        found.append(out)
    return found


def test_an_average_of_runs_recommends(
    trained: list[Path], sites: tuple[Dataset, list[Dataset]], tmp_path: Path, run: Command
) -> None:
    data, parts = sites
    given = [load_file(r / runs.ADAPTER / WEIGHTS) for r in trained]
    assert any(g.abs().sum() for n, g in given[0].items() if "lora_B" in n)
    for average in ("tensors", "products"):
        out = tmp_path / average
        plain = answer(run, "federate", *trained, "--out", out, "--average", average)
        targets = [Run.read(r).targets for r in trained]
        assert plain["weights"] == pytest.approx([t / sum(targets) for t in targets])
        assert plain["users"] == len(data.interactions.user_ids)
        mean, kept = average_adapters(given, plain["weights"], average)
        assert plain["kept"] == kept
        written = load_file(out / runs.ADAPTER / WEIGHTS)
        assert all(torch.equal(written[name], mean[name]) for name in mean)
        ours = Recommender.load(out, data, prior="none")
        assert len(ours.recommend(data.interactions.user_ids[0], k=3)) == 3
        found = Run.read(out)
        assert len(found.parts) == 2
    text = run("federate", *trained, "--out", tmp_path / "weighted", "--weights", "2,1")[1]
    assert "0.667" in text
    # The average can be trained further, and `erase` knows that it learned from a site's user.
    more = train(parts[0], tmp_path / "more", str(trained[0].parent / "tiny-llama"),
                 since=tmp_path / "tensors", **{**tiny_runs.FEW, "max_targets": 5})  # fmt: skip
    assert more.targets
    user = parts[0].interactions.user_ids[0]
    erased = erase_from_run(tmp_path / "tensors", user, parts[0], without_user(parts[0], user))
    assert erased.learned


def test_runs_that_do_not_fit_are_refused(trained: list[Path], tmp_path: Path) -> None:
    one, other = trained
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / runs.ADAPTER).mkdir()
    (changed / runs.ADAPTER / WEIGHTS).write_bytes((other / runs.ADAPTER / WEIGHTS).read_bytes())
    there = Run.read(other)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"base_fingerprint": "x"}, "base model"),
        ({"template_hash": "x"}, "prompt template"),
        ({"catalog_hash": "x"}, "catalog"),
        ({"training": {**there.training, "lora_rank": 4}}, "lora_rank"),
        ({"training": {**there.training, "target_modules": "q_proj"}}, "target_modules"),
    ]
    for change, word in wrong:
        replace(there, **change).write(changed)
        with pytest.raises(ModelError, match=word):
            federate([one, changed], tmp_path / "out")
    for weights in ([1.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(SettingsError, match="positive number for each"):
            federate(trained, tmp_path / "out", weights=weights)
    with pytest.raises(SettingsError, match="at least two"):
        federate([one], tmp_path / "out")
    with pytest.raises(SettingsError, match="Expected one of: tensors, products"):
        federate(trained, tmp_path / "out", average="sums")
    for folder in trained:
        (folder / runs.PRIOR).unlink()
    found = federate(trained, tmp_path / "out")
    assert (found.prior, found.users) == (False, 0)
    assert (
        json.loads((tmp_path / "out" / runs.RUN).read_text())["metrics"]["federated"]["runs"] == 2
    )
    with pytest.raises(SettingsError, match="not empty"):
        federate(trained, tmp_path / "out")
