"""Train an adapter with differential privacy per user (DP-SGD), in plain PyTorch.

In each step, every user is drawn with the same probability, independently of the others. The gradient of
each drawn user is computed by itself, over all the user's targets, and clipped to a norm; Gaussian noise
is added to the sum (Abadi et al. 2016, "Deep Learning with Differential Privacy"). So one user, with all
events, is one example, and the guarantee is about adding or removing a user. Opacus computes the noise
and the epsilon with its RDP accountant; its engine is not used, since hooks on the layers of an adapter
have trained nothing without an error (https://github.com/meta-pytorch/opacus/issues/820), and a loop over
users needs none.

The random numbers come from the operating system's entropy and not from the seed, as whoever knew the
noise could subtract it. PyTorch's generator is not cryptographically secure.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec import files, runs
from genrec.data.dataset import Dataset
from genrec.errors import ModelError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.models.quiet import quiet_transformers
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training import accountant
from genrec.training.accountant import Privacy
from genrec.training.config import Training
from genrec.training.examples import Examples, build_paths, mark_shown
from genrec.training.frozen_blocks import FrozenBlocks, States
from genrec.training.loop import Watch
from genrec.training.lora import find_blocks
from genrec.training.objectives import NextItemObjective, Objective
from genrec.training.private_prior import noised_popularity
from genrec.training.run_files import write_run, write_settings
from genrec.training.time_plan import Stopwatch
from genrec.types import Log


def check_settings(training: Training) -> None:
    """Check that a run with these settings can be private.

    Raises:
        SettingsError: a setting would let events into the run without noise, or cannot be used.
    """
    wrong = {
        "objective": training.objective != "next",
        "examples": training.examples is not None,
        "lora_rank": not training.lora_rank,
        "dora": training.dora,
        "recency_half_life": training.recency_half_life is not None,
        "popularity_strength": bool(training.popularity_strength),
        "behavior_weights": bool(training.behavior_weights),
        "quantize": training.quantize != "none",
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        msg = (
            f"dp_epsilon does not work with {found[0]}={getattr(training, found[0])!r}. Expected an "
            "adapter (lora_rank of at least 1, without dora and quantize), objective='next' and no "
            "weights of targets."
        )
        raise SettingsError(msg)


def check_users(data: Dataset, training: Training) -> None:
    """Check, before anything slow, that no more users are drawn than there are.

    Raises:
        SettingsError: ``dp_users`` is more than the number of users with events to learn from.
    """
    users = len(np.unique(data.interactions.columns.user[mark_shown(data, training)]))
    if training.dp_users > users:
        msg = (
            f"dp_users={training.dp_users:,} is more than the {users:,} users to learn from. Expected at most "
            f"{users:,}, and far fewer for a stronger guarantee."
        )
        raise SettingsError(msg)


def without_measuring(training: Training, log: Log) -> Training:
    """Return settings without what would use validation users, since that would need privacy, too."""
    if training.eval_users or training.tune_users:
        log(
            "With --dp-epsilon, the model is not validated and the prior's weight is not fitted, because "
            "both would use users' events without noise."
        )
    return replace(training, eval_users=0, tune_users=0)


def with_short_rows(training: Training) -> Training:
    """Return settings whose rows have at most ``dp_tokens`` tokens if the training is private."""
    if training.dp_epsilon is None:
        return training
    return replace(training, pack_tokens=training.dp_tokens)


@contextlib.contextmanager
def naming_its_setting(training: Training) -> Iterator[None]:
    """Name ``dp_tokens`` in errors about the size of rows if the training is private."""
    try:
        yield
    except SettingsError as error:
        if training.dp_epsilon is None:
            raise
        raise SettingsError(str(error).replace("pack_tokens", "dp_tokens")) from error


def one_row_each(examples: Examples, data: Dataset) -> Examples:
    """Keep one row per user, the one with the most targets, as a pack of its own.

    Args:
        examples: the examples.
        data: the dataset that they were made from.

    Returns:
        The examples, whose rows and packs are in the order of the users.
    """
    user = data.interactions.columns.user
    best: dict[int, int] = {}
    for number, row in enumerate(examples.rows):
        one = int(user[row.event[0]])
        if one not in best or len(row.item) >= len(examples.rows[best[one]].item):
            best[one] = number
    chosen = [best[one] for one in sorted(best)]
    rows = [examples.rows[number] for number in chosen]
    weights = [examples.weights[number] for number in chosen]
    return Examples(rows, weights, [[index] for index in range(len(rows))])


@dataclass(frozen=True, slots=True)
class PrivatePlan:
    """What a private training needs beside its model and its examples.

    Attributes:
        folder: the run folder.
        training: the training settings.
        written: all settings of the run, by name, as they are written.
        stopwatch: measures the time that ``max_minutes`` limits.
        watch: a function that is called with each line of the log.
        log: a function that is called with a line of text before slow steps.
        states: what frozen blocks have computed, to share it with other trainings.
    """

    folder: Path
    training: Training
    written: Mapping[str, Any]
    stopwatch: Stopwatch
    watch: Watch
    log: Log
    states: States = field(default_factory=States)


def train_privately(
    how: PrivatePlan, objective: Objective, examples: Examples, model: LanguageModel
) -> tuple[Privacy, bool]:
    """Train an adapter; see the module's docstring.

    Args:
        how: the settings, the run folder and the functions that are told.
        objective: the objective, over these examples.
        examples: the examples, with one pack per user.
        model: the model with its adapter.

    Returns:
        The guarantee for the steps that were done, and True if all planned steps were done.

    Raises:
        SettingsError: the guarantee cannot be reached.
        ModelError: a weight is not finite.
    """
    training, stopwatch = how.training, how.stopwatch
    users = len(examples.packs)
    planned = accountant.plan(training, examples.n_targets, users)
    how.log(
        f"Differential privacy: epsilon {planned.epsilon:.3f} at delta {planned.delta:.2g} per user, noise "
        f"{planned.noise:.3f}, {planned.steps:,} steps with {planned.rate * users:.0f} of {users:,} users each"
    )
    frozen = FrozenBlocks(find_blocks(model.model), how.states)
    weights = [p for p in model.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=training.learning_rate, weight_decay=training.weight_decay
    )
    source = torch.Generator().manual_seed(secrets.randbits(63))
    limit = math.inf if training.max_minutes is None else 60 * training.max_minutes
    learned = done = 0
    began = last = stopwatch.now()
    model.model.train()
    for step in range(1, planned.steps + 1):
        if stopwatch.seconds > limit:
            break
        drawn = torch.rand(users, generator=source) < planned.rate
        total = [torch.zeros_like(p) for p in weights]
        nats, targets, tokens, clipped = 0.0, 0, 0, 0
        for user in drawn.nonzero().flatten().tolist():
            batch = objective.batch([user])
            with frozen.reading(key_of(batch)):
                own, norm = add_user(objective, model.model, weights, batch, total, planned.clip)
            nats, targets = nats + float(own.sum()), targets + len(own)
            tokens += len(examples.rows[user].ids)
            clipped += norm > planned.clip
        for p, value in zip(weights, total, strict=True):
            noise = torch.randn(p.shape, generator=source) * planned.noise * planned.clip
            p.grad = (value + noise.to(value)) / (planned.rate * users)
        optimizer.step()
        optimizer.zero_grad()
        learned, done = learned + targets, step
        seconds = stopwatch.now() - began
        line = {
            "step": step,
            "targets": learned,
            "of": round(learned / step * planned.steps),
            "nats": nats / max(targets, 1),
            "learning_rate": training.learning_rate,
            "targets_per_second": targets / max(stopwatch.now() - last, 1e-9),
            "tokens_per_second": tokens / max(stopwatch.now() - last, 1e-9),
            "seconds": round(seconds, 1),
            "elapsed": round(stopwatch.seconds, 1),
            "remaining": round(seconds / step * (planned.steps - step), 1),
            "users": int(drawn.sum()),
            "clipped": clipped / max(int(drawn.sum()), 1),
        }
        last = stopwatch.now()
        files.append_text(how.folder / runs.UNSHARED / runs.LOG, json.dumps(line) + "\n")
        how.watch(line)
    if not all(torch.isfinite(p).all() for p in weights):
        raise ModelError("A weight is not finite. Lower learning_rate or raise dp_epsilon.")
    history = [(planned.noise, planned.rate, done), (planned.prior_noise, 1.0, 1)]
    found = replace(planned, epsilon=accountant.epsilon_of(history, planned.delta), steps=done)
    return found, done == planned.steps


def key_of(batch: Mapping[str, torch.Tensor]) -> bytes:
    """Return a hash of the tokens of a batch and of what they attend to."""
    digest = hashlib.sha256()
    for name in ("input_ids", "position_ids", "limit", "branch", "document"):
        digest.update(batch[name].cpu().numpy().tobytes())
    return digest.digest()


def add_user(
    objective: Objective,
    model: Any,
    weights: Sequence[torch.nn.Parameter],
    batch: Mapping[str, torch.Tensor],
    total: Sequence[torch.Tensor],
    clip: float,
) -> tuple[torch.Tensor, float]:
    """Add the clipped gradient of one user's mean loss to a sum.

    Args:
        objective: the objective.
        model: the transformers model.
        weights: the weights that are trained.
        batch: the batch of the user's row.
        total: the sum for each weight, which is changed.
        clip: the norm to clip to.

    Returns:
        The user's losses in nats, and the norm of the gradient before it was clipped.
    """
    for p in weights:
        p.grad = None
    nats, losses = objective.losses(model, batch)
    torch.autograd.backward(losses.mean())
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in weights if p.grad is not None))
    factor = min(1.0, clip / norm) if norm else 0.0
    for p, value in zip(weights, total, strict=True):
        if p.grad is not None:
            value += p.grad * factor
        p.grad = None
    return nats, norm


def write_adapter(model: Any, folder: Path) -> None:
    """Write an adapter to a folder, without PEFT's empty model card."""
    with quiet_transformers():
        model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)


