"""The context of events: derived from the time, read from columns, and checked in requests."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shop_files import write

from genrec import Dataset
from genrec.data import protocols
from genrec.data.context import (
    DERIVED,
    MOST_NOTE,
    check_context,
    check_note,
    context_of,
    derive,
)
from genrec.data.ingest import EventOptions
from genrec.data.updates import apply_updates
from genrec.errors import RequestError, SettingsError

DAY = 86_400


def dated(tmp_path: Path, **options: Any) -> Dataset:
    events = "user_id,item_id,timestamp,behavior,country\n" + "".join(
        f"{user},{item},{1_600_000_000 + n * 50 * DAY},buy,{country}\n"
        for n, (user, item, country) in enumerate(
            [
                ("u", "a", "DE"),
                ("u", "b", ""),
                ("u", "c", "FR"),
                ("v", "a", "DE"),
                ("v", "c", "2.0"),
            ]
        )
    )
    items, file = write(tmp_path, events=events)
    data, _ = Dataset.prepare(items, file, **options)
    return data


@given(st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)))
def test_what_a_time_says(moment: datetime) -> None:
    time = np.array([moment.replace(tzinfo=UTC).timestamp()])
    season, weekday, part = (DERIVED[c][int(derive(c, time)[0])] for c in DERIVED)
    of_month = [*["winter"] * 2, *["spring"] * 3, *["summer"] * 3, *["autumn"] * 3, "winter"]
    assert season == of_month[moment.month - 1]
    assert weekday == moment.strftime("%A").lower()
    assert part == ("night", "morning", "afternoon", "evening")[moment.hour // 6]


def test_declared_columns_are_stored_and_read(tmp_path: Path) -> None:
    data = dated(tmp_path, context=["country", "season", "country"])
    assert data.info.context == ["country", "season"]
    data.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    for each in (data, loaded):
        assert [dict(each.interactions.interaction(i).context) for i in range(5)] == [
            {"country": "DE", "season": "autumn"}, {"season": "autumn"},
            {"country": "FR", "season": "winter"}, {"country": "DE", "season": "winter"},
            {"country": "2.0", "season": "spring"},
        ]  # fmt: skip
    cases = protocols.cases(loaded, "last-unit")
    assert [case.history.context["country"] for case in cases] == ["FR", "2.0"]
    hidden = protocols.withhold(loaded, "test").interactions.interaction(2)
    assert dict(hidden.context) == {"season": "winter"}
    file = tmp_path / "more.csv"
    file.write_text("user_id,item_id,timestamp,behavior,country\nu,a,1700000000,buy,ES\n")
    more, new = apply_updates(loaded, file)
    place = int(np.flatnonzero(new)[0])
    assert dict(more.interactions.interaction(place).context)["country"] == "ES"
    assert loaded.with_context(None) is loaded
    assert loaded.with_context(["country", "season"]) is loaded
    bare = loaded.with_context([])
    assert bare.interactions.interaction(0).context == {}


def test_a_dataset_without_context_is_stored_as_before(tmp_path: Path) -> None:
    dated(tmp_path).save(tmp_path / "data")
    assert "context" not in json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert Dataset.load(tmp_path / "data").info.context == []


def test_unknown_columns_are_errors_that_name_the_known_ones(tmp_path: Path) -> None:
    data = dated(tmp_path)
    expected = "Expected one or more of: season, weekday, time_of_day, country"
    for name, why in (("devise", ""), ("item_id", "not known before it happens")):
        with pytest.raises(SettingsError, match=f"'{name}' cannot be") as error:
            data.with_context([name])
        assert expected in str(error.value)
        assert why in str(error.value)
    events = data.interactions.to_table().drop_columns(["timestamp", "split"])
    how = EventOptions(time_unit="position")
    ordered = Dataset.from_tables(data.catalog.to_table(), events, name="o", options=how)
    with pytest.raises(SettingsError, match="this data has only positions"):
        ordered.with_context(["season"])


def test_the_context_of_a_request_is_checked() -> None:
    given = {"season": "Winter", "device": 2.0, "vip": True}
    checked = check_context(given, ["device", "vip"])
    assert checked == {"season": "winter", "device": "2", "vip": "true"}
    assert check_context({"season": "low"}, ["season"], {"season"}) == {"season": "low"}
    bad: list[tuple[Any, str]] = [
        ({"devise": "x"}, "Did you mean 'device'"), ({"weather": "x"}, "--context-columns"),
        ({"season": "wintr"}, "Expected one of: winter, spring"), ({"device": ""}, "1 to 100"),
        ({"device": "x" * 101}, "1 to 100"), ({"device": ["x"]}, "1 to 100"), (["season"], "mapping"),
        ({"device": float("nan")}, "1 to 100"), ("season=winter", "mapping"),
    ]  # fmt: skip
    for value, expected in bad:
        with pytest.raises(RequestError, match=expected):
            check_context(value, ["device"])
    assert check_note("a\npresent") == "a present"
    for note in (3, "x" * (MOST_NOTE + 1)):
        with pytest.raises(RequestError, match="at most 500 characters"):
            check_note(note)


def test_the_context_of_a_later_event() -> None:
    found = context_of({"device": "phone", "empty": None}, 1.6e9, ["device", "empty", "season"])
    assert found == {"device": "phone", "season": "autumn"}
    assert context_of({}, 3.0, ["season"]) == context_of({}, None, ["season"]) == {}
