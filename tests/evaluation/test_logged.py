"""Estimates from random lists cover the truth of a simulation, and follow the lists of a service."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import served
from support.amount import FULL
from support.commands import Run
from support.commands import model as model
from support.commands import run as run
from support.served import ids, recommend

from genrec.data.exports import read_export
from genrec.errors import DataError
from genrec.evaluation.logged import estimate, evaluate_logged

RATES = {f"i{n}": 0.1 + 0.07 * n for n in range(12)}  # with which each item is accepted


def test_the_estimates_are_those_of_the_formulas() -> None:
    weights, accepted = np.array([0.0, 2.0, 4.0, 1.0]), np.array([1.0, 1.0, 0.0, 1.0])
    found = estimate(weights, accepted, np.array([0, 0, 1, 2]))
    assert found["logged"].mean == 0.75
    assert found["ips"].mean == pytest.approx(3 / 4)
    assert found["snips"].mean == pytest.approx(3 / 7)
    assert found["effective_lists"] == pytest.approx(49 / 21)
    assert found["heaviest"] == pytest.approx(4 / 7)
    assert len(found["warnings"]) == 3
    nothing = estimate(np.zeros(3), np.ones(3), np.arange(3))
    assert nothing["snips"] is None
    assert "none of the items first" in nothing["warnings"][0]


def test_the_intervals_cover_the_truth_of_a_simulation() -> None:
    """Users differ in what they like and in how often they accept; the policy differs from the lists."""
    rng, runs = np.random.default_rng(0), 1000 if FULL else 60
    items, users, each = 8, 250, 4
    taste = rng.normal(size=(3, items))
    p = np.exp(taste) / np.exp(taste).sum(axis=1, keepdims=True)
    q = np.exp(2 * taste[::-1]) / np.exp(2 * taste[::-1]).sum(axis=1, keepdims=True) / 2 + p / 2
    rate = rng.uniform(0.05, 0.3, (3, items))
    truth = float((q * rate).sum(axis=1).mean())  # the eagerness of users has mean 1
    covered, means = Counter[str](), []
    for _ in range(runs):
        kind = rng.integers(0, 3, users)
        eager = rng.uniform(0.0, 2.0, users)
        user = np.repeat(np.arange(users), each)
        shown = np.array([rng.choice(items, p=p[kind[u]]) for u in user])
        chance = rate[kind[user], shown] * eager[user]
        accepted = (rng.random(len(user)) < chance).astype(np.float64)
        found = estimate(q[kind[user], shown] / p[kind[user], shown], accepted, user)
        means.append(found["ips"].mean)
        for name in ("ips", "snips"):
            covered[name] += found[name].low <= truth <= found[name].high
    assert np.mean(means) == pytest.approx(truth, abs=4 * np.std(means) / np.sqrt(runs))
    for name, count in covered.items():
        assert count / runs >= 0.85, name


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a service that drew lists for users, who accepted the first item or not."""
    folder, rng = tmp_path_factory.mktemp("logged"), np.random.default_rng(1)
    with served.opened(folder) as client:
        client.put("/v1/items/n1", json={"title": "green mug"})
        client.delete("/v1/items/i9")
        for n in range(72):
            given = {"k": 2, "per_group": 1} if n % 2 else {"k": 3, "deny": ["i4"]}
            answer = recommend(client, user_id=f"u{n % 24}", search="sample", **given)
            first = ids(answer)[0]
            if n == 40:
                body = {"user_id": "u17", "item_id": "i7", "behavior": "dislike"}
                client.post("/v1/feedback", json=body)
            if rng.random() < RATES.get(first, 0.5):
                body = {"user_id": f"u{n % 24}", "item_id": first, "list_id": answer["list_id"]}
                client.post("/v1/feedback", json={**body, "behavior": "view"})
        recommend(client, user_id="u1")
        recommend(client, history="", search="sample")
        recommend(client, user_id="u2", search="sample", pin=["i2"])
        path = folder / "export.jsonl"
        path.write_text(client.get("/v1/export").text, encoding="utf-8")
    return path


