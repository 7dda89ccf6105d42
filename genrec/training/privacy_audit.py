"""Test whether a run shows who it was trained on: membership inference.

For each user, the attack compares how well the trained model and its base model predict the user's
events: the mean of log P under the run minus log P under the base model. Memorized users get a higher
value (Yeom et al. 2018, "Privacy Risk in Machine Learning"; the base model takes the part of the reference
model of Carlini et al. 2022, "Membership Inference Attacks From First Principles"). Members are users whose
events were trained on. Non-members are users of the same kind who were held out (``holdout_users``), or users
of another dataset with the same catalog.

With shadow adapters (``shadows``), each user's loss is also compared with the losses under adapters that saw
the user, or did not. Every result is a lower bound: a stronger attack may find more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec import runs
from genrec.config import Settings
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.errors import DataError, ModelError, SettingsError
from genrec.evaluation.bootstrap import Interval
from genrec.models.language_model import LanguageModel
from genrec.models.quiet import quiet_transformers
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training.config import Training
from genrec.training.examples import Examples, make_examples, mark_held_out, mark_shown
from genrec.training.frozen_blocks import FrozenBlocks, States
from genrec.training.lora import find_blocks
from genrec.training.objectives import NextItemObjective
from genrec.training.private import key_of, one_row_each
from genrec.training.shadows import AuditOptions, Shadows, calibrate, of_users, train_shadows
from genrec.types import BoolArray, FloatArray, IntArray, Log

HELD_OUT, OUTSIDE = "held out", "another dataset"
LEAST = 20  # the minimum number of users on each side
DRAWS = 2_000  # the number of bootstrap resamples
FPR = 0.01  # the false positive rate at which the true positive rate is reported


@dataclass(frozen=True, slots=True)
class PrivacyAudit:
    """The result of a membership inference attack on a run.

    Attributes:
        run: the folder of the run.
        members, non_members: the number of users on each side.
        chosen: where the non-members come from: ``held out`` or ``another dataset``.
        events: the mean number of targets of a member and of a non-member.
        gains: the mean gain over the base model in nats per target, of members and of non-members.
        auc: the area under the ROC curve with its 95% interval: the probability that a member has a
            higher gain than a non-member; .5 is chance.
        tpr: the share of members that are found at a false positive rate of 1%, with its interval;
            .01 is chance.
        shadows: the number of shadow adapters; 0 for none.
        attacks: the AUC and the TPR of the attacks with shadows, by name; see ``shadows.calibrate``.
    """

    run: str
    members: int
    non_members: int
    chosen: str
    events: tuple[float, float]
    gains: tuple[float, float]
    auc: Interval
    tpr: Interval
    shadows: int = 0
    attacks: Mapping[str, tuple[Interval, Interval]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """A sentence that says what the figures mean."""
        found = [(self.auc, self.tpr), *self.attacks.values()]
        if any(auc.low > 0.5 or tpr.low > FPR for auc, tpr in found):
            return (
                "The run shows to some degree who was trained on: members can be told from non-members better "
                "than by chance."
            )
        return (
            f"{'These attacks' if self.attacks else 'This attack'} cannot tell members from non-members beyond "
            "chance. A stronger attack may find more."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a dictionary that can be written as JSON."""
        return {
            "schema_version": 1,
            **asdict(self),
            "events": list(self.events),
            "gains": list(self.gains),
            "attacks": {
                name: {"auc": asdict(auc), "tpr": asdict(tpr)}
                for name, (auc, tpr) in self.attacks.items()
            },
            "verdict": self.verdict,
        }


