"""AuditedData and Finding: the input of the audit's checks and their output."""

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

MAX_USERS = 2_000  # users for whom baselines rank items


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: the check's name.
        level: ``ok``, ``note`` (worth knowing) or ``warning`` (numbers will mislead).
        figures: the measured values by name.
        said: a sentence that states the outcome.
        advice: what to do about it; empty if nothing needs doing.
    """

    check: str
    level: str
    figures: Mapping[str, float]
    said: str
    advice: str = ""


@dataclass(frozen=True)
class AuditedData:
    """The dataset and the cases to check, and values that several checks need. U cases, E events.

    Attributes:
        dataset: with the protocol's split.
        cases: (U,) the cases of the protocol.
        split: the split of the targets.
        log: called with a line of text before each slow step.
    """

    dataset: Dataset
    cases: Sequence[Case]
    split: str
    log: Callable[[str], None]

    @property
    def split_code(self) -> int:
        """The number of the targets' split."""
        return SPLITS.index(self.split)

    @cached_property
    def times(self) -> FloatArray | None:
        """(E,) seconds; from an attribute if positions order the events; None without times."""
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
        """(U,) the place of each target among the events."""
        return np.array([case.at for case in self.cases])

    @property
    def or_split_by_time(self) -> str:
        """The end of an advice that recommends the split by time as an alternative."""
        if self.dataset.info.time_unit == "position":
            return ", or prepare the data without positions and split it by time"
        return ", and also report results on the split by time (--split global-time)"

    @cached_property
    def sampled_cases(self) -> list[Case]:
        """The cases of a sample of at most ``MAX_USERS`` users."""
        return protocols.sample(self.cases, MAX_USERS)

    def top_ten(self, baseline: str) -> list[Sequence[str]]:
        """Return the first ten items of a baseline fitted on train, for the sampled cases."""
        fitted = registry.fit(baseline, self.dataset, before="validation")
        exclude_seen = self.dataset.info.exclude_seen
        system = BaselineSystem(fitted, baseline, exclude_seen=exclude_seen)
        return [answer.items for answer in collect_answers(system, self.sampled_cases, 10)]
