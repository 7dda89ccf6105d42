"""Give recommenders and baselines a common interface, so that they can be evaluated.

This module works with recommenders and baselines, not with metrics.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from genrec.baselines import registry
from genrec.config import PROTOCOL, Settings, to_parts
from genrec.data.dataset import Dataset
from genrec.data.events import History, count_splits, split_code
from genrec.data.protocols import Case
from genrec.errors import RequestError, SettingsError
from genrec.keys import spell
from genrec.models.base import can_score
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.priors.fusion import name_with_prior
from genrec.recommender import Recommender
from genrec.types import Log

Progress = Callable[[str, int], None]
RANKER = "ranker"  # the collaborative prior with a learned ranking of its best items
NAMES = (*registry.NAMES, CollaborativePrior.name, RANKER)  # the systems that can be given by name
# The fields that are part of a log's key, in the order of version 0.1.0. Do not change these lists,
# since `genrec.keys.spell` adds newer fields if they are set.
_SETTINGS_IN_KEYS = (
    "template", "language", "prompts", "values", "few_shot", "decoder", "normalization", "search",
    "max_nodes", "node_temperature", "prior", "prior_sources", "prior_events", "prior_weight",
    "fusion", "tuned", "beam_size", "n_samples", "temperature", "encoder", "match_threshold", "case",
    "max_title_tokens", "max_events", "max_prompt_tokens", "target_behavior", "exclude_seen", "seed",
)  # fmt: skip
_FUSION_IN_KEYS = ("prior", "weight", "fusion", "temperature", "alone", "fitted")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a system to one case.

    Attributes:
        items: the ids of the recommended items, best first.
        probabilities: the probability of each item; None if the system states no probabilities.
        nats: the negative log-probability of the target, -ln P; None if the system does not give a
            distribution over all items.
        exact: True if the items are guaranteed to be the best k items; None if the system does not
            report this.
        seconds: the time taken to produce the list.
    """

    items: Sequence[str]
    probabilities: Sequence[float] | None = None
    nats: float | None = None
    exact: bool | None = None
    seconds: float | None = None


class System(Protocol):
    """The interface of a system that can be evaluated.

    Attributes:
        name: the name shown in tables of results.
        batch: the number of cases that are passed to the system at once.
        setup: a description of the system, which is stored with its results and can be written as
            JSON.
        former_names: the names under which earlier versions logged the answers of this system.
    """

    name: str
    batch: int
    setup: Mapping[str, Any]
    former_names: tuple[str, ...]

    @property
    def key(self) -> str:
        """A string that identifies everything that the answers depend on."""
        ...

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """Answer each case with k items, or with all allowed items if there are fewer."""
        ...


