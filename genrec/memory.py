"""Check that there is enough memory before a step that needs a lot of it."""

from __future__ import annotations

from pathlib import Path

from genrec.errors import SettingsError

_CGROUPS = (  # the limit of a container, and what it uses, in version 2 and 1 of control groups
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory() -> int:
    """Return how many bytes of memory this process can still use.

    In a container, this is at most what the container's limit leaves.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _CGROUPS:
        try:
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        free = min(free, max(left, 0))
    return free


def check_memory(what: str, needed: int, advice: str) -> None:
    """Check that a step does not need more memory than is free.

    Args:
        what: what needs the memory, as the subject of a sentence.
        needed: the number of bytes.
        advice: a sentence that says what to do instead.

    Raises:
        SettingsError: the step needs more memory than is free.
    """
    free = free_memory()
    if needed > free:
        msg = (
            f"{what} needs about {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free. "
            f"{advice}"
        )
        raise SettingsError(msg)
