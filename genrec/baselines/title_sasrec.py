"""Predict the next item with SASRec, whose item vectors start as projected vectors of the titles.

Items with similar titles then start close together, and training moves them to where users' events
place them. Harte et al. 2023 (Leveraging Large Language Models for Sequential Recommendation,
https://arxiv.org/abs/2309.09261) start item vectors from a language model in this way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from genrec import files
from genrec.baselines.base import FOLDER
from genrec.baselines.sasrec import ItemNet, SASRec
from genrec.baselines.sequence import Net
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.catalog import Catalog
from genrec.matching.vectors import dense, title_vectors
from genrec.types import Float32Array, FloatArray, Log

_SCALE = 0.05  # standard deviation of the numbers in the first item vectors
_LEVELED = 8  # the principal axes before this one are scaled down to its variance


class TitleSASRec(SASRec):
    """Predicts the next item as SASRec does, with item vectors that start as vectors of the titles.

    Settings:
        encoder: the encoder for titles, such as ``lm:smollm2-135m``; see ``Content``.

    All other settings are the same as for ``sasrec``.
    """

    name = "titlesasrec"
    defaults: ClassVar[Mapping[str, Any]] = {
        **SASRec.defaults, "encoder": "minilm", "epochs": 30, "minutes": 20,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Train the network on events, and return its weights and the popularity as arrays."""
        vectors = keep_vectors(self.catalog, self.settings["encoder"], self.index, self.log)
        self._first = project(np.asarray(vectors, dtype=np.float64), self.settings["hidden"])
        return super().learn(events)

    def build(self) -> Net:
        """Build a network whose item vectors are projected title vectors; see ``NetScorer.build``."""
        net = ItemNet(len(self.catalog), self.settings)
        if not hasattr(self, "arrays"):  # otherwise, trained weights follow
            with torch.no_grad():
                net.vectors.weight.copy_(torch.from_numpy(self._first.astype(np.float32)))
        return net


def keep_vectors(catalog: Catalog, encoder: str, folder: Path | None, log: Log) -> Float32Array:
    """Compute vectors of titles and keep them in the dataset folder, or read those kept there.

    Args:
        catalog: the N items.
        encoder: see ``title_vectors``.
        folder: the dataset folder, or None to keep nothing.
        log: a function that is called with progress messages.

    Returns:
        (N, D) unit vectors in the order of the catalog's rows.

    Raises:
        ModelError: the encoder or model could not be downloaded or loaded.
    """
    path = None if folder is None else locate_vectors(folder, catalog, encoder)
    if path is not None and path.is_file() and not files.describe_unreadable(path):
        return np.array(files.map_arrays(path)[0]["vectors"])
    vectors = dense(title_vectors(catalog, encoder, log, folder))
    if path is not None and not files.find_write_problem(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_arrays(path, {"vectors": vectors}, {"encoder": encoder})
    return vectors


def locate_vectors(folder: Path, catalog: Catalog, encoder: str) -> Path:
    """Return the file in a dataset folder in which networks keep the vectors of titles."""
    key = hashlib.sha256(f"{catalog.hash()} {encoder}".encode()).hexdigest()[:16]
    return folder / FOLDER / f"titles-{key}.safetensors"


def project(vectors: FloatArray, size: int) -> FloatArray:
    """Project vectors onto their principal axes.

    The first axes of text vectors have much more variance than the others although they say little
    about the meaning (Mu and Viswanath 2018, https://arxiv.org/abs/1702.01417), so their variance is
    reduced.

    Args:
        vectors: (N, W) vectors.
        size: number of axes, D.

    Returns:
        (N, D) projections with a standard deviation of 0.05. Axes that the vectors do not have are
        filled with random numbers.
    """
    centered = vectors - vectors.mean(axis=0)
    left, spread, _ = np.linalg.svd(centered, full_matrices=False)
    spread = spread[:size]
    limit = spread[min(_LEVELED, len(spread) - 1)] if len(spread) else 0.0
    found = left[:, :size] * np.minimum(spread, limit)
    scale = float(found.std())
    projected = np.random.default_rng(0).normal(scale=_SCALE, size=(len(vectors), size))
    if scale > 0:
        projected[:, : found.shape[1]] = found / scale * _SCALE
    return projected
