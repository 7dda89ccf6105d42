"""Write notes that tell the user which parts of a typed history were not understood."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence

from genrec.errors import RequestError
from genrec.matching.history_parser import DESCRIBED, Understood


def describe_gaps(understood: Sequence[Understood]) -> tuple[str, ...]:
    """Write notes for the user about the pieces of a typed history that were not understood.

    Args:
        understood: the interpretation of every piece of the history.

    Returns:
        One note about the whole history, and one note about each of the first pieces that matched
        no title. The result is empty if every piece was understood.
    """
    unknown = [u for u in understood if u.match == "none"]
    if not unknown:
        return ()
    parts = f"{len(unknown)} of {len(understood)} parts"
    notes = [
        "Nothing in the typed history was understood, so the recommendations are those for a new "
        "user."
        if len(unknown) == len(understood)
        else f"{parts} of the typed history {'was' if len(unknown) == 1 else 'were'} not "
        "understood and therefore ignored."
    ]
    for piece in unknown[:DESCRIBED]:
        such = ", ".join(map(repr, piece.suggestions))
        similar = f" Similar titles: {such}." if such else ""
        notes.append(f"No item matches {piece.text!r:.200}.{similar}")
    if len(unknown) > DESCRIBED:
        notes.append(f"The same is true of {len(unknown) - DESCRIBED:,} more parts.")
    return tuple(notes)


def describe_users(understood: Sequence[Understood], users: Container[str]) -> tuple[str, ...]:
    """Write a note about each piece of a typed history that is a user id rather than an item id.

    Args:
        understood: the interpretation of every piece of the history.
        users: the ids of all users.
    """
    texts = dict.fromkeys(piece.text.strip() for piece in understood if piece.match != "id")
    return tuple(
        f"{text!r} is the id of a user, but was read as part of a typed history. To recommend for "
        f"this user, pass --user {shlex.quote(text)}, or recommender.history({text!r}) in Python."
        for text in list(texts)[:DESCRIBED]
        if text and text in users
    )


def not_a_history(given: object) -> RequestError:
    """Return the error for something that is not a history."""
    return RequestError(
        f"{given!r:.80} ({type(given).__name__}) is not a history. Expected text such as "
        '"bought: TITLE; viewed: TITLE", a list of item ids or titles, a list of Interaction, or a '
        "History."
    )
