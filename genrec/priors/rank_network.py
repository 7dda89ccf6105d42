"""Provide a sequence network's scores of items as features for the learned ranking.

This module deals with histories and catalog rows, not with tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genrec.baselines import registry
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.types import FloatArray

if TYPE_CHECKING:
    from genrec.baselines.sasrec import SASRec

NETWORK = (
    "network"  # the entry of the metadata that describes the network, and prefix of its arrays
)


@dataclass(frozen=True, eq=False)
class RankNetwork:
    """A fitted sequence network, such as ``sasrec``.

    Attributes:
        scorer: the network.
    """

    scorer: SASRec

    @classmethod
    def fit(
        cls,
        name: str,
        dataset: Dataset,
        before: str,
        *,
        seed: int = 0,
        log: Callable[[str], None] = lambda message: None,
    ) -> RankNetwork:
        """Train a network on a dataset's events, or load it if it has been trained before.

        Args:
            name: the name of the network, one of ``config.NETWORKS``. A colon and the maximum number
                of passes over the data may follow, and then an at sign and the encoder of the titles,
                as in ``sasrec:20`` and ``titlesasrec@lm:smollm2-135m``.
            dataset: a dataset whose events are split into train, validation and test parts.
            before: the first part that is not used; see ``registry.fit``.
            seed: the random seed.
            log: function that is called with a line of text from time to time.
        """
        name, _, encoder = name.partition("@")
        name, _, epochs = name.partition(":")
        given: dict[str, Any] = {"epochs": int(epochs)} if epochs else {}
        if encoder:
            given["encoder"] = encoder
        found: Any = registry.fit(name, dataset, before=before, seed=seed, log=log, **given)
        return cls(found)

    @property
    def named(self) -> tuple[str, int | None, str | None]:
        """The network's name, its maximum number of passes and its encoder; None for the defaults."""
        defaults = self.scorer.defaults
        own = {n: v for n, v in self.scorer.settings.items() if v != defaults[n]}
        return self.scorer.name, own.get("epochs"), own.get("encoder")

    def logprobs(self, histories: Sequence[History]) -> list[FloatArray | None]:
        """Compute the log-probabilities of all items that the network knows, for each history.

        Returns:
            For each history, (N,) natural logarithms in the order of the network's catalog. The
            result is None for a history without any item that the network knows.
        """
        catalog = self.scorer.catalog
        known = [
            History(
                tuple(e for e in h.interactions if e.item_id is not None and e.item_id in catalog),
                h.user_id,
            )
            for h in histories
        ]
        read = [n for n, history in enumerate(known) if len(history)]
        found: list[FloatArray | None] = [None] * len(known)
        if read:
            scores = self.scorer.scores_many([known[n] for n in read])
            scores -= scores.max(axis=1, keepdims=True)
            scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
            for n, values in zip(read, scores, strict=True):
                found[n] = values
        return found

    def to_arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return named arrays and metadata strings from which the network can be rebuilt."""
        scorer = self.scorer
        about = [scorer.name, scorer.behavior, len(scorer.catalog), dict(scorer.settings)]
        arrays = {f"{NETWORK}/{name}": np.asarray(a) for name, a in scorer.arrays.items()}
        return arrays, {NETWORK: json.dumps(about)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], catalog: Catalog
    ) -> RankNetwork | None:
        """Rebuild a network from the result of ``to_arrays``; None if there is none.

        Args:
            arrays: the arrays.
            metadata: the metadata.
            catalog: a catalog that begins with the items that the network knows.
        """
        if NETWORK not in metadata:
            return None
        name, behavior, size, settings = json.loads(metadata[NETWORK])
        kind: Any = registry.load_classes()[name]
        own = {
            key.removeprefix(f"{NETWORK}/"): a
            for key, a in arrays.items()
            if key.startswith(NETWORK)
        }
        items = catalog if len(catalog) == size else Catalog(catalog[n] for n in range(size))
        return cls(kind.restore(items, behavior, own, settings))
