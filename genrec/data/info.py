"""What a dataset says about itself: DatasetInfo, measured once by prepare."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from genrec.data.behaviors import shipped_verbs
from genrec.data.events import SPLITS
from genrec.data.interactions import Interactions
from genrec.data.titles import CASES, TitleForm
from genrec.text import breaks_line, one_line

FORMAT_VERSION = 1

REPEATS_INCLUDE_SEEN = 0.05

_MANY, _SOME = 0.2, 20  # of the users, and at least

LOOKS = frozenset({"browse", "view", "click", "cart", "search"})  # that may lead to a purchase


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What ``prepare`` decided and measured.

    Attributes:
        name: for display.
        target_behavior: what is recommended for.
        repeat_share: share of units that begin with an item the user had before (train and
            validation); above 0.05 seen items may be recommended by default.
        exclude_seen: that default.
        led_by: of every other behavior, the share of units that begin with an item the user had by
            it before, of those that could; items of ``lead_in_behaviors`` only do not count as seen.
        case: how titles are written for the model.
        unit: the basket column, None where every event is a unit.
        split: ``last unit``, ``global time``, or ``given`` where the interactions had a split
            column.
        time_unit: of the timestamps as given; stored ones are seconds since 1970, or positions.
        users, items, events: how many were kept.
        split_events: events in train, validation and test.
        tied: events that share user and time with the one before and are in another unit.
        notes: what was guessed or noticed.
        rejected: rows that were not kept, by reason.
        catalog_hash: SHA-256 of the catalog.
        format_version: of the folder.
        split_times: for ``global time``, when validation and test begin, as stored timestamps.
    """

    name: str
    target_behavior: str
    repeat_share: float
    exclude_seen: bool
    case: str
    unit: str | None
    split: str
    time_unit: str
    users: int
    items: int
    events: int
    split_events: dict[str, int]
    tied: int
    notes: list[str]
    rejected: dict[str, int]
    catalog_hash: str
    format_version: int = FORMAT_VERSION
    split_times: dict[str, float] = field(default_factory=dict)
    led_by: dict[str, float] = field(default_factory=dict)

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """Behaviors that lead to what is asked for, such as views that purchases come of.

        An item that a user has by these only may come back, whatever ``exclude_seen`` is. They lead
        to it more often than repeats are, and than 0.05. Where there are some, ways of looking that the
        data has no events of, but a typed history may, count among them.
        """
        least = max(REPEATS_INCLUDE_SEEN, self.repeat_share)
        found = frozenset(b for b, share in self.led_by.items() if share > least)
        return found | (LOOKS - {self.target_behavior, *self.led_by}) if found else found

    def asking_for(self, behavior: str, events: Interactions) -> DatasetInfo:
        """The same for another behavior to recommend for, its habit measured."""
        share = events.repeat_share(behavior)
        others = [b for b in events.behaviors if b != behavior]
        return replace(
            self,
            target_behavior=behavior,
            repeat_share=round(share, 4),
            exclude_seen=share <= REPEATS_INCLUDE_SEEN,
            led_by={b: round(events.repeat_share(behavior, b), 4) for b in others},
        )


def check_info(info: DatasetInfo) -> None:
    """Check the values that a dataset.json may have been given by hand."""
    if not isinstance(info.exclude_seen, bool) or info.case not in CASES:
        msg = f"exclude_seen={info.exclude_seen!r}, case={info.case!r}"
        raise ValueError(msg)
    if not all(isinstance(share, float | int) for share in info.led_by.values()):
        msg = f"led_by={info.led_by!r}"
        raise ValueError(msg)


def measure_info(
    name: str, events: Interactions, target: str, split: str, time_unit: str
) -> DatasetInfo:
    """Measure a dataset: its counts, splits and habits for one target behavior."""
    info = DatasetInfo(
        name=name,
        target_behavior=target,
        repeat_share=0.0,
        exclude_seen=True,
        case=TitleForm.of(events.catalog).case,
        unit=events.unit_name,
        split=split,
        time_unit=time_unit,
        users=len(events.user_ids),
        items=len(events.catalog),
        events=len(events),
        split_events={s: int((events.columns.split == i).sum()) for i, s in enumerate(SPLITS)},
        tied=events.tied(),
        notes=[],
        rejected={},
        catalog_hash=events.catalog.hash(),
    )
    return info.asking_for(target, events)


def note_texts(events: Interactions) -> list[str]:
    """Remarks on titles and texts."""
    titles = events.catalog.titles
    found = Counter(titles)
    shared = sum(n for n in found.values() if n > 1)
    texts = [] if events.text is None else events.text.to_pylist()
    notes = []
    if shared:
        notes.append(f"{shared:,} items share their title with another item")
    for what, count in (
        ("titles", sum(map(breaks_line, titles))),
        ("texts", sum(map(breaks_line, texts))),
    ):
        if count:
            notes.append(
                f"{count:,} {what} hold line breaks or control characters, shown as spaces"
            )
    return notes


def note_untrained_users(events: Interactions, target: str) -> list[str]:
    """A remark where many of those who are recommended to have nothing in train."""
    c = events.columns
    wanted = (c.split > 0) & (c.behavior == events.behaviors.index(target)) & (c.row >= 0)
    users = np.unique(c.user[wanted])
    bare = len(np.setdiff1d(users, c.user[c.split == 0]))
    if bare < _SOME or bare <= _MANY * len(users):
        return []
    return [
        f"{bare:,} of {len(users):,} users with something held out have nothing in train, so there is "
        "little to count and to learn from; of short sessions hold out whole ones, by a split column"
    ]


def note_unknown_verbs(events: Interactions) -> list[str]:
    """A remark on behaviors that the verb table of the prompts lacks."""
    known = shipped_verbs()
    counts = np.bincount(events.columns.behavior, minlength=len(events.behaviors)).tolist()
    lacking = [(n, b) for b, n in zip(events.behaviors, counts, strict=True) if b not in known]
    if not lacking:
        return []
    most = sorted(lacking, key=lambda pair: -pair[0])[:10]
    said = ", ".join(f"{one_line(b)} ({n:,} events)" for n, b in most)
    more = f" and {len(lacking) - len(most):,} more" if len(lacking) > len(most) else ""
    return [
        f"verbs.json lacks {len(lacking):,} of {len(events.behaviors):,} behaviors, said by their own names: {said}{more}; "
        "write their verbs into DIR/en/verbs.json and give --prompts DIR"
    ]
