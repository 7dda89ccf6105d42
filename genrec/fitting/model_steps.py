"""Find out whether the language model improves the lists of the prior, with or without an adapter."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec import runs
from genrec.cache import digest_code
from genrec.config import FEATURE, FUSE
from genrec.data import protocols
from genrec.data.dataset import TUNED, Dataset
from genrec.errors import GenrecError
from genrec.evaluation import tuning
from genrec.evaluation.bootstrap import bootstrap
from genrec.evaluation.scoring_pass import ScoringPass
from genrec.files import lock_folder
from genrec.fitting.budget import Budget, TimeUpError
from genrec.fitting.halves import Half
from genrec.fitting.report import DRAWS, ENOUGH, Step
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.tuned import Tuned
from genrec.recommender import Recommender
from genrec.types import FloatArray, Log

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel

LEAST_TRAINING = 10.0  # minutes; a shorter training is not worth its time
_RESERVED = 0.15  # the share of the remaining time that is kept for fitting an adapter's weights
_TUNED = "fit-model"  # the kind of results in the dataset's cache
_LEAST_TUNING = 30.0  # seconds; with less time, the model is not asked


@dataclass
class ModelResult:
    """What was found about the model.

    Attributes:
        steps: what was tried.
        role: what the model is used for, as in ``Tuned``; ``auto`` if this is not known.
        run: the run folder of an adapter that improves the lists; None if there is none.
    """

    steps: list[Step] = field(default_factory=list)
    role: str = "auto"
    run: Path | None = None


class ModelSteps:
    """The steps of ``genrec fit`` that need a language model."""

    def __init__(
        self,
        dataset: Dataset,
        halves: tuple[Half, Half] | None,
        budget: Budget,
        threads: int | None,
        log: Log,
        settings: Mapping[str, Any],
    ) -> None:
        """Store what the steps need.

        Args:
            dataset: the dataset, with its folder.
            halves: the halves of the validation users, or None if there are none.
            budget: the time limit.
            threads: the number of threads; None for the default.
            log: a function that is called with a line of text before each slow step.
            settings: the settings of the recommender.
        """
        self.dataset, self.halves, self.budget = dataset, halves, budget
        self.threads, self.log, self.settings = threads, log, settings

    def run(
        self, model: str | PathLike[str] | LanguageModel | None, run: Path | None
    ) -> ModelResult:
        """Fit the weights and the role of the model, and train an adapter if it has no part yet.

        Args:
            model: the model, or None.
            run: the run folder for an adapter, or None.
        """
        result = ModelResult()
        if model is None:
            result.steps.append(Step("model", False, "No model was given."))
            return result
        users = 0 if self.halves is None else sum(len(half.cases) for half in self.halves)
        if users < ENOUGH:
            why = f"{users} validation users are too few to show anything (at least {ENOUGH})."
            result.steps.append(Step("model", False, why))
            return result

        def load() -> Recommender:
            given = fspath(model) if isinstance(model, PathLike) else model
            return Recommender(
                self.dataset, given, threads=self.threads, log=self.log, **self.settings
            )

        step, tuned = self._tune("model", load, self.dataset.folder)
        result.steps.append(step)
        result.role = "auto" if tuned is None else tuned.role
        adapter = self._adapter(model, run, used=step.kept)
        result.steps.append(adapter[0])
        if adapter[1] is not None and adapter[0].kept:
            result.role, result.run = adapter[1].role, run
        return result

    def _tune(
        self, name: str, load: Callable[[], Recommender], folder: Path | None
    ) -> tuple[Step, Tuned | None]:
        """Fit the weights of the prior and the role of the model, and save them to a folder.

        They are fitted on users that the parts of the prior were not fitted to.

        Args:
            name: the name of the step.
            load: a function that loads the recommender.
            folder: the dataset folder, or a run folder.
        """
        assert self.halves is not None
        assert folder is not None
        if self.budget.left < _LEAST_TUNING:
            return Step(name, False, "No time is left. Use a higher --minutes."), None
        began = time.monotonic()
        half = self.halves[0]
        try:
            recommender = load().for_tuning()
            about = self._about(recommender, half)
            found = self.dataset.cache.read(_TUNED, about)
            if found is not None:
                tuned = Tuned(**json.loads(found[1]["tuned"]))
                self._save(recommender, tuned, folder)
                step = Step.from_dict(json.loads(found[1]["step"]))
                return replace(step, reused=True), tuned
            self.log("Fitting the weight of the prior and the role of the model ...")
            passes = tuning.collect(
                recommender,
                tuning.HeldOut(half.known, half.cases),
                seed=recommender.settings.seed,
                going=lambda done: self.budget.left > 0,
            )
            tuned = tuning.fit_fusion(recommender, passes)
            self._save(recommender, tuned, folder)
        except TimeUpError:
            return Step(name, False, "It was stopped at the time limit."), None
        except GenrecError as error:
            return Step(name, False, str(error)), None
        step = _describe(name, tuned, passes, time.monotonic() - began)
        if len(passes) == min(len(half.cases), tuning.USERS):
            told = {"tuned": json.dumps(asdict(tuned)), "step": json.dumps(asdict(step))}
            self.dataset.cache.write(_TUNED, about, {}, told)
        return step, tuned

    def _save(self, recommender: Recommender, tuned: Tuned, folder: Path) -> None:
        with lock_folder(folder, wait=60):
            if recommender.run is None:
                tuned.save(folder / TUNED)
                return
            prior = recommender.with_settings(prior="collaborative").prior
            assert isinstance(prior, CollaborativePrior)
            tuned.save_with_prior(folder, prior)

    def _about(self, recommender: Recommender, half: Half) -> dict[str, object]:
        """Describe everything that the fitted weights depend on."""
        return {
            "key": recommender.tuning_key(),
            "model": recommender.model.fingerprint(),
            "events": protocols.fingerprint(half.known),
            "users": [case.user_id for case in half.cases],
            "settings": repr(sorted(self.settings.items())),
            "code": digest_code(
                "data", "matching", "baselines", "priors", "decoding", "models", "prompts",
                "evaluation", "fitting", "config.py",
            ),
        }  # fmt: skip

    def _adapter(
        self, model: str | PathLike[str] | LanguageModel, run: Path | None, *, used: bool
    ) -> tuple[Step, Tuned | None]:
        """Train an adapter with the time that is left, if there is need of it."""
        name = "adapter"
        if run is None:
            return Step(name, False, "Give --run RUN to train an adapter."), None
        if used:
            return Step(name, False, "The model improves the lists without one."), None
        if not isinstance(model, str | PathLike):
            return Step(name, False, "A loaded model is not trained. Give its name instead."), None
        finished = (run / runs.RUN).is_file() and runs.Run.read(run).finished
        minutes = self.budget.left * (1 - _RESERVED) / 60
        if not finished and minutes < LEAST_TRAINING:
            why = f"There are less than {LEAST_TRAINING:g} minutes left. Use a higher --minutes."
            return Step(name, False, why), None
        began = time.monotonic()
        try:
            if not finished:
                self._train(fspath(model), run, minutes)
        except TimeUpError:
            why = "It was stopped at the time limit. Run the command again to continue it."
            return Step(name, False, why), None
        except GenrecError as error:
            return Step(name, False, str(error)), None

        def load() -> Recommender:
            return Recommender.load(
                run, self.dataset, threads=self.threads, log=self.log, **self.settings
            )

        step, tuned = self._tune(name, load, run)
        seconds = round(time.monotonic() - began, 1)
        return replace(step, seconds=seconds, reused=finished), tuned

    def _train(self, model: str, run: Path, minutes: float) -> None:
        from genrec.training import trainer

        limit = None if minutes == float("inf") else minutes
        trainer.train(
            self.dataset,
            run,
            model,
            resume=run.is_dir() and (run / runs.SETTINGS).is_file(),
            threads=self.threads,
            log=self.log,
            max_minutes=limit,
            tune_users=0,
            **self.settings,
        )


def _describe(name: str, tuned: Tuned, passes: list[ScoringPass], seconds: float) -> Step:
    """Describe what the model adds to the prior, on users that the weights were not fitted to."""
    if len(passes) < 2:
        return Step(name, False, "There was time for too few users.", len(passes))
    ours = (FEATURE, FEATURE) if tuned.role == FEATURE else (tuned.fusion, "node")
    scores: dict[str, list[FloatArray]] = {"prior": [each.prior for each in passes]}
    for kind in (tuning.POWER, *ours):
        scores[kind] = [np.empty(0)] * len(passes)
    halves = (passes[::2], passes[1::2])
    for first, (own, other) in enumerate((halves, halves[::-1])):
        for kind, values in tuning.fused_scores(other, own).items():
            if kind in scores:
                scores[kind][first::2] = values
    ndcg, base = (tuning.ndcg(passes, scores[k]) for k in (ours[0], "prior"))
    nats, power = (np.array([-v[0] for v in scores[k]]) for k in (ours[1], tuning.POWER))
    why = {
        FUSE: "It ranks items together with the prior, since the targets become more probable.",
        FEATURE: "It ranks the prior's best items again, since the targets become more probable.",
        "auto": f"{len(passes)} users are too few to show anything (at least {ENOUGH}).",
    }.get(tuned.role, "It does not improve the lists, so it is used for explanations only.")
    return Step(
        name, tuned.role in {FUSE, FEATURE}, why, len(passes), bootstrap(ndcg, draws=DRAWS),
        bootstrap(nats, draws=DRAWS), bootstrap(ndcg - base, draws=DRAWS),
        bootstrap(power - nats, draws=DRAWS), "the prior alone", round(seconds, 1),
    )  # fmt: skip
