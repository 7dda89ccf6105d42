"""The same events, written in any dialect of any program, are read as the same dataset.

If a file can be read in several ways, the error must name the option that decides, and with this
option the same dataset must be read.
"""

from __future__ import annotations

import datetime as dt
import random
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from support.dialects import (
    CLEAR,
    CLOCKS,
    ENCODINGS,
    ON_ONE_DAY,
    TWO_WAYS,
    WHOLE_DAYS,
    Dialect,
    expected,
    form_of,
    found,
    make_shop,
    write,
)  # fmt: skip

from genrec import Dataset
from genrec.data.column_names import fold, known, known_words, names_of
from genrec.data.ingest import EventOptions
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError

CLOCK_NAMES = ["time", "Uhrzeit", "hour", "heure", "hora", "time of day", "时间", "時刻"]
EXTRAS = ["Country", "Comment", "weight", "Store", "状态", "Größe", "shipping method", "VAT 7%"]
MOST = max(60, settings.get_profile("genrec").max_examples)


def names(role: str) -> list[str]:
    """List the known names of a role, without accents."""
    return [unicodedata.normalize("NFC", name) for name in names_of(role)]


def spell(random_: random.Random, name: str) -> str:
    """Write a name with any case, and perhaps with a separator inside."""
    if random_.random() < 0.5 and len(name) > 3:
        place = random_.randrange(1, len(name))
        name = name[:place] + random_.choice(" _-.") + name[place:]
    return random_.choice([name, name.upper(), name.lower(), name.title()])


def holds(encoding: str, words: str, text: str) -> bool:
    """Check whether a text can be written so that the file tells which encoding it has."""
    if words == "English" and not encoding.startswith("utf"):
        return text.isascii()  # a few cells, such as a header, do not tell
    try:
        return text.encode(encoding).decode(encoding) == text
    except UnicodeError:
        return False


def draw_names(
    random_: random.Random, dialect: dict[str, Any], written: Callable[[str], bool]
) -> dict[str, str]:
    def one(known: list[str]) -> str:
        return spell(random_, random_.choice([n for n in known if written(n)]))

    orders = [n for n in names("unit") if fold(n) not in known_words("sessions")]
    times = [n for n in names("timestamp") if fold(n) not in known_words("clocks")]
    values = names("value")
    if dialect["returns"] == "negative":
        values = [n for n in values if fold(n) not in known_words("kinds_of_values", "use")]
    return {
        "user_id": one(names("user_id")),
        "item_id": one(names("item_id")),
        "title": one(names("title")),
        "timestamp": one(times if dialect["clock"] else names("timestamp")),
        "clock": one(known()["clocks"]),
        "behavior": one(names("behavior")),
        "value": one(values),
        "unit": one(names("unit") if dialect["returns"] == "word" else orders),
        "price": one(["price", "Unit Price", "Preis", "prix", "amount", "价格", "単価"]),
        "category": one(["category", "Kategorie", "product type", "brand", "类别"]),
        **dict(zip(["extra 1", "extra 2", "extra 3"], random_.sample(
            [n for n in EXTRAS if written(n)], 3), strict=True)),
    }  # fmt: skip


@st.composite
def dialects(draw: st.DrawFn) -> tuple[Dialect, int, str, str]:
    """Draw a dialect, and the seed, the words and the kind of ids of its shop."""

    def one(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    kind = one("csv", "csv", "csv", "jsonl", "json", "parquet", "sqlite")
    text = kind in {"csv", "jsonl", "json"}
    encoding = one(*ENCODINGS) if kind == "csv" else one("utf-8", "utf-8-sig")
    returns = one("word", "negative", "basket")
    clock = one("", "", "", *CLOCKS)
    forms = list(ON_ONE_DAY) if clock else [*CLEAR, *TWO_WAYS, *WHOLE_DAYS]
    words = one(*ENCODINGS[encoding])
    written = partial(holds, encoding, words)
    forms = [f for f in forms if written(form_of(f, clock)(dt.datetime(2019, 3, 1)))]
    ids = one("plain", "zeros", "letters")
    options: dict[str, Any] = {
        "kind": kind,
        "order": draw(st.integers(0, 1 << 16)),
        "two_files": one(False, True),
        "parts": one(0, 0, 3) if kind not in {"sqlite"} else 0,
        "packed": one(False, True) if text else False,
        "encoding": encoding,
        "delimiter": one(*",;\t|"),
        "quote_all": one(False, True),
        "ends": one("\n", "\r\n") if kind != "csv" else one("\n", "\r\n", "\r"),
        "start": one("", "", "sep", "blank"),
        "blanks": one(False, True),
        "trailing": one("", "", "rows", "all"),
        "when": one(*forms),
        "clock": clock,
        "decimal": one(".", ".,", ",", ",.", ", ", ".'"),
        "currency": one(("", ""), ("$", ""), ("", " EUR"), ("kr ", "")),
        "floats": ids == "plain" and one(False, True),
        "returns": returns,
        "first_lines": one(False, False, True),
        "entities": one(False, True),
        "extras": one(False, True),
        "guests": one(0, 2),
    }
    options["names"] = draw_names(random.Random(options["order"]), options, written)
    return Dialect(**options), draw(st.integers(0, 1 << 16)), words, ids


def choices_in(message: str, dialect: Dialect) -> dict[str, Any]:
    """The options that a message names, with the values that are right for a dialect."""
    right: dict[str, dict[str, str | None]] = {
        "--date-format": {"date_format": dialect.date_format},
        "--encoding": {"encoding": dialect.encoding},
    }
    chosen: dict[str, Any] = {}
    for option, value in right.items():
        if option in message and None not in value.values():
            chosen |= value
    if "date_format" in chosen:
        assert f"--date-format {dialect.date_format!r}" in message
    return chosen


def read_back(items: Any, events: Any, dialect: Dialect) -> tuple[Dataset, list[Rejects], int]:
    """Read a shop, making the choices that errors ask for, and count these choices."""
    options: dict[str, Any] = {}
    while True:
        try:
            data, rejects = Dataset.prepare(items, events, options=EventOptions(**options))
        except DataError as error:
            note(str(error))
            chosen = choices_in(str(error), dialect)
            if chosen.keys() <= options.keys():
                raise
            options |= chosen
        else:
            return data, rejects, len(options)


@settings(max_examples=MOST)
@given(drawn=dialects())
def test_a_shop_in_any_dialect(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Dialect, int, str, str]
) -> None:
    dialect, seed, words, ids = drawn
    behaviors = ["buy", "view"] if dialect.returns == "word" else ["buy"]
    shop = make_shop(seed, words, behaviors, ids)
    items, events = write(shop, dialect, tmp_path_factory.mktemp("d"))
    data, rejects, choices = read_back(items, events, dialect)
    event(f"{dialect.kind}, {choices} choices")
    note("\n".join(data.info.notes))
    wanted = expected(shop, dialect)
    content = found(data, dialect.names)
    assert content.rows == wanted.rows
    assert content.items == wanted.items
    assert content.baskets == wanted.baskets
    assert [row[2] for r in rejects for row in r.rows] == ["empty user_id"] * dialect.guests
