"""Choose a recommender's prior, its weight and the way in which it is fused with the model.

A prior can be fused at each node of the trie or into the final score. Values that the user does not
set come from ``genrec tune`` if it was run for the dataset folder and the model. Otherwise, default
values are used, which were fitted to the bundled sample data with the default model, without
fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from genrec.config import EXPLAIN, FEATURE, FUSE, Settings
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import count_splits
from genrec.errors import SettingsError
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.fitted import Fitted, Parts, load_fitted
from genrec.priors.model_feature import Exponents
from genrec.priors.ranking import why_unavailable
from genrec.priors.tuned import WEIGHTS, Tuned, load_tuned
from genrec.priors.weights import ItemPrior, Popularity

OTHER_WEIGHT = 0.3  # default weight of popularity, novelty and user-defined priors
# The collaborative prior's defaults were fitted by ``genrec tune`` on 200 validation users of the
# bundled sample data with the default model, without fine-tuning; see benchmarks/LOG.md.
FUSION = "node"
TEMPERATURES = {"node": 36.58, "score": 4.0}
ENOUGH = 1000  # number of events; with fewer, the defaults are scaled down in proportion
# A model is asked to rank if one of these settings, which only its ranking depends on, is set.
_FOR_RANKING = (
    "template", "prompts", "values", "few_shot", "item_attributes", "decoder", "normalization", "node_temperature",
    "beam_size", "prior_weight", "fusion",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fusion:
    """The parameters for fusing a prior with the model.

    Attributes:
        prior: the prior's name; ``none`` for no prior, ``own`` for a prior object that the user has
            set on a recommender.
        weight: the exponent of the prior's weights.
        fusion: ``node`` to fuse the prior at each node of the trie, ``score`` to fuse it into the
            final score.
        temperature: the number by which the model's logits are divided at each node.
        alone: the number by which the model's logits are divided if there is no prior.
        fitted: a description of the data to which the values were fitted; empty if the user has set
            them.
        role: ``fuse`` if model and prior together rank items, ``feature`` if the model's
            log-probability is a feature by which the prior's best items are ranked again, or
            ``explain`` if the prior ranks items alone. Without a prior, it is ``fuse``, although the
            model ranks items alone.
        power: for the role ``feature``, the exponent of the prior among its best items.
        model: for the role ``feature``, the exponent of the model's probability.
    """

    prior: str
    weight: float
    fusion: str
    temperature: float
    alone: float
    fitted: str = ""
    role: str = FUSE
    power: float = 1.0
    model: float = 0.0

    @property
    def exponents(self) -> Exponents:
        """The exponents for the role ``feature``."""
        return Exponents(self.power, self.model)


def name_with_prior(model: str, prior: str, ranker: str = "none", role: str = FUSE) -> str:
    """Name a model together with its prior, so that the name says what contributes to the scores.

    Args:
        model: the name of the model.
        prior: the name of the prior as in ``Fusion``; ``none`` if there is no prior.
        ranker: the learned ranking of a collaborative prior's best items; ``none`` if there is none.
        role: the role of the model as in ``Fusion``. If it is ``explain``, the model does not
            contribute to the scores, so it is not named.

    >>> name_with_prior("smollm2-135m", "collaborative"), name_with_prior("smollm2-135m", "none")
    ('smollm2-135m + prior', 'smollm2-135m')
    >>> name_with_prior("smollm2-135m", "collaborative", "lambdarank")
    'smollm2-135m + ranker'
    >>> name_with_prior("smollm2-135m", "collaborative", role="explain")
    'prior'
    """
    if prior == "none":
        return model
    named = f"{prior} prior"
    if prior == "collaborative":
        named = "prior" if ranker == "none" else "ranker"
    return named if role == EXPLAIN else f"{model} + {named}"


def choose_prior(settings: Settings, dataset: Dataset | None, behavior: str) -> str:
    """Return the name of the prior that a recommender should use.

    With ``prior='auto'``, this is ``collaborative``, or ``none`` if there are no events to count or
    if the other settings do not allow a prior.

    Args:
        settings: the recommender's settings.
        dataset: the dataset whose events are counted; None if there is only a catalog.
        behavior: the target behavior.

    Raises:
        SettingsError: the settings name a prior for which there are no events to count.
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
            f"prior={asked!r} cannot be used without a dataset, since there are no events to count. "
            "Expected a Dataset instead of a catalog, or prior='none'."
        )
        raise SettingsError(msg)
    before = settings.prior_before
    if asked not in {"auto", "collaborative"} or count_events(dataset, before, behavior):
        return "collaborative" if asked == "auto" else asked
    if asked == "auto":
        return "none"
    parts = "the data" if settings.prior_events == "all" else settings.prior_events
    msg = (
        f"prior='collaborative' cannot be used, because there are no events with the behavior "
        f"{behavior!r} in {parts}. Expected at least one such event, or prior='none'."
    )
    raise SettingsError(msg)


