"""Group the variants of a product, such as its sizes, colors, packs and editions.

If the catalog has a column that names the product of a variant, such as ``parent_asin`` or
``item_group_id``, items with the same value form a group. All other items are grouped by their
titles, with three rules:

1. Words that tell variants apart are left out: colors, sizes, small numbers, units and packaging
   words, and also filler words such as "the". Titles with the same remaining words, in any order,
   form a group. If fewer than two words remain, nothing is left out.
2. A title may be shortened to its head. "Dominion: Prosperity" has the head "Dominion" if this is
   the title of another item. "Catan: Seafarers Expansion" has the head "Catan", because the rest
   names an expansion. "JUMBO BAG STRAWBERRY" and "OPI Nail Lacquer, Mint" have heads that end with
   a word for a product, followed by a few words that name no other product.
3. The remaining words of two titles may differ by one letter in one long word.

The words are listed in ``variant_words.json``. The rules are cautious: they miss some variants but
seldom group different products. No rule compares all pairs of titles.
"""

from __future__ import annotations

import functools
import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from genrec.cache import Cache, digest_code
from genrec.data.catalog import Catalog
from genrec.types import IntArray

ALONE = -1  # the number of an item that is not in a group
_LEAST = 2  # a title is reduced to at least this many words
_TAIL = 3  # a title has at most this many words after its head
_LONG = 6  # a word of this length may have a misspelled letter
_DELIMITER = re.compile(r"[:;,()\[\]|~•]|\s[-–—]+")
_PIECE = re.compile(rf"(?P<break>{_DELIMITER.pattern})|\d+(?:[.,/]\d+)*[^\W_]*|[^\W_]+")
_NUMBER = re.compile(r"(\d+(?:[.,/x×]\d+)*)(\w*)")
_HAN = re.compile(r"([\u3040-\u30ff\u3400-\u9fff])")
_HAN_VARIANT = re.compile(
    r"[深浅淡亮暗]?(?:粉红|玫红|米白|藏青|天蓝|咖啡|卡其|[红橙黄绿青蓝紫黑白灰粉棕褐金银米])色"
    r"|[特加]?[大中小]号|\d+\s*[件个只片包盒瓶支套装条块双寸码升克]装?"
)


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a catalog's items.

    Attributes:
        numbers: (N,) the number of each item's group, or ``ALONE``. A group has at least two items.
        names: the name of each group: the value of the column that names the product, or the words
            that remain of the title of the group's first item.
    """

    numbers: IntArray
    names: tuple[str, ...]

    def values(self, rows: IntArray) -> list[int | None]:
        """Return the group number of each given row, or None for an item without a group."""
        return [None if n == ALONE else n for n in self.numbers[rows].tolist()]

    def name(self, row: int) -> str | None:
        """Return the name of an item's group, or None if the item is not in a group."""
        number = int(self.numbers[row])
        return None if number == ALONE else self.names[number]


def find_groups(catalog: Catalog) -> Groups:
    """Find the groups of a catalog's items; the rules are described at the top of this module.

    >>> from genrec.data.catalog import Item
    >>> titles = ["Desk Lamp Red", "Desk lamp, blue (2 pack)", "Lamp Shade"]
    >>> groups = find_groups(Catalog([Item(str(n), t) for n, t in enumerate(titles)]))
    >>> groups.numbers.tolist(), groups.names
    ([0, 0, -1], ('desk lamp',))
    """
    given = _column_values(catalog)
    words = [_read(t) if v is None else () for t, v in zip(catalog.titles, given, strict=True)]
    names = [
        (value,) if value is not None else name
        for value, name in zip(given, _reduced_titles(words, catalog.titles), strict=True)
    ]
    keys: list[tuple[str, ...]] = [
        (f"\0{v}",) if v is not None else tuple(sorted(set(n)))
        for v, n in zip(given, names, strict=True)
    ]
    same = _misspelled(keys)
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(same.get(key, key), []).append(row)
    numbers = np.full(len(keys), ALONE, dtype=np.int64)
    groups = [members for members in rows.values() if len(members) > 1]
    for number, members in enumerate(groups):
        numbers[members] = number
    return Groups(numbers, tuple(" ".join(names[members[0]]) for members in groups))


def load_groups(catalog: Catalog, cache: Cache) -> Groups:
    """Read the groups of a catalog's items from a cache, or find them and store them there."""
    if cache.folder is None:
        return find_groups(catalog)
    column = json.dumps(_column_values(catalog)).encode()
    about = {
        "code": digest_code("data/groups.py", "data/variant_words.json"),
        "catalog": catalog.hash(),
        "column": hashlib.sha256(column).hexdigest(),
    }
    found = cache.read("groups", about)
    if found is not None:
        return Groups(found[0]["numbers"], tuple(json.loads(found[1]["names"])))
    groups = find_groups(catalog)
    cache.write("groups", about, {"numbers": groups.numbers}, {"names": json.dumps(groups.names)})
    return groups


@functools.cache
def _words(*kinds: str) -> frozenset[str]:
    """Return the words in the given lists of ``variant_words.json``."""
    path = Path(__file__).with_name("variant_words.json")
    table: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return frozenset(word for kind in kinds for word in table[kind])


def _column_values(catalog: Catalog) -> list[str | None]:
    """Return the value of the column that names each item's product.

    All values are None if the catalog has no such column, or if no two items share a value.
    """
    for name in catalog.columns:
        if re.sub(r"\W+", "_", name.casefold()) not in _words("columns"):
            continue
        known = [item.known.get(name) for item in catalog]
        values = [None if v is None else str(v) for v in known]
        filled = [v for v in values if v is not None]
        if len(set(filled)) < len(filled):
            return values
    return [None] * len(catalog)


