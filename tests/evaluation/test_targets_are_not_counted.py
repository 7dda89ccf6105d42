"""Whatever an evaluation ranks, its lists are the same if users chose other targets.

Each test runs an evaluation on two datasets that differ only in the items of the targets and of all
later events. Everything that enters the ranking must be the same: lists, probabilities and
explanations. The recommenders count all events by default, so each test would fail if they kept
that default.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny, tiny_runs

import genrec
from genrec import Dataset, Recommender
from genrec.baselines.counting import Popular
from genrec.cli import walkthrough
from genrec.config import QueryOptions, Settings
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.events import SPLITS
from genrec.data.interactions import Interactions
from genrec.errors import RequestError
from genrec.evaluation import evaluator, scoring_pass, tuning
from genrec.evaluation.audit_types import AuditedData
from genrec.evaluation.faithfulness import faithfulness
from genrec.evaluation.systems import Answer, BaselineSystem, RecommenderSystem
from genrec.priors.collaborative import CollaborativePrior
from genrec.training.config import Training
from genrec.training.validation import build_validation

RANKED = importlib.util.find_spec("lightgbm") is not None
LISTED = ("items", "probabilities", "exact")
BASELINES = (
    "prior", "popular", "recent", "frequent", "markov", "itemknn", "userknn", "ease", "content",
    *["ranker"] * RANKED,
)  # fmt: skip


def changed(dataset: Dataset, split: str) -> Dataset:
    """Give the events of a split and of later splits other items."""
    events = dataset.interactions
    c = events.columns
    late = (c.split >= SPLITS.index(split)) & (c.row >= 0)
    row = np.where(late, (c.row + 7) % len(dataset.catalog), c.row)
    other = Interactions(events.catalog, replace(events.table, columns=replace(c, row=row)))
    return replace(dataset, interactions=other)


def pair(protocol: str, split: str) -> list[Dataset]:
    data = replace(load("zh_mini"), cache_folder=None)
    if protocol == "given":
        data = replace(data, info=replace(data.info, split="given"))
    data = protocols.apply_protocol(data, protocol)
    return [data, changed(data, split)]


class Recorder:
    """Records what each system answered, without what is measured on the target."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[tuple[str, dict[str, Any]]] = []
        for kind in (RecommenderSystem, BaselineSystem):
            monkeypatch.setattr(kind, "answers", self._recording(kind.answers))

    def _recording(self, answer: Any) -> Any:
        def answers(system: Any, cases: Any, k: int) -> list[Answer]:
            found: list[Answer] = answer(system, cases, k)
            self.answers += [(system.name, {n: getattr(a, n) for n in LISTED}) for a in found]
            return found

        return answers

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        taken, self.answers = self.answers, []
        assert taken
        return taken


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    with monkeypatch.context() as patch:
        yield Recorder(patch)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("protocol", protocols.NAMES)
def test_no_protocol_counts_its_targets(recorder: Recorder, protocol: str, split: str) -> None:
    taken = []
    for data in pair(protocol, split):
        assert Settings().prior_events == "all"
        ours = Recorded.systems(data)
        items = [item.item_id for item in data.catalog]
        everything = dict.fromkeys(data.interactions.user_ids, items)
        candidates = everything if protocol == "candidates-20" else None
        found = genrec.evaluate(
            data,
            [*ours, *BASELINES],
            protocol=protocol,
            split=split,
            users=4,
            candidates=candidates,
            shop=QueryOptions(show="again") if protocol == "last-unit" else None,
        )
        taken.append((recorder.take(), [(r.name, r.ranked) for r in found.results]))
    assert taken[0] == taken[1]


class Recorded:
    """The kinds of recommenders whose lists depend on a dataset."""

    @staticmethod
    def systems(data: Dataset) -> list[Any]:
        model = tiny.language_model()
        shared: dict[str, Any] = {"encoder": "none", "exclude_seen": False}
        mixed = Recommender(data, model, prior_sources="markov,itemknn,ease,userknn", **shared)
        every = Recommender(data, model, **shared)
        return [
            ("every", every),
            ("mixed", mixed),
            ("by score", every.with_settings(fusion="score")),
            ("popularity", every.with_settings(prior="popularity")),
            ("novelty", every.with_settings(prior="novelty")),
            ("shown others", every.with_settings(few_shot=2)),
            *[("ranked", every.with_settings(ranker="lambdarank"))] * RANKED,
        ]


def test_the_recommenders_count_the_targets_when_they_serve() -> None:
    """Otherwise, the tests here would prove nothing."""
    for split in ("validation", "test"):
        lists = []
        for data in pair("last-unit", split):
            history = protocols.cases(data, "last-unit", split)[0].history
            systems = dict(Recorded.systems(data))
            lists.append(
                {
                    name: [(r.item_id, r.score) for r in system.recommend(history, 10)]
                    for name, system in systems.items()
                }
            )
        differ = {name for name in lists[0] if lists[0][name] != lists[1][name]}
        assert differ >= {"every", "mixed", "by score", "popularity", "novelty"}


