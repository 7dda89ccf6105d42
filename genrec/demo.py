"""``genrec demo``: the whole line on embedded data, told step by step.

Knows the recommender and how answers look, nothing below.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from genrec import display, evaluation
from genrec.baselines import Popular
from genrec.dataset import Dataset
from genrec.datasets import load
from genrec.evaluation import Result
from genrec.recommender import RecommendationList, Recommender

DATASET = "online_retail_demo"
CUSTOMER = "12493"
TYPED = "bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT; bought: Set/6 red spotty paper cups"
METRICS = ("hit_rate@10", "ndcg@10", "recall@10")
_K = 10


@dataclass(frozen=True, slots=True)
class _Report:
    dataset: Dataset
    answer: RecommendationList
    typed: RecommendationList
    ours: Result
    popular: Result


def run(
    model: str,
    users: int,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Runs the demo and prints it.

    Args:
        model: see ``LanguageModel.load``.
        users: how many users the small evaluation has.
        device: see ``LanguageModel.load``.
        dtype: see ``LanguageModel.load``.
        threads: see ``LanguageModel.load``.
        json: print one JSON value at the end in place of the story.

    Raises:
        GenrecError: as the parts that it shows.
    """
    started = time.monotonic()
    dataset = load(DATASET)
    if not json:
        _show_data(dataset)
    with display.working(f"Loading {model} ...", quiet=json) as say:
        recommender = Recommender(
            dataset, model, device=device, dtype=dtype, threads=threads, say=say
        )
    history = recommender.history(CUSTOMER, before="test")
    if not json:
        _show_customer(recommender)
        _heading("Ten recommendations for customer " + CUSTOMER)
    answer = recommender.recommend(history, _K)
    if not json:
        display.print_recommendations(answer)
        _heading("The same for a history typed by hand")
        display.print_line(f'  genrec recommend DIR --history "{TYPED}"\n', "dim")
    typed = recommender.recommend(TYPED, _K)
    if not json:
        display.print_recommendations(typed)
    ours, popular = _evaluate(recommender, users)
    report = _Report(dataset, answer, typed, ours, popular)
    if json:
        display.print_json(_to_dict(report))
        return
    _show_evaluation(report)
    display.note(f"\n{time.monotonic() - started:.0f} s in all, {recommender.model.describe()}")


def _heading(text: str) -> None:
    display.print_line(f"\n{text}", "bold green")


def _show_data(dataset: Dataset) -> None:
    info = dataset.info
    _heading("The data")
    display.print_line(
        f"{info.name}: {info.users:,} customers of a British gift shop, {info.items:,} products, "
        f"{info.events:,} events, 2010-2011 (UCI Online Retail, CC BY 4.0)."
    )


def _show_customer(recommender: Recommender) -> None:
    history = recommender.history(CUSTOMER, before="test")
    _heading(f"What customer {CUSTOMER} did last")
    catalog = recommender.catalog
    rows = [
        [recommender.template.verb(i.behavior).past, catalog[catalog.row(i.item_id)].title]
        for i in history.latest(5).interactions
        if i.item_id is not None
    ]
    display.print_table(["event", "title"], rows)
    _heading("What the model reads (the prompt ends where the next title begins)")
    display.print_prompt(
        recommender.prompt(history),
        f"an untrained {recommender.model.describe()}, no training and no demonstrations",
    )


def _evaluate(recommender: Recommender, users: int) -> tuple[Result, Result]:
    assert recommender.dataset is not None
    cases = evaluation.sample(evaluation.demo_v1(recommender.dataset), users)
    with display.progress(f"Asking for {len(cases)} held-out purchases", len(cases)) as bar:
        ours = evaluation.run(
            "zero-shot",
            lambda h: [r.item_id for r in recommender.recommend(h, _K)],
            cases,
            progress=bar,
        )
    baseline = Popular(recommender.dataset.interactions, recommender.behavior)
    return ours, evaluation.run(baseline.name, lambda h: baseline.rank(h, _K), cases)


def _show_evaluation(report: _Report) -> None:
    _heading("Does it know what they bought next?")
    n = len(report.ours.cases)
    display.print_line(
        f"Protocol demo-v1 on a fixed sample of {n} of 887 customers: their last invoice was held "
        "out;\nis its first item among the ten? With 95% intervals over customers.\n"
    )
    rows = [
        [result.name, *(str(result.mean(m)) for m in METRICS)]
        for result in (report.ours, report.popular)
    ]
    rows.append(["difference", *(str(report.ours.minus(report.popular, m)) for m in METRICS)])
    names = ["system", "hit rate@10", "NDCG@10", "recall@10 of the basket"]
    display.print_table(names, rows)
    display.print_line(
        f"\n{n} customers are few, so the intervals are wide; all 887 are in benchmarks/RESULTS.md."
    )


def _to_dict(report: _Report) -> dict[str, Any]:
    systems = {
        result.name: {
            m: {"mean": i.mean, "low": i.low, "high": i.high}
            for m in METRICS
            for i in [result.mean(m)]
        }
        for result in (report.ours, report.popular)
    }
    return {
        "schema_version": 1,
        "dataset": report.dataset.info.name,
        "customer": report.answer.to_dict(),
        "typed": report.typed.to_dict(),
        "evaluation": {
            "protocol": "demo-v1",
            "users": len(report.ours.cases),
            "systems": systems,
        },
    }
