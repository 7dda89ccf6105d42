"""Plan the time of a training run, so that it ends on time and its remaining time is known.

The time limit covers the whole command: loading, validation, steps, saving and fitting the weight of
the prior. The cost of a validation is measured on a few users before the first step. This cost
determines how many users a validation can include and how much time must be reserved for the work
after the last step. This module deals with seconds only, not with models or files.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean

PROBE = 2  # the number of users (or packs) on which the cost of a validation is measured
_ROUND = 0.1  # the share of the time after loading that one validation may take
_ROUNDS = 0.25  # the share of it that all validations together may take
_FIT = 0.2  # the share of it that is kept for fitting the weight of the prior
_FEWEST = 5  # with fewer users than this, a validation says nothing, and is left out
_FIT_PER_VALIDATION = 1.4  # the cost of fitting on a user, relative to validating on one
_ARITHMETIC = 0.01  # seconds per user that the fit takes after the model has processed all users
_WRITING = 3.0  # seconds for writing the run folder, including the plot in the report
_MARGIN = 0.01  # the share of the limit that is kept for errors of the estimates
_LEAVING = 3.0  # seconds for starting and ending the process, and for writing the fitted weights
_RECENT = 50  # the number of steps whose duration is averaged


class Stopwatch:
    """Measures the time since a command began.

    Attributes:
        now: a function that returns the time in seconds, from any starting point.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start the stopwatch."""
        self.now = now
        self._began = now()

    @property
    def seconds(self) -> float:
        """The number of seconds since the stopwatch was started."""
        return self.now() - self._began


class TimePlan:
    """Divides the time of a run among validation, steps, saving and the fit of the prior's weight.

    Without a limit, nothing is cut short, and only the remaining time is estimated.

    Attributes:
        watch: the stopwatch of the run.
        limit: the time limit in seconds, or infinity.
        parts: the number of users (or packs) of each validation; 0 for no validation.
        fit_users: the number of users to fit the prior's weight on; 0 fits nothing.
        writing: the seconds that writing the run folder takes, not counting the weights.
        saving: the seconds that writing a checkpoint takes.
        preparing: the seconds that rebuilding the prior for the fit takes.
    """

    def __init__(
        self,
        watch: Stopwatch,
        limit: float | None = None,
        *,
        fit_users: int = 0,
        saving: float = 1.0,
    ) -> None:
        """Start with guesses, which are replaced by measurements.

        Args:
            watch: the stopwatch, started when the command began.
            limit: the time limit in seconds; None for no limit.
            fit_users: the number of users to fit the prior's weight on; 0 fits nothing.
            saving: an estimate of the seconds that writing a checkpoint takes.
        """
        self.watch = watch
        self.limit = math.inf if limit is None else limit
        self.parts = 0
        self.fit_users, self.saving, self._saved = fit_users, saving, False
        self.writing, self.preparing = _WRITING, 0.0
        self._available = self.limit - watch.seconds  # what is left after loading
        self._per_part = 0.0
        self._round = 0.0
        self._validated = 0.0
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self._first_step: float | None = None
        self._fit_began = 0.0

    @property
    def limited(self) -> bool:
        """True if there is a time limit."""
        return self.limit < math.inf

    @property
    def left(self) -> float:
        """The seconds until the limit; negative if it has passed."""
        return self.limit - self.watch.seconds

    def plan_validation(
        self, size: int, probe: Callable[[int], object], before: int | None
    ) -> None:
        """Choose the number of users for each validation so that it fits into any time limit.

        Args:
            size: the preferred number of users (or packs).
            probe: a function that validates on the given number of users, to measure the time.
            before: the number used earlier in the same run, which is kept so that the results can be
                compared; None for a new run.
        """
        self._available = self.left
        self.parts = wanted = size if before is None else before
        if not self.limited:
            return
        if self._available <= 0:
            self.parts = 0
            return
        few, began = min(PROBE, size), self.watch.now()
        probe(few)
        self._per_part = (self.watch.now() - began) / few
        affordable = size
        if self._per_part > 0:
            affordable = int(_ROUND * self._available / self._per_part)
        if affordable < wanted:
            self.parts = affordable if before is None and affordable >= _FEWEST else 0
        self._round = self.parts * self._per_part

    def validated(self, seconds: float) -> None:
        """Record the duration of a validation."""
        self._validated += seconds
        self._round = seconds
        self._per_part = seconds / max(self.parts, 1)

    def stepped(self, seconds: float) -> None:
        """Record the duration of a training step. The first one is slower than the others."""
        if self._first_step is None:
            self._first_step = seconds
        else:
            self._steps.append(seconds)

    def saved(self, seconds: float) -> None:
        """Record the duration of writing a checkpoint."""
        self.saving, self._saved = seconds, True

    @property
    def must_save(self) -> bool:
        """True if a checkpoint should be written to measure how long this takes."""
        return self.limited and not self._saved

    @property
    def step(self) -> float:
        """The mean duration of the latest steps."""
        return fmean(self._steps) if self._steps else self._first_step or 0.0

    @property
    def fitting(self) -> float:
        """The seconds that fitting the prior's weight is expected to take."""
        if not self.fit_users:
            return 0.0
        wanted = self.fit_users * (_FIT_PER_VALIDATION * self._per_part + _ARITHMETIC)
        fixed = self.preparing
        if not self.limited:
            return wanted + fixed
        kept = max(_FIT * self._available, 0.0)
        return fixed + (min(wanted, kept) if self._per_part else kept)

    @property
    def ending(self) -> float:
        """The seconds that are needed after the last step."""
        return self._round + 2 * self.saving + self.writing + self.fitting + _LEAVING

    @property
    def late(self) -> bool:
        """True if one more step would leave too little time for the work after the last step."""
        if not self.limited:
            return False
        longest = max(self._steps, default=self._first_step or 0.0)
        return self.left < self.ending + longest + _MARGIN * self.limit

    def may_validate(self, *, last: bool = False) -> bool:
        """Return True if there is time for a validation.

        Args:
            last: True for the validation after the last step, for which time is reserved.
        """
        if not self.parts:
            return False
        if not self.limited:
            return True
        if last:
            return self.left > self._round
        return self._affordable_rounds >= 1 and self.left > self.ending + self._round

    @property
    def _affordable_rounds(self) -> float:
        """The number of validations for which there is time before the final one."""
        return max((_ROUNDS * self._available - self._validated) / max(self._round, 1e-9) - 1, 0.0)

    def may_fit(self, done: int = 0) -> bool:
        """Return True if there is time to fit the prior's weight on one more user.

        Args:
            done: the number of users done so far.
        """
        if not self.limited:
            return True
        if not done:
            self._fit_began = self.watch.now()
            next_user = self.preparing + _FIT_PER_VALIDATION * self._per_part
        else:
            next_user = 1.5 * (self.watch.now() - self._fit_began) / done
        return self.left > next_user + done * _ARITHMETIC + _LEAVING + _MARGIN * self.limit

    def remaining(self, steps: int, validations: float) -> float:
        """Estimate the seconds until the command ends.

        Args:
            steps: the number of steps left if there is no time limit.
            validations: the number of validations left before the final one.
        """
        if self.limited and self._round:
            validations = min(validations, self._affordable_rounds)
        whole = steps * self.step + validations * self._round + self.ending
        return max(min(whole, self.left), 0.0)

    def describe(self) -> str:
        """Describe in one or two sentences how the time is divided; there must be a time limit."""
        training = max(self.left - self.ending, 0.0)
        rest = ["saving"]
        if self.parts:
            rest.insert(0, "validation")
        if self.fit_users:
            rest.append("fitting the weight of the prior")
        last = rest.pop()
        listed = f"{', '.join(rest)} and {last}" if rest else last
        text = (
            f"Of {self.limit / 60:g} minutes, {self.watch.seconds:.0f} seconds have passed. Training has "
            f"about {training:.0f} seconds, and the rest is for {listed}."
        )
        return text if self.parts else f"{text} There is no time for validation, or no need of it."
