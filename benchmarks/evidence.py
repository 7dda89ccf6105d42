"""Whether evidence is true of the model, and what it costs: a deletion test on the demo's users.

    python benchmarks/evidence.py --users 60 --threads 1 [--prior popularity] [--language-model M]
    python benchmarks/evidence.py --costs 8 --threads 1

For the first recommendation of seeded demo-v1 test users with at least six events, under one template
(``next_item``), the evidence of every event; then the score of the same item under another template
(``sentence``), where one, two and three events are left out: those with the most evidence, the most
recent ones, those whose titles are most like the item's (character n-grams), and random ones. Means
of the fall in nats with bootstrap intervals over users, and the paired differences, also of the area
between the curves (the mean over one, two and three). ``kept`` is the fall where all but three events
are left out. Beside it how far the two templates, and full and fast evidence, agree on the strongest
event, and their rank correlation over events. Logged user by user in .results/evidence.

``--costs``: for so many users with 25 events the recommendation of ten items, fast and full evidence
for all ten, by turns: seconds of the processor, the median of the ratios, and tokens read against the
floor (what stands after each event, and the items' branching tokens, for every event).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo_v1 import ROOT, _commit

from genrec import History, LanguageModel, Recommender, evaluation, metrics
from genrec.answers import Wishes
from genrec.datasets import load
from genrec.embedding import CharNgrams
from genrec.evidence import Change, Counterfactuals, Question, falls

WAYS = ("evidence", "recent", "similar", "random")
MOST = 3  # events left out, and kept
BOTH = 15  # users whose evidence is found under both templates


def question_of(recommender: Recommender, history: History) -> Question:
    wishes = Wishes(10)
    asked = recommender._asker.asked(history, recommender._stock.allowed(wishes))
    return recommender._searcher.question(asked, wishes)


def correlation(one: Sequence[float], two: Sequence[float]) -> float:
    """Spearman's, over events."""
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (one, two)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def agreement(one: Any, two: Any) -> tuple[int, float]:
    """Whether the strongest event is the same, and the rank correlation."""
    return int(one.argmax() == two.argmax()), correlation(one, two)


def orders(values: Sequence[float], likeness: Sequence[float], seed: int) -> dict[str, list[int]]:
    """Events in the order in which each way would leave them out."""
    n = len(values)
    return {
        "evidence": np.argsort(-np.array(values), kind="stable").tolist(),
        "recent": list(range(n))[::-1],
        "similar": np.argsort(-np.array(likeness), kind="stable").tolist(),
        "random": np.random.default_rng(seed).permutation(n).tolist(),
    }


def examined(ours: Recommender, other: Recommender, likeness: Any, case: Any, n: int) -> Any:
    """One user's figures."""
    history = case.history
    (first,) = ours.recommend(history, 1)
    row = ours.catalog.row(first.item_id)
    question, elsewhere = question_of(ours, history), question_of(other, history)
    full = falls(question, [row]).total[:, 0]
    fast = falls(question, [row], "fast").total[:, 0]
    events = question.events
    rows = ours.catalog.rows([str(e.item_id) for e in question.window.interactions])
    ways = orders(full.tolist(), likeness(row, rows), n)
    sets = {(w, m): tuple(sorted(o[:m])) for w, o in ways.items() for m in range(1, MOST + 1)}
    for way, order in ways.items():
        sets[way, -MOST] = tuple(sorted(order[MOST:]))
    singles = [(i,) for i in range(events)] if n < BOTH else []
    places = {s: i for i, s in enumerate(dict.fromkeys([*singles, *sets.values()]))}
    found = Counterfactuals(elsewhere, [row], [Change(s) for s in places])
    fall = found.falls(range(len(places))).total[:, 0]
    theirs = fall[: len(singles)]
    return {
        "user": case.history.user_id,
        "item": first.item_id,
        "events": events,
        "fall": {w: [float(fall[places[sets[w, m]]]) for m in range(1, MOST + 1)] for w in WAYS},
        "kept": {w: float(fall[places[sets[w, -MOST]]]) for w in WAYS},
        "templates": agreement(full, theirs) if singles else None,
        "fast": agreement(full, fast),
        "own_title": int(rows[int(full.argmax())] == row),
    }


def liker(recommender: Recommender) -> Callable[[int, Sequence[int]], list[float]]:
    """How much the titles of some rows are like one's."""
    vectors = CharNgrams([t.lower() for t in recommender.catalog.titles]).vectors

    def like(row: int, rows: Sequence[int]) -> list[float]:
        found: list[float] = (vectors[list(rows)] @ vectors[row].T).toarray()[:, 0].tolist()
        return found

    return like


