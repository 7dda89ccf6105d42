"""How much a prior counts, fitted on validation: against searches, and what is kept of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.commands import Run, answer
from support.counted_shop import NAMES, catalog, counted, history, sequences, shop

from genrec import Catalog, Dataset, Item, Recommender
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.errors import DataError, RequestError, SettingsError
from genrec.evaluation import scoring_pass, tuning
from genrec.priors import fusion as fusing
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.priors.tuned import WEIGHTS, Tuned


@given(
    sequences,
    st.lists(st.integers(0, len(NAMES) - 1), max_size=3),
    st.integers(0, len(NAMES) - 1),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.sampled_from([0.5, 1.0]),
)
def test_a_scoring_pass_knows_what_any_search_would_find(
    events: list[list[int]], rows: list[int], target: int, beta: float, a: float
) -> None:
    base = Recommender(catalog(), tiny.language_model(), exclude_seen=False, encoder="none")
    base.prior = counted(events)
    found = scoring_pass.score_user(base, history(*rows), f"i{target}")
    assert found.rows[0] == target
    assert sorted(found.rows.tolist()) == list(range(len(NAMES)))  # few enough for all
    for weight, fusion in ((0.0, "node"), (beta, "node"), (beta, "score")):
        made = base.with_settings(prior_weight=weight, node_temperature=1 / a, fusion=fusion)
        wanted = {int(r.item_id[1:]): r for r in made.score(history(*rows))}
        node = weight if fusion == "node" else 0.0
        values = found.logprobs(a, node) + (weight - node) * found.prior
        assert values == pytest.approx([wanted[r].score for r in found.rows.tolist()], abs=2e-4)
        if weight:
            prior = [wanted[r].logprob_prior for r in found.rows.tolist()]
            assert found.prior == pytest.approx(prior, abs=1e-9)


def passes(data: Dataset, users: int = 12) -> tuple[Recommender, list[scoring_pass.ScoringPass]]:
    ours = Recommender(data, tiny.language_model(), prior="collaborative", encoder="none")
    cases = protocols.cases(data, "last-unit", "validation")[:users]
    return ours, [scoring_pass.score_user(ours, c.history, c.target) for c in cases]


def cost(each: list[scoring_pass.ScoringPass], a: float, b: float) -> float:
    """What moving away from the embedded sample's numbers costs beside nats: user by user."""
    usual = np.array([1 / fusing.TEMPERATURES["node"], WEIGHTS["node"]])
    bend = np.zeros((2, 2))
    for one in each:
        bounds = [*one.start.tolist(), len(one.logits)]
        for choice in one.path()[0].tolist():
            part = slice(bounds[choice], bounds[choice + 1])
            both = np.stack([one.logits[part], one.mass[part]], axis=1)
            share = np.exp(both @ usual - np.logaddexp.reduce(both @ usual))
            bend += np.cov(both, rowvar=False, aweights=share, bias=True) if len(share) > 1 else 0
    moved = np.array([a, b]) - usual
    return float(tuning._SAMPLE_USERS / len(each) ** 2 * moved @ bend @ moved / 2)


