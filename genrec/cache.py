"""Cache results that are slow to compute in a folder, so that later commands can read them.

Each result is a safetensors file that is stored with a description of everything it depends on. If
the data, the settings or the code change, so does the description, and the old result is no longer
found. Several processes may read and write at the same time. If the folder cannot be written,
nothing is stored, and a damaged file counts as missing. This module does not interpret the results.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.errors import DataError
from genrec.files import map_arrays, write_arrays
from genrec.version import __version__

FORMAT_VERSION = 1
KEPT = 8  # maximum number of results of one kind
_ABOUT = "about"  # the entry of a file's metadata that holds the description


def find_user_folder() -> Path | None:
    """Return the folder for this user's cached files; None if the user has no home folder.

    It is ``$XDG_CACHE_HOME/genrec`` or ``~/.cache/genrec``.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "genrec"
    try:
        return Path.home() / ".cache" / "genrec"
    except RuntimeError:
        return None


def package_versions(*packages: str) -> list[str]:
    """Return the versions of packages, with "" for a package that is not installed."""
    found = []
    for package in packages:
        try:
            found.append(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found.append("")
    return found


@functools.cache
def digest_code(*packages: str) -> str:
    """Return a hash (SHA-256, hex) of the source code of packages and modules of genrec.

    Args:
        *packages: names relative to genrec's folder, such as ``priors`` or ``text.py``. If the
            source code is not installed, the hash depends only on genrec's version.
    """
    digest = hashlib.sha256(__version__.encode())
    for package in packages:
        place = Path(__file__).parent / package
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of cached results.

    Attributes:
        folder: the folder, which need not exist yet; None to cache nothing.
    """

    folder: Path | None

    def read(
        self, kind: str, about: Mapping[str, object]
    ) -> tuple[dict[str, Any], dict[str, str]] | None:
        """Map a result into memory.

        Args:
            kind: the kind of result, which is also the prefix of the file's name.
            about: everything that the result depends on, as values that JSON can represent.

        Returns:
            The read-only arrays, keyed by name, and the metadata that was stored with them. None if
            there is no such result.
        """
        text = _describe(about)
        path = self._path(kind, text)
        if path is None or not path.is_file():
            return None
        try:
            arrays, metadata = map_arrays(path)
        except (DataError, OSError):
            return None
        return (arrays, metadata) if metadata.pop(_ABOUT, None) == text else None

    def write(
        self,
        kind: str,
        about: Mapping[str, object],
        arrays: Mapping[str, Any],
        metadata: Mapping[str, str],
    ) -> None:
        """Store a result if the folder can be written; see ``read`` for the arguments.

        Only the ``KEPT`` most recently written results of each kind are kept.
        """
        text = _describe(about)
        path = self._path(kind, text)
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(path, arrays, {**metadata, _ABOUT: text})
            files = sorted(
                path.parent.glob(f"{kind}-*.safetensors"), key=lambda p: p.stat().st_mtime
            )
            for old in files[:-KEPT]:
                old.unlink(missing_ok=True)

    def _path(self, kind: str, text: str) -> Path | None:
        """Return the path of a result's file, given the description of the result as text."""
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return None if self.folder is None else self.folder / f"{kind}-{key}.safetensors"


def _describe(about: Mapping[str, object]) -> str:
    """Serialize a description as JSON text that includes the format version."""
    return json.dumps({**about, "format": FORMAT_VERSION}, sort_keys=True)
