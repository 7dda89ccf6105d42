"""Validate a model trained to predict next items, using the decoder that recommends items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from genrec.config import Settings
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.protocols import Case
from genrec.evaluation import metrics
from genrec.models.language_model import LanguageModel
from genrec.recommender import Recommender
from genrec.training.config import Training
from genrec.training.objectives import Validation


class ListValidation(Validation):
    """A validation that recommends ten items to each user in a fixed sample."""

    def __init__(self, recommender: Recommender, cases: Sequence[Case]) -> None:
        """Store the recommender of the model, and the users with their targets."""
        order = np.random.default_rng(0).permutation(len(cases)).tolist()
        self._recommender = recommender
        self._cases = [cases[i] for i in order]  # so that the first ones are a random sample, too
        self.size = len(cases)

    def measure(self, parts: int) -> dict[str, Any]:
        """Return the mean loss in nats, HR@10 and NDCG@10 of the first users."""
        self._recommender.model.forget_lines()
        nats, ranks = [], []
        for case in self._cases[:parts]:
            answer, spent, _ = self._recommender.with_nats(case.history, 10, case.target)
            nats.append(spent)
            ranks.append(metrics.rank_of(case.target, [r.item_id for r in answer]))
        return {
            "nats": float(np.mean(nats)),
            "hit_rate@10": float(np.mean(metrics.hit_rate(ranks, 10))),
            "ndcg@10": float(np.mean(metrics.ndcg(ranks, 10))),
            "users": len(nats),
        }

    def parts_of(self, values: Mapping[str, Any]) -> int:
        """Return the number of users on which earlier metrics were measured."""
        return int(values["users"])


def build_validation(
    data: Dataset, settings: Settings, training: Training, model: LanguageModel
) -> Validation | None:
    """Create a validation that measures a model without the prior.

    Returns:
        The validation, or None if the settings turn it off.
    """
    if not training.eval_users or training.before == "test":
        return None
    protocol = training.protocol or protocols.default_protocol(data)
    cases = protocols.sample(protocols.cases(data, protocol, "validation"), training.eval_users)
    plain = replace(settings, prior="none", fusion="auto", normalization="catalog", decoder="trie")
    return ListValidation(Recommender(data, model, **asdict(plain)), cases)
