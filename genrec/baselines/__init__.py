"""Provide baselines for comparison: recommenders that use no language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.baselines.registry import NAMES as NAMES
    from genrec.baselines.registry import fit as fit

__all__ = ["NAMES", "fit"]


def __getattr__(name: str) -> Any:
    """Import a public name of the package when it is first used."""
    if name in __all__:
        from genrec.baselines import registry

        return getattr(registry, name)
    msg = f"module 'genrec.baselines' has no attribute {name!r}"
    raise AttributeError(msg)
