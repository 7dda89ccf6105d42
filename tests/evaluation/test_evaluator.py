from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import tiny, tiny_runs
from support.scripted_model import Scripted

from genrec import Dataset, History, Recommender
from genrec.baselines import registry
from genrec.baselines.counting import Popular
from genrec.config import Settings
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, RequestError, SettingsError
from genrec.evaluation import evaluator, metrics
from genrec.evaluation.systems import RecommenderSystem, slug
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.fusion import Fusion
from genrec.priors.weights import Weights
from genrec.reports.evaluation_report import remarks
from genrec.training.trainer import train


def test_demo_v1_has_the_counts_that_it_is_known_by(demo_data: Dataset) -> None:
    cases = evaluator.demo_v1(demo_data)
    assert len(cases) == 887
    assert max(len(c.history) for c in cases) == 25
    assert min(len(c.history) for c in cases) == 5
    assert all(i.behavior == "buy" for c in cases for i in c.history.interactions)
    assert all(c.basket[0] == c.target for c in cases)
    events = demo_data.interactions
    earlier = [
        {
            i.item_id
            for i in events.history(c.user_id, before="test").interactions
            if i.behavior == "buy"
        }
        for c in cases
    ]
    repeats = sum(c.target in e for c, e in zip(cases, earlier, strict=True))
    assert repeats / len(cases) == pytest.approx(0.33, abs=0.005)
    columns = events.columns
    bought = columns.behavior == events.behaviors.index("buy")
    users = [len(set(columns.unit[events.events(c.user_id)][
        bought[events.events(c.user_id)]].tolist())) for c in cases]  # fmt: skip
    assert users.count(2) == 326
    several = [u for u in events.user_ids if events.targets(u, "test", "buy")]
    inside = [events.events(u) for u in several]
    train = sum(int((bought[w] & (columns.split[w] == 0)).sum()) for w in inside)
    both = sum(int((bought[w] & (columns.split[w] < 2)).sum()) for w in inside)
    assert (train, both) == (21974, 38091)


def test_demo_v1_never_shows_the_target_basket(demo_data: Dataset) -> None:
    for case in evaluator.demo_v1(demo_data):
        units = {i.unit for i in case.history.interactions}
        (unit,) = {t.unit for t in demo_data.interactions.targets(case.user_id, "test", "buy")}
        assert unit not in units


def test_validation_cases_see_train_only(demo_data: Dataset) -> None:
    cases = evaluator.demo_v1(demo_data, "validation")
    assert 400 < len(cases) < 887
    for case in cases[:50]:
        train = demo_data.interactions.history(case.user_id, before="validation").interactions
        bought = [i.item_id for i in train if i.behavior == "buy"]
        assert list(case.history.item_ids) == bought[-25:]


def test_last_out_shows_every_behavior_before_the_last_purchase() -> None:
    data = load("zh_mini")
    cases = evaluator.last_out(data)
    assert len(cases) == 60
    assert {i.behavior for c in cases for i in c.history.interactions} > {"buy", "read", "search"}
    for case in cases:
        history = data.interactions.history(case.user_id)
        assert case.history == History(history.interactions[:-1], case.user_id)
        assert case.basket == (case.target,) == (history.interactions[-1].item_id,)


def test_popular_counts_what_it_may(demo_data: Dataset) -> None:
    popular = Popular(demo_data.interactions, "buy")
    table = demo_data.interactions.to_table().to_pylist()
    counts: dict[str, int] = {}
    for row in table:
        if row["behavior"] == "buy" and row["split"] != "test":
            counts[row["item_id"]] = counts.get(row["item_id"], 0) + 1
    best = [counts[i] for i in popular.rank(History(), 10)]
    assert best == sorted(counts.values(), reverse=True)[:10]
    assert sorted(popular.order) == sorted(i.item_id for i in demo_data.catalog)


def test_samples_are_the_same_every_time(demo_data: Dataset) -> None:
    cases = evaluator.demo_v1(demo_data)
    one = [c.user_id for c in evaluator.sample(cases, 40)]
    assert one == [c.user_id for c in evaluator.sample(cases, 40)]
    assert one == [c.user_id for c in cases if c.user_id in set(one)]
    assert len(one) == 40
    assert one != [c.user_id for c in evaluator.sample(cases, 40, seed=1)]
    assert evaluator.sample(cases, None) == cases


