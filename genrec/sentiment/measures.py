"""Measure a classifier of texts on texts that it has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from genrec.errors import DataError
from genrec.evaluation.bootstrap import Interval, bootstrap
from genrec.evaluation.metrics import calibration
from genrec.types import FloatArray

BINS = 15


@dataclass(frozen=True, slots=True)
class Measured:
    """How well probabilities agree with labels.

    Attributes:
        texts: the number of texts.
        accuracy: the share of texts whose more probable label is the right one.
        auc: the probability that a positive text has a higher probability than a negative one.
        nats: the mean negative log-probability of the right label.
        calibration_error: the expected calibration error; see ``metrics.calibration``.
    """

    texts: int
    accuracy: Interval
    auc: float
    nats: float
    calibration_error: float

    def to_dict(self) -> dict[str, object]:
        """Return the values for JSON."""
        return asdict(self)


def measure(probabilities: FloatArray, labels: Sequence[bool], *, bins: int = BINS) -> Measured:
    """Compare probabilities of being positive with labels. Texts without a probability are left out.

    Args:
        probabilities: (n,) probabilities; NaN where there is none.
        labels: True for each positive text.
        bins: the number of bins for the calibration error.

    Raises:
        DataError: no text has a probability, or all have the same label.
    """
    from sklearn.metrics import roc_auc_score

    kept = ~np.isnan(probabilities)
    p, y = probabilities[kept], np.asarray(labels, dtype=np.bool_)[kept]
    if not y.any() or y.all():
        msg = f"All {len(y):,} texts have the same label. Expected positive and negative texts."
        raise DataError(msg)
    right = (p > 0.5) == y
    nats = -np.log(np.clip(np.where(y, p, 1 - p), 1e-12, None)).mean()
    return Measured(
        len(y), bootstrap(right.astype(np.float64)), float(roc_auc_score(y, p)), float(nats),
        calibration(p, y, bins).error,
    )  # fmt: skip