@pytest.mark.parametrize("fit_on", ["train", "train+validation"])
def test_more_may_be_counted_up_to_the_targets(recorder: Recorder, fit_on: str) -> None:
    taken = []
    for data in pair("last-unit", "test"):
        ours = Recorded.systems(data)
        genrec.evaluate(data, ours, users=3, fit_on=fit_on, exclude_seen=False)
        taken.append(recorder.take())
    assert taken[0] == taken[1]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("fitted", ["baseline", "prior", "own prior"])
def test_what_has_counted_the_targets_is_refused(fitted: str, split: str) -> None:
    data = load("zh_mini")
    for before, right in (("validation", True), ("test", split == "test"), ("end", False)):
        system: Any
        if fitted == "baseline":
            system = Popular(data.interactions, data.info.target_behavior, before=before)
        else:
            system = CollaborativePrior.fit(data, before=before)
        if fitted == "own prior":
            ours = Recommender(data, tiny.language_model(), encoder="none")
            ours.prior = system
            system = ours
        if right:
            genrec.evaluate(data, [system], users=1, split=split)
            continue
        with pytest.raises(RequestError, match=f"which include the {split} part"):
            genrec.evaluate(data, [system], users=1, split=split)
        if fitted == "own prior":
            with pytest.raises(RequestError, match=f"which include the {split} part"):
                faithfulness(data, system, users=1, split=split, encoder="ngrams")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_explanations_are_evaluated_without_the_targets(split: str) -> None:
    found = []
    for data in pair("last-unit", split):
        ours = Recommender(data, tiny.language_model(), encoder="none", few_shot=1)
        judged = faithfulness(data, ours, users=2, split=split, encoder="ngrams")
        found.append([asdict(user) for user in judged.users])
    assert found[0] == found[1]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_tuning_does_not_count_its_targets(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fitted weights may depend on the targets, but not what they weigh."""
    found: list[Any] = []
    score = scoring_pass.score_user

    def scored(recommender: Recommender, history: Any, target: str) -> Any:
        prior = recommender.prior
        assert isinstance(prior, CollaborativePrior)
        found[-1].append((prior.mix, prior.unread, prior.logprobs(history).tolist()))
        return score(recommender, history, target)

    monkeypatch.setattr(tuning, "score_user", scored)
    for data in pair("last-unit", split):
        found.append([])
        tuning.tune(Recommender(data, tiny.language_model(), encoder="none"), users=5)
    assert len(found[0]) == 5
    assert found[0] == found[1]


def test_training_validates_without_its_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    with_nats = Recommender.with_nats

    def listed(self: Recommender, *given: Any) -> Any:
        answer = with_nats(self, *given)
        found[-1].append([(r.item_id, r.score) for r in answer[0]])
        return answer

    monkeypatch.setattr(Recommender, "with_nats", listed)
    for data in pair("last-unit", "validation"):
        found.append([])
        training = Training(eval_users=4)
        validation = build_validation(data, Settings(), training, tiny.language_model())
        assert validation is not None
        validation.measure(4)
    assert len(found[0]) == 4
    assert found[0] == found[1]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_audit_does_not_count_the_targets(split: str) -> None:
    tops = []
    for data in pair("last-unit", split):
        cases = protocols.cases(data, "last-unit", split)
        audited = AuditedData(data, cases, split, lambda message: None)
        tops.append([audited.top_ten(name) for name in ("popular", "recent", "frequent", "markov")])
    assert tops[0] == tops[1]


def test_the_demo_does_not_count_its_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_runs.saved(tmp_path)
    found: list[Any] = []
    run = evaluator.run

    def ran(name: str, *given: Any, **more: Any) -> Any:
        result = run(name, *given, **more)
        found[-1].append((name, result.ranked))
        return result

    monkeypatch.setattr(evaluator, "run", ran)
    for data in pair("last-out", "test"):
        found.append([])
        monkeypatch.setattr(walkthrough, "load", lambda name, data=data: data)
        walkthrough.run(str(model), 3, run="none", language="zh", json=True, threads=1)
    assert [name for name, _ in found[0]] == ["zero-shot", "zero-shot + prior", "popular"]
    assert found[0] == found[1]


def test_withheld_events_keep_when_and_how_but_not_what() -> None:
    for split in ("validation", "test"):
        one, two = (protocols.withhold(data, split) for data in pair("last-unit", split))
        assert protocols.fingerprint(one) == protocols.fingerprint(two)
        before, after = load("zh_mini").interactions.columns, one.interactions.columns
        hidden = before.split >= SPLITS.index(split)
        assert hidden.any()
        assert (after.row[hidden] == -1).all()
        assert np.isnan(after.value[hidden]).all()
        assert (after.row[~hidden] == before.row[~hidden]).all()
        for name in ("user", "behavior", "timestamp", "unit", "split"):
            assert (getattr(after, name) == getattr(before, name)).all()
        for place in (int(np.flatnonzero(hidden)[0]), int(np.flatnonzero(~hidden)[0])):
            event = one.interactions.interaction(place)
            whole = load("zh_mini").interactions.interaction(place)
            empty = replace(whole, item_id=None, value=None, text=None)
            expected = whole if not hidden[place] else replace(empty, attributes=event.attributes)
            assert event == expected
            if hidden[place]:
                assert not any(event.attributes.values())