def test_a_killed_run_goes_on_where_it_was(demo_data: Dataset, tmp_path: Path) -> None:
    cases = evaluator.demo_v1(demo_data)[:6]
    popular = Popular(demo_data.interactions, "buy")
    log = tmp_path / "new" / "log.jsonl"
    asked: list[str | None] = []

    def rank(history: History) -> Sequence[str]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(history.user_id)
        return popular.rank(history, 3)

    with pytest.raises(KeyboardInterrupt):
        evaluator.run("p", rank, cases, log_path=log, key="k")
    with log.open("a") as stream:
        stream.write('{"system": "p", "key": "k", "user_')  # a line cut off by kill -9
    asked.clear()
    result = evaluator.run("p", rank, cases, log_path=log, key="k")
    assert asked == [c.user_id for c in cases[3:]]
    assert [json.loads(line)["user_id"] for line in log.read_text().splitlines()] == [
        c.user_id for c in cases
    ]
    assert result.ranked == [popular.rank(c.history, 3) for c in cases]
    with pytest.raises(DataError, match="was written for system 'p'"):
        evaluator.run("p", rank, cases, log_path=log, key="other")


def test_results_compare_per_user(demo_data: Dataset) -> None:
    cases = evaluator.demo_v1(demo_data)[:50]
    perfect = evaluator.run("oracle", lambda h: [], cases)
    oracle = evaluator.Result("oracle", cases, [[c.target] for c in cases])
    assert oracle.mean("hit_rate@10").mean == 1.0
    assert oracle.minus(perfect, "ndcg@10").low == 1.0
    assert oracle.per_user("recall@10") == pytest.approx([1 / len(set(c.basket)) for c in cases])


@pytest.fixture(scope="module")
def zh_data() -> Dataset:
    return load("zh_mini")


@pytest.fixture(scope="module")
def zh_recommender(zh_data: Dataset) -> Recommender:
    return Recommender(zh_data, tiny.language_model())


def made(rows: list[tuple[str, str, int, str]], items: str = "abcdefgh") -> Dataset:
    """A dataset of (user, item, time, split) rows."""
    names = ("user_id", "item_id", "timestamp", "split")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    events = pa.table({**columns, "behavior": ["buy"] * len(rows)})
    catalog = pa.table({"item_id": list(items), "title": [f"title {i}" for i in items]})
    return Dataset.from_tables(catalog, events, name="made", rejects=[Rejects("i"), Rejects("e")])


def test_last_unit_shows_all_before_the_last_unit(demo_data: Dataset) -> None:
    cases = protocols.last_unit(demo_data)
    assert len(cases) >= 887
    for case in cases[:40]:
        assert case.history == demo_data.interactions.history(case.user_id, before="test")
        targets = demo_data.interactions.targets(case.user_id, "test", "buy")
        assert case.basket == tuple(t.item_id for t in targets)


def test_given_windows_have_their_last_unit_out() -> None:
    rows = [("w", item, time, "test") for time, item in enumerate("abc")]
    rows += [("u", "a", 0, "train"), ("u", "b", 1, "test"), ("u", "c", 2, "test")]
    rows += [("one", "a", 0, "test")]
    dataset = made(rows)
    cases = {c.user_id: c for c in protocols.cases(dataset, "given")}
    assert cases["w"].history.item_ids == ("a", "b")
    assert cases["w"].target == "c"
    assert cases["u"].history.item_ids == ("a",)
    assert cases["u"].target == "b"
    assert "one" not in cases
    assert protocols.default_protocol(dataset) == "given"


def test_protocols_split_anew_where_they_must(demo_data: Dataset) -> None:
    assert protocols.apply_protocol(demo_data, "last-unit") is demo_data
    by_time = protocols.apply_protocol(demo_data, "global-time")
    assert by_time.info.split == "global time"
    begin = by_time.interactions.columns.timestamp[by_time.interactions.columns.split == 2].min()
    cases = protocols.cases(demo_data, "global-time")
    assert all(i.timestamp < begin for c in cases[:50] for i in c.history.interactions)
    with pytest.raises(DataError, match="Prepare interactions with a split column"):
        protocols.apply_protocol(demo_data, "given")
    with pytest.raises(RequestError, match="Unknown value protocol='x'"):
        protocols.apply_protocol(demo_data, "x")


