"""Times in every form that is read, and what happens where a form can be read in several ways."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import Catalog, Dataset, Interactions, Item
from genrec.data.ingest import EventOptions, ingest
from genrec.data.readers.numbers import read_numbers
from genrec.data.readers.rejects import Rejects
from genrec.data.times import parse_time, read_times
from genrec.errors import DataError, SettingsError

EPOCH = dt.datetime(1970, 1, 1)
MOMENT = dt.datetime(2010, 12, 31, 20, 26, 5)
CATALOG = Catalog([Item("a", "Red mug")])


def seconds(moment: dt.datetime) -> float:
    return (moment - EPOCH).total_seconds()


def read(cells: Any, unit: str = "auto", **options: Any) -> tuple[list[float], str, list[str]]:
    """Return the times, the unit and the notes of a column."""
    notes: list[str] = []
    table = pa.table({"timestamp": cells})
    found, used, _ = read_times(table, "timestamp", unit, notes, source="f.csv", **options)
    return found.tolist(), used, notes


def reasons(cells: Any, **options: Any) -> dict[int, str]:
    """Return the reason for each cell that holds a time which cannot be used."""
    table = pa.table({"timestamp": cells})
    _, _, problems = read_times(table, "timestamp", "auto", [], **options)
    found: dict[int, str] = {}
    for mask, reason in problems:
        for place in np.flatnonzero(mask).tolist():
            found.setdefault(place, reason)
    return found


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2010-12-31 20:26:05", MOMENT),
        ("2010-12-31T20:26:05Z", MOMENT),
        ("2010-12-31 20:26:05 UTC", MOMENT),
        ("2010-12-31 20:26:05 GMT", MOMENT),
        ("2010-12-31 20:26:05 +0000", MOMENT),
        ("2010-12-31 20:26:05+00", MOMENT),
        ("2010-12-31T21:26:05+01:00", MOMENT),
        ("2010-12-31T21:26:05+01:00[Europe/Berlin]", MOMENT),
        ("2010-12-31 15:26:05 EST", MOMENT),
        ("2010-12-31 20:26:05.25", MOMENT.replace(microsecond=250_000)),
        ("2010-12-31T20:26:05,123456Z", MOMENT.replace(microsecond=123_456)),
        ("2010/12/31 20:26:05", MOMENT),
        ("2010.12.31 20:26:05", MOMENT),
        ("2010/1/2", dt.datetime(2010, 1, 2)),
        ("20101231T202605", MOMENT),
        ("20101231 20:26:05", MOMENT),
        ("20101231 8:26 PM", MOMENT.replace(second=0)),
        ("20101231 9:05", dt.datetime(2010, 12, 31, 9, 5)),
        ("20101231 90500", dt.datetime(2010, 12, 31, 9, 5)),
        ("2010-W52-5", dt.datetime(2010, 12, 31)),
        ("12/31/10 20:26", MOMENT.replace(second=0)),
        ("12/31/2010 08:26:05 PM", MOMENT),
        ("12/31/2010, 8:26:05\u202fPM", MOMENT),
        ("12/31/2010 12:00:00 AM", dt.datetime(2010, 12, 31)),
        ("12/31/2010 12:00 p.m.", dt.datetime(2010, 12, 31, 12)),
        ("31.12.2010 20:26:05", MOMENT),
        ("31. 12. 2010", dt.datetime(2010, 12, 31)),
        ("31. 12. 2010. 20:26:05", MOMENT),
        ("2010.12.31. 20:26:05", MOMENT),
        ("31-12-2010", dt.datetime(2010, 12, 31)),
        ("31/12/2010 20.26.05", MOMENT),
        ("31/12/2010 20h26", MOMENT.replace(second=0)),
        ("Fri Dec 31 13:26:05 -0700 2010", MOMENT),
        ("Fri Dec 31 20:26:05 2010", MOMENT),
        ("Fri Dec 31 2010 13:26:05 GMT-0700 (PDT)", MOMENT),
        ("Fri, 31 Dec 2010 20:26:05 GMT", MOMENT),
        ("31/Dec/2010:20:26:05 +0000", MOMENT),
        ("31-Dec-2010", dt.datetime(2010, 12, 31)),
        ("31-DEC-10 08.26.05.000000 PM", MOMENT),
        ("31DEC2010:20:26:05", MOMENT),
        ("31-Dec-68", dt.datetime(2068, 12, 31)),
        ("31-Dec-70", dt.datetime(1970, 12, 31)),
        ("Dec 31, 2010", dt.datetime(2010, 12, 31)),
        ("Dec-31-10", dt.datetime(2010, 12, 31)),
        ("Dec-31-10 20:26:05", MOMENT),
        ("December 31st, 2010 8:26 PM", MOMENT.replace(second=0)),
        ("Dec  1 2010  8:26AM", dt.datetime(2010, 12, 1, 8, 26)),
        ("31. Dezember 2010 20:26", MOMENT.replace(second=0)),
        ("1 de diciembre de 2010", dt.datetime(2010, 12, 1)),
        ("2 août 2010", dt.datetime(2010, 8, 2)),
        ("12 31, 2010", dt.datetime(2010, 12, 31)),
        ("2010年12月31日 20:26", MOMENT.replace(second=0)),
        ("2010年12月31日", dt.datetime(2010, 12, 31)),
        ("2010年12月31日 下午8时26分05秒", MOMENT),
        ("2010/12/31 下午 08:26:05", MOMENT),
        ("20101231", dt.datetime(2010, 12, 31)),
        ("201012312026", MOMENT.replace(second=0)),
        ("20101231202605", MOMENT),
        ("1293827165", MOMENT),
        ("1293827165000", MOMENT),
        ("1293827165000000", MOMENT),
        ("1293827165000000000", MOMENT),
        ("978307200000000000", dt.datetime(2001, 1, 1)),
        ("40543.85144675926", MOMENT),
        ("40543", dt.datetime(2010, 12, 31)),
        ("40543,5", dt.datetime(2010, 12, 31, 12)),
        ("14974", dt.datetime(2010, 12, 31)),
    ],
)
def test_a_form(cell: str, moment: dt.datetime) -> None:
    times, unit, notes = read([cell, "", None])
    assert times[0] == seconds(moment)
    assert np.isnan(times[1:]).all()
    assert unit != "position"
    assert len(notes) >= 1
    assert not reasons([cell, ""])


@pytest.mark.parametrize(
    "cell",
    [
        "2010-02-30", "2010-13-01", "31.02.2010", "31/12-2010", "32 Dec 2010", "1 Foo 2010", "12:30",
        "2010-12-31 25:00", "2010-12-31 10:61", "12/31/2010 13:05 AM", "2010-12-31 10:00 XYZ", "soon",
        "131/12/2010", "Dec 10", "1/2", "20101331999999 x",
    ],
)  # fmt: skip
def test_what_is_no_time(cell: str) -> None:
    assert np.isnan(read([cell])[0]).all()


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        (pa.timestamp("ns"), MOMENT),
        (pa.timestamp("s", "Europe/Berlin"), MOMENT),
        (pa.date32(), MOMENT.replace(hour=0, minute=0, second=0)),
        (pa.date64(), MOMENT.replace(hour=0, minute=0, second=0)),
    ],
)
def test_columns_of_dates(kind: pa.DataType, moment: dt.datetime) -> None:
    cells = pa.array([MOMENT, None], pa.timestamp("us")).cast(kind, safe=False)
    assert read(cells)[0][0] == seconds(moment)


def test_a_column_of_durations_is_no_time() -> None:
    with pytest.raises(DataError, match=r"f\.csv, column 'timestamp': the type duration\[s\]"):
        read(pa.array([5], pa.duration("s")))


# The order of day and month.


@pytest.mark.parametrize(
    ("cells", "first", "said"),
    [
        (["1/2/2019", "13/2/2019"], "2019-02-01", "with the day first"),
        (["1/2/2019", "2/13/2019"], "2019-01-02", "with the month first"),
        (["1.2.19", "31.1.19", "28.2.99"], "2019-02-01", "two-digit years are read as 1969 to"),
        (["99-12-01", "19-01-31"], "1999-12-01", "with the year first"),
        (["1/2/2098", "3/4/2019"], None, "'%d/%m/%Y' if it is 1 February 2098, or --date-format"),
        (["1/2/2019", "2/2/2019"], None, "--date-format '%d/%m/%Y' if it is 1 February 2019, or "),
        (["1-2-2019 8:00"], None, "'%m-%d-%Y' if it is 2 January 2019"),
        (["1.2.03"], None, "'%d.%m.%y' if it is 1 February 2003, or --date-format '%m.%d.%y'"),
        (["13.2.03"], None, "'%d.%m.%y' if it is 13 February 2003, or --date-format '%y.%m.%d'"),
        (
            ["13/1/2019", "1/13/2019"],
            None,
            "the dates contradict each other: 1 row such as '13/1/2",
        ),
        (["1 2, 2019"], "2019-01-02", "as is usual for dates of this form"),
        (["1 2, 2019", "13 1, 2019"], "2019-02-01", "with the day first"),
    ],
)
def test_the_column_decides_on_day_and_month(
    cells: list[str], first: str | None, said: str
) -> None:
    if first is None:
        with pytest.raises(DataError) as caught:
            read(cells)
        assert said in str(caught.value)
        assert "f.csv, column 'timestamp': the " in str(caught.value)
        assert "--date-format" in str(caught.value)
        return
    times, _, notes = read(cells)
    assert times[0] == seconds(dt.datetime.fromisoformat(first))
    assert said in " ".join(notes)


def test_dates_in_the_future_decide() -> None:
    future = dt.datetime.now() + dt.timedelta(days=800)
    cells = [f"1/2/{future.year}", f"12/1/{dt.datetime.now().year - 1}"]
    with pytest.raises(DataError, match="--date-format"):
        read(cells)
    cells = ["12/2/99", "25/3/19", "31/3/19"]  # or 2012-02-99, which does not exist
    assert read(cells)[0][1] == seconds(dt.datetime(2019, 3, 25))
    times, _, notes = read(["25/3/19", "31/3/19"])  # or 2025-03-19 and 2031-03-19
    assert times[0] == seconds(dt.datetime(2019, 3, 25))
    assert "since otherwise some dates would be in the future" in notes[0]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_of_the_rows_decides(backwards: bool) -> None:
    moments = [dt.datetime(2019, 3, d) for d in (9, 10, 11, 12)]
    moments += [dt.datetime(2019, 4, d) for d in (1, 2, 3, 12)]
    moments = moments[::-1] if backwards else moments
    cells = [f"{m.day}/{m.month}/{m.year}" for m in moments]
    times, _, notes = read(cells)
    assert times == [seconds(m) for m in moments]
    assert "(since otherwise the rows would not be sorted by time)" in notes[0]
    with pytest.raises(DataError, match="--date-format"):
        read(cells[:5])  # too few to be sure
    with pytest.raises(DataError, match="--date-format"):
        read(sorted(f"{m:%d/%m/%Y}" for m in moments))  # sorted as text, which says nothing


def test_events_on_one_day_of_every_month_decide() -> None:
    moments = [dt.datetime(2010, 12, d, 8 + h, 7 * h) for d in range(1, 10) for h in (0, 3, 5)]
    cells = [f"{m.month}/{m.day}/{m.year} {m:%H:%M}" for m in moments]
    with pytest.raises(DataError, match="--date-format"):
        read(cells)  # the same three times: perhaps a monthly report
    moments = [m + dt.timedelta(minutes=n) for n, m in enumerate(moments)]
    cells = [f"{m.month}/{m.day}/{m.year} {m:%H:%M}" for m in moments]
    times, _, notes = read(cells)
    assert times == [seconds(m) for m in moments]
    assert "the same few days of every month" in notes[0]


def test_few_dates_in_another_order_are_rejected() -> None:
    cells = [*(f"{d}/1/2019" for d in range(1, 32)), *["13/2/2019"] * 20, "1/13/2019", "31/2/2019"]
    times, _, notes = read(cells)
    assert np.isfinite(times[:-2]).all()
    assert np.isnan(times[-2:]).all()
    assert reasons(cells) == {
        51: "time is a date that does not have the day first, unlike the others",
        52: "time is a date that does not exist",
    }
    assert "since 39 rows such as '13/1/2019' cannot be read otherwise" in notes[0]


def test_few_dates_of_an_undecided_form_are_rejected() -> None:
    cells = ["2019-01-31", "2019-02-01", "1/2/2019"]
    times, _, _ = read(cells)
    assert np.isnan(times).tolist() == [False, False, True]
    assert reasons(cells) == {2: "time is a date whose day and month cannot be told apart"}
    numbers = [*map(str, range(1_300_000_000, 1_300_000_009)), "1/2/2019"]
    assert reasons(numbers) == {9: "time is a date whose day and month cannot be told apart"}


def test_forms_that_are_clear_may_be_mixed() -> None:
    cells = ["2019-01-31", "1 Feb 2019", "2.3.2019", "31.3.2019", "20190401T000000"]
    expected = [(2019, 1, 31), (2019, 2, 1), (2019, 3, 2), (2019, 3, 31), (2019, 4, 1)]
    assert read(cells)[0] == [seconds(dt.datetime(*d)) for d in expected]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("dates", [1, 3])
def test_numbers_since_1970_and_dates_of_the_same_year_may_be_mixed(unit: str, dates: int) -> None:
    moments = [dt.datetime(2019, 2, day) for day in range(1, 5)]
    numbers = [f"{seconds(m) * {'s': 1, 'ms': 10**3, 'us': 10**6}[unit]:.0f}" for m in moments]
    cells = [m.isoformat() for m in moments[:dates]] + numbers[dates:]
    times, _, notes = read(cells)
    assert times == [seconds(m) for m in moments]
    assert any("1 time: " in note or "3 times: " in note for note in notes)


def test_numbers_far_from_the_dates_are_not_mixed_with_them() -> None:
    dates = [f"2019-02-0{day}" for day in range(1, 5)]
    cells = [*dates, "7", "17928", f"{seconds(dt.datetime(2009, 2, 1)):.0f}"]
    assert np.isfinite(read(cells)[0]).tolist() == [True] * 4 + [False] * 3


# A form that the user gives.


@pytest.mark.parametrize(
    ("cell", "date_format", "moment"),
    [
        ("1/2/2019", "%d/%m/%Y", dt.datetime(2019, 2, 1)),
        ("1/2/2019 8:26 PM", "%m/%d/%Y", dt.datetime(2019, 1, 2, 20, 26)),
        ("1/2/2019", "day-first", dt.datetime(2019, 2, 1)),
        ("1/2/2019", "month-first", dt.datetime(2019, 1, 2)),
        ("19/2/1", "year-first", dt.datetime(2019, 2, 1)),
        ("20190201", "%Y%m%d", dt.datetime(2019, 2, 1)),
        ("2019, 1 (of 2) 20h", "%Y, %d (of %m) %Hh", dt.datetime(2019, 2, 1, 20)),
        ("31-Dec-10 08.26.05 PM", "%d-%b-%y %I.%M.%S %p", MOMENT),
        ("2010-12-31 21:26:05.5 +0100", "%F %T.%f %z", MOMENT.replace(microsecond=500_000)),
        ("Friday, 31. Dezember 2010", "%A, %d. %B %Y", dt.datetime(2010, 12, 31)),
    ],
)
def test_a_given_form(cell: str, date_format: str, moment: dt.datetime) -> None:
    times, unit, notes = read([cell, "tomorrow"], date_format=date_format)
    assert times[0] == seconds(moment)
    assert np.isnan(times[1])
    assert unit == "s"
    assert "date format" in notes[0]


def test_cells_without_the_given_form_are_rejected() -> None:
    cells = ["01.02.2019", "2019-02-01", "13/13/2019", "1551524760"]
    reason = "time does not fit the date format '%d.%m.%Y'"
    assert reasons(cells, date_format="%d.%m.%Y") == dict.fromkeys([1, 2, 3], reason)
    assert reasons(["2/13/2019", "1/2/2019"], date_format="day-first") == {
        0: "time is a date that does not have the day first, unlike the others"
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("%Q/%m/%Y", "has the unknown part '%Q'"),
        ("%d/%m", "does not name day, month and year once each"),
        ("%d/%m/%Y %d", "does not name day, month and year once each"),
        ("tomorrow", "Expected a strptime format such as"),
        ("%d.%m.%", "has the unknown part '%'"),
    ],
)
def test_a_form_that_cannot_be_used(given: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        EventOptions(date_format=given)
    assert said in str(caught.value)


# Units of numbers.


@pytest.mark.parametrize(
    ("numbers", "unit", "said"),
    [
        ([1, 2, 3], "position", "guessed: position"),
        ([0.5, 19000.5], "position", "guessed: position"),
        ([90_000, 10_000_000], "position", "guessed: position"),
        ([20190301, 20199999, 20190302], "position", "guessed: position"),
        ([17956, 17957], "day", "guessed: day"),
        ([30000, 30001], "day", "guessed: day, from 2052-02-20 to 2052-02-21. Some dates are in"),
        ([43525, 43526], "excel", "guessed: excel, from 2019-03-01 to 2019-03-02"),
        ([43525.57, 43526.25], "excel", "guessed: excel, from 2019-03-01 to 2019-03-02"),
        ([20190301, 20190228], "yyyymmdd", "guessed: yyyymmdd, from 2019-02-28 to 2019-03-01"),
        ([201903011200], "yyyymmdd", "guessed: yyyymmdd, from 2019-03-01 to 2019-03-01"),
        ([200_000_000_001], "ms", "guessed: ms"),
        ([1551524760], "s", "guessed: s"),
        ([1551524760123], "ms", "guessed: ms"),
        ([1551524760123456], "us", "guessed: us, from 2019-03-02 to 2019-03-02"),
        ([1551524760123456789], "ns", "guessed: ns, from 2019-03-02 to 2019-03-02"),
    ],
)
def test_the_unit_of_numbers(numbers: list[float], unit: str, said: str) -> None:
    times, used, notes = read(numbers)
    assert used == unit
    assert f"time unit of column 'timestamp' {said}" in notes[0]
    if unit == "position":
        assert times == numbers
    as_text = read([str(n) for n in numbers])
    assert as_text[0] == times
    again, forced, _ = read(numbers, unit)
    assert (again, forced) == (times, unit)


@pytest.mark.parametrize(
    ("numbers", "given", "said"),
    [
        ([1551524760123456], "ms", "the year 51136. Expected years from 1970 to 2100. As microsec"),
        (
            [1551524760123456],
            "ms",
            "this number means 2019-03-02T11:06:00.123456Z: set --time-unit us.",
        ),
        ([1551524760123456789], "us", "set --time-unit ns."),
        ([1551524760], "ms", "With the time unit 'ms', that is the year 1970."),
        ([1551524760], "ms", "set --time-unit s."),
        (
            [20190301124700],
            "ms",
            "As yyyymmdd, this number means 2019-03-01T12:47:00Z: set --time-unit yyyym",
        ),
        ([20190301], "s", "set --time-unit yyyymmdd."),
        ([43525.5], "s", "set --time-unit excel."),
        ([17956], "excel", "set --time-unit day."),
        ([17956], "yyyymmdd", "They are not dates in digits (YYYYMMDD)"),
        ([5_000_000_000], "auto", "No time unit fits. Set --time-unit position"),
        ([9e15], "auto", "They are not plausible in any unit."),
    ],
)
def test_implausible_years_name_the_unit(numbers: list[float], given: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(numbers, given)
    assert said in str(caught.value)
    assert "f.csv, column 'timestamp': the times are numbers such as" in str(caught.value)


def test_few_numbers_out_of_range_are_rejected() -> None:
    good = [20190301 + n for n in range(25)]
    assert reasons([*good, 20190399]) == {25: "time is not a date in digits (YYYYMMDD)"}
    assert reasons([1_300_000_000, 1_300_000_001, 9_999_999_999]) == {2: "time is out of range"}
    assert reasons(["2019-01-01", "2019-01-02", "0001-01-01"]) == {2: "time is out of range"}


@pytest.mark.parametrize(
    ("given", "unit", "expected"),
    [
        ("2011-11-01", "us", "2011-11-01"), ("40848", "excel", "2011-11-01"),
        ("20111101", "yyyymmdd", "2011-11-01"), ("1320105600000000", "us", "2011-11-01"),
        (1320105600, "s", "2011-11-01"),
    ],
)  # fmt: skip
def test_times_given_by_a_user(given: str | float, unit: str, expected: str) -> None:
    assert parse_time(given, unit) == seconds(dt.datetime.fromisoformat(expected))


def test_digits_that_are_no_date_given_by_a_user() -> None:
    with pytest.raises(SettingsError, match="'20111301' is not a time"):
        parse_time("20111301", "yyyymmdd")


# The whole way of a file.


def table(times: list[Any]) -> pa.Table:
    size = len(times)
    return pa.table(
        {
            "user_id": ["u"] * size,
            "item_id": ["a"] * size,
            "behavior": ["buy"] * size,
            "timestamp": times,
        }
    )


def test_a_column_without_times_is_an_error_with_examples() -> None:
    rejects = Rejects("f.csv")
    with pytest.raises(DataError) as caught:
        ingest(table(["soon", "soon", "later", "", "x", "y"]), CATALOG, rejects=rejects)
    assert (
        "f.csv is usable, since no time could be read from cells such as 'soon' or 'later' or 'x'"
        in str(caught.value)
    )
    assert len(rejects.rows) == 6
    with pytest.raises(
        DataError, match="no time in the form '%d/%m/%Y' could be read from cells such as"
    ):
        ingest(
            table(["2019-03-01"]),
            CATALOG,
            EventOptions(date_format="%d/%m/%Y"),
            rejects=Rejects("f.csv"),
        )


def test_the_given_form_reaches_the_events() -> None:
    found = ingest(table(["1/2/2019", "2/2/2019"]), CATALOG, EventOptions(date_format="day-first"))
    assert found.events.columns.timestamp.tolist() == [
        seconds(dt.datetime(2019, 2, 1)), seconds(dt.datetime(2019, 2, 2)),
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["position", "s"])
@pytest.mark.parametrize(
    "times", [[43525.5, 43526.5], [20190301, 20190302], [1551524760000, 1551524761000], [-5, 0.5]]
)
def test_a_dataset_folder_keeps_its_times(tmp_path: Path, unit: str, times: list[float]) -> None:
    events = Interactions.from_table(table(times), CATALOG, time_unit="position")
    folder = tmp_path / "out"
    given = Dataset.from_tables(CATALOG.to_table(), table([1_300_000_000]), name="x")
    data = Dataset(CATALOG, events, given.info)
    data.save(folder)
    text = (folder / "dataset.json").read_text(encoding="utf-8")
    assert '"time_unit": "s"' in text
    (folder / "dataset.json").write_text(
        text.replace('"time_unit": "s"', f'"time_unit": "{unit}"'), encoding="utf-8"
    )
    assert Dataset.load(folder).interactions.columns.timestamp.tolist() == times


# Any moments, in any form.

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905
DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()  # noqa: SIM905
Form = Callable[[dt.datetime], str]
CLEAR: dict[str, Form] = {
    "iso": lambda m: m.isoformat(),
    "utc": lambda m: f"{m:%Y-%m-%d %H:%M:%S} UTC",
    "offset": lambda m: f"{m + dt.timedelta(hours=5, minutes=30):%Y-%m-%dT%H:%M:%S}+05:30",
    "slashes": lambda m: f"{m.year}/{m.month}/{m.day} {m:%H:%M:%S}",
    "goodreads": lambda m: (
        f"{DAYS[m.weekday()]} {MONTHS[m.month - 1]} {m:%d %H:%M:%S} +0000 {m.year}"
    ),
    "mail": lambda m: f"{DAYS[m.weekday()]}, {m.day} {MONTHS[m.month - 1]} {m:%Y %H:%M:%S} GMT",
    "oracle": lambda m: (
        f"{m.day:02}-{MONTHS[m.month - 1].upper()}-{m:%y %I.%M.%S} "
        + ("PM" if m.hour >= 12 else "AM")
    ),
    "chinese": lambda m: f"{m.year}年{m.month}月{m.day}日 {m:%H:%M:%S}",
    "digits": lambda m: f"{m:%Y%m%d%H%M%S}",
    "s": lambda m: f"{seconds(m):.0f}",
    "ms": lambda m: f"{seconds(m) * 1000:.0f}",
    "us": lambda m: f"{seconds(m) * 1_000_000:.0f}",
    "ns": lambda m: f"{int(seconds(m)) * 1_000_000_000}",
    "excel": lambda m: repr(seconds(m) / 86_400 + 25_569),
}
TWO_WAYS: dict[str, tuple[str, Form]] = {
    "us": (
        "%m/%d/%Y",
        lambda m: (
            f"{m.month}/{m.day}/{m.year} {m.hour % 12 or 12}:{m:%M:%S} "
            + ("PM" if m.hour >= 12 else "AM")
        ),
    ),
    "german": ("%d.%m.%Y", lambda m: f"{m:%d.%m.%Y %H:%M:%S}"),
    "british": ("%d/%m/%Y", lambda m: f"{m:%d/%m/%Y %H:%M:%S}"),
    "dutch": ("%d-%m-%Y", lambda m: f"{m.day}-{m.month}-{m.year} {m:%H:%M:%S}"),
    "us, short": ("%m/%d/%y", lambda m: f"{m.month}/{m.day}/{m:%y %H:%M:%S}"),
    "german, short": ("%d.%m.%y", lambda m: f"{m:%d.%m.%y %H:%M:%S}"),
    "iso, short": ("%y-%m-%d", lambda m: f"{m:%y-%m-%d %H:%M:%S}"),
}
some_moments = st.lists(
    st.datetimes(dt.datetime(1990, 1, 2), dt.datetime(2024, 12, 31)).map(
        lambda m: m.replace(microsecond=0)
    ),
    min_size=1,
    max_size=11,  # fewer than it takes to recognize the days of each month
)


@given(moments=some_moments, form=st.sampled_from(list(CLEAR)))
def test_moments_in_clear_forms_are_read_as_they_are(moments: list[dt.datetime], form: str) -> None:
    times, unit, _ = read([CLEAR[form](m) for m in moments])
    assert times == [seconds(m) for m in moments]
    units = {"digits": "yyyymmdd", "ms": "ms", "us": "us", "ns": "ns", "excel": "excel"}
    assert unit == units.get(form, "s")


@given(moments=some_moments, form=st.sampled_from(list(TWO_WAYS)))
def test_moments_are_read_as_they_are_or_the_choice_is_named(
    moments: list[dt.datetime], form: str
) -> None:
    moments = sorted(moments)  # so that the order of the rows can only speak for the truth
    date_format, write = TWO_WAYS[form]
    cells = [write(m) for m in moments]
    expected = [seconds(m) for m in moments]
    assert read(cells, date_format=date_format)[0] == expected
    try:
        times = read(cells)[0]
    except DataError as error:
        times, said = [], str(error)
    if times:
        assert times == expected
        return
    assert f"--date-format '{date_format}' if it is" in said
    if date_format.endswith("%Y"):
        assert all(m.day <= 12 for m in moments)


@given(
    cells=st.lists(
        st.text("0123456789-/.:, TZUCPMAmarkl+年月日()e%$€'\u00a0", max_size=24), max_size=9
    )
)
def test_any_text_is_a_time_or_none(cells: list[str]) -> None:
    column = pa.chunked_array([pa.array(cells, pa.string())])
    assert len(read_numbers(column)[0]) == len(cells)
    try:
        times, unit, _ = read(column)
    except DataError as error:
        said = str(error)
    else:
        said = "f.csv, column 'timestamp': the "
        assert len(times) == len(cells)
        assert unit == "position" or all(abs(t) < 1e19 for t in times if np.isfinite(t))
    assert "f.csv, column 'timestamp': the " in said
