"""Read and write fitted.json, which says what parts of the collaborative prior improve the lists.

``genrec fit`` finds these parts and writes the file to the dataset folder. The file holds no fitted
parameters. So in an evaluation, which must not use what is fitted to the targets, the parts can be
fitted again to the events that are known there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from genrec.config import COUNTED, FURTHER, LEARNED, NETWORKS, RANKERS, Settings
from genrec.data import protocols
from genrec.data.dataset import FITTED, Dataset
from genrec.errors import DataError
from genrec.files import describe_unreadable, write_text
from genrec.models.packaged import DEFAULT_ENCODER
from genrec.priors.rank_fit import CandidateRankers

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a collaborative prior.

    Attributes:
        sources: the sources of the mixture.
        ranker: the learned ranking of the mixture's best items, ``lambdarank`` or ``none``.
        network: the network whose scores the ranking uses, or ``none``.
        epochs: the maximum number of passes over the data to train the network; None for the
            network's default.
        encoder: the encoder of the titles that the network starts from; None for the network's
            default.
        seed: the random seed for fitting the parts.
    """

    sources: tuple[str, ...] = COUNTED
    ranker: str = "none"
    network: str = "none"
    epochs: int | None = None
    seed: int = 0
    encoder: str | None = None

    @classmethod
    def given(cls, settings: Settings) -> Parts:
        """Return the parts that settings name; ``auto`` stands for the default of each part."""
        ranker = settings.ranker.replace("auto", "none")
        network = settings.network.replace("auto", "none")
        encoder: str | None = settings.network_encoder
        if encoder in {"auto", DEFAULT_ENCODER}:
            encoder = None
        return cls(settings.sources, ranker, network, None, settings.seed, encoder)

    def chosen_by(self, settings: Settings) -> Parts:
        """Return the parts to use if ``auto`` stands for these parts and settings name the others."""
        given = Parts.given(settings)
        sources = self.sources if settings.prior_sources == "auto" else given.sources
        ranker = self.ranker if settings.ranker == "auto" else given.ranker
        network = self.network if settings.network == "auto" else given.network
        if ranker == "none":
            network = "none"
        epochs, encoder = None, given.encoder
        if settings.network == "auto" and network != "none":
            epochs, encoder = self.epochs, self.encoder
        found = Parts(sources, ranker, network, epochs, given.seed, encoder)
        return given if found == given else replace(found, seed=self.seed)

    def with_rankers(self, rankers: CandidateRankers | None) -> Parts:
        """Return these parts with the ranker and the network of given rankings, or with none."""
        if rankers is None:
            return self.without_ranker()
        name, epochs, encoder = "none", None, None
        if rankers.network is not None:
            name, epochs, encoder = rankers.network.named
        return replace(self, ranker="lambdarank", network=name, epochs=epochs, encoder=encoder)

    def without_ranker(self) -> Parts:
        """Return these parts without a learned ranking."""
        return replace(self, ranker="none", network="none", epochs=None, encoder=None)

    def apply(self, settings: Settings) -> Settings:
        """Return settings that name these parts. ``auto`` remains only where it means the same."""
        return replace(
            settings,
            prior_sources="auto" if self.sources == COUNTED else ",".join(self.sources),
            ranker=self.ranker,
            network=self.network,
            network_encoder=self.encoder or "auto",
            seed=self.seed,
        )

    @property
    def network_text(self) -> str:
        """The network with its passes and its encoder, in the form that ``RankNetwork.fit`` takes."""
        epochs = "" if self.epochs is None else f":{self.epochs}"
        return self.network + epochs + (f"@{self.encoder}" if self.encoder else "")

    def named(self) -> tuple[str, ...]:
        """Name the parts that fitted weights depend on, as texts for a key.

        Without a ranker, the names are those of the sources.
        """
        if self.ranker == "none":
            return self.sources
        return (*self.sources, f"ranker={self.ranker}", f"network={self.network_text}")

    def describe(self) -> str:
        """Describe the parts in a few words.

        >>> Parts((*COUNTED, "userknn"), "lambdarank", "sasrec").describe()
        'prior with userknn, ranked by lambdarank with sasrec'
        >>> Parts().describe()
        'prior'
        """
        more = [name for name in self.sources if name not in COUNTED]
        text = f"prior with {', '.join(more)}" if more else "prior"
        if self.ranker == "none":
            return text
        network = "" if self.network == "none" else f" with {self.network}"
        encoder = f" from {self.encoder}" if self.encoder else ""
        return f"{text}, ranked by {self.ranker}{network}{encoder}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """The result of ``genrec fit`` for the events of a dataset and a behavior.

    Attributes:
        events: a hash of the catalog, the events and their split.
        behavior: the behavior to predict.
        parts: the parts of the prior that improve the lists.
        report: what each part adds, as values that JSON can represent.
    """

    events: str
    behavior: str
    parts: Parts
    report: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write the result to a dataset folder, keeping the results for other behaviors.

        Results for other events are dropped.
        """
        path = folder / FITTED
        try:
            known = _entries(path) if path.is_file() else []
        except DataError:
            known = []  # a damaged file holds nothing to keep
        same = [e for e in known if e["events"] == self.events and e["behavior"] != self.behavior]
        text = json.dumps(
            {"format_version": FORMAT_VERSION, "fitted": [*same, asdict(self)]}, indent=2
        )
        write_text(path, text + "\n")


def load_fitted(dataset: Dataset, behavior: str) -> tuple[Fitted | None, str]:
    """Read the result of ``genrec fit`` from a dataset's folder.

    Args:
        dataset: the dataset.
        behavior: the behavior to predict.

    Returns:
        The result, or None if there is none for these events and this behavior; and a note for the
        user, which is empty unless there is only a result for other events.

    Raises:
        DataError: the file is damaged.
    """
    path = None if dataset.folder is None else dataset.folder / FITTED
    if path is None or not path.is_file():
        return None, ""
    entries, events = _entries(path), protocols.fingerprint(dataset)
    for entry in entries:
        if (entry["events"], entry["behavior"]) == (events, behavior):
            return Fitted(events, behavior, _parts(entry["parts"]), entry["report"]), ""
    if any(entry["events"] == events for entry in entries):
        return None, ""
    return None, (
        f"{path} is not used, because it was written for other events, another split or another "
        "version of genrec. Run `genrec fit` again."
    )


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the results in a file. A file of another format version holds none.

    Raises:
        DataError: the file is damaged.
    """
    if problem := describe_unreadable(path):
        raise DataError(problem)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            return []
        for entry in values["fitted"]:
            _parts(entry["parts"])
            _ = entry["events"], entry["behavior"], entry["report"]
        return list(values["fitted"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        msg = f"{path} is damaged: {error!r}. Delete it and run `genrec fit` again."
        raise DataError(msg) from error


def _parts(values: Mapping[str, Any]) -> Parts:
    """Build parts from stored values.

    Raises:
        ValueError: a value is unknown.
        TypeError: a field is missing or unknown.
    """
    parts = Parts(**{**values, "sources": tuple(values["sources"])})
    known = {*COUNTED, *FURTHER, *LEARNED}
    if not {*parts.sources} <= known or "auto" in {parts.ranker, parts.network}:
        msg = f"unknown parts {values}"
        raise ValueError(msg)
    if parts.ranker not in RANKERS or parts.network not in NETWORKS:
        msg = f"unknown parts {values}"
        raise ValueError(msg)
    return parts
