"""The model ranks items, or it only explains what the prior ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny
from support.counted_shop import NAMES, history, shop

from genrec import Dataset, History, Interaction, Item, Recommender
from genrec.config import EXPLAIN, FEATURE, FUSE, Settings
from genrec.errors import DataError, SettingsError
from genrec.evaluation import scoring_pass, tuning
from genrec.evaluation.systems import RecommenderSystem
from genrec.priors import model_feature
from genrec.priors.fusion import ENOUGH, resolve_fusion
from genrec.priors.model_feature import Choice, Exponents, fit_exponents
from genrec.priors.tuned import Tuned
from genrec.reports.terminal import describe_prior

TUNED = Tuned("key", "model", "node", {"node": 0.9, "score": 2.0}, {"node": 3.0, "score": 2.0}, 200,
              {"model": 2.0, "prior": 1.0, "node": 0.9}, {"model": 0.1, "prior": 0.2, "node": 0.2, "score": 0.2})  # fmt: skip


def dataset(users: int = 160) -> Dataset:
    rng = np.random.default_rng(0)
    return shop([rng.integers(0, len(NAMES), size=8).tolist() for _ in range(users)])


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset()


def recommender(data: Dataset, **settings: Any) -> Recommender:
    settings = {"encoder": "none", "exclude_seen": False, **settings}
    return Recommender(data, tiny.language_model(), **settings)


@pytest.mark.parametrize(
    ("settings", "prior", "tuned", "events", "trained", "role"),
    [
        ({}, "collaborative", None, ENOUGH, False, EXPLAIN),
        ({}, "collaborative", None, ENOUGH - 1, False, FUSE),
        ({}, "collaborative", None, ENOUGH, True, FUSE),
        ({}, "collaborative", TUNED, ENOUGH, False, FUSE),
        ({}, "collaborative", replace(TUNED, role=EXPLAIN), ENOUGH, True, EXPLAIN),
        ({}, "collaborative", replace(TUNED, role="auto"), ENOUGH, False, EXPLAIN),
        ({}, "collaborative", replace(TUNED, role="auto"), ENOUGH, True, FUSE),
        ({"few_shot": 2}, "collaborative", None, ENOUGH, False, FUSE),
        ({"prior_weight": 1.0}, "collaborative", replace(TUNED, role=EXPLAIN), 10, True, FUSE),
        ({"search": "exact"}, "collaborative", None, ENOUGH, False, EXPLAIN),
        ({"search": "beam"}, "collaborative", None, ENOUGH, False, FUSE),
        ({"model_role": FUSE}, "collaborative", None, ENOUGH, False, FUSE),
        ({"model_role": EXPLAIN}, "collaborative", TUNED, 10, True, EXPLAIN),
        ({"model_role": EXPLAIN}, "popularity", None, ENOUGH, False, EXPLAIN),
        ({}, "popularity", None, ENOUGH, False, FUSE),
        ({}, "own", None, ENOUGH, False, FUSE),
        ({}, "none", None, ENOUGH, False, FUSE),
    ],
)
def test_which_role_the_model_has(
    settings: dict[str, Any], prior: str, tuned: Tuned | None, events: int, trained: bool, role: str
) -> None:
    found = resolve_fusion(Settings(**settings), prior, tuned, events, trained=trained)
    assert found.role == role
    if role == EXPLAIN:
        assert found.weight == 1.0


def test_the_prior_alone_ranks_and_the_model_reads_nothing(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    explains = recommender(data)

    def read(*given: Any) -> Any:
        raise AssertionError(given)

    for name in ("prefill", "prefill_many", "prefix"):
        monkeypatch.setattr(explains.model, name, read)
    past = history(1, 2)
    answer = explains.recommend(past, 7, allow_last_basket=True)
    prior = explains.prior
    assert prior is not None
    logprobs = prior.logprobs(past)  # type: ignore[attr-defined]
    order = np.argsort(-logprobs, kind="stable").tolist()
    assert [r.item_id for r in answer] == [f"i{row}" for row in order]
    assert [r.logprob for r in answer] == pytest.approx(logprobs[order].tolist())
    assert sum(r.probability for r in answer) == pytest.approx(1)
    assert all(r.logprob_model is None and r.logprob_prior == r.logprob for r in answer)
    assert answer.details["parts"] == ["prior"]
    assert answer.details["prior"]["role"] == EXPLAIN
    assert answer.details["certificate"]["exact"]
    assert "alone ranks the items" in describe_prior(answer)
    json.dumps(answer.to_dict(), allow_nan=False)
    some = explains.rank(past, ["i5", "i1", "i3"], allow_last_basket=True)
    assert [r.logprob for r in some] == pytest.approx(sorted(logprobs[[1, 3, 5]], reverse=True))
    rails = explains.recommend_rails(past, 3, shows=("again",), allow_last_basket=True)
    assert {r.item_id for r in rails["again"]} == {"i1", "i2"}
    assert RecommenderSystem(explains).name == "prior"


def test_the_whole_evidence_is_the_priors(data: Dataset) -> None:
    explains = recommender(data)
    past = history(1, 2, 2, 5)
    (first, *_) = explains.recommend(past, 3, explain=True, allow_last_basket=True)
    assert first.explanation is not None
    for place, event in enumerate(first.explanation.evidence):
        rows = [1, 2, 2, 5]
        del rows[place]
        scores = [explains.score(h, [first.item_id])[0].score for h in (past, history(*rows))]
        assert event.nats_model == 0.0
        assert event.nats_prior == pytest.approx(scores[0] - scores[1])
        assert event.nats == event.nats_prior
    item = explains.explain(past, "i3", 3, allow_last_basket=True)
    every = [r.item_id for r in explains.rank(past, allow_last_basket=True)]
    assert item.rank == 1 + every.index("i3")
    assert item.choices == ()
    assert explains.falls(past, "i3", [[0]])[0] == pytest.approx(item.explanation.evidence[0].nats)


def test_both_roles_have_keys_of_their_own(data: Dataset) -> None:
    explains = recommender(data)
    fuses = explains.with_settings(model_role=FUSE)
    assert fuses.fusing.role == FUSE
    assert RecommenderSystem(explains).key != RecommenderSystem(fuses).key
    assert RecommenderSystem(fuses).name == "tiny-llama + prior"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "none"}, "prior='none'"),
        ({"decoder": "match"}, "decoder='match'"),
        ({"normalization": "vocab"}, "normalization='vocab'"),
    ],
)
def test_a_model_cannot_only_explain_without_a_prior_that_ranks(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(model_role=EXPLAIN, **settings)


def test_an_unknown_role_in_a_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    replace(TUNED, role=EXPLAIN).save(path)
    found = Tuned.load(path, "key")
    assert found is not None
    assert found.role == EXPLAIN
    path.write_text(path.read_text().replace('"explain"', '"dance"'))
    with pytest.raises(DataError, match="damaged"):
        Tuned.load(path, "key")


A, B = 0.8, 0.6


@pytest.fixture
def reranks(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recommender:
    """A recommender whose model scores two candidates of each kind."""
    monkeypatch.setattr(model_feature, "CANDIDATES", 2)
    path = tmp_path / "tuned.json"
    ours = recommender(data)
    key = ours.tuning_key()
    replace(TUNED, key=key, role=FEATURE, feature={"prior": A, "model": B}).save(path)
    return ours.with_settings(tuned=str(path))


def expected(reranks: Recommender, past: History) -> dict[str, float]:
    """Each item's probability, from the scores of the model alone and of the prior alone."""
    alone = reranks.with_settings(model_role="auto", prior="none", tuned=None)
    options: Any = {"allow_last_basket": True}
    model = {r.item_id: r.logprob or 0.0 for r in alone.rank(past, **options)}
    prior = reranks.prior
    assert prior is not None
    weights = np.exp(prior.logprobs(past))  # type: ignore[attr-defined]
    had = {e.item_id for e in past.interactions}
    ids = [i.item_id for i in reranks.catalog]
    found = dict(zip(ids, weights.tolist(), strict=False))
    for kind in (True, False):
        same = [i for i in found if (i in had) == kind]
        best = sorted(same, key=lambda i: (-found[i], ids.index(i)))[:2]
        known = [i for i in best if i in model]
        if len(best) < 2:
            continue
        shares = [found[i] ** A * np.exp(B * model[i]) for i in known]
        mass = sum(found[i] for i in known)
        for item, share in zip(known, shares, strict=True):
            found[item] = mass * share / sum(shares)
    return found


