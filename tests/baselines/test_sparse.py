"""The strongest values of a sparse matrix are those of sorting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from genrec.baselines.sparse import keep_strongest

rows = st.lists(
    st.dictionaries(st.integers(0, 7), st.sampled_from([0.25, 0.5, 0.5, 1.0, -1.0])),
    min_size=1, max_size=4,
)  # fmt: skip


@given(rows, st.integers(0, 9))
def test_the_highest_values_and_among_equal_ones_the_first_columns(
    values: list[dict[int, float]], n: int
) -> None:
    columns = [column for row in values for column in row]  # in any order
    data = [value for row in values for value in row.values()]
    starts = np.cumsum([0, *map(len, values)])
    given_matrix = sparse.csr_array((data, columns, starts), shape=(len(values), 8), dtype=float)
    expected = np.zeros(given_matrix.shape)
    for number, row in enumerate(values):
        for column in sorted(row, key=lambda column: (-row[column], column))[:n]:
            expected[number, column] = row[column]
    kept = keep_strongest(given_matrix, n)
    assert kept.toarray().tolist() == expected.tolist()
    assert kept.nnz == np.count_nonzero(expected)
    assert given_matrix.nnz == len(data)
