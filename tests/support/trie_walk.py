"""Walks through a trie."""

from __future__ import annotations

from typing import Any

import numpy as np

from genrec.decoding.trie import TitleTrie

END = 0


def walk(trie: TitleTrie, node: int = 0) -> dict[Any, Any]:
    """Return the tree as nested dicts with one token per level."""
    children = trie.children(np.array([node]))[0]
    if not len(children):
        return {None: trie.rows(node).tolist()}
    found: dict[Any, Any] = {}
    for child, run in zip(children.tolist(), trie.runs(children), strict=True):
        below = walk(trie, child)
        for token in reversed(run[1:]):
            below = {token: below}
        found[run[0]] = below
    return found
