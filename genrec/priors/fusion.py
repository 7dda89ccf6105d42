"""How a prior counts beside the model: which one, how much, by node or by score.

What is not set is what was fitted on validation: by ``genrec tune`` for a dataset folder and a
model, else once for the embedded sample and the default model, untrained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genrec.config import Settings
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS
from genrec.errors import SettingsError
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.tuned import WEIGHTS, Tuned, load_tuned
from genrec.priors.weights import ItemPrior, Popularity

OTHER_WEIGHT = 0.3  # of popularity, novelty and one's own prior
# Of the collaborative prior, fitted on 200 validation users of the embedded sample with the default
# model untrained (``genrec tune``); see benchmarks/LOG.md.
FUSION = "node"
TEMPERATURES = {"node": 36.58, "score": 4.0}
ENOUGH = 1000  # events; fewer say less, and what was fitted once counts in proportion


@dataclass(frozen=True, slots=True)
class Fusion:
    """How a prior counts.

    Attributes:
        prior: its name; ``none``, or ``own`` for one that was set on a recommender.
        weight: its power.
        fusion: ``node`` or ``score``.
        temperature: the model's logits are divided by it at every node.
        alone: the same without a prior.
        fitted: whose numbers these are, for people.
    """

    prior: str
    weight: float
    fusion: str
    temperature: float
    alone: float
    fitted: str = ""


def name(settings: Settings, dataset: Dataset | None, behavior: str) -> str:
    """The name of the prior that settings ask for; ``none`` where ``auto`` has nothing to count.

    Raises:
        SettingsError: one is asked for that has nothing to count.
    """
    asked = settings.prior
    if asked == "none":
        return asked
    plain = settings.normalization == "vocab" or settings.decoder == "match"
    if asked == "auto" and (plain or (settings.search, settings.fusion) == ("sample", "score")):
        return "none"
    if dataset is None:
        if asked == "auto":
            return "none"
        msg = (
            f"prior={asked!r} without a dataset, whose events it counts. Expected a Dataset in "
            "place of the catalog, or prior='none'."
        )
        raise SettingsError(msg)
    if asked not in {"auto", "collaborative"} or countable(dataset, behavior, settings):
        return "collaborative" if asked == "auto" else asked
    if asked == "auto":
        return "none"
    msg = (
        f"prior='collaborative', but no event {behavior!r} lies in {settings.prior_events}. "
        "Expected events to count, or prior='none'."
    )
    raise SettingsError(msg)


def countable(dataset: Dataset, behavior: str, settings: Settings) -> int:
    """How many events the collaborative prior counts."""
    events, c = dataset.interactions, dataset.interactions.columns
    if behavior not in events.behaviors:
        return 0
    limit = SPLITS.index(settings.prior_before)
    wanted = (c.behavior == events.behaviors.index(behavior)) & (c.row >= 0) & (c.split < limit)
    return int(wanted.sum())


def build_prior(
    settings: Settings,
    dataset: Dataset,
    name: str,
    behavior: str,
    log: Callable[[str], None] = lambda message: None,
) -> ItemPrior:
    """Counts the prior of a name; ``log`` is called while what is learned is fitted."""
    before = settings.prior_before
    if name == "collaborative":
        what, seed = settings.sources, settings.seed
        return CollaborativePrior.fit(
            dataset, behavior=behavior, before=before, sources=what, seed=seed, log=log
        )
    n, novelty = len(dataset.catalog), name == "novelty"
    return Popularity(dataset.interactions, n, novelty=novelty, before=before)


def resolve_fusion(
    settings: Settings, prior: str, tuned: Tuned | None = None, events: int = ENOUGH
) -> Fusion:
    """How a prior of a name counts.

    Args:
        settings: what is set there goes first.
        prior: ``none``, ``own`` or one of the settings' names.
        tuned: what was found for the dataset folder.
        events: how many there are to count or to read.
    """
    alone = 1.0 if settings.node_temperature is None else settings.node_temperature
    vocab = settings.normalization == "vocab"
    fusion, weight, temperature, fitted = "node", OTHER_WEIGHT, alone, ""
    if prior == "collaborative":
        fusion = FUSION if tuned is None else tuned.fusion
        fitted = "the embedded sample" if tuned is None else f"{tuned.users} users held out"
    if settings.fusion != "auto" or vocab or settings.search == "sample":
        fusion = "score" if vocab else settings.fusion.replace("auto", "node")
    if prior == "collaborative" and tuned is None:
        share = min(events / ENOUGH, 1.0)
        weight, temperature = WEIGHTS[fusion] * share, TEMPERATURES[fusion] ** share
    elif prior == "collaborative" and tuned is not None:
        weight, temperature = tuned.weights[fusion], tuned.temperatures[fusion]
    if settings.prior_weight is not None:
        weight, fitted = settings.prior_weight, ""
    if settings.node_temperature is not None or vocab or not fitted:
        temperature = alone  # one that was fitted belongs to the weight that was fitted with it
    return Fusion(prior, weight, fusion, temperature, alone, fitted)


class PriorSource:
    """The prior of one recommender and how it counts.

    Attributes:
        own: whether one was given in place of that of the settings.
        run: the folder of the run that the model is from: what was fitted for an untrained one is
            not for it.
        saved: the prior that lies in the run's folder, for a recommender without a dataset.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset | None,
        behavior: str,
        key: Callable[[], str],
        log: Callable[[str], None],
    ) -> None:
        """Counts nothing yet.

        Args:
            settings: of the recommender.
            dataset: whose events are counted.
            behavior: what is asked for.
            key: makes the key of what was tuned.
            log: called with a line of text before a slow step.

        Raises:
            SettingsError: a prior is asked for that has nothing to count.
        """
        self._settings, self._dataset, self._behavior = settings, dataset, behavior
        self._key, self._log = key, log
        self._name = name(settings, dataset, behavior)
        self._made: list[ItemPrior | None] = []  # one, once it was counted or given
        self.own = False
        self.run: Path | None = None
        self.saved: CollaborativePrior | None = None

    @property
    def prior(self) -> ItemPrior | None:
        """What is fused with the model: counted when it is first asked for, or given; or None."""
        if not self._made:
            called = self._set.prior
            made: ItemPrior | None = None
            if called == "collaborative" and self._dataset is None:
                made = self.saved
            elif called != "none":
                assert self._dataset is not None
                if called == "collaborative" and len(self._dataset.interactions) > 100_000:
                    self._log("Counting what people take together ...")
                made = build_prior(self._settings, self._dataset, called, self._behavior, self._log)
            self._made.append(made)  # also for recommenders that share it
        return self._made[0]

    @prior.setter
    def prior(self, prior: ItemPrior | None) -> None:
        self._made, self.own = [prior], True

    @property
    def fusing(self) -> Fusion:
        """How the prior counts: as set, else as fitted."""
        if self.own:
            return resolve_fusion(self._settings, "none" if self.prior is None else "own")
        return self._set

    @cached_property
    def _set(self) -> Fusion:
        """How the prior of the settings counts."""
        called, tuned, events = self._name, None, 0
        if self.saved is not None and self._settings.prior == "auto":
            called, tuned = "collaborative", load_tuned(self._settings.tuned, self.run, self._key)
            events = int(self.saved.counts.popularity.sum())
        elif called == "collaborative" and self._dataset is not None:
            folder = self._dataset.folder if self.run is None else self.run
            tuned = load_tuned(self._settings.tuned, folder, self._key)
            c = self._dataset.interactions.columns
            limit = SPLITS.index(self._settings.prior_before)
            events = int(((c.row >= 0) & (c.split < limit)).sum())
        if self.run is not None and tuned is None and self._settings.prior == "auto":
            called = "none"
        return resolve_fusion(self._settings, called, tuned, events)

    def take(self, other: PriorSource, *, same_data: bool) -> None:
        """Shares another's prior, where it was given or would be counted alike."""
        if self._dataset is None:
            self.saved = other.saved
        if other.own:
            self.prior = other.prior
        elif self._counts() == other._counts() and same_data:
            self._made = other._made

    def _counts(self) -> tuple[object, ...]:
        """What the prior that is counted depends on, beside the dataset."""
        settings = self._settings
        what = settings.sources, settings.prior_before, settings.seed
        return self._set.prior, *what, self._behavior
