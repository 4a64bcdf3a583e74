"""How much of the disk a peer's state directory takes, and whether something more may come: the cap is the owner's."""

import os
from pathlib import Path

from configs.limits import GB


class Room:
    """The room that is left in a state directory; one that was never given a folder has no end."""

    def __init__(self, folder: Path | None = None, disk_gb: float | None = None) -> None:
        self.folder, self.disk_gb = folder, disk_gb
        self.used_bytes = 0  # at the last look, and what was let in since
        self.is_known = False  # whether there was a look

    @property
    def over_bytes(self) -> int:
        """How many bytes more than the cap are taken; 0 within it."""
        return 0 if self.disk_gb is None else max(0, self.used_bytes - int(self.disk_gb * GB))

    def takes(self, size_bytes: int) -> bool:
        """Return whether so much more may come, and count it if it may."""
        if self.disk_gb is not None and self.used_bytes + size_bytes > self.disk_gb * GB:
            return False
        self.used_bytes += size_bytes
        return True

    def look(self) -> None:
        """Find out how much is taken. Reads all names in the folder: in a thread."""
        if self.folder is not None:
            self.used_bytes, self.is_known = disk_bytes(self.folder), True


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes of its disk, a file with several names once; what vanishes meanwhile takes nothing."""
    total, seen = 0, set[tuple[int, int]]()
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                facts = (Path(place) / name).lstat()
            except OSError:
                continue
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                total += 512 * facts.st_blocks
    return total
