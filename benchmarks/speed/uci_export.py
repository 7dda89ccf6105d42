"""Make UCI Online Retail's files again, with the faults that the published ones have.

The copy of the data that we measure on is cleaned. This module puts back what was removed: rows
without a customer or a title, remarks in place of titles, cancelled invoices, fees, stock
corrections, repeated rows, and ids that a data frame wrote as floats. There are as many rows of each
kind as in the published file, as far as it is known.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

ROWS = 541_909
RELEASES = {
    "I": (
        "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice",
        "CustomerID", "Country",
    ),
    "II": (
        "Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID",
        "Country",
    ),
}  # fmt: skip
ACCENTED = {"90500": "CAFÉ SIGN £5", "90501": "CRÈME BRÛLÉE DISH", "90502": "£ NOTE TEA TOWEL"}
"""The items that are not ASCII. They were sold to customers without an id."""

REMARKS = ("damaged", "?", "check", "lost", "wrongly coded", "thrown away", "found", "damages")
_FEES = {  # title, rows with a customer, rows without one, and whether they are cancellations
    "POST": ("POSTAGE", 1196, 60, False),
    "M": ("Manual", 465, 105, False),
    "C2": ("CARRIAGE", 134, 10, False),
    "D": ("Discount", 77, 0, True),
    "DOT": ("DOTCOM POSTAGE", 16, 694, False),
    "CRUK": ("CRUK Commission", 16, 0, True),
    "BANK CHARGES": ("Bank Charges", 12, 25, False),
    "PADS": ("PADS TO MATCH ALL CUSHIONS", 4, 0, False),
    "AMAZONFEE": ("AMAZON FEE", 0, 34, True),
    "S": ("SAMPLES", 0, 63, False),
    "m": ("Manual", 0, 1, False),
}
_STOCK = {  # rows without a customer: without a title or with a remark, negative or not
    ("", -1): 862,
    ("", 1): 480,
    ("remark", -1): 474,
    ("remark", 1): 400,
}
_ONLY = {"": 112, "check": 30, "OLD STOCK": 140}  # items that nobody with an id has bought
_SOLD = 404_909
_CANCELLED = 383  # rows without a customer
_LOWER = 2_700  # rows without a customer whose code is in lower case
_LOWER_CODES = 112
_REPEATED = 40  # rows, besides the repeated rows of the source


class Line(NamedTuple):
    """A line of an invoice, with its cells before they are written in a release's form."""

    invoice: str
    code: str
    title: str
    quantity: int
    time: int
    price: float
    user: str
    country: str


@dataclass(frozen=True, slots=True)
class Export:
    """The lines of the file in order, and the right title of each item that customers bought."""

    lines: list[Line]
    titles: dict[str, str]


def make(source: Path, *, rows: int = ROWS, seed: int = 0) -> Export:
    """Make the lines of the file.

    Args:
        source: a folder with interactions.csv.gz and items.csv.gz: ``online_retail`` or the bundled
            sample.
        rows: the number of lines. Each kind of fault gets its share, and at least one line.
        seed: the seed of everything that is drawn.
    """
    return _Maker(source, rows, seed).make()


def write(
    lines: list[Line], path: Path, release: str, *, encoding: str = "utf-8", floats: bool = True
) -> None:
    """Write the lines as one of the releases has them.

    Args:
        lines: the lines of the file.
        path: the file to write.
        release: ``I``, with dates such as ``12/1/2010 8:26``, or ``II``, with dates such as
            ``2010-12-01 08:26:00``.
        encoding: the encoding of the file, such as ``utf-8-sig`` or ``cp1252``.
        floats: True to write the ids of customers as floats, such as ``17850.0``.
    """
    moments: dict[int, str] = {t: _moment(t, release) for t in {x.time for x in lines}}
    ending = ".0" if floats else ""
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(RELEASES[release])
        writer.writerows(
            (
                x.invoice, x.code, x.title, x.quantity, moments[x.time], f"{x.price:.12g}",
                x.user and x.user + ending, x.country,
            )
            for x in lines
        )  # fmt: skip


def _moment(time: int, release: str) -> str:
    at = dt.datetime.fromtimestamp(time, dt.UTC)
    if release == "I":
        return f"{at.month}/{at.day}/{at.year} {at.hour}:{at.minute:02d}"
    return f"{at:%Y-%m-%d %H:%M:%S}"


