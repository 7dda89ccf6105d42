"""Softmax-DPO: the loss is the paper's, negatives are the model's own and never what was taken."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import FEW, doubled, fresh, made, saved

from genrec import Dataset, History, Interaction, Recommender, preferences, training
from genrec.errors import SettingsError
from genrec.model import LanguageModel
from genrec.recipe import Training

SDPO = Training(objective="sdpo", pack_tokens=200, negatives=2)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_loss_is_the_papers(tmp_path: Path, kind: str) -> None:
    data = made(10, users=2)
    model = fresh(kind, torch.float64)
    recommender = Recommender(data, model, prior="none", exclude_seen=False)
    settings = replace(SDPO, dpo_beta=0.7)
    found, paths = preferences.prepared(recommender, data, settings, None, tmp_path)
    goal = preferences.Preference(found, paths, model, settings)

    def chances(pack: int) -> list[list[float]]:
        """Ln P of the targets of each row, by the public way."""
        said = []
        for i in found.packs[pack]:
            row = found.rows[i]
            event = int(row.event[0])
            known = known_before(data, event)
            ids = [data.catalog[int(r)].item_id for r in row.item]
            asked = recommender.with_settings(
                target_behavior=data.interactions.interaction(event).behavior
            )
            by_id = {r.item_id: r.logprob for r in asked.score(known, ids)}
            said.append([by_id[i] or 0.0 for i in ids])
        return said

    before = [chances(p) for p in range(len(found))]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    assert len(found) > 1
    for pack, then in enumerate(before):
        with torch.no_grad():
            nats, losses = goal.losses(model.model, doubled(goal.batch([pack])))
        wanted, spent = [], []
        for i, old, new in zip(found.packs[pack], then, chances(pack), strict=True):
            gain = [b - a for a, b in zip(old, new, strict=True)]
            taken = found.taken[i]
            for p in range(taken):
                total = sum(math.exp(0.7 * (g - gain[p])) for g in gain[taken:])
                wanted.append(-math.log(1 / (1 + total)))
                spent.append(-new[p])
        assert nats.tolist() == pytest.approx(spent, abs=1e-5)
        assert losses.tolist() == pytest.approx(wanted, abs=1e-4)


def test_negatives_are_listed_and_were_not_taken(tmp_path: Path) -> None:
    data = made(14, users=3)
    recommender = Recommender(data, fresh(), prior="none", exclude_seen=False)
    found, _ = preferences.prepared(recommender, data, SDPO, None, tmp_path)
    c = data.interactions.columns
    assert found.n_targets == len(data.interactions)
    for row, taken in zip(found.rows, found.taken, strict=True):
        basket = c.row[c.unit == c.unit[row.event[0]]]
        assert set(row.item[:taken].tolist()) <= set(basket.tolist())
        assert not set(row.item[taken:].tolist()) & set(basket.tolist())
        assert len(row.item) - taken == 2
    (tmp_path / preferences.LISTS).unlink()
    few, _ = preferences.prepared(recommender, data, replace(SDPO, max_targets=5), None, tmp_path)
    assert 5 <= few.n_targets < 9


def test_lists_are_kept_and_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(20, users=3)
    recommender = Recommender(data, fresh(), prior="none", exclude_seen=False)
    whole, _ = preferences.prepared(recommender, data, SDPO, None, tmp_path)
    lists = tmp_path / preferences.LISTS
    lines = lists.read_text().splitlines()
    lists.write_text("\n".join(lines[:8]) + '\n{"event": 3, "ro')
    asked = []
    many = Recommender.recommend_many

    def counted(self: Recommender, histories: Sequence[History], k: int) -> Any:
        asked.append(len(histories))
        return many(self, histories, k)

    monkeypatch.setattr(Recommender, "recommend_many", counted)
    again, _ = preferences.prepared(recommender, data, SDPO, None, tmp_path)
    assert sum(asked) == len(lines) - 8
    assert again.fingerprint() == whole.fingerprint()
    lists.write_text(json.dumps({"event": 10**6, "rows": []}) + "\n")
    with pytest.raises(SettingsError, match="for other histories"):
        preferences.prepared(recommender, data, SDPO, None, tmp_path)


def test_the_second_stage_lowers_what_the_model_listed(tmp_path: Path) -> None:
    data, base = made(12, users=4), str(saved(tmp_path))
    training.train(data, tmp_path / "one", base, **FEW)
    two = {**FEW, "objective": "sdpo", "negatives": 2, "max_targets": 100, "log_steps": 1}
    with pytest.raises(SettingsError, match="second stage"):
        training.train(data, tmp_path / "two", base, **two)
    assert not (tmp_path / "two").exists()
    run = training.train(data, tmp_path / "two", base, since=tmp_path / "one", **two)
    assert run.finished
    found = Recommender.load(tmp_path / "two", data, exclude_seen=False, prior="none")
    model: LanguageModel = Recommender.load(tmp_path / "one", data, exclude_seen=False).model
    before = Recommender(data, model, prior="none", exclude_seen=False)
    first, _ = preferences.prepared(before, data, replace(SDPO, max_targets=100), None, tmp_path)
    ahead = []
    for row, taken in zip(first.rows, first.taken, strict=True):
        ids = [data.catalog[int(r)].item_id for r in row.item]
        known = known_before(data, int(row.event[0]))
        old, new = (
            {r.item_id: r.logprob or 0.0 for r in s.score(known, ids)} for s in (before, found)
        )
        gains = [new[i] - old[i] for i in ids]
        ahead.append(np.mean(gains[:taken]) - np.mean(gains[taken:]))
    assert np.mean(ahead) > 0.05
    with pytest.raises(SettingsError, match="learns from histories"):
        Training(objective="sdpo", examples="x.jsonl")


def known_before(data: Dataset, event: int) -> list[Interaction]:
    """What was known before an event's basket."""
    interactions = data.interactions
    c = interactions.columns
    return [
        interactions.interaction(e)
        for e in range(event)
        if c.user[e] == c.user[event] and c.unit[e] != c.unit[event]
    ]
