"""Which runs of an item's words can stand alone in a sentence.

"Hot water bottle" is said, "hot water" out of it is not: a phrase may only end where the catalog lets
one end. A word that hardly ever stands at the end of a title, or before a comma, a number or a small
word, goes with what follows it; so does one that stands before another more often than at an end, and
one that stands after another more often than at a beginning goes with that. Two words that one and the
same third always follows go with it ("travel card wallet").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from genrec.data.catalog import Catalog, Item
from genrec.explain.claims import LETTERS, MARKS, SPACELESS, pieces
from genrec.text import one_line, script

LONGEST = 5  # words of a phrase
LEAST = 2  # words that have to be said of an item, fewer than it has
_LETTERS = 1_000  # of each text that are looked at, lest a long description takes seconds
_ENDING = 0.1  # the least share of a word's places after which a phrase may end
_PAIRS = 2  # times that two words stand side by side, at least, to go together
_ALWAYS = 3  # times that two words are seen, at least, to say what always follows
_TITLES = 20_000  # that are looked at
# What words beside it are apart for.
_BETWEEN = re.compile(rf"[^\w\s'’{MARKS}-]|_|\d|(?<![\w{MARKS}])['’-]|['’-](?!\w)")


class Phrases:
    """The phrases of a catalog's items.

    >>> titles = ["Hot water bottle", "Baby bottle", "Cold water tap"]
    >>> items = [Item(str(n), title) for n, title in enumerate(titles)]
    >>> sorted(Phrases(Catalog(items)).of(items[0]))
    ['bottle', 'hot water bottle', 'water bottle']
    """

    def __init__(self, catalog: Catalog, empty: frozenset[str] = frozenset()) -> None:
        """Counts where the words of titles stand.

        Args:
            catalog: the items; of a large one some thousand titles are looked at.
            empty: small words, which neither begin nor end a phrase.
        """
        self._empty = empty
        places: Counter[str] = Counter()
        begins: Counter[str] = Counter()
        ends: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        always: dict[tuple[str, str], str] = {}  # the word that always follows, or nothing
        for row in range(0, len(catalog), max(1, len(catalog) // _TITLES)):
            for run in _runs(catalog[row].title):
                places.update(run)
                pairs.update(pairwise(run))
                around = zip(["", *run], run, [*run[1:], ""], strict=False)
                for before, word, after in around:
                    begins[word] += self._stops(before)
                    ends[word] += self._stops(after)
                for pair, after in zip(pairwise(run), [*run[2:], ""], strict=False):
                    follows = "" if self._stops(after) else after
                    if always.setdefault(pair, follows) != follows:
                        always[pair] = ""
        often = {pair: n for pair, n in pairs.items() if n >= _PAIRS}
        self._ending = {w for w, n in places.items() if ends[w] >= _ENDING * n}
        self._no_end = {pair for pair, n in often.items() if n > ends[pair[0]]}
        self._no_start = {pair for pair, n in often.items() if n > begins[pair[1]]}
        self._goes_on = {pair for pair, n in pairs.items() if n >= _ALWAYS and always[pair]}

    def of(self, item: Item) -> frozenset[str]:
        """What may be said of an item: phrases of its title and of its attributes in words.

        In scripts without spaces, pieces of two to four characters. Where all would be said or nothing,
        words may be parted that mostly stand together.
        """
        texts = (item.title, *(v for v in item.known.values() if isinstance(v, str)))
        runs = [run for text in texts for run in _runs(text)]
        total = len({word for run in runs for word in run if self._says(word)})
        found: frozenset[str] = frozenset()
        for bound in (True, False):
            found = frozenset(phrase for run in runs for phrase in self._of(run, bound))
            sizes = [n for n in map(len, map(str.split, found)) if n < total]
            if total <= LEAST or max(sizes, default=0) >= LEAST or len(sizes) >= LEAST:
                break
        return found

    def _of(self, run: list[str], bound: bool) -> Iterator[str]:
        """Phrases of a run; ``bound`` says whether words that mostly stand together are kept so."""
        for first, word in enumerate(run):
            if script(word[0]) in SPACELESS:
                yield from (p for p in pieces(word) if not self._empty & {p[0], p[-1]})
            elif self._says(word) and not (
                bound and first and (run[first - 1], word) in self._no_start
            ):
                for last in range(first, min(first + LONGEST, len(run))):
                    if script(run[last][0]) in SPACELESS:
                        break
                    torn = bound and last > first and (run[last - 1], run[last]) in self._goes_on
                    if self._says(run[last]) and self._ends(run, last, bound) and not torn:
                        yield " ".join(run[first : last + 1])

    def _ends(self, run: list[str], last: int, bound: bool) -> bool:
        word, after = run[last], run[last + 1] if last + 1 < len(run) else ""
        parted = not bound or (word, after) not in self._no_end
        return self._stops(after) or (word in self._ending and parted)

    def _says(self, word: str) -> bool:
        return len(word) > 1 and word not in self._empty

    def _stops(self, beside: str) -> bool:
        """Whether a phrase may end before this word, and begin after it: nothing, a letter, a small one."""
        return len(beside) < 2 or beside in self._empty


def _runs(text: str) -> Iterator[list[str]]:
    """The words of a text that nothing but spaces stands between, in small letters."""
    if len(text) > _LETTERS:  # not within a word
        text = text[:_LETTERS].rpartition(" ")[0] or text[:_LETTERS]
    for part in _BETWEEN.split(one_line(text).lower()):
        words = LETTERS.findall(part)
        if words:
            yield words