def audit_privacy(
    run: str | Path,
    data: Dataset,
    options: AuditOptions | None = None,
    *,
    outside: Dataset | None = None,
    shadows: Shadows | None = None,
    log: Log = lambda message: None,
) -> PrivacyAudit:
    """Attack a run by membership inference; see the module's docstring.

    Args:
        run: the run folder, or the name of a dataset that a run was shipped with.
        data: the dataset that it was trained on.
        options: how many users to compare, and what to read of them; None for the defaults.
        outside: a dataset of other users with the same catalog; None to use the users whom the run held
            out.
        shadows: how many shadow adapters to train, and where; None for none.
        log: a function that is called with a line of text before each slow step.

    Raises:
        SettingsError: there are no non-members, or the run cannot be attacked in this way.
        ModelError: the run or its model cannot be loaded, or it was trained on other data.
        DataError: the other dataset has another catalog, or there are too few users.
    """
    options = options or AuditOptions()
    users, tokens, threads, seed = options.users, options.tokens, options.threads, options.seed
    folder = runs.find_run(run)
    trained = Run.read(folder)
    training = Training(**{**trained.training, "behaviors": _tuple(trained.training["behaviors"])})
    settings = Settings(**{**trained.settings, "prior": "none"})
    if training.objective != "next" or settings.recent is not None or not training.lora_rank:
        msg = (
            f"{folder} cannot be audited: expected a run with an adapter (lora_rank of at least 1) that "
            "predicts the next item with full attention."
        )
        raise SettingsError(msg)
    data = protocols.apply_protocol(data, training.protocol or protocols.default_protocol(data))
    if not trained.data_fingerprint:
        log(f"{folder} does not say which data it was trained on; see its folder {runs.UNSHARED}.")
    elif protocols.fingerprint(data) != trained.data_fingerprint:
        msg = (
            f"{folder} was trained on another dataset than {data.info.name}. Expected the dataset that it "
            "was trained on."
        )
        raise ModelError(msg)
    rng = np.random.default_rng(seed)
    inside = _users_of(data, replace(training, holdout_users=0.0))
    held_out = _held_out(data, training)
    if outside is None:
        if not held_out:
            msg = (
                f"{folder} was trained on all users, so there are no non-members to compare with. Train a run "
                "with --holdout-users 0.2, or give a dataset of other users with --outside DIR."
            )
            raise SettingsError(msg)
        others, chosen = sorted(held_out & inside), HELD_OUT
        theirs = data
    else:
        if outside.catalog.hash() != trained.catalog_hash:
            msg = (
                f"{outside.info.name} has another catalog than the run. Expected the same items: prepare it "
                "with the same --items."
            )
            raise DataError(msg)
        protocol = training.protocol or protocols.default_protocol(data)
        theirs = protocols.apply_protocol(outside, protocol)
        known = set(data.interactions.user_ids)
        others = sorted(_users_of(theirs, replace(training, holdout_users=0.0)) - known)
        chosen = OUTSIDE
    mine = sorted(inside - held_out)
    if min(len(mine), len(others)) < LEAST:
        msg = (
            f"There are {len(mine):,} members and {len(others):,} non-members with events. Expected at "
            f"least {LEAST} of each."
        )
        raise DataError(msg)
    if shadows is not None and outside is not None:
        msg = "Shadows are trained on the dataset itself. Expected --holdout-users in the run, not --outside."
        raise SettingsError(msg)
    mine, others = (
        [names[i] for i in rng.permutation(len(names))[:users].tolist()] for names in (mine, others)
    )
    places: list[Path] = []
    seen: dict[str, BoolArray] = {}
    if shadows is not None:
        everyone = sorted(inside)
        places, halves = train_shadows(trained, data, everyone, shadows, options, log)
        seen = {name: halves[:, place] for place, name in enumerate(everyone)}
    log(f"Loading {trained.base_model} ...")
    if tokens is None and training.dp_epsilon is not None:
        tokens = training.dp_tokens
    scorer = _Scorer(trained, training, settings, tokens, threads, options.states)
    log(f"Comparing {len(mine):,} members with {len(others):,} non-members ...")
    ours, their = scorer.read(data, mine), scorer.read(theirs, others)
    one, base_one = scorer.losses(ours, folder, base=True)
    other, base_other = scorer.losses(their, folder, base=True)
    one_gain, other_gain = base_one - one, base_other - other
    auc, tpr = intervals_of(one_gain, other_gain, rng)
    attacks = {}
    if places:
        log(f"Comparing them with {len(places)} shadows ...")
        under = np.array(
            [np.concatenate([scorer.losses(r, p)[0] for r in (ours, their)]) for p in places]
        )
        mask = np.stack([seen[name] for name in (*ours.names, *their.names)], axis=1)
        scores = calibrate(np.concatenate([one, other]), under, mask)
        attacks = {
            name: intervals_of(values[: len(one)], values[len(one) :], rng)
            for name, values in scores.items()
        }
    return PrivacyAudit(
        str(run), len(one), len(other), chosen,
        (float(ours.targets.mean()), float(their.targets.mean())),
        (float(one_gain.mean()), float(other_gain.mean())), auc, tpr, len(places), attacks,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Read:
    """The events of U users as rows for a model.

    Attributes:
        examples: the rows, in packs.
        objective: the objective over them.
        user: for each pack, the index of the user of each of its targets.
        names: the users with targets.
        targets: (U,) the number of targets of each of them.
    """

    examples: Examples
    objective: NextItemObjective
    user: Sequence[IntArray]
    names: tuple[str, ...]
    targets: IntArray


class _Scorer:
    """Computes how well adapters of the same base model predict users' events."""

    def __init__(
        self,
        run: Run,
        training: Training,
        settings: Settings,
        tokens: int | None,
        threads: int | None,
        states: States,
    ) -> None:
        self._run, self._settings, self._tokens = run, settings, tokens
        self._training = replace(
            training,
            holdout_users=0.0,
            max_targets=None,
            pack_tokens=training.pack_tokens if tokens is None else tokens,
        )
        base = LanguageModel.load(run.base_model, device="cpu", dtype="float32", threads=threads)
        run.check(base=base.fingerprint(), kept=base.kept_fingerprint())
        base.model.requires_grad_(False)
        self._base, self._states = base, states

    def read(self, data: Dataset, users: Sequence[str]) -> _Read:
        """Turn the events of users into rows."""
        part = of_users(data, users)
        ours = Recommender(part, self._base, **asdict(self._settings))
        self._run.check(template=ours.template.hash, encoder=ours.encoder.hash)
        titles = list(ours.encoder.titles(ours.catalog))
        examples, paths = make_examples(ours, part, self._training, None, titles)
        if self._tokens is not None:
            examples = one_row_each(examples, part)
        objective = NextItemObjective(examples, paths, self._base, self._training, titles)
        owner = part.interactions.columns.user
        events = [np.concatenate([examples.rows[r].event for r in rows]) for rows in examples.packs]
        counts = np.bincount(
            owner[np.concatenate(events)], minlength=len(part.interactions.user_ids)
        )
        known = np.flatnonzero(counts)
        names = tuple(part.interactions.user_ids[code] for code in known.tolist())
        place = np.full(len(counts), -1)
        place[known] = np.arange(len(known))
        return _Read(examples, objective, [place[owner[e]] for e in events], names, counts[known])

    def losses(
        self, read: _Read, folder: Path, *, base: bool = False
    ) -> tuple[FloatArray, FloatArray]:
        """Return each user's mean loss in nats per target under a run, and under the base model.

        The second one is computed only if ``base`` is True.
        """
        with quiet_transformers():
            from peft import PeftModel

            tuned = PeftModel.from_pretrained(
                self._base.model, str(folder / runs.ADAPTER), is_trainable=True
            ).eval()
        frozen = FrozenBlocks(find_blocks(tuned), self._states)
        after, before = np.zeros(len(read.names)), np.zeros(len(read.names))
        for pack, user in enumerate(read.user):
            inputs = read.objective.batch([pack])
            key = key_of(inputs)
            with torch.no_grad():
                with frozen.reading(key):
                    nats, _ = read.objective.losses(tuned, inputs)
                after += np.bincount(user, nats.double().numpy(), len(after))
                if base:
                    with tuned.disable_adapter(), frozen.reading(key):
                        nats, _ = read.objective.losses(tuned, inputs)
                    before += np.bincount(user, nats.double().numpy(), len(before))
        tuned.unload()
        self._base.model.requires_grad_(False)
        return after / read.targets, before / read.targets


def area_under_curve(members: FloatArray, others: FloatArray) -> float:
    """Return the probability that a member's value is higher than another's; ties count half.

    >>> area_under_curve(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    order = np.sort(others)
    below = np.searchsorted(order, members, "left") + np.searchsorted(order, members, "right")
    return float(below.mean() / (2 * len(others)))


def true_positive_rate(members: FloatArray, others: FloatArray, fpr: float = FPR) -> float:
    """Return the share of members above the value that at most a share of ``fpr`` of others exceeds.

    >>> true_positive_rate(np.array([1.0, 5.0]), np.array([0.0, 2.0]), 0.0)
    0.5
    """
    order = np.sort(others)[::-1]
    limit = order[min(int(fpr * len(order)), len(order) - 1)]
    return float((members > limit).mean())


def intervals_of(
    members: FloatArray, others: FloatArray, rng: np.random.Generator
) -> tuple[Interval, Interval]:
    """Return the AUC and the TPR at 1% FPR with 95% intervals; both sides are resampled."""
    drawn = []
    for _ in range(DRAWS):
        one, other = (v[rng.integers(0, len(v), len(v))] for v in (members, others))
        drawn.append((area_under_curve(one, other), true_positive_rate(one, other)))
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    found = area_under_curve(members, others), true_positive_rate(members, others)
    auc, tpr = (Interval(*map(float, each)) for each in zip(found, low, high, strict=True))
    return auc, tpr


def _users_of(data: Dataset, training: Training) -> set[str]:
    """Return the users who have events that training shows."""
    codes = np.unique(data.interactions.columns.user[mark_shown(data, training)])
    return {data.interactions.user_ids[code] for code in codes.tolist()}


def _held_out(data: Dataset, training: Training) -> set[str]:
    if not training.holdout_users:
        return set()
    codes = np.unique(data.interactions.columns.user[mark_held_out(data.interactions, training)])
    return {data.interactions.user_ids[code] for code in codes.tolist()}


def _tuple(values: Any) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