@pytest.mark.parametrize("rows", [(1, 2), (5,), (0, 3, 3, 6, 2)])
def test_the_candidates_are_ranked_by_both(reranks: Recommender, rows: tuple[int, ...]) -> None:
    past = history(*rows)
    wanted = expected(reranks, past)
    order = sorted(wanted, key=lambda i: -wanted[i])
    every = reranks.rank(past, allow_last_basket=True)
    assert {r.item_id: r.probability for r in every} == pytest.approx(wanted, rel=1e-4)
    assert sum(r.probability for r in every) == pytest.approx(1)
    plain = reranks.with_settings(model_role=EXPLAIN).rank(past, allow_last_basket=True)
    assert [r.item_id for r in plain] != order or rows != (1, 2)
    answer = reranks.recommend(past, 3, allow_last_basket=True)
    assert [r.item_id for r in answer] == order[:3]
    assert answer.details["certificate"]["exact"]
    assert answer.details["parts"] == ["model", "prior"]
    assert "chooses candidates" in describe_prior(answer)
    scored = [r for r in every if r.logprob_model is not None]
    assert 2 <= len(scored) <= 4
    for options in ({"show": "new"}, {"deny": [order[0]]}, {"allow": order[3:]}):
        shown = reranks.with_settings(exclude_seen=None).recommend(
            past, 2, allow_last_basket=True, **options
        )
        had = {f"i{row}" for row in rows} if "show" in options else set()
        kept = [i for i in options.get("allow", order) if i not in {*options.get("deny", ()), *had}]
        assert [r.item_id for r in shown] == kept[:2]
        assert [r.probability for r in shown] == pytest.approx(
            [wanted[i] for i in kept[:2]], rel=1e-4
        )


