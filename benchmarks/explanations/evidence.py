"""Measure whether explanations are true of the model, and what evidence costs.

    python -m benchmarks.explanations.evidence --users 100 --threads 1 [--run RUN] [--prior popularity]
    python -m benchmarks.explanations.evidence --costs 8 --threads 1

``--users N``: the figures of ``genrec evaluate --explanations`` (deletion, sufficiency, shares) for N seeded
demo-v1 test users with at least four events, with similar titles found by title embeddings or ``--encoder
ngrams``. ``--other`` names the template of the test. Logged user by user in .results/evidence.

``--costs N``: for N users with 25 events, the recommendation of ten items and the fast and the full evidence
for all ten, by turns. It prints processor seconds, the median of the ratios, and the tokens read against the
floor (what stands after each event, and the items' branching tokens, for every event). Beside it stands how
far full and fast evidence agree on the strongest event, and their rank correlation over events. With ``--memory``, the
prompt of the list is kept for its evidence, but not for the list.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, commit
from genrec import History, Recommender
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.evaluation import evaluator
from genrec.evaluation.faithfulness import faithfulness
from genrec.evaluation.systems import default_name, slug
from genrec.explain.evidence import Change, Counterfactuals, Question, measure_drops
from genrec.reports import summaries


def question_of(recommender: Recommender, history: History) -> Question:
    (request,) = recommender._requests.build([history], PROTOCOL)
    return recommender._search.question(request)


def correlation(one: Sequence[float], two: Sequence[float]) -> float:
    """Return Spearman's rank correlation over events."""
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (one, two)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def recommender_of(arguments: argparse.Namespace) -> Recommender:
    """Load a recommender for the demo: a run, or the untrained model."""
    data = load("online_retail_demo")
    settings = {"prior": arguments.prior, "fusion": arguments.fusion}
    given = {name: value for name, value in settings.items() if value is not None}
    if arguments.run is not None:
        return Recommender.load(arguments.run, data, threads=arguments.threads, **given)
    return Recommender(data, arguments.model, threads=arguments.threads, **given)


def deletion(arguments: argparse.Namespace, ours: Recommender) -> None:
    assert ours.dataset is not None
    name = "-".join([default_name(ours), arguments.prior or "auto", arguments.fusion or "auto"])
    name = "-".join([name, *([arguments.run.name] if arguments.run is not None else [])])
    found = faithfulness(
        ours.dataset,
        ours,
        users=arguments.users,
        protocol="demo-v1",
        other=arguments.other,
        encoder=arguments.encoder,
        out=arguments.out / f"{slug(name)}-{arguments.encoder}.jsonl",
        progress=lambda done: print(f"\r{done} users", end="", flush=True),
    )
    print(f"\n{ours.model.describe()}, {ours.fusing}, commit {commit()}")
    summaries.print_faithfulness(found)


def costs(arguments: argparse.Namespace, ours: Recommender) -> None:
    data = ours.dataset
    assert data is not None
    if arguments.recent is not None:
        ours = ours.with_settings(attention="by_event", recent_events=arguments.recent)
    if arguments.memory:
        ours = ours.with_settings(prompt_memory=1024)
    cases = [c for c in evaluator.sample(evaluator.demo_v1(data), 300) if len(c.history) >= 25]
    ratios: dict[str, list[float]] = {"fast": [], "full": []}
    floors: list[float] = []
    agree: list[list[float]] = []
    for case in cases[: arguments.costs]:
        question = question_of(ours, case.history)
        answer = ours.recommend(case.history, 10, options=PROTOCOL)
        rows = ours.catalog.rows([r.item_id for r in answer])
        seconds: dict[str, float] = {}
        found = {}
        for name in ("recommend", "fast", "full"):
            if name == "recommend":
                ours.model.memory.clear()
            started = time.process_time()
            if name == "recommend":
                ours.recommend(case.history, 10, options=PROTOCOL)
            else:
                found[name] = measure_drops(question, rows, name).total
            seconds[name] = time.process_time() - started
        for name, values in ratios.items():
            values.append(seconds[name] / seconds["recommend"])
        singles = [Change((i,)) for i in range(question.events)]
        again = Counterfactuals(question, rows, singles)
        again.measure_drops(range(len(singles)))
        floors.append(again.n_tokens / sum(again.cost([i]) for i in range(len(singles))))
        pairs = list(zip(found["full"].T, found["fast"].T, strict=True))
        agree.append(
            [
                statistics.mean(float(a.argmax() == b.argmax()) for a, b in pairs),
                statistics.mean(correlation(a, b) for a, b in pairs),
            ]
        )
        print(json.dumps({k: round(v, 2) for k, v in seconds.items()}), flush=True)
    print(
        f"{len(floors)} users of 25 events, ten items, {ours.model.describe()}, commit {commit()}"
    )
    for name, values in ratios.items():
        middle = statistics.median(values)
        print(f"{name} / recommendation: {middle:.2f} ({min(values):.2f}-{max(values):.2f})")
    print(f"tokens read in full / floor: {statistics.median(floors):.3f} (max {max(floors):.3f})")
    same, rank = (statistics.mean(a[i] for a in agree) for i in (0, 1))
    print(f"fast and full, ten items: same strongest event {same:.3f}, rank correlation {rank:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--run", type=Path, help="run folder, in place of --model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--users", type=int, default=0)
    parser.add_argument("--costs", type=int, default=0)
    parser.add_argument("--memory", action="store_true", help="keep the prompts of the lists")
    parser.add_argument("--recent", type=int, help="read by event, with so many events in full")
    parser.add_argument("--prior", help="(default: as the recommender has it)")
    parser.add_argument("--fusion")
    parser.add_argument("--other", help="template of the deletion test")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "evidence")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ours = recommender_of(arguments)
    if arguments.users:
        deletion(arguments, ours)
    if arguments.costs:
        costs(arguments, ours)


if __name__ == "__main__":
    main()
