"""Ask yes or no: a language model untrained and tuned, a BERT, and counting. Resumable.

    python -m benchmarks.accuracy.pointwise ml-100k --data DIR --minutes 30 --threads 1
    python -m benchmarks.accuracy.pointwise demo --minutes 30 --threads 1
    python -m benchmarks.accuracy.pointwise demo --minutes 1 --pairs 40 --per-user 4 --eval-users 5

DIR (or $GENREC_DATA) contains the folder ml-100k (the atomic files of RecBole, which its wheel has); demo
is embedded in the package. In ml-100k a rating of 4 or 5 is a like; in demo each purchase stands beside
one random item that is new to the customer.

Minutes are by the clock, validation included. All systems learn from the same pairs of the train part (the
latest --per-user of each user), make their choices on the same sample of validation pairs, and answer the
same --pairs of the test part:

constant    the share of likes in train
popularity  logistic regression on the log of an item's likes in train
item share  an item's share of likes in train, smoothed (only if events say no, too)
untrained   the language model, asked with the template would_like
attributes  the untrained model, which also reads what is known about the items: in ml-100k their classes and
            years, as triples of a graph (``--item-attributes``); in demo their prices
tuned       the same after `--objective pointwise` for --minutes; the best on validation
bert        MiniLM with a classifier, all weights trained for --minutes; the best on validation

The log loss of ``untrained`` less that of ``attributes`` is printed with a paired interval over pairs. With --calibrate,
both are calibrated by a logistic regression on the pairs to choose by.

Finished parts are kept in .results/pointwise; run it again to continue (BERT starts over if it was cut off).
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.common import ROOT, commit
from genrec import Dataset, Recommender, runs
from genrec.data.datasets import load, recbole
from genrec.data.knowledge import Triples
from genrec.evaluation.bootstrap import bootstrap
from genrec.models import packaged
from genrec.models.quiet import quiet_transformers
from genrec.training import pointwise, trainer
from genrec.training.config import resolve
from genrec.training.pairs import Pair, make_pairs, make_training_pairs, sample_pairs

TEST_PAIRS_OF_A_USER = 4
METRICS = ("accuracy", "precision", "recall", "f1", "auc", "log_loss")
VALIDATIONS = 10
BERT_RATE, BERT_BATCH, BERT_TOKENS = 5e-5, 16, 256
SMOOTHING = 5.0  # likes and others at the usual share, added to each item's own
Chances = np.ndarray


@dataclass(frozen=True)
class Task:
    """The data, the settings of training, and the pairs for learning, choosing and testing."""

    data: Dataset
    settings: dict[str, Any]
    learned: list[Pair]
    chosen_by: list[Pair]
    asked: list[Pair]

    @property
    def labels(self) -> np.ndarray:
        return np.array([p.label for p in self.asked])


def task(name: str, arguments: Any) -> Task:
    if name == "demo":
        data, extra = load("online_retail_demo"), {}
    else:
        data = recbole(arguments.data / name, name)
        extra = {"like_threshold": 4.0, "values": True}
    settings = {
        "objective": "pointwise", "pairs_per_user": arguments.per_user, "schedule": "constant",
        "learning_rate": 5e-4, "epochs": 100.0, "warmup": 0.0, "eval_users": arguments.eval_users,
        "eval_every": arguments.eval_every,        **extra,
    }  # fmt: skip
    ours, theirs = resolve(settings)
    behavior = data.info.target_behavior
    del ours
    users = max(1, arguments.pairs // TEST_PAIRS_OF_A_USER) if name == "demo" else arguments.pairs
    test = make_pairs(data, theirs, "test", behavior=behavior)
    validation = make_pairs(data, theirs, "validation", behavior=behavior)
    return Task(
        data,
        settings,
        make_training_pairs(data, theirs, behavior=behavior),
        sample_pairs(validation, arguments.eval_users),
        sample_pairs(test, users, TEST_PAIRS_OF_A_USER),
    )


def counts(found: Task) -> tuple[np.ndarray, np.ndarray]:
    """(N,) likes of each item in train, and all pairs that say something of it."""
    _, settings = resolve(found.settings | {"pairs_per_user": None})
    every = make_pairs(found.data, settings, behavior=found.data.info.target_behavior)
    n = len(found.data.catalog)
    likes = np.bincount([p.row for p in every if p.label], minlength=n)
    return likes, np.bincount([p.row for p in every], minlength=n)


def constant(found: Task, arguments: Any) -> Chances:
    return np.full(len(found.asked), np.mean([p.label for p in found.learned]))


def popularity(found: Task, arguments: Any) -> Chances:
    from sklearn.linear_model import LogisticRegression

    likes = np.log1p(counts(found)[0])[:, None]
    fitted = LogisticRegression().fit(
        likes[[p.row for p in found.learned]], [p.label for p in found.learned]
    )
    return np.asarray(fitted.predict_proba(likes[[p.row for p in found.asked]])[:, 1])


def item_share(found: Task, arguments: Any) -> Chances:
    likes, every = counts(found)
    usual = likes.sum() / every.sum()
    return np.asarray(
        ((likes + SMOOTHING * usual) / (every + SMOOTHING))[[p.row for p in found.asked]]
    )


def answers(found: Task, recommender: Recommender) -> Chances:
    """Return a language model's answers to the test pairs, in order."""
    _, settings = resolve(found.settings)
    question, plain = recommender.question, bool(recommender.model.obstacle)
    rows = pointwise.make_examples(question, found.data, found.asked, settings, plain=plain)
    labels, chances = pointwise.PointwiseObjective(rows, recommender.model, question).chances(
        recommender.model
    )
    of_pair: dict[tuple[int, int], float] = {}
    order = (
        (int(rows.rows[i].event[g]), int(rows.rows[i].item[g]))
        for pack in rows.packs for i in pack for g in range(len(rows.rows[i].item))
    )  # fmt: skip
    for pair, chance in zip(order, chances.tolist(), strict=True):
        of_pair[pair] = chance
    del labels
    return np.array([of_pair[p.event, p.row] for p in found.asked])


