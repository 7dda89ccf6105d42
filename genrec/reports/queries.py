"""Describe what was understood of a query, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PARTS = {
    "match": "the match with the titles",
    "unwanted": "the likeness to what is not wanted",
    "prior": "the prior",
    "model": "the model",
}


def describe_query(query: Mapping[str, Any]) -> list[str]:
    """Describe the field ``query`` of a list in sentences.

    >>> describe_query({"wanted": "a mug", "unwanted": ["plastic"], "where": "price < 5",
    ...     "conditions": [{"text": "under 5"}], "questions": [], "parts": ["match"]})
    ['Understood: "a mug", not "plastic", under 5 (price < 5).', 'Ranked by the match with the titles.']
    """
    said = [f'"{query["wanted"]}"'] if query["wanted"] else []
    said += [f'not "{each}"' for each in query["unwanted"]]
    if query["conditions"]:
        conditions = ", ".join(c["text"] for c in query["conditions"])
        said.append(f"{conditions} ({query['where']})")
    lines = [f"Understood: {', '.join(said)}."] if said else []
    lines += [each["question"] for each in query["questions"]]
    parts = [_PARTS[part] for part in query["parts"]]
    if parts:
        *most, last = parts
        lines.append(f"Ranked by {', '.join(most)}{' and ' if most else ''}{last}.")
    return lines
