"""Compare what prompts show, in nats on validation: one table for a set, with and without the prior. Resumable.

    python -m benchmarks.accuracy.templates demo --users 100 --threads 1
    python -m benchmarks.accuracy.templates ml-100k --data DIR --targets 1500
    python -m benchmarks.accuracy.templates stackexchange --data DIR --targets 1500
    python -m benchmarks.accuracy.templates demo --run online_retail_demo --split test

DIR (or $GENREC_DATA) contains the folders of benchmarks.accuracy.public_datasets; demo is embedded in the package.

The nats of a target are minus the log of its probability among all items. Lower is better, and a uniform guess
has log(N). For each variant, nats of the model alone, and of the model fused with the prior by node, with a
temperature and a weight that were fitted to the other half of the users. ``gain`` is the nats of the usual form
(``next_item`` with the latest events) less those of the variant, paired: above zero, the variant helps. The prior
counts train, is the same for all variants, and reads the whole history. A variant that a set cannot show is a dash.

one verb           all behaviors are written with the same verb
target only        only events of the target behavior
gaps               the time since the event before, as a context of each event
context            season and country (demo), weekday and time of day (ml-100k), season and weekday
attributes         the items' attributes after their titles (--item-attributes)
profile            a line for events that are not shown (next_item_profile)
few-shot, near     two histories of other users, drawn at random or with the same items
opinions           what the user thought of an item: ratings of 4 and 5 liked, 1 and 2 disliked
values, sentence, chat, as given, ...   further forms (--forms)

The model is measured untrained; with --targets, an adapter is first trained on so many of train in the
usual form, and measured beside it; with --run, that run is measured instead. The shipped run has seen the validation
events, so it is measured with --split test. Nothing else looks at test. What was measured is kept in
.results/templates; run it again to continue.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.accuracy.knowledge import SETS
from benchmarks.accuracy.opinions import with_opinions
from benchmarks.common import ROOT, commit
from genrec import Dataset, History, LanguageModel, Recommender, runs
from genrec.data import protocols
from genrec.data.behaviors import templates_folder as shipped
from genrec.data.interactions import Interactions
from genrec.decoding.trie import TitleTrie
from genrec.evaluation.bootstrap import bootstrap
from genrec.evaluation.scoring_pass import ScoringPass, read_choices
from genrec.evaluation.tuning import fit_node
from genrec.priors.positions import PositionWeights
from genrec.types import FloatArray

USUAL = "next_item"
CONTEXT = {
    "demo": ("season", "country"), "ml-100k": ("weekday", "time_of_day"),
    "stackexchange": ("season", "weekday"),
}  # fmt: skip
DAY = 86_400.0
GAPS = ((60 / DAY, "at once"), (1, "the same day"), (7, "days later"), (30, "weeks later"))
Made = tuple[Dataset, dict[str, Any]] | None


class Sets:
    """The variants of a set: its dataset and settings for each."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.plain, self.attributes = SETS[name](folder)
        self.protocol = "demo-v1" if name == "demo" else protocols.default_protocol(self.plain)

    def make(self, form: str) -> Made:
        """Return the dataset and the settings of a form; None if the set cannot show it."""
        return FORMS[form](self)

    @cached_property
    def behaviors(self) -> int:
        return len(self.plain.interactions.behaviors) if self.protocol != "demo-v1" else 1

    def with_gaps(self) -> Made:
        """Return the dataset with a column that says in words how long each event's user was away."""
        events = self.plain.interactions
        if events.columns.timestamp.max() < 1e8:
            return None
        time, user = events.columns.timestamp, events.columns.user
        away = np.append(0.0, np.diff(time)) / DAY
        first = np.append(True, user[1:] != user[:-1])
        words = ["" if f else _gap(a) for f, a in zip(first.tolist(), away.tolist(), strict=True)]
        return self._with_column("gap", words).with_context(["gap"]), {}

    def _with_column(self, name: str, values: Sequence[str]) -> Dataset:
        table = self.plain.interactions.table
        own = table.attributes
        made = (
            pa.table({name: pa.array(values)})
            if own is None
            else own.append_column(name, pa.array(values))
        )
        events = Interactions(self.plain.catalog, replace(table, attributes=made))
        return replace(self.plain, interactions=events, folder=None)

    def one_verb(self) -> Made:
        if self.behaviors < 2:
            return None
        folder = Path(tempfile.mkdtemp()) / "prompts"
        (folder / "en").mkdir(parents=True)
        table = {b: {"past": "chose", "base": "choose"} for b in self.plain.interactions.behaviors}
        (folder / "en" / "verbs.json").write_text(json.dumps(table), encoding="utf-8")
        return self.plain, {"prompts": str(folder)}


