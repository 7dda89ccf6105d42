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

import functools
import json
import math
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from genrec import files, runs
from genrec.data.dataset import Dataset
from genrec.errors import ModelError, SettingsError
from genrec.extras import how_to_install
from genrec.models.language_model import LanguageModel
from genrec.models.quiet import quiet_transformers
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import Counts
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training.config import Training
from genrec.training.examples import Examples, build_paths
from genrec.training.loop import Watch
from genrec.training.objectives import NextItemObjective, Objective
from genrec.training.run_files import write_run, write_settings
from genrec.training.sequences import pack_rows
from genrec.training.time_plan import Stopwatch
from genrec.types import FloatArray, IntArray, Log

PRIOR_SHARE = 0.25  # the noise of the prior's counts is that of this share of epsilon alone
PRIOR_NORM = 5.0  # the norm to which a user's counts are clipped
ACCOUNTANT = "rdp"


@dataclass(frozen=True, slots=True)
class Privacy:
    """The guarantee of a run, and what it follows from.

    Attributes:
        epsilon, delta: the guarantee: whoever sees the run and all other users' events learns at most
            this much about whether a user was in the data.
        noise: the standard deviation of the noise of a step, as a multiple of ``clip``.
        clip: the norm to which a user's gradient is clipped.
        users: the number of users.
        rate: the probability with which a user is drawn in a step.
        steps: the number of steps.
        prior_noise: the standard deviation of the noise of the prior's counts, as a multiple of
            ``PRIOR_NORM``.
        accountant: the accountant that computed epsilon.
        unit: what is protected: all events of a user.
    """

    epsilon: float
    delta: float
    noise: float
    clip: float
    users: int
    rate: float
    steps: int
    prior_noise: float
    accountant: str = ACCOUNTANT
    unit: str = "user"


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


def without_measuring(training: Training, log: Log) -> Training:
    """Return settings without what would use validation users, since that would need privacy, too."""
    if training.eval_users or training.tune_users:
        log(
            "With --dp-epsilon, the model is not validated and the prior's weight is not fitted, because "
            "both would use users' events without noise."
        )
    return replace(training, eval_users=0, tune_users=0)


def by_user(examples: Examples, data: Dataset, most: int) -> tuple[Examples, IntArray]:
    """Pack the rows of each user by themselves.

    Args:
        examples: the examples.
        data: the dataset that they were made from.
        most: the maximum number of tokens in a pack.

    Returns:
        The examples with other packs, and the index of each pack's user, in ascending order.
    """
    user = data.interactions.columns.user
    owned: dict[int, list[int]] = {}
    for number, row in enumerate(examples.rows):
        owned.setdefault(int(user[row.event[0]]), []).append(number)
    packs: list[list[int]] = []
    owner: list[int] = []
    for index, name in enumerate(sorted(owned)):
        rows = owned[name]
        for pack in pack_rows([examples.rows[r] for r in rows], most):
            packs.append([rows[place] for place in pack])
            owner.append(index)
    return replace(examples, packs=packs), np.array(owner)


def plan(training: Training, examples: Examples, users: int) -> Privacy:
    """Find the noise with which a run reaches its epsilon.

    Args:
        training: the training settings.
        examples: the examples.
        users: the number of users with targets.

    Raises:
        SettingsError: epsilon or delta cannot be reached, or Opacus is not installed.
    """
    epsilon = training.dp_epsilon
    assert epsilon is not None
    rate = min(1.0, training.dp_users / users)
    passes = training.epochs
    if training.max_targets is not None:
        passes = training.max_targets / examples.n_targets
    steps = max(1, round(passes / rate))
    delta = training.dp_delta if training.dp_delta is not None else users**-1.1
    if not 0 < delta < 1 / users:
        msg = (
            f"dp_delta={delta:g} is not valid for {users:,} users. Expected a number above 0 and below "
            f"{1 / users:g}, which is one divided by the number of users."
        )
        raise SettingsError(msg)
    prior_noise = find_noise(PRIOR_SHARE * epsilon, delta, [(1.0, 1)])
    noise = find_noise(epsilon, delta, [(rate, steps)], [(prior_noise, 1.0, 1)])
    reached = epsilon_of([(noise, rate, steps), (prior_noise, 1.0, 1)], delta)
    return Privacy(reached, delta, noise, training.dp_clip, users, rate, steps, prior_noise)


