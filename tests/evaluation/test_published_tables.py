from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.evaluation import metrics
from genrec.evaluation.published_tables import check_table


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300), st.integers(2, 5))
def test_true_tables_pass_even_rounded(ranks: list[int], digits: int) -> None:
    values = {
        f"{name}@{k}": metric(ranks, k).mean()
        for k in (1, 3, 5, 10, 20)
        for name, metric in (("HR", metrics.hit_rate), ("N", metrics.ndcg), ("MRR", metrics.mrr))
    }
    assert (
        check_table([{"model": "true"} | {n: f"{v:.{digits}f}" for n, v in values.items()}]) == []
    )
    if max(values.values()) > 0.02:
        assert check_table([{n: f"{100 * v:.{digits}f}" for n, v in values.items()}]) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"HR@10": ".0400", "NDCG@10": ".0450"}, "NDCG@10 0.045 is above HR@10 0.04"),
        ({"NDCG@3": ".0312", "NDCG@5": ".0290"}, "NDCG@5 0.029 is below NDCG@3 0.0312"),
        ({"Recall@5": ".0500", "Recall@10": ".0400"}, "HR@10 0.04 is below HR@5 0.05"),
        (
            {"R@10": ".1000", "N@10": ".0200"},
            "at least 0.0289, even if every target is at the last rank",
        ),
        ({"Hit@5": 0.05, "Hit@10": 0.06, "ndcg@5": 0.03, "ndcg@10": 0.0451}, "not 0.0151"),
        ({"Hit_Rate@5": 0.1, "MRR@5": 0.012}, "at least 0.0200"),
        ({"HR@1": "-0.1"}, "not between 0 and 1"),
        ({"HR@5": "5.1", "NDCG@5": "5.4"}, "NDCG@5 0.054 is above HR@5 0.051"),
    ],
)
def test_impossible_rows_are_named(row: dict[str, Any], said: str) -> None:
    (finding,) = check_table([{"model": "theirs", **row}])
    assert finding.startswith("theirs: ")
    assert said in finding


def test_groups_are_apart_and_the_published_rows_of_the_field_pass() -> None:
    rows: list[dict[str, Any]] = [
        {"model": "SASRec", "Beauty R@5": ".0469", "Beauty R@10": ".0688", "Beauty N@5": ".0305",
         "Beauty N@10": ".0375", "Toys R@5": ".0483", "Toys N@5": ".0304"},
        {"model": "copied", "Beauty R@10": ".0375", "Beauty N@10": ".0688", "Toys R@5": "", "n": 3},
    ]  # fmt: skip
    assert check_table(rows) == ["copied, 3 (Beauty): NDCG@10 0.0688 is above HR@10 0.0375"]


def test_a_table_without_metrics_is_refused() -> None:
    with pytest.raises(DataError, match=r"no metric column\. Its columns are a, b"):
        check_table([{"a": 1, "b": np.pi}])
