"""Define the limits of a service. They are options of the command ``serve``."""

from __future__ import annotations

from dataclasses import dataclass, fields

from genrec.config import check_value, option

PANEL = "Limits"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a service. Each field is described by its metadata; see ``genrec.config``."""

    queue: int = option(
        64,
        PANEL,
        "Number of requests that may wait for the model. Further ones are refused with status 429.",
        least=1,
        most=10_000,
    )
    share: int = option(
        8, PANEL, "Number of requests that may share a pass of the model.", least=1, most=256
    )
    deadline: float = option(
        30.0,
        PANEL,
        "Seconds after which a request is given up, unless it has a deadline of its own.",
        least=0.001,
        most=3600,
    )
    hangs_after: float = option(
        120.0,
        PANEL,
        "Seconds after which a request that is still being computed counts as hanging, which /healthz "
        "reports.",
        least=0.001,
        most=86_400,
    )
    refresh: float = option(
        2.0,
        PANEL,
        "Seconds between updates of the prior by new events. The history of a user is always up to date.",
        least=0.01,
        most=86_400,
    )
    most_bytes: int = option(
        4_000_000, PANEL, "Size of the largest request in bytes.", least=1000, most=100_000_000
    )
    rate: str | None = option(
        None,
        PANEL,
        "Number of requests that each key may send, such as 600/minute.",
        metavar="RATE",
        unset="no limit",
    )

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            SettingsError: a value is invalid.
        """
        for f in fields(self):
            check_value(f.name, getattr(self, f.name), str(f.type), f.metadata)
