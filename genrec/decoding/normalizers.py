"""Turn a model's logits into log-probabilities, over the vocabulary or over groups of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.errors import ModelError
from genrec.models.logits import NOT_FINITE, Outputs
from genrec.types import FloatArray, IntArray


def run_logprobs(
    runs: Sequence[Sequence[int]],
    read: Sequence[Sequence[int]],
    every: Outputs,
    temperature: float,
) -> FloatArray:
    """Sum the log-probabilities of the tokens in each run, excluding its first token.

    Args:
        runs: token ids of L runs.
        read: the part of each run that the model has processed.
        every: the model's outputs after every token that it has processed.
        temperature: divisor of the logits.

    Returns:
        (L,) log-probabilities over the whole vocabulary.
    """
    source: list[int] = []
    token: list[int] = []
    owner: list[int] = []
    start = 0
    for number, (run, known) in enumerate(zip(runs, read, strict=True)):
        source += range(start, start + len(run) - 1)
        token += run[1:]
        owner += [number] * (len(run) - 1)
        start += len(known)
    if not token:
        return np.zeros(len(runs))
    rows = np.array(source)
    values = every.at(rows, np.array(token)) / temperature
    values -= vocabulary_norms(every, temperature)[rows]
    return np.bincount(owner, values, len(runs)).astype(np.float64)


def vocabulary_norms(outputs: Outputs, temperature: float) -> FloatArray:
    """Return each row's log-normalizer over the vocabulary, after checking that all are finite."""
    norms = outputs.norms(temperature)
    if not np.isfinite(norms).all():
        raise ModelError(NOT_FINITE)
    return norms


def group_logsumexp(values: FloatArray, start: IntArray, source: IntArray) -> FloatArray:
    """For each of C entries, compute the logarithm of the sum of exponentials over its group.

    Args:
        values: (C,) entries, sorted by group.
        start: (L,) index at which each of L groups starts.
        source: (C,) group of each entry.

    Returns:
        (C,) logarithms, which are the same for all entries of a group.

    Raises:
        ModelError: a sum is not finite.
    """
    peak = np.maximum.reduceat(values, start)
    with np.errstate(invalid="ignore"):
        norm = peak + np.log(np.add.reduceat(np.exp(values - peak[source]), start))
    if not np.isfinite(norm).all():
        raise ModelError(NOT_FINITE)
    return np.asarray(norm[source])
