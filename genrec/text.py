"""Clean and compare strings, and identify the writing systems (scripts) that they use.

This module does not deal with tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_SPACE = re.compile(r"\s+")
# Control (Cc), surrogate (Cs), line and paragraph separators (Zl, Zp), bidirectional overrides.
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    r"""Put text on one line by replacing line breaks and control characters with single spaces.

    Control characters (Cc), surrogates (Cs), line and paragraph separators (Zl, Zp) and
    bidirectional overrides become spaces. Runs of whitespace collapse to one space, and both ends
    are stripped. The result can neither start a new line in a prompt nor move a terminal's cursor.

    >>> one_line("RED\tMUG\x1b[31m\n bought: ")
    'RED MUG [31m bought:'
    """
    return _SPACE.sub(" ", _BREAKS.sub(" ", text)).strip()


def breaks_line(text: str) -> bool:
    r"""Check whether text contains characters that ``one_line`` replaces with spaces.

    >>> breaks_line("mug\x1b[31m"), breaks_line("red mug")
    (True, False)
    """
    return _BREAKS.search(text) is not None


def visible(text: str) -> bool:
    r"""Check whether text has at least one visible character.

    >>> visible("\u200b\u3164 \t"), visible("☕")
    (False, True)
    """
    return any(
        unicodedata.category(c)[0] not in "ZC" and c not in "\u115f\u1160\u2800\u3164\uffa0"
        for c in text
    )


def printable(text: str) -> str:
    """Make text safe to show in a terminal by cleaning each line with ``one_line``.

    Line breaks and the indentation of each line are kept.
    """
    return "\n".join(
        " " * (len(line) - len(line.lstrip(" "))) + one_line(line) for line in text.split("\n")
    )


def normalized(text: str) -> str:
    """Normalize Unicode (NFKC), case, punctuation and spacing, so that similar spellings match.

    >>> normalized("  Red  Retrospot-Mug!") == normalized("red retrospot mug")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(
        "".join(c if unicodedata.category(c)[0] not in "PZC" else " " for c in folded).split()
    )


def title_key(title: str) -> str:
    """Return what two titles must share to count as the same title.

    This is the normalized title, or the title itself if it has no letters or digits.

    >>> title_key("Red Mug!") == title_key("red mug"), title_key("???")
    (True, '???')
    """
    return normalized(title) or title


def mostly_upper(texts: list[str]) -> bool:
    """Check whether most of the cased letters in the first 10,000 texts are uppercase.

    >>> mostly_upper(["RED MUG", "Doll"]), mostly_upper(["红色杯子"])
    (True, False)
    """
    upper = sum(1 for t in texts[:10_000] for c in t if c.isupper())
    lower = sum(1 for t in texts[:10_000] for c in t if c.islower())
    return upper > lower


_SCRIPTS = {  # maps the first word of a letter's Unicode name to its script
    "LATIN": "latin", "CYRILLIC": "cyrillic", "GREEK": "greek", "ARABIC": "arabic",
    "HEBREW": "hebrew", "DEVANAGARI": "devanagari", "THAI": "thai", "CJK": "han",
    "HIRAGANA": "kana", "KATAKANA": "kana", "HALFWIDTH": "kana", "HANGUL": "hangul",
    "FULLWIDTH": "latin",
}  # fmt: skip


@lru_cache(maxsize=20_000)
def script(character: str) -> str:
    """Return the script of a letter or mark, such as ``latin``.

    The result is ``other`` for a rare script, and empty for a character that is neither a letter
    nor a mark.

    >>> script("a"), script("杯"), script("г"), script("7"), script("ა")
    ('latin', 'han', 'cyrillic', '', 'other')
    """
    if unicodedata.category(character)[0] not in "LM":
        return ""
    return _SCRIPTS.get(unicodedata.name(character, "").split(" ")[0], "other")


def scripts(text: str) -> Counter[str]:
    """Count the letters and marks of each script in a text."""
    letters = Counter(script(c) for c in text)
    del letters[""]
    return letters


def main_script(texts: list[str]) -> str:
    """Return the most frequent script in the first 1,000 texts.

    The result is ``latin`` if the texts contain no letters.

    >>> main_script(["红色杯子 USB"]), main_script(["500"])
    ('han', 'latin')
    """
    letters: Counter[str] = Counter()
    for text in texts[:1000]:
        letters += scripts(text)
    return letters.most_common(1)[0][0] if letters else "latin"


def quantity(n: int, noun: str) -> str:
    """Format a count and its noun, such as "2 rows"; the noun is plural unless the count is 1.

    >>> quantity(1, "row"), quantity(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