def test_candidates_hold_the_target_and_nothing_known(zh_data: Dataset) -> None:
    cases = protocols.cases(zh_data, "candidates-20")
    again = protocols.cases(zh_data, "candidates-20")
    for case, same in zip(cases, again, strict=True):
        assert case.candidates == same.candidates
        assert case.candidates is not None
        assert len(set(case.candidates)) == 20
        assert case.target in case.candidates
        assert not set(case.candidates) & set(case.history.item_ids)
    own = {c.user_id: ["x001", c.target] for c in cases}
    with pytest.raises(RequestError, match="'x001' is not in the catalog"):
        protocols.cases(zh_data, "candidates-20", candidates=own)
    with pytest.raises(RequestError, match="lack the target"):
        protocols.cases(zh_data, "candidates-20", candidates={})


def test_evaluate_is_what_the_lists_say(zh_data: Dataset, zh_recommender: Recommender) -> None:
    found = evaluator.evaluate(zh_data, [zh_recommender, "popular"], users=12)
    ours, popular = found.results
    assert [r.name for r in found.results] == ["tiny-llama + prior", "popular"]
    cases = evaluator.sample(protocols.cases(zh_data, "last-unit"), 12)
    assert [c.user_id for c in ours.cases] == [c.user_id for c in cases]
    plain = registry.fit("popular", zh_data, before="validation")
    counting_train = zh_recommender.with_settings(prior_events="train")
    for case, mine, theirs in zip(cases, ours.ranked, popular.ranked, strict=True):
        answer = counting_train.recommend(case.history, 20)
        assert list(mine) == [r.item_id for r in answer]
        rule = zh_recommender.exclude_seen
        assert list(theirs) == list(plain.rank(case.history, 20, exclude_seen=rule))
    for result in found.results:
        ranks = [metrics.rank_of(c.target, r) for c, r in zip(cases, result.ranked, strict=True)]
        assert result.per_user("ndcg@5").tolist() == metrics.ndcg(ranks, 5).tolist()
        assert result.per_user("hit_rate@7").tolist() == metrics.hit_rate(ranks, 7).tolist()
        assert not result.per_user("invalid").any()
    values = [counting_train.score(c.history, [c.target])[0].logprob or 0.0 for c in cases]
    assert ours.per_user("nats") == pytest.approx(-np.array(values))
    assert "nats" not in popular.values
    assert ours.reliability is not None
    assert ours.reliability.count.sum() == 120


def test_the_json_of_an_evaluation(zh_data: Dataset, zh_recommender: Recommender) -> None:
    value = evaluator.evaluate(zh_data, [zh_recommender, "popular"], users=6).to_dict()
    json.dumps(value, allow_nan=False)
    assert (value["schema_version"], value["protocol"], value["users"]) == (1, "last-unit", 6)
    assert list(value["systems"]) == ["tiny-llama + prior", "popular"]
    assert {"nats", "hit_rate@10", "ndcg@10", "mrr@5", "recall@20"} <= set(
        value["systems"]["tiny-llama + prior"]
    )
    for system in value["systems"].values():
        for interval in system.values():
            assert set(interval) == {"mean", "low", "high"}
            assert interval["low"] <= interval["mean"] + 1e-9
            assert interval["mean"] <= interval["high"] + 1e-9
    assert set(value["whole"]["popular"]) == {"coverage@10", "gini@10"}
    assert {c["metric"] for c in value["comparisons"]} == {"ndcg@10"}
    assert value["slices"]
    for labels in value["slices"].values():
        assert sum(label["users"] for label in labels.values()) == 6
        assert all(set(label) == {"users", "systems", "comparisons"} for label in labels.values())


def test_nats_need_a_distribution_over_items(zh_data: Dataset) -> None:
    plain = Recommender(zh_data, tiny.language_model(), normalization="vocab")
    found = evaluator.evaluate(zh_data, [plain], users=2)
    assert "nats" not in found.results[0].values
    assert found.results[0].reliability is None


def test_the_seen_rule_is_that_of_recommend(zh_data: Dataset) -> None:
    keeps = Recommender(zh_data, tiny.language_model(), exclude_seen=False)
    found = evaluator.evaluate(zh_data, [keeps, "popular"], users=4)
    assert not found.exclude_seen
    with pytest.raises(RequestError, match="Expected the same value everywhere"):
        evaluator.evaluate(zh_data, [keeps], exclude_seen=True)
    without = evaluator.evaluate(zh_data, ["popular"], exclude_seen=True)
    for case, ranked in zip(without.cases, without.results[0].ranked, strict=True):
        assert not set(ranked) & set(case.history.item_ids)
    assert not without.results[0].per_user("invalid").any()


