"""Differential privacy: clipped gradients per user, the accountant, and adapters that were really trained."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import served, tiny_runs

from genrec import Dataset, Recommender, runs
from genrec.data import protocols
from genrec.errors import SettingsError
from genrec.models.language_model import LanguageModel
from genrec.priors.collaborative import CollaborativePrior
from genrec.runs import Run
from genrec.training import accountant, private, private_prior
from genrec.training.config import Training
from genrec.training.examples import Examples, make_examples
from genrec.training.federated import WEIGHTS
from genrec.training.frozen_blocks import FrozenBlocks
from genrec.training.lora import add_adapter, find_blocks
from genrec.training.objectives import NextItemObjective
from genrec.training.trainer import train

pytest.importorskip("opacus")
GIVEN = {**tiny_runs.FEW, "lora_dropout": 0.0, "dp_users": 10, "epochs": 1.0, "dp_tokens": 64}
del GIVEN["max_targets"]


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return served.made_shop(24)


def prepared(
    shop: Dataset, kind: str = "llama", layers: int | None = None
) -> tuple[NextItemObjective, Examples, LanguageModel]:
    training = Training(lora_rank=4, pack_tokens=64, lora_layers=layers)
    base = tiny_runs.fresh(kind)
    ours = Recommender(shop, base, prior="none")
    titles = list(ours.encoder.titles(shop.catalog))
    examples, paths = make_examples(ours, shop, training, None, titles)
    examples = private.one_row_each(examples, shop)
    torch.manual_seed(0)
    tuned = LanguageModel(add_adapter(base.model, training), base.tokenizer, name="tiny")
    for name, p in tuned.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return NextItemObjective(examples, paths, tuned, training, titles), examples, tuned


def test_each_user_adds_one_clipped_gradient(shop: Dataset) -> None:
    objective, examples, tuned = prepared(shop)
    user = shop.interactions.columns.user
    owners = [{int(u) for u in user[row.event]} for row in examples.rows]
    assert owners == [{u} for u in range(len(shop.interactions.user_ids))]
    assert examples.packs == [[i] for i in range(len(owners))]
    weights = [p for p in tuned.model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in weights]
    expected = [torch.zeros_like(p) for p in weights]
    clip, norms = 0.05, []
    for one in range(4):
        batch = objective.batch([one])
        nats, norm = private.add_user(objective, tuned.model, weights, batch, total, clip)
        losses = objective.losses(tuned.model, batch)[1]
        assert nats.tolist() == pytest.approx(losses.tolist(), rel=1e-4)
        gradient = torch.autograd.grad(losses.mean(), weights, allow_unused=True)
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


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_frozen_blocks_change_neither_losses_nor_gradients(shop: Dataset, kind: str) -> None:
    objective, _, tuned = prepared(shop, kind, layers=1)
    tuned.model.eval()
    blocks = find_blocks(tuned.model)
    frozen = FrozenBlocks(blocks)
    assert frozen.first == len(blocks) - 1 > 0
    weights = [p for p in tuned.model.parameters() if p.requires_grad]
    before = list(blocks)
    for user in (0, 1):
        batch = objective.batch([user])
        totals: list[list[torch.Tensor]] = []
        nats = []
        for _ in range(3):  # without memory, remembered, and read from memory
            total = [torch.zeros_like(p) for p in weights]
            reads = frozen.reading(private.key_of(batch)) if totals else contextlib.nullcontext()
            with reads:
                nats.append(private.add_user(objective, tuned.model, weights, batch, total, 9.0)[0])
            totals.append(total)
        torch.testing.assert_close(nats[0], nats[1])
        torch.testing.assert_close(nats[1], nats[2])
        for one, two, three in zip(*totals, strict=True):
            torch.testing.assert_close(one, two)
            torch.testing.assert_close(two, three)
        assert any(t.any() for t in totals[2])
    assert list(blocks) == before
    hidden: list[int] = []
    hook = blocks[0].register_forward_hook(lambda *_: hidden.append(1))
    batch = objective.batch([0])
    with frozen.reading(private.key_of(batch)):  # known: the first block is not computed
        objective.losses(tuned.model, batch)
    assert not hidden
    objective.losses(tuned.model, batch)
    assert hidden
    hook.remove()


def test_the_noise_reaches_epsilon_and_no_more() -> None:
    for epsilon in (2.0,):
        noise = accountant.find_noise(epsilon, 1e-4, [(0.1, 50)], [(40.0, 1.0, 1)])
        history = [(noise, 0.1, 50), (40.0, 1.0, 1)]
        assert accountant.epsilon_of(history, 1e-4) <= epsilon
        assert accountant.epsilon_of([(noise * 0.99, 0.1, 50), history[1]], 1e-4) > epsilon
    # One Gaussian release: RDP of order a is a / (2 noise^2), converted to epsilon (Balle et al. 2020).
    orders = np.arange(1.1, 200, 0.01)
    bound = orders / (2 * 3.0**2) + np.log1p(-1 / orders) - np.log(1e-5 * orders) / (orders - 1)
    assert accountant.epsilon_of([(3.0, 1.0, 1)], 1e-5) == pytest.approx(bound.min(), rel=0.02)
    assert accountant.epsilon_of([(3.0, 0.1, 0), (3.0, 1.0, 1)], 1e-5) == pytest.approx(
        bound.min(), rel=0.02
    )
    with pytest.raises(SettingsError, match="cannot be reached"):
        accountant.find_noise(0.1, 1e-4, [(0.1, 5)], [(0.5, 1.0, 1)])


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
    start = dict(add_adapter(fresh.model, Training(**run.training)).named_parameters())
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
    unshared = tmp_path / "dp" / runs.UNSHARED
    lines = [json.loads(x) for x in (unshared / runs.LOG).read_text().splitlines()]
    assert len(lines) == privacy["steps"]
    # What was computed without noise is in one folder, which need not be there to use the run.
    known = protocols.fingerprint(protocols.apply_protocol(shop, protocols.default_protocol(shop)))
    outside = [p for p in (tmp_path / "dp").rglob("*") if p.is_file() and unshared not in p.parents]
    assert not any(known.encode() in p.read_bytes() for p in outside)
    assert not {p.name for p in outside} & {runs.LOG, "report.md"}
    assert run.targets == round(privacy["steps"] * 10)
    assert Run.read(tmp_path / "dp").data_fingerprint == known
    shutil.rmtree(unshared)
    assert Run.read(tmp_path / "dp").data_fingerprint == ""
    Recommender.load(tmp_path / "dp", shop, prior="none")
    prior = CollaborativePrior.load(tmp_path / "dp" / runs.PRIOR, shop.catalog)
    assert prior.mix == private_prior.MIX
    assert not prior.counts.user_ids
    assert not prior.counts.items.nnz + prior.counts.after.nnz
    assert (prior.counts.popularity >= 0).all()
    assert len(np.unique(prior.counts.popularity % 1)) > 2  # there is noise


def test_counts_are_clipped_per_user() -> None:
    user, row = np.array([0] * 100 + [1]), np.array([0] * 100 + [1])
    found = private_prior.clip_counts(user, row, 3)
    assert found.tolist() == pytest.approx([private_prior.PRIOR_NORM, 1.0, 0.0])


def test_what_cannot_be_private_is_refused(shop: Dataset, tmp_path: Path) -> None:
    base = Training(dp_epsilon=2.0)
    wrong: dict[str, Any] = {"objective": "pointwise", "lora_rank": 0, "dora": True,
                             "popularity_strength": 0.5, "behavior_weights": {"buy": 2.0}}  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(SettingsError, match=f"does not work with {name}="):
            private.check_settings(replace(base, **{name: value}))
    with pytest.raises(SettingsError, match="dp_users=25 is more than the 24 users"):
        train(shop, tmp_path / "run", "none", **{**GIVEN, "dp_epsilon": 2.0, "dp_users": 25})
    with pytest.raises(SettingsError, match="dp_tokens=16 is too small"):
        train(
            shop,
            tmp_path / "run",
            tiny_runs.fresh(),
            **{**GIVEN, "dp_epsilon": 2.0, "dp_tokens": 16},
        )
    for more in ({"resume": True}, {"since": tmp_path}):
        with pytest.raises(SettingsError, match="--resume and --from"):
            train(shop, tmp_path / "run", "none", **{**GIVEN, "dp_epsilon": 2.0}, **more)
    with pytest.raises(SettingsError, match="one divided by the number of users"):
        train(shop, tmp_path / "run", str(tiny_runs.saved(tmp_path)), dp_delta=0.5,
              **{**GIVEN, "dp_epsilon": 2.0})  # fmt: skip
