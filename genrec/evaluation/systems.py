"""Systems: what is evaluated, wrapped to answer cases, and the log of their answers.

Knows recommenders and baselines, nothing of metrics.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from genrec.baselines import registry
from genrec.config import to_parts
from genrec.data.dataset import Dataset
from genrec.data.protocols import Case
from genrec.errors import RequestError, SettingsError
from genrec.keys import spell
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.recommender import Recommender

Progress = Callable[[str, int], None]
NAMES = (*registry.NAMES, CollaborativePrior.name)  # what may be asked for by name
# Fields that keys of logs spell out, in the order in which version 0.1.0 wrote them. Do not change
# these lists: `genrec.keys.spell` adds a later field where it is set.
_SETTINGS_IN_KEYS = (
    "template", "language", "prompts", "values", "few_shot", "decoder", "normalization", "search",
    "max_nodes", "node_temperature", "prior", "prior_sources", "prior_events", "prior_weight",
    "fusion", "tuned", "beam_size", "n_samples", "temperature", "encoder", "match_threshold", "case",
    "max_title_tokens", "max_events", "max_prompt_tokens", "target_behavior", "exclude_seen", "seed",
)  # fmt: skip
_FUSION_IN_KEYS = ("prior", "weight", "fusion", "temperature", "alone", "fitted")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system says for one case.

    Attributes:
        items: item ids, best first.
        probabilities: of the items, where the system states them.
        nats: -ln P(target), where P is a distribution over all items.
        exact: whether these are surely the best k, where the system says.
        seconds: for the list.
    """

    items: Sequence[str]
    probabilities: Sequence[float] | None = None
    nats: float | None = None
    exact: bool | None = None
    seconds: float | None = None


class System(Protocol):
    """What is evaluated.

    Attributes:
        name: for tables.
        batch: how many cases it takes at once.
    """

    name: str
    batch: int

    @property
    def key(self) -> str:
        """What its lists depend on."""
        ...

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """One answer a case, with k items where k are allowed."""
        ...


class RecommenderSystem:
    """A ``Recommender`` as a system: its lists, their probabilities, and nats per target."""

    batch = 1

    def __init__(self, recommender: Recommender, name: str) -> None:
        """Wraps a recommender."""
        self.name = name
        self._recommender = recommender
        settings = recommender.settings
        # By score, what ranks is no distribution over items: neither nats nor probabilities are its.
        ranks = recommender.prior is None or recommender.fusing.fusion == "node"
        plain = (settings.normalization, settings.decoder) == ("catalog", "trie")
        self._distribution = plain and ranks

    @cached_property
    def key(self) -> str:
        """Model, prompt, encoding and settings."""
        r = self._recommender
        settings = spell(r.settings, "Settings", _SETTINGS_IN_KEYS)
        fusion = spell(r.fusing, "Fusing", _FUSION_IN_KEYS)
        parts = [r.model.fingerprint(), r.template.hash, r.encoder.hash, settings]
        parts += sorted(getattr(r.prior, "unread", ()))
        return " ".join([*parts, fusion, repr(getattr(r.prior, "mix", ""))])

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """See ``System.answers``; a target costs one prompt and one path more."""
        return [self._answer(case, k) for case in cases]

    def _answer(self, case: Case, k: int) -> Answer:
        history, started = case.history, time.perf_counter()
        nats = probabilities = seconds = None
        if case.candidates is not None:
            answer = self._recommender.score(history, case.candidates)
        elif self._distribution:
            answer, nats, seconds = self._recommender.with_nats(history, k, case.target)
        else:
            answer = self._recommender.recommend(history, k)
        if seconds is None:
            seconds = time.perf_counter() - started
        if self._distribution:
            probabilities = [r.probability for r in answer[:k]]
        if self._distribution and nats is None:
            nats = -(self._recommender.score(history, [case.target])[0].logprob or 0.0)
        certificate = answer.details.get("certificate")
        exact = None if certificate is None else bool(certificate["exact"])
        return Answer([r.item_id for r in answer[:k]], probabilities, nats, exact, seconds)


class BaselineSystem:
    """A baseline as a system; many cases at once where it ranks many, and nats where it has them."""

    def __init__(self, baseline: Any, name: str, *, exclude_seen: bool, key: str = "") -> None:
        """Wraps what has ``rank`` of ``baselines.Baseline``, and ``rank_many`` or ``logprobs``."""
        self.name = name
        self.key = f"{name} {key} exclude_seen={exclude_seen}"
        self.batch = 256 if hasattr(baseline, "rank_many") else 1
        self._baseline = baseline
        self._exclude_seen = exclude_seen

    def answers(self, cases: Sequence[Case], k: int) -> list[Answer]:
        """See ``System.answers``; with candidates, these in the order of the whole ranking."""
        histories, started = [case.history for case in cases], time.perf_counter()
        among = any(case.candidates is not None for case in cases)
        asked = len(cases[0].events.catalog) if among else k
        exclude = self._exclude_seen and not among
        many = getattr(self._baseline, "rank_many", None)
        if many is None:
            lists = [self._baseline.rank(h, asked, exclude_seen=exclude) for h in histories]
        else:
            lists = many(histories, asked, exclude_seen=exclude)
        if among:
            kept = [set(case.candidates or ()) for case in cases]
            lists = [[i for i in r if i in s][:k] for r, s in zip(lists, kept, strict=True)]
        seconds = (time.perf_counter() - started) / len(cases)
        nats = [self._nats(case) for case in cases]
        return [
            Answer(list(ranked), nats=n, seconds=seconds)
            for ranked, n in zip(lists, nats, strict=True)
        ]

    def _nats(self, case: Case) -> float | None:
        logprobs = getattr(self._baseline, "logprobs", None)
        if logprobs is None or case.candidates is not None:
            return None
        return -float(logprobs(case.history)[case.events.catalog.row(case.target)])