@pytest.mark.parametrize("before", [0, 20])
def test_what_is_fitted_is_the_best(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_SAMPLE_USERS", before)
    ours, each = passes(load("zh_mini"))
    a, b, nats = tuning.fit_node(each)

    def mean(a: float, b: float) -> float:
        return float(np.mean([-e.logprobs(a, b)[0] for e in each]))

    assert nats == pytest.approx(mean(a, b), abs=1e-6)
    least = nats + cost(each, a, b)
    assert bool(cost(each, a, b)) == bool(before)
    for more in (0.8, 1.25):
        near = max(a * more, 0.011)  # a temperature has a limit
        assert least <= mean(near, b) + cost(each, near, b) + 1e-5
        assert least <= mean(a, b * more) + cost(each, a, b * more) + 1e-5
    found = tuning.fit_fusion(ours, each)
    assert least <= mean(1.0, 0.0) + cost(each, 1.0, 0.0)
    halves = (each[::2], each[1::2])
    crosswise = [
        -e.logprobs(*tuning.fit_node(one)[:2])[0]
        for one, two in (halves, halves[::-1])
        for e in two
    ]
    assert found.nats["node"] == pytest.approx(np.mean(crosswise), abs=1e-4)
    values = [
        tuning.ndcg(two, tuning.fused_scores(one, two)["score"])
        for one, two in (halves, halves[::-1])
    ]
    assert found.ndcg["score"] == pytest.approx(np.concatenate(values).mean(), abs=1e-4)
    assert found.fusion == "node"  # too few users for another
    monkeypatch.setattr(tuning, "_ENOUGH", len(each))
    chosen = "score" if found.ndcg["score"] > found.ndcg["node"] else "node"
    assert tuning.fit_fusion(ours, each).fusion == chosen
    assert set(found.ndcg) == {"model", "prior", "power", "feature", "node", "score"}
    without = [
        -e.logprobs(0.0, tuning.fit_node(one, with_model=False)[1])[0]
        for one, two in (halves, halves[::-1])
        for e in two
    ]
    assert found.nats["power"] == pytest.approx(np.mean(without), abs=1e-4)
    assert found.nats["prior"] == pytest.approx(np.mean([-e.prior[0] for e in each]), abs=1e-4)


def noisy(each: scoring_pass.ScoringPass, seed: int, *, knows: float) -> scoring_pass.ScoringPass:
    """Replace the model's logits by noise, and raise those on the path to the target."""
    logits = np.random.default_rng(seed).normal(size=len(each.logits))
    logits[each.path()[1]] += knows
    return replace(each, logits=logits)


def test_the_model_ranks_only_if_this_is_shown_to_help(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, each = passes(load("zh_mini"))
    roles = {}
    for knows in (0.0, 4.0):
        changed = [noisy(e, n, knows=knows) for n in range(6) for e in each]
        assert len(changed) >= 50
        roles[knows] = tuning.fit_fusion(ours, changed).role
        assert tuning.fit_fusion(ours, changed[:49]).role == "auto"
    assert roles == {0.0: "explain", 4.0: "fuse"}


def test_a_few_users_do_not_say_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    _, each = passes(load("zh_mini"), 1)
    usual = np.array([1 / fusing.TEMPERATURES["node"], WEIGHTS["node"]])
    moved = np.abs(np.array(tuning.fit_node(each)[:2]) - usual)
    monkeypatch.setattr(tuning, "_SAMPLE_USERS", 0)
    alone = np.abs(np.array(tuning.fit_node(each)[:2]) - usual)
    assert (moved <= alone + 1e-9).all()
    assert moved[1] < 0.3 < alone[1]


def test_nothing_of_test_is_looked_at() -> None:
    before = [[0, 1, 2, 3], [0, 1, 2, 5], [1, 2, 3, 0], [2, 1, 0, 6]]
    splits = [["train"] * 3 + ["validation", "test"]] * 4
    found = []
    for last in (0, 6):
        data = shop([[*e, last] for e in before], splits)
        ours = Recommender(data, tiny.language_model(), prior_events="train+validation")
        found.append(tuning.tune(ours, users=None))
    assert found[0] == found[1]
    assert found[0].users == 4


def test_without_validation_the_last_of_train_are_fitted_on() -> None:
    before = [[0, 1, 2, 3], [0, 1, 2, 5], [1, 2, 3, 0], [2, 1, 0, 6]]
    data = shop([*before], [["train"] * 4] * 4)
    held = shop([*before], [["train"] * 3 + ["validation"]] * 4)
    found = [tuning.tune(Recommender(d, tiny.language_model()), users=None) for d in (data, held)]
    assert found[0] == found[1]
    assert found[0].users == 4


def test_mistakes_are_said() -> None:
    bare = Recommender(catalog(), tiny.language_model())
    with pytest.raises(SettingsError, match="there is no dataset"):
        tuning.tune(bare)
    ours = Recommender(shop([[0, 1, 2], [1, 2, 3]]), tiny.language_model(), prior="none")
    ours.remove_items(["i6"])
    with pytest.raises(RequestError, match="has been edited"):
        tuning.tune(ours)


def test_what_was_found_is_used(run: Run, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "shop"
    load("zh_mini").save(data)
    shared = ("--model", model, "--users", 6)
    value = answer(run, "tune", data, *shared)
    assert value["out"] == str(data / "tuned.json")
    assert value["users"] == 6
    given = ("--user", "u01", "--model", model, "-k", 3)
    first = answer(run, "recommend", data, *given)
    fused = first["prior"]
    fusion = value["fusion"]
    assert fused["fusion"] == fusion
    assert fused["weight"] == value["weights"][fusion]
    assert fused["temperature"] == value["temperatures"][fusion]
    assert fused["fitted"] == "6 users held out"
    assert first["parts"] == ["model", "prior"]
    other = answer(run, "recommend", data, *given, "--fusion", "node")["prior"]
    assert (other["weight"], other["fusion"]) == (value["weights"]["node"], "node")
    own = answer(run, "recommend", data, *given, "--prior-weight", 0.5)["prior"]
    assert (own["weight"], own["temperature"]) == (0.5, 1.0)
    plain = answer(run, "recommend", data, *given, "--prior", "none")
    assert "prior" not in plain
    assert plain["parts"] == ["model"]
    elsewhere = tmp_path / "found.json"
    code, _, said = run("tune", data, *shared, "--out", tmp_path)
    assert (code, "is a folder, not a file" in said) == (2, True)
    code, out, _ = run("tune", data, *shared, "--out", elsewhere, "--language", "zh")
    assert code == 0
    assert out.splitlines()[0] == "held out\tmodel\tprior\tpower\tfeature\tnode\tscore"
    code, _, err = run("recommend", data, *given, "--tuned", elsewhere)
    assert code == 2
    assert "was not written for this model, prompt and" in err
    answer(run, "recommend", data, *given, "--tuned", elsewhere, "--language", "zh")
    code, _, err = run("recommend", data, *given)
    assert code == 0
    assert "The model (node temperature" in err
    (data / "tuned.json").write_text('{"tuned": [{}]}')
    code, _, err = run("recommend", data, *given)
    assert code == 3
    assert "run `genrec tune` again" in err


def test_a_run_keeps_its_own(run: Run, model: Path, tmp_path: Path) -> None:
    data, one = tmp_path / "shop", tmp_path / "one"
    load("zh_mini").save(data)
    few = ("--max-targets", 40, "--eval-users", 0, "--tune-users", 0, "--language", "zh",
           "--device", "cpu")  # fmt: skip
    code, _, err = run("train", data, "--out", one, "--model", model, *few)
    assert code == 0, err
    asked = ("recommend", data, "--run", one, "--user", "u01", "-k", 3)
    assert answer(run, *asked)["parts"] == ["model"]
    value = answer(run, "tune", data, "--run", one, "--users", 6)
    assert value["out"] == str(one / "tuned.json")
    assert not (data / "tuned.json").exists()
    fused = answer(run, *asked)
    assert fused["parts"] == ["model", "prior"]
    assert fused["prior"]["weight"] == value["weights"][value["fusion"]]
    # Without the data, the prior that was kept counts as it did.
    whole, alone = Recommender.load(one, Dataset.load(data)), Recommender.load(one)
    past = whole.history("u01")
    wanted = [(r.item_id, r.score, r.logprob_prior) for r in whole.recommend(past, 5)]
    names, numbers = [w[0] for w in wanted], [w[1:] for w in wanted]
    for other in (alone, alone.with_settings(seed=3)):
        found = other.recommend(past, 5)
        assert found.to_dict()["parts"] == ["model", "prior"]
        assert [r.item_id for r in found] == names
        assert [(r.score, r.logprob_prior) for r in found] == [pytest.approx(n) for n in numbers]
    assert alone.with_settings(prior="none").prior is None
    # What it learned from train is not to be fitted on.
    events = whole.dataset.interactions  # type: ignore[union-attr]
    train = replace(Dataset.load(data), interactions=events.with_split(0 * events.columns.split))
    with pytest.raises(RequestError, match="in validation that fits protocol"):
        tuning.tune(Recommender.load(one, train))
    assert tuning.tune(Recommender(train, str(model)), users=2).users == 2
    items = list(whole.catalog)
    more = Recommender.load(one, Catalog([*items, Item("new", "全新的杯子")]))
    assert more.prior is not None
    assert {r.item_id for r in more.score(past)} == {i.item_id for i in items} | {"new"}
    said: list[str] = []
    less = Recommender.load(one, Catalog(items[1:]), log=said.append)
    assert less.prior is None
    assert "not used" in " ".join(said)
    # Another run on the same data, such as one fitted on validation too, can take it.
    code, _, err = run(
        "train", data, "--out", tmp_path / "two", "--model", model, "--fit", "both", *few
    )
    assert code == 0, err
    two = ("recommend", data, "--run", tmp_path / "two", "--user", "u01", "-k", 3)
    assert answer(run, *two)["parts"] == ["model"]
    assert answer(run, *two, "--tuned", one / "tuned.json")["prior"] == fused["prior"]


def test_the_sources_of_the_prior_are_a_setting(run: Run, model: Path, tmp_path: Path) -> None:
    data, one = tmp_path / "shop", tmp_path / "one"
    load("zh_mini").save(data)
    asked = ("recommend", data, "--model", model, "--user", "u01", "--language", "zh")
    plain = answer(run, *asked)
    mixed = answer(run, *asked, "--prior-sources", "popular,itemknn, userknn")
    assert {"popular"} < set(mixed["prior"]["counted"]) <= {"popular", "itemknn", "userknn"}
    assert set(plain["prior"]["counted"]) <= set(COUNTED)
    assert any((data / "baselines").glob("userknn-*.safetensors"))
    code, _, err = run(*asked, "--prior-sources", "popular,easy")
    assert code == SettingsError.exit_code
    assert "'easy' is not known" in err
    dataset = Dataset.load(data)
    default = Recommender(dataset, tiny.language_model())
    other = default.with_settings(prior_sources="content")
    assert default.tuning_key() != other.tuning_key()
    assert default.tuning_key() == default.with_settings(prior_sources="auto").tuning_key()
    assert isinstance(other.prior, CollaborativePrior)
    assert set(other.prior.mix) == {"popular", "content"}
    # What is learned needs the data: a run that is loaded without has no prior then.
    few = ("--max-targets", 40, "--eval-users", 0, "--tune-users", 0, "--language", "zh",
           "--device", "cpu")  # fmt: skip
    code, _, err = run("train", data, "--out", one, "--model", model, *few)
    assert code == 0, err
    answer(run, "tune", data, "--run", one, "--users", 6, "--prior-sources", "itemknn,userknn")
    said: list[str] = []
    assert Recommender.load(one, log=said.append).prior is None
    assert "need the dataset" in " ".join(said)


def test_the_key_is_that_of_version_0_1() -> None:
    ours = Recommender(catalog(), tiny.language_model(), encoder="none")
    made_of = [ours.model.fingerprint(), ours.template.hash, ours.encoder.hash, "buy", "0"]
    made_of += ["popular", "trending", "markov", "followed", "itemknn", "nearest", "latest"]
    made_of += ["ease", "titles", "own", "recent"]
    assert ours.behavior == "buy"
    assert ours.tuning_key() == sha256("\0".join(made_of).encode()).hexdigest()


def test_a_file_from_before_a_field_was_added_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"node": 1.0, "score": 2.0}
    path = tmp_path / "tuned.json"
    Tuned("a", "x", "node", values, values, 5, {"model": 1.0}, {"model": 0.5}).save(path)

    @dataclass(frozen=True)
    class Fitted(Tuned):
        further: int = 3

    monkeypatch.setattr("genrec.priors.tuned.Tuned", Fitted)
    found = Fitted.load(path, "a")
    assert isinstance(found, Fitted)
    assert (found.users, found.further) == (5, 3)


def test_a_file_keeps_what_was_found_for_other_models(tmp_path: Path) -> None:
    values = {"node": 1.0, "score": 2.0}
    one = Tuned("a", "x", "node", values, values, 5, {"model": 1.0}, {"model": 0.5})
    two = replace(one, key="b", users=9)
    path = tmp_path / "tuned.json"
    for each in (one, two, replace(one, users=7)):
        each.save(path)
    assert Tuned.load(path, "a") == replace(one, users=7)
    assert Tuned.load(path, "b") == two
    assert Tuned.load(path, "c") is Tuned.load(tmp_path / "none.json", "a") is None
    assert len(json.loads(path.read_text())["tuned"]) == 2
    path.write_text("[]")
    with pytest.raises(DataError, match="is damaged"):
        Tuned.load(path, "a")


def test_settings_go_before_what_was_fitted() -> None:
    values = {"node": 3.0, "score": 4.0}
    tuned = Tuned("a", "x", "node", values, {"node": 5.0, "score": 6.0}, 5, {}, {})
    settings = Recommender(catalog(), tiny.language_model()).settings

    def chosen(**changes: object) -> tuple[str, float, float]:
        made = fusing.resolve_fusion(replace(settings, **changes), "collaborative", tuned)  # type: ignore[arg-type]
        return made.fusion, made.weight, made.temperature

    assert chosen() == ("node", 3.0, 5.0)
    assert chosen(fusion="score") == ("score", 4.0, 6.0)
    assert chosen(prior_weight=0.5) == ("node", 0.5, 1.0)
    assert chosen(node_temperature=2.0) == ("node", 3.0, 2.0)
    assert chosen(normalization="vocab") == ("score", 4.0, 1.0)
    assert chosen(search="sample") == ("node", 3.0, 5.0)
    fused = fusing.resolve_fusion(settings, "collaborative")
    assert fused.weight == WEIGHTS[fusing.FUSION]
    few = fusing.resolve_fusion(settings, "collaborative", events=100)
    assert few.weight == pytest.approx(fused.weight / 10)
    assert few.temperature == pytest.approx(fused.temperature**0.1)
    assert fusing.resolve_fusion(settings, "popularity").weight == 0.3
    assert fusing.resolve_fusion(settings, "none").temperature == 1.0