def _gap(days: float) -> str:
    return next((word for most, word in GAPS if days < most), "months later")


def verbs(value: str) -> str:
    """Write a folder of prompts in which every value has this form."""
    folder = Path(tempfile.mkdtemp()) / "prompts"
    table = json.loads((shipped() / "en" / "verbs.json").read_text(encoding="utf-8"))
    (folder / "en").mkdir(parents=True)
    changed = {b: {**v, "value": value} for b, v in table.items() if "value" in v}
    (folder / "en" / "verbs.json").write_text(json.dumps(changed), encoding="utf-8")
    return str(folder)


def plainly(**settings: Any) -> Callable[[Sets], Made]:
    return lambda of: (of.plain, settings)


FORMS: dict[str, Callable[[Sets], Made]] = {
    USUAL: plainly(),
    "one verb": Sets.one_verb,
    "target only": lambda of: (of.plain, {}) if of.behaviors > 1 else None,
    "gaps": Sets.with_gaps,
    "context": lambda of: (of.plain.with_context(CONTEXT[of.name]), {}),
    "attributes": lambda of: (of.plain, {"item_attributes": ",".join(of.attributes)}),
    "profile": plainly(template="next_item_profile"),
    "few-shot": plainly(few_shot=2),
    "few-shot, near": plainly(few_shot=2, demonstrations="near"),
    "opinions": lambda of: (
        (with_opinions(of.plain), {"template": "next_item_opinions"})
        if of.name == "ml-100k" else None
    ),
    "values": plainly(values=True),
    "values, number": lambda of: (of.plain, {"values": True, "prompts": verbs("{value}")}),
    "values, words": lambda of: (
        of.plain, {"values": True, "prompts": verbs("{value} out of {scale}")},
    ),
    "sentence": plainly(template="sentence"),
    "as given": plainly(case="as_is"),
    "chat": plainly(template="chat"),
}  # fmt: skip
TABLE = list(FORMS)[:10]