class RecommenderSystem:
    """Adapts a recommender to the interface ``System``, and also reports probabilities.

    Attributes:
        recommender: the recommender.
    """

    batch = 1

    def __init__(self, recommender: Recommender, name: str | None = None) -> None:
        """Store the recommender.

        Args:
            recommender: the recommender to evaluate.
            name: the name shown in tables of results; None for ``default_name``.
        """
        self.name = default_name(recommender) if name is None else name
        self.former_names: tuple[str, ...] = (_former_name(recommender),) if name is None else ()
        self.recommender = recommender
        settings = recommender.settings
        run, fusing = recommender.run_folder, recommender.fusing
        self.setup: Mapping[str, Any] = {
            "model": recommender.model.name,
            "run": None if run is None else str(run),
            "template": recommender.template.name,
            "decoder": settings.decoder,
            **({} if settings.recent is None else {"recent_events": settings.recent}),
            "prior": None if fusing.prior == "none" else asdict(fusing),
            **({} if recommender.ranker == "none" else {"ranker": recommender.ranker}),
        }
        # Fusion by score ranks items, but its scores are not a distribution over them.
        by_probability = recommender.prior is None or recommender.fusing.fusion == "node"
        over_catalog = (settings.normalization, settings.decoder) == ("catalog", "trie")
        self._distribution = over_catalog and by_probability

    @cached_property
    def key(self) -> str:
        """A string that identifies the model, the prompt, the encoding, the settings and the prior."""
        r = self.recommender
        settings = spell(_settings_in_key(r), "Settings", _SETTINGS_IN_KEYS)
        fusion = spell(r.fusing, "Fusing", _FUSION_IN_KEYS)
        if can_score(r.model):
            model, encoder = r.model.fingerprint(), r.encoder.hash
        else:  # a text-only model exposes no weights or token ids
            model, encoder = r.model.name, "text"
        parts = [model, r.template.hash, encoder, settings]
        if r.dataset is not None and r.dataset.info.context:
            parts.append(f"context of {', '.join(r.dataset.info.context)}")
        if r.dataset is not None and r.dataset.info.knowledge:
            parts.append(f"knowledge of {', '.join(r.dataset.info.knowledge)}")
        parts += sorted(getattr(r.prior, "unread", ()))
        rankers = getattr(r.prior, "rankers", None)
        parts += [] if rankers is None else [rankers.digest()]
        return " ".join([*parts, fusion, repr(getattr(r.prior, "mix", ""))])

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """Answer each case with k items and, if possible, the target's negative log-probability."""
        return [self._answer(case, k) for case in cases]

    def _history(self, case: Case) -> History:
        """Return the history of a case with only the context that the recommender declares."""
        data, history = self.recommender.dataset, case.history
        columns = () if data is None else tuple(data.info.context)
        if columns == case.events.table.context_columns:
            return history
        events = [replace(e, context=_only(e.context, columns)) for e in history.interactions]
        return replace(history, interactions=tuple(events), context=_only(history.context, columns))

    def _answer(self, case: Case, k: int) -> Answer:
        history, started = self._history(case), time.perf_counter()
        nats = probabilities = seconds = None
        if case.candidates is not None:
            answer = self.recommender.score(history, case.candidates, strict=True)
        elif self._distribution:
            answer, nats, seconds = self.recommender.with_nats(history, k, case.target)
        else:
            (answer,) = self.recommender.recommend_many([history], k, options=PROTOCOL)
        if seconds is None:
            seconds = time.perf_counter() - started
        if self._distribution:
            probabilities = [r.probability for r in answer[:k]]
        if self._distribution and nats is None:
            nats = -(self.recommender.score(history, [case.target])[0].logprob or 0.0)
        certificate = answer.details.get("certificate")
        exact = None if certificate is None else bool(certificate["exact"])
        return Answer([r.item_id for r in answer[:k]], probabilities, nats, exact, seconds)


class BaselineSystem:
    """Adapts a baseline to the interface ``System``.

    The target's negative log-probability is reported if the baseline has a ``logprobs`` method.
    """

    def __init__(self, baseline: Any, name: str, *, exclude_seen: bool, key: str = "") -> None:
        """Store the baseline.

        Args:
            baseline: an object with the ``rank`` method of ``genrec.baselines.base.Baseline``. It
                may also have the methods ``rank_many`` and ``logprobs``.
            name: the name shown in tables of results.
            exclude_seen: True to leave items of the history out of the lists.
            key: a string with other values that the answers depend on, such as the seed.
        """
        self.name = name
        self.former_names: tuple[str, ...] = ()
        self.setup: Mapping[str, Any] = {
            "baseline": getattr(baseline, "name", type(baseline).__name__),
            **({"ranker": "lambdarank"} if getattr(baseline, "rankers", None) else {}),
        }
        self.key = f"{name} {key} exclude_seen={exclude_seen}"
        self.batch = 256 if hasattr(baseline, "rank_many") else 1
        self._baseline = baseline
        self._exclude_seen = exclude_seen

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """Answer each case with k items; if the case has candidates, only these are ranked."""
        histories, started = [case.history for case in cases], time.perf_counter()
        among = any(case.candidates is not None for case in cases)
        size = len(cases[0].events.catalog) if among else k
        exclude = self._exclude_seen and not among
        lists = self.rank(histories, size, exclude_seen=exclude)
        if among:
            candidates = [set(case.candidates or ()) for case in cases]
            lists = [[i for i in r if i in s][:k] for r, s in zip(lists, candidates, strict=True)]
        seconds = (time.perf_counter() - started) / len(cases)
        nats = [self._nats(case) for case in cases]
        return [
            Answer(list(ranked), nats=n, seconds=seconds)
            for ranked, n in zip(lists, nats, strict=True)
        ]

    def rank(
        self, histories: Sequence[History], size: int, *, exclude_seen: bool
    ) -> list[Sequence[str]]:
        """Rank items for each history.

        Args:
            histories: the histories.
            size: the number of items in each list.
            exclude_seen: True to leave items of the history out.
        """
        rank_many = getattr(self._baseline, "rank_many", None)
        if rank_many is None:
            return [self._baseline.rank(h, size, exclude_seen=exclude_seen) for h in histories]
        return list(rank_many(histories, size, exclude_seen=exclude_seen))

    def _nats(self, case: Case) -> float | None:
        logprobs = getattr(self._baseline, "logprobs", None)
        if logprobs is None or case.candidates is not None:
            return None
        return -float(logprobs(case.history)[case.events.catalog.row(case.target)])


