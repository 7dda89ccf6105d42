"""Users are split between the arms of an experiment, and its results are those of users."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support import served
from support.served import client as client
from support.served import ids, recommend, service_of

from genrec import Interaction, Recommender
from genrec.service.experiments import Arm, Experiment, results
from genrec.service.outcomes import Outcome, mean_per_user, outcomes
from genrec.service.store import Event, ShownList, Store
from genrec.service.tables import FILE, sqlite_url

TWO = {"arms": [{"name": "counts", "model_role": "explain"}, {"name": "model", "weight": 3.0}]}


def experiment(salt: str = "salt", weights: tuple[float, ...] = (1.0, 3.0), **given: Any) -> Any:
    arms = tuple(Arm(f"a{n}", "tiny", weight) for n, weight in enumerate(weights))
    return Experiment("e", arms, None, salt, ("buy",), **given)


def put(client: TestClient, name: str, body: Any, status: int = 200) -> Any:
    answer = client.put(f"/v1/experiments/{name}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_users_are_split_by_weight_and_stay_where_they_are() -> None:
    users = [f"u:{n}" for n in range(20_000)]
    split = experiment(weights=(1.0, 3.0, 2.0))
    arms = [split.arm_of(user).name for user in users]
    assert arms == [split.arm_of(user).name for user in users]
    counts, expected = Counter(arms), {"a0": 20_000 / 6, "a1": 10_000.0, "a2": 20_000 / 3}
    distance = sum((counts[a] - n) ** 2 / n for a, n in expected.items())
    assert (
        distance < 13.8
    )  # chi-square with 2 degrees of freedom: exceeded once in a thousand times


def test_the_split_of_one_experiment_says_nothing_about_that_of_another() -> None:
    users = [f"u:{n}" for n in range(20_000)]
    both = Counter(
        (experiment("x", (1, 1)).arm_of(u).name, experiment("y", (1, 1)).arm_of(u).name)
        for u in users
    )
    assert sum((both[p] - 5000) ** 2 / 5000 for p in both) < 16.3  # 3 degrees of freedom
    assert len(both) == 4


def test_lists_come_from_the_arm_of_the_user(client: TestClient) -> None:
    put(client, "first", TWO)
    answers = {f"u{n}": recommend(client, user_id=f"u{n}", k=4) for n in range(20)}
    arms = {user: answer["arm"] for user, answer in answers.items()}
    assert set(arms.values()) == {"counts", "model"}
    counting = service_of(client).shop.engines["tiny"].fallback
    assert counting is not None
    for user, answer in answers.items():
        assert answer["experiment"] == "first"
        assert answer["run"] == "tiny"
        assert (answer["parts"] == ["prior"]) is (answer["arm"] == "counts")
        if answer["arm"] == "counts":
            alone = counting.recommend(service_of(client).shop.history(user), 4)
            assert ids(answer) == [r.item_id for r in alone]
        assert recommend(client, user_id=user, k=1)["arm"] == answer["arm"]
    for body in ({"user_id": "u1", "run": "tiny"}, {"history": ""}):
        assert recommend(client, **body)["arm"] is None
    session = client.post("/v1/sessions", json={"session_id": "s1", "keep": True}).json()
    assert session["arm"] in {"counts", "model"}
    found = client.get("/v1/experiments/first").json()
    shown = {a["arm"]: (a["users"], a["lists"]) for a in found["results"]["arms"]}
    assert sum(users for users, _ in shown.values()) == 21  # with the session
    assert sum(lists for _, lists in shown.values()) == 41
    assert found["running"]
    assert found["missing_runs"] == []


def test_an_experiment_survives_a_restart(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        put(client, "first", TWO)
        before = [recommend(client, user_id=f"u{n}", k=1)["arm"] for n in range(10)]
    with served.opened(tmp_path) as client:
        assert [recommend(client, user_id=f"u{n}", k=1)["arm"] for n in range(10)] == before
        stopped = client.post("/v1/experiments/first/stop").json()
        assert not stopped["running"]
        assert recommend(client, user_id="u1")["arm"] is None
    with served.opened(tmp_path) as client:
        found = client.get("/v1/experiments").json()["experiments"]
        assert [(e["name"], e["running"]) for e in found] == [("first", False)]
        assert client.get("/v1/experiments/first").json()["results"]["arms"][0]["lists"] > 0
        assert client.delete("/v1/experiments/first").status_code == 200
        assert client.get("/v1/experiments/first").status_code == 404


def test_the_runs_of_an_experiment_are_loaded_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "second").mkdir(parents=True)
    (runs / "second" / "run.json").write_text("{}")

    def load(folder: Path) -> Recommender:
        return served.recommender(served.made_shop(), prior="none")

    body = {"arms": [{"name": "old"}, {"name": "new", "run": "second"}]}
    with served.opened(tmp_path, load=load, runs=runs) as client:
        put(client, "swap", body, 404)  # it must be loaded first
        client.post("/v1/models/second")
        put(client, "swap", body)
        assert client.delete("/v1/models/second").status_code == 409
        arms = {recommend(client, user_id=f"u{n}", k=1)["run"] for n in range(10)}
        assert arms == {"tiny", "second"}
    with served.opened(tmp_path, load=load, runs=runs) as client:
        assert client.get("/v1/experiments").json()["experiments"][0]["missing_runs"] == ["second"]
        found = [recommend(client, user_id=f"u{n}", k=1) for n in range(10)]
        assert {(a["run"], a["arm"]) for a in found} == {("tiny", "old"), ("tiny", None)}
        service_of(client).load_arms()
        found = [recommend(client, user_id=f"u{n}", k=1) for n in range(10)]
        assert {(a["run"], a["arm"]) for a in found} == {("tiny", "old"), ("second", "new")}


def test_arms_have_options_and_scenarios_of_their_own(client: TestClient) -> None:
    client.put("/v1/scenarios/home", json={"k": 3})
    client.put("/v1/scenarios/wide", json={"k": 6})
    arms = [{"name": "a", "options": {"k": 2}}, {"name": "b", "scenario": "wide"}]
    put(client, "home-page", {"arms": arms, "scenario": "home"})
    lengths = {}
    for n in range(12):
        answer = recommend(client, user_id=f"u{n}", scenario="home")
        lengths[answer["arm"]] = len(ids(answer))
    assert lengths == {"a": 2, "b": 6}
    assert recommend(client, user_id="u1")["arm"] is None  # another scenario
    assert len(ids(recommend(client, user_id="u1", scenario="home", run="tiny"))) == 3


def test_an_experiment_that_cannot_run_is_refused(client: TestClient) -> None:
    put(client, "first", TWO)
    assert put(client, "first", TWO)["name"] == "first"  # a repeated request changes nothing
    put(client, "first", {"arms": TWO["arms"][::-1]}, 409)
    put(client, "second", TWO, 409)  # for the same requests
    arm = {"name": "a"}
    for arms, status in (
        ([arm], 422),
        ([arm, arm], 422),
        ([arm, {"name": "b", "weight": 0}], 422),
        ([arm, {"name": "b", "run": "none"}], 404),
        ([arm, {"name": "b", "scenario": "none"}], 404),
        ([arm, {"name": "b", "options": {"half_life": 2.0, "age_column": "x", "k": 0}}], 422),
        ([arm, {"name": "b", "model_role": "fuse"}], 422),
    ):
        put(client, "third", {"arms": arms}, status)
    put(client, "third", {**TWO, "scenario": "none"}, 404)


def test_feedback_is_joined_to_lists_by_arm_scenario_and_rank(client: TestClient) -> None:
    client.put("/v1/scenarios/home", json={"k": 4})
    put(client, "first", {**TWO, "behaviors": ["buy"]})
    arms: dict[str, str] = {}
    for n in range(12):
        answer = recommend(client, user_id=f"u{n}", scenario="home")
        arms[f"u{n}"] = answer["arm"]
        top, second = ids(answer)[:2]
        events = [(top, "view"), (second, "view")] + ([(second, "buy")] if n < 6 else [])
        for item, behavior in events:
            body = {"user_id": f"u{n}", "item_id": item, "behavior": behavior}
            client.post("/v1/feedback", json={**body, "list_id": answer["list_id"]})
    ranks = client.get("/v1/acceptance", params={"by": "rank", "experiment": "first"}).json()
    assert [g["value"] for g in ranks["groups"]] == [1, 2, 3, 4]
    assert ranks["groups"][0]["behaviors"] == {"view": {"lists": 12, "items": 12}}
    assert ranks["groups"][1]["behaviors"]["buy"] == {"lists": 6, "items": 6}
    assert ranks["groups"][0]["per_user"]["mean"] == 1
    by_arm = client.get("/v1/acceptance", params={"by": "arm", "behaviors": "buy"}).json()
    found = client.get("/v1/experiments/first").json()["results"]
    for group, arm in zip(by_arm["groups"], found["arms"], strict=True):
        users = [u for u, name in arms.items() if name == arm["arm"]]
        bought = sum(int(u[1:]) < 6 for u in users)
        assert group["value"] == arm["arm"]
        assert arm["users"] == group["users"] == len(users)
        assert arm["per_user"]["mean"] == group["per_user"]["mean"] == bought / len(users)
        assert arm["behaviors"]["view"]["users"] == len(users)
        assert arm["behaviors"]["buy"]["lists"] == arm["lists_accepted"] == bought
    (verdict,) = found["comparisons"]
    assert verdict["users"] == {"counts": 0, "model": 0}  # the window of no user has passed
    assert (verdict["difference"], verdict["low"], verdict["decided"]) == (None, None, False)
    none = client.get("/v1/acceptance", params={"by": "arm", "experiment": "other"}).json()
    assert none["groups"] == []


def test_users_are_compared_when_their_window_has_passed() -> None:
    """Lists and feedback after the window change nothing, so a value never changes later."""
    hour = 3600.0
    window: dict[str, Any] = {"window_hours": 2.0, "started": 1.0}
    rng = np.random.default_rng(0)
    lists, taken = [], {"a0": 0, "a1": 0}
    for n in range(400):
        arm = f"a{n % 2}"
        accepts = bool(rng.random() < (0.2 if n % 2 else 0.8))
        taken[arm] += accepts
        first = Outcome(
            f"f{n}", arm, f"u:{n}", 10.0 + n, False, {"buy": 20.0 + n} if accepts else {}
        )
        late = Outcome(f"l{n}", arm, f"u:{n}", 3 * hour + n, False, {"buy": 4 * hour})
        lists += [first, late]
    lists.sort(key=lambda one: (one.unit, one.shown))
    early = results(experiment(weights=(1, 1), **window), lists, now=10.0 + 2 * hour + 99.5)
    assert early["complete_users"] == 100
    found = results(experiment(weights=(1, 1), **window), lists, now=9 * hour)
    (verdict,) = found["comparisons"]
    assert verdict["users"] == {"a0": 200, "a1": 200}
    assert verdict["difference"] == pytest.approx((taken["a1"] - taken["a0"]) / 200)
    assert (verdict["better"], verdict["decided"]) == ("a0", True)
    assert verdict["low"] < verdict["difference"] < verdict["high"] < 0
    assert [a["lists"] for a in found["arms"]] == [400, 400]
    three = results(experiment(weights=(1, 1, 1), **window), lists, now=9 * hour)
    assert [c["level"] for c in three["comparisons"]] == pytest.approx([0.975, 0.975])


def test_one_busy_user_is_one_user(tmp_path: Path) -> None:
    """Thirty lists of one user do not make the interval of the others narrower."""
    store = Store(sqlite_url(tmp_path))
    for n in range(40):
        user = "busy" if n < 30 else f"u{n}"
        shown = ShownList(f"l{n}", 5.0 + n, user, None, None, "r", "a0", False, ("i1", "i2"), "e")
        store.add_lists([shown])
        if n < 30:
            store.add_events([Event(Interaction("i1", "buy", 1.0), user, list_id=f"l{n}")])
    found = list(outcomes(store, "e", since=6.0))
    store.close()
    assert len(found) == 39  # those before the experiment belong to another one of the same name
    (arm, _) = results(experiment(started=6.0), found, now=1e9)["arms"]
    assert (arm["users"], arm["lists"], arm["lists_accepted"]) == (11, 39, 29)
    assert arm["per_user"] == mean_per_user([1.0] + [0.0] * 10)
    assert arm["per_user"]["mean"] == pytest.approx(1 / 11)
    assert arm["per_user"]["high"] < 0.6


def test_results_are_those_of_all_lists_in_memory(tmp_path: Path) -> None:
    """Compare what is read user by user with plain counting over everything."""
    rng = np.random.default_rng(0)
    store = Store(sqlite_url(tmp_path))
    shown, events = [], []
    for n in range(120):
        user = int(rng.integers(12))
        owner = f"u{user}" if user % 3 else None
        session = None if owner else f"s{user}"
        arm = f"a{user % 2}"
        fallback = bool(rng.random() < 0.2)
        shown.append(
            ShownList(
                f"l{n}", float(n), owner, session, None, "r", arm, fallback, ("i1", "i2"), "e"
            )
        )
        for behavior in ("buy", "view"):
            if rng.random() < 0.4:
                item = Interaction(str(rng.choice(["i1", "i2", "i3"])), behavior, 1.0)
                events.append(Event(item, owner, session, list_id=f"l{n}"))
    store.add_lists(shown)
    store.add_events(events)
    taken = {
        (e.list_id, e.interaction.behavior) for e in events if e.interaction.item_id != "i3"
    }  # i3 was not in the lists
    found = results(experiment(weights=(1, 1), window_hours=1e6), outcomes(store, "e", 0.0), 1e12)
    store.close()
    for arm in found["arms"]:
        mine = [one for one in shown if one.arm == arm["arm"]]
        users = {one.user_id or one.session_id for one in mine}
        assert (arm["users"], arm["lists"]) == (len(users), len(mine))
        assert arm["fallbacks"] == sum(one.fallback for one in mine)
        for behavior in ("buy", "view"):
            shares = []
            for who in users:
                lists = [one for one in mine if who in {one.user_id, one.session_id}]
                accepted = [(one.list_id, behavior) in taken for one in lists]
                shares.append(sum(accepted) / len(accepted))
            apart = arm["behaviors"][behavior]
            assert apart["lists"] == sum((one.list_id, behavior) in taken for one in mine)
            assert apart["users"] == sum(share > 0 for share in shares)
            assert apart["per_user"]["mean"] == pytest.approx(np.mean(shares))
            if behavior == "buy":
                assert arm["per_user"] == pytest.approx(mean_per_user(shares))
                assert arm["lists_accepted"] == apart["lists"]
    assert found["complete_users"] == sum(arm["users"] for arm in found["arms"])


def test_the_interval_of_a_mean_is_never_empty() -> None:
    assert mean_per_user([]) == {"mean": None, "low": None, "high": None}
    none = mean_per_user([0.0] * 50)
    assert none["mean"] == none["low"] == 0
    assert none["high"] is not None
    assert 0.05 < none["high"] < 0.15
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        found = mean_per_user(rng.random(40) < 0.1)
        assert found["low"] is not None
        assert found["high"] is not None
        inside += found["low"] <= 0.1 <= found["high"]
    assert inside >= 0.92 * 300


def test_a_store_of_an_earlier_version_gets_the_new_columns(tmp_path: Path) -> None:
    Store(sqlite_url(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as plain:
        plain.execute("ALTER TABLE lists DROP COLUMN experiment")
        plain.execute("DROP TABLE experiments")
        plain.commit()
    store = Store(sqlite_url(tmp_path))
    shown = ShownList("l", 1.0, "u", None, None, "run", "a0", False, ("a",), "e")
    store.add_lists([shown])
    assert [one.list_id for one in outcomes(store, "e", 0.0)] == ["l"]
    assert store.experiments() == {}
    store.close()


def test_draws_are_recorded_with_their_propensities(client: TestClient) -> None:
    drawn = [recommend(client, user_id="u1", k=3, search="sample", per_group=1) for _ in range(12)]
    assert len({tuple(ids(answer)) for answer in drawn}) > 1  # another list each time
    typed = recommend(client, history="", k=2, search="sample", diversity=0.5)
    best = recommend(client, user_id="u1", k=3)
    assert "propensity" not in best["recommendations"][0]
    rows = [json.loads(line) for line in client.get("/v1/export").text.splitlines()]
    shown = {r["list_id"]: r for r in rows if r["table"] == "lists"}
    places: dict[str, list[float]] = {}
    for row in rows:
        if row["table"] == "impressions":
            places.setdefault(row["list_id"], []).append(row["propensity"])
    alone = served.recommender(served.made_shop(), search="sample")
    history = alone.history("u1")
    for answer in drawn:
        stated = [r["propensity"] for r in answer["recommendations"]]
        assert places[answer["list_id"]] == stated
        assert stated == pytest.approx(
            alone.propensities(history, ids(answer), per_group=1), abs=1e-4
        )
        assert json.loads(shown[answer["list_id"]]["options"]) == {"k": 3, "per_group": 1}
    for answer in (typed, best):
        assert set(places[answer["list_id"]]) == {None}
        assert shown[answer["list_id"]]["options"] is None
    counted = recommend(client, user_id="u1", k=2, search="sample", counting=True)
    assert counted["parts"] == ["prior"]
    assert all(r["propensity"] > 0 for r in counted["recommendations"])
    rails = client.post(
        "/v1/recommend",
        json={"user_id": "u1", "k": 2, "search": "sample", "shows": ["new", "again"]},
    ).json()["rails"]
    assert all(r["propensity"] > 0 for rail in rails.values() for r in rail["recommendations"])


def test_an_arm_can_draw_by_counting_alone_and_knows_new_items(client: TestClient) -> None:
    arms = [{"name": "counts", "model_role": "explain", "search": "sample"}, {"name": "model"}]
    put(client, "draws", {"arms": arms})
    answers = [recommend(client, user_id=f"u{n}", k=2) for n in range(12)]
    for answer in answers:
        drawn = answer["arm"] == "counts"
        assert ("propensity" in answer["recommendations"][0]) is drawn
        assert (answer["parts"] == ["prior"]) is drawn
    client.put("/v1/items/n1", json={"title": "green mug"})
    client.delete("/v1/items/i1")
    body = {"k": 50, "search": "sample", "per_group": 0, "impression": False, "run": "tiny"}
    found = set(ids(recommend(client, history="", **body)))
    assert "n1" in found
    assert "i1" not in found
    engine = service_of(client).shop.engines["tiny"]
    assert len(engine.all) == 4
    assert len({id(each.prior) for each in engine.all}) == 1  # new events count in all of them
