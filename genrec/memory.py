"""Check that there is enough memory before a step that needs a lot of it."""

from __future__ import annotations

from pathlib import Path

from genrec.errors import SettingsError

_CGROUPS = (  # for versions 2 and 1 of control groups: the folder, and the names of its files
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_memory() -> int:
    """Return how many bytes of memory this process can still use.

    In a container, this is at most what the container's limit leaves. Cached files do not count as
    used, since they give way.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for folder, limit, usage, cached in _CGROUPS:
        try:
            most, used = (int(Path(folder, name).read_text()) for name in (limit, usage))
        except (OSError, ValueError):  # no such file, or "max"
            continue
        free = min(free, max(most - used + _read_statistic(Path(folder), cached), 0))
    return free


def _read_statistic(folder: Path, name: str) -> int:
    """Return a number from the file memory.stat of a control group; 0 if it is not there."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


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
