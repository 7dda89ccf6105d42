"""Check API keys, and limit how often each of them is used.

A key is 32 random bytes, so its plain SHA-256 hash cannot be inverted, and only the hash is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from genrec.errors import SettingsError
from genrec.files import write_text
from genrec.service.problems import Problem
from genrec.service.rates import RateLimit
from genrec.service.shared import Shared
from genrec.service.sign_in import SignIn, SignIns

READ, FEEDBACK, ADMIN = SCOPES = ("read", "feedback", "admin")
_PREFIX = "genrec_"
EVERYONE = "everyone"  # the name under which requests without keys are counted


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a client may use.

    Attributes:
        name: says who uses the key; it appears in the log.
        digest: the SHA-256 hash of the key in hexadecimal form.
        scopes: what the key allows. ``admin`` includes the others.
    """

    name: str
    digest: str
    scopes: tuple[str, ...]

    def allows(self, scope: str) -> bool:
        """Return True if the key allows requests of a scope."""
        return scope in self.scopes or ADMIN in self.scopes


def new_key(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Create a key, add its hash to a file, and return the key.

    Args:
        path: the file, which is created if it is missing.
        name: the name of the key; an existing key of this name is replaced.
        scopes: what the key allows.

    Raises:
        SettingsError: a scope is unknown, or the file is not a file of keys.
    """
    if not scopes or (unknown := [s for s in scopes if s not in SCOPES]):
        given = ", ".join(map(repr, unknown)) if scopes else "none"
        msg = f"The scopes are {given}. Expected one or more of: {', '.join(SCOPES)}."
        raise SettingsError(msg)
    key = _PREFIX + secrets.token_urlsafe(32)
    kept = [k for k in (read_keys(path) if path.exists() else ()) if k.name != name]
    entries = [asdict(k) for k in [*kept, Key(name, _digest(key), tuple(scopes))]]
    write_text(path, json.dumps({"keys": entries}, indent=2) + "\n")
    path.chmod(0o600)
    return key


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read the keys of a file.

    Raises:
        SettingsError: the file cannot be read, or is not a file of keys.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys = [Key(str(e["name"]), str(e["digest"]), tuple(e["scopes"])) for e in entries]
        if not all(set(k.scopes) <= set(SCOPES) and len(k.digest) == 64 for k in keys):
            raise ValueError("a key has an unknown scope or no hash")
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as a file of keys ({error}). Create one with `genrec key`."
        raise SettingsError(msg) from error
    return tuple(keys)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Decides whether a request may be answered.

    Attributes:
        keys: the keys; empty if none is needed.
        sign_ins: those who have signed in to the page with a key.
        shared: the numbers in which several processes count requests; None if there is one process.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        *,
        rate: str | None = None,
        hosts: Sequence[str] = (),
        shared: Shared | None = None,
    ) -> None:
        """Store the keys and the limits.

        Args:
            keys: the keys; if empty, every client may do everything.
            rate: how many requests a key may send, such as ``600/minute``; None for no limit.
            hosts: names by which clients may call the service; empty for any. Without keys, this
                keeps web pages from reaching a service on this machine by another name.
            shared: the numbers in which several processes count requests; None to count in this one.

        Raises:
            SettingsError: the rate is not valid.
        """
        self.keys, self._hosts = tuple(keys), frozenset(h.lower() for h in hosts)
        self.sign_ins = SignIns()
        self.shared = shared
        self._limit = None if rate is None else RateLimit(rate, shared)

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Check the name under which the client called, and the page that it comes from.

        Raises:
            Problem: the name is not one of this service, or a page of another site sent the request.
        """
        host = headers.get("host", "")
        if self._hosts and _bare(host) not in self._hosts:
            msg = f"This service is not called {_bare(host)[:100]!r}. Use its own address."
            raise Problem(421, msg)
        origin = headers.get("origin")
        if not self.keys and origin is not None and origin.partition("://")[2] != host:
            msg = "Pages of other sites may not use this service. Call it from your server with a key."
            raise Problem(403, msg)

    def check(self, headers: Mapping[str, str], scope: str, *, method: str = "GET") -> Key | None:
        """Check the key of a request, and count the request.

        Args:
            headers: the headers of the request, with the key or with the cookie of a sign-in.
            scope: the scope that the request needs.
            method: the method of the request. With a cookie, all but GET and HEAD need the token.

        Returns:
            The key, or None if none is needed.

        Raises:
            Problem: the key or the token is missing, unknown or not sufficient, or the key was used
                too often.
        """
        key: Key | None = None
        if self.keys:
            key = self._key_of(headers, method)
            if not key.allows(scope):
                msg = f"The key {key.name!r} does not have the scope {scope!r} that this needs."
                raise Problem(403, msg)
        self._count(EVERYONE if key is None else key.name)
        return key

    def sign_in(self, given: str) -> tuple[str, SignIn, Key]:
        """Sign in with a key, and count the request.

        Returns:
            The session id for the cookie, the sign-in and the key.

        Raises:
            Problem: no key is needed, the key is unknown, or there were too many requests.
        """
        if not self.keys:
            raise Problem(409, "This service needs no keys, so there is nothing to sign in to.")
        self._count(EVERYONE)
        key = self._find(given.strip())
        if key is None:
            raise Problem(401, "This is not a key of this service. Check it, or ask for a new one.")
        session_id, made = self.sign_ins.open(key.digest)
        return session_id, made, key

    def signed_in(self, headers: Mapping[str, str]) -> tuple[SignIn, Key] | None:
        """Return the sign-in whose cookie a request carries, and its key; None if there is none."""
        found = self.sign_ins.find(headers)
        key = next((k for k in self.keys if found is not None and k.digest == found.digest), None)
        return None if found is None or key is None else (found, key)

    def _key_of(self, headers: Mapping[str, str], method: str) -> Key:
        """Return the key in the header, or else the key of the sign-in."""
        authorization = headers.get("authorization")
        if authorization is not None:
            kind, _, given = authorization.partition(" ")
            key = self._find(given.strip()) if kind.lower() == "bearer" else None
            if key is not None:
                return key
        elif (found := self.signed_in(headers)) is not None:
            signed, key = found
            if method not in {"GET", "HEAD"} and not signed.has_token(headers):
                msg = "With a cookie, this needs the header X-CSRF-Token, which GET /session gives."
                raise Problem(403, msg)
            return key
        msg = "Expected the header `Authorization: Bearer KEY` with a key of this service."
        raise Problem(401, msg, headers={"WWW-Authenticate": "Bearer"})

    def _count(self, name: str) -> None:
        """Count a request of a key.

        Raises:
            Problem: the key was used too often.
        """
        if self._limit is not None and (wait := self._limit.hit(name)):
            seconds = str(math.ceil(wait))
            msg = f"The key {name!r} may send {self._limit}. Try again in {seconds} seconds."
            raise Problem(429, msg, headers={"Retry-After": seconds})

    def _find(self, given: str) -> Key | None:
        """Find a key in a time that does not depend on which key it is."""
        digest, found = _digest(given), None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def _bare(host: str) -> str:
    """Return a host name without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.partition(":")[0].lower()