def untrained(found: Task, arguments: Any) -> Chances:
    return _untrained(found, arguments, found.data, "none")


def attributes(found: Task, arguments: Any) -> Chances:
    """Ask the untrained model with what is known about the items as triples, or as columns."""
    if "class" not in found.data.catalog.columns:
        return _untrained(found, arguments, found.data, "median_price_gbp")
    triples = [
        (item.item_id, relation, value)
        for item in found.data.catalog
        for relation, values in (
            ("genre", str(item.known.get("class", "")).split()),
            ("year", [str(item.known.get("release_year", ""))]),
        )
        for value in values
        if value
    ]
    names = ("head", "relation", "tail")
    table = pa.table({n: list(c) for n, c in zip(names, zip(*triples, strict=True), strict=True)})
    return _untrained(found, arguments, replace(found.data, triples=Triples(table)), "genre,year")


def _untrained(found: Task, arguments: Any, data: Dataset, names: str) -> Chances:
    """Return the answers of the untrained model, calibrated on the pairs to choose by."""
    from sklearn.linear_model import LogisticRegression

    ours, _ = resolve(found.settings)
    recommender = Recommender(
        data, arguments.model, threads=arguments.threads, log=print, item_attributes=names,
        template=ours.template, target_behavior=ours.target_behavior, values=ours.values,
    )  # fmt: skip
    task = dataclasses.replace(found, data=data)
    plain = answers(task, recommender)
    if not arguments.calibrate:
        return plain
    fit = answers(dataclasses.replace(task, asked=found.chosen_by), recommender)
    made = LogisticRegression(C=1e3).fit(_odds(fit)[:, None], [p.label for p in found.chosen_by])
    return np.asarray(made.predict_proba(_odds(plain)[:, None])[:, 1])


def _odds(chances: Chances) -> np.ndarray:
    kept = np.clip(chances, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(kept / (1 - kept)))


def tuned(found: Task, arguments: Any) -> Chances:
    """Train for the remaining minutes, and answer with the best checkpoint on validation."""
    place = arguments.out / f"run-{arguments.key}"
    if not (place / runs.RUN).is_file():
        left = arguments.minutes - _spent(place) / 60
        trainer.train(
            found.data, place, arguments.model, resume=place.is_dir(), threads=arguments.threads,
            max_minutes=max(left, 0.0), log=print, watch=lambda line: print(line, flush=True),
            **found.settings,
        )  # fmt: skip
    return answers(found, Recommender.load(place, found.data, threads=arguments.threads))


def _spent(place: Path) -> float:
    """Return the seconds of training up to the last checkpoint."""
    kept = runs.list_checkpoints(place)
    if not kept:
        return 0.0
    return float(json.loads((kept[-1] / "state.json").read_text())["progress"]["seconds"])


class Bert:
    """The packaged MiniLM as a classifier of (item, history)."""

    def __init__(self, found: Task, template: Any, scale: float | None) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = packaged.ensure("minilm", print)
        with quiet_transformers():
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=2, dtype=torch.float32, use_safetensors=True
            )
        self._data, self._template, self._scale = found.data, template, scale

    def texts(self, pair: Pair) -> tuple[str, str]:
        """Return the item's title and the history, latest first, so that the oldest events are cut."""
        events = self._data.interactions
        start = events.events(pair.user_id).start
        said = []
        for at in range(pair.first - 1, max(start, pair.first - 25) - 1, -1):
            event = events.interaction(at)
            verb = self._template.verb(event.behavior)
            title = (
                ""
                if event.item_id is None
                else self._data.catalog[int(events.columns.row[at])].title
            )
            value = (
                "" if self._scale is None else f" ({verb.format_value(event.value, self._scale)})"
            )
            said.append(f"{verb.past}: {title}{value}")
        return self._data.catalog[pair.row].title, "; ".join(said)

    def logits(self, pairs: Sequence[Pair]) -> torch.Tensor:
        items, histories = zip(*map(self.texts, pairs), strict=True)
        inputs = self.tokenizer(
            list(items), list(histories), truncation="only_second", max_length=BERT_TOKENS,
            padding=True, return_tensors="pt",
        )  # fmt: skip
        found: torch.Tensor = self.model(**inputs).logits
        return found

    def chances(self, pairs: Sequence[Pair]) -> Chances:
        self.model.eval()
        with torch.no_grad():
            parts = [
                torch.softmax(self.logits(pairs[i : i + 2 * BERT_BATCH]), dim=-1)[:, 1]
                for i in range(0, len(pairs), 2 * BERT_BATCH)
            ]
        return np.asarray(torch.cat(parts).double().numpy())


