"""Conversations about films: whether the next recommended film is found from what was said.

    python -m benchmarks.accuracy.redial DIR --out FOLDER

``DIR`` has the test dialogues of ReDial (Li et al. 2018, https://arxiv.org/abs/1812.07617) as ``turns.jsonl.gz``
and the films as ``items.csv.gz``. A turn counts if its answer recommends a film that was not mentioned
before. Films that were mentioned are left out of every list. R@k is the share of these films that are
among the first k.

What is counted (how often a film is recommended, and together with which ones) comes from the other half
of the dialogues, and so do fitted weights. The parts of the product that are measured are
``Recommender.chat`` and its query weights. Each turn's result is appended to a file, and an interrupted run
goes on where it stopped. Turns are taken in a seeded random order, so that those done so far are a
random sample.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.optimize import minimize

from benchmarks.common import ROOT, commit
from genrec import Dataset, History, Recommender
from genrec.config import PROTOCOL, QUERY_WEIGHTS
from genrec.conversation.dialogue import Turn
from genrec.conversation.query import MOST_SHOWN
from genrec.data.catalog import Catalog, Item
from genrec.data.events import Interaction
from genrec.matching.likeness import TitleLikeness
from genrec.models.language_model import LanguageModel
from genrec.types import FloatArray

KS = (1, 10, 50)
KEPT = 150  # items of a list that are recorded
BEHAVIOR = "watch"
TINY = 1e-9  # a weight with which the model is asked, but does not change the order
SEED = 0
TEXTS = 1000  # turns for which the model writes freely


@dataclass(frozen=True)
class Unit:
    """A turn whose answer recommends films that were not mentioned before.

    Attributes:
        number: its number, which is stable.
        dialog: the dialogue.
        said: what was said, oldest first.
        mentioned: the ids of the films that were mentioned.
        targets: the ids of the new films that the answer recommends.
        named: True if the text names a target.
    """

    number: int
    dialog: str
    said: tuple[Turn, ...]
    mentioned: tuple[str, ...]
    targets: tuple[str, ...]
    named: bool

    @cached_property
    def half(self) -> int:
        return half_of(self.dialog)

    @property
    def history(self) -> History:
        return History(
            tuple(Interaction(i, BEHAVIOR, float(n)) for n, i in enumerate(self.mentioned))
        )

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns up to the last one of the user."""
        mine = [n for n, turn in enumerate(self.said) if turn.mine and turn.text.strip()]
        return self.said[: mine[-1] + 1] if mine else ()


def half_of(dialog: str) -> int:
    return int(hashlib.sha256(dialog.encode()).hexdigest(), 16) % 2


def read(folder: Path) -> tuple[Catalog, list[dict[str, Any]], list[Unit]]:
    catalog = Catalog.read(folder / "items.csv.gz")
    with gzip.open(folder / "turns.jsonl.gz", "rt", encoding="utf-8") as stream:
        turns = [json.loads(line) for line in stream]
    titles = {i.item_id: re.sub(r"\s*\(.*?\)", "", i.title).lower() for i in catalog}
    units = []
    for number, turn in enumerate(turns):
        targets = tuple(str(i) for i in turn["targets"] if i not in turn["mentioned"])
        if not targets:
            continue
        lines = re.findall(
            r"\n(User|System): (.*?)(?=\n(?:User|System): |\Z)", turn["input"], re.DOTALL
        )
        said = tuple(Turn(text.strip(), (), who == "User") for who, text in lines)
        text = " ".join(turn["turns"]).lower()
        named = any(titles[i] in text for i in targets)
        mentioned = tuple(map(str, turn["mentioned"]))
        units.append(Unit(number, turn["dialog_id"], said, mentioned, targets, named))
    return catalog, turns, units


def datasets(catalog: Catalog, turns: Sequence[Mapping[str, Any]]) -> list[Dataset]:
    """Return a dataset of the films that were mentioned in the dialogues of each half."""
    order: dict[str, dict[str, None]] = {}
    for turn in turns:
        found = order.setdefault(turn["dialog_id"], {})
        for item in [*turn["mentioned"], *turn["targets"]]:
            found.setdefault(str(item))
    halves = []
    for half in (0, 1):
        rows = [
            (dialog, item, BEHAVIOR, float(n))
            for dialog, items in order.items()
            if half_of(dialog) == half
            for n, item in enumerate(items)
        ]
        columns = dict(
            zip(
                ("user_id", "item_id", "behavior", "timestamp"),
                zip(*rows, strict=True),
                strict=True,
            )
        )
        table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
        halves.append(Dataset.from_tables(catalog.to_table(), table, name=f"redial {half}"))
    return halves


