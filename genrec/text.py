"""Forms of a text: as people see it, and as it is compared. Knows strings, nothing of tokens."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_SPACE = re.compile(r"\s+")
# Control (Cc), surrogate (Cs), line and paragraph separators (Zl, Zp), bidirectional overrides.
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    r"""Replaces line breaks, control and format-breaking characters by single spaces.

    Control (Cc), surrogate (Cs) and line or paragraph separators (Zl, Zp) and the bidirectional
    overrides become spaces, runs of white space become one space, and the ends are stripped. What
    is left can neither start a new line of a prompt nor move a terminal's cursor.

    >>> one_line("RED\tMUG\x1b[31m\n bought: ")
    'RED MUG [31m bought:'
    """
    return _SPACE.sub(" ", _BREAKS.sub(" ", text)).strip()


def breaks_line(text: str) -> bool:
    r"""Whether a text holds characters that ``one_line`` replaces by spaces.

    >>> breaks_line("mug\x1b[31m"), breaks_line("red mug")
    (True, False)
    """
    return _BREAKS.search(text) is not None


def visible(text: str) -> bool:
    r"""Whether a person would see anything of a text.

    >>> visible("\u200b\u3164 \t"), visible("☕")
    (False, True)
    """
    return any(
        unicodedata.category(c)[0] not in "ZC" and c not in "\u115f\u1160\u2800\u3164\uffa0"
        for c in text
    )


def printable(text: str) -> str:
    """Text for a terminal: ``one_line`` of every line, leading blanks kept."""
    return "\n".join(
        " " * (len(line) - len(line.lstrip(" "))) + one_line(line) for line in text.split("\n")
    )


def normalized(text: str) -> str:
    """The form in which two spellings of one title are equal: NFKC, case, punctuation and space.

    >>> normalized("  Red  Retrospot-Mug!") == normalized("red retrospot mug")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(
        "".join(c if unicodedata.category(c)[0] not in "PZC" else " " for c in folded).split()
    )


def mostly_upper(texts: list[str]) -> bool:
    """Whether more than half of the cased letters in the first 10,000 texts are capitals.

    >>> mostly_upper(["RED MUG", "Doll"]), mostly_upper(["红色杯子"])
    (True, False)
    """
    upper = sum(1 for t in texts[:10_000] for c in t if c.isupper())
    lower = sum(1 for t in texts[:10_000] for c in t if c.islower())
    return upper > lower


_NAMES = {
    "LATIN": "latin", "CYRILLIC": "cyrillic", "GREEK": "greek", "ARABIC": "arabic",
    "HEBREW": "hebrew", "DEVANAGARI": "devanagari", "THAI": "thai", "CJK": "han",
    "HIRAGANA": "kana", "KATAKANA": "kana", "HALFWIDTH": "kana", "HANGUL": "hangul",
    "FULLWIDTH": "latin",
}  # fmt: skip


@lru_cache(maxsize=20_000)
def script(character: str) -> str:
    """The script of a letter or mark, ``other`` where it is none of ``SAMPLES``; empty for no letter.

    >>> script("a"), script("杯"), script("г"), script("7"), script("ა")
    ('latin', 'han', 'cyrillic', '', 'other')
    """
    if unicodedata.category(character)[0] not in "LM":
        return ""
    return _NAMES.get(unicodedata.name(character, "").split(" ")[0], "other")


def scripts(text: str) -> Counter[str]:
    """How many letters of a text are of each script."""
    found = Counter(script(c) for c in text)
    del found[""]
    return found


def main_script(texts: list[str]) -> str:
    """The script of most letters of the first 1,000 texts; ``latin`` where there are none.

    >>> main_script(["红色杯子 USB"]), main_script(["500"])
    ('han', 'latin')
    """
    found: Counter[str] = Counter()
    for text in texts[:1000]:
        found += scripts(text)
    return found.most_common(1)[0][0] if found else "latin"
