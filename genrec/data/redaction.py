"""Replace personal data in free text, such as mail addresses, with words such as "[email]".

Mail addresses, phone numbers, payment cards, IBANs and street addresses are found by their form in
English, Chinese, German and some other European notations. A card must pass the Luhn check (ISO/IEC
7812-1), and an IBAN the check of ISO 13616. Names of people have no form; a further finder can be
given for them. This module deals with texts only; it is not applied to titles.

What is found, and what is replaced by mistake, is measured in ``benchmarks/accuracy/redaction.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from genrec.data import addresses
from genrec.data.events import EventTable, History, Interaction

Span = tuple[int, int, str]  # start and end in a text, and the kind of data
Finder = Callable[[str], Iterable[Span]]
"""A function that returns the spans of a text that hold personal data, with a kind for each."""

KINDS = ("email", "iban", "card", "phone", "address")

_LATIN = "A-Za-z\u00c0-\u024f"
_EMAIL = re.compile(  # the lengths are those of RFC 5321
    rf"[{_LATIN}0-9][{_LATIN}0-9._%+'\-]{{0,63}}@(?:[{_LATIN}0-9](?:[{_LATIN}0-9\-]{{0,61}}[{_LATIN}0-9])?\.){{1,8}}"
    rf"[{_LATIN}]{{2,24}}"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS: Mapping[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31,
    "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)", re.ASCII)
_ISSUERS = (  # the first digits of cards, and the numbers of digits that they have
    (r"4", (13, 16, 19)),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),
    (r"3[47]", (15,)),
    (r"30[0-5]|3[689]", (14,)),
    (r"35(?:2[89]|[3-8])", (16,)),
    (r"6011|64[4-9]|65|62|60|81", (16, 17, 18, 19)),
    (r"50|5[6-8]|6304|67", (16, 18, 19)),
)
_SEPARATOR = r"[ \u00a0./\-]{0,2}"
_WORDS = (  # words after which a number is that of a phone
    r"tel|telephone|telefon|telefonnummer|telefono|t\u00e9l|t\u00e9l\u00e9phone|phone|mobile|mobil|handy|cell|"
    r"cellphone|whatsapp|sms|call|text|fax|ring|r\u00fcckruf|portable"
)
_PHONES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        # +49 30 23125 014, 0049 171 3920099, +49 (0)89 99998-0
        rf"(?<![\w+.-])(?:\+|00(?=[1-9]\d))[ ]?[1-9]\d{{0,2}}(?:{_SEPARATOR}\(?\d{{1,5}}\)?){{2,6}}(?:-\d{{1,5}})?(?!\w)",
        # (212) 555-0187, (030) 23125 789
        rf"(?<![\w)])\(0?\d{{2,4}}\){_SEPARATOR}\d{{2,8}}(?:{_SEPARATOR}\d{{2,5}}){{0,3}}(?![\w,.]\d|\w)",
        # 415-555-0132, 415.555.0176, 1-800-555-0199
        r"(?<![\w.,/-])(?:1[-. ])?[2-9]\d{2}([-.])[2-9]\d{2}\1\d{4}(?![\w,.-]\d|\w)",
        # 13800138000, 138-0013-8000
        r"(?<![\d.,-])(?<![A-Za-z])1[3-9]\d(?:(?P<s>[ -])\d{4}(?P=s)\d{4}|\d{8})(?![\w,.-]\d|\w)",
        # 0171 3920012, 030/23125-123, 06 39 98 12 34, 010-62771234
        rf"(?<![\w.,/#-])0[1-9]\d{{0,4}}{_SEPARATOR}\d{{2,8}}(?:{_SEPARATOR}\d{{2,5}}){{0,3}}(?![\w,.-]\d|\w)",
    )
)
_AFTER_WORD = re.compile(
    rf"(?:(?<![{_LATIN}])(?:{_WORDS})(?![{_LATIN}])|\u7535\u8bdd|\u624b\u673a|\u5ea7\u673a)[^\d\n+]{{0,15}}?"
    rf"(?P<n>\+?\d(?:[ ./()\-]{{0,2}}\d){{6,14}})(?!\w)",
    re.IGNORECASE | re.ASCII,
)
_CODE = re.compile(  # words before numbers that are no phones
    r"(?:isbn|ean|asin|upc|sku|order|tracking|artikel|bestellnummer|bestellung|\u8ba2\u5355\u53f7?|\u6761\u7801|"
    r"\u5355\u53f7|#)[\s.:(-]*(?:(?:no|nr|number)[\s.:]*)?$",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{4}[./-]\d{1,2}[./-]\d{1,2}")


def redact(text: str) -> str:
    """Return a text without personal data.

    >>> redact("call 0171 3920012 or write to anna@example.com")
    'call [phone] or write to [email]'
    >>> redact("20,000 leagues under the sea")
    '20,000 leagues under the sea'
    """
    return Redactor().redact(text)


def redact_table(events: EventTable) -> tuple[EventTable, dict[str, int] | None]:
    """Replace personal data in the texts of events; attributes stay as they are.

    Returns:
        The events, and the number of replacements of each kind; None if the events have no texts.
    """
    if events.text is None:
        return events, None
    redactor = Redactor()
    texts = [None if t is None else redactor.redact(t) for t in events.text.to_pylist()]
    return replace(events, text=pa.array(texts, events.text.type)), dict(redactor.counts)


@dataclass
class Redactor:
    """Replaces personal data in texts, and counts what it replaced.

    Attributes:
        finders: further functions that find personal data, for example names of people. Their kind
            becomes the word in brackets, such as "[name]".
        counts: the number of replacements of each kind.
    """

    finders: Sequence[Finder] = ()
    counts: Counter[str] = field(default_factory=Counter)

    def redact(self, text: str) -> str:
        """Return a text without personal data; a text without any is returned as it is."""
        parts, done = [], 0
        for start, end, kind in self.find(text):
            self.counts[kind] += 1
            parts += [text[done:start], f"[{kind}]"]
            done = end
        return "".join([*parts, text[done:]]) if parts else text

    def event(self, event: Interaction) -> Interaction:
        """Return an event whose text has no personal data."""
        text = None if event.text is None else self.redact(event.text)
        return event if text == event.text else replace(event, text=text)

    def history(self, history: History) -> History:
        """Return a history in which the texts of the events and the note have no personal data."""
        events = [self.event(e) for e in history.interactions]
        note = self.redact(history.note)
        if note == history.note and all(
            a is b for a, b in zip(events, history.interactions, strict=True)
        ):
            return history
        return replace(history.with_events(events), note=note)

    def find(self, text: str) -> list[Span]:
        """Return the spans that hold personal data, in order and without overlaps.

        Of overlapping spans, the one counts whose kind comes first in ``KINDS``; further finders
        come last.
        """
        found: list[Span] = []
        has_digit = any(c.isdigit() for c in text)
        for finder in (*(_FINDERS if has_digit else _FINDERS[:1]), *self.finders):
            for start, end, kind in finder(text):
                if start < end and all(end <= s or start >= e for s, e, _ in found):
                    found.append((start, end, kind))
        return sorted(found)


def find_emails(text: str) -> Iterator[Span]:
    """Find mail addresses, also with letters that are not ASCII."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield match.start(), match.end(), "email"