@dataclass(frozen=True, slots=True)
class _Word:
    """A word in a title.

    Attributes:
        text: the word in lower case.
        first: True if the word follows a delimiter such as a colon.
        stem: the word without a plural ending; empty if the word only distinguishes variants.
    """

    text: str
    first: bool
    stem: str = ""


def _read(title: str) -> tuple[_Word, ...]:
    """Split a title into words, and mark those that only distinguish variants."""
    folded = unicodedata.normalize("NFKC", html.unescape(title)).casefold()
    folded = re.sub(r"[\u2122\u00ae'’`]", "", folded)
    if not folded.isascii():
        folded = _HAN.sub(r" \1 ", _HAN_VARIANT.sub(" ", folded))
    words: list[tuple[str, bool]] = []
    first = False
    for piece in _PIECE.finditer(folded):
        if piece["break"]:
            first = bool(words)
        else:
            words.append((piece[0], first))
            first = False
    dropped = _variant_words([w for w, _ in words])
    return tuple(
        _Word(w, f, "" if drop else _stem(w)) for (w, f), drop in zip(words, dropped, strict=True)
    )


def _variant_words(words: Sequence[str]) -> list[bool]:
    """For each word in a title, determine whether it only distinguishes variants."""
    always = _words("colors", "sizes", "loose", "fillers")
    after = _words("units", "packs", "editions")
    dropped: list[bool] = []
    counted = False  # the words before are a number and its units
    for place, word in enumerate(words):
        later = [w for w in words[place + 1 : place + 3] if w != "of"]
        following = later[0] if later else ""
        number = _NUMBER.fullmatch(word)
        if number is not None and (number[2] == "" or number[2] in after):
            digits = len(re.sub(r"\D", "", number[1]))
            measured = number[2] != "" or following in after or not number[1].isdigit()
            counted = measured or digits <= 2 or (digits == 3 and bool(following))
        elif counted and word in after:
            counted = True
        else:
            counts = (word in after and following.isdigit()) or (
                word in _words("ordinals") and following in _words("editions")
            )
            shade = word in _words("shades") and following in _words("colors")
            dropped.append(word in always or counts or shade)
            counted = counts
            continue
        dropped.append(counted)
    return dropped


@functools.lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    """Remove an English plural ending."""
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _stems(words: Sequence[_Word]) -> tuple[str, ...]:
    """Return the stems of a title's words."""
    stems = tuple(w.stem for w in words if w.stem)
    return stems if len(set(stems)) >= _LEAST else tuple(w.text for w in words)


def _reduced_titles(
    titles: Sequence[tuple[_Word, ...]], originals: Sequence[str]
) -> list[tuple[str, ...]]:
    """Reduce each title to the words that name the product; see rules 1 and 2.

    Args:
        titles: the words of each title.
        originals: the titles themselves, which are used unchanged if they have no words.
    """
    whole = {tuple(w.text for w in words) for words in titles if words}
    heads = [_head(words, whole) for words in titles]
    count: dict[tuple[str, ...], int] = {}
    for head in heads:
        count[head] = count.get(head, 0) + 1
    return [
        (title,) if not words else head if count[head] > 1 else _stems(words)
        for words, head, title in zip(titles, heads, originals, strict=True)
    ]


def _head(words: tuple[_Word, ...], whole: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Reduce a title to its head; if it has none, reduce the whole title.

    Args:
        words: the words of the title.
        whole: the words of each title of the catalog.
    """
    texts = tuple(w.text for w in words)
    extension = max((n for n, w in enumerate(texts) if w in _words("extensions")), default=-1)
    edition = max((n for n, w in enumerate(texts) if w in _words("editions")), default=extension)
    product, other = _last_product(words), _last_other(words)
    for end in range(1, len(words)):
        cut = words[end].first
        if cut and extension >= end and _words("extensions").isdisjoint(texts[:end]):
            return _stems(words[:end])
        part = cut or texts[end].isdigit()
        named = max(extension, edition) >= end or (part and max(product, other) < end)
        if named and texts[:end] in whole:
            return _stems(words[:end])
    if product > other:
        head, rest = words[: product + 1], [w for w in words[product + 1 :] if w.stem]
        if rest and len(rest) <= _TAIL and len({w.stem for w in head if w.stem}) >= _LEAST:
            return _stems(head)
    return _stems(words)


def _last_product(words: Sequence[_Word]) -> int:
    """Return the index of the last word that names a product with possible variants, or -1."""
    products, last = _words("products"), -1
    for place, word in enumerate(words):
        pair = f"{words[place - 1].text} {word.text}" if place else ""
        if word.stem in products or pair in products:
            last = place
    return last


def _last_other(words: Sequence[_Word]) -> int:
    """Return the index of the last word that names any other kind of product, or -1."""
    others = _words("others")
    return max((n for n, w in enumerate(words) if w.stem in others), default=-1)


def _misspelled(keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Find keys that differ by one letter in one long word; see rule 3.

    Returns:
        A mapping from each such key to the key that replaces it.
    """
    from rapidfuzz.distance import OSA

    near: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = {}
    for key in dict.fromkeys(keys):
        for place, word in enumerate(key if len(key) > _LEAST else ()):
            if len(word) >= _LONG and word.isalpha():
                near.setdefault(key[:place] + key[place + 1 :], []).append((word, key))
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for candidates in near.values():
        for (word, key), (other, close) in pairwise(sorted(candidates)):
            if OSA.distance(word, other, score_cutoff=1) <= 1:
                same[close] = same.get(key, key)
    return same
