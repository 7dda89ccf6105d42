"""Check a dataset for leaks, such as train events that happened after the targets."""

from __future__ import annotations

import numpy as np

from genrec.data.events import SPLITS
from genrec.evaluation.audit_types import AuditedData, Finding
from genrec.types import FloatArray

DAY = 86_400.0  # seconds
_WINDOW = 4  # a sequence of this many items rarely occurs twice by chance


def check_repeated_events(data: AuditedData) -> Finding:
    """Look for duplicate events, which reveal targets if the copies are in different splits."""
    c = data.dataset.interactions.columns
    keys = np.stack([c.user, c.row, c.behavior, c.timestamp], axis=1)
    _, which, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    repeated = int((count[which] > 1).sum())
    earliest = np.full(len(count), len(SPLITS))
    np.minimum.at(earliest, which.ravel(), c.split)
    given_away = int((earliest[which.ravel()[data.target_places]] < data.split_code).sum())
    figures = {"events": repeated / len(c.row), "targets_in_train": given_away / len(data.cases)}
    said = (
        f"{repeated:,} of {len(c.row):,} events occur more than once, with the same user, item, "
        f"behavior and time. For {given_away:,} targets, the same event is also in an earlier split."
    )
    if given_away:
        advice = "The split leaks. Drop repeated rows before splitting."
        return Finding("repeated events", "warning", figures, said, advice)
    if repeated > 0.01 * len(c.row):
        advice = "Drop repeated rows, or state that they count as separate events."
        return Finding("repeated events", "note", figures, said, advice)
    return Finding("repeated events", "ok", figures, said)


def check_ties(data: AuditedData) -> Finding:
    """Look for targets that have the same time or date as the preceding event."""
    times = data.times
    if times is None:
        said = "The data has positions instead of times, so ties cannot be detected."
        return Finding("ties", "note", {}, said, "Find out how the positions were determined.")
    at = data.target_places
    before = np.array([case.shown[-1] if len(case.shown) else -1 for case in data.cases])
    have = (before >= 0) & np.isfinite(times[at]) & np.isfinite(times[before])
    now, then = times[at[have]], times[before[have]]
    n = len(data.cases)
    same_time = int((now == then).sum())
    same_day = int((np.floor(now / DAY) == np.floor(then / DAY)).sum())
    known = times[np.isfinite(times)]
    whole_days = bool(np.all(np.floor(known / DAY) * DAY == known))
    figures = {
        "same_time": same_time / n,
        "same_day": same_day / n,
        "with_times": len(now) / n,
        "days_only": float(whole_days),
    }
    said = (
        f"{same_day / n:.1%} of the targets are on the same day as the preceding event, and "
        f"{same_time / n:.1%} are at the same time. {len(now):,} of {n:,} targets have times to "
        f"compare{', and all times are whole days' if whole_days else ''}."
    )
    if same_time / n > 0.05:
        advice = (
            "For these users, the order of the file decides which event is last. Keep that order and "
            f"state it with the results{data.or_split_by_time}."
        )
        return Finding("ties", "warning", figures, said, advice)
    return Finding("ties", "ok", figures, said)


def check_users_in_splits(data: AuditedData) -> Finding:
    """Count users who have events in several splits, and look for events that are out of order."""
    c = data.dataset.interactions.columns
    inside = np.zeros((len(data.dataset.interactions.user_ids), len(SPLITS)), dtype=bool)
    inside[c.user, c.split] = True
    known = int(inside[c.user[data.target_places], 0].sum())
    back = int(((c.user[1:] == c.user[:-1]) & (c.split[1:] < c.split[:-1])).sum())
    n = len(data.cases)
    figures = {
        "users": len(inside),
        "in_several": int((inside.sum(axis=1) > 1).sum()),
        "test_users_in_train": known / n,
        "events_out_of_order": back,
    }
    said = (
        f"{figures['in_several']:,} of {len(inside):,} users have events in more than one split. "
        f"{known / n:.1%} of the users with a target have events in train."
    )
    if back:
        said += (
            f" In {back:,} places, a user's event in an earlier split comes after an event in a later "
            "split."
        )
        advice = (
            "The given split goes back in time for these users. Split the data again with --split."
        )
        return Finding("users in splits", "warning", figures, said, advice)
    if 0 < known < n and data.dataset.info.split == "given":
        advice = "Report users with and without train events separately (see the slice `user`)."
        return Finding("users in splits", "note", figures, said, advice)
    return Finding("users in splits", "ok", figures, said)


