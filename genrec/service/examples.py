"""Give an example of each request, for the OpenAPI document. A test sends all of them.

The ids and titles are those of the bundled shop. ``fitted`` puts those of another catalog in their
place.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

USER, ITEM, OTHER, TITLE = "12493", "22720", "21977", "RED RETROSPOT MUG"

_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "recommend": {
        "for a user": {"user_id": USER, "k": 5},
        "for typed text": {"history": f"bought: {TITLE}", "k": 5, "per_title": 1},
        "for events": {"history": [{"item_id": ITEM, "behavior": "buy"}], "k": 3, "deny": [OTHER]},
        "in a context": {
            "user_id": USER,
            "k": 3,
            "context": {"season": "winter"},
            "note": "a present for a child",
        },
        "in words": {"user_id": USER, "k": 3, "query": "something for a picnic, not plastic"},
        "a random draw": {"user_id": USER, "k": 3, "search": "sample"},
        "new and again": {"user_id": USER, "k": 3, "shows": ["new", "again"]},
        "for a new user": {"history": "", "k": 3, "boosts": {f'item_id == "{ITEM}"': 2.0}},
    },
    "batch": {"two users": {"requests": [{"user_id": USER, "k": 2}, {"history": "", "k": 2}]}},
    "session": {
        "nothing is kept": {"history": [{"item_id": ITEM, "behavior": "buy"}], "k": 3},
        "kept": {"history": [{"item_id": ITEM, "behavior": "buy"}], "k": 3, "keep": True},
    },
    "rank": {"two items": {"user_id": USER, "candidates": [ITEM, OTHER]}},
    "search": {
        "words": {"query": TITLE, "user_id": USER, "k": 3},
        "conditions": {"query": "something for a picnic, not plastic", "understand": True, "k": 3},
    },
    "chat": {
        "one turn": {"turns": [{"text": "something for a picnic, not plastic"}], "k": 3},
        "a second turn": {
            "user_id": USER,
            "k": 3,
            "turns": [
                {"text": "a mug"},
                {"text": "Here are 2 items.", "items": [ITEM, OTHER], "mine": False},
                {"text": "not the first one"},
            ],
        },
    },
    "similar": {"one item": {"items": [ITEM], "k": 3}},
    "explain": {"one item": {"user_id": USER, "item_id": ITEM, "k": 3}},
    "prompt": {"for a user": {"user_id": USER}},
    "feedback": {
        "one event": {"user_id": "new-user", "item_id": ITEM, "behavior": "buy"},
        "several": {
            "events": [
                {"user_id": "new-user", "item_id": ITEM, "behavior": "view", "timestamp": 1.7e9},
                {"user_id": "new-user", "item_id": OTHER, "behavior": "buy", "value": 2},
            ]
        },
    },
    "put labels": {"a country and a tier": {"labels": {"country": "GB", "tier": 2}}},
    "patch labels": {"another tier": {"labels": {"tier": 3}}},
    "put profile": {"tea, but no candles": {"added": ["tea"], "banned": ["candle"]}},
    "patch profile": {"candles again": {"banned": []}},
    "neighbors": {"for a user": {"user_id": USER, "k": 5}},
    "put item": {"a new item": {"title": "GLASS VASE BLUE", "attributes": {"price": 4.5}}},
    "patch item": {"a new price": {"attributes": {"price": 3.95}}},
    "edit items": {
        "two at once": {
            "put": [
                {"item_id": "vase-1", "title": "GLASS VASE BLUE"},
                {"item_id": "vase-2", "title": "GLASS VASE RED"},
            ],
            "remove": [],
        }
    },
    "scenario": {"a home page": {"k": 12, "show": "new", "diversity": 0.2}},
    "blocks": {"an item and a word": {"item_ids": [OTHER], "conditions": [], "phrases": ["knife"]}},
    "experiment": {
        "the model against counting": {
            "arms": [
                {"name": "counts", "model_role": "explain"},
                {"name": "model", "weight": 1.0},
            ],
            "behaviors": ["buy", "view"],
        },
    },
    "default": {"a model": {"name": "default"}},
}


def of(name: str) -> dict[str, Any]:
    """Return the examples of a request in the form of OpenAPI."""
    return {
        title.replace(" ", "_"): {"summary": title, "value": v}
        for title, v in _EXAMPLES[name].items()
    }


def body(name: str) -> dict[str, Any]:
    """Return the entry of a route in OpenAPI that shows the examples of its request."""
    return {"requestBody": {"content": {"application/json": {"examples": of(name)}}}}


def fitted(value: Any, words: Mapping[str, str]) -> Any:
    """Return an example in which ids and titles are replaced.

    Args:
        value: the example.
        words: maps the constants of this module to what stands in their place.
    """
    if isinstance(value, str):
        for old, new in words.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {fitted(k, words): fitted(v, words) for k, v in value.items()}
    if isinstance(value, list):
        return [fitted(v, words) for v in value]
    return copy.copy(value)