def count_events(dataset: Dataset, before: str, behavior: str | None = None) -> int:
    """Return the number of events that can be counted for a prior.

    Args:
        dataset: the dataset.
        before: the first part of the split that is not counted; ``end`` to count all parts.
        behavior: the behavior to count; None to count all behaviors.
    """
    events, c = dataset.interactions, dataset.interactions.columns
    counted = (c.row >= 0) & (c.split < count_splits(before))
    if behavior is not None:
        if behavior not in events.behaviors:
            return 0
        counted &= c.behavior == events.behaviors.index(behavior)
    return int(counted.sum())


def build_prior(
    settings: Settings,
    dataset: Dataset,
    name: str,
    behavior: str,
    log: Callable[[str], None] = lambda message: None,
    epochs: int | None = None,
    threads: int = 1,
) -> ItemPrior:
    """Build the prior with a given name from a dataset's events.

    Args:
        settings: the recommender's settings, which select the events and the parts of the prior.
            ``auto`` stands for the default of each part (see ``Parts.given``).
        dataset: the dataset whose events are counted.
        name: ``collaborative``, ``popularity`` or ``novelty``.
        behavior: the target behavior.
        log: function that is called with a line of text from time to time while a baseline is
            fitted as a source.
        epochs: see ``Parts``.
        threads: the number of threads of a learned ranking.
    """
    before = settings.prior_before
    if name == "collaborative":
        sources, seed = settings.sources, settings.seed
        prior = CollaborativePrior.fit(
            dataset, behavior=behavior, before=before, sources=sources, seed=seed, log=log
        )
        parts = Parts.given(settings)
        if parts.ranker != "none":
            network = replace(parts, epochs=epochs).network_text
            prior.learn_to_rank(
                dataset, behavior, network=network, seed=seed, threads=threads, log=log
            )
        return prior
    n, novelty = len(dataset.catalog), name == "novelty"
    return Popularity(dataset.interactions, n, novelty=novelty, before=before)