def find_ibans(text: str) -> Iterator[Span]:
    """Find bank accounts with the length of their country and valid check digits (ISO 13616)."""
    for match in _IBAN.finditer(text):
        wanted = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        places = [i for i, c in enumerate(match[0]) if c not in " -"][:wanted]
        number = "".join(match[0][i] for i in places).upper()
        if len(number) == wanted > 0 and is_iban(number):
            yield match.start(), match.start() + places[-1] + 1, "iban"


def is_iban(number: str) -> bool:
    """Check the check digits of an IBAN without spaces, in upper case.

    >>> is_iban("DE89370400440532013000"), is_iban("DE88370400440532013000")
    (True, False)
    """
    digits = "".join(str(int(c, 36)) for c in number[4:] + number[:4])
    return int(digits) % 97 == 1


def find_cards(text: str) -> Iterator[Span]:
    """Find payment cards: numbers of a known issuer and length that pass the Luhn check."""
    for match in _CARD.finditer(text):
        number = re.sub(r"\D", "", match[0])
        known = any(
            len(number) in lengths and re.match(first, number) for first, lengths in _ISSUERS
        )
        if known and passes_luhn(number):
            yield match.start(), match.end(), "card"


def passes_luhn(number: str) -> bool:
    """Check the last digit of a number as ISO/IEC 7812-1 computes it.

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(number))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def find_phones(text: str) -> Iterator[Span]:
    """Find phone numbers with a country code, an area code or a word such as "phone" before them."""
    for pattern in _PHONES:
        for match in pattern.finditer(text):
            digits = sum(c.isdigit() for c in match[0])
            least = 11 if match[0].startswith("00") else 8
            if (
                least <= digits <= 15
                and not _DATE.search(match[0])
                and not _CODE.search(text[max(0, match.start() - 30) : match.start()])
            ):
                yield match.start(), match.end(), "phone"
    for match in _AFTER_WORD.finditer(text):
        if not _DATE.search(match["n"]):
            yield match.start("n"), match.end("n"), "phone"


_FINDERS: tuple[Finder, ...] = (
    find_emails, find_ibans, find_cards, find_phones, addresses.find_addresses,
)  # fmt: skip
