"""Recognize well-known files without a header by the pattern of their cells.

The columns get the names that the publishers of the files use in their descriptions. This module
deals with lines and cells only, not with encodings.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ENOUGH = 3  # rows that must have the form
_MOST = 0.95  # the share of rows that must have it


@dataclass(frozen=True, slots=True)
class Form:
    """The pattern of a file without a header.

    Attributes:
        name: what the file holds, for use in messages.
        delimiters: the possible delimiters between cells.
        columns: the name of each column, with a regular expression for its cells.
        quoted: True if cells may be quoted, so that they may contain the delimiter.
    """

    name: str
    delimiters: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    quoted: bool = True

    def fits(self, lines: Sequence[str], delimiter: str) -> bool:
        """Check whether the cells of several lines match the pattern.

        If there are many lines, a few damaged ones need not match.
        """
        if self.quoted:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        else:
            rows = [line.rstrip("\r\n").split(delimiter) for line in lines if line.strip()]
        width = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
        if width != len(self.columns) or not self._fits_row(rows[0]):
            return False
        fitting = sum(self._fits_row(row) for row in rows)
        return fitting >= _ENOUGH and fitting >= _MOST * len(rows)

    def _fits_row(self, cells: Sequence[str]) -> bool:
        """Check whether the cells of a row match the pattern."""
        return len(cells) == len(self.columns) and all(
            re.fullmatch(pattern, cell.strip()) is not None
            for cell, (_, pattern) in zip(cells, self.columns, strict=True)
        )


_ID = r"\d+"
_EPOCH = r"\d{9,10}"
_STARS = r"(\d|10)(\.\d)?"
_ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
_ANY = r".*"
_SOME = r".+"
_MUSICBRAINZ = r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?"
_AMAZON_USER = r"A[0-9A-Z]{9,}"
_AMAZON_ITEM = r"[0-9B][0-9A-Z]{9}"
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
FORMS = (
    Form(
        "MovieLens's ratings",
        ("\t", "::", ","),
        (("user_id", _ID), ("item_id", _ID), ("rating", _STARS), ("timestamp", _EPOCH)),
        quoted=False,
    ),
    Form(
        "MovieLens's tags",
        ("::",),
        (("user_id", _ID), ("item_id", _ID), ("text", _SOME), ("timestamp", _EPOCH)),
        quoted=False,
    ),
    Form(
        "MovieLens's movies",
        ("::",),
        (("item_id", _ID), ("title", r".+ \(\d{4}\)"), ("genres", r"[(A-Z][^:]*")),
        quoted=False,
    ),
    Form(
        "MovieLens's movies",
        ("|",),
        (
            ("item_id", _ID), ("title", _SOME), ("release_date", r"(\d\d-[A-Z][a-z]{2}-\d{4})?"),
            ("video_release_date", _ANY), ("imdb_url", r"(https?://.*)?"),
            *((genre, r"[01]") for genre in _GENRES),
        ),
        quoted=False,
    ),
    Form(
        "Amazon's ratings",
        (",",),
        (
            ("user_id", _AMAZON_USER), ("item_id", _AMAZON_ITEM), ("rating", _STARS),
            ("timestamp", _EPOCH),
        ),
    ),
    Form(
        "Amazon's ratings",
        (",",),
        (
            ("item_id", _AMAZON_ITEM), ("user_id", _AMAZON_USER), ("rating", _STARS),
            ("timestamp", _EPOCH),
        ),
    ),
    Form(
        "Last.fm's plays",
        ("\t",),
        (
            ("user_id", r"user_\d+"), ("timestamp", _ISO), ("artid", _MUSICBRAINZ),
            ("artname", _ANY), ("traid", _MUSICBRAINZ), ("traname", _ANY),
        ),
        quoted=False,
    ),
    Form(
        "Last.fm's counts of plays",
        ("\t",),
        (
            ("user_id", r"[0-9a-f]{40}"), ("artist_id", _MUSICBRAINZ), ("artist_name", _ANY),
            ("plays", r"\d+"),
        ),
        quoted=False,
    ),
    Form(
        "Yoochoose's clicks",
        (",",),
        (
            ("session_id", _ID), ("timestamp", _ISO), ("item_id", _ID), ("category", r"S|\d+"),
        ),
    ),
    Form(
        "Yoochoose's purchases",
        (",",),
        (
            ("session_id", _ID), ("timestamp", _ISO), ("item_id", _ID), ("price", r"\d+"),
            ("quantity", r"\d+"),
        ),
    ),
    Form(
        "MIND's impressions",
        ("\t",),
        (
            ("impression_id", _ID), ("user_id", r"U\d+"), ("time", r"\d+/\d+/\d{4} .*[AP]M"),
            ("history", r"(N\d+( N\d+)*)?"), ("impressions", r"N\d+(-[01])?( N\d+(-[01])?)*"),
        ),
        quoted=False,
    ),
    Form(
        "MIND's news",
        ("\t",),
        (
            ("item_id", r"N\d+"), ("category", r"\w+"), ("subcategory", r"[\w-]+"),
            ("title", _SOME), ("abstract", _ANY), ("url", r"(https?://.*)?"),
            ("title_entities", r"(\[.*\])?"), ("abstract_entities", r"(\[.*\])?"),
        ),
        quoted=False,
    ),
    Form(
        "Steam's purchases and hours of play",
        (",",),
        (
            ("user_id", _ID), ("game", _SOME), ("behavior", r"purchase|play"),
            ("hours", r"\d+(\.\d+)?"), ("zero", r"0"),
        ),
    ),
    Form(
        "Taobao's events",
        (",",),
        (
            ("user_id", _ID), ("item_id", _ID), ("category_id", _ID),
            ("behavior", r"pv|buy|cart|fav"), ("timestamp", _EPOCH),
        ),
    ),
)  # fmt: skip


def recognize(lines: Sequence[str]) -> tuple[Form, str] | None:
    """Return the form of a file and its delimiter, or None if no known form fits.

    Args:
        lines: the first lines of the file, without a truncated last line.
    """
    for form in FORMS:
        for delimiter in form.delimiters:
            if lines and delimiter in lines[0] and form.fits(lines, delimiter):
                return form, delimiter
    return None
