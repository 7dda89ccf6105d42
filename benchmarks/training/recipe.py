"""Compare training with the usual recipe, and its settings with each other. Resumable.

    python -m benchmarks.training.recipe speed --threads 1
    python -m benchmarks.training.recipe table --minutes 30 --users 300 --threads 1

``speed`` alternates our rows with transformers' Trainer over sliding windows (a prompt of the last 20 events,
one target each, the loss over the whole vocabulary), with the same model, adapter and data; steps after the
first of each turn are timed. ``table`` trains on train for the given minutes with each setting, and with the
usual recipe at our learning rate (a run of its own, kept by its result). It measures nats on validation
users, how many freely written texts are titles, and nats on items held out of the trie, all without a prior.
Runs are kept in .results/training.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.common import ROOT, commit
from genrec import Dataset, Recommender
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.events import History
from genrec.evaluation import bootstrap
from genrec.models.language_model import LanguageModel
from genrec.training import examples, hf_trainer, lora, objectives
from genrec.training.config import Training
from genrec.training.trainer import train

WINDOW = 20  # events before a target, in the usual recipe
CELLS: dict[str, dict[str, Any]] = {
    "tree, 0": {"basket": "tree", "vocab_weight": 0.0},
    "first, 0": {"basket": "first", "vocab_weight": 0.0},
    "as_is, 0": {"basket": "as_is", "vocab_weight": 0.0},
    "tree, 0.1": {"basket": "tree", "vocab_weight": 0.1},
    "tree, 1": {"basket": "tree", "vocab_weight": 1.0},
}
USUAL: dict[str, Any] = {"behaviors": ("buy",), "protocol": "demo-v1"}


class Windows(TorchDataset[dict[str, list[int]]]):
    """Windows of the usual recipe: one prompt of the last events and one target each."""

    def __init__(
        self,
        recommender: Recommender,
        data: Dataset,
        most: int,
        kept: Container[int] = range(10**9),
    ) -> None:
        events, c = data.interactions, data.interactions.columns
        titles = list(recommender.encoder.titles(data.catalog))
        self.examples: list[dict[str, list[int]]] = []
        for user in events.user_ids:
            where = events.events(user)
            places = where.start + np.flatnonzero((c.split[where] == 0) & (c.behavior[where] == 0))
            known = [events.interaction(i) for i in places.tolist()]
            for i, place in enumerate(places.tolist()):
                if int(c.row[place]) not in kept:
                    continue
                prompt = recommender.prompt(History(tuple(known[max(0, i - WINDOW) : i]))).ids
                title = titles[c.row[place]]
                self.examples.append(
                    {"input_ids": [*prompt, *title], "labels": [-100] * len(prompt) + [*title]}
                )
            if len(self.examples) >= most:
                break
        np.random.default_rng(0).shuffle(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]


class Clock(TrainerCallback):
    """Records the seconds of every step."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._at = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(time.perf_counter() - self._at)


class Counter(TrainerCallback):
    """Records the targets of every step."""

    def __init__(self, trainer: hf_trainer.LossTrainer) -> None:
        self._trainer = trainer
        self.targets: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seen, _ = self._trainer.take_counts()
        self.targets.append(float(seen[1]))


class Until(TrainerCallback):
    """Stops training after the given minutes."""

    def __init__(self, minutes: float) -> None:
        self._end = time.perf_counter() + 60 * minutes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = time.perf_counter() > self._end


def usual(
    model: LanguageModel,
    data: Windows,
    out: Path,
    batch: int,
    steps: int,
    rate: float,
    *beside: Any,
) -> int:
    """Train with the usual recipe; return the number of steps."""
    from transformers import DataCollatorForSeq2Seq

    arguments = TrainingArguments(
        output_dir=str(out), per_device_train_batch_size=batch, max_steps=steps, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, learning_rate=rate,
        lr_scheduler_type="constant", use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=False, bf16=model.device.type == "cuda",
    )  # fmt: skip
    tokenizer = model.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = Trainer(
        model=model.model,
        args=arguments,
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[*beside],
    )
    trainer.train()
    return int(trainer.state.global_step)


def theirs(model: LanguageModel, data: Windows, out: Path, batch: int, steps: int) -> float:
    """Measure the usual recipe's targets per second."""
    clock = Clock()
    usual(model, data, out, batch, steps, 1e-4, clock)
    return batch * (steps - 1) / sum(clock.steps[1:])


def ours(
    recommender: Recommender, data: Dataset, model: LanguageModel, recipe: Training, out: Path
) -> float:
    """Measure our targets per second."""
    found, paths = examples.make_examples(recommender, data, recipe)
    titles = list(recommender.encoder.titles(data.catalog))
    objective = objectives.NextItemObjective(found, paths, model, recipe, titles)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    clock = Clock()
    trainer = hf_trainer.build_trainer(objective, found, model, recipe, out, clock)
    counter = Counter(trainer)
    trainer.add_callback(counter)
    trainer.train()
    return sum(counter.targets[1:]) / sum(clock.steps[1:])


