"""Train shadow adapters, which show how a run would treat each user if it had, or had not, seen that user.

A shadow is trained with the settings of the audited run on a random half of the users (Carlini et al. 2022,
"Membership Inference Attacks From First Principles"). The shadows come in pairs: the second of a pair is
trained on the other half, so that each user is seen by exactly half of the shadows. An attacker who knows
people like those in the data, and how the run was trained, can do the same.

Each shadow is a run folder of its own. Finished ones are used again. One that was interrupted continues from
its last checkpoint, or starts over if it is private, since a private training cannot be continued.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genrec import runs
from genrec.data.dataset import Dataset
from genrec.data.ingest import EventOptions, ingest
from genrec.data.interactions import Interactions
from genrec.errors import SettingsError
from genrec.files import write_text
from genrec.models.language_model import LanguageModel
from genrec.runs import Run
from genrec.training.config import Training
from genrec.training.frozen_blocks import States
from genrec.training.trainer import train
from genrec.types import BoolArray, FloatArray, Log

SPREAD = 1e-3  # the least standard deviation of losses in nats, so that no division is by zero
ABOUT = "shadows.json"


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Options of a membership inference attack.

    Attributes:
        users: the largest number of members and of non-members, which are random samples.
        tokens: read only one window of events per user, the one with the most targets of those with at
            most so many tokens; None to read all events, or for a private run the window that it was
            trained on.
        threads: see ``LanguageModel.load``.
        seed: the random seed of the samples, of the shadows and of the bootstrap.
        states: what frozen blocks have computed; see ``genrec.training.trainer.train``.
    """

    users: int = 200
    tokens: int | None = None
    threads: int | None = None
    seed: int = 0
    states: States = field(default_factory=States)


@dataclass(frozen=True, slots=True)
class Shadows:
    """How many shadow adapters an audit trains, and where.

    Attributes:
        folder: the folder for the shadows, of which finished ones are used again.
        many: the number of shadows, which must be even.
        minutes: the time limit for one shadow.
    """

    folder: Path
    many: int = 4
    minutes: float = 30.0


def of_users(data: Dataset, users: Sequence[str]) -> Dataset:
    """Return a dataset with the events of some users only."""
    table, wanted = data.interactions.to_table(), set(users)
    kept = table.filter(pa.array([user in wanted for user in table["user_id"].to_pylist()]))
    unit = "none" if data.interactions.unit_ids is None else "unit"
    events = ingest(kept, data.catalog, EventOptions(time_unit="position", unit=unit)).events
    found = Dataset(data.catalog, Interactions(data.catalog, events), data.info)
    return found.with_context(data.info.context)