def split_name(system: Any) -> tuple[str | None, Any]:
    """Split a pair of a name and a system; the name is None if only a system was given."""
    return system if isinstance(system, tuple) else (None, system)


def build_systems(
    dataset: Dataset,
    given: Sequence[Any],
    exclude_seen: bool,
    before: str,
    seed: int,
    log: Log = lambda message: None,
) -> list[System]:
    """Create the systems to evaluate, and fit the baselines that were given by name.

    Args:
        dataset: the dataset with the protocol's split, without the contents of the targets; see
            ``protocols.withhold``.
        given: the systems as passed to ``genrec.evaluate``.
        exclude_seen: True to leave items of the history out of the lists.
        before: the first split whose events must not be used to fit baselines and priors.
        seed: the random seed for the baselines.
        log: see ``registry.fit``.

    Raises:
        RequestError: an object cannot be evaluated, or two systems have the same name.
        SettingsError: a baseline would need more memory than is free.
    """
    names = [s for _, s in map(split_name, given) if isinstance(s, str) and s in registry.NAMES]
    registry.check_memory(names, dataset, before=before, seed=seed)
    systems: list[System] = []
    for each in given:
        name, system = split_name(each)
        if isinstance(system, Recommender):
            check_compatible(system, dataset)
            columns = [] if system.dataset is None else system.dataset.info.context
            own = dataset.with_context(columns)  # without the columns of other systems
            own = own.with_knowledge(system.dataset.info.knowledge if system.dataset else None)
            systems.append(RecommenderSystem(restrict(system, own, before), name))
            continue
        key = f"seed={seed}"
        if isinstance(system, str) and system not in NAMES:
            msg = f"{system!r} is not a known system. Expected one of: {', '.join(NAMES)}."
            raise SettingsError(msg)
        if system in (CollaborativePrior.name, RANKER):
            ranked, name = system == RANKER, name or system
            system = CollaborativePrior.fit(
                dataset, before=before, sources=_shared_sources(given), seed=seed, log=log
            )
            key = f"{key} before={before} {system.mix} {sorted(system.unread)}"
            if ranked:
                system.learn_to_rank(dataset, dataset.info.target_behavior, seed=seed, log=log)
                assert system.rankers is not None
                key += f" ranker {system.rankers.digest()}"
        elif isinstance(system, str):
            name, key = name or system, f"{key} before={before}"
            system = registry.fit(system, dataset, before=before, seed=seed, log=log)
        if not hasattr(system, "rank"):
            msg = (
                f"{system!r:.80} cannot be evaluated. Expected a Recommender, an object with "
                f"rank(history, k, exclude_seen=...), or one of: {', '.join(NAMES)}."
            )
            raise RequestError(msg)
        systems.append(
            BaselineSystem(system, name or system.name, exclude_seen=exclude_seen, key=key)
        )
    names = [slug(s.name) for s in systems]
    if len(set(names)) < len(names):
        msg = (
            f"Two systems have the same name: {', '.join(s.name for s in systems)}. Expected "
            "different names; use pairs such as ('mine', recommender)."
        )
        raise RequestError(msg)
    return systems


def with_declared_context(dataset: Dataset, given: Sequence[Any]) -> Dataset:
    """Return a dataset that has all columns of the context that the evaluated recommenders declare."""
    columns = [*dataset.info.context]
    for _, system in map(split_name, given):
        if isinstance(system, Recommender) and system.dataset is not None:
            columns += system.dataset.info.context
    return dataset.with_context(columns)


