"""Locate the events of a history in the text of a prompt."""

from __future__ import annotations

from genrec.explain.evidence import Change, Question


def locate_events(question: Question) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Render the prompt, and locate each event in its text.

    The location of an event is the piece of text that disappears when the event is left out. It is
    empty if leaving out the event also changes other parts of the prompt.

    Returns:
        The text, and the character positions (start, end) of each event.
    """
    whole = question.render(question.window).text
    spans: list[tuple[int, int]] = []
    end = 0
    for index in range(question.events):
        rest = question.render(question.changed(Change((index,)))[0]).text
        size = len(whole) - len(rest)
        candidates = range(end, len(rest) + 1) if size > 0 else ()
        starts = [a for a in candidates if whole[:a] + whole[a + size :] == rest]
        start = next((a for a in starts if whole[a - 1 : a] == "\n"), starts[0] if starts else end)
        end = start + size if starts else end
        spans.append((start, end))
    return whole, tuple(spans)
