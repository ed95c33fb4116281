"""The workers that this process has started; a bare table, for a run's status reads it and a start writes it."""

import subprocess
import threading
from pathlib import Path

_workers: dict[Path, tuple[float, subprocess.Popen]] = {}  # of each run the last one, and the time it was started at
_lock = threading.Lock()  # the app's sessions are threads


def add(run: Path, started: float, worker: subprocess.Popen) -> None:
    """Note a run's worker and the `updated` of the status that it was started with."""
    with _lock:
        _workers[run] = started, worker


def ended(run: Path) -> dict[float, bool]:
    """Whether the run's worker has ended, by the time it was started at; empty for one of another process.

    Asks all workers for their exit status, which leaves no zombie, and forgets those that ended well and those of
    deleted runs. Of one that failed the status may still say that it starts, so it stays until the run's next start.
    """
    with _lock:
        for path, (_, worker) in list(_workers.items()):
            if worker.poll() == 0 or (worker.poll() is not None and not path.exists()):
                del _workers[path]
        return {started: worker.poll() is not None for started, worker in filter(None, [_workers.get(run)])}