def test_the_candidates_follow_edits(reranks: Recommender) -> None:
    past = history(1, 2)
    first = reranks.rank(past, allow_last_basket=True)
    candidate = next(r.item_id for r in first if r.logprob_model is not None)
    reranks.remove_items([candidate])
    after = reranks.rank(past, allow_last_basket=True)
    assert candidate not in [r.item_id for r in after]
    assert sum(r.probability for r in after) == pytest.approx(1)
    reranks.add_items([Item("new", "red house")])
    again = reranks.rank(past, allow_last_basket=True)
    assert "new" in [r.item_id for r in again]
    assert sum(r.probability for r in again) == pytest.approx(1)
    for r in reranks.recommend(past, 4, allow_last_basket=True):
        assert r.probability == pytest.approx(
            next(o.probability for o in again if o.item_id == r.item_id)
        )


@pytest.mark.parametrize("evidence", ["full", "fast"])
def test_the_parts_of_the_evidence_add_up(reranks: Recommender, evidence: str) -> None:
    past = history(1, 2, 2, 5)
    answer = reranks.recommend(past, 3, explain=True, evidence=evidence, allow_last_basket=True)
    moved = 0.0
    for item in answer:
        assert item.explanation is not None
        own = reranks.score(past, [item.item_id])[0].score
        assert own == pytest.approx(item.score)
        for place, event in enumerate(item.explanation.evidence):
            rows = [1, 2, 2, 5]
            del rows[place]
            other = reranks.score(history(*rows), [item.item_id])[0].score
            assert event.nats == pytest.approx(event.nats_model + event.nats_prior)
            moved += abs(event.nats_model)
            if evidence == "full":
                assert event.nats == pytest.approx(own - other, abs=1e-4)
    assert moved > 0
    second = reranks.explain(past, answer[1].item_id, 3, allow_last_basket=True)
    assert second.rank == 2
    assert second.score == pytest.approx(answer[1].score)


