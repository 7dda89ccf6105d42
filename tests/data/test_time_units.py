"""Numbers counted from unusual dates, placeholders, other calendars and digits of other scripts."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from genrec.data.date_checks import find_unusable
from genrec.data.ingest import EventOptions
from genrec.data.time_units import to_seconds
from genrec.data.times import read_times
from genrec.errors import DataError

START = dt.datetime(2023, 3, 1, tzinfo=dt.UTC).timestamp()
MOMENTS = START + np.arange(40) * 86_400.0 * 12  # until June 2024
NINE_YEARS = 3287 * 86_400.0
ORIGINS = {
    "dotnet": (dt.datetime(1, 1, 1), 1e7),
    "filetime": (dt.datetime(1601, 1, 1), 1e7),
    "webkit": (dt.datetime(1601, 1, 1), 1e6),
    "apple": (dt.datetime(2001, 1, 1), 1.0),
    "sas": (dt.datetime(1960, 1, 1), 1.0),
    "sas-day": (dt.datetime(1960, 1, 1), 1 / 86_400),
}


def counted(unit: str) -> list[int]:
    """The moments as another program counts them."""
    origin, scale = ORIGINS[unit]
    since = (origin - dt.datetime(1970, 1, 1)).total_seconds()
    return [int((int(m) - int(since)) * int(scale)) if scale >= 1 else
            int((m - since) * scale) for m in MOMENTS]  # fmt: skip


def read(
    cells: Sequence[object], unit: str = "auto", date_format: str | None = None
) -> tuple[np.ndarray, str, str]:
    notes: list[str] = []
    table = pa.table({"timestamp": pa.array(cells)})
    seconds, used, _ = read_times(
        table, "timestamp", unit, notes, source="f.csv", date_format=date_format
    )
    return seconds, used, " ".join(notes)


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("unit", ["dotnet", "filetime", "webkit"])
def test_ticks_are_recognized(unit: str, as_text: bool) -> None:
    numbers = counted(unit)
    seconds, used, notes = read([str(n) for n in numbers] if as_text else list(numbers))
    assert used == unit
    assert np.abs(seconds - MOMENTS).max() < 1e-3
    assert f"guessed: {unit}, from 2023-03-01 to 2024-06-11" in notes


@pytest.mark.parametrize("unit", ["apple", "sas"])
def test_seconds_that_may_have_two_origins_ask_for_a_choice(unit: str) -> None:
    numbers = list(counted(unit))
    with pytest.raises(DataError) as error:
        read(numbers)
    assert f"--time-unit {unit} if they are seconds since" in str(error.value)
    assert "from 2023-03-01 to 2024-06-11" in str(error.value)
    assert "--time-unit s if" in str(error.value)
    seconds, used, _ = read(numbers, unit)
    assert (used, seconds.tolist()) == (unit, MOMENTS.tolist())


@pytest.mark.parametrize("unit", sorted(ORIGINS))
def test_every_unit_can_be_named(unit: str) -> None:
    EventOptions(time_unit=unit)
    seconds = to_seconds(np.array(counted(unit), dtype=np.float64), unit)
    assert np.abs(seconds - MOMENTS).max() < 1e-3


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([int(m) for m in MOMENTS], "guessed: s, from 2023-03-01 to 2024-06-11"),
        ([int(m * 1000) for m in MOMENTS], "guessed: ms, from 2023-03-01 to 2024-06-11"),
        ([int(m // 86_400) for m in MOMENTS], "guessed: day, from 2023-03-01 to 2024-06-11"),
        (counted("sas-day"), "Some dates are in the future"),
        (counted("sas-day"), "sas-day (from 2023-03-01 to 2024-06-11)"),
        ([int(m - 3 * NINE_YEARS) + 10**5 for m in MOMENTS], "All dates are before 2000"),
        ([466_014 + n for n in range(40)], "from 466014 to 466053. They give only the order"),
        ([1_700_000_000 + n for n in range(2000)], "All 2,000 events are within 3 days"),
    ],
)
def test_the_range_of_numbers_is_said_and_doubted(numbers: list[int], said: str) -> None:
    assert said in read(list(numbers))[2]


def test_small_positions_are_not_doubted() -> None:
    assert read(list(range(1, 50)))[2] == "time unit of column 'timestamp' guessed: position"


@pytest.mark.parametrize(
    ("seconds", "rejected"),
    [
        ([0.0, *MOMENTS], [0]),
        ([-2_208_988_800.0, *MOMENTS], [0]),  # 1900-01-01
        ([4_102_444_800.0, *MOMENTS], [0]),  # 2100-01-01
        ([253_402_214_400.0, *MOMENTS], [0]),  # 9999-12-31
        ([0.0, 1.0, 2.0], []),  # plain numbers that the user called seconds
        (MOMENTS.tolist(), []),
    ],
)
def test_placeholders_are_rejected(seconds: list[float], rejected: list[int]) -> None:
    found = find_unusable(np.array(seconds))
    bad = np.any([mask for mask, _ in found], axis=0)
    assert np.flatnonzero(bad).tolist() == rejected


def test_dates_of_items_may_be_older() -> None:
    old = np.array([-500_000_000.0, 0.0, *MOMENTS])
    assert not any(mask.any() for mask, _ in find_unusable(old, past=True))


def dates(form: str, shift: int = 0) -> list[object]:
    found: list[object] = []
    for moment in MOMENTS:
        day = dt.datetime.fromtimestamp(moment, dt.UTC)
        found.append(
            form.format(y=day.year + shift, m=day.month, d=day.day, s=(day.year + shift) % 100)
        )
    return found


def test_year_day_month() -> None:
    seconds, _, notes = read(dates("{y}-{d:02d}-{m:02d}"))
    assert seconds.tolist() == MOMENTS.tolist()
    assert "year, day and month" in notes


def test_one_wrong_month_does_not_swap_the_others() -> None:
    cells = ["2023-13-01", "2023-04-05", "2023-04-06"]
    seconds, _, _ = read(list(cells))
    assert np.isnan(seconds[0])
    assert dt.datetime.fromtimestamp(seconds[1], dt.UTC).month == 4


def test_both_orders_after_the_year_ask_for_a_choice() -> None:
    cells = [f"2023-04-{n}" for n in range(13, 20)] + [f"2023-{n}-04" for n in range(13, 20)]
    with pytest.raises(DataError, match="'%Y-%d-%m'"):
        read(list(cells))


@pytest.mark.parametrize(
    ("shift", "calendar"), [(543, "Buddhist"), (-621, "Persian"), (-579, "Islamic")]
)
@pytest.mark.parametrize("form", ["{y}-{m:02d}-{d:02d}", "{d:02d}/{m:02d}/{y} 10:00"])
def test_other_calendars_are_named(shift: int, calendar: str, form: str) -> None:
    cells = [c for c in dates(form, shift) if "29" not in str(c)]
    with pytest.raises(DataError) as error:
        read(cells)
    assert calendar in str(error.value)
    assert repr(cells[0]) in str(error.value)


def test_buddhist_years_with_two_digits_are_doubted() -> None:
    cells = [c for c in dates("{d}/{m}/{s}", 543) if "29" not in str(c)]
    assert "Buddhist" in read(cells)[2]


@pytest.mark.parametrize("zero", [0x0660, 0x06F0, 0x0966, 0x0E50, 0xFF10])
@pytest.mark.parametrize(
    "form", ["{y}-{m:02d}-{d:02d}", "{d:02d}/{m:02d}/{y} 00:00", "{y}{m:02d}{d:02d}"]
)
def test_digits_of_other_scripts_are_digits(zero: int, form: str) -> None:
    table = {ord("0") + n: chr(zero + n) for n in range(10)}
    seconds, _, _ = read([str(c).translate(table) for c in dates(form)])
    assert seconds.tolist() == MOMENTS.tolist()


@pytest.mark.parametrize(
    ("cell", "given"),
    [
        ("2023-12", None), ("2023/12", None), ("12/2023", None), ("Dec-23", None),
        ("Dec 2023", None), ("December 2023", None), ("2023年12月", None), ("2023-12", "%Y-%m"),
        ("12.2023", "%m.%Y"),
    ],
)  # fmt: skip
def test_months_begin_on_their_first_day(cell: str, given: str | None) -> None:
    seconds, _, notes = read([cell], date_format=given)
    assert seconds.tolist() == [dt.datetime(2023, 12, 1, tzinfo=dt.UTC).timestamp()]
    assert notes


def test_dates_far_in_the_future_are_said() -> None:
    year = time.gmtime().tm_year + 9
    _, _, notes = read([*dates("{y}-{m:02d}-{d:02d}"), f"{year}-01-01"])
    assert f"up to {year}-01-01" in notes