class Table:
    """Scores of all films for each turn, without those that were mentioned."""

    def __init__(self, catalog: Catalog, units: Sequence[Unit]) -> None:
        self.catalog, self.units = catalog, units

    def hits(self, unit: Unit, scores: FloatArray) -> FloatArray:
        """Return the share of a turn's targets among the first k; ties count as half."""
        scores = scores.copy()
        scores[self.catalog.rows(unit.mentioned)] = -np.inf
        ranks = []
        for row in self.catalog.rows(unit.targets):
            ties = (scores == scores[row]).sum() - 1
            ranks.append(float((scores > scores[row]).sum() + ties / 2))
        return np.array([np.mean([rank < k for rank in ranks]) for k in KS])


def embed(likeness: TitleLikeness, texts: Sequence[str], kept: Path) -> dict[str, FloatArray]:
    """Return the vectors of texts, which are kept in a file."""
    distinct = sorted(set(texts))
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            if file["texts"].tolist() == distinct:
                return dict(zip(distinct, file["vectors"], strict=True))
    embedder = likeness.embedder
    assert embedder is not None
    parts = [embedder.embed(distinct[n : n + 256]) for n in range(0, len(distinct), 256)]
    vectors = np.concatenate(parts)
    np.savez(kept, texts=np.array(distinct), vectors=vectors)
    return dict(zip(distinct, vectors, strict=True))


def fit_first(
    logs: Sequence[FloatArray],
    cosines: Sequence[FloatArray],
    units: Sequence[Unit],
    catalog: Catalog,
) -> tuple[float, float]:
    """Fit the exponent of the prior and the weight of the match by the likelihood of the targets."""
    tables = []
    for log, cosine, unit in zip(logs, cosines, units, strict=True):
        kept = np.ones(len(log), dtype=bool)
        kept[catalog.rows(unit.mentioned)] = False
        place = np.cumsum(kept) - 1
        rows = [int(place[r]) for r in catalog.rows(unit.targets)]
        tables.append((np.stack([log[kept], cosine[kept]]).astype(np.float32), rows))

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        total, slope = 0.0, np.zeros(2)
        for table, rows in tables:
            scores = values.astype(np.float32) @ table
            peak = scores.max()
            weights = np.exp(scores - peak)
            mass = weights.sum()
            mean = table @ (weights / mass)
            total += float(peak + np.log(mass) - scores[rows].mean())
            slope += mean - table[:, rows].mean(axis=1)
        return total / len(tables), slope / len(tables)

    best = minimize(
        loss, np.array([1.0, 4.0]), jac=True, method="L-BFGS-B", bounds=[(0, 5), (0, 60)]
    )
    return float(best.x[0]), float(best.x[1])


def answers(path: Path) -> dict[int, dict[str, Any]]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (json.loads(line) for line in lines if line.endswith("}"))
    return {one["unit"]: one for one in found}


def ask(
    recommenders: Sequence[Recommender],
    weights: Sequence[Mapping[str, float]],
    units: Sequence[Unit],
    path: Path,
    most: int,
) -> None:
    """Ask the product about each turn, with the weights of the other half, and keep its answers."""
    done = answers(path)
    with path.open("a", encoding="utf-8") as stream:
        for n, unit in enumerate(units[:most]):
            if unit.number in done:
                continue
            other, started = 1 - unit.half, time.process_time()
            options = replace(
                PROTOCOL,
                k=KEPT,
                deny=unit.mentioned,
                query_weights={**weights[other], "model": TINY},
            )
            if unit.turns:
                answer = recommenders[other].chat(unit.turns, unit.history, options=options).list
            else:
                answer = None
            if answer is None:
                answer = recommenders[other].recommend(unit.history, options=options)
            row = {
                "unit": unit.number,
                "items": [r.item_id for r in answer],
                "first": [r.logprob for r in answer],
                "model": [(r.parts or {}).get("model") and r.logprob_model for r in answer],
                "seconds": round(time.process_time() - started, 3),
            }
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            if n % 50 == 0:
                print(f"{n} turns asked", flush=True)


def write_freely(recommender: Recommender, units: Sequence[Unit], path: Path, most: int) -> None:
    """Let the model write texts without the trie, which are matched to titles."""
    done = answers(path)
    with path.open("a", encoding="utf-8") as stream:
        for n, unit in enumerate(units[:most]):
            if unit.number in done:
                continue
            text = " ".join(t.text for t in unit.turns if t.mine)[-MOST_SHOWN:].strip()
            history, started = replace(unit.history, query=text), time.process_time()
            answer = recommender.recommend(
                history, options=replace(PROTOCOL, k=max(KS), deny=unit.mentioned)
            )
            seconds = round(time.process_time() - started, 3)
            row = {"unit": unit.number, "items": [r.item_id for r in answer], "seconds": seconds}
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            if n % 50 == 0:
                print(f"{n} turns written", flush=True)


