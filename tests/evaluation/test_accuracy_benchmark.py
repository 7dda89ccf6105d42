"""The benchmark on the embedded data, and what must come out on public data where it is there."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.accuracy import first_stage, public_datasets, slices
from genrec import Dataset
from genrec.baselines import registry
from genrec.evaluation import metrics, tuning
from genrec.evaluation.audit import Finding, audit
from genrec.evaluation.slices import LEAST
from genrec.priors.collaborative import COUNTED, CollaborativePrior

DATA = Path(os.environ.get("GENREC_DATA", "/nowhere"))
PUBLIC = pytest.mark.skipif(
    not (DATA / "s3_beauty").is_dir(), reason="needs s3_beauty and s3_toys in $GENREC_DATA"
)


def test_it_runs_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["demo", "--systems", "popular,markov", "--users", "40", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["public_datasets.py", *arguments])
    public_datasets.main()
    first = capsys.readouterr().out
    assert "40 cases, seen items may come back" in first
    assert first.count("| markov | train") == 4  # as it is measured, and in the table
    monkeypatch.setattr(registry, "fit", lambda *a, **k: pytest.fail("fitted again"))
    public_datasets.main()
    assert capsys.readouterr().out == first


def test_slices_come_from_the_ranks_that_were_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["demo", "--systems", "popular,prior", "--fit", "train", "--users", "60"]
    monkeypatch.setattr(sys, "argv", ["public_datasets.py", *arguments, "--out", str(tmp_path)])
    public_datasets.main()
    assert "slice" not in capsys.readouterr().out
    monkeypatch.setattr(registry, "fit", lambda *a, **k: pytest.fail("fitted again"))
    monkeypatch.setattr(CollaborativePrior, "fit", lambda *a, **k: pytest.fail("fitted again"))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--slices"])
    public_datasets.main()
    lines = capsys.readouterr().out.splitlines()
    assert "By slices of users, fitted on train:" in lines
    task = public_datasets.chosen(public_datasets.demo(Path()), 60)
    (path,) = tmp_path.glob("demo-prior-train-*.json")
    ranks = json.loads(path.read_text())["ranks"]
    repeats = [c.target in c.history.had(task.data.info.lead_in_behaviors) for c in task.cases]
    hits = [0 < ranks[c.user_id] <= 10 for c in task.cases]
    for label, wanted in (("new", False), ("repeat", True)):
        inside = [hit for hit, repeat in zip(hits, repeats, strict=True) if repeat is wanted]
        (row,) = [
            line for line in lines[lines.index("| hit_rate@10: slice | value | users | popular | prior |") :][:4]
            if line.startswith(f"| target | {label} | {len(inside)} |")
        ]  # fmt: skip
        shown = f"{np.mean(inside):.4f}".removeprefix("0")
        assert row.split(" | ")[-1].startswith(shown if len(inside) >= LEAST else "-")
    assert any(line.startswith("| last_event | ") for line in lines)


def test_slices_compare_a_combined_system_with_its_best_part() -> None:
    n = 2 * LEAST
    labels = {"target": ["new"] * LEAST + ["repeat"] * LEAST}
    of = {
        "prior": {"ndcg@10": np.zeros(n), "hit_rate@5": np.zeros(n)},
        "tuned": {"ndcg@10": np.linspace(0, 0.5, n)},
        "tuned-prior": {"ndcg@10": np.ones(n)},
        "ranker": {"ndcg@10": np.full(n, 0.25)},
    }
    lines = list(slices.tables(labels, of, "ndcg@10"))
    assert lines[0] == (
        "| ndcg@10: slice | value | users | prior | tuned | tuned-prior | ranker | ranker less prior | "
        "tuned-prior less tuned |"
    )
    assert lines[2].startswith(f"| target | new | {LEAST} | .0000 [.0000, .0000] | ")
    assert " | .2500 [.2500, .2500] | .8" in lines[2]
    assert not any("hit_rate@5" in line for line in lines)


def test_days_between_the_last_two_events_of_each_user() -> None:
    rows = [
        ("a", "0"),
        ("a", "86400"),
        ("b", "0"),
        ("b", ""),
        ("c", "0"),
        ("c", "0"),
        ("c", "43200"),
    ]
    found = public_datasets.days_to_last([{"user_id": u, "timestamp": t} for u, t in rows])
    assert (found["a"], found["c"]) == (1.0, 0.5)
    assert np.isnan(found["b"])


def test_the_first_stage_ranks_as_the_prior_does() -> None:
    task = public_datasets.chosen(public_datasets.demo(Path()), 25)
    prior = CollaborativePrior.fit(task.data)
    for exclude in (False, True):
        some = replace(task, exclude_seen=exclude)
        found = first_stage.ranks_of(some, prior)
        assert {"mixture", "union", *COUNTED} <= set(found)
        lists = [prior.rank(c.history, 1000, exclude_seen=exclude) for c in some.cases]
        for case, ranked, rank in zip(some.cases, lists, found["mixture"].tolist(), strict=True):
            assert metrics.rank_of(case.target, ranked) == (rank if rank <= 1000 else 0)
        own = found["own"] > 0  # it finds only what the user already had
        seen = [c.target in c.history.had(()) for c in some.cases]
        assert own.tolist() == ([False] * 25 if exclude else seen)
    assert found.keys().isdisjoint({"mixture by kind"})


def test_the_union_takes_an_item_from_each_list_in_turn() -> None:
    lists = [np.array([5, 1, 2]), np.array([1, 3]), np.array([4])]
    merged: list[int] = []
    for place in range(3):
        merged += [rows[place] for rows in lists if place < len(rows) and rows[place] not in merged]
    for target in range(6):
        expected = merged.index(target) + 1 if target in merged else 0
        assert first_stage.rank_in_turns(lists, target) == expected


def test_the_ranker_is_the_prior_with_a_learned_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["demo", "--systems", "prior,ranker,markov", "--fit", "train", "--users", "40"]
    monkeypatch.setattr(sys, "argv", ["public_datasets.py", *arguments, "--out", str(tmp_path)])
    public_datasets.main()
    said = capsys.readouterr().out
    assert "- train: ranker less prior: hit_rate@5 " in said
    assert "- train: ranker less markov: hit_rate@5 " in said
    task = public_datasets.chosen(public_datasets.demo(Path()), 40)
    prior = CollaborativePrior.fit(task.data)
    for system in ("prior", "ranker"):
        if system == "ranker":
            prior.learn_to_rank(task.data, task.data.info.target_behavior)
            assert prior.rankers is not None
            assert prior.rankers.by_kind
        (path,) = tmp_path.glob(f"demo-{system}-train-*.json")
        ranks = list(json.loads(path.read_text())["ranks"].values())
        assert ranks == public_datasets.ranks_by(task, prior)


def test_candidates_are_ranked_by_score_alone() -> None:
    task = public_datasets.demo(Path())
    some = task.cases[:30]
    candidates = [
        [task.data.catalog.row(c.target), *(r for r in range(20) if task.data.catalog[r].item_id != c.target)]
        for c in some
    ]  # fmt: skip
    shuffled = [np.random.default_rng(0).permutation(c).tolist() for c in candidates]
    popular = registry.fit("popular", task.data)
    for among in (candidates, shuffled):
        few = public_datasets.Task(task.data, some, False, candidates=among)
        ranks = public_datasets.ranks_of(few, popular)
        for case, rank, rows in zip(some, ranks, among, strict=True):
            scores = popular.scores(case.history)
            own = scores[task.data.catalog.row(case.target)]
            higher, equal = (scores[rows] > own).sum(), (scores[rows] == own).sum()
            assert 1 + higher <= rank <= higher + equal


def test_differences_are_paired_with_the_best_of_the_same_fit() -> None:
    def row(*hits: float) -> dict[str, object]:
        return {"hit_rate@10": np.array(hits), "ndcg@10": np.array(hits) / 2}

    both = {
        "popular": row(0, 0, 0), "ease": row(0, 1, 0), "prior": row(1, 1, 0), "zero-shot-prior": row(1, 1, 1)
    }  # fmt: skip
    said = list(public_datasets.differences(both, {"zero-shot": row(0, 0, 1), **both}, "ndcg@10"))
    assert [line.partition(":")[0] for line in said] == [
        f"zero-shot-prior less {other}" for other in ("zero-shot", "prior", "ease")
    ]
    assert "hit_rate@10 .6667 [" in said[0]
    assert "hit_rate@10 .3333 [" in said[1]
    assert "ndcg@10 .3333 [" in said[2]


@pytest.mark.model
def test_a_model_and_its_prior_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = public_datasets.chosen(public_datasets.demo(Path()), 3)
    arguments = SimpleNamespace(threads=1, model="smollm2-135m", run=None, mixed=[], out=tmp_path)
    tune = tuning.tune
    monkeypatch.setattr(tuning, "tune", lambda r, **k: tune(r, **k, users=4))
    found = public_datasets.measured("demo", "zero-shot-prior", "both", task, arguments)
    assert set(found["ranks"]) == set(found["nats"]) == {c.user_id for c in task.cases}
    (path,) = tmp_path.glob("demo-zero-shot-prior-both-*.json")
    kept = {k: v for k, v in found.items() if k != "done"}
    gone = task.cases[1].user_id
    for part in ("ranks", "nats"):
        kept[part] = {u: v for u, v in found[part].items() if u != gone}
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(tuning, "tune", lambda *a, **k: pytest.fail("tuned again"))
    again = public_datasets.measured("demo", "zero-shot-prior", "both", task, arguments)
    assert again["ranks"] == found["ranks"]
    assert again["nats"] == found["nats"]


@PUBLIC
@pytest.mark.slow
def test_the_audit_of_beauty() -> None:
    columns = ["user_id", "item_id", "position", "timestamp", "behavior"]
    items, events = public_datasets.tables(DATA / "s3_beauty", columns)

    def findings(events: pa.Table) -> dict[str, Finding]:
        dataset = Dataset.from_tables(items, events, name="s3_beauty")
        return {f.check: f for f in audit(dataset).findings}

    honest = findings(events)
    assert "42.7% of the targets are on the same day" in honest["ties"].said
    assert honest["ties"].level == "warning"
    assert honest["ties"].advice
    assert "55 of 12,101 items share their title" in honest["shared titles"].said
    assert honest["shared titles"].figures["targets"] == pytest.approx(0.0077, abs=5e-5)
    assert "Score by item ID" in honest["shared titles"].advice
    assert {c for c, f in honest.items() if f.level == "warning"} == {"ties"}

    users = events["user_id"].to_numpy(zero_copy_only=False)
    last = np.append(users[1:] != users[:-1], True)
    split = np.where(last, "test", "train")
    leaking = pa.concat_tables(
        [
            events.append_column("split", pa.array(split)),
            events.filter(pa.array(last)).append_column("split", pa.array(["train"] * last.sum())),
        ]
    )
    found = findings(leaking)
    assert found["repeated events"].figures["targets_in_train"] == 1.0
    assert found["repeated events"].level == "warning"
    assert "The split leaks" in found["repeated events"].advice


@PUBLIC
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "system", "before", "expected", "within"),
    [
        ("s3_beauty", "markov", "test", (0.0598, 0.0782, 0.0441, 0.0501), 5e-4),
        ("s3_beauty", "markov", "validation", (None, 0.0700, None, 0.0447), 5e-4),
        ("s3_beauty", "popular", "test", (0.0077, 0.0135, 0.0042, 0.0061), 5e-4),
        ("s3_beauty", "itemknn", "test", (None, 0.0643, None, 0.0376), 3e-3),
        ("s3_toys", "markov", "test", (0.0744, 0.0923, 0.0558, 0.0616), 5e-4),
        ("s3_toys", "markov", "validation", (None, 0.0829, None, 0.0545), 5e-4),
        ("s3_toys", "popular", "test", (0.0065, 0.0090, 0.0044, 0.0052), 5e-4),
    ],
)
def test_counting_is_reproduced(
    name: str, system: str, before: str, expected: tuple[float | None, ...], within: float
) -> None:
    task = public_datasets.amazon(DATA / name, ())
    ranks = public_datasets.ranks_of(task, registry.fit(system, task.data, before=before))
    found = [metrics.hit_rate(ranks, 5), metrics.hit_rate(ranks, 10)]
    found += [metrics.ndcg(ranks, 5), metrics.ndcg(ranks, 10)]
    for values, value in zip(found, expected, strict=True):
        if value is not None:
            assert float(values.mean()) == pytest.approx(value, abs=within)
