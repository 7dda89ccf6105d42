"""Compute a dataset's statistics for ``prepare``, and write remarks for users."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.behaviors import shipped_verbs
from genrec.data.column_names import target_words
from genrec.data.events import SPLITS
from genrec.data.interactions import Interactions
from genrec.data.rebuys import measure_rebuys
from genrec.data.titles import CASES, TitleForm
from genrec.errors import DataError
from genrec.keys import pick_fields
from genrec.text import breaks_line, one_line, quantity

FORMAT_VERSION = 1

REPEATS_INCLUDE_SEEN = 0.05
"""The fraction of repeats above which seen items may be recommended by default."""

_MIN_SHARE, _MIN_USERS = 0.2, 20  # above these, users without train events are worth a remark

BROWSING = frozenset({"browse", "view", "click", "cart", "search"})
"""Behaviors that may lead up to a purchase."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """The decisions and measurements made by ``prepare``.

    Attributes:
        name: the display name.
        target_behavior: the behavior to predict.
        repeat_share: the fraction of the units in train and validation that start with an item from
            an earlier unit of the same user (``Interactions.repeat_share``).
        exclude_seen: whether seen items are excluded by default; True unless repeats are common.
        case: the case of titles in prompts (``TitleForm.case``).
        unit: the basket column; None if every event is a unit.
        split: ``last unit``, ``global time``, or ``given`` if the data had a split column.
        time_unit: the unit of the timestamps in the file. Stored timestamps are seconds since 1970,
            or positions.
        users: the number of users kept.
        items: the number of items kept.
        events: the number of events kept.
        split_events: the number of events in train, validation and test.
        tied: the number of events that have the same user and time as the previous event but a
            different unit.
        notes: remarks on guesses and anomalies.
        rejected: the number of rejected rows for each reason.
        catalog_hash: the SHA-256 of the catalog.
        format_version: the version of the folder format.
        split_times: for ``global time``, the starts of the validation and test parts as stored
            timestamps.
        led_by: for each other behavior, the fraction of the target behavior's units whose first
            item had an earlier event of that other behavior. See ``lead_in_behaviors``.
        columns: maps genrec's name of each recognized or mapped column to its name in the file.
        rows: the number of rows that ``prepare`` found in the interactions files; 0 if unknown, for
            example after new events were added.
        behaviors: the number of events of each behavior, most frequent first.
        uses: for each column of the files, its name (``column``), what it is used for (``use``) and
            a sample value (``example``).
        warnings: signs that the data was misunderstood or cannot be used for evaluation.
        context: the columns that are declared as the context of events; see ``genrec.data.context``.
        redacted: the number of pieces of personal data of each kind that were replaced in the texts of
            events; None if there are no texts, or if they were left as they are.
        redact: False if ``prepare`` was told to leave personal data in texts.
        knowledge: the columns of the items and relations of triples that are declared as what items
            have in common; see ``genrec.data.knowledge``.
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
    columns: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    behaviors: dict[str, int] = field(default_factory=dict)
    uses: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    redacted: dict[str, int] | None = None
    redact: bool = True
    knowledge: list[str] = field(default_factory=list)

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """Behaviors that lead up to the target behavior, as views lead up to purchases.

        An item may be recommended regardless of ``exclude_seen`` if a user's only events with it
        have these behaviors. A behavior is included if its fraction in ``led_by`` is greater than
        ``repeat_share`` and greater than 5%. If at least one behavior is included, browsing
        behaviors that do not occur in the data are included too, because a typed history may
        contain them.
        """
        least = max(REPEATS_INCLUDE_SEEN, self.repeat_share)
        leading = frozenset(b for b, share in self.led_by.items() if share > least)
        return leading | (BROWSING - {self.target_behavior, *self.led_by}) if leading else leading

    def to_dict(self) -> dict[str, Any]:
        """Return the values of all fields.

        ``context``, ``redacted``, ``knowledge`` and ``redact`` are left out if they have their default values.
        """
        unset: dict[str, object] = {
            "context": [],
            "knowledge": [],
            "redacted": None,
            "redact": True,
        }
        return {n: v for n, v in asdict(self).items() if n not in unset or v != unset[n]}

    def to_json(self) -> str:
        """Return the contents of ``dataset.json``."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def with_target(self, behavior: str, events: Interactions) -> DatasetInfo:
        """Return a copy with a different target behavior and with statistics on its repeats."""
        share = events.repeat_share(behavior)
        others = [b for b in events.behaviors if b != behavior]
        return replace(
            self,
            target_behavior=behavior,
            repeat_share=round(share, 4),
            exclude_seen=share <= REPEATS_INCLUDE_SEEN,
            led_by={b: round(events.repeat_share(behavior, b), 4) for b in others},
        )


def read_info(path: Path) -> DatasetInfo:
    """Read a ``dataset.json``; unknown fields are ignored, and missing ones get their defaults.

    Raises:
        DataError: the file is damaged, has a different format version, or lacks a field that has
            no default.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            msg = (
                f"{path} has format_version {version!r}. Expected {FORMAT_VERSION}. Run `genrec "
                "prepare` again with this version of genrec, or use the version that wrote it."
            )
            raise DataError(msg)
        known, lacking = pick_fields(DatasetInfo, values)
        if lacking:
            msg = f"{path} lacks the fields {', '.join(lacking)}. Run `genrec prepare` again."
            raise DataError(msg)
        info = DatasetInfo(**known)
        _check_info(info)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        msg = f"{path} is damaged: {error!r}. Run `genrec prepare` again."
        raise DataError(msg) from error
    return info