def test_the_prior_alone_is_a_system(zh_data: Dataset) -> None:
    one = Recommender(
        zh_data, tiny.language_model(), prior="collaborative", prior_sources="popular,own"
    )
    found = evaluator.evaluate(zh_data, [one, "prior", "popular"], users=8)
    prior = CollaborativePrior.fit(zh_data, sources=("popular", "own"))
    lists, nats = found.results[1].ranked, found.results[1].per_user("nats").tolist()
    for case, ranked, n in zip(found.cases, lists, nats, strict=True):
        assert list(ranked) == prior.rank(case.history, 20, exclude_seen=found.exclude_seen)
        assert n == pytest.approx(-prior.logprobs(case.history)[zh_data.catalog.row(case.target)])
    alone = evaluator.evaluate(zh_data, ["prior"], users=8).results[0]
    whole = CollaborativePrior.fit(zh_data)
    assert [list(r) for r in alone.ranked] == [
        whole.rank(c.history, 20, exclude_seen=found.exclude_seen) for c in found.cases
    ]
    twenty = evaluator.evaluate(zh_data, ["prior"], users=4, protocol="candidates-20")
    assert not twenty.results[0].per_user("invalid").any()


class Broken:
    name = "broken"

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        return [history.item_ids[0]] * k if len(history) > 3 else ["?"]


def test_broken_lists_are_counted(zh_data: Dataset) -> None:
    found = evaluator.evaluate(zh_data, [Broken()], exclude_seen=True)
    assert found.results[0].mean("invalid").mean == 1.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_candidates_are_ranked_by_everybody(zh_data: Dataset, zh_recommender: Recommender) -> None:
    found = evaluator.evaluate(
        zh_data, [zh_recommender, "popular"], protocol="candidates-20", users=5
    )
    for result in found.results:
        assert not result.per_user("invalid").any()
        for case, ranked in zip(found.cases, result.ranked, strict=True):
            assert len(ranked) == 10
            assert set(ranked) <= set(case.candidates or ())
    assert found.comparisons[0].metric == "hit_rate@1"


def test_what_cannot_be_evaluated_is_said(zh_data: Dataset) -> None:
    for systems, said in (
        ([], "No systems were given"),
        ([3], "3 cannot be evaluated"),
        (["popular", "popular"], "the same name"),
        ([("a", "popular"), ("a", Popular(zh_data.interactions, "buy"))], "the same name"),
    ):
        with pytest.raises(RequestError, match=said):
            evaluator.evaluate(zh_data, systems)
    with pytest.raises(
        SettingsError, match=r"'best' is not a known system.* textseq, titlesasrec, prior"
    ):
        evaluator.evaluate(zh_data, ["best"])
    with pytest.raises(RequestError, match="would include the targets"):
        evaluator.evaluate(zh_data, ["popular"], split="validation", fit_on="train+validation")
    with pytest.raises(RequestError, match="Unknown value fit_on='all'"):
        evaluator.evaluate(zh_data, ["popular"], fit_on="all")
    with pytest.raises(RequestError, match="Unknown value split='train'"):
        evaluator.evaluate(zh_data, ["popular"], split="train")
    with pytest.raises(RequestError, match="Unknown value metric='loss'"):
        evaluator.evaluate(zh_data, ["popular"]).results[0].per_user("loss")


def test_demonstrations_come_from_the_split_of_the_protocol(zh_data: Dataset) -> None:
    by_time = protocols.apply_protocol(zh_data, "global-time")
    lists = []
    for data in (zh_data, by_time):
        shown = Recommender(data, tiny.language_model(), few_shot=2, prior="none", encoder="none")
        found = evaluator.evaluate(zh_data, [shown], protocol="global-time", users=2)
        lists.append(found.results[0].ranked)
    assert lists[0] == lists[1]