def draw_halves(users: int, many: int, seed: int) -> BoolArray:
    """Decide which users each shadow sees: (many, users), each user in exactly half of them.

    >>> draw_halves(4, 2, 0).sum(axis=0).tolist()
    [1, 1, 1, 1]
    """
    rng = np.random.default_rng(seed)
    seen = np.zeros((many, users), dtype=np.bool_)
    for pair in range(many // 2):
        seen[2 * pair, rng.permutation(users)[: users // 2]] = True
        seen[2 * pair + 1] = ~seen[2 * pair]
    return seen


def train_shadows(
    run: Run,
    data: Dataset,
    users: Sequence[str],
    shadows: Shadows,
    options: AuditOptions,
    log: Log = lambda message: None,
) -> tuple[list[Path], BoolArray]:
    """Train the shadows that are not there yet.

    Args:
        run: the audited run.
        data: the dataset that it was trained on.
        users: the users from whom the halves are drawn: those of the run and those it held out.
        shadows: how many shadows to train, and where.
        options: the options of the attack, for its seed and threads.
        log: a function that is called with a line of text before each slow step.

    Returns:
        The run folders of the shadows, and which of the users each of them saw, as a (many, users) mask.

    Raises:
        SettingsError: the number of shadows is odd, or the folder has shadows of another run.
    """
    many, folder = shadows.many, shadows.folder
    if many < 2 or many % 2:
        msg = f"shadows={many} is not valid. Expected an even number of at least 2, such as 4."
        raise SettingsError(msg)
    seen = draw_halves(len(users), many, options.seed)
    _check(folder, run, options.seed)
    training = shadow_settings(run, len(users) // 2, shadows.minutes)
    places = []
    for number in range(many):
        place = folder / f"shadow-{number + 1}"
        places.append(place)
        if (place / runs.RUN).is_file():
            log(f"{place} is used again.")
            continue
        mine = [user for user, is_seen in zip(users, seen[number], strict=True) if is_seen]
        log(f"Training shadow {number + 1} of {many} on {len(mine):,} users ...")
        if training.dp_epsilon is not None and place.is_dir():
            shutil.rmtree(place)
        base = LanguageModel.load(
            run.base_model, device="cpu", dtype="float32", threads=options.threads
        )
        found = train(
            of_users(data, mine),
            place,
            base,
            resume=(place / runs.SETTINGS).is_file(),
            log=log,
            states=options.states,
            **{**_prompt(run), **asdict(training)},
        )
        replace(found, parts=(run.data_fingerprint,)).write(place)  # so `genrec erase` knows it
    return places, seen


def shadow_settings(run: Run, users: int, minutes: float) -> Training:
    """Return the settings for a shadow that takes about as many steps as the run.

    Args:
        run: the audited run.
        users: the number of users that the shadow is trained on.
        minutes: the time limit.
    """
    values = dict(run.training)
    if values.get("behaviors") is not None:
        values["behaviors"] = tuple(values["behaviors"])
    training = Training(**values)
    training = replace(
        training,
        holdout_users=0.0,
        eval_users=0,
        tune_users=0,
        max_minutes=minutes,
        report_to="none",
    )
    private: Any = run.metrics.get("privacy")
    if private is None:
        return replace(training, max_targets=run.targets)
    drawn = max(1, round(private["rate"] * users))  # so each user is seen as often
    epochs = private["steps"] * drawn / users
    return replace(training, dp_users=drawn, max_targets=None, epochs=epochs, dp_delta=None)


def _prompt(run: Run) -> dict[str, Any]:
    """Return the settings of a run's recommender, by name, except the seed, which training has, too."""
    left_out = {"seed", "case", "context_columns"}
    return {name: value for name, value in run.settings.items() if name not in left_out}


def _check(folder: Path, run: Run, seed: int) -> None:
    """Check that a folder has no shadows of another run, and note whose shadows it has."""
    about = {
        "data": run.data_fingerprint,
        "training": json.loads(json.dumps(run.training)),
        "seed": seed,
    }
    path = folder / ABOUT
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != about:
        msg = (
            f"{folder} has the shadows of another run. Expected a new folder, or that of the same run and "
            "seed. Choose another --shadow-dir."
        )
        raise SettingsError(msg)
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(about, indent=1) + "\n")


def calibrate(losses: FloatArray, shadows: FloatArray, seen: BoolArray) -> dict[str, FloatArray]:
    """Score how much each user looks like a member, given the losses under shadows.

    All losses are centered first, since a shadow is trained on fewer users than the run. ``difference`` is the
    mean loss under the shadows that did not see the user, minus the loss under the run (Watson et al. 2022,
    "On the Importance of Difficulty Calibration in Membership Inference Attacks"). ``likelihood`` is the
    logarithm of the ratio of two normal densities of the loss, around the mean loss under the shadows that saw
    the user and around that under the others, with one variance for all users, as Carlini et al. (2022)
    advise for few shadows.

    Args:
        losses: (U,) each user's mean loss in nats under the run.
        shadows: (S, U) the same under each shadow.
        seen: (S, U) which users each shadow saw; half of the shadows saw each user.

    Returns:
        For each attack, (U,) values that are higher for members.
    """
    own = losses - losses.mean()
    other = shadows - shadows.mean(axis=1, keepdims=True)
    means = {
        w: np.where(seen == w, other, 0.0).sum(axis=0) / (seen == w).sum(axis=0)
        for w in (True, False)
    }
    around = {}
    for which, mean in means.items():
        apart = np.where(seen == which, other - mean, 0.0)
        free = max(int(((seen == which).sum(axis=0) - 1).sum()), 1)
        around[which] = max(float(np.sqrt((apart**2).sum() / free)), SPREAD)
    inside, outside = (
        -(((own - means[w]) / around[w]) ** 2) / 2 - np.log(around[w]) for w in (True, False)
    )
    return {"difference": means[False] - own, "likelihood": inside - outside}
