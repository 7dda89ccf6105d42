"""Make commands start faster with settings that suit a short-lived process."""

from __future__ import annotations

import gc
import sys
from importlib.abc import MetaPathFinder

_OBJECTS = 100_000  # new objects after which the garbage collector looks for cycles


def collect_rarely() -> None:
    """Make the garbage collector run less often.

    Importing large libraries creates so many objects that garbage collection takes a sixth of the
    time.
    """
    gc.set_threshold(_OBJECTS, 20, 20)


class _NoPandas(MetaPathFinder):
    """An import hook that reports pandas as not installed."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise ModuleNotFoundError for pandas, and leave all other modules to the usual finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


def decline_pandas() -> None:
    """Keep pyarrow from importing pandas, which takes a third of a second.

    When pyarrow creates its first array, it imports pandas to recognize pandas objects, which the
    commands do not use. If a pandas object is requested from pyarrow later, pyarrow still imports
    pandas.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)
