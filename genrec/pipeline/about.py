"""Find items that stand for what people say about themselves.

For each word of the sentence that titles hold, the most frequent items with this word are taken as if
the user had chosen them. The prior then counts what goes with them; see ``priors.query_weights``.
"""

from __future__ import annotations

import numpy as np

from genrec.explain.claims import LETTERS, SPACELESS
from genrec.taste.keywords import KeywordIndex, key_of
from genrec.text import script

MATCH = (
    2.0  # weight of the match with the titles; for a query that asks, see ``config.QUERY_WEIGHTS``
)
PER_WORD = 5  # items that stand for a word
_WORDS = 10  # words of a sentence that are used
_COMMON = 0.1  # words that more of the items hold say nothing
_LONGEST = 4  # characters of a word in a script without spaces
_OWN = frozenset(
    [
        "am", "and", "are", "also", "always", "because", "been", "but", "did", "does", "each", "eight", "enjoy",
        "enjoys", "every", "fan", "five", "fond", "for", "four", "from", "had", "has", "have", "interested",
        "into", "keen", "like", "likes", "lot", "lots", "love", "loves", "mine", "much", "nine", "often", "old",
        "one", "our", "quite", "really", "seven", "six", "sometimes", "ten", "that", "the", "them", "they",
        "this", "three", "too", "two", "usually", "very", "was", "were", "which", "who", "with", "year", "years",
    ]
)  # fmt: skip


def find_examples(text: str, keywords: KeywordIndex) -> list[int]:
    """Return the catalog rows of the items that stand for a sentence, those of its first word first.

    Args:
        text: what somebody says about themselves.
        keywords: the keywords of the catalog's items.
    """
    found: dict[int, None] = {}
    used = 0
    for word in _words(text, keywords):
        rows = keywords.rows(word)
        if not len(rows) or len(rows) > max(_COMMON * len(keywords.catalog), PER_WORD):
            continue
        order = np.argsort(-keywords.shares[rows], kind="stable")[:PER_WORD]
        found.update(dict.fromkeys(rows[order].tolist()))
        used += 1
        if used == _WORDS:
            break
    return list(found)


def _words(text: str, keywords: KeywordIndex) -> list[str]:
    """Return the words of a text that may tell items apart; of scripts without spaces, the longest known."""
    found: dict[str, None] = {}
    for word in LETTERS.findall(text.lower().replace("'", "")):
        if script(word[0]) not in SPACELESS:
            if word not in _OWN and len(word) > 2:
                found[key_of(word)] = None
            continue
        place = 0
        while place < len(word) - 1:
            sizes = range(min(_LONGEST, len(word) - place), 1, -1)
            size = next((n for n in sizes if len(keywords.rows(word[place : place + n]))), 0)
            if size:
                found[word[place : place + size]] = None
            place += size or 1
    return list(found)