def check_sequences_in_train(data: AuditedData) -> Finding:
    """Look for cases whose last items and target also occur as a sequence in an earlier split."""
    c = data.dataset.interactions.columns
    earlier = (c.split < data.split_code) & (c.row >= 0)
    row, user = c.row[earlier], c.user[earlier]
    train = set()
    for first in range(len(row) - _WINDOW + 1):
        if user[first] == user[first + _WINDOW - 1]:
            train.add(tuple(row[first : first + _WINDOW].tolist()))
    checked = copied = 0
    for case in data.cases:
        shown = [r for r in c.row[case.shown].tolist() if r >= 0][-(_WINDOW - 1) :]
        if len(shown) == _WINDOW - 1:
            checked += 1
            copied += (*shown, int(c.row[case.at])) in train
    share = copied / max(checked, 1)
    said = (
        f"In {copied:,} of {checked:,} cases ({share:.1%}), the last {_WINDOW - 1} items and the "
        "target also occur in sequence in an earlier split."
    )
    if share > 0.05:
        advice = (
            "The train part contains copies of test sequences. Split by user or time first, and cut "
            "sequences into windows afterwards."
        )
        return Finding("sequences in train", "warning", {"share": share}, said, advice)
    return Finding("sequences in train", "ok", {"share": share}, said)


def check_future(data: AuditedData) -> Finding:
    """Look for events in earlier splits that happened after the targets."""
    times = data.times
    c = data.dataset.interactions.columns
    if times is None:
        said = "The data has positions instead of times, so later train events cannot be detected."
        return Finding("future", "note", {}, said)
    train = np.sort(times[(c.split < data.split_code) & np.isfinite(times)])
    targets = times[data.target_places]
    targets = targets[np.isfinite(targets)]
    if not len(train) or not len(targets):
        said = "The train events or the targets have no times, so they cannot be compared."
        return Finding("future", "note", {}, said)
    later = 1 - np.searchsorted(train, targets, side="right") / len(train)
    own = _users_with_later_train_events(data, times)
    figures = {
        "targets_with_later_train_events": float((later > 0).mean()),
        "mean_share_of_train_that_is_later": float(later.mean()),
        "histories_that_are_later": own / len(data.cases),
    }
    said = (
        f"For {(later > 0).mean():.1%} of the targets, earlier splits contain later events. On "
        f"average, {later.mean():.1%} of those splits' events are later than the target. For "
        f"{own:,} users, these include events of the same user."
    )
    if own or (data.dataset.info.split != "last unit" and (later > 0).any()):
        advice = f"The future leaks into train. Split the data again{data.or_split_by_time}."
        return Finding("future", "warning", figures, said, advice)
    if (later > 0).any():
        advice = (
            "This cannot be avoided if each user's last event is held out. Train therefore shows which "
            f"items become popular later. State this with the results{data.or_split_by_time}."
        )
        return Finding("future", "note", figures, said, advice)
    return Finding("future", "ok", figures, said)


def _users_with_later_train_events(data: AuditedData, times: FloatArray) -> int:
    """Count the users who have an event in an earlier split that is later than their target."""
    events = data.dataset.interactions
    users = 0
    for case in data.cases:
        where = events.events(case.user_id)
        earlier = times[where][events.columns.split[where] < data.split_code]
        users += bool((earlier > times[case.at]).any())
    return users
