"""Find phrases in an item's title and attributes that make sense on their own in a sentence.

"Hot water bottle" makes sense on its own, but "hot water" does not describe the same item. The
titles of the catalog show where phrases end: at the end of a title, or before a comma, a number or
a small word. A word that rarely occurs at such an end is kept together with the next word. Two
adjacent words are kept together if the pair occurs more often than the first word ends a phrase, or
more often than the second word begins one. Two words that are always followed by the same third
word are kept together with it ("travel card wallet").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from genrec.data.catalog import Catalog, Item
from genrec.explain.claims import LETTERS, MARKS, SPACELESS, pieces
from genrec.text import one_line, script

LONGEST = 5  # the maximum number of words in a phrase
LEAST = 2  # the minimum number of words about an item in a sentence
_LETTERS = 1_000  # the number of characters used from each text, since more would take seconds
_ENDING = (
    0.1  # a word may end a phrase if it stands at an end in at least this fraction of its uses
)
_PAIRS = 2  # two words are kept together only if they occur together at least this often
_ALWAYS = 3  # two words are kept with a third word only if they occur together at least this often
_TITLES = 20_000  # the approximate maximum number of titles in which words are counted
# Characters that separate phrases.
_BETWEEN = re.compile(rf"[^\w\s'’{MARKS}-]|_|\d|(?<![\w{MARKS}])['’-]|['’-](?!\w)")


class Phrases:
    """Finds phrases in the titles and attributes of a catalog's items.

    >>> titles = ["Hot water bottle", "Baby bottle", "Cold water tap"]
    >>> items = [Item(str(n), title) for n, title in enumerate(titles)]
    >>> sorted(Phrases(Catalog(items)).of(items[0]))
    ['bottle', 'hot water bottle', 'water bottle']
    """

    def __init__(self, catalog: Catalog, empty: frozenset[str] = frozenset()) -> None:
        """Count how often each word in the titles begins a phrase and how often it ends one.

        Args:
            catalog: the items. Only a sample of a large catalog is used.
            empty: small words, such as "of", which neither begin nor end a phrase.
        """
        self._empty = empty
        places: Counter[str] = Counter()
        begins: Counter[str] = Counter()
        ends: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        always: dict[tuple[str, str], str] = {}  # the word that always follows a pair, or ""
        for row in range(0, len(catalog), max(1, len(catalog) // _TITLES)):
            for run in _runs(catalog[row].title):
                places.update(run)
                pairs.update(pairwise(run))
                around = zip(["", *run], run, [*run[1:], ""], strict=False)
                for before, word, after in around:
                    begins[word] += self._is_boundary(before)
                    ends[word] += self._is_boundary(after)
                for pair, after in zip(pairwise(run), [*run[2:], ""], strict=False):
                    follows = "" if self._is_boundary(after) else after
                    if always.setdefault(pair, follows) != follows:
                        always[pair] = ""
        often = {pair: n for pair, n in pairs.items() if n >= _PAIRS}
        self._ending = {w for w, n in places.items() if ends[w] >= _ENDING * n}
        self._no_end = {pair for pair, n in often.items() if n > ends[pair[0]]}
        self._no_start = {pair for pair, n in often.items() if n > begins[pair[1]]}
        self._goes_on = {pair for pair, n in pairs.items() if n >= _ALWAYS and always[pair]}

    def of(self, item: Item) -> frozenset[str]:
        """Return the phrases from an item's title and text attributes that may describe it.

        In scripts without spaces, the phrases are pieces of two to four characters. If too few
        phrases are found, words that usually occur together may be separated.
        """
        texts = (item.title, *(v for v in item.known.values() if isinstance(v, str)))
        runs = [run for text in texts for run in _runs(text)]
        total = len({word for run in runs for word in run if self._is_meaningful(word)})
        phrases: frozenset[str] = frozenset()
        for bound in (True, False):
            phrases = frozenset(phrase for run in runs for phrase in self._split_run(run, bound))
            sizes = [n for n in map(len, map(str.split, phrases)) if n < total]
            if total <= LEAST or max(sizes, default=0) >= LEAST or len(sizes) >= LEAST:
                break
        return phrases

    def _split_run(self, run: list[str], bound: bool) -> Iterator[str]:
        """Yield the phrases in a sequence of adjacent words.

        Args:
            run: the words.
            bound: True to keep words that usually occur together in the same phrase.
        """
        for first, word in enumerate(run):
            if script(word[0]) in SPACELESS:
                yield from (p for p in pieces(word) if not self._empty & {p[0], p[-1]})
            elif self._is_meaningful(word) and not (
                bound and first and (run[first - 1], word) in self._no_start
            ):
                for last in range(first, min(first + LONGEST, len(run))):
                    if script(run[last][0]) in SPACELESS:
                        break
                    torn = bound and last > first and (run[last - 1], run[last]) in self._goes_on
                    if (
                        self._is_meaningful(run[last])
                        and self._may_end(run, last, bound)
                        and not torn
                    ):
                        yield " ".join(run[first : last + 1])

    def _may_end(self, run: list[str], last: int, bound: bool) -> bool:
        """Return True if a phrase may end with the word at index ``last``."""
        word, after = run[last], run[last + 1] if last + 1 < len(run) else ""
        parted = not bound or (word, after) not in self._no_end
        return self._is_boundary(after) or (word in self._ending and parted)

    def _is_meaningful(self, word: str) -> bool:
        """Return True if a word has a meaning of its own, unlike single letters and small words."""
        return len(word) > 1 and word not in self._empty

    def _is_boundary(self, beside: str) -> bool:
        """Return True if a phrase ends next to this word.

        This is the case if the word is missing, a single letter or a small word.
        """
        return len(beside) < 2 or beside in self._empty


def _runs(text: str) -> Iterator[list[str]]:
    """Yield the sequences of words in a text that are separated only by spaces, in lower case."""
    if len(text) > _LETTERS:  # cut between words
        text = text[:_LETTERS].rpartition(" ")[0] or text[:_LETTERS]
    for part in _BETWEEN.split(one_line(text).lower()):
        words = LETTERS.findall(part)
        if words:
            yield words
