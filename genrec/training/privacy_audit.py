"""Test whether a run shows who it was trained on: membership inference.

For each user, the attack compares how well the trained model and its base model predict the user's
events: the mean of log P under the run minus log P under the base model. Memorized users get a higher
value (Yeom et al. 2018, "Privacy Risk in Machine Learning"; the base model takes the part of the reference
model of Carlini et al. 2022, "Membership Inference Attacks From First Principles"). Members are users whose
events were trained on. Non-members are users of the same kind who were held out (``holdout_users``), or users
of another dataset with the same catalog.

This attacker has no shadow models, so the result is a lower bound: a stronger attack may find more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec import runs
from genrec.config import Settings
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.ingest import EventOptions, ingest
from genrec.data.interactions import Interactions
from genrec.errors import DataError, ModelError, SettingsError
from genrec.evaluation.bootstrap import Interval
from genrec.models.language_model import LanguageModel
from genrec.models.quiet import quiet_transformers
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training.config import Training
from genrec.training.examples import make_examples, mark_held_out, mark_shown
from genrec.training.objectives import NextItemObjective
from genrec.types import FloatArray, Log

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
    """

    run: str
    members: int
    non_members: int
    chosen: str
    events: tuple[float, float]
    gains: tuple[float, float]
    auc: Interval
    tpr: Interval

    @property
    def verdict(self) -> str:
        """A sentence that says what the figures mean."""
        if self.auc.low > 0.5 or self.tpr.low > FPR:
            return (
                "The run shows to some degree who was trained on: members can be told from non-members better "
                "than by chance."
            )
        return (
            "This attack cannot tell members from non-members beyond chance. A stronger attack may find "
            "more."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a dictionary that can be written as JSON."""
        return {
            "schema_version": 1,
            **asdict(self),
            "events": list(self.events),
            "gains": list(self.gains),
            "verdict": self.verdict,
        }


def audit_privacy(
    run: str | Path,
    data: Dataset,
    *,
    outside: Dataset | None = None,
    users: int = 200,
    threads: int | None = None,
    seed: int = 0,
    log: Log = lambda message: None,
) -> PrivacyAudit:
    """Attack a run by membership inference; see the module's docstring.

    Args:
        run: the run folder, or the name of a dataset that a run was shipped with.
        data: the dataset that it was trained on.
        outside: a dataset of other users with the same catalog; None to use the users whom the run held
            out.
        users: the largest number of members and of non-members, which are random samples.
        threads: see ``LanguageModel.load``.
        seed: the random seed of the samples and of the bootstrap.
        log: a function that is called with a line of text before each slow step.

    Raises:
        SettingsError: there are no non-members, or the run cannot be attacked in this way.
        ModelError: the run or its model cannot be loaded, or it was trained on other data.
        DataError: the other dataset has another catalog, or there are too few users.
    """
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
    if protocols.fingerprint(data) != trained.data_fingerprint:
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
    mine, others = (
        [names[i] for i in rng.permutation(len(names))[:users].tolist()] for names in (mine, others)
    )
    log(f"Loading {trained.base_model} ...")
    scorer = _Scorer(folder, trained, training, settings, threads)
    log(f"Comparing {len(mine):,} members with {len(others):,} non-members ...")
    one, many = scorer.gains(data, mine)
    other, fewer = scorer.gains(theirs, others)
    auc, tpr = intervals_of(one, other, rng)
    return PrivacyAudit(
        str(run), len(one), len(other), chosen,
        (float(many.mean()), float(fewer.mean())), (float(one.mean()), float(other.mean())), auc, tpr,
    )  # fmt: skip


class _Scorer:
    """Computes how much better a run predicts users' events than its base model."""

    def __init__(
        self, folder: Path, run: Run, training: Training, settings: Settings, threads: int | None
    ) -> None:
        self._run, self._training, self._settings = run, training, settings
        base = LanguageModel.load(run.base_model, device="cpu", dtype="float32", threads=threads)
        run.check(base=base.fingerprint(), kept=base.kept_fingerprint())
        self._base = base
        with quiet_transformers():
            from peft import PeftModel

            tuned = PeftModel.from_pretrained(base.model, str(folder / runs.ADAPTER))
        self._tuned = LanguageModel(tuned.eval(), base.tokenizer, name=base.name)

    def gains(self, data: Dataset, users: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Return each user's mean gain in nats per target, and the number of targets."""
        part = of_users(data, users)
        ours = Recommender(part, self._base, **asdict(self._settings))
        self._run.check(template=ours.template.hash, encoder=ours.encoder.hash)
        training = replace(self._training, holdout_users=0.0, max_targets=None)
        titles = list(ours.encoder.titles(ours.catalog))
        examples, paths = make_examples(ours, part, training, None, titles)
        objective = NextItemObjective(examples, paths, self._tuned, training, titles)
        n = len(part.interactions.user_ids)
        sums, counts = np.zeros(n), np.zeros(n)
        for pack, rows in enumerate(examples.packs):
            inputs = objective.batch([pack])
            with torch.no_grad():
                after, _ = objective.losses(self._tuned.model, inputs)
                with self._tuned.model.disable_adapter():
                    before, _ = objective.losses(self._tuned.model, inputs)
            events = np.concatenate([examples.rows[row].event for row in rows])
            user = part.interactions.columns.user[events]
            sums += np.bincount(user, (before - after).double().numpy(), n)
            counts += np.bincount(user, minlength=n)
        known = counts > 0
        return sums[known] / counts[known], counts[known]


def of_users(data: Dataset, users: Sequence[str]) -> Dataset:
    """Return a dataset with the events of some users only."""
    table, wanted = data.interactions.to_table(), set(users)
    import pyarrow as pa

    kept = table.filter(pa.array([user in wanted for user in table["user_id"].to_pylist()]))
    unit = "none" if data.interactions.unit_ids is None else "unit"
    events = ingest(kept, data.catalog, EventOptions(time_unit="position", unit=unit)).events
    found = Dataset(data.catalog, Interactions(data.catalog, events), data.info)
    return found.with_context(data.info.context)


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
