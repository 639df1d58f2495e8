"""What the machine has left: memory and disk space, in bytes."""

import os
import shutil
from pathlib import Path

from sememe.errors import SememeError

_PROCESS = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")


def memory_used() -> int:
    """Return how much memory this process holds; 0 where the system does not tell."""
    try:
        pages = int((_PROCESS / "statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_free(meminfo: Path = Path("/proc/meminfo"), groups: Path = _GROUPS) -> int:
    """Return how much more memory this process can have.

    The least of what the system says is available and what the control groups leave (a container's
    limit), whose file cache counts as free. Where the system does not say, half of what it has.
    """
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    left = [_left(group) for group in _own_groups(groups)]
    return min([free, *(bytes_left for bytes_left in left if bytes_left is not None)])


def _own_groups(groups: Path) -> list[Path]:
    """Return the control groups of this process, of both versions, and those they lie in."""
    try:
        lines = (_PROCESS / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = [groups, groups / "memory"]  # in a container its own group may be the root
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            root = groups / "memory" if controllers else groups
            own = root / path.lstrip("/")
            found += [own, *(above for above in own.parents if above.is_relative_to(root))]
    return list(dict.fromkeys(found))


def _left(group: Path) -> int | None:
    """Return what a group leaves of its limit; None where there is no group or no limit."""
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for limit, usage, cache in names:
        try:
            most, used = ((group / name).read_text().strip() for name in (limit, usage))
            facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return None if most == "max" else max(0, int(most) - int(used) + int(facts[cache]))
        except (OSError, KeyError, ValueError):
            continue
    return None


def disk_free(place: Path) -> int:
    """Return the free bytes of the disk where ``place`` is, or would be made."""
    return shutil.disk_usage(nearest_folder(place)).free


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        pass
    return True


def nearest_folder(place: Path) -> Path:
    """Return ``place``, or the nearest folder above it that exists.

    SememeError for a place inside a file.
    """
    folder = place.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise SememeError(f"{place} cannot be made: {folder} is a file")
    return folder
