"""Fit the weight of the prior at the end of a training run, so that the run is used with it.

The result is the same as with ``genrec tune --run``, but the trained model is already loaded.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from genrec import runs
from genrec.data import protocols
from genrec.data.dataset import TUNED, Dataset
from genrec.errors import GenrecError
from genrec.evaluation import tuning
from genrec.models.language_model import LanguageModel
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.tuned import Tuned
from genrec.recommender import Recommender
from genrec.runs import Run
from genrec.training.config import Training
from genrec.training.time_plan import Stopwatch, TimePlan
from genrec.types import Log

_WRITTEN = 100e6  # bytes that a disk is expected to write per second


@dataclass(frozen=True)
class WeightFit:
    """The fit of the prior's weight at the end of a run.

    Attributes:
        folder: the run folder, which is complete except for these weights.
        data: the dataset, as the user will load it.
        training: the training settings.
        since: the earlier run if the run was trained on new events, otherwise None.
        log: a function that is called with a line of text before each slow step.
    """

    folder: Path
    data: Dataset
    training: Training
    since: str | Path | None
    log: Log

    @property
    def obstacle(self) -> str:
        """The reason why the weight of the prior cannot be fitted; empty if it can."""
        if self.training.objective != "next":
            return "the run answers yes-or-no questions, which need no prior"
        if not self.training.tune_users:
            return "tune_users is 0"
        if self.training.before == "test":
            return "the run was also trained on the validation part (--fit both)"
        return ""

    def plan_time(
        self, model: LanguageModel, stopwatch: Stopwatch, recommender: Recommender
    ) -> TimePlan:
        """Plan the time of the run, including the fit at its end.

        If there is a time limit, events are counted for the prior now, not at the end of the run.

        Args:
            model: the model to train.
            stopwatch: the stopwatch, started when the command began.
            recommender: a recommender on the training data.
        """
        limit = None if self.training.max_minutes is None else 60 * self.training.max_minutes
        trained = sum(p.nbytes for p in model.model.parameters() if p.requires_grad)
        saving = 0.2 + 3 * trained / _WRITTEN  # the weights and two moments of the optimizer
        fits = not self.obstacle and self.since is None
        users = self.training.tune_users if fits else 0
        plan = TimePlan(stopwatch, limit, fit_users=users, saving=saving)
        if users and plan.limited and plan.left > 0:
            self.log("Counting the prior ...")
            began = stopwatch.now()
            with contextlib.suppress(GenrecError):  # the fit will say why there is no prior
                assert recommender.dataset is not None
                known = protocols.withhold(recommender.dataset, "validation")  # as in ``tune``
                _ = recommender.with_settings(
                    data=known, prior="collaborative", prior_events="train"
                ).prior
                _ = recommender.with_settings(data=self.data, prior="collaborative").prior
            plan.preparing = 0.0 if self.data.folder else stopwatch.now() - began
        return plan

    def skip(self, run: Run, reason: str) -> Run:
        """Return the run with a note of the reason why the weight was not fitted."""
        return replace(run, metrics={**run.metrics, "not_tuned": reason})

    def run(self, run: Run, model: LanguageModel, time: TimePlan) -> Run:
        """Fit the weights, write them to the run folder, and return the run with the results.

        If the weights cannot be fitted, the returned run gives the reason.

        Args:
            run: the contents of ``run.json``.
            model: the trained model, with the weights of the run.
            time: the time plan of the run.
        """
        if self.obstacle:
            return self.skip(run, self.obstacle)
        if not time.may_fit():
            return self.skip(run, "the time limit was reached")
        users = self.training.tune_users
        name = f"{run.base_model} tuned as {runs.run_name(self.folder)}"
        model = LanguageModel(model.model, model.tokenizer, name=name)
        try:
            recommender = Recommender.load(self.folder, self.data, model=model, log=self.log)
            if self.since is not None:
                return self._take_over(run, recommender, self.since)
            most = f"up to {users:,}" if time.limited else f"{users:,}"
            self.log(f"Fitting the weight of the prior on {most} validation users ...")
            with torch.no_grad():
                tuned = tuning.tune(
                    recommender,
                    users=users,
                    protocol=self.training.protocol,
                    seed=recommender.settings.seed,
                    going=time.may_fit,
                )
            tuned.save_with_prior(self.folder, _prior(recommender))
        except GenrecError as error:  # the run itself is complete
            return self.skip(run, str(error))
        figures = {k: v for k, v in asdict(tuned).items() if k not in {"key", "model"}}
        return replace(run, metrics={**run.metrics, "tuned": figures})

    def _take_over(self, run: Run, recommender: Recommender, since: str | Path) -> Run:
        """Reuse the earlier run's weights, because new events leave no users to validate on."""
        tuned = Tuned.load(runs.find_run(since) / TUNED, recommender.tuning_key())
        if tuned is None:
            return self.skip(
                run,
                f"the run was trained on new events, and the earlier run {since} has no fitted weights",
            )
        self.log(f"The weights of the prior are those of {since}.")
        tuned.save_with_prior(self.folder, _prior(recommender))
        return replace(run, metrics={**run.metrics, "tuned_before": str(since)})


def _prior(recommender: Recommender) -> CollaborativePrior:
    """Return the prior that the run is used with."""
    prior = recommender.with_settings(prior="collaborative").prior
    assert isinstance(prior, CollaborativePrior)
    return prior