def train_run(
    how: PrivatePlan, run: Run, recommender: Recommender, examples: Examples, tuned: LanguageModel
) -> Run:
    """Train with differential privacy, and write the run folder; see the module's docstring.

    Args:
        how: the settings, the run folder and the functions that are told.
        run: the contents of ``run.json`` before the training.
        recommender: the recommender on the training data.
        examples: the examples.
        tuned: the model with its adapter.

    Raises:
        SettingsError: the guarantee cannot be reached.
        ModelError: a weight is not finite, or a file cannot be written.
    """
    assert recommender.dataset is not None
    training, folder = how.training, how.folder
    examples = one_row_each(examples, recommender.dataset)
    titles = list(recommender.encoder.titles(recommender.catalog))
    paths = build_paths(recommender, training, titles)
    objective = NextItemObjective(examples, paths, tuned, training, titles)
    write_settings(folder, how.written)
    unshared = folder / runs.UNSHARED
    unshared.mkdir()
    found, finished = train_privately(how, objective, examples, tuned)
    expected = round(found.rate * found.users * found.steps)  # the real number is not for others
    run = replace(run, targets=expected, finished=finished, metrics={"privacy": asdict(found)})
    save = functools.partial(write_adapter, tuned.model)
    write_run(folder, run, recommender, training, save, unshared)
    prior = noised_popularity(
        recommender.dataset, recommender.behavior, training.before, found.prior_noise
    )
    prior.save(folder / runs.PRIOR)
    return run
