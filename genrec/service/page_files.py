"""Read the files of the page once, and give them an address that changes with their content.

Only the files that were read can be asked for, so no path leads anywhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genrec.errors import SettingsError

FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"
_KINDS = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})+(:[1-9][0-9]{{0,4}})?")


@dataclass(frozen=True, slots=True)
class PageFiles:
    """The files of the page.

    Attributes:
        index: the page itself, which names the other files by their address.
        version: a hash of all other files, which is part of their address.
        files: the content and the media type of each other file, keyed by its name.
    """

    index: str
    version: str
    files: dict[str, tuple[bytes, str]]


@cache
def page_files() -> PageFiles:
    """Read all files of the page."""
    found = {
        path.relative_to(FOLDER).as_posix(): (path.read_bytes(), _KINDS[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in _KINDS
    }
    digest = hashlib.sha256()
    for name, (content, _) in found.items():
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    version = digest.hexdigest()[:16]
    scripts = "".join(
        f'<link rel="modulepreload" href="/page/{version}/{name}">\n'
        for name in found
        if name.endswith(".js") and name != "vendor/uplot.js"
    )
    text = (FOLDER / _INDEX).read_text(encoding="utf-8")
    index = text.replace("{modules}", scripts).replace("{version}", version)
    return PageFiles(index, version, found)


def read_hosts(text: str | None) -> tuple[str, ...]:
    """Read the names of hosts that a browser may load pictures from.

    Args:
        text: names with commas between them, such as ``cdn.example.com,*.shop.example``; None for
            none.

    Raises:
        SettingsError: one of them is not a name of a host.
    """
    hosts = [one.strip().lower() for one in (text or "").split(",") if one.strip()]
    for host in hosts:
        if _HOST.fullmatch(host) is None or len(host) > 253:
            msg = (
                f"image_hosts={host[:100]!r} is not valid. Expected names of hosts without https:// "
                "and without a path, such as cdn.example.com or *.shop.example."
            )
            raise SettingsError(msg)
    return tuple(dict.fromkeys(hosts))


def policy_of(hosts: Sequence[str]) -> str:
    """Return the content security policy of the page.

    Args:
        hosts: the hosts that the browser may load pictures from, over HTTPS.
    """
    pictures = "".join(f" https://{host}" for host in hosts)
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{pictures}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