def resolve_fusion(
    settings: Settings,
    prior: str,
    tuned: Tuned | None = None,
    events: int = ENOUGH,
    *,
    trained: bool = True,
) -> Fusion:
    """Determine the role of the model and the parameters for fusing a prior with it.

    Args:
        settings: the recommender's settings. Values that the user has set take precedence.
        prior: the prior's name, which is ``none``, ``own`` or one of ``genrec.config.PRIORS``.
        tuned: the values that ``genrec tune`` has fitted; None if there are none.
        events: number of events counted for the prior. If it is small, the default weight is
            reduced. It has no effect if ``tuned`` is given.
        trained: whether the model was fine-tuned for this task. A model that was not only explains
            if nothing shows that it improves the lists of the prior.
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
        temperature = alone  # a fitted temperature is valid only with its fitted weight
    role = _resolve_role(settings, prior, tuned, events, trained=trained)
    if role == FEATURE and (tuned is None or not tuned.feature):
        msg = (
            "model_role='feature' cannot be used, because no exponents were fitted for this model, prompt "
            "and behavior. Expected a file written by `genrec tune`; run it first."
        )
        raise SettingsError(msg)
    if role != FUSE:
        found = Fusion(prior, 1.0, "node", alone, alone, fitted if tuned else "", role)
        if role == EXPLAIN or tuned is None:
            return found
        return replace(found, power=tuned.feature["prior"], model=tuned.feature["model"])
    return Fusion(prior, weight, fusion, temperature, alone, fitted)


def _resolve_role(
    settings: Settings, prior: str, tuned: Tuned | None, events: int, *, trained: bool
) -> str:
    """Determine the role of the model; see ``resolve_fusion``."""
    if prior == "none":
        return FUSE
    if settings.model_role == FEATURE and prior != "collaborative":
        msg = (
            f"model_role='feature' does not work with the prior {prior!r}, which cannot name candidates. "
            "Expected prior='collaborative', or another model_role."
        )
        raise SettingsError(msg)
    if settings.model_role != "auto":
        return settings.model_role
    usual = Settings()
    asked = any(getattr(settings, name) != getattr(usual, name) for name in _FOR_RANKING)
    if prior != "collaborative" or asked or settings.search in {"beam", "sample"}:
        return FUSE
    if tuned is not None and tuned.role != "auto":
        return tuned.role
    return FUSE if trained or events < ENOUGH else EXPLAIN


class PriorSource:
    """Provides a recommender with its prior and with the parameters for fusing it.

    The prior is built when it is first needed.

    Attributes:
        own: whether the user has set a prior object, which replaces the one chosen by the settings.
        run: the run folder from which the model was loaded, or None. The default parameters are
            unsuitable for a trained model. With a run, ``prior='auto'`` therefore means no prior,
            unless ``genrec tune`` has fitted parameters for this run.
        saved: the prior that was saved in the run folder, for a recommender without a dataset; None
            if there is none.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset | None,
        behavior: str,
        key: Callable[[Parts], str],
        log: Callable[[str], None],
        run: Path | None = None,
        threads: Callable[[], int] = lambda: 1,
        *,
        tuning: bool = False,
    ) -> None:
        """Choose the prior according to the settings, but do not build it yet.

        Args:
            settings: the recommender's settings.
            dataset: the dataset whose events are counted; None if there is only a catalog.
            behavior: the target behavior.
            key: function that returns the key under which ``genrec tune`` stores its values for given
                parts of the prior.
            log: function that is called with a line of text before each slow step.
            run: the run folder from which the model was loaded, or None.
            threads: function that returns the number of threads of the recommender. It is called
                only if the prior has a learned ranking.
            tuning: True if weights are fitted for the prior. Otherwise, a run whose weights were
                fitted before ``genrec fit`` is used without the parts that it chose.

        Raises:
            SettingsError: the settings name a prior for which there are no events to count.
        """
        self._settings, self._dataset, self._behavior = settings, dataset, behavior
        self._key, self._log, self._threads, self._tuning = key, log, threads, tuning
        self._name = choose_prior(settings, dataset, behavior)
        self._built: list[
            ItemPrior | None
        ] = []  # contains the prior after it has been built or set
        self.own = False
        self.run = run
        self.saved: CollaborativePrior | None = None

    @property
    def prior(self) -> ItemPrior | None:
        """Return the prior that is fused with the model, or None if there is no prior.

        The prior is built on first use.
        """
        if not self._built:
            name = self._resolved.prior
            prior: ItemPrior | None = None
            if name == "collaborative" and self._dataset is None:
                prior = self.saved
                if prior is not None and prior.rankers is not None:
                    prior.rankers = replace(prior.rankers, threads=self._threads())
            elif name != "none":
                assert self._dataset is not None
                settings, epochs, threads = self._settings, None, 1
                if name == "collaborative":
                    settings, epochs = self.parts.apply(settings), self.parts.epochs
                    threads = 1 if self.parts.ranker == "none" else self._threads()
                prior = build_prior(
                    settings, self._dataset, name, self._behavior, self._log, epochs, threads
                )
            self._built.append(prior)  # other recommenders that share this list see it, too
        return self._built[0]

    @prior.setter
    def prior(self, prior: ItemPrior | None) -> None:
        self._built, self.own = [prior], True

    @property
    def fusing(self) -> Fusion:
        """Return the parameters for fusing the prior with the model."""
        if self.own:
            return resolve_fusion(self._settings, "none" if self.prior is None else "own")
        return self._resolved

    @property
    def role(self) -> str:
        """The role of the model; see ``Fusion``."""
        return self.fusing.role

    @property
    def ranker(self) -> str:
        """The name of the learned ranking of the prior's best items, or ``none``."""
        rankers = getattr(self.prior, "rankers", None)
        return "lambdarank" if rankers is not None and rankers.by_kind else "none"

    @cached_property
    def tuned(self) -> Tuned | None:
        """The values that ``genrec tune`` has fitted, or None if there are none."""
        return self._tuned_for(self.parts)

    def _tuned_for(self, parts: Parts) -> Tuned | None:
        """Return the values that ``genrec tune`` has fitted for given parts of the prior."""
        own = self._dataset.folder if self.run is None and self._dataset is not None else self.run
        return load_tuned(self._settings.tuned, own, lambda: self._key(parts))

    @cached_property
    def _verdict(self) -> tuple[Fitted | None, str]:
        """What ``genrec fit`` found for this dataset, if anything, and a note for the user."""
        if self._dataset is None:
            return None, ""
        return load_fitted(self._dataset, self._behavior)

    @property
    def parts(self) -> Parts:
        """The parts of the collaborative prior that this recommender uses."""
        return self._chosen[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on parts that ``genrec fit`` chose, but that are not used."""
        return () if self.own or self._name != "collaborative" else self._chosen[1]

    @cached_property
    def _chosen(self) -> tuple[Parts, tuple[str, ...]]:
        """The parts to use, and remarks for the user."""
        settings, given = self._settings, Parts.given(self._settings)
        if self._dataset is None:
            return (given.with_rankers(self.saved.rankers) if self.saved else given), ()
        if "auto" not in (settings.prior_sources, settings.ranker, settings.network):
            return given, ()
        fitted, note = self._verdict
        if fitted is None:
            return given, (note,) if note else ()
        parts, notes = fitted.parts.chosen_by(settings), []
        if settings.ranker == "auto" and parts.ranker != "none" and (reason := why_unavailable()):
            parts = parts.without_ranker()
            notes.append(f"The ranker that `genrec fit` chose is not used. {reason}")
        if self._only_tuned_for(given, parts):
            notes.append(
                f"The weights of the run {self.run} were fitted without the parts that `genrec fit` chose, "
                "so these are not used. Fit them again with `genrec tune DIR --run RUN`."
            )
            parts = given
        return parts, tuple(notes)

    def _only_tuned_for(self, given: Parts, parts: Parts) -> bool:
        """Check whether a run has weights that were fitted for given parts, but not for others."""
        if self.run is None or self._tuning or self._settings.tuned is not None:
            return False
        return self._tuned_for(parts) is None and self._tuned_for(given) is not None

    def follow(self, catalog: Catalog) -> None:
        """Update a prior that links items by attributes or vectors, after edits to the catalog."""
        for prior in (p for p in (*self._built, self.saved) if isinstance(p, CollaborativePrior)):
            prior.follow(catalog)

    @property
    def missing(self) -> str:
        """The reason why a run is used without a prior.

        It is empty if there is no run, if there is a prior, or if the user has chosen the prior.
        """
        settings = self._settings
        if self.run is None or self.fusing.prior != "none" or settings.prior != "auto" or self.own:
            return ""
        if self._dataset is None:
            return (
                "there is no dataset, and the run folder contains no prior with fitted weights that fits "
                "this catalog"
            )
        if not count_events(self._dataset, settings.prior_before, self._behavior):
            return f"the dataset has no events with the behavior {self._behavior!r} to count"
        if self._name == "none":
            return "the chosen decoder, normalization or search works without one"
        return "its weight was not fitted for this run, prompt and behavior"

    @property
    def unfitted(self) -> bool:
        """True if a run is used without a prior only because no weight was fitted for it."""
        return bool(self.missing) and self._name == "collaborative" and self.tuned is None

    @cached_property
    def _resolved(self) -> Fusion:
        """Return the parameters for fusing the prior that was chosen by the settings."""
        name, tuned, events = self._name, None, 0
        if self.saved is not None and self._settings.prior == "auto":
            name, tuned = "collaborative", self.tuned
            events = int(self.saved.counts.popularity.sum())
        elif name == "collaborative" and self._dataset is not None:
            tuned, events = self.tuned, count_events(self._dataset, self._settings.prior_before)
        if self.run is not None and tuned is None and self._settings.prior == "auto":
            name = "none"
        return resolve_fusion(self._settings, name, tuned, events, trained=self.run is not None)

    def share(self, other: PriorSource, *, same_data: bool) -> None:
        """Reuse the prior of another recommender, so that it need not be built again.

        This happens only if the other prior was set by the user, or if building it here would give
        the same prior.

        Args:
            other: the prior source of a recommender with the same model.
            same_data: whether both recommenders have the same dataset.
        """
        if self._dataset is None:
            self.saved = other.saved
        elif other._dataset is not None and self._behavior == other._behavior:
            self._verdict = other._verdict  # some events may be withheld from this dataset
        if other.own:
            self.prior = other.prior
        elif same_data and self._depends_on() == other._depends_on():
            self._built = other._built

    def _depends_on(self) -> tuple[object, ...]:
        """Return all values on which the built prior depends, apart from the dataset."""
        settings, name = self._settings, self._resolved.prior
        parts = self.parts if name == "collaborative" else Parts.given(settings)
        info = None if self._dataset is None else self._dataset.info
        names = info and (*info.context, "", *info.knowledge)
        return name, parts, settings.prior_before, self._behavior, names
