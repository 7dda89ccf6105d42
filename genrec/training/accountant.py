"""Find the noise with which a training is differentially private, by the accountant of Opacus.

This module deals with numbers only: Rényi differential privacy of the subsampled Gaussian mechanism (Mironov et
al. 2019), and a Gaussian release of counts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from genrec.errors import SettingsError
from genrec.extras import how_to_install
from genrec.training.config import Training

PRIOR_SHARE = 0.25  # the noise of the prior's counts is that of this share of epsilon alone
ACCOUNTANT = "rdp"


@dataclass(frozen=True, slots=True)
class Privacy:
    """The guarantee of a run, and what it follows from.

    Attributes:
        epsilon, delta: the guarantee: whoever sees the run and all other users' events learns at most
            this much about whether a user was in the data.
        noise: the standard deviation of the noise of a step, as a multiple of ``clip``.
        clip: the norm to which a user's gradient is clipped.
        users: the number of users.
        rate: the probability with which a user is drawn in a step.
        steps: the number of steps.
        prior_noise: the standard deviation of the noise of the prior's counts, as a multiple of
            ``PRIOR_NORM``.
        accountant: the accountant that computed epsilon.
        unit: what is protected: all events of a user.
    """

    epsilon: float
    delta: float
    noise: float
    clip: float
    users: int
    rate: float
    steps: int
    prior_noise: float
    accountant: str = ACCOUNTANT
    unit: str = "user"


def plan(training: Training, targets: int, users: int) -> Privacy:
    """Find the noise with which a run reaches its epsilon.

    Args:
        training: the training settings.
        targets: the number of targets in one pass.
        users: the number of users with targets.

    Raises:
        SettingsError: epsilon or delta cannot be reached, or Opacus is not installed.
    """
    epsilon = training.dp_epsilon
    assert epsilon is not None
    if training.dp_users > users:
        msg = (
            f"dp_users={training.dp_users:,} is more than the {users:,} users with targets. Expected at most "
            f"{users:,}."
        )
        raise SettingsError(msg)
    rate = training.dp_users / users
    passes = training.epochs
    if training.max_targets is not None:
        passes = training.max_targets / targets
    steps = max(1, round(passes / rate))
    delta = training.dp_delta if training.dp_delta is not None else users**-1.1
    if not 0 < delta < 1 / users:
        msg = (
            f"dp_delta={delta:g} is not valid for {users:,} users. Expected a number above 0 and below "
            f"{1 / users:g}, which is one divided by the number of users."
        )
        raise SettingsError(msg)
    prior_noise = find_noise(PRIOR_SHARE * epsilon, delta, [(1.0, 1)])
    noise = find_noise(epsilon, delta, [(rate, steps)], [(prior_noise, 1.0, 1)])
    reached = epsilon_of([(noise, rate, steps), (prior_noise, 1.0, 1)], delta)
    return Privacy(reached, delta, noise, training.dp_clip, users, rate, steps, prior_noise)


def epsilon_of(history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """Return the epsilon of steps, each given as noise, rate and number, by the RDP accountant.

    Raises:
        SettingsError: Opacus is not installed.
    """
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise SettingsError(f"--dp-epsilon needs Opacus. {how_to_install('dp')}") from error
    accountant = RDPAccountant()
    accountant.history = [tuple(each) for each in history if each[2]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order is the largest one that is tried
        return float(accountant.get_epsilon(delta))


def find_noise(
    epsilon: float,
    delta: float,
    steps: Sequence[tuple[float, int]],
    others: Sequence[tuple[float, float, int]] = (),
) -> float:
    """Find the smallest noise, to within a thousandth, with which steps reach an epsilon.

    Args:
        epsilon: the guarantee.
        delta: the probability with which it may fail.
        steps: the rate and the number of the steps.
        others: further steps with their noise, which count towards epsilon.

    Raises:
        SettingsError: no noise is enough.
    """

    def reached(noise: float) -> float:
        return epsilon_of([*((noise, *each) for each in steps), *others], delta)

    low, high = 0.05, 0.1
    while reached(high) > epsilon:
        low, high = high, 2 * high
        if high > 1e4:
            msg = f"dp_epsilon={epsilon:g} cannot be reached with dp_delta={delta:g}. Raise dp_epsilon."
            raise SettingsError(msg)
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if reached(middle) > epsilon else (low, middle)
    return high
