"""Find the places at which a prompt can be cut into its events.

With ``attention="by_event"``, the model reads each event by itself. This module finds the lines of
each event in a rendered prompt. It deals with texts only, not with tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genrec.prompts.segments import TARGET_ROW, EventText, Prompt, TitleObject

_BREAK = "\n"


def separate_events(
    prompt: Prompt, printed: Sequence[Any]
) -> tuple[tuple[tuple[int, int], ...], tuple[bool, ...]] | None:
    """Find where each event of a prompt begins and where the last one ends.

    An event begins at the start of a line and reaches to the beginning of the next event. The last
    one ends with the line on which its last title, verb, text or value stands.

    Args:
        prompt: the prompt.
        printed: the strings, titles and other values that the template has printed, in order.

    Returns:
        The values of ``cuts`` and ``free`` of the prompt; None if two events share a line, if the
        events are not in the order of the history, or if a cut would be inside of a title.
    """
    whole, spans, free = _locate(printed)
    if not spans:
        return (), ()
    places: list[int] = []
    before = 0
    for _, (first, last) in sorted(spans.items()):
        start = whole.rfind(_BREAK, before, max(first, before)) + 1
        if first < before or (not start and places):
            return None
        places.append(start)
        before = last
    end = whole.find(_BREAK, before) + 1
    if not end:
        return None
    places.append(end)
    cuts = _to_segments(prompt, places)
    if cuts is None:
        return None
    parts = zip([0, *places[:-1]], places, strict=True)
    written = [any(a <= place < b for place in free) for a, b in parts]
    return cuts, tuple(written)


def _locate(printed: Sequence[Any]) -> tuple[str, dict[int, tuple[int, int]], list[int]]:
    """Find the text of each event.

    Returns:
        The whole text before the target; for each event, the places of its first character and
        after its last one; and the places at which texts begin that users have written.
    """
    whole = ""
    spans: dict[int, tuple[int, int]] = {}
    free: list[int] = []
    for part in printed:
        if isinstance(part, TitleObject) and part.row == TARGET_ROW:
            break
        text = part.text if isinstance(part, TitleObject) else str(part)
        if isinstance(part, TitleObject | EventText):
            if part.event is not None:
                first, _ = spans.get(part.event, (len(whole), 0))
                spans[part.event] = first, len(whole) + len(text)
            if isinstance(part, EventText) and part.free and text:
                free.append(len(whole))
        whole += text
    return whole, spans, free


def _to_segments(prompt: Prompt, places: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
    """Convert places in the whole text to segments and the characters before the place in them.

    Returns:
        The pairs, or None if a place is inside of a title.
    """
    around = len(prompt.lead) + len(prompt.terminator)
    cuts: list[tuple[int, int]] = []
    start, remaining = 0, list(places)
    for index, segment in enumerate(prompt.segments):
        size = len(segment.text) + (0 if segment.row is None else around)
        while remaining and remaining[0] < start + size:
            offset = remaining.pop(0) - start
            if offset and segment.row is not None:
                return None
            cuts.append((index, offset))
        start += size
    if any(place != start for place in remaining):  # the last lead is not part of the segments
        return None
    return (*cuts, *((len(prompt.segments), 0) for _ in remaining))
