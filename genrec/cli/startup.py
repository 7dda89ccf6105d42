"""Make commands start faster, by settings that suit a short process that is not shared with others."""

from __future__ import annotations

import gc
import sys
from importlib.abc import MetaPathFinder

_OBJECTS = 100_000  # new objects after which the garbage collector looks for cycles


def collect_rarely() -> None:
    """Let the garbage collector run less often.

    Importing large libraries makes so many objects that collecting takes a sixth of the time.
    """
    gc.set_threshold(_OBJECTS, 20, 20)


class _NoPandas(MetaPathFinder):
    """Reports that pandas is not installed."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise ModuleNotFoundError for pandas, and leave all other modules to the usual finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


def decline_pandas() -> None:
    """Keep pyarrow from importing pandas, which takes a third of a second.

    With its first array, pyarrow imports pandas to recognize pandas objects. The commands have none.
    If something asks pyarrow for such an object later, pyarrow imports pandas after all.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)
