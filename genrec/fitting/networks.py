"""Estimate how long a sequence network takes to train, and choose how long it may be trained.

A network may start from a language model's hidden states of the titles, which are computed once.

A network whose scores a learned ranking uses is trained three times: on the events before the
labels of the train part, on the whole train part, and on all events, for serving. One epoch is
measured, and the time of the others is estimated from the numbers of their events.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genrec.baselines import registry
from genrec.baselines.sequence import epochs_done
from genrec.baselines.title_sasrec import keep_vectors, locate_vectors
from genrec.baselines.training_events import TrainingEvents
from genrec.cache import digest_code
from genrec.data import protocols
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.matching.hidden_states import title_states
from genrec.matching.vectors import LANGUAGE_MODEL
from genrec.models.language_model import LanguageModel
from genrec.priors.rank_fit import hold_labels
from genrec.types import Log

EPOCHS = (40, 20, 10)  # the maximum numbers of epochs to choose from if there is no time for all
SHARE = 0.6  # the share of the time limit that the training of one network may take
_SAMPLE = 64  # titles that a language model reads to estimate how long it takes for all
_PROBE = "epoch"  # the kind of a measured epoch in the dataset's cache


@dataclass(frozen=True)
class NetworkPlan:
    """The time that a network takes to train.

    Attributes:
        name: the name of the network.
        given: settings of the network, such as the encoder of titles.
        dataset: the dataset, without the contents of the test part.
        full: the dataset with the test part, which the network is trained on for serving.
        seed: the random seed.
        per_event: the seconds of one epoch, divided by the number of its events.
        setup: the seconds before the first epoch, as for computing vectors of titles.
        default: the network's default number of epochs.
        most: the seconds after which no new epoch is started.
    """

    name: str
    given: Mapping[str, Any]
    dataset: Dataset
    full: Dataset
    seed: int
    per_event: float
    setup: float
    default: int
    most: float

    def seconds(self, epochs: int | None, *, remaining: bool = False) -> float:
        """Estimate how long the three trainings take together.

        Args:
            epochs: the maximum number of epochs; None for the network's default.
            remaining: True to leave out the epochs that are already done.
        """
        behavior = self.dataset.info.target_behavior
        early = hold_labels(self.dataset.interactions, behavior)[-1]
        total = 0.0
        for data, before in (
            (replace(self.dataset, interactions=early), "validation"),
            (self.dataset, "validation"),
            (self.full, "end"),
        ):
            events = TrainingEvents.of(data.interactions, behavior, before)
            epoch = self.per_event * len(events.row)
            done = self._done(data, before, epochs) if remaining else 0
            whole = min((epochs or self.default) * epoch, self.most + epoch)
            total += self.setup + max(whole - done * epoch, 0.0)
        return total

    def _done(self, data: Dataset, before: str, epochs: int | None) -> int:
        given = {**self.given, **({} if epochs is None else {"epochs": epochs})}
        path = registry.locate(self.name, data, before=before, seed=self.seed, **given)
        if path is None:
            return 0
        return self.default if path.is_file() else epochs_done(path.with_suffix(".work"))

    def choose(self, limit: float) -> int | None:
        """Choose the maximum number of epochs; it depends only on the limit, not on the time left.

        So a second run with the same limit continues the same training.

        Args:
            limit: the time limit of the command in seconds.

        Returns:
            The number of epochs, None for the network's default, or 0 if not even the smallest
            number of ``EPOCHS`` fits.
        """
        for epochs in (None, *EPOCHS):
            if self.seconds(epochs) <= SHARE * limit:
                return epochs
        return 0


def reading_seconds(dataset: Dataset, encoder: str, log: Log) -> float:
    """Estimate how long a language model takes to read all titles.

    Args:
        dataset: a dataset with a folder.
        encoder: the encoder of titles. The result is 0 if it is not a language model, or if the
            titles have been read before.
        log: a function that is called with a line of text before slow steps.

    Raises:
        ModelError: the model cannot be loaded.
    """
    catalog = dataset.catalog
    assert dataset.folder is not None
    if not encoder.startswith(LANGUAGE_MODEL) or len(catalog) <= _SAMPLE:
        return 0.0
    if locate_vectors(dataset.folder, catalog, encoder).is_file():
        return 0.0
    log(f"Measuring how long {encoder} takes to read titles ...")
    rows = np.linspace(0, len(catalog) - 1, _SAMPLE).astype(int)
    model = LanguageModel.load(encoder.removeprefix(LANGUAGE_MODEL), log=log)
    began = time.monotonic()
    title_states(model, Catalog(catalog[int(n)] for n in rows))
    return (time.monotonic() - began) / _SAMPLE * len(catalog)


def plan_network(
    name: str, given: Mapping[str, Any], dataset: Dataset, full: Dataset, seed: int, log: Log
) -> NetworkPlan:
    """Measure two epochs of a network; see ``NetworkPlan`` for the arguments.

    The measured time is kept in the dataset's cache, and vectors of titles in its folder.
    """
    about: dict[str, Any] = {
        "network": name,
        **given,
        "events": protocols.fingerprint(dataset),
        "behavior": dataset.info.target_behavior,
        "code": digest_code("baselines"),
    }
    kind = registry.load_classes()[name]
    found = full.cache.read(_PROBE, about)
    if found is not None:
        per_event, setup = (float(found[1][name]) for name in ("per_event", "setup"))
    else:
        log(f"Measuring how long {name} takes to train ...")
        encoder = kind.settings_of(given).get("encoder")
        if encoder is not None:  # the titles are read once, and not in each training
            keep_vectors(dataset.catalog, encoder, dataset.folder, log)
        began, ends = time.monotonic(), list[float]()
        note = lambda message: ends.append(time.monotonic())  # noqa: E731
        with tempfile.TemporaryDirectory() as nowhere:
            registry.fit(
                name, dataset, before="validation", folder=nowhere, seed=seed, log=note,
                **{**given, "epochs": 2},
            )  # fmt: skip
        took = time.monotonic() - began
        epoch = ends[-1] - ends[-2] if len(ends) > 1 else took / 2
        events = TrainingEvents.of(dataset.interactions, dataset.info.target_behavior, "validation")
        per_event, setup = epoch / max(len(events.row), 1), max(took - 2 * epoch, 0.0)
        told = {"per_event": repr(per_event), "setup": repr(setup)}
        full.cache.write(_PROBE, about, {}, told)
    most = 60.0 * kind.defaults["minutes"]
    epochs = kind.defaults["epochs"]
    return NetworkPlan(name, given, dataset, full, seed, per_event, setup, epochs, most)
