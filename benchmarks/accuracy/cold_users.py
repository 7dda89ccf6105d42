"""Measure what a sentence about a new user is worth, compared with popularity. Resumable.

    python -m benchmarks.accuracy.cold_users stackexchange --data DIR
    python -m benchmarks.accuracy.cold_users ml-100k --data DIR
    python -m benchmarks.accuracy.cold_users demo

DIR is that of benchmarks.accuracy.knowledge. Some users (seeded) are held out: none of their events is counted, and
their history is empty. All that is known is a sentence, written mechanically from the titles, or the attributes,
of the items in their train part: "I am interested in W1, W2, W3, W4 and W5." with the five words that are most
frequent there relative to all titles. The target, the first new item of the test part, has no part in it.

popular         the prior for an empty history
titles          the cosine of the sentence and each title (MiniLM), without counts
as asked        the two together, as for a query that asks for something, with its default weights
as asked, attributes   the same, with the attributes after each title
about           ``recommend("", query=sentence)`` by counting: what somebody says about themselves, which adds
                items that hold its words as examples, with a weight of 2 for the match

HR@10 and NDCG@10 are of the whole catalog. If the dataset leaves out seen items, the items of the user's train and
validation parts are left out for all systems, as the target is none of them. Differences to popularity are paired, with
intervals over users. "fitted": the weight of the sentence is the best of 0, 1, 2, 4, 8, 12, 20 and the default for NDCG@10 on the
other half of the users.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.accuracy.knowledge import SETS, cell
from benchmarks.common import ROOT, commit
from genrec import Dataset, History, Interaction
from genrec.config import QUERY_WEIGHTS
from genrec.conversation.catalog_words import CatalogWords
from genrec.conversation.parser import parse_query
from genrec.data import protocols
from genrec.data.knowledge import Knowledge
from genrec.matching.encoders import load_embedder
from genrec.pipeline.about import MATCH, find_examples
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.query_weights import QueryPrior
from genrec.prompts.profile import stop_words
from genrec.taste.keywords import KeywordIndex
from genrec.types import Float32Array, FloatArray

K = 10
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 20.0)
WORDS = 5
WORD = re.compile(r"[^\W\d_]{3,}")
SMALL = frozenset(
    [
        "the",
        "and",
        "for",
        "with",
        "from",
        "set",
        "how",
        "what",
        "why",
        "can",
        "does",
        "are",
        "you",
        "this",
        "that",
        "not",
        "use",
        "using",
        "into",
        "its",
        "your",
        "have",
        "has",
        "was",
        "between",
        "there",
        "which",
        "when",
        "two",
    ]
)


def words(text: str) -> list[str]:
    return [w for w in WORD.findall(text.lower()) if w not in SMALL]


def sentence(texts: Sequence[str], usual: Counter[str], items: int) -> str:
    """Write a sentence with the words that are most typical of some texts; empty if there are none."""
    own = Counter(word for text in texts for word in {*words(text)})
    value = {w: n * float(np.log(items / usual[w])) for w, n in own.items()}
    best = sorted(value, key=lambda w: (-value[w], w))[:WORDS]
    if not best:
        return ""
    return f"I am interested in {', '.join(best[:-1])}{' and ' if best[:-1] else ''}{best[-1]}."


def embed(texts: Sequence[str], path: Path) -> Float32Array:
    """Embed texts with MiniLM, and keep the vectors in a file."""
    if not path.is_file():
        found = load_embedder("minilm").embed(texts)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
    return np.asarray(np.load(path), dtype=np.float32)


def keywords_of(known: Dataset) -> KeywordIndex:
    """Return the keywords of the items with the counts of train and validation."""
    c = known.interactions.columns
    counted = (c.split < 2) & (c.row >= 0)
    events = np.bincount(c.row[counted], minlength=len(known.catalog))
    return KeywordIndex(known.catalog, events, empty=stop_words())


def hits(values: FloatArray, target: int) -> tuple[float, float]:
    rank = int((values > values[target]).sum()) + int((values == values[target]).sum() - 1) // 2
    return float(rank < K), 1 / float(np.log2(rank + 2)) if rank < K else 0.0


def held_out(data: Dataset, users: int) -> tuple[Dataset, list[protocols.Case]]:
    """Return the dataset without the contents of some users' events, and the cases of these users."""
    every = protocols.cases(data, protocols.default_protocol(data), "test")
    cases = protocols.sample(every, min(users, len(every) // 2))
    names = {case.user_id for case in cases}
    events = data.interactions
    own = np.array([user in names for user in events.user_ids])
    return replace(data, interactions=events.withhold(own[events.columns.user]), folder=None), cases


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "cold_users")
    arguments = parser.parse_args()
    data, columns = SETS[arguments.set](arguments.data)
    known, cases = held_out(data, arguments.users)
    attributes = [*Knowledge(tuple(columns)).values(data.catalog).values()]
    titles = [item.title for item in data.catalog]
    more = [
        f"{title} ({', '.join(v for cells in attributes for v in cells[row])})"
        for row, title in enumerate(titles)
    ]
    usual = Counter(word for title in titles for word in {*words(title)})
    told = []
    for case in cases:
        train = data.interactions.history(case.user_id, before="validation").item_ids
        mine = [titles[data.catalog.row(i)] for i in train if i != case.target]
        told.append(sentence(mine, usual, len(titles)))
    base = CollaborativePrior.fit(known, before="test")
    name = f"{arguments.set}-{len(cases)}"
    spoken = embed([t or "I am new here." for t in told], arguments.out / f"{name}-told.npy")
    plain = embed(titles, arguments.out / f"{arguments.set}-titles.npy")
    rich = embed(more, arguments.out / f"{arguments.set}-attributes.npy")
    weights = QUERY_WEIGHTS
    keywords = keywords_of(known)
    behavior = data.info.target_behavior
    found: dict[str, list[tuple[float, float]]] = {}
    named: list[int] = []
    missed = 0
    catalog_words = CatalogWords(data.catalog)
    tried = sorted({*WEIGHTS, weights["match"]})
    empty, fits = History(()), np.ones(len(titles), dtype=np.bool_)
    popular = base.logprobs(empty)
    for place, case in enumerate(cases):
        target = data.catalog.row(case.target)
        systems = {"popular": popular.copy(), "titles": (plain @ spoken[place]).astype(np.float64)}
        for label, vectors in (("as asked", plain), ("as asked, attributes", rich)):
            cosines = (vectors @ spoken[place]).astype(np.float64)
            cosines = cosines if told[place] else np.zeros(len(titles))
            for weight in tried:
                prior = QueryPrior(base, weights["prior"], weight * cosines, fits)
                systems[f"{label}, {weight:g}"] = prior.weights(empty).values
        examples: list[int] = []
        about = False
        if told[place]:
            query = parse_query(told[place], data.catalog, words=catalog_words)
            about = query.about
            missed += not about
            examples = find_examples(query.wanted, keywords) if about else []
        events = tuple(Interaction(data.catalog[r].item_id, behavior) for r in reversed(examples))
        cosines = (plain @ spoken[place]).astype(np.float64) * bool(told[place])
        weight = MATCH if about else weights["match"]
        prior = QueryPrior(base, weights["prior"], weight * cosines, fits, examples=events)
        systems["about (default)"] = prior.weights(empty).values
        named.append(len(examples))
        own = []
        if data.info.exclude_seen:
            own = [r for r in data.catalog.rows(case.history.item_ids) if r != target]
        for label, values in systems.items():
            values[own] = -np.inf
            found.setdefault(label, []).append(hits(values, target))
    first = np.arange(len(cases)) % 2 == 0
    for label in ("as asked", "as asked, attributes"):
        grid = {w: np.array(found.pop(f"{label}, {w:g}")) for w in tried}
        crosswise = np.zeros((len(cases), 2))
        best = []
        for half in (first, ~first):
            means = {w: float(values[half][:, 1].mean()) for w, values in grid.items()}
            best.append(max(means.items(), key=lambda pair: pair[1])[0])
            crosswise[~half] = grid[best[-1]][~half]
        found[f"{label} (default weight)"] = [(a, b) for a, b in grid[weights["match"]].tolist()]
        found[f"{label} (fitted: {best[0]:g}, {best[1]:g})"] = [
            (a, b) for a, b in crosswise.tolist()
        ]
    silent = sum(not text for text in told)
    print(f"{arguments.set}: {len(cases)} users held out, commit {commit()}; e.g. {told[0]!r}")
    print(
        f"{silent} have no sentence, since their train part is empty; {missed} sentences were taken for "
        f"requests; {np.mean(named):.1f} examples\n"
    )
    print(
        f"| known | HR@{K} | gain | NDCG@{K} | gain | HR@{K} of `about` less it |\n|---|---|---|---|---|---|"
    )
    usual_values = np.array(found["popular"])
    ours = np.array(found["about (default)"])
    for label, each in found.items():
        values = np.array(each)
        gains = [cell(values[:, n] - usual_values[:, n]) for n in (0, 1)]
        print(
            f"| {label} | {values[:, 0].mean():.4f} | {gains[0]} | {values[:, 1].mean():.4f} | {gains[1]} | "
            f"{cell(ours[:, 0] - values[:, 0])} |"
        )


if __name__ == "__main__":
    main()
