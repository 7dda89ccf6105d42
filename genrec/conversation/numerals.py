"""Read numbers as people write them: with digits, in English words and in Chinese characters."""

from __future__ import annotations

_ENGLISH = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40,
    "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100,
    "thousand": 1000, "a fiver": 5, "a tenner": 10, "fiver": 5, "tenner": 10,
}  # fmt: skip
_CHINESE = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}

ENGLISH = "|".join(sorted(_ENGLISH, key=lambda word: -len(word)))
NUMBER = rf"(?:\d[\d,]*(?:\.\d+)?|\.\d+|\b(?:{ENGLISH})\b)"
CHINESE = r"(?:\d[\d,]*(?:\.\d+)?|[零〇一二两三四五六七八九十百千万]+)"


def read_number(text: str) -> float | None:
    """Read a number; None if the text is not one.

    >>> read_number("1,250.5"), read_number("five"), read_number("二十五"), read_number("一百")
    (1250.5, 5.0, 25.0, 100.0)
    """
    plain = text.strip().lower().replace(",", "").rstrip(".")
    if plain in _ENGLISH:
        return float(_ENGLISH[plain])
    if plain and all(c in _CHINESE or c in _UNITS for c in plain):
        return _read_chinese(plain)
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def _read_chinese(text: str) -> float:
    if not any(c in _UNITS for c in text):
        return float("".join(str(_CHINESE[c]) for c in text))
    total, digit = 0, -1
    for c in text:
        if c in _UNITS:
            if c == "万":
                total = (total + max(digit, 0)) * _UNITS[c]
            else:
                total += (1 if digit < 0 else digit) * _UNITS[c]
            digit = -1
        else:
            digit = _CHINESE[c]
    return float(total + max(digit, 0))
