"""Membership inference: its figures, and that it finds what a model has memorized."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import served, tiny_runs
from support.commands import Run as Command
from support.commands import answer

from genrec import Dataset
from genrec.data import protocols
from genrec.errors import DataError, ModelError, SettingsError
from genrec.evaluation.bootstrap import Interval
from genrec.runs import Run
from genrec.training import accountant
from genrec.training.config import Training
from genrec.training.examples import mark_held_out, mark_shown
from genrec.training.privacy_audit import (
    PrivacyAudit,
    area_under_curve,
    audit_privacy,
    true_positive_rate,
)
from genrec.training.shadows import (
    ABOUT,
    AuditOptions,
    Shadows,
    calibrate,
    draw_halves,
    of_users,
    shadow_settings,
    train_shadows,
)
from genrec.training.trainer import train

VALUES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=15).map(np.array)


@given(VALUES, VALUES, st.sampled_from([0.0, 0.01, 0.3, 0.9]))
def test_the_figures_are_those_of_all_pairs(one: np.ndarray, other: np.ndarray, fpr: float) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in one for b in other]
    assert area_under_curve(one, other) == pytest.approx(np.mean(pairs))
    best = max(
        (one > limit).mean()
        for limit in [-1.0, *other.tolist(), *one.tolist()]
        if (other > limit).mean() <= fpr
    )
    assert true_positive_rate(one, other, fpr) == pytest.approx(best)


@pytest.fixture(scope="module")
def shop() -> Dataset:
    """A shop in which the purchases of a user say nothing about those of others."""
    return served.made_shop(100)


@pytest.fixture(scope="module")
def memorized(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    given = {**tiny_runs.FEW, "max_targets": 2000, "holdout_users": 0.4, "lora_rank": 32,
             "learning_rate": 1e-2, "pack_tokens": 256, "lora_dropout": 0.0, "fit": "train"}  # fmt: skip
    train(shop, folder / "run", str(tiny_runs.saved(folder)), **given)
    return folder / "run"


def test_a_model_that_memorized_its_users_is_found(
    memorized: Path, shop: Dataset, tmp_path: Path, run: Command
) -> None:
    shop.save(tmp_path / "shop")
    plain = answer(run, "audit", tmp_path / "shop", "--privacy", memorized)
    held_out = 100 - plain["members"]
    assert 25 <= held_out == plain["non_members"] <= 55
    assert plain["chosen"] == "held out"
    assert plain["gains"][0] > plain["gains"][1]
    assert 0.5 < plain["auc"]["low"] < plain["auc"]["mean"] < plain["auc"]["high"]
    assert "better than by chance" in plain["verdict"]


def test_shadows_calibrate_an_attack_and_are_used_again(
    memorized: Path, shop: Dataset, tmp_path: Path, run: Command
) -> None:
    shop.save(tmp_path / "shop")
    place = tmp_path / "shadows"
    asked = ["audit", tmp_path / "shop", "--privacy", memorized, "--shadow-dir", place, "--threads", 1,
             "--tokens", 64]  # fmt: skip
    found = answer(run, *asked, "--shadows", 2)
    assert found["shadows"] == 2
    assert set(found["attacks"]) == {"difference", "likelihood"}
    assert found["attacks"]["difference"]["auc"]["low"] > 0.5
    times = [(place / f"shadow-{i}" / "run.json").stat().st_mtime_ns for i in (1, 2)]
    shutil.rmtree(place / "shadow-2" / "adapter")  # as if the second one had been interrupted
    (place / "shadow-2" / "run.json").unlink()
    again = answer(run, *asked, "--shadows", 2)
    assert (place / "shadow-1" / "run.json").stat().st_mtime_ns == times[0]
    assert (place / "shadow-2" / "run.json").stat().st_mtime_ns != times[1]
    assert again["attacks"]["difference"] == found["attacks"]["difference"]
    with pytest.raises(SettingsError, match="even number"):
        train_shadows(Run.read(memorized), shop, shop.interactions.user_ids, Shadows(place, 3),
                      AuditOptions())  # fmt: skip
    (place / ABOUT).write_text("{}")
    code, _, said = run(*asked, "--shadows", 2)
    assert code
    assert "the shadows of another run" in said
    code, _, said = run("audit", tmp_path / "shop", "--shadows", 2)
    assert code
    assert "need --privacy RUN" in said


def test_each_user_is_seen_by_half_of_the_shadows() -> None:
    seen = draw_halves(7, 4, 3)
    assert (seen.sum(axis=0) == 2).all()
    assert (draw_halves(7, 4, 4) != seen).any()


def test_calibration_finds_members_that_plain_losses_hide() -> None:
    rng = np.random.default_rng(0)
    users, gain = 400, 0.3
    hardness = rng.normal(0, 3, users)  # differs between users much more than members gain
    member = rng.permutation(users) < users // 2
    seen = draw_halves(users, 4, 0)

    def loss(trained: np.ndarray) -> np.ndarray:
        return np.asarray(hardness - gain * trained + rng.normal(0, 0.1, users))

    own, shadows = loss(member), np.stack([loss(each) + 5.0 for each in seen])
    plain = area_under_curve(-own[member], -own[~member])
    assert plain < 0.6
    for values in calibrate(own, shadows, seen).values():
        assert area_under_curve(values[member], values[~member]) > 0.9
    nothing = calibrate(
        loss(np.zeros(users)), np.stack([loss(np.zeros(users)) for _ in seen]), seen
    )
    assert all(abs(area_under_curve(v[member], v[~member]) - 0.5) < 0.1 for v in nothing.values())


def test_shadows_of_a_private_run_take_as_many_steps(memorized: Path) -> None:
    known = Run.read(memorized)
    assert shadow_settings(known, 50, 7.0).max_targets == known.targets
    private = replace(known, training={**known.training, "dp_epsilon": 8.0, "dp_users": 64},
                      metrics={"privacy": {"steps": 30, "rate": 0.5}})  # fmt: skip
    found = shadow_settings(private, 50, 7.0)
    assert (found.dp_users, found.max_minutes, found.max_targets) == (25, 7.0, None)
    planned = accountant.plan(found, 1, 50)
    assert (planned.steps, planned.rate) == (30, 0.5)


def test_held_out_users_are_not_trained_on(shop: Dataset) -> None:
    training = Training(holdout_users=0.4)
    out = mark_held_out(shop.interactions, training)
    shown = mark_shown(shop, training)
    assert not (out & shown).any()
    assert (mark_shown(shop, Training()) == (shown | (out & mark_shown(shop, Training())))).all()
    user = shop.interactions.columns.user
    assert all(len(set(out[user == u].tolist())) == 1 for u in np.unique(user))
    other = mark_held_out(shop.interactions, replace(training, seed=1))
    assert (out != other).any()
    more = of_users(shop, shop.interactions.user_ids[:10])  # the choice depends on the id only
    assert (mark_held_out(more.interactions, training) == out[: len(more.interactions)]).all()


def test_an_audit_needs_users_of_both_kinds(memorized: Path, shop: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    few = {**tiny_runs.FEW, "max_targets": 10}
    train(shop, folder, str(memorized.parent / "tiny-llama"), **few)
    with pytest.raises(SettingsError, match=r"trained on all users.*--holdout-users"):
        audit_privacy(folder, shop)
    with pytest.raises(ModelError, match="another dataset"):
        audit_privacy(folder, of_users(shop, shop.interactions.user_ids[:50]))
    with pytest.raises(DataError, match="0 non-members"):
        audit_privacy(folder, shop, outside=shop)
    # Users of another dataset, whom a run that learned next to nothing cannot tell apart.
    ids = shop.interactions.user_ids
    half = of_users(shop, ids[:50])
    train(
        half,
        tmp_path / "half",
        str(memorized.parent / "tiny-llama"),
        **{**few, "learning_rate": 1e-9},
    )
    found = audit_privacy(tmp_path / "half", half, AuditOptions(users=30), outside=shop)
    assert (found.members, found.non_members, found.chosen) == (30, 30, "another dataset")
    assert found.gains == pytest.approx((0.0, 0.0), abs=1e-4)
    assert protocols.fingerprint(half) != protocols.fingerprint(shop)


def test_a_verdict_says_what_the_intervals_say() -> None:
    found = PrivacyAudit("r", 1, 1, "held out", (1.0, 1.0), (0.0, 0.0), Interval(0.5, 0.4, 0.6),
                         Interval(0.01, 0.0, 0.02))  # fmt: skip
    assert "cannot tell" in found.verdict
    assert "better than by chance" in replace(found, auc=Interval(0.6, 0.51, 0.7)).verdict
