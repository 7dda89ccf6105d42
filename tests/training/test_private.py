"""Differential privacy: clipped gradients per user, the accountant, and adapters that were really trained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import served, tiny_runs

from genrec import Dataset, Recommender, runs
from genrec.errors import SettingsError
from genrec.models.language_model import LanguageModel
from genrec.priors.collaborative import CollaborativePrior
from genrec.runs import Run
from genrec.training import private
from genrec.training.config import Training
from genrec.training.examples import Examples, make_examples
from genrec.training.federated import WEIGHTS
from genrec.training.lora import add_adapter
from genrec.training.objectives import NextItemObjective
from genrec.training.trainer import train

pytest.importorskip("opacus")
GIVEN = {**tiny_runs.FEW, "lora_dropout": 0.0, "dp_users": 10, "max_targets": 60, "pack_tokens": 64}


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return served.made_shop(24)


def prepared(shop: Dataset) -> tuple[NextItemObjective, Examples, np.ndarray, LanguageModel]:
    training = Training(lora_rank=4, pack_tokens=64)
    base = tiny_runs.fresh()
    ours = Recommender(shop, base, prior="none")
    titles = list(ours.encoder.titles(shop.catalog))
    examples, paths = make_examples(ours, shop, training, None, titles)
    examples, owner = private.by_user(examples, shop, training.pack_tokens)
    torch.manual_seed(0)
    tuned = LanguageModel(add_adapter(base.model, training), base.tokenizer, name="tiny")
    for name, p in tuned.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return NextItemObjective(examples, paths, tuned, training, titles), examples, owner, tuned


def test_each_user_adds_one_clipped_gradient(shop: Dataset) -> None:
    objective, examples, owner, tuned = prepared(shop)
    user = shop.interactions.columns.user
    for pack, index in zip(examples.packs, owner, strict=True):  # a pack has the rows of one user
        mine = {int(u) for r in pack for u in user[examples.rows[r].event]}
        assert len(mine) == 1
        assert index == sorted({int(user[r.event[0]]) for r in examples.rows}).index(mine.pop())
    weights = [p for p in tuned.model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in weights]
    expected = [torch.zeros_like(p) for p in weights]
    clip, norms = 0.05, []
    for one in range(4):
        packs = np.flatnonzero(owner == one)
        (_, norm), many = private.add_user(objective, tuned.model, weights, packs, total, clip)
        losses = [objective.losses(tuned.model, objective.batch([int(p)]))[1] for p in packs]
        assert many == sum(map(len, losses))
        gradient = torch.autograd.grad(torch.cat(losses).mean(), weights, allow_unused=True)
        found = [
            torch.zeros_like(p) if g is None else g for g, p in zip(gradient, weights, strict=True)
        ]
        size = math.sqrt(sum(float((g**2).sum()) for g in found))
        assert norm == pytest.approx(size, rel=1e-4)
        norms.append(size)
        for e, g in zip(expected, found, strict=True):
            e += g * min(1.0, clip / size)
    assert max(norms) > clip
    for t, e in zip(total, expected, strict=True):
        torch.testing.assert_close(t, e, atol=1e-6, rtol=1e-4)
    whole = math.sqrt(sum(float((t**2).sum()) for t in total))
    assert whole <= 4 * clip * 1.0001


def test_the_noise_reaches_epsilon_and_no_more() -> None:
    for epsilon in (2.0,):
        noise = private.find_noise(epsilon, 1e-4, [(0.1, 50)], [(40.0, 1.0, 1)])
        history = [(noise, 0.1, 50), (40.0, 1.0, 1)]
        assert private.epsilon_of(history, 1e-4) <= epsilon
        assert private.epsilon_of([(noise * 0.99, 0.1, 50), history[1]], 1e-4) > epsilon
    # One Gaussian release: RDP of order a is a / (2 noise^2), converted to epsilon (Balle et al. 2020).
    orders = np.arange(1.1, 200, 0.01)
    bound = orders / (2 * 3.0**2) + np.log1p(-1 / orders) - np.log(1e-5 * orders) / (orders - 1)
    assert private.epsilon_of([(3.0, 1.0, 1)], 1e-5) == pytest.approx(bound.min(), rel=0.02)
    assert private.epsilon_of([(3.0, 0.1, 0), (3.0, 1.0, 1)], 1e-5) == pytest.approx(
        bound.min(), rel=0.02
    )
    with pytest.raises(SettingsError, match="cannot be reached"):
        private.find_noise(0.1, 1e-4, [(0.1, 5)], [(0.5, 1.0, 1)])


def test_a_private_run_was_trained_and_reloads_to_the_same_losses(
    shop: Dataset, tmp_path: Path
) -> None:
    # Opacus has saved adapters that were never trained (issue 820), so this is compared in every way.
    base = str(tiny_runs.saved(tmp_path))
    kept: dict[str, Any] = {}
    real = private.write_adapter

    def keep(model: Any, folder: Path) -> None:
        kept["weights"] = {
            n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad
        }
        real(model, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private, "write_adapter", keep)
        said: list[str] = []
        run = train(
            shop,
            tmp_path / "dp",
            base,
            **{**GIVEN, "dp_epsilon": 50.0, "eval_users": 5},
            log=said.append,
        )
    assert any("not validated" in line for line in said)
    written = load_file(tmp_path / "dp" / runs.ADAPTER / WEIGHTS)
    fresh = tiny_runs.fresh()
    torch.manual_seed(0)
    start = dict(add_adapter(fresh.model, Training(**{k: v for k, v in GIVEN.items()
                 if k in {"lora_dropout"}})).named_parameters())  # fmt: skip
    assert len(written) == len(kept["weights"])
    for name, value in kept["weights"].items():
        assert torch.equal(written[name.replace(".default", "")], value)
        assert not torch.equal(start[name], value), name
    ours = Recommender.load(tmp_path / "dp", shop, prior="none")
    untrained = Recommender(shop, LanguageModel.load(base, dtype="float32"), prior="none")
    user = shop.interactions.user_ids[0]
    one, other = (r.recommend(r.history(user), k=5).to_dict() for r in (ours, untrained))
    assert one["recommendations"] != other["recommendations"]
    privacy = run.metrics["privacy"]
    assert privacy == Run.read(tmp_path / "dp").metrics["privacy"]
    assert 49 < privacy["epsilon"] <= 50
    assert privacy["users"] == 24
    assert privacy["unit"] == "user"
    lines = [json.loads(x) for x in (tmp_path / "dp" / runs.LOG).read_text().splitlines()]
    assert len(lines) == privacy["steps"]
    prior = CollaborativePrior.load(tmp_path / "dp" / runs.PRIOR, shop.catalog)
    assert prior.mix == {"popular": 1.0}
    assert not prior.counts.user_ids
    assert not prior.counts.items.nnz + prior.counts.after.nnz
    assert (prior.counts.popularity >= 0).all()
    assert len(np.unique(prior.counts.popularity % 1)) > 2  # there is noise


def test_counts_are_clipped_per_user() -> None:
    user, row = np.array([0] * 100 + [1]), np.array([0] * 100 + [1])
    found = private.clip_counts(user, row, 3)
    assert found.tolist() == pytest.approx([private.PRIOR_NORM, 1.0, 0.0])


def test_what_cannot_be_private_is_refused(shop: Dataset, tmp_path: Path) -> None:
    base = Training(dp_epsilon=2.0)
    wrong: dict[str, Any] = {"objective": "pointwise", "lora_rank": 0, "dora": True,
                             "popularity_strength": 0.5, "behavior_weights": {"buy": 2.0}}  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(SettingsError, match=f"does not work with {name}="):
            private.check_settings(replace(base, **{name: value}))
    for more in ({"resume": True}, {"since": tmp_path}):
        with pytest.raises(SettingsError, match="--resume and --from"):
            train(shop, tmp_path / "run", "none", **{**GIVEN, "dp_epsilon": 2.0}, **more)
    with pytest.raises(SettingsError, match="one divided by the number of users"):
        train(shop, tmp_path / "run", str(tiny_runs.saved(tmp_path)), dp_delta=0.5,
              **{**GIVEN, "dp_epsilon": 2.0})  # fmt: skip
