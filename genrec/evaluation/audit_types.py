"""Define the input of audit checks, ``AuditedData``, and their output, ``Finding``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genrec.baselines import registry
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS
from genrec.data.protocols import Case
from genrec.data.readers import arrow
from genrec.evaluation.run_log import collect_answers
from genrec.evaluation.systems import BaselineSystem
from genrec.types import FloatArray, IntArray

MAX_USERS = 2_000  # the maximum number of users for whom baselines rank items


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: the name of the check.
        level: ``ok``, ``note`` for a fact that users should know, or ``warning`` for a problem that
            makes results misleading.
        figures: the measured values, keyed by name.
        said: a description of the outcome for the user.
        advice: the recommended action; empty if no action is needed.
    """

    check: str
    level: str
    figures: Mapping[str, float]
    said: str
    advice: str = ""


@dataclass(frozen=True)
class AuditedData:
    """A dataset to audit, with its evaluation cases and values that several checks need.

    Attributes:
        dataset: the dataset with the protocol's split.
        cases: the cases of the protocol, one for each user.
        split: the part of the data that contains the targets.
        log: a function that is called with a line of text before each slow step.
    """

    dataset: Dataset
    cases: Sequence[Case]
    split: str
    log: Callable[[str], None]

    @property
    def split_code(self) -> int:
        """The index of ``split`` in the list of all splits, ``SPLITS``."""
        return SPLITS.index(self.split)

    @cached_property
    def times(self) -> FloatArray | None:
        """The time of each event in seconds, or None if the data has no times.

        If the events are ordered by position, the times are read from an attribute of the events.
        """
        events = self.dataset.interactions
        if self.dataset.info.time_unit != "position":
            return events.columns.timestamp
        for name in ("timestamp_given", "time", "date"):
            if events.attributes is not None and name in events.attributes.column_names:
                values = arrow.to_floats(arrow.to_text(events.attributes[name]))
                median = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
                if median > 1e8:
                    return values / 1000 if median > 1e11 else values
        return None

    @cached_property
    def target_places(self) -> IntArray:
        """The index of each case's target in the array of all events."""
        return np.array([case.at for case in self.cases])

    @property
    def or_split_by_time(self) -> str:
        """A phrase that is appended to advice and suggests splitting the data by time."""
        if self.dataset.info.time_unit == "position":
            return ", or prepare the data without positions and split it by time"
        return ", and also report results on the split by time (--split global-time)"

    @cached_property
    def sampled_cases(self) -> list[Case]:
        """A random sample of the cases with at most ``MAX_USERS`` users."""
        return protocols.sample(self.cases, MAX_USERS)

    def top_ten(self, baseline: str) -> list[Sequence[str]]:
        """Fit a baseline on train, and return its top ten items for each sampled case.

        Args:
            baseline: the name of the baseline.
        """
        known = protocols.withhold(self.dataset, self.split)
        fitted = registry.fit(baseline, known, before="validation")
        exclude_seen = self.dataset.info.exclude_seen
        system = BaselineSystem(fitted, baseline, exclude_seen=exclude_seen)
        return [answer.items for answer in collect_answers(system, self.sampled_cases, 10)]
