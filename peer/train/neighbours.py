"""How many threads a worker may take on a machine that it shares with other workers, and with the daemons."""

from pathlib import Path

from configs.cores import usable_cores

NAME = "shoal-worker"  # by which workers know each other in the kernel's list of processes


def fair_threads() -> int:
    """Return this worker's part of the cores of this machine, in threads."""
    return threads_for(usable_cores(), count())


def threads_for(cores: float, workers: int) -> int:
    """Return how many threads one of `workers` takes: an even part, of more than two cores all but one.

    Two threads more than there are cores cost most of the speed: each waits for the others at every operation.
    """
    free = cores - 1 if cores > 2 else cores
    return max(1, int(free / max(1, workers)))


def count() -> int:
    """Return the number of workers on this machine, of whatever peer; 0 where it cannot be known."""
    names = (_name(path) for path in Path("/proc").glob("[0-9]*/comm"))
    return sum(name == NAME for name in names)


def _name(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # it ended
        return ""
