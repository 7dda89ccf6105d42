"""Audit: what to know of a dataset before a number measured on it is trusted.

Every check gives one finding with figures and what to do. Knows data, protocols and counting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.baselines import registry
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS
from genrec.data.protocols import Case
from genrec.data.readers import arrow
from genrec.evaluation import metrics
from genrec.evaluation.published_tables import check_table
from genrec.evaluation.run_log import answers
from genrec.evaluation.systems import BaselineSystem
from genrec.text import normalized
from genrec.types import FloatArray

LEAST_USERS = 500
COUNTED_USERS = 2_000  # at most so many users are asked about for the check of counting
DAY = 86_400.0
_WINDOW = 4  # items in a row that a training sequence must not share with a test case by chance


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        level: ``ok``, ``note`` (know it) or ``warning`` (numbers will mislead).
        figures: what was measured, by name.
        said: one sentence on it.
        advice: what to do; empty where nothing is to be done.
    """

    check: str
    level: str
    figures: Mapping[str, float]
    said: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """All findings on a dataset under a protocol."""

    dataset: str
    protocol: str
    split: str
    users: int
    findings: Sequence[Finding]

    def count(self, level: str) -> int:
        """How many findings are of a level."""
        return sum(f.level == level for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema_version": 1, **asdict(self)}


def audit(
    dataset: Dataset,
    *,
    protocol: str | None = None,
    split: str = "test",
    table: Sequence[Mapping[str, object]] | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Audit:
    """Looks at a dataset as an evaluation under a protocol would use it.

    Args:
        dataset: with a split; it is split anew where the protocol needs another one.
        protocol: see ``protocols.NAMES``; None for that of the dataset's split.
        split: ``test`` or ``validation``.
        table: rows of published results to check, see ``published.check_table``.
        log: called with a line of text before each slow step.

    Raises:
        RequestError: the protocol or split is unknown, or nobody has a target.
        DataError: the protocol does not fit the data, or the table has no metric.
    """
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    cases = protocols.cases(dataset, protocol, split)
    look = _Look(dataset, cases, protocol, split, log)
    checks = [
        look.size, look.rejected, look.target_in_history, look.repeats, look.repeated_events, look.shared_titles,
        look.ties, look.users_in_splits, look.sequences_in_train, look.future, look.cold,
        look.counting,
    ]  # fmt: skip
    findings = [check() for check in checks]
    if table is not None:
        findings.append(published_table(table))
    return Audit(dataset.info.name, protocol, split, len(cases), findings)


def published_table(rows: Sequence[Mapping[str, object]]) -> Finding:
    """Whether a table of published results can be."""
    found = check_table(rows)
    figures = {"rows": len(rows), "impossible": len(found)}
    if not found:
        return Finding("table", "ok", figures, f"{len(rows):,} rows of the table can be.")
    return Finding(
        "table",
        "warning",
        figures,
        f"{len(found):,} of the table's figures cannot be: {'; '.join(found)}.",
        "Do not compare with these rows; ask their authors how they were computed.",
    )


@dataclass(frozen=True)
class _Look:
    """The checks, and what several of them need. U cases, E events."""

    dataset: Dataset
    cases: Sequence[Case]
    protocol: str
    split: str
    log: Callable[[str], None]

    @cached_property
    def _part(self) -> int:
        return SPLITS.index(self.split)

    @cached_property
    def _time(self) -> FloatArray | None:
        """(E,) seconds; from an attribute where a position decides the order; None for none."""
        events = self.dataset.interactions
        if self.dataset.info.time_unit != "position":
            return events.columns.timestamp
        for name in ("timestamp_given", "time", "date"):
            if events.attributes is not None and name in events.attributes.column_names:
                values = arrow.to_floats(arrow.to_text(events.attributes[name]))
                middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
                if middle > 1e8:
                    return values / 1000 if middle > 1e11 else values
        return None

    @cached_property
    def _at(self) -> npt.NDArray[np.int64]:
        """(U,) places of the targets."""
        return np.array([case.at for case in self.cases])

    @property
    def _or_by_time(self) -> str:
        if self.dataset.info.time_unit == "position":
            return ", or prepare the data without positions and split it by time"
        return ", and report the split by time (--split global-time) beside them"

    def size(self) -> Finding:
        """How many users there are to measure on."""
        n = len(self.cases)
        wide = 1.96 * np.sqrt(0.1 * 0.9 / n)
        said = f"{n:,} users have a target; a hit rate of .10 is known to about ±{wide:.3f}."
        few = n < LEAST_USERS
        advice = "Report the numbers, but do not say that one system beats another." if few else ""
        return Finding("users", "note" if few else "ok", {"users": n}, said, advice)

    def rejected(self) -> Finding:
        """Rows that the data lost when it was prepared."""
        why = self.dataset.info.rejected
        n, kept = sum(why.values()), self.dataset.info.events
        figures = {"rows": n, "events_kept": kept}
        if not n:
            return Finding("rejected rows", "ok", figures, "No row was rejected by prepare.")
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in why.items())
        said = f"{n:,} rows were rejected by prepare, {kept:,} events are left: {reasons}."
        advice = (
            "All figures are of what is left, also of what comes last. Mend the rows in "
            "rejected.csv (an item without a title may be called by its id) to compare with others."
        )
        level = "warning" if n > 0.01 * (n + kept) else "note"
        return Finding("rejected rows", level, figures, said, advice)

    def target_in_history(self) -> Finding:
        """Targets that the history already holds, by id and by title."""
        titles = self.dataset.catalog.titles
        events, lead_in_behaviors = self.dataset.interactions, self.dataset.info.lead_in_behaviors
        rows, behavior = events.columns.row, events.columns.behavior
        had = np.array([b not in lead_in_behaviors for b in events.behaviors])
        by_id = by_title = lost = 0
        for case in self.cases:
            shown = set(rows[case.shown].tolist()) - {-1}
            same = int(rows[case.at]) in shown
            by_id += same
            lost += int(rows[case.at]) in rows[case.shown][had[behavior[case.shown]]]
            by_title += same or titles[rows[case.at]] in {titles[r] for r in shown}
        n = len(self.cases)
        figures = {"by_id": by_id / n, "by_title": by_title / n}
        said = (
            f"{by_id / n:.1%} of the targets stand in the history by id, {by_title / n:.1%} by "
            "title."
        )
        if self.dataset.info.exclude_seen and lost:
            advice = (
                f"Seen items are excluded, so {lost:,} targets can never be hit: include them "
                "(--include-seen), or leave these users out and say so."
            )
            return Finding("target in history", "warning", figures, said, advice)
        if by_id / n > 0.5:
            advice = (
                "Copying the history scores well: compare with that, and report new items apart."
            )
            return Finding("target in history", "warning", figures, said, advice)
        if by_id:
            advice = (
                "Log with every number that seen items may be recommended, and compare with a "
                "baseline that repeats."
            )
            return Finding("target in history", "note", figures, said, advice)
        if by_title > 0.01 * n:
            advice = "Other items of the same title were seen: score by item id, not by text."
            return Finding("target in history", "note", figures, said, advice)
        return Finding("target in history", "ok", figures, said)

    def repeats(self) -> Finding:
        """The habit of taking again, and the rule that follows."""
        info = self.dataset.info
        rule, spared = "excluded" if info.exclude_seen else "included", ""
        lead_in_behaviors = sorted(info.lead_in_behaviors & info.led_by.keys())
        if info.exclude_seen and lead_in_behaviors:
            spared = f", but for those of {', '.join(lead_in_behaviors)} only"
        said = (
            f"{info.repeat_share:.1%} of the units in train and validation begin with an item that "
            f"the user had before; seen items are {rule} by default{spared}."
        )
        return Finding("repeats", "ok", {"repeat_share": info.repeat_share}, said)

    def repeated_events(self) -> Finding:
        """Events that are there twice; across splits they give targets away."""
        c = self.dataset.interactions.columns
        keys = np.stack([c.user, c.row, c.behavior, c.timestamp], axis=1)
        _, which, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        twice = int((count[which] > 1).sum())
        earlier = np.full(len(count), len(SPLITS))
        np.minimum.at(earlier, which.ravel(), c.split)
        given_away = int((earlier[which.ravel()[self._at]] < self._part).sum())
        figures = {"events": twice / len(c.row), "targets_in_train": given_away / len(self.cases)}
        said = (
            f"{twice:,} of {len(c.row):,} events are there more than once (same user, item, "
            f"behavior and time); {given_away:,} targets stand in an earlier part as the same event."
        )
        if given_away:
            advice = "The split leaks: drop repeated rows before splitting."
            return Finding("repeated events", "warning", figures, said, advice)
        if twice > 0.01 * len(c.row):
            advice = "Drop repeated rows, or say that they count as several events."
            return Finding("repeated events", "note", figures, said, advice)
        return Finding("repeated events", "ok", figures, said)

    def shared_titles(self) -> Finding:
        """Items with the same title, and what they do to scoring by text."""
        titles = self.dataset.catalog.titles
        found = Counter(titles)
        plain = Counter(normalized(t) for t in titles)
        rows = self.dataset.interactions.columns.row
        shared = sum(n for n in found.values() if n > 1)
        nearly = sum(n for n in plain.values() if n > 1)
        targets = int(sum(found[titles[rows[case.at]]] > 1 for case in self.cases))
        by_id, by_text = self._popular_hits
        figures = {
            "items": shared,
            "items_normalized": nearly,
            "targets": targets / len(self.cases),
            "popular_hit_rate@10_by_id": by_id,
            "popular_hit_rate@10_by_text": by_text,
        }
        said = (
            f"{shared:,} of {len(titles):,} items share their title with another ({nearly:,} but "
            f"for case and punctuation), and {targets:,} targets ({targets / len(self.cases):.2%}) "
            f"have such a title. Popularity has HR@10 {by_id:.4f} by id and {by_text:.4f} by text."
        )
        if not shared:
            return Finding("shared titles", "ok", figures, said)
        advice = (
            "Score by item id. A paper that scores by text counts a hit for any item of that title: "
            "its numbers are too high by up to the share of such targets."
        )
        return Finding("shared titles", "note", figures, said, advice)

    @cached_property
    def _popular_hits(self) -> tuple[float, float]:
        """HR@10 of popularity, by id and by title."""
        catalog, titles = self.dataset.catalog, self.dataset.catalog.titles
        by_id = by_text = 0
        for case, ranked in zip(self._some, self._lists("popular"), strict=True):
            top, target = catalog.rows(ranked), catalog.row(case.target)
            by_id += target in top
            by_text += titles[target] in {titles[row] for row in top}
        return by_id / len(self._some), by_text / len(self._some)

    @cached_property
    def _some(self) -> list[Case]:
        return protocols.sample(self.cases, COUNTED_USERS)

    def _lists(self, name: str) -> list[Sequence[str]]:
        """The first ten of a baseline that was fitted on train, for a sample of users."""
        baseline = registry.fit(name, self.dataset, before="validation")
        system = BaselineSystem(baseline, name, exclude_seen=self.dataset.info.exclude_seen)
        return [answer.items for answer in answers(system, self._some, 10)]

    def ties(self) -> Finding:
        """Targets whose time, or day, is that of the event before them."""
        time = self._time
        if time is None:
            said = "The data has positions and no times: ties cannot be seen."
            return Finding("ties", "note", {}, said, "Find out how the positions were made.")
        before = np.array([case.shown[-1] if len(case.shown) else -1 for case in self.cases])
        have = (before >= 0) & np.isfinite(time[self._at]) & np.isfinite(time[before])
        now, then = time[self._at[have]], time[before[have]]
        n = len(self.cases)
        same_time = int((now == then).sum())
        same_day = int((np.floor(now / DAY) == np.floor(then / DAY)).sum())
        days = bool(
            np.all(np.floor(time[np.isfinite(time)] / DAY) * DAY == time[np.isfinite(time)])
        )
        figures = {
            "same_time": same_time / n,
            "same_day": same_day / n,
            "with_times": len(now) / n,
            "days_only": float(days),
        }
        said = (
            f"{same_day / n:.1%} of the targets fall on the same day as the event before them, "
            f"{same_time / n:.1%} at the same time ({len(now):,} of {n:,} have times to compare)"
            f"{'; all times are whole days' if days else ''}."
        )
        if same_time / n > 0.05:
            advice = (
                "Which of them came last is the order of the file. Keep that order, say so with the "
                f"numbers{self._or_by_time}."
            )
            return Finding("ties", "warning", figures, said, advice)
        return Finding("ties", "ok", figures, said)

    def users_in_splits(self) -> Finding:
        """Who stands in which part."""
        c = self.dataset.interactions.columns
        inside = np.zeros((len(self.dataset.interactions.user_ids), len(SPLITS)), dtype=bool)
        inside[c.user, c.split] = True
        asked = c.user[self._at]
        known = int(inside[asked, 0].sum())
        back = int(((c.user[1:] == c.user[:-1]) & (c.split[1:] < c.split[:-1])).sum())
        n = len(self.cases)
        figures = {
            "users": len(inside),
            "in_several": int((inside.sum(axis=1) > 1).sum()),
            "test_users_in_train": known / n,
            "events_out_of_order": back,
        }
        said = (
            f"{figures['in_several']:,} of {len(inside):,} users stand in more than one part; "
            f"{known / n:.1%} of those with a target have events in train."
        )
        if back:
            said += (
                f" {back:,} times a user's event of an earlier part follows one of a later part."
            )
            advice = "The split as given goes back in time for these users: split anew (--split)."
            return Finding("users in splits", "warning", figures, said, advice)
        if 0 < known < n and self.dataset.info.split == "given":
            advice = "Report users with and without train events apart (slice: user)."
            return Finding("users in splits", "note", figures, said, advice)
        return Finding("users in splits", "ok", figures, said)

    def sequences_in_train(self) -> Finding:
        """Test cases whose last items and target stand in a row in somebody's train events."""
        c = self.dataset.interactions.columns
        use = (c.split < self._part) & (c.row >= 0)
        row, user = c.row[use], c.user[use]
        train = set()
        for first in range(len(row) - _WINDOW + 1):
            if user[first] == user[first + _WINDOW - 1]:
                train.add(tuple(row[first : first + _WINDOW].tolist()))
        asked = found = 0
        for case in self.cases:
            shown = [r for r in c.row[case.shown].tolist() if r >= 0][-(_WINDOW - 1) :]
            if len(shown) == _WINDOW - 1:
                asked += 1
                found += (*shown, int(c.row[case.at])) in train
        share = found / max(asked, 1)
        said = (
            f"{found:,} of {asked:,} cases ({share:.1%}) have their last {_WINDOW - 1} items and the "
            "target in a row in an earlier part."
        )
        if share > 0.05:
            advice = (
                "Copies of test sequences are in train: make windows after splitting users or "
                "times, not before."
            )
            return Finding("sequences in train", "warning", {"share": share}, said, advice)
        return Finding("sequences in train", "ok", {"share": share}, said)

    def future(self) -> Finding:
        """Train events that are later than targets."""
        time = self._time
        c = self.dataset.interactions.columns
        if time is None:
            said = "The data has positions and no times: whether train is later cannot be seen."
            return Finding("future", "note", {}, said)
        train = np.sort(time[(c.split < self._part) & np.isfinite(time)])
        targets = time[self._at]
        targets = targets[np.isfinite(targets)]
        if not len(train) or not len(targets):
            said = "Train events or targets have no times."
            return Finding("future", "note", {}, said)
        later = 1 - np.searchsorted(train, targets, side="right") / len(train)
        own = self._own_future(time)
        figures = {
            "targets_with_later_train_events": float((later > 0).mean()),
            "mean_share_of_train_that_is_later": float(later.mean()),
            "histories_that_are_later": own / len(self.cases),
        }
        said = (
            f"{(later > 0).mean():.1%} of the targets have events of earlier parts later than they "
            f"are, on average {later.mean():.1%} of all those; {own:,} users have such events of "
            "their own."
        )
        if own or (self.dataset.info.split != "last unit" and (later > 0).any()):
            advice = f"The future leaks into train: split anew{self._or_by_time}."
            return Finding("future", "warning", figures, said, advice)
        if (later > 0).any():
            advice = (
                "This is so wherever each user's last event is left out: what is popular later is "
                f"known in train. Log so with the numbers{self._or_by_time}."
            )
            return Finding("future", "note", figures, said, advice)
        return Finding("future", "ok", figures, said)

    def _own_future(self, time: FloatArray) -> int:
        """How many users have an event before the part that is later than their target."""
        events = self.dataset.interactions
        found = 0
        for case in self.cases:
            where = events.events(case.user_id)
            earlier = time[where][events.columns.split[where] < self._part]
            found += bool((earlier > time[case.at]).any())
        return found

    def cold(self) -> Finding:
        """Targets that train has never seen."""
        counts = protocols.count_events(self.dataset, "validation")
        rows = self.dataset.interactions.columns.row[self._at]
        share = float((counts[rows] == 0).mean())
        said = f"{share:.1%} of the targets have no event in train."
        advice = (
            "Counting cannot hit them: report warm and cold items apart." if share > 0.01 else ""
        )
        return Finding("cold targets", "note" if advice else "ok", {"share": share}, said, advice)

    def counting(self) -> Finding:
        """How far counting goes."""
        some = self._some
        names = [n for n in ("popular", "markov") if n in registry.NAMES]
        figures: dict[str, float] = {"users": len(some)}
        told = []
        for name in names:
            self.log(f"Counting with {name} ...")
            pairs = zip(some, self._lists(name), strict=True)
            ranks = [metrics.rank_of(case.target, ranked) for case, ranked in pairs]
            figures[f"{name}_hit_rate@10"] = float(metrics.hit_rate(ranks, 10).mean())
            figures[f"{name}_ndcg@10"] = float(metrics.ndcg(ranks, 10).mean())
            told.append(
                f"{name} HR@10 {figures[f'{name}_hit_rate@10']:.4f}, "
                f"NDCG@10 {figures[f'{name}_ndcg@10']:.4f}"
            )
        said = f"Counting train only, on {len(some):,} users: {'; '.join(told)}."
        if "markov" not in names:
            said += " The markov baseline is not there, so transitions were not counted."
        advice = "A model that does not beat this has learned nothing more: report it beside yours."
        return Finding("counting", "note", figures, said, advice)
