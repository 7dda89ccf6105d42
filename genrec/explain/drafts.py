"""Let a caller see sentences while a model writes them.

What is seen are drafts. A sentence is checked only when it is complete, and one that fails the check
is written again, so the final sentence may be another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from genrec.explain.claims import SPACELESS
from genrec.text import script


@dataclass(frozen=True, slots=True)
class Draft:
    """A sentence that is being written, or that has just been checked.

    Attributes:
        text: the sentence so far, which ends with a whole word.
        attempt: 1 while the model writes freely, and 2 if it may only use listed words, after the first
            attempt was rejected.
        checked: True for the sentence that passed the check or comes from the template. It does not
            change any more.
        rejected: why this attempt was rejected; None if it was not.
    """

    text: str
    attempt: int = 1
    checked: bool = False
    rejected: str | None = None


Listener = Callable[[Draft], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("_LISTENER", default=None)


@contextmanager
def listen(listener: Listener | None) -> Iterator[None]:
    """Call a function with each draft of a sentence that this thread writes in the block.

    Args:
        listener: the function; None for none. It hears nothing twice in a row, and is called between two forward passes of the model, so
            it should be fast. If several sentences are written together, it hears of none of them.
    """
    last: Draft | None = None

    def once(draft: Draft) -> None:
        nonlocal last
        if listener is not None and draft != last:
            last = draft
            listener(draft)

    token = _LISTENER.set(None if listener is None else once)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def is_heard() -> bool:
    """Return True if somebody listens."""
    return _LISTENER.get() is not None


def tell(draft: Draft) -> None:
    """Pass a draft on to the listener, if there is one."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(draft)


def whole_words(text: str) -> str:
    """Return the beginning of an unfinished text that ends with a whole word.

    >>> whole_words("A mug that goes wi")
    'A mug that goes'
    """
    text = text.rstrip("\ufffd")
    if not text or script(text[-1]) in SPACELESS:
        return text
    return text.rpartition(" ")[0]