def test_another_behavior_is_evaluated_by_its_own_last_unit(zh_data: Dataset) -> None:
    browsed = protocols.with_target_behavior(zh_data, "browse")
    events = browsed.interactions
    for case in protocols.cases(browsed, "last-unit"):
        assert events.interaction(case.at).behavior == "browse"
    asked = Recommender(zh_data, tiny.language_model(), target_behavior="browse")
    with pytest.raises(
        RequestError, match="predicts 'browse', but the targets have the behavior 'buy'"
    ):
        evaluator.evaluate(zh_data, [asked], users=2)
    assert len(evaluator.evaluate(browsed, [asked], users=2).cases) == 2
    with pytest.raises(DataError, match="No interaction has the behavior 'fly'"):
        protocols.with_target_behavior(zh_data, "fly")
    with pytest.raises(RequestError, match="differs from the catalog of online_retail_demo"):
        evaluator.evaluate(load("online_retail_demo"), [asked])


def test_compare_says_what_can_be_said(zh_data: Dataset) -> None:
    cases = protocols.cases(zh_data, "last-unit")
    good = evaluator.Result("good", cases, [[c.target] for c in cases])
    bad = evaluator.Result("bad", cases, [["?"] for c in cases])
    better = evaluator.compare(good, bad)
    assert better.verdict == "better"
    assert str(better) == (
        "good is better than bad in ndcg@10: difference +1.0000 [+1.0000, +1.0000], 60 users; "
        "fewer than 500 users are too few to support a claim"
    )
    assert evaluator.compare(bad, good).verdict == "worse"
    assert str(evaluator.compare(good, good)).startswith("good is not distinguishable from good")
    low = evaluator.Result("low", cases, bad.ranked, {"nats": np.ones(60)})
    high = evaluator.Result("high", cases, bad.ranked, {"nats": np.full(60, 2.0)})
    assert evaluator.compare(low, high, "nats").verdict == "better"
    with pytest.raises(RequestError, match="different users or targets"):
        evaluator.compare(good, evaluator.Result("few", cases[:5], [[]] * 5))


SLOW = """
import sys, time
from genrec.data.datasets import load
from genrec.evaluation import evaluator

class Slow:
    name = "slow"
    def rank(self, history, k, *, exclude_seen=False):
        with open(sys.argv[2], "a") as stream:
            print(history.user_id, file=stream)
        time.sleep(float(sys.argv[3]))
        return items[int(history.user_id[1:]) :][:k]

data = load("zh_mini")
items = [i.item_id for i in data.catalog]
evaluator.evaluate(data, [Slow()], users=20, exclude_seen=False, out=sys.argv[1])
"""


def test_an_evaluation_goes_on_after_kill_9(tmp_path: Path, zh_data: Dataset) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    asked, out, log = tmp_path / "asked", tmp_path / "out", tmp_path / "out" / "slow.jsonl"

    def start(seconds: float, where: Path = out) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(where), str(asked), str(seconds)]
        return subprocess.Popen(command)

    killed = start(0.2)
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = [json.loads(line)["user_id"] for line in log.read_bytes().split(b"\n")[:-1]]
    assert 4 <= len(kept) < 20
    asked.unlink()
    assert start(0).wait() == 0
    assert len(asked.read_text().splitlines()) == 20 - len(kept)
    assert not set(asked.read_text().splitlines()) & set(kept)
    assert start(0, tmp_path / "whole").wait() == 0
    one, two = (pq.read_table(tmp_path / d / "slow.parquet") for d in ("out", "whole"))
    assert one.drop_columns(["seconds"]).equals(two.drop_columns(["seconds"]))
    assert one.num_rows == 20


def test_a_folder_keeps_values_and_grows(tmp_path: Path, zh_data: Dataset) -> None:
    few = evaluator.evaluate(zh_data, ["popular"], users=10, out=tmp_path)
    more = evaluator.evaluate(zh_data, ["popular"], users=30, out=tmp_path)
    assert {c.user_id for c in few.cases} < {c.user_id for c in more.cases}
    table = pq.read_table(tmp_path / "popular.parquet")
    assert table["user_id"].to_pylist() == [c.user_id for c in more.cases]
    assert table["ndcg@10"].to_pylist() == more.results[0].per_user("ndcg@10").tolist()
    assert table["items"].to_pylist() == [list(r) for r in more.results[0].ranked]
    assert len((tmp_path / "popular.jsonl").read_text().splitlines()) == 30
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["users"] == 30
    with pytest.raises(DataError, match="the data, protocol, model or settings differ"):
        evaluator.evaluate(zh_data, ["popular"], users=10, out=tmp_path, fit_on="train+validation")
    again: dict[str, Any] = evaluator.evaluate(
        zh_data, ["popular"], users=30, out=tmp_path
    ).to_dict()
    assert again == written


