"""Invert large matrices of items by items in place."""

from __future__ import annotations

import numpy as np

from genrec.types import FloatArray

_ROWS = 1024  # rows that are copied at a time


def invert(matrix: FloatArray) -> FloatArray:
    """Invert a symmetric positive definite matrix by a Cholesky factorization.

    The matrix is overwritten, so that no second matrix of its size is needed.

    Args:
        matrix: (N, N) float64 matrix in C order.

    Returns:
        The (N, N) inverse.

    Raises:
        ValueError: the matrix is not positive definite.
    """
    from scipy.linalg import lapack

    if not len(matrix):
        return matrix
    factor, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if failed:
        msg = "The matrix is not positive definite. Expected a positive penalty on its diagonal."
        raise ValueError(msg)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    for first in range(0, len(inverse), _ROWS):  # LAPACK fills only the lower half
        rows = slice(first, first + _ROWS)
        inverse[:first, rows] = inverse[rows, :first].T
        above = np.triu_indices(len(inverse[rows]), 1)
        inverse[rows, rows][above] = inverse[rows, rows].T[above]
    return np.asarray(inverse, dtype=np.float64)
