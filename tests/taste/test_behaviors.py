"""The next behavior by counting agrees with its formula and learns what users do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from support import tiny

from genrec import Dataset, History, Interaction, Interactions, Recommender
from genrec.data.datasets import load
from genrec.errors import SettingsError
from genrec.prompts.encoder import shared_start
from genrec.taste.behaviors import BehaviorCounts


def events(*behaviors: str) -> History:
    return History(tuple(Interaction("i0", b) for b in behaviors))


def test_the_probabilities_follow_the_formula() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    transitions = np.array([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]])
    counts = BehaviorCounts(("a", "b", "c"), shares, transitions, 1.0, own=2.0, followed=3.0)
    found = counts.probabilities(events("a", "b", "x", "a"))
    weights = np.array([0.25, 0.5, 1.0])  # x is unknown
    mine = np.array([weights[0] + weights[2], weights[1], 0.0])
    own = (mine + 2 * transitions[0]) / (weights.sum() + 2)
    then = np.array([0.0, weights[1], 0.0])
    assert found == pytest.approx((then + 3 * own) / (then.sum() + 3))
    assert found.sum() == pytest.approx(1.0)
    assert counts.probabilities(events()) is shares


def shop(alternate: bool) -> Dataset:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        for n in range(12):
            seen = n % 2 == 0 if alternate else bool(user % 2)
            rows.append(
                {"user_id": f"u{user}", "item_id": f"i{int(rng.integers(5))}", "timestamp": 1e9 + n,
                 "behavior": "view" if seen else "buy"}
            )  # fmt: skip
    items = pa.table({"item_id": [f"i{n}" for n in range(5)], "title": list("abcde")})
    return Dataset.from_tables(items, pa.Table.from_pylist(rows), name="made")


@pytest.mark.parametrize("alternate", [True, False])
def test_it_learns_what_follows_and_what_users_keep_doing(alternate: bool) -> None:
    data = shop(alternate)
    counts = BehaviorCounts.count(data.interactions, "validation")
    view = counts.behaviors.index("view")
    chance = counts.probabilities(events("view", "buy", "view") if alternate else events("view"))
    assert (chance[view] < 0.1) if alternate else (chance[view] > 0.9)


def test_events_of_later_parts_are_not_counted() -> None:
    data = shop(True)
    hidden = data.interactions.columns.split >= 1
    c = data.interactions.columns
    changed = np.where(hidden, 0, c.behavior)
    table = replace(data.interactions.table, columns=replace(c, behavior=changed))
    other = Interactions(data.catalog, table)
    first, second = (BehaviorCounts.count(x, "validation") for x in (data.interactions, other))
    assert first.transitions.tolist() == second.transitions.tolist()
    assert (first.half_life, first.own) == (second.half_life, second.own)


def test_items_follow_the_behavior_and_the_model_counts_only_if_it_is_asked() -> None:
    data = load("zh_mini")
    ours = Recommender(data, tiny.language_model(), encoder="none", model_role="explain")
    history = data.interactions.history("u01")
    found = ours.next_behavior(history, 2)
    counts = BehaviorCounts.count(data.interactions)
    chances = dict(zip(counts.behaviors, counts.probabilities(history).tolist(), strict=True))
    assert [f.probability for f in found] == sorted(chances.values(), reverse=True)
    assert {f.behavior: f.probability for f in found} == pytest.approx(chances)
    for one in found[:2]:
        assert one.items is not None
        assert one.items.behavior == one.behavior
        assert len(one.items) == 2
    logs = ours.verb_logprobs(history, counts.behaviors)
    window = history.latest(ours.prompt(history).prompt.events)
    whole = [
        ours.encoder.prompt(
            ours.template.render(ours.catalog, window, b, form=ours.encoder.form)
        ).ids
        for b in counts.behaviors
    ]
    start = shared_start(whole)
    for ids, log in zip(whole, logs.tolist(), strict=True):  # one plain pass for each prompt
        with torch.no_grad():
            after = ours.model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert log == pytest.approx(
            sum(float(after[n - 1, ids[n]]) for n in range(start, len(ids))), abs=1e-3
        )
    fused = ours.next_behavior(history, model_weight=0.1)
    weights = np.array(list(chances.values())) * np.exp(0.1 * (logs - logs.max()))
    assert {f.behavior: f.probability for f in fused} == pytest.approx(
        dict(zip(counts.behaviors, (weights / weights.sum()).tolist(), strict=True)), abs=1e-4
    )
    with pytest.raises(SettingsError, match="without a dataset"):
        Recommender(data.catalog, tiny.language_model(), encoder="none").next_behavior()