def epsilon_of(history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """Return the epsilon of steps, each given as noise, rate and number, by the RDP accountant.

    Raises:
        SettingsError: Opacus is not installed.
    """
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise SettingsError(f"--dp-epsilon needs Opacus. {how_to_install('dp')}") from error
    accountant = RDPAccountant()
    accountant.history = [tuple(each) for each in history if each[2]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order is the largest one that is tried
        return float(accountant.get_epsilon(delta))


def find_noise(
    epsilon: float,
    delta: float,
    steps: Sequence[tuple[float, int]],
    others: Sequence[tuple[float, float, int]] = (),
) -> float:
    """Find the smallest noise, to within a thousandth, with which steps reach an epsilon.

    Args:
        epsilon: the guarantee.
        delta: the probability with which it may fail.
        steps: the rate and the number of the steps.
        others: further steps with their noise, which count towards epsilon.

    Raises:
        SettingsError: no noise is enough.
    """

    def reached(noise: float) -> float:
        return epsilon_of([*((noise, *each) for each in steps), *others], delta)

    low, high = 0.05, 0.1
    while reached(high) > epsilon:
        low, high = high, 2 * high
        if high > 1e4:
            msg = f"dp_epsilon={epsilon:g} cannot be reached with dp_delta={delta:g}. Raise dp_epsilon."
            raise SettingsError(msg)
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if reached(middle) > epsilon else (low, middle)
    return high


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
    """

    folder: Path
    training: Training
    written: Mapping[str, Any]
    stopwatch: Stopwatch
    watch: Watch
    log: Log


def train_privately(
    how: PrivatePlan,
    objective: Objective,
    examples: Examples,
    owner: IntArray,
    model: LanguageModel,
) -> tuple[Privacy, int, bool]:
    """Train an adapter; see the module's docstring.

    Args:
        how: the settings, the run folder and the functions that are told.
        objective: the objective, over these examples.
        examples: the examples, packed by user.
        owner: the index of the user of each pack.
        model: the model with its adapter.

    Returns:
        The guarantee for the steps that were done, the number of targets that were learned from, and True
        if all planned steps were done.

    Raises:
        SettingsError: the guarantee cannot be reached.
        ModelError: a weight is not finite.
    """
    training, stopwatch = how.training, how.stopwatch
    users = int(owner.max()) + 1
    planned = plan(training, examples, users)
    how.log(
        f"Differential privacy: epsilon {planned.epsilon:.3f} at delta {planned.delta:.2g} per user, noise "
        f"{planned.noise:.3f}, {planned.steps:,} steps with {planned.rate * users:.0f} of {users:,} users each"
    )
    packs = [np.flatnonzero(owner == user) for user in range(users)]
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
            own, many = add_user(objective, model.model, weights, packs[user], total, planned.clip)
            nats, targets = nats + own[0], targets + many
            tokens += sum(len(examples.rows[r].ids) for p in packs[user] for r in examples.packs[p])
            clipped += own[1] > planned.clip
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
        files.append_text(how.folder / runs.LOG, json.dumps(line) + "\n")
        how.watch(line)
    if not all(torch.isfinite(p).all() for p in weights):
        raise ModelError("A weight is not finite. Lower learning_rate or raise dp_epsilon.")
    history = [(planned.noise, planned.rate, done), (planned.prior_noise, 1.0, 1)]
    found = replace(planned, epsilon=epsilon_of(history, planned.delta), steps=done)
    return found, learned, done == planned.steps


def add_user(
    objective: Objective,
    model: Any,
    weights: Sequence[torch.nn.Parameter],
    packs: Sequence[int] | npt.NDArray[np.int64],
    total: Sequence[torch.Tensor],
    clip: float,
) -> tuple[tuple[float, float], int]:
    """Add the clipped gradient of one user's mean loss to a sum.

    Args:
        objective: the objective.
        model: the transformers model.
        weights: the weights that are trained.
        packs: the packs of the user.
        total: the sum for each weight, which is changed.
        clip: the norm to clip to.

    Returns:
        The sum of the user's losses in nats and the norm of the gradient before it was clipped, and the
        number of targets.
    """
    batches = [objective.batch([int(pack)]) for pack in packs]
    many = sum(len(batch["weight"]) for batch in batches)
    sum_of_nats = 0.0
    for p in weights:
        p.grad = None
    for batch in batches:
        nats, losses = objective.losses(model, batch)
        torch.autograd.backward(losses.sum() / many)
        sum_of_nats += float(nats.sum())
    squares = [float((p.grad**2).sum()) for p in weights if p.grad is not None]
    norm = math.sqrt(sum(squares))
    factor = min(1.0, clip / norm) if norm else 0.0
    for p, value in zip(weights, total, strict=True):
        if p.grad is not None:
            value += p.grad * factor
        p.grad = None
    return (sum_of_nats, norm), many


def noised_popularity(
    data: Dataset, behavior: str, before: str, noise: float
) -> CollaborativePrior:
    """Return a prior of popularity alone, from counts with noise.

    Each user's counts are clipped to the norm ``PRIOR_NORM``. The other sources of a prior are left out,
    because they need each user's items.

    Args:
        data: the dataset.
        behavior: the behavior to count.
        before: the first split whose events are not counted.
        noise: the standard deviation of the noise, as a multiple of ``PRIOR_NORM``.
    """
    from genrec.baselines.training_events import TrainingEvents

    events = TrainingEvents.of(data.interactions, behavior, before)
    clipped = clip_counts(events.user, events.row, len(data.catalog))
    source = np.random.default_rng(secrets.randbits(128))
    counts = np.maximum(clipped + source.normal(0, noise * PRIOR_NORM, len(clipped)), 0.0)
    return CollaborativePrior(
        replace(Counts.none(data.catalog), popularity=counts), {"popular": 1.0}, {}
    )


def clip_counts(user: IntArray, row: IntArray, items: int) -> FloatArray:
    """Sum the users' counts of items after clipping each user's counts to ``PRIOR_NORM``.

    >>> clip_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([1., 2.])
    """
    total = np.zeros(items)
    for one in np.unique(user):
        own = np.bincount(row[user == one], minlength=items)
        total += own * min(1.0, PRIOR_NORM / float(np.linalg.norm(own)))
    return total


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
    examples, owner = by_user(examples, recommender.dataset, training.pack_tokens)
    titles = list(recommender.encoder.titles(recommender.catalog))
    paths = build_paths(recommender, training, titles)
    objective = NextItemObjective(examples, paths, tuned, training, titles)
    write_settings(folder, how.written)
    found, learned, finished = train_privately(how, objective, examples, owner, tuned)
    run = replace(run, targets=learned, finished=finished, metrics={"privacy": asdict(found)})
    write_run(folder, run, recommender, training, functools.partial(write_adapter, tuned.model))
    prior = noised_popularity(
        recommender.dataset, recommender.behavior, training.before, found.prior_noise
    )
    prior.save(folder / runs.PRIOR)
    return run
