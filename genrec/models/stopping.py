"""Let a caller stop a model between two forward passes, as when nobody waits for the answer any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")
_STOPS: ContextVar[Callable[[], bool] | None] = ContextVar("_STOPS", default=None)


class StoppedError(BaseException):
    """Raised before a forward pass that nobody waits for.

    It is not an ``Exception``, so code that goes on after an error does not go on after this.
    """


@contextmanager
def stop_when(stops: Callable[[], bool]) -> Iterator[None]:
    """Stop every model that this thread uses in the block before its next forward pass.

    Args:
        stops: a function that returns True to stop. It is called before each forward pass, which
            takes milliseconds, so it should be fast.
    """
    token = _STOPS.set(stops)
    try:
        yield
    finally:
        _STOPS.reset(token)


def stoppable(values: Iterable[Value]) -> Iterator[Value]:
    """Yield values, and check before each of them whether to stop, for long work between forward passes.

    Raises:
        StoppedError: nobody waits for the result any more.
    """
    for value in values:
        check_stop()
        yield value


def check_stop() -> None:
    """Raise ``StoppedError`` if the model should not go on."""
    stops = _STOPS.get()
    if stops is not None and stops():
        raise StoppedError
