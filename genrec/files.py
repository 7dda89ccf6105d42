"""Folders written in one piece: filled beside their place, then put into it. Knows files only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def write(place: Path, fill: Callable[[Path], None]) -> None:
    """Fills a new folder and puts it in a place, in which there may be an old one.

    What fails leaves the old one as it was. A process that dies leaves the old one, the new one,
    or a hidden folder beside them.

    Args:
        place: where it is to be.
        fill: writes files into the folder that it is given.

    Raises:
        OSError: a folder cannot be made or moved; or what ``fill`` raises.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        fill(work)
        work.chmod(0o755)
        _swap(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    """Puts a finished folder in its place; an old one is moved aside first and then removed."""
    if not place.exists():
        new.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}-old-", dir=place.parent))
    try:
        place.rename(old / "old")
        try:
            new.rename(place)
        except BaseException:
            (old / "old").rename(place)
            raise
    finally:
        if place.exists():  # else the old one could not be put back, and this is the only copy
            shutil.rmtree(old, ignore_errors=True)
