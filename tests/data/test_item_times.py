"""The columns with the times of items are read, written in one form and reported where unreadable."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import Catalog, Dataset, Item
from genrec.data.ingest import EventOptions
from genrec.data.item_times import is_available, read_item_times, read_years
from genrec.data.time_units import format_time
from genrec.errors import DataError

CHRISTMAS = 1_766_534_400.0  # 2025-12-24


def catalog(cells: list[Any], column: str = "available_from") -> Catalog:
    return Catalog(Item(f"i{n}", f"item {n}", {column: c}) for n, c in enumerate(cells))


@pytest.mark.parametrize(
    "cell",
    [
        "2025-12-24", "2025-12-24T00:00:00Z", "2025-12-24 01:00:00+01:00", "24.12.2025", "12/24/2025",
        "24 December 2025", "20251224", 20251224, CHRISTMAS, CHRISTMAS * 1000, dt.date(2025, 12, 24),
        dt.datetime(2025, 12, 24, tzinfo=dt.UTC), dt.datetime(2025, 12, 24),
    ],
    ids=str,
)  # fmt: skip
def test_common_forms_of_dates_are_read(cell: Any) -> None:
    assert read_item_times(catalog([cell, None, cell]), "available_from").tolist() == pytest.approx(
        [CHRISTMAS, np.nan, CHRISTMAS], nan_ok=True
    )


@pytest.mark.parametrize("cell", ["soon", "2025-02-30", "9999-12-31", "", "n/a", 7, True])
def test_cells_that_are_no_times_are_left_out(cell: Any) -> None:
    cells = [cell] if not isinstance(cell, str) else [cell, "2025-12-24"]
    found = read_item_times(catalog(cells), "available_from")
    assert np.isnan(found[0])
    assert len(found) == 1 or found[1] == CHRISTMAS


def test_the_order_of_day_and_month_is_never_guessed() -> None:
    """Dates in the future are usual here, so that they do not decide between the orders."""
    cells = ["03/12/2099", "04/01/2026"]
    with pytest.raises(
        DataError, match=r"dates such as '03/12/2099', which could be read in several"
    ):
        read_item_times(catalog(cells), "available_from")
    found = read_item_times(catalog(cells), "available_from", "day-first")
    assert [format_time(s)[:10] for s in found] == ["2099-12-03", "2026-01-04"]
    sure = read_item_times(catalog([*cells, "24/12/2025"]), "available_from")
    assert [format_time(s)[:10] for s in sure] == ["2099-12-03", "2026-01-04", "2025-12-24"]


def test_years() -> None:
    found = read_years(catalog([1970, None, "1999"]), "available_from")
    assert found is not None
    assert found.tolist() == pytest.approx([0.0, np.nan, 915_148_800.0], nan_ok=True)
    for cells in ([1999, 3], ["1999", "soon"], [None], [1999.5]):
        found = read_years(catalog(cells), "available_from")
        assert found is None or np.isnan(found).any()


@given(
    st.lists(st.none() | st.integers(0, 400), min_size=1, max_size=5),
    st.lists(st.none() | st.integers(0, 400), min_size=1, max_size=5),
    st.integers(0, 400),
)
def test_availability_equals_a_plain_comparison(
    since: list[int | None], until: list[int | None], moment: int
) -> None:
    n = min(len(since), len(until))
    hour = 3600 * 12  # every other time is midnight
    one, two = (
        np.array([np.nan if v is None else float(v * hour) for v in values[:n]])
        for values in (since, until)
    )
    found = is_available(one, two, float(moment * hour))
    for place, (start, end) in enumerate(zip(since[:n], until[:n], strict=True)):
        begun = start is None or start <= moment
        last = None if end is None else end + 2 if end % 2 == 0 else end
        assert found[place] == (begun and (last is None or moment < last))
    assert is_available(None, two, 0.0).shape == (n,)


def prepared(until: list[str], **options: Any) -> Dataset:
    n = len(until)
    items = pa.table(
        {
            "item_id": [f"i{i}" for i in range(n)],
            "title": [f"item {i}" for i in range(n)],
            "available_until": until,
        }
    )
    events = pa.table(
        {
            "user_id": ["u", "u", "v"],
            "item_id": ["i0", "i1", "i0"],
            "behavior": ["buy"] * 3,
            "timestamp": ["2025-01-01", "2025-01-02", "2025-01-03"],
        }
    )
    return Dataset.from_tables(items, events, name="shop", options=EventOptions(**options))


def test_prepare_writes_one_form_and_reports_what_it_cannot_read() -> None:
    data = prepared(["24.12.2025", "soon", "", "24.12.2025 18:30"])
    values = [item.attributes["available_until"] for item in data.catalog]
    assert values == ["2025-12-24T00:00:00Z", "soon", "", "2025-12-24T18:30:00Z"]
    (note,) = [n for n in data.info.notes if "available_until" in n]
    assert note == (
        "items, column 'available_until': 1 of 3 cells could not be read as times, such as 'soon' of "
        "the item 'i1'. These items have no end"
    )
    assert not any("available_until" in n for n in prepared(["2025-12-24", ""]).info.notes)


def test_prepare_needs_the_order_of_day_and_month() -> None:
    with pytest.raises(DataError, match="Set --date-format to day-first or month-first"):
        prepared(["03/12/2025", "04/01/2026"])
    data = prepared(["03/12/2025", "04/01/2026"], date_format="month-first")
    assert data.catalog[0].attributes["available_until"] == "2025-03-12T00:00:00Z"