def reranked(answer: Mapping[str, Any], weight: float, *, alone: bool = False) -> list[str]:
    """Return the items in the order that the product gives them with a weight of the model."""
    first = np.array(answer["first"], dtype=np.float64)
    known = np.array([value is not None for value in answer["model"]])
    model = np.array([value or 0.0 for value in answer["model"]], dtype=np.float64)
    scores = first.copy()
    if known.any():
        shares = (0.0 if alone else 1.0) * first[known] + weight * model[known]
        mass = np.logaddexp.reduce(first[known])
        scores[known] = mass + shares - np.logaddexp.reduce(shares)
    return [answer["items"][i] for i in np.argsort(-scores, kind="stable")]


def listed(items: Sequence[str], targets: Sequence[str]) -> FloatArray:
    places = {item: n for n, item in enumerate(items)}
    return np.array([np.mean([places.get(t, len(items) + 999) < k for t in targets]) for k in KS])


def fit_model(found: Mapping[int, Mapping[str, Any]], units: Sequence[Unit]) -> float:
    """Fit the weight of the model by the likelihood of the targets among the candidates."""
    rows = []
    for unit in units:
        answer = found[unit.number]
        known = [i for i, value in enumerate(answer["model"]) if value is not None]
        items = [answer["items"][i] for i in known]
        places = [items.index(t) for t in unit.targets if t in items]
        if places:
            first = np.array([answer["first"][i] for i in known])
            rows.append((first, np.array([answer["model"][i] for i in known]), places))

    def loss(weight: float) -> float:
        total = 0.0
        for first, model, places in rows:
            scores = first + weight * model
            total += float(np.logaddexp.reduce(scores) - scores[places].mean())
        return total

    weights = np.arange(0.0, 1.501, 0.025)
    return float(weights[int(np.argmin([loss(w) for w in weights]))])


def interval(values: FloatArray, dialogs: Sequence[str]) -> str:
    """Describe a mean over turns with its 95% interval over dialogues."""
    names = sorted(set(dialogs))
    code = {name: n for n, name in enumerate(names)}
    which = np.array([code[d] for d in dialogs])
    sums, counts = np.bincount(which, values), np.bincount(which)
    some = np.random.default_rng(SEED).integers(0, len(names), (1000, len(names)))
    means = sums[some].sum(axis=1) / counts[some].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.4f} [{low:.4f}, {high:.4f}]"


