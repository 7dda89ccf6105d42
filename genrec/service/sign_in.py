"""Remember who has signed in to the page with a key, so that no cookie needs to hold the key.

The cookie holds a random session id. Only the hash of the key is kept, in memory, so a restart signs
everyone out. Each sign-in has a token that a page must send with requests that change something. A
page of another site can neither read it nor send it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

COOKIE = "genrec_session"
TOKEN_HEADER = "x-csrf-token"
_IDLE = 12 * 3600.0  # seconds without a request after which a sign-in ends
_MOST = 1000  # sign-ins that are remembered; the one that has been idle longest is forgotten first


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in with a key.

    Attributes:
        digest: the hash of the key; see ``security.Key``.
        token: the token for requests that change something.
        used: when it was last used, by ``time.monotonic``.
    """

    digest: str
    token: str
    used: float

    def has_token(self, headers: Mapping[str, str]) -> bool:
        """Return True if the headers of a request contain the token."""
        given = headers.get(TOKEN_HEADER, "").encode("utf-8", "replace")
        return hmac.compare_digest(self.token.encode(), given)


class SignIns:
    """All sign-ins, keyed by the hash of the session id."""

    def __init__(self) -> None:
        """Start without any sign-in."""
        self._known: dict[str, SignIn] = {}
        self._changing = threading.Lock()

    def open(self, digest: str) -> tuple[str, SignIn]:
        """Remember a sign-in.

        Args:
            digest: the hash of the key.

        Returns:
            The session id, which is a secret, and the sign-in.
        """
        session_id = secrets.token_urlsafe(32)
        made = SignIn(digest, secrets.token_urlsafe(32), time.monotonic())
        with self._changing:
            while len(self._known) >= _MOST:
                del self._known[min(self._known, key=lambda one: self._known[one].used)]
            self._known[_hash(session_id)] = made
        return session_id, made

    def find(self, headers: Mapping[str, str]) -> SignIn | None:
        """Find the sign-in whose cookie a request carries; None if there is none or it has ended."""
        session_id = _cookie(headers)
        if not session_id:
            return None
        place, now = _hash(session_id), time.monotonic()
        with self._changing:
            found = self._known.get(place)
            if found is None:
                return None
            if now - found.used > _IDLE:
                del self._known[place]
                return None
            self._known[place] = replace(found, used=now)
        return found

    def close(self, headers: Mapping[str, str]) -> None:
        """End the sign-in whose cookie a request carries."""
        with self._changing:
            self._known.pop(_hash(_cookie(headers)), None)


def has_cookie(headers: Mapping[str, str]) -> bool:
    """Return True if a request carries the cookie of a sign-in."""
    return bool(_cookie(headers))


def make_cookie(session_id: str, *, secure: bool) -> str:
    """Return the value of ``Set-Cookie`` for a session id; an empty one removes the cookie.

    Args:
        session_id: the session id.
        secure: True if the page was called over HTTPS.
    """
    parts = [f"{COOKIE}={session_id}", "Path=/", "HttpOnly", "SameSite=Strict"]
    parts += ["Secure"] if secure else []
    parts += [] if session_id else ["Max-Age=0"]
    return "; ".join(parts)


def _cookie(headers: Mapping[str, str]) -> str:
    """Return the session id in the header ``Cookie``, or an empty string."""
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()
