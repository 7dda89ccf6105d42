"""Remember an id without keeping it, by a keyed hash.

A pseudonym shows whether a known id is the one that was remembered. Without a list of ids to try, it
cannot be turned back into one.
"""

from __future__ import annotations

import hashlib
import hmac

_PREFIX = "sha256:"


def pseudonym(given: str, salt: str) -> str:
    """Return the pseudonym of an id: its HMAC with SHA-256.

    Args:
        given: the id. A pseudonym is returned as it is.
        salt: the key of the hash, which differs between databases.

    >>> pseudonym("ann", "0")[:19]
    'sha256:c19b3b12082f'
    """
    if is_pseudonym(given):
        return given
    text = given.encode("utf-8", "surrogatepass")
    return _PREFIX + hmac.new(salt.encode(), text, hashlib.sha256).hexdigest()


def is_pseudonym(given: str) -> bool:
    """Return True if a text has the form of a pseudonym.

    >>> is_pseudonym("ann"), is_pseudonym("sha256:" + 64 * "0")
    (False, True)
    """
    rest = given.removeprefix(_PREFIX)
    return len(rest) == 64 and rest != given and not set(rest) - set("0123456789abcdef")