def named(system: Any) -> tuple[str | None, Any]:
    """A system with the name that it was given, None where it has its own."""
    return system if isinstance(system, tuple) else (None, system)


def build_systems(
    dataset: Dataset, given: Sequence[Any], exclude_seen: bool, before: str, seed: int
) -> list[System]:
    """Systems, baselines by name fitted.

    Args:
        dataset: with the protocol's split.
        given: see ``evaluate``.
        exclude_seen: whether items of the history are left out.
        before: the split before which baselines are fitted and priors counted.
        seed: of what is random in a baseline.

    Raises:
        RequestError: one is no system, or two have the same name.
    """
    found: list[System] = []
    for each in given:
        name, system = named(each)
        if isinstance(system, Recommender):
            check_compatible(system, dataset)
            system = with_prior_fitted_before(system, dataset, before)
            found.append(RecommenderSystem(system, name or name_of(system)))
            continue
        key = f"seed={seed}"
        if isinstance(system, str) and system not in NAMES:
            msg = f"{system!r} is no system. Expected one of: {', '.join(NAMES)}."
            raise SettingsError(msg)
        if system == CollaborativePrior.name:
            system = CollaborativePrior.fit(
                dataset, before=before, sources=_sources(given), seed=seed
            )
            name, key = (
                name or system.name,
                f"{key} before={before} {system.mix} {sorted(system.unread)}",
            )
        elif isinstance(system, str):
            name, key = name or system, f"{key} before={before}"
            system = registry.fit(system, dataset, before=before, seed=seed)
        if not hasattr(system, "rank"):
            msg = (
                f"{system!r:.80} is no system. Expected a Recommender, something with "
                f"rank(history, k, exclude_seen=...), or one of: {', '.join(NAMES)}."
            )
            raise RequestError(msg)
        found.append(
            BaselineSystem(system, name or system.name, exclude_seen=exclude_seen, key=key)
        )
    names = [slug(s.name) for s in found]
    if len(set(names)) < len(names):
        msg = (
            f"Two systems have the same name: {', '.join(s.name for s in found)}. Expected "
            "different ones; give pairs such as ('mine', recommender)."
        )
        raise RequestError(msg)
    return found


def _sources(given: Sequence[Any]) -> Sequence[str]:
    """What the prior mixes that is asked for by name: the same as a recommender's beside it."""
    for _, system in map(named, given):
        if isinstance(system, Recommender) and system.fusing.prior == "collaborative":
            return system.settings.sources
    return COUNTED


def check_compatible(recommender: Recommender, dataset: Dataset) -> None:
    """Refuses a recommender that cannot be evaluated on a dataset.

    Raises:
        RequestError: it has other items, another behavior, or demonstrations that hold targets.
    """
    info = dataset.info
    if recommender.catalog.hash() != dataset.catalog.hash():
        msg = (
            f"The recommender has a catalog of {len(recommender.catalog):,} items that is not the "
            f"one of {info.name} ({len(dataset.catalog):,} items). Expected the same."
        )
        raise RequestError(msg)
    if recommender.behavior != info.target_behavior:
        msg = (
            f"The recommender is for {recommender.behavior!r} and the targets are "
            f"{info.target_behavior!r}. Expected the same; use "
            f"protocols.with_target_behavior(dataset, {recommender.behavior!r})."
        )
        raise RequestError(msg)
    own = recommender.dataset
    if recommender.settings.few_shot and own is not None and own.info.split != info.split:
        msg = (
            f"The recommender shows demonstrations from data split by {own.info.split}, and the "
            f"protocol needs {info.split}. Expected a recommender on "
            "protocols.apply_protocol(dataset, protocol), so that no demonstration holds a target."
        )
        raise RequestError(msg)


def with_prior_fitted_before(
    recommender: Recommender, dataset: Dataset, before: str
) -> Recommender:
    """A recommender whose prior counts the dataset's events before a split, and no others.

    One's own prior stays as it is: what it counted is not known here.
    """
    fused = recommender.fusing.prior
    known = recommender.dataset is not None and recommender.dataset.info.split == dataset.info.split
    if fused in {"none", "own"} or (known and recommender.settings.prior_before == before):
        return recommender
    return recommender.with_settings(data=dataset, prior=fused, prior_events=to_parts(before))


def name_of(recommender: Recommender) -> str:
    """A recommender's name in tables: its model, and what makes it another system."""
    settings = recommender.settings
    parts = [Path(recommender.model.name).name]
    parts += [f"{settings.few_shot}-shot"] if settings.few_shot else []
    parts += [settings.decoder] if settings.decoder != "trie" else []
    prior = recommender.settings.prior
    parts += {"auto": [], "none": ["alone"]}.get(prior, [f"+ {prior}"])
    return " ".join(parts)


def slug(name: str) -> str:
    """A system's name as a file name.

    >>> slug("smollm2-135m 4-shot"), slug("../x")
    ('smollm2-135m-4-shot', 'x')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "system"
