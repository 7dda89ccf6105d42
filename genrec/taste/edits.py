"""Keep what users correct in their profile: keywords that they add, remove or ban."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.catalog import Catalog, Item
from genrec.data.events import History, Interaction
from genrec.errors import DataError, RequestError
from genrec.taste.keywords import LONGEST_KEYWORD, KeywordIndex, holds, key_of
from genrec.text import one_line
from genrec.types import IntArray

MOST = 100  # keywords of each kind
FACTOR = 2.0  # an item that holds an added keyword gets this factor
KINDS = ("added", "removed", "banned")


@dataclass(frozen=True, slots=True)
class ProfileEdits:
    """The corrections of a profile.

    - An *added* keyword is an interest of its own. In lists, the score of an item that holds it is
      multiplied by 2, once for each added keyword.
    - A *removed* keyword, and all that contain it, is not named in the profile and in prompts any
      more. Lists do not depend on it otherwise.
    - A *banned* keyword is removed as well. Items that hold it are left out of lists, and events with
      such items are left out of the history before it is read. So neither the model nor the prior
      knows them, and no explanation can name them.

    Attributes:
        added: keywords, such as ``hot water bottle``.
        removed: keywords.
        banned: keywords.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the keywords, write each on one line and drop repeated ones.

        Raises:
            RequestError: a value is not a list of texts with letters, there are too many, or one is
                both added and removed or banned.
        """
        for kind in KINDS:
            object.__setattr__(self, kind, _check(kind, getattr(self, kind)))
        against = {key_of(k) for k in (*self.removed, *self.banned)}
        both = [k for k in self.added if key_of(k) in against]
        if both:
            msg = (
                f"The keyword {both[0]!r} is both added and removed or banned. Expected only one of "
                "these."
            )
            raise RequestError(msg)

    def __bool__(self) -> bool:
        """Return True if there is any keyword."""
        return bool(self.added or self.removed or self.banned)

    @classmethod
    def of(cls, given: object) -> ProfileEdits:
        """Read edits from a mapping, or return edits as they are.

        Raises:
            RequestError: it is neither, or a key or value is not valid.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            msg = (
                f"profile={given!r:.80} is not valid. Expected a mapping such as "
                "{'added': ['tea'], 'removed': [], 'banned': ['christmas']}."
            )
            raise RequestError(msg)
        unknown = [k for k in given if k not in KINDS]
        if unknown:
            msg = f"{unknown[0]!r:.80} is not an edit of a profile. Expected one of: {', '.join(KINDS)}."
            raise RequestError(msg)
        return cls(**{k: v for k, v in given.items() if v is not None})

    @classmethod
    def read(cls, path: str | Path) -> ProfileEdits:
        """Read edits from a JSON file.

        Raises:
            DataError: the file cannot be read or is not such JSON.
        """
        expected = 'Expected JSON such as {"added": ["tea"], "banned": ["christmas"]}.'
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.of(given)
        except (OSError, ValueError, RecursionError) as error:
            msg = f"The edits in {path} cannot be read: {error}. {expected}"
            raise DataError(msg) from error
        except RequestError as error:
            msg = f"The edits in {path} cannot be used: {error}"
            raise DataError(msg) from error

    def changed(self, given: Mapping[str, Any]) -> ProfileEdits:
        """Return the edits with some kinds replaced; a kind that is None becomes empty."""
        return self.of(
            {**asdict(self), **{k: v if v is not None else () for k, v in given.items()}}
        )

    @property
    def unnamed(self) -> tuple[str, ...]:
        """The keywords that a profile does not name."""
        return (*self.removed, *self.banned)

    def to_dict(self) -> dict[str, list[str]]:
        """Return the edits as a dictionary that can be written as JSON."""
        return {kind: list(getattr(self, kind)) for kind in KINDS}

    def banned_rows(self, index: KeywordIndex) -> IntArray:
        """Return the catalog rows of the items that hold a banned keyword, in ascending order."""
        return rows_of(index, self.banned)

    def apply(self, history: History, index: KeywordIndex) -> History:
        """Return a history without the events whose items, or whose texts alone, hold a banned keyword."""
        catalog: Catalog = index.catalog
        if not self.banned:
            return history
        gone = set(self.banned_rows(index).tolist())

        def stays(event: Interaction) -> bool:
            if event.item_id is not None and event.item_id in catalog:
                return catalog.row(event.item_id) not in gone
            said = Item("", event.text or "")
            return not any(holds(said, keyword) for keyword in self.banned)

        return history.with_events([e for e in history.interactions if stays(e)])


def rows_of(index: KeywordIndex, keywords: Sequence[str]) -> IntArray:
    """Return the catalog rows of the items that hold one of several keywords, in ascending order."""
    found: set[int] = set()
    for keyword in keywords:
        found.update(index.rows(keyword).tolist())
    return np.array(sorted(found), dtype=np.int64)


def _check(kind: str, given: object) -> tuple[str, ...]:
    """Check the keywords of a kind; see ``ProfileEdits``."""
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        msg = f"{kind}={given!r:.80} is not valid. Expected a list of keywords, such as ['tea']."
        raise RequestError(msg)
    if len(given) > MOST:
        msg = f"{kind} has {len(given):,} keywords. Expected at most {MOST}."
        raise RequestError(msg)
    found: dict[str, str] = {}
    for one in given:
        if not isinstance(one, str) or not key_of(one) or len(one) > LONGEST_KEYWORD:
            msg = (
                f"{kind} has the keyword {one!r:.120}. Expected a text with letters of at most "
                f"{LONGEST_KEYWORD} characters, such as 'hot water bottle'."
            )
            raise RequestError(msg)
        found.setdefault(key_of(one), one_line(one))
    return tuple(found.values())