class _Maker:
    """Draws the lines of one file."""

    def __init__(self, source: Path, rows: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows = rows
        text = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(("user_id", "item_id", "invoice", "country"), pa.string())
        )
        items = pa_csv.read_csv(source / "items.csv.gz", convert_options=text)
        ids = items["item_id"].to_pylist()
        self.titles = dict(zip(ids, items["title"].to_pylist(), strict=True))
        self.prices = dict(zip(ids, items["median_price_gbp"].to_pylist(), strict=True))
        events = pa_csv.read_csv(source / "interactions.csv.gz", convert_options=text)
        self.sold = self._sold(events)
        self.invoice = 1_000_000  # the last number given to an invoice without a customer

    def make(self) -> Export:
        """Draw all lines, and sort them by time."""
        lines = [*self._retitled(), *self._fees(named=True)]
        nameless = dict.fromkeys([*self._fees(named=False), *self._stock(), *self._odd_codes()])
        repeated = self._some(_REPEATED)
        for line in self._unnamed_sales():
            if len(lines) + len(nameless) >= self.rows - repeated:
                break
            nameless[line] = None
        lines += [*nameless, *list(nameless)[-repeated:]]
        lines.sort(key=lambda x: (x.time, x.invoice))  # stable
        return Export(lines, {x.code: self.titles[x.code] for x in self.sold})

    def _some(self, of_all: int) -> int:
        """Return the share of a number of lines of the whole file."""
        return max(1, round(of_all * self.rows / ROWS)) if of_all else 0

    def _near(self, place: int | None = None) -> Line:
        """Return a line without a customer at the time of a line with one."""
        line = self.sold[int(self.rng.integers(len(self.sold))) if place is None else place]
        return line._replace(user="", country="United Kingdom")

    def _next_invoice(self) -> str:
        self.invoice += 1
        return str(self.invoice)

    def _sold(self, events: pa.Table) -> list[Line]:
        """Return the lines of random customers, with all lines of each but the last."""
        by_user: dict[str, list[Line]] = {}
        names = ("invoice", "item_id", "behavior", "value", "timestamp", "user_id", "country")
        columns = [events[n].to_pylist() for n in names]
        for invoice, code, behavior, value, time, user, country in zip(*columns, strict=True):
            quantity = -value if behavior == "return" else value
            price = self.prices[code]
            if int(invoice.lstrip("C")) % 5 == 0:  # a large order is cheaper
                price = round(price * 0.85, 2)
            line = Line(invoice, code, self.titles[code], quantity, time, price, user, country)
            by_user.setdefault(user, []).append(line)
        users = list(by_user)
        order = self.rng.permutation(len(users)).tolist()
        return [x for n in order for x in by_user[users[n]]][: self._some(_SOLD)]

    def _retitled(self) -> list[Line]:
        """Give some lines of most items another title, but leave the right one the most frequent.

        Repeated lines keep the same title, so that they remain repeated.
        """
        first: dict[Line, int] = {}
        places: dict[str, list[int]] = {}
        for n, line in enumerate(self.sold):
            if first.setdefault(line, n) == n:
                places.setdefault(line.code, []).append(n)
        titles = [x.title for x in self.sold]
        for number, where in enumerate(places.values()):
            right = titles[where[0]]
            wrong = _spellings(right)[: min(1 + number % 3, (len(where) - 1) // 2)]
            for place, title in zip(self.rng.permutation(where).tolist(), wrong, strict=False):
                titles[place] = title
            if number % 10 == 0:
                for place in where:
                    titles[place] += " "
        return [x._replace(title=titles[first[x]]) for x in self.sold]

    def _fees(self, *, named: bool) -> Iterator[Line]:
        """Draw lines with postage, fees and discounts, on invoices of customers or on others."""
        for code, (title, with_user, without, back) in _FEES.items():
            for _ in range(self._some(with_user if named else without)):
                line = self.sold[int(self.rng.integers(len(self.sold)))]
                invoice = line.invoice.lstrip("C") if named else self._next_invoice()
                yield line._replace(
                    invoice=f"C{invoice}" if back else invoice, code=code, title=title,
                    quantity=-1 if back else 1, price=round(float(self.rng.uniform(1, 99)), 2),
                    user=line.user if named else "",
                )  # fmt: skip

    def _stock(self) -> Iterator[Line]:
        """Draw corrections of the stock, without a price; some precede the first sale of the item."""
        first: dict[str, int] = {}
        count: dict[str, int] = {}
        for n, line in enumerate(self.sold):
            count[line.code] = count.get(line.code, 0) + 1
            if line.time < self.sold[first.setdefault(line.code, n)].time:
                first[line.code] = n
        often = [n for code, n in first.items() if count[code] > 9]
        for (kind, sign), rows in _STOCK.items():
            for n in range(self._some(rows)):
                line = self._near(often[n % len(often)] if kind and often else None)
                title = REMARKS[n % len(REMARKS)] if kind else ""
                quantity = sign * int(self.rng.integers(1, 500))
                yield line._replace(
                    invoice=self._next_invoice(), title=title, quantity=quantity, price=0.0,
                    time=line.time - 60,
                )  # fmt: skip

    def _odd_codes(self) -> Iterator[Line]:
        """Draw lines of items that nobody with an id bought, of codes in lower case, and others."""
        for number, (title, items) in enumerate(_ONLY.items()):
            for n in range(self._some(items)):
                named = f"{title} {n}" if title.isupper() else title
                code = f"7{number}{n:03d}"
                yield self._near()._replace(
                    invoice=self._next_invoice(), code=code, title=named, price=0.0, quantity=3
                )
        for code, title in ACCENTED.items():
            yield self._near()._replace(code=code, title=title, quantity=2)
        codes = sorted({x.code for x in self.sold if x.code[-1].isalpha()})
        codes = codes[: self._some(_LOWER_CODES)]
        for n in range(self._some(_LOWER) if codes else 0):
            code = codes[n % len(codes)]
            yield self._near()._replace(
                invoice=self._next_invoice(), code=code.lower(), title=self.titles[code], quantity=1
            )
        for _ in range(self._some(_CANCELLED)):
            yield self._near()._replace(invoice=f"C{self._next_invoice()}", quantity=-1)

    def _unnamed_sales(self) -> Iterator[Line]:
        """Draw sales of a web shop without end: large invoices at higher prices."""
        while True:
            first, invoice = self._near(), self._next_invoice()
            size = int(self.rng.integers(1, 400))
            for place in self.rng.integers(0, len(self.sold), size).tolist():
                line = self.sold[place]
                price, quantity = round(line.price * 1.9, 2), place % 7 + 1
                yield first._replace(
                    invoice=invoice,
                    code=line.code,
                    title=line.title,
                    quantity=quantity,
                    price=price,
                )


def _spellings(right: str) -> list[str]:
    """Return three other spellings of a title, as staff type them."""
    spelled = right.replace("T-LIGHT", "TLIGHT").replace("&", "AND").replace("CAFE", "CAFÉ")
    if spelled == right:
        spelled = right[:-1] if right.endswith("S") else f"{right}S"
    return [spelled, right.lower(), f"{right} £1"]