def speed(arguments: argparse.Namespace) -> None:
    data = load("online_retail_demo")
    base = LanguageModel.load(arguments.model, device=arguments.device, threads=arguments.threads)
    recommender = Recommender(data, base, prior="none")
    windows = Windows(recommender, data, 4000)
    print(f"{np.mean([len(e['input_ids']) for e in windows.examples]):.0f} tokens a window")
    plain = Training(lora_rank=8)
    tuned = LanguageModel(lora.add_adapter(base.model, plain), base.tokenizer)
    out = arguments.out / "speed"
    found: dict[str, list[float]] = {name: [] for name in ("usual", *CELLS)}
    for turn in range(arguments.turns):
        for name in found:
            if name == "usual":
                value = theirs(tuned, windows, out, arguments.batch, arguments.steps)
            else:
                recipe = Training(**USUAL, **CELLS[name], max_targets=1)
                per_step = examples.make_examples(recommender, data, recipe)[0]
                targets = per_step.n_targets / len(per_step) * arguments.steps
                recipe = Training(**USUAL, **CELLS[name], max_targets=round(targets))
                value = ours(recommender, data, tuned, recipe, out / "ours")
            found[name].append(value)
            print(f"turn {turn + 1}: {name}: {value:.2f} targets/s", flush=True)
    print(f"\ncommit {commit()}, {torch.get_num_threads()} threads, {tuned.describe()}\n")
    print("| rows | targets/s | against the usual |\n|---|---|---|")
    for name, values in found.items():
        ratios = np.array(values) / np.array(found["usual"])
        print(
            f"| {name} | {np.median(values):.2f} | {np.median(ratios):.1f} "
            f"({ratios.min():.1f} to {ratios.max():.1f}) |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\npeak memory of all together: {peak:.1f} GB")


def nats(recommender: Recommender, cases: Sequence[protocols.Case]) -> list[float]:
    """Return the nats of each user's next item over all items."""
    found = []
    for case in cases:
        (one,) = recommender.score(case.history.latest(protocols.EVENTS), [case.target])
        assert one.logprob is not None
        found.append(-one.logprob)
    return found


def written(recommender: Recommender, cases: Sequence[protocols.Case]) -> float:
    """Return the share of freely drawn texts that are catalog titles, word for word."""
    free = recommender.with_settings(n_samples=10, temperature=1.0)
    form = recommender.encoder.form
    titles = {form.render(t) for t in recommender.catalog.titles}
    texts = [g.text.strip() for case in cases for g in free.generate(case.history)]
    return float(np.mean([t in titles for t in texts]))


def table(arguments: argparse.Namespace) -> None:
    """Train and measure each cell, except those that are finished."""
    data = load("online_retail_demo")
    users = protocols.sample(protocols.cases(data, "demo-v1", "validation"), arguments.users)
    print("| baskets, λ | targets | nats | texts that are titles | held out |")
    print("|---|---|---|---|---|")
    for name, cell in (CELLS | {"usual": {}}).items():
        if arguments.cells and name not in arguments.cells:
            continue
        place = arguments.out / "table" / name.replace(", ", "-")
        result = place.with_name(f"{place.name}.json")  # a name may hold a point
        if not result.is_file():
            place.parent.mkdir(exist_ok=True)
            _cell(arguments, data, users, place, result, cell)
        values = json.loads(result.read_text(encoding="utf-8"))
        told = bootstrap.bootstrap(np.array(values["nats"]))
        print(
            f"| {name} | {values['targets']:,} | {told.mean:.3f} [{told.low:.3f}, {told.high:.3f}] "
            f"| {values['written']:.3f} | {values['held_out']:.3f} |",
            flush=True,
        )


def _cell(
    arguments: argparse.Namespace,
    data: Dataset,
    users: Sequence[protocols.Case],
    place: Path,
    result: Path,
    cell: dict[str, Any],
) -> None:
    """Train and measure one setting; an empty one is the usual recipe."""
    settings = {**USUAL, **cell, "holdout": 0.05, "eval_users": 0, "epochs": 20.0}
    settings |= {"schedule": "constant", "warmup": 0.003, "max_minutes": arguments.minutes}
    settings["tune_users"] = 0
    recipe = Training(**settings)
    kept = set(examples.choose_kept_rows(len(data.catalog), recipe).tolist())
    options = {"device": arguments.device, "threads": arguments.threads}
    if not cell:
        base = LanguageModel.load(arguments.model, **options)
        windows = Windows(Recommender(data, base, prior="none"), data, 10**9, kept)
        tuned = LanguageModel(lora.add_adapter(base.model, recipe), base.tokenizer)
        steps = len(windows) // arguments.batch
        rate, until = recipe.learning_rate, Until(arguments.minutes)
        steps = usual(tuned, windows, place, arguments.batch, steps, rate, until)
        tuned.model.eval()
        recommender, targets = Recommender(data, tuned, prior="none"), steps * arguments.batch
    else:
        if not (place / "run.json").is_file():
            shutil.rmtree(place, ignore_errors=True)
            train(
                data, place, arguments.model, log=lambda text: print(f"  {text}", flush=True),
                **options, **settings,
            )  # fmt: skip
        recommender = Recommender.load(place, data, prior="none", **options)
        assert recommender.run is not None
        targets = recommender.run.targets
    every = protocols.cases(data, "demo-v1", "validation")
    held = [c for c in every if data.catalog.row(c.target) not in kept]
    found = {
        "nats": nats(recommender, [c for c in users if data.catalog.row(c.target) in kept]),
        "held_out": float(np.mean(nats(recommender, held))),
        "held_out_users": len(held),
        "written": written(recommender, users[:30]),
        "targets": targets,
        "commit": commit(),
    }
    result.write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "table"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3, help="speed: alternating turns")
    parser.add_argument(
        "--steps", type=int, default=4, help="speed: steps a turn, the first untimed"
    )
    parser.add_argument("--batch", type=int, default=4, help="speed: windows a step, as usual")
    parser.add_argument("--minutes", type=float, default=30.0, help="table: of training each")
    parser.add_argument("--users", type=int, default=300, help="table: of validation")
    parser.add_argument("--cells", nargs="*", help="table: only these")
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "training")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    {"speed": speed, "table": table}[arguments.what](arguments)


if __name__ == "__main__":
    main()