class Measured:
    """The logits on the way to the targets of one variant, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, Any] = {}
        if path.is_file():
            with np.load(path) as arrays:
                self.kept = dict(arrays)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self.path.with_suffix(".new.npz"), **self.kept)
        self.path.with_suffix(".new.npz").replace(self.path)

    def get(self, user: str) -> ScoringPass | None:
        """Return the pass of a user, without the items that are not the target."""
        if f"{user} logits" not in self.kept:
            return None
        logits, mass, start, taken = (
            self.kept[f"{user} {n}"] for n in ("logits", "mass", "start", "taken")
        )
        one = np.zeros(1)
        above = np.append(-1, taken[:-1])
        return ScoringPass(
            logits, mass, start, above, np.zeros(1, np.int64), taken[-1:], one, one == 0
        )

    def put(self, user: str, found: ScoringPass) -> None:
        choices, taken = found.path()
        bounds = np.append(found.start, len(found.logits))
        parts = [slice(bounds[c], bounds[c + 1]) for c in choices.tolist()[::-1]]
        sizes = [p.stop - p.start for p in parts]
        start = np.cumsum([0, *sizes[:-1]])
        first = np.array([p.start for p in parts])
        self.kept[f"{user} logits"] = np.concatenate([found.logits[p] for p in parts])
        self.kept[f"{user} mass"] = np.concatenate([found.mass[p] for p in parts])
        self.kept[f"{user} start"] = start
        self.kept[f"{user} taken"] = start + taken[::-1] - first


def measure(
    of: Sets, model: LanguageModel, kept: Path, weights: Callable[[str], Any], arguments: Any
) -> None:
    """Measure all variants on the same users, and print the table."""
    names = [f for f in arguments.forms if f != USUAL]
    passes: dict[str, list[ScoringPass]] = {}
    print("| variant | model alone, nats | gain | with the prior, nats | gain | tokens |")
    print("|---|---|---|---|---|---|")
    for form in [USUAL, *names]:
        made = of.make(form)
        if made is None:
            print(f"| {form} | - | - | - | - | - |", flush=True)
            continue
        data, settings = made
        data = protocols.apply_protocol(data, of.protocol)
        cases = {
            str(c.history.user_id): c for c in protocols.cases(data, of.protocol, arguments.split)
        }
        known = protocols.withhold(data, arguments.split)
        recommender = Recommender(
            known, model, prior="none", max_events=arguments.max_events, **settings
        )
        held = Measured(kept / f"{form.replace(', ', '-').replace(' ', '-')}.npz")
        tokens = []
        for number, user in enumerate(arguments.sample):
            history, target = cases[user].history, cases[user].target
            if form == "target only":
                wanted = known.info.target_behavior
                history = history.with_events(
                    [e for e in history.interactions if e.behavior == wanted]
                )
            prompt = recommender.prompt(history)
            tokens.append(prompt.n_tokens)
            if held.get(user) is None:
                trie = recommender.trie
                assert isinstance(trie, TitleTrie)
                place = trie.find_positions(np.array([recommender.catalog.row(target)]))
                prior = PositionWeights([weights(user)], trie)
                one = np.zeros(1)
                tree = recommender.token_tree(prompt)
                held.put(user, read_choices(trie, tree, prior, place, one, one == 0))
                if number % 10 == 9:
                    held.save()
        held.save()
        passes[form] = [p for u in arguments.sample if (p := held.get(u)) is not None]
        alone, fused = nats(passes[form])
        base = nats(passes[USUAL])
        print(
            f"| {form} | {bootstrap(alone)} | {bootstrap(base[0] - alone)} | {bootstrap(fused)} | "
            f"{bootstrap(base[1] - fused)} | {np.mean(tokens):.0f} |",
            flush=True,
        )


def nats(passes: Sequence[ScoringPass]) -> tuple[FloatArray, FloatArray]:
    """Return the nats of the model alone, and fused with weights fitted to the other half."""
    alone = np.array([-p.logprobs(1.0, 0.0)[0] for p in passes])
    fused = np.empty(len(passes))
    for half in (0, 1):
        a, b, _ = fit_node(passes[1 - half :: 2])
        fused[half::2] = [-p.logprobs(a, b)[0] for p in passes[half::2]]
    return alone, fused


def train(of: Sets, arguments: Any) -> Path:
    """Train an adapter in the usual form, unless this was done."""
    from genrec.training import trainer

    place: Path = arguments.out / f"run-{of.name}-{arguments.targets}"
    if not (place / runs.RUN).is_file():
        trainer.train(
            of.plain, place, arguments.model, resume=place.is_dir(), threads=arguments.threads,
            protocol=of.protocol, max_targets=arguments.targets, eval_users=0, tune_users=0,
            max_events=arguments.max_events, log=print,
            behaviors=("buy",) if of.name == "demo" else None,
        )  # fmt: skip
    return place


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(CONTEXT))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--max-events", type=int, default=10)
    parser.add_argument("--targets", type=int, default=0, help="of the training, 0 for none")
    parser.add_argument("--run", default=None, help="measure this run only")
    parser.add_argument("--split", default="validation", choices=["validation", "test"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forms", nargs="+", default=TABLE, choices=list(FORMS))
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "templates")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    of = Sets(arguments.set, arguments.data)
    data = protocols.apply_protocol(of.plain, of.protocol)
    every = protocols.cases(data, of.protocol, arguments.split)
    cases = protocols.sample(every, arguments.users, seed=1)
    arguments.sample = [str(c.history.user_id) for c in cases]
    histories: dict[str, History] = {str(c.history.user_id): c.history for c in cases}
    print(
        f"{arguments.set}, {of.protocol}, {len(cases)} users of {arguments.split}, the latest "
        f"{arguments.max_events} events, uniform {np.log(len(data.catalog)):.3f} nats, commit {commit()}",
        flush=True,
    )
    models: dict[str, Callable[[], LanguageModel]] = {}
    load = LanguageModel.load
    if arguments.run is None:
        models["untrained"] = lambda: load(arguments.model, threads=arguments.threads)
        if arguments.targets:
            models[f"tuned on {arguments.targets} targets"] = lambda: LanguageModel.of_run(
                train(of, arguments), threads=arguments.threads
            )
    else:
        folder = runs.find_run(arguments.run)
        models[f"run {arguments.run}"] = lambda: LanguageModel.of_run(
            folder, threads=arguments.threads
        )
    base: Recommender | None = None

    def weights(user: str) -> Any:
        """Return the weights of the prior, which is fitted when they are first needed."""
        nonlocal base
        if base is None:
            base = Recommender(
                protocols.withhold(data, arguments.split), arguments.model, prior="collaborative",
                prior_events="train" if arguments.split == "validation" else "train+validation",
                threads=arguments.threads,
            )  # fmt: skip
        assert base.prior is not None
        return base.prior.weights(histories[user])

    for name, make in models.items():
        model = make()
        print(f"\n{name}: {model.describe()}\n", flush=True)
        label = f"{of.name}-{arguments.split}-{name.replace(' ', '-')}-{arguments.max_events}"
        measure(of, model, arguments.out / label, weights, arguments)


if __name__ == "__main__":
    main()
