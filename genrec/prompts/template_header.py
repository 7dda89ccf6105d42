"""Parse the header of a prompt template, a comment of ``key: value`` lines; see ``Template`` for the keys."""

from __future__ import annotations

import json
import re

from genrec.errors import PromptError

_QUOTED = (
    "lead", "terminator", "opening", "link", "unlisted", "words", "empty", "passing", "plain", "none",
    "silent", "earlier",
)  # fmt: skip
_KEYS = ("for", "language", "form", "targets", "events", "most", "answers", *_QUOTED)


def parse_header(name: str, source: str) -> dict[str, str]:
    """Parse the header of a template, if the template begins with a comment.

    Args:
        name: the template's name, for messages.
        source: the source of the template.

    Returns:
        The header's values, keyed by name; empty if there is no header.

    Raises:
        PromptError: a line or a value is invalid.
    """
    comment = re.match(r"\{#-?\n(.*?)-?#\}", source, re.DOTALL)
    header: dict[str, str] = {}
    for line in comment[1].splitlines() if comment else []:
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not colon or key not in _KEYS:
            msg = (
                f"The header of template {name!r} has the line {line.strip()!r}. Expected "
                f"'key: value' with one of these keys: {', '.join(_KEYS)}."
            )
            raise PromptError(msg)
        header[key] = _parse_quoted(name, key, value) if key in _QUOTED else value
    if not header.get("terminator", "\n"):
        msg = f"Template {name!r} has an empty terminator. Expected text that ends every title."
        raise PromptError(msg)
    if header.get("form", "plain") not in {"plain", "chat"}:
        msg = f"Template {name!r} has 'form: {header['form']}'. Expected 'plain' or 'chat'."
        raise PromptError(msg)
    if header.get("targets", "every") not in {"every", "last"}:
        msg = f"Template {name!r} has 'targets: {header['targets']}'. Expected 'every' or 'last'."
        raise PromptError(msg)
    if header.get("events", "joined") not in {"separable", "joined"}:
        msg = (
            f"Template {name!r} has 'events: {header['events']}'. Expected 'separable' or 'joined'."
        )
        raise PromptError(msg)
    if "answers" in header:
        parse_answers(name, header["answers"])
    return header


def parse_answers(name: str, value: str) -> tuple[str, str]:
    """Parse the words for yes and no from a header value such as ``" yes", " no"``."""
    try:
        answers = json.loads(f"[{value}]")
    except ValueError:
        answers = None
    match answers:
        case [str(yes), str(no)] if yes and no:
            return yes, no
    msg = (
        f"Template {name!r} has 'answers: {value}'. Expected two quoted strings, with the one for "
        'yes first, such as " yes", " no".'
    )
    raise PromptError(msg)


def _parse_quoted(name: str, key: str, value: str) -> str:
    """Parse a header value that is written in double quotes."""
    try:
        text = json.loads(value)
    except ValueError:
        text = None
    if not isinstance(text, str):
        msg = (
            f"Template {name!r} has '{key}: {value}'. Expected text in double quotes, such as "
            '"\\n".'
        )
        raise PromptError(msg)
    return text
