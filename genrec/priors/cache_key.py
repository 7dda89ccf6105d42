"""Describe what a fitted prior depends on, as a key for the dataset's cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from genrec.cache import digest_code
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.knowledge import Knowledge


def describe_fit(
    dataset: Dataset, before: str, names: Sequence[str], seed: int
) -> dict[str, object]:
    """Describe everything that a fitted prior depends on, as a key for the dataset's cache."""
    import scipy

    told = {
        "name",
        "notes",
        "rejected",
        "uses",
        "warnings",
        "knowledge",
    }  # only for the user, or below
    info = {n: v for n, v in asdict(dataset.info).items() if n not in told}
    known: dict[str, object] = {}
    if names_of := tuple(dataset.info.knowledge):
        known["knowledge"] = Knowledge(names_of, dataset.triples).hash(dataset.catalog)
    if dataset.item_vectors is not None:
        known["vectors"] = dataset.item_vectors.hash()
    return {
        "code": digest_code("data", "matching", "baselines", "priors", "config.py", "text.py"),
        "libraries": [np.__version__, scipy.__version__],
        "catalog": dataset.catalog.hash(),
        "events": protocols.fingerprint(dataset),
        "behaviors": dataset.interactions.behaviors,
        "info": info,
        "before": before,
        "sources": names,
        "seed": seed,
        **known,
    }