# What version 0.1.0 wrote for default settings without an encoder, and for no prior.
SETTINGS_0_1 = (
    "Settings(template=None, language='en', prompts=None, values=False, few_shot=0, "
    "decoder='trie', normalization='catalog', search='auto', max_nodes=20000, "
    "node_temperature=None, prior='none', prior_sources='auto', prior_events='train', "
    "prior_weight=None, fusion='auto', tuned=None, beam_size=None, n_samples=40, temperature=0.7, "
    "encoder='none', match_threshold=None, case=None, max_title_tokens=48, max_events=25, "
    "max_prompt_tokens=2048, target_behavior=None, exclude_seen=None, seed=0)"
)
FUSION_0_1 = (
    "Fusing(prior='none', weight=0.3, fusion='node', temperature=1.0, alone=1.0, fitted='')"
)


def key_0_1(recommender: Recommender) -> str:
    """The key of version 0.1.0 for a recommender without a prior and encoder."""
    made_of = [recommender.model.fingerprint(), recommender.template.hash, recommender.encoder.hash]
    return " ".join([*made_of, SETTINGS_0_1, FUSION_0_1, "''"])


@pytest.fixture(scope="module")
def plain_recommender(zh_data: Dataset) -> Recommender:
    return Recommender(zh_data, tiny.language_model(), prior="none", encoder="none")


