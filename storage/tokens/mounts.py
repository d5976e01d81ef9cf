"""Which type of file system holds a path, and whether it is one of this machine's own."""

import os
import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")  # in mountinfo a space is \040
_LOCAL = ("ext", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "apfs", "bcachefs")


def is_local(filesystem: str) -> bool:
    """Whether a type of file system is one of this machine's own disks or its memory."""
    return filesystem.startswith(_LOCAL)


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Type of the file system that holds a path, or "unknown" where the system does not say."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return "unknown"
    place, best = os.path.realpath(path), ("", "unknown")
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields.split()[4])
        if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, rest.split()[0])
    return best[1]
