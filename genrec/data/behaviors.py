"""Express behaviors in words, using the verb tables that come with the prompt templates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from genrec.errors import PromptError


def templates_folder() -> Path:
    """Return the folder of the shipped templates, in an installed package or in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "templates", package.parent / "prompts"):
        if (place / "en").is_dir():
            return place
    msg = f"The prompt templates are missing from {package}. Install genrec again."
    raise PromptError(msg)


@dataclass(frozen=True, slots=True)
class Verb:
    """The words for a behavior.

    Attributes:
        past: the past tense, such as "bought".
        base: the base form, such as "buy".
        value: a pattern that formats an event's value, with the placeholders {value} and {scale};
            if it is empty, only the number is written.
        also: other words that users may type for the behavior.
    """

    past: str
    base: str
    value: str = ""
    also: tuple[str, ...] = ()

    @property
    def forms(self) -> tuple[str, ...]:
        """The words that are recognized as this behavior in a typed history."""
        return (self.past, self.base, *self.also)

    def format_value(self, value: float | None, scale: float) -> str:
        """Format an event's value with the pattern.

        Args:
            value: the value; None gives an empty string.
            scale: the highest value in the data.
        """
        if value is None:
            return ""
        number, top = f"{value:g}", f"{scale:g}"
        return (self.value or "{value}").replace("{value}", number).replace("{scale}", top)


def shipped_verbs(language: str = "en") -> dict[str, Verb]:
    """Read a language's shipped verb table, which has the words for each behavior."""
    return read_verbs(templates_folder() / language / "verbs.json")


def spoken_verbs() -> dict[str, tuple[str, ...]]:
    """Collect each behavior's words in all shipped languages, for parsing typed histories."""
    words: dict[str, tuple[str, ...]] = {}
    for path in sorted(templates_folder().glob("*/verbs.json")):
        for behavior, verb in read_verbs(path).items():
            words[behavior] = (*words.get(behavior, ()), *verb.forms)
    return words


def read_text(path: Path) -> str:
    """Read a template file.

    Raises:
        PromptError: the file is missing or is not encoded in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}. Expected a text file in UTF-8."
        raise PromptError(msg) from error


def read_verbs(path: Path) -> dict[str, Verb]:
    """Read a verb table, or return an empty one if the file does not exist.

    Raises:
        PromptError: the file is not a verb table.
    """
    if not path.is_file():
        return {}
    try:
        table = json.loads(read_text(path)).items()
        return {
            str(b): Verb(**{**form, "also": tuple(map(str, form.get("also", ())))})
            for b, form in table
        }
    except (ValueError, TypeError, AttributeError) as error:
        msg = (
            f"{path} is not a verb table: {error}. Expected JSON such as "
            '{"buy": {"past": "bought", "base": "buy", "value": "{value} pcs"}}.'
        )
        raise PromptError(msg) from error