def test_the_policy_that_made_the_lists_has_weights_of_one(exported: Path) -> None:
    """The histories and options of that time are found again, so q equals p for every list."""
    same = served.recommender(served.made_shop(), search="sample")
    found = evaluate_logged(same, read_export(exported), behaviors=["view"])
    assert (found.lists, found.users) == (72, 24)
    assert found.ips.mean == pytest.approx(found.logged.mean, abs=1e-3)
    assert found.effective_lists == pytest.approx(72, abs=0.1)
    assert found.heaviest == pytest.approx(1 / 72, abs=1e-4)
    assert sum(found.skipped.values()) == 3
    assert set(found.to_dict()["skipped"]) == {
        "not drawn at random", "of neither a user nor a session", "with pinned items",
    }  # fmt: skip


@pytest.mark.parametrize("settings", [{"model_role": "explain"}, {"prior": "none"}])
def test_another_policy_is_estimated_near_its_truth(exported: Path, settings: Any) -> None:
    """The truth is the mean rate of the items that the policy would have put first."""
    export = read_export(exported)
    policy = served.recommender(served.made_shop(), search="exact", **settings)
    found = evaluate_logged(policy, export, behaviors=["view"])
    rates, weights = [], []
    for one in export.lists:
        if one.propensities[0] is not None and one.owner is not None and not one.options.get("pin"):
            history = export.history(
                served.made_shop(), one.owner, is_session=False, before=one.shown
            )
            best = policy.recommend(history, at="any", **{**one.options, "k": 1})[0].item_id
            rates.append(RATES.get(best, 0.5))
            weights.append((best == one.item_ids[0]) / one.propensities[0])
    spread = float(np.sqrt(np.mean(np.square(weights)) / len(weights)))
    assert abs(found.ips.mean - np.mean(rates)) < 4.5 * spread
    assert found.snips is not None
    denied = evaluate_logged(policy, export, behaviors=["view"], options={"allow": ["i0", "i11"]})
    assert denied.ips.mean != found.ips.mean


def test_the_command_prints_estimates_and_warnings(
    exported: Path, tmp_path: Path, run: Run, model: Path
) -> None:
    served.made_shop().save(tmp_path / "shop")
    base = ("evaluate", tmp_path / "shop", "--model", model, "--model-role", "explain")
    code, out, err = run(*base, "--logged", exported, "--accepted", "view,buy")
    assert code == 0, err
    assert "IPS" in out
    assert "72 random lists of 24 users" in out
    assert "Left out: 1 lists with pinned items." in out
    assert "Warning: There are 24 users" in out
    code, out, _ = run(*base, "--logged", exported, "--json")
    value = json.loads(out)
    assert value["behaviors"] == ["buy"]
    assert value["logged"]["mean"] == 0.0
    for wrong, message in (
        (("--logged", exported, "--users", 3), "does not work with --users"),
        (("--accepted", "view"), "--accepted needs --logged"),
        (("--logged", tmp_path / "none.jsonl"), "cannot be read"),
        (("--logged", "http://127.0.0.1:9"), "does not answer"),
    ):
        code, out, err = run(*base, *wrong)
        assert code != 0
        assert message in err


def test_what_is_no_export_is_refused(exported: Path, tmp_path: Path) -> None:
    lines = exported.read_text(encoding="utf-8").splitlines()
    for text, message in (
        ("\n".join(lines[:-1]), "not complete"),
        ("[]\n", "Line 1 of"),
        ("nonsense", "not a line of an export"),
        ('{"table": "events"}\n{"table": "end"}', "lacks a value"),
    ):
        path = tmp_path / "wrong.jsonl"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_export(path)
    path.write_text('{"table": "end"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no random lists"):
        evaluate_logged(served.recommender(served.made_shop()), read_export(path))


def test_the_histories_are_those_of_the_service(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        served.buy(client, "u1", "i11", timestamp=5.0)
        served.buy(client, "new", "i3")
        dislike = {"user_id": "u1", "item_id": "i2", "behavior": "dislike"}
        client.post("/v1/feedback", json=dislike)
        client.delete("/v1/users/u2")
        (tmp_path / "export.jsonl").write_text(client.get("/v1/export").text)
        export = read_export(tmp_path / "export.jsonl")
        shop = served.service_of(client).shop
        for user in ("u1", "u2", "u3", "new"):
            found = export.history(shop.dataset, user, is_session=False, before=1e12)
            kept = [e for e in shop.history(user).interactions if e.behavior != "dislike"]
            assert found.interactions == tuple(kept)
        before = export.history(shop.dataset, "u1", is_session=False, before=0.0)
        assert before.interactions == shop.dataset.interactions.history("u1").interactions
