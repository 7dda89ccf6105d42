"""Print a profile in the terminal, or as plain lines to a file or pipe."""

from __future__ import annotations

from genrec.reports.console import note, print_line, print_table
from genrec.taste.profile import Profile


def print_profile(profile: Profile, language: str) -> None:
    """Print a profile: its paragraph, and a table of the interests with their figures."""
    print_line(profile.text.get(language) or next(iter(profile.text.values()), ""))
    rows = []
    for one in profile.interests:
        nats = "" if one.nats is None else f"{one.nats:.3f}"
        events = f"{len(one.events)}" + (" (added)" if one.source == "added" else "")
        rows.append([one.keyword, events, f"{one.share:.1%}", f"{one.usual:.1%}", nats])
    if rows:
        print_line("")
        print_table(["interest", "events", "share", "usual", "nats"], rows, right=(1, 2, 3, 4))
    if profile.measured is not None and profile.interests:
        note(
            "share is weighted by recency, usual is the share of all events. nats is the drop of the "
            "logarithm of the probability that the next item holds the keyword when these events are "
            f"left out, measured with the {profile.measured}."
        )
    for remark in profile.notes:
        note(remark)
