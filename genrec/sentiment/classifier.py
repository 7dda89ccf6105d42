"""Learn from labeled texts how probable it is that a text is positive.

The features come from ``genrec.sentiment.features``; the classifier is a logistic regression. This
module deals with texts and labels, not with events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genrec import files
from genrec.errors import DataError, SettingsError
from genrec.text import visible
from genrec.types import BoolArray, FloatArray, Log

WAYS = ("words", "encoder", "states", "answers")
LEAST = 20  # minimum number of texts with each label
FORMAT_VERSION = 1
_STRENGTHS = (0.1, 0.5, 2.0, 8.0, 30.0)  # values of C to choose from
_FOLDS = 5
_MOST = 30.0  # maximum absolute value of a log-odds


@dataclass(frozen=True, eq=False)
class Sentiment:
    """A classifier that estimates the probability that a text is positive.

    Attributes:
        by: the kind of features. ``words``: words and pairs of neighboring words. ``encoder``: the
            vectors of a small text encoder. ``states``: hidden states of a language model.
            ``answers``: how much more a language model expects a positive word than a negative one
            after the text.
        source: the name or folder of the encoder or model; empty for ``words``.
        weights: (F,) weight of each feature. Features are scaled by ``scale`` first.
        bias: the log-odds of a text whose features are all 0.
        center: (F,) mean of the features, which is subtracted; empty for ``words``.
        scale: (F,) standard deviation of the features, by which they are divided. For ``words``, the
            inverse document frequency of each feature, by which it is multiplied.
        texts: the number of labeled texts that the classifier has learned from; 0 for none.
    """

    by: str
    source: str
    weights: FloatArray
    bias: float
    center: FloatArray = field(default_factory=lambda: np.empty(0))
    scale: FloatArray = field(default_factory=lambda: np.empty(0))
    texts: int = 0

    @classmethod
    def untrained(cls, model: str) -> Sentiment:
        """Return a classifier that has seen no labels, and asks a language model.

        Its probabilities are those of the model's words and not calibrated.

        Args:
            model: the name or folder of the model.
        """
        return cls("answers", model, np.ones(1), 0.0, np.zeros(1), np.ones(1))

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: Sequence[bool],
        by: str = "words",
        source: str = "",
        *,
        seed: int = 0,
        log: Log = lambda message: None,
    ) -> Sentiment:
        """Fit a classifier to labeled texts.

        The strength of the regularization is chosen by cross-validation, and the log-odds are then
        scaled so that the probabilities of the held-out texts are calibrated (Platt 1999). Texts
        without visible characters, and all but the first of equal texts, are ignored.

        Args:
            texts: the texts.
            labels: True for each positive text.
            by: one of ``WAYS``.
            source: the encoder for ``encoder``, the model for ``states`` and ``answers``; if empty,
                ``minilm`` or ``smollm2-135m``.
            seed: the random seed for dividing the texts.
            log: a function that is called with a line of text before slow steps.

        Raises:
            SettingsError: ``by`` is unknown.
            DataError: there are fewer than ``LEAST`` texts with one of the labels, or the numbers of
                texts and labels differ.
            ModelError: the encoder or model cannot be loaded.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        source = _source(by, source)
        texts, known = _usable(texts, labels)
        features = _features(texts, by, source, log)
        center, scale = _scaling(features, by)
        features = _scaled(features, by, center, scale)
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
        best: tuple[float, float, FloatArray] | None = None
        wide = 1.0 if by == "words" else 1 / max(1.0, np.sqrt(features.shape[1]))
        for strength in _STRENGTHS:
            made = LogisticRegression(C=strength * wide, max_iter=1000)
            odds = cross_val_predict(made, features, known, cv=folds, method="decision_function")
            slope, shift = _calibrate(odds, known)
            nats = _nats(slope * odds + shift, known)
            if best is None or nats < best[0]:
                best = nats, strength * wide, np.array([slope, shift])
        assert best is not None
        log(f"{len(texts):,} labeled texts, C = {best[1]:g}, {best[0]:.3f} nats held out")
        made = LogisticRegression(C=best[1], max_iter=1000).fit(features, known)
        slope, shift = best[2].tolist()
        weights = slope * made.coef_[0]
        return cls(
            by,
            source,
            weights,
            float(slope * made.intercept_[0] + shift),
            center,
            scale,
            len(texts),
        )

    def probabilities(self, texts: Sequence[str], *, log: Log = lambda message: None) -> FloatArray:
        """Compute the probability that each of n texts is positive.

        Returns:
            (n,) probabilities; NaN for a text without visible characters.

        Raises:
            ModelError: the encoder or model cannot be loaded.
        """
        found = np.full(len(texts), np.nan)
        shown = [n for n, text in enumerate(texts) if visible(text)]
        if shown:
            features = _features([texts[n] for n in shown], self.by, self.source, log)
            features = _scaled(features, self.by, self.center, self.scale)
            odds = np.clip(features @ self.weights + self.bias, -_MOST, _MOST)
            found[shown] = 1 / (1 + np.exp(-odds))
        return found

    def save(self, path: str | Path) -> None:
        """Write the classifier to a safetensors file.

        Raises:
            SettingsError: the file cannot be written.
        """
        files.check_output(path)
        about = {
            "format_version": FORMAT_VERSION, "by": self.by, "source": self.source,
            "texts": self.texts, "bias": self.bias,
        }  # fmt: skip
        arrays = {"weights": self.weights, "center": self.center, "scale": self.scale}
        files.write_arrays(Path(path), arrays, {"sentiment": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> Sentiment:
        """Read a classifier that ``save`` wrote.

        Raises:
            DataError: the file is missing or damaged, or holds something else.
        """
        arrays, metadata = files.map_arrays(Path(path))
        try:
            about = json.loads(metadata["sentiment"])
            if about["format_version"] != FORMAT_VERSION or about["by"] not in WAYS:
                raise ValueError(f"it has format_version {about['format_version']}")
            named: dict[str, Any] = {n: np.array(arrays[n]) for n in ("weights", "center", "scale")}
            return cls(
                about["by"],
                about["source"],
                bias=float(about["bias"]),
                texts=int(about["texts"]),
                **named,
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = (
                f"{path} is not a classifier of this version ({error!r}). Expected a file that "
                "`genrec sentiment --save FILE` wrote; fit it again."
            )
            raise DataError(msg) from error


def check_way(by: str) -> None:
    """Check that a kind of features is known.

    Raises:
        SettingsError: it is not one of ``WAYS``.
    """
    if by not in WAYS:
        msg = f"by={by!r} is not a kind of features. Expected one of {', '.join(WAYS)}."
        raise SettingsError(msg)


def _source(by: str, source: str) -> str:
    check_way(by)
    defaults = {
        "words": "",
        "encoder": "minilm",
        "states": "smollm2-135m",
        "answers": "smollm2-135m",
    }
    return source or defaults[by]


def _usable(texts: Sequence[str], labels: Sequence[bool]) -> tuple[list[str], BoolArray]:
    """Leave out empty texts and repetitions, and check that enough texts are left."""
    if len(texts) != len(labels):
        msg = f"There are {len(texts):,} texts and {len(labels):,} labels. Expected as many labels as texts."
        raise DataError(msg)
    first: dict[str, bool] = {}
    for text, label in zip(texts, labels, strict=True):
        if visible(text):
            first.setdefault(text, bool(label))
    known = np.array(list(first.values()), dtype=np.bool_)
    positive = int(known.sum())
    if min(positive, len(known) - positive) < LEAST:
        msg = (
            f"There are {positive:,} different positive and {len(known) - positive:,} negative texts. "
            f"Expected at least {LEAST} of each; label more texts, or ask a model without labels."
        )
        raise DataError(msg)
    return list(first), known


def _features(texts: Sequence[str], by: str, source: str, log: Log) -> Any:
    """Compute the (n, F) features of texts, which are a sparse matrix for ``words``."""
    from genrec.sentiment.features import ReviewReader, hashed_words

    if by == "words":
        return hashed_words(texts)
    many = len(texts)

    def progress(done: int) -> None:
        log(f"{min(done, many):,} of {many:,} texts read")

    if by == "encoder":
        from genrec.matching.encoders import load_embedder
        from genrec.matching.index import embed_titles

        return np.asarray(
            embed_titles(load_embedder(source, log=log), list(texts), progress), float
        )
    from genrec.models.language_model import LanguageModel

    reader = ReviewReader(LanguageModel.load(source, log=log))
    if by == "states":
        return reader.states(texts, progress).astype(np.float64)
    return reader.answers(texts, progress)[:, None]


def _scaling(features: Any, by: str) -> tuple[FloatArray, FloatArray]:
    """Compute what features are centered and scaled by; see ``Sentiment``."""
    if by == "words":
        many = np.asarray((features > 0).sum(axis=0), dtype=np.float64).ravel()
        return np.empty(0), np.log((1 + features.shape[0]) / (1 + many)) + 1
    return features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)


def _scaled(features: Any, by: str, center: FloatArray, scale: FloatArray) -> Any:
    """Center and scale features; those of words are scaled to unit length for each text."""
    if by != "words":
        return (features - center) / scale
    from sklearn.preprocessing import normalize

    return normalize(features.multiply(scale).tocsr())


def _calibrate(odds: FloatArray, labels: BoolArray) -> tuple[float, float]:
    """Fit a positive slope and a shift of log-odds to labels."""
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(C=1e3).fit(odds[:, None], labels)
    return max(float(made.coef_[0, 0]), 1e-3), float(made.intercept_[0])


def _nats(odds: FloatArray, labels: BoolArray) -> float:
    return float(np.logaddexp(0, np.where(labels, -odds, odds)).mean())
