"""Choose diverse items for a list from ranked candidates.

There are two methods, which can be used alone or together. One is maximal marginal relevance (MMR),
which prefers candidates that differ from those above them (Carbonell and Goldstein 1998, The use of
MMR, diversity-based reranking, https://doi.org/10.1145/290941.291025). The other sets a maximum
number of occurrences (a cap) for each value of a column, such as a brand or a title. Pinned items
are put before all others.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.errors import RequestError
from genrec.matching.matcher import TextMatcher
from genrec.matching.ngrams import CharNgrams
from genrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from genrec.decoding.types import Ranking

Values = Sequence[Hashable | None]


def title_vectors(catalog: Catalog, matcher: TextMatcher, rows: IntArray) -> FloatArray:
    """Compute a unit vector for the title of each given catalog row.

    The vectors come from the matcher's encoder. If there is none, or if it cannot read the titles,
    they are based on character n-grams.

    Args:
        catalog: the catalog.
        matcher: the matcher whose encoder is used.
        rows: n catalog rows.

    Returns:
        An array of shape (n, D), where D is the size of a vector.
    """
    titles = [catalog[r].title for r in rows.tolist()]
    if not titles:
        return np.zeros((0, 1))
    meaning = matcher.meaning
    embedder = meaning.embedder if meaning is not None else None
    if embedder is not None and all(embedder.coverage.reads(t) for t in titles):
        return np.asarray(embedder.embed(titles), dtype=np.float64)
    return np.asarray(CharNgrams(titles).vectors.toarray(), dtype=np.float64)


def mmr(scores: npt.ArrayLike, vectors: npt.ArrayLike, k: int, trade_off: float) -> IntArray:
    """Choose k of n candidates by maximal marginal relevance.

    Candidates are chosen one by one. Each step chooses the candidate with the largest value of
    ``trade_off * relevance - (1 - trade_off) * similarity``. Relevance is the score, scaled so that
    the lowest candidate has 0 and the highest has 1. Similarity is the largest cosine between the
    candidate and those chosen before, and 0 in the first step. Ties are broken in favor of the
    higher score, and then of the lower index. With trade_off 1, candidates are chosen in order of
    score.

    Args:
        scores: (n,) the scores of the candidates, which must be finite; higher is better.
        vectors: (n, D) a unit vector for each candidate. A row of zeros is similar to no
            other row.
        k: the number of candidates to choose, at least 1. If there are fewer, all are chosen.
        trade_off: a number from 0 (only dissimilarity counts) to 1 (only scores count).

    Returns:
        The indices of the min(k, n) chosen candidates, in the order in which they were chosen.

    Raises:
        RequestError: an argument is invalid.

    >>> mmr([3.0, 2.0, 1.0], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], k=2, trade_off=0.5).tolist()
    [0, 2]
    """
    return choose(scores, k, vectors=vectors, trade_off=trade_off)


def choose(
    scores: npt.ArrayLike,
    k: int,
    *,
    vectors: npt.ArrayLike | None = None,
    trade_off: float = 1.0,
    columns: Mapping[str, Values] | None = None,
    caps: Mapping[str, int] | None = None,
    first: int = 0,
) -> IntArray:
    """Choose candidates as ``mmr`` does, but skip candidates that would exceed a cap.

    A cap is the maximum number of chosen candidates with the same value in a column.

    Args:
        scores: (n,) the scores of the candidates, which must be finite; higher is better.
        k: the number of candidates to choose, at least 1.
        vectors: (n, D) a unit vector for each candidate, as in ``mmr``. Not needed if
            trade_off is 1.
        trade_off: see ``mmr``.
        columns: columns with n values each, keyed by name; see ``capped``.
        caps: the cap for each column, keyed by name; see ``capped``.
        first: the number of leading candidates to choose before all others, regardless of their
            scores and the caps. They count towards the caps, and later candidates are compared with
            them for similarity.

    Returns:
        The indices of at most k candidates, in the order in which they were chosen. There are fewer
        than k if the caps exclude too many candidates.

    Raises:
        RequestError: an argument is invalid.
    """
    score = _scores(scores)
    n = len(score)
    _check_count("k", k)
    if not 0 <= trade_off <= 1:  # also true for NaN
        msg = (
            f"trade_off={trade_off!r} is not valid. Expected a number from 0 (only dissimilarity) to 1 "
            "(only scores)."
        )
        raise RequestError(msg)
    if vectors is None and trade_off != 1:
        msg = f"trade_off={trade_off!r} requires vectors. Expected (n, D) vectors, or trade_off=1."
        raise RequestError(msg)
    vector = np.zeros((n, 1)) if vectors is None else _vectors(vectors, n)
    codes = _coded(columns or {}, caps or {}, n)
    if not n:
        return np.zeros(0, dtype=np.int64)
    # In this order, argmax chooses the higher score in a tie.
    order = np.concatenate([np.arange(first), first + np.argsort(-score[first:], kind="stable")])
    score, vector, codes = score[order], vector[order], codes[:, order]
    others = score[first:] if first < n else score
    relevance = (score - others[-1]) / (float(np.ptp(others)) or 1.0)
    left = [np.full(n, min(cap, n)) for cap in (caps or {}).values()]
    similarity = np.zeros(n)
    is_open = np.ones(n, dtype=bool)
    chosen: list[int] = []
    while len(chosen) < k and (is_open.any() or len(chosen) < first):
        value = trade_off * relevance - (1 - trade_off) * similarity
        best = len(chosen)
        if best >= first:
            best = int(np.argmax(np.where(is_open, value, -np.inf)))
        cosine = vector @ vector[best]
        similarity = np.maximum(similarity, cosine) if chosen else cosine
        chosen.append(best)
        is_open[best] = False
        for code, rest in zip(codes, left, strict=True):
            if code[best] >= 0:
                rest[code[best]] -= 1
                if rest[code[best]] <= 0:
                    is_open &= code != code[best]
    return order[np.array(chosen, dtype=np.int64)]


@overload
def capped(values: Values, k: int, cap: int, first: int = 0) -> IntArray: ...


@overload
def capped(
    values: Mapping[str, Values], k: int, cap: Mapping[str, int], first: int = 0
) -> IntArray: ...


def capped(
    values: Values | Mapping[str, Values], k: int, cap: int | Mapping[str, int], first: int = 0
) -> IntArray:
    """Choose the first k candidates, but skip candidates whose value has already occurred too often.

    Args:
        values: the value of each candidate, in order; or several such columns, keyed by name. None,
            NaN and blank text are missing values, which may occur any number of times.
        k: the number of candidates to choose, at least 1.
        cap: the maximum number of chosen candidates with the same value, at least 1; or a mapping
            from the name of each column to such a number.
        first: the number of leading candidates to choose even if they exceed a cap. They count
            towards the caps.

    Returns:
        The sorted indices of at most k candidates. There are fewer than k if the caps exclude too
        many candidates.

    Raises:
        RequestError: a cap or k is below 1, a capped column is missing, the columns have different
            lengths, or a value cannot be hashed.

    >>> capped(["A", "A", None, "A", "B", None], k=4, cap=1).tolist()
    [0, 2, 4, 5]
    """
    columns: Mapping[str, Values] = values if isinstance(values, Mapping) else {"values": values}
    caps: Mapping[str, int] = cap if isinstance(cap, Mapping) else dict.fromkeys(columns, cap)
    _check_count("k", k)
    n = len(next(iter(columns.values()), ()))
    codes = _coded(columns, caps, n)
    left = [np.full(n, min(c, n)) for c in caps.values()]
    chosen: list[int] = []
    for place in range(n):
        counted = [(rest, c) for rest, c in zip(left, codes[:, place], strict=True) if c >= 0]
        if place < first or all(rest[c] > 0 for rest, c in counted):
            for rest, c in counted:
                rest[c] -= 1
            chosen.append(place)
            if len(chosen) == k:
                break
    return np.array(chosen, dtype=np.int64)


def per_title(titles: Sequence[str], k: int, cap: int = 1) -> IntArray:
    """Choose the first k candidates, but at most ``cap`` candidates with the same title.

    Args:
        titles: the title of each candidate, in order. Titles are the same if the strings are equal,
            so normalize them first, for example with ``text.normalized``.
        k: the number of candidates to choose, at least 1.
        cap: the maximum number of candidates with the same title, at least 1.

    Returns:
        The sorted indices of the chosen candidates; see ``capped``.
    """
    return capped(titles, k, cap)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        msg = f"{name}={value!r} is not valid. Expected a whole number of at least 1."
        raise RequestError(msg)


def _scores(scores: npt.ArrayLike) -> FloatArray:
    score = np.asarray(scores, dtype=np.float64)
    if score.ndim != 1:
        msg = f"The scores have the shape {score.shape}. Expected one number per candidate."
        raise RequestError(msg)
    with np.errstate(all="ignore"):
        if len(score) and not np.isfinite(np.ptp(score)):
            bad = score[~np.isfinite(score)]
            problem = f"contain {bad[0]}" if len(bad) else "are too far apart for float64"
            msg = f"The scores {problem}. Expected finite numbers; leave such candidates out of the list."
            raise RequestError(msg)
    return score


def _vectors(vectors: npt.ArrayLike, n: int) -> FloatArray:
    vector = np.asarray(vectors, dtype=np.float64)
    if vector.ndim != 2 or len(vector) != n:
        msg = (
            f"The vectors have the shape {vector.shape} for {n} candidates. Expected ({n}, D), one row "
            "per candidate."
        )
        raise RequestError(msg)
    norm = np.linalg.norm(vector, axis=1)
    bad = np.flatnonzero(~((np.abs(norm - 1) < 1e-2) | (norm == 0)))
    if len(bad):
        msg = (
            f"Vector {bad[0]} has length {norm[bad[0]]:.4g}. Expected vectors of length 1; divide "
            "each by its length."
        )
        raise RequestError(msg)
    return vector


def _coded(columns: Mapping[str, Values], caps: Mapping[str, int], n: int) -> IntArray:
    """Assign a number to each distinct value of every column that has a cap.

    Args:
        columns: the columns, keyed by name, with n values each.
        caps: the cap for each column, keyed by name.
        n: the number of candidates.

    Returns:
        An array with a row for each cap and n columns. Equal values have the same number, from 0 to
        n - 1, and missing values have -1.

    Raises:
        RequestError: a column is missing or has a wrong length, or a value cannot be hashed.
    """
    codes = np.full((len(caps), n), -1, dtype=np.int64)
    for row, (name, cap) in zip(codes, caps.items(), strict=True):
        _check_count(f"The cap of {name!r}", cap)
        if name not in columns:
            near = difflib.get_close_matches(name, columns)
            msg = (
                f"Cannot cap {name!r}: there is no such column. Expected one of "
                f"{', '.join(map(repr, near or columns)) or '(no columns given)'}."
            )
            raise RequestError(msg)
        if len(columns[name]) != n:
            msg = (
                f"Column {name!r} has {len(columns[name])} values for {n} candidates. Expected {n}."
            )
            raise RequestError(msg)
        seen: dict[Hashable, int] = {}
        for place, value in enumerate(columns[name]):
            try:
                if not is_missing(value):
                    row[place] = seen.setdefault(value, len(seen))
            except TypeError as error:
                msg = (
                    f"Value {value!r:.80} of {name!r} cannot be counted: {error}. Expected strings or "
                    "numbers."
                )
                raise RequestError(msg) from error
    return codes


def is_missing(value: Any) -> bool:
    """Return True for None, NaN and blank text, which no cap counts."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def put_first(pinned: Ranking, rows: Sequence[int], others: Ranking, k: int) -> Ranking:
    """Put pinned items before the other items of a list.

    Args:
        pinned: the ranking of the pinned items.
        rows: the catalog rows of the pinned items, in the order of the list.
        others: the ranking of the other items.
        k: the maximum number of items in the list.
    """
    n = len(rows)
    place = {row: i for i, row in enumerate(pinned.rows.tolist())}
    first = pinned.only(np.array([place[row] for row in rows], dtype=np.int64))
    rest = others.only(np.arange(min(k - n, len(others.rows))))

    def join(name: str) -> Any:
        parts = [getattr(first, name), getattr(rest, name)]
        return None if parts[0] is None else np.concatenate(parts)

    certificate = rest.certificate
    if n == k:  # the search for other items was not needed
        certificate = pinned.certificate
    return replace(
        rest,
        rows=join("rows"),
        logprobs=join("logprobs"),
        scores=join("scores"),
        alone=join("alone"),
        prior=join("prior"),
        certificate=replace(
            certificate,
            certain_ranks=n + min(certificate.certain_ranks, len(rest.rows)),
            nodes=pinned.certificate.nodes + others.certificate.nodes,
            tokens=pinned.certificate.tokens + others.certificate.tokens,
        ),
        pinned=n,
    )