def bert(found: Task, arguments: Any) -> Chances:
    """Train for the given minutes, and answer with the best state on validation."""
    from genrec.prompts.template import Template

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    column = found.data.interactions.columns.value
    scale = float(np.nanmax(column)) if found.settings.get("values") else None
    ours = Bert(found, Template.load("would_like"), scale)
    optimizer = torch.optim.AdamW(ours.model.parameters(), lr=BERT_RATE)
    best, kept, seen = np.inf, copy.deepcopy(ours.model.state_dict()), 0
    budget, checks, began = arguments.minutes * 60, 1, time.monotonic()
    for batch in _batches(found.learned):
        ours.model.train()
        labels = torch.tensor([p.label for p in batch])
        loss = torch.nn.functional.cross_entropy(ours.logits(batch), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        spent = time.monotonic() - began
        seen += len(batch)
        if spent >= budget * checks / VALIDATIONS:
            checks += 1
            stated = ours.chances(found.chosen_by)
            value = pointwise.measure([p.label for p in found.chosen_by], stated)["log_loss"]
            print(f"bert: {seen} pairs, {spent:.0f} s, log loss {value:.4f}", flush=True)
            if value < best:
                best, kept = value, copy.deepcopy(ours.model.state_dict())
        if spent >= budget:
            break
    ours.model.load_state_dict(kept)
    return ours.chances(found.asked)


def _batches(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Yield batches without end, each pass in another order."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(pairs)).tolist()
        for i in range(0, len(order), BERT_BATCH):
            yield [pairs[j] for j in order[i : i + BERT_BATCH]]


SYSTEMS: dict[str, Callable[[Task, Any], Chances]] = {
    "constant": constant,
    "popularity": popularity,
    "item share": item_share,
    "untrained": untrained,
    "attributes": attributes,
    "tuned": tuned,
    "bert": bert,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=["ml-100k", "demo"])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each")
    parser.add_argument("--pairs", type=int, default=943, help="test pairs, about")
    parser.add_argument("--per-user", type=int, default=16, help="latest train pairs of a user")
    parser.add_argument("--eval-users", type=int, default=50, help="users in a validation")
    parser.add_argument("--eval-every", type=int, default=1000, help="pairs between validations")
    parser.add_argument(
        "--calibrate", action="store_true", help="calibrate the untrained model's answers"
    )
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "pointwise")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = task(arguments.set, arguments)
    state = [found.data.info.catalog_hash, found.settings, arguments.minutes, arguments.model]
    state += [[(p.event, p.row) for p in found.asked]]
    state += ["calibrated"] if arguments.calibrate else []
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]
    arguments.key = f"{arguments.set}-{key}"
    print(
        f"{arguments.set}: {len(found.learned):,} pairs to learn from, {len(found.chosen_by)} to "
        f"choose by, {len(found.asked)} asked ({found.labels.mean():.0%} yes), commit {commit()}",
        flush=True,
    )
    kept_chances: dict[str, np.ndarray] = {}
    lines = [f"| system | {' | '.join(METRICS)} | s |", "|---" * (len(METRICS) + 2) + "|"]
    for name in arguments.systems.split(","):
        if name == "item share" and found.settings.get("like_threshold") is None:
            continue
        path = arguments.out / f"{arguments.key}-{name.replace(' ', '-')}.json"
        if not path.is_file():
            began = time.monotonic()
            values = SYSTEMS[name](found, arguments)
            kept = {
                **pointwise.measure(found.labels, values), "seconds": time.monotonic() - began,
                "chances": values.tolist(), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
            }  # fmt: skip
            path.with_suffix(".new").write_text(json.dumps(kept))
            path.with_suffix(".new").replace(path)
        kept = json.loads(path.read_text())
        kept_chances[name] = np.array(kept["chances"])
        lines.append(
            f"| {name} | {' | '.join(f'{kept[m]:.4f}' for m in METRICS)} | {kept['seconds']:.0f} |"
        )
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))
    if {"untrained", "attributes"} <= set(kept_chances):
        both = [kept_chances[n] for n in ("untrained", "attributes")]
        losses = [-np.log(np.where(found.labels, p, 1 - p)) for p in both]
        hits = [((p > 0.5) == found.labels).astype(float) for p in both]
        gains = bootstrap(losses[0] - losses[1]), bootstrap(hits[1] - hits[0])
        print(f"\nattributes: log loss of untrained less theirs {gains[0]}, accuracy {gains[1]}")


if __name__ == "__main__":
    main()
