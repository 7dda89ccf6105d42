"""Read the words in which a language describes a profile, and write the section of a prompt.

The section is one line that stands for events that are too old to be shown. This module deals with
texts, not with events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from genrec.data.behaviors import read_text, templates_folder
from genrec.errors import PromptError
from genrec.text import one_line

FILE = "profile.json"
MOST_KEYWORDS = 12  # keywords in the section of a prompt
_LONGEST = 60  # characters of a keyword in a prompt


class ProfileWords:
    """The patterns of one language, by name; see ``prompts/en/profile.json``."""

    def __init__(self, patterns: Mapping[str, str]) -> None:
        """Store the patterns."""
        self.patterns = dict(patterns)

    @classmethod
    def load(cls, language: str = "en", own: str | Path | None = None) -> ProfileWords:
        """Read the patterns of a language. Those in the user's own folder take precedence.

        A language without any uses the English ones.

        Raises:
            PromptError: a file is not a mapping from names to texts, or has an unknown name.
        """
        patterns = _read(templates_folder() / "en" / FILE)
        roots = [templates_folder()] + ([] if own is None else [Path(own)])
        for root in roots:
            path = root / language / FILE
            if path.is_file():
                given = _read(path)
                unknown = set(given) - set(patterns)
                if unknown:
                    msg = (
                        f"{path} has the unknown name {sorted(unknown)[0]!r}. Expected names of the "
                        f"shipped {FILE}."
                    )
                    raise PromptError(msg)
                patterns |= given
        return cls(patterns)

    def __getitem__(self, name: str) -> str:
        """Return the pattern with a name."""
        return self.patterns[name]

    @property
    def stop(self) -> frozenset[str]:
        """The words that neither begin nor end a keyword."""
        return frozenset(self["stop"].split())

    def fill(self, name: str, **values: object) -> str:
        """Fill the placeholders of a pattern. Braces in the values have no meaning."""
        text = self[name]
        parts = [text]
        for key, value in values.items():
            split: list[str] = []
            for place, part in enumerate(parts):
                pieces = part.split(f"{{{key}}}") if place % 2 == 0 else [part]
                for number, piece in enumerate(pieces):
                    split += [piece] if not number else [str(value), piece]
            parts = split
        return "".join(parts)

    def section(self, keywords: Sequence[str]) -> str:
        """Write the section of a prompt on one line; empty without keywords."""
        short = [one_line(k)[:_LONGEST] for k in keywords[:MOST_KEYWORDS]]
        return self.fill("section", keywords=self["join"].join(short)) if short else ""


def stop_words() -> frozenset[str]:
    """Return the words of all shipped languages that neither begin nor end a keyword."""
    found: set[str] = set()
    for path in sorted(templates_folder().glob(f"*/{FILE}")):
        found.update(_read(path).get("stop", "").split())
    return frozenset(found)


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(read_text(path))
        if not (isinstance(found, dict) and all(isinstance(v, str) for v in found.values())):
            msg = "its values are not texts"
            raise ValueError(msg)
    except ValueError as error:
        msg = f"{path} has no words for a profile: {error}. Expected JSON as in the shipped {FILE}."
        raise PromptError(msg) from error
    return found