def _check_info(info: DatasetInfo) -> None:
    """Check values that users may have edited by hand."""
    if not isinstance(info.exclude_seen, bool) or info.case not in CASES:
        msg = f"exclude_seen={info.exclude_seen!r}, case={info.case!r}"
        raise ValueError(msg)
    for name in ("context", "knowledge"):
        value: object = getattr(info, name)
        if not isinstance(value, list) or not all(isinstance(n, str) for n in value):
            msg = f"{name}={value!r}"
            raise ValueError(msg)
    if not all(isinstance(share, float | int) for share in info.led_by.values()):
        msg = f"led_by={info.led_by!r}"
        raise ValueError(msg)


def measure_info(
    name: str, events: Interactions, target: str, split: str, time_unit: str
) -> DatasetInfo:
    """Compute a dataset's statistics on size, split and repeats for one target behavior.

    Args:
        name: the display name.
        events: the events, with their split.
        target: the target behavior.
        split: the name of the split (``DatasetInfo.split``).
        time_unit: the unit of the timestamps in the file.
    """
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
        behaviors=count_behaviors(events),
    )
    return info.with_target(target, events)


def count_behaviors(events: Interactions) -> dict[str, int]:
    """Count the events of each behavior; the most frequent behavior comes first."""
    counts = np.bincount(events.columns.behavior, minlength=len(events.behaviors)).tolist()
    return dict(Counter(dict(zip(events.behaviors, counts, strict=True))).most_common())


def note_texts(events: Interactions) -> list[str]:
    """Return remarks on titles shared by several items, and on line breaks in titles and texts."""
    titles = events.catalog.titles
    shared = sum(n for n in Counter(titles).values() if n > 1)
    texts = [] if events.text is None else events.text.to_pylist()
    notes = []
    if shared:
        notes.append(f"{shared:,} items share their title with another item")
    for kind, strings in (("title", titles), ("text", texts)):
        count = sum(map(breaks_line, strings))
        if count:
            notes.append(
                f"line breaks or control characters in {quantity(count, kind)} are shown as spaces"
            )
    return notes


def note_targets(events: Interactions, target: str, *, by_time: bool) -> list[str]:
    """Return remarks on the events with the target behavior, and on their users.

    Args:
        events: the events, with their split.
        target: the target behavior.
        by_time: True to count the users of each part separately. In a split by time, the parts have
            different users.
    """
    counts = events.users_with_target(target)
    notes = []
    if not any(counts):
        notes.append(f"no {target!r} event has an item, so there is nothing to evaluate")
    notes += _note_untrained_users(events, target)
    if events.repeat_share(target) > REPEATS_INCLUDE_SEEN:
        notes += measure_rebuys(events, target).notes()
    if by_time:
        parts = ", ".join(f"{s} {n:,}" for s, n in zip(SPLITS, counts, strict=True))
        notes.append(f"users with a {target!r} event: {parts}")
    return notes


def _note_untrained_users(events: Interactions, target: str) -> list[str]:
    """Return a remark if many of the users with held-out target events have no train events."""
    c = events.columns
    wanted = (c.split > 0) & (c.behavior == events.behaviors.index(target)) & (c.row >= 0)
    users = np.unique(c.user[wanted])
    untrained = len(np.setdiff1d(users, c.user[c.split == 0]))
    if untrained < _MIN_USERS or untrained <= _MIN_SHARE * len(users):
        return []
    remark = f"{untrained:,} of {len(users):,} users with held-out events have none in train"
    if events.unit_name is None:
        remark += ". If the users are short sessions, hold out whole sessions with a split column"
    else:
        remark += ", because they have few baskets"
    return [remark]


def note_unknown_verbs(events: Interactions) -> list[str]:
    """Return a remark on behaviors that are missing from the verb table of the prompts."""
    known = {*shipped_verbs(), "interact"}  # interact is chosen by `prepare` itself
    lacking = [(n, b) for b, n in count_behaviors(events).items() if b not in known]
    if not lacking:
        return []
    most = lacking[:10]
    listed = ", ".join(f"{one_line(b)} ({quantity(n, 'event')})" for n, b in most)
    more = f" and {len(lacking) - len(most):,} more" if len(lacking) > len(most) else ""
    return [
        f"verbs.json lacks {len(lacking):,} of {len(events.behaviors):,} behaviors, so prompts use "
        f"their raw names: {listed}{more}. To change that, add their verbs to "
        "DIR/en/verbs.json and pass --prompts DIR"
    ]


def default_target(events: Interactions) -> str:
    """Return the first of ``target_words`` in the data, or else the most frequent behavior."""
    by_word = {b.casefold(): b for b in events.behaviors}
    usual = next((by_word[w] for w in target_words() if w in by_word), None)
    if usual:
        return usual
    c = events.columns
    counts = [int(((c.behavior == b) & (c.row >= 0)).sum()) for b in range(len(events.behaviors))]
    return events.behaviors[counts.index(max(counts))]