def report(values: Sequence[Any]) -> None:
    def mean(numbers: Sequence[float]) -> str:
        found = metrics.bootstrap(np.array(numbers))
        return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"

    print("left out | one | two | three | area | evidence minus it (area) | kept three: fall")
    ours = [statistics.mean(v["fall"]["evidence"]) for v in values]
    for way in WAYS:
        curve = [mean([v["fall"][way][m] for v in values]) for m in range(MOST)]
        area = [statistics.mean(v["fall"][way]) for v in values]
        paired = mean([a - b for a, b in zip(ours, area, strict=True)])
        kept = mean([v["kept"][way] for v in values])
        print(" | ".join([way, *curve, mean(area), "-" if way == "evidence" else paired, kept]))
    for name, what in (("templates", "next_item and sentence"), ("fast", "full and fast")):
        both = [v[name] for v in values if v[name] is not None]
        same, ranks = (mean([b[i] for b in both]) for i in (0, 1))
        print(f"{what}, {len(both)} users: same strongest event {same}, rank correlation {ranks}")
    print(f"the strongest event is of the item itself: {mean([v['own_title'] for v in values])}")


def deletion(arguments: argparse.Namespace, model: LanguageModel) -> None:
    data = load("online_retail_demo")
    settings: dict[str, Any] = {"prior": arguments.prior, "fusion": arguments.fusion}
    ours = Recommender(data, model, **settings)
    other = Recommender(data, model, template="sentence", **settings)
    cases = [c for c in evaluation.sample(evaluation.demo_v1(data), 300) if len(c.history) >= 6]
    log = arguments.out / f"{arguments.model}-{arguments.prior}-{arguments.fusion}.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    likeness = liker(ours)
    with log.open("a") as stream:
        for n, case in enumerate(cases[: arguments.users]):
            if n < len(lines):
                continue
            lines.append(json.dumps(examined(ours, other, likeness, case, n)))
            stream.write(lines[-1] + "\n")
            stream.flush()
            print(".", end="", flush=True)
    print(f"\n{len(lines)} users, {model.describe()}, prior {arguments.prior}, commit {_commit()}")
    report([json.loads(line) for line in lines[: arguments.users]])


def costs(arguments: argparse.Namespace, model: LanguageModel) -> None:
    data = load("online_retail_demo")
    ours = Recommender(data, model)
    cases = [c for c in evaluation.sample(evaluation.demo_v1(data), 300) if len(c.history) >= 25]
    ratios: dict[str, list[float]] = {"fast": [], "full": []}
    floors: list[float] = []
    agree: list[list[float]] = []
    for case in cases[: arguments.costs]:
        question = question_of(ours, case.history)
        answer = ours.recommend(case.history, 10)
        rows = ours.catalog.rows([r.item_id for r in answer])
        seconds: dict[str, float] = {}
        found = {}
        for name in ("recommend", "fast", "full"):
            started = time.process_time()
            if name == "recommend":
                ours.recommend(case.history, 10)
            else:
                found[name] = falls(question, rows, name).total
            seconds[name] = time.process_time() - started
        for name, values in ratios.items():
            values.append(seconds[name] / seconds["recommend"])
        singles = [Change((i,)) for i in range(question.events)]
        again = Counterfactuals(question, rows, singles)
        again.falls(range(len(singles)))
        floors.append(again.n_tokens / sum(again.cost([i]) for i in range(len(singles))))
        pairs = list(zip(found["full"].T, found["fast"].T, strict=True))
        agree.append(
            [
                statistics.mean(float(a.argmax() == b.argmax()) for a, b in pairs),
                statistics.mean(correlation(a, b) for a, b in pairs),
            ]
        )
        print(json.dumps({k: round(v, 2) for k, v in seconds.items()}), flush=True)
    print(f"{len(floors)} users of 25 events, ten items, {model.describe()}, commit {_commit()}")
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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--users", type=int, default=0)
    parser.add_argument("--costs", type=int, default=0)
    parser.add_argument("--prior", default="none")
    parser.add_argument("--fusion", default="node")
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "evidence")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = LanguageModel.load(arguments.model, threads=arguments.threads)
    if arguments.users:
        deletion(arguments, model)
    if arguments.costs:
        costs(arguments, model)


if __name__ == "__main__":
    main()
