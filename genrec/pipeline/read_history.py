"""Read a history in any form that a caller may give, without personal data in its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from genrec.data.events import History, Interaction
from genrec.data.redaction import Redactor
from genrec.matching.history_notes import not_a_history
from genrec.matching.history_parser import Understood

HistoryLike = History | str | Iterable[str | int | Interaction]
Read = tuple[History, tuple[Understood, ...]]
Parse = Callable[[str | list[str]], tuple[History, Sequence[Understood]]]


def read_history(history: HistoryLike, parse: Parse, redactor: Redactor | None) -> Read:
    """Read a history, and replace personal data in the texts of its events.

    Args:
        history: events, ids or titles of items, or a text. The history of a named user counts as
            stored, and is taken as it is.
        parse: reads a text, or the pieces of one.
        redactor: what replaces personal data; None to leave texts as they are.

    Returns:
        The history, and what was understood of each piece of a text.

    Raises:
        RequestError: the history has another form.
    """
    if isinstance(history, History) and history.user_id is not None:
        return history, ()
    read, understood = _read(history, parse)
    if redactor is None:
        return read, tuple(understood)
    clean = (replace(u, note=redactor.redact(u.note)) if u.note else u for u in understood)
    return redactor.history(read), tuple(clean)


def _read(history: HistoryLike, parse: Parse) -> tuple[History, Sequence[Understood]]:
    if isinstance(history, History):
        return history, ()
    kind: object = history  # checked for callers without a type checker
    if isinstance(kind, bytes | Mapping):
        raise not_a_history(history)
    if isinstance(history, str):
        return parse(history)
    try:
        given = list(history)
    except TypeError:
        raise not_a_history(history) from None
    events = [h for h in given if isinstance(h, Interaction)]
    if given and len(events) == len(given):
        return History(tuple(events)), ()
    pieces = []
    for piece in given:
        if not isinstance(piece, str | int | np.integer) or isinstance(piece, bool):
            raise not_a_history(piece)
        pieces.append(str(piece))
    return parse(pieces)