def test_a_batch_is_answered_like_each_request(reranks: Recommender) -> None:
    pasts = [history(1, 2), history(5), history(), history(0, 3, 3, 6, 2)]
    options: Any = {"allow_last_basket": True}
    for one, past in zip(reranks.recommend_many(pasts, 3, **options), pasts, strict=True):
        alone = reranks.recommend(past, 3, **options)
        assert [r.item_id for r in one] == [r.item_id for r in alone]
        assert [r.score for r in one] == pytest.approx([r.score for r in alone], abs=1e-4)


def test_feature_needs_fitted_exponents(data: Dataset) -> None:
    with pytest.raises(SettingsError, match="run it first"):
        recommender(data, model_role=FEATURE).recommend(history(1))
    with pytest.raises(SettingsError, match="cannot name candidates"):
        recommender(data, model_role=FEATURE, prior="popularity").recommend(history(1))


def test_exponents_are_those_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    choices = []
    for _ in range(3000):
        prior, model = rng.normal(size=(2, 8))
        shares = np.exp(0.7 * prior + 0.4 * model)
        choices.append(Choice(prior, model, int(rng.choice(8, p=shares / shares.sum()))))
    found = fit_exponents(choices)
    assert (found.prior, found.model) == pytest.approx((0.7, 0.4), abs=0.08)
    assert fit_exponents(choices, with_model=False).model == 0.0
    few = fit_exponents(choices[:1])
    assert abs(few.prior - 1) < 0.3
    assert few.model < 0.3
    assert fit_exponents([]) == Exponents(1.0, 0.0)


def test_a_scoring_pass_knows_the_reranked_scores(reranks: Recommender) -> None:
    past = history(1, 2)
    found = scoring_pass.score_user(reranks, past, "i3")
    wanted = expected(reranks, past)
    scores = np.exp(found.rerank(Exponents(A, B)))
    named = {f"i{row}": p for row, p in zip(found.rows.tolist(), scores.tolist(), strict=True)}
    assert named == pytest.approx({i: wanted[i] for i in named}, rel=1e-4)
    assert found.kind is not None
    for choice in found.choices():
        assert choice.chosen == 0
        assert len(choice.prior) == 2


def test_tuning_fits_the_exponents(data: Dataset) -> None:
    splits = [["train"] * 6 + ["validation", "test"]] * 60
    rng = np.random.default_rng(1)
    small = shop([rng.integers(0, len(NAMES), size=8).tolist() for _ in range(60)], splits)
    found = tuning.tune(recommender(small), users=None)
    assert set(found.feature) == {"prior", "model"}
    assert found.nats.keys() == {"model", "prior", "power", "feature", "node"}
    assert found.role in {EXPLAIN, FUSE, FEATURE}


def test_a_command_that_does_not_ask_the_model_does_not_load_it(
    data: Dataset, model: Path, tmp_path: Path
) -> None:
    data.save(tmp_path / "shop")
    script = (
        "import sys\nfrom genrec.cli.main import main\n"
        f"sys.argv = ['genrec', 'recommend', {str(tmp_path / 'shop')!r}, '--user', 'u1', '-k', '2',"
        f" '--model', {str(model)!r}, '--encoder', 'none', '--json', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    for more, loaded in (((), "False"), (("--model-role", "fuse"), "True")):
        done = subprocess.run(
            [sys.executable, "-c", script, *more], capture_output=True, text=True, check=True
        )
        answer = json.loads(done.stdout)
        assert (
            len(answer["new"]["recommendations"] if "new" in answer else answer["recommendations"])
            > 0
        )
        assert done.stderr.split()[-1] == loaded


def test_texts_that_the_prior_cannot_read_are_named(data: Dataset) -> None:
    past = History((*history(1).interactions, Interaction(None, "search", text="a red thing")))
    answer = recommender(data).recommend(past, 2)
    assert any("1 of the 2 events is a text" in note for note in answer.notes)
    fused = recommender(data, model_role=FUSE).recommend(past, 2)
    assert not any("a text" in note for note in fused.notes)