def _only(context: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    return {name: value for name, value in context.items() if name in columns}


def _shared_sources(given: Sequence[Any]) -> Sequence[str]:
    """Return the sources for the collaborative prior that is evaluated as a system of its own.

    If a recommender in the same evaluation has a collaborative prior, its sources are used, so that
    both can be compared. Otherwise, the default sources are used.
    """
    for _, system in map(split_name, given):
        if isinstance(system, Recommender) and system.fusing.prior == "collaborative":
            return system.prior_parts.sources
    return COUNTED


def check_compatible(recommender: Recommender, dataset: Dataset) -> None:
    """Check that a recommender can be evaluated on a dataset.

    Raises:
        RequestError: the recommender has a different catalog, or predicts another behavior.
    """
    info = dataset.info
    if recommender.catalog.hash() != dataset.catalog.hash():
        msg = (
            f"The recommender's catalog ({len(recommender.catalog):,} items) differs from the catalog "
            f"of {info.name} ({len(dataset.catalog):,} items). Expected the same catalog."
        )
        raise RequestError(msg)
    if recommender.behavior != info.target_behavior:
        msg = (
            f"The recommender predicts {recommender.behavior!r}, but the targets have the behavior "
            f"{info.target_behavior!r}. Expected the same behavior; use "
            f"protocols.with_target_behavior(dataset, {recommender.behavior!r})."
        )
        raise RequestError(msg)


def check_counted(system: Any, split: str) -> None:
    """Check that a prior or baseline that the caller has fitted was not fitted to the targets.

    Args:
        system: a system as passed to ``genrec.evaluate``. An object that does not state which
            events it was fitted to passes the check.
        split: the split that contains the targets.

    Raises:
        RequestError: the prior or baseline was fitted to events of this split.
    """
    fitted: Any = system
    if isinstance(system, Recommender):
        fitted = system.prior if system.fusing.prior == "own" else None
    before = getattr(fitted, "before", None)
    if isinstance(before, str) and count_splits(before) > split_code(split):
        name = getattr(fitted, "name", type(fitted).__name__)
        msg = (
            f"{name} was fitted to {to_parts(before)} events of the data, which include the {split} "
            f"part, whose events are predicted here. Fit it again with before={split!r}."
        )
        raise RequestError(msg)


def restrict(recommender: Recommender, known: Dataset, before: str) -> Recommender:
    """Return a version of a recommender that cannot know the targets.

    Its demonstrations and the events that its prior counts are taken from ``known``, which does not
    contain the targets. A prior object that the user has set is left unchanged.

    Args:
        recommender: the recommender to evaluate.
        known: the dataset without the targets; see ``protocols.withhold``.
        before: the first split whose events the prior may not count.
    """
    own, prior = recommender.dataset, recommender.fusing.prior
    if own is None and prior in {"none", "own"}:
        return recommender
    if prior in {"none", "own"}:
        return recommender.with_settings(data=known)
    settings = _settings_in_key(recommender)
    same_split = own is not None and own.info.split == known.info.split
    name = settings.prior if same_split and settings.prior_before == before else prior
    return recommender.with_settings(data=known, prior=name, prior_events=to_parts(before))


def _settings_in_key(recommender: Recommender) -> Settings:
    """Return the settings in the form that is used in the keys of logs.

    The default of ``prior_events`` has changed from ``train`` to ``all`` since the first logs were
    written. To keep the keys of these logs valid, the new default is replaced with the old one. This
    is safe because the prior of an evaluation never counts all events. The parts of the prior that
    ``genrec fit`` chose are named, and ``none`` is replaced with the default, which is left out.
    """
    settings = recommender.settings
    if recommender.fusing.prior == "collaborative":
        settings = recommender.prior_parts.apply(settings)
    events = "train" if settings.prior_events == "all" else settings.prior_events
    ranker, network = (v.replace("none", "auto") for v in (settings.ranker, settings.network))
    seed = recommender.settings.seed
    settings = replace(
        settings, line_memory=None, line_disk=0, prompt_memory=0
    )  # answers do not depend on them
    return replace(settings, prior_events=events, ranker=ranker, network=network, seed=seed)


def default_name(recommender: Recommender) -> str:
    """Create a recommender's name from its model, its most important settings and its prior."""
    name = _name_without_prior(recommender)
    fusing = recommender.fusing
    return name_with_prior(name, fusing.prior, recommender.ranker, fusing.role)


def _name_without_prior(recommender: Recommender) -> str:
    settings = recommender.settings
    parts = [Path(recommender.model.name).name]
    parts += [f"{settings.few_shot}-shot"] if settings.few_shot else []
    parts += [f"with {settings.item_attributes}"] if settings.attribute_names else []
    parts += ["near"] if settings.few_shot and settings.demonstrations != "random" else []
    parts += [settings.decoder] if settings.decoder != "trie" else []
    parts += [] if settings.recent is None else ["by event"]
    return " ".join(parts)


def _former_name(recommender: Recommender) -> str:
    """Return the name that earlier versions gave a recommender, based on the requested prior."""
    asked = recommender.settings.prior
    name = _name_without_prior(recommender)
    return {"auto": name, "none": f"{name} alone"}.get(asked, f"{name} + {asked}")


def slug(name: str) -> str:
    """Convert a system's name to a safe file name.

    >>> slug("smollm2-135m 4-shot"), slug("../x")
    ('smollm2-135m-4-shot', 'x')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "system"
