"""Look up the names that shops, media sites and research datasets give to their columns.

The names are in ``column_names.json``. Some are listed in full, and others are composed of words
such as ``customer`` and ``id``. This module deals with names only, not with cells.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Container, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1 << 16)
def fold(name: str) -> str:
    """Reduce a column name to its letters and digits in lower case.

    A type after a colon, as in RecBole's files, is dropped.

    >>> fold("Customer ID"), fold("user_id:token"), fold("Lineitem sku"), fold("用户ID")
    ('customerid', 'userid', 'lineitemsku', '用户id')
    """
    text = unicodedata.normalize("NFKC", re.sub(r"(?i):(token|float)(_seq)?$", "", name)).casefold()
    plain = unicodedata.normalize("NFD", text)
    return "".join(c for c in plain if unicodedata.category(c)[0] in "LN")


def spellings(name: str) -> list[str]:
    """Return the folded name, and the folded name without parenthesized text and filler words.

    >>> spellings("Quantity (- Refund)"), spellings("Data do Pedido")
    (['quantityrefund', 'quantity'], ['datadopedido', 'datapedido'])
    """
    bare = re.sub(r"[(\[].*?[)\]]", " ", name)
    words = (w for w in re.split(r"[\W_]+", bare) if fold(w) not in known_words("fillers"))
    found = dict.fromkeys([fold(name), fold(bare), fold("".join(words))])
    return [one for one in found if one]


@cache
def known() -> dict[str, Any]:
    """Read the table of known names."""
    path = Path(__file__).with_name("column_names.json")
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


@cache
def known_words(*keys: str) -> frozenset[str]:
    """Return one of the lists in the table of known names as a set of folded names.

    Args:
        *keys: the keys that lead to the list in the table, such as ``looks_like`` and ``buy``.
    """
    names: Any = known()
    for key in keys:
        names = names[key]
    return frozenset(fold(name) for name in names)


def target_words() -> list[str]:
    """List the behaviors that mean a purchase, the most common first."""
    words: list[str] = known()["targets"]
    return words


@cache
def names_of(role: str) -> dict[str, int]:
    """Return the folded names for a role and their ranks; a lower rank takes precedence."""
    given = known()["roles"][role]
    names = [fold(n) for n in given["first"]]
    names += [n for n in _composed(role) if n not in _listed()]
    names += [fold(n) for n in given["last"]]
    ranks: dict[str, int] = {}
    for name in names:
        ranks.setdefault(name, len(ranks))
    return ranks


@cache
def _listed() -> frozenset[str]:
    """Return all known column names, in the form that ``fold`` gives them."""
    roles = known()["roles"].values()
    return frozenset(fold(n) for role in roles for n in (*role["first"], *role["last"]))


def _composed(role: str) -> list[str]:
    """Compose folded names for a role from single words and from pairs of words in either order."""
    given = known()["roles"][role]
    words = [fold(w) for w in given["words"]]
    endings, fronts = ([fold(w) for w in known()[key]] for key in ("endings", "fronts"))
    names = [w + e for w in words for e in endings] + [e + w for w in words for e in fronts] + words
    for first, second in given.get("pairs", ()):
        firsts = first if isinstance(first, list) else known()["roles"][first]["words"]
        pairs = [(fold(a), fold(b)) for a in firsts for b in second]
        names += [a + b for a, b in pairs] + [b + a for a, b in pairs]
    return names


class RoleNames(Container[str]):
    """The set of all column names that would be recognized as one of the given roles."""

    def __init__(self, roles: Sequence[str], columns: Mapping[str, str]) -> None:
        """Store the roles and the columns that the user mapped to them."""
        self.roles = [r for r in roles if r not in columns]
        self.given = {columns[r] for r in roles if r in columns}

    def __contains__(self, name: object) -> bool:
        text = str(name)
        roles = [r for r in self.roles if r in known()["roles"]]
        return (
            text in self.given
            or text in self.roles
            or any(one in names_of(role) for one in spellings(text) for role in roles)
        )
