"""Find the keywords of items, and count how often the events of a dataset hold them.

A keyword is a phrase of one to five adjacent words from the title or a text attribute of an item, as
``genrec.explain.phrases`` finds them. Singular and plural count as one keyword. This module deals
with catalog rows, not with users.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from genrec.data.catalog import Catalog, Item
from genrec.explain.claims import LETTERS, SPACELESS
from genrec.explain.phrases import Phrases
from genrec.text import one_line, script
from genrec.types import FloatArray, IntArray

LONGEST_KEYWORD = 100  # characters of a keyword that a user may give
_TEXT = 1_000  # characters of each text of an item that are read
_LONGEST_WHOLE = 10  # characters of a keyword in a script without spaces
_PLURAL = 4  # an English word of at least this length loses its plural ending


def singular(word: str) -> str:
    """Return an English word without its plural ending; other words stay as they are.

    >>> [singular(w) for w in ("mugs", "glasses", "boxes", "babies", "bus", "glass", "杯子")]
    ['mug', 'glass', 'box', 'baby', 'bus', 'glass', '杯子']
    """
    if len(word) < _PLURAL or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return f"{word[:-3]}y" if word.endswith("ies") and len(word) > _PLURAL else word[:-1]


def key_of(text: str) -> str:
    """Return the form in which keywords are compared: lower case, one space, singular words.

    >>> key_of("  Hot-Water BOTTLES")
    'hot-water bottle'
    """
    return " ".join(singular(w) for w in LETTERS.findall(one_line(text).lower()))


class KeywordIndex:
    """The keywords of a catalog's items, and the share of all events that hold each of them.

    Attributes:
        catalog: the items.
        shares: (N,) the share of the events, or of the items if there are no events, that belong to
            each catalog row. They sum to 1.
    """

    def __init__(
        self,
        catalog: Catalog,
        events: IntArray | None = None,
        *,
        empty: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare the index. Keywords are found when they are first needed.

        Args:
            catalog: the items.
            events: (N,) number of events of each catalog row; None to count each item once.
            empty: words, such as "of" and "how", that neither begin nor end a keyword.
        """
        self.catalog, self._empty = catalog, empty
        counts = np.ones(len(catalog)) if events is None else np.asarray(events, dtype=np.float64)
        counts = counts if counts.sum() > 0 else np.ones(len(catalog))
        self.shares: FloatArray = counts / counts.sum()
        self._phrases = Phrases(catalog, empty)
        self._rows = lru_cache(4096)(self._find_rows)
        self._of = lru_cache(65_536)(self._find_keywords)

    def of(self, row: int) -> dict[str, str]:
        """Return the keywords of an item: the form that is compared, and the form that is shown."""
        return self._of(row)

    def _find_keywords(self, row: int) -> dict[str, str]:
        item = self.catalog[row]
        plain = Item(item.item_id, item.title[:_TEXT], item.attributes)
        found: dict[str, str] = {}
        for phrase in sorted(self._phrases.of(plain), key=lambda p: (len(p), p)):
            words = phrase.split()
            if words[0] in self._empty or words[-1] in self._empty or len(phrase) < 2:
                continue
            found.setdefault(key_of(phrase), phrase)
        return found

    def rows(self, keyword: str) -> IntArray:
        """Return the catalog rows of the items that hold a keyword, in ascending order.

        An item holds a keyword if the words stand side by side in its title or in a text attribute.
        In scripts without spaces, any place counts.
        """
        return self._rows(key_of(keyword))

    def _find_rows(self, key: str) -> IntArray:
        words = key.split()
        if not words:
            return np.empty(0, dtype=np.int64)
        texts, places = self._texts
        spaceless = script(key[0]) in SPACELESS
        pieces = [key[i : i + 2] for i in range(max(len(key) - 1, 1))] if spaceless else words
        if spaceless and len(key) == 1:
            return np.array([n for n, text in enumerate(texts) if key in text], dtype=np.int64)
        rarest = min((places.get(p, ()) for p in pieces), key=len)
        wanted = key if spaceless else f" {key} "
        return np.array([n for n in rarest if wanted in texts[n]], dtype=np.int64)

    @cached_property
    def _texts(self) -> tuple[list[str], dict[str, list[int]]]:
        """The text of each item, and the rows whose text has each word.

        In scripts without spaces, a word is any two adjacent characters.
        """
        texts = [_text_of(self.catalog[row]) for row in range(len(self.catalog))]
        places: defaultdict[str, list[int]] = defaultdict(list)
        for row, text in enumerate(texts):
            words = set(text.split())
            for word in list(words):
                if any(script(c) in SPACELESS for c in word):
                    words |= {word[i : i + 2] for i in range(len(word) - 1)}
            for word in words:
                places[word].append(row)
        return texts, dict(places)

    def whole(self, key: str) -> str:
        """Return a key in a script without spaces together with the characters that always surround it.

        Phrases are cut after four characters there. Other keys stay as they are.

        Args:
            key: the key of a keyword; see ``key_of``.
        """
        if not key or script(key[0]) not in SPACELESS:
            return key
        texts = [self._texts[0][row] for row in self.rows(key).tolist()]
        while len(texts) > 1 and len(key) < _LONGEST_WHOLE:
            after = {text[text.index(key) + len(key)] for text in texts}
            before = {text[text.index(key) - 1] for text in texts}
            if len(after) == 1 and script(min(after)) in SPACELESS:
                key += min(after)
            elif len(before) == 1 and script(min(before)) in SPACELESS:
                key = min(before) + key
            else:
                break
        return key

    def share(self, keyword: str) -> float:
        """Return the share of all events whose items hold a keyword."""
        return float(self.shares[self.rows(keyword)].sum())

    def shown(self, keyword: str, rows: Sequence[int]) -> str:
        """Return the form of a keyword that the given items have most often."""
        key = key_of(keyword)
        forms = Counter(form for r in rows if (form := self.of(r).get(key)) is not None)
        return forms.most_common(1)[0][0] if forms else keyword


def holds(item: Item, keyword: str) -> bool:
    """Return True if an item holds a keyword; see ``KeywordIndex.rows``."""
    key, text = key_of(keyword), _text_of(item)
    if key and script(key[0]) in SPACELESS:
        return key in text
    return bool(key) and f" {key} " in text


def _text_of(item: Item) -> str:
    """Return the title and the text attributes of an item as keys between separators."""
    texts = (item.title, *(v for v in item.known.values() if isinstance(v, str)))
    parts = (part for text in texts for part in _BETWEEN.split(text[:_TEXT]))
    return " | ".join(["", *(key_of(part) for part in parts), ""])


_BETWEEN = re.compile(r"[,;:/()\[\]|]|\d+|\s[-–—]\s")
