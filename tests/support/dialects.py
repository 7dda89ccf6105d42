"""A small shop, and the many ways in which its events may be written to files."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import html
import io
import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genrec import Dataset
from genrec.data.readers.sql import read_query

Form = Callable[[dt.datetime], str]
EPOCH = dt.datetime(1970, 1, 1)
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
FULL = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October", "November", "December"]  # fmt: skip
GERMAN = ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September",
          "Oktober", "November", "Dezember"]  # fmt: skip
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def seconds(moment: dt.datetime) -> int:
    return int((moment - EPOCH).total_seconds())


def half(moment: dt.datetime) -> str:
    """The time of day on a clock of twelve hours."""
    return f"{moment.hour % 12 or 12}:{moment:%M} {'PM' if moment.hour >= 12 else 'AM'}"


CLEAR: dict[str, Form] = {
    "iso": lambda m: f"{m:%Y-%m-%dT%H:%M:%S}",
    "iso, minutes": lambda m: f"{m:%Y-%m-%d %H:%M}",
    "iso, UTC": lambda m: f"{m:%Y-%m-%d %H:%M:%S} UTC",
    "iso, Z": lambda m: f"{m:%Y-%m-%dT%H:%M:%S}.000Z",
    "iso, zone": lambda m: f"{m + dt.timedelta(hours=2):%Y-%m-%d %H:%M:%S} +0200",
    "slashes": lambda m: f"{m.year}/{m.month}/{m.day} {m.hour}:{m:%M}",
    "dots": lambda m: f"{m:%Y.%m.%d %H:%M}",
    "twitter": lambda m: (
        f"{DAYS[m.weekday()]} {MONTHS[m.month - 1]} {m:%d %H:%M:%S} +0000 {m.year}"
    ),
    "mail": lambda m: f"{DAYS[m.weekday()]}, {m.day} {MONTHS[m.month - 1]} {m:%Y %H:%M:%S} GMT",
    "oracle": lambda m: f"{m:%d}-{MONTHS[m.month - 1].upper()}-{m:%y %H:%M:%S}",
    "long, US": lambda m: f"{FULL[m.month - 1]} {m.day}, {m.year} {half(m)}",
    "long, German": lambda m: f"{m.day}. {GERMAN[m.month - 1]} {m:%Y %H:%M}",
    "Chinese": lambda m: f"{m.year}年{m.month}月{m.day}日 {m:%H:%M}",
    "Japanese": lambda m: f"{m.year}年{m.month}月{m.day}日 {m.hour}時{m:%M}分",
    "14 digits": lambda m: f"{m:%Y%m%d%H%M%S}",
    "12 digits": lambda m: f"{m:%Y%m%d%H%M}",
    "digits, space": lambda m: f"{m:%Y%m%d %H%M%S}",
    "s": lambda m: f"{seconds(m)}",
    "s, float": lambda m: f"{seconds(m)}.0",
    "ms": lambda m: f"{seconds(m) * 1000}",
    "us": lambda m: f"{seconds(m) * 1000_000}",
    "ns": lambda m: f"{seconds(m) * 1000_000_000}",
    "excel": lambda m: f"{seconds(m) / 86_400 + 25_569:.10f}",
    "excel, comma": lambda m: f"{seconds(m) / 86_400 + 25_569:.10f}".replace(".", ","),
}
TWO_WAYS: dict[str, tuple[str, Form]] = {  # with the choice that the error must name
    "US": ("%m/%d/%Y", lambda m: f"{m.month}/{m.day}/{m.year} {m.hour}:{m:%M}"),
    "US, AM": ("%m/%d/%Y", lambda m: f"{m:%m/%d/%Y} {half(m)}"),
    "US, short": ("%m/%d/%y", lambda m: f"{m.month}/{m.day}/{m:%y %H:%M}"),
    "German": ("%d.%m.%Y", lambda m: f"{m:%d.%m.%Y %H:%M}"),
    "German, short": ("%d.%m.%y", lambda m: f"{m:%d.%m.%y %H:%M}"),
    "British": ("%d/%m/%Y", lambda m: f"{m:%d/%m/%Y %H:%M:%S}"),
    "British, short": ("%d/%m/%y", lambda m: f"{m.day}/{m.month}/{m:%y %H:%M}"),
    "Dutch": ("%d-%m-%Y", lambda m: f"{m.day}-{m.month}-{m:%Y %H:%M}"),
    "ISO, short": ("%y-%m-%d", lambda m: f"{m:%y-%m-%d %H:%M}"),
}
WHOLE_DAYS = {
    "day": lambda m: f"{m:%Y-%m-%d}",
    "8 digits": lambda m: f"{m:%Y%m%d}",
    "days": lambda m: f"{seconds(m) // 86_400}",
    "excel, days": lambda m: f"{seconds(m) // 86_400 + 25_569}",
}
ON_ONE_DAY: dict[str, tuple[str | None, Form]] = {  # dates for a separate column
    "day": (None, WHOLE_DAYS["day"]),
    "8 digits": (None, WHOLE_DAYS["8 digits"]),
    "German": ("%d.%m.%Y", lambda m: f"{m:%d.%m.%Y}"),
    "US": ("%m/%d/%Y", lambda m: f"{m.month}/{m.day}/{m.year}"),
    "British, short": ("%d/%m/%y", lambda m: f"{m:%d/%m/%y}"),
    "long": (None, lambda m: f"{m.day} {FULL[m.month - 1]} {m.year}"),
}
CLOCKS: dict[str, Form] = {
    "minutes": lambda m: f"{m:%H:%M}",
    "seconds": lambda m: f"{m:%H:%M:%S}",
    "no zero": lambda m: f"{m.hour}:{m:%M}",
    "AM": half,
}


def form_of(when: str, clock: str) -> Form:
    """The function that writes a date, with or without the time of day."""
    if clock:
        return ON_ONE_DAY[when][1]
    return TWO_WAYS[when][1] if when in TWO_WAYS else {**CLEAR, **WHOLE_DAYS}[when]


WORDS = {
    "English": ["red", "mug", "small", "lamp", "oak", "tray", "blue", "cake tin", "for two"],
    "Western": ["Größe", "Türschloß", "Käse", "café crème", "señal pequeña", "brûlée", "hölzern",
                "Süßigkeiten", "Löffel", "garçon", "Öl", "très léger"],
    "Chinese": ["红色", "陶瓷茶壶", "套装", "纯棉毛巾", "儿童玩具", "不锈钢", "保温杯", "笔记本",
                "大号", "蓝色台灯", "木制托盘", "手机壳"],
    "Japanese": ["赤い", "マグカップ", "ノート", "木製の", "トレイ", "お茶セット", "青い", "ランプ",
                 "タオル", "小さな", "おもちゃ", "保温ボトル"],
    "many": ["Größe", "红色陶瓷", "マグカップ", "кружка", "كوب أحمر", "☕", "naïve", "żółty", "머그"],
}  # fmt: skip
ENCODINGS = {
    "utf-8": list(WORDS), "utf-8-sig": list(WORDS), "utf-16": list(WORDS),
    "utf-16-le": list(WORDS), "cp1252": ["English", "Western"], "latin-1": ["English", "Western"],
    "gb18030": ["English", "Chinese"], "shift_jis": ["English", "Japanese"],
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    behavior: str
    time: dt.datetime
    quantity: float
    basket: str


@dataclass(frozen=True)
class Shop:
    """Items, by id with title, price and category, and events."""

    items: dict[str, tuple[str, float, str]]
    events: list[Event]


def make_shop(seed: int, words: str, behaviors: Sequence[str], ids: str) -> Shop:
    """Invent a shop whose customers make a few visits and put several items into each basket."""
    random_ = random.Random(seed)
    user_ids, item_ids = (
        [make_id(random_, ids, n) for n in random_.sample(range(10_000, 99_999), count)]
        for count in (random_.randint(2, 7), random_.randint(12, 20))
    )
    items = {}
    for place, item in enumerate(item_ids):
        chosen = random_.sample(WORDS[words], 3)
        oddity = random_.choice(["", "", "", ", 2 pcs", "; set", ' "big"', " & co", " | a", "'s"])
        title = f"{' '.join(chosen)} {place}{oddity}"
        price = round(random_.choice([9.95, 0.5, 1234.5, 27.79]) + place, 2)
        items[item] = (title, price, f"c{place % 4}")
    start = dt.datetime(2011, 1, 5) + dt.timedelta(days=random_.randrange(4500))
    span = random_.choice([2, 20, 100, 700])
    events: list[Event] = []
    baskets = iter(random_.sample(range(500_000, 599_999), 99))
    for user in user_ids:
        for visit in range(random_.randint(2, 5)):
            behavior = "return" if visit == 2 else random_.choice(behaviors)
            bought = random_.sample(item_ids, 1 if visit == 2 else random_.randint(1, 4))
            if visit == 0 and user in {user_ids[0], user_ids[-1]}:
                bought = item_ids[:4]  # so some items have several events
            time = start + dt.timedelta(minutes=random_.randrange(span * 24 * 60))
            basket = str(next(baskets))
            for item in bought:
                quantity = random_.choice([1, 1, 2, 12, 0.5, 1500])
                events.append(Event(user, item, behavior, time, quantity, basket))
    return Shop(items, events)


def make_id(random_: random.Random, kind: str, number: int) -> str:
    """Write an id as plain digits, with leading zeros or with letters."""
    letters = f"{random_.choice('ABK')}-{number}"
    return {"zeros": f"{number:08}", "letters": letters}.get(kind, str(number))


@dataclass(frozen=True)
class Dialect:
    """One way to write a shop.

    Attributes:
        kind: csv, jsonl, json, parquet or sqlite.
        names: the name of the column of each role.
        order: the seed for the order of columns and rows.
        two_files: True for a separate file of items.
        parts: the number of files that the events are divided into; 0 for no folder.
        packed: True to compress with gzip.
        encoding: the codec of text files.
        delimiter: the text between cells.
        quote_all: True to quote every cell.
        ends: the end of a line.
        start: lines before the header: nothing, a line ``sep=`` or blank lines.
        blanks: True to add blank lines.
        trailing: a delimiter at the end of no line, of the ``rows`` or of ``all`` lines.
        when: the form of times, a key of the tables above.
        clock: the form of the time of day in a separate column; empty for one column.
        decimal: the decimal sign and the separator of thousands.
        currency: the text before and after prices.
        floats: True to write ids of digits as decimal numbers.
        returns: how returned items are marked: by a ``word``, a ``negative`` quantity or a C before
            the ``basket``. Without words there is no behavior column.
        first_lines: True to write the user and the time only on the first line of a basket.
        entities: True to write titles as HTML.
        extras: True to add columns that genrec does not need.
        guests: the number of rows without a user, which must be rejected.
    """

    kind: str
    names: dict[str, str]
    order: int
    two_files: bool
    parts: int
    packed: bool
    encoding: str
    delimiter: str
    quote_all: bool
    ends: str
    start: str
    blanks: bool
    trailing: str
    when: str
    clock: str
    decimal: str
    currency: tuple[str, str]
    floats: bool
    returns: str
    first_lines: bool
    entities: bool
    extras: bool
    guests: int

    @property
    def date_format(self) -> str | None:
        """The choice of day and month, which may be needed."""
        if self.clock:
            return ON_ONE_DAY[self.when][0]
        return TWO_WAYS[self.when][0] if self.when in TWO_WAYS else None

    @property
    def whole_days(self) -> bool:
        """True if the time of day is not written."""
        return not self.clock and self.when in WHOLE_DAYS

    def number(self, value: float, digits: int | None = None) -> str:
        """Write a number with the decimal sign and the separator of thousands."""
        text = f"{value:,.{digits}f}" if digits is not None else f"{value:,}".removesuffix(".0")
        point, thousands = self.decimal[0], self.decimal[1:]
        return text.replace(",", "\0").replace(".", point).replace("\0", thousands)

    def id(self, given: str) -> str:
        return f"{given}.0" if self.floats and given else given


def event_rows(shop: Shop, dialect: Dialect) -> list[dict[str, str]]:
    """Write the events as rows of texts, by role."""
    form = form_of(dialect.when, dialect.clock)
    known: set[str] = set()
    rows: list[dict[str, str]] = []
    for event in shop.events:
        returned = event.behavior == "return"
        sign = -1 if returned and dialect.returns == "negative" else 1
        cancelled = "C" if returned and dialect.returns == "basket" else ""
        repeated = dialect.first_lines and event.basket in known
        known.add(event.basket)
        title, price, category = shop.items[event.item]
        row = {
            "user_id": "" if repeated else dialect.id(event.user),
            "item_id": dialect.id(event.item),
            "timestamp": "" if repeated else form(event.time),
            "value": dialect.number(sign * event.quantity),
            "unit": cancelled + event.basket,
        }
        if dialect.clock:
            row["clock"] = "" if repeated else CLOCKS[dialect.clock](event.time)
        if dialect.returns == "word":
            row["behavior"] = event.behavior
        if not dialect.two_files:
            row |= describe(title, price, category, dialect)
        if dialect.extras:
            row |= {"extra 1": f'x, "y"; z|\t{len(rows)}', "extra 2": "", "extra 3": "w"}
        rows.append(row)
    rows += [{**row, "user_id": "", "unit": "", "timestamp": form(shop.events[0].time)}
             for row in rows[: dialect.guests]]  # fmt: skip
    return rows


def describe(title: str, price: float, category: str, dialect: Dialect) -> dict[str, str]:
    before, after = dialect.currency
    return {
        "title": html.escape(title) if dialect.entities else title,
        "price": before + dialect.number(price, 2) + after,
        "category": category,
    }


def item_rows(shop: Shop, dialect: Dialect) -> list[dict[str, str]]:
    """Write the items as rows of texts, by role."""
    return [
        {"item_id": dialect.id(item), **describe(*shown, dialect)}
        for item, shown in shop.items.items()
    ]


def write(shop: Shop, dialect: Dialect, folder: Path) -> tuple[Any, Any]:
    """Write the shop, and return the files (or tables) of the items and of the events."""
    rows = event_rows(shop, dialect)
    if not dialect.first_lines:
        random.Random(dialect.order).shuffle(rows)
    items = None
    if dialect.two_files:
        items = _write_table(item_rows(shop, dialect), dialect, folder / "items")
    size = -(-len(rows) // dialect.parts) if dialect.parts else len(rows)
    if not dialect.parts:
        return items, _write_table(rows, dialect, folder / "events")
    (folder / "parts").mkdir()
    for n, start in enumerate(range(0, len(rows), size)):
        part = slice(start, start + size)
        _write_table(rows, dialect, folder / "parts" / f"part-{n}", part)
    return items, folder / "parts"


def _write_table(
    rows: list[dict[str, str]], dialect: Dialect, path: Path, part: slice = slice(None)
) -> Any:
    """Write a part of the rows; the types are those of all rows."""
    roles = list(rows[0])
    random.Random(dialect.order).shuffle(roles)
    names = [dialect.names.get(role, role) for role in roles]
    cells = [[row[role] for role in roles] for row in rows]
    grouped = dialect.decimal == ",."  # then 1.500 is no decimal number
    columns = [_typed([row[place] for row in cells], grouped)[part] for place in range(len(roles))]
    cells = cells[part]
    if dialect.kind == "parquet":
        path = path.with_suffix(".parquet")
        pq.write_table(pa.table(dict(zip(names, map(pa.array, columns), strict=True))), path)
        return path
    if dialect.kind == "sqlite":
        return _through_database(names, columns, path.with_suffix(".db"))
    if dialect.kind in {"json", "jsonl"}:
        objects = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        lines = [json.dumps(one, ensure_ascii=False) for one in objects]
        gap = dialect.ends * (2 if dialect.blanks else 1)
        text = gap.join(lines) + gap if dialect.kind == "jsonl" else f"[{','.join(lines)}]"
    else:
        text = _csv(names, cells, dialect)
    data = text.encode(dialect.encoding)
    path = path.with_suffix(f".{dialect.kind}")
    path.write_bytes(gzip.compress(data) if dialect.packed else data)
    return path


def _csv(names: list[str], rows: list[list[str]], dialect: Dialect) -> str:
    stream = io.StringIO()
    writer = csv.writer(
        stream,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_ALL if dialect.quote_all else csv.QUOTE_MINIMAL,
        lineterminator=dialect.ends,
    )
    more = [""] if dialect.trailing == "rows" else []
    writer.writerow([*names, ""] if dialect.trailing == "all" else names)
    for number, row in enumerate(rows):
        writer.writerow([*row, ""] if dialect.trailing == "all" else [*row, *more])
        if dialect.blanks and number % 7 == 3:
            stream.write(dialect.ends)
    start = {"sep": f"sep={dialect.delimiter}{dialect.ends}", "blank": dialect.ends * 2}
    return start.get(dialect.start, "") + stream.getvalue()


def _typed(values: list[str], grouped: bool) -> list[Any]:
    """Convert texts to numbers where all of them are, as a program with types would."""
    filled = [v for v in values if v]
    if grouped and any(re.fullmatch(r"\d{1,3}\.\d{3}", v) for v in filled):
        return [v or None for v in values]
    if not filled or any(len(v) > 1 and v[0] == "0" and v[1] != "." for v in filled):
        return [v or None for v in values]
    for kind in (int, float):
        try:
            return [kind(v) if v else None for v in values]
        except ValueError:
            continue
    return [v or None for v in values]


def _through_database(names: list[str], columns: list[list[Any]], path: Path) -> pa.Table:
    """Store rows in a database, and read them with a query."""
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    with sqlite3.connect(path) as connection:
        connection.execute(f"create table orders ({quoted})")
        marks = ", ".join("?" * len(names))
        connection.executemany(
            f"insert into orders values ({marks})", list(zip(*columns, strict=True))
        )
    connection.close()
    return read_query("select * from orders", f"sqlite:///{path}")


Row = tuple[str, str, str, int, float]


@dataclass(frozen=True)
class Content:
    """What must come back: the rows, the items and the rows of each basket."""

    rows: Counter[Row]
    items: dict[str, tuple[str, float, str]]
    baskets: Counter[tuple[Row, ...]]


def expected(shop: Shop, dialect: Dialect) -> Content:
    """What must be read from the files of a shop."""
    baskets: dict[str, list[Row]] = {}
    for e in shop.events:
        time = seconds(e.time) // 86_400 * 86_400 if dialect.whole_days else seconds(e.time)
        row = (e.user, e.item, e.behavior, time, e.quantity)
        baskets.setdefault(e.basket, []).append(row)
    bought = {e.item for e in shop.events}
    items = {i: s for i, s in shop.items.items() if dialect.two_files or i in bought}
    return _content(baskets, items)


def found(data: Dataset, names: dict[str, str]) -> Content:
    """What was read."""
    events = data.interactions
    c = events.columns
    baskets: dict[str, list[Row]] = {}
    for n in range(len(events)):
        item = data.catalog[int(c.row[n])].item_id
        user, behavior = events.user_ids[int(c.user[n])], events.behaviors[int(c.behavior[n])]
        row = (user, item, behavior, round(float(c.timestamp[n])), float(c.value[n]))
        baskets.setdefault(str(int(c.unit[n])), []).append(row)
    items = {
        i.item_id: (i.title, i.attributes.get(names["price"]), i.attributes.get(names["category"]))
        for i in data.catalog
    }
    return _content(baskets, items)


def _content(baskets: dict[str, list[Row]], items: dict[str, Any]) -> Content:
    rows = Counter(row for basket in baskets.values() for row in basket)
    return Content(rows, items, Counter(tuple(sorted(b)) for b in baskets.values()))