def test_keys_outlive_new_class_names_and_new_settings(
    plain_recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RecommenderSystem(plain_recommender, "").key == key_0_1(plain_recommender)

    @dataclass(frozen=True)
    class Options(Settings):
        further: int = 0

    @dataclass(frozen=True)
    class HowThePriorCounts(Fusion):
        further: str = ""

    fusion = HowThePriorCounts(**asdict(plain_recommender.fusing))
    monkeypatch.setattr(Recommender, "fusing", fusion)
    values = asdict(plain_recommender.settings)
    for further, same in ((0, True), (1, False)):
        monkeypatch.setattr(plain_recommender, "settings", Options(**values, further=further))
        key = RecommenderSystem(plain_recommender, "").key
        assert (key == key_0_1(plain_recommender)) is same


def test_a_log_of_version_0_1_goes_on(
    tmp_path: Path, zh_data: Dataset, plain_recommender: Recommender
) -> None:
    first = protocols.sample(protocols.cases(zh_data, "last-unit"), 2)[0]
    run = [protocols.fingerprint(zh_data), "last-unit", "test", 20, True, "0.1.0"]
    lead_in = " ".join(sorted(zh_data.info.lead_in_behaviors))
    key = sha256((json.dumps(run) + lead_in + key_0_1(plain_recommender)).encode()).hexdigest()
    line = {"system": "ours", "key": key[:16], "user_id": first.user_id, "items": [first.target]}
    log = tmp_path / "ours.jsonl"
    log.write_text(json.dumps({**line, "nats": 1.0, "seconds": 0.5}) + "\n")
    found = evaluator.evaluate(
        zh_data, [("ours", plain_recommender)], users=2, exclude_seen=True, out=tmp_path
    )
    assert found["ours"].ranked[0] == [first.target]
    assert len(log.read_text().splitlines()) == 2


class Even:
    """A prior of a user's own, which weights all items alike."""

    def __init__(self, items: int) -> None:
        self.items = items

    def weights(self, history: History) -> Weights:
        return Weights(np.ones(self.items))


@pytest.mark.parametrize(
    ("settings", "name", "prior"),
    [
        ({}, "tiny-llama + prior", "collaborative"),
        ({"prior": "collaborative"}, "tiny-llama + prior", "collaborative"),
        ({"prior": "popularity"}, "tiny-llama + popularity prior", "popularity"),
        ({"prior": "novelty", "fusion": "score"}, "tiny-llama + novelty prior", "novelty"),
        ({"prior": "none"}, "tiny-llama", None),
        ({"normalization": "vocab"}, "tiny-llama", None),  # such a search has no prior
        ({"few_shot": 1}, "tiny-llama 1-shot + prior", "collaborative"),
        ({"own": True}, "tiny-llama + own prior", "own"),
    ],
)
def test_a_name_says_what_is_in_a_system(
    zh_data: Dataset, settings: dict[str, Any], name: str, prior: str | None
) -> None:
    own = settings.pop("own", False)
    ours = Recommender(zh_data, tiny.language_model(), encoder="none", **settings)
    if own:
        ours.prior = Even(len(zh_data.catalog))
    found = evaluator.evaluate(zh_data, [ours, ("best sellers", "popular")], users=1)
    assert [r.name for r in found.results] == [name, "best sellers"]
    value = found.to_dict()
    assert list(value["systems"]) == list(value["setups"]) == [name, "best sellers"]
    assert value["setups"]["best sellers"] == {"baseline": "popular"}
    setup = value["setups"][name]
    assert (setup["model"], setup["run"], setup["decoder"]) == ("tiny-llama", None, "trie")
    said = " ".join(remarks(found))
    if prior is None:
        assert setup["prior"] is None
        assert f"{name} is the model tiny-llama without a prior." in said
    else:
        counting_train = ours.with_settings(prior_events="train")
        assert setup["prior"] == asdict(counting_train.fusing)
        assert setup["prior"]["prior"] == prior
        how = "in the final score" if ours.fusing.fusion == "score" else "at each step of a title"
        assert f"{name} is the model tiny-llama with the {prior} prior (weight " in said
        assert f"combined {how}." in said


def test_the_results_of_a_run_name_its_folder(zh_data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    train(zh_data, folder, str(tiny_runs.saved(tmp_path)), **tiny_runs.FEW)
    ours = Recommender.load(folder, zh_data, prior="none")
    found = evaluator.evaluate(zh_data, [ours], users=1)
    (setup,) = found.to_dict()["setups"].values()
    assert setup["run"] == str(folder)
    assert found.results[0].name.endswith("tuned as mine")


@pytest.mark.parametrize(
    ("settings", "former"), [({}, "tiny-llama"), ({"prior": "none"}, "tiny-llama alone")]
)
def test_a_log_with_a_former_name_goes_on(
    tmp_path: Path, zh_data: Dataset, settings: dict[str, Any], former: str
) -> None:
    ours = Recommender(zh_data, tiny.language_model(), encoder="none", **settings)
    found = evaluator.evaluate(zh_data, [ours], users=3, out=tmp_path)
    new = tmp_path / f"{slug(found.results[0].name)}.jsonl"
    lines = [{**json.loads(line), "system": former} for line in new.read_text().splitlines()]
    lines[0]["items"] = lines[0]["items"][::-1]  # shows that the log is read
    old = tmp_path / f"{slug(former)}.jsonl"
    new.unlink()
    old.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    again = evaluator.evaluate(zh_data, [ours], users=3, out=tmp_path)
    assert list(again.results[0].ranked[0]) == lines[0]["items"]
    assert len(old.read_text().splitlines()) == 3
    assert not new.exists()
    old.write_text(json.dumps({**lines[0], "key": "other"}) + "\n")
    fresh = evaluator.evaluate(zh_data, [ours], users=3, out=tmp_path)
    assert list(fresh.results[0].ranked[0]) == lines[0]["items"][::-1]
    assert len(new.read_text().splitlines()) == 3


def test_a_model_that_only_writes_text_is_evaluated(tmp_path: Path, zh_data: Dataset) -> None:
    written = list(zh_data.catalog.titles[:3])
    model = Scripted(lambda prompt: written)
    ours = Recommender(zh_data, model, decoder="match", encoder="none", exclude_seen=False)
    for _ in range(2):  # the second time from the log
        found = evaluator.evaluate(
            zh_data, [("ours", ours)], users=3, exclude_seen=False, out=tmp_path
        )
        assert all(
            {zh_data.catalog[r].item_id for r in range(3)} == {*r} for r in found["ours"].ranked
        )
        assert "nats" not in found["ours"].values
    assert len(model.prompts) == 3


def test_results_never_go_into_a_dataset_folder(tmp_path: Path, zh_data: Dataset) -> None:
    zh_data.save(tmp_path / "data")
    with pytest.raises(DataError, match="is a dataset folder"):
        evaluator.evaluate(zh_data, ["popular"], users=3, out=tmp_path / "data")
    assert Dataset.load(tmp_path / "data").catalog.hash() == zh_data.catalog.hash()
