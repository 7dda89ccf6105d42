"""Find the parts that make the best lists for a dataset: the work of ``genrec fit``.

The steps are: the collaborative prior, further sources for it, a learned ranking of its best items,
a sequence network whose scores the ranking uses, the role of the language model, and an adapter for
it. Each part is kept only if it improves the lists of validation users that it was not fitted to
(see ``halves``). Every step keeps its results, so that a second run continues where the first one
was interrupted.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.cache import digest_code, package_versions
from genrec.config import Settings
from genrec.data import protocols
from genrec.data.dataset import FITTED, Dataset
from genrec.errors import GenrecError, SettingsError
from genrec.evaluation.bootstrap import bootstrap
from genrec.files import lock_folder
from genrec.fitting.budget import Budget, TimeUpError
from genrec.fitting.halves import Measured, divide, score
from genrec.fitting.networks import plan_network, reading_seconds
from genrec.fitting.report import DRAWS, ENOUGH, FitReport, Step, compare
from genrec.matching.vectors import LANGUAGE_MODEL
from genrec.models.packaged import DEFAULT_MODEL
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.fitted import Fitted, Parts
from genrec.priors.fusion import build_prior, count_events
from genrec.priors.rank_fit import CUTS, MAX_TRAIN, MAX_VALIDATION
from genrec.priors.ranking import why_unavailable
from genrec.text import quantity
from genrec.types import Log

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel

MINUTES = 30.0  # the default time limit
USERS = 3000  # maximum number of validation users to measure
SOURCES = ("userknn",)  # further sources to try
# The networks to try, and what their item vectors start from, if not from the default: MODEL stands
# for the hidden states of the language model.
MODEL = "model"
# The cheapest one comes first: random vectors need no encoder, and neither start was shown to be better.
NETWORKS = (("sasrec", None), ("titlesasrec", None), ("titlesasrec", MODEL))
_MEASURED = "fit"  # the kind of results in the dataset's cache
_FEATURES = 1.5  # the cost of a labeled history, relative to measuring one
_TREES = 15.0  # seconds for fitting the trees


def fit(
    dataset: Dataset,
    *,
    model: str | PathLike[str] | LanguageModel | None = DEFAULT_MODEL,
    minutes: float | None = MINUTES,
    run: str | PathLike[str] | None = None,
    threads: int | None = None,
    log: Log = lambda message: None,
    **settings: Any,
) -> FitReport:
    """Find the parts that make the best lists, and write the verdict to the dataset's folder.

    Each part is measured on validation users that it was not fitted to, and is kept only if
    NDCG@10 becomes higher and the targets do not become less probable, beyond chance. The test part
    is used only at the end, when the parts that serve requests count all events.

    A recommender whose settings ``prior_sources``, ``ranker`` and ``network`` are ``auto`` then uses
    the parts that were kept.

    Args:
        dataset: a dataset with a folder.
        model: the model whose role is determined; None to leave the model out. A loaded model is
            not trained.
        minutes: the time limit in minutes; None for no limit. A step that cannot end in time is not
            begun. Only the prior itself is always fitted.
        run: the run folder for an adapter. It is trained with the time that is left if the model does
            not improve the lists without it. None to train none.
        threads: the number of threads; None for the default of each part.
        log: a function that is called with a line of text before each slow step. An error that it
            raises ends the command; what was done before is kept.
        **settings: settings of the recommender that ``genrec tune`` depends on, such as
            ``target_behavior``, ``template`` and ``seed``.

    Raises:
        SettingsError: the dataset has no folder, the folder cannot be written, a setting is invalid,
            or there are no events to count.
    """
    return _Recipe(dataset, minutes, threads, log, settings).run(model, run)


class _Recipe:
    """One call of ``fit``; see there for the arguments."""

    def __init__(
        self,
        dataset: Dataset,
        minutes: float | None,
        threads: int | None,
        log: Log,
        settings: dict[str, Any],
    ) -> None:
        if dataset.folder is None:
            msg = (
                "The dataset has no folder, where the verdict could be kept. Expected a dataset loaded "
                "from a folder; use dataset.save(FOLDER) and Dataset.load(FOLDER)."
            )
            raise SettingsError(msg)
        if minutes is not None and not 0 < minutes < float("inf"):
            msg = f"minutes={minutes!r} is not valid. Expected a number above 0, or None for no limit."
            raise SettingsError(msg)
        self.settings = Settings.of(settings)
        named = [n for n in ("prior_sources", "ranker", "network") if n in settings]
        if named:
            msg = f"fit chooses {', '.join(named)} itself. Expected no such setting."
            raise SettingsError(msg)
        self.given = settings
        self.folder: Path = dataset.folder
        self.behavior = self.settings.target_behavior or dataset.info.target_behavior
        self.own = dataset
        self.data = protocols.with_target_behavior(dataset, self.behavior)
        if not count_events(self.data, "validation", self.behavior):
            msg = (
                f"There are no train events with the behavior {self.behavior!r} to count. Expected at "
                "least one."
            )
            raise SettingsError(msg)
        self.minutes, self.threads = minutes, threads
        self.budget = Budget(minutes)
        self.plain_log, self.log = log, self.budget.watch(log)
        self.seed = self.settings.seed
        exclude = self.settings.exclude_seen
        self.exclude_seen = self.data.info.exclude_seen if exclude is None else exclude
        self.halves = divide(self.data, USERS, self.seed)
        self.steps: list[Step] = []
        self.parts = Parts(seed=self.seed)
        self.best: Measured | None = None
        self.served = 0.0  # estimated seconds to fit the parts that serve requests

    def run(
        self, model: str | PathLike[str] | LanguageModel | None, run: str | PathLike[str] | None
    ) -> FitReport:
        """Take all steps, and write the verdict when the parts of the prior are known."""
        from genrec.fitting.model_steps import ModelSteps

        with lock_folder(self.folder, wait=60):
            named = isinstance(model, str | PathLike)
            self._find_parts(f"{LANGUAGE_MODEL}{model}" if named else "")
            self._save("auto", None)
        self._serve()
        steps = ModelSteps(self.own, self.halves, self.budget, self.threads, self.log, self.given)
        found = steps.run(model, None if run is None else Path(run))
        self.steps += found.steps
        with lock_folder(self.folder, wait=60):
            return self._save(found.role, found.run)

    def _save(self, role: str, run: Path | None) -> FitReport:
        notes = []
        users = 0 if self.best is None else len(self.best.ndcg)
        if users < ENOUGH:
            notes.append(
                f"There are {users} validation users. With fewer than {ENOUGH}, nothing can be shown to "
                "improve the lists, so no part is added to the prior."
            )
        report = FitReport(
            self.folder / FITTED, self.parts, tuple(self.steps), run, role, tuple(notes),
            round(self.budget.seconds, 1), self.minutes,
        )  # fmt: skip
        events = protocols.fingerprint(self.own)
        told = report.to_dict()
        Fitted(events, self.behavior, self.parts, told).save(self.folder)
        return report

    def _find_parts(self, states: str) -> None:
        """Try each part of the prior, and keep those that improve the lists.

        Args:
            states: the encoder that uses the language model's hidden states; empty for none.
        """
        if self.halves is None:
            self.steps.append(
                Step("prior", True, "It cannot be measured without validation users.")
            )
            return
        self.best = self._measure(self.parts, budget=False)
        users = len(self.best.ndcg)
        self.steps.append(
            Step(
                "prior", True, "It is the basis of the lists.", users,
                bootstrap(self.best.ndcg, draws=DRAWS), bootstrap(self.best.nats, draws=DRAWS),
                seconds=round(self.best.seconds, 1), reused=self.best.reused,
            )
        )  # fmt: skip
        if users < ENOUGH:
            return
        self.served = self.best.seconds
        for source in SOURCES:
            parts = replace(self.parts, sources=(*self.parts.sources, source))
            self._try(source, parts, 2 * self.best.seconds)
        if reason := why_unavailable():
            self.steps.append(Step("ranker", False, reason))
            return
        self._try("ranker", replace(self.parts, ranker="lambdarank"), self._ranker_seconds())
        for network, encoder in NETWORKS:
            if encoder != MODEL:
                self._try_network(network, encoder)
            elif states:
                self._try_network(network, states)

    def _ranker_seconds(self) -> float:
        """Estimate how long fitting and measuring rankings for both halves takes."""
        assert self.best is not None
        per_user = self.best.scoring / len(self.best.ndcg)
        users = len(self.data.interactions.user_ids)
        labeled = min(MAX_TRAIN, CUTS * users) + min(MAX_VALIDATION, users)
        return 2 * (labeled * per_user * _FEATURES) + 2 * _TREES + self.best.seconds

    def _try_network(self, network: str, encoder: str | None) -> None:
        """Try a ranker that uses a network whose item vectors start from an encoder's vectors."""
        name = f"ranker with {network}" + (f" from {encoder}" if encoder else "")
        shown = protocols.withhold(self.data, "test")
        if self.budget.left <= 0:
            self.steps.append(Step(name, False, self._no_time(0)))
            return
        given = {"encoder": encoder} if encoder else {}
        try:
            seconds = reading_seconds(self.data, encoder or "", self.log)
            if seconds > self.budget.left - self.served:
                self.steps.append(Step(name, False, self._no_time(seconds)))
                return
            plan = plan_network(network, given, shown, self.data, self.seed, self.log)
        except (GenrecError, TimeUpError) as error:
            self.steps.append(Step(name, False, str(error) or self._no_time(0)))
            return
        epochs = plan.choose(self.budget.limit)
        if epochs == 0:
            self.steps.append(Step(name, False, self._no_time(plan.seconds(10), limit=True)))
            return
        parts = replace(self.parts, ranker="lambdarank", network=network, epochs=epochs)
        parts = replace(parts, encoder=encoder)
        seconds = plan.seconds(epochs, remaining=True) + self._ranker_seconds()
        self._try(name, parts, seconds)

    def _try(self, name: str, parts: Parts, seconds: float) -> None:
        """Measure parts, and keep them if they are better than the best so far.

        Args:
            name: the name of the new part.
            parts: all parts, with the new one.
            seconds: an estimate of how long fitting and measuring takes.
        """
        assert self.best is not None
        if self._read(parts) is None and not self.budget.left > 1.2 * seconds + self.served:
            self.steps.append(Step(name, False, self._no_time(seconds)))
            return
        try:
            measured = self._measure(parts)
        except TimeUpError:
            why = "It was stopped at the time limit. Run the command again to continue it."
            self.steps.append(Step(name, False, why))
            return
        except GenrecError as error:
            self.steps.append(Step(name, False, str(error)))
            return
        step = compare(name, measured, self.best, self.parts.describe())
        self.steps.append(step)
        if step.kept:
            self.best, self.parts = measured, parts
            self.served += measured.seconds / 2

    def _no_time(self, seconds: float, *, limit: bool = False) -> str:
        """Return a sentence that says that there is no time for a step.

        Args:
            seconds: an estimate of what the step takes; 0 if it is not known.
            limit: True if even the whole limit is too short for the step.
        """
        if not seconds:
            return "No time is left. Use a higher --minutes."
        needed = f"It needs about {quantity(max(round(seconds / 60), 1), 'minute')}"
        if limit:
            return f"{needed}, which is too much of {self.minutes:g}. Use a higher --minutes."
        left = max(self.budget.left, 0) / 60
        return f"{needed}, and {left:.1f} are left. Use a higher --minutes."

    def _measure(self, parts: Parts, *, budget: bool = True) -> Measured:
        """Fit parts to each half's known events, and measure the other users; or read the result.

        Args:
            parts: the parts.
            budget: False to ignore the time limit.

        Raises:
            TimeUpError: the time limit has passed.
        """
        log = self.log if budget else self.plain_log
        check = self.budget.check if budget else lambda: None
        found = self._read(parts)
        if found is not None:
            self.plain_log(f"The {parts.describe()} was measured before.")
            return found
        log(f"Measuring the {parts.describe()} ...")
        assert self.halves is not None
        began = time.monotonic()
        settings = parts.apply(Settings(prior_events="train", target_behavior=self.behavior))
        figures, scoring = [], 0.0
        for half in self.halves:
            prior = build_prior(
                settings,
                half.known,
                "collaborative",
                self.behavior,
                log,
                parts.epochs,
                self.threads or 1,
            )
            assert isinstance(prior, CollaborativePrior)
            ready = time.monotonic()
            figures.append(score(prior, half.cases, exclude_seen=self.exclude_seen, check=check))
            scoring += time.monotonic() - ready
        ndcg, nats = (np.concatenate(values) for values in zip(*figures, strict=True))
        seconds = time.monotonic() - began
        arrays = {"ndcg": ndcg, "nats": nats}
        told = {"seconds": repr(seconds), "scoring": repr(scoring)}
        self.data.cache.write(_MEASURED, self._about(parts), arrays, told)
        return Measured(ndcg, nats, seconds, scoring)

    def _read(self, parts: Parts) -> Measured | None:
        """Read what was measured before for these parts, if anything."""
        found = self.data.cache.read(_MEASURED, self._about(parts))
        if found is None:
            return None
        arrays, told = found
        ndcg, nats = np.array(arrays["ndcg"]), np.array(arrays["nats"])
        seconds, scoring = float(told["seconds"]), float(told["scoring"])
        return Measured(ndcg, nats, seconds, scoring, reused=True)

    def _about(self, parts: Parts) -> dict[str, object]:
        """Describe everything that the figures of parts depend on."""
        assert self.halves is not None
        return {
            "parts": parts.named(),
            "seed": self.seed,
            "users": [len(half.cases) for half in self.halves],
            "events": protocols.fingerprint(self.data),
            "behavior": self.behavior,
            "lead_in": sorted(self.data.info.lead_in_behaviors),
            "exclude_seen": self.exclude_seen,
            "code": digest_code("data", "matching", "baselines", "priors", "fitting", "config.py"),
            "packages": package_versions("numpy", "scipy", "lightgbm", "scikit-learn", "torch"),
        }

    def _serve(self) -> None:
        """Fit the parts that serve requests to all events, so that the first request need not."""
        settings = self.parts.apply(self.settings)
        with contextlib.suppress(TimeUpError):  # the first request does the rest
            self.log(f"Fitting the {self.parts.describe()} to all events ...")
            build_prior(
                settings,
                self.own,
                "collaborative",
                self.behavior,
                self.log,
                self.parts.epochs,
                self.threads or 1,
            )
