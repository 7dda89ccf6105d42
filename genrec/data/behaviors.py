"""How behaviors are said in a language: the verbs that ship with the templates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from genrec.errors import PromptError


def templates_folder() -> Path:
    """The folder of the shipped templates: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "templates", package.parent / "prompts"):
        if (place / "en").is_dir():
            return place
    msg = f"The prompt templates are missing beside {package}. Install genrec again."
    raise PromptError(msg)


@dataclass(frozen=True, slots=True)
class Verb:
    """How a behavior is said.

    Attributes:
        past: as in "bought".
        base: as in "will buy".
        value: the form of an event's value, with {value} and {scale}; empty for the number alone.
        also: other words for it that people type.
    """

    past: str
    base: str
    value: str = ""
    also: tuple[str, ...] = ()

    @property
    def forms(self) -> tuple[str, ...]:
        """All words for it that are understood."""
        return (self.past, self.base, *self.also)

    def format_value(self, value: float | None, scale: float) -> str:
        """The value in its form; empty for no value."""
        if value is None:
            return ""
        number, top = f"{value:g}", f"{scale:g}"
        return (self.value or "{value}").replace("{value}", number).replace("{scale}", top)


def shipped_verbs(language: str = "en") -> dict[str, Verb]:
    """Behavior -> how it is said, as shipped for a language."""
    return read_verbs(templates_folder() / language / "verbs.json")


def spoken_verbs() -> dict[str, tuple[str, ...]]:
    """Behavior -> how it is said in any shipped language, to understand what people type."""
    said: dict[str, tuple[str, ...]] = {}
    for path in sorted(templates_folder().glob("*/verbs.json")):
        for behavior, verb in read_verbs(path).items():
            said[behavior] = (*said.get(behavior, ()), *verb.forms)
    return said


def read_text(path: Path) -> str:
    """Read a template file; a missing one is a PromptError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}. Expected a text file in UTF-8."
        raise PromptError(msg) from error


def read_verbs(path: Path) -> dict[str, Verb]:
    """Read a verb table, behavior to Verb."""
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
            f"{path} is no verb table: {error}. Expected JSON such as "
            '{"buy": {"past": "bought", "base": "buy", "value": "{value} pcs"}}.'
        )
        raise PromptError(msg) from error