def report(
    name: str, systems: Mapping[str, Mapping[int, FloatArray]], units: Sequence[Unit]
) -> None:
    """Print the hits of all systems on the turns that all of them have, and the paired differences."""
    common = [u for u in units if all(u.number in hits for hits in systems.values())]
    for title, some in (
        ("all", common),
        ("without those that name a target", [u for u in common if not u.named]),
    ):
        if not some:
            continue
        print(f"\n{name}: {len(some)} turns, {title}\n")
        dialogs = [u.dialog for u in some]
        tables = {s: np.array([hits[u.number] for u in some]) for s, hits in systems.items()}
        print("| system | " + " | ".join(f"R@{k}" for k in KS) + " |")
        print("|---|" + "---|" * len(KS))
        for system, table in tables.items():
            print(
                f"| {system} | "
                + " | ".join(interval(table[:, n], dialogs) for n in range(len(KS)))
                + " |"
            )
        best = next(reversed(tables))
        print(f"\n{best} minus\n")
        for system, table in list(tables.items())[:-1]:
            print(
                f"| {system} | "
                + " | ".join(
                    interval(tables[best][:, n] - table[:, n], dialogs) for n in range(len(KS))
                )
                + " |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "redial")
    parser.add_argument("--turns", type=int, default=10**9, help="turns that the model scores")
    parser.add_argument(
        "--texts", type=int, default=TEXTS, help="turns for which the model writes freely"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    catalog, turns, units = read(given.folder)
    order = np.random.default_rng(SEED).permutation(len(units))
    units = [units[n] for n in order]
    print(
        f"{len(units)} turns, {sum(u.named for u in units)} name a target, commit {commit()}",
        flush=True,
    )

    model = LanguageModel.load(threads=given.threads)
    recommenders = [
        Recommender(data, model, encoder="minilm", exclude_seen=True)
        for data in datasets(catalog, turns)
    ]
    table = Table(catalog, units)
    likeness = TitleLikeness(recommenders[0].matcher, len(catalog))
    systems: dict[str, dict[int, FloatArray]] = {}

    counts = np.zeros((2, len(catalog)))
    for unit in units:
        np.add.at(counts[unit.half], catalog.rows(unit.targets), 1)
    systems["popularity"] = {u.number: table.hits(u, counts[1 - u.half]) for u in units}
    logs = {}
    for unit in units:
        prior = recommenders[1 - unit.half].prior
        assert prior is not None
        values = prior.weights(unit.history).to_dense(len(catalog))
        logs[unit.number] = np.log(values / values.sum())
    systems["prior by the mentioned films"] = {
        u.number: table.hits(u, logs[u.number]) for u in units
    }

    texts = {
        "encoder, last turn": [u.said[-2].text if len(u.said) > 1 else "" for u in units],
        "encoder, last turn of the user": [u.turns[-1].text if u.turns else "" for u in units],
        "encoder, all turns": [" ".join(t.text for t in u.said[::-1] if t.text) for u in units],
        "chat": [wanted(recommenders[0], u) for u in units],
    }
    vectors = embed(
        likeness, [t for several in texts.values() for t in several], given.out / "texts.npz"
    )
    titles = likeness.vectors
    cosines: dict[int, FloatArray] = {}
    for name, several in texts.items():
        hits: dict[int, FloatArray] = {}
        for unit, text in zip(units, several, strict=True):
            alike = np.zeros(len(catalog))
            if text.strip():
                alike += titles @ vectors[text]
            hits[unit.number] = table.hits(unit, alike)
            if name == "chat":
                cosines[unit.number] = alike
        systems["encoder, what chat understood" if name == "chat" else name] = hits
    by_titles: dict[int, FloatArray] = {}
    for unit in units:
        alike, rows = np.zeros(len(catalog)), catalog.rows(unit.mentioned)
        if rows:
            alike += titles @ titles[rows].mean(axis=0)
        by_titles[unit.number] = table.hits(unit, alike)
    systems["encoder, titles of the mentioned films"] = by_titles

    weights = []
    for half in (0, 1):
        own = [u for u in units if u.half == half]
        a, b = fit_first(
            [logs[u.number] for u in own], [cosines[u.number] for u in own], own, catalog
        )
        weights.append({"prior": round(a, 3), "match": round(b, 3), "unwanted": round(b, 3)})
    print("weights fitted on each half:", weights, flush=True)
    for name, chosen in (
        ("chat without the model, default weights", [QUERY_WEIGHTS, QUERY_WEIGHTS]),
        ("chat without the model, fitted weights", weights),
    ):
        systems[name] = {
            u.number: table.hits(
                u,
                chosen[1 - u.half]["prior"] * logs[u.number]
                + chosen[1 - u.half]["match"] * cosines[u.number],
            )
            for u in units
        }
    report("Without the model", systems, units)

    ask(recommenders, weights, units, given.out / "turns.jsonl", min(given.turns, TEXTS))
    # People name films without "(1984 film)" at the end, so free text is matched to titles without it.
    plain = [Item(i.item_id, re.sub(r"\s*\([^()]*\)$", "", i.title) or i.title) for i in catalog]
    free = Recommender(
        Catalog(plain), model, decoder="match", encoder="minilm", n_samples=10, max_title_tokens=16,
        target_behavior=BEHAVIOR,
    )  # fmt: skip
    write_freely(free, units, given.out / "texts.jsonl", given.texts)
    ask(recommenders, weights, units, given.out / "turns.jsonl", given.turns)
    finish(systems, units, given.out)


def finish(systems: dict[str, dict[int, FloatArray]], units: Sequence[Unit], out: Path) -> None:
    """Fit the weight of the model on what was asked so far, and compare everything."""
    found = answers(out / "turns.jsonl")
    asked = [u for u in units if u.number in found]
    fitted = [fit_model(found, [u for u in asked if u.half == half]) for half in (0, 1)]
    print("weight of the model fitted on each half:", fitted)
    by = {u.number: u for u in asked}
    systems["model among the 100 best"] = {
        n: listed(reranked(found[n], 1.0, alone=True), u.targets) for n, u in by.items()
    }
    systems["chat, fitted weights"] = {
        n: listed(reranked(found[n], fitted[1 - u.half]), u.targets) for n, u in by.items()
    }
    report("With the model", systems, units)
    written = answers(out / "texts.jsonl")
    freely = {
        u.number: listed(written[u.number]["items"], u.targets)
        for u in units
        if u.number in written
    }
    if freely:
        report("Beside free text", {"model writes freely": freely, **systems}, units)
    seconds = [one["seconds"] for one in found.values()]
    if seconds:
        print(f"\nprocessor time of a turn: {np.median(seconds):.2f} s")


def wanted(recommender: Recommender, unit: Unit) -> str:
    """Return what the product compares with the titles."""
    if not unit.turns:
        return ""
    return recommender.understand_dialogue(unit.turns).wanted


if __name__ == "__main__":
    main()
