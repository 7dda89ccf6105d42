"""Make synthetic titles as token ids, so that ten million take seconds, and synthetic events.

Words of the embedded demo catalog, each tokenized with its space, are chained: the next word follows the
last one in some demo title (four times of five) or is any word, by frequency. A title is as long as two demo
titles: 9 words and 13 tokens on average, as in Amazon Toys (7 and 14; Beauty has 11 and 22, the demo 4 and
7).

Events have popular items, users with much to say, and enough of a pattern that items have something to do with
each other (see ``events``). They are for measuring time and memory, not accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from genrec.decoding.trie import Chunk, ranges
from genrec.types import IntArray

CHUNK = 100_000  # titles made at once
STAY = 0.8  # of a title's next words follow the one before in a demo title
TOPICS = 1000  # groups of items that the same users choose
# The share of events within the user's topic, with the item next to the last one, and with the last one.
KEEP, NEXT, AGAIN = 0.5, 0.15, 0.05
DAYS = 730  # over which events are spread


@dataclass(frozen=True)
class Words:
    """The words that titles are made of: W words, of which the last ends a title.

    Attributes:
        token: token ids of all words; those of word w are token[start[w] : start[w + 1]].
        start: (W + 1,) see there.
        every: words of all demo titles, one after the other, each as often as it stands there.
        first: the first word of each demo title.
        length: words of each demo title.
        follows: words that follow each word: follows[place[w] : place[w + 1]].
        place: (W + 1,) see there.
    """

    token: IntArray
    start: IntArray
    every: IntArray
    first: IntArray
    length: IntArray
    follows: IntArray
    place: IntArray

    @classmethod
    def of_demo(cls, encoder: Any, titles: list[str]) -> tuple[Words, list[str]]:
        """Split titles into words under an ``Encoder``; return the words and their texts."""
        split = [encoder.form.render(title).split() for title in titles]
        names = sorted({word for words in split for word in words})
        number = {name: n for n, name in enumerate(names)}
        tokens = [*(encoder.text(f" {name}") for name in names), encoder.terminator]
        pairs = sorted((number[a], number[b]) for w in split for a, b in pairwise(w))
        before, follows = np.array(pairs).T
        words = cls(
            token=np.concatenate([np.array(t) for t in tokens]),
            start=np.cumsum([0, *map(len, tokens)]),
            every=np.array([number[word] for w in split for word in w]),
            first=np.array([number[w[0]] for w in split]),
            length=np.array([len(w) for w in split]),
            follows=follows,
            place=np.searchsorted(before, np.arange(len(tokens) + 1)),
        )
        return words, names

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Words:
        return cls(**np.load(path))

    def numbers(
        self, n: int, seed: int = 0, phrases: int = 2
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the word numbers of n titles in chunks, with each title's number of words."""
        rng = np.random.default_rng(seed)
        for done in range(0, n, CHUNK):
            size = min(CHUNK, n - done)
            length = rng.choice(self.length, (phrases, size)).sum(axis=0)
            table = np.empty((size, int(length.max())), dtype=np.int64)
            table[:, 0] = rng.choice(self.first, size)
            for column in range(1, table.shape[1]):
                last = table[:, column - 1]
                count = self.place[last + 1] - self.place[last]
                step = self.place[last] + (rng.random(size) * count).astype(np.int64)
                stays = (rng.random(size) < STAY) & (count > 0)
                next_ = self.follows[np.where(stays, step, 0)]
                table[:, column] = np.where(stays, next_, rng.choice(self.every, size))
            yield table[np.arange(table.shape[1]) < length[:, None]], length

    def chunks(
        self, n: int, seed: int = 0, *, phrases: int = 2, multiple: int = 1
    ) -> Iterator[Chunk]:
        """Yield the token ids of n titles in chunks, with each title's number of tokens.

        Args:
            n: how many titles.
            seed: of the titles.
            phrases: a title is as long as so many demo titles.
            multiple: ids are multiplied by it, to be those of a greater vocabulary.
        """
        sizes, end = np.diff(self.start), len(self.start) - 2
        for words, length in self.numbers(n, seed, phrases):
            ends = np.cumsum(length)
            whole = np.insert(words, ends, end)
            count = sizes[whole]
            tokens = self.token[ranges(self.start[whole], count)] * multiple
            stops = ends + np.arange(len(length))  # where the terminators stand in whole
            yield tokens, np.diff(np.append(0, np.cumsum(count)[stops]))


def texts(n: int, phrases: int = 1) -> list[str]:
    """Return n titles as texts; see ``Words.chunks``."""
    words, names, _ = demo()
    found = []
    for flat, length in words.numbers(n, phrases=phrases):
        word = iter([names[w] for w in flat.tolist()])
        found += [" ".join(next(word) for _ in range(size)) for size in length.tolist()]
    return found


def events(
    users: int, items: int, total: int, seed: int = 0
) -> tuple[IntArray, IntArray, IntArray]:
    """Make about ``total`` events, sorted by user and time.

    An item's popularity falls as 1 / (its place + 50), as Zipf's law says with Mandelbrot's offset. A user's
    number of events is log-normal with a standard deviation of 1 in the logarithm, at least 3 and at most
    500. Half of a user's events are within one of ``TOPICS`` groups of items, some are the item next to the
    last one, and some repeat it.

    Returns:
        (E,) numbers of the users, (E,) numbers of the items and (E,) times in seconds.
    """
    rng = np.random.default_rng(seed)
    share = 1.0 / (np.arange(items) + 50.0)
    share = np.cumsum(share / share.sum())
    length = np.exp(rng.normal(0.0, 1.0, users))
    length = np.clip(length * total / users / np.exp(0.5), 3, 500).astype(np.int64)
    user = np.repeat(np.arange(users), length)
    place = np.searchsorted(share, rng.random(len(user)))  # 0 is the most popular item
    place = np.minimum(place, items - 1)
    topic = rng.integers(TOPICS, size=users)[user]
    near = (place // TOPICS * TOPICS + topic) % items
    place = np.where(rng.random(len(user)) < KEEP, near, place)
    first = np.append(True, user[1:] != user[:-1])
    before = np.roll(place, 1)
    kind = rng.random(len(user))
    place = np.where(~first & (kind < NEXT), (before + 1) % items, place)
    place = np.where(~first & (kind > 1 - AGAIN), before, place)
    item = rng.permutation(items)[place]
    when = rng.integers(DAYS * 86_400, size=len(user)) + 1_600_000_000
    order = np.lexsort((when, user))  # only the times are put in order
    return user, item, when[order]


def demo() -> tuple[Words, list[str], Any]:
    """Return the demo's words under the default tokenizer, their texts, and the encoder."""
    from transformers import AutoTokenizer

    from genrec.data.datasets import load
    from genrec.data.titles import TitleForm
    from genrec.models.packaged import DEFAULT_MODEL, ensure
    from genrec.prompts.encoder import Encoder

    catalog = load("online_retail_demo").catalog
    tokenizer = AutoTokenizer.from_pretrained(ensure(DEFAULT_MODEL))
    encoder = Encoder(tokenizer, TitleForm.of(catalog))
    return *Words.of_demo(encoder, list(catalog.titles)), encoder
